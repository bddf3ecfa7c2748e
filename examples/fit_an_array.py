"""Learn from arrays of your own, row by row, with SnAp-1: the next value of a noisy series from this one.

    python examples/fit_an_array.py [ROWS]

Every row is predicted before it is learned from, so the errors along the way are an honest test.
"""

import sys

import jax
import numpy as np
import optax

import onward as ow


def series(rows: int) -> np.ndarray:
    """Two seasons and noise."""
    t = np.arange(rows)
    return np.sin(t / 6) + 0.5 * np.sin(t / 31) + 0.05 * np.random.default_rng(0).normal(size=rows)


def main(rows: int = 8000) -> None:
    values = series(rows + 1)
    xs, ys = values[:-1, None], values[1:]  # (time, inputs) and (time,)

    model = ow.Model(ow.GRU(1, 16, key=jax.random.key(0)), ow.Linear(16))
    learner = ow.Online(ow.SnAp(1), ow.Supervised(), optax.adam(3e-3))
    _, info = ow.fit(learner, model, xs, ys, key=jax.random.key(1))

    last = slice(-rows // 4, None)
    ours, naive = abs(info.prediction - ys)[last].mean(), abs(xs[:, 0] - ys)[last].mean()
    print(f"mean absolute error {ours:.3f}, repeating the last value {naive:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
