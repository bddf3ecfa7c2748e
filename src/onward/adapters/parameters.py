"""Parameters of estimators, which other libraries let pass unchecked until they are used."""

import numbers
from collections.abc import Callable
from typing import Any


def require_whole(owner: object, least: int = 1, **sizes: Any) -> None:
    """A ValueError, with the estimator and the parameter in it, unless all are whole numbers of at least `least`."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, numbers.Integral) or size < least:
            raise ValueError(f"{type(owner).__name__}: {name} must be a whole number of at least {least}, got {size!r}")


def require_real(owner: object, allowed: str, fits: Callable[[Any], bool], **values: Any) -> None:
    """A ValueError, with what is `allowed` in it, unless all are real numbers and `fits` says so of each."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not fits(value):
            raise ValueError(f"{type(owner).__name__}: {name} must be {allowed}, got {value!r}")
