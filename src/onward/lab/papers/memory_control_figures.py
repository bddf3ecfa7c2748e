"""The report of memory for acting: success by length first, then curves, finals and the table."""

from typing import Any

import numpy as np

from onward.lab import plain_figures
from onward.lab.figures import Run, canvas
from onward.lab.page import COLOURS, Picture
from onward.lab.papers.memory_control import MemoryControlExperiment

# A return above this counts as success, as published; of the T-maze, more than is had without memory.
SUCCESS = {"chain": 0.5, "t-maze": 3.0, "k-chain": 0.5}


def report(run: Run[MemoryControlExperiment]) -> tuple[str, list[Any]]:
    """Lead and parts of the page."""
    plain: Any = run
    lead, parts = plain_figures.report(plain)
    return lead, [*([_by_length(run)] if len(run.experiment.lengths) > 1 else []), *parts]


def successes(run: Run[MemoryControlExperiment]) -> dict[str, dict[int, float]]:
    """Of each method, at each length, the share of seeds that succeed. A run without an end of an episode does not."""
    experiment, found = run.experiment, dict[str, dict[int, float]]()
    least = SUCCESS[experiment.task]
    for row in run.rows:
        values = np.nan_to_num(np.asarray(row["values"], float), nan=-np.inf)
        method, length = experiment.method_of(row["name"]), experiment.length_of(row["name"])
        found.setdefault(method, {})[length] = float(np.mean(values > least))
    return found


def _by_length(run: Run[MemoryControlExperiment]) -> Picture:
    """A line for each method."""
    figure, axes = canvas(3.2)
    shares = successes(run)
    for i, (method, by_length) in enumerate(shares.items()):
        lengths = sorted(by_length)
        # Lines that lie on one another are told apart.
        lift = 0.012 * (i - (len(shares) - 1) / 2)
        heights = [by_length[length] + lift for length in lengths]
        axes.plot(lengths, heights, "o-", color=COLOURS[i % len(COLOURS)], label=method)
    axes.set(
        xscale="log", xlabel="steps that have to be bridged", ylabel="share of seeds that succeed", ylim=(-0.06, 1.06)
    )
    axes.set_xticks(sorted(run.experiment.lengths), [str(length) for length in sorted(run.experiment.lengths)])
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=5)
    what = "mean reward of a step" if run.experiment.task == "k-chain" else "return"
    return Picture(
        "lengths",
        figure,
        f"The share of {run.seeds} whose {what} at the end is above {SUCCESS[run.experiment.task]:g}, by length.",
    )
