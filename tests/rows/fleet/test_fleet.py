"""Many entities in one table: each is learned as if it were alone, whatever comes between its rows."""

import csv
import shutil
import sqlite3

import equinox as eqx
import jax
import numpy as np
import pytest
from shops import SMALL, learned, options, panel, write

from onward import saving
from onward.cli import main
from onward.errors import OnwardError
from onward.rows import learn
from onward.rows.fleet import scored, shard
from onward.rows.fleet.entities import Entities
from onward.rows.fleet.fleet import Fleet
from onward.rows.fleet.panel import Groups
from onward.rows.fleet.shard import LATE, Shard, Told
from onward.rows.options import Learn
from onward.rows.sources import Rows
from onward.rows.summary import load_summary

pytestmark = pytest.mark.usefixtures("compile_fast")
PLAIN = np.zeros(8, bool)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    monkeypatch.setattr("onward.rows.report.write_report", lambda folder: folder / "report.html")


def predictions(folder):
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def of_shop(lines, shop):
    """The lines of a shop, without what says which row of the table it was."""
    return [[cell for name, cell in line.items() if name != "row"] for line in lines if line["shop"] == shop]


# An entity among others is an entity alone


@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_each_is_learned_as_if_it_were_alone(horizon, tmp_path):
    """Against `onward learn` of its rows alone: another program, to rounding."""
    rows = panel()
    together = predictions(learned(tmp_path, rows, horizon=horizon))
    for shop in ("s0", "s3", "s6"):
        own = [row[1:] for row in rows if row[0] == shop]
        source = write(tmp_path / f"{shop}.csv", own, ("t", "x", "y"))
        # What `--by` has not: the value one season before.
        alone = Learn(target=("y",), experts=("network",), horizon=horizon, period=20_000, **SMALL)
        learn.learn(alone, source, tmp_path / shop)
        theirs = predictions(tmp_path / shop)
        ours = [line for line in together if line["shop"] == shop]
        assert len(ours) == len(theirs)
        for name in ("target", "prediction", "low", "high", "error"):
            mine, other = ([float(line[name] or "nan") for line in lines] for lines in (ours, theirs))
            size = np.nanmax(np.abs([float(line["target"] or "nan") for line in ours]))
            np.testing.assert_allclose(mine, other, rtol=0, atol=1e-4 * size, err_msg=f"{shop}, {name}")
        sums = np.abs([float(line["error"] or "nan") for line in theirs])
        sums = sums[max(horizon, 1) :]  # there is no last value before the first
        sums = sums[np.isfinite(sums)]
        with open(tmp_path / "out" / "entities.csv") as file:
            told = next(line for line in csv.DictReader(file) if line["shop"] == shop)
        assert float(told["onward"]) == pytest.approx(sums.mean(), rel=2e-3)
        assert int(told["scored"]) == len(sums)
        assert int(told["rows"]) == len(own)


def test_what_comes_between_makes_no_difference(tmp_path):
    rows = panel()
    by_time = predictions(learned(tmp_path, rows))
    by_shop = predictions(learned(tmp_path, sorted(rows, key=lambda row: row[0]), "sorted"))
    for shop in {row[0] for row in rows}:
        assert of_shop(by_time, shop) == of_shop(by_shop, shop)


