"""Shared set-up: strict JAX, and small helpers."""

import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_platforms", "cpu")


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Drop compiled programs before the process has as many memory maps as Linux allows (65,530): beyond, it crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 25_000:
        if stream := sys.modules.get("onward.adapters.stream"):
            stream._programs.cache_clear()
        jax.clear_caches()
        gc.collect()
