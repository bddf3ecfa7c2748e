"""Several targets of very different sizes: an interval each, no error pooled over them, all of them in the report."""

import csv
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onward import saving
from onward.cli import main
from onward.errors import OnwardError
from onward.lab.folder import CONFIG
from onward.rows import learn, report
from onward.rows.learn import load_options
from onward.rows.options import Learn
from onward.rows.predictions import Format
from onward.rows.scores import CONTESTANTS, by_target, each_target
from onward.rows.session import Session
from onward.rows.sources import Rows
from onward.rows.stream.density import Density, interval, of_each
from onward.rows.summary import as_lines, load_summary

pytestmark = pytest.mark.usefixtures("compile_fast")

SIZES = {"small": 1e-3, "often": 1.0, "large": 1e6}
MEANS = {"large": 50}  # in its size; of others 2: what is usual of each is another share of its first value
PLAIN = ["target", "prediction", "low", "high", "error", "strange"]  # what a single target's columns are called
SMALL = {"network": "columnar", "units": 2, "every": 100, "checkpoint_seconds": 1e9}


def options(targets, **fields):
    return Learn(**({"target": tuple(targets)} | SMALL | fields))


def cells_of(rows, targets, seed=0, noise=0.3):
    """A sine of 17 rows and noise a target, in its size; half of `often` is missing."""
    rng = np.random.default_rng(seed)
    cells = {"x": rng.normal(size=rows).tolist()}
    for phase, name in enumerate(targets):
        values = SIZES.get(name, 1.0) * (
            MEANS.get(name, 2) + np.sin(np.arange(rows) / 2.7 + phase) + noise * rng.normal(size=rows)
        )
        values = [float(f"{value:.7g}") for value in values]
        cells[name] = [
            None if name == "often" and gap < 0.5 else v for v, gap in zip(values, rng.random(rows), strict=True)
        ]
    return cells


def write(file, cells):
    text = lambda value: "" if value is None else repr(value)
    with open(file, "w", newline="") as out:
        csv.writer(out).writerows([[*cells], *(map(text, row) for row in zip(*cells.values(), strict=True))])


def folder_of(tmp_path, cells, chosen, draw=None):
    write(tmp_path / "data.csv", cells)
    learn.learn(chosen, str(tmp_path / "data.csv"), tmp_path / "out", report=draw)
    return tmp_path / "out"


def windows_of(folder):
    return list(map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()))


def table_of(folder):
    with open(folder / "predictions.csv", newline="") as file:
        header, *lines = csv.reader(file)
    numbers = [[float(cell or "nan") for cell in line[2:-1]] for line in lines]
    return header, dict(zip(header[2:-1], np.array(numbers).T, strict=True))


# What is written


@pytest.mark.parametrize(
    ("names", "horizon"),
    [("small often large", 1), pytest.param("small large", 0, marks=pytest.mark.slow)]
    + [pytest.param("small often large", horizon, marks=pytest.mark.slow) for horizon in (0, 5)],
)
def test_every_target_is_scored_by_itself(tmp_path, names, horizon):
    """Errors, windows, coverage and width, computed anew from the columns of each target in predictions.csv."""
    targets, rows = names.split(), 350
    folder = folder_of(tmp_path, cells_of(rows, targets), options(targets, horizon=horizon))
    header, columns = table_of(folder)
    parts = ("", " prediction", " low", " high", " error")
    assert header == ["row", "time", *(name + part for name in targets for part in parts), "strange"]
    assert len(columns[targets[0]]) == rows + horizon
    found, windows = load_summary(folder), windows_of(folder)
    assert [window["rows"] for window in windows] == [100, 200, 300]
    first = max(horizon, 1)
    for i, name in enumerate(targets):
        truth, said, low, high, error = (columns[name + part][:rows] for part in parts)
        np.testing.assert_allclose(error, said - truth, atol=2e-5 * SIZES[name])
        late = np.isfinite(error) & (np.arange(rows) >= 150)
        assert 2 < (high - low)[late].mean() / np.abs(error[late]).mean() < 20  # of a normal law 4.1
        assert np.isfinite(columns[f"{name} low"][rows:]).all()  # of what is still to come as well
        known = np.isfinite(truth) & np.isfinite(said)
        inside = (low <= truth) & (truth <= high)
        part = found["interval"][name]
        assert part["rows"] == known.sum()
        assert part["inside"] == pytest.approx(inside[known].mean(), abs=2 / known.sum())
        assert part["size"] == pytest.approx((high - low)[known].mean(), rel=1e-5)
        scored = known & (np.arange(rows) >= first)
        while scored[: (at := np.argmax(scored)) + 1].any() and not np.isfinite(truth[: max(at - first + 1, 0)]).any():
            scored[at] = False  # the last value is not known yet
        assert found["scored"][name] == scored.sum()
        assert found["mean absolute error"][0][i] == pytest.approx(np.abs(error[scored]).mean(), rel=1e-5)
        for window in windows:
            within = scored & (np.arange(rows) < window["rows"]) & (np.arange(rows) >= window["rows"] - 100)
            assert window["count"][name] == within.sum()
            assert window["onward"][name] == pytest.approx(np.abs(error[within]).mean(), rel=1e-5)


