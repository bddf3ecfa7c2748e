"""A clean table of known answers, as people, spreadsheets and loggers write it: read right, or refused in one line."""

import csv
import io
import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onward.errors import OnwardError
from onward.rows import learn
from onward.rows.options import Learn
from onward.rows.session import Session

NAMES = ["time", "temp", "count", "state", "load"]
START = datetime(2025, 2, 27, 22, tzinfo=UTC)
ROWS = 80


@dataclass
class Table:
    """What a file holds, how it is written, and what should come of it (`truth`: numbers, texts, or seconds)."""

    names: list[str]
    cells: dict[str, list[str]]
    truth: dict[str, list]
    delimiter: str = ","
    top: list[str] = field(default_factory=list)
    under: list[str] = field(default_factory=list)
    index: bool = False
    trailing: bool = False
    end: str = "\n"
    start: str = ""
    quoting: int = csv.QUOTE_MINIMAL
    time: str = "time"
    options: dict = field(default_factory=dict)
    again: tuple[int, ...] = ()
    spaced: bool = False
    habits: set = field(default_factory=set)

    def text(self):
        out = io.StringIO()
        writer = csv.writer(out, delimiter=self.delimiter, lineterminator=self.end, quoting=self.quoting)
        rows = [
            self.names,
            *([self.under] if self.under else []),
            *zip(*(self.cells[n] for n in self.names), strict=True),
        ]
        for i, row in enumerate(rows):
            writer.writerow(
                [*([str(i - 1) if i else ""] if self.index else []), *row, *([""] if self.trailing else [])]
            )
        header, *lines = out.getvalue().split(self.end)
        text = self.end.join(
            [header, *(each for i, line in enumerate(lines) for each in [header] * (i in self.again) + [line])]
        )
        if self.spaced:
            text = text.replace(f'"{self.delimiter}"', f'"{self.delimiter} "')
        return self.start + "".join(line + self.end for line in self.top) + text


def clean(rng):
    times = [START + timedelta(hours=i) for i in range(ROWS)]
    temp = np.round(rng.normal(3, 12, ROWS), 2).tolist()
    count = rng.integers(0, 90_000, ROWS).tolist()
    state = rng.choice(["on", "off", "auto"], ROWS).tolist()
    load = np.round(2000 + 300 * rng.normal(size=ROWS), 1).tolist()
    truth = {"time": [t.timestamp() for t in times], "temp": temp, "count": count, "state": state, "load": load}
    cells = {"time": [f"{t:%Y-%m-%dT%H:%M:%S}" for t in times], "temp": [f"{v:.2f}" for v in temp]}
    cells |= {"count": list(map(str, count)), "state": list(state), "load": [f"{v:.1f}" for v in load]}
    return Table(list(NAMES), cells, {name: list(values) for name, values in truth.items()})


HABITS = {}


def habit(*names):
    """A habit; of those that share a name, only one is taken: they would speak of the same thing."""

    def add(distort):
        HABITS[distort.__name__] = (distort, set(names))
        return distort

    return add


MARKS = [
    "",
    "n/a",
    "NAN",
    "#N/A",
    "<NA>",
    "\\N",
    "--",
    ".",
    "NaT",
    "Null",
    "#DIV/0!",
    "-",
    "NA",
    "none",
    "null",
    "?",
    "-nan",
    "#VALUE!",
]
WORDS = ["No Data", "unavailable", "ERR", "unknown", "Error", "bad"]


def gone(table, rng, word, name="temp"):
    """A few cells, the first among them half of the time."""
    at = {*rng.choice(ROWS, 4, replace=False).tolist(), *([0] if rng.integers(2) else [])}
    for i in at:
        table.cells[name][i], table.truth[name][i] = word, math.nan


@habit("gone")
def a_mark(table, rng):
    gone(table, rng, rng.choice(MARKS).item())


@habit("gone")
def a_mark_among_targets(table, rng):
    gone(table, rng, rng.choice(MARKS).item(), "load")


