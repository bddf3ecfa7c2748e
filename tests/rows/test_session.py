"""A session: its intervals hold the share that they say, and its clock survives."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from onward.rows import learn
from onward.rows.options import Learn
from onward.rows.session import Session
from onward.rows.sources import Rows
from onward.rows.stream import interval, placed

pytestmark = pytest.mark.usefixtures("compile_fast")
SHARES = (0.5, 0.8, 0.9, 0.99)


def mixtures(rows, components, seed=0):
    """Log weights, means and log widths."""
    rng = np.random.default_rng(seed)
    log_pi = np.log(rng.dirichlet(np.ones(components), rows))
    parts = log_pi, 3 * rng.normal(size=(rows, components)), rng.normal(size=(rows, components))
    return np.concatenate(parts, 1).astype(np.float32)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("components", [1, 3])
def test_an_interval_holds_its_share_and_leaves_as_much_out_on_either_side(share, components):
    """Against scipy's normal distribution and root finder; also where rows are no whole blocks."""
    spread = mixtures(11, components)
    point = np.arange(11.0)
    found, by = placed(spread, point, share, 4)
    np.testing.assert_array_equal(found, interval(spread, point, share, 4))
    assert found.shape == (11, 2)
    for (low, high), row, middle, step in zip(found, spread.astype(float), point, by, strict=True):
        log_pi, mu, log_sigma = np.split(row, 3)
        parts = np.exp(log_pi) / np.exp(log_pi).sum(), mu, np.exp(log_sigma)
        below = lambda y, parts=parts: float(parts[0] @ norm.cdf((y - parts[1]) / parts[2]))
        at = lambda q, f=below: brentq(lambda y: f(y) - q, -1e3, 1e3)
        moved = middle - at(0.5)
        assert step == pytest.approx(moved, abs=1e-3)
        wanted = [at(q) + moved for q in ((1 - share) / 2, (1 + share) / 2)]
        np.testing.assert_allclose([low, high], wanted, rtol=1e-3, atol=1e-3)
        assert below(high - moved) - below(low - moved) == pytest.approx(share, abs=2e-3)
        assert low <= middle <= high


