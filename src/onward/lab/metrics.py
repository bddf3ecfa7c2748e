"""What a run measures. Only metrics may read `truth`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from onward.cells.columns import Columns
from onward.cells.dense import Dense
from onward.learners.bptt import sequence_loss
from onward.learners.carried import MemoryInverse
from onward.learners.inverses import AbstractInverse, FeedbackInverse, layer_of
from onward.learners.tptt import TPTT, Propagation, TPTTState
from onward.model import Model
from onward.tasks.lag import AbstractLag
from onward.types import Carry, Info, PyTree, Sequence, Step


def training_loss(example: Sequence, info: Info) -> tuple[Array, Array]:
    """The loss of the batch, before the update."""
    return info.loss, jnp.ones(())


def stream_loss(example: Step, info: Info) -> tuple[Array, Array]:
    """The loss of a stream, or of streams side by side, before the update, weighted as it is."""
    return jnp.sum(info.loss), jnp.sum(example.weight)


def return_error(example: Step, info: Info) -> tuple[Array, Array]:
    """(return - prediction)^2, the prediction made before the update."""
    assert example.truth is not None
    return jnp.square(example.truth - info.prediction), jnp.ones(())


def accuracy(example: Step | Sequence, info: Info) -> tuple[Array, Array]:
    """Right or wrong, before the update, weighted as the loss is. Predictions end in a class axis."""
    weight = example.weight if isinstance(example, Step) else example.mask
    right = jnp.argmax(info.prediction, -1) == example.y
    return jnp.sum(right * weight), jnp.sum(weight)


def alignment(names: tuple[str, ...]) -> Callable[[Any, Info], dict[str, tuple[Array, Array]]]:
    """A monitor of `Watched`: per rule, its own first, "NAME cosine" and "NAME ratio" to the exact one."""

    def monitor(example: Step, info: Info) -> dict[str, tuple[Array, Array]]:
        measured = {}
        for name, (cosine, ratio, there) in zip(names, info.alignment, strict=True):
            measured[f"{name} cosine"], measured[f"{name} ratio"] = (cosine, there), (ratio, there)
        return measured

    return monitor


def read_sequences(
    model: Model, stats: PyTree, sequences: Float[Array, "batch time inputs"]
) -> Float[Array, "time batch *prediction"]:
    """The model's prediction after each step of each sequence, read from a clean start with given moments."""
    start = Carry(model.init().hidden, stats)

    def read(sequence: Array) -> Array:
        return lax.scan(lambda carry, x: model(carry, x), start, sequence)[1]

    return jnp.swapaxes(jax.vmap(read)(sequences), 0, 1)


class ReadDigits(eqx.Module):
    """A measurement: what the network says of held-out images, each read from a clean start.

    `test_accuracy`: the share that it names right after the last step. With `shown`: also `answers`, of every image,
    and `probabilities` (time, shown, classes) of each class after each step of the first images.
    """

    sequences: Shaped[Array, "count time inputs"]
    labels: Int[Array, " count"]
    top: float = eqx.field(static=True)
    shown: int = eqx.field(default=0, static=True)
    block: int = eqx.field(default=500, static=True)

    def __call__(self, state: Any) -> dict[str, Array]:
        """Measure the state of one learner."""
        blocks = _blocks(len(self.labels), self.block)
        light = lambda images: images.astype(jnp.float32) / self.top
        read = lambda images: read_sequences(state.model, state.stats, light(images))
        parts = self.sequences.reshape(blocks, -1, *self.sequences.shape[1:])
        answers = lax.map(lambda images: jnp.argmax(read(images)[-1], -1), parts).ravel()
        accuracy = {"test_accuracy": jnp.mean(answers == self.labels)}
        if not self.shown:
            return accuracy
        shown = jnp.exp(read(self.sequences[: self.shown]))
        return accuracy | {"answers": answers.astype(jnp.uint8), "probabilities": shown}


def network_loss(model: Model, stats: PyTree, example: Sequence, key: PRNGKeyArray) -> tuple[Array, Array]:
    """The loss of a batch and its predictions (outputs, batch, ...)."""
    loss, (predictions, _) = sequence_loss(model, stats, example, key=key)
    return loss, predictions


