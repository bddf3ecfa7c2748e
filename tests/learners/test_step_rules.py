"""Step-size rules against loops over single numbers, written from the papers' equations."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow

SHAPES = {"a": (3,), "b": ()}


def drawn(steps, seed=0):
    """Errors and eligibilities of a stream: each leaf with a leading axis of time."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=steps), {name: rng.normal(size=(steps, *shape)) for name, shape in SHAPES.items()}


def run(rule, delta, z, **extra):
    """The updates of a rule along a stream, one vector a step."""
    with jax.enable_x64(True):
        zero = {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
        state, found = rule.init(zero), []
        step = jax.jit(lambda g, s, d, e: rule.update(g, s, zero, delta=d, eligibility=e, **extra))
        for t, d in enumerate(delta):
            e = {name: jnp.asarray(a[t]) for name, a in z.items()}
            gradient = jax.tree.map(lambda a, d=d: -d * a, e)
            updates, state = step(gradient, state, jnp.asarray(d), e)
            found.append(flat(updates))
        return np.stack(found)


def flat(tree):
    return np.concatenate([np.ravel(tree[name]) for name in SHAPES])


def rows(z):
    return np.concatenate([a.reshape(len(a), -1) for a in z.values()], 1)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("step_size", [0.01, 1.0])
def test_obgd(adaptive, step_size):
    delta, z = drawn(30)
    delta[7] = 40.0
    found = run(ow.obgd(2.0, adaptive=adaptive, decay=0.9), delta, z, step_size=step_size)
    second = 0
    for t, (d, e) in enumerate(zip(delta, rows(z), strict=True)):
        if adaptive:
            second = 0.9 * second + 0.1 * (d * e) ** 2
            e = e / np.sqrt(second / (1 - 0.9 ** (t + 1)) + 1e-8)
        bound = max(abs(d), 1) * sum(abs(e)) * step_size * 2.0
        np.testing.assert_allclose(
            step_size * found[t], (step_size / bound if bound > 1 else step_size) * d * e, rtol=1e-9
        )


def test_obgd_bounds_how_far_a_prediction_moves():
    """A linear prediction moves by at most delta times the largest entry of the eligibility, whatever the step size."""
    delta, z = drawn(200)
    found = run(ow.obgd(1.0), 30 * delta, z, step_size=1e6)
    moved = 1e6 * np.sum(found * rows(z), 1)
    assert np.all(np.abs(moved) <= np.abs(30 * delta) * (1 + 1e-9) * np.abs(rows(z)).max(1))


@pytest.mark.parametrize("of", ["eligibility", "gradient"])
@pytest.mark.parametrize("trace_decay", [0.0, 0.8])
def test_intentional(of, trace_decay):
    delta, z = drawn(30)
    delta[20] = 1e4
    found = run(ow.intentional(trace_decay, of=of, decay=0.9, error_decay=0.95, cut=3.0), delta, z)
    v = s = q = 0
    last = np.zeros(4)
    for t, (d, e) in enumerate(zip(delta, rows(z), strict=True), 1):
        g, last = e - trace_decay * last, e
        v = 0.9 * v + 0.1 * (e if of == "eligibility" else g) ** 2
        metric = np.sqrt(v / (1 - 0.9**t)) + 1e-8
        s = trace_decay * s + (1 - trace_decay) * sum(g**2 / metric)
        q = 0.95 * q + 0.05 * d**2
        limit = 3 * np.sqrt(q / (1 - 0.95**t))
        step = 1 / np.sqrt(s / (1 - trace_decay**t) * sum(e**2 / metric))
        np.testing.assert_allclose(found[t - 1], step * np.clip(d, -limit, limit) * e / metric, rtol=1e-9)


def test_intentional_moves_a_prediction_by_the_share_it_means():
    """With one gradient over and over, and no trace, the prediction moves by delta times the step size."""
    e = np.array([0.5, -2.0, 0.0, 1.0])
    z = {"a": np.tile(e[:3], (50, 1)), "b": np.tile(e[3], 50)}
    found = run(ow.intentional(0.0), np.full(50, 0.7), z)
    np.testing.assert_allclose(found @ e, 0.7, rtol=1e-6)


def test_intentional_without_any_gradient_does_nothing():
    z = {"a": np.zeros((5, 3)), "b": np.zeros(5)}
    assert not run(ow.intentional(0.9), np.ones(5), z).any()


def test_idbd():
    delta, z = drawn(60)
    found = run(ow.idbd(0.05, initial=0.02), delta, z)
    beta, h = np.full(4, np.log(0.02)), np.zeros(4)
    for t, (d, x) in enumerate(zip(delta, rows(z), strict=True)):
        for i in range(4):
            beta[i] += 0.05 * d * x[i] * h[i]
            step = np.exp(beta[i])
            assert found[t, i] == pytest.approx(step * d * x[i], rel=1e-9)
            h[i] = h[i] * max(0, 1 - step * x[i] ** 2) + step * d * x[i]


def test_autostep():
    delta, z = drawn(60)
    found = run(ow.autostep(0.05, initial=0.3, tau=10.0), delta, z)
    step, h, v = np.full(4, 0.3), np.zeros(4), np.zeros(4)
    bounded = 0
    for t, (d, x) in enumerate(zip(delta, rows(z), strict=True)):
        for i in range(4):
            move = abs(d * x[i] * h[i])
            v[i] = max(move, v[i] + step[i] * x[i] ** 2 * (move - v[i]) / 10.0)
            if v[i] > 0:
                step[i] *= np.exp(0.05 * d * x[i] * h[i] / v[i])
        over = max(1, sum(step * x**2))
        bounded += over > 1
        step /= over
        np.testing.assert_allclose(found[t], step * d * x, rtol=1e-9)
        h = h * (1 - step * x**2) + step * d * x
    assert 0 < bounded < 60


def test_idbd_finds_the_weights_that_matter():
    """Sutton's experiment (1992): 20 inputs, of which five matter; their step sizes grow, the others' fall."""
    rng = np.random.default_rng(0)
    rule = ow.idbd(0.001, initial=0.05)
    w, s = jnp.zeros(20), np.ones(5)
    state = rule.init(w)

    @jax.jit
    def step(w, state, x, y):
        delta = y - w @ x
        updates, state = rule.update(w, state, delta=delta, eligibility=x)
        return w + updates, state, delta

    for t in range(20_000):
        s[rng.integers(5)] *= -1 if t % 20 == 0 else 1
        x = rng.normal(size=20)
        w, state, _ = step(w, state, jnp.asarray(x, jnp.float32), float(s @ x[:5]))
    size = np.exp(np.asarray(state.log_step))
    assert size[:5].min() > 0.08
    assert size[5:].max() < 0.035


def true_online_td(x, r, gamma, lam, step):
    """van Seijen and Sutton's own form (2014), of a linear prediction; the weights after each step."""
    w, e, old = np.zeros(x.shape[1]), np.zeros(x.shape[1]), 0.0
    found = []
    for t in range(len(x) - 1):
        v, after = w @ x[t], w @ x[t + 1]
        delta = r[t + 1] + gamma * after - v
        e = gamma * lam * e + step * x[t] - step * gamma * lam * (e @ x[t]) * x[t]
        w = w + (delta + v - old) * e - step * (v - old) * x[t]
        old = after
        found.append(w)
    return np.array(found)


@pytest.mark.parametrize("lam", [0.0, 0.9])
def test_swift_td_without_its_own_step_sizes_is_true_online_td(lam):
    rng = np.random.default_rng(3)
    x, r = rng.normal(size=(80, 4)), rng.normal(size=80)
    rule = ow.swift_td(0.9, lam, initial=0.02, largest=10.0, meta=0.0)
    with jax.enable_x64(True):
        w = jnp.zeros(4)
        state, v_old, old, found = rule.init(w), 0.0, np.zeros(4), []
        step = jax.jit(lambda s, d, e: rule.update(e, s, delta=d, eligibility=e))
        for t in range(80):
            v = float(w @ x[t])
            updates, state = step(state, jnp.asarray(r[t] + 0.9 * v - v_old), jnp.asarray(old))
            w, v_old, old = w + updates, v, x[t]
            found.append(np.asarray(w))
    np.testing.assert_allclose(np.array(found)[1:], true_online_td(x, r, 0.9, lam, 0.02), rtol=1e-8, atol=1e-12)


REFUSED = {
    "kappa": (lambda: ow.obgd(0.0), "obgd needs kappa, eps > 0"),
    "obgd's decay": (lambda: ow.obgd(decay=1.0), r"obgd needs .* decay in \[0, 1\), got"),
    "a trace for ever": (lambda: ow.intentional(1.0), r"intentional needs decays in \[0, 1\).*trace_decay=1.0"),
    "of what": (lambda: ow.intentional(0.5, of="z"), "of must be 'eligibility' or 'gradient', got 'z'"),
    "no step": (lambda: ow.idbd(initial=0.0), "idbd needs meta >= 0 and initial > 0"),
    "no tau": (lambda: ow.autostep(tau=0), "autostep needs meta >= 0, initial, tau > 0"),
    "order": (
        lambda: ow.swift_td(0.9, 0.9, initial=1.0),
        r"swift_td needs .*smallest <= initial <= largest.*initial=1.0",
    ),
    "discount": (lambda: ow.swift_td(1.0, 0.9), r"swift_td needs discount in \[0, 1\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_rates_out_of_range_are_refused(case):
    make, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        make()


def model(key, head=None):
    return ow.Model(ow.Columns(ow.MinGRUGates(), 3, 4, key=key, spread=0.5), head or ow.Linear(4))


def example(t):
    return ow.Step(jnp.sin(jnp.arange(3.0) + t), jnp.cos(1.0 * t), jnp.ones(()), jnp.asarray(False), jnp.zeros(()))


RULES = {
    "obgd": ow.obgd,
    "adaptive obgd": lambda: ow.obgd(adaptive=True),
    "intentional": lambda: ow.intentional(0.9 * 0.8),
    "idbd": lambda: ow.on_head(ow.idbd(), cell=ow.rms()),
    "autostep": lambda: ow.on_head(ow.autostep(), cell=optax.adam(1.0)),
    "swift_td": lambda: ow.on_head(ow.swift_td(0.9, 0.8), cell=ow.obgd()),
    "in a chain": lambda: optax.chain(ow.obgd(), optax.scale(0.5)),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("rule", "objective"),
    [(ow.Columnwise(), ow.TDLambda(0.9, 0.8)), (ow.UORO(), ow.TDLambda(0.9, 0.0)), (ow.RTRL(), ow.Supervised())],
    ids=["Columnwise TD", "UORO TD(0)", "RTRL supervised"],
)
def test_every_rule_serves_every_credit_rule_and_objective(name, rule, objective, key):
    learner = ow.Online(rule, objective, RULES[name](), 0.1)
    state = learner.init(model(key), example(0), key=key)
    loss = jax.jit(
        lambda s: jax.lax.scan(lambda s, t: ((out := learner.step(s, example(t)))[0], out[1].loss), s, jnp.arange(400))
    )
    after, losses = loss(state)
    assert np.isfinite(losses).all()
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), *(eqx.filter(s.model, eqx.is_array) for s in (state, after))
    )
    assert all(m > 0 for m in jax.tree.leaves(moved))


def test_what_a_rule_is_told_makes_the_gradient(key):
    """A rule that adds delta times the eligibility descends the gradient: plain SGD, to the last bit but rounding."""

    def update(gradient, state, parameters=None, *, delta, eligibility, **extra):
        return jax.tree.map(lambda e: delta * e, eligibility), state

    told = optax.GradientTransformationExtraArgs(lambda p: optax.EmptyState(), update)
    for objective in (ow.TDLambda(0.9, 0.8), ow.Supervised()):
        ends = []
        for optimiser in (told, optax.sgd(1.0)):
            learner = ow.Online(ow.Columnwise(), objective, optimiser, 0.1)
            state = learner.init(model(key), example(0), key=key)
            for t in range(12):
                state, info = learner.step(state, example(t))
            assert info.delta.shape == ()
            ends.append(state.model)
        for a, b in zip(*(jax.tree.leaves(eqx.filter(m, eqx.is_array)) for m in ends), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_where_there_is_no_delta_it_is_said(key):
    class Own(ow.AbstractObjective):
        def init(self, model):
            return ()

        def step(self, state, model, prediction, example, pull):
            return (), pull(prediction), jnp.asarray(True), ow.Info(prediction, jnp.sum(prediction))

    class Half(Own):
        def eligibility(self, state, prediction, pull, delta):
            return pull(jnp.ones_like(prediction))

    with pytest.raises(TypeError, match="Own has no delta and eligibility, which this optimiser wants"):
        ow.Online(ow.Columnwise(), Own(), ow.obgd()).init(model(key), example(0), key=key)
    learner = ow.Online(ow.Columnwise(), Half(), ow.obgd())
    with pytest.raises(TypeError, match=r"Half: its eligibility goes with no delta in Info\(delta=\)"):
        learner.step(learner.init(model(key), example(0), key=key), example(0))
    learner = ow.Online(ow.Columnwise(), ow.Supervised(), ow.obgd())
    state = learner.init(model(key, ow.Linear(4, 2)), example(0), key=key)
    with pytest.raises(TypeError, match=r"wants the error of a scalar prediction, got shape \(2,\)"):
        learner.step(state, example(0)._replace(y=jnp.ones(2)))
    several = ow.Online(ow.Columnwise(), ow.Supervised(), ow.obgd(), streams=2)
    two = jax.tree.map(lambda a: jnp.stack([a, a]), example(0))
    with pytest.raises(TypeError, match=r"delta.*Online of one stream delta and eligibility"):
        several.init(model(key), two, key=key)
    with pytest.raises(TypeError, match="BPTT: the optimiser wants what a learner does not give"):
        ow.BPTT(ow.obgd()).init(
            model(key), ow.Sequence(jnp.ones((4, 2, 3)), jnp.ones((1, 2)), jnp.ones((1, 2))), key=key
        )
