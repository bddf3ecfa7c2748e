"""From named cells to numbers: which slot, which value, and what is said of cells that cannot be used."""

import json
import math
import random

import numpy as np
import pytest

from onward.rows.clock import CALENDAR
from onward.rows.encoder import CAPACITY, MOST_SLOTS, SHARED, VOCABULARY, Encoder
from onward.rows.kinds import Judge
from onward.rows.units import Unit


def _table(rows=200, seed=0):
    """Numbers, one late and one with holes; categories; a column of mixed cells; flags."""
    rng = random.Random(seed)
    pick = lambda *some: [rng.choice(some) for _ in range(rows)]
    return {
        "b": [f"{rng.gauss(5, 2):.3f}" for _ in range(rows)],
        "a": [None if i < rows // 2 else rng.gauss(0, 1) for i in range(rows)],
        "holes": pick("", "NA", "1.5", "2", 3),
        "flag": pick(True, False),
        "colour": pick("red", "green", "blue", ""),
        "mixed": pick("north", 1, 1.0, True, "1", None),
        "many": [f"c{rng.randrange(6 + i // 8)}" for i in range(rows)],
    }


def _read(cells, cuts, **options):
    """The vectors of all rows, (first row, capacity) of every growth, and the encoder."""
    said = []
    one = Encoder(judge=Judge(**options), complain=said.append)
    parts, growths = [], []
    for start, stop in cuts:
        settled = start
        while start < stop:
            before = one.capacity
            settled = one.settle(cells, start, stop) if settled == start else settled
            upto = one.give_slots(cells, start, settled)
            if one.capacity > before:
                growths.append((start, one.capacity))
            parts.append(one.encode(cells, start, upto, range(len(next(iter(cells.values()))))))
            start = upto
    width = one.capacity
    wide = np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=np.nan) for p in parts])
    # A slot that is not taken yet is missing; once it is a category's it is 0 in all rows without it.
    return np.where(one.plain, np.nan_to_num(wide), wide), growths, one, said


def _give(encoder, cells, start, stop):
    """Slots for all that is new in these rows."""
    settled = start
    while start < stop:
        settled = encoder.settle(cells, start, stop) if settled == start else settled
        start = encoder.give_slots(cells, start, settled)


def _cuts(rows, size):
    return [(i, min(i + size, rows)) for i in range(0, rows, size)]


def _ragged(rows, seed):
    rng, cuts, start = random.Random(seed), [], 0
    while start < rows:
        cuts.append((start, start := min(rows, start + rng.choice([1, 2, 5, 30]))))
    return cuts


@pytest.mark.parametrize(
    ("rows", "seed", "cuts"),
    [*((200, 0, _cuts(200, size)) for size in (7, 64, 200)), *((60, seed, _ragged(60, seed)) for seed in range(25))],
)
def test_blocks_give_what_rows_give(rows, seed, cuts):
    """Slots, vectors, and the rows at which the capacity grows."""
    cells = _table(rows, seed)
    whole, growths, one, said = _read(cells, _cuts(rows, 1), categories=("flag",))
    blocks, others, other, heard = _read(cells, cuts, categories=("flag",))
    assert one.as_dict() == other.as_dict()
    np.testing.assert_array_equal(whole, blocks)
    assert growths == others
    assert [capacity for _, capacity in growths][:3] == [16, 32, 64][: len(growths)]
    assert len(growths) == 3 or rows < 200
    assert sorted(said) == sorted(heard)


def test_the_order_of_columns_does_not_matter():
    cells = _table()
    back = dict(reversed(cells.items()))
    for size in (1, 50):
        a, b = _read(cells, _cuts(200, size)), _read(back, _cuts(200, size))
        np.testing.assert_array_equal(a[0], b[0])
        assert a[2].as_dict() == b[2].as_dict()


def test_slots_by_hand():
    one = Encoder()
    cells = {"z": [2.0, 4.0, None], "a": ["x", None, "y"], "late": [None, 7, 7]}
    assert one.settle(cells, 0, 3) == 3
    assert one.give_slots(cells, 0, 3) == 3
    assert (one.vocabulary, one.slots) == ({"a": {"x": 0, "y": 3}}, {"z": 1, "late": 2})
    nan = np.nan
    wanted = [[1, 0, nan, 0], [0, 1, 0, 0], [0, nan, 0, 1]]
    x = one.encode(cells, 0, 3, range(3))
    assert x.shape == (3, CAPACITY)
    np.testing.assert_array_equal(x[:, :4], wanted)
    assert np.isnan(x[:, 4:]).all()
    assert one.plain.tolist() == [True, False, False, True] + [False] * 4


