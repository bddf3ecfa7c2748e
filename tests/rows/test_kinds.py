"""What a column is: by one cell, by many, and when what follows says otherwise."""

import csv
import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from onward.cli import main
from onward.errors import OnwardError
from onward.rows import learn
from onward.rows.beginning import wild
from onward.rows.columns import surprises
from onward.rows.encoder import Encoder
from onward.rows.kinds import Column, Judge
from onward.rows.options import Learn
from onward.rows.session import Session
from onward.rows.sources import Rows
from onward.rows.sources.cells import NO_NUMBER, is_missing
from onward.rows.sources.numerals import KNOWN_MARKS, Numerals, numeral

pytestmark = pytest.mark.usefixtures("compile_fast")

# Numbers as they are written.

NUMBERS = {
    "12.5": 12.5, "-3": -3, "+3": 3, " 7 ": 7, "1e3": 1000, ".5": 0.5, "5.": 5, "1,234": 1234, "1,234.5": 1234.5, "12,345,678": 12345678,
    "1,23,456": 123456, "1 234.5": 1234.5, "1'234": 1234, "1\u2019234.5": 1234.5, "1\u00a0234": 1234, "1\u202f234": 1234, "\u22125": -5,
    "\u20135": -5, "- 5": -5, "(5)": -5, "(1,234.5)": -1234.5, "5-": -5, "true": 1, "False": 0,
    "'12.5": 12.5, "1.5D+03": 1500, "\u0661\u0662\u066b\u0665": 12.5, "\uff11\uff0c\uff12\uff13\uff14\uff0e\uff15": 1234.5,
}  # fmt: skip
COMMAS = {"12,5": 12.5, "1.234,5": 1234.5, "1.234": 1234, "1 234,5": 1234.5, "-0,123": -0.123, "7": 7, "1,5e3": 1500}
NO_NUMBERS = [
    "12,5",
    "1,2,3",
    "1.2.3",
    "192.168.10.2",
    "1_000",
    "A12",
    "12:30",
    "2025-03-01",
    "5-10",
    "1/2",
    "3rd",
    "12 pm",
    "0x1F",
    "'ten",
    "5D3",
    "ten",
]
NO_NUMBERS += ["1,23", "1,2345", "0,123", "(5", "5)", "-(5)", "--5", "12 34", "5 kW", "1e999", "\u00bd"]


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_a_number_is_read_however_it_is_written(text, value):
    if text.lower() not in ("true", "false"):
        assert Numerals().read(text) == value
    cells = {"x": [text, "2", "3"]}
    one = Encoder()
    one.settle(cells, 0, 3)
    one.give_slots(cells, 0, 3)
    x = one.encode(cells, 0, 3, range(3))[:, one.slots["x"]].astype(float)
    np.testing.assert_allclose(one.units["x"].back(x), [value, 2, 3], rtol=1e-6, atol=1e-6 * abs(value))


@pytest.mark.parametrize(("text", "value"), COMMAS.items())
def test_a_number_with_a_decimal_comma(text, value):
    assert Numerals(",").read(text) == value


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number_with_a_decimal_point(text):
    assert Numerals().read(text) is None


@pytest.mark.parametrize("mark", sorted(KNOWN_MARKS))
def test_a_known_unit_is_read_beside_a_number_and_only_that(mark):
    for text in (f"12.5{mark}", f"-12.5 {mark}", f" 1,012.5 {mark} "):
        found = numeral(text)
        assert (found.mark, found.decimal) == (mark, ".")
        assert abs(Numerals(mark=mark).read(text)) in (12.5, 1012.5)
        assert Numerals(mark="%" if mark != "%" else "K").read(text) is None
    assert Numerals(mark=mark).read("12.5") == 12.5


