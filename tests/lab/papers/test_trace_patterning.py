"""Trace patterning: kinds of columns, and a hidden layer after them."""

import pytest

import onward as ow
from onward.cells.base import rows_of_features
from onward.lab.papers.trace_patterning import TracePatterningExperiment
from onward.trees import parameter_count


@pytest.mark.parametrize(
    ("gates", "own"), [("gru", 6), ("lstm", 8), ("mingru", 2), ("elstm", 6), ("rtu", 2), ("lru", 3)]
)
def test_the_cost_of_columns_counts_every_parameter(gates, own, key):
    """Forward once, traces as often as the states ask for, a hidden layer forward and back."""
    experiment = TracePatterningExperiment(gates=gates, columnar_columns=5, hidden=3)
    model = experiment.build("columnar").model(key)
    size, made = parameter_count(model.cell), experiment.column_gates
    rows = len(made.input_slots)
    assert size == 5 * (rows * experiment.task.inputs + own)
    factor = {1: 2, 2: 5}[made.states]
    assert experiment.cost("columnar") == (1 + factor) * size + 3 * 3 * (5 * rows_of_features(made) + 1)
    assert isinstance(model.head, ow.MLP)
    assert "hidden layer of 3" in experiment.build("columnar").note


@pytest.mark.parametrize("gates", ["rtu", "lru"])
@pytest.mark.parametrize("method", ["ccn", "constructive"])
def test_units_without_a_bias_on_their_inputs_do_not_grow(gates, method):
    with pytest.raises(ow.OnwardError, match=f"--gates {gates} has no bias on its inputs.*--methods columnar"):
        TracePatterningExperiment(gates=gates, methods=(method,)).check()


@pytest.mark.parametrize("gates", ["mingru", "rtu", "lru"])
def test_a_memory_bias_is_for_units_that_have_one(gates):
    with pytest.raises(ow.OnwardError, match=f"--memory-bias: --gates {gates} has no such bias"):
        TracePatterningExperiment(gates=gates, methods=("columnar",), memory_bias=1.0).check()
    TracePatterningExperiment(gates="lstm", memory_bias=1.0).check()
