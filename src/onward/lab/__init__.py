"""Experiments: run from Python, as arrays and frames; compared; and what an experiment of one's own is made of."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
