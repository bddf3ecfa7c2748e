"""Onward: learning in recurrent networks as the data arrive.

This is the only list of parts. A cell and a head make a `Model`; a credit rule, an objective and an
optimiser make an `Online` learner; a task makes examples; `verify` checks a rule's gradient.
"""

import lazy_loader

# The names are listed in __init__.pyi, the only list of parts; each is imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
