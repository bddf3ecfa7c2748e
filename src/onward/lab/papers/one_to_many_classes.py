"""Section 5.1 of Manchev & Spratling: classification with several right answers, by stochastic units."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from onward.cells.elman import Elman
from onward.cells.hybrid import Hybrid
from onward.errors import OnwardError
from onward.heads.base import AbstractHead
from onward.heads.categorical import Categorical
from onward.heads.monte_carlo import MonteCarlo
from onward.lab import metrics
from onward.lab.experiment import require_positive
from onward.lab.method import Method
from onward.lab.papers import authors
from onward.lab.papers.one_to_many import PROTOCOLS, RULES, OneToManyExperiment, split
from onward.learners.inverses import AffineInverse
from onward.learners.tptt import TPTT
from onward.model import Model
from onward.tasks.one_to_many import (
    CLASSES,
    OneToManyClasses,
    class_floor,
    class_marginal_entropy,
    class_probabilities,
)


@dataclass(frozen=True, kw_only=True)
class OneToManyClassesExperiment(OneToManyExperiment):
    """Name one of ten classes: the input x comes first, T - 1 distractors follow, and up to five classes fit an x.

    x = a + 0.3 sin(2 pi a) + U(-0.1, 0.1), and the class is that of a. Half of the hidden units are binary and random; the
    likelihood is the mean of several trajectories'. Networks learn by straight-through BPTT (`bptt`: STE-BPTT) or, locally, by
    stochastic target propagation through time (`tptt`: STPTT). `det` networks have no stochastic unit (STE(D)-BPTT).
    """

    name: ClassVar[str] = "one-to-many-classes"
    title: ClassVar[str] = "One to many: classes by stochastic units after T steps"
    discrete: ClassVar[bool] = True

    methods: tuple[str, ...] = ("gru-bptt", "gru-tptt", "gru-memory", "gru-last-step", "detgru-bptt")
    lengths: tuple[int, ...] = (2, 20, 100)
    iterations: int = 1500
    batch: int = 50
    units: int = 100
    slope: float = 6.0
    gain: float = 1.0
    transitions: int = 400
    held_out: int = 4_000
    labels: Literal["nearest", "code"] = "nearest"
    """The class of a: rint(9a), as the paper prints it, or that of the authors' code, int(round(a, 1) * 9)."""
    stochastic: float = 0.5
    """Share of the hidden units that are stochastic."""
    samples: int = 4
    """Trajectories M while learning."""
    evaluation: int = 20
    """Trajectories M while measuring, and while learning under the paper's settings."""
    paper_epochs: int = 1_000
    """Passes over the training set of methods under the paper's settings."""
    paper_rows: int = 3_000
    """Rows of their training set."""

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """NETWORK-RULE, and those under the paper's settings."""
        networks = ("gru", "lstm", "elman", "detgru", "detelman")
        ours = (f"{network}-{rule}" for network in networks for rule in RULES)
        return (*ours, "paper-stptt", "authors-stptt", "authors-ste")

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        require_positive(
            samples=self.samples,
            evaluation=self.evaluation,
            paper_epochs=self.paper_epochs,
            paper_rows=self.paper_rows,
        )
        if not 0 <= self.stochastic <= 1:
            raise OnwardError(f"--stochastic must be in [0, 1], got {self.stochastic}")

    def default_step_size(self, name: str) -> float:
        """Of Adam, or alpha_f of the paper."""
        return 0.1 if name.startswith(PROTOCOLS) else 5e-3

    def protocol(self, name: str) -> Method:
        """3000 rows in batches of 20, AdaGrad, M = 20; alpha_i, alpha_f and alpha_g of the paper."""
        method, length = split(name)
        rows, batch = self.paper_rows, 20

        def model(key: PRNGKeyArray) -> Model:
            cell_key, start_key = jax.random.split(key)
            cell = Hybrid(Elman(1, self.units, key=cell_key, activation="sigmoid"), self.stochastic)
            head = MonteCarlo(Categorical(self.units, CLASSES), self.evaluation, self.evaluation)
            return authors.start(Model(cell, head), key=start_key)

        rates: dict[str, Any] = {"inverse_step_size": 1e-5, "target_step_size": 0.1}
        adagrad = authors.adagrad()
        text = TPTT(AffineInverse(), adagrad, adagrad, **rates)
        code: Any = authors.AuthorsTPTT(**rates) if method == "authors-stptt" else authors.AuthorsSTE()
        chosen = text if method == "paper-stptt" else code
        notes = {
            "paper-stptt": "the paper's text: half of the units stochastic, local losses, affine inverse",
            "authors-stptt": "the authors' code: half of the rows stochastic, losses backpropagated through all steps",
            "authors-ste": "the authors' code: half of the rows stochastic, logits averaged",
        }
        as_trained = lambda model, stats, example, key: code.loss(model, example, key=key)
        return self.method(
            name, self.task(length, batch, rows), model,
            lambda model, step_size: replace(chosen, step_size=step_size), self.paper_epochs * rows // batch,
            f"sigmoid Elman of {self.units} units, {rows} rows, AdaGrad; {notes[method]}",
            text if method == "paper-stptt" else None,
            metrics.network_loss if method == "paper-stptt" else as_trained,
        )  # fmt: skip

    def head(self, method: str) -> AbstractHead:
        """Classes; the mean likelihood of several trajectories where units are stochastic."""
        head = Categorical(self.units, CLASSES)
        return MonteCarlo(head, self.samples, self.evaluation) if self.share(method) else head

    def task(self, length: int, batch: int, rows: int | None) -> OneToManyClasses:
        """The task at this length; `rows`: of a fixed training set, None: fresh ones."""
        return OneToManyClasses(length, batch, self.labels, rows)

    def share(self, method: str) -> float:
        """The share of stochastic units of a method's network."""
        return 0.0 if method.startswith("det") else self.stochastic

    @property
    def answers(self) -> np.ndarray:
        """The ten classes, at which probabilities are drawn."""
        return np.arange(CLASSES)

    def truth(self, v: np.ndarray) -> np.ndarray:
        """The true p(y | v) at the answers, (v, answers)."""
        return class_probabilities(v, self.labels)

    @property
    def published(self) -> dict[str, dict[int, float]]:
        """Training losses of the paper's Table 1, by method and length."""
        return {"STE": {2: 1.44, 20: 2.27}, "STPTT": {2: 1.44, 20: 1.54}}

    def references(self) -> dict[str, float]:
        """The entropy of the class given x, and that of the class alone."""
        return {"exact floor": class_floor(self.labels), "learn nothing": class_marginal_entropy(self.labels)}
