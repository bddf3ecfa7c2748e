"""One bad reading, and a real shift: what they do to the errors that come after, beside the same streams without.

    python benchmarks/outliers.py [--series N] [--seed S] [--horizon H] [--places ROW ...] [--units N] [--peaks ROWS]

Four kinds of streams with an input each, N of each kind. At a row an outlier, or a lasting shift, of so many usual
deviations of the column's changes from row to row, up or down, is put on the target or on the input. Printed, the median
over streams, signs and places, the largest mean over the streams of one sign and place, and the largest of all: after
an outlier the mean error of the next 100 rows by that of the twin without it; after a shift the mean error of rows 51 to
150 by the twin's. The target of an input's shift stays as it is.

With `--peaks ROWS` instead: series with rare peaks that are real, one row in 200, 20 to 50 usual changes high. `bursts`
last four rows, each half as high as the one before, and nothing tells of them; `announced` last one row, and the input
of the row before is their height. Printed, of each series the mean error by that of the last value.
"""

import argparse
import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from onward.rows.stream import RowRecipe
from onward.rows.stream.programs import as_usual
from onward.rows.stream.step import Stream

SIZES = (10.0, 30.0, 100.0, 1e3, 1e6)
KINDS = ("season", "walk", "driven", "smooth")
CAPACITY = 4


def streams(kind: str, count: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(target, input), each (count, rows)."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    t = np.arange(rows)[None] + rng.integers(0, 50, (count, 1))
    noise, other = rng.normal(size=(2, count, rows))
    wander = np.cumsum(0.3 * rng.normal(size=(count, rows)), 1)
    if kind == "season":  # that of the issue
        return 10 * np.sin(2 * np.pi * t / 50) + noise, other
    if kind == "walk":
        return np.cumsum(noise, 1), wander + 0.1 * other
    if kind == "driven":  # by the input of the row before, and that of the same row where it is known
        past = np.roll(other, 1, 1)
        return 2 * past + 2 * other + 0.3 * noise, other
    return 10 * np.sin(2 * np.pi * t / 30) + 0.1 * noise, np.cos(2 * np.pi * t / 30) + 0.01 * other


@functools.cache
def program(recipe: RowRecipe) -> Callable[..., jax.Array]:
    """What learns each of some series from its start; the answers."""
    stream, plain = Stream(recipe, CAPACITY), jnp.zeros(CAPACITY, bool)

    def learn(rows: tuple[jax.Array, jax.Array]) -> jax.Array:
        dynamic, static = eqx.partition(stream.init(), eqx.is_array)

        def one(dynamic, row):
            after, answer = stream.step(eqx.combine(dynamic, static), row[0], plain, row[1], row[1])
            return eqx.filter(after, eqx.is_array), answer

        return jax.lax.scan(one, dynamic, rows)[1]

    return jax.jit(lambda *rows: jax.lax.map(learn, rows))


def run(recipe: RowRecipe, y: np.ndarray, x: np.ndarray, block: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """What was said before row t of it, as (streams, rows); and the ends of the mixture's parts, if there are any."""
    y, x = np.broadcast_arrays(y, x)
    said = []
    cells = np.full((*y.shape, CAPACITY), np.nan, np.float32)
    cells[..., 0] = x
    if recipe.horizon:
        cells[..., 1] = y
    targets = y.astype(np.float32)[..., None]
    with as_usual():
        for i in range(0, len(y), block):
            said.append(np.asarray(program(recipe)(cells[i : i + block], targets[i : i + block])))
    answers = np.concatenate(said)
    late = recipe.horizon
    before = np.full_like(answers, np.nan)
    before[:, late:] = answers[:, : answers.shape[1] - late]
    return before[..., 0], before[..., 2:-1]


def spoiled(
    y: np.ndarray, x: np.ndarray, where: str, place: int, size: float, last: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same streams with `size` usual changes added to `last` rows."""
    y, x = y.copy(), x.copy()
    part = y if where == "target" else x
    part[:, place : place + last] += size * np.std(np.diff(part), axis=1, keepdims=True)
    return y, x


def peaks(kind: str, count: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(target, input), each (count, rows)."""
    rng = np.random.default_rng([len(kind), seed])
    calm = 10 * np.sin(2 * np.pi * np.arange(rows) / 50) + rng.normal(size=(count, rows))
    high = np.where(rng.random((count, rows)) < 1 / 200, rng.uniform(20, 50, (count, rows)), 0)
    high *= np.abs(np.diff(calm)).mean(1, keepdims=True)
    other = rng.normal(size=(count, rows))
    if kind == "announced":
        return calm + np.roll(high, 1, 1), high + 0.1 * other
    return calm + sum(0.5**i * np.roll(high, i, 1) for i in range(4)), other


def print_peaks(recipe: RowRecipe, count: int, rows: int, seed: int) -> None:
    """A line of each kind."""
    for kind in ("bursts", "announced"):
        y, x = peaks(kind, count, rows, seed)
        ratios = after(run(recipe, y, x)[0], y, 1, rows) / np.abs(np.diff(y)).mean(1)
        mean = np.exp(np.log(ratios).mean())
        print(f"{kind}: geometric mean {mean:.4f}, of each {' '.join(f'{r:.4f}' for r in ratios)}", flush=True)


def after(said: np.ndarray, y: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Mean absolute errors of rows [start, stop)."""
    return np.abs(said[:, start:stop] - y[:, start:stop]).mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--horizon", type=int, default=1)
    parser.add_argument("--units", type=int, default=8)
    parser.add_argument("--places", type=int, nargs="+", default=[100, 257, 600])
    parser.add_argument("--burst", type=int, default=1, help="rows that an outlier lasts")
    parser.add_argument("--peaks", type=int, metavar="ROWS", help="series with real peaks, of so many rows, instead")
    asked = parser.parse_args()
    recipe = RowRecipe(units=asked.units, horizon=asked.horizon, lag=asked.horizon)
    if asked.peaks:
        return print_peaks(recipe, asked.series, asked.peaks, asked.seed)
    rows = max(asked.places) + 150 + asked.horizon + asked.burst
    print(f"| streams | where | what | {' | '.join(f'{s:g}' for s in SIZES)} |\n|---|---|---|{'---|' * len(SIZES)}")
    for kind in KINDS:
        y, x = streams(kind, asked.series, rows, asked.seed)
        clean = run(recipe, y, x)[0]
        for where in ("target", "input"):
            for what in ("outlier", "shift"):
                cells = []
                for size in SIZES:
                    ratios = []
                    changed, spots = [], []
                    for place in asked.places:
                        for sign in (1, -1):
                            last = asked.burst if what == "outlier" else rows
                            changed.append(spoiled(y, x, where, place, sign * size, last))
                            spots.append(place)
                    said = run(recipe, *(np.concatenate(part) for part in zip(*changed, strict=True)))[0]
                    for i, place in enumerate(spots):
                        mine = said[i * len(y) : (i + 1) * len(y)]
                        start, stop = (
                            (place + asked.burst, place + asked.burst + 100)
                            if what == "outlier"
                            else (place + 51, place + 151)
                        )
                        ratios.append(after(mine, changed[i][0], start, stop) / after(clean, y, start, stop))
                    found = np.concatenate(ratios)
                    together = max(each.mean() for each in ratios)
                    cells.append(f"{np.median(found):.3g} ({together:.3g}; {found.max():.3g})")
                print(f"| {kind} | {where} | {what} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
