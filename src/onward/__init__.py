"""Onward: learning in recurrent networks as the data arrive.

This is the only list of parts. A cell and a head make a `Model`; a credit rule, an objective and an optimiser make an
`Online` learner; a task makes examples. `fit` learns from arrays and `Loop` from a task, many runs side by side; `save`
and `load` keep any state; `verify` checks a rule's gradient. Parts of one's own derive from an `Abstract...`.
"""

from typing import Any

import lazy_loader

# The names are listed in __init__.pyi, the only list of parts; each is imported when it is first used.
_part, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":  # read from the installed package only where somebody asks
        from importlib.metadata import version

        return version(__name__)
    try:
        return _part(name)
    except AttributeError:
        import difflib

        named = {part.lower(): part for part in __all__}
        near = difflib.get_close_matches(name.lower(), named, 1, 0.6)
        hint = f": did you mean {named[near[0]]}?" if near else "; dir(onward) lists its parts"
        raise AttributeError(f"onward has no {name}{hint}") from None
