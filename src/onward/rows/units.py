"""Numbers of a column in units of its first one."""

from typing import Any

import numpy as np

# A number so many times as large as the first one of its column counts as missing.
REACH = 1e15
# Below this a first value says nothing about the size of those to come.
SMALL = 1e-9


class Unit:
    """Where a column's zero lies and how long its unit is: its first number. Keeps single precision exact."""

    def __init__(self, origin: float):
        self.origin = origin
        self.length = abs(origin) if abs(origin) > SMALL else 1.0

    def to(self, values: Any) -> Any:
        """In units from the origin; NaN for what is too far away to be a number of this column."""
        return in_units(values, self.origin, self.length)

    def back(self, u: Any) -> Any:
        """The value again."""
        return self.origin + self.length * u


def in_units(values: Any, origin: Any, length: Any) -> Any:
    """In units from the origins; NaN for what is too far away to be a number of its column."""
    with np.errstate(over="ignore", invalid="ignore"):
        u = (values - origin) / length
    return np.where(np.abs(u) < REACH, u, np.nan)
