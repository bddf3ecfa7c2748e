"""Runs: reproducible, resumable, and safe against what goes wrong."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from onward import saving
from onward.cli import main
from onward.lab import folder as run_folder
from onward.lab import train as run
from onward.lab.method import Growth
from onward.lab.papers.trace_patterning import TracePatterningExperiment
from onward.lab.results import execute, load_summary
from onward.loop import Loop
from test_cli import fails

pytestmark = pytest.mark.usefixtures("compile_fast")

SMALL = {"seeds": 2, "steps": 6_000, "methods": ("ccn",), "ccn_columns": 4, "ccn_width": 2, "step_sizes": (1e-2,)}


def small(**fields):
    return TracePatterningExperiment(**(SMALL | fields))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "whole"
    execute(small(), folder, quiet=True)
    return folder


@pytest.fixture(autouse=True)
def unpainted():
    """Figures are made, and not painted; those of `finished` are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, buffer, **_: buffer.write(b"<svg></svg>"))
        yield


def numbers(folder):
    """The summary without its clocks."""
    summary = load_summary(folder)
    for method in summary["methods"]:
        for clock in ("cpu_seconds", "compile_seconds"):
            assert method.pop(clock) > 0
    return summary


def arrays(path):
    with np.load(path, allow_pickle=False) as file:
        return {k: file[k] for k in file.files if k != "meta"}


def test_a_run_folder_holds_what_it_should(finished):
    for name in ("config.json", "environment.json", "metrics.jsonl", "summary.json", "report.html"):
        assert (finished / name).stat().st_size > 0, name
    for figure in ("learning-curves", "windows", "final-errors"):
        assert (finished / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (finished / "figures" / f"{figure}.svg").read_bytes()
    assert run_folder.newest_first(finished / "checkpoints", "ccn")[0].name == "ccn-000000006000.npz"
    page = (finished / "report.html").read_text()
    assert "http-equiv" not in page
    assert 'src="http' not in page


def test_summary_is_what_others_script_against(finished):
    summary = load_summary(finished)
    assert set(summary) == {"experiment", "config", "methods", "references"}
    (method,) = summary["methods"]
    assert method["name"] == "ccn"
    assert {"metric", "values", "mean", "median", "std", "steps", "cpu_seconds", "published"} <= set(method)
    assert len(method["values"]) == 2
    assert method["mean"] == pytest.approx(np.mean(method["values"]))
    assert set(summary["references"]) == {"predict-zero", "pattern-blind", "bayes"}
    assert method["grown_at"] == [3000]


def test_metrics_average_to_the_summary(finished):
    lines = run.read_metrics(finished)
    assert sum(line["count"] for line in lines) == 6000
    late = [line for line in lines if line["step"] > 6000 - 1200]
    mean = np.average([line["values"] for line in late], 0, [line["count"] for line in late])
    np.testing.assert_allclose(mean, load_summary(finished)["methods"][0]["values"])


def test_the_same_run_gives_the_same_bits(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "CHUNK_SECONDS", 0.02)  # other chunks, same numbers
    execute(small(), tmp_path / "again", quiet=True)
    assert numbers(tmp_path / "again") == numbers(finished)
    ours, theirs = (
        arrays(run_folder.newest_first(f / "checkpoints", "ccn")[0]) for f in (tmp_path / "again", finished)
    )
    np.testing.assert_equal(ours, theirs)


def stop_after(folder, steps, checkpoints=run.CHECKPOINT_SECONDS):
    """A run that is asked to stop after so many steps."""
    advance, done = Loop.advance, 0

    def count(self, many):
        nonlocal done
        advance(self, many)
        done += many
        if done >= steps:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "CHUNK_SECONDS", 0.02)
        patch.setattr(run, "CHECKPOINT_SECONDS", checkpoints)
        patch.setattr(Loop, "advance", count)
        assert main(["run", "trace-patterning", *flags(), "--out", str(folder)]) == 130
    return folder


@pytest.mark.parametrize("at", [700, 3_000, 4_321])
def test_a_stopped_run_resumes_bit_for_bit(finished, tmp_path, at):
    folder = stop_after(tmp_path / "stopped", at)
    assert not (folder / "summary.json").exists()
    assert run_folder.newest_first(folder / "checkpoints", "ccn")
    assert main(["run", "--resume", str(folder)]) == 0
    assert numbers(folder) == numbers(finished)
    ours, theirs = (arrays(run_folder.newest_first(f / "checkpoints", "ccn")[0]) for f in (folder, finished))
    np.testing.assert_equal(ours, theirs)


def flags(**fields):
    words = []
    for name, value in (SMALL | fields).items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def test_resuming_a_finished_run_changes_nothing(finished):
    before = (finished / "summary.json").read_text()
    assert main(["run", "--resume", str(finished)]) == 0
    assert (finished / "summary.json").read_text() == before