def test_admit_cuts_where_the_capacity_would_grow():
    """Eight numbers fit; row 3 brings a ninth."""
    cells = {f"n{i}": [1.0] * 6 for i in range(8)} | {"ninth": [None, None, None, 1, 1, 1]}
    one = Encoder()
    assert one.settle(cells, 0, 6) == 6
    assert one.give_slots(cells, 0, 6) == 3
    assert (one.used, one.capacity) == (8, 8)
    assert one.encode(cells, 0, 3, range(6)).shape == (3, 8)
    assert one.give_slots(cells, 3, 6) == 6
    assert (one.used, one.capacity, len(one.plain)) == (9, 16, 16)
    cells = {f"n{i}": [1.0] for i in range(40)}
    one = Encoder()
    assert one.give_slots(cells, 0, one.settle(cells, 0, 1)) == 1


def test_the_first_cell_that_is_there_decides_the_kind():
    said = []
    one = Encoder(judge=Judge(categories=("code",)), complain=said.append)
    cells = {
        "number": [None, "", "NA", "3", "four", "5"],
        "name": ["", "four", "3", "5", None, "four"],
        "code": [1, 2, 1, 2, None, 1],
        "truth": ["true", "false", "true", None, "false", "true"],
        "never": [None] * 6,
    }
    _give(one, cells, 0, 6)
    assert set(one.slots) == {"number", "truth"}
    assert {name: sorted(known) for name, known in one.vocabulary.items()} == {
        "name": ["3", "5", "four"],
        "code": ["1", "2"],
    }
    x = one.encode(cells, 0, 6, [10, 11, 12, 13, 14, 15])
    np.testing.assert_array_equal(x[:, one.slots["number"]], [np.nan] * 3 + [0, np.nan, np.float32(2 / 3)])
    np.testing.assert_array_equal(x[:, one.slots["truth"]], [0, -1, 0, np.nan, -1, 0])
    assert said == ["row 14, column 'number': 'four' is not a usable number there; taken as missing"]


def test_equal_numbers_of_other_spelling_are_other_categories():
    """In one block as row by row: 1 == 1.0 == True."""
    cells = {"c": [1, 1.0, True, "1", 1]}
    for cuts in ([(0, 5)], _cuts(5, 1)):
        x, _, one, _ = _read(cells, cuts, categories=("c",))
        assert one.vocabulary == {"c": {"1": 0, "1.0": 1, "True": 2}}
        assert np.nan_to_num(x).argmax(1).tolist() == [0, 1, 2, 0, 0]


def test_late_categories_share_slots():
    names = [f"k{i}" for i in range(VOCABULARY + 40)]
    cells = {"k": [*names, "k0", names[-1], ""]}
    x, _, one, _ = _read(cells, _cuts(len(names) + 3, 1000))
    assert (len(one.vocabulary["k"]), one.used) == (VOCABULARY, VOCABULARY + SHARED)
    assert one.plain[: one.used].all()
    assert not one.plain[one.used :].any()
    clean = np.nan_to_num(x)
    np.testing.assert_array_equal(clean.sum(1), [1] * (len(names) + 2) + [0])
    at = clean.argmax(1)
    assert at[:VOCABULARY].tolist() == list(range(VOCABULARY))
    assert set(at[VOCABULARY:-3]) <= set(range(VOCABULARY, VOCABULARY + SHARED))
    assert len(set(at[VOCABULARY:-3])) > SHARED // 2
    assert (at[-3], at[-2]) == (0, at[-4])


@pytest.mark.parametrize("size", [1, 30])
def test_what_does_not_fit_is_said_once_and_never_read(size):
    """1000 numbers, then a column whose late categories need 16 slots at once: no room; nor later, for anything."""
    cells = {f"n{i:04}": [1.0] * 100 for i in range(950)}
    cells |= {"name": [f"k{i}" for i in range(100)], "z": [None] * 90 + [2.0] * 10}
    said = []
    one = Encoder(complain=said.append)
    for start, stop in _cuts(100, size):
        _give(one, cells, start, stop)
    assert one.capacity == MOST_SLOTS
    assert one.full
    assert one.used == 950 + VOCABULARY
    assert "z" not in one.slots
    assert said == [f"more than {MOST_SLOTS} columns and categories: 'name' and all later ones are not read"]
    x = one.encode(cells, 60, 100, range(100))
    assert x.shape == (40, MOST_SLOTS)
    np.testing.assert_array_equal(np.nan_to_num(x[:, 950:]).sum(1), [1] * 4 + [0] * 36)


