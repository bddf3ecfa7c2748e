"""Commands killed at random moments, gone on with, and compared with what one that was never killed has left.

    python benchmarks/kills.py [--seed N] [--times N] [--only NAME ...]

`run` of networks that grow, which predict and which act, `learn` of a file (a far horizon with growth and late categories; late columns and classes;
a return), of standard input, and of many entities, in one process and on two workers, and `sweep` in both, all small,
with a checkpoint many times a second: 58 kills in all, or so many `--times`. Each command is run once to its end. Then it is started again, killed (SIGKILL) at a random moment, gone on with, killed
again, and so on, and let end. Every file of both folders must be equal to the byte, but for the times and CPU seconds
that TIMES names; these are set to zero in both, and both reports drawn again from that. Of the checkpoints the last of
each job counts, and of the records of entities the newest of each: which others are still there, and how many
checkpoints there were, is a matter of when they were made.

The exit status is 1 if a folder is not equal, or a command said a traceback.
"""

import argparse
import contextlib
import io
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import split
from typing import Any

from onward import saving
from onward.cli import main as onward
from onward.lab.sweeps.plan import with_digest

# All that may differ, by file: fields of JSON, and of the meta of checkpoints.
TIMES = {
    "environment.json": {"time"},
    "summary.json": {"cpu_seconds", "compile_seconds"},
    "results/*.json": {"cpu_seconds", "compile_seconds", "wall_seconds"},
    "checkpoints/*.npz": {"cpu", "cpu_seconds", "compile_seconds", "generation"},
}
# A file, since the workers of a sweep import it too. Checkpoints come often, and chunks and blocks are small.
PROGRAM = """import sys
from onward.cli import main
from onward.lab import train
from onward.rows import learn
from onward.rows.fleet.fleet import Fleet
train.CHECKPOINT_SECONDS, train.CHUNK_SECONDS, learn.BLOCK = 0.05, 0.01, 61
started, Fleet.least = Fleet.__init__, 61
Fleet.__init__ = lambda self, *given, **more: started(self, *given, **more | {"block": 61})
if __name__ == "__main__":
    sys.exit(main())
"""
NETWORK = split("--methods ccn columnar --ccn-columns 4 --ccn-width 2 --columnar-columns 2 --isi 4,6 --iti 8,10")
SWEPT = split(
    "--methods columnar --columnar-columns 2 --isi '4 6' --iti '8 10' --step-sizes 1e-3,1e-2 --seeds 2 --tile 1"
)
ACTING = split("--methods ccn lstm --lengths 8 --units 8 --steps 20000 --seeds 2")
LEARN = split("--time time --units 4 --checkpoint-seconds 0.02 --every 100")


@dataclass
class Case:
    """A command, how it is gone on with (as it was started, if that is empty), and what grows while it works."""

    name: str
    words: list[str]
    again: list[str]
    grows: tuple[str, ...]
    kills: int
    source: str = ""
    """What is written to standard input."""

    def start(self, place: Path, resume: bool, environment: dict[str, str]) -> "subprocess.Popen[str]":
        """In a folder of its own; with a session of its own, so that all its processes can be killed."""
        words = self.again if resume and self.again else self.words
        with open(place / "said", "a") as said:
            process = subprocess.Popen(
                [sys.executable, str(place.parent / "start.py"), *words],
                cwd=place,
                env=environment,
                stdin=subprocess.PIPE if self.source else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                text=True,
                start_new_session=True,
            )
        if self.source:
            header, *rows = self.source.splitlines(keepends=True)
            assert process.stdin
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(header + "".join(rows[kept_rows(place / "out") :]))
                process.stdin.close()
        return process

    def size(self, place: Path) -> int:
        """How far it has come, in bytes."""
        total = 0
        for pattern in self.grows:
            for path in (place / "out").glob(pattern):
                with contextlib.suppress(FileNotFoundError):
                    total += path.stat().st_size
        return total