def test_both_readings_agree_wherever_python_reads_a_number():
    rng = np.random.default_rng(0)
    for value in np.round(10 ** rng.uniform(-3, 7, 500) * rng.choice([-1, 1], 500), 3).tolist():
        for written in (f"{value:,.3f}", f"{value:,.3f}".replace(",", " "), f"{value:.3f}", f"{value:e}"):
            assert Numerals().read(written) == pytest.approx(value, abs=1e-9 + 1e-6 * abs(value) * ("e" in written))
        german = f"{value:,.3f}".translate(str.maketrans(",.", ".,"))
        assert Numerals(",").read(german) == pytest.approx(value, abs=1e-9)


# What is missing.


@pytest.mark.parametrize(
    "mark",
    ["n/a", "NAN", "#N/A", "<NA>", "\\N", "--", ".", "NaT", "Null", "#DIV/0!", "None", "-", "#n/a N/A", "1.#IND"],
)
@pytest.mark.parametrize("written", [str, str.lower, str.upper, lambda text: f"  {text} "])
def test_a_mark_for_what_is_missing_is_known_in_any_case(mark, written):
    assert is_missing(written(mark))
    assert Judge().column([written(mark)]) is None


# A column, by its cells.

CELLS = {
    "numbers": (["1", "2.5", None], Column("number", sure=True)),
    "a mark first": (["n/a", "1", "2"], Column("number", sure=True)),
    "a word first": (["No Data", "1", "2"], Column("number", sure=True)),
    "typed": ([1, 2.5, True], Column("number", sure=True)),
    "decimal commas": (["12,5", "3,25", "1.234,0"], Column("number", Numerals(","), True, ",.")),
    "commas at the thousands": (["1,234", "567", "12,345"], Column("number", Numerals(), True)),
    "points at the thousands": (["1.234", "567", "12.345", "3.333", "4.444"], Column("number", Numerals(","), True, ".")),
    "three decimals": (["1.234", "0.567", "12.345", "3.333", "4.444"], Column("number", Numerals(), True)),
    "percent": (["62.1%", "63%"], Column("number", Numerals(mark="%"), True)),
    "a unit of one's own": ([f"{i} widgets" for i in range(9)], Column("number", Numerals(mark="widgets"), True)),
    "two units": (["5 W", "6 W", *["7 W"] * 20, "1.2 kW"], Column("number", Numerals(mark="W"), True)),
    "a few words": (["1", "2", "OFF", "3"], Column("number", sure=True)),
    "codes": (["A1", "7", "B2", "C3"], Column("category", sure=True)),
    "names": (["red", "green"] * 40, Column("category", sure=True)),
    "half numbers, many words": ([*map(str, range(50)), *(f"w{i}" for i in range(30))], Column("category", sure=True)),
    "new ones all the time": ([f"id-{i}" for i in range(80)], Column("hashed", sure=True)),
    "dates": (["2025-03-01", "2025-03-02"], Column("time", sure=True)),
    "nothing": (["", None, "NA", "unavailable"], None),
}  # fmt: skip


@pytest.mark.parametrize(("cells", "wanted"), CELLS.values(), ids=CELLS)
def test_a_column_by_many_cells(cells, wanted):
    assert Judge().column(cells, many=True) == wanted


ONE = {
    "12,5": Column("number", Numerals(","), seen=","),
    "62.1 %": Column("number", Numerals(mark="%")),
    "1,234": Column("number"),
}
ONE |= {"red": Column("category"), "5 widgets": Column("category"), "2025-03-01": Column("time"), "": None, "ERR": None}
ONE |= {1.5: Column("number"), True: Column("number"), float("inf"): None, "1e999": None, 10**400: None}


@pytest.mark.parametrize(("cell", "wanted"), ONE.items(), ids=str)
def test_a_column_by_one_cell(cell, wanted):
    assert Judge().column([cell]) == wanted


def test_what_a_person_says_counts():
    judge = Judge(numbers=("n",), categories=("c",), decimal=",")
    assert judge.column(["red", "1.500"], "n") == Column("number", Numerals(","), seen=".")
    assert judge.column(["red"], "n") is None
    assert judge.column([1, 2], "c") == Column("category", sure=True)
    assert judge.column(["1.500"], "other") == Column("number", Numerals(","), seen=".")


