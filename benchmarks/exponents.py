"""How time and memory grow: exponents of every rule in n, T, M, k and seeds, fitted and compared with the theory.

    python benchmarks/exponents.py [--only NAME ...] [--quick] [--json] [--markdown] [--figure PATH]

Each variable is doubled over a range, all else fixed. Three things are measured at every size:

    work     multiply-adds of a learning step, counted in the traced program: products as they are, other arithmetic
             as half a multiply-add each, the body of a loop as often as it runs (XLA's own count takes it once)
    floats   of the rule's state, from the shapes of its arrays; of a batch learner, what its loops keep of every
             step of the sequence; against T of an online rule, the learner's whole state and all that its loop stacks
    time     process CPU time of the compiled program, on one core, the best of several rounds, in which the sizes
             take turns

An exponent is the slope of a straight line through the logarithms: over the whole range, over its upper end (the last
three sizes), and at the top (the last two). The theory is a formula with its lower terms, and its exponent is that of
its values at the same sizes, so that a range which is not yet large does not count against a rule. "ok": at the upper
end, work and floats within 0.1 of the formula, floats of the rules in the theory's table also within a tenth of their
number, time within 0.3. Against seeds time may grow more slowly, for they share what a step costs at least.

Rows named "pass" are no rules. They read and write as many floats as a rule keeps, with hardly any arithmetic, and show
what the machine's memory does to time: it has no verdict.

`--only`: variables (n, T, M, k, seeds) or rules. `--quick`: the three smallest sizes, once.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

INPUTS = 8
COUNT_WITHIN, LEVEL_WITHIN, TIME_WITHIN = 0.1, 0.1, 0.3
UPPER = 3
ROUNDS, ROUND_SECONDS = 4, 0.03


@dataclass(frozen=True)
class At:
    """What a rule is measured at: all that the theory speaks of."""

    n: int = 32
    T: int = 16
    M: int = 1
    k: int = 10
    seeds: int = 1
    batch: int = 16
    m: int = INPUTS
    frozen: int = 16

    @property
    def dense(self) -> int:
        """P of a full LSTM."""
        return 4 * self.n * (self.n + self.m + 1)

    @property
    def rows(self) -> int:
        """Trajectories of a batch."""
        return self.batch * self.M


@dataclass(frozen=True)
class Rule:
    """A rule with its theory: floats and multiply-adds of a step (`tabled`: known with their constants)."""

    name: str
    floats: Callable[[At], float]
    work: Callable[[At], float]
    # Exponents in the limit: variable -> (time, memory).
    limits: dict[str, tuple[int, int]]
    online: bool = True
    # Not a rule: a pass over as many floats as a rule keeps, which shows what memory does to time.
    control: bool = False

    @property
    def tabled(self) -> bool:
        """Batch learners have no row in the table: their constants are free."""
        return self.online and not self.control


def _online(name: str, floats: Any, work: Any, time: int, memory: int, **more: tuple[int, int]) -> Rule:
    return Rule(name, floats, work, {"n": (time, memory), "T": (1, 0), "seeds": (1, 1), **more})


def _batch(name: str, work: Any, **more: tuple[int, int]) -> Rule:
    limits = {"n": (2, 1), "T": (1, 1), "seeds": (1, 1), **more}
    return Rule(name, lambda s: s.T * s.rows * s.n, work, limits, online=False)


def _pass(name: str, floats: Any, exponent: int) -> Rule:
    return Rule(name, floats, floats, {"n": (exponent, exponent)}, control=True)


# A unit on a ring reads itself and its two neighbours: m + 4 parameters a gate. SnAp(2) keeps 3 pairs a unit, and
# each takes in 3 pairs through recurrent weights beside its own state.
_ring = lambda s: 3 * s.n * 4 * (s.m + 4)
_column = lambda s, m: 4 * (m + 2)
_elman = lambda s: s.n * (s.n + s.m + 1)

RULES = {
    rule.name: rule
    for rule in (
        _online("RTRL", lambda s: 2 * s.n * s.dense, lambda s: 16 * s.n**3 * (s.n + s.m + 1), 4, 3),
        _online("SnAp(2) full", lambda s: 2 * s.n * s.dense, lambda s: 16 * s.n**3 * (s.n + s.m + 1), 4, 3),
        _online("SnAp(2) sparse", lambda s: 2 * _ring(s), lambda s: (5 + 3) * _ring(s), 1, 1),
        _online("SnAp(1)", lambda s: 2 * s.dense, lambda s: 5 * s.dense, 2, 2),
        _online("RFLO", lambda s: 2 * s.dense, lambda s: 4 * s.dense, 2, 2),
        _online("UORO", lambda s: s.dense + 2 * s.n, lambda s: 3 * s.dense, 2, 2),
        _online(
            "TBPTT(k)",
            lambda s: s.k * (s.m + 6 * s.n),
            lambda s: s.dense + s.k * (s.dense + 4 * s.n**2),
            2,
            1,
            k=(1, 1),
        ),
        _online("Columnwise", lambda s: 8 * s.n * (s.m + 2), lambda s: 5 * s.n * _column(s, s.m), 1, 1),
        _online(
            "Columnwise, live stage",
            lambda s: 8 * s.n * (s.m + s.frozen + 2),
            lambda s: s.frozen * _column(s, s.m) + 5 * s.n * _column(s, s.m + s.frozen),
            1,
            1,
        ),
        # Forward, and twice as much back; TPTT the same, and its inverse forward, back and in the shifts.
        _batch("BPTT", lambda s: s.T * s.rows * (2 * s.dense + 4 * s.n**2)),
        _batch("TPTT", lambda s: s.T * s.rows * (4 * s.dense + 16 * s.n**2)),
        _batch("STPTT", lambda s: s.T * s.rows * 7 * _elman(s), M=(1, 1)),
        _batch("STE-BPTT", lambda s: 3 * s.T * s.rows * _elman(s), M=(1, 1)),
        # As many floats as RTRL keeps, as weights and traces of a full layer, and as those of columns.
        _pass("pass, n^3", lambda s: 2 * s.n * s.dense, 3),
        _pass("pass, n^2", lambda s: 3 * s.dense, 2),
        _pass("pass, n", lambda s: 3 * s.n * _column(s, s.m), 1),
    )
}
TITLES = {
    "n": "n, units of a layer (columns of a stage), 8 inputs; per learning step, of batch learners per batch of T = 16",
    "T": "T, steps of a stream (online rules) or of a sequence (batch learners), 32 units (RTRL 16); all T together",
    "M": "M, trajectories of a stochastic network, 64 units, 4 sequences of T = 16; per batch",
    "k": "k, the window of TBPTT, 32 units; per learning step",
    "seeds": "seeds, independent runs side by side, 16 units (RTRL 8, batch learners 32); per step of all of them",
}
DOUBLED = lambda low, high: [2**i for i in range(int(math.log2(low)), int(math.log2(high)) + 1)]


def plan(variable: str) -> dict[str, tuple[At, list[int]]]:
    """Rule -> what is fixed, and the sizes of the variable."""
    found: dict[str, tuple[At, list[int]]] = {}
    for name, rule in RULES.items():
        if variable not in rule.limits:
            continue
        stochastic, cubic = "M" in rule.limits, rule.limits["n"][1] == 3
        at = At() if rule.online else At(batch=4, M=4) if stochastic else At(batch=16)
        linear = rule.limits["n"][0] == 1
        if variable == "n":
            ends = (16, 128) if cubic else (64, 4096) if linear else (32, 512) if rule.online else (64, 512)
            sizes = DOUBLED(*((128, 1024) if stochastic else ends))
        elif variable == "T":
            sizes = DOUBLED(64, 4096) if rule.online else [16, 64, 256]
            at = replace(at, n=16) if cubic else at
        elif variable == "seeds":
            sizes = [1, 4, 16, 64] if rule.online else [1, 4, 16]
            at = replace(at, n=8 if cubic else 16 if rule.online else 32)
        elif variable == "k":
            sizes = DOUBLED(2, 128)
        else:
            sizes = DOUBLED(8, 64)
            at = replace(at, n=64)
        found[name] = at, sizes
    return found


# ---- what is measured -------------------------------------------------------------------------------------------


def parts(name: str, s: At):
    """Learner, `model()` and `example(t)` of a rule at a size."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import onward as ow
    from onward.random import uniform

    key, seed = jax.random.key(0), np.asarray([1, 2], np.uint32)
    if RULES[name].online:
        rule = {
            "RTRL": ow.RTRL(),
            "SnAp(2) full": ow.SnAp(2),
            "SnAp(2) sparse": ow.SnAp(2),
            "SnAp(1)": ow.SnAp(1),
            "RFLO": ow.RFLO(),
            "UORO": ow.UORO(),
            "TBPTT(k)": ow.TBPTT(s.k),
        }.get(name, ow.Columnwise())

        def model():
            columns = lambda m, n: ow.Columns(ow.LSTMGates(), m, n, key=key)
            if name == "Columnwise":
                cell = columns(s.m, s.n)
            elif name == "Columnwise, live stage":
                cell = ow.Cascade(columns(s.m + s.frozen, s.n), (columns(s.m, s.frozen),))
            else:
                distance = np.abs(np.subtract.outer(np.arange(s.n), np.arange(s.n)))
                ring = np.minimum(distance, s.n - distance) < 2
                cell = ow.LSTM(s.m, s.n, key=key, mask=ring if name == "SnAp(2) sparse" else None)
            return ow.Model(cell, ow.Linear(cell.feature_count))

        def example(t):
            x = uniform(seed, t, jnp.arange(s.m, dtype=jnp.uint32)) - 0.5
            return ow.Step(x, x[0] * 0.5, jnp.ones(()), jnp.asarray(False), x[0])

        return ow.Online(rule, ow.Supervised(), optax.sgd(1.0), 1e-5), model, example

    def model():
        if "M" not in RULES[name].limits:
            return ow.Model(ow.LSTM(s.m, s.n, key=key), ow.Categorical(s.n, 2))
        cell = ow.Hybrid(ow.Elman(s.m, s.n, key=key, activation="sigmoid"))
        return ow.Model(cell, ow.MonteCarlo(ow.Categorical(s.n, 2), samples=s.M))

    inverse = ow.AffineInverse("sigmoid") if name == "STPTT" else ow.FeedbackInverse(0.1)
    local = name in ("TPTT", "STPTT")
    learner = ow.TPTT(inverse, optax.sgd(1.0), step_size=1e-5) if local else ow.BPTT(optax.sgd(1.0), 1e-5)

    def example(t):
        x = uniform(seed, t, jnp.arange(s.T * s.batch * s.m, dtype=jnp.uint32)).reshape(s.T, s.batch, s.m) - 0.5
        return ow.Sequence(x, (x[-1:, :, 0] > 0).astype(jnp.int32), jnp.ones((1, s.batch)))

    return learner, model, example


