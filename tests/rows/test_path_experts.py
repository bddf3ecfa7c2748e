"""Every row up to the horizon: what is said of each, beside what is said of it alone, and how it is kept."""

import csv
import dataclasses
import io
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onward.cli import main
from onward.errors import OnwardError
from onward.rows import learn, report
from onward.rows.baselines import Baselines
from onward.rows.calendar import WIDTH, Calendar
from onward.rows.options import Learn
from onward.rows.path_figures import ends, narrowed
from onward.rows.scores import CONTESTANTS
from onward.rows.session import Session
from onward.rows.sources import Rows
from onward.rows.stream import programs
from onward.rows.stream.experts import AHEAD, Experts
from onward.rows.stream.mixture import Asked, Heard, Sizes
from onward.rows.stream.moments import Running
from onward.rows.stream.past import Past
from onward.rows.stream.recipe import RowRecipe
from onward.rows.stream.step import Stream
from onward.rows.summary import SUMMARY, as_lines, load_summary
from onward.saving import Unreadable

pytestmark = pytest.mark.usefixtures("compile_fast")

EPOCH, HOUR = 1.7e9, 3600.0
SMALL = {"target": ("y",), "network": "columnar", "units": 2, "every": 100, "checkpoint_seconds": 1e9}
ALL = ("network", "lags", "calendar", "last", "mean", "day", "stack")
nan = np.nan


def options(**fields):
    return Learn(**(SMALL | {"horizon": 4, "path": True, "experts": ("network", "last")} | fields))


def series(rows, seed=0, columns=("y",)):
    rng = np.random.default_rng(seed)
    cells = {"time": [f"2024-01-{1 + i // 24:02d} {i % 24:02d}:00:00" for i in range(rows)]}
    for k, name in enumerate(columns):
        values = 10.0**k * (np.sin(np.arange(rows) / 4 + k) + 0.1 * rng.normal(size=rows) + 3)
        cells[name] = [float(f"{value:.6g}") for value in values]
    return cells


def write(file, cells):
    with open(file, "w", newline="") as out:
        csv.writer(out).writerows(
            [[*cells], *(["" if c is None else c for c in row] for row in zip(*cells.values(), strict=False))]
        )


def table(folder):
    with open(folder / "predictions.csv", newline="") as file:
        header, *lines = csv.reader(file)
    rows = [int(line[0]) for line in lines]
    numbers = np.array([[float(cell or "nan") for cell in line[2:-1]] for line in lines])
    return rows, dict(zip(header[2:-1], numbers.T, strict=True))


def taken(chosen, cells, sizes):
    """A session that has taken rows in blocks of these sizes."""
    session, start = Session(chosen, "rows", lambda text: None, block=64), 0
    for size in sizes:
        part = {name: column[start : start + size] for name, column in cells.items()}
        session.take(Rows(start + size, list(range(start + 1, start + size + 1)), part, {}))
        start += size
    return session


# Its parts, against what is predicted so many rows ahead alone.


@pytest.mark.parametrize("period", [None, 5, 12])
def test_baselines_of_a_path_are_those_of_each_step(period):
    """Of step j what `Baselines(lag=j)` says, of the rows as they are known j rows before the row that is predicted."""
    rng, lag, rows = np.random.default_rng(1), 6, 80
    y = rng.normal(size=(rows, 2))
    y[rng.random(y.shape) < 0.2] = nan
    found = Baselines(2, lag, period=period or 2, path=True).score(y).reshape(3, rows, 2, lag)
    for j in range(1, lag + 1):
        alone = Baselines(2, j, period=period or 2).score(y)
        late = lag - j  # the path of a row is judged when all of it has come
        np.testing.assert_array_equal(found[:, late:, :, j - 1], alone[:, : rows - late])


def test_a_season_as_long_as_all_that_is_kept_is_none():
    """As a checkpoint may say: of the first steps it would reach beyond what is remembered."""
    one = Baselines(1, 3, path=True)
    one.restore(one.arrays() | {"scalars": np.array([0, one.memory])})
    said = one.score(np.random.default_rng(0).normal(size=(50, 1)))
    assert said.shape == (3, 50, 3)
    np.testing.assert_array_equal(said[1, 10:, :2], said[0, 10:, :2])


