"""With lambda = 1 and weights that stand still, what is descended is the Monte-Carlo gradient, by BPTT."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from objectives.corridor import CHOICES, SIGHTS, follow
from onward.objectives import policies
from onward.verify import in_float64
from onward.verify.gradients import quick

DISCOUNT, ENTROPY = 0.9, 0.2
STEPS = 80
SUM = optax.GradientTransformation(
    lambda parameters: jax.tree.map(jnp.zeros_like, parameters),
    lambda gradient, total, _=None: (
        jax.tree.map(jnp.zeros_like, gradient),
        jax.tree.map(jnp.add, total, gradient),
    ),
)
OBJECTIVES = {
    "QLambda": (ow.QLambda(DISCOUNT, 1.0, 0.0), CHOICES),
    "SarsaLambda": (ow.SarsaLambda(DISCOUNT, 1.0, 0.5), CHOICES),
    "ActorCritic": (ow.ActorCritic(DISCOUNT, 1.0, ENTROPY, 1.5), CHOICES + 1),
    "ActorCritic-gaussian": (ow.ActorCritic(DISCOUNT, 1.0, ENTROPY, 1.5, continuous=True), 5),
    "Reinforce": (ow.Reinforce(DISCOUNT), CHOICES),
    "Reinforce-gaussian": (ow.Reinforce(DISCOUNT, continuous=True), 4),
}
CELLS = {
    "columns": (lambda k: ow.Columns(ow.LSTMGates(), SIGHTS, 3, key=k, spread=1.0), ow.Columnwise()),
    "dense": (lambda k: ow.GRU(SIGHTS, 3, key=k), ow.RTRL()),
}


def network(cell, outputs):
    with jax.enable_x64(True):
        made = in_float64(CELLS[cell][0](jax.random.key(1)))
        head = in_float64(ow.Linear(made.feature_count, outputs))
        weight = 0.7 * np.random.default_rng(2).normal(size=head.weight.shape)
        # Greedy choices should lead somewhere: right is good.
        arrays = (jnp.asarray(weight), jnp.linspace(-0.5, 0.5, outputs))
        return ow.Model(made, eqx.tree_at(lambda h: (h.weight, h.bias), head, arrays))


def summed(name, cell, **options):
    """Per gradient the sum over all steps, and the record."""
    objective, outputs = OBJECTIVES[name]
    learner = ow.Online(CELLS[cell][1], objective, SUM)
    state, seen = follow(learner, network(cell, outputs), steps=STEPS, **options)
    return (state.optimiser if objective.step_sizes else (state.optimiser,)), seen


def returns(seen, ahead):
    """Of each step the discounted rewards that follow, and `ahead` of the step where its episode was cut short.

    And which steps are not the last of their episode.
    """
    total, goes_on = np.zeros(STEPS), np.zeros(STEPS, bool)
    for t in range(STEPS - 2, -1, -1):
        goes_on[t] = not seen.reset[t + 1]
        if goes_on[t]:
            after = total[t + 1] if goes_on[t + 1] else ahead[t + 1]
            total[t] = seen.y[t + 1] + DISCOUNT * seen.discount[t + 1] * after
    return total, goes_on


@quick
def by_bptt(model, xs, resets, actions, weights, parts):
    """The gradients of sum_t weights[i, t] parts[i](prediction_t, action_t), by BPTT."""
    parameters, rest = eqx.partition(model, model.trainable())

    def value(parameters, part, weights):
        net = eqx.combine(parameters, rest)

        def step(carry, instant):
            x, reset = instant
            hidden = jax.tree.map(lambda a, b: jnp.where(reset, a, b), net.init().hidden, carry.hidden)
            carry, prediction = net(ow.Carry(hidden, carry.stats), x)
            return carry, prediction

        _, predictions = jax.lax.scan(step, net.init(), (xs, resets))
        return jnp.sum(weights * jax.vmap(part)(predictions, actions))

    return [jax.grad(value)(parameters, part, w) for part, w in zip(parts, weights, strict=True)]


chosen = lambda p, a: p[a]
value = lambda p, a: p[-1]


def monte_carlo(name, cell, seen):
    """What the sums should be."""
    objective, outputs = OBJECTIVES[name]
    continuous, p, at = getattr(objective, "continuous", False), seen.prediction, np.arange(STEPS)
    if name.startswith("Reinforce"):
        total, counts = returns(seen, np.zeros(STEPS))
        parts, weights = [lambda p, a: policies.log_prob(p, a, continuous)], [counts * total]
    elif name.startswith("ActorCritic"):
        total, counts = returns(seen, p[:, -1])
        error = counts * (total - p[:, -1])
        sign = np.append(np.sign(seen.delta[1:]), 0)
        log_prob = lambda p, a: policies.log_prob(p[:-1], a, continuous)
        entropy = lambda p, a: policies.entropy(p[:-1], continuous)
        parts, weights = [value, log_prob, entropy], [error, error, ENTROPY * sign * error]
    else:
        said = p[at, seen.action]
        total, counts = returns(seen, said)
        parts, weights = [chosen], [counts * (total - said)]
    with jax.enable_x64(True):
        found = by_bptt(network(cell, outputs), seen.x, seen.reset, seen.action, weights, parts)
        found = [jax.tree.map(lambda g: -np.asarray(g), g) for g in found]
    return found if len(found) < 3 else [found[0], jax.tree.map(np.add, found[1], found[2])]


def apart(sums, reference):
    """The largest difference, as a share of the largest number of its array."""
    pairs = zip(jax.tree.leaves(sums), jax.tree.leaves(reference), strict=True)
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)


@pytest.mark.parametrize(
    ("name", "cell"), [(n, c) for n in OBJECTIVES for c in CELLS if c == "columns" or "gaussian" not in n]
)
def test_lambda_1_is_monte_carlo(name, cell):
    sums, seen = summed(name, cell)
    assert (seen.discount == 0).sum() >= 1
    assert seen.reset.sum() > 8
    assert apart(list(sums), monte_carlo(name, cell, seen)) < 1e-9


class LastRewardLost(ow.ActorCritic):
    def step(self, state, model, prediction, example, pull):
        kept = example._replace(y=jnp.where(example.discount == 0, 0.0, example.y))
        return super().step(state, model, prediction, kept, pull)


class NoReturn(ow.Reinforce):
    """The reward for the last action alone."""

    def step(self, state, model, prediction, example, pull):
        return super().step(state, model, prediction, example._replace(discount=0.0), pull)


@pytest.mark.parametrize(("name", "wrong"), [("ActorCritic", LastRewardLost), ("Reinforce", NoReturn)])
def test_faults_are_seen(name, wrong, monkeypatch):
    right, outputs = OBJECTIVES[name]
    fields = {field: getattr(right, field) for field in type(right).__dataclass_fields__}
    monkeypatch.setitem(OBJECTIVES, name, (wrong(**fields), outputs))
    sums, seen = summed(name, "columns")
    monkeypatch.undo()
    assert apart(list(sums), monte_carlo(name, "columns", seen)) > 1e-2
