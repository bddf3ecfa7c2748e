"""What is odd in rows is told in their order, the first of a kind, and of all it is known where they stand; and what the
scores are without the rows that were not believed."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from onward.rows.learn import learn
from onward.rows.options import Learn
from onward.rows.predictions import Format
from onward.rows.remarks import MOST, TOLD, Remark, Remarks, Stretches
from onward.rows.report import as_markdown, write_report
from onward.rows.scores import CONTESTANTS
from onward.rows.summary import as_lines, load_summary

pytestmark = pytest.mark.usefixtures("compile_fast")

N = 300
ODD = [100, 163, 207, 250]  # rows of y that hold 99999, from 1 on
WORDS = [8, 9, 130, 31, 90]  # rows of x that hold no number
LATE = [60, 61, 62, 63, 120]  # rows of a clock that runs backwards


def clock(row):
    return f"2025-03-{1 + row // 24:02}T{row % 24:02}:00"


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A run over a table in which much is odd; what was told."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(3, 1, N)
    rows = [[clock(i), f"{x[i]:.3f}", f"{20 + 5 * x[i]:.2f}"] for i in range(N)]
    for row in LATE:
        rows[row - 1][0] = clock(0)
    for row in WORDS:
        rows[row - 1][1] = "ERR"
    for row in ODD:
        rows[row - 1][2] = "99999"
    rows.insert(40, ["too", "few"])
    with open("data.csv", "w", newline="") as file:
        csv.writer(file).writerows([["t", "x", "y"], *rows])
    return Learn(target=("y",), time="t", units=2, every=10, horizon=0)


def shifted(rows):
    """Rows after the one that was left out, which counts."""
    return [row + (row > 40) for row in rows]


def test_remarks_come_in_the_order_of_rows_and_say_how_many_more_there_are(odd, capsys):
    learn(odd, "data.csv", Path("out"))
    content = json.loads(Path("out/summary.json").read_text())
    said = [note for note in content["notes"] if note.startswith("data.csv, row") or ": row " in note]
    numbers = [int(note.split("row ")[1].split(",")[0].split(" ")[0]) for note in said]
    wanted = sorted([41, *shifted(sorted(LATE))[:TOLD], *shifted(ODD)[:TOLD]])
    assert numbers == wanted
    assert [line for line in capsys.readouterr().err.splitlines() if line in said] == said
    rest = [note.removeprefix("data.csv: ") for note in content["notes"] if " in all: " in note]
    assert sorted(rest, key=lambda line: "xty".index(line.split("'")[1])) == [
        "5 in all: cells of column 'x' that hold no usable number, taken as missing, in rows 8 to 9, 31, 91, 131",
        "5 in all: rows in which the clock 't' runs backwards, in rows 61 to 64, 121",
        "4 in all: cells of column 'y' far from all before, not believed, in rows 101, 164, 208, 251",
    ]
    found = {kind: each["at"] for kind, each in content["remarks"].items()}
    assert found["cells of column 'y' far from all before, not believed"] == [[row, row] for row in shifted(ODD)]
    assert found["rows in which the clock 't' runs backwards"] == [[61, 64], [121, 121]]
    assert found["too few or too many cells"] == [[41, 41]]


def test_a_restart_changes_nothing_of_what_is_told(odd):
    learn(odd, "data.csv", Path("whole"))
    text = Path("data.csv").read_text()
    Path("data.csv").write_text("".join(text.splitlines(keepends=True)[:150]))
    learn(odd, "data.csv", Path("parts"))
    Path("data.csv").write_text(text)
    learn(odd, "data.csv", Path("parts"), resume=True)
    whole, parts = (json.loads(Path(name, "summary.json").read_text()) for name in ("whole", "parts"))
    for name in ("remarks", "strange", "without strange targets"):
        assert parts[name] == whole[name], name
    told = lambda content: [note for note in content["notes"] if ": row " in note or ", row " in note]
    assert told(parts) == told(whole)


def test_beside_every_score_stands_the_one_without_rows_that_are_not_believed(odd):
    """By hand, from predictions.csv; the last value is the target of the row before."""
    learn(odd, "data.csv", Path("out"))
    content = load_summary(Path("out"))
    with open("out/predictions.csv", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["target"]][1:]  # the first has no last value
    kept = [i for i, line in enumerate(lines) if line["strange"] != "y"]
    y, errors = (np.array([float(line[name]) for line in lines]) for name in ("target", "error"))
    assert len(lines) - len(kept) == len(ODD)
    left = content["without strange targets"]
    assert left["rows left out"] == len(ODD)
    ours = CONTESTANTS.index("onward"), CONTESTANTS.index("linear")
    assert left["mean absolute error"][ours[0]][0] == pytest.approx(np.abs(errors[kept]).mean(), rel=1e-4)
    assert left["root mean square error"][ours[0]][0] == pytest.approx(np.sqrt(np.mean(errors[kept] ** 2)), rel=1e-4)
    assert content["mean absolute error"][ours[0]][0] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    assert np.abs(y[kept]).max() < 100
    for name, mean in zip(CONTESTANTS, left["mean absolute error"], strict=True):
        line = next(line for line in as_lines(Path("out")) if line.startswith(f"{name} "))
        assert f" ({mean[0]:.5g} without 4 rows not believed)" in line
    page = write_report(Path("out")).read_text()
    for words in ("Without 4 rows whose target was not believed it is", "believed rows", "8 to 9, 31, 91, 131"):
        assert words in page
    assert "mean absolute error, believed rows" in as_markdown(Path("out"))


def test_where_all_is_believed_no_second_score_is_told(odd):
    text = Path("data.csv").read_text().replace("99999", "35.0")
    Path("data.csv").write_text(text)
    learn(odd, "data.csv", Path("out"))
    assert "without strange targets" not in load_summary(Path("out"))
    assert not any("believed" in line for line in as_lines(Path("out")))
    assert "believed" not in as_markdown(Path("out"))


def test_pictures_show_what_is_usual_and_mark_what_is_not_believed(odd, monkeypatch):
    pictures = {}

    def keep(folder, *, parts, **_):
        pictures.update({part.name: part for part in parts if hasattr(part, "figure")})
        return folder / "report.html"

    learn(odd, "data.csv", Path("out"))
    monkeypatch.setattr("onward.rows.report.page.write_page", keep)
    write_report(Path("out"))
    axes = pictures["last-rows"].figure.axes[0]
    assert axes.get_ylim()[1] < 100
    (marks,) = [line for line in axes.get_lines() if line.get_label() == "not believed"]
    assert marks.get_xdata().tolist() == shifted(ODD)
    assert pictures["errors"].figure.axes[0].get_ylim()[1] < 0.7 * 99999 / 10
    assert "beyond the picture" in pictures["errors"].caption


# By hand.


def test_stretches_by_hand():
    rng = np.random.default_rng(0)
    rows = np.flatnonzero(rng.random(4000) < 0.6) + 1
    stretches = Stretches()
    for row in rows.tolist():
        stretches.add(row)
        stretches.add(row)  # a target that is an input too
    assert stretches.count == len(rows)
    every = [row for a, b in stretches.ends for row in range(a, b + 1)]
    assert every == rows[: len(every)].tolist()
    assert len(stretches.ends) == min(MOST, 1 + int((np.diff(rows) > 1).sum()))
    assert all(a > b + 1 for (a, _), (_, b) in zip(stretches.ends[1:], stretches.ends, strict=False))


def test_of_a_kind_three_are_told_and_an_empty_line_is_counted_only():
    remarks = Remarks()
    told = [remarks.is_told(Remark("" if row == 2 else "odd", row, "a kind")) for row in range(1, 7)]
    assert told == [True, False, True, True, False, False]
    assert remarks.is_told(Remark("of no kind", 3))
    assert remarks.rest() == ["6 in all: a kind, in rows 1 to 6"]
    again = Remarks(json.loads(json.dumps(remarks.as_dict())))
    assert again.rest() == remarks.rest()
    assert not again.is_told(Remark("odd", 8, "a kind"))


def test_the_mark_of_a_row_is_the_last_column():
    assert Format(["y"], 2, classes=False).header[-1] == "strange"
