"""What both one-to-many experiments share: recipes, methods by name, curves, samples and densities.

A method is `NETWORK-RULE` and is run at several lengths T. Two protocols: Onward's recipe (fresh rows, Adam, clipping) for
networks and rules that are meant to learn, and the paper's (a fixed training set, AdaGrad) for what the paper and its
authors' code do.
"""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from onward.cells.base import AbstractCell
from onward.cells.dense import Dense
from onward.cells.elman import Elman
from onward.cells.gru import GRU
from onward.cells.hybrid import Hybrid
from onward.cells.lstm import LSTM
from onward.cells.start import chrono, knots, orthogonal
from onward.errors import OnwardError
from onward.heads.base import AbstractHead
from onward.lab import metrics
from onward.lab.experiment import Experiment, require_positive
from onward.lab.method import Method
from onward.learners.base import AbstractLearner
from onward.learners.bptt import BPTT
from onward.learners.inverses import (
    AbstractInverse,
    AffineInverse,
    FeedbackInverse,
    IdentityInverse,
    ResidualInverse,
    Transition,
)
from onward.learners.tptt import TPTT
from onward.model import Model
from onward.tasks.base import AbstractTask
from onward.types import PyTree
from onward.types import Sequence as Batch

POINTS = 5
# What the names of methods begin with that follow the paper's settings.
PROTOCOLS = ("paper-", "authors-")
# Where densities are drawn, each the mean over this many draws of the distractors.
INPUTS, DRAWS = np.linspace(-0.1, 1.1, 97), 8
CELLS: dict[str, Callable[..., Dense]] = {"gru": GRU, "lstm": LSTM, "elman": Elman}
NAMES = {"gru": "GRU", "lstm": "LSTM", "elman": "tanh Elman"}
# Input range that units are spread over.
RANGE = (0.0, 1.0)


class NoInverse(AbstractInverse):
    """A control: no target but the first, so only the last step learns."""

    def init(self, cell: AbstractCell, *, key: PRNGKeyArray) -> tuple[()]:
        """There are no weights to start."""
        return ()

    def shift(
        self, weights: tuple[()], cell: AbstractCell, transition: Transition, seen: tuple[()], d: PyTree
    ) -> PyTree:
        """Nothing is wanted of h_{t-1}."""
        return jax.tree.map(jnp.zeros_like, d)

    def loss(self, weights: tuple[()], cell: AbstractCell, transition: Transition, *, key: PRNGKeyArray) -> Array:
        """Zero, for there is nothing to learn."""
        return jnp.zeros(())


class Rule(NamedTuple):
    """How a network learns: the inverse model of TPTT (None: BPTT), whether it learns, and what to call it."""

    inverse: AbstractInverse | None
    learns: bool
    note: str


RULES = {
    "bptt": Rule(None, False, "BPTT"),
    "tptt": Rule(FeedbackInverse(0.1), True, "TPTT, feedback weights learned by difference reconstruction"),
    "random": Rule(FeedbackInverse(1.0), False, "TPTT, feedback weights fixed at random"),
    "memory": Rule(FeedbackInverse(0.0), False, "TPTT, only each unit's own memory carries targets back"),
    "hold": Rule(IdentityInverse(), False, "TPTT, identity inverse, nothing learned"),
    "affine": Rule(AffineInverse(), True, "TPTT, the paper's affine inverse, learned by reconstruction"),
    "affine-noise": Rule(AffineInverse(noise=0.1), True, "TPTT, affine inverse, reconstruction with noise 0.1"),
    "affine-difference": Rule(
        AffineInverse(training="difference"), True, "TPTT, affine inverse, learned by differences"
    ),
    "residual": Rule(ResidualInverse(noise=0.1), True, "TPTT, residual inverse, reconstruction with noise 0.1"),
    "residual-difference": Rule(
        ResidualInverse(training="difference"), True, "TPTT, residual inverse, learned by differences"
    ),
    "last-step": Rule(NoInverse(), False, "control: only the last step learns"),
}


