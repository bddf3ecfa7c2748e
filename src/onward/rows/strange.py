"""Readings that were not believed: counted, named and told."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onward.rows.encoder import Encoder
from onward.rows.remarks import Remark
from onward.rows.sources import Cell

# Rows that are listed with what they hold; all of them are marked and counted, and it is kept where they stand.
LISTED = 10


class Strange:
    """How many rows held a reading that was not believed (`stream/guard.py`), and the first of them."""

    def __init__(self, rows: int = 0, first: Sequence[Mapping[str, Any]] = ()):
        self.rows, self.first = rows, [dict(each) for each in first]

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint and for summary.json."""
        return {"rows": self.rows, "first": self.first}

    def names(self, places: np.ndarray, encoder: Encoder, targets: Sequence[str], computed: Sequence[str]) -> list[str]:
        """Of each row the column of its first strange reading, or nothing. Of `computed` inputs nothing is said."""
        marks = [""] * len(places)
        rows = np.flatnonzero(places).tolist()
        if rows:
            names = {slot: name for name, slot in encoder.slots.items() if name not in computed}
            names |= {encoder.capacity + i: name for i, name in enumerate(targets)}
            for row in rows:
                marks[row] = names.get(int(places[row]) - 1, "")
        return marks

    def see(
        self,
        marks: Sequence[str],
        numbers: Sequence[int],
        cells: Mapping[str, Sequence[Cell]],
        complain: Callable[[str], None],
    ) -> None:
        """Count rows with their marks, and tell of them."""
        for i, name in enumerate(marks):
            if not name:
                continue
            self.rows += 1
            cell = str(cells[name][i])
            if len(self.first) < LISTED:
                self.first.append({"row": numbers[i], "column": name, "value": cell})
            text = (
                f"row {numbers[i]}, column {name!r}: {cell} is far from all before it, and is not believed unless the "
                "next one agrees"
            )
            complain(Remark(text, numbers[i], f"cells of column {name!r} far from all before, not believed"))
