"""Damage of every kind of checkpoint and configuration: refused in a line, passed over, or without effect."""

import importlib.util
import json
import random
import re
import shutil
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

import onward as ow
from onward import saving
from onward.cli import main
from onward.errors import OnwardError
from onward.lab import train
from onward.lab.experiment import digest_of, plan_of
from onward.lab.fields import fields_of, from_json
from onward.lab.folder import CONFIG, RunFolder, newest_first
from onward.lab.papers import EXPERIMENTS, kind_of
from onward.lab.progress import Progress
from onward.lab.results import execute, experiment_of
from onward.lab.sweeps.plan import Options
from onward.rows import learn
from onward.rows.options import Learn
from onward.rows.session import Session

pytestmark = pytest.mark.usefixtures("compile_fast")
ROOT = Path(__file__).parents[1]
KIND = "return"  # the quickest to make


@pytest.fixture(scope="module")
def damage():
    """benchmarks/damage.py"""
    spec = importlib.util.spec_from_file_location("benchmark_damage", ROOT / "benchmarks" / "damage.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(damage, tmp_path_factory):
    """A folder of `learn`, and a saved loop and tree, to be flipped."""
    return damage.cases(tmp_path_factory.mktemp("made"), (KIND, "saved"))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A folder of `run` with growth and two checkpoints."""
    folder = tmp_path_factory.mktemp("ran") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(train, "CHUNK_SECONDS", 0.01)
        patch.setattr("onward.lab.experiment.Experiment.write_report", lambda self, folder: folder / "report.html")
        small = {"seeds": 1, "steps": 400, "methods": ("ccn",), "ccn_columns": 4, "ccn_width": 2}
        execute(kind_of("trace-patterning")(**small), folder, quiet=True)
    return folder


def flip(cases, damage, flips, seed):
    """Every flip is one of the good outcomes; how many of each."""
    draw, counts = random.Random(seed), Counter()
    for i in range(flips):
        case = cases[i % len(cases)]
        outcome, said = case.outcome(damage.flipped(case, draw))
        assert outcome in damage.OUTCOMES[:3], f"{case.name}: {outcome} {said}"
        counts[outcome] += 1
    return counts


def test_flipped_bits_are_refused_passed_over_or_without_effect(made, damage):
    counts = flip(made, damage, 400, 0)
    assert all(counts[outcome] for outcome in damage.OUTCOMES[:3]), counts


@pytest.mark.slow
def test_flipped_bits_of_every_kind_of_folder(damage, tmp_path):
    flip(damage.cases(tmp_path), damage, 4000, 1)


def test_a_reader_that_trusts_a_header_is_noticed(made, damage, monkeypatch):
    """The array taken from where its header says, and no checksum compared: what `np.load` does."""

    def trusting(data):
        with np.load(damage.io.BytesIO(data)) as file:
            return {name: file[name] for name in file.files}

    case = next(case for case in made if case.name == "ow.save")

    def outcomes():
        for at in re.finditer(b"\x93NUMPY", case.data):
            data = bytearray(case.data)
            data[at.start() + 8] ^= 1 << 4  # the length of a header
            yield case.outcome(bytes(data))[0]

    assert {*outcomes()} == {"refused"}
    monkeypatch.setattr(saving, "_unzipped", trusting)
    assert "silent" in outcomes()


# What a checkpoint says of itself

ABSURD = (None, True, -1, 10**9, 0.5, "many", [], [24], {}, {"a": 1})


def rewritten(path, change):
    """The checkpoint with another meta."""
    meta, arrays = saving.load_arrays(path)
    meta = {name: value for name, value in meta.items() if name not in ("format", "onward")}
    change(meta)
    saving.save_arrays(path, arrays, meta)


def places(value, at=()):
    """Where something stands in JSON: of a list only its first."""
    yield at
    inside = value.items() if isinstance(value, dict) else [(0, value[0])] if isinstance(value, list) and value else []
    for name, part in inside:
        yield from places(part, (*at, name))


def put(meta, at, value):
    for name in at[:-1]:
        meta = meta[name]
    meta[at[-1]] = value


def state_of(session):
    return {name: repr(value) for name, value in vars(session).items()}, session.learner


def test_a_meta_of_learn_that_cannot_be_true_changes_nothing(made, monkeypatch):
    """Every value of it, put in turn to those of other types and sizes: refused, or it is what does not decide."""
    case = next(case for case in made if case.name == f"learn, {KIND}")
    meta, arrays = saving.load_arrays(case.file)
    folder = case.file.parents[1]
    options, fields = learn.load_options(folder)
    check = lambda meta: learn.require_same(folder / CONFIG, fields, meta, learn.WRITTEN)
    # What says nothing about numbers to come, and is written down as it is.
    free = {
        "cpu",
        "notes",
        "remarks",
        "passed",
        "values",
        "seen",
        "odd",
        "missing",
        "mark",
        "steps",
        "decimal",
        "sure",
        "quiet",
        "born",
        "fits",
        "none",
        "strange",
        "clock",
        "times",
        "names",
        "head",
        "tail",
        "form",
        "constant",
        "dates",
    }
    # Of the calendar: any clock may be.
    free |= {"step", "width", "base", "origin", "last", "recent"}
    free |= {
        "first_target",
        "units",
        "onward",
        "position",
        "written",
        "fingerprint",
        "options",
        "origins",
        "waves",
    }
    free |= {"last_row", "rows", "categories", "full", "plain", "lengths", "format"}
    monkeypatch.setattr(saving, "load_arrays", lambda path: (changed, arrays))
    session = Session(options, "", print)  # the source is not looked at
    before, refused, tried = state_of(session), 0, 0
    for at in places(meta):
        if not at:
            continue
        for value in ABSURD:
            changed = json.loads(json.dumps(meta))
            put(changed, at, value)
            if changed == meta:
                continue
            tried += 1
            try:
                session.load(case.file, check)
            except OnwardError as error:
                refused += "\n" not in str(error) and state_of(session) == before
            else:
                assert {*map(str, at)} & free, (at, value)
                tried -= 1
                session = Session(options, "", print)
                before = state_of(session)
    assert refused == tried > 500


def training_of(folder, programs={}):  # noqa: B006
    experiment = experiment_of(folder)
    method = experiment.build("ccn")
    loop = method.loop(plan_of(experiment, "ccn")[0], programs)
    return train.Training(method, loop, RunFolder(folder, "run"), "ccn", digest_of(experiment))


def test_a_meta_of_run_that_cannot_be_true_falls_back(ran, monkeypatch):
    newest, _ = newest_first(ran / "checkpoints", "ccn")
    meta, arrays = saving.load_arrays(newest)
    load = saving.load_arrays
    monkeypatch.setattr(saving, "load_arrays", lambda path: (changed, arrays) if path == newest else load(path))
    training = training_of(ran)
    monkeypatch.setattr(training.loop, "load", lambda path: None)  # that it refuses what it must is tested below
    for name in ("digest", "job", "stages", "step", "grown_at", "cpu_seconds", "compile_seconds", "metrics_bytes"):
        for value in (*ABSURD, "missing", [5, 3], [0], [401], float("inf")):
            changed = meta | {name: value}
            if value == "missing":
                del changed[name]
            if name.endswith("seconds") and type(value) in (int, float) and 0 <= value < 1e300:
                continue
            if name == "metrics_bytes" and value == 10**9:
                continue  # the folder says so when it is cut
            if name == "digest" and isinstance(value, str) and value != "missing":
                with pytest.raises(OnwardError, match="another configuration"):
                    training.resume(Progress(quiet=True))
                continue
            assert training.resume(Progress(quiet=True))
            assert training.position.step < 400, (name, value)


@pytest.mark.parametrize("stages", [0, -1, 2, 10**9, True, None, 1.0, "1", [1]])
def test_a_loop_of_stages_that_cannot_be_is_refused_at_once_and_unchanged(made, stages, tmp_path):
    case = next(case for case in made if case.name == "Loop.save")
    path = Path(shutil.copy(case.file, tmp_path / "loop.npz"))
    rewritten(path, lambda meta: meta.update(stages=stages))
    model = lambda key: ow.Model(ow.Columns(ow.GRUGates(), 3, 4, key=key), ow.Categorical(4, 3))
    learner = ow.Online(ow.Columnwise(), ow.Supervised(), ow.rms(0.9))
    loop = ow.Loop(ow.AnBn(), model, learner, lambda example, info: (info.loss, example.weight), seeds=range(2))
    before = dict(vars(loop))
    with pytest.raises(saving.Unreadable, match=r"loop\.npz is damaged"):
        loop.load(path)
    assert all(vars(loop)[name] is value for name, value in before.items())


def test_a_network_that_grows_is_not_grown_beyond_its_arrays(ran):
    training = training_of(ran)
    arrays = saving.load_arrays(newest_first(ran / "checkpoints", "ccn")[0])[1]
    calls, grown = [], training.loop._grown
    training.loop._grown = lambda *arguments: calls.append(0) or grown(*arguments)
    with pytest.raises(ValueError, match="of 1000000000 stages"):
        training.loop._shapes_within(10**9, sum(array.nbytes for array in arrays.values()))
    assert len(calls) < 6


# config.json

ODD = ("many", None, [24], [], {"a": 1}, True, 0.5, 10**400, [[1]], [None])
FIELDS = {**{name: kind_of(name) for name in EXPERIMENTS}, "learn": Learn, "sweep": Options}


@pytest.mark.parametrize("name", FIELDS)
def test_a_value_of_another_type_is_told_by_file_field_and_what_is_allowed(name):
    kind = FIELDS[name]
    good = json.loads(json.dumps(asdict(Learn(target=("y",)) if name == "learn" else kind())))
    assert kind(**from_json(kind, good, Path("config.json"))) == (Learn(target=("y",)) if name == "learn" else kind())
    for field in fields_of(kind):
        for value in ODD:
            try:
                taken = from_json(kind, good | {field.name: value}, Path("config.json"))[field.name]
            except OnwardError as error:
                said = str(error)
                assert said.startswith(f"config.json: {field.name} takes "), said
                assert field.takes in said
            else:  # then it is of the field's own type
                words = [str(each) for each in (taken if isinstance(taken, tuple) else (taken,))]
                assert not words or field.read(words) == taken, (field, value)
    for odd in ("more", next(iter(good))):
        changed = {k: v for k, v in good.items() if k != odd} | ({"more": 1} if odd == "more" else {})
        with pytest.raises(OnwardError, match=f"config.json: field '{odd}' does not fit"):
            from_json(kind, changed, Path("config.json"))


@pytest.fixture
def learned(made, tmp_path):
    """A copy of a folder of `learn`, to do harm to, and its source."""
    case = next(case for case in made if case.name == f"learn, {KIND}")
    return Path(shutil.copytree(case.file.parents[1], tmp_path / "out")), case.commands[1]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("units", 4, "units is 4, and was 2 when the checkpoint was learned: put 2 back"),
        ("seed", 1, "seed is 1, and was 0"),
        ("horizon", 3, "horizon is 3, and was 1"),
        ("target", ["x"], r'target is \["x"\], and was \["y"\]'),
        ("network", "gru", 'network is "gru", and was "columnar"'),
        ("every", 51, "every is 51, and was 50"),
        ("units", "many", 'units takes a whole number, and is "many"'),
        ("period", 1, "--period 1: a season has at least 2 rows"),
    ],
)
def test_an_edited_configuration_of_learn_is_refused_by_name(learned, name, value, said, capsys):
    folder, source = learned
    config = json.loads((folder / CONFIG).read_text())
    config["fields"][name] = value
    (folder / CONFIG).write_text(json.dumps(config))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for words in (["learn", source, "--resume", str(folder)], ["predict", str(folder), source]):
        assert main(words) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"onward: {folder / CONFIG}: "), line
        assert re.search(said, line), line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl", "predictions.csv", CONFIG])
def test_whatever_a_report_of_learn_reads_may_be_damaged(learned, name, capsys):
    folder, _ = learned
    data, draw = (folder / name).read_bytes(), random.Random(4)
    bad = [b"", b"\xff" * 9 + b"\n", b"[" * 100_000 + b"\n", b"[]\n", b"{}\n", b"7\n", data[: len(data) // 2] + b"\n"]
    for _ in range(6):
        at = draw.randrange(len(data))
        bad.append(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onward.lab.page.write_page", lambda folder, **_: folder / "report.html")
        for text in bad:
            (folder / name).write_bytes(text)
            main(["report", str(folder)])
            said = capsys.readouterr().err
            assert not said or (said.startswith("onward: ") and said.count("\n") == 1), said


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl", "environment.json", CONFIG, "record"])
def test_whatever_a_report_of_run_reads_may_be_damaged(ran, name, capsys, tmp_path):
    folder = Path(shutil.copytree(ran, tmp_path / "run"))
    file = next((folder / "records").glob("*-end.npz")) if name == "record" else folder / name
    data, draw = file.read_bytes(), random.Random(4)
    bad = [b"", b"\xff" * 9 + b"\n", b"[" * 100_000 + b"\n", b"[]\n", b"7\n", data[: len(data) // 2] + b"\n"]
    bad += [data.replace(b"values", b"valuez"), data.replace(b'"step"', b'"stop"')]
    for _ in range(3):
        at = draw.randrange(len(data))
        bad.append(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onward.lab.figures.write_page", lambda folder, **_: folder / "report.html")
        for text in bad:
            file.write_bytes(text)
            main(["report", str(folder)])
            said = capsys.readouterr().err
            assert not said or (said.startswith("onward: ") and said.count("\n") == 1), said
    (folder / "records" / "ccn-start.npz").unlink(missing_ok=True)
    file.write_bytes(data)


def test_a_full_disk_before_the_first_checkpoint_says_what_is_true(tmp_path, monkeypatch, capsys):
    source = tmp_path / "rows.csv"
    source.write_text("y,x\n" + "".join(f"{i % 7},{i}\n" for i in range(40)))
    words = ["learn", str(source), "--target", "y", "--units", "2", "--interval", "0", "--out", str(tmp_path / "out")]
    real = saving.os.fsync
    for after in range(4):  # config.json, environment.json, and the checkpoint
        calls = []

        def full(descriptor, after=after, calls=calls):
            calls.append(descriptor)
            if len(calls) > after:
                raise OSError(28, "No space left on device")
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(saving.os, "fsync", full)
            status = main(words)
        line = capsys.readouterr().err.splitlines()[-1]
        if after < 3:
            assert status == 1
            assert "No space left on device; nothing was kept of this start" in line
            assert "then start again" in line
            assert "resume" not in line
            assert not (tmp_path / "out").exists()
    assert replace(Learn(target=("y",))).target == ("y",)
