"""Sweeps in one process: equal to runs, resumable, tolerant, and their statistics."""

import csv
import io
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from onward.cli import main
from onward.errors import OnwardError
from onward.lab import page
from onward.lab.folder import RunFolder
from onward.lab.sweeps import jobs, results
from onward.lab.sweeps import sweep as sweeping

SMALL = ["trace-patterning", "--columnar-columns", "2", "--steps", "500", "--isi", "4 6", "--iti", "8 10"]
AXES = ["--methods", "columnar", "--step-sizes", "1e-3,1e-2"]


def sweep(folder, *words, rc=0):
    assert main(["sweep", *SMALL, *words, "--out", str(folder)]) == rc
    return folder


def table(folder, name="runs.csv"):
    with open(folder / name) as file:
        return [{k: v for k, v in row.items() if k != "cpu_seconds"} for row in csv.DictReader(file)]


def values(folder):
    return {(r["method"], float(r["step_size"]), int(r["seed"])): r["return_error"] for r in table(folder)}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two step sizes, four seeds, all in one tile."""
    return sweep(tmp_path_factory.mktemp("sweep"), *AXES, "--seeds", "4", "--tile", "8")


def test_a_sweep_gives_what_a_run_gives(done, tmp_path):
    words = [*SMALL[:-4], "--isi", "4", "6", "--iti", "8", "10", "--methods", "columnar", "--seeds", "4"]
    assert main(["run", *words, "--step-sizes", "1e-3", "1e-2", "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    run = {
        ("columnar", m["step_size"], s): v
        for m in summary["methods"]
        for s, v in zip(m["seeds"], m["values"], strict=True)
    }
    assert {k: float(v) for k, v in values(done).items()} == run


def test_the_same_again_runs_nothing(done, capsys):
    before = {p: p.stat().st_mtime_ns for p in (done / "results").iterdir()}
    sweep(done, *AXES, "--seeds", "4", "--tile", "8")
    assert {p: p.stat().st_mtime_ns for p in (done / "results").iterdir()} == before
    assert "columnar" in capsys.readouterr().out


def test_more_seeds_and_values_only_add(done, tmp_path):
    folder = sweep(tmp_path / "s", *AXES, "--seeds", "2", "--tile", "4")
    before = {p: p.stat().st_mtime_ns for p in (folder / "results").iterdir()}
    sweep(folder, "--methods", "columnar", "--step-sizes", "1e-3,1e-2,3e-3", "--seeds", "4", "--tile", "4")
    after = {p: p.stat().st_mtime_ns for p in (folder / "results").iterdir()}
    assert before.items() <= after.items()
    found = values(folder)
    assert len(found) == 12
    for key, value in values(done).items():  # the runs of a tile of 8 and of tiles of 4
        assert float(found[key]) == pytest.approx(float(value), rel=1e-4)


def test_stopped_and_gone_on_equals_never_stopped(done, tmp_path, monkeypatch, capsys):
    """The stop comes in the middle of the second of two jobs."""
    calls = {"n": 0}

    @contextmanager
    def soon():
        def stop():
            calls["n"] += 1
            return (tmp_path / "s" / "results").exists() and any((tmp_path / "s" / "results").iterdir())

        yield stop

    words = ["--methods", "columnar", "--step-sizes", "1e-3,1e-2", "--seeds", "4", "--tile", "4"]
    whole = sweep(tmp_path / "whole", *words)
    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "stopping", soon)
        sweep(tmp_path / "s", *words, rc=130)
    assert "1 of 2 jobs done; the same command goes on" in capsys.readouterr().err
    sweep(tmp_path / "s", *words)
    assert table(tmp_path / "s") == table(whole)
    assert table(tmp_path / "s", "points.csv") == table(whole, "points.csv")


def test_a_configuration_that_breaks_is_recorded_and_the_others_are_as_ever(done, tmp_path, capsys):
    folder = sweep(tmp_path / "s", "--methods", "columnar", "--step-sizes", "1e-3,1e20", "--seeds", "4", "--tile", "8")
    rows = table(folder)
    failed = [r for r in rows if r["failed"]]
    assert [float(r["step_size"]) for r in failed] == [1e20] * 4
    assert all(r["return_error"] == "" and "NaN or infinite by step" in r["failed"] for r in failed)
    assert "4 runs became NaN or infinite" in capsys.readouterr().out
    mine, clean = values(folder), values(done)
    assert all(mine[k] == clean[k] for k in mine if k[1] == 1e-3)  # its neighbours in the tile
    best = [r for r in table(folder, "configurations.csv") if r["best"] == "True"]
    assert [float(r["step_size"]) for r in best] == [1e-3]
    assert "failed configuration" in (folder / "report.html").read_text()


def test_all_runs_of_a_job_break(tmp_path):
    folder = sweep(tmp_path / "s", "--methods", "columnar", "--step-sizes", "1e20", "--seeds", "2")
    assert all(r["failed"] for r in table(folder))
    assert json.loads((folder / "summary.json").read_text())["configurations"][0]["mean"] is None


def test_halving_keeps_the_better_half(tmp_path):
    words = ["--methods", "columnar", "--step-sizes", "1e-4,1e-3,1e-2,1e15", "--seeds", "2"]
    folder = sweep(tmp_path / "s", *words, "--search", "halving", "--eta", "2", "--rungs", "3", "--tile", "8")
    rows = table(folder, "configurations.csv")
    rungs = {steps: [r for r in rows if r["steps"] == steps] for steps in ("125", "250", "500")}
    assert [len(own) for own in rungs.values()] == [4, 2, 1]
    for longer, shorter in (("250", "125"), ("500", "250")):
        kept = {float(r["step_size"]) for r in rungs[longer]}
        order = sorted(rungs[shorter], key=lambda r: (r["failed"] != "0", float(r["mean"] or "inf")))
        assert kept == {float(r["step_size"]) for r in order[: len(kept)]}
    assert [r["best"] for r in rungs["500"]] == ["True"]
    assert {r["best"] for r in rungs["125"] + rungs["250"]} == {"False"}


@pytest.mark.interfaces
def test_the_tile_is_measured_and_remembered(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "WORTH_MEASURING", 0.0)
    monkeypatch.setattr(jobs, "CANDIDATES", {"cpu": (1, 3)})
    folder = sweep(tmp_path / "s", *AXES, "--seeds", "3")
    (measured,) = json.loads((folder / "plan.json").read_text())["tiles"].values()
    assert set(measured["tried"]) == {"1", "3", "6"}
    cost = {int(k): 3000 / v["rate"] + v["compile"] for k, v in measured["tried"].items()}
    assert measured["tile"] == min(cost, key=cost.get)
    assert "run-steps a CPU second" in capsys.readouterr().err


def test_one_folder_is_for_one_sweep(done, tmp_path, capsys):
    with RunFolder(done, "sweep"):
        sweep(done, *AXES, "--seeds", "4", rc=1)
    assert "in use by another onward" in capsys.readouterr().err
    sweep(done, "--methods", "columnar", "--step-sizes", "1e-3", "--seeds", "4", rc=1)
    assert "another sweep" in capsys.readouterr().err
    (tmp_path / "note.txt").write_text("mine")
    sweep(tmp_path, *AXES, "--replace", rc=1)
    assert "not empty and not a run folder" in capsys.readouterr().err
    assert (tmp_path / "note.txt").exists()


@pytest.mark.parametrize(("change", "words"), [({"onward": "0.0.9"}, "of onward 0.0.9"), ({"format": 99}, "format 99")])
def test_a_folder_from_another_version_is_refused(done, tmp_path, capsys, change, words):
    config = json.loads((done / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    sweep(tmp_path, *AXES, "--seeds", "4", rc=1)
    assert words in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{")
    sweep(tmp_path, *AXES, "--seeds", "4", rc=1)
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["seeds", "draws", "eta", "axes"])
def test_a_definition_that_was_changed_is_refused(done, tmp_path, capsys, name):
    """A sweep of more seeds takes one of fewer over: a number that only seems to be of one must not pass."""
    folder = shutil.copytree(done, tmp_path / "s")
    config = json.loads((folder / "config.json").read_text())
    kept = config["fields"][name]
    config["fields"][name] = {**kept, "methods": []} if isinstance(kept, dict) else kept - 1
    (folder / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    for words in (["sweep", *SMALL, *AXES, "--seeds", "4", "--tile", "8", "--out"], ["report"]):
        assert main([*words, str(folder)]) == 1
        err = capsys.readouterr().err
        assert "config.json is damaged, or was changed" in err
        assert err.count("\n") == 1


def test_a_damaged_result_is_made_again(done, tmp_path):
    folder = sweep(tmp_path / "s", "--methods", "columnar", "--step-sizes", "1e-3", "--seeds", "2")
    before = table(folder)
    (result,) = (folder / "results").iterdir()
    result.write_text(result.read_text()[:40])
    sweep(folder, "--methods", "columnar", "--step-sizes", "1e-3", "--seeds", "2")
    assert table(folder) == before


def test_what_a_kill_has_left_beside_a_result_is_taken_away(done):
    words = [*AXES, "--seeds", "4", "--tile", "8"]
    (job,) = (done / "jobs").iterdir()
    before = {path.name: path.read_bytes() for path in job.iterdir()}
    (job / "checkpoints").mkdir()
    for name in ("checkpoints/columnar-000000000500.npz.part", "lock", "at.json", "at.json.part"):
        (job / name).write_text("{}")
    sweep(done, *words)
    assert {path.name: path.read_bytes() for path in job.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stepsize", "1e-3,1e-4"], "did you mean --step-sizes?"),
        (["--step-sizes", ","], "no values"),
        (["--step-sizes", "1e-3,,1e-4"], "an empty value"),
        (["--step-sizes", "1e-3,0.001"], "0.001 is given twice"),
        (["--step-sizes", "1e-3,abc"], "abc"),
        (["--discount", "0.8,0.9", "--discount", "0.7"], "given twice"),
        (["--seeds", "3,4"], "one number in a sweep"),
        (["--seeds", "1000000"], "say --yes"),
        (["--gates", "gru..lstm", "--search", "random"], "range"),
        (["--step-sizes", "1e-3..x", "--search", "random"], "x"),
        (["--device", "abacus"], "--device is cpu, gpu or tpu"),
        (["--device", "cpu:77"], "counted from 0"),
    ],
)
def test_what_a_hurried_person_types(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    sweep(tmp_path / "s", *words, rc=1)
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_help(capsys):
    assert main(["sweep", "trace-patterning", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--workers" in said
    assert "--trace-decay" in said
    assert main(["sweep", "--help"]) == 0
    assert main(["sweep"]) == 1
    assert main(["sweep", "trace-patterning", "1e-3"]) == 1
    assert "stands alone" in capsys.readouterr().err
    assert main(["sweep", "trace-pattern"]) == 1


@pytest.mark.parametrize("enough", [4, 5])
def test_the_report_again(done, capsys, monkeypatch, enough):
    """Four seeds: of a fifth on there are intervals, and ranks; here as if four were enough, and as it is."""
    monkeypatch.setattr(results, "ENOUGH", enough)
    monkeypatch.setattr(page, "ENOUGH", enough)
    shutil.rmtree(done / "figures")
    (done / "report.html").unlink()
    assert main(["report", str(done)]) == 0
    text = (done / "report.html").read_text()
    known = (
        "best of each method",
        "chosen on other seeds",
        "Mean over seeds at the end",
        "every configuration",
        "bayes",
    )
    assert [words for words in known if words not in text] == []
    assert (done / "figures" / "ranks.png").exists() == (enough == 4)
    assert ("too few seeds" in text) == (enough == 5)
    capsys.readouterr()
    assert main(["report", str(done), "--markdown"]) == 0
    assert "| best of each method | step size | mean |" in capsys.readouterr().out


def test_tensorboard_events_hold_the_curve(done):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    sweep(done, *AXES, "--seeds", "4", "--tile", "8", "--tensorboard")
    places = sorted(p for p in (done / "tensorboard").iterdir())
    assert len(places) == 8
    (file,) = places[0].glob("events.*")
    data, at, seen = file.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        event = Event.FromString(data[at + 12 : at + 12 + length])
        seen += [(event.step, v.simple_value) for v in event.summary.value if v.tag == "return_error"]
        at += 16 + length
    name, seed = places[0].name.split("-")[1], places[0].name.rsplit("seed", 1)[1]
    curve = [r for r in table(done, "points.csv") if r["configuration"] == name and r["seed"] == seed]
    assert seen == [(int(r["step"]), pytest.approx(float(r["value"]))) for r in curve]


def rows_of(means, seeds=16, noise=0.0, methods=None):
    rng = np.random.default_rng(1)
    return [
        {
            "configuration": str(i),
            "method": methods[i] if methods else "m",
            "last": True,
            "seeds": list(range(seeds)),
            "scores": (mean + noise * rng.normal(size=seeds)).tolist(),
            "values": None,
        }
        for i, mean in enumerate(means)
    ]


def test_ranks_know_what_is_certain_and_what_is_not():
    rows = rows_of([3.0, 1.0, 2.0])
    found = results.ranks(rows, rows)
    assert found["configurations"] == ["1", "2", "0"]
    assert np.array_equal(found["share"], np.eye(3))
    rows = rows_of([0.0, 0.0], noise=1.0, seeds=400)
    rows[1]["scores"] = (np.asarray(rows[0]["scores"]) + np.random.default_rng(2).normal(size=400) * 0.01).tolist()
    share = np.asarray(results.ranks(rows, rows)["share"])
    assert np.allclose(share.sum(0), 1)
    assert np.allclose(share.sum(1), 1)
    assert 0.02 < share[0, 0] < 1


def test_agreement_of_halves():
    sure = results.agreement(rows_of(range(6), noise=0.01))
    assert [p["seeds"] for p in sure] == [1, 2, 4, 8]
    assert all(p["tau"] == 1 for p in sure)
    nothing = results.agreement(rows_of([0.0] * 40, noise=1.0))
    assert abs(nothing[-1]["tau"]) < 0.1


def test_choosing_on_other_seeds_is_free_of_luck():
    """Fifty equal configurations: the best of them looks good by luck alone, what is chosen on other seeds does not."""
    rows = rows_of([0.0] * 50, noise=1.0, seeds=16)
    for row in rows:
        row["values"] = row["scores"]
    best = min(np.mean(row["values"]) for row in rows)
    other = results.cross_validated(rows, "m")
    assert best < -0.4
    assert abs(other["mean"]) < 0.4
    assert other["low"] < other["mean"] < other["high"]


def test_a_failure_comes_after_all_that_never_failed():
    rows = rows_of([1.0, 2.0], seeds=2)
    rows[0]["scores"][0] = None
    assert results.mean_score(rows[0]) == math.inf > results.mean_score(rows[1])


def test_a_worker_elsewhere_is_told_what_it_lacks(done, tmp_path):
    settings = {"folder": str(tmp_path / "nowhere"), "onward": "0"}
    with pytest.raises(OnwardError, match="does not see"):
        jobs.run_job({}, settings)
    with pytest.raises(OnwardError, match="has onward"):
        jobs.run_job({}, settings | {"folder": str(done)})


@pytest.mark.interfaces
def test_the_device_that_was_asked_for_computes(tmp_path):
    """Two CPU devices, as XLA can pretend to have: the second one does the work, and gives the same numbers."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    words = ["--columnar-columns", "2", "--steps", "300", "--isi", "4", "6", "--iti", "8", "10", "--seeds", "2"]
    code = (
        "import sys, onward as ow; from onward.cli import main; before = ow.Loop.advance\n"
        "def advance(self, steps): before(self, steps); print('computed on', self.state[1].steps.device)\n"
        "ow.Loop.advance = advance; words = ['run', 'trace-patterning', '--methods', 'columnar', *sys.argv[2:]]\n"
        "for at in '01':\n"
        "    assert main([*words, '--device', f'cpu:{at}', '--out', f'{sys.argv[1]}/{at}']) == 0"
    )
    command = [sys.executable, "-c", code, str(tmp_path), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert list(dict.fromkeys(re.findall("computed on (.*)", done.stdout))) == ["cpu:0", "cpu:1"]
    summaries = [json.loads((tmp_path / at / "summary.json").read_text())["methods"][0]["values"] for at in "01"]
    assert summaries[0] == summaries[1]
