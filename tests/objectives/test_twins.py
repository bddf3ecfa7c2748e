"""Tables that learn to act, against loops written by hand from the papers; and faults that these must see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from objectives.corridor import CHOICES, table, tabular
from onward.learners import online
from onward.objectives.traces import accumulated

DISCOUNT, DECAY = 0.9, 0.8
STEPS = 200
OBJECTIVES = {
    "QLambda": (ow.QLambda(DISCOUNT, DECAY, 0.3), CHOICES),
    "SarsaLambda": (ow.SarsaLambda(DISCOUNT, DECAY, 0.3), CHOICES),
    "QRC": (ow.QRC(DISCOUNT, DECAY, 0.3, 0.5, 0.4), 2 * CHOICES),
    "ActorCritic": (ow.ActorCritic(DISCOUNT, DECAY, 0.2, 1.5), CHOICES + 1),
    "ActorCritic-plain": (ow.ActorCritic(DISCOUNT, DECAY, 0.0, 1.5), CHOICES + 1),
    "ActorCritic-gaussian": (ow.ActorCritic(DISCOUNT, DECAY, 0.2, 1.5, continuous=True), 5),
    "Reinforce": (ow.Reinforce(DISCOUNT), CHOICES),
    "Reinforce-gaussian": (ow.Reinforce(DISCOUNT, continuous=True), 4),
}


def size_of(name):
    """Steps that let a Gaussian grow wild would blow up what rounding leaves between two programs."""
    return 0.01 if name.endswith("gaussian") else 0.1


# By hand: predictions are rows of a matrix w of (numbers, sights and 1).


def with_one(seen):
    return np.concatenate([np.asarray(seen.x, np.float64), np.ones((len(seen.x), 1))], 1)


def matrix(head):
    return np.concatenate([head.weight, head.bias[..., None]], -1)


def unit(i, n):
    return np.eye(n)[i]


def softmax(a):
    p = np.exp(a - a.max())
    return p / p.sum()


def of_log_prob(policy, action, continuous):
    """d log pi(action) / d policy."""
    if not continuous:
        return unit(action, len(policy)) - softmax(policy)
    mean, raw = np.split(policy, 2)
    log_deviation, slope = 4 * np.tanh(raw / 4), 1 - np.tanh(raw / 4) ** 2
    z = (action - mean) / np.exp(log_deviation)
    return np.concatenate([z / np.exp(log_deviation), (z * z - 1) * slope])


def of_entropy(policy, continuous):
    """dH / d policy."""
    if not continuous:
        p = softmax(policy)
        return -p * (np.log(p) + -np.sum(p * np.log(p)))
    _, raw = np.split(policy, 2)
    return np.concatenate([np.zeros_like(raw), 1 - np.tanh(raw / 4) ** 2])


class Twin:
    """One transition after another: (sight, action, reward, next sight), with what was predicted at each sight."""

    def __init__(self, objective, w, size):
        self.o, self.w, self.size = objective, np.array(w), size
        self.traces = {}

    def episode(self):
        self.traces = {}

    def add(self, name, decay, more):
        self.traces[name] = decay * self.traces.get(name, 0.0) + more
        return self.traces[name]


class QTwin(Twin):
    def transition(self, x, q, a, r, gamma, x_next, q_next, a_next):
        # Decays by the discount that led here; the first step of an episode has nothing to decay.
        greedy = q[a] == q.max() or isinstance(self.o, ow.SarsaLambda)
        z = self.add("z", self.arrived * self.o.trace_decay * greedy, np.outer(unit(a, CHOICES), x))
        ahead = q_next[a_next] if isinstance(self.o, ow.SarsaLambda) else q_next.max()
        self.w += self.size * (r + gamma * ahead - q[a]) * z
        self.arrived = gamma


class QRCTwin(Twin):
    def transition(self, x, p, a, r, gamma, x_next, p_next, a_next):
        (q, h), q_next = np.split(p, 2), p_next[:CHOICES]
        fade = self.arrived * self.o.trace_decay * (q[a] == q.max())
        grad_q = np.outer(unit(a, 2 * CHOICES), x)
        grad_h = np.outer(unit(CHOICES + a, 2 * CHOICES), x)
        z_q, z_h, e_h = self.add("q", fade, grad_q), self.add("h", fade, grad_h), self.add("e", fade, h[a])
        delta = r + gamma * q_next.max() - q[a]
        grad_delta = gamma * np.outer(unit(q_next.argmax(), 2 * CHOICES), x_next) - grad_q
        of_h = np.concatenate([np.zeros_like(self.w[:CHOICES]), self.w[CHOICES:]])
        dw = delta * z_q - h[a] * grad_q - e_h * grad_delta
        dh = delta * z_h - h[a] * grad_h - self.o.regularisation * of_h
        self.w = self.w + self.size * dw + self.size * self.o.h_step_size * dh
        self.arrived = gamma


class ActorCriticTwin(Twin):
    def transition(self, x, p, a, r, gamma, x_next, p_next, a_next):
        n, fade = len(p), self.arrived * self.o.trace_decay
        delta = r + gamma * p_next[-1] - p[-1]
        policy = of_log_prob(p[:-1], a, self.o.continuous)
        policy = policy + self.o.entropy * np.sign(delta) * of_entropy(p[:-1], self.o.continuous)
        z_v = self.add("v", fade, np.outer(unit(n - 1, n), x))
        z_p = self.add("p", fade, np.outer(np.append(policy, 0), x))
        self.w = self.w + self.size * delta * z_v + self.size * self.o.actor_step_size * delta * z_p
        self.arrived = gamma


class ReinforceTwin(Twin):
    def transition(self, x, p, a, r, gamma, x_next, p_next, a_next):
        self.w = self.w + self.size * r * self.add("z", self.arrived, np.outer(of_log_prob(p, a, self.o.continuous), x))
        self.arrived = gamma


def twin_of(name, w):
    kinds = {"QRC": QRCTwin, "ActorCritic": ActorCriticTwin, "Reinforce": ReinforceTwin}
    return kinds.get(name.split("-")[0], QTwin)(OBJECTIVES[name][0], w, size_of(name))


def apart_from_twin(name, seen):
    """The largest difference between a record's weights and those of the twin, over all steps."""
    start = table(OBJECTIVES[name][1]).head
    twin, xs, worst = twin_of(name, matrix(start)), with_one(seen), 0.0
    said = []
    for t in range(len(xs)):
        # What is said at a sight is said by the weights of then, before the transition that led here was learned from.
        said.append(twin.w @ xs[t])
        if seen.reset[t]:
            twin.episode()
            twin.arrived = 0.0
        else:
            gamma = DISCOUNT * seen.discount[t]
            args = (xs[t - 1], said[t - 1], seen.action[t - 1], seen.y[t], gamma, xs[t], said[t], seen.action[t])
            twin.transition(*args)
        worst = max(worst, np.abs(twin.w - matrix(jax.tree.map(lambda a, t=t: a[t], seen.head))).max())
    return worst