FAULTS = {
    "what was said of another row is taken": (
        Groups,
        "before",
        lambda self, values, ring, seen, right=Groups.before: np.roll(right(self, values, ring, seen), 1, 0),
    ),
    "a unit is that of the first row of a block": (
        Shard,
        "_in_units",
        lambda self, rows, at, values, plain, right=Shard._in_units: right(
            self, rows._replace(group=np.zeros_like(rows.group)), at, values, plain
        ),
    ),
    "rows are not sorted back": (Groups, "back", lambda self, values: values),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(fault, monkeypatch, tmp_path):
    monkeypatch.setattr(*FAULTS[fault])
    with pytest.raises(AssertionError):
        _both(tmp_path)


def _both(tmp_path):
    test_what_comes_between_makes_no_difference(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    test_each_is_learned_as_if_it_were_alone(1, tmp_path)


# Blocks


def taken(share, cuts=(), most=None, seed=0, **fields):
    """What a shard tells of a panel that comes in blocks; and the shard."""
    rows, chosen = panel(12, 30, seed), options(share=share, **fields)
    one = Shard(chosen.recipe, share, period=4, coverage=0.9, alarm=chosen.alarm)
    if most:
        one.entities.most = most
    x = np.full((len(rows), 8), np.nan)
    x[:, 0] = [row[2] for row in rows]
    y, when = np.array([[row[3]] for row in rows]), np.array([float(row[1]) for row in rows])
    names = [row[0] for row in rows]
    parts = [
        one.take(names[a:b], when[a:b], x[a:b], PLAIN, y[a:b])
        for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)
    ]
    return Told.joined(parts), one, len(rows)


def same(one, other):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))


@pytest.mark.parametrize(("share", "alarm"), [("none", None), ("none", 1e-2), ("features", None), ("all", 1e-2)])
def test_how_rows_come_in_blocks_makes_no_difference(share, alarm, monkeypatch):
    whole, kept, n = taken(share, alarm=alarm)
    cuts = sorted(np.random.default_rng(1).choice(np.arange(1, n), 9, replace=False).tolist())
    cut, other, _ = taken(share, cuts, alarm=alarm)
    assert same(whole, cut)
    assert same(kept.shared, other.shared)
    assert {name: record.tobytes() for name, record in kept.entities.all()} == {
        name: record.tobytes() for name, record in other.entities.all()
    }
    monkeypatch.setattr(shard, "ROWS", 16)  # those of the program stay
    monkeypatch.setattr(shard, "AMONG", 5)
    if share == "none":
        assert same(whole, taken(share, alarm=alarm)[0])


def test_lanes_and_a_line_are_the_same_where_nothing_is_shared(monkeypatch):
    """One entity after the other, in the order of rows: another program of the same step."""
    lanes = taken("none")[0]
    monkeypatch.setattr(Shard, "_lanes", Shard._line)
    line = taken("none")[0]
    size = np.abs(lanes.judged.said)
    assert np.nanmax(np.abs(lanes.asked.said - line.asked.said) / np.maximum(size, 1e-3)) < 1e-4


# How odd a row is


def spiked(every=30, start=100):
    """A panel of which a shop has a value far off now and then; which rows of the table those are."""
    rows, odd, count = panel(4, 160, gone=0.0), [], 0
    for i, (shop, t, x, y) in enumerate(rows):
        if shop == "s2":
            count += 1
            if count > start and count % every == 0:
                rows[i], odd = (shop, t, x, y * 3), [*odd, i + 1]
    return rows, odd


