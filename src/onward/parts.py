"""What all parts have in common."""

import dataclasses
from typing import Any

import equinox as eqx
import wadler_lindig as wl


class AbstractPart(eqx.Module):
    """A part that says what it is made of, the fields at their defaults too.

    >>> import onward as ow
    >>> ow.SnAp(1), ow.TBPTT(), ow.TDLambda(0.9)
    (SnAp(n=1), TBPTT(window=10), TDLambda(discount=0.9, trace_decay=0.99))
    """

    def __check_init__(self) -> None:
        fields = dataclasses.fields(self)
        require_made(type(self).__name__, **{f.name: getattr(self, f.name) for f in fields if hasattr(self, f.name)})

    def __repr__(self) -> str:
        """Its name and its fields; arrays by type and shape."""
        return wl.pformat(self, hide_defaults=False)


def require_made(owner: str, **parts: Any) -> None:
    """Refuse a class where a part made from it is meant."""
    for name, value in parts.items():
        if isinstance(value, type) and issubclass(value, AbstractPart):
            raise TypeError(
                f"{owner}: {name} is the class {value.__name__}, not a part made from it: write {value.__name__}(...)"
            )