def test_small_steps_of_large_numbers_keep_their_digits():
    values = [1e9 + 0.25 * i for i in range(8)]
    cells = {"v": values}
    one = Encoder()
    _give(one, cells, 0, 8)
    x = one.encode(cells, 0, 8, range(8))[:, 0].astype(float)
    np.testing.assert_allclose(np.diff(x), 0.25e-9, rtol=1e-5)
    np.testing.assert_allclose(one.units["v"].back(x), values, rtol=1e-15)
    assert np.any(np.diff(np.float32(values)) == 0), "single precision would have done"
    unit = Unit(0.0)
    assert (unit.length, float(unit.to(3.0))) == (1.0, 3.0)
    assert Unit(-1e-300).length == 1
    assert float(Unit(-4.0).to(-2.0)) == 0.5
    assert float(Unit(1e300).to(1.0)) == -1.0
    assert math.isnan(Unit(1.7e308).to(-1.7e308))


@pytest.mark.parametrize("cell", [1e300, "1e300", float("inf"), "-inf", "1e999", 10**400, "ten", "1_000"], ids=str)
def test_unusable_numbers_are_missing_and_named(cell):
    said = []
    one = Encoder(complain=said.append)
    cells = {"v": [2.0, cell, 3.0, None]}
    _give(one, cells, 0, 4)
    x = one.encode(cells, 0, 4, [5, 6, 7, 8])
    np.testing.assert_array_equal(x[:, 0], [0, np.nan, 0.5, np.nan])
    assert said == [f"row 6, column 'v': {cell!r} is not a usable number there; taken as missing"]


def test_every_complaint_of_a_column_knows_its_row_and_its_kind():
    said = []
    one = Encoder(complain=said.append)
    cells = {"v": [1.0, 2.0, *["x"] * 9], "w": [1.0, 2.0, *["y"] * 9]}
    _give(one, cells, 0, 11)
    one.quiet.append("w")  # its sample has said so
    one.encode(cells, 0, 11, range(11))
    kind = "cells of column '{}' that hold no usable number, taken as missing"
    assert [(each.row, each.kind) for each in said if each] == [(row, kind.format("v")) for row in range(2, 11)]
    assert [(each.row, each.kind) for each in said if not each] == [(row, kind.format("w")) for row in range(2, 11)]
    assert one.odd == {"v": 9, "w": 9}


def test_survives_json_in_mid_stream():
    cells = _table()
    whole, _, _, _ = _read(cells, _cuts(200, 50))
    half = Encoder()
    _give(half, cells, 0, 100)
    half.encode(cells, 0, 100, range(200))
    kept = half.as_dict()
    text = json.dumps(kept)
    again = Encoder.from_dict(json.loads(text))
    assert json.dumps(again.as_dict()) == text
    for other in (half, again):
        _give(other, cells, 100, 200)
    assert again.as_dict() == half.as_dict() != kept
    assert json.dumps(kept) == text, "as_dict is no snapshot"
    np.testing.assert_array_equal(again.plain, half.plain)
    x = again.encode(cells, 150, 200, range(200))
    np.testing.assert_array_equal(x, half.encode(cells, 150, 200, range(200)))
    np.testing.assert_array_equal(x, whole[150:, : half.capacity])
    assert whole.shape[1] == half.capacity


def test_columns_that_are_computed_come_first():
    one = Encoder(plain=CALENDAR)
    cells = {"v": [1.0, 2.0]}
    _give(one, cells, 0, 2)
    waves = {name: np.array([i, -i]) for i, name in enumerate(CALENDAR)}
    x = one.encode(cells, 0, 2, range(2), waves)
    np.testing.assert_array_equal(x[0], [0, 1, 2, 3, 4, 5, 0, np.nan])
    np.testing.assert_array_equal(x[1], [0, -1, -2, -3, -4, -5, 1, np.nan])
    assert one.plain.tolist() == [True] * 6 + [False] * 2
    again = Encoder.from_dict(json.loads(json.dumps(one.as_dict())))
    np.testing.assert_array_equal(again.encode(cells, 0, 2, range(2), waves), x)
    many = Encoder(plain=[f"w{i}" for i in range(20)])
    assert (many.used, many.capacity, many.plain.sum(), len(many.plain)) == (20, 32, 20, 32)
