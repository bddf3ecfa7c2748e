"""How far back credit reaches, of networks that have learned to remember: measured, and as two numbers say.

    python benchmarks/horizon.py [--length 256] [--steps 500000] [--seeds 4] [--figure FILE]

Networks learn the memory chain as `onward run memory-control` has them. Of each, at the end of an episode and for the
preference of one action over the other: which share of the gradient is from uses of the weights more than a steps ago
(`onward.horizon`), beside max(discount lambda, what is left of the state)^a. Lines: median over seeds. The cosine is
that to the gradient of exact RTRL on the same network with the same lambda.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import onward as ow
from onward.lab.papers.memory_control import MemoryControlExperiment

DISCOUNT = 0.999
# What learns, with which lambda; then the rules looked at on that network, and with which lambda.
NETWORKS = {
    "64 minimal GRU columns": ("mingru", 0.0, {"exact": (ow.Columnwise(), 0.0), "this step alone, lambda .99": (ow.SnAp(0), 0.99)}),
    "dense layer of 64 GRU units": (
        "tbptt-1",
        0.99,
        {
            "exact": (ow.RTRL(), 0.0),
            "SnAp-1": (ow.SnAp(1), 0.0),
            "T-BPTT(32)": (ow.TBPTT(32), 0.0),
            "T-BPTT(1)": (ow.TBPTT(1), 0.0),
            "T-BPTT(1), lambda .99": (ow.TBPTT(1), 0.99),
        },
    ),
}  # fmt: skip


class Line(NamedTuple):
    """Of one rule on one network: ages, shares beyond, what the two numbers say, cosine to exact; medians."""

    network: str
    rule: str
    beyond: np.ndarray
    said: np.ndarray
    cosine: float


def learned(method: str, trace_decay: float, length: int, steps: int, seeds: int) -> tuple[list[ow.Model], list[float]]:
    """The networks of so many seeds after learning, and their returns over the last tenth."""
    experiment = MemoryControlExperiment(
        methods=(method,), lengths=(length,), steps=steps, seeds=seeds, trace_decay=trace_decay
    )
    made = experiment.build(f"{method}-{length}")
    size = experiment.default_step_size(method)
    loop = ow.Loop(made.task, made.model, made.learner, made.measure, seeds=range(seeds), step_sizes=(size,), axis=0)
    loop.start()
    loop.advance(steps - steps // 10)
    loop.means()
    loop.advance(steps // 10)
    returns, _ = loop.means()
    models = [jax.tree.map(lambda a, i=i: a[i], loop.state[1].model) for i in range(seeds)]
    return models, [float(each) for each in returns]


def episode(length: int, seed: int) -> jax.Array:
    """The observations of one episode."""
    task = ow.MemoryChain(length)
    state, steps = task.init(jax.random.key(seed)), []
    for _ in range(length + 1):
        state, step = task.emit(state)
        steps.append(step.x)
        state = task.act(state, jnp.zeros((), jnp.int32))
    return jnp.stack(steps[:length])


def look(model: ow.Model, rule: Any, trace_decay: float, xs: jax.Array, ages: list[int]) -> ow.Horizon:
    """For the preference of the first action over the second."""
    wanted = jnp.asarray([1.0, -1.0, 0.0])
    return ow.horizon(rule, model, xs, ages, decay=DISCOUNT * trace_decay, cotangent=wanted)


def cosine(a: Any, b: Any) -> float:
    """Of two gradients of one cell."""
    a, b = ravel_pytree(a)[0], ravel_pytree(b)[0]
    return float(a @ b / jnp.maximum(jnp.linalg.norm(a) * jnp.linalg.norm(b), 1e-30))


def age_of(share: float, ages: list[int], beyond: np.ndarray) -> str:
    """The first age beyond which no more than this share lies."""
    under = np.flatnonzero(beyond <= share)
    return f"{ages[under[0]]}" if len(under) else f"> {ages[-1]}"


def draw(lines: list[Line], ages: list[int], file: Path) -> None:
    """A panel for each network."""
    from matplotlib.figure import Figure

    from onward.lab.page import COLOURS, GREY

    names = list(dict.fromkeys(line.network for line in lines))
    figure = Figure((4.6 * len(names), 4.4), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for name, axes in zip(names, panels, strict=True):
        mine = [line for line in lines if line.network == name]
        for line, colour in zip(mine, COLOURS, strict=False):
            axes.plot(ages, line.beyond, color=colour, lw=2, label=line.rule)
            axes.plot(ages, line.said, color=colour, lw=1, ls=":")
        axes.set(xscale="log", ylim=(-0.02, 1.05), title=name, xlabel="steps ago")
        axes.plot([], [], color=GREY, ls=":", label="max(discount lambda, left)")
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.2))
    panels[0].set_ylabel("share of the gradient that is older")
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--figure", type=Path, help="a file to draw it in")
    given = parser.parse_args()
    ages = sorted({*(int(a) for a in np.geomspace(1, given.length, 18).round()), given.length})
    xs = episode(given.length, 1000)
    lines = []
    print(f"chain of {given.length}, {given.steps:,} steps, {given.seeds} seeds; medians\n")
    print("| network | gradient | at most half is older than | a tenth | a hundredth | cosine to exact |")
    print("|---|---|---|---|---|---|")
    for name, (method, trace_decay, rules) in NETWORKS.items():
        models, returns = learned(method, trace_decay, given.length, given.steps, given.seeds)
        told = ", ".join(f"{each:.2f}" for each in returns)
        for rule, (credit, lam) in rules.items():
            found = [look(model, credit, lam, xs, ages) for model in models]
            exact = [look(model, ow.RTRL(), lam, xs, ages[-1:]) for model in models]
            beyond = np.median([each.beyond for each in found], 0)
            alike = float(np.median([cosine(a.gradient, b.gradient) for a, b in zip(found, exact, strict=True)]))
            through = isinstance(credit, ow.Columnwise | ow.RTRL)
            left = np.median([each.left for each in found], 0) if through else np.zeros(len(ages))
            said = np.maximum(left, (DISCOUNT * lam) ** np.asarray(ages))
            lines.append(Line(name, rule, beyond, said, alike))
            marks = " | ".join(age_of(share, ages, beyond) for share in (0.5, 0.1, 0.01))
            print(f"| {name} (returns {told}) | {rule} | {marks} | {alike:.3f} |", flush=True)
    if given.figure:
        draw(lines, ages, given.figure)
        print(f"\n{given.figure}")


if __name__ == "__main__":
    main()