def steps_of(name: str, s: At):
    """`start(key)`, the learner's state (of `seeds` runs, batched as `onward run` does), and one learning step of it."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from onward.loop import suitable_axis

    if RULES[name].control:
        sizes = [math.ceil(RULES[name].floats(s) / 3)] * 3
        start = lambda: (jnp.ones(()), *(jnp.ones(size) for size in sizes))
        # Two traces that decay, and weights that follow: what every step does to memory, with hardly any arithmetic.
        ahead = lambda c, a, b, w: (c, c * a + w, c * b + a, w + 1e-9 * b)
        return start, lambda state, t: ahead(*state)
    learner, model, example = parts(name, s)
    one = lambda key: learner.init(model(), example(jnp.asarray(0)), key=key)
    if s.seeds == 1:
        start = lambda: one(jax.random.key(1))
        return start, lambda state, t: learner.step(state, example(t))[0]
    axis = suitable_axis(eqx.filter_eval_shape(model), learner)
    start = lambda: eqx.filter_vmap(one, out_axes=eqx.if_array(axis))(jax.random.split(jax.random.key(1), s.seeds))

    def step(state, t):
        # Every run reads a stream of its own.
        ts = t + 1000 * jnp.arange(s.seeds)
        each = lambda state, t: learner.step(state, example(t))[0]
        return eqx.filter_vmap(each, in_axes=(eqx.if_array(axis), 0), out_axes=eqx.if_array(axis))(state, ts)

    return start, step


def floats_in(tree: Any) -> int:
    """Floating numbers in the arrays, or in their shapes."""
    import jax
    import jax.numpy as jnp

    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return sum(leaf.size for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact))


def stacked(program: Any) -> int:
    """Floats that the largest loop of a program reads or leaves step by step: what grows with its length."""
    from onward.verify.costs import inner_programs, is_float

    most = 0
    for equation in program.eqns:
        inner = max(map(stacked, inner_programs(equation)), default=0)
        own = 0
        if equation.primitive.name == "scan":
            fixed = equation.params["num_consts"] + equation.params["num_carry"]
            along = [*equation.invars[fixed:], *equation.outvars[equation.params["num_carry"] :]]
            own = sum(v.aval.size for v in along if is_float(v.aval))
        most = max(most, own, inner)
    return most


def traced(name: str, variable: str, s: At):
    """The learner's state in shapes, and the program that is counted: one step, or a stream of T steps."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from jax import lax

    start, step = steps_of(name, s)
    state = eqx.filter_eval_shape(start)
    dynamic, static = eqx.partition(state, lambda a: isinstance(a, jax.ShapeDtypeStruct))
    after = lambda dynamic, t: eqx.filter(step(eqx.combine(dynamic, static), t), eqx.is_array)
    if variable == "T" and RULES[name].online:
        stream = lambda dynamic: lax.fori_loop(0, s.T, lambda t, d: after(d, t), dynamic)
        return state, jax.make_jaxpr(stream)(dynamic).jaxpr
    return state, jax.make_jaxpr(after)(dynamic, jax.ShapeDtypeStruct((), jnp.int32)).jaxpr


