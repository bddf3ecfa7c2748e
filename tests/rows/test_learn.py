"""`onward learn` and `onward predict`, as hurried people, broken data and broken machines use them."""

import contextlib
import csv
import io
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from damage import DAMAGE
from onward import saving
from onward.cli import main
from onward.errors import OnwardError
from onward.lab.folder import RunFolder, newest_first
from onward.rows import learn, session
from onward.rows.options import Learn
from onward.rows.report import write_report
from onward.rows.scores import CONTESTANTS
from onward.rows.session import Session
from onward.rows.sources import Rows
from onward.rows.stream import RowRecipe
from onward.rows.stream.experts import AHEAD
from onward.rows.stream.row_experts import OF_CLASSES, OF_NUMBERS
from onward.rows.summary import as_lines
from onward.rows.targets import MOST_CLASSES
from switches import SWITCHES

pytestmark = pytest.mark.usefixtures("compile_fast")

TINY = {"network": "columnar", "units": 2, "interval": 0.0, "every": 20, "checkpoint_seconds": 1e9}
FLAGS = ["--network", "columnar", "--units", "2", "--interval", "0", "--every", "20", "--checkpoint-seconds", "1e9"]
LEARN = ["learn", "data.csv", "--target", "y", "--out", "out", *FLAGS]
SLOW_H3 = pytest.param({"horizon": 3}, marks=pytest.mark.slow)
PIECE = 64  # rows of a block here: many blocks of one small program


@pytest.fixture(autouse=True, scope="module")
def a_cache_of_its_own(tmp_path_factory):
    """And the options that `onward learn` sets for its process do not stay."""
    before = os.environ.get("XDG_CACHE_HOME"), os.environ.get("XLA_FLAGS")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    for name, value in zip(("XDG_CACHE_HOME", "XLA_FLAGS"), before, strict=True):
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of its own, small blocks, and no drawing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learn, "BLOCK", PIECE)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch):
    """No report: drawing is slow."""
    monkeypatch.setattr("onward.rows.report.write_report", lambda folder: folder / "report.html")


# Helpers


def rows_of(n, seed=0):
    """A daily wave with noise, and columns of every kind."""
    draw = random.Random(seed)
    start = datetime(2024, 3, 1)
    for i in range(n):
        y = 10 + 3 * math.sin(2 * math.pi * i / 24) + draw.gauss(0, 0.3)
        yield {
            "time": (start + timedelta(hours=i)).isoformat(),
            "y": f"{y:.4f}",
            "x": f"{draw.gauss(0, 1):.4f}",
            "place": draw.choice("abc" if i < n // 2 else "abcdefg"),
            "late": f"{draw.gauss(50, 9):.3f}" if i > n // 3 else "",
            "sky": draw.choice(["sun", "rain"] if i < n // 4 else ["sun", "rain", "fog", "snow"]),
        }


def write(path, rows, columns=None):
    """A CSV of dicts."""
    rows = list(rows)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def options_of(**options):
    return Learn(**({"target": ("y",)} | TINY | options))


def session_of(**options):
    return Session(options_of(**options), "data.csv", print, block=PIECE)


def go(source, folder="out", *, resume=False, **options):
    """Learn in this process; the folder."""
    learn.learn(options_of(**options), str(source), Path(folder), resume=resume)
    return Path(folder)


def learned(n, columns=None, folder="out", **options):
    """Learn from a table of so many rows, data.csv; the folder."""
    return go(write("data.csv", rows_of(n), columns), folder, **options)


def table(folder="out"):
    """predictions.csv as dicts."""
    with open(Path(folder) / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder="out"):
    """The two files that must be equal to the byte."""
    return [(Path(folder) / name).read_bytes() for name in ("predictions.csv", "metrics.jsonl")]


def summary(folder="out"):
    return json.loads((Path(folder) / "summary.json").read_text())


def said_by(arguments, capsys):
    """Exit status, standard output and error."""
    status = main([str(a) for a in arguments])
    return status, *capsys.readouterr()


def refused(arguments, capsys, *words):
    """One line that begins with the program's name and says what is wrong; nothing left behind."""
    status, out, err = said_by(arguments, capsys)
    assert status == 1, err
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("onward: "), err
    assert "Traceback" not in err
    for word in words:
        assert word in last, last


def finite(folder="out"):
    """Every number that was said is finite."""
    for row in table(folder):
        for name, cell in row.items():
            if cell and name not in ("time", "row"):
                assert math.isfinite(float(cell)), row


# Bad input: the command line


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["--target", "yy"], ["data.csv has no column 'yy'", "did you mean 'y'?"]),
        (["--target", "y", "--time", "tme"], ["no column 'tme'", "did you mean 'time'?"]),
        (["--target", "y", "--features", "x", "plac"], ["no column 'plac'", "'place'"]),
        (["--target", "y", "--ignore", "lat"], ["no column 'lat'", "'late'"]),
        (["--target", "y", "--categories", "plaze"], ["no column 'plaze'", "'place'"]),
        (["--target", "qqqq"], ["no column 'qqqq'", "there are 'time', 'y', 'x'"]),
        (["--target", "y", "--horizon", "-1"], ["--horizon"]),
        (["--target", "y", "--horizon", "soon"], ["--horizon"]),
        (["--target", "y", "x", "--task", "classification"], ["predicts one column"]),
        (["--target", "y", "--time", "y"], ["--time and --target are the same column 'y'"]),
        (["--target", "y", "y"], ["--target: a column is named twice"]),
        (["--target", "y", "--rule", "uoro"], ["columns learn exactly", "gru or lstm"]),
        (["--target", "y", "--network", "ccn", "--units", "3"], ["--stages must divide --units"]),
        (["--target", "y", "--discount", "1"], ["--discount must be in [0, 1)"]),
        (["--target", "y", "--period", "1"], ["--period 1"]),
        (["--target", "y", "--step-size", "nan"], ["--step-size"]),
        (["--target", "y", "--delimiter", ";;"], ["one character"]),
        (["--target", "y", "--resume", "nowhere"], ["nowhere is not a run folder"]),
        (["--target", "y", "--out", "data.csv"], ["data.csv is a file"]),
    ],
)
def test_wrong_words_are_told_and_leave_no_folder(fields, words, here, capsys):
    write("data.csv", rows_of(5))
    refused(["learn", "data.csv", *fields], capsys, *words)
    assert os.listdir(here) == ["data.csv"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", ["data.csv is empty"]),
        (b"x,y\n", ["data.csv has a header and no rows"]),
        (b"x,y,y\n1,2,3\n", ["data.csv: several columns are named 'y'"]),
        (b"1,2\n3,4\n", ["holds only numbers", "a header is needed"]),
        (b"x,y\n1,\n2,NA\n3,\n", ["data.csv: column 'y' is missing in all of 3 rows"]),
        (b"x,y\n1,2\n", ["data.csv has 1 row: no target is known 1 row ahead"]),
        (
            b"x,y\n1,2\n2,\n3,\n",
            ["data.csv: of 3 rows too few have values of column 'y': no prediction could be scored"],
        ),
        (b"x,y\n1,cat\n2,dog\n", ["data.csv, row 1, column 'y': the target 'cat' is not a number", "classification"]),
        (b"x,y\n1,\n2,dog\n", ["data.csv, row 2, column 'y': the target 'dog' is not a number"]),
        (b"x,y\n1,1e300\n2,5\n", ["data.csv, row 1, column 'y'", "too large"]),
    ],
    ids=lambda v: None if isinstance(v, list) else re.sub(r"[^a-z0-9]+", "-", v.decode())[:20],
)
def test_a_table_that_cannot_be_learned_is_refused_and_leaves_the_folder_free(text, words, here, capsys):
    (here / "data.csv").write_bytes(text)
    for _ in range(2):  # the second time the folder is as free as the first
        refused(LEARN, capsys, *words)


