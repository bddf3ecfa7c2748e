"""Section 5.2 of Manchev & Spratling: regression with several right answers, remembered through distractors."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onward.experiments.base import require_positive
from onward.experiments.one_to_many import RULES, OneToManyExperiment
from onward.heads.base import AbstractHead
from onward.heads.mixture import Mixture
from onward.run import Method
from onward.tasks.one_to_many import (
    OneToManyMixture,
    conditional,
    mixture_floor,
    mixture_floor_of,
    mixture_learn_nothing,
)


@dataclass(frozen=True)
class OneToManyMixtureExperiment(OneToManyExperiment):
    """Answer with a mixture of Gaussians: the input v comes first, T - 1 distractors follow, the target is one of the u behind v.

    v = u + 0.3 sin(2 pi u) + U(-0.1, 0.1), so an input has up to three answers. Networks learn by BPTT or, locally, by target
    propagation through time.
    """

    name: ClassVar[str] = "one-to-many-mixture"
    title: ClassVar[str] = "One to many: a mixture density after T steps"
    discrete: ClassVar[bool] = False

    methods: tuple[str, ...] = (
        "gru-bptt",
        "gru-tptt",
        "gru-memory",
        "gru-hold",
        "gru-last-step",
        "elman-bptt",
        "elman-tptt",
    )
    seeds: int = 5
    first_seed: int = 0
    step_sizes: tuple[float, ...] = ()
    lengths: tuple[int, ...] = (5, 30, 100)
    iterations: int = 3000
    batch: int = 100
    units: int = 50
    slope: float = 2.0
    gain: float = 0.5
    inverse_step_size: float = 3e-3
    target_step_size: float = 1.0
    transitions: int = 300
    inverse_steps: int = 1
    held_out: int = 10_000
    components: int = 3
    """Gaussians of the mixture."""

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """NETWORK-RULE."""
        return tuple(f"{network}-{rule}" for network in ("gru", "lstm", "elman") for rule in RULES)

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        require_positive(components=self.components)

    def build(self, name: str) -> Method:
        """Onward's recipe."""
        return self.recipe(name)

    def head(self, method: str) -> AbstractHead:
        """A mixture."""
        return Mixture(self.units, self.components)

    def task(self, length: int, batch: int, rows: int | None) -> OneToManyMixture:
        """Inputs and targets."""
        return OneToManyMixture(length, batch, rows)

    def share(self, method: str) -> float:
        """No unit is stochastic."""
        return 0.0

    @property
    def answers(self) -> np.ndarray:
        """U from 0 to 1."""
        return np.linspace(0, 1, 81)

    def truth(self, v: np.ndarray) -> np.ndarray:
        """The true density."""
        return conditional(v, self.answers)

    @property
    def published(self) -> dict[str, dict[int, float]]:
        """Table 2."""
        return {"BPTT": {5: -0.98, 30: 0.54}, "TPTT": {5: -0.98, 30: -0.94}}

    def references(self) -> dict[str, float]:
        """The entropy of u given v, the best mixture of as many Gaussians, and the best that ignores v."""
        return {
            "any distribution": mixture_floor(),
            f"{self.components} Gaussians": mixture_floor_of(self.components),
            "learn nothing": mixture_learn_nothing(self.components),
        }
