"""What may happen to saved arrays, and what must be said of it: for tests of all that is saved by names."""

from collections.abc import Callable

import numpy as np

Arrays = dict[str, np.ndarray]


def _changed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays, str], Arrays]:
    return lambda arrays, name: arrays | {name: change(arrays[name])}


# How: what becomes of the arrays when it happens to the one of a name, and what an error then says of that name.
DAMAGE: dict[str, tuple[Callable[[Arrays, str], Arrays], str]] = {
    "inserted": (_changed(lambda a: np.concatenate([a, np.zeros_like(a[:1])])), r"{} is \w+\[.* is needed"),
    "removed": (_changed(lambda a: a[1:]), r"{} is \w+\[.* is needed"),
    "another type": (_changed(lambda a: a.astype(complex)), r"{} is complex128.* is needed"),
    "missing": (lambda arrays, name: {n: a for n, a in arrays.items() if n != name}, "lacks {}"),
    "too many": (lambda arrays, name: arrays | {f"{name}.more": np.zeros(1)}, r"holds {}\.more"),
}
