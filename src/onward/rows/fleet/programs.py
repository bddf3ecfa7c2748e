"""The compiled programs of a fleet: many states side by side, or one after the other where weights are shared."""

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from onward.devices import must_compute
from onward.learners.late import LateState
from onward.rows.packed import Packed, Packing
from onward.rows.stream import RowRecipe, as_usual
from onward.rows.stream.step import Stream, StreamState
from onward.types import PyTree

Share = Literal["none", "features", "all"]
# Entities that a program learns side by side, and rows of each in a call. A lane's numbers depend on no other lane.
LANES, ROUNDS = 32, 64
# Where weights are shared: rows of a call, and entities among them.
ROWS, AMONG = 1024, 256
# What all entities share, by where it stands in a state.
_FEATURES = (".learned.model.cell", ".learned.optimiser.cell")
_ALL = (
    *(".learned.model", ".learned.optimiser"),
    *(".linear.weight", ".linear.bias", ".density.head", ".density.optimiser"),
)
SHARED: dict[Share, tuple[str, ...]] = {"none": (), "features": _FEATURES, "all": _ALL}


class Parts(NamedTuple):
    """A state in two: what all entities share, and what each has of its own, as floats and as integers."""

    shared: Packed
    floats: np.ndarray
    whole: np.ndarray


