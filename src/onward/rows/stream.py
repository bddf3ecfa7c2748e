"""A network that learns from rows of numbers: everything between a row and a prediction, compiled into one step."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.base import AbstractCell
from onward.cells.cascade import Cascade
from onward.cells.columns import Columns
from onward.cells.gru import GRU
from onward.cells.lstm import LSTM, LSTMGates
from onward.cells.skip import Skip, carry_of, without
from onward.credit.base import AbstractCredit, AbstractKernel, Kind
from onward.credit.columnwise import Columnwise
from onward.credit.rflo import RFLO
from onward.credit.rtrl import RTRL
from onward.credit.snap import SnAp
from onward.credit.tbptt import TBPTT
from onward.credit.uoro import UORO
from onward.heads.categorical import Categorical
from onward.heads.linear import Linear
from onward.heads.mixture import Mixture
from onward.learners.late import Late, LateState
from onward.learners.online import Online, OnlineState
from onward.learners.optimisers import least_squares, rms
from onward.model import Model
from onward.objectives.supervised import Supervised
from onward.objectives.td import TDLambda
from onward.rows.packed import Packed, Packing
from onward.trees import remember
from onward.types import Carry, PyTree, Step

# Running means are plain averages at first, then exponential with these rates.
RATE_INPUTS, RATE_CHANGES = 1e-3, 3e-3
# Size of the columns' first weights, and the longest of their first memories, in rows.
SPREAD, LONGEST = 1.5, 10.0
# Normalised inputs lie within this.
LIMIT = 10.0
# The step size of the linear baseline, River's.
LINEAR_STEP = 0.01
# Rows of the programs of a learner: one a call, or a block of a file. Shorter stretches take the next longer one.
ONE, MANY, BLOCK = 1, 128, 4096
# Numbers from which on an array is handed over by itself, in place.
LARGE = 512
RULES: dict[str, Callable[[], AbstractCredit]] = {
    "exact": RTRL,
    "snap-1": SnAp,
    "rflo": RFLO,
    "uoro": UORO,
    "tbptt-10": lambda: TBPTT(10),
}


@dataclass(frozen=True)
class Recipe:
    """What learns. `targets`: numbers predicted side by side. `lag`: rows until the target of a prediction is known."""

    kind: Literal["number", "class", "return"] = "number"
    targets: int = 1
    network: Literal["columnar", "ccn", "gru", "lstm"] = "columnar"
    rule: str = "exact"
    units: int = 32
    stages: int = 2
    stage_rows: int = 20_000
    horizon: int = 1
    lag: int = 1
    discount: float = 0.9
    step_size: float = 0.0
    components: int = 0
    seed: int = 0

    @property
    def wide(self) -> bool:
        """Whether the network is made of columns."""
        return self.network in ("ccn", "columnar")


class Inside(AbstractCredit):
    """A rule for the cell of a `Skip`: as exact as it is there, and at its cost. x depends on no parameter."""

    kind: ClassVar[Kind] = "biased"  # what it is of all cells: `claim` says more
    rule: AbstractCredit

    def on(self, cell: AbstractCell) -> AbstractKernel[PyTree]:
        """The rule on the cell within."""
        assert isinstance(cell, Skip)
        return _Within(cell, self.rule.on(cell.cell))

    def claim(self, cell: AbstractCell, steps: int) -> Kind:
        """What the rule claims of the cell within."""
        return self.rule.claim(cell.cell if isinstance(cell, Skip) else cell, steps)


class _Within(AbstractKernel[PyTree]):
    kind: ClassVar[Kind] = "biased"
    cell: Skip
    kernel: AbstractKernel[PyTree]

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> PyTree:
        return self.kernel.init(x, key=key)

    def advance(
        self, carry: Carry, x: Array, state: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, PyTree]:
        inner, state = self.kernel.advance(without(carry), x, state, key=key)
        return carry_of(x, inner), state

    def pull(self, state: PyTree, cotangent: PyTree) -> PyTree:
        # The cotangent on x is dropped.
        return self.cell.around(self.kernel.pull(state, cotangent[1]))


class Running(NamedTuple):
    """Count, mean and variance of what was seen, one of each a column."""

    seen: Float[Array, " n"]
    mean: Float[Array, " n"]
    variance: Float[Array, " n"]

    @classmethod
    def start(cls, n: int) -> "Running":
        """Nothing seen."""
        return cls(jnp.zeros(n), jnp.zeros(n), jnp.zeros(n))

    def see(self, x: Array, rate: float) -> "Running":
        """Take in one value of each column; NaN: none."""
        known = jnp.isfinite(x)
        count = self.seen + known
        pace = jnp.where(known, jnp.maximum(1 / jnp.maximum(count, 1), rate), 0)
        change = jnp.where(known, x - self.mean, 0)
        variance = (1 - pace) * (self.variance + pace * jnp.square(change))
        return Running(count, self.mean + pace * change, variance)

    @property
    def scale(self) -> Array:
        """1 / standard deviation; 0 where nothing has varied yet."""
        varied = self.variance > 1e-12 * jnp.square(self.mean) + 1e-30
        return jnp.where(varied, lax.rsqrt(jnp.where(varied, self.variance, 1)), 0)

    def normalise(self, x: Array) -> Array:
        """(x - mean) / standard deviation, within +-LIMIT; 0 where x is missing."""
        z = jnp.clip((x - self.mean) * self.scale, -LIMIT, LIMIT)
        return jnp.where(jnp.isfinite(x), z, 0)

    def deviation(self) -> Array:
        """The standard deviation; 1 where nothing has varied yet."""
        scale = self.scale
        return jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 1)


class Linear1(NamedTuple):
    """The linear baseline: weights and bias, and the running moments of its target.

    Of numbers River's `StandardScaler() | TargetStandardScaler(LinearRegression())`, of classes its
    `StandardScaler() | SoftmaxRegression()` with a bias and all classes from the start. But the inputs are normalised
    as the network's are: their moments forget, all lies within `LIMIT`, and the last change is one of them.
    """

    weight: Float[Array, "outputs capacity"]
    bias: Float[Array, " outputs"]
    target: Running

    @property
    def share(self) -> Array:
        """The deviation of all targets seen over that of a sample, which River takes."""
        return jnp.sqrt(jnp.maximum(self.target.seen - 1, 1) / jnp.maximum(self.target.seen, 1))


class StreamState(NamedTuple):
    """All that the next row needs. `asked` is what the last prediction will be
    judged by, `waiting` the same of those whose targets are not known yet.
    """

    inputs: Running
    targets: Running
    changes: Running
    moves: Running
    base: Float[Array, " targets"]
    learned: OnlineState | LateState
    linear: Linear1
    density: tuple[Mixture, PyTree] | tuple[()]
    asked: Float[Array, " kept"]
    waiting: Float[Array, "lag kept"]
    rows: Array


class Stream:
    """The step of a recipe, for rows of `capacity` numbers and, if classes are predicted, `classes` of them.

    A row x holds NaN where a number is missing; `plain` says which of its places are not to be normalised (flags).
    Inputs are normalised by running moments. The network predicts the change of the target from its present value, in
    units of its usual change (with horizon 0: from its running mean, in standard deviations), reads out by recursive
    least squares over the inputs and its features, and learns its recurrent weights online.
    """

    def __init__(self, recipe: Recipe, capacity: int, classes: int = 0):
        self.recipe, self.capacity, self.classes = recipe, capacity, classes
        self.outputs = classes if recipe.kind == "class" else recipe.targets
        self.anchored = recipe.kind == "number" and recipe.horizon > 0
        # The last change of every target is one more input.
        self.inputs = capacity + (recipe.targets if self.anchored else 0)
        self.learner: Any = self._learner()  # Online or Late, each with its own state

    def _learner(self) -> Online | Late:
        recipe = self.recipe
        late = lambda online: Late(online, recipe.horizon) if recipe.horizon else online
        credit = Columnwise() if recipe.wide else Inside(RULES[recipe.rule]())
        size = recipe.step_size or 1e-3
        if recipe.kind == "number":
            cell = optax.chain(rms(0.999), optax.scale(recipe.step_size or 5e-3))
            # The further ahead, the more of an error is chance.
            # Of the same row the readout can say much at once: it starts free, and believes large errors.
            free = {} if recipe.horizon else {"prior": 1.0, "clip": 3.0}
            optimiser = least_squares(cell, noise=math.sqrt(max(1, recipe.horizon)), **free)
            return late(Online(credit, Supervised(), optimiser))
        if recipe.kind == "class":
            return late(Online(credit, Supervised(), optax.adam(recipe.step_size or 1e-2)))
        return Online(credit, TDLambda(recipe.discount, 0.9), rms(0.999), step_size=size)

    def model(self, key: PRNGKeyArray) -> Model:
        """The network at the start."""
        recipe, n = self.recipe, self.inputs
        cell: AbstractCell
        if recipe.wide:
            width = recipe.units // recipe.stages if recipe.network == "ccn" else recipe.units
            columns = _start(Columns(LSTMGates(), n, width, key=key, spread=SPREAD), key)
            cell = Cascade(columns) if recipe.network == "ccn" else columns
        else:
            cell = (GRU if recipe.network == "gru" else LSTM)(n, recipe.units, key=key)
        cell = Skip(cell)
        features = cell.feature_count
        if recipe.kind == "class":
            return Model(cell, Categorical(features, self.classes))
        return Model(cell, Linear(features, None if recipe.kind == "return" else recipe.targets))

    def init(self) -> StreamState:
        """Before the first row."""
        recipe, k = self.recipe, self.recipe.targets
        key, learn_key = jax.random.split(jax.random.key(recipe.seed))
        model = self.model(key)
        x = jnp.zeros(self.inputs)
        learned = self.learner.init(model, self._example(x, jnp.zeros(k), jnp.ones(k, bool)), key=learn_key)
        outputs = self.classes if recipe.kind == "class" else k
        linear = Linear1(jnp.zeros((outputs, self.inputs)), jnp.zeros(outputs), Running.start(outputs))
        density = self._density(_features(model))
        kept = self.inputs + _features(model) + 3 * k
        return StreamState(
            Running.start(self.capacity),
            Running.start(k),
            Running.start(k),
            Running.start(k),
            jnp.full(k, jnp.nan),
            learned,
            linear,
            density,
            jnp.zeros(kept),
            jnp.zeros((recipe.lag, kept)),
            jnp.zeros((), jnp.int32),
        )

    def _density(self, features: int) -> Any:
        if not self.recipe.components:
            return ()
        head = Mixture(features, self.recipe.components, bounds=(-6.0, 4.0), spread=(-2.0, 2.0))
        return head, self._density_optimiser().init(eqx.filter(head, eqx.is_inexact_array))

    def _density_optimiser(self) -> optax.GradientTransformation:
        return optax.adam(3e-3)

    def _example(self, x: Array, y: Array, known: Array) -> Step:
        recipe = self.recipe
        if recipe.kind == "class":
            target = jnp.where(known[0], y[0], 0).astype(jnp.int32)
        else:
            target = y[0] if recipe.kind == "return" else y
        weight = jnp.any(known).astype(x.dtype)
        return Step(x, target, weight, jnp.zeros((), bool), target)

    def step(self, state: StreamState, x: Array, plain: Array, y: Array, arrived: Array) -> tuple[StreamState, Array]:
        """Learn what row t brings, and answer it.

        y: the targets (numbers, or the class) that stand in this row, NaN where missing. `arrived`: the same, or of a
        return the one that is known as of now: that of `lag` rows ago. With horizon 0 the answer is given first.
        The answer: see `Answers`.
        """
        state = state._replace(rows=state.rows + 1)
        return self._after(state, x, plain, y, arrived) if self.recipe.lag else self._at_once(state, x, plain, y)

    def _at_once(self, state: StreamState, x: Array, plain: Array, y: Array) -> tuple[StreamState, Array]:
        """Horizon 0: read, predict, then learn from the same row's target."""
        inputs, _, z = self._read(state, x, plain, y)
        state = state._replace(inputs=inputs)
        known = jnp.isfinite(y)
        targets = state.targets if self.recipe.kind == "class" else state.targets.see(y, RATE_INPUTS)
        label = y if self.recipe.kind == "class" else self._fill(known, targets.normalise(y), jnp.zeros_like(y))
        learned, info = self.learner.step(state.learned, self._example(z, label, known))
        outputs = self._outputs(state, info.prediction, state.targets.mean, state.targets.deviation())
        linear = _linear_answer(self.recipe.kind, state.linear, z)
        features = state.learned.model.features(_online(learned).carry)
        spread = self._spread(state.density, features, outputs, state.targets.deviation())
        state = state._replace(
            targets=targets,
            learned=learned,
            linear=_linear_learn(self.recipe.kind, state.linear, z, y),
            density=self._learn_density(state.density, features, (y - outputs) / state.targets.deviation()),
        )
        return state, jnp.concatenate([outputs, linear, spread])

    def _after(self, state: StreamState, x: Array, plain: Array, y: Array, arrived: Array) -> tuple[StreamState, Array]:
        """Learn from the target of an earlier prediction; then read and predict."""
        recipe, n, k = self.recipe, self.inputs, self.recipe.targets
        waiting, row = remember(state.waiting, state.rows - 1, state.asked)
        state = state._replace(waiting=waiting)
        features, (was, base, unit) = row[n : -3 * k], jnp.split(row[-3 * k :], 3)
        there = state.rows > recipe.lag
        arrived = jnp.where(there, arrived, jnp.nan)
        linear = _linear_learn(recipe.kind, state.linear, row[:n], arrived)
        density = state.density
        if recipe.kind == "number":
            density = self._learn_density(density, features, (arrived - was) / unit)
        targets, changes = state.targets, state.changes
        if recipe.kind == "number":
            change = arrived - base
            usual = jnp.sqrt(changes.variance)
            # An outlier is no measure of change; the mean square is kept as a variance about zero.
            cut = jnp.where(changes.seen > 20, 100 * usual, jnp.inf)
            changes = _see_squares(changes, jnp.clip(change, -cut, cut))
            now = _deviation_of(changes)
            said = jnp.where(jnp.isfinite(base), (was - base) / now, 0)
            label = self._fill(jnp.isfinite(change), jnp.clip(change / now, -1e4, 1e4), said)
        elif recipe.kind == "return":
            targets = targets.see(y, RATE_INPUTS)
            label = targets.normalise(y)
        else:
            label = y
        inputs, moves, z = self._read(state, x, plain, y)
        known = jnp.isfinite(change) if recipe.kind == "number" else jnp.isfinite(y)
        learned, info = self.learner.step(state.learned, self._example(z, label, known))
        state = state._replace(
            inputs=inputs,
            targets=targets,
            changes=changes,
            moves=moves,
            learned=learned,
            linear=linear,
            density=density,
        )
        return self._answer(state, z, y, info.prediction, wait=True)

    def _answer(
        self, state: StreamState, z: Array, y: Array, prediction: Array, *, wait: bool
    ) -> tuple[StreamState, Array]:
        """The prediction in the target's own units, with all that its target will need when it comes."""
        recipe = self.recipe
        base = jnp.where(jnp.isfinite(y), y, state.base) if self.anchored else state.targets.mean
        centre = jnp.where(jnp.isfinite(base), base, 0)
        unit = _deviation_of(state.changes) if self.anchored else state.targets.deviation()
        outputs = self._outputs(state, prediction, centre, unit)
        linear = _linear_answer(recipe.kind, state.linear, z)
        features = state.learned.model.features(_online(state.learned).carry)
        spread = self._spread(state.density, features, outputs, unit)
        state = state._replace(base=base)
        if wait:
            was = outputs if recipe.kind == "number" else jnp.zeros_like(base)
            row = jnp.concatenate([z, features, was, base, unit])
            state = state._replace(asked=row)
        return state, jnp.concatenate([outputs, linear, spread])

    def peek(self, state: StreamState, x: Array, plain: Array, y: Array) -> Array:
        """The answer to a row; nothing is learned and nothing remembered."""
        return self.read(state, x, plain, y)[1]

    def read(self, state: StreamState, x: Array, plain: Array, y: Array) -> tuple[StreamState, Array]:
        """Answer a row and remember it in the recurrent state, and learn nothing.

        The running moments of the inputs see the row for its own answer, as they do when it is learned from.
        """
        _, _, z = self._read(state, x, plain, y)
        learned, prediction = self.learner.read(state.learned, z)
        state = state._replace(learned=learned)
        return self._answer(state, z, y, prediction, wait=False)

    def _read(self, state: StreamState, x: Array, plain: Array, y: Array) -> tuple[Running, Running, Array]:
        """What the network reads of a row, normalised, and the moments that have seen it."""
        inputs = state.inputs.see(jnp.where(plain, jnp.nan, x), RATE_INPUTS)
        z, moves = jnp.where(plain, x, inputs.normalise(x)), state.moves
        if self.anchored:
            move = y - state.base
            moves = _see_squares(moves, move)
            last = jnp.clip(move / _deviation_of(moves), -LIMIT, LIMIT)
            z = jnp.concatenate([z, jnp.where(jnp.isfinite(move), last, 0)])
        return inputs, moves, z

    def _fill(self, known: Array, label: Array, said: Array) -> Array:
        """Of several targets the missing ones are taken as predicted."""
        return jnp.where(known, label, said)

    def _outputs(self, state: StreamState, prediction: Array, centre: Array, unit: Array) -> Array:
        recipe = self.recipe
        if recipe.kind == "class":
            return jnp.exp(prediction)
        if recipe.kind == "return":
            # The return of the centred and scaled target, and that of its mean.
            rest = state.targets.mean / (1 - recipe.discount)
            return rest + state.targets.deviation() * prediction
        return centre + unit * prediction

    def _spread(self, density: Any, features: Array, outputs: Array, unit: Array) -> Array:
        if not density:
            return jnp.zeros(0)
        log_pi, mu, log_sigma = density[0].parts(density[0](features))
        return jnp.concatenate([log_pi, outputs[0] + unit[0] * mu, log_sigma + jnp.log(unit[0])])

    def _learn_density(self, density: Any, features: Array, residual: Array) -> Any:
        """One step up the log likelihood of the last prediction's error, by the mixture's own weights."""
        if not density:
            return ()
        head, optimiser = density
        known = jnp.isfinite(residual[0])
        error = jnp.clip(jnp.where(known, residual[0], 0), -1e4, 1e4)
        gradient = eqx.filter_grad(lambda h: -h.log_prob(h(features), error))(head)
        updates, after = self._density_optimiser().update(gradient, optimiser)
        choose = lambda new, old: jnp.where(known, new, old)
        moved = eqx.apply_updates(head, updates)
        return eqx.combine(
            jax.tree.map(choose, eqx.filter(moved, eqx.is_array), eqx.filter(head, eqx.is_array)), head
        ), jax.tree.map(choose, after, optimiser)

    def grow(self, state: StreamState) -> StreamState:
        """The next stage of the network. The readout's covariance goes on, and so does all but the credit."""
        before = state.learned
        example = self._example(
            jnp.zeros(self.inputs), jnp.zeros(self.recipe.targets), jnp.ones(self.recipe.targets, bool)
        )
        learned = self.learner.grow(before, example)
        live: Any = learned.model.cell
        fresh = _start(live.live, jax.random.fold_in(_online(before).key, self.recipe.seed + 1))
        learned = eqx.tree_at(lambda s: s.model.cell.cell.stage, learned, fresh)
        old, new = (_features(state.model) for state in (before, learned))
        if self.recipe.kind == "number":
            readout, fresh = _online(before).optimiser, _online(learned).optimiser
            covariance = _enlarge(readout.covariance, fresh.covariance, old)
            after = readout._replace(covariance=covariance, cell=fresh.cell)
            learned = eqx.tree_at(lambda s: _online(s).optimiser, learned, after)
        density = state.density
        if density:
            density = _enlarge(density, self._density(new), old)
        # New features come last, before what is kept of the prediction itself.
        at = state.waiting.shape[1] - 3 * self.recipe.targets
        places = np.full(new - old, at)
        asked, waiting = jnp.insert(state.asked, places, 0), jnp.insert(state.waiting, places, 0, axis=1)
        return state._replace(learned=learned, density=density, asked=asked, waiting=waiting)

    def enlarge(self, state: StreamState, fresh: StreamState) -> StreamState:
        """The state with room for more inputs or classes: for as many as `fresh` has, the state of a larger stream."""
        asked, waiting = state.asked, state.waiting
        more = fresh.inputs.seen.size - self.capacity
        if more:  # what waits is [inputs, features (inputs first), the rest]
            places = np.repeat([self.capacity, self.inputs + self.capacity], more)
            asked, waiting = jnp.insert(asked, places, 0), jnp.insert(waiting, places, 0, axis=1)
        state = state._replace(asked=fresh.asked, waiting=fresh.waiting)
        state = _enlarge(state, fresh, self.capacity if more else self.classes)
        return state._replace(asked=asked, waiting=waiting)