def shapes_of(name: str, variable: str, s: At) -> dict[str, float]:
    """Work and floats at a size, from a trace; nothing is computed."""
    from onward.verify.costs import multiply_adds

    state, program = traced(name, variable, s)
    if RULES[name].control:
        floats = floats_in(state)
    elif not RULES[name].online:
        floats = stacked(program)
    elif variable == "T":
        floats = floats_in(state) + stacked(program)
    else:
        floats = floats_in(state.credit)
    return {"work": multiply_adds(program), "floats": floats}


def theory_of(name: str, variable: str, s: At) -> dict[str, float]:
    """The formulas at a size."""
    rule = RULES[name]
    steps = s.T if variable == "T" and rule.online else 1
    floats = 1.0 if variable == "T" and rule.online else s.seeds * rule.floats(s)
    return {"work": s.seeds * steps * rule.work(s), "floats": floats}


def runner(name: str, s: At):
    """A compiled loop: a function that learns for so many steps and says the seconds; its scratch space; its count."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from jax import lax

    from onward.loop import CPU_OPTIONS

    start, step = steps_of(name, s)
    quickly = {"xla_backend_optimization_level": 0}
    dynamic, static = eqx.partition(eqx.filter_jit(start, compiler_options=quickly)(), eqx.is_array)

    def loop(dynamic, steps):
        body = lambda t, d: eqx.filter(step(eqx.combine(d, static), t), eqx.is_array)
        return lax.fori_loop(0, steps, body, dynamic)

    compiled = jax.jit(loop, donate_argnums=0).lower(dynamic, jnp.asarray(1)).compile(compiler_options=CPU_OPTIONS)
    held = [dynamic]

    def seconds(steps: int) -> float:
        count = jnp.asarray(steps)
        started = time.process_time()
        held[0] = jax.block_until_ready(compiled(held[0], count))
        return time.process_time() - started

    flops = (compiled.cost_analysis() or {}).get("flops", 0.0)
    return seconds, compiled.memory_analysis().temp_size_in_bytes / 4, flops / 2


def measure(name: str, variable: str, *, quick: bool = False, timed: bool = True) -> dict[str, Any]:
    """All sizes of a rule."""
    at, sizes = plan(variable)[name]
    sizes = sizes[:UPPER] if quick else sizes
    where = [replace(at, **{variable: size}) for size in sizes]
    found: dict[str, Any] = {"rule": name, "variable": variable, "sizes": sizes, "at": asdict(at)}
    for kind, of in (("theory", theory_of), ("", shapes_of)):
        each = [of(name, variable, s) for s in where]
        for what in ("work", "floats"):
            found[f"{kind} {what}".strip()] = [e[what] for e in each]
    if timed:
        found |= timing(name, variable, where, quick=quick)
    return found


def timing(name: str, variable: str, where: list[At], *, quick: bool) -> dict[str, list[float]]:
    """Seconds at every size; floats of scratch space, and multiply-adds as XLA counts them."""
    if variable == "T" and RULES[name].online:  # one program, for longer and longer
        rows, per = [runner(name, where[0])] * len(where), [s.T for s in where]
    else:
        rows, per = [runner(name, s) for s in where], [1] * len(where)
    counts = []
    for (seconds, _, _), steps in zip(rows, per, strict=True):
        count = 1
        seconds(steps)
        while not quick and (spent := seconds(count * steps)) < ROUND_SECONDS:
            count = max(count + 1, min(8 * count, math.ceil(1.2 * count * ROUND_SECONDS / max(spent, 1e-5))))
        counts.append(count)
    one = lambda row, steps, count: row[0](count * steps) / count
    rounds = [[one(*job) for job in zip(rows, per, counts, strict=True)] for _ in range(1 if quick else ROUNDS)]
    return {
        "time": [min(times) for times in zip(*rounds, strict=True)],
        "spread": [statistics.median(t) / min(t) - 1 for t in zip(*rounds, strict=True)],
        "scratch": [row[1] for row in rows],
        "xla work": [row[2] for row in rows],
    }


# ---- exponents and verdicts -------------------------------------------------------------------------------------


def exponents(sizes: list[int], values: list[float]) -> tuple[float, float, float]:
    """Over the whole range, at its upper end, and between the last two sizes."""
    logs = [(math.log(a), math.log(b)) for a, b in zip(sizes, values, strict=True)]
    slope = lambda some: statistics.linear_regression(*zip(*some, strict=True)).slope
    return slope(logs), slope(logs[-UPPER:]), slope(logs[-2:])


def judge(found: dict[str, Any]) -> dict[str, Any]:
    """Exponents of what was measured and of the theory, and what is off."""
    rule, variable, sizes = RULES[found["rule"]], found["variable"], found["sizes"]
    upper = lambda what: exponents(sizes, found[what])[1]
    off = {what: upper(what) - upper(f"theory {what}") for what in ("work", "floats")}
    verdicts = {what: abs(d) <= COUNT_WITHIN for what, d in off.items()}
    level = {what: found[what][-1] / found[f"theory {what}"][-1] for what in off}
    if rule.tabled and variable != "T":
        verdicts["floats"] &= abs(level["floats"] - 1) <= LEVEL_WITHIN
    if "time" in found and not rule.control:
        off["time"] = upper("time") - upper("theory work")
        verdicts["time"] = off["time"] <= TIME_WITHIN and (variable == "seeds" or off["time"] >= -TIME_WITHIN)
    kinds = ("theory work", "theory floats", "work", "floats", "time", "scratch")
    fitted = {what: exponents(sizes, found[what]) for what in kinds if what in found and all(found[what])}
    return {"exponents": fitted, "level": level, "ok": verdicts, "limits": rule.limits[variable]}


def _verdict(ok: bool | None) -> str:
    return "" if ok is None else "ok" if ok else "OFF"


def microseconds(row: dict[str, Any]) -> str:
    """At every size."""
    return " ".join(f"{1e6 * t:,.{max(0, 1 - math.floor(math.log10(1e6 * t)))}f}" for t in row["time"])


def as_lines(variable: str, rows: list[dict[str, Any]]) -> list[str]:
    """A table in text."""
    lines = [
        f"\n{variable}: {TITLES[variable]}",
        f"  {'':22} {'':9} |  multiply-adds         |  floats                |  time, against the multiply-adds' theory",
        f"  {'rule':22} {'range':>9} | limit theory found      | limit theory found      | whole upper   top       microseconds",
    ]
    for row in rows:
        e, ok = row["judged"]["exponents"], row["judged"]["ok"]
        limits = row["judged"]["limits"]
        cell = lambda what, limit: (
            f"| {limit:5} {e[f'theory {what}'][1]:6.2f} {e[what][1]:5.2f}  {_verdict(ok[what]):3} "  # noqa: B023
        )
        line = f"  {row['rule']:22} {row['sizes'][0]:>4}-{row['sizes'][-1]:<4} {cell('work', limits[0])}{cell('floats', limits[1])}"
        if "time" in e:
            line += (
                "| " + " ".join(f"{x:5.2f}" for x in e["time"]) + f"  {_verdict(ok.get('time')):3}  {microseconds(row)}"
            )
        lines.append(line)
    return lines


def as_markdown(rows: list[dict[str, Any]]) -> list[str]:
    """The same as one table of a page."""
    lines = [
        "| variable | rule | range | time: limit | theory, this range | multiply-adds | CPU time | at the top | memory: limit | theory | floats | counted / formula |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        e, ok, limits = row["judged"]["exponents"], row["judged"]["ok"], row["judged"]["limits"]
        mark = lambda what: f"{e[what][1]:.2f}{'' if ok.get(what, True) else ' **OFF**'}"  # noqa: B023
        timed = [mark("time"), f"{e['time'][2]:.2f}"] if "time" in e else ["-", "-"]
        cells = [
            row["variable"],
            row["rule"],
            f"{row['sizes'][0]}-{row['sizes'][-1]}",
            f"{'at most ' if row['variable'] == 'seeds' else ''}{limits[0]}",
            f"{e['theory work'][1]:.2f}",
            mark("work"),
            *timed,
            str(limits[1]),
            f"{e['theory floats'][1]:.2f}",
            mark("floats"),
            f"{row['judged']['level']['work']:.2f}" if RULES[row["rule"]].tabled else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    timed = [row for row in rows if "time" in row]
    lines += ["", "| variable | rule | microseconds of CPU time at each size |", "|---|---|---|"] if timed else []
    return lines + [f"| {row['variable']} | {row['rule']} | {microseconds(row)} |" for row in timed]


# ---- the figure -------------------------------------------------------------------------------------------------

# Colour of each rule in its panel (of Okabe and Ito), and whether its marks are hollow. SnAp(2) of a full layer is RTRL.
ONLINE = {
    "RTRL": ("#000000", False),
    "SnAp(1)": ("#0072B2", False),
    "RFLO": ("#56B4E9", False),
    "UORO": ("#D55E00", False),
    "TBPTT(k)": ("#CC79A7", False),
    "SnAp(2) sparse": ("#E69F00", False),
    "Columnwise": ("#009E73", False),
    "Columnwise, live stage": ("#009E73", True),
}
BATCH = {
    "BPTT": ("#000000", False),
    "TPTT": ("#0072B2", False),
    "STPTT": ("#D55E00", False),
    "STE-BPTT": ("#009E73", False),
}
# Title, variable, rules, axis, unit of time.
PANELS = [
    ("n: units, online", "n", ONLINE, "units or columns n", "step"),
    ("n: units, batch", "n", BATCH, "units n", "batch"),
    ("T: a stream, online", "T", ONLINE, "steps T of the stream", "stream"),
    ("T: a sequence, batch", "T", BATCH, "steps T of a sequence", "batch"),
    ("k: window of TBPTT", "k", ONLINE, "window k", "step"),
    ("M: trajectories", "M", BATCH, "trajectories M of a sequence", "batch"),
    ("Seeds, online", "seeds", ONLINE, "runs side by side", "step"),
    ("Seeds, batch", "seeds", BATCH, "runs side by side", "batch"),
]


def draw(rows: list[dict[str, Any]], path: str) -> None:
    """Small multiples: time above, memory below; dashed: the theory, through the last point (runs: the first)."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, NullLocator

    from onward.lab.page import GREY, style

    with style():
        figure = Figure(figsize=(13, 12.4))
        place = {"left": 0.06, "right": 0.985, "hspace": 0.08, "wspace": 0.27}
        halves = [figure.add_gridspec(2, 4, bottom=b, top=b + 0.365, **place) for b in (0.565, 0.115)]
        for i, (title, variable, colours, label, unit) in enumerate(PANELS):
            upper, lower = (figure.add_subplot(halves[i // 4][j, i % 4]) for j in (0, 1))
            ticks: set[int] = set()
            for row in rows:
                if row["variable"] != variable or row["rule"] not in colours:
                    continue
                colour, hollow = colours[row["rule"]]
                sizes = row["sizes"]
                ticks |= set(sizes)
                marks = {"color": colour, "marker": "o" if colours is ONLINE else "s", "ms": 4.5, "lw": 1.5}
                marks |= {"mfc": "white"} if hollow else {}
                for axes, what, theory, scale in (
                    (upper, "time", "theory work", 1e6),
                    (lower, "floats", "theory floats", 1),
                ):
                    if what in row:
                        anchor = 0 if variable == "seeds" else -1
                        formula = [scale * row[what][anchor] / row[theory][anchor] * v for v in row[theory]]
                        axes.plot(sizes, formula, color=colour, ls=(0, (3, 2)), lw=1, alpha=0.6)
                        axes.plot(sizes, [scale * v for v in row[what]], label=row["rule"], **marks)
            shown = sorted(ticks)
            shown = shown if len(shown) <= 6 else shown[:: 2 if len(shown) <= 9 else 3]
            for axes, text in ((upper, f"CPU time of a {unit}, µs"), (lower, "memory, floats")):
                axes.set_xscale("log", base=2)
                axes.set_yscale("log")
                axes.set_xticks(shown, [f"{t:,}" for t in shown])
                axes.xaxis.set_minor_locator(NullLocator())
                low, high = axes.get_ylim()
                wider = max(1.0, (100 * low / high) ** 0.5)
                axes.set_ylim(low / wider, high * wider)
                axes.yaxis.set_minor_formatter(NullFormatter())
                axes.grid(color="#e6e6e6", lw=0.7)
                axes.set_axisbelow(True)
                axes.set_ylabel(text, labelpad=2)
                axes.tick_params(labelsize=9)
            upper.tick_params(labelbottom=False)
            upper.set_title(title, fontweight="bold", pad=6)
            lower.set_xlabel(label)
        for colours, marker, place in ((ONLINE, "o", 0.041), (BATCH, "s", 0.014)):
            handles = [_handle(name, *look, marker) for name, look in colours.items()]
            text = "Online, circles:" if colours is ONLINE else "On batches of sequences, squares:"
            figure.text(0.06, place + 0.006, text, fontsize=10, va="center")
            start = 0.15 if colours is ONLINE else 0.255
            figure.legend(
                handles=handles, ncols=len(handles), loc="center left", bbox_to_anchor=(start, place + 0.006),
                handletextpad=0.4, columnspacing=1.2, fontsize=9.5,
            )  # fmt: skip
        figure.text(0.06, 0.972, "How time and memory grow", fontsize=14, fontweight="bold")
        note = "Solid: measured. Dashed: the theory's formula through the last point (seeds: the first); unseen where it lies under the line."
        figure.text(0.3, 0.973, note, fontsize=10, color=GREY)
        figure.savefig(path, metadata={"Software": None})


def _handle(name: str, colour: str, hollow: bool, marker: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker=marker, ms=5, lw=1.5, mfc="white" if hollow else colour, label=name)


# ---- processes and the command ----------------------------------------------------------------------------------


def set_up(*, single: bool) -> None:
    """One core, and the options of the command line."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from onward.devices import set_up_jax

    set_up_jax(columns=False, single=single)
    import jax

    jax.config.update("jax_enable_compilation_cache", False)


def measure_group(variable: str, names: list[str], *, quick: bool) -> list[dict[str, Any]]:
    """Some rules against a variable, in this process."""
    import jax

    set_up(single=variable != "seeds" and RULES[names[0]].online)
    found = []
    for name in names:
        found.append(measure(name, variable, quick=quick))
        jax.clear_caches()
    return found


def measured(variable: str, names: list[str], *, quick: bool) -> list[dict[str, Any]]:
    """Some rules against a variable: online rules in a process, batch learners in another."""
    found: list[dict[str, Any]] = []
    for online in (True, False):
        mine = [name for name in names if RULES[name].online == online]
        if mine:
            command = [sys.executable, __file__, "--group", variable, *mine, *["--quick"] * quick]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found += json.loads(done.splitlines()[-1])
    return found


def read(paths: list[str]) -> list[dict[str, Any]]:
    """Rows of earlier measurements; where two files have the same, the later file's."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in paths:
        with open(path) as file:
            found |= {(row["variable"], row["rule"]): row for row in json.load(file)}
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*TITLES, *RULES], default=[], metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--figure", metavar="PATH")
    parser.add_argument(
        "--read", nargs="+", metavar="PATH", help="draw and print what --json printed before, the last word on each row"
    )
    parser.add_argument("--group", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.group:
        variable, *names = arguments.group
        print(json.dumps(measure_group(variable, names, quick=arguments.quick)))
        return
    kept = read(arguments.read or [])
    rows: list[dict[str, Any]] = []
    for variable in [v for v in TITLES if v in arguments.only] or list(TITLES):
        wanted = [r for r in plan(variable) if r in arguments.only or not set(arguments.only) & set(RULES)]
        if arguments.read:
            here = [row for row in kept if row["variable"] == variable and row["rule"] in wanted]
        else:
            here = measured(variable, wanted, quick=arguments.quick)
        here = [{**row, "judged": judge(row)} for row in here]
        rows += here
        if here and not (arguments.json or arguments.markdown):
            print("\n".join(as_lines(variable, here)), flush=True)
    if arguments.figure:
        draw(rows, arguments.figure)
    if arguments.json:
        print(json.dumps(rows, indent=1))
    if arguments.markdown:
        print("\n".join(as_markdown(rows)))


if __name__ == "__main__":
    main()
