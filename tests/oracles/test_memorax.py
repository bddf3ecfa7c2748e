"""RTU columns against memorax's own RTU and its traces: same parameters, same stream, double precision.

No wheel has that cell: MEMORAX names a folder of https://github.com/memory-rl/memorax.
"""

import importlib.util
import os
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def peer():
    """benchmarks/peer_rtu.py, and memorax's cell."""
    checkout = os.environ.get("MEMORAX")
    if not checkout:
        pytest.skip("MEMORAX names no folder of https://github.com/memory-rl/memorax")
    spec = importlib.util.spec_from_file_location("peer_rtu", ROOT / "benchmarks" / "peer_rtu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.its_cell(Path(checkout))


def test_the_traces_of_its_rtu_give_our_gradient(peer):
    module, cell = peer
    with jax.enable_x64(True):
        ours, theirs = (loop(1) for loop in module.loops(cell, inputs=3, units=5, steps=40))
        assert module.difference(ours, theirs) < module.AGREE
        wrong = theirs | {"theta_log": theirs["theta_log"] * 1.01}
        assert module.difference(ours, wrong) > 1e-3
