"""Rows from files and streams: every policy, and reading in parts equals reading in one."""

import datetime
import gzip
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
from contextlib import contextmanager, nullcontext
from decimal import Decimal

import numpy as np
import pytest

from onward.errors import OnwardError
from onward.rows.sources import is_missing, jsonl, lines, numbers, open_rows


@pytest.fixture
def said():
    return []


@pytest.fixture
def write(tmp_path):
    def write(data, name="t.csv"):
        path = tmp_path / name
        data = data.encode() if isinstance(data, str) else data
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return write


def table(source, limit=1000):
    """Every row as (number, {column: cell}), without None, and the positions after blocks."""
    found, positions = [], []
    for block in source.blocks(limit):
        assert 1 <= len(block.numbers) <= limit
        assert block.first <= block.numbers[0]
        assert list(block.cells) == list(source.names)
        assert {len(cells) for cells in block.cells.values()} == {len(block.numbers)}
        json.dumps(block.position)
        for i, number in enumerate(block.numbers):
            found.append((number, {name: c[i] for name, c in block.cells.items() if c[i] is not None}))
        positions.append(block.position)
    return found, positions


def read(path, said=None, limit=1000, **options):
    with open_rows(path, complain=(said if said is not None else []).append, **options) as source:
        return table(source, limit)[0]


def plain(path, said=None, **options):
    """The rows as lists of cells."""
    return [list(cells.values()) for _, cells in read(path, said, **options)]


# CSV


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.csv.gz", "t", "t.log"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\ufeff\n\n"])
def test_csv(write, said, name, end, start):
    path = write(start + end.join(["a,b", "1,x", "", '"2","y, ""z"""', "3,é", ""]), name)
    assert read(path, said) == [(1, {"a": "1", "b": "x"}), (2, {"a": "2", "b": 'y, "z"'}), (3, {"a": "3", "b": "é"})]
    assert said == []


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_delimiter_is_found_or_given(write, mark):
    others = ",;\t|".replace(mark, "")
    header = f'a{mark}"{others * 2}"{mark}c'
    assert plain(write(f"{header}\n1{mark}2{others}{mark}3\n")) == [["1", f"2{others}", "3"]]
    assert plain(write(f"a:b{mark}c\n1:2\n"), delimiter=":") == [["1", "2"]]
    assert plain(write("a\tb\n1\t2\n"), delimiter="tab") == [["1", "2"]]
    with pytest.raises(OnwardError, match="one character, not '::'"):
        read(write("a\n1\n"), delimiter="::")


def test_names_stand_for_a_header(write):
    assert read(write("1,5;2,5;3,5\n1;2;3\n"), names=["a", "b", "c"]) == [
        (1, {"a": "1,5", "b": "2,5", "c": "3,5"}),
        (2, {"a": "1", "b": "2", "c": "3"}),
    ]
    with pytest.raises(OnwardError, match="several columns are named 'a'"):
        read(write("1,2\n"), names=["a", "a"])
    with pytest.raises(OnwardError, match="names are for a CSV"):
        read(write("{}\n", "t.jsonl"), names=["a"])


def test_one_column_may_be_blank(write):
    for end in ("\n", "\r\n"):
        path = write(end.join(["a", "1", "", "3", '""', ""]))
        for limit in (1, 2, 9):
            assert read(path, limit=limit) == [(1, {"a": "1"}), (2, {"a": ""}), (3, {"a": "3"}), (4, {"a": ""})]


def test_header_over_several_lines(write):
    assert read(write('"a\nb","c ""d"""\n1,2\n')) == [(1, {"a\nb": "1", 'c "d"': "2"})]
    assert read(write('5" pipe,b\n1,2\n')) == [(1, {'5" pipe': "1", "b": "2"})]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ("", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        ("\n\r\n\n", "nothing but blank lines"),
        ("a,b,a,b,c\n1,2,3,4,5\n", "several columns are named 'a', 'b'"),
        ("1.5,2,3e4\n1,2,3\n", r"only numbers \(1.5, 2, 3e4 ...\); a header is needed"),
        (b"a,\xff\n1,2\n", r"its header is not UTF-8 \(try --encoding cp1252 or latin-1\)"),
        ("a,b\r1,2\r3,4\r", r"lines end with carriage returns alone; tr '.r' '.n'"),
        ("a,b\r1,2\n3,4\n", "header is not CSV: a quote or a carriage return"),
        ('a,"b\n1,2\n', r"header \(line 1\): a quote opens and does not close by the end"),
        ('a,b\n1,2\n3,"4\n5,6\n', r"row 2 \(line 3\): a quote opens and does not close by the end"),
        ('a,b\n1,"x\ny"\n3,"4' + "\n5,6" * 300_000, r"row 2 \(line 4\): a quote opens .* within 1 MiB"),
        (",".join(f"c{i}" for i in range(10_001)), "10,001 columns; 1 to 10,000 are allowed"),
        (b"a" * (2**24 + 1), "line 1: no line end in 16 MiB"),
    ],
)
def test_bad_csv(write, data, wanted):
    with pytest.raises(OnwardError, match=rf"t\.csv.*{wanted}"):
        read(write(data))


