"""Fields of a dataclass as options: what each takes, and how words become its value."""

import ast
import dataclasses
import inspect
import itertools
import json
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from onward.errors import OnwardError

Value: TypeAlias = bool | int | float | str | tuple["Value", ...] | None


def whole(word: str) -> int:
    """A whole number, also as 1e6 or 1_000_000; ValueError for another one, or one too large to be exact (2^53)."""
    try:
        return int(word)
    except ValueError:
        value = float(word)
        if not value.is_integer() or abs(value) > 2**53:
            raise
        return int(value)


def truth(word: str) -> bool:
    """`true` or `false`; ValueError for another word."""
    return bool(("false", "true").index(word.lower()))


# type: (how a word is read, what it is called, what several are called, how help shows it).
SCALARS: dict[object, tuple[Callable[[str], Value], str, str, str]] = {
    int: (whole, "a whole number", "whole numbers", "N"),
    float: (float, "a number", "numbers", "X"),
    str: (str, "a word", "words", "WORD"),
    bool: (truth, "true or false", "true or false", "VALUE"),
}


@dataclass(frozen=True)
class Field:
    """One field.

    Arguments: its name; the type of its value, or of each of its values; how many values it takes (None: one or
    more); whether it may be `none`; its default; what its value is, if that says more than its type: "a folder".
    """

    name: str
    scalar: object = str
    count: int | None = 1
    optional: bool = False
    default: Value = None
    what: str = ""

    @property
    def option(self) -> str:
        """As a person writes it."""
        return "--" + self.name.replace("_", "-")

    @property
    def switch(self) -> bool:
        """Whether it is on or off: it takes no value, and has an opposite, `--no-...`."""
        return self.scalar is bool

    @property
    def metavar(self) -> str:
        """Its value, in help."""
        choices = get_args(self.scalar)
        if self.what:
            return self.what.split()[-1].upper()
        return f"{{{','.join(choices)}}}" if choices else SCALARS[self.scalar][3]

    @property
    def usual(self) -> str:
        """Its default, in help."""
        values = self.default if isinstance(self.default, tuple) else (self.default,)
        plain = lambda value: str(value).lower() if value is None or isinstance(value, bool) else str(value)
        words = " ".join(map(plain, values))
        return f" (default: {words})" if words and (self.optional or self.default is not None) else ""

    @property
    def takes(self) -> str:
        """What is allowed, in words."""
        if self.what:
            return self.what
        choices = get_args(self.scalar)
        if choices:
            what = f"{', '.join(choices[:-1])} or {choices[-1]}"
        else:
            _, single, several, _ = SCALARS[self.scalar]
            what = single if self.count == 1 else several if self.count is None else f"{self.count} {several}"
        return f"{what}, or none" if self.optional else what

    def read(self, words: Sequence[str]) -> Value:
        """Its value; OnwardError where the words are of another kind or number."""
        values = tuple(map(self._value, words))
        if not values or self.count not in (None, len(values)) or (self.what and "" in values):
            raise OnwardError(f"{self.option} takes {self.takes}, got {' '.join(words) or 'nothing'}")
        return values[0] if self.count == 1 else values

    def take(self, value: object, where: str) -> Value:
        """A value as JSON has it; OnwardError, which begins with `where` it stands, for one of another kind."""
        if value is None and self.optional:
            return None
        values: Any = [value] if self.count == 1 else value
        if not isinstance(values, list) or self.count not in (None, len(values)) or not all(map(self._holds, values)):
            allowed = self.takes if self.count == 1 else f"a list of {self.takes}"
            raise OnwardError(
                f"{where}: {self.name} takes {allowed}, and is {_shown(value)}; put back what it was, or start anew"
            )
        return values[0] if self.count == 1 else tuple(values)

    def _holds(self, value: object) -> bool:
        """Whether JSON can hold this single value for it."""
        choices = get_args(self.scalar)
        if value is None or choices:
            return self.optional if value is None else value in choices
        kinds: tuple[type, ...] = (int, float) if self.scalar is float else (self.scalar,)  # type: ignore[assignment]
        return type(value) in kinds and (not isinstance(value, int) or abs(value) <= sys.float_info.max)

    def _value(self, word: str) -> Value:
        choices = get_args(self.scalar)
        if self.optional and word.lower() == "none":
            return None
        try:
            if choices:
                return str(choices[choices.index(word)])
            return SCALARS[self.scalar][0](word)
        except ValueError:
            raise OnwardError(f"{self.option} takes {self.takes}, got {word!r}") from None


def fields_of(kind: type) -> Iterator[Field]:
    """The fields of a dataclass whose types are bool, int, float, str, a Literal of words, a tuple of them, or None."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint, optional = hints[field.name], False
        count: int | None = 1
        if get_origin(hint) in (types.UnionType, Union):
            (hint,) = (part for part in get_args(hint) if part is not types.NoneType)
            optional = True
        if get_origin(hint) is tuple:
            parts = get_args(hint)
            hint, count = parts[0], None if parts[-1] is ... else len(parts)
        if hint not in SCALARS and get_origin(hint) is not Literal:
            raise TypeError(f"{kind.__name__}.{field.name} cannot be an option: its type is {hints[field.name]}")
        default = None if field.default is dataclasses.MISSING else field.default
        yield Field(field.name, hint, count, optional, default)


def from_json(kind: type, values: dict[str, Any], where: Path) -> dict[str, Value]:
    """The fields of a dataclass as a JSON file has them; OnwardError naming file and field where they are others."""
    fields = {field.name: field for field in fields_of(kind)}
    if odd := sorted({*values} ^ {*fields}):
        raise OnwardError(f"{where}: field {odd[0]!r} does not fit this version of onward; run it anew")
    return {name: field.take(values[name], str(where)) for name, field in fields.items()}


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else text[:60] + " ..."


def split(words: Sequence[str]) -> list[str]:
    """Words between spaces and commas: `a b`, `a,b` and `a, b` are two; an empty one stands between two commas."""
    return [word for part in " ".join(words).split(",") for word in part.split() or [""]]


def explained(kind: type) -> dict[str, str]:
    """The line below each field in the source of a dataclass, or of what it derives from."""
    lines: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(part):
            continue
        (body,) = (node.body for node in ast.parse(inspect.getsource(part)).body if isinstance(node, ast.ClassDef))
        for field, below in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                lines[ast.unparse(field.target)] = " ".join(str(below.value.value).split())
    return lines
