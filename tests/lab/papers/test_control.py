"""Experiments in which a network acts: what each method is made of, what is reported, and runs that are gone on with."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import onward as ow
from onward.cli import main
from onward.lab.papers.cartpole import CartpoleInTheDarkExperiment
from onward.lab.papers.control import COLUMNS, METHODS, RULES, STAGES, apart
from onward.lab.papers.memory_control import MemoryControlExperiment
from onward.lab.papers.memory_control_figures import successes
from onward.lab.papers.popgym import TASKS, PopgymExperiment
from onward.lab.train import read_metrics

KINDS = (MemoryControlExperiment, PopgymExperiment, CartpoleInTheDarkExperiment)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_made_of_what_it_says(name, key):
    experiment = MemoryControlExperiment(methods=(name,), units=8, lengths=(5,), steps=100)
    method = experiment.build(f"{name}-5")
    model = method.model(key)
    assert isinstance(method.task, ow.MemoryChain)
    assert method.task.length == 5
    if name in RULES:
        assert isinstance(model.cell, ow.Dense)
        return
    within = model.cell.cell
    if name == "memoryless":
        assert isinstance(within, ow.Encoder)
    elif name == "ccn":
        assert isinstance(within, ow.Cascade)
        assert (within.live.columns, method.growth.stages) == (8 // STAGES, STAGES)
    else:
        assert within.gates == COLUMNS[name]()
        assert within.columns == 8


@pytest.mark.parametrize("name", COLUMNS)
def test_only_the_memory_gate_is_apart(name, key):
    columns = ow.Columns(COLUMNS[name](), 3, 4, key=key, spread=0.5)
    ratio = np.asarray(apart(columns, 10.0).weight / columns.weight)
    per_row = ratio.mean((0, 2)).round(4).tolist()
    wanted = {"mingru": [10, 1], "gru": [1, 10, 1], "lstm": [10, 10, 1, 1], "elstm": [10, 1, 1]}.get(name, [1, 1])
    assert sorted(per_row) == sorted(wanted)
    assert np.allclose(ratio.std((0, 2)), 0, atol=1e-4)


@pytest.mark.parametrize("objective", ["actor-critic", "q", "sarsa", "qrc"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_objective_fits_every_task(kind, objective, key):
    names = [None] if kind is not PopgymExperiment else [*TASKS]
    for task in names:
        experiment = kind(objective=objective, units=8, **({} if task is None else {"task": task}))
        if task == "pendulum" and objective != "actor-critic":
            with pytest.raises(ow.OnwardError, match="real numbers: actor-critic"):
                experiment.build(experiment.rows[0])
            continue
        method = experiment.build(experiment.rows[0])
        model = method.model(key)
        assert method.learner(model, 1e-3).actions(model) == method.task.actions


def test_the_reported_return_is_that_of_the_episodes_of_the_last_tenth():
    """Points with more episodes weigh more; a point without any says nothing."""
    experiment = MemoryControlExperiment(lengths=(5,), steps=1000)
    line = lambda step, values, ended: {"step": step, "count": 20, "values": values, "ended": ended}
    nan = float("nan")
    lines = [
        line(880, [9.0, 9.0], [0.5, 0.5]),
        line(920, [1.0, nan], [0.1, 0.0]),
        line(960, [-1.0, nan], [0.3, 0.0]),
        line(1000, [nan, nan], [0.0, 0.0]),
    ]
    found = experiment.final_values(lines)
    assert found[0] == pytest.approx((1 * 2 - 1 * 6) / 8)
    assert np.isnan(found[1])


def test_levels_of_popgym_are_shares_of_what_is_between_least_and_best():
    found = PopgymExperiment(task="repeat-first").references()
    assert found["best"] == 1
    assert found["random"] == pytest.approx(0.25)
    assert PopgymExperiment(task="cart-pole").references() == {"best": 1.0}


@pytest.mark.interfaces
@pytest.mark.parametrize("objective", ["actor-critic", "q"])
def test_a_run_with_growth_that_was_stopped_and_gone_on_with_is_one_that_was_not(tmp_path, monkeypatch, objective):
    from onward.lab import results
    from onward.lab import train as run

    monkeypatch.setattr(run, "CHUNK_SECONDS", 0.0)
    experiment = MemoryControlExperiment(
        methods=("ccn",), lengths=(4,), steps=400, units=8, seeds=2, step_sizes=(1e-2,), objective=objective
    )
    results.execute(experiment, tmp_path / "whole", quiet=True, workers=1)
    calls, advance = [], ow.Loop.advance

    def count(self, steps):
        calls.append(steps)
        if len(calls) == 7:  # in a later stage
            raise KeyboardInterrupt
        advance(self, steps)

    monkeypatch.setattr(ow.Loop, "advance", count)
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        results.execute(experiment, tmp_path / "cut", quiet=True, workers=1)
    results.execute(experiment, tmp_path / "cut", quiet=True, workers=1, resume=True)
    whole, cut = (json.loads((tmp_path / name / "summary.json").read_text())["methods"][0] for name in ("whole", "cut"))
    assert whole["values"] == cut["values"]
    assert whole["grown_at"] == cut["grown_at"]
    assert len(whole["grown_at"]) == STAGES - 1


@pytest.mark.interfaces
@pytest.mark.parametrize(
    "line",
    [
        "memory-control --lengths 4 8 --methods rtu tbptt-1 --units 4 --steps 300",
        "memory-control --task k-chain --lengths 2 --methods lru snap-1 --units 4 --steps 300 --objective qrc",
        "memory-control --task t-maze --lengths 3 --methods memoryless --units 4 --steps 300 --objective sarsa",
        "popgym --task bandit --methods mingru --units 4 --steps 5000",
        "popgym --task pendulum --methods lstm --units 4 --steps 5000",
        "cartpole-in-the-dark --methods mingru --units 4 --steps 900 --hidden 3",
    ],
)
def test_a_small_run_ends_with_a_report(tmp_path, line):
    out = tmp_path / "run"
    assert main(["run", *line.split(), "--seeds", "2", "--workers", "1", "--out", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert all(np.isfinite(v) for m in summary["methods"] for v in m["values"])
    assert all(len(m["ended"]) == 2 for m in read_metrics(out))
    assert (out / "report.html").is_file()
    assert bool(list((out / "figures").glob("lengths.*"))) == ("--lengths 4 8" in line)


def test_success_is_counted_by_length_over_all_seeds():
    experiment = MemoryControlExperiment(methods=("mingru", "tbptt-1"), lengths=(4, 8))
    finals = {"mingru-4": [0.6, 0.9, 1.0, 0.51], "mingru-8": [0.6, 0.5, -1.0, float("nan")]}
    finals |= {"tbptt-1-4": [0.4, 0.7, 0.1, 0.2], "tbptt-1-8": [0.0] * 4}
    run = SimpleNamespace(experiment=experiment, rows=[{"name": k, "values": v} for k, v in finals.items()])
    assert successes(run) == {"mingru": {4: 1.0, 8: 0.25}, "tbptt-1": {4: 0.25, 8: 0.0}}