def test_bad_rows_are_left_out_and_told(write, said):
    path = write(b'a,b\n1,2\n3\n4,5,6\n\xff,7\n8,"9"x\n"l\nm",10\n11\r,12\n13,\0\n14,15\n')
    for limit in (1, 3, 100):
        said.clear()
        assert read(path, said, limit) == [
            (1, {"a": "1", "b": "2"}),
            (6, {"a": "l\nm", "b": "10"}),
            (8, {"a": "13", "b": "\0"}),
            (9, {"a": "14", "b": "15"}),
        ]
        assert said == [
            f"{path}, row 2 (line 3): 1 cell where the header has 2; left out",
            f"{path}, row 3 (line 4): 3 cells where the header has 2; left out",
            f"{path}, row 4 (line 5): not UTF-8 (try --encoding cp1252 or latin-1); left out",
            f"{path}, row 5 (line 6): not CSV: a quote or a carriage return within a cell; left out",
            f"{path}, row 7 (line 9): not CSV: a quote or a carriage return within a cell; left out",
        ]
    with pytest.raises(OnwardError, match=r"row 2 \(line 3\): 1 cell where"):
        read(path, strict=True)


@pytest.mark.parametrize("limit", [1, 50, 1000])
def test_careful_and_fast_reading_agree(write, limit):
    odd = {700: '"1\n2",3', 701: "4", 1500: '"5",6', 3999: '7,"8"'}
    path = write("a,b\n" + "".join(odd.get(i, f"{i},{-i}") + "\n" for i in range(1, 4001)))
    found = read(path, limit=limit)
    assert [number for number, _ in found] == [i for i in range(1, 4001) if i != 701]
    wanted = {700: ["1\n2", "3"], 1500: ["5", "6"], 3999: ["7", "8"]}
    assert all(list(cells.values()) == wanted.get(i, [str(i), str(-i)]) for i, cells in found)


def test_a_complaint_knows_its_row_and_its_kind(write, said):
    path = write("a,b\n" + "1\n" * 12 + "1,2\n" + "1,2,3")
    with open_rows(path, complain=said.append) as source:
        assert [number for number, _ in table(source)[0]] == [13]
    assert [(each.row, each.kind) for each in said] == [(i, "too few or too many cells") for i in [*range(1, 13), 14]]


@pytest.mark.parametrize(
    ("last", "taken", "told"),
    [
        ("3,4", True, r"row 2 \(line 3\): the last line has no line end; taken as it is"),
        ("3", False, r"row 2 \(line 3\): cut off, without a line end; left out"),
        (b"3,\xc3", False, "cut off"),
        ("3,4,5", False, "3 cells where"),
        ("  ", False, None),
    ],
)
def test_last_line_without_its_end(write, said, last, taken, told):
    path = write(b"a,b\n1,2\n" + (last.encode() if isinstance(last, str) else last))
    for limit in (1, 10):
        said.clear()
        assert [number for number, _ in read(path, said, limit)] == [1, 2][: 1 + taken]
        assert len(said) == bool(told)
        if told:
            assert re.search(told, said[0])
        with nullcontext() if taken or not told else pytest.raises(OnwardError, match=told):
            read(path, strict=True)


def test_a_row_cut_off_is_read_when_it_is_whole(write, said):
    path = write("a,b\n1,2\n3")
    with open_rows(path, complain=said.append) as source:
        [position] = table(source)[1]
    with open(path, "a") as file:
        file.write(",4\n5,6\n")
    with open_rows(path, complain=said.append) as source:
        source.resume(position)
        assert table(source)[0] == [(2, {"a": "3", "b": "4"}), (3, {"a": "5", "b": "6"})]


def test_a_row_taken_without_its_end_must_stay(write):
    path = write("a,b\n1,2\n3,4")
    with open_rows(path, complain=str) as source:
        position = table(source)[1][-1]
        mark = source.fingerprint(position)
    for more, wanted in (("", []), ("\n", []), ("\r\n5,6\n", [(3, {"a": "5", "b": "6"})])):
        with open(write("a,b\n1,2\n3,4" + more)), open_rows(path, complain=str) as source:
            source.check(mark, position)
            source.resume(position)
            assert table(source)[0] == wanted
    with open_rows(write("a,b\n1,2\n3,45\n"), complain=str) as source:
        source.check(mark, position)
        with pytest.raises(OnwardError, match="line 3, was read while it was the last"):
            source.resume(position)


# JSON lines


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.json", "t.jsonl.gz", "t.log"])
def test_json_lines(write, said, name):
    path = write('{"a": 1, "b": "x"}\n\n{"c": null, "a": 2.5}\r\n{"b": true, "d": NaN}\n{"a": -Infinity}\n', name)
    for limit in (1, 2, 10):
        found = read(path, said, limit)
        assert math.isnan(found[2][1].pop("d"))
        assert found == [(1, {"a": 1, "b": "x"}), (2, {"a": 2.5}), (3, {"b": True}), (4, {"a": -math.inf})]
    assert said == []
    with open_rows(path, complain=said.append) as source:
        assert source.names == ("a", "b")
        blocks = source.blocks(2)
        assert next(blocks).cells == {"a": [1, 2.5], "b": ["x", None], "c": [None, None]}
        assert list(next(blocks).cells) == ["a", "b", "c", "d"]


