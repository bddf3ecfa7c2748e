"""Speed of the credit rules: one stream, learning at every step, steps per CPU second on one core.

    python benchmarks/rules.py [--json] [--only GROUP]

Each group is timed in one process, pinned to one core, by process CPU time; its rows are interleaved and the best of
several rounds is taken. Ratios are between rows of the same group. "Of sgemm": multiply-adds of the influence update
(states n^2 P) a second, as a share of a 1024 x 1024 single-precision matrix product's. Where braintrace is installed
(dependency group `oracles`), its SnAp(1) joins, in the same process and without the XLA option that Onward's command line
sets for a single stream.
"""

import argparse
import json
import os
import subprocess
import sys
import time

# name, (row, ratio to or share of, at least) to check
GROUPS = {
    "rtrl-32": [
        ("RTRL GRU", "naive jacrev GRU", 2.0),
        ("RTRL LSTM", "naive jacrev LSTM", 2.5),
    ],
    "rtrl-64": [("RTRL GRU", "sgemm", 0.55), ("RTRL LSTM", "sgemm", 0.55)],
    "rtrl-128": [("RTRL GRU", "sgemm", 0.55), ("RTRL LSTM", "sgemm", 0.55)],
    "cheap-32": [("SnAp(1) LSTM", 60e3, 1.0), ("UORO LSTM", 60e3, 1.0)],
    "sparse-64": [("SnAp(1) sparse", "RTRL sparse", 1.0), ("SnAp(4) sparse", "RTRL sparse", 1.0)],
    "stream": [("T-BPTT 15:4", 80e3, 1.0)],
    "braintrace": [("SnAp(1) GRU", "braintrace SnAp(1) GRU", 1.0), ("SnAp(1) LSTM", "braintrace SnAp(1) LSTM", 1.0)],
}
INPUTS = 8


def pin() -> None:
    """One core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def looped(cell, rule):
    """A function that learns for so many steps from random inputs, in one compiled loop."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from jax import lax

    import onward as ow
    from onward.loop import CPU_OPTIONS
    from onward.random import uniform

    seed = jnp.asarray([1, 2], jnp.uint32)
    learner = ow.Online(rule, ow.Supervised(), ow.rms(), 1e-5)

    def example(t):
        x = uniform(seed, t, jnp.arange(INPUTS, dtype=jnp.uint32)) - 0.5
        return ow.Step(x, x[0] * 0.5, jnp.ones(()), jnp.asarray(False), x[0])

    model = ow.Model(cell, ow.Linear(cell.feature_count))
    state = learner.init(model, example(jnp.asarray(0)), key=jax.random.key(0))
    dynamic, static = eqx.partition(state, eqx.is_array)
    dynamic = jax.tree.map(jnp.copy, dynamic)  # each its own buffer, for they are donated, as in a run

    def loop(dynamic, steps):
        def body(t, dynamic):
            after, _ = learner.step(eqx.combine(dynamic, static), example(t))
            return eqx.filter(after, eqx.is_array)

        return lax.fori_loop(0, steps, body, dynamic)

    run = jax.jit(loop, donate_argnums=0).lower(dynamic, jnp.asarray(1)).compile(compiler_options=CPU_OPTIONS)

    def advance(steps):
        nonlocal dynamic
        dynamic = jax.block_until_ready(run(dynamic, jnp.asarray(steps)))

    return advance


def gemm(size=1024):
    import jax
    import jax.numpy as jnp
    from jax import lax

    a = jnp.full((size, size), 1e-3)
    run = jax.jit(lambda a, steps: lax.fori_loop(0, steps, lambda _, b: a @ b, a))
    return lambda steps: jax.block_until_ready(run(a, jnp.asarray(steps)))


def experiment(method):
    """A whole trace-patterning experiment on one stream."""
    from onward.lab.papers.trace_patterning import TracePatterningExperiment

    loop = TracePatterningExperiment(gates="lstm", seeds=1).build(method).loop([(1e-4, 0)])
    loop.start()
    return loop.advance