@pytest.mark.parametrize("dated", [True, False])
def test_a_calendar_of_a_path_is_that_of_each_step(dated):
    moments = EPOCH + HOUR * np.arange(400.0) if dated else np.full(400, nan)
    periods = np.where(np.arange(400) > 200, 10, 0)
    whole = Calendar(30, path=True)
    found = np.concatenate(
        [whole.at(moments[:150], periods[:150], dated=dated), whole.at(moments[150:], periods[150:], dated=dated)]
    )
    for j in range(1, 31):
        alone = Calendar(j).at(moments, periods, dated=dated)
        np.testing.assert_array_equal(found[:, (j - 1) * WIDTH : j * WIDTH], alone)


@pytest.mark.parametrize("span", [1, 5, 24])
def test_the_past_of_a_step_is_that_of_its_lag(span):
    rng, n = np.random.default_rng(2), 400
    at = jnp.asarray(Calendar(span).at(EPOCH + HOUR * np.arange(float(n)), np.zeros(n, int), dated=True))
    y = jnp.asarray(rng.normal(size=n), jnp.float32)

    def seen(start):
        def body(past, row):
            past = past.see(row[0], jnp.float32(0), row[1])
            return past, past.seasons

        return jax.jit(lambda y, at: jax.lax.scan(body, start, (y, at))[1])(y, at)

    alone, within = seen(Past.start(span)), seen(Past.start(24, jnp.int32(span)))
    assert np.isfinite(alone).any()
    np.testing.assert_array_equal(alone, within)
    if span < 24:  # planted: the ring's own length in place of the step
        assert not np.array_equal(alone, seen(Past.start(24)), equal_nan=True)


def answers(recipe, rows, path):
    """The answers of a stream to rows of an hourly clock, (rows, targets): y is read and predicted."""
    stream = Stream(recipe, 1)
    n, span = len(rows), recipe.lag
    calendar = Calendar(span, path=path).at(EPOCH + HOUR * np.arange(float(n)), np.zeros(n, int), dated=True)
    padded = np.concatenate([np.full(span - 1, nan), rows])
    arrived = np.lib.stride_tricks.sliding_window_view(padded, span) if path else rows[:, None]
    y = np.repeat(rows[:, None], span if path else 1, 1)

    def body(state, row):
        x, y, arrived, at = row
        state, answer = stream.step(state, x, jnp.zeros(1, bool), y, arrived, at)
        return state, answer[: recipe.targets]

    given = [np.asarray(a, np.float32) for a in (rows[:, None], y, arrived)]
    return np.asarray(jax.jit(lambda s, r: jax.lax.scan(body, s, r)[1])(stream.init(), (*given, calendar)))


RECIPE = RowRecipe(units=2, experts=ALL)
PATH = dataclasses.replace(RECIPE, targets=5, path=5, horizon=5, lag=5)


def hourly(n=300, seed=0):
    rng = np.random.default_rng(seed)
    return 3 + np.sin(2 * np.pi * np.arange(n) / 24) + 0.1 * rng.normal(size=n)


def mixture(rows, path, span):
    """What experts that read no network say of rows of an hourly clock, (rows, targets)."""
    targets, n = (span if path else 1), len(rows)
    at = Calendar(span, path=path).at(EPOCH + HOUR * np.arange(float(n)), np.zeros(n, int), dated=True)
    padded = np.concatenate([np.full(span - 1, nan), rows])
    arrived = np.lib.stride_tricks.sliding_window_view(padded, span) if path else rows[:, None]
    zeros, awake, moments = jnp.zeros(targets), jnp.ones(len(AHEAD), bool), Running.start(targets)

    def body(one, row):
        t, y, arrived, at = row
        one, _ = one.learn(Heard(t, y, arrived, zeros, at, moments), zeros)
        nothing = jnp.zeros(1)
        one = one.answer(Asked(y, zeros, nothing, nothing, jnp.zeros(0), y, zeros + 0.3, at, moments, awake))
        return one, one.asked.mixed

    numbers = (np.asarray(a, np.float32) for a in (np.repeat(rows[:, None], targets, 1), arrived))
    given = (np.arange(n, dtype=np.int32), *numbers, at)
    start = Experts.start(Sizes(1, 0, targets, 0, span, 0, targets))
    return np.asarray(jax.jit(lambda r: jax.lax.scan(body, start, r)[1])(given))