def kept_rows(folder: Path) -> int:
    """The row up to which the newest good checkpoint has learned a stream."""
    for path in sorted((folder / "checkpoints").glob("*.npz"), reverse=True):
        return int(saving.read_meta(path)["last_row"])
    return 0


# What is learned from


def rows(n: int) -> Iterator[dict[str, Any]]:
    """A daily wave with noise; places, classes and a column that come late."""
    draw = random.Random(1)
    for i in range(n):
        yield {
            "time": f"2024-{1 + i // 672 % 12:02d}-{1 + i // 24 % 28:02d}T{i % 24:02d}:00",
            "y": round(10 + 3 * math.sin(2 * math.pi * i / 24) + draw.gauss(0, 0.3), 4),
            "x": round(draw.gauss(0, 1), 4),
            "place": draw.choice("abc" if i < n // 2 else "abcdefg"),
            "sky": draw.choice(["sun", "rain"] if i < n // 4 else ["sun", "rain", "fog", "snow", "hail"]),
        } | ({"late": round(draw.gauss(50, 9), 3), "later": i % 7} if i > n * 2 // 3 else {})


def csv_of(n: int) -> str:
    columns = ["time", "y", "x", "place", "sky"]
    return "\n".join([",".join(columns), *(",".join(str(row[c]) for c in columns) for row in rows(n))]) + "\n"


def cases(place: Path) -> list[Case]:
    """All that is killed; its sources are written."""
    (place / "start.py").write_text(PROGRAM)
    (place / "rows.csv").write_text(csv_of(2500))
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(2500)))
    learned = {
        "learn, horizon and growth": "../rows.csv --target y --horizon 7 --network ccn --stage-rows 1000 --interval 0",
        "learn, columns and classes": "../rows.jsonl --target sky --task classification",
        "learn, a return": "../rows.csv --target y --task return --discount 0.8 --network gru",
        "learn, standard input": "- --target y --horizon 3 --network ccn --stage-rows 300",
    }
    every = [
        Case(
            "run with growth",
            ["run", "trace-patterning", *NETWORK, "--steps", "20000", "--seeds", "2", "--out", "out"],
            ["run", "--resume", "out"],
            ("jobs/*.jsonl", "metrics.jsonl"),
            6,
        ),
        Case(
            "run, acting, with growth",
            ["run", "memory-control", *ACTING, "--out", "out"],
            ["run", "--resume", "out"],
            ("jobs/*.jsonl", "metrics.jsonl"),
            4,
        ),
    ]
    for name, words in learned.items():
        source = words.split()[0]
        started = ["learn", *split(words), *LEARN, "--out", "out"]
        again = ["learn", source, "--resume", "out"]
        rest = csv_of(800) if source == "-" else ""
        every.append(Case(name, started, again, ("predictions.csv",), 4, rest))
    of_places = ["learn", "../rows.csv", *split("--target y --by place --alarm 0.01"), *LEARN, "--out", "out"]
    again = ["learn", "../rows.csv", "--resume", "out"]
    every.append(Case("learn, entities", of_places, again, ("predictions.csv",), 4))
    every.append(Case("learn, entities, 2 workers", [*of_places, "--workers", "2"], again, ("predictions.csv",), 20))
    swept = ["sweep", "trace-patterning", *SWEPT, "--steps", "12000", "--out", "out"]
    grows = "jobs/*/metrics.jsonl", "results/*.json"
    # Starting workers takes long.
    return [
        *every,
        Case("sweep", swept, [], grows, 6),
        Case("sweep, 2 workers", [*swept, "--workers", "2"], [], grows, 2),
    ]


# What is left


def timeless(value: Any, names: set[str]) -> Any:
    """JSON with zero for the fields of these names."""
    if isinstance(value, dict):
        return {k: 0 if k in names else timeless(v, names) for k, v in value.items()}
    return [timeless(each, names) for each in value] if isinstance(value, list) else value


def left(place: Path) -> dict[str, Any]:
    """Every file of a folder that came to its end, without times."""
    folder = place / "out"
    for pattern, names in TIMES.items():
        for path in folder.rglob(pattern) if pattern.endswith(".json") else ():
            content = timeless(json.loads(path.read_text()), names)
            digest = content.pop("digest", None)
            saving.write_json(path, content if digest is None else with_digest(content))
    before = Path.cwd()
    os.chdir(place)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
            assert onward(["report", "out"]) == 0, said.getvalue()
    finally:
        os.chdir(before)
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if ".sqlite" in path.name:
            found |= newest(path, name) if path.suffix == ".sqlite" else {}
            continue
        if path.suffix != ".npz":
            found[name] = path.read_bytes()
            continue
        meta, arrays = saving.load_arrays(path)
        content = (
            timeless(meta, TIMES["checkpoints/*.npz"]),
            {k: (a.dtype, a.shape, a.tobytes()) for k, a in arrays.items()},
        )
        if path.parent.name == "checkpoints":
            job = name.rpartition("-")[0]
            found = {other: value for other, value in found.items() if not other.startswith(f"{job}-")}
        found[name] = content
    return found


def newest(path: Path, name: str) -> dict[str, bytes]:
    """The newest record of each entity."""
    with contextlib.closing(sqlite3.connect(path)) as file:
        every = file.execute("SELECT name, record FROM states ORDER BY generation").fetchall()
    return {f"{name}, {entity}": record for entity, record in every}


# Kills


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while process.poll() is None and not condition():
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.002)


