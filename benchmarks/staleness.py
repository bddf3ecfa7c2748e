"""How stale traces are while a network learns, and what the diagonal correction makes of it.

    python benchmarks/staleness.py [--steps 30000] [--seeds 3] [--only TEXT]

Columns and a dense layer learn online; ten times in a run the influence that was carried along is compared with a replay
of the last `WINDOW` observations by the weights of then (`onward.staleness`). Each line: a stream, a rule, a step size;
the median over seeds after a tenth, half and all of the run; of the arrays at the end; and what was learned.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import onward as ow
from onward.lab import metrics

WINDOW = 1000
POINTS = 10


def patterning(gates: ow.AbstractGates) -> Callable[[Any], ow.Model]:
    moments = ow.Moments(prior=1)

    def model(key: Any) -> ow.Model:
        cell = ow.Columns(gates, 12, 12, key=key, spread=0.3, normalise_inputs=moments, normalise_features=moments)
        return ow.Model(ow.chrono(cell, 30, key=jax.random.fold_in(key, 1)), ow.Linear(cell.feature_count))

    return model


def copying(key: Any) -> ow.Model:
    task = ow.Copy(2, 8, 2)
    return ow.Model(ow.Dense(ow.GRUGates(1.0), task.inputs, 12, key=key), ow.Categorical(12, 2))


# Name, task, model, objective, decay of RMSProp, rules, step sizes.
STREAMS: list[tuple[Any, ...]] = [
    (
        f"trace patterning, 12 {name} columns",
        ow.TracePatterning(),
        patterning(gates),
        ow.TDLambda(0.9, 0.9),
        0.9999,
        (ow.Columnwise(), ow.Columnwise(diagonal_correction=True)),
        (1e-3, 1e-4),
    )
    for name, gates in (("minimal GRU", ow.MinGRUGates()), ("GRU", ow.GRUGates()), ("LSTM", ow.LSTMGates()), ("RTU", ow.RTUGates()))
] + [
    (
        "copy, dense layer of 12 GRU units",
        ow.Copy(2, 8, 2),
        copying,
        ow.Supervised(),
        0.999,
        (ow.RTRL(), ow.RTRL(diagonal_correction=True)),
        (1e-2, 1e-3),
    )
]  # fmt: skip


def follow(learner: ow.Online, task: Any, model: Any, steps: int, seed: int) -> tuple[list[ow.Staleness], list[float]]:
    """Staleness and mean loss at `POINTS` instants of one run."""
    key = jax.random.key(seed)
    stream, first = task.emit(task.init(jax.random.fold_in(key, 1)))
    state = learner.init(model(jax.random.fold_in(key, 2)), first, key=key)
    window = min(WINDOW, steps // POINTS)
    found, losses = [], []
    for _ in range(POINTS):
        state, stream, loss = go(learner, task, state, stream, steps // POINTS - window)
        before = state
        state, stream, examples = watch(learner, task, state, stream, window)
        found.append(ow.staleness(learner, before, state, examples))
        state, _ = jax.jit(learner.learn)(state, jax.tree.map(lambda a: a[-1], examples))
        losses.append(float(loss))
    return found, losses


def go(learner: ow.Online, task: Any, state: Any, stream: Any, steps: int) -> tuple[Any, Any, Any]:
    def step(loop: Any, _: None) -> Any:
        state, stream = loop
        stream, example = task.emit(stream)
        state, info = learner.step(state, example)
        measure = metrics.return_error if isinstance(learner.objective, ow.TDLambda) else metrics.stream_loss
        return (state, stream), measure(example, info)

    run = cached(("go", steps), lambda state, stream: jax.lax.scan(step, (state, stream), None, steps))
    (state, stream), (told, weight) = run(state, stream)
    return state, stream, jnp.sum(told) / jnp.sum(weight)


def watch(learner: ow.Online, task: Any, state: Any, stream: Any, window: int) -> tuple[Any, Any, Any]:
    """So many steps more, of the last one the reading only; and what was read."""

    def all_of(state: Any, stream: Any) -> Any:
        stream, examples = jax.lax.scan(lambda s, _: task.emit(s), stream, None, window)
        most = jax.tree.map(lambda a: a[:-1], examples)
        state, _ = jax.lax.scan(learner.step, state, most)
        last = jax.tree.map(lambda a: a[-1], examples)
        return learner.read(state, last.x, last.reset)[0], stream, examples

    return cached(("watch", window), all_of)(state, stream)


PROGRAMS: dict[Any, Any] = {}


def cached(name: Any, function: Callable[..., Any]) -> Any:
    return PROGRAMS.setdefault(name, jax.jit(function))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="streams whose name holds this")
    given = parser.parse_args()
    print(f"{given.steps:,} steps, {given.seeds} seeds; medians\n")
    print("| stream | rule | step size | a tenth | half | end | of arrays at the end | error |")
    print("|---|---|---|---|---|---|---|---|")
    for name, task, model, objective, decay, rules, sizes in STREAMS:
        if given.only not in name:
            continue
        for size in sizes:
            for rule in rules:
                learner = ow.Online(rule, objective, ow.rms(decay), size)
                PROGRAMS.clear()
                runs = [follow(learner, task, model, given.steps, seed) for seed in range(given.seeds)]
                whole = np.median([[float(s.whole) for s in found] for found, _ in runs], 0)
                leaves = [[float(a) for a in jax.tree.leaves(found[-1].leaves)] for found, _ in runs]
                shape = runs[0][0][-1].leaves
                names = [n for n in ("weight", "recurrent", "bias") if getattr(shape, n) is not None]
                arrays = ", ".join(f"{n} {v:.3f}" for n, v in zip(names, np.median(leaves, 0), strict=True))
                error = np.mean([losses[-1] for _, losses in runs])
                kind = "corrected" if rule.diagonal_correction else "as it is"
                print(
                    f"| {name} | {kind} | {size:g} | {whole[0]:.4f} | {whole[POINTS // 2 - 1]:.4f} | {whole[-1]:.4f} | "
                    f"{arrays} | {error:.5f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
