"""A stream that is killed and sent again, answers as data, and what is done where a row is an alarm."""

import csv
import json
import os
import random
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from onward.cli import main
from onward.errors import OnwardError
from onward.rows import alarms
from onward.rows.again import Again, require_offsets
from onward.rows.alarms import OnAlarm
from onward.rows.options import Learn
from onward.rows.sources import Rows

pytestmark = pytest.mark.usefixtures("compile_fast")
WORDS = ["--target", "y", "--units", "2", "--experts", "network", "--every", "20", "--out", "out"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("onward.rows.report.write_report", lambda folder: folder / "report.html")


def rows_of(count, seed=0, spike=None):
    rng = np.random.default_rng(seed)
    y = 10 + np.sin(np.arange(count) / 3) + 0.1 * rng.normal(size=count)
    if spike is not None:
        y[spike] += 50
    return [{"n": i + 1, "x": round(float(rng.normal()), 4), "y": round(float(v), 4)} for i, v in enumerate(y)]


def as_csv(rows):
    return "n,x,y\n" + "".join(f"{row['n']},{row['x']},{row['y']}\n" for row in rows)


def piped(monkeypatch, text, *words):
    """The exit status of a command whose standard input is this text."""
    Path("stdin").write_text(text)
    with open("stdin") as file:
        monkeypatch.setattr(sys, "stdin", file)
        return main(["learn", "-", *words])


def table():
    with open("out/predictions.csv") as file:
        return list(csv.DictReader(file))


# Answers


def test_json_is_answered_by_json(monkeypatch, capsys):
    rows = rows_of(40)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    assert piped(monkeypatch, text, *WORDS, "--ignore", "n", "--time", "t", "--alarm", "0.01") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    lines = table()
    assert [each["row"] for each in said] == list(range(1, 41))
    assert [each["of_row"] for each in said] == list(range(2, 42))
    for answer, line in zip(said, lines[1:], strict=True):
        (told,) = answer["targets"].values()
        assert told["prediction"] == pytest.approx(float(line["prediction"]), rel=1e-6)
        assert (told["low"], told["high"]) == pytest.approx((float(line["low"]), float(line["high"])), rel=1e-6)
    for answer, line in zip(said, lines, strict=False):
        assert answer["time"] is None
        assert answer["alarm"] == bool(line["alarm"])
        score = answer["targets"]["y"]["score"]
        assert (score is None) == (line["score"] == "")
        assert score is None or score == pytest.approx(float(line["score"]), rel=1e-6)


@pytest.mark.parametrize(("words", "form"), [((), "csv"), (("--answers", "jsonl"), "jsonl")])
def test_the_form_of_answers_is_that_of_the_rows_or_as_asked(words, form, monkeypatch, capsys):
    assert piped(monkeypatch, as_csv(rows_of(20)), *WORDS, *words) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    if form == "csv":
        assert first == "of_row,prediction,low,high"
        assert len(rest) == 20
    else:
        assert json.loads(first)["row"] == 1
        assert len(rest) == 19


def test_classes_and_several_targets_as_data(monkeypatch, capsys):
    rows = [{"x": i % 3, "kind": "ab"[i % 2], "z": float(i)} for i in range(30)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    words = ["--target", "kind", "--task", "classification", "--units", "2", "--experts", "network", "--out", "c"]
    assert piped(monkeypatch, text, *words) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])["targets"]["kind"]
    assert last["prediction"] in "ab"
    assert 0 < last["probability"] <= 1
    words = ["--target", "x", "z", "--units", "2", "--experts", "network", "--out", "s"]
    assert piped(monkeypatch, text, *words) == 0
    assert set(json.loads(capsys.readouterr().out.splitlines()[-1])["targets"]) == {"x", "z"}


# Rows that come again


def block(first, offsets):
    n = len(offsets)
    return Rows(first, list(range(first, first + n)), {"n": offsets, "y": [float(i) for i in range(n)]}, {})


def passed(again, *blocks):
    return [(row, n) for each in again.new(iter(blocks)) for row, n in zip(each.numbers, each.cells["n"], strict=True)]


def test_offsets_that_are_times_have_no_gaps():
    """As Redis and others number rows. Of ones that rise by one a gap is told, after a restart, too."""
    told = []
    again = Again("n", told.append)
    assert len(passed(again, block(1, [1000 * i * i for i in range(1, 40)]))) == 39
    assert not told
    dense = Again("n", told.append)
    passed(dense, block(1, list(range(1, 30))))
    kept = json.loads(json.dumps(dense.as_dict()))
    assert not told
    later = Again("n", told.append)
    later.restore(kept)
    passed(later, block(30, [40, 41]))
    assert "10 offsets before 40 did not come" in str(told[0])