def test_bad_json_rows(write, said):
    bad = [
        (b"[1]", "not a JSON object; left out"),
        (b"7", "not a JSON object; left out"),
        (b'{"a": }', "not JSON; left out"),
        (b'{"a": 1}{"a": 1}', "not JSON; left out"),
        (b'{"a": "\xff"}', "not UTF-8 (try --encoding cp1252 or latin-1); left out"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' comes twice; left out"),
        (b'{"a": "\\ud800"}', "not JSON; left out"),
        (b"\0", "not JSON; left out"),
        (b"[" * 100_000, "not JSON; left out"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON; left out"),
    ]
    path = write(b'{"a": 0}\n' + b"\n".join(line for line, _ in bad) + b'\n{"a": 1}\n', "t.jsonl")
    assert read(path, said) == [(1, {"a": 0}), (2 + len(bad), {"a": 1})]
    wanted = [f"{path}, row {i + 2} (line {i + 2}): {text}" for i, (_, text) in enumerate(bad)]
    assert said == wanted
    for line, text in bad:
        with pytest.raises(OnwardError, match=re.escape(text[:-10])):
            read(write(b'{"a": 0}\n' + line + b"\n", "t.jsonl"), strict=True)


def test_what_is_nested_has_its_path_as_a_name(write, said):
    path = write('{"a": 1, "p": {"t": 2, "q": {"r": "x", "s": {}}}}\n{"p": {"t": 3, "u": null}, "p.v": 4}\n', "t.jsonl")
    for limit in (1, 9):
        assert read(path, said, limit) == [(1, {"a": 1, "p.t": 2, "p.q.r": "x"}), (2, {"p.t": 3, "p.v": 4})]
    assert said == []
    with open_rows(path, complain=print) as source:
        assert source.names == ("a", "p.t", "p.q.r")
        positions = table(source, 1)[1]
    with open_rows(path, complain=print) as source:
        source.check(source.fingerprint(positions[0]), positions[0])
        source.resume(json.loads(json.dumps(positions[0])))
        assert table(source)[0] == [(2, {"p.t": 3, "p.v": 4})]


@pytest.mark.parametrize(
    "row", ['{"a.b": 1, "a": {"b": 2}}', '{"a": {"b": 1, "b": 2}}', '{"a": {"b": 1}, "a": {"b": 2}}']
)
def test_a_path_that_comes_twice_is_refused_by_name(write, said, row):
    path = write('{"a": {"c": 0}}\n' + row + '\n{"a.b": 3}\n{"a": {"b": 4}}\n', "t.jsonl")
    assert read(path, said) == [(1, {"a.c": 0}), (3, {"a.b": 3}), (4, {"a.b": 4})]
    assert said == [f"{path}, row 2 (line 2): the key 'a.b' comes twice; left out"]


def test_lists_and_what_lies_too_deep_count_as_missing(write, said):
    deep = '{"d": ' * 20 + "1" + "}" * 20
    path = write('{"a": [1], "b": 2, "c": {"d": [3], "e": 4}}\n' + deep + "\n", "t.jsonl")
    assert read(path, said) == [(1, {"b": 2, "c.e": 4}), (2, {})]
    assert said == [
        *[f"{path}, row 1 (line 1), column {c!r}: a list; counts as missing" for c in ("a", "c.d")],
        f"{path}, row 2 (line 2), column {'.'.join('d' * 16)!r}: more than 16 objects within one another; "
        "counts as missing",
    ]


def test_json_that_is_no_lines(write, monkeypatch):
    for data in ('[{"a": 1}]\n', '{\n"a": 1\n}\n'):
        with pytest.raises(OnwardError, match=r"not JSON lines.*jq -c"):
            read(write(data, "t.json"))
    monkeypatch.setattr(jsonl, "MAX_COLUMNS", 50)
    with pytest.raises(OnwardError, match="more than 50 different keys"):
        read(write("".join(f'{{"k{i}": 1}}\n' for i in range(51)), "t.jsonl"))


WHOLE = {
    '{"data": [' + '{"a": 1},' * 9 + '{"a": 1}], "count": 10}': r"jq -c '\.data\[\]' makes them",
    '{"a": [1, 2], "b": [3, 4]}': r"read_json\(FILE\)\.to_json",
    '{"a": {"0": 1, "1": 2}, "b": {"0": 3, "1": 4}}': r"read_json\(FILE\)\.to_json",
    '{"columns": ["a"], "index": [0], "data": [[1]]}': r"read_json\(FILE, orient='split'\)",
}


@pytest.mark.parametrize(("text", "wanted"), WHOLE.items())
def test_a_whole_table_in_one_object_says_how_to_make_lines(write, text, wanted):
    for end in ("", "\n"):
        with pytest.raises(OnwardError, match=f"not JSON lines, an object a line: .*{wanted}"):
            read(write(text + end, "t.json"))
    assert len(read(write(f"{text}\n{text}\n", "t.json"))) == 2  # rows, whatever they hold


def test_one_row_is_no_whole_table(write):
    row = '{"a": {"b": 1, "c": 2}, "d": 3, "l": [{"x": 1}, {"x": 2}], "p": [[1, 2], [3, 4]]}\n'
    assert read(write(row, "t.jsonl")) == [(1, {"a.b": 1, "a.c": 2, "d": 3})]


@pytest.mark.parametrize(("before", "after"), [("", ","), ("", " , "), ("\x1e", ""), (" ", ""), ("\x1e", ",")])
def test_what_stands_around_an_object_is_no_part_of_it(write, said, before, after):
    text = "".join(f'{before}{{"a": {i}}}{after}\n' for i in range(3))
    assert read(write(text, "t.jsonl"), said) == [(i + 1, {"a": i}) for i in range(3)]
    assert said == []


def test_json_line_cut_off(write, said):
    path = write('{"a": 1}\n{"a": 2', "t.jsonl")
    assert read(path, said) == [(1, {"a": 1})]
    assert said == [f"{path}, row 2 (line 2): cut off, without a line end; left out"]
    said.clear()
    assert len(read(write('{"a": 1}\n{"a": 2}', "t.jsonl"), said)) == 2
    assert "taken as it is" in said[0]


# Reading in parts

NASTY = (
    b'\xef\xbb\xbf"a","b ""c""",d\r\n1,2,3\r\n\r\n"4\n\n5",x,\xc3\xa9\n6,7\n8,"9\r\n""10""","\n"\r\nbad,\xff,row\n'
    b'"q"x,1,2\n11,12,13,14\n  \n15,,\n\0,-,?\n16,17,18\r\n"19",20,21\n22\rx,1,1\n23,"a""b",",;"\r\n24,25,26'
)
NASTY_JSON = (
    b'\xef\xbb\xbf{"a": 1}\n\n{"b": [1], "a": "\xc3\xa9"}\r\nbad\n{"c": 2, "a": 3}\n{"a": 1, "a": 2}\n{"d": "\\n"}\n'
    b'\xff\n{"a": true}\n{"e": null}\n{"a": 4}'
)


@pytest.mark.parametrize(
    ("data", "name"), [(NASTY, "t.csv"), (NASTY, "t.csv.gz"), (NASTY_JSON, "t.jsonl"), (NASTY_JSON, "t.jsonl.gz")]
)
@pytest.mark.parametrize("piece", [1, 7, lines.PIECE])
def test_reading_in_two_parts_is_reading_in_one(write, said, monkeypatch, data, name, piece):
    monkeypatch.setattr(lines, "PIECE", piece)
    path = write(data, name)
    with open_rows(path, complain=said.append) as source:
        whole, positions = table(source, 1)
    assert len(whole) == len(positions) == (9 if "csv" in name else 7)
    assert [number for number, _ in whole] == (
        [1, 2, 4, 8, 9, 10, 11, 13, 14] if "csv" in name else [1, 2, 4, 6, 8, 9, 10]
    )
    assert positions[-1]["at"] == len(data)
    for limit in (1, 2, 7, 1000):
        told = []
        assert read(path, told, limit) == whole
        assert told == said
    for i, position in enumerate(positions):
        for limit in (1, 1000):
            told = []
            with open_rows(path, complain=told.append) as source:
                source.check(source.fingerprint(position), position)
                source.resume(json.loads(json.dumps(position)))
                assert list(source.names) == position.get("names", ["a", 'b "c"', "d"])
                assert (table(source, limit)[0]) == whole[i + 1 :]
                assert table(source)[0] == []
            assert told == said[len(said) - len(told) :]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_another_file_is_refused(write, name):
    lines = [f"{i},{i * i}\n" for i in range(30_000)]
    whole = "a,b\n" + "".join(lines)
    with open_rows(write(whole, name), complain=print) as source:
        for block in source.blocks(1000):
            if block.first > 20_000:
                break
        mark, position = json.loads(json.dumps([source.fingerprint(block.position), block.position]))

    def check(data):
        with open_rows(write(data, name), complain=print) as source:
            source.check(mark, position)

    check(whole)
    check(whole + "1,2\n" * 1000)
    at = position["at"]
    check(whole[:at])
    check(whole[: at + 3] + "9" + whole[at + 4 :])
    for data, wanted in (
        (whole[: at - 1], "was cut short: it ends before byte"),
        ("a,b\n", "was cut short"),
        (whole[: at - 3] + "xx" + whole[at - 1 :], r"was changed before row 2\d,\d\d\d"),
        (whole.replace("5,25\n", "5,26\n", 1), "is another file"),
        (whole.replace("a,b", "a,c"), "other columns than before: it lacks 'b' and adds 'c'"),
        (whole.replace("a,b", "b,a"), "has them in another order"),
    ):
        with pytest.raises(OnwardError, match=rf"{name}.* {wanted}" if wanted[0] == "h" else wanted):
            check(data)
    with open_rows(write(whole, name), complain=print) as source:
        source.resume(position)
        assert next(source.blocks(1)).first == position["row"] + 1
    with pytest.raises(OnwardError, match="cut short"), open_rows(write("a,b\n1,2\n", name), complain=print) as source:
        source.resume(position)


# Files


def test_what_cannot_be_opened(write, tmp_path, monkeypatch):
    write("a\n1\n", "sensor.csv")
    for name, wanted in (
        ("senso.csv", r"there is no .*senso\.csv; did you mean sensor\.csv\?"),
        ("zzz", "there is no .*zzz$"),
        ("nowhere/t.csv", "nor a folder .*nowhere"),
        ("", "is a folder"),
    ):
        with pytest.raises(OnwardError, match=wanted):
            read(str(tmp_path / name))
    with pytest.raises(OnwardError, match="there is no form 'xml'; there are csv"):
        read(str(tmp_path / "sensor.csv"), form="xml")
    with pytest.raises(OnwardError, match="not from standard input"):
        read("-", form="parquet")
    path = write("a\n1\n", "locked.csv")
    os.chmod(path, 0)
    if os.geteuid():
        with pytest.raises(OnwardError, match="you need permission"):
            read(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OnwardError, match=r't\.parquet needs pyarrow: pip install "onward\[parquet\]"'):
        read(write("PAR1", "t.parquet"))


def test_damaged_gzip(write, tmp_path):
    data = gzip.compress(("a\n" + "".join(f"{random.random()}\n" for _ in range(30_000))).encode())
    path = tmp_path / "t.csv.gz"
    for bad in (data[:100_000], data[:20], data[:2], data + b"tail", data[:50_000] + b"\0" * 9 + data[50_009:]):
        path.write_bytes(bad)
        with pytest.raises(OnwardError, match=r"cannot read .*t\.csv\.gz .*damaged or cut short"):
            read(str(path))
    for bad, said in ((b"a\n1\n", "is not gzip data"), (b"", "is empty")):
        path.write_bytes(bad)
        with pytest.raises(OnwardError, match=said):
            read(str(path))
    assert len(read(write(data, "t.csv"))) == 30_000  # known by its content


def test_memory_is_bounded(write):
    script = (
        "import resource, sys; from onward.rows.sources import open_rows\n"
        "with open_rows(sys.argv[1], complain=print) as source:\n"
        "    rows = lambda: sum(len(b.numbers) for b in source.blocks(1000))\n"
        "    next(source.blocks(1000)); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    print(rows(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    for name in ("t.csv", "t.csv.gz"):
        path = write("a,b,c\n" + "1.25,2.5,3.75\n" * 400_000, name)
        out = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True).stdout
        assert int(out.split()[0]) == 399_000
        assert int(out.split()[1]) < 8_000  # KiB


# Streams


@contextmanager
def piped(monkeypatch, data=b""):
    """Standard input as a pipe, and its other end. What waits for more than was written is stopped."""

    def stop(*_):
        raise AssertionError("a row that came is held back")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    end, start = os.pipe()
    with os.fdopen(end, "rb") as file, os.fdopen(start, "wb", buffering=0) as pipe:
        pipe.write(data)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        try:
            yield pipe
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("limit", [1, 7])
def test_stream_gives_a_row_as_soon_as_it_came(monkeypatch, said, limit):
    with piped(monkeypatch, b"a,b\n1,2\n") as pipe:
        source = open_rows("-", complain=said.append)
        assert source.names == ("a", "b")
        blocks = source.blocks(limit)
        for text, wanted in (
            (b"", ("1", "2")),
            (b"3,4\n5,", ("3", "4")),
            (b"6\n", ("5", "6")),
            (b'7,8\n"9\n', ("7", "8")),
            (b'x",10\n', ("9\nx", "10")),
            (b"bad\n11,12\n", ("11", "12")),
        ):
            pipe.write(text)
            block = next(blocks)
            assert tuple(cells[0] for cells in block.cells.values()) == wanted
            assert len(block.numbers) == 1
        assert block.position["row"] == 7
        pipe.write(b"13,14")
        pipe.close()
        assert next(blocks).numbers == [8]
        assert list(blocks) == []
        assert len(said) == 2
        source.close()
        assert not sys.stdin.buffer.closed


def test_stream_through_a_process():
    script = (
        "from onward.rows.sources import open_rows\n"
        "for block in open_rows('-', complain=print).blocks(1): print(block.numbers, block.cells, flush=True)"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        process.stdin.write(b'{"a": 1}\n{"a"')
        assert process.stdout.readline() == b"[1] {'a': [1]}\n"
        os.set_blocking(process.stdout.fileno(), False)
        time.sleep(0.1)
        assert not process.stdout.read()
        os.set_blocking(process.stdout.fileno(), True)
        process.stdin.write(b": 2}\n")
        assert process.stdout.readline() == b"[2] {'a': [2]}\n"
        process.stdin.close()
        assert process.wait(10) == 0


def test_stream_goes_on_with_its_numbers(monkeypatch):
    with piped(monkeypatch, b"a,b\n1,2\n") as pipe:
        source = open_rows("-", complain=print)
        position = next(source.blocks(1)).position
        mark = source.fingerprint(position)
    for data, error in (
        (b"a,b\n3,4\n", None),
        (b"b,a\n3,4\n", "another order"),
        (b'{"a": 1}\n', "is jsonl, and .* csv"),
    ):
        with piped(monkeypatch, data) as pipe:
            pipe.close()
            source = open_rows("-", complain=print)
            if error:
                with pytest.raises(OnwardError, match=f"standard input.*{error}"):
                    source.check(mark, position)
                continue
            source.check(mark, position)
            source.resume(position)
            assert table(source)[0] == [(2, {"a": "3", "b": "4"})]


def test_a_file_does_not_go_on_from_a_stream(monkeypatch, write):
    with piped(monkeypatch, b"a,b\n1,2\n"):
        source = open_rows("-", complain=print)
        position = next(source.blocks(1)).position
        mark = source.fingerprint(position)
    with (
        open_rows(write("a,b\n1,2\n"), complain=print) as source,
        pytest.raises(OnwardError, match="a stream was read"),
    ):
        source.check(mark, position)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"", "standard input is empty"),
        (gzip.compress(b"a\n1\n", mtime=0), "unpack it"),
        (b"PAR1\x15\x04", "is Parquet or Arrow"),
    ],
)
def test_bad_streams(monkeypatch, data, wanted):
    with piped(monkeypatch, data) as pipe:
        pipe.close()
        with pytest.raises(OnwardError, match=wanted):
            open_rows("-", complain=print)


