"""The page of a run in an environment: returns over time, lengths, and a strip of frames."""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from onward.adapters.gymnasium.spaces import name_of
from onward.adapters.gymnasium.worlds import World
from onward.lab.folder import RunFolder, read_config
from onward.lab.page import COLOURS, GREY, Picture, Table, heat, style, write_page

# Frames of the strip, moves of its episode at most, pixels of a frame at most, and points of the curve.
FRAMES, MOVES, PIXELS, WINDOWS = 8, 1000, 160, 40


def write_report(
    folder: RunFolder,
    world: World,
    trained: Any,
    play: Callable[[int, Callable[[], None]], None],
    say: Callable[[str], None],
) -> None:
    """report.html in the folder. `play(moves, show)` plays an episode for the strip."""
    name = name_of(world.env)
    parts: list[Picture | Table | str | list[str]] = []
    with style():
        if len(trained.returns):
            parts.append(_returns(trained, name))
            parts.append(_table(trained))
        if strip := _frames(world, play, say):
            parts.append(_strip(strip, name))
    settings = json.dumps(read_config(folder.path)["fields"], indent=2)
    write_page(folder.path, title=name, lead=trained.summary, parts=parts, settings=settings)
    plt.close("all")


def _windows(trained: Any) -> list[slice]:
    """Episodes in order, in at most so many parts of equal length."""
    count = len(trained.returns)
    edges = np.unique(np.linspace(0, count, min(WINDOWS, count) + 1).astype(int))
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _returns(trained: Any, name: str) -> Picture:
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    parts = _windows(trained)
    mean = [trained.returns[part].mean() for part in parts]
    at = [trained.ends[part].mean() for part in parts]
    axes.plot(trained.ends, trained.returns, ".", color=GREY, alpha=0.35, markersize=3, label="an episode")
    axes.plot(at, mean, color=COLOURS[0], linewidth=2, label="mean")
    axes.set(xlabel="step", ylabel="return", title="Return of each episode, at the step of its end")
    axes.legend()
    each = len(trained.returns) / len(parts)
    return Picture("returns", figure, f"Returns in {name}; the line is the mean of {each:.3g} episodes each.")


def _table(trained: Any) -> Table:
    count = len(trained.returns)
    rows = []
    for label, part in (
        ("first tenth", slice(0, -(-count // 10))),
        ("last tenth", slice(count - -(-count // 10), None)),
    ):
        returns, lengths = trained.returns[part], trained.lengths[part]
        numbers = (returns.mean(), returns.min(), returns.max(), lengths.mean())
        rows.append([label, str(len(returns)), *(f"{value:.4g}" for value in numbers)])
    header = ["", "episodes", "mean return", "least", "most", "mean moves"]
    return Table(header, rows, "Episodes at the start and at the end.")


def _frames(
    world: World, play: Callable[[int, Callable[[], None]], None], say: Callable[[str], None]
) -> list[np.ndarray]:
    """Frames of one episode, about evenly apart; none where the environment does not render."""
    if getattr(world.env, "render_mode", None) != "rgb_array":
        return []
    frames: list[np.ndarray] = []
    seen, apart = 0, 1

    def show() -> None:
        nonlocal seen, apart
        if seen % apart == 0:
            frame = world.env.render()
            frames.append(_small(np.asarray(frame if world.streams is None else frame[0])))
            if len(frames) == 2 * FRAMES:
                del frames[1::2]
                apart *= 2
        seen += 1

    try:
        play(MOVES, show)
    except Exception as error:  # whatever is wrong with pictures, all that was learned is there
        say(f"no strip of frames: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return []
    places = np.unique(np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).astype(int))
    return [frames[i] for i in places]


def _small(frame: np.ndarray) -> np.ndarray:
    every = max(1, -(-max(frame.shape[:2]) // PIXELS))
    return frame[::every, ::every]


def _strip(frames: Sequence[np.ndarray], name: str) -> Picture:
    figure: Figure = plt.figure(figsize=(1.5 * len(frames), 1.4), layout="constrained")
    for i, (axes, frame) in enumerate(zip(figure.subplots(1, len(frames), squeeze=False)[0], frames, strict=True)):
        heat(axes, frame)
        axes.set_axis_off()
        axes.set_title(str(i + 1), fontsize=8)
    return Picture("frames", figure, f"One more episode in {name} after learning, from left to right.")
