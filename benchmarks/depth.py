"""One layer of columns, several, a hidden layer after them, or stages that grow: which learns best for its multiply-adds?

    python benchmarks/depth.py --task patterning|parity|digits|mnist [--gates gru] [--budget N] [--layers 2 3 4] [--seeds 8]
    python benchmarks/depth.py --task rows --file CSV --target COLUMN

Each network is as wide as `--budget` multiply-adds a learning step allow, counted in the traced program (forward pass,
gradient, head, optimiser). Step sizes are chosen on seeds 100 to 103 and the result is told on seeds 0 and up.
`parity`: the running mean (over some 20 steps) of the product of `--bits` random signs: what one layer of units that
gate what they add up can only do unit by unit, and a layer above a layer that multiplies does at once.
`rows`: a series, its numeric columns as changes in their usual size (over the first tenth), cut at 5 of it; what is to be
said is the next change of the target. The step size is chosen on the first half of the rows, the second half is told, all
rows are read once; squared errors are divided by those of the last value.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

import onward as ow
from onward.lab import metrics
from onward.lab.data import datasets
from onward.verify.costs import multiply_adds

GATES = {"gru": ow.GRUGates, "lstm": ow.LSTMGates, "mingru": ow.MinGRUGates}
HIDDEN = 16
STAGES = 4


class Rows(ow.AbstractTask):
    """A series, row by row; from its last row on to its first."""

    x: jax.Array
    y: jax.Array

    @property
    def inputs(self) -> int:
        """Numeric columns."""
        return int(self.x.shape[1])

    def init(self, key: Any) -> Any:
        """The first row."""
        return jnp.zeros((), jnp.int32)

    def emit(self, state: Any) -> Any:
        """The next row."""
        return (state + 1) % len(self.x), ow.Step(self.x[state], self.y[state])


def rows_of(file: Path, target: str) -> Rows:
    """The changes of a table's numeric columns."""
    table = pd.read_csv(file).select_dtypes("number").ffill().dropna()
    changes = table.diff().iloc[1:]
    cut = (changes / changes.iloc[: len(changes) // 10].std().replace(0, 1)).clip(-5, 5).to_numpy(np.float32)
    return Rows(jnp.asarray(cut[:-1]), jnp.asarray(cut[1:, list(table).index(target)]))


class Parity(ow.AbstractTask):
    """The exponential mean of the product of some random signs, scaled to variance 1; it is known at every step."""

    bits: int = eqx.field(default=3, static=True)
    span: float = eqx.field(default=20.0, static=True)

    @property
    def inputs(self) -> int:
        """The signs."""
        return self.bits

    def init(self, key: Any) -> Any:
        """A mean of 0."""
        return key, jnp.zeros(())

    def emit(self, state: Any) -> Any:
        """New signs, and the mean with them."""
        key, draw = jax.random.split(state[0])
        x = jax.random.rademacher(draw, (self.bits,), jnp.float32)
        mean = state[1] + (jnp.prod(x) - state[1]) / self.span
        return (key, mean), ow.Step(x, mean * (2 * self.span - 1) ** 0.5)


@dataclass(frozen=True)
class Case:
    """A task, how it is learned, and what is told of it."""

    task: Any
    objective: Any
    optimiser: Callable[[int], Any]
    head: Callable[[int], Any]
    measure: Any
    steps: int
    sizes: tuple[float, ...]
    budget: int
    levels: str
    moments: ow.Moments | None = None
    updates_every: int = 1
    told: int = 0


def relative(example: ow.Step, info: Any) -> Any:
    """The squared error; divided by all weights, it is that error in those of the last value."""
    return jnp.square(example.y - info.prediction), jnp.square(example.y)


def squared(example: ow.Step, info: Any) -> Any:
    """The squared error."""
    return jnp.square(example.y - info.prediction), jnp.ones(())


def wrong(example: ow.Step, info: Any) -> Any:
    """Whether the class was wrong."""
    right, weight = metrics.accuracy(example, info)
    return weight - right, weight


def falling(updates: int) -> Any:
    """Adam, its step size falling to zero along a cosine."""
    return optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(optax.cosine_decay_schedule(-1.0, updates)))


def case_of(name: str, images: int, bits: int, file: Path | None = None, target: str = "") -> Case:
    """By name."""
    if name == "rows":
        task = rows_of(file, target)
        return Case(
            task, ow.Supervised(), lambda _: ow.rms(0.999), ow.Linear, relative,
            len(task.x), (1e-3, 3e-3, 1e-2, 3e-2), 5000, "the last value 1", told=len(task.x) // 2,
        )  # fmt: skip
    if name == "patterning":
        return Case(
            ow.TracePatterning(), ow.TDLambda(0.9, 0.9), lambda _: ow.rms(0.9999), ow.Linear, metrics.return_error,
            1_000_000, (3e-4, 1e-3), 4000, "predict zero .02004, Bayes .00168", ow.Moments(prior=1),
        )  # fmt: skip
    if name == "parity":
        return Case(
            Parity(bits), ow.Supervised(), falling, ow.Linear, squared,
            400_000, (1e-3, 3e-3, 1e-2), 2000, "predict the mean 1, best 0",
        )  # fmt: skip
    found = datasets.load_digits("mnist" if name == "mnist" else "digits")
    task = ow.SequentialDigits(found.train_images, found.train_labels, top=found.top)
    length = found.train_images.shape[1]
    return Case(
        task, ow.Supervised(), falling, lambda n: ow.Categorical(n, 10), wrong,
        images * length, (1e-3, 3e-3), 20_000 if name == "mnist" else 5000, "most frequent class .89, best 0", None, length,
    )  # fmt: skip


def network(case: Case, gates: Any, way: str, layers: int, width: int) -> tuple[Callable[[Any], ow.Model], Any]:
    """The network of a width, and its rule."""

    def columns(inputs: int, key: Any) -> ow.Columns:
        spread = 0.3 if way == "grown" or inputs < 30 else 0.1
        made = ow.Columns(
            gates, inputs, width, key=key, spread=spread, normalise_inputs=case.moments, normalise_features=case.moments
        )
        return ow.chrono(made, 30, key=jax.random.fold_in(key, 1))

    def model(key: Any) -> ow.Model:
        keys, inputs, cells = jax.random.split(key, layers + 1), case.task.inputs, []
        for k in keys[:layers]:
            cells.append(columns(inputs, k))
            inputs = cells[-1].feature_count
        cell: Any = cells[0] if layers == 1 else ow.Stack(*cells, reads="all")
        if way == "grown":
            return ow.Model(ow.Cascade(cells[0]), case.head(cells[0].feature_count))
        if way == "hidden":
            return ow.Model(cell, ow.MLP(case.head(HIDDEN), cell.feature_count, HIDDEN, key=keys[-1]))
        return ow.Model(cell, case.head(cell.feature_count))

    return model, ow.Layerwise() if way == "layerwise" else ow.Columnwise()


def cost(case: Case, gates: Any, way: str, layers: int, width: int) -> float:
    """Multiply-adds of a learning step; of a network that grows, with all its stages."""
    model, rule = network(case, gates, way, layers, width)
    learner = ow.Online(rule, case.objective, case.optimiser(10), 1.0)
    key = jax.random.key(0)
    _, example = case.task.emit(case.task.init(key))

    def step(example: Any) -> Any:
        state = learner.init(model(key), example, key=key)
        if way == "grown":
            for _ in range(STAGES - 1):
                state = learner.grow(state, example)
        dynamic, static = eqx.partition(state, eqx.is_array)
        count = lambda d, e: eqx.filter(learner.step(eqx.combine(d, static), e)[0], eqx.is_array)
        return multiply_adds(jax.make_jaxpr(count)(dynamic, example).jaxpr)

    return float(step(example))


def widest(case: Case, gates: Any, way: str, layers: int, budget: float) -> int:
    """The widest layers within the budget."""
    low, high = 1, 2
    while cost(case, gates, way, layers, high) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(case, gates, way, layers, middle) <= budget else (low, middle)
    return low


def learned(
    case: Case, gates: Any, way: str, layers: int, width: int, seeds: Any, sizes: Any
) -> tuple[np.ndarray, np.ndarray, float]:
    """The error of the steps before those that are told, of those, (step sizes, seeds) each; CPU seconds."""
    model, rule = network(case, gates, way, layers, width)
    stages = STAGES if way == "grown" else 1
    optimiser = case.optimiser(max(1, case.steps // case.updates_every // stages))
    learner = lambda model, size: ow.Online(rule, case.objective, optimiser, size)
    loop = ow.Loop(case.task, model, learner, case.measure, seeds=seeds, step_sizes=sizes)
    began = time.process_time()
    loop.start()
    growths = [case.steps // stages * stage for stage in range(1, stages)]
    turn = case.steps - (case.told or case.steps // 10)
    at, errors = 0, []
    for mark in sorted({*growths, turn, case.steps}):
        loop.advance(mark - at)
        at = mark
        if mark in growths:
            loop.grow()
        if mark in (turn, case.steps):
            errors.append(np.asarray(loop.means()[0]).reshape(len(sizes), len(seeds)))
    return errors[0], errors[1], time.process_time() - began


def main() -> None:
    """The table of one task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=("patterning", "parity", "digits", "mnist", "rows"), default="parity")
    parser.add_argument("--gates", choices=GATES, default="gru")
    parser.add_argument("--budget", type=int)
    parser.add_argument("--layers", type=int, nargs="*", default=[2, 3, 4])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--bits", type=int, default=6)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--file", type=Path, help="a table of rows in order of time")
    parser.add_argument("--target", help="the column whose next change is to be said")
    given = parser.parse_args()
    if given.task == "rows" and not (given.file and given.target):
        parser.error("--task rows needs --file CSV and --target COLUMN")
    case = case_of(given.task, given.images, given.bits, given.file, given.target)
    gates = GATES[given.gates]()
    budget = given.budget or case.budget
    print(
        f"{given.file.stem if given.file else given.task}, {given.gates} columns, {case.steps:,} steps, at most {budget:,} multiply-adds; {case.levels}\n"
    )
    print("| network | width | multiply-adds | error | least | most | step size | CPU s a seed |")
    print("|---|---|---|---|---|---|---|---|")
    ways = [("plain", 1, "one layer"), ("hidden", 1, f"one layer, hidden layer of {HIDDEN}")]
    ways += [("grown", 1, f"{STAGES} stages, grown")]
    for layers in given.layers:
        ways += [("exact", layers, f"{layers} layers, exact"), ("layerwise", layers, f"{layers} layers, layerwise")]
    for way, layers, name in ways:
        width = widest(case, gates, way, layers, budget)
        before, last, _ = learned(case, gates, way, layers, width, range(100, 104), case.sizes)
        tried = before if case.told else last
        size = case.sizes[int(np.argmin(np.nan_to_num(tried.mean(1), nan=np.inf)))]
        _, errors, spent = learned(case, gates, way, layers, width, range(given.seeds), (size,))
        print(
            f"| {name} | {width} | {cost(case, gates, way, layers, width):,.0f} | {errors.mean():.5f} | "
            f"{errors.min():.5f} | {errors.max():.5f} | {size:g} | {spent / given.seeds:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