# A stream, which revises.


def streamed(cells, sizes, **fields):
    """The encoder, all vectors and what was said, of rows that come in blocks of some sizes."""
    options = Learn(target=("y",), horizon=0, **fields)
    said, session, start, n = [], Session(options, "-", lambda text: None), 0, len(next(iter(cells.values())))
    session.reading.complain, session.reading.encoder.complain = said.append, said.append
    vectors, turn = [], 0
    while start < n:
        stop = min(n, start + sizes[turn % len(sizes)])
        turn += 1
        part = {name: column[start:stop] for name, column in cells.items()}
        for known in session.reading.parts(Rows(start + 1, range(start + 1, stop + 1), part, {})):
            encoder, at, many = session.reading.encoder, 0, len(known.numbers)
            inputs = {name: known.cells[name] for name in session.reading.inputs(list(known.cells))}
            while at < many:
                upto = encoder.give_slots(inputs, at, many)
                x = encoder.encode(inputs, at, upto, known.numbers)
                vectors += [*np.pad(x, ((0, 0), (0, 64 - x.shape[1])), constant_values=np.nan)]
                at = upto
        start = stop
    encoder, found = session.reading.encoder, np.stack(vectors)
    plain = np.pad(encoder.plain, (0, 64 - encoder.capacity))
    # A slot that is not taken yet is missing; once it is a category's it is 0 in all rows without it.
    return encoder, np.where(plain, np.nan_to_num(found), np.nan_to_num(found, nan=-77)), said


N = 60
STREAMS = {
    "a text, then numbers": (["Sensor offline", *map(str, range(N - 1))], "number"),
    "a number, then texts": (["1", *(f"k{i % 3}" for i in range(N - 1))], "category"),
    "an integer, then decimal commas": (["5", *(f"{i},5" for i in range(N - 1))], "number"),
    "a bare number, then units": (["5", *(f"{i} kW" for i in range(N - 1))], "number"),
    "a date, then numbers": (["2025-03-01", *map(str, range(N - 1))], "number"),
    "now and then a text": ([("x" if i % 4 == 3 else str(i)) for i in range(N)], "number"),
    "late": ([None] * 20 + ["broken"] + [f"{i}.5" for i in range(N - 21)], "number"),
}


@pytest.mark.parametrize(("column", "kind"), STREAMS.values(), ids=STREAMS)
def test_a_stream_comes_to_the_right_kind_however_its_rows_come(column, kind):
    cells = {"y": [str(i % 7) for i in range(N)], "a": [f"{i % 5}" for i in range(N)], "z": column}
    cells["word"] = [f"w{i % 3}" for i in range(N)]
    whole = streamed(cells, [1])
    assert whole[0].columns["z"].kind == kind
    for sizes in ([N], [7], [2, 1, 13]):
        encoder, vectors, said = streamed(cells, sizes)
        assert json.dumps(encoder.as_dict(), sort_keys=True) == json.dumps(whole[0].as_dict(), sort_keys=True)
        np.testing.assert_array_equal(vectors, whole[1])
        assert sorted(said) == sorted(whole[2])
    alone = streamed({name: cells[name] for name in ("y", "a")}, [5])[0]
    assert whole[0].units["a"].origin == alone.units["a"].origin
    assert len(whole[0].dropped) == (
        0 if whole[0].columns["z"] == Judge().column([column[0]]) else len(whole[0].dropped)
    )