def test_horizon_longer_than_the_data(here, capsys):
    write("data.csv", rows_of(4), ["x", "y"])
    words = "data.csv has 4 rows: no target is known 5 rows ahead", "smaller --horizon"
    refused([*LEARN, "--horizon", "5"], capsys, *words)
    refused([*LEARN, "--task", "return"], capsys, "4 rows", "--discount")


def test_too_many_classes_are_refused():
    targets, names = session_of(task="classification").targets, [f"c{i}" for i in range(MOST_CLASSES + 2)]
    with pytest.raises(OnwardError, match=r"row 1025.*would be class 1,025"):
        targets.read({"y": names}, range(1, len(names) + 1))


def test_the_first_target_is_infinite(here, capsys):
    (here / "data.csv").write_text("x,y\n1,inf\n2,\n3,5\n4,6\n5,7\n")
    go("data.csv")
    assert [r["target"] for r in table()] == ["", "", "5", "6", "7", ""]
    assert table()[2]["prediction"] == "0"  # said before any target was known


def test_bad_cells_count_as_missing_and_are_told(here, capsys):
    cells = ["5", "nan", "inf", "-inf", "1e300", "ten", "1e999", "6", "NA", "true", " 7 ", "8"]
    (here / "data.csv").write_text("x,y\n" + "".join(f"{c},{c}\n" for c in cells) + "9,9\n" * 20)
    go("data.csv")
    err = capsys.readouterr().err
    assert "4 of 32 first rows hold none ('inf', '-inf', 'ten'; the first in row 3): taken as missing" in err
    assert [r["target"] for r in table()][:12] == ["5", "", "", "", "", "", "", "6", "", "1", "7", "8"]
    finite()
    assert math.isfinite(summary()["mean absolute error"][0][0])
    assert summary()["notes"]


def test_rows_that_cannot_be_read_are_left_out_and_counted(here, capsys):
    lines = [b"x,y"] + [b"%d,%d" % (i, i % 5) for i in range(1, 31)]
    lines[3], lines[7], lines[9] = b"3", b"7,1,2", b"9,\xff\xfe"
    (here / "data.csv").write_bytes(b"\n".join(lines))  # the last line has no end, and is whole
    go("data.csv")
    err = capsys.readouterr().err
    assert "data.csv, row 3 (line 4): 1 cell where the header has 2; left out" in err
    assert "data.csv, row 7 (line 8): 3 cells where the header has 2; left out" in err
    assert "data.csv, row 9 (line 10): not UTF-8 (try --encoding cp1252 or latin-1); left out" in err
    assert [int(r["row"]) for r in table()] == [i for i in range(1, 32) if i not in (3, 7, 9)]
    assert any("row 7" in note for note in summary()["notes"])


def test_strict_ends_at_the_first_and_keeps_what_was_learned(here, capsys, monkeypatch, undrawn):
    lines = [b"x,y"] + [b"%d,%d" % (i, i % 5) for i in range(1, 301)]
    lines[200] = b"200"
    (here / "data.csv").write_bytes(b"\n".join(lines) + b"\n")
    refused([*LEARN, "--strict"], capsys, "data.csv, row 200 (line 201): 1 cell where the header has 2")
    assert newest_first(Path("out/checkpoints"), "learn")
    status, _, err = said_by(["learn", "data.csv", "--resume", "out", "--no-strict"], capsys)
    assert status == 0, err
    assert len(table()) == 300


def test_a_cut_last_line_is_reported_on_a_file(here, capsys):
    (here / "data.csv").write_text("x,y\n" + "".join(f"{i},{i}\n" for i in range(1, 20)) + "20")
    go("data.csv")
    assert "data.csv, row 20 (line 21): cut off, without a line end; left out" in capsys.readouterr().err
    assert table()[-1]["row"] == "20"  # the forecast
    with open("data.csv", "a") as file:
        file.write(",20\n21,21\n")
    go("data.csv", resume=True)
    assert [r["row"] for r in table()][-3:] == ["20", "21", "22"]


def test_what_is_left_out_is_chosen_by_the_recipe():
    assert Learn(target=("y",), interval=0.0, experts=("network",)).recipe == RowRecipe()
    for other, there in (({}, AHEAD), ({"horizon": 0}, OF_NUMBERS), ({"task": "classification"}, OF_CLASSES)):
        assert {*Learn(target=("y",), **other).recipe.experts} == {*there}
    # Nobody else answers of returns.
    assert Learn(target=("y",), task="return").recipe.experts == ()
    assert Learn(target=("y",), step_size=0.01).recipe.step_size == 0.01


def test_a_constant_target_is_said_to_be_one(here, capsys):
    (here / "data.csv").write_text("x,y\n" + "".join(f"{i},4\n" for i in range(1, 30)))
    assert main(LEARN) == 0
    assert summary()["constant"]
    assert "never changed" in Path("out/report.html").read_text()
    assert {r["prediction"] for r in table()[1:]} == {"4"}


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (
            ["2024-03-01T00:00", "2024-03-01T02:00", "2024-03-01T01:00"],
            "row 3, column 'time': the clock runs backwards",
        ),
        (
            ["1/5/24 noon", "2/5/24", ""],
            "row 1, column 'time': '1/5/24 noon' is no time where dates, month first are read; write it as 2026-01-31T",
        ),
    ],
)
def test_times_that_run_backwards_or_are_none_are_told(times, said, capsys):
    go(write("data.csv", [{"time": time, "y": str(i)} for i, time in enumerate(times)]), time="time")
    assert f"data.csv: {said}" in capsys.readouterr().err
    assert len(table()) == 4


# A folder


