"""Speed of this working tree beside another revision: rows of the benchmarks, taken in turns.

    python benchmarks/against.py REVISION [--rounds N] [--only PREFIX ...]

Each row of columns.py, rules.py, targets.py and rivers.py is timed in processes of its own, once here and once there,
round after round, and the best of each side is compared: CPU time here as a share of that there (below 1: quicker now).
The other revision's benchmarks run over the other revision's code, in a worktree that is removed afterwards. "Spread":
how far apart two rounds of one side are, as a share of the better one; a difference within it says nothing.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


@contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """A working tree of another revision, removed afterwards."""
    with tempfile.TemporaryDirectory() as temporary:
        there = Path(temporary) / "there"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(there), revision], check=True, cwd=HERE)
        try:
            yield there
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(there)], check=True, cwd=HERE)


def rows() -> Iterator[tuple[str, list[str]]]:
    """Name and words of every row."""
    sys.path.insert(0, str(HERE / "benchmarks"))
    import columns
    import rules
    import targets

    for i, (label, *_, stage, _, _) in enumerate(columns.ROWS):
        yield f"columns/{label}, stage {stage}", ["columns.py", "--row", str(i)]
    yield from ((f"rules/{group}", ["rules.py", "--group", group]) for group in rules.GROUPS if rules.installed(group))
    yield from ((f"targets/{group}", ["targets.py", "--group", group]) for group in targets.GROUPS)
    yield "rivers", ["rivers.py", "--json"]


def seconds(timed: dict, script: str) -> dict[str, float]:
    """What was timed, as time (of any unit), by row."""
    if script == "columns.py":
        return {"": 1 / timed["rate"]}
    if script == "rules.py":
        return {name: 1 / rate for name, rate in timed["rate"].items()}
    return {name: min(taken) if isinstance(taken, list) else taken for name, taken in timed.items()}


def time_in(root: Path, words: list[str]) -> dict[str, float]:
    """One timing of a row in the working tree `root`."""
    command = [sys.executable, str(root / "benchmarks" / words[0]), *words[1:]]
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    return seconds(json.loads(done.stdout.splitlines()[-1]), words[0])


def compare(there: Path, rounds: int, only: list[str]) -> None:
    print(f"{'':60} here / there   spread")
    logs = []
    for name, words in rows():
        if only and not name.startswith(tuple(only)):
            continue
        taken: dict[Path, list[dict[str, float]]] = {there: [], HERE: []}
        for _ in range(rounds):
            for root, timings in taken.items():
                timings.append(time_in(root, words))
        for row in taken[HERE][0].keys() & taken[there][0].keys():
            here, before = ([t[row] for t in taken[root]] for root in (HERE, there))
            ratio = min(here) / min(before)
            spread = max(max(side) / min(side) for side in (here, before)) - 1
            logs.append(math.log(ratio))
            print(f"{f'{name} {row}'.strip():60} {ratio:12.2f}   {spread:6.2f}", flush=True)
    print(f"{f'geometric mean of {len(logs)} rows':60} {math.exp(sum(logs) / len(logs)):12.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], metavar="PREFIX")
    given = parser.parse_args()
    with tree_of(given.revision) as there:
        compare(there, given.rounds, given.only)


if __name__ == "__main__":
    main()
