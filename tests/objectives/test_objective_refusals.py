"""What objectives that act, their learners and their tasks do not take."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from objectives.corridor import Corridor
from onward.verify.gradients import quick

KEY = jax.random.key(3)
CELL = ow.Columns(ow.MinGRUGates(), 3, 2, key=KEY, spread=0.5)
EXAMPLE = ow.Step(jnp.ones(3), jnp.ones(()), discount=1.0)


def start(objective, head, credit=None):
    learner = ow.Online(credit or ow.Columnwise(), objective, optax.sgd(0.1))
    return learner.init(ow.Model(CELL, head), EXAMPLE, key=KEY)


OUT_OF_RANGE = {
    "discount of 1": (lambda: ow.QLambda(1.0), r"QLambda: discount must be in \[0, 1\), got 1.0"),
    "negative discount": (lambda: ow.SarsaLambda(-0.1), r"SarsaLambda: discount must be in \[0, 1\), got -0.1"),
    "discount that is NaN": (lambda: ow.Reinforce(float("nan")), r"Reinforce: discount must be in \[0, 1\), got nan"),
    "lambda": (lambda: ow.ActorCritic(0.9, 1.1), r"ActorCritic: trace_decay must be in \[0, 1\], got 1.1"),
    "lambda of QRC": (lambda: ow.QRC(0.9, -1), r"QRC: trace_decay must be in \[0, 1\], got -1"),
    "exploration": (lambda: ow.QLambda(exploration=1.5), r"QLambda: exploration must be in \[0, 1\] or a function"),
    "exploration of QRC": (lambda: ow.QRC(exploration=-0.1), r"QRC: exploration must be in \[0, 1\] or a function"),
    "regularisation": (lambda: ow.QRC(regularisation=-1.0), "QRC: regularisation must be at least 0, got -1.0"),
    "step size of h": (lambda: ow.QRC(h_step_size=0.0), "QRC: h_step_size must be positive, got 0.0"),
    "entropy": (lambda: ow.ActorCritic(entropy=-0.1), "ActorCritic: entropy must be at least 0, got -0.1"),
    "step size": (lambda: ow.ActorCritic(actor_step_size=0), "ActorCritic: actor_step_size must be positive, got 0"),
}


@pytest.mark.parametrize("case", OUT_OF_RANGE)
def test_numbers_out_of_range(case):
    make, said = OUT_OF_RANGE[case]
    with pytest.raises(ValueError, match=said):
        make()


WRONG_HEADS = {
    "scalar": (ow.QLambda(), ow.Linear(2), r"QLambda needs a value for each of two actions or more, .* shape \(\)"),
    "one action": (ow.SarsaLambda(), ow.Linear(2, 1), r"SarsaLambda needs a value .* shape \(1,\); use Linear"),
    "QRC, odd": (ow.QRC(), ow.Linear(2, 5), r"QRC needs 2 numbers for each .* shape \(5,\); use .*2 \* actions"),
    "QRC, h alone": (ow.QRC(), ow.Linear(2, 2), r"QRC needs 2 numbers for each of two actions or more"),
    "no value": (ow.ActorCritic(), ow.Linear(2, 2), r"ActorCritic needs a logit .*, and a value, .*actions \+ 1\)"),
    "real, even": (
        ow.ActorCritic(continuous=True),
        ow.Linear(2, 4),
        r"ActorCritic needs mean and log deviation of each .*, and a value, .*2 \* actions \+ 1\)",
    ),
    "real, odd": (ow.Reinforce(continuous=True), ow.Linear(2, 3), r"Reinforce needs mean and log deviation"),
    "Reinforce, scalar": (ow.Reinforce(), ow.Linear(2), r"Reinforce needs a logit .* shape \(\); use Linear"),
}


@pytest.mark.parametrize("case", WRONG_HEADS)
def test_heads_of_another_size(case):
    """At `Online.init`, and where a loop asks for the actions."""
    objective, head, said = WRONG_HEADS[case]
    with pytest.raises(ValueError, match=said):
        start(objective, head)
    with pytest.raises(ValueError, match=said):
        ow.Online(ow.Columnwise(), objective, ow.rms()).actions(ow.Model(CELL, head))


def test_h_has_weights_of_its_own():
    with pytest.raises(TypeError, match="QRC: h has weights of its own in a Linear head, got MLP"):
        start(ow.QRC(), ow.MLP(ow.Linear(5, 4), 2, 5, key=KEY))


def test_rules_that_are_told_one_eligibility_refuse_a_correction():
    with pytest.raises(
        TypeError, match=r"QRC has no delta and eligibility, which this optimiser wants; use TDLambda, .*QL"
    ):
        ow.Online(ow.Columnwise(), ow.QRC(), ow.obgd()).init(ow.Model(CELL, ow.Linear(2, 4)), EXAMPLE, key=KEY)


@pytest.mark.parametrize(
    "objective",
    [ow.QLambda(), ow.SarsaLambda(), ow.QRC(), ow.ActorCritic(), ow.Reinforce()],
    ids=lambda o: type(o).__name__,
)
def test_targets_that_come_late_are_not_theirs(objective):
    name = type(objective).__name__
    with pytest.raises(TypeError, match=f"Late: only targets of Supervised can come late, not those of {name}"):
        ow.Late(ow.Online(ow.Columnwise(), objective, optax.sgd(0.1)), 2)


MISMATCHED = {
    "real actions for values": (
        Corridor(continuous=True),
        ow.QLambda(),
        3,
        r"Corridor takes actions that are real numbers of shape \(2,\), and .* chooses from 3 actions",
    ),
    "choices for a Gaussian": (
        ow.MemoryChain(3),
        ow.ActorCritic(continuous=True),
        5,
        r"MemoryChain takes 2 actions, and .* chooses from actions that are real numbers of shape \(2,\)",
    ),
    "too many": (ow.MemoryChain(3), ow.QLambda(), 3, "MemoryChain takes 2 actions, .* chooses from 3 actions"),
    "a task that goes its way": (ow.AnBn(), ow.QLambda(), 2, "AnBn takes no actions, .* chooses from 2 actions"),
    "a learner that watches": (ow.MemoryChain(3), ow.TDLambda(), None, "MemoryChain takes 2 actions, .* no actions"),
}


@pytest.mark.parametrize("case", MISMATCHED)
def test_learners_and_tasks_that_do_not_fit(case):
    task, objective, outputs, said = MISMATCHED[case]
    learner = ow.Online(ow.Columnwise(), objective, ow.rms())
    model = lambda key: ow.Model(CELL, ow.Linear(2, outputs))
    for made in (learner, ow.Watched(learner, ())):
        loop = ow.Loop(task, model, made, lambda e, i: (i.loss, e.weight))
        with pytest.raises(TypeError, match=said):
            loop.start()


BAD_ACTIONS = {
    "too large": (ow.MemoryChain(3), 2, ValueError, "MemoryChain: an action is a whole number from 0 to 1, got 2"),
    "negative": (ow.MemoryChain(3), -1, ValueError, "from 0 to 1, got -1"),
    "a real number": (ow.MemoryChain(3), 1.0, TypeError, r"from 0 to 1, got an array of shape \(\) of type float"),
    "a bool": (ow.MemoryChain(3), True, TypeError, "from 0 to 1, got an array of shape .* of type bool"),
    "several": (ow.MemoryChain(3), np.array([0, 1]), TypeError, r"got an array of shape \(2,\)"),
    "another shape": (
        Corridor(True),
        np.zeros(3),
        TypeError,
        r"Corridor: an action is real numbers of shape \(2,\), got",
    ),
    "a choice": (Corridor(True), 1, TypeError, r"real numbers of shape \(2,\), got an array of shape \(\) of type int"),
    "NaN": (Corridor(True), np.array([0, np.nan]), ValueError, r"real numbers of shape \(2,\), got \[ ?0. nan\]"),
}


@pytest.mark.parametrize("case", BAD_ACTIONS)
def test_actions_that_there_are_not(case):
    task, action, error, said = BAD_ACTIONS[case]
    state, _ = task.emit(task.init(KEY))
    with pytest.raises(error, match=said):
        task.act(state, action)
    if error is TypeError:  # in a compiled program too
        with pytest.raises(error, match=said):
            quick(lambda s, a: task.act(s, a))(state, jnp.asarray(action))


class Broken(Corridor):
    """A reward that is NaN, now and then."""

    def move(self, place, action, draw):
        place, reward, end = super().move(place, action, draw)
        return place, jnp.where(draw.uniform(7) < 0.1, jnp.nan, reward), end


@pytest.mark.parametrize(
    ("objective", "outputs"),
    [(ow.QLambda(), 3), (ow.SarsaLambda(), 3), (ow.QRC(), 6), (ow.ActorCritic(), 4), (ow.Reinforce(), 3)],
    ids=lambda o: type(o).__name__,
)
def test_a_reward_that_is_nan_shows_in_the_loss_of_its_step(objective, outputs):
    """As a target does elsewhere: nobody can take the weights for good, and a run ends with `NotFinite`."""
    learner = ow.Online(ow.Columnwise(), objective, ow.rms())
    model = lambda key: ow.Model(CELL, ow.Linear(2, outputs))
    runs = ow.Loop(Broken(), model, learner, lambda e, i: (i.loss, e.weight))
    runs.start()
    seen = runs.record(60)
    first = np.flatnonzero(~np.isfinite(seen["y"]) & ~seen["reset"])[0]
    assert np.isfinite(seen["loss"][:first]).all()
    assert not np.isfinite(seen["loss"][first])
    runs.advance(60)
    assert runs.broken(state=False).all()
    assert runs.broken().all()
    assert runs.not_finite().startswith("model.")