class FleetPrograms:
    """The programs of a recipe at one capacity, where entities share so much.

    An entity's own part is (floats,) and (whole,) numbers. `lanes` learns `LANES` entities side by side, each from up
    to `ROUNDS` rows; where something is shared, `line` learns up to `ROWS` rows of `AMONG` entities one after the
    other, in the order they came: as one learner would that were handed each entity's state with its row. Both give
    what the step of the recipe gives, to the rounding of a program compiled otherwise.
    """

    def __init__(self, recipe: RowRecipe, capacity: int, share: Share):
        with as_usual():
            self.stream = Stream(recipe, capacity, pooled=share != "none")
            shapes = eqx.filter_eval_shape(self.stream.init)
            mask = _mask(shapes, SHARED[share])
            shared, own = eqx.partition(shapes, mask)
            self._shared, self.own = Packing(shared), Packing(own)
        self.recipe, self.capacity, self.share, self._mask = recipe, capacity, share, mask
        self._start: Parts | None = None
        self._compiled: dict[str, Any] = {}

    def start(self) -> Parts:
        """Before the first row."""
        if self._start is None:
            must_compute()
            with as_usual():
                state = jax.jit(self.stream.init, compiler_options=_FAST)()
                shared, own = eqx.partition(state, self._mask)
                mine = self.own.from_host(own)
                self._start = Parts(
                    jax.tree.map(np.asarray, self._shared.from_host(shared)),
                    np.asarray(mine.floats),
                    np.asarray(mine.whole),
                )
        return self._start

    def _state(self, shared: Packed, floats: Array, whole: Array) -> StreamState:
        """One entity's state; traced."""
        own = self.own.unpack(Packed(floats, whole, ()))
        state: StreamState = eqx.combine(self._shared.unpack(shared), own)
        return state

    def _parts(self, state: StreamState) -> tuple[Packed, Array, Array]:
        shared, own = eqx.partition(state, self._mask)
        mine = self.own.pack(own)
        return self._shared.pack(shared), mine.floats, mine.whole

    def run(self, what: str, *arguments: Any) -> Any:
        """`lanes` or `line`, with `-read` behind it where nothing is to be learned; compiled when first asked for."""
        must_compute()
        with as_usual():
            if what not in self._compiled:
                self._compiled[what] = jax.jit(getattr(self, f"_{what.removesuffix('-read')}")(what.endswith("-read")))
            return self._compiled[what](*arguments)

    def _lanes(self, read: bool) -> Any:
        """(floats (L, f), whole (L, w), x (R, L, capacity), plain, y (R, L, targets), counts (L,)) -> the first two
        after as many rows as each lane has, and the answers (R, L, numbers).
        """
        step = self.stream.read if read else self.stream.step

        def lanes(floats: Array, whole: Array, x: Array, plain: Array, y: Array, counts: Array) -> Any:
            nothing = Packed(jnp.zeros(0), jnp.zeros(0, jnp.int32), ())
            one = lambda floats, whole: eqx.filter(self._state(nothing, floats, whole), eqx.is_array)
            static = eqx.filter(eqx.filter_eval_shape(self.stream.init), _is_static)
            state = jax.vmap(one)(floats, whole)

            def row(state: PyTree, x: Array, y: Array) -> tuple[PyTree, Array]:
                after, answer = step(eqx.combine(state, static), x, plain, y, y, self.stream.nowhere)
                return eqx.filter(after, eqx.is_array), answer

            many = jax.vmap(row)
            size = jax.eval_shape(many, state, x[0], y[0])[1].shape

            def body(i: Array, loop: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
                state, answers = loop
                after, answer = many(state, x[i], y[i])
                there = i < counts
                keep = lambda new, old: jnp.where(there.reshape(-1, *[1] * (new.ndim - 1)), new, old)
                return jax.tree.map(keep, after, state), answers.at[i].set(answer)

            state, answers = lax.fori_loop(0, jnp.max(counts), body, (state, jnp.zeros((len(x), *size))))
            packed = jax.vmap(lambda state: self._parts(eqx.combine(state, static))[1:])(state)
            return *packed, answers

        return lanes

    def _line(self, read: bool) -> Any:
        """(shared, floats (B, f), whole (B, w), x (n, capacity), plain, y (n, targets), who (n,), cuts (n + 1,), runs)
        -> the first three after the rows, and the answers (n, numbers).

        Rows cuts[i] .. cuts[i + 1] are of entity who[i], for the first `runs` of them.
        """
        step = self.stream.read if read else self.stream.step

        def line(
            shared: Packed,
            floats: Array,
            whole: Array,
            x: Array,
            plain: Array,
            y: Array,
            who: Array,
            cuts: Array,
            runs: Array,
            pace: Array,
        ) -> Any:
            static = eqx.filter(eqx.filter_eval_shape(self.stream.init), _is_static)
            slower = lambda old, new, pace: jax.tree.map(
                lambda a, b: a + pace * (b - a) if eqx.is_inexact_array(a) else b, old, new
            )

            def row(i: Array, state: PyTree) -> tuple[PyTree, Array]:
                before = eqx.combine(state, static)
                after, answer = step(before, x[i], plain, y[i], y[i], self.stream.nowhere)
                after = eqx.tree_at(_cell, after, slower(_cell(before), _cell(after), pace[i]))
                return eqx.filter(after, eqx.is_array), answer

            taken = lambda shared, mine, counted: eqx.filter(self._state(shared, mine, counted), eqx.is_array)
            size = jax.eval_shape(lambda: row(jnp.int32(0), taken(shared, floats[0], whole[0]))[1]).size

            def inner(i: Array, loop: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
                state, answers = loop
                after, answer = row(i, state)
                return after, answers.at[i].set(answer)

            def run(i: Array, loop: Any) -> Any:
                (shared, floats, whole), answers = loop
                at = lambda part: lax.dynamic_index_in_dim(part, who[i], keepdims=False)
                state, answers = lax.fori_loop(
                    cuts[i], cuts[i + 1], inner, (taken(shared, at(floats), at(whole)), answers)
                )
                shared, mine, counted = self._parts(eqx.combine(state, static))
                put = lambda part, new: lax.dynamic_update_index_in_dim(part, new, who[i], 0)
                return (shared, put(floats, mine), put(whole, counted)), answers

            first = (shared, floats, whole), jnp.zeros((len(x), size))
            (shared, floats, whole), answers = lax.fori_loop(0, runs, run, first)
            return shared, floats, whole, answers

        return line

    def widen(self, after: "FleetPrograms", shared: Packed, floats: np.ndarray, whole: np.ndarray) -> Parts:
        """States (entities, ...) with the room for inputs that `after` has."""

        def one(floats: Array, whole: Array, fresh: StreamState) -> tuple[Packed, Array, Array]:
            return after._parts(self.stream.enlarge(self._state(shared, floats, whole), fresh))

        must_compute()
        with as_usual():
            fresh = after.stream.init()
            many = jax.jit(jax.vmap(lambda f, w: one(f, w, fresh)), compiler_options=_FAST)
            filled = [_doubled(part) for part in (floats, whole)]  # few sizes, each compiled once
            common, mine, counted = jax.device_get(many(*filled))
        n = len(floats)
        return Parts(jax.tree.map(lambda a: a[0], common), mine[:n], counted[:n])


def _doubled(some: np.ndarray) -> np.ndarray:
    """As many as the next power of two, the first of them again."""
    more = (1 << max(len(some) - 1, 0).bit_length()) - len(some)
    return np.concatenate([some, np.repeat(some[:1], more, 0)])


def _cell(state: StreamState) -> PyTree:
    """The recurrent weights."""
    learned = state.learned.online if isinstance(state.learned, LateState) else state.learned
    return learned.model.cell


def _is_static(leaf: Any) -> bool:
    return not (eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct))


def _mask(shapes: PyTree, prefixes: tuple[str, ...]) -> PyTree:
    """Which leaves are shared."""
    name = lambda path: jax.tree_util.keystr(path).replace(".learned.online", ".learned")
    return jax.tree_util.tree_map_with_path(lambda path, leaf: name(path).startswith(prefixes), shapes)


_FAST: dict[str, Any] = {"xla_backend_optimization_level": 0}
# Programs are shared by all fleets of a recipe.
fleet_programs = lru_cache(maxsize=16)(FleetPrograms)