def test_experts_say_of_the_last_step_what_they_say_of_it_alone():
    """Lags, calendar, seasons, stack and weights: to rounding; of the first step something else."""
    rows = hourly(400)
    alone, within = mixture(rows, False, 5), mixture(rows, True, 5)
    np.testing.assert_allclose(within[:, -1], alone[:, 0], rtol=2e-3)
    assert np.abs(within[100:, 0] - alone[100:, 0]).mean() > 0.1


def test_each_step_is_about_its_own_row():
    """A series without noise is predicted at every step; the path of one step said of another would be far off."""
    rows = 3 + np.sin(2 * np.pi * np.arange(900) / 24)
    said = answers(PATH, rows, path=True)
    error = np.array([[abs(said[t, j] - rows[t + 1 + j]) for j in range(5)] for t in range(700, 890)]).mean(0)
    assert (error < 0.02).all(), error
    shifted = np.array([[abs(said[t, j] - rows[t + 2 + j]) for j in range(5)] for t in range(700, 890)]).mean(0)
    assert (shifted > 0.1).all(), shifted


def test_no_look_ahead():
    """What comes after a row changes no bit of its path."""
    rows, cut = hourly(), 200
    other = np.concatenate([rows[:cut], np.random.default_rng(9).normal(size=len(rows) - cut) * 5])
    before, after = answers(PATH, rows, path=True), answers(PATH, other, path=True)
    np.testing.assert_array_equal(before[:cut], after[:cut])
    assert not np.array_equal(before[cut:], after[cut:])


# In a session and a folder.


def test_rows_in_blocks_of_any_size_give_the_same_lines():
    cells, chosen = series(150, columns=("y", "z")), options(target=("y", "z"), time="time")
    whole = taken(chosen, cells, [150])
    cut = taken(chosen, cells, [1, 2, 3, 1, 40, 50, 53])
    assert "".join(whole.lines) + whole.future() == "".join(cut.lines) + cut.future()


def test_the_table_holds_what_came_at_every_step(tmp_path, capsys):
    """Line t holds what was said at row t of t+1 ... t+4, what came, and the difference; also of the last rows."""
    cells = series(130, columns=("y", "z"))
    cells["z"][60] = None
    write(tmp_path / "data.csv", cells)
    learn.learn(options(target=("y", "z")), str(tmp_path / "data.csv"), tmp_path / "out", report=report.write_report)
    rows, columns = table(tmp_path / "out")
    assert rows == list(range(1, 131))
    for name in ("y", "z"):
        truth = np.array([nan if v is None else v for v in cells[name]] + [nan] * 4)
        for j in range(1, 5):
            came = np.array([truth[row - 1 + j] for row in rows])
            np.testing.assert_allclose(columns[f"{name} +{j}"], came, rtol=1e-6)
            said, error = columns[f"{name} +{j} prediction"], columns[f"{name} +{j} error"]
            np.testing.assert_allclose(error, said - came, atol=2e-5 * truth[0])
            low, high = columns[f"{name} +{j} low"], columns[f"{name} +{j} high"]
            assert (low <= said).all()
            assert (said <= high).all()
    found = load_summary(tmp_path / "out")
    assert found["path"] == 4
    assert found["targets"] == [f"{n} +{j}" for n in "yz" for j in range(1, 5)]
    lines = as_lines(tmp_path / "out")
    assert len(lines) == 9
    assert all(name in lines[0] for name in CONTESTANTS)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "rows ahead: y" in page
    assert "The path predicted at row 130" in page
    assert "| +4 |" in report.as_markdown(tmp_path / "out")


