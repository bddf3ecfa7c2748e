"""Section 5.1 of Manchev & Spratling: classification with several right answers, by stochastic units."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

import onward as ow
from onward.lab.experiment import require_positive
from onward.lab.papers import authors
from onward.lab.papers.one_to_many import RULES, OneToManyExperiment
from onward.tasks.one_to_many import CLASSES, class_floor, class_marginal_entropy, class_probabilities


@dataclass(frozen=True, kw_only=True)
class OneToManyClassesExperiment(OneToManyExperiment):
    """Name one of ten classes: the input x comes first, T - 1 distractors follow, and up to five classes fit an x.

    x = a + 0.3 sin(2 pi a) + U(-0.1, 0.1), and the class is that of a. Half of the hidden units are binary and random; the
    likelihood is the mean of several trajectories'. Networks learn by straight-through BPTT (`bptt`: STE-BPTT) or, locally, by
    stochastic target propagation through time (`tptt`: STPTT). `det` networks have no stochastic unit (STE(D)-BPTT).
    """

    name: ClassVar[str] = "one-to-many-classes"
    optimum: ClassVar[str] = "exact floor"
    title: ClassVar[str] = "One to many: classes by stochastic units after T steps"
    discrete: ClassVar[bool] = True
    adam_step_size: ClassVar[float] = 5e-3
    paper_step_sizes: ClassVar[dict[str, Any]] = {
        "step_size": 0.1,
        "inverse_step_size": 1e-5,
        "target_step_size": 0.1,
    }
    paper_notes: ClassVar[dict[str, str]] = {
        "paper-stptt": "the paper's text: half of the units stochastic, local losses, affine inverse",
        "authors-stptt": "the authors' code: half of the rows stochastic, losses backpropagated through all steps",
        "authors-ste": "the authors' code: half of the rows stochastic, logits averaged",
    }
    # Table 1.
    published: ClassVar[dict[str, dict[int, float]]] = {"STE": {2: 1.44, 20: 2.27}, "STPTT": {2: 1.44, 20: 1.54}}
    answers: ClassVar[np.ndarray] = np.arange(CLASSES)

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

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """NETWORK-RULE, and those under the paper's settings."""
        networks = ("gru", "lstm", "elman", "detgru", "detelman")
        ours = (f"{network}-{rule}" for network in networks for rule in RULES)
        return (*ours, *cls.paper_notes)

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        require_positive(self, "samples", "evaluation", "paper_epochs")
        if not 0 <= self.stochastic <= 1:
            raise ow.OnwardError(f"--stochastic must be in [0, 1], got {self.stochastic}")

    @property
    def paper_batches(self) -> tuple[int, int]:
        """Batches of 20."""
        return 20, self.paper_epochs * self.paper_rows // 20

    def paper_model(self, method: str, key: PRNGKeyArray) -> ow.Model:
        """Sigmoid units of which a share is stochastic; as many trajectories while learning as while measuring."""
        cell_key, start_key = jax.random.split(key)
        cell = ow.Hybrid(ow.Elman(1, self.units, key=cell_key, activation="sigmoid"), self.stochastic)
        head = ow.MonteCarlo(ow.Categorical(self.units, CLASSES), self.evaluation, self.evaluation)
        return authors.start(ow.Model(cell, head), key=start_key)

    def head(self, method: str) -> ow.AbstractHead:
        """Classes; the mean likelihood of several trajectories where units are stochastic."""
        head = ow.Categorical(self.units, CLASSES)
        return ow.MonteCarlo(head, self.samples, self.evaluation) if self.share(method) else head

    def task(self, length: int, batch: int, rows: int | None) -> ow.OneToManyClasses:
        """The task at this length; `rows`: of a fixed training set, None: fresh ones."""
        return ow.OneToManyClasses(length, batch, labels=self.labels, rows=rows)

    def share(self, method: str) -> float:
        """The share of stochastic units of a method's network."""
        return 0.0 if method.startswith("det") else self.stochastic

    def truth(self, v: np.ndarray) -> np.ndarray:
        """The true p(y | v) at the answers, (v, answers)."""
        return class_probabilities(v, self.labels)

    def references(self) -> dict[str, float]:
        """The entropy of the class given x, and that of the class alone."""
        return {"exact floor": class_floor(self.labels), "learn nothing": class_marginal_entropy(self.labels)}