def test_a_folder_with_a_run_is_not_overwritten(here, capsys, undrawn):
    write("data.csv", rows_of(30), ["x", "y"])
    assert said_by(LEARN, capsys)[0] == 0
    before = contents()
    refused(LEARN, capsys, "out is not empty: it holds a run already", "--resume out", "--replace")
    refused(["learn", "dat.csv", "--target", "y", "--out", "out", "--replace"], capsys, "no dat.csv")
    refused(["learn", "data.csv", "--target", "z", "--out", "out", "--replace"], capsys, "no column 'z'")
    assert contents() == before  # a mistake with --replace deletes nothing
    refused([*LEARN[:4], "--resume", "out", "--replace"], capsys, "choose one")
    assert said_by([*LEARN, "--replace"], capsys)[0] == 0
    assert contents() == before
    (here / "mine").mkdir()
    (here / "mine/thesis.txt").write_text("")
    refused(
        [*LEARN[:4], "--out", "mine", "--replace"],
        capsys,
        "mine is not empty and not a run folder: --replace will not delete it",
    )


def test_a_folder_in_use_is_refused(here, capsys, undrawn):
    learned(30, ["x", "y"])
    with RunFolder(Path("out"), "learn"):
        refused(["learn", "data.csv", "--resume", "out"], capsys, "out is in use by another onward")
    assert said_by(["learn", "data.csv", "--resume", "out"], capsys)[0] == 0


@pytest.mark.interfaces
@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("begun", [True, False], ids=["begun under it", "resumed under it"])
def test_a_switch_of_jax_changes_nothing_in_a_folder(here, undrawn, switch, begun):
    """Also not what is predicted from it."""
    options, said, rows = {"horizon": 2, "interval": 0.5}, [], list(rows_of(320))
    for under in (False, True):
        set_here = [SWITCHES[switch] if under and now == begun else contextlib.nullcontext for now in (True, False)]
        write("part.csv", rows[:200])
        with set_here[0]():
            go("part.csv", f"out{under}", **options)
        write("part.csv", rows)
        with set_here[1]():
            go("part.csv", f"out{under}", resume=True, **options)
            learn.predict(Path(f"out{under}"), "part.csv", f"{under}.csv", print)
        written = (f"{under}.csv", *(f"out{under}/{name}" for name in learn.WRITTEN))
        said.append([Path(name).read_bytes() for name in written])
    assert said[0] == said[1]


def test_a_resume_with_something_else_is_refused_and_harms_nothing(here, capsys, undrawn):
    write("data.csv", rows_of(150), ["x", "y", "place"])
    write("other.csv", rows_of(160, 1), ["x", "y", "place"])
    write("columns.csv", rows_of(150), ["y", "x", "place"])
    write("fewer.csv", rows_of(150), ["y", "x"])
    write("short.csv", rows_of(50), ["x", "y", "place"])
    go("data.csv", horizon=1)
    before = contents()
    for source, words in (
        ("other.csv", ["other.csv is another file"]),
        ("columns.csv", ["other columns than before", "another order"]),
        ("fewer.csv", ["fewer.csv has other columns", "lacks 'place'"]),
        ("short.csv", ["short.csv", "cut short"]),
    ):
        refused(["learn", source, "--resume", "out"], capsys, *words)
    for fields, words in (
        (["--horizon", "2"], ["--horizon 1, not 2"]),
        (["--units", "32"], ["--units 2, not 32"]),  # though 32 is the default
        (["--target", "x"], ["--target y, not x"]),
        (["--time", "x"], ["--time unset, not x"]),
        (["--out", "elsewhere"], ["leave out --out"]),
    ):
        refused(["learn", "data.csv", "--resume", "out", *fields], capsys, *words)
    assert contents() == before
    assert said_by(["learn", "data.csv", "--resume", "out", "--target", "y", "--every", "7"], capsys)[0] == 0
    assert contents()[0] == before[0]


def test_a_file_that_was_cut_or_changed_since_is_refused(here, capsys, undrawn):
    learned(80, ["x", "y"])
    with open("out/predictions.csv", "r+b") as file:
        file.truncate(100)
    refused(["learn", "data.csv", "--resume", "out"], capsys, "predictions.csv has 100 bytes", "was changed")


