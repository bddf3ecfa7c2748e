"""What a file is by its first bytes: packed, and how it is unpacked; or no table of text, and the way out."""

import bz2
import gzip
import lzma
import re
import zipfile
from pathlib import Path
from typing import Any

from onward.errors import OnwardError, needs

HEAD = 1024  # bytes that are looked at
COLUMNS = rb"PAR1[\x00-\x08\x0e-\x1f]|ARROW1\x00"  # Parquet, or Arrow, which Feather is too
ENDS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstandard", ".zip": "zip"}
ERRORS = (lzma.LZMAError, zipfile.BadZipFile)  # of unpacking, besides those of files

_PACKED = {
    "gzip": rb"\x1f\x8b",
    "bzip2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    "xz": rb"\xfd7zXZ\x00",
    "zstandard": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
    "zip": rb"PK(\x03\x04|\x05\x06)",
}
_SHEET = "save the sheet as CSV (UTF-8), and give that"
_ARRAYS = "write it as CSV from the program that made it"
_UNPACK = "unpack it, and give a file that was in it"
_FOREIGN = {
    rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Office document (.xls)", _SHEET),
    rb"%PDF-": ("a PDF", "ask for the data behind it, or copy its table into a spreadsheet and save that as CSV"),
    rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype html|(html|head|body|table)[\s>])": (
        "an HTML page",
        "often a page of log-in or of an error in place of a download: open it in a browser, and get the data again",
    ),
    rb"(\xef\xbb\xbf)?\s*<\?xml": ("XML", "write it as CSV or JSON lines"),
    rb"SQLite format 3\x00": ("an SQLite database", "sqlite3 -header -csv FILE 'select * from TABLE' > table.csv"),
    COLUMNS: ("Parquet or Arrow", "give it as a file of its own, not packed and not as standard input"),
    rb"FEA1\x00": ("Feather of version 1", "write it again with pyarrow.feather.write_feather"),
    rb"\x93NUMPY": ("a NumPy array", "numpy.savetxt('table.csv', array, delimiter=',', header='a,b', comments='')"),
    rb"\x80[\x02-\x05]": (
        "a pickle",
        "that is a program, which is never run here: in the program that made it, write CSV or Parquet",
    ),
    rb"\x89HDF\r\n\x1a\n": ("HDF5", _ARRAYS),
    rb"MATLAB [57]\.\d": ("a MATLAB file", _ARRAYS),
    rb"ORC[^\t\n\r -~]": ("ORC", "write it as Parquet: pyarrow.orc.read_table reads it"),
    rb"Obj\x01": ("Avro", "write it as JSON lines: avro-tools tojson"),
    rb"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    rb"Rar!\x1a\x07": ("a RAR archive", _UNPACK),
    rb"\x1f\x9d": ("packed by compress (.Z)", _UNPACK),
    rb"\x04\x22\x4d\x18": ("packed by lz4", _UNPACK),
    rb"(?s:.{257})ustar": ("a tar archive", _UNPACK),
    rb"(\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a)": ("a picture", "give a table"),
}


def packed_as(start: bytes) -> str | None:
    """How a file that begins so is packed: gzip, bzip2, xz, zstandard or zip; None where it is not."""
    return next((name for name, magic in _PACKED.items() if re.match(magic, start)), None)


def refuse_foreign(name: str, start: bytes) -> None:
    """Say of a source that begins so what it is, where it is known and no text; OnwardError, with the way out."""
    for magic, (what, advice) in _FOREIGN.items():
        if re.match(magic, start):
            raise OnwardError(f"{name} is {what}, not a table: {advice.replace('FILE', name)}")


def unpacked(path: Path) -> tuple[Any, tuple[type[Exception], ...], str | None]:
    """A file, opened: its bytes unpacked as they are asked for; the errors of unpacking; and how it was packed.

    A pipe is opened as it is.
    OnwardError: it is not what its name says, an archive of several files or locked, or what unpacks it is missing.
    """
    if not path.is_file():
        return open(path, "rb"), (), None
    with open(path, "rb") as file:
        packed = packed_as(file.read(HEAD))
    wanted = ENDS.get(path.suffix.lower())
    if wanted and not packed:
        raise OnwardError(f"{path} is not {wanted} data; get it again, or rename it if it is not packed")
    if packed == "zstandard":
        zstd = _zstandard(path)
        return zstd.open(path), (*ERRORS, zstd.ZstdError), packed
    openers: dict[str | None, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open, "zip": _only_member}
    return openers[packed](path) if packed else open(path, "rb"), ERRORS, packed


def _zstandard(path: Path) -> Any:
    """The module that unpacks it: of Python from 3.14 on, and its twin for those before."""
    try:
        from compression import zstd
    except ImportError:
        try:
            from backports import zstd
        except ImportError as error:
            raise OnwardError(needs(f"reading {path}", "zstd")) from error
    return zstd


def _only_member(path: Path) -> Any:
    """The one file of an archive, opened; what a system adds of its own does not count."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if {"[Content_Types].xml", "mimetype"} & {*names}:
            raise OnwardError(f"{path} is an Office document (such as .xlsx, .ods), not a table: {_SHEET}")
        if names and all(name.endswith(".npy") for name in names):
            raise OnwardError(f"{path} is a file of NumPy arrays (.npz), not a table: {_ARRAYS}")
        members = [
            member
            for member in archive.infolist()
            if not member.is_dir() and not re.match(r"__MACOSX/|.*\.DS_Store$|.*Thumbs\.db$", member.filename)
        ]
        if len(members) != 1:
            shown = ", ".join(f"{member.filename!r:.80}" for member in members[:10]) + ", ..." * (len(members) > 10)
            holds = f"{len(members):,} files: {shown}" if members else "no file"
            raise OnwardError(f"{path} holds {holds}; one is wanted: unpack it (unzip), and give one of them")
        if members[0].flag_bits & 1:
            raise OnwardError(f"{path} is locked with a password: unpack it (unzip), and give the file in it")
        try:
            return archive.open(members[0])
        except NotImplementedError:
            raise OnwardError(f"{path} is packed in an unusual way: unpack it, and give the file in it") from None
