"""Seeds and step sizes side by side in one compiled loop, and a plot of what they learn.

    python examples/seeds_side_by_side.py [STEPS] [PICTURE]

The stream is a^n b^n: so many a's, then as many b's. A column that counts knows when the b's end.
"""

import sys

import jax
import matplotlib.pyplot as plt
import numpy as np

import onward as ow


def model(key: jax.Array) -> ow.Model:
    """Eight columns, drawn by the seed of a run, and the chances of the next symbol."""
    return ow.Model(ow.Columns(ow.GRUGates(), 3, 8, key=key, spread=0.3), ow.Categorical(8, 3))


def main(steps: int = 30_000, picture: str = "seeds.png") -> None:
    learner = ow.Online(ow.Columnwise(), ow.Supervised(), ow.rms(0.999))
    measure = lambda example, info: (info.loss, example.weight)
    seeds, step_sizes = range(8), (1e-3, 1e-2)
    loop = ow.Loop(ow.AnBn(), model, learner, measure, seeds=seeds, step_sizes=step_sizes)
    loop.start()
    curves = []
    for _ in range(30):
        loop.advance(steps // 30)
        loss, _ = loop.means()  # of each run, since the last call
        curves.append(loss.reshape(len(step_sizes), len(seeds)))

    at = steps // 30 * np.arange(1, 31)
    for size, losses, colour in zip(step_sizes, np.moveaxis(curves, 1, 0), ("tab:blue", "tab:orange"), strict=True):
        plt.plot(at, losses, color=colour, alpha=0.3)
        plt.plot(at, losses.mean(1), color=colour, label=f"step size {size:g}")
        print(f"step size {size:g}: loss {losses[-1].mean():.3f}, over seeds +- {losses[-1].std():.3f}")
    plt.xlabel("steps")
    plt.ylabel("loss (nats)")
    plt.legend()
    plt.savefig(picture)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