RECORDS = {}


def record(name):
    if name not in RECORDS:
        objective, outputs = OBJECTIVES[name]
        RECORDS[name] = tabular(objective, outputs, step_size=size_of(name), steps=STEPS)
    return RECORDS[name]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_table_learns_as_the_twin_does(name):
    """200 steps with ends, truncations and explored actions."""
    seen = record(name)
    ends, starts = seen.discount == 0, np.flatnonzero(seen.reset[1:]) + 1
    assert ends.sum() > 5
    assert (seen.discount[starts - 1] == 1).sum() > 5, "no episode was cut short"
    if hasattr(OBJECTIVES[name][0], "exploration"):
        q = seen.prediction[:, :CHOICES]
        explored = q[np.arange(STEPS), seen.action] < q.max(1)
        assert explored.sum() > 10
    assert np.abs(matrix(seen.head)[-1] - matrix(table(OBJECTIVES[name][1]).head)).max() > 0.04, "nothing was learned"
    assert apart_from_twin(name, seen) < 1e-12


def junk_at_starts(learner, state, example):
    return learner.step(state, example._replace(y=jnp.where(example.reset, 5.0, example.y)))


@pytest.mark.parametrize("name", [n for n in OBJECTIVES if "-" not in n])
def test_a_reward_that_comes_with_a_start_is_nobodys(name):
    objective, outputs = OBJECTIVES[name]
    seen = tabular(objective, outputs, step_size=size_of(name), steps=STEPS, step=junk_at_starts)
    assert not seen.delta[seen.reset].any()
    assert not seen.loss[seen.reset].any()
    np.testing.assert_array_equal(matrix(seen.head), matrix(record(name).head))


