"""What a credit rule costs: memory, work and time of one learning step."""

import time
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array

import onward as ow
from onward.trees import parameter_count
from onward.types import PyTree
from onward.verify.claims import name_of
from onward.verify.matrix import GATES


@dataclass(frozen=True)
class Cost:
    """What a rule takes on a cell: floats of its state, multiply-adds and microseconds of one learning step."""

    rule: str
    cell: str
    parameters: int
    floats: int
    multiply_adds: int
    microseconds: float


def measured(units: int = 32, inputs: int = 8) -> list[Cost]:
    """Memory, work and time of each rule on a dense GRU and LSTM, and of columns with as many parameters or fewer."""
    spent = []
    for label in ("GRU", "LSTM"):
        gates = GATES[label]()
        key = jax.random.key(0)
        dense = ow.Dense(gates, inputs, units, key=key)
        columns = ow.Columns(gates, inputs, 4 * units, key=key)
        for rule in (ow.Columnwise(), ow.SnAp(1), ow.RFLO(), ow.UORO(), ow.TBPTT(1), ow.TBPTT(10), ow.RTRL()):
            cell: ow.AbstractCell = columns if isinstance(rule, ow.Columnwise) else dense
            name = f"{label}, {4 * units} columns" if isinstance(rule, ow.Columnwise) else f"{label}, {units} units"
            spent.append(cost_of(rule, cell, name))
    return spent


def cost_of(rule: ow.AbstractCredit, cell: ow.AbstractCell, name: str) -> Cost:
    """Compile one learning step and time it for about a second; `name` says what the cell is."""
    learner = ow.Online(rule, ow.Supervised(), optax.sgd(1.0), 1e-6)
    zero = jnp.zeros(())
    example = lambda t: ow.Step(jnp.full(cell.inputs, 0.5) + 0.1 * t, zero, zero + 1, jnp.asarray(False), zero)
    state = learner.init(ow.Model(cell, ow.Linear(cell.feature_count)), example(zero), key=jax.random.key(0))
    dynamic, static = eqx.partition(state, eqx.is_array)

    def step(dynamic: PyTree, t: Array) -> PyTree:
        return eqx.filter(learner.step(eqx.combine(dynamic, static), example(t))[0], eqx.is_array)

    @jax.jit
    def loop(dynamic: PyTree, steps: Array) -> PyTree:
        return lax.fori_loop(0, steps, lambda t, d: step(d, jnp.sin(0.1 * t)), dynamic)

    analysis = jax.jit(step).lower(dynamic, zero).compile().cost_analysis()
    flops = float((analysis or {}).get("flops", 0))
    count, best = 16, float("inf")
    jax.block_until_ready(loop(dynamic, jnp.asarray(2)))
    for _ in range(12):
        started = time.process_time()
        jax.block_until_ready(loop(dynamic, jnp.asarray(count)))
        spent = time.process_time() - started
        best = min(best, spent / count)
        count = count if spent > 0.05 else 2 * count
    return Cost(name_of(rule), name, parameter_count(cell), state_floats(rule, cell), round(flops / 2), 1e6 * best)


def state_floats(rule: ow.AbstractCredit, cell: ow.AbstractCell) -> int:
    """Floats that a rule keeps for a cell, from the sizes of its arrays."""
    x, key = jax.ShapeDtypeStruct((cell.inputs,), jnp.float32), jax.random.key(0)
    state = jax.eval_shape(lambda x: rule.init(cell, x, key=key), x)
    return sum(leaf.size for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact))