def _online(learned: OnlineState | LateState) -> OnlineState:
    return learned.online if isinstance(learned, LateState) else learned


def _features(model: Model) -> int:
    """How many the head reads."""
    return model.cell.feature_count


def _enlarge(old: PyTree, new: PyTree, at: int) -> PyTree:
    """The arrays of `old` in the shapes of `new`: what is missing is inserted from `new` at place `at` of its axis."""

    def fit(a: Any, b: Any) -> Any:
        if not eqx.is_array(a) or a.shape == b.shape:
            return a
        for axis in range(a.ndim):
            more = b.shape[axis] - a.shape[axis]
            if more:
                size = a.shape[axis]
                head, tail = lax.slice_in_dim(a, 0, at, axis=axis), lax.slice_in_dim(a, at, size, axis=axis)
                part = lax.slice_in_dim(b, at, at + more, axis=axis)
                # `b` is still larger along later axes: those places are filled when their turn comes.
                for later in range(axis + 1, a.ndim):
                    if b.shape[later] != a.shape[later]:
                        extra = b.shape[later] - a.shape[later]
                        ends = (
                            lax.slice_in_dim(part, 0, at, axis=later),
                            lax.slice_in_dim(part, at + extra, b.shape[later], axis=later),
                        )
                        part = jnp.concatenate(ends, later)
                a = jnp.concatenate([head, part, tail], axis)
        return a

    # Part by part: the structures may differ in what they say of sizes.
    leaves, structure = jax.tree.flatten(new)
    return jax.tree.unflatten(structure, [fit(a, b) for a, b in zip(jax.tree.leaves(old), leaves, strict=True)])