def test_a_named_pipe_is_a_stream(tmp_path):
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    with (
        subprocess.Popen(["sh", "-c", f"printf 'a\\n1\\n2\\n' > '{path}'"]),
        open_rows(str(path), complain=print) as source,
    ):
        assert not source.moves
        assert [cells for _, cells in table(source, 1)[0]] == [{"a": "1"}, {"a": "2"}]


# Parquet


@pytest.fixture
def parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write(rows=5000, **changed):
        x = np.arange(rows)
        columns = {
            "x": arrow.array(x / 4, mask=x % 7 == 0),
            "small": arrow.array((x % 50).astype(np.float16)),
            "word": arrow.array([f"w{i % 3}" for i in x]).dictionary_encode(),
            "price": arrow.array([i % 9 for i in range(rows)], arrow.decimal128(9, 2)),
            "when": arrow.array(x.astype("datetime64[s]")),
            "on": arrow.array(x % 2 == 0),
            "list": arrow.array([[i] for i in x]),
        } | changed
        path = tmp_path / "t.parquet"
        parquet.write_table(arrow.table(columns), path, row_group_size=700)
        return str(path)

    return write


def test_parquet(parquet, said):
    path = parquet()
    with open_rows(path, complain=said.append) as source:
        whole, positions = table(source, 999)
    assert said == [f"{path}, column 'list': list<element: int64> is not for a cell; counts as missing"]
    assert [number for number, _ in whole] == list(range(1, 5001))
    wanted = {"x": 0.25, "small": 1.0, "word": "w1", "price": 1.0, "when": "1970-01-01 00:00:01.000", "on": False}
    assert whole[1] == (2, wanted)
    assert "x" not in whole[0][1]
    assert read(path, limit=7) == read(path, limit=1000) == whole
    for position in positions[:3] + positions[-1:]:
        with open_rows(path, complain=print) as source:
            source.check(source.fingerprint(position), position)
            source.resume(position)
            assert table(source)[0] == whole[position["row"] :]


