"""Trace conditioning: columns of every kind on one stream, with both returns measured and exact levels beside."""

import json

import pytest

import onward as ow
from onward.cli import main
from onward.lab.papers.trace_conditioning import COLUMNS, METHODS, TraceConditioningExperiment
from onward.lab.train import read_metrics
from onward.trees import parameter_count


def test_the_stream_is_the_published_one():
    task = TraceConditioningExperiment(interval=40).task
    assert (task.isi, task.iti, task.cs_length, task.us_length) == ((27, 53), (80, 120), 4, 2)
    assert task.discount == 1 - 1 / 40
    assert task.distractor_rates == ()


def test_levels_are_those_of_the_return_that_td_learns():
    found = TraceConditioningExperiment(interval=20).references()
    assert {name: round(value, 4) for name, value in found.items()} == {
        "predict-zero": 0.3294,
        "memoryless": 0.2134,
        "us-blind": 0.0623,
        "bayes": 0.0151,
    }


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_made_of_what_it_says(name, key):
    experiment = TraceConditioningExperiment(columns=8, hidden=3, methods=(name,))
    method = experiment.build(name)
    model = method.model(key)
    assert isinstance(model.head, ow.MLP)
    cell = model.cell
    if name in COLUMNS:
        assert isinstance(cell, ow.Columns)
        assert cell.gates == COLUMNS[name]()
        assert cell.columns == 8
    elif name == "ccn":
        assert isinstance(cell, ow.Cascade)
        assert (cell.live.columns, method.growth.stages) == (4, 2)
    else:
        assert isinstance(cell, ow.Dense)
        assert method.learner(model, 1e-3).credit.window == (1 if name == "tbptt-1" else 20)
    assert parameter_count(model) > 0
    assert experiment.fuse_outputs == isinstance(cell, ow.Columns | ow.Cascade)


@pytest.mark.interfaces
def test_a_small_run_measures_both_returns(tmp_path, capsys):
    out = tmp_path / "run"
    line = "run trace-conditioning --steps 3000 --seeds 2 --columns 4 --methods rtu ccn --workers 1"
    assert main([*line.split(), "--out", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert [m["name"] for m in summary["methods"]] == ["rtu", "ccn"]
    assert all(0 < v < 1.5 for m in summary["methods"] for v in m["values"])
    lines = read_metrics(out)
    assert all(len(m["trial error"]) == len(m["values"]) == 2 for m in lines)
    assert any(m["trial error"] != m["values"] for m in lines)
    assert "bayes" in (out / "report.html").read_text()
    assert "bayes 0.01509" in capsys.readouterr().out
