"""How a sweep scales over the workers of a machine: 96 runs of trace patterning on two Dask workers, and on one.

    python benchmarks/sweeps.py [--steps 3000000] [--rounds 1] [--json]

By the clock, whole command with start and report, rounds interleaved, the best of each; every run starts from an empty
folder with a warm cache of compiled programs. The ratio needs two cores that have nothing else to do: what one of them is
disturbed by is printed with it (the CPU seconds of the workers over the wall seconds).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AT_LEAST = 1.8


def sweep(workers: int, steps: int, folder: Path) -> tuple[float, float]:
    """Seconds by the clock, and CPU seconds of all processes."""
    command = [sys.executable, "-m", "onward.cli", "sweep", "trace-patterning", "--methods", "ccn", "--gates", "lstm"]
    command += ["--step-sizes", "3e-5,1e-4,2e-4,3e-4,1e-3,3e-3", "--seeds", "16", "--tile", "48", "--steps", str(steps)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, "--workers", str(workers), "--out", str(folder)], check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    best: dict[int, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        sweep(1, 1000, Path(place) / "warm")
        for turn in range(arguments.rounds):
            for workers in (1, 2):
                found = sweep(workers, arguments.steps, Path(place) / f"{turn}-{workers}")
                best[workers] = min(best.get(workers, found), found)
    ratio = best[1][0] / best[2][0]
    if arguments.json:
        print(json.dumps({"one": best[1], "two": best[2], "ratio": ratio}))
        return
    print(f"96 runs of {arguments.steps:,} steps, CCN 20:4 LSTM, whole command, best of {arguments.rounds}")
    for workers, (wall, cpu) in best.items():
        print(f"{workers} Dask worker{'s' if workers > 1 else ' '}   {wall:6.1f} s by the clock   {cpu:6.1f} CPU s")
    verdict = "ok" if ratio >= AT_LEAST else "BELOW"
    print(f"two against one: {ratio:.2f}   (at least {AT_LEAST})  {verdict}")


if __name__ == "__main__":
    main()