def kinds_of_columns():
    """Arrow's kinds, and the cells that they give."""
    arrow = pytest.importorskip("pyarrow")
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9)
    there = datetime.timezone(datetime.timedelta(hours=2))
    words, spans = ["x", None, "é"], [datetime.timedelta(seconds=1.5), None, datetime.timedelta(days=-1)]
    yield from ((kind, words, words) for kind in (arrow.string(), arrow.large_string(), arrow.string_view()))
    for kind in (
        arrow.binary(),
        arrow.large_binary(),
        arrow.binary_view(),
        arrow.dictionary(arrow.int8(), arrow.string()),
    ):
        yield kind, words if "dict" in str(kind) else [b"x", None, "é".encode()], words
    yield arrow.binary(2), [b"ab", None, "é".encode()], ["ab", None, "é"]
    for kind in (arrow.float16(), arrow.float32(), arrow.decimal128(9, 2), arrow.decimal256(40, 2)):
        number = np.float16 if kind == arrow.float16() else Decimal if "decimal" in str(kind) else float
        yield kind, [number("1.5"), None, number("-2")], [1.5, None, -2.0]
    for kind in (arrow.int8(), arrow.uint64(), arrow.bool_(), arrow.null()):
        cells = [None] * 3 if kind == arrow.null() else [True, None, False] if kind == arrow.bool_() else [1, None, 2]
        yield kind, cells, cells
    for unit in ("s", "ms", "us", "ns"):
        yield (
            arrow.duration(unit),
            [None if s is None else s if unit != "s" else s.days for s in spans],
            ([0.0, None, -1.0] if unit == "s" else [1.5, None, -86400.0]),
        )
        for zone, clock in (
            (None, moment),
            ("UTC", moment.replace(tzinfo=datetime.UTC)),
            ("+02:00", moment.replace(tzinfo=there)),
        ):
            yield arrow.timestamp(unit, zone), [clock, None, clock], [clock, None, clock]
    yield arrow.date32(), [moment.date(), None, moment.date()], ["2024-05-06", None, "2024-05-06"]


