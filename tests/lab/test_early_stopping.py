"""A method may keep the state that was best on held-out data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.errors import Stopped
from onward.lab import metrics
from onward.lab.folder import RunFolder
from onward.lab.method import Growth, Method
from onward.lab.progress import Progress
from onward.lab.train import read_metrics, train

RUNS = [(0.1, 0), (0.1, 1), (0.2, 2), (0.2, 3), (0.1, 4)]


def method(batch_axis=0, **fields):
    """Learns something; `valid` is least at step 5 of seed 0 and at step 3 of others (told by the key)."""

    def valid(state):
        best = jnp.where(jax.random.key_data(state.key)[-1] % 2 == 0, 5, 3)
        return {"valid": jnp.square(state.steps - best).astype(jnp.float32)}

    defaults = {
        "name": "m",
        "task": ow.PianoRoll([np.eye(4)[[0, 1, 2, 3, 0, 1]]], length=2, batch=2),
        "model": lambda key: ow.Model(ow.Elman(4, 3, key=key), ow.Bernoulli(3, 4)),
        "learner": lambda model, size: ow.BPTT(optax.sgd(1.0), size),
        "steps": 8,
        "measure": metrics.training_loss,
        "metric": "loss",
        "batch_axis": batch_axis,
        "point_every": 1,
        "evaluate": valid,
        "select": "valid",
        "conclude": lambda state: {"chosen": state.steps, "bias": state.model.head.bias},
    }
    return Method(**(defaults | fields))


def run(folder, stop=lambda: False, **fields):
    with RunFolder(folder, "run") as held:
        train(
            method(**fields), RUNS, job="m", folder=held, digest="d", progress=Progress(quiet=True), stop=stop
        )  # fmt: skip
    return read_metrics(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"))


def test_the_best_state_of_every_run_is_concluded_with(whole):
    valid = np.asarray([line["valid"] for line in whole])
    assert valid.shape == (8, 5)
    assert whole[-1]["chosen"] == (1 + valid.argmin(0)).tolist()
    assert set(whole[-1]["chosen"]) <= {3, 5}
    assert all("chosen" not in line for line in whole[:-1])


def test_its_weights_are_those_of_that_step(whole, tmp_path):
    shorter = run(tmp_path, steps=5, select=None)
    five = [i for i, chosen in enumerate(whole[-1]["chosen"]) if chosen == 5]
    assert five
    for i in five:
        assert shorter[-1]["bias"][i] == whole[-1]["bias"][i]


def test_the_axis_of_the_runs_does_not_matter(whole, tmp_path):
    found = run(tmp_path, batch_axis=-1)
    assert found[-1]["chosen"] == whole[-1]["chosen"]
    assert np.allclose(found[-1]["bias"], whole[-1]["bias"], atol=1e-6)


def test_stopped_and_resumed_it_chooses_the_same(whole, tmp_path):
    asked = iter([False, False, False, False, False, True])
    with pytest.raises(Stopped):
        run(tmp_path, stop=lambda: next(asked))
    assert run(tmp_path) == whole


def test_growth_forgets_the_best(tmp_path):
    columns = lambda key: ow.Cascade(ow.Columns(ow.GRUGates(), 4, 2, key=key))
    found = run(
        tmp_path,
        task=ow.Streams(ow.PianoRoll([np.eye(4)[[0, 1, 2, 3, 0, 1]]]), 2),
        model=lambda key: ow.Model(columns(key), ow.Bernoulli(2, 4)),
        learner=lambda model, size: ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(1.0), size, streams=2),
        measure=metrics.stream_loss,
        growth=Growth(stages=2, every=6),
        batch_axis=-1,
        evaluate=lambda state: {"valid": state.steps.astype(jnp.float32)},
        conclude=lambda state: {"chosen": state.steps},
    )
    assert found[-1]["chosen"] == [7] * 5
