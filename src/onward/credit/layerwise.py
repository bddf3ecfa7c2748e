"""Layers that learn by traces of their own, and an error sent down through the present step."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray

from onward.cells.base import AbstractCell, AbstractColumnar
from onward.cells.hybrid import Hybrid
from onward.cells.stack import Stack
from onward.credit.base import AbstractCredit, AbstractKernel, Kind
from onward.credit.columnwise import Columnwise
from onward.credit.rtrl import RTRL
from onward.credit.snap import SnAp
from onward.types import Carry, PyTree


class LayerState(NamedTuple):
    """Of one layer: its rule's state, and of the present step its carry before, what it read, and its carry after."""

    credit: PyTree
    before: Carry
    read: Array
    after: Carry


class Layerwise(AbstractCredit):
    """Credit within each layer of a `Stack` by a rule, and between layers through the present step only.

        gradient of layer l = pull_l(c_l),    c_{l-1} += (d z_l/d s_{l-1}') (d s_l'/d z_l) c_l

    After Zucchet et al. (2023). `within` is the rule of every layer; None: the exact one, `Columnwise` for columns,
    `SnAp(0)` for an `Encoder` and `RTRL` for others. Biased: what a lower layer did to the states above at earlier
    steps gets no credit. The gradient of the last layer is as good as `within`, and at the first step those of all
    layers are. Cost: that of the rules, and a step of each layer but the first with its pullback, O(P). Memory: that
    of the rules, and the last two carries.

    `Columnwise` on a stack of columns, `RTRL` on any, are exact. Raises TypeError for a cell that is no `Stack`, or
    whose layers the rule refuses, ValueError for one of a single layer.
    """

    kind: ClassVar[Kind] = "biased"
    within: AbstractCredit | None = None

    def claim(self, cell: AbstractCell, steps: int) -> Kind:
        """Exact for the first step, where the rule within each layer is."""
        layers = self.on(cell).layers
        first = {rule.claim(layer, 1) for rule, layer in layers}
        return "exact" if steps == 1 and first == {"exact"} else "biased"

    def on(self, cell: AbstractCell) -> "_OnLayers":
        """The rule on each layer."""
        if not isinstance(cell, Stack):
            raise TypeError(f"Layerwise is for a Stack of layers, got {type(cell).__name__}; use its layer's own rule")
        if len(cell.cells) < 2:
            raise ValueError("Layerwise: the Stack has one layer, between which no error is sent; use its own rule")
        if any(isinstance(layer, Hybrid) and layer.stochastic for layer in cell.cells):
            raise TypeError(
                "Layerwise runs a step again to send errors down, and cannot draw the samples of a Hybrid again; "
                "use RTRL"
            )
        rules = [self.within or _exact(layer) for layer in cell.cells]
        for rule, layer in zip(rules, cell.cells, strict=True):
            rule.on(layer)  # which says why not
        return _OnLayers(cell, tuple(zip(rules, cell.cells, strict=True)))


def _exact(layer: AbstractCell) -> AbstractCredit:
    """The cheapest rule that is exact on a layer."""
    if layer.memoryless:
        return SnAp(0)
    return Columnwise() if isinstance(layer, AbstractColumnar) else RTRL()


class _OnLayers(AbstractKernel[tuple[LayerState, ...]]):
    kind: ClassVar[Kind] = "biased"
    cell: Stack
    layers: tuple[tuple[AbstractCredit, AbstractCell], ...]

    def init(self, x: Array, *, key: PRNGKeyArray | None = None) -> tuple[LayerState, ...]:
        states, carries = [], map(Carry, *self.cell.init())
        for (rule, layer), carry, k in zip(self.layers, carries, self._keys(key), strict=True):
            states.append(LayerState(rule.init(layer, x, key=k), carry, x * 0, carry))
            x = layer.features(carry, key=k)
        return tuple(states)

    def _keys(self, key: PRNGKeyArray | None) -> list[Any]:
        return [None] * len(self.layers) if key is None else list(jax.random.split(key, len(self.layers)))

    def advance(
        self, carry: Carry, x: Array, state: tuple[LayerState, ...], *, key: PRNGKeyArray | None = None
    ) -> tuple[Carry, tuple[LayerState, ...]]:
        found: list[LayerState] = []
        carries = map(Carry, *carry)
        # Keys and their use are those of `Stack`.
        for (rule, layer), before, old, k in zip(self.layers, carries, state, self._keys(key), strict=True):
            after, credit = rule.advance(layer, before, x, old.credit, key=k)
            found.append(LayerState(credit, before, x, after))
            x = layer.features(after, key=None if k is None else jax.random.fold_in(k, 1))
        return Carry(*zip(*[s.after for s in found], strict=True)), tuple(found)

    def pull(self, state: tuple[LayerState, ...], cotangent: PyTree) -> PyTree:
        gradients: list[PyTree] = []
        down: PyTree = None
        for i in reversed(range(len(self.layers))):
            (rule, layer), at = self.layers[i], state[i]
            arrived = cotangent[i]
            if down is not None:
                _, show = jax.vjp(lambda h, c=layer, s=at.after.stats: c.features(Carry(h, s)), at.after.hidden)
                arrived = jax.tree.map(lambda a, b: a + b, arrived, show(down)[0])
            gradients.insert(0, rule.pull(layer, at.credit, arrived))
            if i:
                _, back = jax.vjp(lambda x, c=layer, b=at.before: c(b, x).hidden, at.read)
                down = back(arrived)[0]
        nothing = eqx.filter(self.cell, False)
        return eqx.tree_at(lambda s: s.cells, nothing, tuple(gradients))