def test_scores_of_an_entity_are_those_of_it_alone(tmp_path):
    """Against `onward learn` of its rows alone, whose window is as long here; and those of the table are marked."""
    rows, odd = spiked()
    folder = learned(tmp_path, rows, alarm=0.03)
    lines = predictions(folder)
    for shop in ("s0", "s2"):
        own = [row[1:] for row in rows if row[0] == shop]
        source = write(tmp_path / f"{shop}.csv", own, ("t", "x", "y"))
        alone = Learn(target=("y",), experts=("network",), period=20_000, alarm=0.03, **SMALL)
        learn.learn(alone, source, tmp_path / shop)
        theirs = predictions(tmp_path / shop)
        ours = [line for line in lines if line["shop"] == shop]
        for name in ("score", "alarm", "shift"):
            mine, other = ([float(line[name] or "nan") for line in part] for part in (ours, theirs))
            np.testing.assert_allclose(mine, other, rtol=2e-2, err_msg=f"{shop}, {name}")
    found = {int(line["row"]) for line in lines if line["alarm"]}
    assert {*odd} <= found
    assert len(odd) == 2
    summary = load_summary(folder)
    assert summary["odd"]["alarms"] == len(found)
    assert {each["entity"] for each in summary["odd"]["first"]} <= {f"s{i}" for i in range(4)}
    with open(folder / "entities.csv") as file:
        each = {line["shop"]: line for line in csv.DictReader(file)}
    for name in ("alarm", "shift"):
        counts = {shop: sum(bool(line[name]) for line in lines if line["shop"] == shop) for shop in each}
        assert {shop: int(line[f"{name}s"]) for shop, line in each.items()} == counts
    alarmed = summary["entities"]["alarmed"]
    assert [one["entity"] for one in alarmed] == sorted(
        (shop for shop, line in each.items() if int(line["alarms"]) + int(line["shifts"])),
        key=lambda shop: -int(each[shop]["alarms"]) - int(each[shop]["shifts"]),
    )
    assert {one["entity"]: one["alarms"] for one in alarmed}["s2"] == int(each["s2"]["alarms"])


@pytest.mark.parametrize("fault", ["another's numbers", "not sorted back", "the present one's distribution"])
def test_faults_of_scores_are_seen(fault, tmp_path, monkeypatch):
    see, odd = scored.see, Shard._odd
    faults = {
        "another's numbers": (
            scored,
            "see",
            lambda records, at, *rest: see(records, np.roll(at, 1) if len(at) > 1 else at, *rest),
        ),
        "not sorted back": (
            scored,
            "see",
            lambda *all: tuple(part[np.argsort(all[2].order)] for part in see(*all)),
        ),
        "the present one's distribution": (
            Shard,
            "_odd",
            lambda self, rows, at, judged, *rest: odd(
                self, rows, at, judged._replace(spread=np.roll(judged.spread, 1, 0)), *rest
            ),
        ),
    }
    monkeypatch.setattr(*faults[fault])
    with pytest.raises(AssertionError):
        test_scores_of_an_entity_are_those_of_it_alone(tmp_path)


def test_of_calm_entities_a_share_p_has_a_score_below_p(monkeypatch):
    """Each by itself, whatever its law is: of eight entities one in a hundred, to within a factor of two."""
    rng, rows, n = np.random.default_rng(0), 1500, 8
    chosen = options(alarm=1e-2)
    one = Shard(chosen.recipe, "none", coverage=0.9, alarm=1e-2)
    noise = [rng.normal(size=rows) if e % 2 else rng.standard_t(3, rows) for e in range(n)]
    y = np.stack([10.0**e * (3 + (0.1 + 0.2 * e) * noise[e]) for e in range(n)], 1).ravel()[:, None]
    names = [f"s{e}" for _ in range(rows) for e in range(n)]
    x = np.full((len(y), 8), np.nan)
    told = one.take(names, np.full(len(y), np.nan), x, PLAIN, y)
    scores = told.scores.reshape(rows, n)[500:]
    assert 0.005 < np.mean(scores < 0.01) < 0.02
    assert 0.08 < np.mean(scores < 0.1) < 0.12
    assert (np.mean(scores < 0.01, 0) > 0.002).all()
    assert (np.mean(scores < 0.01, 0) < 0.03).all()


# What is shared


