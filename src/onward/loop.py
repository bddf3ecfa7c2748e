"""Learning over time: runs of a learner on a task, side by side, in one compiled loop."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from onward import saving
from onward.batching import WIDE_LANES
from onward.cells.base import AbstractCell, AbstractGated
from onward.cells.encoder import Encoder
from onward.devices import computing_in, fast_to_compile, must_compute, platform, precision
from onward.heads.base import AbstractHead
from onward.learners.base import AbstractLearner, inside
from onward.learners.online import Online
from onward.model import Model
from onward.tasks.base import AbstractTask
from onward.types import Actions, Info, PyTree

# Wider vectors than XLA's default: 1.4-1.5x on CPUs with AVX-512, nothing on others (decisions.md).
CPU_OPTIONS = {"xla_cpu_prefer_vector_width": "512"}

Run = tuple[float, int]
Measure = Callable[[Any, Info], tuple[Array, Array]]
MakeLearner = Callable[[Model, Any], AbstractLearner]
# What was compiled for the present stage of a network, by what it is for.
Programs = dict[Any, Callable[..., Any]]


class _Saved(TypedDict):
    """What a saved loop says of itself."""

    stages: int
    runs: list[list[float]]


class Loop:
    """Runs of a learner on a task, side by side: every step size with every seed.

    >>> import jax, optax, onward as ow
    >>> model = lambda key: ow.Model(ow.Columns(ow.GRUGates(), 3, 4, key=key), ow.Categorical(4, 3))
    >>> learner = ow.Online(ow.Columnwise(), ow.Supervised(), optax.adam(1.0))
    >>> measure = lambda example, info: (info.loss, example.weight)
    >>> loop = ow.Loop(ow.AnBn(), model, learner, measure, seeds=range(3), step_sizes=(0.01, 0.001))
    >>> loop.start()
    >>> loop.advance(20)
    >>> loss, _ = loop.means()
    >>> loss.shape
    (6,)

    `task` gives the examples. `model(key)` draws a network; a seed decides it and the run's task. `learner` is a
    learner, whose field `step_size` is replaced in each run (`step_sizes` None: kept), or a function
    `(model, step_size) -> learner`, which is called again after growth; it gets a traced number (None: 1).
    `measure(example, info)` gives a number of one step and its weight; `monitor` names more such functions.
    `runs` are (step size, seed) pairs in place of every step size with every seed.

    All runs of one `Loop` advance together, along the axis `axis` of every array: -1 suits narrow columns and layers, 0
    wide ones and matrix products. None: by the width of the network; on an accelerator it is always 0. On a
    CPU some 64 runs at once are best; more are quicker as
    several loops, one after another, which may share `programs` (a dictionary, empty at first) if they have as many
    runs each. With `keeps_best` the learner's state that was best of each run (`keep_best`) is kept too.

    A loop keeps to the precision it was made in (`jax_enable_x64`), is compiled, and traps no NaN, however JAX's
    switches are set by then.

    Raises ValueError if there are no runs, and TypeError if `step_sizes` are given and the learner has no such field.
    """

    state: PyTree
    """(task state, learner state) of all runs; None before `start`."""
    best: PyTree
    """With `keeps_best`: the least value of each run so far, and the arrays of the learner's state then."""

    def __init__(
        self,
        task: AbstractTask,
        model: Callable[[PRNGKeyArray], Model],
        learner: AbstractLearner | MakeLearner,
        measure: Measure,
        *,
        seeds: Sequence[int] = (0,),
        step_sizes: Sequence[float] | None = None,
        runs: Sequence[Run] | None = None,
        monitor: Mapping[str, Measure] | None = None,
        axis: int | None = None,
        keeps_best: bool = False,
        programs: Programs | None = None,
    ) -> None:
        self._precision = precision()
        self._model, self._measure, self._monitor = model, measure, dict(monitor or {})
        keep = step_sizes is None and runs is None
        self._learner = learner_by_size(learner, keep=keep)
        if runs is None:
            sizes = (getattr(learner, "step_size", 1.0),) if step_sizes is None else step_sizes
            runs = [(size, seed) for size in sizes for seed in seeds]
        self.runs = [(float(size), int(seed)) for size, seed in runs]
        if not self.runs:
            raise ValueError("Loop: there are no runs; give at least one seed and one step size")
        self._axis = axis
        # Arrays of the task (a data set, say) are arguments of every program: as constants they would be compiled in.
        self._data, self._task = eqx.partition(task, eqx.is_array)
        self._sizes = jnp.asarray([size for size, _ in self.runs], jnp.float32)
        self._keys = jax.vmap(jax.random.key)(jnp.asarray([seed for _, seed in self.runs], jnp.uint32))
        self._keeps_best = keeps_best
        self._programs: Programs = {} if programs is None else programs
        self._sums = self._zero_sums()
        self.state, self.best = None, ()
        self.stages = 1
        self.compile_seconds = 0.0

    @cached_property
    def axis(self) -> int:
        """Where runs lie in every array: the first axis or the last."""
        if platform() != "cpu":
            return 0
        if self._axis is not None:
            return self._axis
        with self._as_made():
            model = eqx.filter_eval_shape(self._model, jax.random.key(0))
            return suitable_axis(model, eqx.filter_eval_shape(lambda model: self._learner(model, 1.0), model))

    def start(self) -> None:
        """Draw every run's network and begin its task."""
        with self._as_made():
            must_compute()
            programs = self._of_stage(1)
            if "start" not in programs:
                programs["start"] = eqx.filter_jit(self._start, **_once())
            state = programs["start"](self._data, self._keys, self._sizes)
            self._take(state=state, stages=1, _programs=programs, best=self._no_best(state))

    def grow(self) -> None:
        """Let the learner of every run grow its network. What was compiled, and the best state, are forgotten."""
        with self._as_made():
            state = eqx.filter_jit(self._grown, **_once())(self._data, self.state)
            self._take(state=state, stages=self.stages + 1, _programs={}, best=self._no_best(state))

    def advance(self, steps: int) -> None:
        """Learn for `steps` steps, and add up what is measured. Compiled once a stage, whatever the steps."""
        with self._as_made():
            must_compute()
            dynamic, static = self._parts()
            if "advance" not in self._programs:

                def add(sums: PyTree, example: Any, info: Info) -> PyTree:
                    measured: Any = self._measure(example, info)
                    if self._monitor:
                        measured = (*measured, {name: more(example, info) for name, more in self._monitor.items()})
                    return jax.tree.map(jnp.add, sums, measured)

                def chunk(dynamic: PyTree, sums: PyTree, data: PyTree, sizes: Array, steps: Array) -> Any:
                    return lax.fori_loop(0, steps, partial(self._step(static, data, add), sizes), (dynamic, sums))

                started = time.process_time()
                # The state is not given away: an interrupt leaves that of before.
                lowered = jax.jit(chunk).lower(dynamic, self._sums, self._data, self._sizes, jnp.asarray(1))
                self._programs["advance"] = compile_wide(lowered)
                self.compile_seconds += time.process_time() - started
            advance = self._programs["advance"]
            dynamic, sums = advance(dynamic, self._sums, self._data, self._sizes, jnp.asarray(steps))
            jax.block_until_ready(sums)
            self._take(state=eqx.combine(dynamic, static), _sums=sums)

    def means(self) -> tuple[Float[np.ndarray, " runs"], dict[str, Float[np.ndarray, " runs"]]]:
        """The weighted means of what is measured, and of what is monitored by name, since the last call.

        NaN where nothing weighed. The sums begin anew.
        """

        def mean(total: Array, weight: Array) -> np.ndarray:
            sums, counts = np.asarray(total, np.float64), np.asarray(weight, np.float64)
            return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)

        total, weight, *more = self._sums
        means = mean(total, weight), {name: mean(*sums) for part in more for name, sums in part.items()}
        self._sums = self._zero_sums()
        return means

    def record(self, steps: int) -> dict[str, np.ndarray]:
        """The next `steps` steps of the first run, step by step, on a copy of the state: fields of example and info."""
        with self._as_made():
            dynamic, static = self._parts()
            if ("record", steps) not in self._programs:

                def roll(dynamic: PyTree, data: PyTree, sizes: Array) -> Any:
                    step = self._step(static, data, lambda _, *seen: seen)

                    def body(dynamic: PyTree, _: None) -> Any:
                        dynamic, seen = step(sizes, None, (dynamic, ()))
                        return dynamic, jax.tree.map(lambda a: a[0], seen)

                    return lax.scan(body, dynamic, length=steps)[1]

                self._programs["record", steps] = jax.jit(roll, **_once(exactly=False))
            example, info = self._programs["record", steps](dynamic, self._data, self._sizes)
            fields = {**example._asdict(), **info._asdict()}
            return {name: np.asarray(value) for name, value in fields.items() if value is not None}

    def evaluate(
        self, name: str, function: Callable[[PyTree], dict[str, Array]], *, best: bool = False, once: bool = False
    ) -> dict[str, np.ndarray]:
        """What `function(learner state)` says of every run, on a leading axis.

        Compiled once a stage for each `name`. `function` may be a module; its arrays (held-out data) are then arguments
        of the program. `best`: of the best states. `once`: compile it fast rather than well.
        """
        with self._as_made():
            dynamic, static = self._parts()
            if best:
                dynamic = (dynamic[0], self.best[1])
            held_out, rest = eqx.partition(function, eqx.is_array)
            if ("evaluate", name) not in self._programs:

                def each(dynamic: PyTree, held_out: PyTree) -> Any:
                    ask = lambda dynamic: eqx.combine(held_out, rest)(eqx.combine(dynamic, static)[1])
                    return jax.vmap(ask, in_axes=self.axis)(dynamic)

                self._programs["evaluate", name] = jax.jit(each, **(_once() if once else {}))
            return {k: np.asarray(v) for k, v in self._programs["evaluate", name](dynamic, held_out).items()}

    def keep_best(self, values: Float[np.ndarray, " runs"]) -> None:
        """Of each run whose value is the least since the start or the last growth, keep the present learner state."""
        with self._as_made():
            least, learned = self.best
            better = jnp.asarray(values) < least

            def choose(new: Array, old: Array) -> Array:
                shape = [1] * new.ndim
                shape[self.axis] = len(self.runs)
                return jnp.where(better.reshape(shape), new, old)

            learned = jax.tree.map(choose, eqx.filter(self.state[1], eqx.is_array), learned)
            self.best = (jnp.where(better, jnp.asarray(values, jnp.float32), least), learned)

    def broken(self, *, state: bool = True) -> np.ndarray:
        """Which runs hold a number that is not finite: in the sum of what is measured, or (`state`) in the learner."""
        broken = ~np.isfinite(np.asarray(self._sums[0]))
        for leaf in jax.tree.leaves(eqx.filter(self.state[1], eqx.is_inexact_array)) if state else ():
            finite = np.isfinite(np.moveaxis(np.asarray(leaf), self.axis, 0))
            broken |= ~finite.reshape(len(self.runs), -1).all(1)
        return broken

    def not_finite(self) -> str | None:
        """The name of the first array of the network, or else of the learner's state, that is not finite."""
        flat, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(self.state[1], eqx.is_inexact_array))
        for path, leaf in flat:
            if not np.isfinite(np.asarray(leaf)).all():
                return jax.tree_util.keystr(path, simple=True, separator=".")
        return None

    def save(self, path: str | Path, /, **meta: Any) -> None:
        """Write all that the next step needs, with `meta` as JSON. Raises `OnwardError` if it cannot be written."""
        with self._as_made():
            saving.save(path, (self.state, self._sums, self.best)[: 2 + self._keeps_best], **self._about, **meta)

    def load(self, path: str | Path) -> dict[str, Any]:
        """Go on from a file of `save`, to the bit; returns its meta.

        Raises `Unreadable` if it is damaged or was saved from other parts or other runs; nothing has changed then.
        """
        with self._as_made():
            meta, arrays = saving.load_arrays(Path(path))
            saving.check_meta(meta, _Saved, str(path))
            if meta["runs"] != self._about["runs"]:
                raise saving.Unreadable(f"{path} was saved from other runs: step sizes and seeds are not the same")
            stages = meta["stages"]
            with saving.reading(path):
                state = self._shapes_within(stages, sum(array.nbytes for array in arrays.values()))
                like = (state, self._sums, (jax.ShapeDtypeStruct((len(self.runs),), jnp.float32), state[1]))
                (state, sums, *best), meta = saving.tree_of(path, meta, arrays, like[: 2 + self._keeps_best])
                best = [(values, eqx.filter(learned, eqx.is_array)) for values, learned in best] or [()]
            self._take(state=state, _sums=sums, best=best[0], stages=stages, _programs=self._of_stage(stages))
            return {name: value for name, value in meta.items() if name not in self._about}

    def _shapes_within(self, stages: int, most: int) -> PyTree:
        """`shapes`, as long as they have not more than `most` bytes: every growth adds some. Else ValueError."""
        if stages < 1:
            raise ValueError(f"{stages} stages")
        shapes = self.shapes()
        for stage in range(1, stages):
            if sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(eqx.filter(shapes, _has_shape))) > most:
                raise ValueError(f"its arrays are fewer than {stage} of {stages} stages have")
            shapes = eqx.filter_eval_shape(self._grown, self._data, shapes)
        return shapes

    def shapes(self, stages: int = 1) -> PyTree:
        """Shapes of the state after `stages - 1` growths; computes nothing."""
        with self._as_made():
            grown = eqx.filter_eval_shape(self._start, self._data, self._keys, self._sizes)
            for _ in range(stages - 1):
                grown = eqx.filter_eval_shape(self._grown, self._data, grown)
            return grown

    def _as_made(self) -> AbstractContextManager[None]:
        """Whatever JAX's switches are by now."""
        return computing_in(self._precision)

    def _parts(self) -> tuple[PyTree, PyTree]:
        """The arrays of the state, and the rest of it."""
        if self.state is None:
            raise ValueError("Loop: nothing has begun; call start() or load(path) first")
        return eqx.partition(self.state, eqx.is_array)

    @property
    def _about(self) -> dict[str, Any]:
        return {"stages": self.stages, "runs": [list(run) for run in self.runs]}

    def _of_stage(self, stages: int) -> Programs:
        """What was compiled for networks of so many stages: of another number of them, nothing yet."""
        return self._programs if stages == self.stages else {}

    def _take(self, **parts: Any) -> None:
        """All of these in one step, so that an interrupt comes before or after it."""
        vars(self).update(parts)

    def _no_best(self, state: PyTree) -> PyTree:
        """The best state so far: none, of the structure of this one."""
        if not self._keeps_best:
            return self.best
        return jnp.full(len(self.runs), jnp.inf), eqx.filter(state[1], eqx.is_array)

    def _zero_sums(self) -> PyTree:
        """Sum and weight of what is measured and monitored."""
        with self._as_made():
            zeros = (jnp.full(len(self.runs), 0.0),) * 2
        return (*zeros, dict.fromkeys(self._monitor, zeros)) if self._monitor else zeros

    def _start(self, data: PyTree, keys: Array, sizes: Array) -> PyTree:
        source = eqx.combine(data, self._task)

        def start(key: PRNGKeyArray, size: Array) -> Any:
            model_key, task_key, learner_key = jax.random.split(key, 3)
            task = source.init(task_key)
            model = self._model(model_key)
            _, example = source.emit(task)
            learner = self._learner(model, size)
            require_actions(source, learner, model)
            return task, learner.init(model, example, key=learner_key)

        return eqx.filter_vmap(start, out_axes=eqx.if_array(self.axis))(keys, sizes)

    def _grown(self, data: PyTree, state: PyTree) -> PyTree:
        source = eqx.combine(data, self._task)

        def grow(state: PyTree) -> Any:
            task, learned = state
            _, example = source.emit(task)
            learner: Any = self._learner(learned.model, 1.0)
            return task, learner.grow(learned, example)

        axis = eqx.if_array(self.axis)
        return eqx.filter_vmap(grow, in_axes=axis, out_axes=axis)(state)

    def _step(self, static: PyTree, data: PyTree, keep: Callable[..., PyTree]) -> Callable[..., Any]:
        """A step of every run: (sizes, anything, (state, kept)) -> (state, what `keep(kept, example, info)` says)."""
        source = eqx.combine(data, self._task)

        def step(size: Array, _: Any, run: Any) -> Any:
            task, learned = eqx.combine(run[0], static)
            task, example = source.emit(task)
            learner = self._learner(learned.model, size)
            learned, info = inside(type(learner).step)(learner, learned, example)
            if source.actions is not None:
                task = source.act(task, info.action)
            return eqx.filter((task, learned), eqx.is_array), keep(run[1], example, info)

        axes = (self.axis, 0)
        return jax.vmap(step, in_axes=(0, None, axes), out_axes=axes)


