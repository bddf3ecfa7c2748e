"""Target propagation and straight-through BPTT as the released code of Manchev & Spratling (2024) runs them.

`onward.TPTT` does what their paper says, and `onward.BPTT` what it is compared with; reproducing the published numbers takes
what the code does instead. Here it is a learner whose fields are the differences, each of which can be undone by itself.
For simple recurrent networks that answer at the last step. Nothing else in the package uses this.
"""

import dataclasses
import functools
import math
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

import onward as ow
from onward.lab.papers.authors_heads import VarianceMixture
from onward.learners.base import Rate, require_sequences
from onward.learners.bptt import BPTTState
from onward.learners.inverses import Transition
from onward.learners.tptt import TPTTState
from onward.random import seed_of, uniform
from onward.trees import apply_scaled
from onward.types import PyTree

Split = Literal["units", "rows"]
Average = Literal["probabilities", "logits"]


@functools.cache
def adagrad(eps: float = 1e-10) -> optax.GradientTransformation:
    """AdaGrad of unit step size as PyTorch has it: update = -g / (sqrt(s) + eps), s <- s + g^2, from s = 0.

    `optax.adagrad` and `optax.scale_by_rss` have eps under the root, where 1e-10 outweighs the squares of
    local gradients: these fall as 1 / (batch^2 units), to 1e-7 and less.
    """

    def init(parameters: PyTree) -> PyTree:
        return jax.tree.map(jnp.zeros_like, parameters)

    def update(gradient: PyTree, total: PyTree, parameters: PyTree = None) -> tuple[PyTree, PyTree]:
        total = jax.tree.map(lambda s, g: s + g * g, total, gradient)
        return jax.tree.map(lambda g, s: -g / (jnp.sqrt(s) + eps), gradient, total), total

    return optax.GradientTransformation(init, update)


def start(model: ow.Model, *, key: PRNGKeyArray) -> ow.Model:
    """Their start: input, recurrent and readout weights orthogonal, every bias 0.

    A mixture's weights of pi, mu and sigma are three orthogonal matrices, and its components differ by them only.
    """
    input_key, recurrent_key, head_key = jax.random.split(key, 3)
    draw = jax.nn.initializers.orthogonal()
    layer, head = _layer(model.cell, "start"), _plain(model.head)
    if not isinstance(head, ow.Categorical | ow.Mixture):
        raise TypeError(f"start: the head must be a Categorical or a Mixture, got {type(head).__name__}")
    rows, features = head.weight.shape
    blocks = [rows]
    if isinstance(head, ow.Mixture):
        blocks = [head.components, rows - 2 * head.components, head.components]
    keys = jax.random.split(head_key, len(blocks))
    weights = [draw(k, (block, features)) for k, block in zip(keys, blocks, strict=True)]
    pick = lambda m: (*_arrays(_layer(m.cell)), _plain(m.head).weight, _plain(m.head).bias)
    new = (
        draw(input_key, (layer.inputs, layer.units))[:, None],
        draw(recurrent_key, (layer.units, layer.units))[:, None],
        jnp.zeros_like(layer.bias),
        jnp.concatenate(weights),
        jnp.zeros_like(head.bias),
    )
    return eqx.tree_at(pick, model, new)


class Propagated(NamedTuple):
    """What one batch says: the inverse is that after its update, and everything below it follows from that.

    `local_loss` is the sum over steps of the mean squared distance to targets; hidden and shifts are
    (time, samples, batch, units), of the samples that train the recurrent weights.
    """

    inverse: PyTree
    inverse_optimiser: PyTree
    inverse_loss: Array
    inverse_gradient: PyTree
    loss: Array
    predictions: Array
    gradient: PyTree
    local_loss: Array
    hidden: Array
    shifts: Array


