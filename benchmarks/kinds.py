"""Columns of every kind at equal numbers of parameters, and how near they are to the rate of memory.

    python benchmarks/kinds.py [--runs 64] [--parameters 392] [--turns 9] [--commands]

64 runs of trace patterning side by side, TD(lambda), `rms` and `Columnwise`, all kinds in one process and in turns, pinned
to one core, process CPU time. A ratio is the median over the turns of the ratio within a turn, with its least and largest.
`weights only` is a bound that no kind can pass: eligibility, RMSProp and update of as many weights, without stream,
preactivation and traces. `to memory` is the time of a step by that in which all its floats (weights, second moments,
eligibility, traces) are read and written once, x <- 0.999 x, in the same turns.
`--commands`: with the option of XLA that commands of columns set.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable

KINDS = ("LSTM", "GRU", "MinGRU", "ELSTM", "RTU", "LRU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--parameters", type=int, default=392)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--commands", action="store_true")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if arguments.commands:
        from onward.devices import set_up_jax

        set_up_jax(columns=True, single=False)
    rows = timed(arguments)
    first = next(iter(rows))
    print(f"thousand run-steps per CPU second, one core, {arguments.runs} runs; spread over {arguments.turns} turns")
    print(f"{'':12} parameters  rate  by {first}: ratio          to memory")
    for name, (count, steps, streams) in rows.items():
        rate = statistics.median(arguments.runs / s / 1e3 for s in steps)
        ratio = [a / b for a, b in zip(rows[first][1], steps, strict=True)]
        memory = statistics.median(a / b for a, b in zip(steps, streams, strict=True))
        spread = f"{statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})"
        print(f"{name:12} {count:10} {rate:5.0f}  {spread:>23} {memory:12.1f}")


def timed(arguments: argparse.Namespace) -> dict[str, tuple[int, list[float], list[float]]]:
    """By name: parameters of the cell, seconds of a step and of a pass over as much memory, turn by turn."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import onward as ow
    from onward.trees import parameter_count

    task = ow.TracePatterning()

    def columns(kind: str) -> tuple[int, Callable[[int], None], int]:
        gates = getattr(ow, f"{kind}Gates")()
        key = jax.random.key(0)
        each = parameter_count(ow.Columns(gates, task.inputs, 1, key=key))
        count = max(1, round(arguments.parameters / each))

        def model(key: jax.Array) -> ow.Model:
            cell = ow.Columns(gates, task.inputs, count, key=key)
            return ow.Model(cell, ow.Linear(cell.feature_count))

        return each * count, *running(model, ow.Columnwise())

    def running(model: Callable[[jax.Array], ow.Model], rule: ow.Columnwise) -> tuple[Callable[[int], None], int]:
        learner = ow.Online(rule, ow.TDLambda(), ow.rms())
        measure = lambda example, info: (info.loss, example.weight)
        loop = ow.Loop(task, model, learner, measure, seeds=range(arguments.runs), step_sizes=(1e-4,))
        loop.start()
        loop.advance(50)
        state = loop.state[1]
        moving = eqx.filter((state.model, state.credit, state.objective, state.optimiser), eqx.is_inexact_array)
        return loop.advance, sum(leaf.size for leaf in jax.tree.leaves(moving))

    found = {kind: columns(kind) for kind in arguments.kinds}
    weights = arguments.parameters

    def weights_only() -> tuple[int, Callable[[int], None], int]:
        """TD(lambda) and RMSProp of so many weights; nothing recurrent."""
        shape = (task.inputs, math.ceil(weights / task.inputs), arguments.runs)
        optimiser = ow.rms()
        start = jnp.full(shape, 0.1)

        def step(_: int, all_of: tuple) -> tuple:
            weight, eligible, state, x = all_of
            value = jnp.sum(weight[:, 0] * x, 0)
            delta = 0.1 + 0.9 * value - x[0]
            moved, state = optimiser.update(-delta * eligible, state)
            eligible = 0.891 * eligible + x[:, None]
            return weight + 1e-4 * moved, eligible, state, 1 - x

        program = jax.jit(lambda n, s: jax.lax.fori_loop(0, n, step, s))
        begin = (start, start, optimiser.init(start), jnp.full((task.inputs, arguments.runs), 0.3))
        program = program.lower(1, begin).compile()
        return math.prod(shape[:2]), lambda n: jax.block_until_ready(program(jnp.asarray(n), begin)), 3 * start.size

    found["weights only"] = weights_only()

    def stream(size: int) -> Callable[[int], None]:
        begin = jnp.ones(size)
        program = jax.jit(lambda n, a: jax.lax.fori_loop(0, n, lambda _, a: 0.999 * a, a)).lower(1, begin).compile()
        return lambda n: jax.block_until_ready(program(jnp.asarray(n), begin))

    streams = {name: stream(size) for name, (_, _, size) in found.items()}

    def seconds(function: Callable[[int], None], steps: int) -> float:
        started = time.process_time()
        function(steps)
        return (time.process_time() - started) / steps

    def long_enough(function: Callable[[int], None]) -> int:
        steps = 100
        while seconds(function, steps) * steps < 0.1:
            steps *= 2
        return steps

    lengths = {name: (long_enough(found[name][1]), long_enough(streams[name])) for name in found}
    rows: dict[str, tuple[int, list[float], list[float]]] = {name: (found[name][0], [], []) for name in found}
    for _ in range(arguments.turns):
        for name, (long, short) in lengths.items():
            rows[name][1].append(seconds(found[name][1], long))
            rows[name][2].append(seconds(streams[name], short))
    return rows


if __name__ == "__main__":
    main()