@pytest.mark.parametrize("share", ["features", "all"])
def test_what_is_shared_is_what_one_learner_learns_row_by_row(share):
    """Against the step itself, called row by row, its weights carried by hand from one entity to the next."""
    told, kept, _ = taken(share)
    rows, chosen = panel(12, 30), options(share=share)
    stream, states, common = kept.programs.stream, {}, None
    of_weights = lambda s: (s.learned.online.model.cell, s.learned.online.optimiser.cell)
    of_all = lambda s: (
        *(s.learned.online.model, s.learned.online.optimiser, s.linear.weight, s.linear.bias),
        *(s.density.head, s.density.optimiser),
    )
    where = of_weights if share == "features" else of_all
    step, start, units = jax.jit(stream.step), stream.init(), {}
    worst = 0.0
    for i, (name, _, x, y) in enumerate(rows):
        state = states.get(name, start)
        if common is not None:
            state = eqx.tree_at(where, state, common)
        ux, uy = units.setdefault(name, (x, y))
        row = np.full(8, np.nan, np.float32)
        row[0] = (x - ux) / abs(ux)
        target = np.array([(y - uy) / abs(uy)], np.float32)
        cell = lambda s: s.learned.online.model.cell
        before = cell(state)
        state, answer = step(state, row, PLAIN, target, target, stream.nowhere)
        pace = len({*states, name}) ** -0.5  # the more entities, the less each moves what all share
        slower = lambda a, b, pace=pace: a + pace * (b - a) if eqx.is_inexact_array(a) else b
        state = eqx.tree_at(cell, state, jax.tree.map(slower, before, cell(state)))
        states[name], common = state, where(state)
        said = uy + abs(uy) * float(answer[0])
        worst = max(worst, abs(said - told.asked.said[i, 0]) / abs(uy))
    assert chosen.recipe == kept.recipe
    assert worst < 2e-5


def test_a_new_entity_starts_from_what_the_others_taught(tmp_path):
    """Shops that are all alike: shared weights know the tenth before its first row."""
    rng = np.random.default_rng(0)
    rows = []
    for e in range(10):
        x = rng.normal(size=60)
        # The next y is this x: nothing else says it.
        rows += [(f"s{e}", t, float(x[t]), float(20 + (x[t - 1] if t else 0))) for t in range(60)]
    error = {}
    for share in ("none", "features", "all"):
        lines = predictions(learned(tmp_path, rows, share, share=share))
        mine = [abs(float(line["error"])) for line in lines if line["shop"] == "s9" and line["error"]]
        error[share] = np.mean(mine[4:14])
    assert error["all"] < 0.35 * error["none"]


# Room for more


def test_a_column_that_comes_late_makes_room(tmp_path):
    """Ten columns of numbers from row 100 on: what was learned stays, and blocks make no difference."""
    rows = panel(5, 60, gone=0.0)
    late = [(*row, *([""] * 10 if i < 100 else [f"{j + i % 3}" for j in range(10)])) for i, row in enumerate(rows)]
    names = ("shop", "t", "x", "y", *(f"c{j}" for j in range(10)))
    source, lines = write(tmp_path / "late.csv", late, names), []
    for block in (7, 1000):
        fleet = Fleet(options(), source, lambda text: None)
        for start in range(0, len(late), block):
            part = late[start : start + block]
            cells = {name: [row[i] for row in part] for i, name in enumerate(names)}
            fleet.take(Rows(start + 1, list(range(start + 1, start + 1 + len(part))), cells, {}))
        lines.append("".join(fleet.lines))
    assert fleet.shards.shard.capacity == 16
    assert lines[0] == lines[1]
    plain = Fleet(options(), source, lambda text: None)
    cells = {name: [row[i] for row in rows] for i, name in enumerate(names[:4])}
    plain.take(Rows(1, list(range(1, len(rows) + 1)), cells, {}))
    before = lambda text: [line for line in text.splitlines() if int(line.split(",")[0]) <= 100]
    for mine, other in zip(before(lines[0]), before("".join(plain.lines)), strict=True):
        said = [float(cell or "nan") for line in (mine, other) for cell in line.split(",")[3:7]]
        np.testing.assert_allclose(said[:4], said[4:], rtol=1e-4, atol=1e-5)


