"""Speed of target propagation through time (`TPTT`), beside BPTT and PyTorch, on one core.

    python benchmarks/targets.py [--json] [--only GROUP]

Milliseconds of process CPU time an iteration. Each group is timed in one process, pinned to one core; its rows are
interleaved and the best of several rounds is taken. "Spread": of the rounds, (median - best) / best. Where PyTorch is
installed (dependency group `oracles`) the same computation in its eager mode joins, written for speed.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec

# row -> (milliseconds at most, or None), (row to compare with, at least so many times faster than it, or None)
GROUPS = {
    "mixture": {"TPTT": (170.0, ("PyTorch", 1.8))},
    "mixture-100": {"TPTT": (None, ("PyTorch", 1.8))},
    "stochastic": {"STPTT": (6.0, None)},
    "gru": {"TPTT": (None, ("BPTT", 1 / 1.5))},
    "length": {},
}
TITLES = {
    "mixture": "mixture density RNN: 50 tanh units, affine inverse, T = 30, full batch of 3000, AdaGrad",
    "mixture-100": "the same with 100 units",
    "stochastic": "100 sigmoid units, half of them stochastic, 20 rows x 20 trajectories, T = 20, AdaGrad",
    "gru": "50 GRU units, learned feedback weights (300 transitions), T = 30, batch of 100, clipped Adam",
    "length": "the GRU of before, from T = 10 to T = 300",
}
LENGTHS, EXPONENT = (10, 30, 100, 300), 1.1
ROUNDS = 5


def looped(learner, model, task, iterations):
    """A function that learns from so many batches in one compiled loop: milliseconds an iteration."""
    import equinox as eqx
    import jax
    from jax import lax

    from onward.loop import CPU_OPTIONS

    stream = task.init(jax.random.key(1))
    state = learner.init(model, task.emit(stream)[1], key=jax.random.key(2))
    dynamic, static = eqx.partition((stream, state), eqx.is_array)

    def loop(dynamic):
        def body(dynamic, _):
            stream, state = eqx.combine(dynamic, static)
            stream, example = task.emit(stream)
            state, info = learner.step(state, example)
            return eqx.filter((stream, state), eqx.is_array), info.loss

        return lax.scan(body, dynamic, length=iterations)

    run = jax.jit(loop).lower(dynamic).compile(compiler_options=CPU_OPTIONS)

    def milliseconds():
        started = time.process_time()
        jax.block_until_ready(run(dynamic))
        return 1e3 * (time.process_time() - started) / iterations

    return milliseconds


def contestants(group):
    """Name -> function that learns for a while and says how many milliseconds an iteration took."""
    import jax
    import optax

    import onward as ow

    key = jax.random.key(0)
    rows = {}
    if group.startswith("mixture"):
        units = 100 if group == "mixture-100" else 50
        model = ow.Model(ow.Elman(1, units, key=key), ow.Mixture(units, 3))
        task = ow.OneToManyMixture(30, 3000, rows=3000)
        rows["TPTT"] = looped(ow.TPTT(ow.AffineInverse(), optax.adagrad(0.01)), model, task, 3)
        rows["BPTT"] = looped(ow.BPTT(optax.adagrad(0.01)), model, task, 3)
        if find_spec("torch") is not None:
            rows["PyTorch"] = foreign(units=units)
    elif group == "stochastic":
        cell = ow.Hybrid(ow.Elman(1, 100, key=key, activation="sigmoid"))
        model = ow.Model(cell, ow.MonteCarlo(ow.Categorical(100, 10), samples=20))
        task = ow.OneToManyClasses(20, 20, rows=3000)
        rows["STPTT"] = looped(ow.TPTT(ow.AffineInverse("sigmoid"), optax.adagrad(0.01)), model, task, 50)
        rows["STE-BPTT"] = looped(ow.BPTT(optax.adagrad(0.01)), model, task, 50)
    else:
        model = ow.Model(ow.GRU(1, 50, key=key), ow.Mixture(50, 3))
        clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
        learner = ow.TPTT(ow.FeedbackInverse(0.1), clipped, optax.adam(1e-3), transitions=300)
        if group == "length":
            for length in LENGTHS:
                rows[f"T = {length}"] = looped(learner, model, ow.OneToManyMixture(length, 100), max(3, 600 // length))
        else:
            task = ow.OneToManyMixture(30, 100)
            rows["TPTT"] = looped(learner, model, task, 50)
            rows["TPTT, hold"] = looped(ow.TPTT(ow.IdentityInverse(), clipped), model, task, 50)
            rows["BPTT"] = looped(ow.BPTT(clipped), model, task, 50)
    return rows


def foreign(time_steps=30, batch=3000, units=50, components=3):
    """Groups "mixture" in eager PyTorch, the whole batch at once: local gradients by hand, the head's by autograd."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    draw = lambda *shape: (2 * torch.rand(*shape) - 1) * units**-0.5
    orthogonal = lambda *shape: torch.nn.init.orthogonal_(torch.empty(*shape))
    forward = [draw(1, units), draw(units, units), draw(units)]
    inverse = [orthogonal(1, units), orthogonal(units, units), torch.zeros(units)]
    mu = (torch.arange(components) + 0.5) / components
    bias = torch.cat([torch.zeros(components), mu, -torch.ones(components)])
    head = [torch.zeros(3 * components, units), bias]
    for parameter in head:
        parameter.requires_grad_()
    parameters = [*forward, *inverse, *head]
    counts = [batch] * 3 + [batch * (time_steps - 1)] * 3 + [batch] * 2
    optimiser = torch.optim.Adagrad(parameters, lr=0.01, initial_accumulator_value=0.1, foreach=True)
    xs, y = torch.rand(time_steps, batch, 1), torch.rand(batch, 1)

    def answer(hidden):
        pi, mu, r = torch.nn.functional.linear(hidden, *head).split(components, 1)
        log_sigma = -2 + 5 * (2 / math.pi) * torch.atan((math.pi / 2) * (r + 2) / 5)
        log_density = -0.5 * torch.square((y - mu) * torch.exp(-log_sigma)) - log_sigma - 0.5 * math.log(2 * math.pi)
        return -torch.logsumexp(torch.log_softmax(pi, 1) + log_density, 1).sum()

    @torch.no_grad()
    def backward(hidden, d):
        (w, u, b), (v, g, c) = sums = [[torch.zeros_like(p) for p in part] for part in (forward, inverse)]
        for t in range(time_steps, 0, -1):
            x, before, after = xs[t - 1], hidden[t - 1], hidden[t]
            e = torch.addcmul(d, d * after, after, value=-1).neg_()  # -d (1 - h^2)
            w.addmm_(x.t(), e)
            u.addmm_(before.t(), e)
            b.add_(e.sum(0))
            if t > 1:
                a = torch.addmm(torch.addmm(inverse[2], x, inverse[0]), after, inverse[1])
                value = torch.tanh(a)
                d = a.addmm_(d, inverse[1]).tanh_().sub_(value)
                error = value - before
                e = error.addcmul_(error * value, value, value=-1)
                v.addmm_(x.t(), e)
                g.addmm_(after.t(), e)
                c.add_(e.sum(0))
        return [*sums[0], *sums[1]]

    def step():
        with torch.no_grad():
            hidden = torch.zeros(time_steps + 1, batch, units)
            for t in range(time_steps):
                drive = torch.addmm(forward[2], xs[t], forward[0])
                torch.addmm(drive, hidden[t], forward[1], out=hidden[t + 1])
                hidden[t + 1].tanh_()
        last = hidden[-1].clone().requires_grad_()
        *of_head, first = torch.autograd.grad(answer(last), (*head, last))
        sums = [*backward(hidden, -first), *of_head]
        for parameter, total, count in zip(parameters, sums, counts, strict=True):
            parameter.grad = total / count
        optimiser.step()

    def milliseconds():
        started = time.process_time()
        for _ in range(3):
            step()
        return 1e3 * (time.process_time() - started) / 3

    return milliseconds


