"""One model and many streams: what is averaged, over whom, and what every stream and step draws for itself."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.learners.online import UNROLLED

pytestmark = pytest.mark.usefixtures("compile_fast")


def columns(key, width=2):
    moments = ow.Moments(rate=0.9)
    return ow.Columns(ow.GRUGates(), 3, width, key=key, spread=0.5, normalise_inputs=moments)


def model(key):
    """Its head is not 0, so that the cell has a gradient too."""
    model = ow.Model(ow.Cascade(columns(key)), ow.Linear(2))
    return eqx.tree_at(lambda m: m.head.weight, model, jnp.asarray([1.0, -2.0]))


def example(key, streams, scale=1.0):
    x_key, y_key = jax.random.split(key)
    x, y = jax.random.normal(x_key, (streams, 3)), jax.random.normal(y_key, (streams,))
    return ow.Step(x * scale, y, jnp.ones(streams), jnp.zeros(streams, bool))


def online(streams, optimiser=None, credit=None):
    return ow.Online(credit or ow.Columnwise(), ow.Supervised(), optimiser or optax.sgd(1.0), streams=streams)


def arrays(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))


def moved(learner, net, example, key):
    """How one step moves the weights, and the state after it."""
    state, _ = learner.step(learner.init(net, example, key=key), example)
    return [after - before for after, before in zip(arrays(state.model), arrays(net), strict=True)], state


@pytest.mark.parametrize("streams", [2, UNROLLED, UNROLLED + 1])
def test_so_many_streams_move_the_weights_by_the_mean_of_what_each_would(streams, key):
    net, together = model(key), example(key, streams)
    apart = jax.vmap(lambda e: moved(online(None), net, e, key)[0])(together)
    ours, _ = moved(online(streams), net, together, key)
    for one, each in zip(ours, apart, strict=True):
        np.testing.assert_allclose(one, np.mean(np.asarray(each, float), 0), rtol=1e-4, atol=1e-6)  # sums of float32
    assert max(abs(one).max() for one in ours) > 1e-3, "nothing moved: the comparison would say nothing"


@pytest.mark.parametrize("told", list(itertools.product([0.0, 1.0], repeat=3)))
def test_streams_that_are_told_something_are_learned_from_whoever_else_is_silent(told, key):
    """A silent stream counts as one whose gradient is 0; if all are silent not even the optimiser moves."""
    net, together = model(key), example(key, 3)._replace(weight=jnp.asarray(told))
    each = [moved(online(None), net, jax.tree.map(lambda a, i=i: a[i], together), key)[0] for i in range(3)]
    ours, _ = moved(online(3), net, together, key)
    for one, *alone in zip(ours, *each, strict=True):
        np.testing.assert_allclose(one, sum(alone) / 3, rtol=1e-4, atol=1e-6)
    assert (max(abs(one).max() for one in ours) > 1e-3) == any(told)
    _, state = moved(online(3, optax.adam(0.1)), net, together, key)
    assert int(optax.tree_utils.tree_get(state.optimiser, "count")) == any(told)


def test_an_optimiser_that_wants_the_loss_gets_the_mean_of_all_streams(key):

    def update(updates, state, params=None, *, value, **_):
        return updates, value

    watching = optax.GradientTransformationExtraArgs(lambda params: jnp.zeros(()), update)
    learner, together = online(5, watching), example(key, 5)
    state, info = learner.step(learner.init(model(key), together, key=key), together)
    assert info.loss.shape == (5,)
    np.testing.assert_allclose(state.optimiser, np.mean(info.loss), rtol=1e-6)


def grown(streams, key, order):
    """After some steps of streams that lie far apart, taken in some order."""
    learner, scale = online(streams, optax.sgd(0.0)), jnp.asarray([[0.1], [1.0], [30.0]])
    steps = [jax.tree.map(lambda a: a[order], example(k, 3, scale)) for k in jax.random.split(key, 6)]
    state = learner.init(model(key), steps[0], key=key)
    for each in steps:
        state, _ = learner.step(state, each)
    return state, learner.grow(state, steps[0])


def test_growth_folds_the_mean_of_the_moments_of_all_streams(key):
    """Of three streams whose inputs differ by a factor of 300: as one stream would that had those moments."""
    order = jnp.arange(3)
    before, after = grown(3, key, order)
    stats = jax.tree.map(lambda a: jnp.mean(a, 0), before.carry.stats)
    spread = np.ptp(np.log(np.asarray(before.carry.stats[0].inputs.scale)), 0)
    assert spread.min() > 1, "the streams' moments are alike: the comparison would say nothing"
    first = jax.tree.map(lambda a: a[0], before.carry.hidden)
    alone, _ = before.model.cell.grow(ow.Carry(first, stats), key=key)
    for ours, theirs in zip(arrays(after.model.cell.frozen), arrays(alone.frozen), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_growth_does_not_depend_on_the_order_of_streams(key):
    forwards, backwards = (grown(3, key, order)[1] for order in (jnp.arange(3), jnp.arange(3)[::-1]))
    for a, b in zip(arrays(forwards.model), arrays(backwards.model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    for a, b in zip(arrays(forwards.carry.hidden), arrays(backwards.carry.hidden), strict=True):
        np.testing.assert_allclose(a, b[::-1], rtol=1e-5)  # every stream kept its own state


# What is drawn.


@pytest.mark.parametrize("streams", [None, 4])
def test_a_cell_that_samples_draws_anew_at_every_step_and_in_every_stream(streams, key):
    """Units that are all sampled, always at odds of one half: nothing but the key decides what is read."""
    cell = ow.Hybrid(ow.Elman(1, 16, key=key, activation="sigmoid"), share=1.0)
    cell = jax.tree.map(lambda a: jnp.zeros_like(a) if eqx.is_inexact_array(a) else a, cell)
    head = eqx.tree_at(lambda h: h.weight, ow.Linear(16), 2.0 ** jnp.arange(16))  # the prediction names the draw
    learner = online(streams, optax.sgd(0.0), ow.RTRL())
    x = jnp.zeros((1,) if streams is None else (streams, 1))
    y = jnp.zeros(x.shape[:-1])
    state, said = learner.init(ow.Model(cell, head), ow.Step(x, y), key=key), []
    for _ in range(6):
        state, read = learner.read(state, x)
        state, info = learner.learn(state, ow.Step(x, y))
        np.testing.assert_array_equal(read, info.prediction)  # what is learned is what was read
        said += np.ravel(read).tolist()
    assert len(set(said)) == len(said) == 6 * (streams or 1)
    again = learner.init(ow.Model(cell, head), ow.Step(x, y), key=key)
    np.testing.assert_array_equal(np.ravel(learner.read(again, x)[1]), said[: streams or 1])


def test_a_rule_that_draws_does_so_anew_at_every_step(key):
    """Of UORO at equal states and inputs only the count of its draws can tell two steps apart."""
    one = ow.Step(jnp.ones(3), jnp.ones(()))
    learner = online(None, optax.sgd(0.0), ow.UORO())
    state = learner.init(ow.Model(ow.GRU(3, 8, key=key), ow.Linear(8)), one, key=key)
    drawn = []
    for count in range(4):
        assert state.credit.steps == count
        after = [
            learner.read(state._replace(credit=state.credit._replace(steps=jnp.asarray(n))), one.x)[0] for n in range(4)
        ]
        drawn = [np.concatenate([np.ravel(a) for a in arrays(each.credit)]).tobytes() for each in after]
        assert len(set(drawn)) == 4
        state = after[count]
