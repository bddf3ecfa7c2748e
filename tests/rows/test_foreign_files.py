"""Files as programs leave them: packed, of any encoding, or no tables at all."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import sqlite3
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from onward.errors import OnwardError
from onward.rows.learn import FREE, open_source, rows_expected
from onward.rows.options import Learn
from onward.rows.sources import lines, magic, open_rows
from onward.rows.sources.encodings import encoding_of

TEXT = "a,b\n" + "".join(f"{i},Zürich {i}\n" for i in range(4000)) + '5000,"č\n€"\n'
JSON = "".join(json.dumps({"a": i, "b": f"Zürich {i}"}, ensure_ascii=False) + "\n" for i in range(500))


def in_zip(data, *names, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in names or ("t.csv",):
            archive.writestr(name, data)
    return file.getvalue()


def in_zstandard(data):
    zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    return zstd.compress(data)


PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": in_zstandard,
    ".zip": in_zip,
    "": bytes,
}
PACKED = [end for end in PACK if end]
# Two frames or members one after another, as appending leaves them.
TWICE = [".gz", ".bz2", ".xz", ".zst"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.fixture
def write(tmp_path):
    def write(data, name):
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


def rows_of(source, limit=500):
    found, positions = [], []
    for block in source.blocks(limit):
        cells = list(block.cells.values())
        found += [(number, *(c[i] for c in cells)) for i, number in enumerate(block.numbers)]
        positions.append(block.position)
    return found, positions


def read(path, said=None, **options):
    with open_rows(path, complain=(said if said is not None else []).append, **options) as source:
        return rows_of(source)[0]


@pytest.mark.parametrize("end", PACK)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", [TEXT, JSON], ids=["csv", "jsonl"])
def test_a_packed_table_of_any_encoding_is_the_table(write, end, encoding, text):
    """And is gone on with from any block, known again, and refused when it is another."""
    name = "t.csv" if text is TEXT else "t.jsonl"
    wanted, said = read(write(text.encode(), name)), []
    path = write(PACK[end](text.encode(encoding)), name + end)
    with open_rows(path, complain=said.append) as source:
        assert source.moves
        assert source.packed == (end != "" or encoding[:5] != "utf-8")
        found, positions = rows_of(source)
        assert (rows_expected(path, source, positions[0], 500) is None) == source.packed
    assert found == wanted
    assert said == []
    for position in (positions[0], positions[len(positions) // 2], positions[-1]):
        with open_rows(path, complain=said.append) as source:
            source.check(mark := source.fingerprint(position), json.loads(json.dumps(position)))
            source.resume(position)
            assert rows_of(source)[0] == [row for row in wanted if row[0] > position["row"]]
        other = write(PACK[end](text.replace("Zürich 7", "Zürich 8").encode(encoding)), name + end)
        with open_rows(other, complain=print) as source, pytest.raises(OnwardError, match="is another file"):
            source.check(mark, position)
        write(PACK[end](text.encode(encoding)), name + end)


@pytest.mark.parametrize("end", [*PACKED, ".GZ"])
def test_what_is_packed_is_known_by_its_content(write, end):
    packed = PACK[end.lower()](TEXT.encode())
    assert len(read(write(packed, "t.csv"))) == 4001
    with pytest.raises(OnwardError, match=rf"t\.csv\{end} is not (gzip|bzip2|xz|zstandard|zip) data"):
        read(write(TEXT.encode(), "t.csv" + end))
    for bad in (packed[: len(packed) // 2], packed[:-9] + b"\0" * 9):
        with pytest.raises(OnwardError, match=r"cannot read .*t\.csv.*damaged or cut short"):
            read(write(bad, "t.csv" + end))


@pytest.mark.parametrize("end", TWICE)
def test_what_was_appended_is_read(write, end):
    halves = TEXT[:20_000], TEXT[20_000:]
    assert len(read(write(b"".join(PACK[end](half.encode()) for half in halves), "t.csv" + end))) == 4001


@pytest.mark.parametrize("end", PACKED)
def test_a_bomb_is_not_unpacked_at_once(write, monkeypatch, end):
    monkeypatch.setattr(lines, "MAX_LINE", 2**20)
    taken = []

    class Counted:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def read(self, size):
            taken.append(len(data := self.file.read(size)))
            return data

    def counted(path):
        file, *more = magic.unpacked(path)
        return Counted(file), *more

    monkeypatch.setattr(lines, "unpacked", counted)
    with pytest.raises(OnwardError, match=r"line 3: no line end in 1 MiB"):
        read(write(PACK[end](b"a,b\n1,2\n" + b"0" * 2**25), "t.csv" + end))
    assert sum(taken) < 2**21


def test_an_archive_holds_one_table(write):
    for more in ((), ("__MACOSX/._t.csv",), ("folder/", ".DS_Store")):
        assert len(read(write(in_zip(TEXT, "folder/t.csv", *more), "t.zip"))) == 4001
    for names, said in (
        (("a.csv", "b.csv"), "holds 2 files: 'a.csv', 'b.csv'; one is wanted: unpack it"),
        ([f"{i}.csv" for i in range(12)], "'9.csv', ...; one is wanted"),
        (("folder/",), "holds no file"),
    ):
        with pytest.raises(OnwardError, match=re.escape(said)):
            read(write(in_zip("", *names), "t.zip"))
    locked = bytearray(in_zip(TEXT, method=zipfile.ZIP_STORED))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(mark) + offset] |= 1
    with pytest.raises(OnwardError, match="locked with a password"):
        read(write(bytes(locked), "t.zip"))


def test_without_zstandard_it_says_what_to_install(write, monkeypatch):
    path = write(b"\x28\xb5\x2f\xfd" + bytes(9), "t.csv.zst")
    for name in ("compression", "compression.zstd", "backports", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(OnwardError, match=re.escape('t.csv.zst needs backports.zstd: pip install "onward[zstd]"')):
        read(path)


# Encodings


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp1250", "shift_jis", "gb18030", "cp037", "UTF-16", "utf8"])
@pytest.mark.parametrize("piece", [1, 7, lines.PIECE])
def test_an_encoding_that_is_given(write, monkeypatch, encoding, piece):
    monkeypatch.setattr(lines, "PIECE", piece)
    monkeypatch.setattr("onward.rows.sources.encodings.PIECE", piece)
    word = {"shift_jis": "東京", "gb18030": "北京€", "cp1250": "Łódź"}.get(encoding, "Zürich")
    path = write(f"a,b\n1,{word}\n2,{word}x\n".encode(encoding), "t.csv")
    assert read(path, encoding=encoding) == [(1, "1", word), (2, "2", word + "x")]


def test_a_byte_that_does_not_fit_is_named(write):
    for data, encoding, kind in (
        (b"a,b\n1,x\n2,\x81\n3,\x80\n", "cp1252", "not cp1252 (is --encoding right?)"),
        (b"a,b\n1,x\n2,\x81\n3,\xe2\x82\xac\n", "", "not UTF-8 (try --encoding cp1252 or latin-1)"),
        ("a,b\n1,x\n2,".encode("utf-16") + b"\x00\xd8" + "\n3,€\n".encode("utf-16-le"), "", "not UTF-16"),
    ):
        said = []
        path = write(data, "t.csv")
        assert read(path, said, encoding=encoding) == [(1, "1", "x"), (3, "3", "€")]
        assert len(said) == 1
        assert said[0].startswith(f"{path}, row 2 (line 3): {kind}")
        with pytest.raises(OnwardError, match=r"row 2 \(line 3\): not"):
            read(path, encoding=encoding, strict=True)


def test_a_latin_1_export_says_how_to_read_it(write):
    path = write("größe,b\n1,2\n".encode("latin-1"), "t.csv")
    with pytest.raises(OnwardError, match=re.escape("its header is not UTF-8 (try --encoding cp1252 or latin-1)")):
        read(path)
    with open_rows(path, encoding="latin-1", complain=print) as source:
        assert source.names == ("größe", "b")


def test_the_option_is_the_encoding(write):
    path = write("größe,y\n1,2\n".encode("cp1252"), "t.csv")
    with open_source(Learn(target=("y",), encoding="cp1252"), path, print) as source:
        assert source.names == ("größe", "y")
    assert "encoding" in FREE


@pytest.mark.parametrize("encoding", ["utf-9", "base64", "rot13", "hex", "undefined", "idna2", "\0", "x" * 99])
def test_an_encoding_that_is_none_is_refused(write, encoding):
    with pytest.raises(OnwardError, match=r"--encoding .*: no encoding of text has that name; such as utf-8"):
        read(write(b"a\n1\n", "t.csv"), encoding=encoding)


def test_a_mark_and_another_encoding_is_refused(write):
    for mark in ("utf-16", "utf-8-sig"):
        with pytest.raises(OnwardError, match=r"begins with the mark of UTF-.*, not of latin-1: leave --encoding out"):
            read(write("a\n1\n".encode(mark), "t.csv"), encoding="latin-1")
    assert read(write("a\n1\n".encode("utf-16"), "t.csv"), encoding="utf-16-le") == [(1, "1")]


def test_text_is_not_taken_for_utf_16():
    for start in (
        b"",
        b"a",
        b"a,b\n1,2\n",
        b"\0,\0\n",
        b"a\0b\0\0",
        "é€,b\n".encode(),
        b"1,\0,,\0",
        b"1,2\n" + bytes(99),
    ):
        assert encoding_of("t", "", start) == "UTF-8"
    for text in ("a,b\n1", "größe,x\n1,2", "температура,b\n1,2,3,4,5,6,7"):
        for encoding in ("UTF-16-LE", "UTF-16-BE"):
            assert encoding_of("t", "", text.encode(encoding)) == encoding


def test_a_stream_of_utf_16():
    script = (
        "from onward.rows.sources import open_rows\n"
        "for block in open_rows('-', complain=print).blocks(1): print(*block.numbers, block.cells, flush=True)"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        process.stdin.write("a,b\n1,2\n3".encode("utf-16"))
        assert process.stdout.readline() == b"1 {'a': ['1'], 'b': ['2']}\n"
        process.stdin.write(",é\n".encode("utf-16-le"))
        process.stdin.close()
        assert process.stdout.readline().decode() == "2 {'a': ['3'], 'b': ['é']}\n"
        assert process.wait(10) == 0


# What is no table


def of_sqlite():
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (a)")
    return connection.serialize()


def of_tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("t.csv"))
    return file.getvalue()


def of_numpy(save, **arrays):
    file = io.BytesIO()
    save(file, *([np.ones(3)] if not arrays else []), **arrays)
    return file.getvalue()


FOREIGN = {
    "t.xlsx": (in_zip("<xml/>", "[Content_Types].xml", "xl/workbook.xml"), "Office document.*save the sheet as CSV"),
    "t.ods": (in_zip("application", "mimetype", "content.xml"), "Office document.*save the sheet as CSV"),
    "t.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "old Office document.*save the sheet as CSV"),
    "t.pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is a PDF, not a table"),
    "t.html": (b"\n <!DOCTYPE html>\n<html><body>Log in", "is an HTML page.*get the data again"),
    "u.html": (b"\xef\xbb\xbf<HTML lang='en'>\n", "is an HTML page"),
    "t.xml": (b"<?xml version='1.0'?>\n<a/>", "is XML"),
    "t.db": (of_sqlite(), r"is an SQLite database.*sqlite3 -header -csv .* 'select"),
    "t.npy": (of_numpy(np.save), "is a NumPy array.*savetxt"),
    "t.npz": (of_numpy(np.savez, a=np.ones(3), b=np.ones(2)), r"NumPy arrays \(.npz\)"),
    "t.h5": (b"\x89HDF\r\n\x1a\n" + bytes(9), "is HDF5"),
    "t.mat": (b"MATLAB 5.0 MAT-file, Platform", "is a MATLAB file"),
    "t.tar": (of_tar(), "is a tar archive.*unpack it"),
    "t.tar.gz": (gzip.compress(of_tar()), "is a tar archive.*unpack it"),
    "t.7z": (b"7z\xbc\xaf\x27\x1c\0\4", "is a 7z archive"),
    "t.png": (b"\x89PNG\r\n\x1a\n", "is a picture"),
    "t.orc": (b"ORC\x08\x03\x10", "is ORC"),
    "t.csv.zip": (in_zip(in_zip("a\n1\n")), "packed by zip.*unpack it"),
} | {
    f"t{protocol}.pkl": (pickle.dumps([1.0], protocol), "is a pickle, not a table: that is a program, which is never")
    for protocol in (2, 3, 4, 5)
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_table_is_named_with_the_way_out(write, monkeypatch, name):
    data, said = FOREIGN[name]
    for named in (name,) if name.endswith("gz") else (name, "t.csv", "t"):
        with pytest.raises(OnwardError, match=said) as error:
            read(write(data, named))
        assert "\n" not in str(error.value)
    with pytest.raises(OnwardError, match=r"t\.parquet is .*: "):
        read(write(data, "t.parquet"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with pytest.raises(OnwardError, match=r"standard input (is|brings) .*(:|;) "):
        read("-")


@pytest.mark.parametrize(
    "name", ["PAR1", "BZh9", "ORC", "FEA1", "Obj", "MATLAB", "PK", "Rar!", "GIF", "SQLite format 3", "<b>"]
)
def test_a_column_may_have_a_name_like_theirs(write, name):
    for header in (f"{name},b\n1,2\n", f"{name}\n1\n"):
        with open_rows(write(header.encode(), "t.csv"), complain=print) as source:
            assert source.names[0] == name
