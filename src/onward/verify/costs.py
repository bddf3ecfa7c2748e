"""What a credit rule costs: memory, work and time of one learning step."""

import math
import time
from dataclasses import dataclass
from typing import Any

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

# Anything else moves numbers about, or has no floating result.
ARITHMETIC = {
    *("add", "sub", "mul", "div", "max", "min", "neg", "abs", "sign", "square", "integer_pow", "pow"),
    *("exp", "exp2", "expm1", "log", "log1p", "tanh", "logistic", "sqrt", "rsqrt"),
}
REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "cumsum", "add_any"}


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

    work = multiply_adds(jax.make_jaxpr(step)(dynamic, zero).jaxpr)
    count, best = 16, float("inf")
    jax.block_until_ready(loop(dynamic, jnp.asarray(2)))
    for _ in range(12):
        started = time.process_time()
        jax.block_until_ready(loop(dynamic, jnp.asarray(count)))
        spent = time.process_time() - started
        best = min(best, spent / count)
        count = count if spent > 0.05 else 2 * count
    return Cost(name_of(rule), name, parameter_count(cell), state_floats(rule, cell), round(work), 1e6 * best)


def state_floats(rule: ow.AbstractCredit, cell: ow.AbstractCell) -> int:
    """Floats that a rule keeps for a cell, from the sizes of its arrays."""
    x, key = jax.ShapeDtypeStruct((cell.inputs,), jnp.float32), jax.random.key(0)
    state = jax.eval_shape(lambda x: rule.init(cell, x, key=key), x)
    return sum(leaf.size for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact))


def inner_programs(equation: Any) -> list[Any]:
    """Programs that an equation calls."""
    found = []
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            item = getattr(item, "jaxpr", item)
            if hasattr(item, "eqns"):
                found.append(item)
    return found


def multiply_adds(program: Any) -> float:
    """Of a traced program: products as they are, other arithmetic as half a multiply-add each.

    The body of a loop counts as often as it runs (XLA's own count takes it once), of two branches the dearer.
    """
    total = 0.0
    for equation in program.eqns:
        name = equation.primitive.name
        out: Any = equation.outvars[0].aval if equation.outvars else None
        inner = [multiply_adds(p) for p in inner_programs(equation)]
        if name == "scan":
            total += equation.params["length"] * sum(inner)
        elif name == "cond":
            total += max(inner)
        elif inner:
            total += sum(inner)
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += out.size * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
        elif name in ARITHMETIC | REDUCTIONS and is_float(out):
            total += (equation.invars[0].aval.size if name in REDUCTIONS else out.size) / 2
        elif name == "scatter-add" and is_float(out):
            total += equation.invars[2].aval.size / 2
    return total


def is_float(aval: Any) -> bool:
    """Whether a value is a floating array."""
    return hasattr(aval, "dtype") and jnp.issubdtype(aval.dtype, jnp.inexact)