@pytest.mark.parametrize("feather", [False, "uncompressed", "lz4"])
def test_every_kind_of_column(tmp_path, said, feather):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.feather
    import pyarrow.parquet

    kinds = list(kinds_of_columns())
    columns = {f"{i} {kind}": arrow.array(cells, kind) for i, (kind, cells, _) in enumerate(kinds)}
    path, table = str(tmp_path / ("t.feather" if feather else "t.parquet")), arrow.table(columns)
    if feather:
        pyarrow.feather.write_feather(table, path, compression=feather, chunksize=2)
    else:
        pyarrow.parquet.write_table(table, path)
    with open_rows(path, complain=said.append) as source:
        found = {name: [] for name in source.names}
        positions = []
        for block in source.blocks(2):
            positions.append(block.position)
            for name, cells in block.cells.items():
                found[name] += cells
    assert said == []
    for name, (_, _, wanted) in zip(columns, kinds, strict=True):
        cells = found[name]
        if "timestamp" in name:
            cells = [None if cell is None else datetime.datetime.fromisoformat(cell) for cell in cells]
            assert [cell and cell.utcoffset() for cell in cells] == [cell and cell.utcoffset() for cell in wanted]
        assert cells == wanted, name
        assert [type(cell) for cell in cells] == [type(cell) for cell in wanted]
    with open_rows(path, complain=said.append) as source:
        source.check(source.fingerprint(positions[0]), positions[0])
        source.resume(positions[0])
        assert [block.numbers[0] for block in source.blocks(1)] == [3]


@pytest.mark.parametrize("feather", [False, True])
def test_a_struct_is_read_by_its_paths_as_an_object_of_json_is(tmp_path, write, said, feather):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.feather
    import pyarrow.parquet

    rows = [
        {"a": i, "p": None if i % 7 == 3 else {"t": i / 4, "q": None if i % 5 == 1 else {"w": f"w{i % 3}", "l": [i]}}}
        for i in range(5000)
    ]
    path, table_ = str(tmp_path / "t.parquet"), arrow.Table.from_pylist(rows)
    pyarrow.feather.write_feather(table_, path) if feather else pyarrow.parquet.write_table(table_, path)
    with open_rows(path, complain=said.append) as source:
        assert source.names == ("a", "p.t", "p.q.w", "p.q.l")
        whole, positions = table(source, 999)
    assert said == [
        f"{path}, column 'p.q.l': list<{'item' if feather else 'element'}: int64> is not for a cell; counts as missing"
    ]
    assert whole == read(write("".join(json.dumps(row) + "\n" for row in rows), "t.jsonl"))
    for position in positions[::3]:
        with open_rows(path, complain=print) as source:
            source.check(source.fingerprint(position), position)
            source.resume(position)
            assert table(source)[0] == whole[position["row"] :]