def foreign(kind, units=32):
    """braintrace's SnAp(1) on the same kind of layer, learning by SGD at every step."""
    import brainstate
    import braintrace
    import jax
    import jax.numpy as jnp

    gates = {"GRU": 3, "LSTM": 4}[kind]
    sigmoid, tanh = jax.nn.sigmoid, jnp.tanh

    class Layer(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            key = jax.random.key(0)
            draw = lambda i, *shape: jax.random.uniform(jax.random.fold_in(key, i), shape, minval=-0.17, maxval=0.17)
            for g in range(gates):
                setattr(
                    self, f"w{g}", brainstate.ParamState({"weight": draw(g, INPUTS, units), "bias": draw(9 + g, units)})
                )
                setattr(self, f"u{g}", brainstate.ParamState(draw(20 + g, units, units)))

        def init_state(self, *_, **__):
            self.c = brainstate.HiddenState(jnp.zeros(units)) if kind == "LSTM" else None
            self.h = brainstate.HiddenState(jnp.zeros(units))

        def update(self, x):
            h, w = self.h.value, [getattr(self, f"w{g}").value for g in range(gates)]
            a = [braintrace.matmul(x, p["weight"], p["bias"]) for p in w]
            r = [braintrace.matmul(h, getattr(self, f"u{g}").value) for g in range(gates)]
            if kind == "GRU":
                z, q = sigmoid(a[0] + r[0]), sigmoid(a[1] + r[1])
                self.h.value = (1 - z) * tanh(a[2] + q * r[2]) + z * h
            else:
                i, f, o = (sigmoid(a[k] + r[k]) for k in range(3))
                self.c.value = f * self.c.value + i * tanh(a[3] + r[3])
                self.h.value = o * tanh(self.c.value)
            return self.h.value

    learner = braintrace.compile(Layer(), braintrace.SnAp, jnp.zeros(INPUTS), n=1)
    states = learner.param_states

    def step(x):
        gradient = brainstate.transform.grad(lambda: jnp.mean((learner(x) - 0.5 * x[0]) ** 2), states)()
        for name in states:
            states[name].value = jax.tree.map(lambda a, b: a - 1e-5 * b, states[name].value, gradient[name])
        return 0.0

    loop = brainstate.transform.jit(lambda xs: brainstate.transform.for_loop(step, xs)[-1])
    data = {}

    def advance(steps):
        if steps not in data:
            data[steps] = jax.random.uniform(jax.random.key(1), (steps, INPUTS), minval=-0.5, maxval=0.5)
        jax.block_until_ready(loop(data[steps]))

    return advance


def contestants(group):
    """Name -> function of a number of steps, and multiply-adds a step where they are counted."""
    import jax
    import numpy as np

    import onward as ow

    key = jax.random.key(0)
    kind, _, size = group.partition("-")
    rows, work = {}, {}
    cells = {"GRU": lambda n: ow.GRU(INPUTS, n, key=key), "LSTM": lambda n: ow.LSTM(INPUTS, n, key=key)}
    if kind == "rtrl":
        n = int(size)
        for name, make in cells.items():
            cell = make(n)
            rows[f"RTRL {name}"] = looped(cell, ow.RTRL())
            work[f"RTRL {name}"] = cell.gates.states * n * n * sum(p.size for p in cell.parameters)
            if n == 32:  # a stack of one: RTRL then knows no structure, and takes full Jacobians
                rows[f"naive jacrev {name}"] = looped(ow.Stack(cell), ow.RTRL())
        rows["sgemm"], work["sgemm"] = gemm(), 1024**3
    elif kind == "cheap":
        for name, make in cells.items():
            for rule, label in (
                (ow.SnAp(1), "SnAp(1)"),
                (ow.RFLO(), "RFLO"),
                (ow.UORO(), "UORO"),
                (ow.TBPTT(10), "TBPTT(10)"),
            ):
                rows[f"{label} {name}"] = looped(make(int(size)), rule)
    elif kind == "sparse":  # GRU units on a ring, each reading itself and its two neighbours, beside full layers
        n = int(size)
        distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        ring = ow.GRU(INPUTS, n, key=key, mask=np.minimum(distance, n - distance) < 2)
        for rule, label in (
            (ow.SnAp(1), "SnAp(1)"),
            (ow.SnAp(2), "SnAp(2)"),
            (ow.SnAp(4), "SnAp(4)"),
            (ow.RTRL(), "RTRL"),
        ):
            rows[f"{label} sparse"] = looped(ring, rule)
        for rule, label in ((ow.SnAp(1), "SnAp(1)"), (ow.RTRL(), "RTRL")):
            rows[f"{label} full"] = looped(cells["GRU"](n), rule)
    elif kind == "braintrace":
        for name, make in cells.items():
            rows[f"SnAp(1) {name}"] = looped(make(32), ow.SnAp(1))
            rows[f"braintrace SnAp(1) {name}"] = foreign(name)
    else:
        names = {"T-BPTT 15:4": "tbptt-15-4", "SnAp(1)": "snap-1", "UORO": "uoro", "RTRL": "rtrl"}
        rows = {label: experiment(method) for label, method in names.items()}
    return rows, work


def time_group(group):
    """Steps per CPU second of every row, and of the counted ones multiply-adds a second."""
    pin()
    from onward.devices import set_up_jax

    set_up_jax(columns=False, single=group != "braintrace")
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    rows, work = contestants(group)
    steps, best = {}, {}
    for name, advance in rows.items():
        count = 8
        while True:
            advance(count)
            started = time.process_time()
            advance(count)
            best[name], steps[name] = time.process_time() - started, count
            if best[name] > 0.25:
                break
            count *= 2
    for _ in range(5):
        for name, advance in rows.items():
            started = time.process_time()
            advance(steps[name])
            best[name] = min(best[name], time.process_time() - started)
    rate = {name: steps[name] / best[name] for name in rows}
    return {"rate": rate, "multiply_adds": {k: w * rate[k] for k, w in work.items()}}


def installed(group):
    from importlib.util import find_spec

    return group != "braintrace" or find_spec("braintrace") is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--group", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=list(GROUPS))
    arguments = parser.parse_args()
    if arguments.group:
        print(json.dumps(time_group(arguments.group)))
        return
    found = {}
    for group in [arguments.only] if arguments.only else GROUPS:
        if not installed(group):
            print("braintrace is not installed: left out")
            continue
        command = [sys.executable, __file__, "--group", group]
        done = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[group] = json.loads(done.splitlines()[-1])
        if not arguments.json:
            show(group, found[group])
    if arguments.json:
        print(json.dumps(found, indent=1))


def show(group, timed):
    print(f"\n{group}: thousand steps per CPU second")
    checks = {row: (to, least) for row, to, least in GROUPS[group]}
    for name, rate in timed["rate"].items():
        line = f"  {name:26} {rate / 1e3:9.2f}"
        share = timed["multiply_adds"]
        if name in share and name != "sgemm":
            line += f"   {share[name] / share['sgemm']:.2f} of sgemm"
        if name in checks:
            to, least = checks[name]
            if to == "sgemm":
                ratio, what = share[name] / share["sgemm"], "of sgemm"
            elif isinstance(to, str):
                ratio, what = rate / timed["rate"][to], f"times {to}"
                line += f"   {ratio:.1f} {what}"
            else:
                ratio, what = rate / to, f"times {to / 1e3:.0f} k"
                line += f"   {ratio:.1f} {what}"
            line += f"   (at least {least:g})  {'ok' if ratio >= least else 'BELOW'}"
        print(line)


if __name__ == "__main__":
    main()