class AbstractAuthors(ow.AbstractLearner):
    """What both learners share: which part of a network is sampled, and how its samples are read.

    The code's ways are the defaults of the fields.
    """

    optimiser: optax.GradientTransformation = eqx.field(default=adagrad(), static=True)
    step_size: Rate = 1.0
    """alpha_f"""
    split: Split = eqx.field(default="rows", static=True)
    """Their stochastic half is the first half of the rows of a batch, with all their units, and not half of the units."""
    in_place: bool = eqx.field(default=True, static=True)
    """Their samples overwrite h, so nothing flows through one. False: straight-through, the derivative of a sample by its mean is 1
    (Appendix A)."""
    average: Average = eqx.field(default="probabilities", static=True)
    """Of the M samples: their STPTT averages the probabilities, their STE the logits."""
    last_sample: bool = eqx.field(default=True, static=True)
    """Their code trains F on the last of the M samples only. False: on all."""
    reversed_firing: bool = eqx.field(default=False, static=True)
    """Appendix A of the paper lets a unit fire when z > h, so with probability 1 - h; the code has z < h."""

    def __check_init__(self) -> None:
        owner = type(self).__name__
        for field in dataclasses.fields(self):
            rate = getattr(self, field.name)
            if field.name.endswith("step_size") and isinstance(rate, int | float) and not 0 < rate < math.inf:
                raise ValueError(f"{owner}: {field.name} must be positive and finite, got {rate}")
        if self.split not in ("units", "rows"):
            raise ValueError(f"{owner}: split must be 'units' or 'rows', got {self.split!r}")
        if self.average not in ("probabilities", "logits"):
            raise ValueError(f"{owner}: average must be 'probabilities' or 'logits', got {self.average!r}")

    def require(self, model: ow.Model, example: ow.Sequence) -> None:
        """Refuse networks and batches that the authors' code has no form for."""
        owner, cell = type(self).__name__, model.cell
        _layer(cell, owner)
        require_sequences(owner, model, example)
        if len(example.mask) != 1:
            raise ValueError(f"{owner}: the loss must be at the last step only, a mask of shape (1, batch)")
        batch = example.xs.shape[1]
        if isinstance(cell, ow.Hybrid) and cell.share and not self.sampled(cell, batch):
            raise ValueError(f"{owner}: a share of {cell.share} of {batch} rows is no whole row; take more rows")
        if self.average == "logits" and model.head.trajectories and not isinstance(_plain(model.head), ow.Categorical):
            raise TypeError(
                f"{owner}: logits to average are those of a Categorical; average='probabilities' fits any head"
            )

    def unroll(
        self, cell: ow.AbstractCell, xs: Array, key: PRNGKeyArray, samples: int, *, cut: bool = False
    ) -> tuple[Float[Array, "time samples batch units"], Float[Array, "samples batch units"]]:
        """h_1 ... h_T, and what the readout sees of h_T, of a layer that reads xs (time, batch, 1) so many times.

        `cut`: no gradient crosses a step.
        """
        layer, seed = _layer(cell), seed_of(key)
        weight, recurrent, bias = (a[:, 0] if a.ndim == 3 else a[0] for a in _arrays(layer))
        drive = xs @ weight + bias[None, None]
        # h_0 = 0 is given and no sample.
        before = jnp.zeros((samples, *drive.shape[1:]), drive.dtype)
        h = layer.gates((before + drive[:1],), (before,))[0]

        def step(h: Array, inputs: Any) -> tuple[Array, Array]:
            t, drive = inputs
            h = lax.stop_gradient(h) if cut else h
            h = layer.gates((self.read(cell, h, seed, t) @ recurrent + drive[None],), (h,))[0]
            return h, h

        last, rest = lax.scan(step, h, (jnp.arange(1, len(xs)), drive[1:]))
        return jnp.concatenate([h[None], rest]), self.read(cell, last, seed, jnp.asarray(len(xs)))

    def read(
        self, cell: ow.AbstractCell, h: Float[Array, "samples batch units"], seed: UInt32[Array, "2"], t: Array
    ) -> Float[Array, "samples batch units"]:
        """What is seen of h: binary samples of some rows or units, the others as they are."""
        count = self.sampled(cell, h.shape[1])
        if not count:
            return h
        axis = 1 if self.split == "rows" else 2
        mean, rest = jnp.split(h, [count], axis)
        low, high = _layer(cell).gates.span or (0.0, 1.0)
        drawn = uniform(seed, t, jnp.arange(mean.size, dtype=jnp.uint32)).reshape(mean.shape)
        drawn = drawn.astype(h.dtype) * (high - low) + low
        fires = drawn > mean if self.reversed_firing else drawn < mean
        value = jnp.where(fires, high, low).astype(h.dtype)
        if not self.in_place:
            value = mean + lax.stop_gradient(value - mean)
        return jnp.concatenate([value, rest], axis)

    def sampled(self, cell: ow.AbstractCell, batch: int) -> int:
        """How many rows or units are sampled."""
        if not isinstance(cell, ow.Hybrid):
            return 0
        return int(cell.share * batch) if self.split == "rows" else cell.stochastic

    def mean_loss(
        self, head: ow.AbstractHead, reading: Array, example: ow.Sequence, *, last: bool = False
    ) -> tuple[Array, Array]:
        """E of what is read, and the predictions (1, batch, ...) as `head` gives them.

        Where logits are averaged, that of every sample is their average. `last`: every sample's prediction has the
        derivative of the last one's.
        """
        answer: Any = head
        if head.trajectories is None:
            predictions = jax.vmap(answer)(reading[0])
        else:
            predictions = jax.vmap(answer, in_axes=1)(reading)
            if last:
                predictions = predictions[:, -1:] + lax.stop_gradient(predictions - predictions[:, -1:])
            if self.average == "logits":
                # These have a constant a sample subtracted, which softmax does not see.
                mean = jnp.mean(predictions, 1, keepdims=True)
                predictions = jnp.broadcast_to(jax.nn.log_softmax(mean), predictions.shape)
        log_probs = jax.vmap(head.log_prob)(predictions, example.y[0])
        return -jnp.sum(log_probs * example.mask[0]) / jnp.sum(example.mask), predictions[None]


