"""What both one-to-many experiments share: recipes, methods by name, curves, samples and densities.

A method is `NETWORK-RULE` and is run at several lengths T. Two protocols: Onward's recipe (fresh rows, Adam, clipping) for
networks and rules that are meant to learn, and the paper's (a fixed training set, AdaGrad) for what the paper and its
authors' code do.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

import onward as ow
from onward.lab import metrics
from onward.lab.experiment import Experiment, require_positive
from onward.lab.method import Method
from onward.lab.papers import authors
from onward.learners.inverses import Transition
from onward.types import PyTree

POINTS = 5
# What the names of methods begin with that follow the paper's settings.
PROTOCOLS = ("paper-", "authors-")
# Where densities are drawn, each the mean over this many draws of the distractors.
INPUTS, DRAWS = np.linspace(-0.1, 1.1, 97), 8
CELLS: dict[str, Callable[..., ow.Dense]] = {"gru": ow.GRU, "lstm": ow.LSTM, "elman": ow.Elman}
NAMES = {"gru": "GRU", "lstm": "LSTM", "elman": "tanh Elman"}
# Input range that units are spread over.
RANGE = (0.0, 1.0)


class NoInverse(ow.AbstractInverse):
    """A control: no target but the first, so only the last step learns."""

    def init(self, cell: ow.AbstractCell, *, key: PRNGKeyArray) -> tuple[()]:
        """There are no weights to start."""
        return ()

    def shift(
        self, weights: tuple[()], cell: ow.AbstractCell, transition: Transition, seen: tuple[()], d: PyTree
    ) -> PyTree:
        """Nothing is wanted of h_{t-1}."""
        return jax.tree.map(jnp.zeros_like, d)

    def loss(self, weights: tuple[()], cell: ow.AbstractCell, transition: Transition, *, key: PRNGKeyArray) -> Array:
        """Zero, for there is nothing to learn."""
        return jnp.zeros(())


class Rule(NamedTuple):
    """How a network learns: the inverse model of TPTT (None: BPTT), whether it learns, and what to call it."""

    inverse: ow.AbstractInverse | None
    learns: bool
    note: str


RULES = {
    "bptt": Rule(None, False, "BPTT"),
    "tptt": Rule(ow.FeedbackInverse(0.1), True, "TPTT, feedback weights learned by difference reconstruction"),
    "random": Rule(ow.FeedbackInverse(1.0), False, "TPTT, feedback weights fixed at random"),
    "memory": Rule(ow.FeedbackInverse(0.0), False, "TPTT, only each unit's own memory carries targets back"),
    "hold": Rule(ow.IdentityInverse(), False, "TPTT, identity inverse, nothing learned"),
    "affine": Rule(ow.AffineInverse(), True, "TPTT, the paper's affine inverse, learned by reconstruction"),
    "affine-noise": Rule(ow.AffineInverse(noise=0.1), True, "TPTT, affine inverse, reconstruction with noise 0.1"),
    "affine-difference": Rule(
        ow.AffineInverse(training="difference"), True, "TPTT, affine inverse, learned by differences"
    ),
    "residual": Rule(ow.ResidualInverse(noise=0.1), True, "TPTT, residual inverse, reconstruction with noise 0.1"),
    "residual-difference": Rule(
        ow.ResidualInverse(training="difference"), True, "TPTT, residual inverse, learned by differences"
    ),
    "last-step": Rule(NoInverse(), False, "control: only the last step learns"),
}


@dataclass(frozen=True, kw_only=True)
class OneToManyExperiment(Experiment):
    """What the experiments on classes and on a mixture share: fields, the recipe, what is measured."""

    length_field: ClassVar[str] = "iterations"
    figures: ClassVar[str] = "onward.lab.papers.one_to_many_figures"
    final_metric: ClassVar[str] = "held_out"
    discrete: ClassVar[bool]
    adam_step_size: ClassVar[float]
    """Of Onward's recipe."""
    paper_step_sizes: ClassVar[dict[str, Any]]
    """Alpha_f, alpha_g and alpha_i of the paper."""
    paper_notes: ClassVar[dict[str, str]]
    """Methods under the paper's settings, and what each is."""
    published: ClassVar[dict[str, dict[int, float]]]
    """Training losses of the paper's table, by method and length."""
    answers: ClassVar[np.ndarray]
    """Targets y at which densities are drawn."""

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
    paper_rows: int = 3_000
    """Rows of the training set of methods under the paper's settings."""

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        if not self.lengths or min(self.lengths) < 1 or len(set(self.lengths)) != len(self.lengths):
            raise ow.OnwardError(f"--lengths must be whole numbers of at least 1, each once, got {self.lengths}")
        require_positive(self, "iterations", "batch", "units", "slope", "gain", "inverse_step_size", "target_step_size")
        require_positive(self, "transitions", "inverse_steps", "held_out", "paper_rows")

    @property
    def rows(self) -> tuple[str, ...]:
        """Every method at every length: METHOD-T."""
        return tuple(f"{method}-{length}" for length in self.lengths for method in self.methods)

    def build(self, name: str) -> Method:
        """A method at one length."""
        return self.protocol(name) if name.startswith(PROTOCOLS) else self.recipe(name)

    @abc.abstractmethod
    def head(self, method: str) -> ow.AbstractHead:
        """A fresh readout of a method's hidden units."""

    @abc.abstractmethod
    def task(self, length: int, batch: int, rows: int | None) -> Any:
        """The task at this length."""

    @abc.abstractmethod
    def share(self, method: str) -> float:
        """Share of stochastic units of a method's network."""

    @abc.abstractmethod
    def truth(self, v: np.ndarray) -> np.ndarray:
        """The true p(y | v) at the answers, (v, answers)."""

    @property
    @abc.abstractmethod
    def paper_batches(self) -> tuple[int, int]:
        """Under the paper's settings: rows of a batch, and updates."""

    @abc.abstractmethod
    def paper_model(self, method: str, key: PRNGKeyArray) -> ow.Model:
        """The paper's network."""

    def default_step_size(self, name: str) -> float:
        """Of Adam, or alpha_f of the paper."""
        return self.paper_step_sizes["step_size"] if name.startswith(PROTOCOLS) else self.adam_step_size

    def tile_of(self, name: str) -> int:
        """One by one: a batch of long sequences is large."""
        return 1

    def protocol(self, name: str) -> Method:
        """A method of the paper (`paper-`) or of its authors' code (`authors-`): fixed rows, AdaGrad, their step sizes."""
        method, length = split(name)
        batch, updates = self.paper_batches
        adagrad = authors.adagrad()
        text = ow.TPTT(ow.AffineInverse(), adagrad, adagrad, **self.paper_step_sizes)
        code = authors.AuthorsTPTT(**self.paper_step_sizes) if method.endswith("tptt") else authors.AuthorsSTE()
        of_text = method.startswith("paper-")
        chosen: Any = text if of_text else code
        # Their stochastic networks are read as they are trained, with rows that are not sampled.
        as_trained = lambda model, stats, example, key: code.loss(model, example, key=key)
        activation = "sigmoid" if self.discrete else "tanh"
        return self.method(
            name, self.task(length, batch, self.paper_rows), partial(self.paper_model, method),
            lambda model, step_size: replace(chosen, step_size=step_size), updates,
            f"{activation} Elman of {self.units} units, {self.paper_rows} rows, AdaGrad; {self.paper_notes[method]}",
            text if of_text else None,
            as_trained if self.discrete and not of_text else metrics.network_loss,
        )  # fmt: skip

    def recipe(self, name: str) -> Method:
        """A network and a rule under Onward's recipe; `name` is NETWORK-RULE-T."""
        method, length = split(name)
        network, rule_name = method.removeprefix("det").split("-", 1)
        rule = RULES[rule_name]
        iterations = self.iterations
        warm = min(100, iterations // 4)
        optimiser = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(),
            optax.scale_by_schedule(optax.warmup_cosine_decay_schedule(0.0, -1.0, warm, iterations)),
        )
        falling = optax.scale_by_schedule(optax.cosine_decay_schedule(-1.0, iterations, 0.1))
        share = self.share(method)

        def model(key: PRNGKeyArray) -> ow.Model:
            cell = network_of(network, self.units, length, share, self.slope, self.gain, key)
            return ow.Model(cell, self.head(method))

        def learner(model: ow.Model | None, step_size: Any) -> Any:
            if rule.inverse is None:
                return ow.BPTT(optimiser, step_size)
            return ow.TPTT(
                rule.inverse,
                optimiser,
                optax.chain(optax.scale_by_adam(), falling),
                step_size,
                self.inverse_step_size,
                self.target_step_size,
                inverse_steps=self.inverse_steps if rule.learns else 0,
                transitions=self.transitions,
            )

        stochastic = f", {share:.0%} stochastic" if share else ""
        return self.method(
            name, self.task(length, self.batch, None), model, learner, iterations,
            f"{NAMES[network]} of {self.units} units{stochastic}; {rule.note}",
            None if rule.inverse is None else learner(None, 1.0),
        )  # fmt: skip

    def method(
        self,
        name: str,
        task: ow.AbstractTask,
        model: Callable[..., ow.Model],
        learner: Callable[[ow.Model, Any], ow.AbstractLearner],
        steps: int,
        note: str,
        watched: ow.TPTT | None = None,
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

    def _answers(self, state: Any, sampled: ow.Sequence, length: int, loss: Any) -> dict[str, Array]:
        """p(y | v) over the grid, the mean over draws of the distractors, and one sampled answer to each held-out input."""
        model = state.model.evaluation()
        draw, sample = jax.random.split(state.key)
        xs = np.random.default_rng(0).random((length, len(INPUTS) * DRAWS, 1), np.float32)
        xs[0, :, 0] = np.repeat(INPUTS, DRAWS)
        y = jnp.asarray(self.answers, sampled.y.dtype)

        def read(xs: Array) -> Array:
            rows = xs.shape[1]
            example = ow.Sequence(xs, jnp.zeros((1, rows), y.dtype), jnp.ones((1, rows)))
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
) -> ow.AbstractCell:
    """A layer that starts spread over the inputs' range and, where it has a gate for it, over time scales up to the length."""
    draw, mix, spread, time = jax.random.split(key, 4)
    elman = kind == "elman"
    cell = ow.orthogonal(CELLS[kind](1, units, key=draw), 1.0 if elman else gain, key=mix, identity=elman)
    cell = ow.knots(cell, *RANGE, slope=slope, key=spread)
    if not elman:
        cell = ow.chrono(cell, max(length - 1, 1), key=time)
    return ow.Hybrid(cell, share) if share else cell
