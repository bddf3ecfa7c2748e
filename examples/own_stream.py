"""Learn from a CSV file, one row at a time: predict the next value of a series from all columns of now.

    python examples/own_stream.py FILE COLUMN

Each row is predicted before it is learned from. Printed: the mean absolute error over the last 1000 rows,
beside that of repeating the last value. Without arguments it makes a noisy seasonal series, to show that it works.
"""

import csv
import itertools
import math
import random
import sys

import jax
import jax.numpy as jnp
import optax

import onward as ow


def rows_of(arguments: list[str]) -> tuple[list[list[float]], int]:
    """All rows as floats, and the position of the target column."""
    if arguments:
        path, column = arguments
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or ())
            return [[float(row[n]) for n in names] for row in reader], names.index(column)
    rng = random.Random(0)
    return [[math.sin(t / 6) + 0.5 * math.sin(t / 31) + rng.gauss(0, 0.05)] for t in range(8000)], 0


def main() -> None:
    """Predict, score, learn."""
    rows, target = rows_of(sys.argv[1:])
    moments = ow.Moments(rate=0.999, prior=10)
    columns = ow.Columns(
        ow.GRUGates(update_bias=1.0), len(rows[0]), 16, key=jax.random.key(0), spread=0.3, normalise_inputs=moments
    )
    learner = ow.Online(ow.Columnwise(), ow.Supervised(), optax.adam(3e-3))
    example = lambda now, after: ow.Step(
        jnp.asarray(now), jnp.asarray(after), jnp.ones(()), jnp.asarray(False), jnp.asarray(after)
    )
    model = ow.Model(columns, ow.Linear(16))
    state = learner.init(model, example(rows[0], rows[1][target]), key=jax.random.key(1))
    step = jax.jit(learner.step)
    ours = last = 0.0
    for t, (now, after) in enumerate(itertools.pairwise(rows), 1):
        state, info = step(state, example(now, after[target]))
        ours += abs(float(info.prediction) - after[target])
        last += abs(now[target] - after[target])
        if t % 1000 == 0:
            print(f"row {t:6}: mean absolute error {ours / 1000:.4f}, repeating the last value {last / 1000:.4f}")
            ours = last = 0.0


if __name__ == "__main__":
    main()
