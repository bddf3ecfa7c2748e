"""Times as people and machines write them: each form against Python's own dates, and what nothing can tell."""

import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from onward.errors import OnwardError
from onward.rows import clock
from onward.rows.clock import CALENDAR, Clock, calendar, clock_of, judged

START = datetime(2025, 2, 27, 22, tzinfo=UTC)
MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905


def stamps(rows=60, step=3600):
    return [START + timedelta(seconds=i * step) for i in range(rows)]


def shown(pattern):
    return lambda t: t.strftime(pattern)


PM = lambda t: f"{t.month}/{t.day}/{t.year} {t.hour % 12 or 12}:{t.minute:02} {'PM' if t.hour >= 12 else 'AM'}"
WRITTEN = {
    "iso": shown("%Y-%m-%dT%H:%M:%S"),
    "iso with a space": shown("%Y-%m-%d %H:%M"),
    "iso with spaces around": shown("  %Y-%m-%d %H:%M "),
    "Z": shown("%Y-%m-%dT%H:%M:%SZ"),
    "UTC": shown("%Y-%m-%d %H:%M:%S UTC"),
    "GMT in a mail": lambda t: f"{t:%a, %d} {MONTHS[t.month - 1][:3]} {t:%Y %H:%M:%S} GMT",
    "an offset": lambda t: t.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat(),
    "an offset without a colon": lambda t: t.astimezone(timezone(timedelta(hours=-3))).strftime("%Y-%m-%d %H:%M %z"),
    "nanoseconds": shown("%Y-%m-%dT%H:%M:%S.000000000Z"),
    "milliseconds after a comma": shown("%Y-%m-%d %H:%M:%S,000"),
    "slashes, year first": shown("%Y/%m/%d %H:%M"),
    "points, year first": shown("%Y.%m.%d %H:%M"),
    "day first, points": shown("%d.%m.%Y %H:%M"),
    "day first, no zeros": lambda t: f"{t.day}.{t.month}.{t.year} {t.hour}:{t.minute:02}",
    "day first, slashes": shown("%d/%m/%Y %H:%M:%S"),
    "day first, hyphens": shown("%d-%m-%Y %H:%M"),
    "day first, two digits": shown("%d.%m.%y %H:%M"),
    "month first": shown("%m/%d/%Y %H:%M"),
    "month first, two digits": shown("%m/%d/%y %H:%M"),
    "month first, am and pm": PM,
    "a month's name": lambda t: f"{t.day:02}-{MONTHS[t.month - 1][:3]}-{t:%Y %H:%M}",
    "a month's whole name": lambda t: f"{MONTHS[t.month - 1]} {t.day}, {t:%Y %H:%M}",
    "compact to the minute": shown("%Y%m%d%H%M"),
    "compact to the hour": shown("%Y%m%d%H"),
    "compact to the second": shown("%Y%m%d%H%M%S"),
    "compact with a T": shown("%Y%m%dT%H%M%SZ"),
    "compact as a number": lambda t: int(t.strftime("%Y%m%d%H%M")),
    "compact as a float": lambda t: float(t.strftime("%Y%m%d%H")),
    "C and the shell": lambda t: f"{t:%a %b} {t.day:2} {t:%H:%M:%S %Y}",
    "the shell, with a zone": lambda t: f"{t:%a %b} {t.day:2} {t:%H:%M:%S} UTC {t:%Y}",
    "a web server": shown("[%d/%b/%Y:%H:%M:%S +0000]"),
    "a named zone": lambda t: f"{t.astimezone(timezone(timedelta(hours=1))).isoformat()}[Europe/Berlin]",
    "seconds, decimal comma": lambda t: f"{t.timestamp():.1f}".replace(".", ","),
    "seconds": lambda t: int(t.timestamp()),
    "seconds as text": lambda t: f"{t.timestamp():.3f}",
    "seconds, powers": lambda t: f"{t.timestamp():.12e}",
    "milliseconds": lambda t: int(t.timestamp()) * 1000,
    "milliseconds as text": lambda t: str(int(t.timestamp()) * 1000),
    "microseconds": lambda t: int(t.timestamp()) * 10**6,
    "nanoseconds since 1970": lambda t: int(t.timestamp()) * 10**9,
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("rows", [60, 400])
def test_every_form_is_read_as_python_s_own_date(write, rows):
    times = stamps(rows)
    cells = [None, "n/a", *map(write, times)]
    found = judged(cells)
    assert found is not None
    assert found.dates
    np.testing.assert_allclose(found.moments(cells)[2:], [t.timestamp() for t in times], atol=1e-3)
    assert np.isnan(found.moments(cells)[:2]).all()


DAYS = {"01.02.2025": (2025, 2, 1), "2025-02-01": (2025, 2, 1), "20250201": (2025, 2, 1), "13/01/2025": (2025, 1, 13)}
DAYS |= {
    "01/13/2025": (2025, 1, 13),
    "02/01/2025": (2025, 2, 1),
    "1-Feb-2025": (2025, 2, 1),
    "31.12.69": (2069, 12, 31),
}


@pytest.mark.parametrize(("cell", "day"), DAYS.items())
def test_one_cell_is_read_as_most_who_write_so_mean_it(cell, day):
    found = judged([cell])
    assert found.read(cell) == datetime(*day, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("order", ["%d/%m/%Y", "%m/%d/%Y"])
def test_days_and_months_that_may_be_either_are_told_apart_by_how_time_goes_on(order):
    """The first ten days of a month: no number is above 12."""
    times = [datetime(2025, 3, 1, tzinfo=UTC) + timedelta(hours=6 * i) for i in range(40)]
    found = judged([t.strftime(f"{order} %H:%M") for t in times])
    assert not found.sure
    assert found.form == ("day-first" if order.startswith("%d") else "month-first")


def test_a_guess_is_given_up_for_a_date_that_refutes_it():
    guess = judged(["03/04/2025"])
    assert (guess.form, guess.sure) == ("month-first", False)
    assert guess.or_other("05/12/2025") is guess
    assert guess.or_other("soon") is guess
    other = guess.or_other("13/04/2025")
    assert (other.form, other.sure) == ("day-first", True)
    assert other.or_other("04/13/2025") is other


STEPS = [[17, 18], ["17"], ["-5", "1e3"], [" 12.5 "], [0, 1, 2], [2025], ["45000.5"], [9e7, 9.1e7]]


@pytest.mark.parametrize("cells", STEPS, ids=str)
def test_plain_numbers_say_when_and_no_date(cells):
    found = judged(cells)
    assert (found.form, found.dates) == ("steps", False)
    assert found.moments(cells).tolist() == [float(cell) for cell in cells]


NONE = [
    ["soon"],
    ["", None, "NA"],
    [],
    ["2024-13-01"],
    ["30.02.2025"],
    ["1_000"],
    ["25:00"],
    ["12:30"],
    [math.nan],
    ["a", "2025-01-01"],
]


@pytest.mark.parametrize("cells", NONE, ids=str)
def test_what_is_no_time(cells):
    assert judged(cells) is None


WRONG = {"iso": ["2025-13-01", "12", 12, True, None, "2025-01-01 25:00", "2025-01-01 24:01", "1.2.345"]}
WRONG |= {"ms": ["soon", True, None, "1_0"], "day-first": ["1/13/2025", "2025-01-01", "31.4.2025", "1.1.2025 13:00 pm"]}
WRONG |= {"compact": ["20251301", "2025010125", "202501010", 17, None]}


@pytest.mark.parametrize(("form", "cell"), [(form, cell) for form, cells in WRONG.items() for cell in cells], ids=str)
def test_a_cell_that_does_not_fit_its_column_is_none(form, cell):
    assert math.isnan(Clock(form).read(cell))


def test_what_a_person_says_counts():
    assert clock_of("%d|%m|%Y").read("01|02|2025") == datetime(2025, 2, 1, tzinfo=UTC).timestamp()
    assert math.isnan(clock_of("%d|%m|%Y").read("1/2/2025"))
    assert clock_of("excel").read("45716.5") == datetime(2025, 2, 28, 12, tzinfo=UTC).timestamp()
    assert not clock_of("steps").dates
    for said in ("dayfirst", "%Q", ""):
        with pytest.raises(OnwardError, match="--time-format"):
            clock_of(said)


def test_the_last_moment_of_a_day_and_a_leap_second():
    assert Clock().read("2025-02-28 24:00") == datetime(2025, 3, 1, tzinfo=UTC).timestamp()
    assert Clock().read("2016-12-31 23:59:60") == datetime(2017, 1, 1, tzinfo=UTC).timestamp()


EPOCH = datetime(2024, 2, 29, 18, tzinfo=UTC).timestamp()


def test_calendar():
    """Monday 6 o'clock of the week that began three days after the epoch's Thursday; and what is missing."""
    found = calendar(np.array([6 * 3600.0, 7 * 86400.0, np.nan, np.inf, 604800 / 4]))
    assert list(found) == list(CALENDAR)
    assert len(found) == 6
    np.testing.assert_allclose([found["day sine"][0], found["day cosine"][0]], [1, 0], atol=1e-12)
    np.testing.assert_allclose([found["week sine"][1], found["week cosine"][1]], [0, 1], atol=1e-12)
    np.testing.assert_allclose([found["week sine"][4], found["week cosine"][4]], [1, 0], atol=1e-12)
    for wave in found.values():
        assert wave[2] == wave[3] == 0
        assert np.isfinite(wave).all()
    year = calendar(np.array([clock._YEAR * 54.25]))
    np.testing.assert_allclose([year["year sine"][0], year["year cosine"][0]], [1, 0], atol=1e-6)
    both = calendar(np.array([EPOCH, EPOCH + 86400]))
    np.testing.assert_allclose(both["day sine"][0], both["day sine"][1], atol=1e-9)
    assert abs(both["week sine"][0] - both["week sine"][1]) > 0.1
