"""What the pictures of a run of `onward learn` share."""

from typing import Any

from matplotlib.figure import Figure

# Windows of a curve: more are averaged together.
WINDOWS = 400


def short(name: str, most: int = 24) -> str:
    """A name that fits into a picture."""
    return name if len(name) <= most else name[: most - 3] + "..."


def of_target(targets: list[str], i: int) -> str:
    """The name of a target where there are several."""
    return f" of {targets[i]}" if len(targets) > 1 else ""


def panels_of(count: int) -> tuple[Figure, Any]:
    """A figure of so many panels, one below the other, over the same rows."""
    figure = Figure(figsize=(8.2, 3.6 if count == 1 else 0.9 + 2.1 * count), layout="constrained")
    axes = figure.subplots(count, sharex=True, squeeze=False)[:, 0]
    axes[-1].set_xlabel("row")
    return figure, axes
