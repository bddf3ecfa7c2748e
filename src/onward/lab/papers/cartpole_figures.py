"""The report of the cart and pole: frames of what is seen and hidden, then curves, finals and the table."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from onward.lab import plain_figures
from onward.lab.figures import Row, Run, grid
from onward.lab.page import COLOURS, GREY, Picture
from onward.lab.papers.cartpole import CartpoleInTheDarkExperiment

FRAMES, APART = 8, 4
# Drawn sizes in metres; a pole of half a metre to its middle.
POLE, CART, TALL = 1.0, 0.5, 0.25
TICK = 0.02


def report(run: Run[CartpoleInTheDarkExperiment]) -> tuple[str, list[Any]]:
    """Lead and parts of the page."""
    plain: Any = run
    lead, parts = plain_figures.report(plain)
    return lead, [_frames(run), *parts]


def _frames(run: Run[CartpoleInTheDarkExperiment]) -> Picture:
    """A strip of frames for each method: the end of a run, from the start of its longest episode on record."""
    rows = run.rows
    figure, panels = grid(len(rows), FRAMES, 0.4 + 1.35 * len(rows), sharex=True, sharey=True)
    for row, axes in zip(rows, panels, strict=True):
        _strip(run, row, axes)
    return Picture(
        "frames",
        figure,
        f"After {run.experiment.steps:,} steps, a frame every {APART * TICK:.2f} s of the longest episode that was recorded (first seed). The network sees where the cart is and how far the "
        "pole leans; the green arrow, how fast the pole's tip moves, is hidden from it"
        f"{' in the task of the title; here it was shown' if run.experiment.seen else ''}.",
    )


def _strip(run: Run[CartpoleInTheDarkExperiment], row: Row, panels: np.ndarray) -> None:
    record = run.records(row["name"])
    seen, starts = record["x"], np.flatnonzero(record["reset"])
    angle = 2 if run.experiment.seen else 1
    bounds = [*starts, len(seen)] if len(starts) else [0, len(seen)]
    lengths = np.diff(bounds)
    first, length = bounds[int(lengths.argmax())], int(lengths.max())
    for i, axes in enumerate(panels):
        axes.set(xticks=[], yticks=[], xlim=(-0.8, 0.8), ylim=(-0.3, 1.5), aspect="equal")
        axes.spines[:].set_visible(False)
        at = i * APART
        if at + 1 < length:
            _draw(axes, seen[first + at], seen[first + at + 1], angle)
            axes.set_title(f"{at * TICK:.2f} s", fontsize=8)
    panels[0].set_ylabel(row["name"], fontsize=9)


def _draw(axes: Axes, now: np.ndarray, after: np.ndarray, angle: int) -> None:
    tip = lambda seen: np.asarray([seen[0] + POLE * np.sin(seen[angle]), TALL / 2 + POLE * np.cos(seen[angle])])
    middle = now[0]
    axes.axhline(-TALL / 2, color=GREY, lw=0.8)
    # The picture goes with the cart.
    axes.add_patch(Rectangle((-CART / 2, -TALL / 2), CART, TALL, color=COLOURS[0]))
    here, there = tip(now) - [middle, 0], tip(after) - [middle, 0]
    axes.plot([0, here[0]], [TALL / 2, here[1]], color=COLOURS[1], lw=3, solid_capstyle="round")
    speed = (there - here) / TICK
    look: Any = {"arrowstyle": "->", "color": COLOURS[2], "lw": 1.5}
    axes.annotate("", here + 0.5 * speed, here, arrowprops=look)
