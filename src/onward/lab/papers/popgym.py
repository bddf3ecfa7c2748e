"""POPGym's easy tasks, learned from one stream."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array

import onward as ow
from onward.lab.papers.control import ControlExperiment
from onward.loop import Measure
from onward.types import Info, Step

TASKS: dict[str, Callable[[], Any]] = {
    "repeat-previous": ow.RepeatPrevious,
    # The first observation is known by it, as with POPGym's own wrappers (PreviousAction, Antialias).
    "repeat-first": lambda: ow.WithLastAction(ow.RepeatFirst(), reward=False),
    "count-recall": ow.CountRecall,
    "concentration": ow.Concentration,
    "higher-lower": ow.HigherLower,
    "bandit": lambda: ow.WithLastAction(ow.MultiarmedBandit()),
    "mine-sweeper": ow.MineSweeper,
    "cart-pole": ow.CartPole.popgym,
    "pendulum": ow.Pendulum,
}
# Of each, the return that counts as 0; 1 is the best there can be.
LEAST = {"cart-pole": 0.0, "pendulum": 0.0}


@dataclass(frozen=True, kw_only=True)
class PopgymExperiment(ControlExperiment):
    """One of POPGym's easy tasks (Morad et al., 2023), by networks that learn at every step.

    The return is normalised as published: 0 is the least there can be, 1 the most that is sought, -1 and 1 (0 and 1 of
    the pole and the pendulum) in the tasks' own units.
    """

    name: ClassVar[str] = "popgym"
    title: ClassVar[str] = "POPGym, easy: acting in partial sight, from one stream"

    methods: tuple[str, ...] = ("mingru", "rtu", "lstm", "tbptt-1", "memoryless")
    seeds: int = 16
    steps: int = 1_000_000
    task: Literal[
        "repeat-previous",
        "repeat-first",
        "count-recall",
        "concentration",
        "higher-lower",
        "bandit",
        "mine-sweeper",
        "cart-pole",
        "pendulum",
    ] = "repeat-previous"
    """Which of them."""
    longest: float = 100.0

    def task_of(self, row: str) -> Any:
        """The same for every method."""
        return TASKS[self.task]()

    @property
    def moments(self) -> ow.Moments | None:
        """Of the pole and the pendulum; cards and pulls are bits."""
        return ow.Moments(rate=0.999999, floor=1e-8, prior=0) if self.task in LEAST else None

    @property
    def in_order(self) -> bool:
        """Where what was seen so many steps ago is asked for."""
        return self.task == "repeat-previous"

    def normalised(self, value: Any) -> Any:
        """A return, or returns, as a share of what is between least and best."""
        least = LEAST.get(self.task, -1.0)
        return (value - least) / (1 - least)

    @property
    def measure(self) -> Measure:
        """The normalised return of each episode that ends."""

        def measure(example: Step, info: Info) -> tuple[Array, Array]:
            over = jnp.asarray(example.truth.over, jnp.float32)
            return self.normalised(example.truth.total) * over, over

        return measure

    def references(self) -> dict[str, float]:
        """Exact levels, normalised."""
        levels = self.task_of("").references()
        return {name: float(self.normalised(level)) for name, level in levels.items()}
