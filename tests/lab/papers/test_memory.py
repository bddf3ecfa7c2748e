"""The memory experiment: copying and counting with every credit rule."""

import json
import math

import numpy as np
import pytest

from onward.cli import main
from onward.lab.papers.memory import MemoryExperiment


@pytest.mark.interfaces
@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("copy", ["--methods", "rtrl", "tbptt-4", "--length", "1", "--delay", "4", "--cell", "gru"]),
        ("anbn", ["--methods", "uoro", "columns", "--most", "3", "--cell", "lstm"]),
    ],
)
def test_a_small_run_ends_with_a_summary_and_a_report(task, words, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    fields = ["--task", task, "--steps", "2000", "--seeds", "2", "--units", "4", *words]
    assert main(["run", "memory", *fields, "--out", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert [m["name"] for m in summary["methods"]] == words[1:3]
    assert all(0 < v < 1.5 for m in summary["methods"] for v in m["values"])
    assert all(len(m["values"]) == 2 for m in summary["methods"])
    page = (out / "report.html").read_text()
    assert "best possible" in page
    assert ("mean, bits" in page) == (task == "anbn")
    assert {p.stem for p in (out / "figures").iterdir()} == {"learning-curves", "stream", "final-errors"}
    capsys.readouterr()
    assert main(["report", str(out), "--markdown"]) == 0
    said = capsys.readouterr().out
    assert "| *memoryless* (exact) |" in said
    assert "- columns, seeds 0 to 1: " in said or "- rtrl, seeds 0 to 1: " in said
    monkeypatch.setattr(MemoryExperiment, "build", None)  # names, plans and pages need no task and no network
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_text() == page


def test_the_final_value_is_the_mean_over_recalls():
    experiment = MemoryExperiment(steps=130, length=2, delay=8)
    assert (experiment.final_window, experiment.point_every) == (26, 12)
    # Steps 109..120 hold two recalls, 121..130 none: a point without weight is NaN, and counts for nothing.
    lines = [
        {"step": 96, "count": 12, "values": [9.0, 9.0]},
        {"step": 108, "count": 12, "values": [1.0, 2.0]},
        {"step": 120, "count": 12, "values": [3.0, 4.0]},
        {"step": 130, "count": 10, "values": [math.nan, math.nan]},
    ]
    np.testing.assert_allclose(experiment.final_values(lines), [2.0, 3.0])


def test_columns_have_about_as_many_parameters_as_the_dense_layer():
    for task in ("copy", "anbn"):
        experiment = MemoryExperiment(task=task)
        inputs = experiment.stream.inputs
        dense = experiment.units * (experiment.units + inputs + 1)
        assert abs(experiment.columns * (inputs + 2) / dense - 1) < 0.03
