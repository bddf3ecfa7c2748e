"""Speed of the credit rules: one stream, learning at every step, steps per CPU second on one core.

    python benchmarks/rules.py [--json] [--only NAME]

Each group is timed in one process of its own, pinned to one core, by process CPU time, the rows of a group interleaved and
the best of several rounds taken; ratios are between rows of the same group. braintrace joins where it is installed.
"""

import argparse
import json
import os
import subprocess
import sys
import time

GROUPS = ("rtrl-32", "rtrl-64", "rtrl-128", "cheap", "stream")


def pin() -> None:
    """One core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def looped(learner, model, inputs):
    """A compiled loop of `steps` learning steps over random inputs, and its start state."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from jax import lax

    import onward as ow
    from onward._random import uniform
    from onward.run import CPU_OPTIONS

    seed = jnp.asarray([1, 2], jnp.uint32)

    def example(t):
        x = uniform(seed, t, jnp.arange(inputs, dtype=jnp.uint32)) - 0.5
        return ow.Step(x, x[0] * 0.5, jnp.ones(()), jnp.asarray(False), x[0])

    state = learner.init(model, example(jnp.asarray(0)), key=jax.random.key(0))
    dynamic, static = eqx.partition(state, eqx.is_array)

    def loop(dynamic, steps):
        def body(t, dynamic):
            after, _ = learner.step(eqx.combine(dynamic, static), example(t))
            return eqx.filter(after, eqx.is_array)

        return lax.fori_loop(0, steps, body, dynamic)

    run = jax.jit(loop).lower(dynamic, jnp.asarray(1)).compile(compiler_options=CPU_OPTIONS)

    def advance(steps):
        jax.block_until_ready(run(dynamic, jnp.asarray(steps)))

    return advance


def opaque(cell):
    """The same cell without its structure: rules then take the naive path through full Jacobians."""
    import onward as ow

    class Opaque(ow.Stack):  # a Stack of one, which RTRL takes for any cell
        pass

    return ow.Stack(cell)


def contestants(group):
    """Name -> function of a number of steps; and multiply-adds a step of the main matrix product where there is one."""
    import jax

    import onward as ow

    key = jax.random.key(0)
    rows, flops = {}, {}

    def add(name, cell, rule, inputs=8):
        learner = ow.Online(rule, ow.Supervised(), ow.rms(), 1e-5)
        rows[name] = looped(learner, ow.Model(cell, ow.Linear(cell.feature_count)), inputs)

    if group.startswith("rtrl"):
        import jax.numpy as jnp
        from jax import lax

        n = int(group.split("-")[1])
        for kind, make, gates, states in (("GRU", ow.GRU, 3, 1), ("LSTM", ow.LSTM, 4, 2)):
            cell = make(8, n, key=key)
            add(f"RTRL {kind}", cell, ow.RTRL())
            flops[f"RTRL {kind}"] = states * n * n * gates * n * (n + 9)
            if n == 32:
                add(f"naive jacrev RTRL {kind}", ow.Stack(cell), ow.RTRL())
        size = 1024
        a = jnp.ones((size, size)) * 1e-3

        def gemm(a, steps):
            return lax.fori_loop(0, steps, lambda _, b: a @ b, a)

        run = jax.jit(gemm).lower(a, jnp.asarray(1)).compile()
        rows["sgemm"] = lambda steps: jax.block_until_ready(run(a, jnp.asarray(steps)))
        flops["sgemm"] = size**3
    elif group == "cheap":
        for kind, make in (("LSTM", ow.LSTM), ("GRU", ow.GRU)):
            cell = make(8, 32, key=key)
            add(f"SnAp(1) {kind}", cell, ow.SnAp(1))
            add(f"UORO {kind}", cell, ow.UORO())
            add(f"TBPTT(10) {kind}", cell, ow.TBPTT(10))
    return rows, flops


def time_group(group):
    pin()
    from onward.cli import _set_up_jax

    _set_up_jax(columns=False, single=True)
    if group == "stream":
        return time_stream()
    rows, flops = contestants(group)
    best, steps = {}, {}
    for name, advance in rows.items():
        count = 8
        while True:
            started = time.process_time()
            advance(count)
            spent = time.process_time() - started
            if spent > 0.25:
                break
            count *= 2
        steps[name], best[name] = count, spent
    for _ in range(5):
        for name, advance in rows.items():
            started = time.process_time()
            advance(steps[name])
            best[name] = min(best[name], time.process_time() - started)
    rate = {name: steps[name] / best[name] for name in rows}
    return {"rate": rate, "multiply_adds": {k: v * rate[k] for k, v in flops.items()}}


def time_stream():
    """T-BPTT 15:4 as the whole trace-patterning experiment, one stream."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    from onward.experiments.trace_patterning import TracePatterningExperiment
    from onward.run import _Loop

    rates = {}
    for name in ("tbptt-15-4", "snap-1", "uoro", "rtrl"):
        experiment = TracePatterningExperiment(gates="lstm", seeds=1)
        loop = _Loop(experiment.build(name), [(1e-4, 0)])
        loop.start()
        loop.advance(1000)
        best = float("inf")
        for _ in range(5):
            started = time.process_time()
            loop.advance(60_000)
            best = min(best, time.process_time() - started)
        rates[name] = 60_000 / best
    return {"rate": rates, "multiply_adds": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--group", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=GROUPS)
    arguments = parser.parse_args()
    if arguments.group:
        print(json.dumps(time_group(arguments.group)))
        return
    for group in [arguments.only] if arguments.only else GROUPS:
        command = [sys.executable, __file__, "--group", group]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(group, json.dumps(found))


if __name__ == "__main__":
    main()
