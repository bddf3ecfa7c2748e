"""A loss of your own, written once, learned online and in batches: the 90 % quantile of what comes next.

    python examples/own_loss.py [ROWS]

The pinball loss weighs what lies above the prediction nine times as much as what lies below it. A quantile is right
where a tenth of the values lie above it.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import onward as ow


def pinball(head: ow.Linear, prediction: jax.Array, y: jax.Array) -> jax.Array:
    """0.9 (y - q) above the quantile q, 0.1 (q - y) below it."""
    return jnp.maximum(0.9 * (y - prediction), 0.1 * (prediction - y))


def main(rows: int = 6000) -> None:
    noise = np.random.default_rng(0).normal(size=rows)
    ys = np.sin(np.arange(rows) / 5) + 0.3 * noise
    xs = np.concatenate([[0], ys[:-1]])[:, None]
    model = ow.Model(ow.GRU(1, 8, key=jax.random.key(0)), ow.Linear(8))

    online = ow.Online(ow.SnAp(1), ow.Supervised(pinball), optax.adam(3e-3))
    _, info = ow.fit(online, model, xs, ys, key=jax.random.key(1))
    late = slice(-rows // 3, None)
    print(f"online: {np.mean(ys[late] > info.prediction[late]):.1%} lie above the quantile")

    cut = lambda a: np.swapaxes(a[: rows // 50 * 50].reshape(rows // 50, 50, *a.shape[1:]), 0, 1)  # 50 rows a sequence
    batches = ow.BPTT(optax.adam(1e-2), objective=ow.Supervised(pinball))
    _, info = ow.fit(batches, model, cut(xs), cut(ys), key=jax.random.key(1), passes=200)
    print(f"batches: {np.mean(cut(ys) > info.prediction):.1%} lie above the quantile")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
