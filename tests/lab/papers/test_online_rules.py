"""Dense layers and other rules on trace patterning: the command line, the costs, the report."""

import json

import numpy as np
import pytest

import onward as ow
from onward.cli import main
from onward.lab.papers.trace_patterning import TBPTT_GRID, TracePatterningExperiment


@pytest.mark.interfaces
def test_a_small_comparison_ends_with_a_report(tmp_path, capsys):
    out = tmp_path / "run"
    words = ["--methods", "ccn", "snap-1", "--step-sizes", "1e-3", "3e-4", "--watch", "tbptt-2", "--stream", "noisy"]
    fields = ["--gates", "lstm", "--budget", "500", "--steps", "3000", "--seeds", "2", *words]
    assert main(["run", "trace-patterning", *fields, "--out", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert [m["name"] for m in summary["methods"]] == ["ccn@0.001", "ccn@0.0003", "snap-1@0.001", "snap-1@0.0003"]
    figures = {p.stem for p in (out / "figures").iterdir()}
    assert figures >= {"learning-curves", "compute", "step-sizes", "alignment-snap-1", "windows", "final-errors"}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["job"] == "snap-1"][-1]
    cosines = np.asarray([last["snap-1 cosine"], last["tbptt-2 cosine"]])
    assert cosines.shape == (2, 4)
    assert ((cosines > 0.3) & (cosines <= 1.0001)).all()
    capsys.readouterr()
    assert main(["report", str(out), "--markdown"]) == 0
    said = capsys.readouterr().out
    assert "| | 0.001 | 0.0003 |" in said
    assert "95 % interval" in said


@pytest.mark.parametrize("gates", ["gru", "lstm"])
def test_every_dense_method_is_near_the_budget(gates):
    experiment = TracePatterningExperiment(gates=gates)
    for name in ("snap-1", "uoro", "rtrl"):
        _, units = experiment.dense(name)
        assert 0.5 * experiment.budget < experiment.cost(name) <= experiment.budget
        assert units > 1
    if gates == "lstm":  # the grid was made for it
        costs = [experiment.cost(f"tbptt-{k}-{d}") for k, d in TBPTT_GRID]
        assert max(costs) <= experiment.budget
        assert min(costs) > 4000
        assert (experiment.dense("snap-1")[1], experiment.dense("uoro")[1], experiment.dense("rtrl")[1]) == (10, 13, 3)


def test_the_cost_of_a_network_that_grows():
    experiment = TracePatterningExperiment(gates="lstm")
    steps = np.asarray([100, 200, 300])
    spent = experiment.spent("ccn", steps, [150])
    one, two = experiment.cost("ccn", 1), experiment.cost("ccn", 2)
    np.testing.assert_allclose(spent, [100 * one, 150 * one + 50 * two, 150 * one + 150 * two])
    assert one == 6 * 4 * 4 * (ow.TracePatterning().inputs + 2)
    assert experiment.cost("ccn") == experiment.cost("ccn", 5) > two > one
