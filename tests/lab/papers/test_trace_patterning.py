"""Trace patterning: kinds of columns, and a hidden layer after them."""

import pytest

import onward as ow
from onward.lab.papers.trace_patterning import TracePatterningExperiment
from onward.trees import parameter_count


@pytest.mark.parametrize(("gates", "own"), [("gru", 6), ("lstm", 8), ("mingru", 2), ("elstm", 6)])
def test_the_cost_of_columns_counts_every_parameter(gates, own, key):
    """Forward once, traces as often as the states ask for, a hidden layer forward and back."""
    experiment = TracePatterningExperiment(gates=gates, columnar_columns=5, hidden=3)
    model = experiment.build("columnar").model(key)
    size = parameter_count(model.cell)
    rows = len(model.cell.live.gates.input_slots)
    assert size == 5 * (rows * experiment.task.inputs + own)
    factor = {1: 2, 2: 5}[model.cell.live.gates.states]
    assert experiment.cost("columnar") == (1 + factor) * size + 3 * 3 * 6
    assert isinstance(model.head, ow.MLP)
    assert "hidden layer of 3" in experiment.build("columnar").note
