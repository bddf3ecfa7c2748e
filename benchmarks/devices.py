"""CPU and accelerator side by side: run-steps a second of trace patterning with many seeds, and where they cross.

    python benchmarks/devices.py [--devices cpu gpu] [--seeds 1 64 1024 16384] [--json]

Every row is timed in a process of its own. A CPU core by process CPU time, in tiles of at most 64 runs, as `onward`
runs it; an accelerator by the clock, all seeds in one program. Without --devices: the CPU, and what else JAX finds.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import time

SEEDS = (1, 64, 1024, 16384)


def time_row(device: str, seeds: int, method: str, stage: int) -> float:
    """Thousand run-steps a second."""
    if device == "cpu" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from onward.devices import set_up_jax
    from onward.lab.method import TILE

    runs = min(seeds, TILE) if device == "cpu" else seeds
    set_up_jax(columns=device == "cpu", single=device == "cpu" and runs == 1, device=device)
    from onward.lab.papers.trace_patterning import TracePatterningExperiment

    loop = TracePatterningExperiment(gates="lstm").build(method).loop([(1e-4, seed) for seed in range(runs)])
    loop.start()
    for _ in range(stage):
        loop.grow()
    loop.advance(20)
    clock = time.process_time if device == "cpu" else time.perf_counter
    steps, spent = 20, 0.0
    while spent < 0.4:
        steps *= 2
        started = clock()
        loop.advance(steps)
        spent = clock() - started
    for _ in range(4):
        started = clock()
        loop.advance(steps)
        spent = min(spent, clock() - started)
    return runs * steps / spent / 1e3


def devices() -> list[str]:
    """The CPU, and the accelerator that JAX finds, if any."""
    code = "import jax; print(jax.default_backend())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[-1]
    return list(dict.fromkeys(["cpu", found]))


def crossing(core: dict[int, float], other: dict[int, float]) -> float | None:
    """Seeds from which `other` is faster than one core, between two measured counts evenly in the logarithm."""
    ahead = {n: math.log(other[n] / core[n]) for n in sorted(core)}
    for (a, x), (b, y) in itertools.pairwise(ahead.items()):
        if x < 0 <= y:
            return float(round(a * (b / a) ** (x / (x - y))))
    return min(ahead) if min(ahead.values()) >= 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--methods", nargs="+", default=["ccn", "snap-1"])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--row", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        device, seeds, method, stage = arguments.row
        print(json.dumps(time_row(device, int(seeds), method, int(stage))))
        return
    kinds = arguments.devices or devices()
    rows = [(m, s) for m in arguments.methods for s in ((0, 4) if m == "ccn" else (0,))]
    rates: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    for method, stage in rows:
        for kind in kinds:
            for seeds in arguments.seeds:
                command = [sys.executable, __file__, "--row", kind, str(seeds), method, str(stage)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rates.setdefault((method, stage), {}).setdefault(kind, {})[seeds] = json.loads(done.stdout)
    if arguments.json:
        print(json.dumps([{"method": m, "stage": s, "rates": found} for (m, s), found in rates.items()], indent=1))
        return
    print("trace patterning, thousand run-steps a second; cpu: one core")
    print(f"{'':18}" + "".join(f"{n:>10,} seed{'s' if n > 1 else ' '}" for n in arguments.seeds))
    for (method, stage), found in rates.items():
        name = f"{method} stage {stage}" if method == "ccn" else method
        for kind, own in found.items():
            print(f"{name:12} {kind:5}" + "".join(f"{own[n]:15,.0f}" for n in arguments.seeds))
        for kind in kinds[1:]:
            at = crossing(found["cpu"], found[kind])
            print(
                f"{name:12} {kind} passes one core " + (f"at about {at:,.0f} seeds" if at else "nowhere in this range")
            )
    if len(kinds) == 1:
        print("no accelerator here")


if __name__ == "__main__":
    main()
