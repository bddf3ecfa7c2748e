"""Numbers as people write them: decimal comma, thousands, percent, currencies, units, signs of all kinds."""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import NamedTuple, TypeVar

from onward.text import number

Said = TypeVar("Said")
# Signs and spaces that are not ASCII, as those that are.
_ASCII = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"),
        **dict.fromkeys("\u00a0\u2007\u2009\u202f", " "),
        "\u2019": "'",
        **dict.fromkeys("\u066b\uff0e", "."),
        **dict.fromkeys("\u066c\uff0c", ","),
        **dict.fromkeys("\u066a\uff05", "%"),
    }
)
_SYMBOLS = "$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9\u20ba\u0e3f"
_CODES = (
    *("USD", "EUR", "GBP", "CHF", "JPY", "CNY", "INR", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF", "AUD", "CAD", "NZD"),
    *("ZAR", "BRL", "MXN", "SGD", "HKD", "KRW", "TRY", "US$", "R$", "Rs", "kr", "Fr", "Fr.", "z\u0142"),
)
_NUMERAL = re.compile(
    rf"(?P<open>\()?(?P<sign>[-+])?(?P<before>[{_SYMBOLS}]|{'|'.join(map(re.escape, _CODES))})? ?(?P<inner>[-+])?"
    r"(?P<body>\d+(?:[.,' ]\d+)*[.,]?|[.,]\d+)(?P<power>(?:[eE][-+]?|[dD][-+])\d+)?(?P<trail>-)?"
    r"(?P<closed>\))? ?(?P<after>[^\d\s.,'()+\-/:;_][^\d.,:;()]{0,11}(?:[23](?:/[^\W\d]{1,3})?)?\.?)?(?P<close>\))?"
)
# What keeps a spreadsheet from reading a number as one.
_KEPT = re.compile(r"^'(?=[-+\d.])")
_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
# Units that are one where a single cell shows them; others only where a whole column does.
KNOWN_MARKS = frozenset(
    (
        *(
            "%",
            "\u2030",
            "ppm",
            "ppb",
            "\u00b0",
            "\u00b0C",
            "\u00b0F",
            "degC",
            "degF",
            "deg",
            "K",
            "C",
            "F",
            "V",
            "mV",
            "kV",
        ),
        *(
            "A",
            "mA",
            "W",
            "mW",
            "kW",
            "MW",
            "GW",
            "Wh",
            "kWh",
            "MWh",
            "GWh",
            "VA",
            "kVA",
            "var",
            "Hz",
            "kHz",
            "MHz",
            "GHz",
        ),
        *("Pa", "hPa", "kPa", "MPa", "bar", "mbar", "psi", "dB", "dBA", "dBm", "lx", "lm", "mm", "cm", "m", "km", "mi"),
        *(
            "ft",
            "in",
            "m/s",
            "km/h",
            "kph",
            "mph",
            "kn",
            "kt",
            "mm/h",
            "g",
            "kg",
            "t",
            "mg",
            "\u00b5g",
            "l",
            "L",
            "ml",
            "mL",
        ),
        *(
            "m\u00b2",
            "m\u00b3",
            "m2",
            "m3",
            "m\u00b3/h",
            "m3/h",
            "l/s",
            "l/h",
            "\u00b5g/m\u00b3",
            "ug/m3",
            "mg/m\u00b3",
            "mg/l",
        ),
        *("s", "ms", "us", "ns", "min", "h", "d", "rpm", "B", "kB", "KB", "MB", "GB", "TB", "bps", "kbps", "Mbps", "J"),
        *("kJ", "MJ", "N", "Nm", "x", *_SYMBOLS, *_CODES),
    )
)
# Texts up to this length are remembered, with what was said of them.
SHORT = 40
_NO_UNITS = frozenset(("am", "pm", "a.m.", "p.m.", "st", "nd", "rd", "th", "z", "utc", "gmt"))


_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")  # the commonest, which is then read fast
_WHOLE = {
    mark: re.compile(rf"\d*|[1-9]\d{{0,2}}(?:{part}\d{{2,3}})*{part}\d{{3}}")
    for mark, part in ((".", "[,' ]"), (",", "[.' ]"))
}


class Numeral(NamedTuple):
    """A number taken apart: its digits with what stands between them, and the mark that stands beside it."""

    negative: bool
    body: str
    power: str
    mark: str

    @property
    def decimal(self) -> str:
        """`.` or `,`, whichever is its decimal mark; "" where both may be, "?" where it is no number with either.

        One comma before three digits may separate thousands, and so may one point: that is "" for both.
        """
        may = [mark for mark in ".," if self.value(mark) is not None]
        return "?" if not may else "" if len(may) == 2 else may[0]

    def value(self, decimal: str) -> float | None:
        """The number with this decimal mark; the other one, spaces and apostrophes may separate thousands."""
        whole, _, rest = self.body.partition(decimal)
        if not _WHOLE[decimal].fullmatch(whole) or not (rest == "" or rest.isdecimal()) or not whole + rest:
            return None
        read = number(f"{re.sub('[^0-9]', '', whole)}.{rest or '0'}{self.power}")
        return None if read is None else -read if self.negative else read


class Numerals(NamedTuple):
    """How the numbers of a column are written: the decimal mark, and what may stand beside each of them.

    The other of point and comma, spaces and apostrophes may separate thousands.

    >>> Numerals(",").read("-1.234,5"), Numerals().read("1,234.5"), Numerals(mark="%").read("62.1 %")
    (-1234.5, 1234.5, 62.1)
    >>> Numerals().read("12,5"), Numerals().read("62.1 %"), Numerals().read("A12")
    (None, None, None)
    """

    decimal: str = "."
    mark: str = ""

    @property
    def plain(self) -> bool:
        """Whether what Python reads as a number is that number."""
        return self.decimal == "."

    def read(self, text: str) -> float | None:
        """The finite number that a text says; None where it says none."""
        if self.plain and (value := number(text)) is not None:
            return value
        if self.plain and _THOUSANDS.fullmatch(text):
            return float(text.replace(",", ""))
        found = numeral(text)
        if found is None or found.mark not in ("", self.mark):
            return None
        return found.value(self.decimal)


PLAIN = Numerals()


def remembered(function: Callable[[str], Said]) -> Callable[[str], Said]:
    """The same function of a text; it is asked several times of each cell of a sample, and remembers short ones."""
    known = lru_cache(maxsize=8192)(function)
    return wraps(function)(lambda text: known(text) if len(text) <= SHORT else function(text))


@remembered
def numeral(text: str) -> Numeral | None:
    """A text taken apart, if it is a number in some way of writing."""
    text = text.strip()
    if not text.isascii():
        digits = (str(unicodedata.decimal(each)) if each.isdecimal() else each for each in text)
        text = "".join(digits).translate(_ASCII)
    text = _KEPT.sub("", text)
    found = _NUMERAL.fullmatch(text)
    if found is None or _ADDRESS.fullmatch(text):
        return None
    before, after = found["before"] or "", (found["after"] or "").strip()
    minus = [sign for sign in (found["open"], found["sign"], found["inner"], found["trail"]) if sign and sign != "+"]
    if (before and after) or bool(found["open"]) != (found["closed"], found["close"]).count(")") or len(minus) > 1:
        return None
    if after.lower() in _NO_UNITS:
        return None
    return Numeral(bool(minus), found["body"], (found["power"] or "").lower().replace("d", "e"), before or after)
