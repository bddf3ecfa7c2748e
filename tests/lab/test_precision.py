"""A folder is gone on with in the precision it was begun in, or refused in a line that changes nothing."""

import json
import os
import shutil
import signal
from pathlib import Path

import jax
import pytest

from onward import saving
from onward.cli import main
from onward.devices import DOUBLE, SINGLE, precision
from onward.lab import train as run
from onward.lab.experiment import jobs_of
from onward.lab.results import experiment_of, load_summary
from onward.lab.sweeps import jobs
from onward.lab.sweeps.plan import read_plan
from onward.loop import Loop
from switches import SWITCHES

pytestmark = [pytest.mark.interfaces, pytest.mark.usefixtures("compile_fast")]

IN = {SINGLE: lambda: jax.enable_x64(False), DOUBLE: lambda: jax.enable_x64(True)}
OTHER = {SINGLE: DOUBLE, DOUBLE: SINGLE}
BOTH = pytest.mark.parametrize("begun", IN)
FIELDS = ["trace-patterning", "--columnar-columns", "2", "--steps", "400", "--isi", "4", "6", "--iti", "8", "10"]
RUN = ["run", *FIELDS, "--methods", "columnar", "--seeds", "2", "--out"]
SWEEP = ["sweep", *FIELDS[:5], "--isi", "4 6", "--iti", "8 10", "--methods", "columnar", "--tile", "2"]


def said(words, capsys):
    capsys.readouterr()
    status = main(words)
    return status, capsys.readouterr().err


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def of(folder):
    """Numbers without clocks."""
    clocks = ("cpu_seconds", "compile_seconds")
    return [{k: v for k, v in method.items() if k not in clocks} for method in load_summary(folder)["methods"]]


