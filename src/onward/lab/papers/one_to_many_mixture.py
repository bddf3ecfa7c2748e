"""Section 5.2 of Manchev & Spratling: regression with several right answers, remembered through distractors."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

import onward as ow
from onward.lab.experiment import require_positive
from onward.lab.papers import authors
from onward.lab.papers.authors_heads import VarianceMixture
from onward.lab.papers.one_to_many import RULES, OneToManyExperiment
from onward.tasks.one_to_many import conditional, mixture_floor, mixture_floor_of, mixture_learn_nothing


@dataclass(frozen=True, kw_only=True)
class OneToManyMixtureExperiment(OneToManyExperiment):
    """Answer with a mixture of Gaussians: the input v comes first, T - 1 distractors follow, the target is one of the u behind v.

    v = u + 0.3 sin(2 pi u) + U(-0.1, 0.1), so an input has up to three answers. Networks learn by BPTT or, locally, by target
    propagation through time.
    """

    name: ClassVar[str] = "one-to-many-mixture"
    optimum: ClassVar[str] = "any distribution"
    title: ClassVar[str] = "One to many: a mixture density after T steps"
    discrete: ClassVar[bool] = False
    adam_step_size: ClassVar[float] = 6e-3
    paper_step_sizes: ClassVar[dict[str, Any]] = {
        "step_size": 0.01,
        "inverse_step_size": 1e-3,
        "target_step_size": 1.0,
    }
    paper_notes: ClassVar[dict[str, str]] = {
        "paper-tptt": "the paper's text: local losses, affine inverse",
        "authors-tptt": "the authors' code: local losses backpropagated through all steps",
        "authors-bptt": "BPTT under the same settings",
    }
    # Table 2.
    published: ClassVar[dict[str, dict[int, float]]] = {"BPTT": {5: -0.98, 30: 0.54}, "TPTT": {5: -0.98, 30: -0.94}}
    answers: ClassVar[np.ndarray] = np.linspace(0, 1, 81)

    methods: tuple[str, ...] = (
        *("gru-bptt", "gru-tptt", "gru-memory", "gru-hold", "gru-last-step"),
        *("elman-bptt", "elman-tptt"),
    )
    lengths: tuple[int, ...] = (5, 30, 100)
    iterations: int = 3000
    batch: int = 100
    units: int = 50
    slope: float = 2.0
    gain: float = 0.5
    transitions: int = 300
    held_out: int = 10_000
    components: int = 3
    """Gaussians of the mixture."""
    paper_iterations: int = 4_000
    """Full-batch updates of methods under the paper's settings."""

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """NETWORK-RULE, and those under the paper's settings."""
        ours = (f"{network}-{rule}" for network in ("gru", "lstm", "elman") for rule in RULES)
        return (*ours, *cls.paper_notes)

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        require_positive(self, "components", "paper_iterations")

    @property
    def paper_batches(self) -> tuple[int, int]:
        """All rows at once."""
        return self.paper_rows, self.paper_iterations

    def paper_model(self, method: str, key: PRNGKeyArray) -> ow.Model:
        """Tanh units; the paper's text with our head, which starts with its components apart."""
        cell_key, start_key = jax.random.split(key)
        head = ow.Mixture(self.units, self.components)
        started: Any = authors.start(ow.Model(ow.Elman(1, self.units, key=cell_key), head), key=start_key)
        return ow.Model(started.cell, head if method == "paper-tptt" else VarianceMixture(started.head))

    def head(self, method: str) -> ow.AbstractHead:
        """A mixture of Gaussians over u."""
        return ow.Mixture(self.units, self.components)

    def task(self, length: int, batch: int, rows: int | None) -> ow.OneToManyMixture:
        """The task at this length; `rows`: of a fixed training set, None: fresh ones."""
        return ow.OneToManyMixture(length, batch, rows)

    def share(self, method: str) -> float:
        """Zero, for no unit is stochastic."""
        return 0.0

    def truth(self, v: np.ndarray) -> np.ndarray:
        """The true density p(u | v) at the answers, (v, answers)."""
        return conditional(v, self.answers)

    def references(self) -> dict[str, float]:
        """The entropy of u given v, the best mixture of as many Gaussians, and the best that ignores v."""
        return {
            "any distribution": mixture_floor(),
            f"{self.components} Gaussians": mixture_floor_of(self.components),
            "learn nothing": mixture_learn_nothing(self.components),
        }