def _start(columns: Columns, key: PRNGKeyArray) -> Columns:
    """Content that tells inputs apart, gates that hardly see them yet, memories from one step to `LONGEST`."""
    kinds = jax.random.split(jax.random.fold_in(key, 1), 3)
    weight = SPREAD * jax.random.normal(kinds[0], columns.weight.shape) / jnp.sqrt(columns.inputs)
    weight = weight.at[:, :-1].multiply(0.3)
    bias = jnp.zeros_like(columns.bias).at[-1].set(0.3 * jax.random.normal(kinds[1], columns.bias[-1].shape))
    log_time = jnp.log(LONGEST) * jax.random.uniform(kinds[2], columns.bias[-1].shape)
    bias = columns.gates.remember(bias, log_time)
    recurrent = columns.recurrent * (0.3 / columns.spread)
    return eqx.tree_at(lambda c: (c.weight, c.recurrent, c.bias), columns, (weight, recurrent, bias))


def _deviation_of(changes: Running) -> Array:
    """The root mean square of changes; 1 until there is one."""
    return jnp.where(changes.variance > 1e-30, jnp.sqrt(jnp.maximum(changes.variance, 1e-30)), 1)


def _see_squares(changes: Running, change: Array) -> Running:
    seen = jnp.isfinite(change)
    count = changes.seen + seen
    pace = jnp.where(seen, jnp.maximum(1 / jnp.maximum(count, 1), RATE_CHANGES), 0)
    square = jnp.where(seen, jnp.square(change), 0)
    return changes._replace(seen=count, variance=changes.variance + pace * (square - changes.variance))