@pytest.mark.parametrize("options", [{"horizon": 1}, SLOW_H3, {"task": "return", "discount": 0.5}], ids=str)
def test_a_resume_after_the_file_has_grown_equals_one_run(here, options):
    columns, options = ["time", "x", "y", "place", "late"], {"time": "time", "every": 50, **options}
    write("part.csv", list(rows_of(300))[:170], columns)
    whole = write(here / "whole.csv", rows_of(300), columns)
    go("part.csv")
    go("whole.csv", "one", **options)
    go("part.csv", "two", **options)
    text = whole.read_text()
    ahead = len(table("two"))
    Path("part.csv").write_text(text[: len(text) // 2 + 1000])  # even a line cut in the middle
    go("part.csv", "two", resume=True, **options)
    Path("part.csv").write_text(text)
    go("part.csv", "two", resume=True, **options)
    assert contents("one") == contents("two")
    assert len(table("two")) > ahead
    assert summary("one")["mean absolute error"] == summary("two")["mean absolute error"]


@pytest.mark.parametrize("exact", [True, False])
def test_an_error_in_the_middle_of_a_block_keeps_no_half_state(here, monkeypatch, exact):
    learned(300, ["x", "y", "place"], "whole")
    take = Session.take

    def stop(self, block):
        if not exact:
            take(self, block)
        if self.rows >= 128:
            raise KeyboardInterrupt  # a second Ctrl-C
        if exact:
            take(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "take", stop)
        with pytest.raises(OnwardError, match="stopped"):
            go("data.csv", checkpoint_seconds=0.0)
    go("data.csv", resume=True)
    assert contents() == contents("whole")


def test_a_full_disk_keeps_what_was_checkpointed(here, monkeypatch):
    learned(300, ["x", "y", "place"], "whole")
    append, calls = RunFolder.append, []

    def full(self, name, text):
        calls.append(name)
        if len(calls) == 8:
            append(self, name, text[: len(text) // 2])
            raise OnwardError("cannot write: No space left on device")
        append(self, name, text)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", full)
        with pytest.raises(OnwardError, match="No space"):
            go("data.csv", checkpoint_seconds=0.0)
    go("data.csv", resume=True)
    assert contents() == contents("whole")


def test_a_checkpoint_with_a_changed_array_is_refused_by_name(here, capsys, undrawn):
    learned(200, ["x", "y", "place"], checkpoint_seconds=0.0)
    before, (newest, _) = contents(), newest_first(Path("out/checkpoints"), "learn")

    def damage(path, how, name):
        meta, arrays = saving.load_arrays(path)
        meta = {key: value for key, value in meta.items() if key not in ("format", "onward")}
        saving.save_arrays(path, DAMAGE[how][0](arrays, name), meta)

    good = newest.read_bytes()
    for name in ("learner.linear.weight", "waiting.said", "baselines.means", "scores.window"):
        for how, (_, said) in DAMAGE.items():
            damage(newest, how, name)
            words = said.format(re.escape(name.removeprefix("learner.")))
            with pytest.raises(saving.Unreadable, match=f"checkpoint {newest}:? {words}"):
                session_of().load(newest)
            newest.write_bytes(good)
    # The one before is used, and gives the same; where none is good, nothing is loaded.
    damage(newest, "inserted", "baselines.means")
    for words in ("baselines.means is float64", "is damaged"):
        go("data.csv", resume=True)
        assert re.search(f"{words}.*; trying the one before", capsys.readouterr().err)
        assert contents() == before
        good = newest.read_bytes()
        newest.write_bytes(good[:1000])
    newest.write_bytes(good)
    for path in newest_first(Path("out/checkpoints"), "learn"):
        damage(path, "missing", "scores.window")
    refused(["predict", "out", "data.csv"], capsys, "no checkpoint in out/checkpoints can be read")
    go("data.csv", resume=True)
    said = capsys.readouterr().err
    assert "there is none before it" in said
    assert "has no checkpoint that can be read: starting with the first row" in said
    assert contents() == before


# No look-ahead


@pytest.mark.parametrize(
    "options",
    [
        {"horizon": 0},
        {"horizon": 1},
        pytest.param({"horizon": 5}, marks=pytest.mark.slow),
        {"target": ("sky",), "task": "classification", "categories": ("late",), "ignore": ("late",)},
        pytest.param({"task": "return", "discount": 0.5}, marks=pytest.mark.slow),
    ],
    ids=lambda o: "-".join(f"{k}-{v}" for k, v in o.items()),
)
def test_no_look_ahead_what_comes_later_changes_no_line(here, options):
    rows = list(rows_of(400))
    rows[0]["y"] = rows[1]["y"] = rows[1]["sky"] = rows[2]["time"] = ""
    write("data.csv", rows)
    go("data.csv", time="time", **options)
    lines = (here / "out/predictions.csv").read_bytes().splitlines()
    lag = options_of(**options).lag if options.get("task") == "return" else 0
    for t in (1, 3, 110, 300):  # the season is found at row 256
        later = rows[t:]
        random.Random(t).shuffle(later)
        write("permuted.csv", rows[:t] + later)
        go("permuted.csv", f"permuted-{t}", time="time", **options)
        permuted = Path(f"permuted-{t}/predictions.csv").read_bytes().splitlines()
        upto = max(0, t - lag) + 1
        assert permuted[:upto] == lines[:upto], t
        assert permuted != lines
        # What was said at row t of the rows ahead stands in their lines.
        ahead = 0 if lag else options.get("horizon", 1)
        assert said_of(permuted, t + 1, t + ahead) == said_of(lines, t + 1, t + ahead), t


def said_of(lines, first, last):
    """Prediction and interval or probability of some rows."""
    return [line.split(b",")[3:-2] for line in lines[first : last + 1]]


def test_a_value_that_is_read_too_early_is_noticed(here, monkeypatch):
    rows = list(rows_of(120))
    write("data.csv", rows)
    write("permuted.csv", rows[:100] + rows[:99:-1])

    def said(name):
        for source in ("data.csv", "permuted.csv"):
            go(source, f"{name}-{source}", time="time")
        files = (Path(f"{name}-{source}/predictions.csv") for source in ("data.csv", "permuted.csv"))
        return [said_of(file.read_bytes().splitlines(), 1, 101) for file in files]

    mine, permuted = said("honest")
    assert mine == permuted
    honest = session.Targets.to_units
    monkeypatch.setattr(session.Targets, "to_units", lambda self, y: np.roll(honest(self, y), -1, 0))
    mine, permuted = said("early")
    assert mine != permuted


@pytest.mark.parametrize(
    "options", [{}, {"target": ("sky",), "task": "classification"}, {"target": ("late",)}], ids=str
)
def test_blocks_make_no_difference(here, monkeypatch, options):
    rows = list(rows_of(300))
    rows[0]["time"] = rows[1]["y"] = ""
    write("data.csv", rows)
    go("data.csv", time="time", every=50, **options)
    # The same program, fed by rows and by ragged pieces.
    for seed in (1, 2):
        draw, session = random.Random(seed), session_of(time="time", every=50, **options)
        lines, at = [], 0
        while at < 300:
            stop = min(300, at + (1 if seed == 1 and at < 100 else draw.randint(1, PIECE)))
            part = {name: [row[name] for row in rows[at:stop]] for name in rows[0]}
            session.take(Rows(at + 1, range(at + 1, stop + 1), part, {}))
            at = stop
        lines = "".join(session.lines) + session.future()
        assert lines == Path("out/predictions.csv").read_text().partition("\n")[2]
        assert "".join(line + "\n" for line in session.metrics) == Path("out/metrics.jsonl").read_text()


# Predict, then score, then learn


@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_scores_are_those_of_the_file_and_of_plain_baselines(here, horizon):
    rows = list(rows_of(200))
    write("data.csv", rows, ["y", "x"])
    go("data.csv", horizon=horizon, period=24, every=60)
    said, found = table(), summary()
    y = [float(r["y"]) for r in rows]
    lines = said[:200]
    assert [int(r["row"]) for r in said] == list(range(1, 201 + horizon))
    assert all(r["prediction"] == "" for r in lines[:horizon])
    assert all(r["target"] == "" and r["error"] == "" for r in said[200:])
    at = range(max(horizon, 1), 200)
    errors = {"onward": [float(lines[i]["prediction"]) - y[i] for i in at]}
    lag = max(horizon, 1)
    errors["last value"] = [y[i - lag] - y[i] for i in at]
    back = 24 * -(-lag // 24)
    errors["seasonal"] = [y[i - back if i >= back else i - lag] - y[i] for i in at]
    errors["mean"] = [sum(y[: i - lag + 1]) / (i - lag + 1) - y[i] for i in at]
    assert found["scored"] == len(at)
    for name, values in errors.items():
        j = CONTESTANTS.index(name)
        assert found["mean absolute error"][j][0] == pytest.approx(np.mean(np.abs(values)), rel=1e-5)
        assert found["root mean square error"][j][0] == pytest.approx(np.sqrt(np.mean(np.square(values))), rel=1e-5)
    for i in at:
        assert float(lines[i]["error"]) == pytest.approx(float(lines[i]["prediction"]) - y[i], abs=1e-4)
    first = json.loads(Path("out/metrics.jsonl").read_text().splitlines()[0])
    window = [abs(v) for i, v in zip(at, errors["onward"], strict=True) if i < 60]
    assert (first["rows"], first["count"]) == (60, len(window))
    assert first["onward"] == pytest.approx(np.mean(window), rel=1e-5)


def test_classes_are_scored_by_hits(here):
    rows = list(rows_of(200))
    write("data.csv", rows, ["sky", "x"])
    go("data.csv", target=("sky",), task="classification")
    lines, found = table()[:200], summary()
    said, sky = [r["prediction"] for r in lines], [r["sky"] for r in rows]
    assert said[0] == ""
    assert all(0 < float(r["probability"]) <= 1 for r in lines[1:])
    assert found["mean absolute error"][0][0] == pytest.approx(np.mean([said[i] != sky[i] for i in range(1, 200)]))
    last = np.mean([sky[i - 1] != sky[i] for i in range(1, 200)])
    assert found["mean absolute error"][2][0] == pytest.approx(last)
    counts, wrong = {}, []
    for i in range(1, 200):
        counts[sky[i - 1]] = counts.get(sky[i - 1], 0) + 1
        wrong.append(max(counts, key=counts.get) != sky[i])
    assert found["mean absolute error"][4][0] == pytest.approx(np.mean(wrong))
    assert "error rate" in as_lines(Path("out"))[0]
    hits = sum(said[i] == sky[i] for i in range(1, 200))
    assert f"The last 200 predictions, {hits} of 199 right:" in write_report(Path("out")).read_text()


def test_returns_are_those_of_the_coming_values(here):
    rows = list(rows_of(150))
    write("data.csv", rows, ["y", "x"])
    go("data.csv", task="return", discount=0.5)
    y = [float(r["y"]) for r in rows]
    lines = table()
    assert [int(r["row"]) for r in lines] == list(range(1, 151))
    lag = Learn(target=("y",), task="return", discount=0.5).lag
    for i, row in enumerate(lines[: 150 - lag]):
        wanted = sum(0.5**k * y[i + 1 + k] for k in range(lag))
        assert float(row["target"]) == pytest.approx(wanted, rel=1e-6)
    assert all(row["target"] == "" and row["prediction"] for row in lines[150 - lag :])


# Predict


def everything(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def test_predict_learns_nothing_and_says_the_same_twice(here, capsys):
    columns = ["time", "x", "y", "place", "late"]
    learned(200, columns, time="time")
    before = everything("out")
    rows = list(rows_of(90, 5))
    rows[40]["place"] = "unseen"
    write("new.csv", rows, ["late", "place", "y", "x", "time"])
    assert main(["predict", "out", "new.csv"]) == 0
    first = capsys.readouterr().out
    assert main(["predict", "out", "new.csv", "--out", "said.csv"]) == 0
    assert Path("said.csv").read_text() == first
    assert everything("out") == before
    lines = list(csv.DictReader(io.StringIO(first)))
    assert [int(r["row"]) for r in lines] == list(range(1, 92))
    # Other order, same predictions; and rows that are fewer change none before them.
    write("other.csv", rows[:60], columns)
    capsys.readouterr()
    assert main(["predict", "out", "other.csv"]) == 0
    assert capsys.readouterr().out.splitlines()[:61] == first.splitlines()[:61]


def test_predict_without_columns(here, capsys):
    learned(100, ["x", "y", "place"], horizon=0)
    write("new.csv", rows_of(20, 5), ["place"])  # not even the target, which is what is asked for
    assert main(["predict", "out", "new.csv"]) == 0
    out, err = capsys.readouterr()
    assert "new.csv has no column 'x'; it counts as missing" in err
    lines = list(csv.DictReader(io.StringIO(out)))
    assert len(lines) == 20
    assert all(math.isfinite(float(r["prediction"])) and r["target"] == "" for r in lines)
    write("none.csv", [{"a": "1"}] * 3)
    refused(["predict", "out", "none.csv"], capsys, "none of the columns that were learned from: 'place', 'x'")


def test_predict_refuses_in_one_line(here, capsys):
    learned(40, ["x", "y"])
    refused(["predict", "nowhere", "data.csv"], capsys, "nowhere is not a run folder")
    refused(["predict", "out", "dta.csv"], capsys, "did you mean data.csv?")
    refused(["predict", "out", "data.csv", "--out", "no/such/file.csv"], capsys, "there is no folder no/such")
    before = Path("data.csv").read_bytes()
    refused(["predict", "out", "data.csv", "--out", "data.csv"], capsys, "the source itself")
    assert Path("data.csv").read_bytes() == before


def test_a_stop_ends_predicting_and_changes_nothing(here, capsys, monkeypatch):
    learned(40, ["x", "y"])
    before, take = everything("out"), Session.take

    def stopped(session, block, **how):
        signal.raise_signal(signal.SIGINT)  # a block that was begun is said to its end
        take(session, block, **how)

    monkeypatch.setattr(Session, "take", stopped)
    capsys.readouterr()
    assert main(["predict", "out", "data.csv"]) == 130
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 41
    assert err == "onward: stopped after row 40; nothing was changed in out\n"
    assert everything("out") == before


# Columns of every kind


def test_columns_that_appear_and_vanish(here):
    with open("data.jsonl", "w") as file:
        for i in range(200):
            row = {"y": i % 7, "flag": i % 2 == 0}
            row |= {"a": i} if i < 90 else {"b": str(i % 3)}
            row |= {"c": [1, 2]} if i == 120 else {}
            row |= {"d": 0.5 * i} if i == 150 else {}
            file.write(json.dumps(row) + "\n")
    go("data.jsonl")
    finite()
    assert len(table()) == 201
    assert summary()["columns read"] == 5  # y, flag, a, b, d


def test_more_categories_than_slots(here):
    write("data.csv", [{"id": f"n{i % 90}", "y": f"{i % 5}"} for i in range(200)])
    go("data.csv")
    finite()
    assert summary()["inputs"] == 1 + 64 + 16
    write("new.csv", [{"id": f"m{i}", "y": f"{i % 5}"} for i in range(20)])
    assert main(["predict", "out", "new.csv"]) == 0


def test_several_targets_with_missing_values(here):
    rows = [{"a": f"{i % 9}" if i % 3 else "", "b": f"{i % 4}" if i > 50 else ""} for i in range(200)]
    write("data.csv", rows)
    go("data.csv", target=("a", "b"))
    lines = table()
    assert list(lines[0]) == ["row", "time", "a", "a prediction", "a error", "b", "b prediction", "b error", "strange"]
    for i, (row, line) in enumerate(zip(rows, lines[:200], strict=True)):
        for name in "ab":
            assert line[name] == row[name]
            assert (line[f"{name} error"] != "") == bool(row[name] and i and line[f"{name} prediction"])
    assert lines[-1]["a prediction"] != ""


NETWORKS = [("ccn", "exact"), ("columnar", "exact")]
NETWORKS += [(n, r) for n in ("gru", "lstm") for r in ("exact", "snap-1", "rflo", "uoro", "tbptt-10")]
COMMON = {("ccn", "exact", "regression"), ("gru", "rflo", "classification"), ("lstm", "uoro", "return")}


@pytest.mark.parametrize(
    ("network", "rule", "task"),
    [
        pytest.param(n, r, task, marks=() if (n, r, task) in COMMON else pytest.mark.slow)
        for n, r in NETWORKS
        for task in ("regression", "classification", "return")
    ],
)
def test_every_network_rule_and_task(here, network, rule, task):
    rows = list(rows_of(100))
    for i in range(0, 100, 20):
        rows[i]["y"] = rows[i]["sky"] = ""  # rows of no weight
    write("data.csv", rows, ["x", "y", "sky"])
    target = "sky" if task == "classification" else "y"
    options = {"network": network, "rule": rule, "task": task, "stage_rows": 50, "discount": 0.5}
    go("data.csv", target=(target,), **options)
    ahead = task != "return"
    assert len(table()) == 100 + ahead
    assert all(line["prediction"] for line in table()[2:])
    assert learn.load_options(Path("out"))[0].network == network
    before = contents()
    Path("out/summary.json").unlink()
    go("data.csv", target=(target,), resume=True, **options)
    assert contents() == before


def test_delimiters_and_forms(here):
    (here / "data.txt").write_text("y;x\n" + "".join(f"{i % 5};{i}\n" for i in range(40)))
    go("data.txt")
    (here / "data.bin").write_text("".join(json.dumps({"y": i % 5, "x": i}) + "\n" for i in range(40)))
    go("data.bin", "lines", form="jsonl")
    same = lambda folder: [r["prediction"] for r in table(folder)]
    assert same("out") == same("lines")


# The page


def test_the_page_of_a_run(here, capsys, monkeypatch):
    write("data.csv", rows_of(300))
    fields = [
        "--time",
        "time",
        "--target",
        "y",
        "--every",
        "50",
        "--out",
        "out",
        "--network",
        "columnar",
        "--units",
        "2",
    ]
    status, out, err = said_by(["learn", "data.csv", *fields], capsys)
    assert status == 0, err
    assert out.splitlines()[-1] == "report: out/report.html"
    assert all(name in out for name in CONTESTANTS)
    assert "learn: 300 of 300 rows (100%)" in err  # progress, where there is no terminal
    page = Path("out/report.html").read_text()
    assert "y of data.csv, 1 row ahead" in page
    assert "that of the best alternative that of" not in page
    Path("out/report.html").unlink()
    assert main(["report", "out"]) == 0
    assert Path("out/report.html").exists()
    capsys.readouterr()
    assert said_by(["report", "out", "--markdown"], capsys)[1].splitlines()[0].startswith("| | mean absolute error |")


# Other processes: signals, pipes, kill -9

SMALL = "import sys; from onward.rows import learn; learn.BLOCK = {}; from onward.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def environment(tmp_path_factory, as_users_start_it):
    """One cache of programs for all processes."""
    return as_users_start_it | {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("programs")), "PYTHONUNBUFFERED": ""}


def start(arguments, environment, *, block=512, **pipes):
    return subprocess.Popen(
        [sys.executable, "-c", SMALL.format(block), "learn", *map(str, arguments)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        **({"stdout": subprocess.PIPE} | pipes),
    )


def size_of(path):
    return path.stat().st_size if path.exists() else 0


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.002)


def finish(process, status=0):
    out, err = process.communicate(timeout=240)
    assert process.returncode == status, err
    assert "Traceback" not in err, err
    return out, err


def fed(arguments, environment, text):
    """What is said of all that comes on standard input."""
    process = start(arguments, environment, stdin=subprocess.PIPE)
    process.stdin.write(text)
    return finish(process)


@pytest.mark.slow
def test_kill_9_and_sigterm_then_resume_equal_an_uninterrupted_run(here, environment):
    write("data.csv", rows_of(9000), ["time", "x", "y", "place", "late"])
    fields = ["data.csv", "--time", "time", "--target", "y", "--checkpoint-seconds", "0", "--every", "300"]
    fields += ["--network", "ccn", "--units", "4", "--stage-rows", "2500", "--horizon", "2", "--interval", "0"]
    finish(start([*fields, "--out", "whole"], environment))
    path = Path("out/predictions.csv")
    process = start([*fields, "--out", "out"], environment)
    wait_for(lambda: size_of(path) > 100_000, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not Path("out/summary.json").exists()
    process = start(["data.csv", "--resume", "out"], environment)
    at = size_of(path)
    wait_for(lambda: size_of(path) > at + 60_000, process)
    process.send_signal(signal.SIGTERM)
    _, err = finish(process, 130)
    assert re.search(
        r"onward: stopped; what was learned up to row \d,\d+ is kept, go on with: onward learn data.csv --resume out",
        err.splitlines()[-1],
    )
    finish(start(["data.csv", "--resume", "out"], environment))
    assert contents() == contents("whole")
    assert summary()["mean absolute error"] == summary("whole")["mean absolute error"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--network", "ccn", "--units", "4", "--stage-rows", "9000", "--horizon", "1"],
        ["--network", "columnar", "--units", "4", "--horizon", "3", "--interval", "0.5"],
        ["--network", "columnar", "--units", "4", "--task", "classification", "--target", "sky"],
        ["--network", "columnar", "--units", "4", "--task", "return", "--block", "97"],
    ],
    ids=["ccn", "horizon-3", "classes", "return"],
)
def test_ten_kills_at_random_moments(here, environment, options):
    block = 4096
    if "--block" in options:
        block, options = 97, options[:-2]
    target = [] if "--target" in options else ["--target", "y"]
    write("data.csv", rows_of(40_000))
    fields = ["data.csv", "--time", "time", *target, "--checkpoint-seconds", "0.02", "--every", "700", *options]
    finish(start([*fields, "--out", "whole"], environment, block=block))
    draw, path, kills = random.Random(len(options)), Path("out/predictions.csv"), 0
    goal = size_of(Path("whole/predictions.csv"))
    go_on = [*fields, "--out", "out"]
    while kills < 10:
        process = start(go_on, environment, block=block)
        if kills % 3 == 2:
            time.sleep(draw.uniform(0.5, 4))  # anywhere, the start included
        else:
            at = goal * (kills + draw.random()) / 11
            wait_for(lambda at=at: size_of(path) > at, process)
            time.sleep(draw.uniform(0, 0.02))
        ended = process.poll() is not None
        process.kill()
        process.communicate()
        assert not ended or process.returncode == 0
        kills += 1
        if Path("out/config.json").exists():
            go_on = ["data.csv", "--resume", "out"]
    finish(start(go_on, environment, block=block))
    assert contents() == contents("whole")


def ask(process, line):
    process.stdin.write(line)
    process.stdin.flush()
    return answer_of(process)


def answer_of(process):
    """The next line; where the process ended in place of it, what it said."""
    line = process.stdout.readline()
    assert line, (process.wait(60), process.stderr.read())
    return line


@pytest.mark.interfaces
def test_standard_input_is_answered_line_by_line_and_goes_on(here, environment):
    rows = [f"{i % 7},{i}\n" for i in range(60)]
    fields = ["-", "--target", "y", "--out", "out", "--network", "columnar", "--units", "4", "--every", "10"]
    process = start(fields, environment, stdin=subprocess.PIPE)
    process.stdin.write("y,x\n")
    header = ask(process, rows[0])
    assert header == "of_row,prediction,low,high\n"
    said = [answer_of(process)] + [ask(process, row) for row in rows[1:20]]
    assert [int(line.split(",")[0]) for line in said] == list(range(2, 22))
    assert all(math.isfinite(float(cell)) for line in said for cell in line.split(","))
    assert len(table()) == 20  # written as it goes
    # Half a line waits, and so does Ctrl-C for nothing.
    process.stdin.write("6,")
    process.stdin.flush()
    time.sleep(0.3)
    assert process.poll() is None
    assert len(table()) == 20
    process.send_signal(signal.SIGINT)
    rest, err = finish(process, 130)
    assert rest == ""
    assert "what was learned up to row 20 is kept, go on with: onward learn - --resume out" in err.splitlines()[-1]
    # The rows after the checkpoint, with the header; then nobody reads any more.
    process = start(["-", "--resume", "out"], environment, stdin=subprocess.PIPE)
    process.stdin.write("y,x\n")
    assert ask(process, rows[20]) == header
    assert answer_of(process).startswith("22,")
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(rows[21])
        process.stdin.flush()
    err = process.stderr.read()
    assert process.wait(60) == 130
    assert err.strip().splitlines()[-1].startswith("onward: nobody reads the predictions any more; what was learned up")
    assert "Exception ignored" not in err
    assert "going on after row 20" in err
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stderr.close()
    # All in one: the same.
    last = int(re.search(r"up to row (\d+)", err)[1])
    out, err = fed(["-", "--resume", "out"], environment, "y,x\n" + "".join(rows[last:]))
    assert len(out.splitlines()) == 1 + 60 - last  # nothing but predictions
    assert "report: out/report.html" in err
    fed([*fields[:3], "--out", "whole", *fields[5:]], environment, "y,x\n" + "".join(rows))
    assert contents() == contents("whole")
    # The rows of a stream come once: where no checkpoint is whole, nothing is begun anew over what is there.
    for path in newest_first(Path("out/checkpoints"), "learn"):
        path.write_bytes(path.read_bytes()[:-40])
    process = start(["-", "--resume", "out"], environment, stdin=subprocess.PIPE)
    process.stdin.write("y,x\n" + rows[0])
    _, err = finish(process, 1)
    assert "no checkpoint in out/checkpoints can be read, and the rows of a stream cannot be read again" in err
    assert contents() == contents("whole")


@pytest.mark.slow
def test_standard_input_killed_and_fed_again(here, environment):
    rows = ["y,x,place\n"] + [f"{i % 7},{i},{'abcdef'[i % (1 + i // 100)]}\n" for i in range(600)]
    fields = ["--target", "y", "--network", "ccn", "--units", "4", "--stage-rows", "150", "--every", "50"]
    fields += ["--checkpoint-seconds", "0.01", "--horizon", "3"]
    fed(["-", *fields, "--out", "whole"], environment, "".join(rows))
    draw, kept = random.Random(0), 0
    arguments = ["-", *fields, "--out", "out"]
    for _ in range(4):
        process = start(arguments, environment, stdin=subprocess.PIPE)
        process.stdin.write(rows[0])
        for count, row in enumerate(rows[1 + kept :]):
            ask(process, row)
            if count > draw.randint(60, 140):
                break
        process.kill()
        process.communicate()
        arguments = ["-", "--resume", "out"]
        newest = newest_first(Path("out/checkpoints"), "learn")
        kept = saving.read_meta(newest[0])["last_row"]
    fed(arguments, environment, rows[0] + "".join(rows[1 + kept :]))
    assert contents() == contents("whole")


# Anything at all

NUMBERS = st.one_of(
    st.integers(-5, 5).map(str),
    st.floats(-1e3, 1e3).map(repr),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.sampled_from(["", "NA", "1e300", "-1e300", "1e-300", "1e15", "true", "0", "-0.0", "1_000", "0x10"]),
)
CELLS = st.one_of(
    NUMBERS, st.text(st.characters(codec="utf-8"), max_size=6), st.sampled_from(['"', ",", "a\nb", "é", "日本"])
)
TIMES = st.one_of(CELLS, st.datetimes().map(datetime.isoformat))
ANY = st.one_of(CELLS, st.none(), st.booleans(), st.integers(), st.floats(), st.lists(st.integers(), max_size=2))
TASKS = [{"task": "regression"}, {"task": "classification"}, {"task": "regression", "horizon": 0}]
TASKS += [{"task": "return", "discount": 0.0}]


def csv_of(rows):
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([["y", "when", "a", "b"], *rows])
    return buffer.getvalue().encode()


def jsonl_of(rows):
    return "".join(json.dumps(dict(zip(("y", "when", "a", "b"), r, strict=True))) + "\n" for r in rows).encode()


def survives(folder, data, form, options):
    """Learn, resume and predict: nothing but an `OnwardError`, only finite predictions, and rows that count."""
    source = folder / f"data.{form}"
    source.write_bytes(data)
    out = folder / "out"
    options = {"target": ("y",), "time": "when", **options}
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            go(source, out, **options)
            before = contents(out) if (out / "metrics.jsonl").exists() else None
            go(source, out, resume=True, **options)
            assert before is None or contents(out) == before
            learn.predict(out, str(source), str(folder / "said.csv"), lambda text: None)
    except OnwardError:
        return
    lines = table(out)
    rows = [int(r["row"]) for r in lines]
    assert rows == sorted(set(rows))
    for line in lines:
        if options["task"] != "classification" and line["prediction"]:
            assert math.isfinite(float(line["prediction"]))


def shuffled_bytes(data, draw):
    """A few bytes changed, dropped or added."""
    data = bytearray(data)
    for _ in range(draw.draw(st.integers(0, 3))):
        at = draw.draw(st.integers(0, len(data) - 1))
        data[at : at + draw.draw(st.integers(0, 2))] = draw.draw(st.binary(max_size=2))
    return bytes(data)


def fuzz(examples, tasks):
    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(draw=st.data())
    def run(draw, tmp_path_factory):
        form = draw.draw(st.sampled_from(["csv", "jsonl"]))
        y = draw.draw(st.sampled_from([NUMBERS, CELLS]))
        one = st.tuples(y, TIMES, CELLS, CELLS) if form == "csv" else st.tuples(y, TIMES, ANY, ANY)
        rows = draw.draw(st.lists(one, min_size=1, max_size=12))
        data = (csv_of if form == "csv" else jsonl_of)(rows)
        if draw.draw(st.booleans()):
            data = shuffled_bytes(data, draw)
        survives(tmp_path_factory.mktemp("fuzz"), data, form, draw.draw(st.sampled_from(tasks)))

    return run


def test_fuzz_any_table_is_learned_or_refused(tmp_path_factory):
    fuzz(30, TASKS[:2])(tmp_path_factory=tmp_path_factory)


@pytest.mark.slow
def test_fuzz_for_a_minute(tmp_path_factory):
    fuzz(600, TASKS)(tmp_path_factory=tmp_path_factory)


HOURS = [f"2024-03-{1 + i // 24:02d}T{i % 24:02d}:00" for i in range(400)]


def hourly(n=400, change=lambda i, y: y):
    """Rows of a day's shape, with a time."""
    rng = np.random.default_rng(4)
    y = 50 + 20 * np.sin(np.arange(n) * 2 * np.pi / 24) + rng.normal(size=n)
    rows = [{"when": HOURS[i], "y": f"{change(i, v):.3f}", "x": f"{v:.2f}"} for i, v in enumerate(y)]
    return write("hours.csv", rows, ["when", "y", "x"])


def test_holidays_of_times_that_are_no_dates_are_told_of(here, capsys):
    pytest.importorskip("holidays")
    Path("data.csv").write_text("when,y\n" + "".join(f"{i},{i % 5}\n" for i in range(50)))
    words = "--holidays DE: column 'when' holds no dates: no holiday is known"
    assert main(["learn", "data.csv", "--target", "y", "--time", "when", "--holidays", "DE", "--out", "out"]) == 0
    assert capsys.readouterr().err.count(words) == 1
    assert summary()["remarks"]


def test_experts_are_told_in_every_file(here):
    go(hourly(), time="when", every=100)
    found, windows = summary(), [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    for window in windows:
        assert sum(window["weights"].values()) == pytest.approx(1, abs=1e-3)
        assert {*window["weights"]} <= {*AHEAD}
    names = [expert["name"] for expert in found["experts"]]
    assert {"stack", "network", "lags", "calendar", "last", "mean", "day"} <= {*names}
    assert "year" not in names  # it never answered
    assert sum(expert["weight"] for expert in found["experts"]) == pytest.approx(1, abs=1e-3)
    rows = table()
    y = [float(row["target"] or "nan") for row in rows]
    heard = {expert["name"]: expert["in stack"] for expert in found["experts"]}
    assert {name for name, each in heard.items() if each is None} == {"stack", "last"}
    last = next(expert for expert in found["experts"] if expert["name"] == "last")
    assert last["rows"] == found["scored"] == 399
    assert last["mean absolute error"] == pytest.approx(np.abs(np.diff(y[:400])).mean(), rel=1e-4)
    day = next(expert for expert in found["experts"] if expert["name"] == "day")
    assert day["mean absolute error"] == pytest.approx(np.abs(np.subtract(y[24:400], y[:376])).mean(), rel=0.02)
    page = write_report(Path("out")).read_text()
    assert "What carried the prediction" in page
    assert "the value a day before" in page


def test_experts_that_are_chosen(here, capsys):
    go(hourly(), time="when", experts=("day", "last"))
    assert [(expert["name"], expert["in stack"]) for expert in summary()["experts"]] == [("last", None), ("day", None)]
    rows = table()
    between = [sorted((float(rows[i - 1]["target"]), float(rows[i - 24]["target"]))) for i in range(50, 400)]
    said = [float(row["prediction"]) for row in rows[50:400]]
    assert all(low - 0.01 <= value <= high + 0.01 for value, (low, high) in zip(said, between, strict=True))
    go("hours.csv", "alone", time="when", experts=("network",))
    assert "experts" not in summary("alone")
    assert "weights" not in Path("alone/metrics.jsonl").read_text()
    assert main(["learn", "hours.csv", "--target", "y", "--experts", "nobody", "--out", "none"]) == 1
    assert "nobody" in capsys.readouterr().err


@pytest.mark.parametrize("horizon", [1, pytest.param(30, marks=pytest.mark.interfaces)])
def test_nothing_of_what_comes_is_used(here, horizon):
    """The rows after one, in another order and of other values: what was said up to it is the same to the byte."""
    go(hourly(), time="when", horizon=horizon)
    before = (Path("out") / "predictions.csv").read_text().splitlines()
    hourly(change=lambda i, y: y if i < 250 else 2 * y - 3 * (i % 7))
    go("hours.csv", "other", time="when", horizon=horizon)
    after = (Path("other") / "predictions.csv").read_text().splitlines()
    said = lambda lines: [line.split(",")[3] for line in lines]
    assert said(before)[: 251 + horizon] == said(after)[: 251 + horizon]
    assert said(before)[252 + horizon :] != said(after)[252 + horizon :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda i, when: "" if i % 7 == 3 else when,
        lambda i, when: HOURS[i - 1] if i % 5 == 4 else when,
        lambda i, when: HOURS[i + 30] if i < 300 else HOURS[i],
        lambda i, when: HOURS[max(i - 100, 0)] if i == 200 else when,
        lambda i, when: when.replace(":00", f":{i * 7 % 20:02d}"),
    ],
    ids=["missing", "twice", "summer time, and longer", "backwards", "shaken"],
)
def test_a_clock_that_is_not_even(here, spoil):
    """Is learned from all the same, to the byte in any blocks, and the day is not lost where most rows have it."""
    rows = [{"when": spoil(i, when), "y": f"{20 * math.sin(i * 0.2618) + i % 24:.3f}"} for i, when in enumerate(HOURS)]
    write("hours.csv", rows, ["when", "y"])
    go("hours.csv", time="when")
    found = summary()
    assert found["scored"] == 399
    assert found["mean absolute error"][0][0] < found["mean absolute error"][2][0]
    assert any(expert["name"] == "day" for expert in found["experts"])
    whole = contents()
    for i in (2, 150, 399):
        lines = Path("hours.csv").read_text().splitlines(keepends=True)
        Path("part.csv").write_text("".join(lines[: i + 1]))
        go("part.csv", f"part{i}", time="when")
        Path("part.csv").write_text("".join(lines))
        go("part.csv", f"part{i}", time="when", resume=True)
        assert contents(f"part{i}") == whole


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            ["--experts", "network", "stak"],
            "--experts: there is no 'stak'; there are stack, network, trees, linear, lags",
        ),
        (["--experts", "day", "day"], "--experts: one is named twice"),
        (
            ["--experts", "day", "--horizon", "0"],
            "--experts: there is no 'day' of numbers of the same row (--horizon 0); there are stack, network, trees, linear,"
            " mean",
        ),
        (
            ["--experts", "network", "lags", "--task", "classification"],
            "--experts: there is no 'lags' of a class; there are stack, network, trees, linear, last, mean",
        ),
        (["--experts", "trees"], "--experts: there is no 'trees' of numbers; there are stack, network, lags, calendar"),
        (["--experts", "stack"], "--experts: the stack says nothing by itself: name one more, such as network"),
        (["--experts", "stack", "last"], "--experts: the stack says nothing by itself"),
        (["--holidays", "DE-", "--time", "when"], "--holidays DE-: DE has no part ''; its parts are: BB"),
        (["--holidays", "DE"], "--holidays are found by the column that --time names"),
        (["--holidays", "XX", "--time", "when"], "--holidays XX: no holidays are known of a country 'XX'"),
        (["--experts", "lags", "--task", "return"], "--experts: of a return the network answers alone; leave it out"),
    ],
)
def test_experts_that_cannot_be(here, capsys, fields, said):
    hourly(30)
    assert main(["learn", "hours.csv", "--target", "y", "--out", "none", *fields]) != 0
    assert said in capsys.readouterr().err
    assert not Path("none").exists()