@habit("gone")
def a_word(table, rng):
    gone(table, rng, rng.choice(WORDS).item())


@habit("gone")
def a_sentinel(table, rng):
    gone(table, rng, "-9999")
    table.options["missing"] = ("-9999",)


def comma(table, name):
    table.cells[name] = [cell.replace(".", ",") for cell in table.cells[name]]


@habit("comma", "delimiter")
def decimal_commas(table, rng):
    table.delimiter = ";"
    for name in ("temp", "load"):
        comma(table, name)


@habit("comma")
def decimal_commas_in_quotes(table, rng):
    comma(table, "temp")


@habit("comma", "thousands")
def thousands_of_a_decimal_comma(table, rng):
    for name, digits in (("load", 1), ("temp", 2)):
        swap = str.maketrans(",.", ".,")
        table.cells[name] = [
            c if math.isnan(v) else f"{v:,.{digits}f}".translate(swap)
            for c, v in zip(table.cells[name], table.truth[name], strict=True)
        ]


@habit("thousands")
def thousands(table, rng):
    mark = rng.choice([",", " ", "\u00a0", "\u202f", "'", "\u2019"]).item()
    table.cells["count"] = [f"{v:,}".replace(",", mark) for v in table.truth["count"]]


@habit("beside")
def beside(table, rng):
    mark = rng.choice(["%", " %", " \u00b0C", " kWh", " \u00b5g/m\u00b3", " m3", "A"]).item()
    table.cells["temp"] = [
        c if math.isnan(v) else c + mark for c, v in zip(table.cells["temp"], table.truth["temp"], strict=True)
    ]


@habit("beside")
def a_currency(table, rng):
    mark = rng.choice(["$", "\u20ac ", "USD ", "\u00a3"]).item()
    table.cells["count"] = [mark + c for c in table.cells["count"]]


@habit("sign")
def another_minus(table, rng):
    mark = rng.choice(["\u2212", "\u2013", "\uff0d"]).item()
    table.cells["temp"] = [
        c.replace("-", mark) if not math.isnan(v) else c
        for c, v in zip(table.cells["temp"], table.truth["temp"], strict=True)
    ]


@habit("sign")
def plus(table, rng):
    table.cells["temp"] = [
        f"+{c}" if v >= 0 else c for c, v in zip(table.cells["temp"], table.truth["temp"], strict=True)
    ]


@habit("sign")
def in_brackets(table, rng):
    table.cells["temp"] = [
        f"({c.removeprefix('-')})" if v < 0 else c
        for c, v in zip(table.cells["temp"], table.truth["temp"], strict=True)
    ]


@habit("comma")
def another_script(table, rng):
    zero = rng.choice([0x660, 0x6F0, 0x966, 0xFF10]).item()
    digits = {ord("0") + i: chr(zero + i) for i in range(10)}
    point = {ord("."): "\u066b" if zero < 0x900 else "\uff0e" if zero > 0x1000 else "."}
    table.cells["temp"] = [
        c if math.isnan(v) else c.translate(digits | point)
        for c, v in zip(table.cells["temp"], table.truth["temp"], strict=True)
    ]


@habit("formulas")
def as_formulas(table, rng):
    for name in ("time", "date", "temp", "state") if rng.integers(2) else ("temp",):
        table.cells |= {name: [f'="{cell}"' for cell in table.cells[name]]} if name in table.names else {}


@habit("gone")
def a_wild_number(table, rng):
    at = rng.choice([0, 0, 20]).item()
    table.cells["temp"][at], table.truth["temp"][at] = rng.choice(["1e9", "-3e17", "1e300"]).item(), math.nan


@habit("again")
def the_header_again(table, rng):
    table.again = (*rng.choice(ROWS, 3, replace=False).tolist(), *[0] * int(rng.integers(2)))


@habit("quoting", "delimiter")
def spaces_before_quotes(table, rng):
    table.quoting, table.spaced = csv.QUOTE_ALL, True