def test_a_revised_column_is_read_as_a_clean_one_from_then_on():
    """And the slots of the other columns stay where they were."""
    clean = [f"{i * 1.5}" for i in range(N)]
    spoilt = ["Sensor offline", *clean[1:]]
    cells = {"y": ["1"] * N, "a": [str(i) for i in range(N)], "b": spoilt, "c": [f"w{i % 2}" for i in range(N)]}
    encoder, vectors, said = streamed(cells, [4])
    assert said == [
        "column 'b' was read as categories, by its first cells, and what follows is numbers: from '13.5' on it is read "
        "as that; --numbers b says so from the start"
    ]
    slot = encoder.slots["b"]
    np.testing.assert_allclose(
        encoder.units["b"].back(vectors[9:, slot]), [float(cell) for cell in clean[9:]], rtol=1e-6
    )
    assert (encoder.slots["a"], encoder.vocabulary["c"]["w0"]) == (0, 2)
    assert encoder.dropped
    again = Encoder.from_dict(json.loads(json.dumps(encoder.as_dict())))
    assert again.as_dict() == encoder.as_dict()


def test_a_column_that_a_person_named_is_never_revised():
    cells = {"y": ["1"] * N, "n": ["1", *["text"] * (N - 1)], "c": ["w", *["2"] * (N - 1)]}
    encoder = streamed(cells, [5], numbers=("n",), categories=("c",))[0]
    assert (encoder.columns["n"].kind, encoder.columns["c"].kind) == ("number", "category")
    assert encoder.odd["n"] == N - 1


def test_after_a_thousand_cells_nothing_is_revised():
    cells = {"y": ["1"] * 8000, "z": [*map(str, range(1000)), *["text"] * 7000]}
    encoder = streamed(cells, [500])[0]
    assert (encoder.columns["z"].kind, encoder.fits.get("z")) == ("number", None)


def test_digits_of_every_script_are_digits_whatever_stands_beside_them():
    """A mark beside them must not make them nothing: what is no ASCII digit was once dropped."""
    zeros = [c for c in map(chr, range(sys.maxunicode)) if c.isdecimal() and unicodedata.decimal(c) == 0]
    assert len(zeros) > 50
    for zero in zeros:
        text = "".join(chr(ord(zero) + int(each)) if each.isdigit() else each for each in "120.5")
        for numerals, written in (
            (Numerals(), text),
            (Numerals(mark="%"), text + "%"),
            (Numerals(mark="%"), text + "\uff05"),
        ):
            assert numerals.read(written) == 120.5, hex(ord(zero))
        assert Numerals(",", "kWh").read(f"{text.replace('.', ',')} kWh") == 120.5


# A number at the top that is none.

CLEAN = {
    "usual": lambda rng: rng.normal(5, 2, 400),
    "a trend": lambda rng: np.arange(400.0),
    "heavy tails": lambda rng: rng.lognormal(0, 2.5, 400),
    "nearly all zero": lambda rng: np.where(rng.random(400) < 0.02, 10**5.0, 0),
    "one thing": lambda rng: np.full(400, 7.0),
    "two levels": lambda rng: np.r_[np.full(200, 1.0), np.full(200, 1e6)],
    "grows a millionfold": lambda rng: np.exp(np.linspace(0, 14, 400)),
    "gaps": lambda rng: np.where(np.arange(400) % 3 == 0, np.nan, rng.normal(size=400)),
}


@pytest.mark.parametrize("name", CLEAN)
def test_no_number_of_a_clean_column_is_wild(name):
    for seed in range(20):
        values = CLEAN[name](np.random.default_rng(seed))
        assert wild(values) == wild(values[::-1]) == []


@pytest.mark.parametrize("size", [1e6, -1e6, 1e12, -1e30, 1e300])
@pytest.mark.parametrize("at", [(0,), (1,), (0, 1), (49,), (3, 30)])
@pytest.mark.parametrize("name", ["usual", "a trend", "two levels"])
def test_a_number_among_the_first_that_is_like_no_other_is_wild(name, at, size):
    values = CLEAN[name](np.random.default_rng(0))
    values[list(at)] = size * (1e6 if name == "two levels" and abs(size) < 1e300 else 1)
    assert wild(values) == list(at)
    late = CLEAN[name](np.random.default_rng(0))
    late[50] = size  # the guard's work
    assert wild(late) == []


