"""How wrong is a cheap gradient? Two rules beside backpropagation through time, on one network and one stream.

    python examples/compare_rules.py [STEPS]

RTRL is exact and costs n^4 a step for n units; SnAp-1 keeps of its influence matrix what arises within one step, and
costs about as much as the forward pass.
"""

import sys

import equinox as eqx
import jax
import numpy as np

import onward as ow


def main(length: int = 20) -> None:
    rng = np.random.default_rng(0)
    steps = ow.Step(rng.normal(size=(length, 3)), rng.normal(size=length))
    # Heads begin with weights of zero, which blame nobody for anything.
    head = eqx.tree_at(lambda head: head.weight, ow.Linear(6), jax.random.normal(jax.random.key(1), (6,)))
    model = ow.Model(ow.GRU(3, 6, key=jax.random.key(0)), head)

    exact = ow.verify.gradient(model, ow.TBPTT(length), ow.Supervised(), steps)
    for rule in (ow.RTRL(), ow.SnAp(1)):
        seen = ow.verify.compare(ow.verify.gradient(model, rule, ow.Supervised(), steps), exact)
        print(f"{type(rule).__name__:5} relative error {seen.relative_error:.1e}, cosine {seen.cosine:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