def test_offsets_that_were_there_are_passed_over_and_rows_counted_without_them():
    told = []
    again = Again("n", told.append)
    assert passed(again, block(1, [5, 6, 7])) == [(1, 5), (2, 6), (3, 7)]
    assert passed(again, block(4, [6, 7, 8]), block(7, ["8", 9.0, "10"])) == [(4, 8), (5, 9.0), (6, "10")]
    assert (again.last, again.passed) == (10, 3)
    again.steps = [9, 0]  # as after some rows more
    assert passed(again, block(10, [13, None, "x", 1.5, 14])) == [(7, 13), (8, 14)]
    assert any("2 offsets before 13 did not come" in text for text in told)
    assert any("the row has none; passed over" in text for text in told)
    assert any("the row has 'x'; passed over" in text for text in told)
    assert any("offset 6 was there already (7)" in text for text in told)
    other = Again("n", told.append)
    other.restore(json.loads(json.dumps(again.as_dict())))
    assert passed(other, block(15, [14, 15])) == [(9, 15)]


def test_from_row_passes_over_what_was_learned():
    told = []
    again = Again("", told.append)
    again.from_row(8, kept=10)
    assert passed(again, block(11, ["8", "9", "10", "11", "12"])) == [(11, "11"), (12, "12")]
    assert not told
    again = Again("", told.append)
    again.from_row(14, kept=10)
    assert "rows 11 to 13 did not come" in told[0]
    assert passed(again, block(11, ["14"])) == [(14, "14")]


@pytest.mark.parametrize(
    ("column", "first", "stream", "resume", "match"),
    [
        ("n", 3, True, True, "leave --from-row out"),
        ("n", None, False, False, "--offset is of standard input"),
        ("", 3, False, True, "--from-row is of standard input"),
        ("", 3, True, False, "use it with --resume"),
        ("", 0, True, True, "--from-row must be at least 1"),
    ],
)
def test_offsets_that_cannot_be(column, first, stream, resume, match):
    with pytest.raises(OnwardError, match=match):
        require_offsets(column, first, stream=stream, resume=resume)


def test_a_column_of_offsets_that_is_missing(monkeypatch, capsys):
    assert piped(monkeypatch, as_csv(rows_of(5)), *WORDS, "--offset", "number") == 1
    assert "has no column 'number'" in capsys.readouterr().err
    assert main(["learn", "-", *WORDS, "--offset", "y"]) == 1
    assert "--offset names 'y', which is learned from" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["offset", "from-row"])
def test_a_stream_that_is_stopped_and_sent_again_is_learned_once(way, monkeypatch, capsys):
    """Against the table of a stream that came once: equal to the byte."""
    rows = rows_of(60)
    own = ["--offset", "n"] if way == "offset" else ["--ignore", "n"]
    assert piped(monkeypatch, as_csv(rows), *WORDS, *own) == 0
    whole = Path("out/predictions.csv").read_bytes()
    Path("out").rename("whole")
    assert piped(monkeypatch, as_csv(rows[:25]), *WORDS, *own) == 0
    more = ["--resume", "out", *(["--from-row", "11"] if way == "from-row" else [])]
    assert piped(monkeypatch, as_csv(rows[10:40]), *more) == 0
    more = ["--resume", "out", *(["--from-row", "31"] if way == "from-row" else [])]
    assert piped(monkeypatch, as_csv(rows[30:]), *more) == 0
    assert Path("out/predictions.csv").read_bytes() == whole
    capsys.readouterr()