def suitable_axis(model: Model, learner: AbstractLearner) -> int:
    """Where runs of a learner lie on a CPU: as the kernels of its credit rule and head have them. 0 or -1."""
    if not isinstance(learner, Online):
        return 0
    return 0 if _width(model.cell) >= learner.credit.wide or _matrix(model.head) >= WIDE_LANES else -1


def _width(cell: AbstractCell) -> int:
    """Units of the widest layer."""
    layers = jax.tree.leaves(cell, is_leaf=lambda part: isinstance(part, AbstractGated | Encoder))
    hidden = lambda layer: eqx.filter_eval_shape(lambda layer: layer.init().hidden, layer)
    states = [hidden(layer) for layer in layers if isinstance(layer, AbstractCell)]
    return max((leaf.shape[-1] for leaf in jax.tree.leaves(states)), default=0)


def _matrix(head: AbstractHead) -> int:
    """The shorter side of the largest matrix."""
    return max((min(leaf.shape) for leaf in jax.tree.leaves(head) if getattr(leaf, "ndim", 0) == 2), default=0)


def require_actions(task: AbstractTask, learner: AbstractLearner, model: Model) -> None:
    """Refuse a learner that does not choose from what the task can be told to do."""
    wanted, given = task.actions, learner.actions(model)
    if wanted != given:
        raise TypeError(
            f"{type(task).__name__} takes {_said(wanted)}, and the objective of {type(learner).__name__} chooses from "
            f"{_said(given)}; take another objective, or another number of outputs of the head"
        )


