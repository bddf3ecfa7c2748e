"""Random flips of bits in everything that is gone on with, and what comes of each.

    python benchmarks/damage.py [--flips N] [--commands N] [--seed N]

Folders of `run` (with growth), of `learn` (numbers, classes, a return, a far horizon with growth) and of `sweep`, a saved
loop and a saved tree are made, small. Then a bit of one of their files is flipped, half of the bits in what is not the
plain bytes of an array (headers, the directory, the meta, JSON), and the file is read as the command reads it. In the
end some whole commands go on in flipped folders. Each flip is counted as one of

    refused         one line says that the file is damaged
    fell back       the checkpoint before was taken, whole
    changed nothing what was read is what was written
    silent          something else was read, without a word
    traceback       an error that is not ours

The last two must be zero: the exit status is 1 if they are not. A checkpoint is flipped beside the one before it; the
saved loop and tree stand alone.
"""

import argparse
import contextlib
import io
import json
import math
import os
import random
import shutil
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import numpy as np

import onward as ow
from onward import saving
from onward.errors import OnwardError
from onward.lab import train
from onward.lab.experiment import digest_of, plan_of
from onward.lab.folder import CONFIG, RunFolder, newest_first, newest_good, read_config
from onward.lab.papers import kind_of
from onward.lab.progress import Progress
from onward.lab.records import load_record
from onward.lab.results import execute, experiment_of, finished
from onward.lab.sweeps import jobs, plan, results
from onward.lab.sweeps.sweep import run_sweep
from onward.rows import learn
from onward.rows.checkpoint import require_same
from onward.rows.options import Learn
from onward.rows.session import JOB, Session

OUTCOMES = "refused", "fell back", "changed nothing", "silent", "traceback"
QUIET: Callable[[str], None] = lambda text: None
SMALL: dict[str, Any] = {"seeds": 1, "steps": 400, "methods": ("ccn",), "ccn_columns": 4, "ccn_width": 2}
LEARNED: dict[str, dict[str, Any]] = {
    "numbers": {"target": ("y",), "time": "time"},
    "classes": {"target": ("sky",), "task": "classification", "interval": 0.0},
    "return": {"target": ("y",), "task": "return", "discount": 0.5},
    "horizon": {"target": ("y",), "horizon": 7, "network": "ccn", "stage_rows": 100, "interval": 0.0},
}


@dataclass
class Case:
    """A file to be flipped; what reading gives: now, and, where there is a checkpoint before, from that."""

    name: str
    file: Path
    read: Callable[[], Any]
    commands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.data = self.file.read_bytes()
        self.inside = interesting(self.data)
        self.good, self.before = self.read(), None
        if self.file.suffix == ".npz" and len(list(self.file.parent.glob("*.npz"))) > 1:
            self.file.unlink()
            self.before = self.read()
            self.file.write_bytes(self.data)

    def outcome(self, data: bytes) -> tuple[str, str]:
        """What comes of reading other bytes, and what was said."""
        self.file.write_bytes(data)
        try:
            found = self.read()
        except OnwardError as error:
            return ("refused", str(error)) if "\n" not in str(error) else ("traceback", f"several lines: {error}")
        except Exception as error:
            return "traceback", f"{type(error).__name__}: {error}"
        finally:
            self.file.write_bytes(self.data)
        if found == self.good:
            return "changed nothing", ""
        return ("fell back", "") if self.before is not None and found == self.before else ("silent", "")


def interesting(data: bytes) -> list[int]:
    """Places that are not the plain bytes of an array, but for those of the meta; of JSON all."""
    if data[:2] != b"PK":
        return list(range(len(data)))
    plain = np.ones(len(data), bool)
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        for member in file.infolist():
            name, extra = (int.from_bytes(data[member.header_offset + at :][:2], "little") for at in (26, 28))
            start = member.header_offset + 30 + name + extra
            header = 10 + int.from_bytes(data[start + 8 : start + 10], "little")
            plain[start + header * (member.filename != "meta.npy") : start + member.file_size] &= (
                member.filename == "meta.npy"
            )
    return np.flatnonzero(plain).tolist()


def flipped(case: Case, draw: random.Random) -> bytes:
    """Its bytes with one bit changed."""
    at = draw.choice(case.inside) if draw.random() < 0.5 else draw.randrange(len(case.data))
    data = bytearray(case.data)
    data[at] ^= 1 << draw.randrange(8)
    return bytes(data)


def plain(value: Any) -> Any:
    """Arrays as bytes, so that all can be compared; what is not an array as JSON."""
    if isinstance(value, dict) and any(isinstance(v, np.ndarray) for v in value.values()):
        return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in value.items()}
    return json.dumps(value, sort_keys=True)


