"""What a cell is: affine, then elementwise.

A cell states its step in two parts, `preactivation = W [x, h, 1]` and `hidden = gates(preactivation,
hidden)`. The second part (`AbstractGates`) is written once per kind of unit and acts on each unit
alone, so the same gates serve a dense layer (`Dense`) and independent columns (`Columns`), and every
credit rule differentiates them at their preactivations instead of at the parameters.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from onward.batching import tree_sum
from onward.cells.moments import Moments, MomentState
from onward.parts import AbstractPart, require_made
from onward.trees import depends
from onward.types import Carry, PyTree

if TYPE_CHECKING:
    from onward.cells.columns import Columns

States = tuple[Float[Array, " units"], ...]
Derivatives = tuple[tuple[Array | None, ...], tuple[Array | None, ...], tuple[Array | None, ...]]


class AbstractGates(AbstractPart):
    """The elementwise half of a cell, for any number of units at once.

    A unit has `states` numbers, of which the last is the one that other units read. It is driven by `slots`
    preactivations. Row i of the input weights drives slot `input_slots[i]`, row i of the recurrent weights slot
    `recurrent_slots[i]`, and row i of the bias slot `bias_slots[i]` (None: those of the inputs).

    A slot that a bias alone drives is a parameter of the unit's own: a decay rate, an angle. Units without
    `recurrent_slots` have no recurrent weights: what they remember is in `next_state`, and they make `Columns` only.
    A head reads `features`: the last state, unless the gates say otherwise.
    """

    states: eqx.AbstractClassVar[int]
    slots: eqx.AbstractClassVar[int]
    input_slots: eqx.AbstractClassVar[tuple[int, ...]]
    recurrent_slots: eqx.AbstractClassVar[tuple[int, ...]]
    bias_slots: ClassVar[tuple[int, ...] | None] = None
    contracting: ClassVar[bool] = False
    """Whether a step never makes a small change of the states larger, whatever the weights: traces need no bound."""

    def __check_init__(self) -> None:
        for field in dataclasses.fields(self):
            leaves = jax.tree.leaves(getattr(self, field.name))
            array = any(isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves)
            if array or (not field.metadata.get("static", False) and any(map(eqx.is_array_like, leaves))):
                raise TypeError(
                    f"{type(self).__name__}: field {field.name!r} holds {'an array' if array else 'a number'}; a "
                    "parameter of the unit's own is a slot in bias_slots that no weight drives; a plain number is "
                    f"static, {field.name}: float = eqx.field(static=True)"
                )

    @property
    def biases(self) -> tuple[int, ...]:
        """The slots that rows of the bias drive."""
        return self.input_slots if self.bias_slots is None else self.bias_slots

    @property
    def in_a_plane(self) -> bool:
        """Whether both states are one complex number, h' = lambda h + b (a1 + i a2), lambda and b the unit's own.

        Then d h/d W2 = i d h/d W1: one complex trace serves the weights of both inputs, at half the memory.
        """
        return False

    @property
    def inputs_have_biases(self) -> bool:
        """Whether a bias goes with every input, so that a constant mean of the inputs can be moved into it."""
        return {*self.input_slots} <= {*self.biases}

    @abc.abstractmethod
    def next_state(self, i: int, preactivation: States, states: States, new: States) -> Float[Array, " units"]:
        """State i of the next step, (units,), given the old states and the new ones before it (j < i).

        preactivation: one array a slot. states: the old ones. new: the first i of the next step, already computed.
        Each result depends on the same unit's arguments only. Every field of gates is static.
        """

    def __call__(self, preactivation: States, states: States) -> States:
        """The states of the next step, a tuple of (units,) arrays.

        preactivation: one (units,) array a slot, W z + U h + b. states: those of the last step, of which the last is h.
        """
        new: States = ()
        for i in range(self.states):
            new = (*new, self.next_state(i, preactivation, states, new))
        return new

    @property
    def span(self) -> tuple[float, float] | None:
        """The two values between which h lies; None: it has no such bounds. Stochastic units need them."""
        return None

    def features(self, states: States) -> States:
        """What a head reads of each unit, a tuple of (units,) arrays: the last state. Elementwise."""
        return states[-1:]

    def initial_bias(self, bias: Float[Array, "biases units"], *, key: PRNGKeyArray) -> Float[Array, "biases units"]:
        """Change the drawn bias where this kind of unit needs a start of its own; `key` for what is drawn anew."""
        return bias

    def remember(
        self, bias: Float[Array, "biases units"], log_time: Float[Array, " units"]
    ) -> Float[Array, "biases units"]:
        """The bias with which unit i keeps its state for about exp(log_time) steps."""
        raise TypeError(f"{type(self).__name__} has no gate that keeps its state; use GRU or LSTM units")

    def turn(
        self, bias: Float[Array, "biases units"], radius: Float[Array, " units"], angle: Float[Array, " units"]
    ) -> Float[Array, "biases units"]:
        """The bias with which the state of unit i is multiplied by radius exp(i angle) at each step."""
        raise TypeError(f"{type(self).__name__} does not turn in a plane; use RTU or LRU units")

    def gather(self, from_input: Array, from_recurrent: Array | None, bias: Array | None) -> States:
        """Add the drives, (rows, units) each, into one array per slot."""
        drives: list[Array | None] = [None] * self.slots
        sources = [(from_input, self.input_slots), (from_recurrent, self.recurrent_slots), (bias, self.biases)]
        if bias is not None and self.biases == self.input_slots:
            sources = [(from_input + bias, self.input_slots), sources[1]]
        for rows, slots in sources:
            if rows is None:
                continue
            # Split, not indexed: the transpose is then one concatenation (25 % of a GRU's BPTT).
            for row, slot in zip(jnp.split(rows, len(slots)), slots, strict=True):
                before, row = drives[slot], row.reshape(row.shape[1:])
                drives[slot] = row if before is None else before + row
        zero = jnp.zeros_like(from_input[0])
        # A slot that a bias alone drives may be one for all runs of a batch.
        return tuple(jnp.broadcast_arrays(*(zero if d is None else d for d in drives)))

    def jacobian(self, preactivation: States, states: States) -> tuple[States, list[Derivatives]]:
        """The next states, and for each its derivatives by slots, by old states and by new states before it.

        Exact: each is a pullback of ones, since every unit depends on itself alone. A derivative is
        None where the program says that there is no dependence.
        """
        new: States = ()
        derivatives = []
        for i in range(self.states):
            step, arguments = partial(self.next_state, i), (preactivation, states, new)
            value, pullback = jax.vjp(step, *arguments)
            found = pullback(jnp.ones_like(value))
            derivatives.append(jax.tree.map(lambda d, there: d if there else None, found, depends(step, *arguments)))
            new = (*new, value)
        return new, derivatives


@functools.cache
def rows_of_features(gates: AbstractGates) -> int:
    """How many features a unit has. TypeError, naming what does not fit, for gates that contradict themselves.

    Found by tracing the gates of two units; nothing is computed.
    """
    name = type(gates).__name__
    for what, least in (("states", 1), ("slots", 1)):
        value = getattr(gates, what)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise TypeError(f"{name}: {what} must be a whole number of at least {least}, got {value!r}")
    kinds = {"input_slots": gates.input_slots, "recurrent_slots": gates.recurrent_slots, "bias_slots": gates.biases}
    for what, slots in kinds.items():
        fits = isinstance(slots, tuple) and all(isinstance(s, int) and 0 <= s < gates.slots for s in slots)
        if not fits or len({*slots}) < len(slots):
            raise TypeError(
                f"{name}: {what} must be a tuple of different slots out of 0 .. {gates.slots - 1}, got {slots!r}"
            )
    if not gates.input_slots:
        raise TypeError(f"{name}: input_slots is empty: at least one slot must be driven by the inputs")
    if idle := [s for s in range(gates.slots) if not any(s in slots for slots in kinds.values())]:
        raise TypeError(f"{name}: slot {idle[0]} is in none of {', '.join(kinds)}: nothing drives it")
    units = jax.ShapeDtypeStruct((2,), jnp.float32)
    given: States = (units,) * gates.slots  # type: ignore[assignment]
    states: States = (units,) * gates.states  # type: ignore[assignment]
    new: States = ()
    for i in range(gates.states):
        call = f"next_state({i}, ...) of {gates.slots} preactivations and {gates.states} states"
        new = (*new, *_outline(name, call, partial(gates.next_state, i), given, states, new, count=1))
    return len(_outline(name, f"features of {gates.states} states", gates.features, states))


def _outline(name: str, call: str, function: Callable[..., PyTree], *given: PyTree, count: int | None = None) -> States:
    """The shapes of what elementwise gates return for two units."""
    try:
        found = jax.eval_shape(function, *given)
    except (ValueError, IndexError, TypeError) as error:
        raise TypeError(f"{name}: {call} fails: {error}") from None
    wanted = "an array" if count else "a tuple of arrays, one at least, each"
    arrays = (found,) if count else found
    if not isinstance(arrays, tuple) or not arrays or any(getattr(a, "shape", None) != (2,) for a in arrays):
        shapes = jax.tree.map(lambda a: a.shape, found)
        raise TypeError(f"{name}: {call} must be {wanted} of shape (units,), here (2,); got {shapes}")
    return arrays


def by_row(by_slot: tuple[Array | None, ...], slots: tuple[int, ...], zero: Array) -> Array:
    """Derivatives by these slots as one array, (rows, units); zero where there is no dependence."""
    return jnp.stack([zero if (d := by_slot[slot]) is None else d for slot in slots])


def require_gates(owner: str, gates: AbstractGates) -> None:
    """Refuse a class in place of gates, and gates that contradict themselves, naming what does not fit."""
    require_made(owner, gates=gates)
    rows_of_features(gates)


def pull_back(derivatives: list[Derivatives], cotangents: States, slots: int) -> tuple[States, States]:
    """Cotangents on the next states as cotangents on the slots and on the old states (zero if untouched)."""
    on_new = list(cotangents)
    by_slots: list[Array | None] = [None] * slots
    by_states: list[Array | None] = [None] * len(on_new)
    for i in reversed(range(len(on_new))):
        by_slot, by_state, by_new = derivatives[i]
        for factors, into in ((by_slot, by_slots), (by_state, by_states), (by_new, on_new)):
            for j, factor in enumerate(factors):
                if factor is not None:
                    before, term = into[j], factor * on_new[i]
                    into[j] = term if before is None else before + term
    zero = jnp.zeros_like(cotangents[-1])
    fill = lambda terms: tuple(zero if t is None else t for t in terms)
    return fill(by_slots), fill(by_states)


def push_forward(derivatives: list[Derivatives], slots: States, states: States) -> States:
    """Tangents of the next states from tangents of the slots and of the old states."""
    new: States = ()
    for by_slot, by_state, by_new in derivatives:
        pairs = zip((*by_slot, *by_state, *by_new), (*slots, *states, *new), strict=True)
        terms = [factor * tangent for factor, tangent in pairs if factor is not None]
        new = (*new, tree_sum(terms) if terms else jnp.zeros_like(states[-1]))
    return new


class AbstractCell(AbstractPart):
    """A recurrent network: its parameters, its state and one step of it."""

    @property
    @abc.abstractmethod
    def inputs(self) -> int:
        """Size of an observation, x of shape (inputs,)."""

    @property
    @abc.abstractmethod
    def feature_count(self) -> int:
        """Size of the feature vector."""

    @abc.abstractmethod
    def init(self) -> Carry:
        """The state at the start of a stream."""

    @abc.abstractmethod
    def __call__(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> Carry:
        """The carry after reading one observation.

        carry: the state of the last step, or `init()`. x: (inputs,). key: for cells that sample, which raise ValueError
        without one. ValueError for an observation of another width.
        """

    @abc.abstractmethod
    def features(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> Float[Array, " features"]:
        """What a head reads of the state."""

    def trainable(self) -> PyTree:
        """A cell-shaped tree of bools: which leaves learn. Default: every floating array."""
        return jax.tree.map(eqx.is_inexact_array, self)

    @property
    def memoryless(self) -> bool:
        """Whether nothing of before is in its state, so that the derivative of the present step is all there is."""
        return False

    @property
    def grows(self) -> bool:
        """Whether `grow` adds to this cell."""
        return False

    def grow(self, carry: Carry, *, key: PRNGKeyArray) -> tuple["AbstractCell", Carry]:
        """The larger cell and its state, features of before first. TypeError for a cell that does not grow."""
        raise TypeError(f"only a Cascade grows, got {type(self).__name__}")


class Parameters(NamedTuple):
    """The arrays of gated units; any further axis after `units` counts independent runs."""

    weight: Float[Array, "inputs rows units"]
    recurrent: Float[Array, "*fan_in loops units"] | None
    bias: Float[Array, "biases units"]


class Stats(eqx.Module):
    """Running moments of what the units read and of what they say."""

    inputs: MomentState | None
    features: MomentState | None


class AbstractGated(AbstractCell):
    """A layer of gated units, with optional running normalisation of its inputs and of its features."""

    gates: eqx.AbstractVar[AbstractGates]
    weight: eqx.AbstractVar[Float[Array, "inputs rows units"]]
    recurrent: eqx.AbstractVar[Array | None]
    bias: eqx.AbstractVar[Float[Array, "biases units"]]
    normalise_inputs: eqx.AbstractVar[Moments | None]
    normalise_features: eqx.AbstractVar[Moments | None]

    @property
    def inputs(self) -> int:
        """Size of an observation, x of shape (inputs,)."""
        return self.weight.shape[0]

    @property
    def feature_count(self) -> int:
        """A head reads every feature of every unit."""
        return rows_of_features(self.gates) * self.bias.shape[-1]

    @property
    def parameters(self) -> Parameters:
        """The trainable arrays: input weights, recurrent weights and biases."""
        return Parameters(self.weight, self.recurrent, self.bias)

    def gradient_of(self, arrays: Parameters) -> Self:
        """A cell-shaped gradient from the gradients of its arrays: None in every other place."""
        nothing = eqx.filter(self, self.trainable())
        return eqx.tree_at(
            lambda c: (c.weight, c.recurrent, c.bias), nothing, tuple(arrays), is_leaf=lambda leaf: leaf is None
        )

    def init(self) -> Carry:
        """All zero; moments at mean 0 and variance 1."""
        zero = jnp.zeros_like(self.weight[0, 0])
        seen = jnp.zeros(self.feature_count, self.bias.dtype)
        start = lambda moments, like: None if moments is None else moments.init(like)
        stats = Stats(
            start(self.normalise_inputs, jnp.zeros(self.inputs, self.bias.dtype)), start(self.normalise_features, seen)
        )
        return Carry((zero,) * self.gates.states, stats)

    def read(self, carry: Carry, x: Float[Array, " inputs"]) -> tuple[Array, MomentState | None]:
        """The normalised input, and its updated moments. ValueError for an input of another width."""
        require_width(self, x)
        if self.normalise_inputs is None:
            return x, None
        moments = self.normalise_inputs.update(carry.stats.inputs, x)
        return self.normalise_inputs(moments, x), moments

    def settle(self, states: States, inputs: MomentState | None, before: Carry) -> Carry:
        """The new carry, with the feature moments brought up to date."""
        moments = None
        if self.normalise_features is not None:
            moments = self.normalise_features.update(before.stats.features, self.seen(states))
        return Carry(states, Stats(inputs, moments))

    def seen(self, states: States) -> Float[Array, " features"]:
        """The features of all units before they are normalised: the first of each unit, then the second, ..."""
        found = self.gates.features(states)
        return found[0] if len(found) == 1 else jnp.concatenate(found)

    def features(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> Float[Array, " features"]:
        """What the gates show of each unit, normalised by its running moments if asked."""
        seen = self.seen(carry.hidden)
        return seen if self.normalise_features is None else self.normalise_features(carry.stats.features, seen)


class AbstractColumnar(AbstractCell):
    """A cell whose trainable part is a set of columns that do not read one another.

    `Columnwise` needs no more than this: the trainable `live` columns, and what they read now.
    """

    @property
    @abc.abstractmethod
    def live(self) -> "Columns":
        """The columns that learn; all others are frozen."""

    @abc.abstractmethod
    def feed(self, carry: Carry, x: Float[Array, " inputs"]) -> tuple[Array, Carry, Carry]:
        """Run all that is frozen: what the live columns read, their carry, and the rest's new carry."""

    @abc.abstractmethod
    def join(self, live: Carry, rest: Carry) -> Carry:
        """The whole carry from the live columns' and the rest's."""

    @abc.abstractmethod
    def embed(self, live: PyTree) -> Self:
        """A gradient of the live columns as a gradient of the cell, None elsewhere."""

    @abc.abstractmethod
    def live_cotangent(self, cotangent: PyTree) -> States:
        """The part of a cotangent on `carry.hidden` that falls on the live columns' states."""


def require_size(owner: str, **sizes: int) -> None:
    """Refuse sizes that are not whole numbers of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{owner}: {name} must be a whole number of at least 1, got {size!r}")


def require_width(cell: AbstractCell, x: Array) -> None:
    """Refuse an observation that the cell cannot read."""
    if jnp.shape(x) != (cell.inputs,):
        raise ValueError(f"{type(cell).__name__} reads {cell.inputs} inputs, the observation has shape {jnp.shape(x)}")
