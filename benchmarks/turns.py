"""Rows of a table, this working tree beside another revision, to a few per cent.

    python benchmarks/turns.py REVISION [--turns N] [--only NAME ...] [--rows N]

Two processes live side by side on one core, one over each tree, warm, and take turns of a tenth of a second or so: in
every pair of turns the machine is nearly the same. Printed: CPU time here as a share of that there, the median over
pairs, and the range in which that median lies at 95 % (of order statistics). "files": rows of a CSV, from the file to
predictions.csv, checkpoint and summary, but for the start of the process, and for the report.
"""

import argparse
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

from against import HERE, tree_of

FEATURES, ROWS, FILE_ROWS = 12, 1024, 20_000
NAMES = ("learn_one", "predict_one", "one by one", "many", "files")


def work(file_rows: int) -> dict[str, Callable[[], object]]:
    """What is timed, each a turn."""
    import numpy as np

    from onward.adapters.river import OnlineRegressor
    from onward.devices import set_up_jax
    from onward.rows.learn import learn
    from onward.rows.options import Learn

    set_up_jax(columns=False, single=True)
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(file_rows, FEATURES))
    targets = numbers @ rng.normal(size=FEATURES) + rng.normal(size=file_rows)
    xs = [{f"x{i}": v for i, v in enumerate(row)} for row in numbers[:ROWS].tolist()]
    ys = targets[:ROWS].tolist()
    folder = Path(tempfile.mkdtemp())
    header = ",".join(["y", *(f"x{i}" for i in range(FEATURES))])
    np.savetxt(folder / "rows.csv", np.column_stack([targets, numbers]), "%.5g", ",", header=header, comments="")
    model, chunks = OnlineRegressor(), OnlineRegressor()

    def one_by_one():
        for x, y in zip(xs, ys, strict=True):
            model.predict_one(x)
            model.learn_one(x, y)

    def files():
        with redirect_stderr(io.StringIO()):
            learn(Learn(target=("y",)), str(folder / "rows.csv"), folder / "out", replace=True)

    return {
        "learn_one": lambda: [model.learn_one(x, y) for x, y in zip(xs, ys, strict=True)],
        "predict_one": lambda: [model.predict_one(x) for x in xs],
        "one by one": one_by_one,
        "many": lambda: [chunks.learn_many(xs[i : i + 128], ys[i : i + 128]) for i in range(0, ROWS, 128)],
        "files": files,
    }


def serve(file_rows: int) -> None:
    """For each name that is read, a turn of it; its CPU seconds."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    turns = work(file_rows)
    for name, turn in turns.items():
        if (
            name != "files" or file_rows <= FILE_ROWS
        ):  # a long file is warm after its first turn, which counts for nothing
            turn()
    for line in sys.stdin:
        started = time.process_time()
        turns[line.strip()]()
        print(json.dumps(time.process_time() - started), flush=True)


class Side:
    """One of the two processes."""

    def __init__(self, root: Path, rows: int):
        environment = os.environ | {"PYTHONPATH": str(root / "src")}
        command = [sys.executable, __file__, "--serve", "--rows", str(rows)]
        self.process = subprocess.Popen(
            command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self, name: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(name, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def end(self) -> None:
        self.process.communicate()


def middle(ratios: list[float]) -> tuple[float, float, float]:
    """The median, and between which two of them it lies at 95 %."""
    ordered, n = sorted(ratios), len(ratios)
    out = max(0, math.floor(n / 2 - 0.98 * math.sqrt(n)))
    return statistics.median(ordered), ordered[out], ordered[n - 1 - out]


def compare(there: Path, turns: int, only: list[str], rows: int) -> None:
    sides = [Side(HERE, rows), Side(there, rows)]
    print(f"{'':14} here / there   between, at 95 %   us a row here", flush=True)
    for name in only or NAMES:
        taken: list[list[float]] = [[], []]
        for side in sides:
            side.turn(name)  # not counted
        for pair in range(turns if name != "files" else max(turns // 4, 1)):
            for i in (0, 1) if pair % 2 else (1, 0):
                taken[i].append(sides[i].turn(name))
        ratio, low, high = middle([here / before for here, before in zip(*taken, strict=True)])
        cost = 1e6 * statistics.median(taken[0]) / (rows if name == "files" else ROWS)
        print(f"{name:14} {ratio:12.3f}   {low:.3f} to {high:.3f}   {cost:16.1f}", flush=True)
    for side in sides:
        side.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", nargs="?")
    parser.add_argument("--turns", type=int, default=100, help="pairs; a quarter of them for files (%(default)s)")
    parser.add_argument("--only", nargs="+", default=[], choices=NAMES)
    parser.add_argument("--rows", type=int, default=FILE_ROWS, help="of the file (%(default)s)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.rows)
        return
    if not asked.revision:
        parser.error("a revision is needed")
    with tree_of(asked.revision) as there:
        compare(there, asked.turns, asked.only, asked.rows)


if __name__ == "__main__":
    main()
