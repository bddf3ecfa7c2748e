"""Section 5.2 of Manchev & Spratling: regression with several right answers, remembered through distractors."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from onward.cells.elman import Elman
from onward.heads.base import AbstractHead
from onward.heads.mixture import Mixture
from onward.lab.experiment import require_positive
from onward.lab.method import Method
from onward.lab.papers import authors
from onward.lab.papers.authors_heads import VarianceMixture
from onward.lab.papers.one_to_many import PROTOCOLS, RULES, OneToManyExperiment, split
from onward.learners.inverses import AffineInverse
from onward.learners.tptt import TPTT
from onward.model import Model
from onward.tasks.one_to_many import (
    OneToManyMixture,
    conditional,
    mixture_floor,
    mixture_floor_of,
    mixture_learn_nothing,
)


@dataclass(frozen=True, kw_only=True)
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
    paper_rows: int = 3_000
    """Rows of their training set."""

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """NETWORK-RULE, and those under the paper's settings."""
        ours = (f"{network}-{rule}" for network in ("gru", "lstm", "elman") for rule in RULES)
        return (*ours, "paper-tptt", "authors-tptt", "authors-bptt")

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        require_positive(components=self.components, paper_iterations=self.paper_iterations, paper_rows=self.paper_rows)

    def default_step_size(self, name: str) -> float:
        """Of Adam, or alpha_f of the paper."""
        return 0.01 if name.startswith(PROTOCOLS) else 6e-3

    def protocol(self, name: str) -> Method:
        """3000 rows at once, AdaGrad; alpha_i, alpha_f and alpha_g of the paper."""
        method, length = split(name)
        rows = self.paper_rows

        def model(key: PRNGKeyArray) -> Model:
            cell_key, start_key = jax.random.split(key)
            head = Mixture(self.units, self.components)
            ours = Model(Elman(1, self.units, key=cell_key), head)
            started = authors.start(ours, key=start_key)
            # The paper's text with our head, which starts with its components apart.
            theirs: Any = started.head
            return Model(started.cell, head if method == "paper-tptt" else VarianceMixture(theirs))

        rates: dict[str, Any] = {"inverse_step_size": 1e-3, "target_step_size": 1.0}
        adagrad = authors.adagrad()
        text = TPTT(AffineInverse(), adagrad, adagrad, **rates)
        code: Any = authors.AuthorsTPTT(**rates) if method == "authors-tptt" else authors.AuthorsSTE()
        chosen = text if method == "paper-tptt" else code
        notes = {
            "paper-tptt": "the paper's text: local losses, affine inverse",
            "authors-tptt": "the authors' code: local losses backpropagated through all steps",
            "authors-bptt": "BPTT under the same settings",
        }
        return self.method(
            name, self.task(length, rows, rows), model,
            lambda model, step_size: replace(chosen, step_size=step_size), self.paper_iterations,
            f"tanh Elman of {self.units} units, {rows} rows, AdaGrad; {notes[method]}",
            text if method == "paper-tptt" else None,
        )  # fmt: skip

    def head(self, method: str) -> AbstractHead:
        """A mixture of Gaussians over u."""
        return Mixture(self.units, self.components)

    def task(self, length: int, batch: int, rows: int | None) -> OneToManyMixture:
        """The task at this length; `rows`: of a fixed training set, None: fresh ones."""
        return OneToManyMixture(length, batch, rows)

    def share(self, method: str) -> float:
        """Zero, for no unit is stochastic."""
        return 0.0

    @property
    def answers(self) -> np.ndarray:
        """U from 0 to 1."""
        return np.linspace(0, 1, 81)

    def truth(self, v: np.ndarray) -> np.ndarray:
        """The true density p(u | v) at the answers, (v, answers)."""
        return conditional(v, self.answers)

    @property
    def published(self) -> dict[str, dict[int, float]]:
        """Training losses of the paper's Table 2, by method and length."""
        return {"BPTT": {5: -0.98, 30: 0.54}, "TPTT": {5: -0.98, 30: -0.94}}

    def references(self) -> dict[str, float]:
        """The entropy of u given v, the best mixture of as many Gaussians, and the best that ignores v."""
        return {
            "any distribution": mixture_floor(),
            f"{self.components} Gaussians": mixture_floor_of(self.components),
            "learn nothing": mixture_learn_nothing(self.components),
        }