def finish(place: Path, process: "subprocess.Popen[str]") -> None:
    """It comes to its end, and no one of those before it left a traceback."""
    process.wait(timeout=240)
    said = (place / "said").read_text()
    assert process.returncode == 0, f"exit status {process.returncode}: {said[-2000:]}"
    assert "Traceback" not in said, said[-2000:]


def killed(case: Case, place: Path, kills: int, goal: int, draw: random.Random, environment: dict[str, str]) -> int:
    """Kill it so many times, let it end; how many kills came before the end."""
    done = 0
    for i in range(kills):
        resume = (place / "out" / "config.json").exists()
        process = case.start(place, resume, environment)
        if i % 4 == 3:  # anywhere, also while it starts
            time.sleep(draw.uniform(0.2, 6))
        else:
            at = goal * (i + draw.random()) / (kills + 0.5)
            wait_for(lambda at=at: case.size(place) > at, process)  # type: ignore[misc]
            time.sleep(draw.uniform(0, 0.1))
        # The process alone, as somebody would; or all of its processes, as when the power goes.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL) if draw.random() < 0.5 else process.kill()
        process.wait()
        done += process.returncode == -signal.SIGKILL
    process = case.start(place, (place / "out" / "config.json").exists(), environment)
    try:
        finish(place, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    draw, began, equal, total, odd = random.Random(given.seed), time.monotonic(), 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        every = [case for case in cases(Path(folder)) if not given.only or case.name in given.only]
        environment = os.environ | {
            "XDG_CACHE_HOME": str(Path(folder, "programs")),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "MPLBACKEND": "Agg",
        }
        for i, case in enumerate(every):
            whole, place = Path(folder, f"{i}-whole"), Path(folder, f"{i}-killed")
            whole.mkdir()
            place.mkdir()
            try:
                finish(whole, case.start(whole, False, environment))
                done = killed(case, place, given.times * case.kills, case.size(whole), draw, environment)
                wanted, found = left(whole), left(place)
                differ = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
            except AssertionError as error:
                done, wanted, differ = 0, {}, [str(error)]
            total, equal = total + done, equal + (not differ)
            odd += differ
            state = f"{len(wanted)} files equal" if not differ else f"NOT equal: {', '.join(differ)}"
            print(f"{case.name:28} {done:3} kills   {state}   ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{total} kills, {equal} of {len(every)} folders equal, {time.monotonic() - began:.0f} s")
    return 1 if odd else 0


if __name__ == "__main__":
    sys.exit(main())
