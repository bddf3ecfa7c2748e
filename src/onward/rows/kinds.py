"""What a column of a table is: numbers and how they are written, categories, or times; by many cells or by one."""

import math
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple, get_args

from onward.errors import OnwardError
from onward.rows.clock import judged
from onward.rows.sources import Cell, is_missing, numbers
from onward.rows.sources.cells import NO_NUMBER, all_plain, number_in
from onward.rows.sources.numerals import KNOWN_MARKS, PLAIN, Numeral, Numerals, numeral, remembered

# hashed: categories of which nearly every row brings a new one. They have no place of their own, but share some.
Kind = Literal["number", "category", "hashed", "time"]
# How a cell fits what its column is read as. clearly: it could not be read otherwise. otherwise: a number, written in
# another way.
Fit = Literal["nothing", "agrees", "clearly", "otherwise", "against"]
# Of the cells that say something, this share may be no number in a column of numbers; or more, if they are few words.
ODD, FEW_WORDS = 0.1, 3
# Of the cells of a column of categories, this share is new where they are hashed; judged by at least so many.
NEW, ENOUGH = 0.8, 50
_POINTS = (",", ".")
# Cells of a sample by which is judged how numbers and times are written.
SOME = 200


class Column(NamedTuple):
    """What a column is read as. `sure`: by many cells, or because a person said so; else what follows may revise it.

    `seen`: of a column with a decimal comma, which of comma and point its numbers have shown so far.
    """

    kind: Kind
    numerals: Numerals = PLAIN
    sure: bool = False
    seen: str = ""

    def after(self, cells: Sequence[Cell]) -> "Column":
        """The same, once its numbers are among these cells."""
        if self.numerals.plain or len(self.seen) == len(_POINTS):
            return self
        texts = [cell for cell in cells if isinstance(cell, str)]
        every = "".join(texts)
        shows = lambda mark, text: mark in text and (found := numeral(text)) is not None and mark in found.body
        new = [m for m in _POINTS if m in self.seen or (m in every and any(shows(m, text) for text in texts))]
        return self._replace(seen="".join(new))

    def fit(self, cell: Cell) -> Fit:
        """How a cell fits what the column is read as."""
        if self.kind == "number" and number_in(cell, self.numerals) is not None:
            return "nothing" if is_missing(cell) else "clearly" if self._is_clear(cell) else "agrees"
        other = Judge().column([cell])
        if other is None:
            return "nothing"
        if other.kind == self.kind:
            return "otherwise" if self.kind == "number" else "agrees"
        return "against"

    def _is_clear(self, cell: Cell) -> bool:
        """Whether a number shows how numbers are written here, by its decimal mark or by what stands beside it."""
        if not isinstance(cell, str):
            return isinstance(cell, float)
        found = numeral(cell)
        return found is not None and (found.decimal == self.numerals.decimal or found.mark != "")

    @property
    def words(self) -> str:
        """What is read, in words."""
        if self.kind != "number":
            return {"category": "categories", "hashed": "categories, nearly all of them new", "time": "times"}[
                self.kind
            ]
        parts = ["with a decimal comma"] if "," in self.seen else ["with points between thousands"] * bool(self.seen)
        parts += [f"each with {self.numerals.mark!r} beside it"] if self.numerals.mark else []
        return " ".join(["numbers", ", ".join(parts)]).strip()

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "kind": self.kind,
            "decimal": self.numerals.decimal,
            "mark": self.numerals.mark,
            "sure": self.sure,
            "seen": self.seen,
        }

    @classmethod
    def from_dict(cls, kept: dict[str, Any]) -> "Column | None":
        """The column again; None where there is no such column."""
        if kept["kind"] not in get_args(Kind) or kept["decimal"] not in (".", ","):
            return None
        return cls(kept["kind"], Numerals(kept["decimal"], kept["mark"]), kept["sure"], kept["seen"])