@pytest.fixture
def table(tmp_path, monkeypatch):
    """600 rows of noise whose law does not change, by the hour, one of which goes back in time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learn, "BLOCK", 64)
    monkeypatch.setattr("onward.rows.report.write_report", lambda folder: folder / "report.html")
    rng = np.random.default_rng(0)
    with open("data.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["t", "x", "y"])
        writer.writerows([i, f"{rng.normal():.3f}", f"{5 + rng.normal():.4f}"] for i in range(600))
    return Path("data.csv")


def options(**fields):
    small = {"network": "columnar", "units": 2, "every": 50, "checkpoint_seconds": 1e9}
    return Learn(**({"target": ("y",)} | small | fields))


def test_the_interval_is_nine_tenths_unless_another_share_is_asked_for():
    assert options().coverage == 0.9
    assert options(interval=0.8).coverage == 0.8
    assert options().recipe.components == 3
    assert options(interval=0.0).recipe.components == 0


@pytest.mark.interfaces
@pytest.mark.parametrize("share", [0.8, None])
def test_the_interval_that_was_asked_for_is_written_and_its_default_is_nine_tenths(table, share):
    """Of white noise: as wide as the normal law says, within what 400 rows can tell."""
    learn.learn(options(**({} if share is None else {"interval": share})), "data.csv", Path("out"))
    share = share or 0.9
    with open("out/predictions.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["low"] and row["target"]][200:]
    low, high, y = (np.asarray([float(row[name]) for row in rows]) for name in ("low", "high", "target"))
    assert np.mean((low <= y) & (y <= high)) == pytest.approx(share, abs=0.045)
    assert np.median(high - low) == pytest.approx(2 * norm.ppf((1 + share) / 2), rel=0.15)


# The clock.

TIMES = {
    "numbers": [10, 20, 30, 25, 40, 35, 50],
    "dates": [f"2024-03-0{day}T00:00:00" for day in (1, 3, 5, 4, 7, 6, 8)],
}


def taken(session, cells, start, stop):
    part = {name: column[start:stop] for name, column in cells.items()}
    session.take(Rows(start + 1, range(start + 1, stop + 1), part, {}))


@pytest.mark.parametrize("form", TIMES)
def test_a_clock_that_ran_on_before_a_restart_is_known_after_it(form, tmp_path):
    """Saved and loaded before every row: the same times are told to run backwards, and the same lines are written."""
    cells = {"t": TIMES[form], "x": [0.5] * 7, "y": [1.0, 2.0, 4.0, 3.0, 5.0, 2.0, 1.0]}
    made = lambda: Session(options(time="t", interval=0.0), "data.csv", print, block=4)
    whole = made()
    taken(whole, cells, 0, 7)
    kind = "rows in which the clock 't' runs backwards"
    assert whole.remarks.as_dict()[kind] == {"rows": 2, "at": [[4, 4], [6, 6]], "told": 2}
    assert sum("the clock runs backwards" in note for note in whole.notes) == 2
    session, lines = made(), []
    for at in range(7):
        taken(session, cells, at, at + 1)
        lines += session.lines
        session.save(tmp_path)
        before, session = session, made()
        session.load(tmp_path / f"learn-{at + 1:012d}.npz")
        for name in ("rows", "last_row", "notes", "constant", "first_target", "cpu"):
            assert getattr(session, name) == getattr(before, name), name
        assert session.reading.as_dict() == before.reading.as_dict()
    assert (session.reading.as_dict(), session.notes) == (whole.reading.as_dict(), whole.notes)
    assert "".join(lines) == "".join(whole.lines)


def test_notes_are_kept_once_and_never_without_end():
    said = []
    session = Session(Learn(target=("y",)), "data.csv", said.append)
    for i in range(300):
        session.complain(f"row {i}")
        session.complain(f"data.csv: row {i}")  # the same again, while it is kept
    assert session.notes == [f"data.csv: row {i}" for i in range(200)]
    assert said == [f"data.csv: row {i}" for i in range(300) for _ in range(1 if i < 200 else 2)]


NEWS = {
    "a class": ({"task": "classification", "interval": 0.9}, [f"c{i % 2 + i // 5}" for i in range(21)], ["1"] * 21),
    "a first number": ({}, [""] * 9 + [str(i % 3) for i in range(12)], ["1"] * 21),
    "categories beyond the room": ({}, [str(i % 3) for i in range(21)], [f"k{i}" for i in range(21)]),
    "a column": ({"horizon": 2}, [str(i % 3) for i in range(21)], [""] * 10 + ["2"] * 11),
}


@pytest.mark.parametrize(("fields", "target", "other"), NEWS.values(), ids=NEWS)
def test_every_row_is_answered_however_many_come_together(fields, target, other):
    """Rows that bring something new part a block: the answers to those before them count too."""
    said = []
    for size in (1, 2, 7, 21):
        session, text = Session(options(**fields), "data.csv", print, block=8), ""
        for start in range(0, 21, size):
            taken(session, {"x": other, "y": target}, start, min(start + size, 21))
            text += session.format.answers(session.answered, session.options.lag, list(session.targets.classes))
        said.append([line.split(",")[0] for line in text.splitlines()])
    ahead = fields.get("horizon", 1)
    assert said == 4 * [[str(row + ahead) for row in range(1, 22)]]


@pytest.mark.parametrize(("discount", "kept"), [(0.0, 0), (0.3, 5), (0.9, 65)])
def test_a_return_keeps_the_rewards_that_it_still_needs_and_no_more(discount, kept):
    """Those of the last `lag` rows but one; a return of lag 1 is the row's own reward, and needs none."""
    options = Learn(target=("y",), task="return", discount=discount)
    assert options.lag == kept + 1
    session = Session(options, "data.csv", lambda text: None)
    rng = np.random.default_rng(0)
    y = rng.normal(size=(200, 1))
    cuts = np.sort(rng.integers(0, 200, 20))
    known = np.concatenate([session._arrived(part) for part in np.split(y, cuts)])
    assert len(session.before) == kept
    for row in range(kept, 200):
        part = y[row - kept : row + 1, 0]
        assert known[row, 0] == pytest.approx(sum(discount**i * reward for i, reward in enumerate(part)), rel=1e-9)
    assert np.isnan(known[:kept]).all()


def test_room_for_classes_doubles_as_the_programs_that_are_compiled_ahead_expect():
    """Each new shape is one that the learner before it named among its next: its program is there when it is needed."""
    session = Session(options(task="classification", interval=0.9), "data.csv", lambda text: None, block=8)
    cells = {"x": ["1"] * 9, "y": [f"c{i}" for i in range(9)]}
    shapes = []
    for at in range(9):
        before = session.learner
        taken(session, cells, at, at + 1)
        shapes.append(session.learner.classes)
        if before is not None and before.classes != session.learner.classes:
            assert session.learner.classes in [next_.classes for next_ in before.next_shapes()]
    assert shapes == [2, 2, 4, 4, 8, 8, 8, 8, 16]
