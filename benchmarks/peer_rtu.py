"""RTU columns beside memorax's: one stream, equal parameters, gradients compared, then time.

    .oracles/bin/python benchmarks/peer_rtu.py CHECKOUT [--runs 1 16 64] [--units 64] [--inputs 7] [--turns 9]

CHECKOUT is a folder of https://github.com/memory-rl/memorax, at 0f33712: no wheel of PyPI has its RTU. Of it only the
cell is loaded, for the package brings Weights & Biases, Neptune and environments along; `make .oracles/.done` installs
what the cell needs. Both carry their traces forward, and sum the gradient of a random linear function of all
features, step after step, in one compiled loop; every run has parameters of its own. First in double precision,
where the sums must agree to 1e-9, then timed in single precision: in turns, pinned to one core, process CPU time. A
ratio is the median over the turns of the ratio within a turn, with its least and largest.
"""

import argparse
import importlib
import os
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

SEEN = 400
AGREE = 1e-9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--runs", type=int, nargs="+", default=(1, 16, 64))
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--inputs", type=int, default=7)
    parser.add_argument("--turns", type=int, default=9)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import jax

    cell = its_cell(arguments.checkout)
    with jax.enable_x64(True):
        ours, theirs = (loop(1) for loop in loops(cell, arguments.inputs, arguments.units, SEEN))
    apart = difference(ours, theirs)
    print(f"gradients of {SEEN} steps in double precision: {apart:.1e} apart, by the largest of a leaf")
    if not apart < AGREE:
        sys.exit(f"peer_rtu.py: the gradients are not equal to {AGREE}; nothing is timed")
    print(f"{arguments.units} RTU units, {arguments.inputs} inputs, one core, {arguments.turns} turns")
    print("runs   us a run-step, onward   memorax   memorax by onward")
    for runs in arguments.runs:
        ours_, theirs_ = timed(cell, arguments, runs)
        ratios = [b / a for a, b in zip(ours_, theirs_, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{runs:4} {statistics.median(ours_):23.3f} {statistics.median(theirs_):9.3f}   {spread}")


def its_cell(checkout: Path) -> Any:
    """memorax's `RTUCell`, without the rest of its package.

    Errors: an ImportError where that folder does not hold it, or where flax, flashbax or gymnax are missing.
    """
    for part in ("", "networks", "networks.sequence_models", "utils"):
        bare = types.ModuleType(".".join(filter(None, ("memorax", part))))
        bare.__path__ = [str(checkout / "memorax" / part.replace(".", "/"))]
        sys.modules[bare.__name__] = bare
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("memorax.networks.sequence_models.rtu").RTUCell


def loops(its: Any, inputs: int, units: int, steps: int) -> tuple[Callable[[int], Any], Callable[[int], Any]]:
    """Functions of the number of runs that give the summed gradients: a dictionary by memorax's names of them."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import onward as ow

    cell = ow.Columns(ow.RTUGates("relu", "nonlinear"), inputs, units, key=jax.random.key(0), spread=0.5)
    number = jnp.zeros(()).dtype
    cell = jax.tree.map(lambda a: a.astype(number) if jnp.issubdtype(a.dtype, jnp.floating) else a, cell)
    xs = jax.random.normal(jax.random.key(1), (steps, inputs), number)
    cotangents = jax.random.normal(jax.random.key(2), (steps, 2 * units), number)
    rule = ow.Columnwise()

    def ours(scale: Any) -> Any:
        own = jax.tree.map(lambda a: a * scale, cell)

        def step(loop: Any, seen: Any) -> Any:
            carry, traces, total = loop
            x, cotangent = seen
            carry, traces = rule.advance(own, carry, x, traces)
            _, pullback = jax.vjp(lambda hidden: own.features(carry._replace(hidden=hidden)), carry.hidden)
            gradient = rule.pull(own, traces, pullback(cotangent)[0])
            return (carry, traces, jax.tree.map(jnp.add, total, gradient)), None

        zero = jax.tree.map(jnp.zeros_like, eqx.filter(own, own.trainable()))
        (_, _, total), _ = jax.lax.scan(step, (own.init(), rule.init(own, xs[0]), zero), (xs, cotangents))
        return named(total)

    def named(columns: Any) -> dict[str, Any]:
        by_state = {"B_real": columns.weight[:, 0].T, "B_imag": columns.weight[:, 1].T}
        return by_state | {"nu_log": columns.bias[0], "theta_log": columns.bias[1]}

    module = its(features=inputs, hidden_dim=units)

    def theirs(scale: Any) -> Any:
        own = jax.tree.map(lambda a: a * scale, named(cell))

        def step(carry: Any, seen: Any) -> Any:
            state, traces, total = carry
            x, cotangent = seen
            state, _, traces = module.apply({"params": own}, state, x[None], traces, method="local_jacobian")
            by_state = cotangent.reshape(2, units)
            gradient = {name: jnp.einsum("sh,sh...->h...", by_state, trace[0]) for name, trace in traces.items()}
            return (state, traces, jax.tree.map(jnp.add, total, gradient)), None

        state = jnp.zeros((1, 2 * units), number)
        traces = jax.tree.map(lambda a: jnp.zeros((1, 2, *a.shape), number), own)
        with jax.numpy_rank_promotion("allow"):
            (_, _, total), _ = jax.lax.scan(step, (state, traces, jax.tree.map(jnp.zeros_like, own)), (xs, cotangents))
        return total

    def many(one: Callable[[Any], Any]) -> Callable[[int], Any]:
        program = jax.jit(jax.vmap(one))
        return lambda runs: jax.block_until_ready(program(jnp.linspace(1, 0.9, runs, dtype=number)))

    return many(ours), many(theirs)


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """The largest difference within a leaf by the largest number of that leaf, of the worst leaf."""
    import numpy as np

    pairs = [(np.asarray(ours[name]), np.asarray(theirs[name])) for name in ("nu_log", "theta_log", "B_real", "B_imag")]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def timed(its: Any, arguments: argparse.Namespace, runs: int) -> tuple[list[float], list[float]]:
    """Microseconds of CPU a run-step, turn by turn, of ours and of theirs."""
    steps = max(SEEN, 400_000 // runs)
    both = loops(its, arguments.inputs, arguments.units, steps)
    for loop in both:
        loop(runs)
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(arguments.turns):
        for loop, times in zip(both, spent, strict=True):
            started = time.process_time()
            loop(runs)
            times.append((time.process_time() - started) / steps / runs * 1e6)
    return spent


if __name__ == "__main__":
    main()
