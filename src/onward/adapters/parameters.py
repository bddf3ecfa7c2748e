"""Parameters of estimators, which other libraries let pass unchecked until they are used."""

import numbers
from typing import Any


def is_real(value: Any) -> bool:
    """Whether this is a real number; True and False are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def require_whole(owner: object, least: int = 1, **sizes: Any) -> None:
    """A ValueError, with the estimator and the parameter in it, unless all are whole numbers of at least `least`."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, numbers.Integral) or size < least:
            raise ValueError(f"{type(owner).__name__}: {name} must be a whole number of at least {least}, got {size!r}")
