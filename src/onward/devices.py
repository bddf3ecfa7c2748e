"""What JAX runs on and with which options: all that must be said before it is first used."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onward.errors import OnwardError

# Undocumented XLA options, measured in docs/performance.md. Kernels with several outputs: 1.2x and more for columns;
# other programs can crash this XLA's compiler with it (decisions.md), so only processes of commands have it. For a
# single stream, one kernel for the whole loop: 3x. Nothing depends on them.
XLA_COLUMNS = "xla_cpu_use_multi_output_fusion=true"
XLA_SINGLE = "xla_cpu_small_while_loop_byte_threshold=10000000"
EXTRA = "--xla_backend_extra_options="
OURS = re.compile(rf"(^|\s){EXTRA}({XLA_COLUMNS}|{XLA_SINGLE}|,)+(?!\S)")


class Process:
    """Whose this process is: `of_command` where it does what one command says and ends, and no program goes on."""

    of_command = False


def set_up_jax(*, columns: bool, single: bool, device: str = "") -> None:
    """Options that must be set before JAX is first used, the device, and the cache of compiled programs.

    Options of ours that another command left in the environment are taken back; those of somebody else stay.
    """
    flags = OURS.sub("", os.environ.get("XLA_FLAGS", ""))
    options = [option for option, asked in ((XLA_COLUMNS, columns), (XLA_SINGLE, single)) if asked]
    if options and EXTRA not in flags:
        flags = f"{flags} {EXTRA}{','.join(options)}"
    if flags or "XLA_FLAGS" in os.environ:
        os.environ["XLA_FLAGS"] = flags.strip()
    choose_device(device)
    cache_programs()


def require_device(device: str) -> None:
    """Refuse what is no name of a device; whether it is there, `choose_device` finds out by starting JAX."""
    kind, _, number = device.partition(":")
    if device and (kind not in ("cpu", "gpu", "cuda", "rocm", "tpu") or (number and not number.isdecimal())):
        raise OnwardError(f"--device is cpu, gpu or tpu, or one of several as in gpu:1; got {device!r}")


def choose_device(device: str) -> None:
    """Compute on `cpu`, `gpu`, `tpu` or, where there are several, `gpu:1`; empty: as JAX chooses."""
    if not device:
        return
    require_device(device)
    import jax

    kind, _, number = device.partition(":")
    try:
        there = jax.devices(kind)
    except RuntimeError as error:
        here = ", ".join(dict.fromkeys(d.platform for d in jax.devices()))
        hint = "; for NVIDIA: pip install 'jax[cuda12]'" if kind in ("gpu", "cuda") else ""
        raise OnwardError(f"--device {device}: JAX finds none here, only {here}{hint}") from error
    if int(number or 0) >= len(there):
        raise OnwardError(f"--device {device}: there are {len(there)} here, counted from 0")
    jax.config.update("jax_default_device", there[int(number or 0)])


def platform() -> str:
    """`cpu`, `gpu` or `tpu`: of the device in use."""
    import jax

    chosen = getattr(jax.config, "jax_default_device", None)
    return str(getattr(chosen, "platform", chosen) or jax.default_backend())


def cores() -> list[int]:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(core: int) -> None:
    """Compute on this core alone, where a process may choose; before JAX is first used."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def older_emitters() -> bool:
    """Whether this jaxlib still has XLA's older emitters: they compile in less than half the time, and round otherwise.

    Where it has none, the option is unknown, which is an error.
    """
    from jaxlib.version import __version__

    return tuple(map(int, __version__.split(".")[:2])) == (0, 10)


def fast_to_compile() -> dict[str, Any]:
    """Compiler options for a small program that runs a few times, and whose last bits nobody compares."""
    emitters = {"xla_cpu_use_fusion_emitters": False} if older_emitters() else {}
    return {"xla_backend_optimization_level": 0, **emitters}


def cache_programs() -> None:
    """Keep compiled programs in the user's cache folder."""
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "onward" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


SINGLE, DOUBLE = "single", "double"


def precision() -> str:
    """`single` or `double`: of the numbers that are made now, as JAX's switch says."""
    import jax

    return DOUBLE if jax.dtypes.canonicalize_dtype("float64") == "float64" else SINGLE


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """JAX's switches that change numbers, or stop what is sound: this precision, compiled, no traps for NaN."""
    import jax

    with (
        jax.enable_x64(precision == DOUBLE),
        jax.disable_jit(False),
        jax.debug_nans(False),
        jax.debug_infs(False),
    ):
        yield


def out_of_memory(error: Exception) -> bool:
    """Whether it says that host or device have no more; of JAX's own errors the text says so."""
    told = ("RESOURCE_EXHAUSTED", "Out of memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in told)


class Forked:
    """Whether this process was forked from one that had computed: JAX's threads are not copied, and it would hang."""

    used = forked = False

    @classmethod
    def note(cls) -> None:
        """In the child."""
        cls.forked = cls.used


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Forked.note)


def must_compute() -> None:
    """Called before anything is computed. Raises OnwardError in a process that can compute no more."""
    if not Forked.used:
        Forked.used = True
    if Forked.forked:
        raise OnwardError(
            "this process was forked from one that had already computed with onward, and JAX cannot compute here: it "
            "would wait for ever. Start processes by spawn: multiprocessing.get_context('spawn'), or joblib's loky; or "
            "fork before the first row is learned"
        )
