"""What the columns of a table were read as, in words: what is surprising in a sample, and the list of a report."""

import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from onward.rows.clock import SCALES, Clock, judged
from onward.rows.kinds import FEW_WORDS, ODD, SOME, Column, hint_of, says_nothing, some
from onward.rows.options import Learn
from onward.rows.sources import Cell, is_missing, number_in
from onward.rows.sources.numerals import KNOWN_MARKS, numeral

# Numbers that stand for nothing in many loggers, if they lie far outside of all others.
SENTINELS = (
    -9999.0,
    -999.0,
    -99.0,
    -9.0,
    999.0,
    9999.0,
    99999.0,
    -99999.0,
    -32768.0,
    32767.0,
    65535.0,
    1e20,
    9.96921e36,
)
_UNIT = re.compile(r"[^\d\s]{1,4}")
_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[ap]\.?m\.?)?", re.IGNORECASE)
# Of the rows of a sample, a column of which so many have no number is told of.
TOLD = 0.02


def is_units_row(row: Mapping[str, Cell], columns: Mapping[str, Column]) -> bool:
    """Whether a first row holds units and no values: no number in it, and a text over numbers, or one for a unit."""
    says = {name: cell for name, cell in row.items() if not says_nothing(cell)}
    if not says or not all(isinstance(cell, str) for cell in says.values()):
        return False
    if any(number_in(cell) is not None or judged([cell]) for cell in says.values()):
        return False
    texts = [str(cell).strip() for cell in says.values()]
    units = [text for text in texts if re.fullmatch(r"[\[(].*[\])]", text) or text in KNOWN_MARKS - {"x", "N"}]
    over = [name for name in says if name in columns and columns[name].kind == "number"]
    return bool(units) or bool(over)


def surprises(
    name: str, cells: Sequence[Cell], column: Column | None, numbers: np.ndarray, rows: Sequence[int]
) -> list[str]:
    """What a person should know of how a column of a sample is read, and does not expect; each with what to do.

    `numbers`: its cells as numbers. `rows`: theirs.
    """
    found, n = [], len(cells)
    if column is None:
        return [f"{name!r} holds nothing in its first {n:,} rows"]
    if column.kind == "number":
        if column.words != "numbers":
            found.append(f"{name!r} is read as {column.words}")
        if column.numerals.plain and _may_be_decimal(cells):
            found.append(f"{name!r} is read with a comma between thousands (else: --decimal ,)")
        none = [i for i in np.flatnonzero(np.isnan(numbers)).tolist() if not is_missing(cells[i])]
        if none:
            odd = Counter(str(cells[i]).strip() for i in none)
            words = ", ".join(repr(text)[:30] for text, _ in odd.most_common(3))
            found.append(
                f"{name!r} is read as numbers, and {odd.total():,} of {n:,} first rows hold none ({words}; the first "
                f"in row {rows[none[0]]:,}): taken as missing (else: {hint_of(name, 'category')})"
            )
        found += _sentinels(name, numbers)
        found += _identifiers(name, cells)
    elif units := _units(cells):
        found.append(
            f"{name!r} holds numbers in several units ({units}), and is read as {column.words}: write all in one unit"
        )
    elif column.kind == "hashed":
        shown = next(cell for cell in cells if not is_missing(cell))
        found.append(
            f"{name!r} holds nearly as many texts as rows, such as {shown!r:.40}: they share 16 inputs, and say little "
            f"(--ignore {shlex.quote(name)})"
        )
    elif column.kind == "time":
        found.append(f"{name!r} looks like a time and is not read (--time {name}, or {hint_of(name, 'category')})")
    else:
        share = np.mean([number_in(cell) is not None and not is_missing(cell) for cell in cells])
        if share > TOLD:
            found.append(f"{name!r} is read as categories, though {share:.0%} are numbers (else: --numbers {name})")
    return found


def describe(
    name: str, roles: Collection[str], column: Column | None, clock: Clock | None, options: Learn
) -> tuple[str, str]:
    """What a column was read as, in words; and the option with which a person says otherwise."""
    if "time" in roles:
        return clock.words if clock else "times, none of which was read", "--time-format"
    if "entity" in roles:
        return "names of entities", ""
    if not roles:
        return "not read", f"--features {name}" if name not in options.ignore else ""
    if "target" in roles and options.task == "classification":
        return "classes", "leave out --task, for numbers"
    if column is None:
        return "nothing, all its cells are missing", ""
    if column.kind == "time":
        return "a time, not read as an input", f"--time {name}, or {hint_of(name, 'category')}"
    said = name in (*options.numbers, *options.categories) or "target" in roles
    return column.words, "" if said else hint_of(name, "category" if column.kind == "number" else "number")