class Judge(NamedTuple):
    """Says what columns are. `numbers` and `categories` name those of which a person has said it.

    `decimal`: the decimal mark where a person has said it, or where all columns of a table agree; "" for neither.
    """

    numbers: Collection[str] = ()
    categories: Collection[str] = ()
    decimal: str = ""

    def column(self, cells: Sequence[Cell], name: str = "", *, many: bool = False) -> Column | None:
        """The column that these cells are of; None where they say nothing. `many`: that they are a sample of it."""
        if name in self.categories:
            return Column("category", sure=True) if any(not is_missing(cell) for cell in cells) else None
        plain = all_plain(cells)
        known = cells if plain else [cell for cell in cells if not says_nothing(cell)]
        if not known:
            return None
        numerals = self.numerals(known, many)
        none = [] if plain and numerals.plain else numbers(known, numerals)[1]
        odd, words = len(none), {str(known[i]).strip() for i in none}
        if name in self.numbers:
            return Column("number", numerals, many).after(known) if odd < len(known) else None
        if odd < len(known) and (odd <= ODD * len(known) or (odd <= 0.5 * len(known) and len(words) <= FEW_WORDS)):
            return Column("number", numerals, many).after(known)
        clock = judged(some(known)) if all(isinstance(cell, str) for cell in known) else None
        if clock and clock.dates:
            return Column("time", sure=many)
        if len(known) >= ENOUGH and len(words) > NEW * len(known):
            return Column("hashed", sure=many)
        return Column("category", sure=many)

    def numerals(self, cells: Sequence[Cell], many: bool) -> Numerals:
        """How these cells write numbers: as most of those that leave no doubt."""
        texts = [cell for cell in some(cells) if isinstance(cell, str)]
        found = [each for text in texts if (each := numeral(text))]
        votes = Counter(_decimal(text) for text in texts)
        decimal = self.decimal or ("," if votes[","] > votes["."] or _points_part_thousands(found, votes) else ".")
        marks = Counter(each.mark for each in found if each.mark)
        if not marks:
            return Numerals(decimal)
        (mark, count), *_ = marks.most_common(1)
        usual = mark in KNOWN_MARKS or (many and count > (1 - ODD) * len(texts) and count > FEW_WORDS)
        return Numerals(decimal, mark if usual else "")


def some(cells: Sequence[Cell]) -> Sequence[Cell]:
    """Enough of many, from all over."""
    return cells[:: max(1, len(cells) // SOME)]


@remembered
def _decimal(text: str) -> str | None:
    """`Numeral.decimal` of a text; None where it is no number."""
    found = numeral(text)
    return found and found.decimal


def _points_part_thousands(found: Sequence[Numeral], votes: Counter[str | None]) -> bool:
    """Whether points stand before three digits only, and not in small numbers, which would have decimals too."""
    pointed = [each for each in found if "." in each.body]
    small = [each for each in found if "." not in each.body and "," not in each.body]
    return not votes["."] and len(pointed) > FEW_WORDS and bool(small) and all(len(each.body) <= 3 for each in small)


def agreed_decimal(columns: Collection[Sequence[Cell]]) -> str:
    """The decimal mark on which the columns of a table agree; "" if they do not, or none says."""
    votes: Counter[str] = Counter()
    for cells in columns:
        texts = [cell for cell in some(cells) if isinstance(cell, str)]
        here = Counter(decimal for text in texts if (decimal := _decimal(text)) is not None)
        if here["."] or here[","]:
            votes["," if here[","] > here["."] else "."] += 1
    return next(iter(votes)) if len(votes) == 1 else ""


def decimal_of(decimal: str, thousands: str) -> str:
    """The decimal mark that a person has named, by itself or by what separates thousands; OnwardError for others."""
    if decimal not in ("", ".", ","):
        raise OnwardError(f"--decimal is . or , and not {decimal!r}")
    if thousands not in ("", ".", ",", " ", "'"):
        raise OnwardError(f"--thousands is one of . , ' and a space, and not {thousands!r}")
    if thousands and thousands == decimal:
        raise OnwardError(f"--decimal and --thousands are both {decimal!r}")
    return decimal or {",": ".", ".": ","}.get(thousands, "")


def hint_of(name: str, kind: str) -> str:
    """The option that says of a column that it is of a kind."""
    option = {"number": "--numbers", "time": "--time"}.get(kind, "--categories")
    return f"{option} {shlex.quote(name)}"


def says_nothing(cell: Cell) -> bool:
    """Whether a cell is missing, a word for a failure, or a number beyond all that can be held."""
    if is_missing(cell) or (isinstance(cell, str) and cell.strip().lower() in NO_NUMBER):
        return True
    try:
        return math.isinf(float(cell))  # type: ignore[arg-type]
    except OverflowError:
        return True
    except ValueError:
        return False
