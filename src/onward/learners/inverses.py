"""Inverse models: how a change wanted of h_t becomes a change wanted of h_{t-1}.

TPTT hands a *shift* d_t = target - h_t back in time, d_{t-1} = G(x_t, h_t + d_t) - G(x_t, h_t): the difference
correction, with the difference taken analytically, since shifts are 1e-4 of h and smaller. An inverse model has weights
of its own and never reads those of the forward network.
"""

import abc
import math
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from onward.batching import runs
from onward.cells.base import AbstractCell, Derivatives, Parameters, States, pull_back, push_forward
from onward.cells.dense import Dense, loop_back
from onward.cells.hybrid import Hybrid
from onward.parts import AbstractPart
from onward.types import Carry, PyTree

Training = Literal["reconstruction", "difference"]
Squash = Literal["tanh", "sigmoid"]


class Transition(NamedTuple):
    """One step of a cell: from `before`, reading `x` and drawing from `key`, to the hidden state `after`."""

    before: Carry
    x: Float[Array, " inputs"]
    after: PyTree
    key: PRNGKeyArray


class AbstractInverse(AbstractPart):
    """A way back through one step of a cell; weights are a state that `init` makes and the learner trains."""

    @abc.abstractmethod
    def init(self, cell: AbstractCell, *, key: PRNGKeyArray) -> PyTree:
        """Weights for this cell; refuses a cell that it does not fit."""

    def observe(self, cell: AbstractCell, transition: Transition) -> PyTree:
        """What the way back through a transition needs beyond it; taken on the way forward. Default: nothing."""
        return ()

    @abc.abstractmethod
    def shift(self, weights: PyTree, cell: AbstractCell, transition: Transition, seen: PyTree, d: PyTree) -> PyTree:
        """The shift of h_{t-1} for a shift d of h_t, both shaped like the hidden state."""

    @abc.abstractmethod
    def loss(self, weights: PyTree, cell: AbstractCell, transition: Transition, *, key: PRNGKeyArray) -> Array:
        """What training of the weights lowers, for one transition."""

    def follow(self, weights: PyTree, before: AbstractCell, after: AbstractCell) -> PyTree:
        """The weights once the cell has made an update, from `before` to `after`. Default: as they are."""
        return weights


class IdentityInverse(AbstractInverse):
    """Hold: d_{t-1} = d_t. Nothing to learn; right where the state changes slowly."""

    def init(self, cell: AbstractCell, *, key: PRNGKeyArray) -> tuple[()]:
        """No weights, for any cell."""
        return ()

    def shift(
        self, weights: tuple[()], cell: AbstractCell, transition: Transition, seen: tuple[()], d: PyTree
    ) -> PyTree:
        """`d` itself."""
        return d

    def loss(self, weights: tuple[()], cell: AbstractCell, transition: Transition, *, key: PRNGKeyArray) -> Array:
        """0: there is nothing to lower."""
        return jnp.zeros(())


class _Affine(NamedTuple):
    """a = W x + V h + c."""

    inputs: Float[Array, "inputs width"]
    hidden: Float[Array, "states width"]
    bias: Float[Array, " width"]

    def __call__(self, x: Array, h: Array) -> Array:
        return x @ self.inputs + h @ self.hidden + self.bias


def _affine(inputs: int, states: int, width: int, *, key: PRNGKeyArray) -> _Affine:
    input_key, hidden_key = jax.random.split(key)
    draw = jax.nn.initializers.orthogonal()
    return _Affine(draw(input_key, (inputs, width)), draw(hidden_key, (states, width)), jnp.zeros(width))


def _squash(kind: Squash, a: Array) -> Array:
    return jnp.tanh(a) if kind == "tanh" else jax.nn.sigmoid(a)


def squash_difference(kind: Squash, a: Array, e: Array) -> Array:
    """squash(a + e) - squash(a), with all digits of a small e: tanh(e) (1 - tanh(a)^2) / (1 + tanh(a) tanh(e))."""
    if kind == "sigmoid":
        return squash_difference("tanh", a / 2, e / 2) / 2
    t, s = jnp.tanh(a), jnp.tanh(e)
    return s * (1 - t * t) / (1 + t * s)