def test_actor_and_critic_have_an_optimiser_each():
    """RMSProp of each gradient by itself, against one written by hand on the gradients of the record."""
    objective, outputs = OBJECTIVES["ActorCritic"]
    seen = tabular(objective, outputs, optimiser=ow.rms(0.9), step_size=0.01, steps=60)
    before = matrix(table(outputs).head)
    critic, actor = eligibilities("ActorCritic", seen)
    second, old = np.zeros((2, *before.shape)), np.zeros((2, *before.shape))
    last_entropy = 0.0
    for t in range(60):
        if seen.reset[t]:
            old[:] = 0
        signed = old[1] + 0.2 * np.sign(seen.delta[t]) * (0 if seen.reset[t] else last_entropy)
        g = seen.delta[t] * np.stack([old[0], signed])
        second = 0.9 * second + 0.1 * g**2
        moves = g / np.sqrt(second / (1 - 0.9 ** (t + 1)) + 1e-16)
        before = before + 0.01 * (moves[0] + 1.5 * moves[1])
        np.testing.assert_allclose(matrix(seen.head)[t], before, rtol=0, atol=1e-12)
        old = np.stack([critic[t], actor[t]])
        x = np.append(np.asarray(seen.x[t], np.float64), 1)
        last_entropy = np.outer(np.append(of_entropy(seen.prediction[t, :-1], False), 0), x)


# The eligibility as a list of all that was seen and done, each with the product of its decays.


def eligibilities(name, seen):
    """By the list: of each part of the state its value after every step, (parts, time, numbers, sights and 1)."""
    objective, xs = OBJECTIVES[name][0], with_one(seen)
    predictions = seen.prediction.astype(np.float64)
    outputs, decay = predictions.shape[1], getattr(objective, "trace_decay", 1.0)
    kind = name.split("-")[0]
    done = []
    for t in range(len(xs)):
        p, a, x = predictions[t], seen.action[t], xs[t]
        if kind == "ActorCritic":
            sign = np.sign(seen.delta[t + 1]) if t + 1 < len(xs) else 0.0
            late = objective.entropy * sign * of_entropy(p[:-1], objective.continuous)
            parts = [unit(outputs - 1, outputs), np.append(of_log_prob(p[:-1], a, objective.continuous), 0)]
            done.append(([np.outer(g, x) for g in parts], np.outer(np.append(late, 0), x)))
        elif kind == "Reinforce":
            done.append(([np.outer(of_log_prob(p, a, objective.continuous), x)], 0.0))
        elif kind == "QRC":
            h = p[CHOICES + a]
            done.append(([np.outer(unit(a, outputs), x), np.outer(unit(CHOICES + a, outputs), x), h], 0.0))
        else:
            done.append(([np.outer(unit(a, outputs), x)], 0.0))

    def kept(s, t):
        """The share of what was done at s that counts after step t."""
        share = 1.0
        for u in range(s + 1, t + 1):
            cut = kind in ("QLambda", "QRC") and predictions[u, seen.action[u]] < predictions[u, :CHOICES].max()
            share *= 0.0 if seen.reset[u] or cut else DISCOUNT * seen.discount[u] * decay
        return share

    found = []
    for t in range(len(xs)):
        shares = [(s, share) for s in range(max(0, t - 12), t + 1) if (share := kept(s, t))]
        assert not kept(max(0, t - 13), t) or t < 13, "an episode is longer than the list"
        parts = [sum(share * done[s][0][i] for s, share in shares) for i in range(len(done[0][0]))]
        # The entropy of a step counts from the next one on.
        parts[-1] = parts[-1] + sum((share * done[s][1] for s, share in shares if s < t), 0.0)
        found.append(parts)
    return [np.stack([f[i] for f in found]) for i in range(len(found[0]))]


def in_state(name, seen):
    """The same from the record."""
    state = seen.objective
    names = {"QRC": ("z_q", "z_h", "e_h"), "ActorCritic": ("critic", "actor")}.get(name.split("-")[0], ("eligibility",))
    parts = [getattr(state, n) for n in names]
    heads = [getattr(part, "head", part) for part in parts]
    return [matrix(h) if hasattr(h, "weight") else h for h in heads]


def apart_from_list(name, seen):
    pairs = zip(eligibilities(name, seen), in_state(name, seen), strict=True)
    return max(np.abs(a - b).max() for a, b in pairs)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_eligible_is_what_was_done(name):
    assert apart_from_list(name, record(name)) < 1e-12


# Planted faults.


class LastRewardLost(ow.QLambda):
    def step(self, state, model, prediction, example, pull):
        kept = example._replace(y=jnp.where(example.discount == 0, 0.0, example.y))
        return super().step(state, model, prediction, kept, pull)


class NoEnds(ow.QLambda):
    """What follows an end counts as if the episode went on."""

    def step(self, state, model, prediction, example, pull):
        return super().step(state, model, prediction, example._replace(discount=None), pull)


