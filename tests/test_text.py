"""Numbers, times and tables as text."""

import datetime
import math
from decimal import Decimal

import numpy as np
import pytest

from onward.text import markdown_table, number, seconds


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("5", 5.0),
        (" -0.5\t", -0.5),
        ("1E3", 1000.0),
        (True, 1.0),
        (np.float32(2), 2.0),
        (Decimal("1.5"), 1.5),
        (7, 7.0),
    ],
)
def test_a_number_is_read(value, says):
    assert number(value) == says


@pytest.mark.parametrize(
    "value", ["", "NA", "nan", "inf", "-inf", "1e999", "1_0", "0x10", None, 10**400, [], "1,5", math.nan]
)
def test_what_is_no_finite_number_is_none(value):
    assert number(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "2024-03-01T12:00",
        " 2024-03-01 12:00:00 ",
        "2024-03-01T12:00Z",
        "2024-03-01T13:00+01:00",
        datetime.datetime(2024, 3, 1, 12),
        datetime.datetime(2024, 3, 1, 12, tzinfo=datetime.UTC),
        np.datetime64("2024-03-01T12:00", "m"),
        np.datetime64("2024-03-01T12:00", "ns"),
        1709294400,
        "1709294400",
    ],
)
def test_every_form_of_one_moment_is_the_same(value):
    assert seconds(value) == 1709294400.0


@pytest.mark.parametrize("value", ["noon", "", None, "inf", "nan", "2024-13-01", np.datetime64("NaT"), [], object()])
def test_what_is_no_time_is_nan(value):
    assert math.isnan(seconds(value))


def test_a_day_is_its_midnight():
    assert seconds(datetime.date(1970, 1, 3)) == 2 * 86400


def test_a_table_keeps_its_cells():
    cells = [["a|b", "1"], ["", "2"], ["c", ""]]
    lines = markdown_table(["name", "n"], cells).splitlines()
    assert lines[:2] == ["| name | n |", "|---|---|"]
    read = [
        [cell.strip().replace("\\|", "|") for cell in line.replace("\\|", "\0").strip("|").split("|")]
        for line in lines[2:]
    ]
    assert [[cell.replace("\0", "|") for cell in row] for row in read] == cells


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a row of 1 cells under a header of 2"):
        markdown_table(["a", "b"], [["1"]])
