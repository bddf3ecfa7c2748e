"""Shared set-up: strict JAX, programs that are compiled fast rather than well, and small helpers."""

import gc
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest

from onward.devices import older_emitters

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_platforms", "cpu")

# A shell's background job ignores Ctrl-C, and so would the commands that tests start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# XLA's older emitters, another code generator for the same operations, where this jaxlib still has them (an unknown
# flag ends the process): they compile in half the time.
OLDER_EMITTERS = older_emitters()
FAST = "--xla_cpu_parallel_codegen_split_count=1" + " --xla_cpu_use_fusion_emitters=false" * OLDER_EMITTERS


def pytest_configure(config):
    """Most programs of tests are small and run once; compiling them was most of the time. So they are compiled fast
    rather than well, but for slow tests and in `COMPILE=well make test`, which compile as users do.
    """
    if may_be_fast() and "not slow" in config.option.markexpr:
        if FAST not in os.environ.get("XLA_FLAGS", ""):  # read when JAX first compiles
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST}".strip()
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"  # processes that tests start compute the same bits
        set_fast(True)


def may_be_fast():
    return os.environ.get("COMPILE") != "well"


def set_fast(fast, _now=[False]):  # noqa: B006
    """Whether programs are compiled without optimisation from now on; what was before."""
    before, _now[0] = _now[0], fast
    jax.config.update("jax_disable_most_optimizations", fast)
    return before


def pytest_collection_finish():
    """What was imported stays: the collector need not go through it again and again (a tenth of the time)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="module")
def compile_fast():
    """Also where slow tests are asked for: small programs that run for few steps."""
    before = set_fast(may_be_fast())
    yield
    set_fast(before)


@pytest.fixture
def compile_well():
    """For what learns long, or is compared bit by bit with another program."""
    before = set_fast(False)
    yield
    set_fast(before)


@pytest.fixture
def as_users_compile(compile_well):
    """And the options with which a program is compiled as users have it compiled, to the last."""
    return {"xla_cpu_use_fusion_emitters": True} if OLDER_EMITTERS else {}


@pytest.fixture(scope="session")
def as_users_start_it():
    """The environment of a process that compiles its programs as users have them compiled."""
    flags = os.environ.get("XLA_FLAGS", "").replace(FAST, "").strip()
    return os.environ | {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "false"}


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Drop compiled programs before the process has as many memory maps as Linux allows (65,530): beyond, it crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 25_000:
        if stream := sys.modules.get("onward.rows.stream.programs"):
            stream.programs_of.cache_clear()
        jax.clear_caches()
        gc.collect()