@pytest.mark.parametrize("stop", [5, 57, 120])
def test_a_resumed_run_equals_one_without_a_stop(tmp_path, stop):
    """To the byte."""
    chosen, cells = options(time="time", experts=("stack", "network", "lags", "last", "day")), series(160)
    write(tmp_path / "data.csv", cells)
    learn.learn(chosen, str(tmp_path / "data.csv"), tmp_path / "whole")
    write(tmp_path / "part.csv", {name: column[:stop] for name, column in cells.items()})
    learn.learn(chosen, str(tmp_path / "part.csv"), tmp_path / "cut")
    write(tmp_path / "part.csv", cells)
    learn.learn(chosen, str(tmp_path / "part.csv"), tmp_path / "cut", resume=True)
    for name in ("predictions.csv", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_a_pipe_is_answered_with_the_row_that_a_path_was_made_at(tmp_path, capsys, monkeypatch):
    write(tmp_path / "data.csv", series(40))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "data.csv").read_bytes())))
    arguments = ["--target", "y", "--horizon", "3", "--path", "--units", "2", "--experts", "network", "last"]
    main(["learn", "-", *arguments, "--out", str(tmp_path / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(",")[:4] == ["from_row", "y +1 prediction", "y +1 low", "y +1 high"]
    answered = [line for line in lines if line[0].isdigit()]
    assert [int(line.split(",")[0]) for line in answered] == list(range(1, 41))
    _rows, columns = table(tmp_path / "out")
    np.testing.assert_allclose([float(line.split(",")[7]) for line in answered], columns["y +3 prediction"], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"horizon": 1}, "--path .* at least 2 rows ahead, and --horizon is 1"),
        ({"horizon": 0, "experts": ("network",)}, "--path .* and --horizon is 0"),
        ({"task": "classification", "experts": ("network",)}, "--path .* and --task is classification"),
        ({"task": "return", "experts": ("network",)}, "--path .* and --task is return"),
    ],
)
def test_what_is_no_path_is_refused(fields, words):
    with pytest.raises(OnwardError, match=words):
        options(**fields).check_served()


def test_a_summary_that_was_changed_is_refused(tmp_path):
    write(tmp_path / "data.csv", series(60))
    folder = tmp_path / "out"
    learn.learn(options(), str(tmp_path / "data.csv"), folder)
    content = json.loads((folder / SUMMARY).read_text())
    for path in (3, 0, 8, "4", None):
        (folder / SUMMARY).write_text(json.dumps(content | {"path": path}))
        with pytest.raises(Unreadable):
            load_summary(folder)


def test_a_report_shows_the_ends_of_each_path():
    outputs = [f"{name} +{j}" for name in "ab" for j in range(1, 4)]
    assert ends(outputs, 3) == [0, 2, 3, 5]
    assert ends(outputs, 1) == list(range(6))
    content = {
        "targets": outputs,
        "scored": dict.fromkeys(outputs, 7),
        "mean absolute error": [[float(i) for i in range(6)] for _ in CONTESTANTS],
        "columns": [{"name": "a"}],
        "without": {"rows left out": dict.fromkeys(outputs, 1)},
    }
    few = narrowed(content, outputs, [0, 2])
    assert few["targets"] == ["a +1", "a +3"]
    assert few["scored"] == {"a +1": 7, "a +3": 7}
    assert few["mean absolute error"] == [[0.0, 2.0]] * len(CONTESTANTS)
    assert few["columns"] == content["columns"]
    assert few["without"] == {"rows left out": {"a +1": 1, "a +3": 1}}


def test_a_path_longer_than_memory_is_refused_with_the_longest_that_is_not(monkeypatch):
    """What a row takes grows with the length of its path."""
    monkeypatch.setattr(programs, "MOST_WAITING", 200_000)
    recipe = lambda length: dataclasses.replace(PATH, targets=length, path=length, horizon=length, lag=length)
    with pytest.raises(OnwardError, match="horizon of at most") as refused:
        programs.Programs(recipe(400), 1, 0, 1)
    most = int(re.search(r"at most ([\d,]+) rows", str(refused.value))[1].replace(",", ""))
    assert 10 < most < 400
    programs.Programs(recipe(int(0.9 * most)), 1, 0, 1)
    with pytest.raises(OnwardError, match="horizon of at most"):
        programs.Programs(recipe(int(1.3 * most)), 1, 0, 1)