def test_another_unit_of_one_target_changes_nothing_but_its_own_figures(tmp_path):
    """In units 2^20 times as small all its numbers are 2^20 times as large, to the last bit; others are what they were."""
    targets, found = ["small", "often", "large"], []
    for factor in (1.0, 2.0**20):
        cells = cells_of(260, targets)
        cells["large"] = [value * factor for value in cells["large"]]
        session = Session(options(targets), "data.csv", print, block=64)
        taken(session, cells, 0, 260)
        found.append((session, [json.loads(line) for line in session.metrics]))
    (session, windows), (other, more) = found
    assert len(windows) == 2
    by = np.array([1, 1, 2.0**20])
    for one, two in zip(windows, more, strict=True):
        assert one["count"] == two["count"]
        for name in CONTESTANTS:
            np.testing.assert_array_equal(np.array(list(one[name].values())) * by, list(two[name].values()))
    np.testing.assert_array_equal(session.scores.total[..., 1] * by, other.scores.total[..., 1])
    np.testing.assert_array_equal(session.scores.extra[:, 1], other.scores.extra[:, 1])
    np.testing.assert_array_equal(session.scores.extra[:, 2] * by, other.scores.extra[:, 2])


@pytest.mark.slow
@pytest.mark.parametrize("horizon", [0, 1, 5])
@pytest.mark.parametrize("share", [0.9, 0.5])
def test_the_interval_of_each_target_holds_its_share(horizon, share):
    """Of white noise, in each size: the share within four standard errors or 0.04, the width the normal law's for the
    errors of that target."""
    targets, rows = ["small", "often", "large"], 2600
    cells = cells_of(rows, targets, noise=0.3)
    noise = np.random.default_rng(9).normal(size=(3, rows))
    for name, values in zip(targets, noise, strict=True):
        missing = cells[name]
        cells[name] = [
            None if m is None else SIZES[name] * (MEANS.get(name, 2) + 0.3 * v)
            for m, v in zip(missing, values, strict=True)
        ]
    session = Session(options(targets, horizon=horizon, interval=share), "data.csv", print, block=512)
    taken(session, cells, 0, 600)
    session.scores.extra[:] = session.scores.total[:] = 0
    taken(session, cells, 600, rows)
    normal = {0.9: 1.645, 0.5: 0.674}[share]
    found = zip(session.scores.extra, session.scores.total[0], targets, strict=True)
    for (count, inside, size), (scored, _, squares), name in found:
        assert inside / count == pytest.approx(share, abs=max(0.04, 4 * np.sqrt(share * (1 - share) / count)))
        assert size / count == pytest.approx(2 * normal * np.sqrt(squares / scored), rel=0.2), name


