"""Objectives that act, in whole learners: growth, files, streams, watched rules, told step sizes; and that they learn."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.verify.gradients import quick

TASK = ow.MemoryChain(3)
OBJECTIVES = {
    "QLambda": (ow.QLambda(0.9, 0.8, 0.3), 2),
    "SarsaLambda": (ow.SarsaLambda(0.9, 0.8, 0.3), 2),
    "QRC": (ow.QRC(0.9, 0.8, 0.3), 4),
    "ActorCritic": (ow.ActorCritic(0.9, 0.8, 0.1, 1.5), 3),
    "Reinforce": (ow.Reinforce(0.9), 2),
}
SEVERAL = ("QRC", "ActorCritic")
# Those in which delta multiplies one eligibility, or one a gradient.
TOLD = tuple(name for name in OBJECTIVES if name != "QRC")


def columns(key):
    return ow.Columns(ow.MinGRUGates(), 3, 2, key=key, spread=0.5)


def online(name, optimiser=None, credit=None, **options):
    return ow.Online(credit or ow.Columnwise(), OBJECTIVES[name][0], optimiser or ow.rms(), 0.01, **options)


def make_model(name, cell=columns):
    def model(key):
        made = cell(key)
        return ow.Model(made, ow.Linear(made.feature_count, OBJECTIVES[name][1]))

    return model


def measure(example, info):
    return example.truth.total * example.truth.over, example.truth.over * 1.0


def loop(name, cell=columns, task=TASK, learner=None, **options):
    return ow.Loop(task, make_model(name, cell), learner or online(name), measure, seeds=range(2), axis=0, **options)


def arrays(tree):
    return [np.asarray(a) for a in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))]


def same(a, b):
    for x, y in zip(arrays(a), arrays(b), strict=True):
        np.testing.assert_array_equal(x, y)


def cascade(key):
    return ow.Cascade(columns(key))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_growth_keeps_what_old_output_weights_are_eligible_for(name):
    runs = loop(name, cascade)
    runs.start()
    runs.advance(31)
    _, before = runs.state
    runs.grow()
    _, after = runs.state
    assert after.model.head.weight.shape[-1] == 4
    kept = 0
    pairs = zip(*(jax.tree.leaves(s.objective, is_leaf=is_part) for s in (before, after)), strict=True)
    for old, new in pairs:
        if isinstance(old, ow.Model):
            assert not any(a.any() for a in arrays(new.cell))
            old, new = old.head, new.head
        if isinstance(old, ow.Linear):
            np.testing.assert_array_equal(new.weight[..., :2], old.weight)
            np.testing.assert_array_equal(new.bias, old.bias)
            assert not np.asarray(new.weight[..., 2:]).any()
            kept += np.abs(old.bias).max() > 0
        else:
            np.testing.assert_array_equal(old, new)
    assert kept >= 1
    several = OBJECTIVES[name][0].step_sizes
    assert several is None or len(after.optimiser) == len(several) == 2


def is_part(part):
    return isinstance(part, ow.Model | ow.Linear)


@pytest.mark.parametrize("name", SEVERAL)
def test_a_run_goes_on_from_a_file_to_the_bit_though_it_grew(name, tmp_path):
    """Saved in the middle of an episode."""
    runs = loop(name, cascade)
    runs.start()
    runs.advance(30)
    runs.grow()
    runs.advance(5)
    runs.save(tmp_path / "state.npz")
    runs.advance(30)
    other = loop(name, cascade)
    other.load(tmp_path / "state.npz")
    other.advance(30)
    same(runs.state, other.state)
    for optimiser in runs.state[1].optimiser:
        assert max(np.abs(a).max() for a in arrays(optimiser.second)) > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_of_several_streams_is_their_mean(name, key):
    """Each stream by itself learns what the other learner makes of it; all of them the mean."""
    count, sgd = 3, optax.sgd(1.0)
    many, one = online(name, sgd, streams=count), online(name, sgd)
    task = ow.Streams(TASK, count)
    world, model = task.init(key), make_model(name)(key)
    model = eqx.tree_at(lambda m: m.head.weight, model, 0.3 * jax.random.normal(key, model.head.weight.shape))

    @quick
    def together(world, state):
        world, example = task.emit(world)
        state, prediction = many.read(state, example.x, example.reset)
        state, action = many.choose(state, prediction)
        after, info = many.learn(state, example)
        return task.act(world, action), example, state, after, info

    alone = quick(one.learn)
    state = many.init(model, task.emit(world)[1], key=key)
    moved = 0
    for _ in range(9):
        world, example, read, state, info = together(world, state)
        assert info.action.shape == info.delta.shape == (count,)
        of = lambda tree, i: jax.tree.map(lambda a: a[i], tree)
        each = []
        for i in range(count):
            stream = read._replace(**{f: of(getattr(read, f), i) for f in ("carry", "credit", "objective")})
            each.append(alone(stream, of(example, i))[0].model)
        for all_, before, *parts in zip(*map(arrays, (state.model, read.model, *each)), strict=True):
            np.testing.assert_allclose(all_, np.mean(parts, 0), rtol=1e-5, atol=1e-7)
            moved += np.abs(all_ - before).max() > 0
    assert moved > 5


@pytest.mark.parametrize("name", ["QLambda", "ActorCritic"])
def test_a_watched_learner_acts_and_learns_as_it_would_alone(name):
    """And all cotangents of a step count as one gradient, compared with the exact one."""
    alone = online(name)
    watched = ow.Watched(alone, (ow.TBPTT(1),))
    runs = [loop(name, learner=learner) for learner in (alone, watched)]
    for run in runs:
        run.start()
        run.advance(30)
    for a, b in zip(*(arrays(run.state[1].model) for run in runs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    seen = runs[1].record(30)["alignment"]
    assert seen.shape == (2, 30, 3)
    there = seen[0, :, 2] > 0
    assert there.sum() > 10
    np.testing.assert_allclose(seen[0, there, :2], 1, rtol=1e-4)
    assert np.abs(seen[1, there, 0] - 1).max() > 1e-3


def test_several_cotangents_are_compared_as_one_gradient(key):
    """By hand, on the credit states of an actor-critic."""
    name = "ActorCritic"
    watched = ow.Watched(online(name), (ow.TBPTT(1),))
    task, model = TASK.init(key), make_model(name)(key)
    model = eqx.tree_at(lambda m: m.head.weight, model, jax.random.normal(key, model.head.weight.shape))
    state = watched.init(model, TASK.emit(task)[1], key=key)
    for _ in range(3):
        task, example = TASK.emit(task)
        state, prediction = watched.read(state, example.x, example.reset)
        state, action = watched.choose(state, prediction)
        before = state
        state, info = watched.learn(state, example)
        task = TASK.act(task, action)
    p = jax.nn.softmax(prediction[:2])
    entropy = -p * (jnp.log(p) - jnp.sum(p * jnp.log(p)))
    cotangents = [[0, 0, 1.0], [*(jnp.eye(2)[action] - p), 0.0], [*entropy, 0.0]]

    def all_together(rule, credit):
        _, back = before.model.answer(before.carry)
        pulled = [rule.pull(before.model.cell, credit, back(jnp.stack(c))[1]) for c in map(jnp.asarray, cotangents)]
        return np.concatenate([a.ravel() for a in arrays(pulled)])

    (exact, other) = (all_together(rule, before.credit[i]) for rule, i in ((ow.RTRL(), 1), (ow.TBPTT(1), 2)))
    sizes = np.linalg.norm(other), np.linalg.norm(exact)
    wanted = [other @ exact / np.prod(sizes), sizes[0] / sizes[1], 1]
    assert 0 < wanted[0] < 0.9999
    np.testing.assert_allclose(info.alignment[1], wanted, rtol=1e-4)


RULES = {
    "obgd": ow.obgd,
    "intentional": lambda: ow.intentional(0.9 * 0.8),
    "swift_td": lambda: ow.on_head(ow.swift_td(0.9, 0.8), cell=ow.rms()),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["QLambda", "ActorCritic"])
def test_step_size_rules_are_told(name, rule):
    runs = loop(name, learner=online(name, RULES[rule]()))
    runs.start()
    before = arrays(runs.state[1].model)
    runs.advance(60)
    assert not runs.broken().any()
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, arrays(runs.state[1].model), strict=True))


@pytest.mark.parametrize("name", TOLD)
def test_what_a_rule_is_told_makes_the_gradient(name):
    """A rule that adds delta times the eligibility descends the gradient, of each part with its own step size."""

    def update(gradient, state, parameters=None, *, delta, eligibility, step_size, **extra):
        return jax.tree.map(lambda e: delta * e, eligibility), step_size

    told = optax.GradientTransformationExtraArgs(lambda p: jnp.zeros(()), update)
    ends = [loop(name, learner=online(name, optimiser)) for optimiser in (told, optax.sgd(1.0))]
    for run in ends:
        run.start()
        run.advance(30)
    for a, b in zip(*(arrays(run.state[1].model) for run in ends), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    sizes = OBJECTIVES[name][0].step_sizes or (1.0,)
    np.testing.assert_allclose(
        np.stack(jax.tree.leaves(ends[0].state[1].optimiser)), 0.01 * np.outer(sizes, [1, 1]), rtol=1e-6
    )


# What is chosen.


@pytest.mark.parametrize("name", ["QLambda", "SarsaLambda", "QRC"])
def test_the_share_that_is_explored_follows_the_schedule(name, key):
    """Of three actions, two thirds of what is explored is not the best one; from step 50 on nothing is."""
    made = dataclasses.replace(OBJECTIVES[name][0], exploration=optax.piecewise_constant_schedule(0.6, {50: 0.0}))
    prediction = jnp.asarray([0.0, 2.0, 1.0, 5.0, -9.0, 7.0][: 6 if name == "QRC" else 3])
    state = made.init(ow.Model(columns(key), ow.Linear(2, len(prediction))))
    choose = jax.vmap(lambda k, t: made.choose(state, prediction, t, key=k)[1], in_axes=(0, None))
    actions = np.asarray(choose(jax.random.split(key, 6000), jnp.asarray(10)))
    shares = np.bincount(actions, minlength=3) / 6000
    np.testing.assert_allclose(shares, [0.2, 0.6, 0.2], atol=5 * np.sqrt(0.24 / 6000))
    assert np.array_equal(choose(jax.random.split(key, 50), jnp.asarray(51)), np.ones(50))


def test_equal_values_leave_the_first(key):
    made = ow.QLambda(exploration=0.0)
    state = made.init(ow.Model(columns(key), ow.Linear(2, 3)))
    assert made.choose(state, jnp.zeros(3), jnp.asarray(0), key=key)[1] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rate"), [("QRC", 5e-4), ("Reinforce", 3e-3)])
def test_more_of_them_remember(name, rate, compile_well):
    assert learned(name, rate, 50_000).min() > 0.9


@pytest.mark.parametrize(("name", "rate"), [("QLambda", 5e-4), ("ActorCritic", 3e-4)])
def test_a_bit_of_fifteen_steps_ago_is_remembered(name, rate, compile_well):
    """`MemoryChain(16)`, of which the best policy without memory gets 0, by 64 minGRU columns."""
    assert learned(name, rate, 20_000).min() > 0.9


class Mark(ow.AbstractEnvironment):
    """Put a number where a mark, -1 or 1, was shown at the start, five times: less the square of the distance."""

    @property
    def inputs(self):
        return 2

    @property
    def actions(self):
        return (1,)

    def begin(self, draw):
        return 2.0 * draw.integer(0, 1) - 1, jnp.zeros((), int)

    def move(self, world, action, draw):
        mark, time = world
        return (mark, time + 1), -jnp.square(jnp.clip(action[0], -3, 3) - mark), time == 4

    def observe(self, world):
        mark, time = world
        return jnp.stack([jnp.where(time == 0, mark, 0.0), 1.0])


def test_real_numbers_are_put_where_they_should_be(compile_well):
    """-4 is the best without memory: the first number alone can be right."""
    objective = ow.ActorCritic(0.9, 0.8, 0.01, 1.0, continuous=True)

    def model(key):
        cell = ow.Skip(ow.Columns(ow.MinGRUGates(), 2, 16, key=key, spread=1.0))
        return ow.Model(cell, ow.Linear(cell.feature_count, 3))

    learner = ow.Online(ow.Columnwise(), objective, ow.rms(0.9999), 3e-4)
    runs = ow.Loop(Mark(), model, learner, measure, seeds=range(2))
    runs.start()
    runs.advance(50_000)
    runs.means()
    runs.advance(10_000)
    assert runs.means()[0].min() > -0.5


def learned(name, rate, steps):
    """The mean return of the last tenth, of two runs."""
    explored = optax.linear_schedule(0.1, 0.01, steps // 2)
    objective = {
        "QLambda": ow.QLambda(0.999, 0.0, explored),
        "QRC": ow.QRC(0.999, 0.8, explored),
        "ActorCritic": ow.ActorCritic(0.999, 0.0, 0.01, 10 / 3),
        "Reinforce": ow.Reinforce(0.99),
    }[name]

    def cell(key):
        draw, start = jax.random.split(key)
        return ow.Skip(ow.chrono(ow.Columns(ow.MinGRUGates(), 3, 64, key=draw, spread=1.0), 1000, key=start))

    learner = ow.Online(ow.Columnwise(), objective, ow.rms(0.9999), rate)
    runs = loop(name, cell, ow.MemoryChain(16), learner)
    runs.start()
    runs.advance(steps * 9 // 10)
    runs.means()
    runs.advance(steps // 10)
    return runs.means()[0]