@habit("under", "top", "again")
def a_logger(table, rng):
    """Under the names of a TOA5 file stand units, and how each value was made."""
    table.top = ['"TOA5","CR1000","CR1000","12345","CR1000.Std.32"']
    table.under = ["TS", "Deg C", "", "", "kW"]
    for name, word in zip(table.names, ["", "Avg", "", "", "Tot"], strict=True):
        table.cells[name] = [word, *table.cells[name]]


@habit("under")
def units(table, rng):
    table.under = ["", "degC", "", "", "kW"] if rng.integers(2) else ["[UTC]", "[degC]", "[-]", "(text)", "[kW]"]


@habit("top")
def comments(table, rng):
    table.top = ["# station 42", "# units: degC, kW, none"]


@habit("top")
def comments_and_a_header_in_one(table, rng):
    table.top = ["# station 42"]
    table.names[0] = "#time"
    table.cells["#time"] = table.cells["time"]


@habit("top")
def a_preamble(table, rng):
    table.top = ["Logger export", "", "Station: 42", "Made by: somebody"][: rng.integers(1, 5)]


@habit("top")
def skipped(table, rng):
    table.top = ["a,b,c,d,e,f", "1,2,3,4,5,6"]
    table.options["skip"] = 2


@habit("top")
def names_its_delimiter(table, rng):
    table.top = [f"sep={table.delimiter}"]


@habit("delimiter")
def another_delimiter(table, rng):
    table.delimiter = rng.choice([";", "\t", "|"]).item()


@habit("edge")
def an_index(table, rng):
    table.index = True


@habit("edge")
def a_trailing_delimiter(table, rng):
    table.trailing = True


@habit("end")
def windows_ends(table, rng):
    table.end = "\r\n"


@habit("start")
def a_byte_order_mark(table, rng):
    table.start = "\ufeff"


@habit("quoting")
def all_in_quotes(table, rng):
    table.quoting = csv.QUOTE_ALL


@habit("space")
def spaces(table, rng):
    for name in ("temp", "count"):
        table.cells[name] = [f"  {cell} " for cell in table.cells[name]]


def timed(table, write):
    table.cells["time"] = [write(datetime.fromtimestamp(t, UTC)) for t in table.truth["time"]]


TIMES = {
    "day first": lambda t: f"{t:%d.%m.%Y %H:%M}",
    "month first": lambda t: f"{t:%m/%d/%Y %H:%M}",
    "am and pm": lambda t: (
        f"{t.month}/{t.day}/{t.year} {t.hour % 12 or 12}:{t.minute:02} {'PM' if t.hour >= 12 else 'AM'}"
    ),
    "compact": lambda t: f"{t:%Y%m%d%H%M}",
    "compact, hours": lambda t: f"{t:%Y%m%d%H}",
    "UTC": lambda t: f"{t:%Y-%m-%d %H:%M:%S} UTC",
    "ms": lambda t: str(int(t.timestamp()) * 1000),
    "s": lambda t: str(int(t.timestamp())),
    "ns": lambda t: str(int(t.timestamp()) * 10**9),
}


@habit("time")
def other_times(table, rng):
    timed(table, TIMES[rng.choice(list(TIMES)).item()])


@habit("time")
def date_and_clock(table, rng):
    cells = table.cells
    cells["date"], cells["clock"] = zip(*(cell.split("T") for cell in cells["time"]), strict=True)
    table.names[:1] = ["date", "clock"]
    table.under = ["", *table.under] if table.under else []
    table.time = "date+clock"


@habit("order")
def shuffled(table, rng):
    order = rng.permutation(len(table.names))
    table.names = [table.names[i] for i in order]
    table.under = [table.under[i] for i in order] if table.under else []