def _vector(tree: PyTree) -> Array:
    return ravel_pytree(tree)[0]


class AbstractTrained(AbstractInverse):
    """An inverse that says h_{t-1} itself, and is trained on it (`reconstruction`) or on differences of it."""

    training: eqx.AbstractVar[Training]
    noise: eqx.AbstractVar[float]

    def __check_init__(self) -> None:
        owner = type(self).__name__
        if self.training not in ("reconstruction", "difference"):
            raise ValueError(f"{owner}: training must be 'reconstruction' or 'difference', got {self.training!r}")
        if not (0 <= self.noise < math.inf):
            raise ValueError(f"{owner}: noise must be at least 0 and finite, got {self.noise}")

    @abc.abstractmethod
    def value(self, weights: PyTree, transition: Transition) -> Array:
        """G(x_t, h_t), as a vector."""

    def loss(self, weights: PyTree, cell: AbstractCell, transition: Transition, *, key: PRNGKeyArray) -> Array:
        """Reconstruction error, or that of differences."""
        if self.training == "difference":
            return difference_loss(self, weights, cell, transition, key=key)
        if self.noise:
            hidden, as_tree = ravel_pytree(transition.before.hidden)
            corrupt = as_tree(hidden + self.noise * jax.random.normal(key, hidden.shape, hidden.dtype))
            before = Carry(corrupt, transition.before.stats)
            after = cell(before, transition.x, key=transition.key).hidden
            transition = Transition(before, transition.x, after, transition.key)
        error = self.value(weights, transition) - _vector(transition.before.hidden)
        return 0.5 * jnp.sum(jnp.square(error))


class AffineInverse(AbstractTrained):
    """The paper's inverse (eq. 4): h_{t-1} ~ G(x_t, h_t) = squash(W x_t + V h_t + c).

    `training="reconstruction"` lowers |G(x_t, h_t) - h_{t-1}|^2 / 2; with `noise` s > 0 on corrupted transitions
    h_{t-1} + s xi -> F(x_t, h_{t-1} + s xi), which teaches G the directions around the trajectory. `"difference"`: see
    `difference_loss`. W and V start orthogonal, c at 0. `correction=False` sets targets to G(x_t, target of h_t) as
    the paper prints it, without the difference correction of its code: then targets hold the error of reconstruction.
    A cell's states together are one vector; those outside the squash's range (c of an LSTM) cannot be
    reconstructed, but their differences can be learned. Cost: states (inputs + states) multiply-adds a step and
    direction.
    """

    squash: Squash = eqx.field(default="tanh", static=True)
    training: Training = eqx.field(default="reconstruction", static=True)
    noise: float = eqx.field(default=0.0, static=True)
    correction: bool = eqx.field(default=True, static=True)

    def __check_init__(self) -> None:
        if self.squash not in ("tanh", "sigmoid"):
            raise ValueError(f"AffineInverse: squash must be 'tanh' or 'sigmoid', got {self.squash!r}")

    def init(self, cell: AbstractCell, *, key: PRNGKeyArray) -> _Affine:
        """Orthogonal W and V, c = 0, for any cell; its states are taken as one vector."""
        states = _vector(cell.init().hidden).size
        return _affine(cell.inputs, states, states, key=key)

    def value(self, weights: _Affine, transition: Transition) -> Array:
        """G(x_t, h_t), as a vector."""
        return _squash(self.squash, weights(transition.x, _vector(transition.after)))

    def shift(self, weights: _Affine, cell: AbstractCell, transition: Transition, seen: tuple[()], d: PyTree) -> PyTree:
        """G(x, h + d) - G(x, h), or G(x, h + d) - h_{t-1} without the correction."""
        vector, as_tree = ravel_pytree(d)
        a = weights(transition.x, _vector(transition.after))
        moved = squash_difference(self.squash, a, vector @ weights.hidden)
        if not self.correction:
            moved += _squash(self.squash, a) - _vector(transition.before.hidden)
        return as_tree(moved)


class _Residual(NamedTuple):
    """The weights of a residual inverse."""

    hidden: _Affine
    out: Float[Array, "width states"]


