"""What a step of `onward.adapters.gymnasium.train` costs over the environment's own: CartPole, QLambda.

    python benchmarks/acting.py [--json]

Microseconds of process CPU time a step, in one process pinned to one core: the best of windows of 128 steps, of the
whole of `train` and of a bare loop over the same environment.
"""

import argparse
import json
import os
import time

WINDOW, STEPS = 128, 6000
# name -> microseconds a step over the environment's own at most, or None
LIMITS = {"16 columns": 150.0, "64 columns": None, "GRU 16, SnAp-1": None, "16 columns, 8 environments": None}


def pin() -> None:
    """One core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def best(times: list[float]) -> float:
    """Microseconds a step of the best window."""
    windows = zip(times[::WINDOW], times[WINDOW::WINDOW], strict=False)
    return min(after - before for before, after in windows) / WINDOW * 1e6


def measure() -> dict[str, tuple[float, float]]:
    """For each name: the environment alone, and `train` in it."""
    import gymnasium
    import jax
    import optax

    import onward as ow
    from onward.adapters.gymnasium import train

    times: list[float] = []

    class TimedOne(gymnasium.Wrapper):
        def step(self, action):
            times.append(time.process_time())
            return self.env.step(action)

    class TimedMany(gymnasium.vector.VectorWrapper):
        def step(self, action):
            times.append(time.process_time())
            return self.env.step(action)

    def bare(env, streams):
        action = env.action_space.sample()
        env.reset(seed=0)
        for _ in range(STEPS):
            _, _, ended, cut, _ = env.step(action)
            if streams is None and (ended or cut):
                env.reset()

    columns = lambda units: (ow.Columns(ow.GRUGates(), 4, units, key=jax.random.key(0)), ow.Columnwise())
    dense = lambda units: (ow.GRU(4, units, key=jax.random.key(0)), ow.SnAp(1))
    cases = {
        "16 columns": (columns(16), None),
        "64 columns": (columns(64), None),
        "GRU 16, SnAp-1": (dense(16), None),
        "16 columns, 8 environments": (columns(16), 8),
    }
    found = {}
    for name, ((cell, rule), streams) in cases.items():
        if streams is None:
            env = TimedOne(gymnasium.make("CartPole-v1"))
        else:
            make = lambda: gymnasium.make("CartPole-v1")
            env = TimedMany(gymnasium.vector.SyncVectorEnv([make] * streams))
        times.clear()
        bare(env, streams)
        own = best(times)
        times.clear()
        learner = ow.Online(rule, ow.QLambda(), optax.adam(1e-4), streams=streams)
        model = ow.Model(cell, ow.Linear(cell.feature_count, 2))
        train(env, learner, model, STEPS, key=jax.random.key(1), quiet=True)
        found[name] = own, best(times)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    asked = parser.parse_args()
    pin()
    found = measure()
    if asked.json:
        print(json.dumps(found))
        return
    print("CartPole through Gymnasium, one core: microseconds of CPU time a step")
    print(f"{'':28} {'environment':>12} {'train':>8} {'over it':>8}")
    for name, (own, whole) in found.items():
        limit = LIMITS[name]
        verdict = "" if limit is None else f"   at most {limit:g}: {'met' if whole - own <= limit else 'MISSED'}"
        print(f"{name:28} {own:12.1f} {whole:8.1f} {whole - own:8.1f}{verdict}")


if __name__ == "__main__":
    main()
