"""Stop in the middle, save everything, load it, and go on as if nothing had happened: to the last bit.

    python examples/save_and_go_on.py [FILE]

A state holds all that the next step needs: network, traces, optimiser, random keys. It is saved by the names of its
arrays, and a file that does not fit is refused by name.
"""

import sys
from pathlib import Path

import jax
import numpy as np
import optax

import onward as ow


def main(file: str = "state.npz") -> None:
    xs = np.random.default_rng(0).normal(size=(600, 2))
    ys = np.roll(xs[:, 0], 3)  # the first input of three rows ago
    model = ow.Model(ow.LSTM(2, 8, key=jax.random.key(0)), ow.Linear(8))
    learner = ow.Online(ow.UORO(), ow.Supervised(), optax.adam(3e-3))
    key = jax.random.key(1)

    whole, _ = ow.fit(learner, model, xs, ys, key=key)

    half, _ = ow.fit(learner, model, xs[:300], ys[:300], key=key)
    ow.save(file, half, rows=300)
    print(f"saved {Path(file).stat().st_size} bytes after 300 rows")

    # In another process, later: a state of the same parts says what the file must hold.
    like = learner.init(model, ow.Step(xs[0], ys[0]), key=key)
    state, meta = ow.load(file, like)
    state, _ = ow.fit(learner, model, xs[meta["rows"] :], ys[meta["rows"] :], key=key, state=state)

    same = jax.tree.map(np.array_equal, jax.tree.leaves(state.model.cell), jax.tree.leaves(whole.model.cell))
    print(f"gone on from the file, the network is the same to the bit: {all(same)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
