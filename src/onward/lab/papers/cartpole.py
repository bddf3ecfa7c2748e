"""A pole balanced by a network that does not see how fast it falls."""

from dataclasses import dataclass
from typing import Any, ClassVar

import onward as ow
from onward.lab.papers.control import ControlExperiment


@dataclass(frozen=True, kw_only=True)
class CartpoleInTheDarkExperiment(ControlExperiment):
    """Keep a pole upright; its speed and the cart's are hidden, so that they have to be felt from what was seen.

    CartPole-v1 of Gymnasium without velocities, up to 500 moves an episode: the return is the moves until the pole
    falls. Columns and the dense layer normalise what they read by running moments.
    """

    name: ClassVar[str] = "cartpole-in-the-dark"
    title: ClassVar[str] = "Cart and pole in the dark: balance without seeing speed"
    figures: ClassVar[str] = "onward.lab.papers.cartpole_figures"

    methods: tuple[str, ...] = ("mingru", "rtu", "memoryless")
    seeds: int = 16
    steps: int = 1_000_000
    trace_decay: float = 0.8
    longest: float = 10.0
    seen: bool = False
    """Show the velocities too, as in Gymnasium's own task."""

    def task_of(self, row: str) -> Any:
        """The same for every method."""
        return ow.CartPole(hidden=not self.seen)

    @property
    def moments(self) -> ow.Moments:
        """Positions are of a metre, angles of a tenth of a radian."""
        return ow.Moments(rate=0.9999, prior=10)

    def references(self) -> dict[str, float]:
        """The best there can be."""
        return ow.CartPole().references()
