"""A job that was stopped, or killed, and gone on with leaves the bytes of one that was not."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import optax
import pytest

import onward as ow
from onward import saving
from onward.lab import folder as run_folder
from onward.lab import train as run
from onward.lab.folder import RunFolder
from onward.lab.method import Growth, Method
from onward.lab.progress import Progress
from onward.loop import Loop

pytestmark = [pytest.mark.usefixtures("compile_fast"), pytest.mark.interfaces]
STEPS, POINT = 100, 16
RUNS = ((0.05, 0), (0.01, 3))
GROWTH = Growth(stages=3, every=32)


def method(growth=GROWTH):
    model = lambda key: ow.Model(ow.Cascade(ow.Columns(ow.GRUGates(), 3, 2, key=key, spread=0.5)), ow.Categorical(2, 3))
    return Method(
        "tiny",
        ow.AnBn(),
        model,
        lambda model, step_size: ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(1.0), step_size),
        STEPS,
        lambda example, info: (info.loss, example.weight),
        "loss",
        growth=growth,
        point_every=POINT,
    )


class Killed(BaseException):
    """The end of a process, at the worst moment: nothing is written any more."""


def go(path, *, programs, stop_at=None, kill_at=None, resume=False, chunk=1e9):
    """Train both jobs, one after the other; stops and kills are counted in steps of both, from where it goes on."""
    advance, done = Loop.advance, 0

    def count(self, many):
        nonlocal done
        if kill_at is not None and done + many > kill_at:
            raise Killed
        advance(self, many)
        done += many

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "CHUNK_SECONDS", chunk)
        patch.setattr(run, "CHECKPOINT_SECONDS", 1e9)
        patch.setattr(Loop, "advance", count)
        with RunFolder(path, "run") as folder, Progress(quiet=True) as progress:
            if not resume:
                folder.begin({})
            for job in ("one", "two"):
                run.train(
                    method(), RUNS, job=job, folder=folder, digest="d", progress=progress, programs=programs,
                    stop=lambda: stop_at is not None and done >= stop_at, metrics=f"{job}.jsonl",
                )  # fmt: skip


def left(path: Path):
    """Metrics to the byte, and what the last checkpoints hold, but for clocks."""
    kept = {}
    for job in ("one", "two"):
        meta, arrays = saving.load_arrays(run_folder.newest_first(path / "checkpoints", job)[0])
        kept[job] = {k: v for k, v in meta.items() if "seconds" not in k}, {k: a.tobytes() for k, a in arrays.items()}
    return b"".join((path / f"{job}.jsonl").read_bytes() for job in kept), kept


@pytest.fixture(scope="module")
def programs():
    """Compiled once for all runs of this file."""
    return {}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, programs):
    path = tmp_path_factory.mktemp("whole") / "run"
    go(path, programs=programs)
    return path, *left(path)


def test_every_point_of_every_job_has_its_line(whole):
    _, metrics, kept = whole
    lines = [json.loads(line) for line in metrics.decode().splitlines()]
    points = [*range(POINT, STEPS, POINT), STEPS]
    assert [(line["job"], line["step"]) for line in lines] == [(job, step) for job in ("one", "two") for step in points]
    assert [line["count"] for line in lines] == 2 * np.diff([0, *points]).tolist()
    assert kept["one"][0]["grown_at"] == kept["two"][0]["grown_at"] == [32, 64]
    ends = [meta["metrics_bytes"] for meta, _ in kept.values()]
    assert sum(ends) == len(metrics)
    assert metrics[: ends[0]].count(b"\n") == len(points)


def test_values_of_a_point_are_means_over_its_steps_alone(whole, programs):
    """Against a loop of one's own, step by step."""
    loop = method(Growth()).loop(RUNS, {})
    loop.start()
    for line in [json.loads(line) for line in whole[1].decode().splitlines()][:2]:
        each = []
        for _ in range(line["count"]):
            loop.advance(1)
            each.append(loop.means()[0])
        # AnBn weighs every step alike.
        np.testing.assert_allclose(line["values"], np.mean(each, 0), rtol=1e-5)


# Before the first growth, at a point, between points; just before, at and after each growth; in the second job.
STOPS = (5, 16, 31, 32, 33, 63, 64, 70, 99, 100, 107, 164, 170)