def test_the_interval_after_a_strange_target_holds_its_new_level_and_only_its_own(tmp_path):
    """Row 121 of one target is far off: the next interval of that target reaches it, that of the other is wider alone."""
    targets, ends = ["small", "large"], {}
    for strange in ("", *targets):
        cells = cells_of(121, targets)
        if strange:
            cells[strange][120] += 40 * SIZES[strange]
        session = Session(options(targets), "data.csv", print, block=64)
        taken(session, cells, 0, 121)
        said = session.waiting.extra[-1].reshape(2, 2)
        ends[strange] = {
            name: each / SIZES[name] - MEANS.get(name, 2) for name, each in zip(targets, said, strict=True)
        }
    for name in targets:
        for strange in targets:
            low, high = ends[strange][name]
            assert (high > 37) == (name == strange), (name, strange)
            assert high - low > 1.5 * np.ptp(ends[""][name]), (name, strange)
            assert low < 1


# Streams, restarts, growth


def taken(session, cells, start, stop, piece=None):
    for at in range(start, stop, piece or stop - start):
        end = min(stop, at + piece) if piece else stop
        part = {name: column[at:end] for name, column in cells.items()}
        session.take(Rows(end, range(at + 1, end + 1), part, {}))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"network": "ccn", "units": 4, "stage_rows": 60}, marks=pytest.mark.interfaces),
        pytest.param({"horizon": 0}, marks=pytest.mark.slow),
        pytest.param({"horizon": 5}, marks=pytest.mark.slow),
    ],
)
def test_restarts_blocks_growth_and_new_columns_change_no_answer(tmp_path, fields):
    """Saved and loaded in the middle, in blocks of other sizes, beyond a growth and new columns: the same lines."""
    targets = ["often", "large"]
    chosen, cells = options(targets, **fields), cells_of(150, targets)
    cells |= {f"new{i}": [None] * 70 + [float(j % (i + 3)) for j in range(80)] for i in range(9)}
    made = lambda: Session(chosen, "data.csv", print, block=32)
    whole, parted, said = made(), made(), ""
    taken(whole, cells, 0, 150, 32)
    taken(parted, cells, 0, 65, 13)
    lines = parted.lines
    parted.save(tmp_path)
    again = made()
    again.load(tmp_path / "learn-000000000065.npz")
    for at in range(65, 150, 7):
        taken(again, cells, at, min(at + 7, 150))
        said += again.format.answers(again.answered, chosen.lag, [])
    assert "".join(lines + again.lines) == "".join(whole.lines)
    assert again.future() == whole.future()
    for part, other in zip(vars(again.scores).values(), vars(whole.scores).values(), strict=True):
        np.testing.assert_array_equal(part, other)
    # What a stream is answered stands in the file, where its row comes.
    form = again.format
    asked = form.stream_header(ahead=True).strip().split(",")
    parts = ("prediction", "low", "high")
    assert asked == ["of_row", *(f"{name} {part}" for name in targets for part in parts)]
    kept = {line[0]: line for line in csv.reader(("".join(again.lines) + again.future()).splitlines())}
    for line in csv.reader(said.splitlines()):
        told = dict(zip(form.header, kept[line[0]], strict=True))
        assert line[1:] == [told[name] for name in asked[1:]]


def test_a_damaged_checkpoint_of_several_targets_is_refused(tmp_path):
    targets = ["small", "large"]
    session = Session(options(targets), "data.csv", print, block=32)
    taken(session, cells_of(40, targets), 0, 40)
    session.save(tmp_path)
    file = tmp_path / "learn-000000000040.npz"
    meta, arrays = saving.load_arrays(file)
    meta = {
        name: value for name, value in meta.items() if name not in ("format", "onward")
    }  # the file says them itself
    wrong = [
        (meta | {"constant": [True]}, arrays),
        (meta | {"first_target": [1.0, 2.0, 3.0]}, arrays),
        (meta, arrays | {"scores.extra": np.zeros((1, 3))}),
        (meta, {name: array for name, array in arrays.items() if name != "scores.extra"}),
    ]
    for change, kept in wrong:
        saving.save_arrays(file, kept, change)
        with pytest.raises(saving.Unreadable):
            Session(options(targets), "data.csv", print, block=32).load(file)


# The densities