def test_paths_of_structs_and_names_alike_are_refused(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    path = str(tmp_path / "t.parquet")
    pyarrow.parquet.write_table(arrow.Table.from_pylist([{"a.b": 1, "a": {"b": 2}}]), path)
    with pytest.raises(OnwardError, match=r"several columns are named 'a\.b'; rename them"):
        open_rows(path, complain=print)


@pytest.mark.parametrize("name", ["t.arrow", "t.feather", "t.csv", "t"])
def test_a_feather_file_is_read_in_parts(tmp_path, name):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.feather

    path = str(tmp_path / name)
    pyarrow.feather.write_feather(arrow.table({"a": range(9000), "b": ["x"] * 9000}), path, chunksize=4000)
    with open_rows(path, complain=print) as source:
        whole, positions = table(source, 999)
    assert whole == [(i + 1, {"a": i, "b": "x"}) for i in range(9000)]
    for position in positions[::3]:
        with open_rows(path, complain=print) as source:
            source.check(source.fingerprint(position), position)
            source.resume(position)
            assert table(source)[0] == whole[position["row"] :]


def test_odd_columns_of_parquet_are_told(parquet, said):
    path = parquet(3, bytes=[b"a", b"\xff", b"\xfe"], __index_level_0__=[3, 4, 5], list=[1, 2, 3])
    assert [row.get("bytes") for _, row in read(path, said)] == ["a", None, None]
    assert said == [
        f"{path}, column '__index_level_0__': the index of a pandas table, which has no name; read as a column: say "
        "--time or --ignore",
        f"{path}, column 'bytes': bytes that are not UTF-8; they count as missing",
    ]


def test_another_parquet_is_refused(parquet):
    with open_rows(parquet(), complain=str) as source:
        position = [next(source.blocks(100)) for _ in range(20)][-1].position
        mark = source.fingerprint(position)
    assert position["row"] == 2000

    def check(path):
        with open_rows(path, complain=str) as source:
            source.check(mark, position)

    check(parquet(6000))
    changed = np.arange(5000) % 50
    for path, wanted in (
        (lambda: parquet(1000), "was cut short: it ends before row 2,000"),
        (lambda: parquet(small=np.where(np.arange(5000) == 3, 9.0, changed)), "is another file"),
        (lambda: parquet(small=np.where(np.arange(5000) == 1990, 9.0, changed)), "was changed before row 2,001"),
        (lambda: parquet(more=np.zeros(5000)), "other columns than before: it adds 'more'"),
    ):
        with pytest.raises(OnwardError, match=wanted):
            check(path())


def test_damaged_parquet(parquet, write):
    with open(parquet(), "rb") as file:
        data = file.read()
    for bad in (b"PAR1", data[:-100], b"a,b\n1,2\n"):
        with pytest.raises(OnwardError, match=r"cannot read .*t\.parquet"):
            read(write(bad, "t.parquet"))


# Cells


def test_numbers():
    values, bad = numbers(["1", " -2.5e3 ", "1e300", ".5"])
    assert values.dtype == np.float64
    assert values.tolist() == [1, -2500, 1e300, 0.5]
    assert bad == []
    odd = [
        "",
        "NA",
        " N/A ",
        "NaN",
        "nan",
        "null",
        "NULL",
        "None",
        "-",
        "?",
        None,
        math.nan,
        "true",
        "TRUE",
        "tRue",
        True,
    ]
    odd += ["false", False, 3, 2.5, "1_000", "ten", "1,5", "inf", "-Infinity", math.inf, 10**400, "1e999", "1\0"]
    for mixed in (odd, odd[:10] + odd[20:], odd[10:12] + odd[17:20]):
        values, bad = numbers(mixed)
        for i, cell in enumerate(mixed):
            one, wrong = numbers([cell])
            np.testing.assert_array_equal(values[i], one[0])
            assert wrong == [0] * (i in bad)
            assert np.isnan(values[i]) == (i in bad or is_missing(cell))
    values, bad = numbers(odd)
    assert np.isnan(values[:12]).all()
    assert values[12:20].tolist() == [1, 1, 1, 1, 0, 0, 3, 2.5]
    assert bad == list(range(20, 29))
    assert numbers([])[0].shape == (0,)


def test_missing():
    assert all(map(is_missing, ["", " ", "NA", "?", None, math.nan, np.nan]))
    assert not any(map(is_missing, [0, 0.0, False, "0", "none of these", "unknown", "off", "x", math.inf]))


# Anything at all

PIECES = [
    *(b'"', b'""', b",", b",", b"\n", b"\r\n", b"\r", b"1", b"-2.5", b"NA", b"x", b";", b"\t", b"\0", b"\xff", b"\xc3"),
    *(b"\xc3\xa9", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b":", b'{"a": 1}\n', b'"a": ', b"\\", b"\\ud800", b"1_0"),
    *(b"a,b\n", b"1,2\n", b'"x\ny",3\n', b"1e999", b"true", b"null", b"NaN"),
]


def survive(folder, data, name):
    """Only OnwardError comes out; block limits and a restart make no difference."""
    path = folder / name
    path.write_bytes(data)
    outcomes = []
    for limit in (1, 3, 1000):
        found, told, error = [], [], None
        try:
            with open_rows(str(path), complain=told.append) as source:
                for block in source.blocks(limit):
                    kept = [[c[i] for c in block.cells.values() if c[i] is not None] for i in range(len(block.numbers))]
                    found += zip(block.numbers, kept, strict=True)
                    for cells in block.cells.values():
                        numbers(cells)
                    position = block.position
                told = told[:]
                if found:
                    source.check(source.fingerprint(position), position)
                    source.resume(position)
                    assert not list(source.blocks(limit))
        except OnwardError as problem:
            error = str(problem)
        "".join(told).encode()
        outcomes.append((repr(found), error, told))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def fuzz(folder, examples):
    hypothesis = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    mutated = st.tuples(
        st.sampled_from([NASTY, NASTY_JSON, b"a,b\n" + b"1,2\n" * 9]),
        st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), st.sampled_from(PIECES)), max_size=6),
    ).map(lambda pair: mutate(*pair))

    @hypothesis.settings(max_examples=examples, deadline=None, database=None, derandomize=examples < 1000)
    @hypothesis.given(
        st.one_of(st.binary(max_size=60), st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join), mutated),
        st.sampled_from(["t.csv", "t.jsonl", "t", "u.csv.gz"]),
    )
    def run(data, name):
        survive(folder, gzip.compress(data) if name.endswith("gz") and len(data) % 2 else data, name)

    run()