def _blocks(count: int, block: int) -> int:
    """Into how many equal blocks of at most `block` to cut."""
    return next(n for n in range(-(-count // block), count + 1) if count % n == 0)


def held_out_loss(
    example: Sequence, *, block: int = 250, loss: Callable[..., tuple[Array, Array]] = network_loss
) -> Callable[[Any], dict[str, Array]]:
    """A measurement: mean -log p(y | x) of held-out sequences, with as many trajectories as evaluation asks for.

    Rows are read in blocks of at most `block`, of a size that divides their number. Always the same random draws.
    `loss` may replace `network_loss` for a network that is not read as its cell says.
    """
    blocks = _blocks(example.xs.shape[1], block)

    def measure(state: Any) -> dict[str, Array]:
        model = state.model.evaluation()
        split = lambda a: jnp.moveaxis(jnp.asarray(a).reshape(a.shape[0], blocks, -1, *a.shape[2:]), 1, 0)
        loss_of = lambda part: loss(model, state.stats, *part)[0]
        losses = lax.map(loss_of, (jax.tree.map(split, example), jax.random.split(jax.random.key(0), blocks)))
        return {"held_out": jnp.mean(losses)}

    return measure


class LagErrors(eqx.Module):
    """A measurement: answers to `count` sequences that no run is trained on, the same ones each time.

    `wrong`: the share that is wrong by the published rule. `held_out`: the mean loss. Sequences are made and read in
    blocks of at most `block`, of a size that divides their number, with as many trajectories as evaluation asks for.
    """

    task: AbstractLag
    count: int = eqx.field(static=True)
    seed: int = eqx.field(default=1, static=True)
    block: int = eqx.field(default=500, static=True)

    def __call__(self, state: Any) -> dict[str, Array]:
        """Measure the state of one learner."""
        model, blocks = state.model.evaluation(), _blocks(self.count, self.block)
        size = self.count // blocks

        def of_block(part: Any) -> Array:
            first, key = part
            example = self.task.held_out(size, self.seed, first)
            loss, predictions = network_loss(model, state.stats, example, key)
            means = jax.vmap(jax.vmap(model.head.mean))(predictions)
            return jnp.stack([jnp.mean(self.task.wrong(means, example.y)), loss])

        parts = (size * jnp.arange(blocks, dtype=jnp.int32), jax.random.split(jax.random.key(0), blocks))
        wrong, loss = jnp.mean(lax.map(of_block, parts), 0)
        return {"wrong": wrong, "held_out": loss}


class Paths(eqx.Module):
    """A measurement of how the gradient of a dense layer or of columns goes back in time, over the rows of `example`.

    All of (time,), the first step first. `reach`: length of dE/dh_t to that of the last step. `others`: the share of
    dE/dh_t that came through other units, 1 - <s, g> / <g, g>, with s what comes back where the recurrent Jacobian has
    no entry off its diagonal. With a `learner`, also of its shifts: `shift_cosine` and `shift_ratio` to the gradient's,
    `others_cosine` of shift - s to g - s (0 where nothing goes through others), and over the whole update of the cell
    `update_cosine` and `update_ratio`.
    """

    learner: TPTT | None
    example: Sequence

    def __call__(self, state: Any) -> dict[str, Array]:
        """Measure the state of one learner."""
        cell = state.model.cell
        dense = not isinstance(cell, Columns)
        inverse: AbstractInverse = FeedbackInverse() if dense else MemoryInverse()
        exact = TPTT(inverse, optax.sgd(1.0), inverse_steps=0)
        weights = layer_of(cell).recurrent if dense else ()

        def sweep(learner: TPTT, weights: PyTree) -> Propagation:
            begun = TPTTState(state.model, state.stats, weights, None, None, state.key, state.steps)
            return learner.propagate(begun, self.example, key=state.key, keep=True)

        true = sweep(exact, weights)
        stays = sweep(exact, weights * _own(layer_of(cell))).shifts if dense else true.shifts
        less = lambda a: jax.tree.map(jnp.subtract, a, stays)
        # Gradients of many steps back are small: each step at a scale of its own.
        top = jax.vmap(lambda d: jnp.max(jnp.abs(ravel_pytree(d)[0])))(true.shifts)
        lengths = jax.vmap(lambda d, s: s * jnp.linalg.norm(ravel_pytree(d)[0] / jnp.where(s > 0, s, 1)))
        reach = lengths(true.shifts, top)
        cosine, ratio = jax.vmap(_compare)(stays, true.shifts)
        # Before a head has learned anything there is no gradient, and nothing to share.
        found = {"reach": reach / jnp.where(reach[-1] > 0, reach[-1], 1), "others": 1 - cosine * ratio}
        if self.learner is None:
            return found
        own = sweep(self.learner, state.inverse)
        step = jax.vmap(_compare)(own.shifts, true.shifts)
        through = jax.vmap(_compare)(less(own.shifts), less(true.shifts))
        # Where next to nothing goes through others, its direction is that of rounding.
        there = jax.vmap(_compare)(less(true.shifts), true.shifts)[1] > 1e-5
        whole = _compare(own.gradient.cell, true.gradient.cell)
        return found | {
            "shift_cosine": step[0],
            "shift_ratio": step[1],
            "others_cosine": jnp.where(there, through[0], 0),
            "update_cosine": whole[0],
            "update_ratio": whole[1],
        }


def _own(layer: Dense) -> Array:
    """1 where a recurrent weight is that of a unit to itself."""
    if layer.sources is not None:
        raise TypeError("Paths: the layer is sparse; only of a full square of weights the diagonal is known")
    return jnp.eye(layer.units)[:, None]


def credit_by_step(learner: TPTT, example: Sequence) -> Callable[[TPTTState], dict[str, Array]]:
    """A measurement of target propagation on a dense or hybrid layer, against BPTT with the same random draws.

    `shift_cosine` and `shift_ratio` (time,): cosine and norm ratio, over all rows and units, of the shift of h_t to
    that which moves along the gradient; `update_cosine` and `update_ratio`: of the whole update of the cell;
    `inverse_loss` per transition.
    """

    def measure(state: TPTTState) -> dict[str, Array]:
        layer = layer_of(state.model.cell)
        exact = replace(learner, inverse=FeedbackInverse(), inverse_steps=0)
        key = state.key
        own = learner.propagate(state, example, key=key, keep=True)
        true = exact.propagate(state._replace(inverse=layer.recurrent), example, key=key, keep=True)
        by_step = jax.vmap(_compare)(own.shifts, true.shifts)
        whole = _compare(own.gradient.cell, true.gradient.cell)
        return {
            "shift_cosine": by_step[0],
            "shift_ratio": by_step[1],
            "update_cosine": whole[0],
            "update_ratio": whole[1],
            "inverse_loss": own.inverse_loss / own.transitions,
        }

    return measure


def _compare(own: PyTree, true: PyTree) -> tuple[Array, Array]:
    """Cosine and norm ratio of two trees."""
    a, b = ravel_pytree(own)[0], ravel_pytree(true)[0]
    # At scales of their own: squares of what comes from many steps back underflow.
    tiny, tops = jnp.finfo(a.dtype).tiny, [jnp.max(jnp.abs(v)) for v in (a, b)]
    a, b = (v / jnp.where(top > 0, top, 1) for v, top in zip((a, b), tops, strict=True))
    size, length = jnp.linalg.norm(a), jnp.linalg.norm(b)
    ratio = size / jnp.maximum(length, tiny) * (tops[0] / jnp.maximum(tops[1], tiny))
    return a @ b / jnp.maximum(size * length, tiny), ratio


def _bits(model: Model, predictions: Array, y: Array, mask: Array) -> Array:
    """Sum over bits of the cross-entropy of their mean probabilities, averaged by mask; as of independent bits."""
    p = jax.vmap(jax.vmap(model.head.mean))(predictions)
    p = jnp.clip(p, 1e-7, 1 - 1e-7)
    return jnp.sum(-jnp.sum(jnp.where(y > 0, jnp.log(p), jnp.log1p(-p)), -1) * mask) / jnp.sum(mask)


class WindowLoss(eqx.Module):
    """A measurement: what the frame after a window costs, in nats, over windows of `length` that start at `starts`.

    `NAME`: summed over notes, the cross-entropy of the probability that each note has, the mean over trajectories.
    `NAME_joint`: -log of the mean over trajectories of the probability of the whole frame. For one trajectory both are
    the same; several may know which notes go together, and only the second sees it.
    Each window is read from a clean start, with as many trajectories as evaluation asks for; always the same random
    draws.
    """

    name: str = eqx.field(static=True)
    frames: Shaped[Array, "frames notes"]
    starts: Int[Array, " windows"]
    length: int = eqx.field(static=True)
    block: int = eqx.field(default=250, static=True)

    def __call__(self, state: Any) -> dict[str, Array]:
        """Measure the state of one learner."""
        model = state.model.evaluation()
        size = min(self.block, len(self.starts))
        blocks = -(-len(self.starts) // size)
        spare = blocks * size - len(self.starts)
        weights = jnp.concatenate([jnp.ones(len(self.starts)), jnp.zeros(spare)]).reshape(blocks, 1, size)
        starts = jnp.concatenate([self.starts, jnp.broadcast_to(self.starts[:1], spare)]).reshape(blocks, size)

        def block_loss(part: Any) -> Array:
            start, weight, key = part
            window = self.frames[start[None] + jnp.arange(self.length + 1)[:, None]].astype(jnp.float32)
            example = Sequence(window[:-1], window[-1:], weight)
            joint, predictions = network_loss(model, state.stats, example, key)
            return jnp.stack([_bits(model, predictions, example.y, weight), joint]) * jnp.sum(weight)

        losses = lax.map(block_loss, (starts, weights, jax.random.split(jax.random.key(0), blocks)))
        bits, joint = jnp.sum(losses, 0) / len(self.starts)
        return {self.name: bits, f"{self.name}_joint": joint}


class PieceLoss(eqx.Module):
    """A measurement: as `WindowLoss`, of every frame but the first of every piece, given all before it in the piece."""

    name: str = eqx.field(static=True)
    frames: Shaped[Array, "pieces longest notes"]
    lengths: Int[Array, " pieces"]
    blocks: int = eqx.field(static=True)

    def __init__(self, name: str, pieces: Any, *, block: int = 5):
        longest = max(map(len, pieces))
        self.blocks = _blocks(len(pieces), block)
        padded = np.zeros((len(pieces), longest, pieces[0].shape[1]), np.uint8)
        for row, piece in zip(padded, pieces, strict=True):
            row[: len(piece)] = piece
        self.name, self.frames = name, jnp.asarray(padded)
        self.lengths = jnp.asarray([len(p) for p in pieces], jnp.int32)

    def __call__(self, state: Any) -> dict[str, Array]:
        """Measure the state of one learner."""
        model = state.model.evaluation()

        def block_loss(part: Any) -> Array:
            frames, lengths, key = part
            frames = jnp.swapaxes(frames, 0, 1).astype(jnp.float32)
            mask = (jnp.arange(1, len(frames))[:, None] < lengths[None]).astype(jnp.float32)
            example = Sequence(frames[:-1], frames[1:], mask)
            joint, predictions = network_loss(model, state.stats, example, key)
            return jnp.stack([_bits(model, predictions, example.y, mask), joint]) * jnp.sum(mask)

        cut = lambda a: a.reshape(self.blocks, -1, *a.shape[1:])
        keys = jax.random.split(jax.random.key(0), self.blocks)
        losses = lax.map(block_loss, (cut(self.frames), cut(self.lengths), keys))
        bits, joint = jnp.sum(losses, 0) / jnp.sum(self.lengths - 1)
        return {self.name: bits, f"{self.name}_joint": joint}


class Continuation(eqx.Module):
    """A measurement: a piece as the network hears it, and how it would go on.

    `probabilities` (frames - 1, notes): of each frame after the first, given all before it. `continuation` (steps,
    notes): sampled frame by frame after reading the first `prompt` frames, each sample fed back.
    """

    frames: Shaped[Array, "frames notes"]
    prompt: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def __call__(self, state: Any) -> dict[str, Array]:
        """Measure the state of one learner."""
        model = state.model.evaluation()
        start = Carry(model.init().hidden, state.stats)
        listen, draw, note = jax.random.split(jax.random.key(0), 3)

        def hear(carry: Carry, inputs: Any) -> Any:
            x, key = inputs
            carry, prediction = model(carry, x, key=key)
            return carry, (carry, prediction)

        frames = self.frames[:-1].astype(jnp.float32)
        _, (carries, predictions) = lax.scan(hear, start, (frames, jax.random.split(listen, len(frames))))
        there = jax.tree.map(lambda a: a[self.prompt - 1], (carries, predictions))

        def invent(loop: Any, keys: Any) -> Any:
            carry, prediction = loop
            frame = model.head.sample(prediction, key=keys[1])
            return model(carry, frame.astype(jnp.float32), key=keys[0]), frame

        keys = (jax.random.split(draw, self.steps), jax.random.split(note, self.steps))
        _, sampled = lax.scan(invent, there, keys)
        means = jax.vmap(model.head.mean)(predictions)
        return {"probabilities": means, "continuation": sampled.astype(jnp.uint8)}


class Together(eqx.Module):
    """A measurement made of several."""

    parts: tuple[Callable[[Any], dict[str, Array]], ...]

    def __init__(self, *parts: Callable[[Any], dict[str, Array]]):
        self.parts = parts

    def __call__(self, state: Any) -> dict[str, Array]:
        """All measurements of the state of one learner."""
        return {k: v for part in self.parts for k, v in part(state).items()}
