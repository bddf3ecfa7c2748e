"""Cascade: columns that grow stage by stage."""

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.base import AbstractColumnar, States
from onward.cells.columns import Columns, require_foldable
from onward.types import Carry, PyTree


class Cascade(AbstractColumnar):
    """Frozen stages of columns, and one live stage that reads the input and all stages before it.

    One stage is a columnar network, width 1 a constructive one, anything between a
    columnar-constructive network (CCN). Stages are evaluated in order within a step. Frozen stages
    run forward only: they carry no trace and stay outside the optimiser, so `Columnwise` is exact
    for the live stage at the cost of the live stage.

    >>> import jax
    >>> from onward import Cascade, Columns, LSTMGates
    >>> key = jax.random.key(0)
    >>> cell = Cascade(Columns(LSTMGates(), inputs=12, columns=4, key=key))
    >>> cell, carry = cell.grow(cell.init(), key=key)
    >>> cell.live.inputs, cell.feature_count, [len(h[-1]) for h in carry.hidden]
    (16, 8, [4, 4])
    """

    frozen: tuple[Columns, ...]
    stage: Columns

    def __init__(self, stage: Columns, frozen: tuple[Columns, ...] = ()):
        if stage.normalise_inputs is not None:
            require_foldable(stage.gates)
        self.frozen, self.stage = frozen, stage

    @property
    def stages(self) -> tuple[Columns, ...]:
        """All stages, oldest first."""
        return (*self.frozen, self.stage)

    @property
    def inputs(self) -> int:
        """Size of an observation, which the first stage reads."""
        return self.stages[0].inputs

    @property
    def feature_count(self) -> int:
        """How many features all stages have together."""
        return sum(stage.feature_count for stage in self.stages)

    @property
    def live(self) -> Columns:
        """The last stage, which alone learns."""
        return self.stage

    def init(self) -> Carry:
        """Every stage at its start."""
        return Carry(*zip(*[stage.init() for stage in self.stages], strict=True))

    def __call__(self, carry: Carry, x: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None) -> Carry:
        """Read one observation, stage by stage."""
        read, live, rest = self.feed(carry, x)
        return self.join(self.stage(live, read), rest)

    def features(self, carry: Carry, *, key: PRNGKeyArray | None = None) -> Float[Array, " features"]:
        """The features of all stages, oldest first."""
        stages = zip(self.stages, map(Carry, *carry), strict=True)
        return jnp.concatenate([stage.features(own) for stage, own in stages])

    def trainable(self) -> PyTree:
        """A cell-shaped tree of bools: true in the live stage only."""
        frozen = jax.tree.map(lambda _: False, self.frozen)
        return eqx.tree_at(lambda c: c.frozen, jax.tree.map(eqx.is_inexact_array, self), frozen)

    @property
    def grows(self) -> bool:
        """By one stage at a time."""
        return True

    def grow(self, carry: Carry, *, key: PRNGKeyArray) -> tuple["Cascade", Carry]:
        """Freeze the live stage and add a new one of the same width that reads it too.

        The constant input normalisation of the frozen stage is folded into its weights (same
        function, up to rounding); its feature moments go on.
        """
        old = self.stage
        frozen = old.fold(carry.stats[-1])
        stage = Columns(
            old.gates,
            old.inputs + old.feature_count,
            old.columns,
            key=key,
            spread=old.spread,
            normalise_inputs=old.normalise_inputs,
            normalise_features=old.normalise_features,
        )
        fresh = stage.init()
        stats = eqx.tree_at(lambda s: s.inputs, carry.stats[-1], None, is_leaf=lambda n: n is None)
        grown = Carry((*carry.hidden, fresh.hidden), (*carry.stats[:-1], stats, fresh.stats))
        return Cascade(stage, (*self.frozen, frozen)), grown

    def feed(self, carry: Carry, x: Float[Array, " inputs"]) -> tuple[Array, Carry, Carry]:
        """Run the frozen stages; the live one reads the input and every feature before it."""
        hidden, stats, read = [], [], [x]
        for i, stage in enumerate(self.frozen):
            after = stage(Carry(carry.hidden[i], carry.stats[i]), jnp.concatenate(read))
            hidden.append(after.hidden)
            stats.append(after.stats)
            read.append(stage.seen(after.hidden))
        live = Carry(carry.hidden[-1], carry.stats[-1])
        return jnp.concatenate(read), live, Carry(tuple(hidden), tuple(stats))

    def join(self, live: Carry, rest: Carry) -> Carry:
        """The carry of all stages, frozen ones first."""
        return Carry((*rest.hidden, live.hidden), (*rest.stats, live.stats))

    def embed(self, live: Columns) -> Self:
        """A gradient for the live stage, None for the frozen ones."""
        nothing = eqx.filter(self, False)
        return eqx.tree_at(lambda c: c.stage, nothing, live)

    def live_cotangent(self, cotangent: tuple[States, ...]) -> States:
        """The cotangent on the states of the last stage."""
        return cotangent[-1]
