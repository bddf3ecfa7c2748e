"""A recurrent cell of your own: checked against BPTT, and trained by three rules.

    python examples/own_cell.py [STEPS]

`Leaky` is a continuous-time network whose units learn how fast they forget. Nothing in Onward knows it: rules that take
any cell (RTRL, UORO, TBPTT) differentiate its `__call__`. (A cell that is affine, then elementwise needs only a few lines of
gates instead, and gets the fast kernels of every rule: docs/developer/adding.md.)
"""

import sys

import jax
import jax.numpy as jnp

import onward as ow
from onward.verify import verify


class Leaky(ow.AbstractCell):
    rate: jax.Array  # of each unit
    read: jax.Array
    loop: jax.Array
    inputs = property(lambda self: self.read.shape[1])
    feature_count = property(lambda self: self.read.shape[0])

    def init(self):
        return ow.Carry(jnp.zeros_like(self.rate), ())

    def __call__(self, carry, x, *, key=None):
        h, leak = carry.hidden, jax.nn.sigmoid(self.rate)
        return ow.Carry((1 - leak) * h + leak * jnp.tanh(self.read @ x + self.loop @ h), ())

    def features(self, carry, *, key=None):
        return carry.hidden


def make(inputs, units, key):
    a, b = jax.random.split(key)
    draw = lambda key, width: jax.random.normal(key, (units, width)) / width**0.5
    return Leaky(jnp.zeros(units), draw(a, inputs), draw(b, units))


def train(rule, steps):
    """Predict the input of two steps ago, from one endless stream of coin flips; the mean squared error of the last tenth."""
    learner = ow.Online(rule, ow.Supervised(), ow.rms(0.999), step_size=3e-3)
    coin = lambda t: jnp.sign(jax.random.uniform(jax.random.fold_in(jax.random.key(1), t), (1,)) - 0.5)

    def example(t):
        return ow.Step(coin(t), coin(t - 2)[0], jnp.ones(()), jnp.asarray(False), coin(t - 2)[0])

    def step(state, t):
        state, info = learner.step(state, example(t))
        return state, (info.prediction - coin(t - 2)[0]) ** 2

    model = ow.Model(make(1, 12, jax.random.key(0)), ow.Linear(12))
    state = learner.init(model, example(2), key=jax.random.key(2))
    errors = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(2, steps)))(state)[1]
    return float(errors[-steps // 10 :].mean())


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 30_000
    for rule in (ow.RTRL(), ow.TBPTT(5), ow.UORO()):
        row = verify(make(3, 4, jax.random.key(0)), rule, steps=10)
        print(
            f"{row.rule:9} {row.found:8} {'as it claims' if row.ok else 'NOT what it claims':18} relative error "
            f"{row.relative_error:.1e}   error after learning {train(rule, steps):.3f} (knowing nothing: 1)"
        )
