"""Speed of columnar-constructive networks: the whole experiment in the loop, run-steps per CPU second on one core.

    python benchmarks/columns.py [--no-lanes] [--json]

Every row is timed in a process of its own, pinned to one core, by process CPU time. Beside them: `ccn_lanes.cpp`, a
prototype in C++ with 16 runs in AVX-512 lanes and the whole experiment in one loop, near the machine's limit. It is built
with g++ and timed before, between and after the rows (the machine may be shared and noisy), and the ratio to its mean is
printed. Without g++, or on a CPU without AVX-512, it is left out.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# label, runs, method, gates, stage (from 0), columns of a columnar network, at least (thousand run-steps/s; None: no target)
ROWS = [
    ("CCN 20:4 LSTM, 64 runs", 64, "ccn", "lstm", 0, 0, 1500),
    ("CCN 20:4 LSTM, 64 runs", 64, "ccn", "lstm", 4, 0, 600),
    ("CCN 20:4 LSTM, 16 runs", 16, "ccn", "lstm", 0, 0, 1000),
    ("CCN 20:4 LSTM, 16 runs", 16, "ccn", "lstm", 4, 0, 490),
    ("CCN 20:4 LSTM, 1 run", 1, "ccn", "lstm", 0, 0, 700),
    ("CCN 20:4 LSTM, 1 run", 1, "ccn", "lstm", 4, 0, 270),
    ("columnar 7 LSTM, 64 runs", 64, "columnar", "lstm", 0, 7, 500),
    ("columnar 128 LSTM, 16 runs", 16, "columnar", "lstm", 0, 128, 33),
    ("CCN 20:4 GRU, 64 runs", 64, "ccn", "gru", 0, 0, None),
    ("CCN 20:4 GRU, 64 runs", 64, "ccn", "gru", 4, 0, None),
]


LANES = Path(__file__).with_name("ccn_lanes.cpp")
# Ratio to the prototype's 16 runs that 64 runs reach at least, by stage.
AT_LEAST = {0: 0.25, 4: 0.30}


def pin() -> None:
    """One core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def time_row(runs: int, method: str, gates: str, stage: int, columns: int) -> dict[str, float]:
    """Thousand run-steps per CPU second, the best of five stretches, and the cold compile time."""
    pin()
    from onward.devices import set_up_jax

    set_up_jax(columns=True, single=runs == 1)
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    from onward.lab.papers.trace_patterning import TracePatterningExperiment

    experiment = TracePatterningExperiment(gates=gates, seeds=runs, columnar_columns=columns or 7)
    loop = experiment.build(method).loop([(1e-4, seed) for seed in range(runs)])
    loop.start()
    for _ in range(stage):
        loop.grow()
    loop.advance(200)
    steps = 400
    while True:
        started = time.process_time()
        loop.advance(steps)
        spent = time.process_time() - started
        if spent > 0.4:
            break
        steps *= 2
    best = spent
    for _ in range(4):
        started = time.process_time()
        loop.advance(steps)
        best = min(best, time.process_time() - started)
    return {"rate": runs * steps / best / 1e3, "compile": loop.compile_seconds}


def built(command: list[str]) -> bool:
    """Whether the prototype could be built for this machine."""
    if not shutil.which("g++"):
        print("no g++: without the C++ prototype", file=sys.stderr)
        return False
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print("the C++ prototype cannot be built here (it needs AVX-512)", file=sys.stderr)
    return done.returncode == 0


def time_lanes(binary: Path) -> dict[int, float]:
    """Thousand run-steps per CPU second of the C++ prototype, by stage."""
    out = subprocess.run(
        [str(binary), "--steps", "300000", "--N", "60000", "--log", "60000"],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=pin,
    ).stdout
    return {i: float(rate) / 1e3 for i, rate in enumerate(re.findall(r"cpu (\S+)", out))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-lanes", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row is not None:
        print(json.dumps(time_row(*ROWS[arguments.row][1:6])))
        return
    timed: list[dict[int, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "lanes"
        build = ["g++", "-std=c++20", "-O3", "-march=native", "-ffast-math", "-w", str(LANES), "-o", str(binary)]
        beside = not arguments.no_lanes and built(build)
        rows = []
        for i in range(len(ROWS)):
            if beside and i % 3 == 0:
                timed.append(time_lanes(binary))
            command = [sys.executable, __file__, "--row", str(i)]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        if beside:
            timed.append(time_lanes(binary))
    lanes = {stage: sum(t[stage] for t in timed) / len(timed) for stage in timed[0]} if timed else {}
    if arguments.json:
        print(json.dumps({"lanes": lanes, "rows": [[*ROWS[i], row] for i, row in enumerate(rows)]}, indent=1))
        return
    print("thousand run-steps per CPU second, one core, whole experiment in the loop")
    print(f"{'':28} stage    rate  at least  to lanes  cold compile")
    for (label, runs, method, gates, stage, _, least), row in zip(ROWS, rows, strict=True):
        comparable = method == "ccn" and gates == "lstm" and runs > 1 and lanes
        ratio = f"{row['rate'] / lanes[stage]:8.2f}" if comparable else " " * 8
        enough = row["rate"] >= (least or 0) and not (
            comparable and runs == 64 and row["rate"] / lanes[stage] < AT_LEAST[stage]
        )
        verdict = "" if least is None else ("  ok" if enough else "  BELOW")
        print(f"{label:28} {stage:5} {row['rate']:7.0f}  {least or '':>8}  {ratio}  {row['compile']:6.1f} s{verdict}")
    if lanes:
        print(
            f"64 runs: at least {AT_LEAST[0]:.2f} and {AT_LEAST[4]:.2f} of the C++ lanes. These, 16 runs: "
            + ", ".join(f"stage {s} {r:.0f}" for s, r in lanes.items())
            + f" (mean of {len(timed)} timings)"
        )


if __name__ == "__main__":
    main()