def test_records_that_do_not_fit_are_fetched(tmp_path):
    """Four entities in memory at a time, of twelve."""
    whole = taken("none")[0]
    rows, chosen = panel(12, 30), options()
    few = Shard(chosen.recipe, "none", period=4, coverage=0.9)
    few.entities.most = 4
    few.open(tmp_path / "entities.sqlite")
    x = np.full((len(rows), 8), np.nan)
    x[:, 0] = [row[2] for row in rows]
    y, when = np.array([[row[3]] for row in rows]), np.array([float(row[1]) for row in rows])
    told = few.take([row[0] for row in rows], when, x, PLAIN, y)
    assert same(whole, told)
    assert len(few.entities.records) == 4
    assert few.entities.count == 12
    assert [name for name, _ in few.entities.all()] == sorted({row[0] for row in rows})


def records(tmp_path, most=2):
    start = np.zeros(1, [("a", float, 3)])
    found = Entities(start, most)
    found.open(tmp_path / "entities.sqlite")
    return found


def add(found, name, value):
    place = found.places([name])
    found.records["a"][place] += value


def test_a_file_of_records_goes_back_one_commit(tmp_path):
    found = records(tmp_path)
    for generation in (1, 2, 3):
        for name in "abcd":
            add(found, name, generation)
        if generation < 3:
            found.commit(generation)
    found.close()  # killed before the third
    values = lambda: {name: float(record["a"][0]) for name, record in found.all()}
    found = records(tmp_path)
    found.restore(2)
    assert values() == dict.fromkeys("abcd", 3.0)
    found.restore(1)
    assert values() == dict.fromkeys("abcd", 1.0)
    add(found, "e", 7)
    found.commit(2)
    found.restore(2)
    assert values() == dict.fromkeys("abcd", 1.0) | {"e": 7.0}


def test_a_file_of_records_keeps_two_of_each_at_most(tmp_path):
    found = records(tmp_path)
    for generation in range(1, 6):
        for name in "abcd":
            add(found, name, 1)
        found.commit(generation)
    found.close()
    with sqlite3.connect(tmp_path / "entities.sqlite") as file:
        assert file.execute("SELECT count(*), min(generation) FROM states").fetchone() == (8, 4)


def test_more_entities_than_fit_need_a_file():
    found = Entities(np.zeros(1, [("a", float)]), 2)
    for name in "ab":
        add(found, name, 1)
    with pytest.raises(OnwardError, match="no folder"):
        found.places(["c"])
    with pytest.raises(ValueError, match="3 entities at once, and 2"):
        found.places(["a", "b", "c"])


# What survives