def looks_like_clock(cells: Sequence[Cell]) -> bool:
    """Whether cells of a sample are times of day."""
    known = [str(cell).strip() for cell in some(cells) if not is_missing(cell)]
    return bool(known) and all(_OF_DAY.fullmatch(text) for text in known)


def looks_like_days(numbers: np.ndarray) -> bool:
    """Whether numbers of a sample may be days since 1900: they grow, and lie from 1982 to 2064."""
    known = numbers[np.isfinite(numbers)]
    return len(known) > 1 and known.min() > 30_000 and known.max() < 60_000 and not (np.diff(known) < 0).any()


def looks_like_time(cells: Sequence[Cell], numbers: np.ndarray) -> bool:
    """Whether numbers of a sample are times: they grow, and lie where times since 1970 or dates without marks do."""
    known = numbers[np.isfinite(numbers)]
    if len(known) < 3 or (np.diff(known) < 0).any() or known[0] == known[-1]:
        return False
    clock = judged(cells[:SOME])
    return clock is not None and (clock.form in SCALES or clock.form == "compact") and bool(known[0] > 1e9)


def _with_commas(cells: Sequence[Cell]) -> list[str]:
    try:
        if "," not in "".join(cells):  # type: ignore[arg-type]
            return []
    except TypeError:
        pass
    return [cell for cell in cells if isinstance(cell, str) and "," in cell]


def _may_be_decimal(cells: Sequence[Cell]) -> bool:
    """Whether all commas of a column stand before three last digits: they may be decimal marks after all."""
    commas = _with_commas(cells)
    return bool(commas) and all(re.fullmatch(r"[-+]?\d{1,3},\d{3}", cell.strip()) for cell in commas)


def _units(cells: Sequence[Cell]) -> str:
    """The units of a sample in which most cells are numbers, each with one of a few units beside it; else empty."""
    known = [cell for cell in some(cells) if isinstance(cell, str) and not is_missing(cell)]
    marks = Counter(found.mark for cell in known if (found := numeral(cell)) and _UNIT.fullmatch(found.mark))
    few = len(marks) in range(2, FEW_WORDS + 1)
    return ", ".join(map(repr, marks)) if few and marks.total() > 0.5 * len(known) else ""


def _identifiers(name: str, cells: Sequence[Cell]) -> list[str]:
    """What a column of numbers says that looks like one of names of things."""
    hint = hint_of(name, "category")
    known = [cell for cell in some(cells) if not is_missing(cell)]
    texts = [cell.strip() for cell in known if isinstance(cell, str)]
    leading = any(text.startswith("0") and text[1:].isdecimal() for text in texts)
    if len(texts) > 1 and leading and len({*map(len, texts)}) == 1:
        return [f"{name!r} is read as numbers, though it has leading zeros, as identifiers have (else: {hint})"]
    long = sum(len(text) >= 17 and text.isdecimal() for text in (str(cell).strip() for cell in known))
    if long > ODD * len(known):
        return [f"{name!r} is read as numbers of 16 digits, though it has more, as identifiers have (else: {hint})"]
    if re.fullmatch(r"Unnamed: \d+|index|level_\d+|__index_level_\d+__", name) and all(
        number_in(cell) == at for at, cell in enumerate(cells[:SOME])
    ):
        return [f"{name!r} only counts the rows, as an index of pandas does (--ignore {shlex.quote(name)})"]
    return []


def _sentinels(name: str, numbers: np.ndarray) -> list[str]:
    values = numbers[np.isfinite(numbers)]
    for mark in SENTINELS:
        others = values[values != mark]
        count = len(values) - len(others)
        if count < 2 or len(others) < 10:
            continue
        low, high = float(others.min()), float(others.max())
        if not low - 3 * (high - low) <= mark <= high + 3 * (high - low):
            said = f"{mark:g}"
            return [
                f"{name!r} holds {said} {count:,} times, far from all else (if it stands for nothing: --missing {said})"
            ]
    return []