@pytest.mark.slow
@pytest.mark.parametrize("at", STOPS)
def test_stopped_and_gone_on_leaves_the_same_bytes(whole, programs, tmp_path, at):
    path = tmp_path / "run"
    with pytest.raises(ow.OnwardError, match="stopped at"):
        go(path, programs=programs, stop_at=at, chunk=0.0)  # one step a chunk, after the first
    go(path, programs=programs, resume=True)
    assert left(path) == whole[1:]


@pytest.mark.parametrize(
    ("stop", "kill"),
    [(70, 18), (70, 60), *(pytest.param(*at, marks=pytest.mark.slow) for at in ((33, 40), (107, 60), (None, 40)))],
)
def test_killed_long_after_its_checkpoint_and_gone_on_leaves_the_same_bytes(whole, programs, tmp_path, stop, kill):
    """What was written after the checkpoint is cut away: nothing is there twice, and nothing is lost."""
    path = tmp_path / "run"
    if stop is not None:
        with pytest.raises(ow.OnwardError, match="stopped at"):
            go(path, programs=programs, stop_at=stop)
    with pytest.raises(Killed):
        go(path, programs=programs, kill_at=kill, resume=stop is not None)
    go(path, programs=programs, resume=True)
    assert left(path) == whole[1:]


LIES = {
    "another job": {"job": "one"},
    "a step too many": {"step": STEPS + 1},
    "a step that its name does not have": {"step": STEPS - 1},
    "first growth too early": {"grown_at": [10, 64]},
    "second growth too early": {"grown_at": [32, 50]},
    "a growth to come": {"grown_at": [32, STEPS + 1]},
    "a growth that is not there": {"grown_at": [32]},
    "a stage too many": {"grown_at": [32, 64, 96], "stages": 4},
    "time before the start": {"cpu_seconds": -1.0},
    "nothing compiled": {"compile_seconds": -1.0},
    "bytes before the start": {"metrics_bytes": -1},
    "a run too many": {"failed": {str(len(RUNS)): 5}},
    "a run without a number": {"failed": {"first": 5}},
    "broken later": {"failed": {"0": STEPS + 1}},
    "broken before": {"failed": {"0": -1}},
    "one of two broken later": {"failed": {"0": 5, "1": STEPS + 1}},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_checkpoint_that_says_what_cannot_be_is_passed_over(whole, programs, tmp_path, lie):
    """The one before counts, or the start: the end is the same."""
    path = tmp_path / "run"
    shutil.copytree(whole[0], path)
    newest = run_folder.newest_first(path / "checkpoints", "two")[0]
    meta, arrays = saving.load_arrays(newest)
    saving.save_arrays(newest, arrays, {name: meta[name] for name in meta if name not in saving._HEADER} | lie)
    go(path, programs=programs, resume=True)
    assert left(path) == whole[1:]
    told = saving.read_meta(newest)
    assert all(told.get(name) != value for name, value in lie.items() if name != "stages")


def test_a_job_that_is_done_is_not_touched(whole, programs):
    path, *before = whole
    go(path, programs=programs, resume=True)
    assert left(path) == tuple(before)


@pytest.mark.parametrize("which", ["record", "keep"])
def test_a_job_that_is_killed_at_its_end_has_all_its_files_when_it_is_gone_on_with(tmp_path, programs, which):
    """After the record of the end and before the last checkpoint, or after that one."""
    path, does, killed = tmp_path / "run", getattr(run.Training, which), []

    def once(self, *words):
        does(self, *words)
        if self.done and not killed:
            killed.append(which)
            raise Killed

    told = {"job": "one", "digest": "d", "stop": lambda: False, "programs": programs}
    recorded = dataclasses.replace(method(), record_steps=3)
    for begin in (True, False):
        with pytest.MonkeyPatch.context() as patch, RunFolder(path, "run") as folder, Progress(quiet=True) as progress:
            patch.setattr(run.Training, which, once)
            if begin:
                folder.begin({})
                with pytest.raises(Killed):
                    run.train(recorded, RUNS, folder=folder, progress=progress, **told)
            else:
                run.train(recorded, RUNS, folder=folder, progress=progress, **told)
    assert killed == [which]
    assert sorted(path.name for path in (path / "records").iterdir()) == ["one-end.npz", "one-start.npz"]
    assert json.loads((path / run.METRICS).read_text().splitlines()[-1])["step"] == STEPS