def _said(actions: Actions | None) -> str:
    if actions is None:
        return "no actions"
    return f"{actions} actions" if isinstance(actions, int) else f"actions that are real numbers of shape {actions}"


def learner_by_size(learner: AbstractLearner | MakeLearner, *, keep: bool) -> MakeLearner:
    """A function `(model, step size) -> learner` of what may be one already; `keep`: with its own step size."""
    if not isinstance(learner, AbstractLearner):
        return learner
    part: Any = learner
    if keep:
        return lambda model, size: part
    if not hasattr(part, "step_size"):
        raise TypeError(
            f"Loop: {type(part).__name__} has no field step_size for the step sizes; give a function "
            "(model, step_size) -> learner in its place, or no step sizes"
        )
    return lambda model, size: replace(part, step_size=size)


def _has_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _once(*, exactly: bool = True) -> dict[str, Any]:
    """For a program that runs once or twice: compile it fast rather than well.

    exactly: with the roundings of other programs; what is only looked at may have others, and compile faster still.
    """
    if platform() != "cpu":
        return {}
    return {"compiler_options": {"xla_backend_optimization_level": 0} if exactly else fast_to_compile()}


def compile_wide(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compile for wide vectors. XLA's arctangent is wrong in them (decisions.md): programs that use it get none."""
    if platform() == "cpu" and ".atan" not in lowered.as_text():
        try:
            return lowered.compile(compiler_options=dict(CPU_OPTIONS))
        except jax.errors.JaxRuntimeError as error:  # an XLA that no longer knows the option
            if "option" not in str(error):
                raise
    return lowered.compile()