class ResidualInverse(AbstractTrained):
    """G(x_t, h_t) = h_t + B tanh(W x_t + V h_t + c): the identity at the start (B = 0), and learned from there.

    `width` hidden units of its own (None: as many as the cell has states). Training as for `AffineInverse`.
    """

    width: int | None = eqx.field(default=None, static=True)
    training: Training = eqx.field(default="reconstruction", static=True)
    noise: float = eqx.field(default=0.0, static=True)

    def __check_init__(self) -> None:
        if self.width is not None and self.width < 1:
            raise ValueError(f"ResidualInverse: width must be a whole number of at least 1, got {self.width}")

    def init(self, cell: AbstractCell, *, key: PRNGKeyArray) -> _Residual:
        """Orthogonal W and V, B = 0."""
        states = _vector(cell.init().hidden).size
        width = self.width or states
        return _Residual(_affine(cell.inputs, states, width, key=key), jnp.zeros((width, states)))

    def value(self, weights: _Residual, transition: Transition) -> Array:
        """G(x_t, h_t), as a vector."""
        h = _vector(transition.after)
        return h + jnp.tanh(weights.hidden(transition.x, h)) @ weights.out

    def shift(
        self, weights: _Residual, cell: AbstractCell, transition: Transition, seen: tuple[()], d: PyTree
    ) -> PyTree:
        """G(x, h + d) - G(x, h)."""
        vector, as_tree = ravel_pytree(d)
        a, e = weights.hidden(transition.x, _vector(transition.after)), vector @ weights.hidden.hidden
        return as_tree(vector + squash_difference("tanh", a, e) @ weights.out)


class FeedbackInverse(AbstractInverse):
    """A way back in the cell's own form, with learned feedback weights V in place of the transposed recurrent ones.

    For units with elementwise gates: a shift d of h_t becomes shifts of the preactivations through the gates
    at their present values; h_{t-1} receives what its own memory carries (z d in a GRU) plus V times the
    shifts of the recurrent preactivations. For a GRU, with c the candidate and d_z, d_r, d_c those shifts:

        d_{t-1} = z d + V_z d_z + V_r d_r + V_c d_c,     d_z = d (h_{t-1} - c) z (1 - z), ...

    V is shaped like the recurrent weights U, starts at random (`scale` / sqrt(units), normal) and never sees them: it
    learns by difference reconstruction (`loss`), whose minimum makes this map the transpose of F's Jacobian. So where V
    is learned well targets move along the gradient; where V is fixed (no inverse steps) this is feedback alignment
    through time.
    Fits a `Dense` layer of any gates, and a `Hybrid` one. Cost of a shift: that of the recurrent weights.

    `mirrored`: V makes every update of U too (Kolen & Pollack, 1994): what a pair of units hands to U is at hand for V.
    Then V - U stays as it is while U learns, and V's own learning has only the start to make up for.
    """

    scale: float = eqx.field(default=1.0, static=True)
    mirrored: bool = eqx.field(default=False, static=True)

    def __check_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise ValueError(f"FeedbackInverse: scale must be at least 0 and finite, got {self.scale}")

    def init(self, cell: AbstractCell, *, key: PRNGKeyArray) -> Array:
        """Random V, shaped like the recurrent weights; TypeError for a cell that is no dense layer."""
        layer = layer_of(cell)
        scale = self.scale * layer.units**-0.5
        return scale * jax.random.normal(key, layer.recurrent.shape, layer.recurrent.dtype)

    def observe(self, cell: AbstractCell, transition: Transition) -> list[Derivatives]:
        """The derivatives of the gates at the preactivations of this step."""
        assert isinstance(cell, Dense | Hybrid)
        slots = cell.slots(transition.before, transition.x, key=transition.key)
        return cell.gates.jacobian(slots, transition.before.hidden)[1]

    def shift(
        self, weights: Array, cell: AbstractCell, transition: Transition, seen: list[Derivatives], d: States
    ) -> States:
        """What the memory of each unit carries back, and what the feedback weights do."""
        memory, fed_back = self._back(weights, cell, seen, d)
        return (*memory[:-1], memory[-1] + fed_back)

    def _back(self, weights: Array, cell: AbstractCell, seen: list[Derivatives], d: States) -> tuple[States, Array]:
        """What the memory of each unit carries back, and what the feedback weights bring to the last state."""
        layer = layer_of(cell)
        on_slots, on_states = pull_back(seen, d, layer.gates.slots)
        # Not jnp.stack: under vmap XLA then loops over single gates (1.3x the time of a whole batch).
        drive = jnp.concatenate([on_slots[i] for i in layer.gates.recurrent_slots]).reshape(-1, layer.units)
        back = lambda v, drive: loop_back(layer.sources, Parameters(v, v, v), drive)
        return on_states, runs(back, layer.units)(weights, drive)

    def loss(self, weights: Array, cell: AbstractCell, transition: Transition, *, key: PRNGKeyArray) -> Array:
        """`difference_loss` without what the memory of each unit contributes to both of its terms.

        That part is exact already and cancels in expectation: the gradient is the same on average and varies less.
        """
        hidden = transition.before.hidden
        response_key, shift_key = jax.random.split(key)
        xi, eta = _signs(response_key, hidden), _signs(shift_key, hidden)
        seen = self.observe(cell, transition)
        zero = (jnp.zeros_like(hidden[-1]),) * layer_of(cell).gates.slots
        kept = push_forward(seen, zero, xi)
        response = jax.tree.map(jnp.subtract, _response(cell, transition, xi), kept)
        size = self._back(weights, cell, seen, eta)[1]
        return 0.5 * jnp.vdot(size, size) - jnp.vdot(xi[-1], self._back(weights, cell, seen, response)[1])

    def follow(self, weights: Array, before: AbstractCell, after: AbstractCell) -> Array:
        """V, moved as U was if `mirrored`."""
        return weights + (layer_of(after).recurrent - layer_of(before).recurrent) if self.mirrored else weights