@pytest.mark.slow
def test_kill_9_then_resume_equals_an_uninterrupted_run(tmp_path):
    words = flags(steps=400_000, seeds=3)
    command = [sys.executable, "-m", "onward.cli", "run", "trace-patterning", *words]
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    killed = tmp_path / "killed"
    code = "import onward.lab.train as r; r.CHECKPOINT_SECONDS = 0.2; import sys; from onward.cli import main; sys.exit(main(sys.argv[1:]))"
    for wait in (4, 2, 3):
        begun = (killed / "config.json").exists()
        again = ["--resume", str(killed)] if begun else ["trace-patterning", *words, "--out", str(killed)]
        quiet = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        process = subprocess.Popen([sys.executable, "-c", code, "run", *again], **quiet)
        while not list(killed.glob("checkpoints/*.npz")) and process.poll() is None:
            time.sleep(0.05)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
    resume = [sys.executable, "-m", "onward.cli", "run", "--resume", str(killed)]
    subprocess.run(resume, check=True, capture_output=True)
    assert numbers(killed) == numbers(tmp_path / "whole")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run folder with two checkpoints, stopped before its end."""
    return stop_after(tmp_path_factory.mktemp("stopped") / "broken", 4_000, checkpoints=0.0)


@pytest.fixture
def interrupted(stopped, tmp_path):
    """A copy of it, to do harm to."""
    return Path(shutil.copytree(stopped, tmp_path / "broken"))


def test_a_damaged_checkpoint_falls_back_to_the_one_before(finished, interrupted, capsys):
    newest, before = run_folder.newest_first(interrupted / "checkpoints", "ccn")[:2]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 255
    newest.write_bytes(data)
    capsys.readouterr()
    assert main(["run", "--resume", str(interrupted)]) == 0
    said = capsys.readouterr().err
    assert f"{newest} is damaged" in said
    assert f"resuming at step {int(before.stem.split('-')[1]):,}" in said
    assert numbers(interrupted) == numbers(finished)


def test_a_checkpoint_of_another_configuration_is_refused(finished, tmp_path, capsys):
    folder = tmp_path / "other"
    execute(small(discount=0.8), folder, quiet=True)
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    source = run_folder.newest_first(finished / "checkpoints", "ccn")[0]
    (folder / "checkpoints" / source.name).write_bytes(source.read_bytes())
    fails(["run", "--resume", str(folder)], capsys, "another configuration")


def test_a_checkpoint_of_another_version_is_passed_over_and_named(finished, interrupted, monkeypatch, capsys):
    folder = interrupted
    monkeypatch.setattr(saving, "FORMAT", 3)
    monkeypatch.setattr(run_folder, "FORMAT", 3)
    config = json.loads((folder / "config.json").read_text()) | {"format": 3}
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["run", "--resume", str(folder)]) == 0
    assert "has format 2, this version of onward reads format 3" in capsys.readouterr().err


def test_what_cannot_be_gone_on_with_is_refused(finished, tmp_path, capsys):
    for command in (["run", "--resume"], ["report"]):
        fails([*command, str(tmp_path)], capsys, "is not a run folder")
    (tmp_path / "config.json").write_text("{")
    fails(["report", str(tmp_path)], capsys, "is damaged")
    other = ["run", "trace-patterning", "--steps", "77", "--resume", str(finished)]
    fails(other, capsys, "was run with --steps 6000, not 77")
    fails(["run", "sequential-digits", "--resume", str(finished)], capsys, "is a run of trace-patterning")


def test_a_full_disk_while_writing_a_checkpoint(finished, interrupted, monkeypatch, capsys):
    folder = interrupted
    kept = run_folder.newest_first(folder / "checkpoints", "ccn")
    real = os.fsync

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["run", "--resume", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "No space left on device; what was saved before is intact" in said
    assert "Traceback" not in said
    assert run_folder.newest_first(folder / "checkpoints", "ccn") == kept
    assert not list(folder.rglob("*.part"))
    monkeypatch.setattr(os, "fsync", real)
    assert main(["run", "--resume", str(folder)]) == 0
    assert numbers(folder) == numbers(finished)


def test_nan_ends_the_run_with_names(tmp_path, capsys):
    folder = tmp_path / "nan"
    assert main(["run", "trace-patterning", *flags(step_sizes=(1e38,), steps=3000), "--out", str(folder)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "became NaN or infinite between steps" in said
    assert "model." in said
    assert "no checkpoint yet" in said


def test_nan_names_the_last_good_checkpoint(interrupted, monkeypatch, capsys):
    folder = interrupted
    good = run_folder.newest_first(folder / "checkpoints", "ccn")[0]
    advance = Loop.advance

    def poison(self, steps):
        advance(self, steps)
        task, learned = self.state
        head = learned.model.head
        broken = jax.tree.map(lambda a: a, learned.model)
        object.__setattr__(broken, "head", jax.tree.map(lambda a: a * np.nan, head))
        self.state = (task, learned._replace(model=broken))

    monkeypatch.setattr(Loop, "advance", poison)
    assert main(["run", "--resume", str(folder)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "model.head.weight became NaN" in said
    assert str(good) in said
    assert good.exists()


def test_growth_is_due_after_so_many_steps_until_all_stages_are_there():
    growth = Growth(stages=3, every=1000)
    assert not growth.due(999, [])
    assert growth.due(1000, [])
    assert not growth.due(1900, [1000])
    assert growth.due(2000, [1000])
    assert not growth.due(9000, [1000, 2000])


def test_several_step_sizes_and_tiles(tmp_path, monkeypatch):
    monkeypatch.setattr(TracePatterningExperiment, "tile_of", lambda self, name: 3)
    execute(small(step_sizes=(1e-2, 1e-3)), tmp_path / "tiles", quiet=True)
    methods = load_summary(tmp_path / "tiles")["methods"]
    assert [m["name"] for m in methods] == ["ccn@0.01", "ccn@0.001"]
    assert [len(m["values"]) for m in methods] == [2, 2]
    assert {line["job"] for line in run.read_metrics(tmp_path / "tiles")} == {"ccn.0", "ccn.1"}
    assert methods[0]["values"] != methods[1]["values"]


def test_a_seed_does_not_depend_on_its_neighbours(tmp_path, finished):
    execute(small(seeds=1, first_seed=1), tmp_path / "one", quiet=True)
    alone = load_summary(tmp_path / "one")["methods"][0]["values"][0]
    assert alone == pytest.approx(load_summary(finished)["methods"][0]["values"][1], rel=1e-4)