@pytest.mark.parametrize("targets", [1, 3])
def test_the_density_of_each_target_is_what_it_would_be_alone(targets):
    """Learned and asked side by side, and one after the other."""
    rng, features = np.random.default_rng(1), 5
    many, alone = Density.each(targets, features, 3), [Density.start(features, 3) for _ in range(targets)]
    learned = jax.jit(lambda many, z, error: of_each(lambda one, e: one.learn(z, e), many, error))
    single = jax.jit(Density.learn)
    for i in range(40):
        z = jnp.asarray(rng.normal(size=features), jnp.float32)
        error = jnp.asarray(rng.normal(size=targets) * 2.0 ** np.arange(targets), jnp.float32)
        error = jnp.where(jnp.arange(targets) == i % 4, jnp.nan, error)
        many = learned(many, z, error)
        alone = [single(one, z, e) for one, e in zip(alone, error, strict=True)]
    said, unit = jnp.arange(targets) * 10.0, 10.0 ** jnp.arange(targets)
    other = jnp.where(jnp.arange(targets) == 1, 7.0, jnp.nan)
    around = lambda one, *rest: one.around(z, *rest[:2], False, rest[2])
    found = of_each(around, many, said, unit, other)
    assert found.shape == (targets, 9)
    for i, one in enumerate(alone):
        np.testing.assert_allclose(found[i], one.around(z, said[i], unit[i], False, other[i]), rtol=2e-5, atol=1e-5)
    assert targets == 1 or not np.allclose(found[0], found[2])
    ends = interval(np.asarray(found, np.float32), np.asarray(said, float), 0.9, 2)
    assert (ends[:, 0] <= said).all()
    assert (said <= ends[:, 1]).all()


@pytest.mark.parametrize(
    "horizon", [pytest.param(1, marks=pytest.mark.interfaces), pytest.param(0, marks=pytest.mark.slow)]
)
def test_a_density_learns_where_its_own_target_is_known_and_survives_growth(horizon):
    targets, cells = ["often", "small", "large"], cells_of(60, ["often", "small", "large"])
    cells["small"][40:50] = [None] * 10
    growing = {"network": "ccn", "units": 4, "stage_rows": 45}
    session = Session(options(targets, horizon=horizon, **growing), "data.csv", print, block=8)
    taken(session, cells, 0, 30, 6)
    densities = lambda: {name: a for name, a in session.learner.save()[0].items() if name.startswith("density")}
    features = densities()["density.head.weight"].shape[2]
    before = densities()
    for row in range(30, 55):
        taken(session, cells, row, row + 1)
        after = densities()
        for i, name in enumerate(targets):
            moves = [after[array][i, ..., : old.shape[-1]] - old[i] for array, old in before.items() if old.ndim > 1]
            moved = [bool(move.any()) for move in moves]
            assert all(moved) == any(moved) == (cells[name][row] is not None), (row, name)
        # How often each has learned: nothing begins anew.
        counts = [
            (after[array] - old).tolist() for array, old in before.items() if old.ndim == 1 and "usual" not in array
        ]
        assert counts == [[cells[name][row] is not None for name in targets]] * 2
        usual = after["density.usual"] != before["density.usual"]
        assert usual.tolist() == counts[0]
        before = after
    assert before["density.head.weight"].shape[2] > features


# What cannot be served