@pytest.mark.parametrize(("share", "alarm"), [("none", None), ("none", 1e-2), ("all", None)])
def test_a_run_that_was_stopped_goes_on_to_the_byte(share, alarm, tmp_path, monkeypatch):
    rows = panel(6, 60)
    chosen = options(share=share, alarm=alarm)
    whole = learned(tmp_path, rows, "whole", share=share, alarm=alarm)
    monkeypatch.setattr(Fleet, "least", 50)
    monkeypatch.setattr(Fleet, "block", 50, raising=False)
    first = write(tmp_path / "cut.csv", rows[:150])
    learn.learn(chosen, first, tmp_path / "cut")
    write(tmp_path / "cut.csv", rows)
    learn.learn(chosen, first, tmp_path / "cut", resume=True)
    for name in ("predictions.csv", "entities.csv", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name
    one, other = (load_summary(folder) for folder in (whole, tmp_path / "cut"))
    assert {**one, "source": "", "cpu_seconds": 0} == {**other, "source": "", "cpu_seconds": 0}


def test_a_damaged_record_is_told(tmp_path):
    folder = learned(tmp_path, panel())
    with sqlite3.connect(folder / "checkpoints" / "entities.sqlite") as file:
        file.execute("UPDATE states SET record = zeroblob(length(record)) WHERE name = 's3'")
    write(tmp_path / "out.csv", panel(rows=50))
    with pytest.raises(saving.Unreadable, match=r"entities.sqlite is damaged: the record of 's3'"):
        learn.learn(options(), str(tmp_path / "out.csv"), folder, resume=True)
    (folder / "checkpoints" / "entities.sqlite").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(saving.Unreadable, match=r"entities.sqlite is damaged"):
        learn.learn(options(), str(tmp_path / "out.csv"), folder, resume=True)


def test_predictions_leave_the_folder_as_it_is(tmp_path, capsys):
    rows = panel()
    folder = learned(tmp_path, rows)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    source = write(tmp_path / "new.csv", [("s1", 100 + i, *row[2:]) for i, row in enumerate(panel(2, 5))])
    learn.predict(folder, source, str(tmp_path / "said.csv"), print)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with open(tmp_path / "said.csv") as file:
        lines = list(csv.DictReader(file))
    assert {line["shop"] for line in lines} == {"s1"}
    assert lines[0]["prediction"] == ""
    assert float(lines[1]["prediction"])


# What is told


def test_several_columns_name_an_entity(tmp_path):
    rows = [(shop, "a,b" if i % 2 else "c", *more) for i, (shop, *more) in enumerate(panel())]
    source = write(tmp_path / "data.csv", rows, ("shop", "part", "t", "x", "y"))
    learn.learn(options(by=("shop", "part")), source, tmp_path / "out")
    lines = predictions(tmp_path / "out")
    assert [(line["shop"], line["part"]) for line in lines[: len(rows)]] == [row[:2] for row in rows]
    with open(tmp_path / "out" / "entities.csv", newline="") as file:
        assert {(line["shop"], line["part"]) for line in csv.DictReader(file)} == {row[:2] for row in rows}


def test_entities_are_ranked(tmp_path):
    folder = learned(tmp_path, panel(6, 60))
    found = load_summary(folder)["entities"]
    with open(folder / "entities.csv") as file:
        each = {line["shop"]: line for line in csv.DictReader(file)}
    ratio = {
        shop: float(line["onward"]) / min(float(line[name]) for name in ("linear", "last value", "seasonal", "mean"))
        for shop, line in each.items()
    }
    assert found["count"] == found["scored"] == 6
    assert found["ahead"] == sum(value < 1 for value in ratio.values())
    assert found["worst"][0]["entity"] == max(ratio, key=lambda shop: ratio[shop])
    assert found["best"][0]["ratio"] == pytest.approx(min(ratio.values()), rel=1e-5)
    assert sum(found["shares"]) == 6


def test_of_late_are_the_last_rows(tmp_path):
    """An entity whose target jumps about from the middle on."""
    rng = np.random.default_rng(0)
    rows = [("a", t, 0.0, float(10 + rng.normal() * (1 if t < 3 * LATE else 10))) for t in range(5 * LATE)]
    folder = learned(tmp_path, rows)
    errors = np.abs([float(line["error"]) for line in predictions(folder) if line["error"]])
    with open(folder / "entities.csv") as file:
        (line,) = csv.DictReader(file)
    scored = len(errors)
    start = (scored // LATE - 1) * LATE
    assert float(line["late"]) == pytest.approx(errors[start:].mean(), rel=1e-4)
    (changed,) = load_summary(folder)["entities"]["changed"]
    assert changed["late"] == pytest.approx(errors[start:].mean() / errors[:start].mean(), rel=1e-4)


def test_rows_of_nobody_are_passed_over(tmp_path, capsys):
    rows = panel()
    holes = [*rows[:30], ("", 4, 1.0, 1.0), *rows[30:], (" ", 4, 1.0, 1.0)]
    folder = learned(tmp_path, holes)
    assert "row 31, column 'shop': it names no entity; the row is passed over" in capsys.readouterr().err
    assert load_summary(folder)["entities"]["unnamed"] == 2
    other = predictions(learned(tmp_path, rows, "other"))
    for shop in {row[0] for row in rows}:
        assert of_shop(predictions(folder), shop) == of_shop(other, shop)


def test_a_clock_runs_backwards_within_an_entity_only(tmp_path, capsys):
    rows = sorted(panel(3, 20, gone=0.0), key=lambda row: row[0])
    folder = learned(tmp_path, rows, time="t")
    assert "backwards" not in capsys.readouterr().err
    rows[25] = (rows[25][0], 2, *rows[25][2:])
    learned(tmp_path, rows, "back", time="t")
    told = [line for line in capsys.readouterr().err.splitlines() if "backwards" in line]
    assert len(told) == 1
    assert "row 26, column 't': the clock of 's1' runs backwards, to 2" in told[0]
    assert folder


def test_a_column_of_the_wrong_kind_is_told(tmp_path, capsys):
    rows = [(f"n{i}", *row[1:]) for i, row in enumerate(panel())]
    with pytest.raises(OnwardError, match="no prediction could be scored"):
        learned(tmp_path, rows)
    assert f"'shop' names {len(rows)} entities in the first {len(rows)} rows" in capsys.readouterr().err


def test_memory_that_does_not_hold_all_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shard, "AMONG", 3)
    folder = learned(tmp_path, panel(), memory=1e-6)
    told = capsys.readouterr().err
    assert "there are more entities than --memory 1e-06 GB holds (3, at " in told
    assert load_summary(folder)["entities"]["count"] == 7


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"by": ("shop",), "target": ("shop",)}, "--by and --target both name 'shop'"),
        ({"categories": ("shop",)}, "--by and --categories both name 'shop'"),
        ({"task": "classification"}, "--by is of numbers"),
        ({"horizon": 3, "path": True}, "not of a path"),
        ({"network": "ccn"}, "entities do not grow"),
        ({"holidays": "DE", "time": "t"}, "--holidays is not there"),
        ({"alarm": 1e-3, "interval": 0.0}, "--alarm needs the distribution"),
        ({"experts": ("network", "last")}, "with --by the network answers alone"),
        ({"by": (), "share": "all"}, "--share all is of the entities"),
        ({"memory": 0.0}, "--memory must be above 0"),
        ({"by": ("shop", "shop")}, "--by: a column is named twice"),
    ],
)
def test_options_that_do_not_fit(fields, match):
    with pytest.raises(OnwardError, match=match):
        options(**fields).check()