@dataclass(frozen=True, kw_only=True)
class OneToManyExperiment(Experiment):
    """What the experiments on classes and on a mixture share: fields, the recipe, what is measured."""

    length_field: ClassVar[str] = "iterations"
    figures: ClassVar[str] = "onward.lab.papers.one_to_many_figures"
    discrete: ClassVar[bool]

    lengths: tuple[int, ...]
    """Lengths T of the sequences; every method is run at each."""
    iterations: int
    """Updates of Onward's recipe, each on fresh rows."""
    batch: int
    """Rows of an update."""
    units: int
    """Hidden units."""
    slope: float
    """How steeply units respond to the input at the start (`knots`)."""
    gain: float
    """Size of the recurrent weights of gated units at the start (`orthogonal`)."""
    inverse_step_size: float = 3e-3
    """alpha_g: step size of the inverse model (Adam)."""
    target_step_size: float = 1.0
    """alpha_i: how far the first target lies along the gradient."""
    transitions: int
    """Transitions of a batch that the inverse model learns from."""
    inverse_steps: int = 1
    """Updates of the inverse model for each update of the network."""
    held_out: int
    """Held-out rows."""

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        if not self.lengths or min(self.lengths) < 1 or len(set(self.lengths)) != len(self.lengths):
            raise OnwardError(f"--lengths must be whole numbers of at least 1, each once, got {self.lengths}")
        require_positive(
            iterations=self.iterations,
            batch=self.batch,
            units=self.units,
            slope=self.slope,
            gain=self.gain,
            inverse_step_size=self.inverse_step_size,
            target_step_size=self.target_step_size,
            transitions=self.transitions,
            inverse_steps=self.inverse_steps,
            held_out=self.held_out,
        )

    @property
    def rows(self) -> tuple[str, ...]:
        """Every method at every length: METHOD-T."""
        return tuple(f"{method}-{length}" for length in self.lengths for method in self.methods)

    @abc.abstractmethod
    def protocol(self, name: str) -> Method:
        """A method of the paper (`paper-`) or of its authors' code (`authors-`), under their settings."""

    def build(self, name: str) -> Method:
        """A method at one length."""
        return self.protocol(name) if name.startswith(PROTOCOLS) else self.recipe(name)

    @abc.abstractmethod
    def head(self, method: str) -> AbstractHead:
        """A fresh readout of a method's hidden units."""

    @abc.abstractmethod
    def task(self, length: int, batch: int, rows: int | None) -> Any:
        """The task at this length."""

    @abc.abstractmethod
    def share(self, method: str) -> float:
        """Share of stochastic units of a method's network."""

    @property
    @abc.abstractmethod
    def answers(self) -> np.ndarray:
        """Targets y at which densities are drawn."""

    @abc.abstractmethod
    def truth(self, v: np.ndarray) -> np.ndarray:
        """The true p(y | v) at those, (v, answers)."""

    @property
    @abc.abstractmethod
    def published(self) -> dict[str, dict[int, float]]:
        """The paper's table: by method and length."""

    @property
    def final_metric(self) -> str:
        """The mean loss on held-out rows, in nats."""
        return "held_out"

    def final_values(self, lines: Sequence[dict[str, Any]]) -> np.ndarray:
        """The held-out loss of each run at its last point."""
        return np.asarray(lines[-1]["held_out"])

    def default_step_size(self, name: str) -> float:
        """The step size of Adam under Onward's recipe."""
        return 6e-3

    def tile_of(self, name: str) -> int:
        """One by one: a batch of long sequences is large."""
        return 1

    def recipe(self, name: str) -> Method:
        """A network and a rule under Onward's recipe; `name` is NETWORK-RULE-T."""
        method, length = split(name)
        network, rule_name = method.removeprefix("det").split("-", 1)
        rule = RULES[rule_name]
        iterations = self.iterations
        optimiser = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(),
            optax.scale_by_schedule(
                optax.warmup_cosine_decay_schedule(0.0, -1.0, min(100, iterations // 4), iterations)
            ),
        )
        inverse_optimiser = optax.chain(
            optax.scale_by_adam(), optax.scale_by_schedule(optax.cosine_decay_schedule(-1.0, iterations, 0.1))
        )
        share = self.share(method)

        def model(key: PRNGKeyArray) -> Model:
            return Model(network_of(network, self.units, length, share, self.slope, self.gain, key), self.head(method))

        def tptt(step_size: Any) -> TPTT:
            assert rule.inverse is not None
            return TPTT(
                rule.inverse,
                optimiser,
                inverse_optimiser,
                step_size,
                self.inverse_step_size,
                self.target_step_size,
                inverse_steps=self.inverse_steps if rule.learns else 0,
                transitions=self.transitions,
            )

        def learner(model: Model, step_size: Any) -> AbstractLearner:
            return BPTT(optimiser, step_size) if rule.inverse is None else tptt(step_size)

        stochastic = f", {share:.0%} stochastic" if share else ""
        return self.method(
            name, self.task(length, self.batch, None), model, learner, iterations,
            f"{NAMES[network]} of {self.units} units{stochastic}; {rule.note}",
            None if rule.inverse is None else tptt(1.0),
        )  # fmt: skip

    def method(
        self,
        name: str,
        task: AbstractTask,
        model: Callable[[PRNGKeyArray], Model],
        learner: Callable[[Model, Any], AbstractLearner],
        steps: int,
        note: str,
        watched: TPTT | None = None,
        loss: Callable[..., tuple[Array, Array]] = metrics.network_loss,
    ) -> Method:
        """A method with what is measured of each.

        `watched`: compare its targets with the gradient. `loss`: how the network is read, where not as its cell says.
        """
        _, length = split(name)
        fresh = self.task(length, 1, None)
        sampled = fresh.held_out(1000, seed=3)
        credit = metrics.credit_by_step(watched, fresh.held_out(200, seed=2)) if watched is not None else None

        def inspect(state: Any) -> dict[str, Array]:
            answers = self._answers(state, sampled, length, loss)
            return answers if credit is None else answers | credit(state)

        return Method(
            name=name,
            task=task,
            model=model,
            learner=learner,
            steps=steps,
            measure=metrics.training_loss,
            metric="training loss",
            batch_axis=0,
            tile=self.tile_of(name),
            point_every=max(1, steps // POINTS),
            evaluate=metrics.held_out_loss(fresh.held_out(self.held_out, seed=1), loss=loss),
            inspect=inspect,
            note=note,
        )

    def _answers(self, state: Any, sampled: Batch, length: int, loss: Any) -> dict[str, Array]:
        """p(y | v) over the grid, the mean over draws of the distractors, and one sampled answer to each held-out input."""
        model = state.model.evaluation()
        draw, sample = jax.random.split(state.key)
        xs = np.random.default_rng(0).random((length, len(INPUTS) * DRAWS, 1), np.float32)
        xs[0, :, 0] = np.repeat(INPUTS, DRAWS)
        y = jnp.asarray(self.answers, sampled.y.dtype)

        def read(xs: Array) -> Array:
            rows = xs.shape[1]
            example = Batch(xs, jnp.zeros((1, rows), y.dtype), jnp.ones((1, rows)))
            return loss(model, state.stats, example, draw)[1][0]

        density = jax.vmap(lambda p: jax.vmap(lambda y: jnp.exp(model.head.log_prob(p, y)))(y))(read(jnp.asarray(xs)))
        keys = jax.random.split(sample, sampled.xs.shape[1])
        answers = jax.vmap(lambda p, k: model.head.sample(p, key=k))(read(sampled.xs), keys)
        return {"density": jnp.mean(density.reshape(len(INPUTS), DRAWS, -1), 1), "samples": answers}


def split(name: str) -> tuple[str, int]:
    """The method and the length of a row."""
    method, _, length = name.rpartition("-")
    return method, int(length)


def network_of(
    kind: str, units: int, length: int, share: float, slope: float, gain: float, key: PRNGKeyArray
) -> AbstractCell:
    """A layer that starts spread over the inputs' range and, where it has a gate for it, over time scales up to the length."""
    draw, mix, spread, time = jax.random.split(key, 4)
    elman = kind == "elman"
    cell = orthogonal(CELLS[kind](1, units, key=draw), 1.0 if elman else gain, key=mix, identity=elman)
    cell = knots(cell, *RANGE, slope=slope, key=spread)
    if not elman:
        cell = chrono(cell, max(length - 1, 1), key=time)
    return Hybrid(cell, share) if share else cell
