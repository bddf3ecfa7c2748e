"""How odd a row is: chances against scipy, scores that hold what they say, shifts, and how all of it is written and kept."""

import csv
import io
import json
import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from onward.cli import main
from onward.errors import OnwardError
from onward.rows import oddness, report
from onward.rows.calibration import Calibration
from onward.rows.oddness import Oddness, Shift, is_true, surprise, surprise_of_class
from onward.rows.options import Learn
from onward.rows.predictions import Format
from onward.rows.session import Session
from onward.rows.sources import Rows
from onward.rows.summary import SUMMARY, as_lines, load_summary
from onward.saving import Unreadable

pytestmark = pytest.mark.usefixtures("compile_fast")

SMALL = {"target": ("y",), "network": "columnar", "units": 2, "every": 100, "checkpoint_seconds": 1e9}
LEVEL = 1e-3


def options(**fields):
    return Learn(**(SMALL | {"experts": ("network", "last"), "alarm": LEVEL} | fields))


# Chances.


def test_a_surprise_is_that_of_a_value_as_far_out_on_either_side():
    """Against scipy's integral of the density, component by component."""
    rng = np.random.default_rng(0)
    pi, mu, sigma = rng.dirichlet(np.ones(3), 20), 2 * rng.normal(size=(20, 3)), np.exp(rng.normal(size=(20, 3)))
    value = 3 * rng.normal(size=20)
    found, above = surprise(np.concatenate([np.log(pi), mu, np.log(sigma)], 1), value)
    for row in range(20):
        density = lambda y, row=row: float(pi[row] @ stats.norm.pdf(y, mu[row], sigma[row]))
        ends = sorted([*mu[row], value[row]])
        below = sum(
            quad(density, a, b, limit=200)[0] for a, b in zip([-60, *ends], [*ends, 60], strict=True) if b <= value[row]
        )
        assert math.exp(-found[row]) == pytest.approx(min(1.0, 2 * min(below, 1 - below)), abs=1e-6)
        assert above[row] == (below > 0.5)


def test_a_surprise_far_out_is_known_to_all_its_digits():
    """No chance is rounded to 0, where one value could not be told from another."""
    far = np.array([0.0, 10.0, 40.0, 1000.0])
    found, _ = surprise(np.tile([0.0, 0.0, 0.0], (4, 1)), far)
    assert found == pytest.approx(-(math.log(2) + stats.norm.logsf(far)), rel=1e-9, abs=1e-12)


def test_a_surprise_of_a_class_is_that_of_all_that_are_as_rare():
    shares = np.array([[0.5, 0.3, 0.2, 0.0], [0.4, 0.4, 0.2, 0.0]])
    found = np.exp(-surprise_of_class(np.tile(shares, (4, 1)), np.repeat(np.arange(4), 2)))
    assert found.reshape(4, 2) == pytest.approx(np.array([[1, 1], [0.5, 1], [0.2, 0.2], [1e-12, 1e-12]]))


# Scores.

LAWS = {
    "as said": lambda rng, n: rng.normal(size=n),
    "narrower": lambda rng, n: 0.3 * rng.normal(size=n),
    "wider": lambda rng, n: 3 * rng.normal(size=n),
    "heavy tails": lambda rng, n: rng.standard_t(3, n),
    "very heavy tails": lambda rng, n: rng.standard_t(2, n),
    "bounded": lambda rng, n: rng.uniform(-1, 1, n),
    "some far out": lambda rng, n: np.where(rng.random(n) < 0.02, 5, 1) * rng.normal(size=n),
}
normal = lambda z: -(math.log(2) + stats.norm.logsf(np.abs(z)))