@pytest.mark.parametrize("column", ["x", "y"])
@pytest.mark.parametrize("first", ["3e6", "-1e15", "1e200"])
def test_a_wild_first_number_is_a_missing_one(table, capsys, column, first):
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(3, 1, 120), 3)
    cells = {"x": list(map(str, x)), "y": [f"{20 + 5 * v:.3f}" for v in x]}
    found = []
    for cell in ("", first):
        cells[column][0] = cell
        table(cells)
        assert main(["learn", "data.csv", "--target", "y", "--replace", *SMALL]) == 0
        found.append((Path("out/predictions.csv").read_text(), summary()["mean absolute error"]))
    assert found[0] == found[1]
    assert [note for note in summary()["notes"] if f"{column!r} holds {first} in row 1, many times as far off" in note]
    assert "it counts as missing" in capsys.readouterr().err


def test_what_a_sample_did_not_believe_is_not_believed_after_a_restart(table):
    options = Learn(target=("y",), horizon=0, network="columnar", units=2)
    path = table({"x": ["1e9", *map(str, range(100))], "y": [*map(str, range(101))]})
    session = Session(options, path, print)
    learn.judge(session, path)
    again = Session(options, path, print).reading
    again.restore(json.loads(json.dumps(session.reading.as_dict())), session.reading.encoder)
    block = Rows(1, range(1, 3), {"x": ["1e9", "0"], "y": ["0", "1"]}, {})
    for reading in (session.reading, again):
        assert [part.cells["x"] for part in reading.parts(block)] == [[None, "0"]]


# From the file to the report.


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("onward.rows.report.write_report", lambda folder: folder / "report.html")

    def write(columns, name="data.csv"):
        with open(name, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        return name

    return write


def summary():
    return json.loads(Path("out/summary.json").read_text())


SMALL = ["--network", "columnar", "--units", "2", "--interval", "0", "--out", "out", "--horizon", "0"]


def test_every_column_is_listed_with_what_it_was_read_as(table, capsys):
    n = 60
    table(
        {
            "when": [f"{i % 28 + 1:02}.03.2025 00:00" for i in range(n)], "load": [f"{i % 7},5" for i in range(n)],
            "hum": [f"{40 + i % 9} %" for i in range(n)], "state": ["on", "off"] * 30, "id": [f"id-{i}" for i in range(n)],
            "mixed": ["ERR" if i % 10 == 0 else str(i % 4) for i in range(n)], "empty": [""] * n,
            "level": ["-9999" if i % 8 == 0 else str(i % 4) for i in range(n)], "left": ["1"] * n,
        }
    )  # fmt: skip
    assert main(["learn", "data.csv", "--target", "load", "--ignore", "left", *SMALL]) == 0
    content = summary()
    listed = {column["name"]: column for column in content["columns"]}
    assert list(listed) == ["when", "load", "hum", "state", "id", "mixed", "empty", "level", "left"]
    assert {name: column["read as"] for name, column in listed.items()} == {
        "when": "a time, not read as an input",
        "load": "numbers with a decimal comma",
        "hum": "numbers each with '%' beside it",
        "state": "categories",
        "id": "categories, nearly all of them new",
        "mixed": "numbers",
        "empty": "nothing, all its cells are missing",
        "level": "numbers",
        "left": "not read",
    }
    assert (listed["mixed"]["missing"], listed["mixed"]["odd"]) == (5, 5)  # from the first number on
    assert (listed["state"]["otherwise"], listed["hum"]["otherwise"]) == ("--numbers state", "--categories hum")
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if line.startswith("data.csv: ")][1:] == [
        "data.csv: 5 in all: cells of column 'mixed' that hold no usable number, taken as missing, in rows 11, 21, 31, "
        "41, 51"
    ]
    assert "and 4 more, in the report" in told[0]
    notes = "\n".join(content["notes"])
    for words in (
        "--time when",
        "--ignore id",
        "'ERR'; the first in row 1",
        "--missing -9999",
        "'empty' holds nothing",
    ):
        assert words in notes
    assert main(["report", "out", "--markdown"]) == 0
    assert "| mixed | input | numbers | --categories mixed | 5 | 5 |" in capsys.readouterr().out