@pytest.mark.interfaces
def test_a_stream_that_is_killed_at_random_and_sent_again_is_learned_once():
    rows, draw = rows_of(400), random.Random(0)
    text, command = as_csv(rows), [sys.executable, "-m", "onward", "learn", "-"]  # other programs than a test's own
    subprocess.run([*command, *WORDS, "--offset", "n"], input=text, text=True, capture_output=True, check=True)
    whole = Path("out/predictions.csv").read_bytes()
    Path("out").rename("whole")
    head, *lines = text.splitlines(keepends=True)
    start = 0
    for attempt in range(6):
        kept = list(Path("out/checkpoints").glob("*.npz")) if Path("out").exists() else []
        words = ["--resume", "out"] if kept else [*WORDS, "--offset", "n", "--replace"]
        words += ["--checkpoint-seconds", "0.05"]
        process = subprocess.Popen(
            [*command, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        process.stdin.write(head)
        last = attempt == 5
        answers: list[str] = []  # of rows that are passed over there is none
        reader = threading.Thread(target=lambda out=process.stdout, to=answers: to.extend(out))
        reader.start()
        for i, line in enumerate(lines[start:], start):
            process.stdin.write(line)
            if i % 10 == 0:
                process.stdin.flush()
            if not last and draw.random() < 0.012:
                process.stdin.flush()
                end = time.monotonic() + 15
                while len(answers) < 20 and time.monotonic() < end:
                    time.sleep(0.05)
                time.sleep(draw.random())
                break
        if not last:
            process.kill()
        with suppress(BrokenPipeError):
            process.stdin.close()
        assert (process.wait() == 0) == last
        reader.join()
        process.stdout.close()
        if last:
            break
        start = max(0, i - 60 - draw.randrange(40)) if kept or list(Path("out/checkpoints").glob("*.npz")) else 0
        start = 0 if draw.random() < 0.3 else start
        if kept := sorted(Path("out/checkpoints").glob("*.npz")):
            start = min(start, int(kept[-1].stem.rpartition("-")[2]))
        else:
            start = 0
    assert Path("out/predictions.csv").read_bytes() == whole


# Alarms


def alarming(tmp_path, body):
    script = tmp_path / "told.py"
    script.write_text(f"import sys, json\nanswer = json.load(sys.stdin)\n{body}\n")
    return f"{sys.executable} {script}"


def test_a_command_is_run_for_each_alarm(monkeypatch, tmp_path, capsys):
    command = alarming(
        tmp_path, "open('told.txt', 'a').write(f\"{answer['row']} {answer['targets']['y']['score']}\\n\")"
    )
    text = as_csv(rows_of(150, spike=120))
    words = [*WORDS, "--ignore", "n", "--alarm", "0.001", "--on-alarm", command]
    assert piped(monkeypatch, text, *words) == 0
    told = [line.split() for line in Path("told.txt").read_text().splitlines()]
    marked = [line["row"] for line in table() if line["alarm"]]
    assert [row for row, _ in told] == marked
    assert "121" in marked
    assert all(float(score) < 0.001 for _, score in told)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("sys.exit('out of ink')", "it ended with status 1 out of ink"),
        ("import time; time.sleep(60)", "it took more than"),
    ],
)
def test_a_command_that_fails_is_told_once_and_nothing_waits_for_it(body, match, tmp_path, monkeypatch):
    monkeypatch.setattr(alarms, "LONGEST", 0.5)
    monkeypatch.setattr(alarms, "WAITING", 2)
    told = []
    command = OnAlarm(alarming(tmp_path, body), told.append)
    began = time.monotonic()
    command.tell([{"row": i, "alarm": i % 2 == 0} for i in range(20)])
    assert time.monotonic() - began < 0.4
    command.close()
    assert sum(match in text for text in told) == 1
    assert any("alarms came faster than it ran" in text for text in told)


def test_an_alarm_may_be_the_end(monkeypatch, capsys):
    text = as_csv(rows_of(150, spike=120))
    words = [*WORDS, "--ignore", "n", "--alarm", "0.001", "--stop-on-alarm"]
    assert piped(monkeypatch, text, *words) == 3
    said = capsys.readouterr().err
    first = next(line["row"] for line in table() if line["alarm"])
    assert f"row {first} is an alarm; what was learned up to row" in said
    assert "go on with: onward learn - --resume out" in said


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"on_alarm": "true"}, "--on-alarm needs --alarm"),
        ({"stop_on_alarm": True}, "--stop-on-alarm needs --alarm"),
        ({"alarm": 0.01, "on_alarm": "no-such-program-here x"}, "there is no program 'no-such-program-here'"),
        ({"alarm": 0.01, "on_alarm": "echo 'x"}, "No closing quotation"),
    ],
)
def test_what_cannot_be_run(fields, match):
    with pytest.raises(OnwardError, match=match):
        Learn(target=("y",), **fields).check()


def test_nothing_is_run_through_a_shell(monkeypatch, tmp_path, capsys):
    command = alarming(tmp_path, "open('told.txt', 'w').write(repr(sys.argv[1:]))")
    words = [*WORDS, "--ignore", "n", "--alarm", "0.001", "--on-alarm", f"{command} '$(touch pwned)' ';' 'touch pwned'"]
    assert piped(monkeypatch, as_csv(rows_of(150, spike=120)), *words) == 0
    assert Path("told.txt").read_text() == "['$(touch pwned)', ';', 'touch pwned']"
    assert not os.path.exists("pwned")
    capsys.readouterr()