def silent_about_it(folder):
    """As a folder of a version that did not note its precision."""
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("precision") in IN
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onward.lab.figures.write_report", lambda experiment, folder: folder / "report.html")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """In each precision, a run that nobody stopped."""
    folders = {name: tmp_path_factory.mktemp("whole") / name for name in IN}
    for name, folder in folders.items():
        with IN[name]():
            assert main([*RUN, str(folder)]) == 0
    return folders


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """And one that was stopped on its way."""
    folders = {name: tmp_path_factory.mktemp("stopped") / name for name in IN}
    advance = Loop.advance

    def stop(self, steps):
        advance(self, steps)
        os.kill(os.getpid(), signal.SIGINT)

    for name, folder in folders.items():
        with pytest.MonkeyPatch.context() as patch, IN[name]():
            patch.setattr(Loop, "advance", stop)
            assert main([*RUN, str(folder)]) == 130
    return folders


@pytest.fixture
def copy(stopped, tmp_path):
    return lambda begun: Path(shutil.copytree(stopped[begun], tmp_path / begun))


def refused(words, folder, begun, capsys):
    """In the other precision: one line says which it was and what to set, and no byte is changed."""
    before = contents(folder)
    with IN[OTHER[begun]]():
        status, err = said(words, capsys)
    assert status == 1
    (line,) = err.splitlines()
    assert f"{folder} was begun in {begun} precision, and JAX is set to {OTHER[begun]}" in line
    assert f"set JAX_ENABLE_X64={int(begun == DOUBLE)}" in line
    assert contents(folder) == before


@BOTH
@pytest.mark.parametrize("noted", [True, False], ids=["noted", "not noted"])
def test_a_run_goes_on_in_its_own_precision_alone(begun, noted, whole, copy, capsys):
    folder = copy(begun)
    if not noted:
        silent_about_it(folder)
    refused(["run", "--resume", str(folder)], folder, begun, capsys)
    with IN[begun]():
        status, err = said(["run", "--resume", str(folder)], capsys)
    assert status == 0
    assert "resuming at step" in err
    assert of(folder) == of(whole[begun])
    assert (folder / run.METRICS).read_bytes() == (whole[begun] / run.METRICS).read_bytes()


def test_the_precision_decides_the_numbers(whole):
    assert of(whole[SINGLE]) != of(whole[DOUBLE])


@BOTH
def test_a_damaged_checkpoint_does_not_say_in_which_precision(begun, copy, capsys):
    folder = copy(begun)
    silent_about_it(folder)
    (kept,) = (folder / "checkpoints").iterdir()
    (folder / "checkpoints" / "a.npz").write_bytes(kept.read_bytes()[:-100])
    refused(["run", "--resume", str(folder)], folder, begun, capsys)


@pytest.mark.parametrize("value", [None, 64, "half", ["single"]])
def test_an_edited_precision_is_named(value, copy, capsys):
    folder = copy(SINGLE)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"precision": value}))
    status, err = said(["run", "--resume", str(folder)], capsys)
    assert status == 1
    assert f"config.json is damaged: precision is {value!r}, not single or double" in err


@pytest.mark.parametrize("switch", [name for name in SWITCHES if name != "x64"])
def test_no_other_switch_changes_a_run(switch, whole, copy, capsys):
    folder = copy(SINGLE)
    with SWITCHES[switch]():
        assert said(["run", "--resume", str(folder)], capsys)[0] == 0
    assert (folder / run.METRICS).read_bytes() == (whole[SINGLE] / run.METRICS).read_bytes()


@BOTH
def test_a_sweep_goes_on_in_its_own_precision_alone(begun, copy, tmp_path, capsys):
    folder = tmp_path / "sweep"
    words = [*SWEEP, "--out", str(folder), "--seeds"]
    with IN[begun]():
        assert main([*words, "2"]) == 0
    refused([*words, "4"], folder, begun, capsys)
    silent_about_it(folder)
    job = next((folder / "jobs").iterdir())
    shutil.copytree(copy(begun) / "checkpoints", job / "checkpoints")
    refused([*words, "4"], folder, begun, capsys)
    with IN[begun]():
        assert main([*words, "4"]) == 0
    assert json.loads((folder / "config.json").read_text())["precision"] == begun


@BOTH
def test_a_worker_computes_in_the_precision_of_its_sweep(begun, tmp_path):
    """Its machine may have another setting; and one process may serve sweeps of both."""
    results = []
    for here in IN:
        folder = tmp_path / here
        with IN[begun]():
            assert main([*SWEEP, "--seeds", "2", "--out", str(folder)]) == 0
        ((_, job),) = read_plan(folder)[0]
        (folder / "results" / f"{job.id}.json").unlink()
        shutil.rmtree(folder / "jobs")
        config = json.loads((folder / "config.json").read_text())
        settings = {
            **config["settings"], "device": "", "experiment": config["experiment"], "folder": str(folder),
            "onward": config["onward"], "precision": config["precision"],
        }  # fmt: skip
        with IN[here]():
            results.append(jobs.run_job(job.as_dict(), settings)["runs"])
            assert precision() == here
    assert results[0] == results[1]


def test_a_trap_for_nan_does_not_end_a_sweep(tmp_path):
    """A configuration that breaks is noted, and the others go on."""
    with SWITCHES["nan"]():
        assert main([*SWEEP, "--step-sizes", "1e-3,1e20", "--seeds", "1", "--out", str(tmp_path / "s")]) == 0
    runs = [run for path in (tmp_path / "s/results").iterdir() for run in saving.read_json(path)["runs"]]
    assert sorted(bool(run["failed"]) for run in runs) == [False, True]


@BOTH
def test_a_loop_says_that_a_file_is_of_another_precision(begun, stopped):
    experiment = experiment_of(stopped[begun])
    (kept,) = (stopped[begun] / "checkpoints").iterdir()
    with IN[OTHER[begun]]():
        loop = experiment.build("columnar").loop(jobs_of(experiment, "columnar")["columnar"])
        with pytest.raises(saving.Unreadable, match=rf"in another precision \(JAX_ENABLE_X64={int(begun == DOUBLE)}\)"):
            loop.load(kept)