class AuthorsTPTT(AbstractAuthors):
    """Target propagation through time as its authors' code has it, deterministic (TPTT) or stochastic (STPTT).

    A batch trains the inverse G first, then the network F towards targets that the new G sets:

        h_t = F(x_t, read(h_{t-1})),     target_T = h_T - alpha_i dE/dh_T,     E the mean loss of the batch
        target_{t-1} = h_{t-1} - G(x_t, h_t) + G(x_t, target_t),    L = sum_t mean |h_t - target_t|^2

    where means are over rows and units. F descends L with rate `step_size` (alpha_f) and the readout E with the same; G descends
    sum_t mean |G(x_t, h_t) - h_{t-1}|^2 with `inverse_step_size` (alpha_g). First shifts fall as 1 / batch, and
    the gradient of L once more so; AdaGrad hides both. Differences of G are taken analytically (theirs lose digits to rounding).

    The network is the model's: a simple recurrent layer, or a `Hybrid` of one, of which `share` of the units or rows
    are sampled; its head may be a `MonteCarlo` of M samples. F is trained on the last of these only (the readout on all),
    or on the sum of the losses L of all; in place, h_T of a sampled row is not trained. Two of the code's ways are not
    here: of an epoch of many batches, it trains G on all before F, and it visits batches in a fixed order.

    Cost: that of BPTT with one sample, the forward pass of M - 1 others, one linear map a step for the shifts, and G's own loss.
    """

    inverse: ow.AffineInverse = ow.AffineInverse()
    """G; they take tanh units in both experiments."""
    inverse_optimiser: optax.GradientTransformation = eqx.field(default=adagrad(), static=True)
    inverse_step_size: Rate = 1.0
    """alpha_g"""
    target_step_size: Rate = 1.0
    """alpha_i"""
    detached: bool = eqx.field(default=False, static=True)
    """Their code leaves h_{t-1} in the graph of step t's loss, so every local loss is backpropagated to the first step."""
    shared_inputs: bool = eqx.field(default=True, static=True)
    """Their G reads x through the input weights of F (as eq. 4 prints it), as F has them, and trains V and c alone."""

    def __check_init__(self) -> None:
        if self.inverse.training != "reconstruction" or self.inverse.noise:
            raise ValueError("AuthorsTPTT: inverse must learn by plain reconstruction, AffineInverse(noise=0)")

    def init(self, model: ow.Model, example: ow.Sequence, *, key: PRNGKeyArray) -> TPTTState:
        """Start; `example` gives shapes only."""
        self.require(model, example)
        inverse_key, key = jax.random.split(key)
        inverse = self.inverse.init(model.cell, key=inverse_key)
        optimiser = self.optimiser.init(eqx.filter(model, model.trainable()))
        of_inverse = self.inverse_optimiser.init(inverse)
        return TPTTState(model, model.cell.init().stats, inverse, optimiser, of_inverse, key, jnp.zeros((), jnp.int32))

    def step(self, state: TPTTState, example: ow.Sequence) -> tuple[TPTTState, ow.Info]:
        """One batch: G, then F."""
        passed = self.propagate(state, example, key=jax.random.fold_in(state.key, state.steps))
        parameters, rest = eqx.partition(state.model, state.model.trainable())
        updates, optimiser = self.optimiser.update(passed.gradient, state.optimiser, parameters)
        state = state._replace(
            model=eqx.combine(apply_scaled(parameters, updates, self.step_size), rest),
            inverse=passed.inverse,
            optimiser=optimiser,
            inverse_optimiser=passed.inverse_optimiser,
            steps=state.steps + 1,
        )
        return state, ow.Info(passed.predictions, passed.loss)

    def loss(self, model: ow.Model, example: ow.Sequence, *, key: PRNGKeyArray) -> tuple[Array, Array]:
        """E of the network as it is trained, and its predictions (1, batch, ...)."""
        samples = model.head.trajectories or 1
        reading = self.unroll(model.cell, example.xs, key, samples)[1]
        return self.mean_loss(model.head, reading, example)

    def propagate(self, state: TPTTState, example: ow.Sequence, *, key: PRNGKeyArray) -> Propagated:
        """The update of G, and the gradients of F and of the readout."""
        model, xs = state.model, example.xs
        parameters, rest = eqx.partition(model, model.trainable())
        inverse_key, trained_key, other_key = jax.random.split(key, 3)
        samples = model.head.trajectories or 1
        trained = 1 if self.last_sample else samples
        scale = 2 / (xs.shape[1] * model.cell.feature_count)  # the mean, and its square's derivative
        sampled = self.sampled(model.cell, xs.shape[1]) > 0

        def forward(parameters: PyTree) -> tuple[Array, Array]:
            cell = eqx.combine(parameters, rest.cell)
            hidden, reading = self.unroll(cell, xs, trained_key, trained, cut=self.detached)
            if self.in_place and sampled:
                hidden = jnp.concatenate([hidden[:-1], reading[None]])
            return hidden, reading

        hidden, pull, reading = jax.vjp(forward, parameters.cell, has_aux=True)
        others = self.unroll(model.cell, xs, other_key, samples - trained)[1] if samples > trained else reading[:0]

        observed = self.unroll(model.cell, xs, inverse_key, 1)[0] if sampled else hidden[:, :1]
        reconstruct = jax.value_and_grad(lambda w: scale * self._reconstruction(w, model.cell, xs, observed))
        inverse_loss, inverse_gradient = reconstruct(state.inverse)
        updates, inverse_optimiser = self.inverse_optimiser.update(
            inverse_gradient, state.inverse_optimiser, state.inverse
        )
        inverse = apply_scaled(state.inverse, updates, self.inverse_step_size)

        def lose(head: PyTree, reading: Array) -> tuple[Array, Array]:
            head = eqx.combine(head, rest.head)
            return self.mean_loss(head, jnp.concatenate([others, reading]), example)

        graded = jax.value_and_grad(lose, argnums=(0, 1), has_aux=True)
        (loss, predictions), (head_gradient, blame) = graded(parameters.head, reading)
        first = -self.target_step_size * blame
        shifts = self._targets(inverse, model.cell, xs, hidden, first)
        (gradient,) = pull(-scale * shifts)
        spec = eqx.filter(model, jax.tree.map(lambda _: False, model))
        return Propagated(
            inverse=inverse,
            inverse_optimiser=inverse_optimiser,
            inverse_loss=inverse_loss,
            inverse_gradient=inverse_gradient,
            loss=loss,
            predictions=predictions,
            gradient=eqx.tree_at(lambda m: (m.cell, m.head), spec, (gradient, head_gradient)),
            local_loss=scale / 2 * jnp.sum(jnp.square(shifts)),
            hidden=hidden,
            shifts=shifts,
        )

    def _weights(self, weights: Any, cell: ow.AbstractCell) -> Any:
        return weights._replace(inputs=_layer(cell).weight[:, 0]) if self.shared_inputs else weights

    def _reconstruction(self, weights: Any, cell: ow.AbstractCell, xs: Array, hidden: Array) -> Array:
        """Sum over steps, rows and units of |G(x_t, h_t) - h_{t-1}|^2 / 2."""
        weights = self._weights(weights, cell)

        def squared_error(x: Array, before: Array, after: Array) -> Array:
            transition: Any = Transition(ow.Carry((before,), None), x, (after,), None)  # type: ignore[arg-type]
            return self.inverse.loss(weights, cell, transition, key=None)  # type: ignore[arg-type]

        flat = lambda a: a.reshape(-1, a.shape[-1])
        return jnp.sum(jax.vmap(squared_error)(flat(xs[1:]), flat(hidden[:-1]), flat(hidden[1:])))

    def _targets(self, weights: Any, cell: ow.AbstractCell, xs: Array, hidden: Array, first: Array) -> Array:
        """Target - h of every step, from the last one's."""
        weights = self._weights(weights, cell)

        def shift(x: Array, before: Array, after: Array, d: Array) -> Array:
            transition: Any = Transition(ow.Carry((before,), None), x, (after,), None)  # type: ignore[arg-type]
            return self.inverse.shift(weights, cell, transition, (), (d,))[0]

        def back(d: Array, inputs: Any) -> tuple[Array, Array]:
            rows: Any = jax.vmap(shift)
            by_sample: Any = jax.vmap(rows, in_axes=(None, 0, 0, 0))
            d = by_sample(*inputs, d)
            return d, d

        earlier = lax.scan(back, first, (xs[1:], hidden[:-1], hidden[1:]), reverse=True)[1]
        return jnp.concatenate([earlier, first[None]])


