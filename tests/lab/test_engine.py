"""Jobs of a run in one process and in several: the same bytes, through deaths, errors, stops and kills."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from onward import saving
from onward.errors import NotFinite, OnwardError
from onward.lab import engine
from onward.lab.folder import RunFolder, newest_first
from onward.lab.papers import kind_of
from onward.lab.papers.trace_patterning import TracePatterningExperiment
from onward.lab.results import execute, load_summary
from onward.loop import Loop
from test_cli import fails

pytestmark = pytest.mark.usefixtures("compile_fast")

JOBS = ("columnar", "ccn")
SMALL = {"seeds": 2, "ccn_columns": 4, "ccn_width": 2, "columnar_columns": 2}


def small(steps=3_000, **fields):
    return TracePatterningExperiment(**(SMALL | {"methods": JOBS, "steps": steps, "step_sizes": (1e-2,)} | fields))


def left(folder):
    """All that a run leaves, but for its clocks and its pictures."""
    summary = load_summary(folder)
    for method in summary["methods"]:
        del method["cpu_seconds"], method["compile_seconds"]
    found = {"summary": summary, "metrics": (folder / "metrics.jsonl").read_bytes()}
    for path in (*(folder / "records").iterdir(), *(newest_first(folder / "checkpoints", job)[0] for job in JOBS)):
        meta, arrays = saving.load_arrays(path)
        kept = {k: v for k, v in meta.items() if not k.endswith("seconds")}
        found[path.name] = kept, {k: (a.dtype, a.shape, a.tobytes()) for k, a in arrays.items()}
    assert not (folder / engine.JOBS).exists()
    return found


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(TracePatterningExperiment, "write_report", lambda self, folder: folder / "report.html")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TracePatterningExperiment, "write_report", lambda self, folder: folder / "report.html")
        execute(small(), folder, quiet=True, workers=1)
    return left(folder)


def test_several_processes_give_the_same_bytes_and_do_nothing_twice(alone, tmp_path, capfd):
    execute(small(), tmp_path / "run", workers=2)
    assert left(tmp_path / "run") == alone
    assert not multiprocessing.active_children()
    assert "2 workers" in capfd.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "advance", None)
        execute(small(), tmp_path / "run", quiet=True, resume=True, workers=2)
    assert left(tmp_path / "run") == alone


def test_what_a_process_that_dies_had_in_hand_is_done_here(alone, tmp_path, capfd):
    killed = []

    def kill():
        while not killed:
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    execute(small(), tmp_path / "run", workers=2)
    thread.join()
    assert left(tmp_path / "run") == alone
    assert "died, most often for memory: it is done here" in capfd.readouterr().err


OWN = """
import dataclasses, optax
import onward as ow
from onward.lab.experiment import StreamExperiment
from onward.lab.method import Method

@dataclasses.dataclass(frozen=True, kw_only=True)
class Two(StreamExperiment):
    "Two methods."
    methods: tuple[str, ...] = ("good", "bad")
    steps: int = 4_000
    seeds: int = 2
    def build(self, name):
        size = 1e30 if name == "bad" else 1e-3
        return Method(name, ow.AnBn(), lambda key: ow.Model(ow.Columns(ow.LSTMGates(), 3, 2, key=key), ow.Linear(2, 3)),
            lambda model, step_size: ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(size)),
            self.steps, lambda example, info: (info.loss, example.weight), "error")
"""


def test_an_error_in_another_process_ends_the_run_and_keeps_what_was_learned(tmp_path):
    (tmp_path / "two.py").write_text(OWN)
    kind = kind_of(f"{tmp_path}/two.py")
    with pytest.raises(NotFinite, match=r"bad \(seed 0, .*became NaN or infinite between steps"):
        execute(kind(), tmp_path / "run", quiet=True, workers=2)
    assert not multiprocessing.active_children()


def test_an_experiment_that_no_other_process_can_find_is_run_in_this_one(tmp_path, capfd):
    (tmp_path / "two.py").write_text(OWN.replace("1e30", "1e-3"))
    mine = type("Mine", (kind_of(f"{tmp_path}/two.py"),), {})
    execute(mine(), tmp_path / "run", workers=2)
    assert "workers" not in capfd.readouterr().err


def test_a_job_in_the_hands_of_a_process_that_is_not_ending_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE", 0.1)
    with RunFolder(tmp_path / "run", "run") as folder:
        folder.begin({})
        with engine.JobFolder(folder.path, "one"):
            with (
                pytest.raises(OnwardError, match=r"jobs/one\.lock is held by another process; stop it"),
                engine.JobFolder(folder.path, "one"),
            ):
                pass
            with engine.JobFolder(folder.path, "two") as other:
                other.append("jobs/two.jsonl", "x\n")


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_metrics_are_joined_once_whenever_that_was_cut_off(tmp_path, cut):
    with RunFolder(tmp_path / "run", "run") as folder:
        folder.begin({})
        (folder / engine.JOBS).mkdir()
        for job in "ab":
            (folder / engine.JOBS / f"{job}.jsonl").write_text(f"{job}\n")
        if cut:
            (folder / "metrics.jsonl").write_text("a\nb\n")
        if cut > 1:
            (folder / engine.JOBS / "a.jsonl").unlink()
        if cut > 2:
            (folder / engine.JOBS / "b.jsonl").unlink()
        engine.join(folder, "ab")
        assert (folder / "metrics.jsonl").read_text() == "a\nb\n"
        assert not (folder / engine.JOBS).exists()


@pytest.mark.parametrize("workers", ["0", "-1", "two", "1.5"])
def test_workers_that_are_none_are_refused(capsys, workers):
    fails(["run", "trace-patterning", "--workers", workers], capsys, "--workers", workers)


def start(folder, *words):
    command = [sys.executable, "-m", "onward.cli", "run", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=folder)


def both_at_work(folder):
    """Once both processes have written a point of a job."""
    end = time.monotonic() + 240
    while sum(path.stat().st_size > 0 for path in (folder / engine.JOBS).glob("*.jsonl")) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_of_two_processes_that_is_stopped_or_killed_ends_as_if_it_was_not(tmp_path, how):
    steps = 400_000
    options = [f"--{k.replace('_', '-')}" + f"={v}" for k, v in SMALL.items()]
    words = ["trace-patterning", *options, "--methods", *JOBS, "--steps", str(steps), "--step-sizes", "1e-2"]
    whole = start(tmp_path, *words, "--workers", "1", "--out", "whole")
    said = whole.communicate()[1]
    assert whole.returncode == 0, said
    process = start(tmp_path, *words, "--workers", "2", "--out", "run")
    both_at_work(tmp_path / "run")
    if how == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, how)
    said = process.communicate()[1]
    assert process.returncode != 0
    if how == signal.SIGINT:
        assert "go on with: onward run --resume run" in said
        assert not list((tmp_path / "run").rglob("*.part"))
    again = start(tmp_path, "--resume", "run", "--workers", "2")
    said = again.communicate()[1]
    assert again.returncode == 0, said
    assert left(tmp_path / "run") == left(tmp_path / "whole")
