"""Options that a process sets for XLA, and what of them other processes see."""

import os
import subprocess
import sys
from itertools import product

import pytest

from onward.cli import main
from onward.devices import EXTRA, XLA_COLUMNS, XLA_SINGLE, set_up_jax

SOMEBODYS = ("", "--xla_cpu_prefer_vector_width=256", f"{EXTRA}xla_cpu_other=1", f"{EXTRA}{XLA_SINGLE},other=1")


@pytest.fixture
def flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    return monkeypatch


@pytest.mark.parametrize("asked", list(product([True, False], repeat=2)), ids=str)
@pytest.mark.parametrize("before", list(product([True, False], repeat=2)), ids=str)
@pytest.mark.parametrize("somebodys", SOMEBODYS)
def test_options_are_those_of_the_last_command_and_somebody_elses_stay(flags, somebodys, before, asked):
    """What a command sets is seen by every process that it, or a program around it, starts."""
    flags.setenv("XLA_FLAGS", somebodys)
    for columns, single in (before, before, asked):
        set_up_jax(columns=columns, single=single)
    words = os.environ["XLA_FLAGS"].split()
    assert [word for word in somebodys.split() if word not in words] == []
    ours = [word for word in words if word not in somebodys.split()]
    options = [option for option, on in zip((XLA_COLUMNS, XLA_SINGLE), asked, strict=True) if on]
    assert ours == ([EXTRA + ",".join(options)] if options and EXTRA not in somebodys else [])


def test_a_command_that_a_program_calls_leaves_the_compiler_as_it_was(flags, tmp_path):
    """The program may go on with layers that cannot be compiled with the options for columns."""
    main(["run", "trace-patterning", "--steps", "10", "--seeds", "2", "--methods", "columnar", "--out", str(tmp_path)])
    assert XLA_COLUMNS not in os.environ["XLA_FLAGS"]


@pytest.mark.interfaces
@pytest.mark.parametrize("network", ["columnar", "gru"])
def test_rows_are_learned_whatever_another_command_left_in_the_environment(tmp_path, as_users_start_it, network):
    """With the options for columns this XLA ends the process: a failed check in `SymbolicMap::Compose`."""
    words = ["learn", "-", "--target", "y", "--network", network, "--units", "4", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "onward.cli", *words],
        env=as_users_start_it | {"XLA_FLAGS": f"{EXTRA}{XLA_COLUMNS}", "XDG_CACHE_HOME": str(tmp_path)},
        input="y,x\n" + "".join(f"{i % 7},{i}\n" for i in range(9)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 10