class AuthorsSTE(AbstractAuthors):
    """Straight-through BPTT, the baseline of STPTT, as its authors' code has it: BPTT on the same network, E the mean loss.

    With `in_place`, half the batch trains no recurrent weight: a sampled h is 0 or 1, and the code's
    derivative h (1 - h) there is 0. With `last_sample`, the backward pass takes the last of the M samples for all: readout
    and F get M times its part; else it is the gradient of E. A network without stochastic units and with one sample is
    trained by plain BPTT, as in their mixture experiment.
    """

    average: Average = eqx.field(default="logits", static=True)

    def init(self, model: ow.Model, example: ow.Sequence, *, key: PRNGKeyArray) -> BPTTState:
        """Start; `example` gives shapes only."""
        self.require(model, example)
        optimiser = self.optimiser.init(eqx.filter(model, model.trainable()))
        return BPTTState(model, model.cell.init().stats, optimiser, key, jnp.zeros((), jnp.int32))

    def step(self, state: BPTTState, example: ow.Sequence) -> tuple[BPTTState, ow.Info]:
        """One batch."""
        parameters, rest = eqx.partition(state.model, state.model.trainable())
        key = jax.random.fold_in(state.key, state.steps)
        objective = lambda parameters: self.loss(eqx.combine(parameters, rest), example, key=key)
        (loss, predictions), gradient = jax.value_and_grad(objective, has_aux=True)(parameters)
        updates, optimiser = self.optimiser.update(gradient, state.optimiser, parameters)
        model = eqx.combine(apply_scaled(parameters, updates, self.step_size), rest)
        state = state._replace(model=model, optimiser=optimiser, steps=state.steps + 1)
        return state, ow.Info(predictions, loss)

    def loss(self, model: ow.Model, example: ow.Sequence, *, key: PRNGKeyArray) -> tuple[Array, Array]:
        """E of the network as it is trained, and its predictions (1, batch, ...); its derivative is the learner's."""
        samples, xs = model.head.trajectories or 1, example.xs
        trained = 1 if self.last_sample else samples
        trained_key, other_key = jax.random.split(key)
        reading = self.unroll(model.cell, xs, trained_key, trained)[1]
        if samples > trained:
            fixed = jax.tree.map(lax.stop_gradient, model.cell)
            reading = jnp.concatenate([self.unroll(fixed, xs, other_key, samples - trained)[1], reading])
        return self.mean_loss(model.head, reading, example, last=self.last_sample)


def _arrays(layer: ow.Dense) -> tuple[Array, Array, Array]:
    return layer.weight, layer.recurrent, layer.bias


def _plain(head: ow.AbstractHead) -> Any:
    """Without Monte Carlo and variances."""
    while isinstance(head, ow.MonteCarlo | VarianceMixture):
        head = head.head
    return head


def _layer(cell: ow.AbstractCell, owner: str = "authors") -> ow.Dense:
    layer = cell.cell if isinstance(cell, ow.Hybrid) else cell
    if not isinstance(layer, ow.Dense) or not isinstance(layer.gates, ow.ElmanGates):
        raise TypeError(f"{owner}: the cell must be an Elman layer, or a Hybrid of one, got {type(cell).__name__}")
    if layer.sources is not None or layer.normalise_inputs is not None or layer.normalise_features is not None:
        raise TypeError(f"{owner}: the Elman layer must have no mask and normalise nothing")
    return layer