def layer_of(cell: AbstractCell) -> Dense:
    """The dense layer that a cell is, or that a `Hybrid` is made of."""
    layer = cell.cell if isinstance(cell, Hybrid) else cell
    if not isinstance(layer, Dense):
        raise TypeError(
            "FeedbackInverse fits a dense layer (Elman, GRU, LSTM, Dense) or a Hybrid of one, got "
            f"{type(cell).__name__}; AffineInverse, ResidualInverse and IdentityInverse fit any cell"
        )
    return layer


def difference_loss(
    inverse: AbstractInverse, weights: PyTree, cell: AbstractCell, transition: Transition, *, key: PRNGKeyArray
) -> Array:
    """Local difference reconstruction (L-DRL) for small perturbations.

        E[ -xi . S(J xi) + |S(eta)|^2 / 2 ],     every xi_i and eta_i -1 or 1 at random

    (Meulemans et al., 2020; Ernoult et al., 2022.) J is the Jacobian of the cell's step at h_{t-1}, met only as the
    response J xi to a perturbation; S is the linear part of `shift` at h_t. In expectation it is |S - J^T|^2 / 2 up to
    a constant: its minimum sends shifts back as a gradient would. Signs, not normal numbers: the same expectation, less
    variance, and cheaper to draw.
    """
    hidden = transition.before.hidden
    response_key, shift_key = jax.random.split(key)
    xi, eta = _signs(response_key, hidden), _signs(shift_key, hidden)
    response = _response(cell, transition, xi)
    seen = inverse.observe(cell, transition)
    zero = jax.tree.map(jnp.zeros_like, hidden)
    back = lambda d: jax.jvp(lambda d: inverse.shift(weights, cell, transition, seen, d), (zero,), (d,))[1]
    dot = lambda a, b: jnp.vdot(_vector(a), _vector(b))
    size = back(eta)
    return -dot(xi, back(response)) + 0.5 * dot(size, size)


def _response(cell: AbstractCell, transition: Transition, xi: PyTree) -> PyTree:
    """How the step answers to a small perturbation of where it starts: J xi."""
    hidden, stats = transition.before
    step = lambda h: cell(Carry(h, stats), transition.x, key=transition.key).hidden
    return jax.jvp(step, (hidden,), (xi,))[1]


def _signs(key: PRNGKeyArray, like: PyTree) -> PyTree:
    vector, as_tree = ravel_pytree(like)
    return as_tree(jax.random.rademacher(key, vector.shape, vector.dtype))
