"""The experiments on data sets: real or embedded, a user's own, or not there; and what each says of its data."""

import contextlib
import functools
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import mido
import numpy as np
import pytest
from matplotlib.figure import Figure

from onward.cli import main
from onward.errors import OnwardError
from onward.lab.data import datasets
from onward.lab.experiment import from_config
from onward.lab.papers import digits, piano
from onward.lab.papers.piano import PianoExperiment
from onward.lab.papers.sequential_digits import SequentialDigitsExperiment
from onward.lab.papers.sequential_mnist import SequentialMNISTExperiment
from onward.trees import parameter_count
from test_cli import fails

pytestmark = pytest.mark.usefixtures("compile_fast")

DIGITS = ["--seeds", "1", "--columns", "4", "--units", "4", "--batch", "4", "--streams", "4"]
PIANO = ["--seeds", "1", "--length", "5", "--units", "4", "--iterations", "6", "--frames", "12", "--batch", "4"]
PIANO += ["--streams", "2", "--evaluation", "2", "--held-out", "20", "--transitions", "8", "--ccn-width", "2"]
SIZES = {"columns": 4, "gru_columns": 4, "stages": 2, "ccn_width": 2, "gru_ccn_width": 2, "constructive_columns": 2}
SIZES |= {"seeds": 1, "units": 3, "batch": 2, "streams": 2, "wide_columns": 3, "stack_columns": 2, "hidden": 3}
PIANO_SIZES = {"units": 4, "ccn_width": 2, "length": 4, "batch": 2, "streams": 2, "held_out": 5, "evaluation": 2}
PIANO_SIZES |= {"transitions": 4, "seeds": 1}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """No data but what is embedded, and nowhere to leave anything but here."""
    monkeypatch.setenv("ONWARD_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


class Run:
    """A finished run: what it said, and what lies in its folder."""

    def __init__(self, out, *arguments):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main(["run", *arguments, "--out", str(out)])
        assert status == 0, said.getvalue()
        self.out, self.said = out, said.getvalue()
        self.page = (out / "report.html").read_text()
        self.summary = json.loads((out / "summary.json").read_text())
        self.fields = json.loads((out / "config.json").read_text())["fields"]
        self.rows = {row["name"]: row for row in self.summary["methods"]}

    def records(self, name):
        """Of the first seed, at the end."""
        with np.load(self.out / "records" / f"{name}-end.npz") as file:
            return {k: v[0] for k, v in file.items()}

    @property
    def text(self):
        """The page without its pictures and tags."""
        return re.sub(r"<[^>]*>", " ", re.sub(r'src="data:[^"]*"', "", self.page))


@pytest.fixture
def unpainted(monkeypatch):
    """Figures are made, and not painted."""
    monkeypatch.setattr(Figure, "savefig", lambda self, buffer, **_: buffer.write(b"<svg></svg>"))


@pytest.fixture(scope="module")
def without_data(tmp_path_factory):
    """Runs where no data are installed, made once."""
    place = tmp_path_factory.mktemp("runs")

    @functools.cache
    def run(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ONWARD_DATA", str(place / "data"))
            return Run(place / arguments[0], *arguments)

    return run


def digits_run(runs):
    return runs("sequential-mnist", "--methods", "columnar", "bptt", "tbptt-10", "--passes", "0.02", *DIGITS)


def piano_run(runs):
    return runs("piano", "--methods", "bptt", "ste", *PIANO)


# Without any data


@pytest.mark.interfaces
def test_sequential_mnist_without_mnist_reads_the_embedded_digits_and_says_so(without_data):
    run = digits_run(without_data)
    assert "MNIST is not installed (onward data fetch mnist, or onward data import mnist FOLDER)" in run.said
    assert "these are the embedded 8x8 digits" in run.said
    assert run.fields["data"] == run.summary["config"]["data"] == "digits"
    assert "359 held-out 8x8 digits" in run.text
    assert "MNIST is not installed" in run.text
    assert "MNIST digits" not in run.text
    assert {p.stem for p in (run.out / "figures").iterdir()} == {"accuracy", "cost", "reading", "confusion"}
    assert list(run.rows) == ["columnar", "bptt", "tbptt-10"]
    assert all(row["published"] is None for row in run.rows.values())
    assert "published" not in run.text
    embedded = datasets.load_digits("digits")
    usual = np.bincount(embedded.train_labels).argmax()
    majority = np.mean(embedded.test_labels == usual)
    assert run.summary["references"] == {"majority-class": pytest.approx(majority, abs=1e-12), "perfect": 1.0}
    for name, row in run.rows.items():
        answers = run.records(name)["answers"]
        assert row["values"] == [pytest.approx(np.mean(answers == embedded.test_labels), abs=1e-6)]


@pytest.mark.interfaces
def test_a_cut_longer_than_the_sequence_cuts_nothing(without_data):
    """Eight rows: the last ten steps are all of them."""
    run = digits_run(without_data)
    whole, ten, columns = (run.records(name)["probabilities"] for name in ("bptt", "tbptt-10", "columnar"))
    np.testing.assert_allclose(ten, whole, rtol=1e-4)
    assert np.abs(columns - whole).max() > 1e-3


def test_the_digits_page_is_drawn_again_as_markdown(without_data, capsys):
    run = digits_run(without_data)
    assert main(["report", str(run.out), "--markdown"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("| test_accuracy | mean |")
    assert f"- columnar, seeds 0 to 0: {run.rows['columnar']['mean']:.4f}" in said
    assert f"| *majority-class* (exact) | {run.summary['references']['majority-class']:.4f} " in said


def trivial(train, test, length):
    """The counting predictors once more, in double precision and piece by piece."""
    frames = lambda pieces: [np.concatenate([p[length - 1 + i : len(p) - 1 + i] for p in pieces]) for i in (0, 1)]
    (x, y), (asked_x, asked_y) = frames(train), frames(test)
    found = {}
    for name, last, shared in (
        ("one probability", False, True),
        ("note frequencies", False, False),
        ("repeat last, 2 numbers", True, True),
        ("repeat last, table", True, False),
    ):
        chance = np.zeros(asked_y.shape)
        for value in (0, 1) if last else (None,):
            here = np.ones(y.shape, bool) if value is None else x == value
            there = np.ones(asked_y.shape, bool) if value is None else asked_x == value
            on, many = (here & (y == 1)).sum(0), here.sum(0)
            if shared:
                on, many = on.sum(), many.sum()
            chance = np.where(there, (on + 0.5) / (many + 1), chance)
        found[name] = -np.log(np.where(asked_y == 1, chance, 1 - chance)).sum(1).mean()
    return found


@pytest.mark.interfaces
def test_piano_without_music_reads_the_generated_etudes_and_says_so(without_data):
    run = piano_run(without_data)
    for words in ("no real music is installed", "onward data fetch piano-midi", "onward data import NAME PATH"):
        assert words in run.said
    assert "embedded etudes, generated by a program" in run.said
    assert run.fields["data"] == run.summary["config"]["data"] == "etudes"
    assert "generated etudes, T = 5" in run.text
    assert "No real music is installed" in run.text
    assert {p.stem for p in (run.out / "figures").iterdir()} == {"curves", "piano-roll"}
    assert list(run.rows) == ["bptt-adam", "ste-adam"]
    assert all(row["published"] is None for row in run.rows.values())
    assert "<th>paper</th>" not in run.page
    music = datasets.load_music("etudes")
    levels = trivial(music.train, music.test, 5)
    assert run.summary["references"] == pytest.approx(levels, rel=1e-5)
    assert f"note frequencies at {levels['note frequencies']:.3f}" in run.text
    windows = sum(len(p) - 5 for p in music.test)
    assert f"over all {windows:,} test windows" in run.text
    lines = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    for name, row in run.rows.items():
        end = [line for line in lines if line["job"] == name][-1]
        assert row["values"] == end["test"]
        assert row["also"] == {name: end[name] for name in PianoExperiment.also}
        assert np.isfinite(list(row["also"].values())).all()
        # Few updates from the frequencies of the notes.
        assert row["mean"] == pytest.approx(levels["note frequencies"], rel=0.5)


@pytest.mark.interfaces
def test_samples_are_written_as_midi_and_can_be_read(without_data):
    run = piano_run(without_data)
    experiment = PianoExperiment(data="etudes", length=5)
    source = experiment.sampled(datasets.load_music("etudes").test)
    prompt = np.asarray(source.frames)[: source.prompt]
    for name in run.rows:
        record = run.records(name)
        assert record["continuation"].shape == (100, 88)
        assert record["probabilities"].shape == (len(source.frames) - 1, 88)
        assert ((record["probabilities"] > 0) & (record["probabilities"] < 1)).all()
        played = np.concatenate([prompt, record["continuation"]])
        file = mido.MidiFile(run.out / "samples" / f"{name}.mid")
        assert file.length == pytest.approx(len(played) / 4)  # eighth notes at 120 quarter notes a minute
        at, heard = 0, np.zeros_like(played)
        for message in file.tracks[0]:
            at += message.time
            if message.type in ("note_on", "note_off"):
                heard[at * 2 // file.ticks_per_beat :, message.note - 21] = message.type == "note_on"
        np.testing.assert_array_equal(heard, played)
        assert f"samples/{name}.mid" in run.text


def test_the_piano_page_is_drawn_again_as_markdown(without_data, capsys):
    run = piano_run(without_data)
    assert main(["report", str(run.out), "--markdown"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("| test | mean |")
    assert f"| {' | '.join(f'{name} (mean)' for name in PianoExperiment.also)} | step size |" in said
    row = run.rows["bptt-adam"]
    line = next(line for line in said.splitlines() if line.startswith("| bptt-adam: "))
    assert f"| {row['mean']:.4f} |" in line
    also = " | ".join(f"{row['also'][name][0]:.4f}" for name in PianoExperiment.also)
    assert f"| {also} |" in line
    assert "| *repeat last, table* (counting) |" in said
    wide = {line.count("|") for line in said.splitlines() if line.startswith("|")}
    assert len(wide) == 1, "rows of different widths"


def test_the_page_counts_the_windows_that_were_read(without_data, tmp_path, unpainted):
    run = piano_run(without_data)
    assert "best on 20 validation windows" in run.text
    few = from_config(PianoExperiment, run.fields | {"held_out": 5_000}, run.out)
    there = sum(len(p) - 5 for p in datasets.load_music("etudes").valid)
    assert there < 5_000
    assert len(few.build("bptt-adam").evaluate.starts) == there
    few.write_report(Path(shutil.copytree(run.out, tmp_path / "run")))
    assert f"best on {there:,} validation windows" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["stptt", "columnar", "ccn"])
def test_every_piano_method_runs(method, tmp_path):
    run = Run(tmp_path / "run", "piano", "--methods", method, "--optimisers", "adam", "sgd", *PIANO)
    assert list(run.rows) == [f"{method}-adam", f"{method}-sgd"]
    assert all(np.isfinite([row["values"], *row["also"].values()]).all() for row in run.rows.values())
    assert all((run.out / "samples" / f"{name}.mid").is_file() for name in run.rows)
    assert "<th>paper</th>" not in run.page


# A user's own data


def idx(array):
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_idx(place, *, train=40, test=12, height=3, width=4, seed=0):
    """Random images in IDX files."""
    random = np.random.default_rng(seed)
    place.mkdir()
    for part, count in (("train", train), ("t10k", test)):
        (place / f"{part}-images-idx3-ubyte").write_bytes(idx(random.integers(0, 256, (count, height, width))))
        (place / f"{part}-labels-idx1-ubyte").write_bytes(idx(random.integers(0, 10, count)))
    return place


def take(name, path):
    """`onward data import`, quietly."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["data", "import", name, str(path)]) == 0


def roll(steps, seed=0):
    return (np.random.default_rng(seed).random((steps, 88)) < 0.1).astype(np.uint8)


@pytest.mark.parametrize(
    ("fields", "method", "steps", "inputs"), [([], "bptt", 3, 4), (["--by", "pixels", "--every"], "columnar", 12, 1)]
)
def test_own_images(fields, method, steps, inputs, tmp_path, unpainted):
    take("tiny", write_idx(tmp_path / "idx"))
    own = datasets.load_digits("tiny")
    words = ["--data", "tiny", "--methods", method, "--passes", "1", *DIGITS, *fields]
    run = Run(tmp_path / "run", "sequential-mnist", *words)
    assert "MNIST is not installed" not in run.said + run.text
    assert run.fields["data"] == "tiny"
    assert "12 held-out images of tiny" in run.text
    assert f"their {'pixels' if '--by' in fields else 'rows'} one by one" in run.text
    assert f"after {'every' if '--every' in fields else 'the last'} step" in run.text
    usual = np.bincount(own.train_labels).argmax()
    assert run.summary["references"]["majority-class"] == pytest.approx(np.mean(own.test_labels == usual), abs=1e-12)
    for name, row in run.rows.items():
        found = run.records(name)
        assert found["probabilities"].shape == (steps, 12, 10)
        np.testing.assert_allclose(found["probabilities"].sum(-1), 1, rtol=1e-5)
        np.testing.assert_array_equal(found["probabilities"][-1].argmax(-1), found["answers"])
        assert row["values"] == [pytest.approx(np.mean(found["answers"] == own.test_labels), abs=1e-6)]
        assert row["published"] is None
    task = SequentialMNISTExperiment(data="tiny", by=run.fields["by"]).build("bptt").task
    assert (task.length, task.inputs, task.top) == (steps, inputs, 255)


@pytest.mark.interfaces
def test_own_midi_files(tmp_path, unpainted):
    pieces = [roll(14, seed) for seed in range(4)]
    for piece in pieces:
        piece[-1, 3] = 1  # a last frame of silence would not be heard
    for name, piece in zip("abcd", pieces, strict=True):
        datasets.write_midi(piece, tmp_path / "songs" / f"{name}.mid")
    take("mine", tmp_path / "songs")
    run = Run(tmp_path / "run", "piano", "--data", "mine", "--methods", "bptt", *PIANO)
    assert "etudes" not in run.said + run.text
    assert run.fields["data"] == "mine"
    assert "mine, T = 5" in run.text
    assert "over all 9 test windows" in run.text
    assert run.summary["references"] == pytest.approx(trivial(pieces[:2], pieces[3:], 5), rel=1e-5)
    # The test piece has 14 frames: 13 are the prompt.
    heard = mido.MidiFile(run.out / "samples" / "bptt-adam.mid")
    assert heard.length == pytest.approx((13 + 100) / 4)


def test_own_arrays_with_pieces_that_are_too_short(tmp_path):
    parts = {"train": [roll(9), roll(4, 1), roll(12, 2)], "valid": [roll(7, 3)], "test": [roll(8, 4), roll(5, 5)]}
    arrays = {k: np.concatenate(v) for k, v in parts.items()}
    np.savez(tmp_path / "mine.npz", **arrays, **{f"{k}_lengths": [len(p) for p in v] for k, v in parts.items()})
    take("mine", tmp_path / "mine.npz")
    experiment = PianoExperiment(data="mine", length=5, methods=("bptt",))
    experiment.check()
    assert experiment.notice == (
        "pieces without a window of 5 frames and a next one are left out of windows: "
        "1 of 3 train (number 2), 1 of 2 test (number 2)"
    )
    levels = trivial(parts["train"][::2], parts["test"][:1], 5)
    assert experiment.references() == pytest.approx(levels)
    method = experiment.build("bptt-adam")
    assert (method.task.windows, method.task.left_out) == (4 + 7, 1)
    assert np.asarray(method.evaluate.starts).tolist() == [0, 1]
    assert replace(experiment, length=4).notice.endswith("left out of windows: 1 of 3 train (number 2)")
    assert replace(experiment, length=3).notice == ""


def test_the_real_set_is_taken_where_it_is_installed(tmp_path):
    take("mnist", write_idx(tmp_path / "idx"))
    experiment = SequentialMNISTExperiment()
    assert (experiment.data, experiment.notice) == ("mnist", "")
    assert replace(experiment, data="digits").data == "digits"
    music = {"train": np.stack([roll(9), roll(9, 1)]), "valid": roll(9, 2)[None], "test": roll(9, 3)[None]}
    np.savez(tmp_path / "music.npz", **music)
    take("piano-midi", tmp_path / "music.npz")
    experiment = PianoExperiment(length=5)
    assert (experiment.data, experiment.notice) == ("piano-midi", "")
    assert replace(experiment, data="etudes").notice == "these are embedded etudes, generated by a program"


def test_nobody_says_that_an_installed_mnist_is_not(tmp_path):
    take("mnist", write_idx(tmp_path / "idx"))
    notice = SequentialMNISTExperiment(data="digits").notice
    assert "8x8 digits" in notice
    assert "not installed" not in notice


# Every method


def start(method, size, seed=0):
    """The task's state and the learner's."""

    def first(key):
        task = method.task.init(key)
        model = method.model(key)
        return task, method.learner(model, size).init(model, method.task.emit(task)[1], key=key)

    return eqx.filter_jit(first)(jax.random.key(seed))


def learn(method, size, state, steps):
    """The state after some steps; the training metric; at every step, the distance that the readout moved."""
    dynamic, static = eqx.partition(state, eqx.is_array)

    def body(dynamic, _):
        task, learned = eqx.combine(dynamic, static)
        before = learned.model.head
        task, example = method.task.emit(task)
        learned, info = method.learner(learned.model, size).step(learned, example)
        moved = sum(abs(a - b).sum() for a, b in pairs(learned.model.head, before))
        return eqx.filter((task, learned), eqx.is_array), (method.measure(example, info), moved)

    run = jax.jit(lambda d: jax.lax.scan(body, d, length=steps))
    dynamic, ((totals, weights), moved) = run(dynamic)
    return eqx.combine(dynamic, static), float(totals.sum() / weights.sum()), np.asarray(moved)


def pairs(part, other):
    """The numbers of a part of a network beside those of another."""
    leaves = (jax.tree.leaves(eqx.filter(p, eqx.is_inexact_array)) for p in (part, other))
    return list(zip(*leaves, strict=True))


def changed(part, other):
    """Whether any number differs."""
    return any(not np.array_equal(a, b) for a, b in pairs(part, other))


def grow(method, state):
    def after(state):
        task, learned = state
        return task, method.learner(learned.model, 1.0).grow(learned, method.task.emit(task)[1])

    return eqx.filter_jit(after)(state)


def takes_steps(method, size, steps):
    """It learns; a network that grows also when it has grown, and then only its last stage."""
    state = start(method, size)
    if method.growth.stages > 1:
        state = grow(method, state)
    after, metric, _ = learn(method, size, state, steps)
    old, new = state[1].model, after[1].model
    assert np.isfinite(metric)
    assert changed(old.cell, new.cell)
    assert changed(old.head, new.head)
    if method.growth.stages > 1:
        assert len(new.cell.frozen) == 1
        assert not changed(old.cell.frozen, new.cell.frozen)
        assert changed(old.cell.stage, new.cell.stage)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(eqx.filter(new, eqx.is_inexact_array)))


@pytest.mark.parametrize(
    "name",
    [pytest.param(m, marks=[pytest.mark.slow] * m.endswith(("ccn-gru", "constructive-gru"))) for m in digits.METHODS],
)
def test_every_method_on_digits_takes_steps(name):
    experiment = SequentialMNISTExperiment(methods=(name,), data="digits", **SIZES)
    experiment.check()
    method = experiment.build(name)
    takes_steps(method, experiment.default_step_size(name), 3 if "bptt" in name else 24)


@pytest.mark.parametrize("name", digits.LAYERED)
def test_only_the_frozen_network_keeps_its_lower_layer_as_it_was(name):
    experiment = SequentialMNISTExperiment(methods=(name,), data="digits", **SIZES)
    method = experiment.build(name)
    state = start(method, 1e-3)
    after = learn(method, 1e-3, state, 24)[0]
    moved = [changed(a, b) for a, b in zip(state[1].model.cell.cells, after[1].model.cell.cells, strict=True)]
    assert moved == [name != "frozen", True]


@pytest.mark.parametrize("by", ["rows", "pixels"])
@pytest.mark.parametrize("unit", ["mingru", "lru", "rtu"])
def test_columns_learn_online_and_by_bptt_from_the_same_start(unit, by):
    """Their gradients are one: of one image an update, summed over its steps."""
    experiment = SequentialMNISTExperiment(data="digits", by=by, **(SIZES | {"batch": 1, "streams": 1}))
    online, whole = (experiment.build(name) for name in (unit, f"bptt-{unit}"))
    models = [start(method, 1e-3)[1].model for method in (online, whole)]
    assert not changed(*models)
    after = [
        learn(method, 1e-3, start(method, 1e-3), steps)[0][1].model
        for method, steps in ((online, 8 if by == "rows" else 64), (whole, 1))
    ]
    for a, b in pairs(*after):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)  # of a step of 1e-3
    assert changed(models[0], after[0])


@pytest.mark.parametrize("method", piano.METHODS)
def test_every_method_on_music_takes_steps(method):
    experiment = PianoExperiment(methods=(method,), data="etudes", **PIANO_SIZES)
    experiment.check()
    (name,) = experiment.rows
    takes_steps(experiment.build(name), experiment.default_step_size(name), 3)


@pytest.mark.parametrize("name", piano.OPTIMISERS)
def test_every_optimiser_goes_down(name):
    """A parabola in each of three directions, with the step sizes that networks get."""
    updates = 60
    optimiser = PianoExperiment(data="etudes", weight_decay=0.0).optimiser(name, updates)
    size = piano.STEP_SIZES[name]

    def step(loop, _):
        point, state = loop
        change, state = optimiser.update(point, state, point)
        return (point + size * change, state), abs(change).sum()

    first = np.asarray([1.0, -2.0, 0.5], np.float32)
    (last, _), moved = jax.jit(lambda p: jax.lax.scan(step, (p, optimiser.init(p)), length=updates))(first)
    assert (abs(np.asarray(last)) < abs(first)).all()
    assert moved[0] == 0
    assert moved[-1] < 0.1 * moved.max()


@pytest.mark.parametrize(
    ("kind", "fields", "name"),
    [
        *[("digits", {"every": every}, name) for every in (False, True) for name in ("columnar", "bptt")],
        *[("music", {}, "columnar-sgd"), ("music", {}, "bptt-sgd")],
    ],
)
def test_the_step_size_falls_over_the_whole_run_and_not_before(kind, fields, name):
    if kind == "digits":
        experiment = SequentialMNISTExperiment(data="digits", passes=0.05, methods=(name,), **SIZES, **fields)
    else:
        experiment = PianoExperiment(data="etudes", iterations=24, frames=24, **PIANO_SIZES, **fields)
    method = experiment.build(name)
    _, _, moved = learn(method, experiment.default_step_size(name), start(method, 1e-3), method.steps)
    made = moved[moved > 0]
    assert np.flatnonzero(moved)[-1] >= 0.85 * len(moved), "it stops learning before the end of the run"
    assert made[-max(1, len(made) // 10) :].mean() < 0.5 * made.max(), "it does not fall"


# Sizes


@pytest.mark.parametrize("kind", [SequentialMNISTExperiment, SequentialDigitsExperiment])
@pytest.mark.parametrize("name", ["ccn", "constructive"])
def test_growing_networks_reach_their_size(kind, name):
    experiment = kind(data="digits", methods=(name,))
    method = experiment.build(name)
    grown: list[int] = []
    for step in range(method.point_every, method.steps, method.point_every):
        grown += [step] * method.growth.due(step, grown)
    assert len(grown) == method.growth.stages - 1
    stage = method.steps / method.growth.stages
    assert np.diff([0, *grown, method.steps]).min() > 0.5 * stage


@pytest.fixture
def random_28(tmp_path):
    take("random", write_idx(tmp_path / "idx28", train=3, test=2, height=28, width=28))
    return SequentialMNISTExperiment(data="random")


def grown_cell(method, key):
    """A network when fully grown, in shapes only, and the parameters of all its stages."""
    cell = eqx.filter_eval_shape(lambda: method.model(key).cell)
    carry, total = eqx.filter_eval_shape(lambda cell: cell.init(), cell), parameter_count_of(cell)
    for _ in range(method.growth.stages - 1):
        cell, carry = eqx.filter_eval_shape(lambda cell, carry: cell.grow(carry, key=key), cell, carry)
        total += parameter_count_of(cell)
    return cell, total


def parameter_count_of(shapes):
    return parameter_count(jax.tree.map(lambda a: np.zeros(a.shape, np.float32), shapes))


def test_networks_on_rows_of_28_pixels_have_as_many_parameters(random_28, key):
    dense = [grown_cell(random_28.build(name), key)[1] for name in ("bptt", "snap-1", "uoro", "rtrl")]
    assert set(dense) == {4 * 32 * (28 + 32 + 1)} == {7808}
    cell, total = grown_cell(random_28.build("columnar"), key)
    assert (cell.feature_count, total) == (63, 4 * (28 + 2) * 63) == (63, 7560)


@pytest.mark.parametrize("name", ["columnar-gru", "ccn", "ccn-gru", "constructive"])
def test_columns_on_rows_of_28_pixels_have_as_many_parameters(name, random_28, key):
    """Of every stage and column: each gate's weights of what it reads, its recurrent weight, its bias."""
    stages, width = random_28.shape(name)
    cell, total = grown_cell(random_28.build(name), key)
    assert cell.feature_count == stages * width
    gates = 3 if name.endswith("-gru") else 4
    assert total == sum(gates * width * (28 + stage * width + 2) for stage in range(stages))
    assert 7500 <= total <= 7900


# Published numbers


@pytest.mark.parametrize(
    ("length", "units", "expected"),
    [
        (50, 100, {("ste", "adagrad"): 13.34, ("ste", "rms"): 13.17, ("stptt", "adagrad"): 9.69}),
        (50, 100, {("stptt", "nesterov"): 12.44, ("stptt", "sgd"): 12.44, ("stptt", "rms"): 9.86}),
        (50, 100, {("bptt", "adam"): None, ("ste", "adam"): None, ("ccn", "adagrad"): None}),
        (100, 300, {("bptt", "adam"): 11.22, ("ste", "adam"): 13.25, ("stptt", "adam"): 9.45, ("ccn", "adam"): None}),
        (100, 100, {("bptt", "adagrad"): None, ("stptt", "adagrad"): None}),
        (50, 300, {("ste", "adagrad"): None, ("stptt", "sgd"): None}),
    ],
)
def test_the_papers_numbers_stand_beside_its_setting_only(length, units, expected):
    for data in ("piano-midi", "etudes", "jsb"):
        experiment = PianoExperiment(data=data, length=length, units=units)
        for row, number in expected.items():
            assert experiment.published(*row) == (number if data == "piano-midi" else None)


def test_published_accuracies_stand_beside_rows_of_mnist_only(tmp_path):
    take("mnist", write_idx(tmp_path / "idx"))
    take("other", tmp_path / "idx")
    rows = SequentialMNISTExperiment(data="mnist")
    assert rows.build("bptt").published == 0.976
    assert rows.build("columnar").published == 0.918
    assert rows.build("uoro").published is None
    assert replace(rows, by="pixels").build("bptt").published is None
    assert replace(rows, data="other").build("bptt").published is None
    assert SequentialDigitsExperiment(data="mnist").build("bptt").published is None


# Mistakes


def test_a_window_longer_than_every_piece_names_the_longest(capsys, tmp_path):
    longest = max(len(p) for p in datasets.load_music("etudes").train)
    words = "--length 5000: no train piece of etudes", f"the longest of 60 has {longest} frames"
    fails(["run", "piano", "--length", "5000"], capsys, *words)
    # As long as the longest test piece: the frame after it is missing.
    longest = {k: max(map(len, getattr(datasets.load_music("etudes"), k))) for k in ("train", "valid", "test")}
    split, length = min(longest.items(), key=lambda item: item[1])
    fails(["run", "piano", "--length", str(length)], capsys, f"no {split} piece of etudes")
    PianoExperiment(length=length - 1, methods=("bptt",)).check()
    assert not list(tmp_path.iterdir())


def test_resuming_without_the_data_says_so_and_loses_nothing(tmp_path, folder, capsys, unpainted):
    take("tiny", write_idx(tmp_path / "idx"))
    out = tmp_path / "run"
    fields = ["--data", "tiny", "--methods", "bptt", "--passes", "1", *DIGITS]
    run = Run(out, "sequential-mnist", *fields)
    (out / "summary.json").unlink()  # as if it had been stopped
    (folder / "tiny.npz").rename(tmp_path / "away.npz")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    for command, words in (["run", "--resume"], ("unknown data set 'tiny'", "onward data import")), (["report"], ()):
        fails([*command, str(out)], capsys, *words)
        assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    (tmp_path / "away.npz").rename(folder / "tiny.npz")
    assert main(["run", "--resume", str(out)]) == 0
    again = json.loads((out / "summary.json").read_text())
    assert [m["values"] for m in again["methods"]] == [m["values"] for m in run.summary["methods"]]
    capsys.readouterr()
    with np.load(folder / "tiny.npz") as file:
        other = dict(file)
    other["train_images"][0] ^= 1
    np.savez(folder / "tiny.npz", **other)
    fails(["run", "--resume", str(out)], capsys, "another configuration, or of other data")
    (folder / "tiny.npz").unlink()
    fails(["report", str(out)], capsys, "unknown data set 'tiny'", "onward data import")


def test_a_damaged_set_is_named(tmp_path, folder, capsys):
    take("tiny", write_idx(tmp_path / "idx"))
    (folder / "tiny.npz").write_bytes(b"PK")
    fails(["run", "sequential-mnist", "--data", "tiny"], capsys, "damaged", "onward data import tiny PATH")
    with pytest.raises(OnwardError, match="damaged"):
        SequentialMNISTExperiment(data="tiny").check()


@pytest.mark.slow
def test_switches_that_are_on_can_be_turned_off(tmp_path, capsys, unpainted):
    run = Run(tmp_path / "p", "piano", "--methods", "bptt", "--no-every", *PIANO)
    assert run.fields["every"] is False
    assert run.rows["bptt-adam"]["values"][0] > 0
    fails(["run", "piano", "--no-evry"], capsys, "did you mean --no-every?")
    fails(["run", "piano", "--no-units"], capsys, "has no field --no-units")