def time_group(group):
    """Milliseconds of every round of every row."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {one}".strip()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = contestants(group)
    for milliseconds in rows.values():
        milliseconds()
    rounds = [{name: milliseconds() for name, milliseconds in rows.items()} for _ in range(ROUNDS)]
    return {name: [r[name] for r in rounds] for name in rows}


def show(group, timed):
    print(f"\n{group}: {TITLES[group]}; ms an iteration")
    best = {name: min(times) for name, times in timed.items()}
    base = next((to for _, to in GROUPS[group].values() if to), (None,))[0]
    for name, times in timed.items():
        spread = statistics.median(times) / best[name] - 1
        line = f"  {name:12} {best[name]:8.2f}   spread {spread:4.0%}"
        if base in best and name != base:
            line += f"   {best[name] / best[base]:.2f} of {base}'s time"
        most, to = GROUPS[group].get(name, (None, None))
        if most is not None:
            line += f"   (at most {most:g} ms)  {'ok' if best[name] <= most else 'ABOVE'}"
        if to is not None and to[0] in best:
            line += f"   (at most {1 / to[1]:.2f})  {'ok' if best[name] * to[1] <= best[to[0]] else 'ABOVE'}"
        print(line)
    if group.startswith("mixture") and "PyTorch" not in best:
        print("  PyTorch is not installed: left out")
    if group == "length":
        logs = [(math.log(n), math.log(best[f"T = {n}"])) for n in LENGTHS]
        slope = statistics.linear_regression(*zip(*logs, strict=True)).slope
        print(f"  time ~ T^{slope:.2f}   (at most {EXPONENT})  {'ok' if slope <= EXPONENT else 'ABOVE'}")


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
        command = [sys.executable, __file__, "--group", group]
        done = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[group] = json.loads(done.splitlines()[-1])
        if not arguments.json:
            show(group, found[group])
    if arguments.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