def _linear_answer(kind: str, linear: Linear1, z: Array) -> Array:
    found = linear.weight @ z + linear.bias
    if kind == "class":
        return jnp.argmax(found)[None].astype(z.dtype)
    return linear.target.mean + linear.target.deviation() / linear.share * found


def _linear_learn(kind: str, linear: Linear1, z: Array, y: Array) -> Linear1:
    """One step of stochastic gradient descent: squared error of the standardised target, or cross-entropy."""
    said = linear.weight @ z + linear.bias
    known = jnp.isfinite(y)
    if kind == "class":
        truth = jax.nn.one_hot(jnp.where(known, y, 0)[0].astype(jnp.int32), len(said), dtype=said.dtype)
        error = jnp.where(known, jax.nn.softmax(said) - truth, 0)
    else:
        linear = linear._replace(target=linear.target.see(y, 0.0))
        error = jnp.where(known, 2 * (said - linear.share * linear.target.normalise(y)), 0)
    weight = linear.weight - LINEAR_STEP * error[:, None] * z[None]
    return linear._replace(weight=weight, bias=linear.bias - LINEAR_STEP * error)


class Answers(NamedTuple):
    """What is known of the target before it is known. Of rows, one each a line.

    outputs: (rows, targets) numbers, or (rows, classes) probabilities. linear: (rows, targets), the linear baseline's.
    spread: (rows, 3 components), log weights, means and log widths of a mixture of Gaussians, or (rows, 0).
    """

    outputs: np.ndarray
    linear: np.ndarray
    spread: np.ndarray


