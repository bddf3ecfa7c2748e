"""Speed and memory of `onward learn`, in process CPU time.

    python benchmarks/rows.py [--rows N] [--live N] [--long N]

A CSV of a million rows and ten columns, from file to predictions and report, by the command line in a process of its
own; the same rows through standard input (the first 20,000), as fast as they are taken; a live stream, of which each
row comes when the one before was answered, and how long each answer took; and ten million rows from a generator in
this process, with the resident memory after each million.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COLUMNS = 10


def make_rows(rng: np.random.Generator, rows: int, last: float = 0.0) -> tuple[np.ndarray, float]:
    """A target that follows its past and a product of delayed inputs, and nine inputs."""
    x = rng.normal(size=(rows, COLUMNS - 1))
    drive = 0.5 * x[:, 0] + 0.3 * x[:, 1] * np.roll(x[:, 2], 3) + 0.1 * rng.normal(size=rows)
    y = np.empty(rows)
    for t, d in enumerate(drive.tolist()):
        y[t] = last = 0.8 * last + d
    return np.column_stack([y, x]), last


def children() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command(*arguments: str, text: bytes | None = None) -> float:
    """CPU seconds of one `onward`."""
    before = children()
    subprocess.run([sys.executable, "-m", "onward.cli", *arguments], input=text, check=True, capture_output=True)
    return children() - before


def resident() -> float:
    """MiB of this process that are in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def files(rows: int) -> None:
    """From file to predictions, and through a pipe."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        names = ",".join(["target", *(f"x{i}" for i in range(COLUMNS - 1))])
        np.savetxt(
            path, make_rows(np.random.default_rng(0), rows)[0], fmt="%.5g", delimiter=",", header=names, comments=""
        )
        for what in ("cold", "warm"):  # programs compiled, and taken from the cache
            spent = command("learn", str(path), "--target", "target", "--out", f"{folder}/{what}")
            print(
                f"{rows:,} rows of a CSV, {COLUMNS} columns, {what}: {spent:.1f} s, {rows / spent:,.0f} rows a CPU second"
            )
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
        print(f"   most memory: {peak:.0f} MiB")
        few, least = min(rows, 20_000), 100
        lines = path.read_bytes().splitlines(keepends=True)
        text, start = b"".join(lines[: few + 1]), b"".join(lines[: least + 1])
        command("learn", "-", "--target", "target", "--out", f"{folder}/first", text=start)  # programs are compiled
        one = command("learn", "-", "--target", "target", "--out", f"{folder}/one", text=start)
        spent = command("learn", "-", "--target", "target", "--out", f"{folder}/pipe", text=text)
        print(f"{few:,} rows through standard input: {1e6 * (spent - one) / (few - least):.0f} us of CPU time a row")


def live(rows: int) -> None:
    """Answers to a person who waits for each: after the first, which waits for what is compiled."""
    rng, path = np.random.default_rng(0), [sys.executable, "-m", "onward.cli", "learn", "-", "--target", "target"]
    columns = 8  # the season that is found at row 256 has no room among so many
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/said", "w") as said:
        arguments = [*path, "--out", f"{folder}/live"]
        started = time.perf_counter()
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True) as to:
            assert to.stdin is not None
            assert to.stdout is not None
            print(",".join(["target", *(f"x{i}" for i in range(columns - 1))]), file=to.stdin)
            waited = []
            for t in range(rows):
                cells = [np.sin(2 * np.pi * t / 24), *rng.normal(size=columns - 1)]
                if t == 1:
                    print(f"live, the first answer: after {time.perf_counter() - started:.1f} s from the start")
                before = time.perf_counter()
                print(",".join(f"{cell:.5g}" for cell in cells), file=to.stdin, flush=True)
                for _ in range(2 if t == 0 else 1):  # a header first
                    assert to.stdout.readline()
                waited.append(1e3 * (time.perf_counter() - before))
            to.stdin.close()
        more = np.array(waited[1:])
        longest = ", ".join(f"{more[i]:.1f} (row {i + 2:,})" for i in np.argsort(-more)[:3])
        print(
            f"live, {rows - 1:,} more: median {np.median(more):.2f} ms, 99 % within {np.quantile(more, 0.99):.2f} ms, "
            f"the longest {longest} ms"
        )


def memory(rows: int) -> None:
    """Resident memory over a long stream."""
    from onward.rows.options import Learn
    from onward.rows.session import Session
    from onward.rows.sources import Rows

    rng, last, done = np.random.default_rng(0), 0.0, 0
    session = Session(Learn(target=("target",)), "generator", print)
    names = ["target", *(f"x{i}" for i in range(COLUMNS - 1))]
    first, started = 0.0, time.process_time()
    while done < rows:
        values, last = make_rows(rng, 4096, last)
        cells = dict(zip(names, values.T.tolist(), strict=True))
        session.take(Rows(done + 1, range(done + 1, done + 4097), cells, {}))
        session.lines, session.metrics = [], []
        done += 4096
        if done % 1_000_000 < 4096:
            now = resident()
            first = first or now
            spent = time.process_time() - started
            print(
                f"{done:>12,} rows: {now:.0f} MiB ({now / first - 1:+.1%}), {spent / done * 1e6:.1f} us a row",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--live", type=int, default=5_000)
    parser.add_argument("--long", type=int, default=10_000_000)
    asked = parser.parse_args()
    if asked.rows:
        files(asked.rows)
    if asked.live:
        live(asked.live)
    if asked.long:
        memory(asked.long)
