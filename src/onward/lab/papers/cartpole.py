"""A pole balanced by a network that does not see how fast it falls."""

from dataclasses import dataclass
from typing import Any, ClassVar

import onward as ow
from onward.lab.papers.control import ControlExperiment


@dataclass(frozen=True, kw_only=True)
class CartpoleInTheDarkExperiment(ControlExperiment):
    """Keep a pole upright; its speed and the cart's are hidden, so that they have to be felt from what was seen.

    CartPole-v1 of Gymnasium without velocities, up to 500 moves an episode: the return is the moves until the pole
    falls. Columns and the dense layer normalise what they read by running moments; rewards are divided by a running
    deviation of their return.
    """

    name: ClassVar[str] = "cartpole-in-the-dark"
    title: ClassVar[str] = "Cart and pole in the dark: balance without seeing speed"
    figures: ClassVar[str] = "onward.lab.papers.cartpole_figures"

    methods: tuple[str, ...] = ("elstm", "mingru", "memoryless")
    seeds: int = 16
    steps: int = 1_000_000
    trace_decay: float = 0.8
    longest: float = 10.0
    gate: float = 1.0
    entropy: float = 0.001
    decay: bool = True
    seen: bool = False
    """Show the velocities too, as in Gymnasium's own task."""

    def task_of(self, row: str) -> Any:
        """The same for every method."""
        scale = ow.ReturnScale(self.discount)
        return ow.Normalised(ow.CartPole(hidden=not self.seen), observations=None, rewards=scale)

    @property
    def moments(self) -> ow.Moments:
        """Plain averages: a pole that is balanced leans by hundredths, which a larger floor would leave small."""
        return ow.Moments(rate=0.999999, floor=1e-8, prior=0)

    def references(self) -> dict[str, float]:
        """The best there can be."""
        return ow.CartPole().references()