def interval(spread: np.ndarray, share: float, block: int) -> np.ndarray:
    """(rows, 2): the ends between which `share` of the mixture lies, as much left out on either side.

    `spread` as in `Answers`. By bisection, in blocks of `block` rows, each one compiled call.
    """
    parts = [np.zeros((0, 2), np.float32)]
    for start in range(0, len(spread), block):
        rows = spread[start : start + block]
        filled = np.concatenate([rows, np.zeros((block - len(rows), rows.shape[1]), rows.dtype)])
        parts.append(np.asarray(_ends(filled, np.float32(share)))[: len(rows)])
    return np.concatenate(parts)


@jax.jit
def _ends(spread: Array, share: Array) -> Array:
    # Components first, rows last: long vectors. The bracket holds the tails of every component.
    log_pi, mu, log_sigma = jnp.split(spread.T, 3)
    pi, sigma = jnp.exp(log_pi), jnp.exp(log_sigma)

    def end(level: Array) -> Array:
        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = 0.5 * (low + high)
            below = jnp.sum(pi * jax.scipy.special.ndtr((middle[None] - mu) / sigma), 0) < level
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        bracket = jnp.min(mu - 6 * sigma, 0), jnp.max(mu + 6 * sigma, 0)
        low, high = lax.fori_loop(0, 32, halve, bracket)
        return 0.5 * (low + high)

    return jnp.stack([end((1 - share) / 2), end((1 + share) / 2)], 1)