# What is said of the whole file comes after what is said of its cells; a comma in a cell needs its quotes.
ORDER = [
    "gone",
    "thousands",
    "comma",
    "sign",
    "beside",
    "time",
    "space",
    "formulas",
    "under",
    "order",
    "edge",
    "delimiter",
    "top",
]
PAIRS = [
    (a, b)
    for i, a in enumerate(HABITS)
    for b in list(HABITS)[i + 1 :]
    if not HABITS[a][1] & HABITS[b][1]
    and {a, b} not in ({"units", "skipped"}, {"comments_and_a_header_in_one", "shuffled"}, {"comments_and_a_header_in_one", "date_and_clock"},
                       {"comments_and_a_header_in_one", "an_index"}, {"comments_and_a_header_in_one", "all_in_quotes"},
                       {"comments_and_a_header_in_one", "spaces_before_quotes"}, {"a_logger", "shuffled"}, {"a_logger", "date_and_clock"})
]  # fmt: skip


def distorted(habits, seed):
    rng = np.random.default_rng(seed)
    table = clean(rng)
    place = lambda name: min((ORDER.index(n) for n in HABITS[name][1] if n in ORDER), default=len(ORDER))
    for name in sorted(habits, key=place):
        HABITS[name][0](table, rng)
    return table


def read(path, **fields):
    """All cells as they are read, by column: numbers, texts, seconds; and what was said."""
    options = Learn(target=("load",), horizon=0, **fields)
    said = []
    session = Session(options, str(path), said.append)
    with learn.open_source(options, str(path), said.append) as rows:
        session.name = rows.name
        session.reading.choose(rows.names, rows.name, whole=True)
        learn.judge(session, str(path))
        reading, found = session.reading, {}
        for block in rows.blocks(37):
            for part in reading.parts(block):
                assert {*reading.inputs(part.cells)} <= {"temp", "count", "state"}
                for name, column in part.cells.items():
                    kept, kind = found.setdefault(name, []), reading.encoder.columns.get(name)
                    if name == options.time:
                        kept += reading.times(part)[0].tolist()
                    elif kind is not None and kind.kind == "number":
                        kept += [reading.encoder.number(cell, kind.numerals) for cell in column]
                    else:
                        kept += [str(cell).strip() for cell in column]
    return found, said


def wrong(found, truth, time):
    """The columns that were read as something else."""
    bad = []
    for name, wanted in truth.items():
        got = found.get(time if name == "time" else name, [])
        if name == "state":
            same = got == wanted
        else:
            numbers = all(isinstance(value, float) for value in got)
            same = (
                numbers and len(got) == len(wanted) and np.allclose(got, wanted, rtol=1e-9, atol=1e-6, equal_nan=True)
            )
        bad += [] if same else [name]
    return bad


def check(folder, habits, seed):
    table = distorted(habits, seed)
    path = folder / "data.csv"
    path.write_bytes(table.text().encode())
    try:
        found, said = read(path, time=table.time, **table.options)
    except OnwardError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert refused.count("data.csv") and "\n" not in refused, refused  # noqa: PT018
        return "refused"
    bad = wrong(found, table.truth, table.time)
    assert not bad, (
        habits,
        seed,
        bad,
        {name: (found.get(name, [])[:3], table.cells[name][:3]) for name in bad if name in table.cells},
        said[:3],
    )
    return "read"


@pytest.mark.parametrize("habit", HABITS)
def test_one_habit_is_read_right(tmp_path, habit):
    for seed in range(2):
        assert check(tmp_path, (habit,), seed) == "read"


@pytest.mark.interfaces
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PAIRS), st.integers(0, 10**6))
def test_two_habits_at_once_are_read_right_or_refused(tmp_path, pair, seed):
    check(tmp_path, pair, seed)


@pytest.mark.slow
def test_two_thousand_tables_of_two_habits(tmp_path):
    """None is read wrongly; few are refused."""
    rng = np.random.default_rng(0)
    outcomes = Counter(check(tmp_path, PAIRS[i % len(PAIRS)], int(rng.integers(10**9))) for i in range(2000))
    assert outcomes["refused"] <= 20