@pytest.mark.parametrize("task", ["classification", "return"])
def test_an_interval_that_cannot_be_served_is_refused(tmp_path, capsys, task, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("data.csv", cells_of(30, ["y"]))
    for share in ("0.9", "0.5"):
        assert main(["learn", "data.csv", "--target", "y", "--task", task, "--interval", share]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"onward: --interval {share} is for numbers, and --task is {task}: leave --interval out")
        assert not Path("runs").exists()
    for fields in ({}, {"interval": 0.0}):  # nothing was asked for, or none
        chosen = options(["y"], task=task, **fields)
        chosen.check()
        chosen.check_served()
        assert (chosen.coverage, chosen.recipe.components) == (0, 0)


def test_a_folder_of_an_older_version_is_read(tmp_path):
    """Its config.json has an interval of 0.9 whatever the task."""
    out = folder_of(tmp_path, {"y": [i % 3 for i in range(40)]}, options(["y"], task="classification"))
    content = json.loads((out / CONFIG).read_text())
    assert content["fields"]["interval"] is None
    for task, coverage in (("regression", 0.9), ("classification", 0), ("return", 0)):
        fields = content["fields"] | {"interval": 0.9, "task": task}
        (out / CONFIG).write_text(json.dumps(content | {"fields": fields}))
        assert load_options(out)[0].coverage == coverage


# The report


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A folder of three targets; the third is known once, before anything could be scored."""
    cells = cells_of(320, ["small", "large"]) | {"never": [4.0] + [None] * 319}
    return folder_of(tmp_path_factory.mktemp("learned"), cells, options(["small", "large", "never"]))


def test_the_report_tells_of_every_target(learned, capsys, monkeypatch):
    pages = []
    monkeypatch.setattr("onward.lab.page.write_page", lambda folder, **parts: pages.append(parts))
    report.write_report(learned)
    ((*_, lead, parts, _),) = [tuple(page.values()) for page in pages]
    found = load_summary(learned)
    for i, name in enumerate(("small", "large")):
        assert f"Onward's mean absolute error of {name} over 319 rows is" in lead
        assert f"{found['mean absolute error'][0][i]:.4g}" in lead
    assert found["constant"] == {"small": False, "large": False, "never": True}
    assert "No row of never could be scored" in lead
    pictures = {part.name: part.figure for part in parts if isinstance(part, report.Picture)}
    for figure in pictures.values():
        assert [axes.get_title(loc="left") for axes in figure.axes] == ["small", "large", "never"]
        assert len({axes.get_xlim() for axes in figure.axes}) == 1
    for axes, name in zip(pictures["last-rows"].axes, ("small", "large"), strict=False):
        assert len(axes.collections) == 1
        assert 0 < axes.lines[0].get_ydata()[-2] / SIZES[name] - MEANS.get(name, 2) + 2 < 5
    lists = [" ".join(part) for part in parts if isinstance(part, list)]
    texts = " ".join([*(part for part in parts if isinstance(part, str)), *lists])
    for name in ("small", "large"):
        part = found["interval"][name]
        assert f"{part['inside']:.1%} of {name} (mean width {part['size']:.4g})" in texts
    assert "no row of the target 'never' could be scored" in texts
    headers = [part.header[0] for part in parts if isinstance(part, report.Table)]
    experts = ["expert of small", "expert of large"]
    assert headers == ["small", "large", "never", "window", "window", "window", *experts, "column"]
    assert main(["report", str(learned), "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("| small | mean absolute error |")


def test_the_terminal_has_a_block_a_target(learned):
    lines, found = as_lines(learned), load_summary(learned)
    assert [line for line in lines if not line.startswith(" ")] == ["small:", "large:", "never: no row could be scored"]
    assert lines[1:6] == sorted(lines[1:6], key=lambda line: float(line.split()[-1]))
    assert f"{found['mean absolute error'][0][1]:.5g}" in next(line for line in lines[7:] if "onward" in line)


def test_a_window_or_a_summary_that_lacks_a_target_is_refused(learned, tmp_path):
    for name in ("metrics.jsonl", "summary.json"):
        text = (learned / name).read_text()
        content = json.loads(text.splitlines()[0]) if name == "metrics.jsonl" else json.loads(text)
        names = [*content["mean" if name == "metrics.jsonl" else "scored"]]
        read = (
            load_summary if name == "summary.json" else lambda folder, names=names: report.read_windows(folder, names)
        )
        keys = ("count", "onward", "mean") if name == "metrics.jsonl" else ("scored", "constant", "interval")
        for key in keys:
            for bad in (0.5, {}, dict(list(content[key].items())[1:]), dict.fromkeys(content[key], "1")):
                changed = json.dumps(content | {key: bad}) + "\n"
                (tmp_path / name).write_text(changed)
                with pytest.raises(OnwardError, match=key):
                    read(tmp_path)


def test_what_is_by_target_is_plain_for_a_single_one():
    assert (by_target(["a"], [2.5]), by_target(["a", "b"], [2.5, float("nan")])) == (2.5, {"a": 2.5, "b": None})
    for names, values in ((["a"], [3]), (["b", "a"], [3, 4])):
        assert each_target(names, by_target(names, values)) == values
    assert Format(["a"], 2, classes=False).header == ["row", "time", *PLAIN]