def mutate(data, changes):
    for at, lost, new in changes:
        data = data[:at] + new + data[at + lost :]
    return data


def test_anything_is_survived(tmp_path):
    fuzz(tmp_path, 120)


@pytest.mark.slow
def test_a_lot_of_anything_is_survived(tmp_path):
    fuzz(tmp_path, 20_000)


# A folder of Parquet files


@pytest.fixture
def partitions(tmp_path):
    """Files by day, 50 rows in all, of which one lacks a column and one brings another; and who may be no part."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder, row = tmp_path / "data.csv", 0
    for day, rows in (("2024-01-01", 20), ("2024-01-02", 0), ("2024-01-03", 17), (None, 13)):
        place = folder / f"day={day or '__HIVE_DEFAULT_PARTITION__'}" / "site=a%2Fb"
        place.mkdir(parents=True)
        columns = {"y": [float(row + i) for i in range(rows)], "x": list(range(rows))}
        if day == "2024-01-03":
            columns["late"] = columns.pop("x")
        types = {name: arrow.float64() if name == "y" else arrow.int64() for name in columns}
        parquet.write_table(
            arrow.table({name: arrow.array(cells, types[name]) for name, cells in columns.items()}),
            place / "part-0.parquet",
            row_group_size=7,
        )
        row += rows
    (folder / "_SUCCESS").write_text("")
    (folder / "_old").mkdir()
    (folder / "_old" / "part.parquet").write_bytes(b"nothing")
    return str(folder)


def test_a_folder_is_read_file_by_file(partitions):
    with open_rows(partitions, complain=print) as source:
        assert source.names == ("y", "x", "day", "site", "late")
        found, _ = table(source)
    assert [number for number, _ in found] == list(range(1, 51))
    # By path: what Hive has no name for begins with an underscore, and comes last here.
    assert [cells["y"] for _, cells in found] == [float(i) for i in range(50)]
    assert {cells["site"] for _, cells in found} == {"a/b"}
    assert [cells.get("day") for _, cells in found] == ["2024-01-01"] * 20 + ["2024-01-03"] * 17 + [None] * 13
    assert found[0][1]["x"] == found[20][1]["late"] == 0
    assert "x" not in found[20][1]


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_a_folder_is_gone_on_with_from_any_row(partitions, limit):
    with open_rows(partitions, complain=print) as source:
        whole, positions = table(source, limit)
        prints = [source.fingerprint(position) for position in positions]
    for position, known in zip(positions, prints, strict=True):
        with open_rows(partitions, complain=print) as source:
            source.check(known, position)
            source.resume(position)
            rest = table(source)[0]
        assert rest == [each for each in whole if each[0] > position["row"]]


def test_a_folder_that_is_another_is_noticed(partitions, tmp_path):
    from pyarrow import parquet

    with open_rows(partitions, complain=print) as source:
        *_, last = (block.position for block in source.blocks(100))
        known = source.fingerprint(last)
    parts = sorted((tmp_path / "data.csv").glob("day=*/site*/*.parquet"))
    more = parts[0].parent.parent.parent / "day=zz" / "site=c" / "part-1.parquet"
    more.parent.mkdir(parents=True)
    more.write_bytes(parts[0].read_bytes())  # one that comes later is gone on with
    with open_rows(partitions, complain=print) as source:
        source.check(known, last)
        source.resume(last)
        assert len(table(source)[0]) == 20
    early = more.rename(parts[0].with_name("part-00.parquet"))
    with open_rows(partitions, complain=print) as source, pytest.raises(OnwardError, match=r"data\.csv (was|is)"):
        source.check(known, last)
    early.unlink()
    parts[-1].unlink()
    with open_rows(partitions, complain=print) as source, pytest.raises(OnwardError, match="was cut short"):
        source.check(known, last)
    table_ = parquet.read_table(parts[0])
    parquet.write_table(table_.rename_columns(["y", "day"]), parts[0])
    with pytest.raises(OnwardError, match=r"part-0\.parquet: 'day' is a column of the file, and a folder above"):
        open_rows(partitions, complain=print)
    parts[0].write_bytes(b"PAR1 and then nothing")
    with pytest.raises(OnwardError, match=r"cannot read .*part-0\.parquet"):
        open_rows(partitions, complain=print)
    with pytest.raises(OnwardError, match="is a folder, which is read if its files are Parquet, not csv"):
        open_rows(partitions, form="csv", complain=print)
