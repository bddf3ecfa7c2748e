"""What all parts have in common."""

import equinox as eqx
import wadler_lindig as wl


class AbstractPart(eqx.Module):
    """A part that says what it is made of, the fields at their defaults too.

    >>> import onward as ow
    >>> ow.SnAp(1), ow.TBPTT(), ow.TDLambda(0.9)
    (SnAp(n=1), TBPTT(window=10), TDLambda(discount=0.9, trace_decay=0.99))
    """

    def __repr__(self) -> str:
        """Its name and its fields; arrays by type and shape."""
        return wl.pformat(self, hide_defaults=False)