class _Programs:
    """The compiled functions of a recipe at one capacity, number of classes and stage."""

    def __init__(self, recipe: Recipe, capacity: int, classes: int, stage: int):
        self.stream, self.stage = Stream(recipe, capacity, classes), stage
        # The structure only; nothing is computed.
        self.packing = Packing(eqx.filter_eval_shape(self.fresh), _long)
        self._compiled: dict[Any, Any] = {}

    def fresh(self) -> StreamState:
        """The state before the first row, grown to this stage."""
        state = self.stream.init()
        for _ in range(self.stage - 1):
            state = self.stream.grow(state)
        return state

    def start(self) -> Packed:
        """The same, packed. Computed once, for all learners."""
        if "start" not in self._compiled:
            self._compiled["start"] = _once(lambda: self.packing.pack(self.fresh()))()
        return _own(self._compiled["start"])

    def change(self, after: "_Programs") -> Any:
        """The program that makes a state of these shapes one of those."""
        if after not in self._compiled:

            def change(packed: Packed) -> Packed:
                state = self.packing.unpack(packed)
                grown = after.stage > self.stage
                return after.packing.pack(
                    self.stream.grow(state) if grown else self.stream.enlarge(state, after.fresh())
                )

            self._compiled[after] = _once(change)
        return self._compiled[after]

    def of(self, what: str, rows: int) -> Any:
        """The program `what` (step, read, peek; row, ask, asks) for up to `rows` rows."""
        if (what, rows) not in self._compiled:
            function: Any = {
                "step": self._many(self._step),
                "read": self._many(self._read),
                "peek": self._peek,
                "row": self._row,
                "ask": self._ask,
                "asks": self._asks,
            }[what]
            donate: tuple[int, ...] = (0,) if what in ("step", "read", "row") else ()
            self._compiled[what, rows] = jax.jit(function, donate_argnums=donate)
        return self._compiled[what, rows]

    def _step(self, state: StreamState, x: Array, plain: Array, y: Array, arrived: Array) -> tuple[StreamState, Array]:
        return self.stream.step(state, x, plain, y, arrived)

    def _read(self, state: StreamState, x: Array, plain: Array, y: Array, arrived: Array) -> tuple[StreamState, Array]:
        return self.stream.read(state, x, plain, y)

    def _peek(self, packed: Packed, x: Array, plain: Array, y: Array) -> Array:
        return self.stream.read(self.packing.unpack(packed), x, plain, y)[1]

    def _row(self, packed: Packed, row: Array, plain: Array) -> Packed:
        """Learn from one row [x, targets] that is known as it comes (lag 0), and answer nothing."""
        y = row[self.stream.capacity :]
        state = self.packing.unpack(packed)
        return self.packing.pack(self.stream.step(state, row[: self.stream.capacity], plain, y, y)[0])

    def _ask(self, packed: Packed, row: Array, plain: Array) -> Array:
        """The outputs for one row [x, targets]; nothing changes."""
        return self._outputs(self.packing.unpack(packed), row, plain)

    def _asks(self, packed: Packed, rows: Array, plain: Array) -> Array:
        """The same for many rows, each as if it came next."""
        state = self.packing.unpack(packed)
        return lax.map(lambda row: self._outputs(state, row, plain), rows)

    def _outputs(self, state: StreamState, row: Array, plain: Array) -> Array:
        capacity = self.stream.capacity
        return self.stream.peek(state, row[:capacity], plain, row[capacity:])[: self.stream.outputs]

    def _many(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def many(
            packed: Packed, x: Array, plain: Array, y: Array, arrived: Array, count: Array
        ) -> tuple[Packed, Array]:
            state = self.packing.unpack(packed)
            dynamic, static = eqx.partition(state, eqx.is_array)
            one = lambda dynamic, i: step(eqx.combine(dynamic, static), x[i], plain, y[i], arrived[i])
            if len(x) == 1:
                after, answer = one(dynamic, 0)
                return self.packing.pack(after), answer[None]
            size = jax.eval_shape(one, dynamic, 0)[1].size

            def body(i: Array, loop: Any) -> Any:
                dynamic, answers = loop
                after, answer = one(dynamic, i)
                return eqx.filter(after, eqx.is_array), answers.at[i].set(answer)

            dynamic, answers = lax.fori_loop(0, count, body, (dynamic, jnp.zeros((len(x), size))))
            return self.packing.pack(eqx.combine(dynamic, static)), answers

        return many


def _long(state: StreamState) -> list[Any]:
    """What is not packed: what waits, and arrays that take longer to copy than to hand over."""
    large = [leaf for leaf in jax.tree.leaves(state) if getattr(leaf, "size", 0) >= LARGE]
    waits = state.learned.rings if isinstance(state.learned, LateState) else ()
    return [state.waiting, waits, *large]


def _once(function: Callable[..., Any]) -> Any:
    """Compiled fast rather than well: it runs once."""
    fast = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    return jax.jit(function, compiler_options=fast)


@jax.jit
def _own(packed: Packed) -> Packed:
    """A copy in JAX's own memory. What NumPy shares must not be donated: it would be freed while it is in use."""
    return jax.tree.map(jnp.copy, packed)


# Programs are shared by all learners of a recipe.
_programs = lru_cache(maxsize=64)(_Programs)


class Learner:
    """A network that learns from rows: `learn`, `peek`, `read`, at the speed of one compiled call.

    Holds all that a restart needs: `save` gives it as arrays and JSON, `load` takes it back. `widen` makes room for
    more numbers in a row and `admit` for more classes: what was learned stays, and programs are compiled anew.
    """

    def __init__(self, recipe: Recipe, capacity: int, classes: int = 0, *, lengths: tuple[int, ...] = (ONE, MANY)):
        self.recipe, self.capacity, self.classes, self.stage, self.rows = recipe, capacity, classes, 1, 0
        self.lengths = lengths
        self.packed: Any = None

    @property
    def programs(self) -> _Programs:
        """The compiled functions for the present shapes."""
        return _programs(self.recipe, self.capacity, self.classes, self.stage)

    def _state(self) -> Any:
        if self.packed is None:
            self.packed = self.programs.start()
        return self.packed

    def _split(self, answers: np.ndarray) -> Answers:
        outputs = self.programs.stream.outputs
        linear = outputs + self.recipe.targets
        return Answers(answers[:, :outputs], answers[:, outputs:linear], answers[:, linear:])

    def learn(self, x: np.ndarray, plain: np.ndarray, y: np.ndarray, arrived: np.ndarray | None = None) -> Answers:
        """Learn from rows x (rows, capacity) with targets y (rows, targets), in order; the answers to each."""
        arrived = y if arrived is None else arrived
        parts = []
        for start, stop in self._stretches(len(x)):
            parts.append(self._run("step", x[start:stop], plain, y[start:stop], arrived[start:stop]))
            self.rows += stop - start
            if self._grows():
                self._change(self.stage + 1, self.capacity, self.classes)
        return Answers(*map(np.concatenate, zip(*parts, strict=True)))

    def read(self, x: np.ndarray, plain: np.ndarray, y: np.ndarray) -> Answers:
        """Answer rows in order without learning."""
        most = self.lengths[-1]
        parts = [self._run("read", x[i : i + most], plain, y[i : i + most]) for i in range(0, len(x), most)]
        return Answers(*map(np.concatenate, zip(*parts, strict=True)))

    def peek(self, x: np.ndarray, plain: np.ndarray, y: np.ndarray) -> Answers:
        """The answer to one row (capacity,); nothing changes."""
        return self._split(np.asarray(self.programs.of("peek", 1)(self._state(), x, plain, y))[None])

    def _stretches(self, rows: int) -> list[tuple[int, int]]:
        """Cut where the network grows, and where a program ends."""
        every, done = self.recipe.stage_rows, self.rows
        cuts = {0, rows, *range(0, rows, self.lengths[-1])}
        if self.recipe.network == "ccn":
            cuts |= {stage * every - done for stage in range(1, self.recipe.stages)}
        inside = sorted(cut for cut in cuts if 0 <= cut <= rows)
        return list(itertools.pairwise(inside))

    def _grows(self) -> bool:
        recipe = self.recipe
        return recipe.network == "ccn" and self.stage < recipe.stages and self.rows == self.stage * recipe.stage_rows

    def _run(
        self, what: str, x: np.ndarray, plain: np.ndarray, y: np.ndarray, arrived: np.ndarray | None = None
    ) -> Answers:
        rows, programs = len(x), self.programs
        length = next(n for n in self.lengths if n >= rows)
        fill = lambda a: a if len(a) == length else np.concatenate([a, np.zeros((length - rows, a.shape[1]), a.dtype)])
        x, y = fill(x), fill(np.asarray(y, np.float32))
        arrived = y if arrived is None else fill(np.asarray(arrived, np.float32))
        self.packed, answers = programs.of(what, length)(self._state(), x, plain, y, arrived, np.int32(rows))
        return self._split(np.asarray(answers)[:rows])

    def widen(self, capacity: int) -> None:
        """Rows of more numbers, from now on."""
        self._change(self.stage, capacity, self.classes)

    def admit(self, classes: int) -> None:
        """More classes, from now on."""
        self._change(self.stage, self.capacity, classes)

    def _change(self, stage: int, capacity: int, classes: int) -> None:
        before = self.programs
        self.stage, self.capacity, self.classes = stage, capacity, classes
        after = self.programs
        if self.packed is None:
            return
        self.packed = before.change(after)(self.packed)

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays, and what JSON can hold."""
        packed = _own(self._state())
        arrays = {"floats": packed.floats, "whole": packed.whole} | {f"long{i}": a for i, a in enumerate(packed.long)}
        return {k: np.asarray(v) for k, v in arrays.items()}, self.meta

    @property
    def meta(self) -> dict[str, Any]:
        """Recipe and shapes."""
        shapes = {"capacity": self.capacity, "classes": self.classes, "stage": self.stage, "rows": self.rows}
        return {"recipe": dataclasses.asdict(self.recipe), "lengths": list(self.lengths), **shapes}

    @classmethod
    def load(cls, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> "Learner":
        """The learner again."""
        self = cls(Recipe(**meta["recipe"]), meta["capacity"], meta["classes"], lengths=tuple(meta["lengths"]))
        self.stage, self.rows = meta["stage"], meta["rows"]
        given: Any = arrays
        long = tuple(given[f"long{i}"] for i in range(len(given) - 2))
        self.packed = _own(Packed(given["floats"], given["whole"], long))
        return self

    def __getstate__(self) -> Any:
        return (None, self.meta) if self.packed is None else self.save()

    def __setstate__(self, kept: Any) -> None:
        arrays, meta = kept
        fresh = Learner(Recipe(**meta["recipe"]), meta["capacity"], meta["classes"], lengths=tuple(meta["lengths"]))
        self.__dict__.update((fresh if arrays is None else Learner.load(arrays, meta)).__dict__)