@pytest.mark.parametrize("law", LAWS)
def test_of_calm_rows_a_share_p_has_a_score_below_p(law):
    """Whatever their law is, where they are said to be normal: .01 to within a quarter, .001 to within a factor of 2.5.

    Of a bounded law fewer: its tail is taken for a longer one.
    """
    z = LAWS[law](np.random.default_rng(1), 30_000)
    calibration = Calibration()
    scores = np.array([calibration.see(each) for each in normal(z).tolist()])
    assert ((scores > 0) & (scores <= 1)).all()
    late = scores[2000:]
    assert np.mean(late < 0.1) == pytest.approx(0.1, rel=0.1)
    if law == "bounded":
        assert 0.004 < np.mean(late < 0.01) < 0.0125
    else:
        assert np.mean(late < 0.01) == pytest.approx(0.01, rel=0.25)
        assert np.mean(late < 0.001) > 0.0004
    assert np.mean(late < 0.001) < 0.0025
    assert np.mean(scores[:1000] < 1e-4) <= 0.005


@pytest.mark.parametrize("stretch", [50, 200, 500])
def test_where_calm_and_wild_times_take_turns_a_score_still_holds_what_it_says(stretch):
    """The noise is five times as wide in every tenth stretch. A planted fault, the count left out, is caught."""
    rng, rows = np.random.default_rng(4), 40_000
    wide = np.repeat(rng.random(rows // stretch) < 0.1, stretch)
    odd = normal(rng.normal(size=rows) * np.where(wide, 5, 1)).tolist()

    def shares(calibration):
        late = np.array([calibration.see(each) for each in odd])[5000:]
        return [np.mean(late < level) / level for level in (0.01, 0.001)]

    class Uncounted(Calibration):
        def _come_true(self, score):
            return score

    for share, most in zip(shares(Calibration()), (1.6, 3), strict=True):
        assert 0.5 < share < most
    assert max(shares(Uncounted())) > 3


def test_a_copy_of_a_calibration_goes_on_by_itself():
    one = Calibration()
    odd = normal(np.random.default_rng(2).normal(size=400)).tolist()
    for each in odd[:300]:
        one.see(each)
    kept, other = json.loads(json.dumps(one.as_dict())), one.copy()
    for each in odd[300:]:
        assert other.score(each) == other.score(each)
        other.see(each)
    assert one.as_dict() == kept


def test_scores_fall_as_surprises_rise():
    calibration = Calibration()
    for each in normal(np.random.default_rng(0).normal(size=3000)).tolist():
        calibration.see(each)
    kept, scores = calibration.as_dict(), []
    for each in np.linspace(0, 60, 300):
        calibration.restore(kept)
        scores.append(calibration.see(each))
    assert (np.diff(scores) <= 1e-3).all()
    assert scores[0] == 1
    assert scores[-1] < 1e-5


def test_what_is_very_odd_does_not_make_later_rows_seem_calm():
    """A few values far out: the last is as odd as the first, and calm rows are as they were."""
    calm, mixed = Calibration(), Calibration()
    last = []
    for i, each in enumerate(normal(np.random.default_rng(2).normal(size=5000)).tolist()):
        calm.see(each)
        if i % 1000 == 999:
            last.append(mixed.see(1000.0))
        mixed.see(each)
    assert max(last) < 1e-4
    assert mixed.see(math.log(20)) == pytest.approx(calm.see(math.log(20)), rel=0.1)


def test_what_comes_again_and_again_is_not_odd():
    """One row in fifty, far out: its score becomes what its share is."""
    calibration, last = Calibration(), []
    for i, each in enumerate(normal(np.random.default_rng(2).normal(size=5000)).tolist()):
        score = calibration.see(1000.0 if i % 50 == 0 else each)
        last += [score] if i % 50 == 0 else []
    assert last[1] < 0.01
    assert 0.001 < last[-1] < 0.05


# Shifts.


def test_without_a_shift_there_is_an_alarm_once_in_so_many_rows_at_most():
    """With the scores of independent rows, uniform: the bound, to four standard errors."""
    rng, shift, rows = np.random.default_rng(3), Shift(500.0), 200_000
    scores, above = rng.random(rows).tolist(), (rng.random(rows) < 0.5).tolist()
    found = sum(shift.see(score, side) for score, side in zip(scores, above, strict=True))
    assert 0 < found <= rows / 500 + 4 * (rows / 500) ** 0.5


@pytest.mark.parametrize(("what", "most"), [("level", 60), ("width", 120)])
def test_a_shift_is_found_within_some_tens_of_rows(what, most):
    late = []
    for seed in range(8):
        z = np.random.default_rng(seed).normal(size=1200)
        z[1000:] = z[1000:] + 1 if what == "level" else z[1000:] * 2
        shift = Shift(1e3)
        scores = np.exp(-normal(z))
        found = [i for i in range(1200) if shift.see(float(scores[i]), bool(z[i] > 0))]
        late.append(next((i - 1000 for i in found if i >= 1000), 200))
    assert np.median(late) < most


@pytest.mark.parametrize("long", [1, 3, 10])
def test_runs_of_equal_values_err_once_in_so_many_rows_at_most(long):
    """Calm values that stand still now and then, for `long` rows in the mean: to four standard errors."""
    rng, rows, limit = np.random.default_rng(6), 100_000, 500.0
    new = rng.random(rows) < 1 / long
    values = np.cumsum(new).astype(float) if long > 1 else rng.normal(size=rows).round(2)
    shift, found = Shift(limit), 0
    for value in values.tolist():
        found += shift.see(0.5, True, value)
    assert found <= rows / limit + 4 * (rows / limit) ** 0.5


def test_a_sensor_that_is_stuck_is_told_of_once():
    """And a night of zeros, which comes every day, is not."""
    rng, shift, found = np.random.default_rng(7), Shift(1e3), []
    for i in range(6000):
        night = i % 24 < 8
        value = 0.0 if night else float(rng.normal())
        if 5000 <= i < 5040:
            value = 1.5
        if shift.see(0.5, True, value):
            found.append(i)
    assert [i for i in found if i >= 2500] == [i for i in found if 5000 <= i < 5040]
    assert sum(5000 <= i < 5040 for i in found) == 1


def test_one_odd_row_is_no_shift():
    shift = Shift(1e3)
    assert not any(shift.see(score, True) for score in [0.5] * 50 + [1e-12] + [0.5] * 50)


# What is written.


def cells(n=400, seed=0, spike=300):
    rng = np.random.default_rng(seed)
    y = (np.sin(np.arange(n) / 4) + 0.1 * rng.normal(size=n) + 3).round(4)
    if spike:
        y[spike] += 4
    return {"x": rng.normal(size=n).round(3).tolist(), "y": y.tolist()}


def taken(chosen, table, sizes):
    session, start = Session(chosen, "rows", lambda text: None, block=64), 0
    for size in sizes:
        part = {name: column[start : start + size] for name, column in table.items()}
        session.take(Rows(start + 1, list(range(start + 1, start + size + 1)), part, {}))
        start += size
    return session


def rows_of(session):
    return list(csv.DictReader(io.StringIO(",".join(session.header) + "\n" + "".join(session.lines))))


@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_a_spike_is_an_alarm_and_calm_rows_are_none(horizon):
    session = taken(options(horizon=horizon), cells(), [400])
    rows = rows_of(session)
    assert float(rows[300]["score"]) < 3e-4
    assert rows[300]["alarm"] == "1"
    calm = rows[100:300]
    assert sum(bool(row["alarm"]) for row in calm) <= 4  # of 200, early on
    odd = session.oddness
    assert odd.alarms == sum(bool(row["alarm"]) for row in rows) == len([e for e in odd.first if e["kind"] == "alarm"])
    assert odd.scored == sum(bool(row["score"]) for row in rows)


def test_the_score_is_that_of_the_distribution_around_the_prediction():
    """A value that is the prediction itself is not odd at all: the middle of what was said lies there."""
    session = taken(options(), cells(spike=0), [300])
    said = session.waiting.said[0, 0]
    found, _ = surprise(session.waiting.spread[:, 0], session.targets.to_units(np.array([[said]]))[:, 0])
    assert found[0] == pytest.approx(0, abs=0.01)
    ends = session.waiting.extra[0]
    for end in ends:
        found, above = surprise(session.waiting.spread[:, 0], session.targets.to_units(np.array([[end]]))[:, 0])
        assert math.exp(-found[0]) == pytest.approx(0.1, rel=0.02)
        assert above[0] == (end > said)


TABLES = {
    "one target": ({}, cells()),
    "two targets": ({"target": ("y", "z")}, cells() | {"z": cells(seed=1, spike=200)["y"]}),
    "classes": (
        {"task": "classification", "experts": ("network", "mean")},
        {"x": cells()["x"], "y": ["ab"[i // 3 % 2] if i != 250 else "c" for i in range(400)]},
    ),
    "two rows ahead": ({"horizon": 2}, cells()),
    "gaps": ({}, cells() | {"y": [None if i % 7 == 0 else y for i, y in enumerate(cells()["y"])]}),
}


@pytest.mark.parametrize("kind", TABLES)
def test_rows_in_blocks_of_any_size_give_the_same_lines(kind):
    """And the future has no part in them: the first rows are those of a shorter table."""
    fields, table = TABLES[kind]
    whole = taken(options(**fields), table, [400])
    assert "".join(taken(options(**fields), table, [1, 50, 13, 200, 136]).lines) == "".join(whole.lines)
    part = "".join(taken(options(**fields), table, [280]).lines)
    assert "".join(whole.lines).startswith(part)


@pytest.mark.parametrize("kind", TABLES)
def test_a_session_that_is_loaded_goes_on_to_the_byte(kind, tmp_path):
    fields, table = TABLES[kind]
    whole = taken(options(**fields), table, [170, 230])
    first = taken(options(**fields), table, [170])
    first.save(tmp_path)
    again = Session(options(**fields), "rows", lambda text: None, block=64)
    again.load(next(tmp_path.glob("*.npz")))
    again.take(Rows(171, list(range(171, 401)), {name: column[170:] for name, column in table.items()}, {}))
    assert "".join(first.lines + again.lines) == "".join(whole.lines)
    assert again.oddness.as_dict() == whole.oddness.as_dict()


def test_a_class_that_never_came_is_the_oddest():
    fields, table = TABLES["classes"]
    rows = rows_of(taken(options(**fields), table, [400]))
    assert rows[250]["target"] == "c"
    assert float(rows[250]["score"]) == min(float(row["score"]) for row in rows if row["score"])


def write(file, table):
    with open(file, "w", newline="") as out:
        csv.writer(out).writerows(
            [[*table], *(["" if c is None else c for c in row] for row in zip(*table.values(), strict=True))]
        )


COMMAND = ["--target", "y", "--units", "2", "--experts", "network", "last", "--alarm", "1e-3"]


@pytest.mark.interfaces
def test_a_run_says_what_was_odd_in_table_summary_terminal_and_report(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("data.csv", cells())
    assert main(["learn", "data.csv", *COMMAND, "--out", "out"]) == 0
    out = capsys.readouterr().out
    odd = load_summary(tmp_path / "out")["odd"]
    assert odd["alarms"] >= 1
    assert f"in {odd['scored']} rows" in out
    assert any(f"{odd['alarms']} alarm" in line for line in as_lines(tmp_path / "out"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "less likely than once in 1,000 calm rows" in page
    with open("out/predictions.csv", newline="") as file:
        header = next(csv.reader(file))
    assert header == [
        "row",
        "time",
        "target",
        "prediction",
        "low",
        "high",
        "error",
        "score",
        "alarm",
        "shift",
        "strange",
    ]
    report.write_report(tmp_path / "out")


@pytest.mark.interfaces
def test_a_pipe_says_how_odd_the_row_was_that_came(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("data.csv", cells())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "data.csv").read_bytes())))
    assert main(["learn", "-", *COMMAND, "--out", "out"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.count(",") == 6]
    assert lines[0] == "of_row,prediction,low,high,score,alarm,shift"
    said = list(csv.DictReader(lines))
    with open("out/predictions.csv", newline="") as file:
        written = list(csv.DictReader(file))
    for answer, row in zip(said, written, strict=False):
        assert int(answer["of_row"]) == int(row["row"]) + 1
        assert [answer[name] for name in ("score", "alarm", "shift")] == [
            row[name] for name in ("score", "alarm", "shift")
        ]
    assert written[300]["alarm"] == "1"


def test_without_an_alarm_nothing_is_said_of_it():
    session = taken(options(alarm=None), cells(), [100])
    assert session.header[-2:] == ["error", "strange"]
    assert session.oddness is None
    assert session.waiting.spread.size == 0
    assert Format(["a", "b"], 2, classes=False, odds=True).header[-4:] == ["b score", "alarm", "shift", "strange"]


# What is refused.


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"alarm": 0.0}, "--alarm must be above 0 and at most 0.1"),
        ({"alarm": 0.5}, "--alarm must be above 0 and at most 0.1"),
        ({"alarm": math.nan}, "--alarm must be above 0 and at most 0.1"),
        ({"task": "return"}, "of returns there is none"),
        ({"path": True, "horizon": 3}, "of a path there is none"),
        ({"interval": 0.0}, "of --interval 0 there is none"),
    ],
)
def test_an_alarm_that_cannot_be_is_refused(fields, words):
    with pytest.raises(OnwardError, match=words):
        options(**fields).check()


def damaged(kept, change):
    kept = json.loads(json.dumps(kept))
    change(kept)
    return kept


CHANGES = {
    "counts": lambda kept: kept["counts"].__setitem__(1, 10_000),
    "rows": lambda kept: kept["counts"].__setitem__(0, 10_000),
    "evidence": lambda kept: kept["shifts"][0]["evidence"].__setitem__(0, -1.0),
    "not a number": lambda kept: kept["shifts"][0]["evidence"].__setitem__(0, math.nan),
    "targets": lambda kept: kept["shifts"].append(kept["shifts"][0]),
    "a run": lambda kept: kept["shifts"][0]["runs"].update(length=10_000),
    "runs": lambda kept: kept["shifts"][0]["runs"]["reached"].pop(),
    "a value": lambda kept: kept["shifts"][0]["runs"].update(last=math.inf),
    "below": lambda kept: kept["calibrations"][0]["below"].__setitem__(2, 1e6),
    "levels": lambda kept: kept["calibrations"][0]["below"].pop(),
    "scored": lambda kept: kept["calibrations"][0].update(scored=math.nan),
    "too few": lambda kept: kept["calibrations"][0].update(recent=[1.0]),
    "a scale": lambda kept: kept["calibrations"][0]["fit"].update(scale=0.0),
    "a share": lambda kept: kept["calibrations"][0]["fit"].update(share=2.0),
    "a name": lambda kept: kept["calibrations"][0]["fit"].update(other=1.0),
    "a surprise": lambda kept: kept["calibrations"][0]["recent"].__setitem__(3, math.inf),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_checkpoint_that_cannot_be_is_known(what):
    kept = taken(options(), cells(), [150]).oddness.as_dict()
    assert is_true(kept, LEVEL, 1, 150)
    assert not is_true(damaged(kept, CHANGES[what]), LEVEL, 1, 150)
    assert not is_true(None, LEVEL, 1, 150)
    assert not is_true(kept, None, 1, 150)


def test_a_summary_that_was_changed_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("data.csv", cells(120, spike=0))
    assert main(["learn", "data.csv", *COMMAND, "--out", "out"]) == 0
    content = json.loads((tmp_path / "out" / SUMMARY).read_text())
    for change in ({"alarms": -1}, {"shifts": "two"}, {"first": [{"row": 1}]}, {"scored": None}):
        (tmp_path / "out" / SUMMARY).write_text(json.dumps(content | {"odd": content["odd"] | change}))
        with pytest.raises(Unreadable, match=r"summary\.json, odd"):
            load_summary(tmp_path / "out")


def test_many_targets_share_the_chance_of_an_alarm():
    """Of ten targets that are calm, some row has an alarm as rarely as of one."""
    rng = np.random.default_rng(5)
    odd = Oddness(0.01, 10)
    rows = 4000
    z = rng.normal(size=(rows, 10))
    odds = odd.see(normal(z), rng.random((rows, 10)) < 0.5, z, range(rows), [""] * rows)
    assert odds.alarm[1000:].mean() == pytest.approx(0.01, rel=0.5)
    assert len(odd.first) == oddness.LISTED
