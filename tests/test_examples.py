"""The short programs in `examples/` run, and say what they promise."""

import importlib.util
import inspect
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import onward as ow
from onward import cli
from onward.lab.results import load_summary

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(capsys):
    """`run(name, *arguments)`: what the program prints."""

    def run(name, *arguments):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        program = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(program)
        program.main(*arguments)
        return capsys.readouterr().out

    return run


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d+\.\d+(?:e[-+]\d+)?", text)]


@pytest.mark.parametrize(
    ("name", "missing", "commands"),
    [
        ("phishing", "river", ('pip install "onward[river]"', 'pip install ".[river]"')),
        ("slurm_sweep", "dask_jobqueue", ('pip install "onward[dask]" dask-jobqueue', '".[dask]" dask-jobqueue')),
    ],
)
def test_what_is_not_installed_is_said_in_a_line(run, name, missing, commands, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as end:
        run(name)
    assert all(command in end.value.code for command in commands)
    assert len(end.value.code.splitlines()) == 1


def test_an_array_is_learned(run):
    ours, naive = numbers(run("fit_an_array", 3000))
    assert ours < 0.8 * naive


@pytest.mark.skipif(not hasattr(ow.verify, "gradient"), reason="verify.gradient is not here yet")
def test_rules_are_compared(run):
    exact, cosine, cheap, less = numbers(run("compare_rules", 6))
    assert exact < 1e-4 < cheap
    assert cosine == 1
    assert 0.5 < less < 1


@pytest.mark.skipif(
    "loss" not in inspect.signature(ow.Supervised).parameters, reason="losses of one's own are not here yet"
)
def test_a_loss_of_one_s_own_finds_the_quantile_online_and_in_batches(run):
    above = numbers(run("own_loss", 4000))
    assert len(above) == 2
    assert all(7 < share < 13 for share in above), above


def test_seeds_side_by_side(run, tmp_path):
    said = run("seeds_side_by_side", 600, str(tmp_path / "seeds.png"))
    plt.close("all")
    assert [line.split(":")[0] for line in said.splitlines()] == ["step size 0.001", "step size 0.01"]
    assert (tmp_path / "seeds.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not ow.Step._field_defaults, reason="steps have no defaults yet")
def test_saved_and_gone_on_with(run, tmp_path):
    assert "the same to the bit: True" in run("save_and_go_on", str(tmp_path / "state.npz"))


def test_an_environment_of_one_s_own_is_learned(tmp_path):
    words = ["--methods", "exact", "--steps", "30000", "--seeds", "2", "--out", str(tmp_path / "turn")]
    assert cli.main(["run", str(EXAMPLES / "own_environment.py"), *words]) == 0
    summary = load_summary(tmp_path / "turn")
    assert summary["methods"][0]["mean"] > 0.3
