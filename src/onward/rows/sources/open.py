"""Which form a source has, and whether it can be opened."""

import difflib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from onward.errors import OnwardError
from onward.rows.sources.base import Source
from onward.rows.sources.complaints import Complaints, reading
from onward.rows.sources.csv import CsvSource
from onward.rows.sources.folder import ParquetFolder, parts_of
from onward.rows.sources.jsonl import JsonSource
from onward.rows.sources.lines import Lines
from onward.rows.sources.magic import COLUMNS, ENDS, HEAD, packed_as, refuse_foreign
from onward.rows.sources.parquet import ParquetSource

FORMS = {
    "csv": (".csv", ".tsv", ".txt"),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "parquet": (".parquet", ".pq", ".feather", ".arrow"),
}


def require_source(source: str) -> None:
    """Refuse a source that is not there, cannot be read, or is empty; of standard input nobody knows yet."""
    if source == "-":
        return
    path = Path(source)
    with reading(source):
        if path.is_dir():
            if not parts_of(path):
                raise OnwardError(
                    f"{path} is a folder; name a file, such as one of {', '.join(FORMS)}, or a folder of Parquet files"
                )
            return
        if path.is_file():
            with open(path, "rb") as file:
                if not file.read(1):
                    raise OnwardError(f"{path} is empty")
        if path.exists():
            return
        if not path.parent.is_dir():
            raise OnwardError(f"there is no {path}, nor a folder {path.parent}")
        close = difflib.get_close_matches(path.name, os.listdir(path.parent), 3)
    raise OnwardError(f"there is no {path}" + (f"; did you mean {' or '.join(close)}?" if close else ""))


def _by_content(source: str, path: Path, form: str | None) -> str | None:
    """The form that a file has, whatever its name says."""
    with reading(source), open(path, "rb") as file:
        start = file.read(HEAD)
    if re.match(COLUMNS, start):
        return "parquet"
    if form == "parquet":
        if packed_as(start):
            raise OnwardError(f"{source} is packed, and Parquet is not read from within: unpack it")
        refuse_foreign(source, start)
    return form


def open_rows(
    source: str,
    *,
    form: str | None = None,
    delimiter: str | None = None,
    encoding: str = "",
    names: Sequence[str] | None = None,
    skip: int = 0,
    comment: str = "",
    complain: Callable[[str], None],
    strict: bool = False,
) -> Source:
    """Open a file, a folder of Parquet files, or `-` for standard input, of which at least the first line is then read.

    The form, csv, jsonl or parquet (Arrow too), is known by the first bytes or the end of the name; otherwise, what
    begins with `{` is JSON lines and all else CSV. A CSV needs a header, unless `names` stand for one. Its delimiter,
    if not given, is that of comma, semicolon, tab and bar which occurs most often in the header outside quotes; `skip`
    lines before it are left out, and all that begin with `comment` (before the header, also those with #). Its
    `encoding`, if not given, is that of its mark, or UTF-8. A file may be packed (gzip, bzip2, xz, zstandard, or a zip
    archive of one file). Whatever is wrong with rows is told to `complain`, a line each; where `strict`, it is an
    error.
    """
    path = None if source == "-" else Path(source)
    complaints = Complaints(source if path else "standard input", complain, strict)
    if path:
        require_source(source)
        if path.is_dir():
            if form not in (None, "parquet"):
                raise OnwardError(f"{path} is a folder, which is read if its files are Parquet, not {form}")
            form = "parquet"
        end = Path(path.stem if path.suffix.lower() in ENDS else path.name).suffix.lower()
        form = form or next((form for form, ends in FORMS.items() if end in ends), None)
        if path.is_file():
            form = _by_content(source, path, form)
    if form not in (None, *FORMS):
        raise OnwardError(f"there is no form {form!r}; there are {', '.join(FORMS)}")
    if form == "parquet":
        if not path or names:
            raise OnwardError("Parquet is read from a file, not from standard input, and names its columns")
        return (ParquetFolder if path.is_dir() else ParquetSource)(path, complaints)
    lines = Lines(complaints.name, path, encoding)
    try:
        if (form or ("jsonl" if lines.held[0].lstrip().startswith(b"{") else "csv")) == "csv":
            return CsvSource(lines, complaints, delimiter, names or None, skip=skip, comment=comment)
        if names:
            raise OnwardError(f"{lines.name} is JSON lines, which name their columns; names are for a CSV without")
        return JsonSource(lines, complaints)
    except BaseException:
        lines.close()
        raise
