"""How fast `onward learn --by` learns many entities, and what each takes in memory.

    python benchmarks/fleets.py [--entities N] [--rows N] [--workers N ...] [--seed N]

A table of five columns of numbers, one of them the target: `--rows` rows of each entity, by time. It is learned by whole
commands, each in a process of its own, `--workers` 0 (none) and others in turn, and once with a tenth of the rows, which
is taken off: what is left is rows, and no start, compiling or drawing. CPU seconds are those of all processes; memory is
the largest that the first had.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COLUMNS = 4
COMMAND = """import resource, sys
from onward.cli import main
if __name__ == "__main__":
    main(sys.argv[1:])
    print("MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)
"""


def write(path: Path, entities: int, rows: int, seed: int) -> None:
    """Sines of other sizes, phases and levels, with noise of which a column knows a part."""
    rng = np.random.default_rng(seed)
    phase, level = rng.uniform(0, 2 * np.pi, entities), rng.uniform(1, 100, entities)
    with open(path, "w") as file:
        file.write("id," + ",".join(f"x{i}" for i in range(COLUMNS)) + ",y\n")
        for t in range(rows):
            x = rng.normal(size=(entities, COLUMNS))
            y = level * (1 + 0.3 * np.sin(t / 8 + phase) + 0.05 * x[:, 0])
            for e in range(entities):
                file.write(f"{e}," + ",".join(f"{v:.4f}" for v in x[e]) + f",{y[e]:.5g}\n")


def command(path: Path, out: Path, workers: int) -> tuple[float, float, float]:
    """CPU seconds, seconds, and MB of a whole command."""
    words = ["learn", str(path), "--target", "y", "--by", "id", "--out", str(out), "--replace"]
    words += ["--workers", str(workers)] if workers else []
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    found = subprocess.run([sys.executable, "-c", COMMAND, *words], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - began, float(found.stderr.rsplit("MB ", 1)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole, part, few = (Path(folder) / name for name in ("whole.csv", "part.csv", "few.csv"))
        tenth, handful = max(2, asked.rows // 10), max(1, asked.entities // 10)
        write(whole, asked.entities, asked.rows, asked.seed)
        write(part, asked.entities, tenth, asked.seed)
        write(few, handful, asked.rows, asked.seed)
        rows = asked.entities * (asked.rows - tenth)
        base = None
        for workers in asked.workers:
            command(part, Path(folder) / "warm", workers)  # programs are compiled, and kept
            cost = command(part, Path(folder) / f"part-{workers}", workers)
            full = command(whole, Path(folder) / f"whole-{workers}", workers)
            cpu, seconds = full[0] - cost[0], full[1] - cost[1]
            base = base or seconds
            line = {
                "workers": workers,
                "rows a CPU second": round(rows / cpu),
                "rows a second": round(rows / seconds),
                "times": round(base / seconds, 2),
                "MB": round(full[2]),
            }
            if not workers:
                small = command(few, Path(folder) / "few", 0)
                each = (full[2] - small[2]) * 1024 / (asked.entities - handful)
                record = next((Path(folder) / "whole-0" / "checkpoints").glob("*.sqlite")).stat().st_size
                line |= {"KiB an entity beyond": round(each, 1), "kB on disk": round(record / asked.entities / 1e3, 1)}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
