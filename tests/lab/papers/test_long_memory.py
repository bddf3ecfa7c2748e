"""The long-memory experiment: rules, cells and lengths on tasks whose answer stood long ago."""

import json
import math

import numpy as np
import pytest

from onward.cli import main
from onward.lab.experiment import from_config
from onward.lab.figures import Run
from onward.lab.folder import read_config
from onward.lab.papers.long_memory import NETWORKS, PAPER, RULES, TASKS, LongMemoryExperiment, success_of
from onward.lab.papers.long_memory_figures import success_table, wrong_table

TINY = ["--seeds", "1", "--iterations", "8", "--units", "4", "--held-out", "40", "--batch", "5", "--transitions", "8"]
TINY += ["--paper-iterations", "8", "--paper-units", "4", "--samples", "2", "--evaluation", "2"]


@pytest.mark.interfaces
def test_a_small_run_ends_with_a_summary_a_report_and_every_figure(tmp_path, capsys):
    out = tmp_path / "run"
    words = ["--lengths", "10", "--methods", "gru-tptt", "elman-clipped", *TINY]
    assert main(["run", "long-memory", *words, "--out", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert [row["name"] for row in summary["methods"]] == ["gru-tptt-10", "elman-clipped-10"]
    assert all(0 <= v <= 1 for row in summary["methods"] for v in row["values"])
    assert summary["references"] == {"constant": 0.75, "memoryless": 0.75, "best": 0.0}
    assert {p.stem for p in (out / "figures").iterdir()} == {"curves", "paths"}
    experiment = from_config(LongMemoryExperiment, read_config(out)["fields"], out)
    run = Run(experiment, out)
    assert success_table(run).header == wrong_table(run).header == ["", "T = 10"]
    assert [line[0] for line in wrong_table(run).rows][-1] == "best (exact)"
    with np.load(out / "records" / "gru-tptt-10-end.npz") as record:
        assert record["others"].shape == record["shift_cosine"].shape == (1, 10)
        np.testing.assert_allclose(record["shift_cosine"][0, -1], 1, atol=1e-5)
    with np.load(out / "records" / "elman-clipped-10-end.npz") as record:
        assert "shift_cosine" not in record
    capsys.readouterr()
    assert main(["report", str(out), "--markdown"]) == 0
    assert "gru-tptt-10" in capsys.readouterr().out
    assert "Share of 1 seed that solved the task" in (out / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("method", LongMemoryExperiment.all_methods())
def test_every_method_runs(method, tmp_path):
    out = tmp_path / "run"
    assert main(["run", "long-memory", "--lengths", "10", "--methods", method, *TINY, "--out", str(out)]) == 0
    assert np.isfinite(json.loads((out / "summary.json").read_text())["methods"][0]["values"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_task_runs(task, tmp_path):
    out = tmp_path / "run"
    words = ["--task", task, "--lengths", "10", "--methods", "gru-memory", *TINY]
    assert main(["run", "long-memory", *words, "--out", str(out)]) == 0
    assert json.loads((out / "summary.json").read_text())["references"]["best"] == 0


def test_success_is_the_first_point_below_one_in_a_hundred():
    experiment, steps = LongMemoryExperiment(), np.array([10, 20, 30])
    wrong = np.array([[0.5, 0.009, 0.5, 0.01], [0.0099, 0.5, 0.2, 0.01], [0.0, 0.4, 0.1, 0.01]])
    assert experiment.solved_at(steps, wrong).tolist() == [20, 10, math.inf, math.inf]
    assert success_of(experiment, steps, wrong) == (0.5, 15)
    assert success_of(experiment, steps, wrong[:, 2:]) == (0, math.inf)


def test_methods_are_networks_and_rules():
    names = LongMemoryExperiment.all_methods()
    assert len(set(names)) == len(names)
    assert {n.split("-")[0] for n in names} == {*NETWORKS, "paper"}
    assert all(f"gru-{rule}" in names for rule in RULES)
    assert {*PAPER} < {*names}
    assert "mingru-tptt" not in names
    assert "mingru-memory" in names
    experiment = LongMemoryExperiment()
    for name in ("gru-bptt-20", "elman-steady-20", "mingru-memory-20", "hybrid-tptt-20", "paper-norm-20"):
        assert experiment.build(name).note.startswith(("GRU", "tanh", "minimal", "half"))
