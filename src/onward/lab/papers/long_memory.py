"""Target propagation's own tasks (Manchev & Spratling, 2020): what stood long ago decides the answer at the end.

A method is `NETWORK-RULE` and is run at several lengths T. Two protocols: Onward's recipe (Adam, warm-up, cosine decay)
and, for `paper-` methods, that of the publications (tanh Elman, orthogonal start, plain or Nesterov SGD, batches of 20).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

import onward as ow
from onward.lab import metrics
from onward.lab.experiment import Experiment, require_positive
from onward.lab.method import Method
from onward.lab.papers.one_to_many import NoInverse, split
from onward.tasks.lag import AbstractLag

POINTS = 20
# Rows on which gradients are followed back.
FOLLOWED = 100
TASKS: dict[str, Callable[[int, int], AbstractLag]] = {
    "order": lambda length, batch: ow.TemporalOrder(length, 2, batch),
    "order-3": lambda length, batch: ow.TemporalOrder(length, 3, batch),
    "adding": lambda length, batch: ow.Adding(length, batch),
    "permutation": lambda length, batch: ow.RandomPermutation(length, batch=batch),
}


class Rule(NamedTuple):
    """How a network learns: the inverse of TPTT (None: BPTT), its updates for one of the network, and what to call it.

    `clip`: whether gradients are clipped to `--clip`. `preserving`: whether their lengths are kept (`Preserving`).
    """

    inverse: ow.AbstractInverse | None
    inverse_steps: int
    note: str
    clip: bool = True
    preserving: bool = False


FEEDBACK, AFFINE = ow.FeedbackInverse(0.1), ow.AffineInverse(noise=0.1)
RULES = {
    "bptt": Rule(None, 0, "BPTT", clip=False),
    "clipped": Rule(None, 0, "BPTT, clipped"),
    "norm": Rule(None, 0, "BPTT, clipped, lengths of gradients kept", preserving=True),
    "tptt": Rule(FEEDBACK, 1, "TPTT, feedback weights learned by difference reconstruction"),
    "tptt-5": Rule(FEEDBACK, 5, "the same, 5 updates of the inverse for each of the network"),
    "mirrored": Rule(
        ow.FeedbackInverse(0.1, mirrored=True), 1, "the same as tptt, feedback makes the updates of the layer"
    ),
    "steady": Rule(ow.SteadyInverse(FEEDBACK), 1, "the same as tptt, all targets of a row equally far"),
    "random": Rule(ow.FeedbackInverse(1.0), 0, "TPTT, feedback weights fixed at random"),
    "memory": Rule(ow.MemoryInverse(), 0, "TPTT, only each unit's own memory carries targets back"),
    "hold": Rule(ow.IdentityInverse(), 0, "TPTT, identity inverse, nothing learned"),
    "affine": Rule(AFFINE, 1, "TPTT, affine inverse, reconstruction with noise 0.1"),
    "affine-5": Rule(AFFINE, 5, "the same, 5 updates of the inverse for each of the network"),
    "difference": Rule(ow.AffineInverse(training="difference"), 1, "TPTT, affine inverse, learned by differences"),
    "last-step": Rule(NoInverse(), 0, "control: only the last step learns"),
}
PAPER = {
    "paper-sgd": Rule(None, 0, "SGD", clip=False),
    "paper-clipped": Rule(None, 0, "SGD, clipped (Pascanu et al.)"),
    "paper-norm": Rule(None, 0, "SGD, clipped, lengths of gradients kept (Pascanu et al.)", preserving=True),
    "paper-tptt": Rule(
        AFFINE, 1, "TPTT, affine inverse, noise 0.1, Nesterov momentum (Manchev & Spratling)", clip=False
    ),
}
NETWORKS = {
    "elman": "tanh Elman",
    "gru": "GRU",
    "plain": "GRU with short memories at the start,",
    "lstm": "LSTM",
    "hybrid": "half stochastic GRU",
    "mingru": "minimal GRU columns, linear and diagonal,",
}
# What a network cannot have: the inverse in the form of a dense layer, or lengths kept.
UNFIT = {"mingru": ("norm", "tptt", "tptt-5", "mirrored", "steady", "random"), "hybrid": ("norm",)}
STEP_SIZES = {"elman": 3e-4, "paper": 1e-2}
OTHER_STEP_SIZE = 3e-3


@dataclass(frozen=True, kw_only=True)
class LongMemoryExperiment(Experiment):
    """Temporal order, adding and random permutation: which rules learn them, with which cells, at which lengths.

    A seed succeeds if at one of the 20 points of a run fewer than 1 % of 10,000 sequences are answered wrongly, none of
    which it was trained on: there training ends in the publications. The number reported is the share of wrong answers
    at the end.
    """

    name: ClassVar[str] = "long-memory"
    title: ClassVar[str] = "Long memory: temporal order, adding, random permutation"
    optimum: ClassVar[str] = "best"
    figures: ClassVar[str] = "onward.lab.papers.long_memory_figures"
    final_metric: ClassVar[str] = "wrong"
    length_field: ClassVar[str] = "iterations"
    also: ClassVar[tuple[str, ...]] = ("held_out",)

    methods: tuple[str, ...] = ("gru-clipped", "gru-tptt", "gru-memory", "gru-hold", "gru-last-step")
    task: Literal["order", "order-3", "adding", "permutation"] = "order"
    """Two or three symbols in order; the mean of two marked numbers; one symbol of a hundred, kept to the end."""
    lengths: tuple[int, ...] = (20, 60, 100)
    """Lengths T of the sequences; every method is run at each."""
    iterations: int = 3_000
    """Updates of Onward's recipe, each on new sequences."""
    batch: int = 50
    """Sequences of an update."""
    units: int = 64
    """Hidden units."""
    warm_up: int = 100
    """Updates over which the step size of the network rises, a quarter of all at most; the inverse learns from the first."""
    clip: float = 1.0
    """Length that gradients are clipped to."""
    inverse_step_size: float = 3e-3
    """alpha_g: step size of the inverse model (Adam)."""
    target_step_size: float = 1.0
    """alpha_i: how far the first target lies along the gradient."""
    transitions: int = 400
    """Transitions of a batch that the inverse model learns from, at each of its updates."""
    preserve: float = 2.0
    """Weight of the regulariser that keeps lengths of gradients."""
    held_out: int = 10_000
    """Sequences that wrong answers are counted on."""
    samples: int = 4
    """Trajectories M of stochastic units while learning."""
    evaluation: int = 20
    """Trajectories M while measuring."""
    paper_iterations: int = 20_000
    """Updates of paper- methods, of 20 sequences each."""
    paper_units: int = 100
    """Hidden units of paper- methods."""
    paper_target_step_size: float = 0.1
    """alpha_i of paper-tptt."""
    paper_inverse_step_size: float = 1e-3
    """alpha_g of paper-tptt."""

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """NETWORK-RULE, and those under the settings of the publications."""
        fit = ((n, r) for n in NETWORKS for r in RULES if r not in UNFIT.get(n, ()))
        return (*(f"{network}-{rule}" for network, rule in fit), *PAPER)

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        least = type(TASKS[self.task](100, 1)).least
        if not self.lengths or min(self.lengths) < least or len(set(self.lengths)) != len(self.lengths):
            raise ow.OnwardError(
                f"--lengths must be whole numbers of at least {least} for {self.task}, each once, got {self.lengths}"
            )
        require_positive(self, "iterations", "batch", "units", "clip", "inverse_step_size", "target_step_size")
        require_positive(
            self, "warm_up", "transitions", "held_out", "samples", "evaluation", "paper_iterations", "paper_units"
        )
        require_positive(self, "paper_target_step_size", "paper_inverse_step_size")
        if not 0 <= self.preserve < math.inf:
            raise ow.OnwardError(f"--preserve must not be negative, got {self.preserve}")

    @property
    def rows(self) -> tuple[str, ...]:
        """Every method at every length: METHOD-T."""
        return tuple(f"{method}-{length}" for length in self.lengths for method in self.methods)

    def default_step_size(self, name: str) -> float:
        """Of Adam by network, or of SGD, as tried in docs/experiments/long-memory.md."""
        return STEP_SIZES.get(name.split("-")[0], OTHER_STEP_SIZE)

    def tile_of(self, name: str) -> int:
        """One by one: a batch of long sequences is large."""
        return 1

    def references(self) -> dict[str, float]:
        """Exact shares of wrong answers, the same at every length."""
        return TASKS[self.task](100, 1).references()

    def solved_at(self, steps: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        """Of each seed the first point at which it had solved the task, (seeds,); inf where there is none.

        `wrong` (points, seeds): shares of wrong answers at the points `steps`.
        """
        task = TASKS[self.task](100, 1)
        there = np.vectorize(lambda share: ow.solved(task, share), otypes=[bool])(wrong)
        return np.where(there.any(0), np.asarray(steps)[there.argmax(0)], np.inf)

    def build(self, name: str) -> Method:
        """A method at one length."""
        method, length = split(name)
        network, _, rule_name = method.partition("-")
        paper = network == "paper"
        rule = PAPER[method] if paper else RULES[rule_name]
        steps = self.paper_iterations if paper else self.iterations
        task = TASKS[self.task](length, 20 if paper else self.batch)
        learner = partial(self.learner, rule, paper)
        size = self.paper_units if paper else self.units
        held = TASKS[self.task](length, 1)
        made = learner(None, 1.0)
        return Method(
            name=name,
            task=task,
            model=partial(self.model, "elman" if paper else network, task, size),
            learner=learner,
            steps=steps,
            measure=metrics.training_loss,
            metric="training loss",
            batch_axis=0,
            tile=self.tile_of(name),
            point_every=max(1, steps // POINTS),
            evaluate=metrics.LagErrors(held, self.held_out),
            inspect=metrics.Paths(made if isinstance(made, ow.TPTT) else None, held.held_out(FOLLOWED, seed=2)),
            note=f"{NETWORKS['elman' if paper else network]} of {size} units; {rule.note}",
        )

    def model(self, network: str, task: AbstractLag, units: int, key: PRNGKeyArray) -> ow.Model:
        """A network: orthogonal recurrent weights, and (but for `plain`) gates with memories up to the sequence's length."""
        draw, mix, time = jax.random.split(key, 3)
        head = ow.Linear(units) if task.answers is None else ow.Categorical(units, task.answers)
        if network == "mingru":
            columns = ow.Columns(ow.MinGRUGates(), task.inputs, units, key=draw, spread=1.0)
            return ow.Model(ow.chrono(columns, task.length - 1, key=time), head)
        if network == "elman":
            layer = ow.orthogonal(ow.Elman(task.inputs, units, key=draw), key=mix)
            return ow.Model(eqx.tree_at(lambda c: c.bias, layer, jnp.zeros_like(layer.bias)), head)
        make = ow.LSTM if network == "lstm" else ow.GRU
        layer = ow.orthogonal(make(task.inputs, units, key=draw), key=mix)
        if network == "plain":
            return ow.Model(layer, head)
        layer = ow.chrono(layer, task.length - 1, key=time)
        if network == "hybrid":
            return ow.Model(ow.Hybrid(layer, 0.5), ow.MonteCarlo(head, self.samples, self.evaluation))
        return ow.Model(layer, head)

    def learner(self, rule: Rule, paper: bool, model: ow.Model | None, step_size: Any) -> ow.AbstractLearner:
        """What trains it."""
        clip = [optax.clip_by_global_norm(self.clip)] if rule.clip else []
        if paper:
            momentum = [optax.trace(0.9, nesterov=True)] if rule.inverse is not None else []
            optimiser = optax.chain(*clip, *momentum, optax.scale(-1.0))
            of_inverse = optimiser
        else:
            warm = min(self.warm_up, self.iterations // 4)
            rising = optax.warmup_cosine_decay_schedule(0.0, -1.0, warm, self.iterations)
            optimiser = optax.chain(*clip, optax.scale_by_adam(), optax.scale_by_schedule(rising))
            falling = optax.cosine_decay_schedule(-1.0, self.iterations, 0.1)
            of_inverse = optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(falling))
        if rule.preserving:
            return ow.Preserving(optimiser, self.preserve, step_size)
        if rule.inverse is None:
            return ow.BPTT(optimiser, step_size)
        return ow.TPTT(
            rule.inverse,
            optimiser,
            of_inverse,
            step_size,
            self.paper_inverse_step_size if paper else self.inverse_step_size,
            self.paper_target_step_size if paper else self.target_step_size,
            inverse_steps=rule.inverse_steps,
            transitions=None if paper else self.transitions,
        )


def success_of(experiment: LongMemoryExperiment, steps: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    """Share of seeds that solved the task, and the median of the steps it took those."""
    at = experiment.solved_at(steps, wrong)
    solved = np.isfinite(at)
    return float(solved.mean()), float(np.median(at[solved])) if solved.any() else math.inf