# What is flipped


def rows(n: int) -> Iterator[str]:
    draw = random.Random(1)
    yield "time,y,x,place,sky"
    for i in range(n):
        y = 10 + 3 * math.sin(2 * math.pi * i / 24) + draw.gauss(0, 0.3)
        sky = draw.choice(["sun", "rain"] if i < n // 4 else ["sun", "rain", "fog", "snow"])
        yield f"2024-03-{1 + i // 24:02d}T{i % 24:02d}:00,{y:.4f},{draw.gauss(0, 1):.4f},{draw.choice('abcdefg')},{sky}"


def learned(place: Path, kind: str) -> Iterator[Case]:
    """A folder of `learn`, with two checkpoints."""
    source, folder = place / "rows.csv", place / kind
    source.write_text("\n".join(rows(300)) + "\n")
    options = Learn(units=2, every=50, checkpoint_seconds=0.0, **LEARNED[kind])
    learn.learn(options, str(source), folder)

    def read(path: Path | None = None) -> Any:
        options, fields = learn.load_options(folder)
        session = Session(options, "", QUIET)
        check = lambda meta: require_same(folder / CONFIG, fields, meta, learn.WRITTEN)
        meta = newest_good(folder / "checkpoints", JOB, lambda path: session.load(path, check), QUIET)
        if meta is None:
            raise OnwardError("no checkpoint is good")
        assert session.learner is not None
        arrays = {f"learner.{name}": array for name, array in session.learner.save()[0].items()}
        plainly = {name: getattr(session, name) for name in ("rows", "last_row", "notes", "first_target", "constant")}
        encoded = (
            session.reading.encoder.as_dict(),
            session.targets.classes,
            session.waiting.rows,
            session.waiting.times,
        )
        return plain(arrays | session._own_arrays()), plain(meta), plain(plainly), plain(encoded), plain(fields)

    words = "learn", str(source), "--resume", str(folder)
    yield Case(f"learn, {kind}", newest_first(folder / "checkpoints", JOB)[0], read, words)
    yield Case(f"learn, {kind}: config.json", folder / CONFIG, read, words)


def run(place: Path) -> Iterator[Case]:
    """A folder of `run`, of a network that grows, with two checkpoints; and its record."""
    folder = place / "run"
    experiment = kind_of("trace-patterning")(**SMALL)
    execute(experiment, folder, quiet=True)
    programs: dict[Any, Any] = {}
    loops: dict[str, Any] = {}

    def read() -> Any:
        experiment = experiment_of(folder)
        method, digest = experiment.build("ccn"), digest_of(experiment)
        if digest not in loops:
            loops[digest] = method, method.loop(plan_of(experiment, "ccn")[0], programs)
        method, loop = loops[digest]
        loop.state = loop.best = None  # what is left of the last reading does not count
        training = train.Training(method, loop, RunFolder(folder, "run"), "ccn", digest)
        if not training.resume(Progress(quiet=True)):
            raise OnwardError("no checkpoint is good")
        return plain(saving.named_arrays((loop.state, loop._sums))), plain(training.meta()), loop.stages

    def pictures() -> Any:
        record = load_record(folder, "ccn", "end")
        return plain(dict(record)), plain(finished(folder)[1])

    words = "run", "--resume", str(folder)
    yield Case("run with growth", newest_first(folder / "checkpoints", "ccn")[0], read, words)
    yield Case("run with growth: config.json", folder / CONFIG, read, words)
    (record,) = (folder / "records").glob("*-end.npz")
    record.rename(place / record.name)
    for other in (folder / "records").glob("*.npz"):
        other.unlink()
    (place / record.name).rename(record)
    yield Case("record", record, pictures)


def swept(place: Path) -> Iterator[Case]:
    """A folder of `sweep`: its definition, its plan, and a result."""
    folder = place / "sweep"
    experiment = kind_of("memory")(methods=("rtrl",), steps=120, units=3, seeds=1)
    options = plan.Options(tile=1)
    sweep = plan.make_sweep(experiment, {"step_sizes": [1e-3, 1e-2]}, options)
    run_sweep(sweep, options, folder, quiet=True)

    def read() -> Any:
        config = read_config(folder, "sweep", same_version=True)
        plan.require_defined(config, "config.json")
        if differs := plan.covers(sweep.as_dict(), config["fields"]):
            raise OnwardError(differs)
        found = [jobs.read_result(folder, job) for _, job in plan.read_plan(folder)[0]]
        if None in found:
            raise OnwardError("a result is damaged: the job is run again")
        return plain(config["fields"]), plain(config["settings"]), plain(found), plain(results.read(folder).runs)

    yield Case("sweep: config.json", folder / CONFIG, read)
    yield Case("sweep: plan.json", folder / plan.PLAN, read)
    yield Case("sweep: result", next((folder / "results").glob("*.json")), read)


def saved(place: Path) -> Iterator[Case]:
    """A loop and a tree on their own."""
    place = place / "saved"
    key = jax.random.key(0)
    model = lambda key: ow.Model(ow.Columns(ow.GRUGates(), 3, 4, key=key), ow.Categorical(4, 3))
    learner = ow.Online(ow.Columnwise(), ow.Supervised(), ow.rms(0.9))
    loop = ow.Loop(ow.AnBn(), model, learner, lambda example, info: (info.loss, example.weight), seeds=range(2))
    loop.start()
    loop.save(place / "loop" / "loop.npz", note="mine", steps=0)
    tree = {"model": model(key), "key": key, "short": np.ones(3, np.float16), "long": np.arange(4096.0)}
    ow.save(place / "tree" / "tree.npz", tree, step=7)

    def read() -> Any:
        loop.state = None
        meta = loop.load(place / "loop" / "loop.npz")
        return plain(meta), plain(saving.named_arrays((loop.state, loop._sums)))

    def read_tree() -> Any:
        found, meta = ow.load(place / "tree" / "tree.npz", tree)
        return plain(meta), plain(saving.named_arrays(found))

    yield Case("Loop.save", place / "loop" / "loop.npz", read)
    yield Case("ow.save", place / "tree" / "tree.npz", read_tree)


def cases(place: Path, names: tuple[str, ...] = (*LEARNED, "run", "sweep", "saved")) -> list[Case]:
    """All that is flipped, made in a folder."""
    makers: dict[str, Callable[[Path], Iterator[Case]]] = {"run": run, "sweep": swept, "saved": saved}
    before = train.CHECKPOINT_SECONDS, train.CHUNK_SECONDS, learn.BLOCK
    train.CHECKPOINT_SECONDS, train.CHUNK_SECONDS, learn.BLOCK = 0.0, 0.01, 64
    try:
        return [case for name in names for case in (learned(place, name) if name in LEARNED else makers[name](place))]
    finally:
        train.CHECKPOINT_SECONDS, train.CHUNK_SECONDS, learn.BLOCK = before


# Whole commands


def command(case: Case, draw: random.Random) -> tuple[str, str]:
    """Go on in a flipped folder by the command line; what it wrote must be what it had written."""
    from onward.cli import main

    folder = Path(case.commands[-1])
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    names = [name for name in ("predictions.csv", "metrics.jsonl") if (folder / name).exists()]
    before = [(folder / name).read_bytes() for name in names]
    data = flipped(case, draw)
    case.file.write_bytes(data)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = main(list(case.commands))
        same = [(folder / name).read_bytes() for name in names] == before
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder)
        kept.rename(folder)
    if status:
        return "refused", said.getvalue().splitlines()[-1]
    return (
        "silent" if not same else "fell back" if "trying the one before" in said.getvalue() else "changed nothing"
    ), ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--commands", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw, counts, bad, began = random.Random(given.seed), Counter[tuple[str, str]](), [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        print("making folders ...", flush=True)
        with contextlib.redirect_stderr(io.StringIO()):
            every = cases(Path(folder))
        for i in range(given.flips):
            if i % 1000 == 0:
                print(f"{i:,} flips, {len(bad)} bad, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            case = every[i % len(every)]
            outcome, said = case.outcome(flipped(case, draw))
            counts[case.name, outcome] += 1
            bad += [f"{case.name}: {outcome} {said}"] * (outcome in OUTCOMES[3:])
        whole = [case for case in every if case.commands]
        for i in range(given.commands):
            case = whole[i % len(whole)]
            outcome, said = command(case, draw)
            counts["whole commands", outcome] += 1
            bad += [f"{' '.join(case.commands[:1])} of {case.name}: {outcome} {said}"] * (outcome in OUTCOMES[3:])
    names = [case.name for case in every] + ["whole commands"] * bool(given.commands)
    print(f"{'':32}" + "".join(f"{outcome:>17}" for outcome in OUTCOMES))
    for name in [*names, "all"]:
        row = [
            sum(n for (of, what), n in counts.items() if what == outcome and name in (of, "all"))
            for outcome in OUTCOMES
        ]
        print(f"{name:32}" + "".join(f"{n:17,}" for n in row))
    print("\n".join(bad[:20]))
    print(
        f"{given.flips:,} flips and {given.commands} whole commands in {time.monotonic() - began:.0f} s; bad: {len(bad)}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
