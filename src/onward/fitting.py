"""Learning from arrays, in one call."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped
from numpy.typing import ArrayLike

from onward.cells.base import require_size
from onward.devices import must_compute
from onward.errors import NotFinite
from onward.heads.base import AbstractHead
from onward.heads.linear import Linear
from onward.learners.base import AbstractLearner
from onward.learners.bptt import BPTT
from onward.learners.tptt import TPTT
from onward.model import Model
from onward.types import Info, PyTree, Sequence, Step


def fit(
    learner: AbstractLearner,
    model: Model,
    xs: ArrayLike,
    ys: ArrayLike,
    *,
    key: PRNGKeyArray,
    weights: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    passes: int = 1,
    state: PyTree = None,
) -> tuple[PyTree, Info]:
    """Learn from arrays; returns the learner's state (`state.model` is the network) and what it said at every step.

    >>> import jax, numpy as np, optax, onward as ow
    >>> xs = np.random.default_rng(0).normal(size=(50, 2))
    >>> model = ow.Model(ow.GRU(2, 4, key=jax.random.key(0)), ow.Linear(4))
    >>> learner = ow.Online(ow.SnAp(1), ow.Supervised(), optax.adam(0.01))
    >>> state, info = ow.fit(learner, model, xs, xs[:, 0], key=jax.random.key(1))
    >>> info.prediction.shape, info.loss.shape
    ((50,), (50,))

    A learner of streams (`Online` and what wraps it) reads xs (time, inputs) row by row, predicts ys (time, ...), and
    learns after each row; with `streams` both have that axis second. `weights` scales the loss of each row (0: only
    read it), `resets` says where an episode starts. `info` has one prediction and one loss for each row.

    A learner of batches (`BPTT`, `TPTT`) reads xs (time, batch, inputs) and makes one update of all sequences at once
    from ys (outputs, batch, ...), the targets of the last `outputs` steps, weighted by `weights` (outputs, batch).
    `info` has one loss for each pass, and the predictions of the last.

    `passes` times all of it. `state`: go on from what an earlier call returned, to the bit; `model` and `key` are then
    not read. Compiled once for each learner and shape. xs of integers or bools become floats; ys keep integers, which
    `Categorical` takes as classes. Not to be called under `jax.jit`.

    Raises ValueError for arrays that are empty, differ in length, have another width than the network reads, or hold
    NaN or infinity where they count (the first place is named); TypeError for what are no numbers; `NotFinite` if the
    loss becomes NaN or infinite.
    """
    require_size("fit", passes=passes)
    must_compute()
    streams = _streams(learner)
    batches = isinstance(learner, BPTT | TPTT) or (np.ndim(xs) == 3 and streams is None)
    axes = ("time", "batch") if batches else ("time",) if streams is None else ("time", "streams")
    network: Model = model if state is None else state.model
    inputs = _inputs(xs, network.cell.inputs, axes)
    if streams not in (None, inputs.shape[1]):
        raise ValueError(f"fit: the learner has {streams} streams, xs of shape {inputs.shape} has {inputs.shape[1]}")
    targets = _targets(ys, inputs, axes, batches)
    of_one = targets.shape[len(axes) :]
    _require_features(network)
    _require_width(network.head, of_one)
    counted = targets.shape[: len(axes)]
    scale = _like("weights", 1.0 if weights is None else weights, counted, float)
    bad = ~np.isfinite(targets) & (np.reshape(scale, counted + (1,) * (targets.ndim - len(axes))) != 0)
    _refuse("ys", targets, bad, "give that row weight 0, or leave it out")
    if batches and resets is not None:
        raise TypeError("fit: sequences of a batch start anew each; resets are for learners of streams")
    starts = _like("resets", False if resets is None else resets, counted, bool)
    arrays = tuple(map(jnp.asarray, (inputs, targets, scale) if batches else (inputs, targets, scale, starts)))
    if state is None:
        example = Sequence(*arrays) if batches else _step_of(jax.tree.map(lambda a: a[0], arrays))
        state = learner.init(model, example, key=key)
    try:
        return _run(learner, state, arrays, passes, batches)
    except (TypeError, ValueError) as error:
        shapes = f"x of shape {inputs.shape[len(axes) :]} and y of shape {of_one}"
        raise ValueError(f"fit: {type(learner).__name__} cannot learn from {shapes}: {error}") from error


def _require_features(network: Model) -> None:
    """Refuse a head of ours that reads another number of features than the cell gives."""
    weight: Any = getattr(network.head, "weight", None)
    ours = type(network.head).__module__.startswith("onward.heads.")  # one's own may lay its weights out otherwise
    if ours and weight is not None and weight.shape[-1] != (features := network.cell.feature_count):
        head, cell = type(network.head).__name__, type(network.cell).__name__
        raise ValueError(
            f"fit: the {head} head reads {weight.shape[-1]} features, the {cell} cell gives {features}: make the head "
            f"for {features} features"
        )


def _run(
    learner: AbstractLearner, state: PyTree, arrays: tuple[Array, ...], passes: int, batches: bool
) -> tuple[PyTree, Info]:
    infos = []
    for _ in range(passes):
        state, info = (_update if batches else _read)(learner, state, arrays)
        infos.append(info)
    joined = Info(infos[-1].prediction, jnp.stack([info.loss for info in infos]))
    if not batches:
        joined = infos[0] if passes == 1 else jax.tree.map(lambda *parts: jnp.concatenate(parts), *infos)
    good = np.isfinite(np.asarray(joined.loss).reshape(len(joined.loss), -1)).all(1)
    if not good.all():
        raise NotFinite(
            f"fit: the loss became NaN or infinite at step {int(np.argmin(good))} of {len(good)}; try a smaller step "
            "size, and see that the head knows every target (a class it does not have has no probability)"
        )
    return state, joined


@eqx.filter_jit
def _update(learner: AbstractLearner, state: PyTree, arrays: tuple[Array, ...]) -> tuple[PyTree, Info]:
    return learner.step(state, Sequence(*arrays))


@eqx.filter_jit
def _read(learner: AbstractLearner, state: PyTree, arrays: tuple[Array, ...]) -> tuple[PyTree, Info]:
    dynamic, static = eqx.partition(state, eqx.is_array)

    def body(dynamic: PyTree, row: tuple[Array, ...]) -> tuple[PyTree, Info]:
        after, info = learner.step(eqx.combine(dynamic, static), _step_of(row))
        return eqx.filter(after, eqx.is_array), info

    dynamic, info = lax.scan(body, dynamic, arrays)
    return eqx.combine(dynamic, static), info


def _step_of(row: tuple[Array, ...]) -> Step:
    x, y, weight, reset = row
    return Step(x=x, y=y, weight=weight, reset=reset, truth=y)


def _require_width(head: AbstractHead, of_one: tuple[int, ...]) -> None:
    """Refuse targets with more axes than the head predicts: they would be broadcast."""
    if isinstance(head, Linear) and len(of_one) > (head.outputs is not None):
        raise ValueError(
            f"fit: the head predicts {head.outputs or 'one number'}, but a target has the shape {of_one}; give "
            f"ys[..., 0], or Linear(features, {of_one[-1]})"
        )


def _streams(learner: Any) -> int | None:
    """How many parallel streams a learner has, or what it wraps; None: one, without an axis."""
    return getattr(learner, "streams", None) or getattr(getattr(learner, "online", None), "streams", None)


def _numbers(name: str, values: ArrayLike) -> Shaped[np.ndarray, "..."]:
    """An array on the host; refuses what are no real numbers."""
    array = np.asarray(values)
    if not (np.issubdtype(array.dtype, np.bool_) or jnp.issubdtype(array.dtype, np.number)) or array.dtype.kind == "c":
        raise TypeError(f"fit: {name} must hold numbers, got {array.dtype}")
    return array


def _inputs(xs: ArrayLike, width: int, axes: tuple[str, ...]) -> Float[np.ndarray, "..."]:
    inputs = _numbers("xs", xs)
    wanted = f"({', '.join(axes)}, {width})"
    if inputs.ndim != len(axes) + 1 or inputs.shape[-1] != width:
        hint = "; one input a row is xs[:, None]" if inputs.ndim == 1 and width == 1 and len(axes) == 1 else ""
        raise ValueError(f"fit: xs must have the shape {wanted}, got {inputs.shape}{hint}")
    if 0 in inputs.shape:
        raise ValueError(f"fit: xs is empty: shape {inputs.shape}")
    if not jnp.issubdtype(inputs.dtype, np.floating):
        inputs = inputs.astype(float)
    _refuse("xs", inputs, ~np.isfinite(inputs), "fill it in, or leave that row out")
    return inputs


def _targets(ys: ArrayLike, inputs: np.ndarray, axes: tuple[str, ...], batches: bool) -> Shaped[np.ndarray, "..."]:
    targets = _numbers("ys", ys)
    lead = targets.shape[: len(axes)]
    if batches:
        fits = len(lead) == 2 and 1 <= lead[0] <= len(inputs) and lead[1] == inputs.shape[1]
        wanted = f"(outputs, {inputs.shape[1]}, ...), with at most {len(inputs)} outputs"
    else:
        fits, wanted = lead == inputs.shape[:-1], f"({', '.join(map(str, inputs.shape[:-1]))}, ...)"
    if not fits:
        raise ValueError(f"fit: with xs of shape {inputs.shape}, ys must be {wanted}; got {targets.shape}")
    return targets.astype(float) if targets.dtype == bool else targets


def _like(name: str, values: ArrayLike, shape: tuple[int, ...], kind: type) -> Shaped[np.ndarray, "..."]:
    """One value for each row, of the kind that is needed; one value stands for all."""
    array = _numbers(name, values)
    if array.shape not in ((), shape):
        raise ValueError(f"fit: {name} must have the shape {shape}, one for each target, got {array.shape}")
    if kind is bool and not np.isin(array, (0, 1)).all():
        raise ValueError(f"fit: {name} must be true or false")
    _refuse(name, array, ~np.isfinite(array), "0 leaves a row out")
    return np.broadcast_to(array.astype(kind), shape)


def _refuse(name: str, array: np.ndarray, bad: Bool[np.ndarray, "..."], advice: str) -> None:
    """Refuse an array that has a bad place, naming the first."""
    if bad.any():
        place = tuple(map(int, np.argwhere(bad)[0]))
        index = f"[{', '.join(map(str, place))}]" if place else ""
        raise ValueError(f"fit: {name}{index} is {array[place]}: {advice}")
