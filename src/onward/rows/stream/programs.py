"""The compiled programs of a recipe, shared by all that learn by it."""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from onward.devices import SINGLE, computing_in, must_compute
from onward.errors import OnwardError
from onward.learners.late import LateState
from onward.rows.packed import Packed, Packing
from onward.rows.stream.recipe import RowRecipe
from onward.rows.stream.step import Stream, StreamState
from onward.types import PyTree

# Rows of the programs of a learner: what has come of a stream, a call of many, or a block of a file. Fewer rows fill a
# part of it, with the same numbers to the last bit.
STREAM, MANY, BLOCK = 32, 128, 4096
# Bytes that what waits for its targets may take.
MOST_WAITING = 2_000_000_000
# Numbers from which on an array is handed over by itself: each costs a call more than that many numbers copied.
LARGE = 2500

# The compiled function of several rows: (packed, x, plain, y, arrived, at, rows that count) -> (packed, answers).
Program = Callable[..., Any]


class Answers(NamedTuple):
    """What is known of the target before it is known. Of rows, one each a line.

    outputs: (rows, targets) numbers, or (rows, classes) probabilities. linear: (rows, targets), the linear baseline's.
    weights, experts: (rows, targets, experts), of each its part of the mixture and its answer, NaN: none; or empty.
    spread: (rows, targets, 3 components), log weights, means and log widths of a mixture of Gaussians each; or empty.
    strange: (rows,), the place of the first value that was not believed, from 1 on, inputs before targets; 0: none.
    doubted: (rows, targets), whether the target of this row itself was not believed.
    """

    outputs: np.ndarray
    linear: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    experts: np.ndarray
    strange: np.ndarray
    doubted: np.ndarray


class Programs:
    """The compiled functions of a recipe at one capacity, number of classes and stage."""

    def __init__(self, recipe: RowRecipe, capacity: int, classes: int, stage: int):
        with as_usual():
            self.stream, self.stage = Stream(recipe, capacity, classes), stage
            # The structure only; nothing is computed.
            try:
                shapes = eqx.filter_eval_shape(self.fresh)
            except MemoryError as error:
                raise OnwardError(
                    f"a network of {recipe.units} units ({recipe.network}, rule {recipe.rule}) with room for "
                    f"{capacity} inputs does not fit: {error}"
                ) from error
            _require_room(recipe, capacity, shapes)
            self.packing = Packing(shapes, _apart)
        self._start: Packed | None = None
        self._changes: dict[Programs, Program] = {}
        self._compiled: dict[tuple[str, int, bool], Program] = {}

    def fresh(self) -> StreamState:
        """The state before the first row, grown to this stage."""
        state = self.stream.init()
        for _ in range(self.stage - 1):
            state = self.stream.grow(state)
        return state

    def start(self) -> Packed:
        """The same, packed. Computed once, for all learners."""
        if self._start is None:
            self._start = _once(lambda: self.packing.pack(self.fresh()))()
        return own(self._start)

    def change(self, after: "Programs") -> Program:
        """The program that makes a state of these shapes one of those; compiled when it is first asked for."""
        if after not in self._changes:

            def change(packed: Packed) -> Packed:
                state = self.packing.unpack(packed)
                grown = after.stage > self.stage
                return after.packing.pack(
                    self.stream.grow(state) if grown else self.stream.enlarge(state, after.fresh())
                )

            self._changes[after] = _once(change, self._state())
        return self._changes[after]

    def of(self, what: str, rows: int, *, in_place: bool = False) -> Program:
        """The program `what` for up to `rows` rows.

        `in_place`: the state that it is given is used up, and whoever calls it keeps JAX's switches `as_usual`.

        step: learn and answer. read: answer, move on and learn nothing. peek: answer a row, and nothing changes. Of
        rows [x, targets]: row learns from one with lag 0 and answers nothing; ask and asks give the outputs for one,
        and for each of many as if it came next.
        """
        if (what, rows, in_place) not in self._compiled:
            programs: dict[str, Program] = {
                "step": self._many(self.stream.step),
                "read": self._many(self.stream.read),
                "peek": self._peek,
                "row": self._row,
                "ask": self._ask,
                "asks": self._asks,
            }
            program = programs[what]
            self._compiled[what, rows, in_place] = jax.jit(program, donate_argnums=(0,)) if in_place else held(program)
        return self._compiled[what, rows, in_place]

    def _state(self) -> PyTree:
        """The shapes of a packed state."""
        return eqx.filter_eval_shape(self.packing.pack, self.packing.shapes)

    def compile(self, what: str, rows: int) -> None:
        """Compile the program of several rows that works `in_place`, before it is called."""
        program: Any = self.of(what, rows, in_place=True)
        if hasattr(program, "lower"):
            floats = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
            capacity, y = self.stream.capacity, floats(rows, self.stream.recipe.targets)
            plain, count = jax.ShapeDtypeStruct((capacity,), np.bool_), jax.ShapeDtypeStruct((), np.int32)
            at = jax.ShapeDtypeStruct((rows, self.stream.width), np.int32)
            compiled = program.lower(self._state(), floats(rows, capacity), plain, y, y, at, count).compile()
            self._compiled[what, rows, True] = compiled

    def _peek(self, packed: Packed, x: Array, plain: Array, y: Array) -> Array:
        return self.stream.read(self.packing.unpack(packed), x, plain, y, y, self.stream.nowhere)[1]

    def _row(self, packed: Packed, row: Array, plain: Array) -> Packed:
        y = row[self.stream.capacity :]
        state = self.packing.unpack(packed)
        x, nowhere = row[: self.stream.capacity], self.stream.nowhere
        return self.packing.pack(self.stream.step(state, x, plain, y, y, nowhere)[0])

    def _ask(self, packed: Packed, row: Array, plain: Array) -> Array:
        return self._outputs(self.packing.unpack(packed), row, plain)

    def _asks(self, packed: Packed, rows: Array, plain: Array) -> Array:
        state = self.packing.unpack(packed)
        return lax.map(lambda row: self._outputs(state, row, plain), rows)

    def _outputs(self, state: StreamState, row: Array, plain: Array) -> Array:
        capacity = self.stream.capacity
        y, nowhere = row[capacity:], self.stream.nowhere
        return self.stream.read(state, row[:capacity], plain, y, y, nowhere)[1][: self.stream.target.outputs]

    def _many(self, step: Callable[..., tuple[StreamState, Array]]) -> Program:
        def many(
            packed: Packed, x: Array, plain: Array, y: Array, arrived: Array, at: Array, count: Array
        ) -> tuple[Packed, Array]:
            state = self.packing.unpack(packed)
            if len(x) == 1:
                after, answer = step(state, x[0], plain, y[0], arrived[0], at[0])
                return self.packing.pack(after), answer[None]
            dynamic, static = eqx.partition(state, eqx.is_array)
            size = eqx.filter_eval_shape(step, state, x[0], plain, y[0], arrived[0], at[0])[1].size

            def body(i: Array, loop: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
                dynamic, answers = loop
                after, answer = step(eqx.combine(dynamic, static), x[i], plain, y[i], arrived[i], at[i])
                return eqx.filter(after, eqx.is_array), answers.at[i].set(answer)

            dynamic, answers = lax.fori_loop(0, count, body, (dynamic, jnp.zeros((len(x), size))))
            return self.packing.pack(eqx.combine(dynamic, static)), answers

        return many


# Programs are shared by all learners of a recipe.
programs_of = lru_cache(maxsize=64)(Programs)


def _require_room(recipe: RowRecipe, capacity: int, state: StreamState) -> None:
    """Refuse more predictions that wait than there is memory for, by the shapes alone."""
    need = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(_waiting(state)))
    if need > MOST_WAITING:
        each = need / recipe.lag
        # Of a path, what a row takes grows with its length.
        most = int(recipe.lag * math.sqrt(MOST_WAITING / need) if recipe.path > 1 else MOST_WAITING / each)
        raise OnwardError(
            f"a target that comes {recipe.lag:,} rows later: what waits until then would take {need / 1e9:,.1f} GB "
            f"({each / 1e3:,.0f} kB a row with room for {capacity} inputs and {recipe.units} units), and may take "
            f"{MOST_WAITING / 1e9:g} GB. Take a horizon of at most {most:,} rows (of returns, a "
            "smaller discount), or fewer units or columns"
        )