def test_a_column_that_is_not_there(tmp_path, capsys):
    source = write(tmp_path / "data.csv", panel())
    assert main(["learn", source, "--target", "y", "--by", "shops", "--out", str(tmp_path / "out")]) == 1
    assert "has no column 'shops'; did you mean 'shop'?" in capsys.readouterr().err


def test_groups_are_what_a_loop_finds():
    rng = np.random.default_rng(0)
    who, values = rng.integers(0, 5, 60), rng.normal(size=(60, 2))
    values[rng.random(values.shape) < 0.3] = np.nan
    rows = Groups.of(who)
    ring, held, base = rng.normal(size=(5, 3, 2)), rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    seen = rng.integers(0, 9, 5)
    queues = {e: [ring[e, (seen[e] + j) % 3] for j in range(3)] for e in range(5)}
    last, total, want = held.copy(), base.copy(), []
    for e, value in zip(who, values, strict=True):
        last[e] = np.where(np.isnan(value), last[e], value)
        total[e] += np.nan_to_num(value)
        queues[e].append(value)
        want.append((last[e].copy(), total[e].copy(), queues[e].pop(0)))
    last, total, before = map(np.array, zip(*want, strict=True))
    mine = values[rows.order]
    np.testing.assert_array_equal(rows.back(rows.filled(mine, held)), last)
    np.testing.assert_array_equal(rows.back(rows.sums(np.nan_to_num(mine), base)), total)
    np.testing.assert_array_equal(rows.back(rows.before(mine, ring, seen)), before)
    np.testing.assert_array_equal(
        np.stack([ring[e, (seen[e] + rows.counts[e] + j) % 3] for e in range(5) for j in range(3)]),
        np.stack([q for e in range(5) for q in queues[e]]),
    )