class CutAfterAdding(ow.QLambda):
    """As in the published code of QRC(lambda): what is explored counts for all before it, and not for itself."""

    def step(self, state, model, prediction, example, pull):
        on = ow.SarsaLambda(self.discount, self.trace_decay, self.exploration)
        _, gradient, *_ = found = super().step(state, model, prediction, example, pull)
        after, *_ = on.step(state, model, prediction, example, pull)
        greedy = prediction[state.action] >= jnp.max(prediction)
        after = after._replace(eligibility=jax.tree.map(lambda e: greedy * e, after.eligibility))
        return after, gradient, *found[2:]


class NoCut(ow.QLambda):
    def step(self, state, model, prediction, example, pull):
        on = ow.SarsaLambda(self.discount, self.trace_decay, self.exploration)
        after, *_ = on.step(state, model, prediction, example, pull)
        return after, *super().step(state, model, prediction, example, pull)[1:]


class WrongSign(ow.ActorCritic):
    def _signed(self, state, error):
        return super()._signed(state, -error)


class EarlySign(ow.ActorCritic):
    """The entropy of this step by the sign of the error of this step, which belongs to the last one."""

    def _signed(self, state, error):
        return state.critic, state.actor

    def step(self, state, model, prediction, example, pull):
        after, *rest = super().step(state, model, prediction, example, pull)
        sign = self.entropy * jnp.sign(rest[-1].delta)
        return after._replace(actor=accumulated(after.entropy, sign, after.actor)), *rest


class NoCorrection(ow.QRC):
    """grad delta without what is ahead."""

    def step(self, state, model, prediction, example, pull):
        blind = lambda cotangent: pull(jnp.where(cotangent[jnp.argmax(prediction[:CHOICES])] > 0, 0.0, cotangent))
        _, gradient, *rest = super().step(state, model, prediction, example, blind)
        after, *_ = super().step(state, model, prediction, example, pull)
        return after, gradient, *rest


def learns_before_it_chooses(learner, state, example):
    """So that it learns of the action of the step before."""
    state, prediction = learner.read(state, example.x, example.reset)
    state, info = learner.learn(state, example)
    state, action = learner.choose(state, prediction)
    return state, info._replace(action=action)


FAULTS = {
    "the last reward is lost": ("QLambda", LastRewardLost, {}),
    "an end is none": ("QLambda", NoEnds, {}),
    "cut after adding": ("QLambda", CutAfterAdding, {}),
    "no cut": ("QLambda", NoCut, {}),
    "the action of another step, Q": ("QLambda", ow.QLambda, {"step": learns_before_it_chooses}),
    "the action of another step, Sarsa": ("SarsaLambda", ow.SarsaLambda, {"step": learns_before_it_chooses}),
    "the action of another step, actor": ("ActorCritic", ow.ActorCritic, {"step": learns_before_it_chooses}),
    "the action of another step, QRC": ("QRC", ow.QRC, {"step": learns_before_it_chooses}),
    "the action of another step, Reinforce": ("Reinforce", ow.Reinforce, {"step": learns_before_it_chooses}),
    "entropy pushed together": ("ActorCritic", WrongSign, {}),
    "entropy by an early sign": ("ActorCritic", EarlySign, {}),
    "no gradient ahead": ("QRC", NoCorrection, {}),
}


def planted(fault):
    """The name of the objective, and the record of a table that learns by it with the fault."""
    name, kind, options = FAULTS[fault]
    right, outputs = OBJECTIVES[name]
    wrong = kind(**{field: getattr(right, field) for field in type(right).__dataclass_fields__})
    return name, tabular(wrong, outputs, step_size=size_of(name), steps=STEPS, **options)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(fault):
    name, seen = planted(fault)
    assert apart_from_twin(name, seen) > 1e-3
    of_weights_alone = ("the last reward is lost", "no gradient ahead")
    if fault not in of_weights_alone:
        assert apart_from_list(name, seen) > 1e-3


@pytest.mark.parametrize("name", [n for n in OBJECTIVES if "-" not in n])
def test_what_is_kept_over_a_start_is_seen(name, monkeypatch):
    """A learner that forgets, where an episode starts, to clear what the objective knows."""
    right = online.select
    keeps = lambda reset, fresh, old: (*right(reset, fresh[:2], old[:2]), old[2])
    monkeypatch.setattr(online, "select", keeps)
    objective, outputs = OBJECTIVES[name]
    # Another step size is another program: the one without the fault may be compiled already.
    seen = tabular(objective, outputs, step_size=size_of(name), steps=STEPS - 1)
    assert apart_from_twin(name, seen) > 1e-3
    assert apart_from_list(name, seen) > 1e-3