def _waiting(state: StreamState) -> list[PyTree]:
    late = state.learned.rings if isinstance(state.learned, LateState) else ()
    return [state.waiting, late, getattr(state.experts, "waiting", ())]


def _apart(state: StreamState) -> list[PyTree]:
    """What is not packed: what waits, and arrays that take longer to copy than to hand over."""
    large = [leaf for leaf in jax.tree.leaves(state) if getattr(leaf, "size", 0) >= LARGE]
    return [leaf for leaf in jax.tree.leaves((_waiting(state), large)) if leaf.size]


@contextlib.contextmanager
def as_usual() -> Iterator[None]:
    """JAX's switches as rows are learned with, however somebody has set them: single precision, compiled, no traps."""
    with (
        computing_in(SINGLE),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def held(function: Program) -> Program:
    """Compiled, and the same under every setting of JAX's switches.

    The switches are set where the program is traced, which costs a call nothing. A state holds NaN where nothing was
    seen yet: where NaN is trapped, the call is made anew without the trap.
    """
    inner = jax.jit(function, inline=True)

    def as_ever(*arguments: Any) -> Any:
        with as_usual():
            return inner(*arguments)

    compiled = jax.jit(as_ever)

    def call(*arguments: Any) -> Any:
        must_compute()
        try:
            return compiled(*arguments)
        except FloatingPointError:
            with as_usual():
                return compiled(*arguments)

    return call


def _once(function: Callable[..., Packed], *shapes: PyTree) -> Program:
    """Compiled at once, and fast rather than well: it runs once."""
    fast: dict[str, str | bool] = {"xla_backend_optimization_level": "0"} if jax.default_backend() == "cpu" else {}
    must_compute()
    with as_usual():
        compiled = jax.jit(function).lower(*shapes).compile(fast)

    def call(*arguments: Any) -> Packed:
        must_compute()
        with as_usual():
            packed: Packed = compiled(*arguments)
            return packed

    return call


# A copy in JAX's own memory. What NumPy shares must not be used up: it would be freed while it is in use.
own: Callable[[Packed], Packed] = held(lambda packed: jax.tree.map(jnp.copy, packed))