SAID = {
    "leading zeros": ({"x": [f"{i % 50:05}" for i in range(60)]}, "'x' is read as numbers, though it has leading zeros"),
    "many digits": ({"x": [str(10**18 + i) for i in range(60)]}, "'x' is read as numbers of 16 digits"),
    "an index": ({"Unnamed: 0": list(map(str, range(60)))}, "--ignore 'Unnamed: 0'"),
    "hex": ({"x": [hex(900 + i) for i in range(60)]}, "such as '0x384': they share 16 inputs"),
    "date and clock": ({"d": [f"2025-03-{1 + i // 24:02}" for i in range(60)], "c": [f"{i % 24}:30" for i in range(60)]},
                       "'c' looks like the time of day of 'd' (--time d+c)"),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "said"), SAID.values(), ids=SAID)
def test_what_a_column_may_be_is_said(table, capsys, columns, said):
    table(columns | {"y": [str(i % 7) for i in range(60)]})
    assert main(["learn", "data.csv", "--target", "y", *SMALL]) == 0
    assert said in capsys.readouterr().err
    assert sum(said in note for note in summary()["notes"]) == 1


def test_days_of_a_spreadsheet_are_said(table, capsys):
    for day, told in ((45717, True), (1, False)):
        table({"t": [str(day + i / 24) for i in range(60)], "x": ["1", "2"] * 30, "y": [str(i % 7) for i in range(60)]})
        assert main(["learn", "data.csv", "--target", "y", "--time", "t", "--replace", *SMALL]) == 0
        assert ("--time-format excel" in capsys.readouterr().err) == told


def test_a_file_of_one_column_says_what_parts_columns(table, capsys, tmp_path):
    for text in ("x   y\n1   2\n", '"x,y"\n"1,2"\n', "x:y\n1:2\n"):
        (tmp_path / "data.csv").write_text(text)
        assert main(["learn", "data.csv", "--target", "y", *SMALL]) == 1
        assert "has one column, " in (err := capsys.readouterr().err)
        assert "say --delimiter; where spaces part the columns, tr -s" in err


def test_the_page_lists_its_remarks(table, monkeypatch):
    place = Path(table({"a": ["n/a?"] + ["1", "2"] * 30, "y": ["3", "4", "5<"] * 20 + ["1"]})).absolute().parent
    monkeypatch.undo()  # the report is to be drawn
    monkeypatch.chdir(place)
    assert main(["learn", "data.csv", "--target", "y", *SMALL]) == 0
    notes, page = summary()["notes"], Path("out/report.html").read_text()
    assert f"<p>Remarks on the data ({len(notes)}):</p><ul><li>" in page
    assert page.count("<li>") == len(notes) > 1
    assert "5&lt;" in page


def test_a_clean_table_says_nothing(table, capsys):
    table({"x": [str(i % 5) for i in range(40)], "y": [f"{i % 7}.5" for i in range(40)]})
    assert main(["learn", "data.csv", "--target", "y", *SMALL]) == 0
    assert summary()["notes"] == []
    assert not [line for line in capsys.readouterr().err.splitlines() if line.startswith("data.csv")]


OPTIONS = {
    "--decimal x": "--decimal is . or , and not 'x'",
    "--thousands x": "--thousands is one of",
    "--decimal , --thousands ,": "are both ','",
    "--numbers a --categories a": "both name 'a'",
    "--categories y": "names the target 'y': say --task classification",
    "--task classification --numbers y": "whose classes are to be predicted",
    "--time-format ms": "is of the column that --time names",
    "--time a --time-format dayfirst": "'dayfirst' is none of",
    "--numbers nowhere": "no column 'nowhere'",
    "--skip 99": "fewer lines than are to be skipped",
    "--skip -1": "--skip must be at least 0",
}


