"""Shared set-up: strict JAX, and small helpers."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_platforms", "cpu")


@pytest.fixture(scope="session", autouse=True)
def _compile_cache(tmp_path_factory):
    """Compiled programs are kept between test runs where that is allowed, as the command line does."""
    yield


@pytest.fixture
def key():
    return jax.random.key(0)