@pytest.mark.parametrize(("words", "said"), OPTIONS.items())
def test_options_that_do_not_fit_are_refused_before_anything_is_made(table, capsys, tmp_path, words, said):
    table({"a": ["1", "2", "3"], "y": ["1", "2", "3"]})
    assert main(["learn", "data.csv", "--target", "y", *words.split(), *SMALL]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_target_of_texts_is_refused_before_anything_is_made(table, capsys, tmp_path):
    table({"x": ["1"] * 50, "y": [f"cat {i % 3}" for i in range(50)]})
    assert main(["learn", "data.csv", "--target", "y", *SMALL]) == 1
    assert "row 1, column 'y': the target 'cat 0' is not a number" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_stream_whose_target_is_no_number_ends_after_some_rows():
    session = Session(Learn(target=("y",), network="columnar", units=2, interval=0.0), "-", lambda text: None, block=8)
    cells = lambda start, stop: {"x": ["1"] * (stop - start), "y": [f"cat {i}" for i in range(start, stop)]}
    session.take(Rows(1, range(1, 21), cells(1, 21), {}))
    with pytest.raises(
        OnwardError, match="row 21, column 'y': the target 'cat 21' is not a number, nor is any before it"
    ):
        session.take(Rows(21, range(21, 30), cells(21, 30), {}))


def test_marks_of_one_s_own_are_missing(table):
    table({"x": [("-9999" if i % 5 == 0 else str(i % 4)) for i in range(40)], "y": [f"{i % 7}.5" for i in range(40)]})
    assert main(["learn", "data.csv", "--target", "y", "--missing", "-9999", *SMALL]) == 0
    column = summary()["columns"][0]
    assert (column["missing"], column["odd"]) == (7, 0)


def test_a_sample_is_a_sample_of_a_long_file(table, monkeypatch):
    """What comes after it is told as it comes."""
    monkeypatch.setattr(learn, "SAMPLE", 30)
    table({"x": [*map(str, range(100)), "odd", "odd"], "y": [f"{i % 7}.5" for i in range(102)]})
    assert main(["learn", "data.csv", "--target", "y", *SMALL]) == 0
    notes = summary()["notes"]
    assert notes == [
        f"data.csv: row {row}, column 'x': 'odd' is not a usable number there; taken as missing" for row in (101, 102)
    ]


def test_words_of_failure_are_no_categories_in_a_column_of_numbers():
    assert all(word == word.lower() for word in NO_NUMBER)
    for word in sorted(NO_NUMBER):
        assert Judge().column([word]) is None
        assert Judge().column(["red", word.upper(), "green"], many=True) == Column("category", sure=True)


@pytest.mark.parametrize(
    ("cells", "units"),
    [
        ([f"{i} kW" if i % 3 else f"{1000 * i} W" for i in range(200)], "'W', 'kW'"),
        ([f"{i}K" if i % 2 else f"{i}M" for i in range(100)], "'M', 'K'"),
        ([f"{i / 2} °C" if i % 2 else f"{i} °F" for i in range(100)], "'°F', '°C'"),
        (["5 Main St", "12 Oak Av", "3 Elm Rd"] * 50, ""),
        (["1 x 2", "2 x 3", "1 x 3"] * 50, ""),
        ([f"{i} kW" for i in range(100)], ""),
        (["a", "b"] * 50, ""),
    ],
)
def test_numbers_in_several_units_are_told(cells, units):
    column = Judge().column(cells, "x", many=True)
    said = " ".join(surprises("x", cells, column, np.full(len(cells), np.nan), range(1, len(cells) + 1)))
    assert ("in several units" in said) == bool(units)
    assert units in said
