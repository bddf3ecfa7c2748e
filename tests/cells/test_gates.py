"""What gates may say of themselves: parameters of their own, no recurrent weights, several features; and their starts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from contract.zoo import OwnRate
from onward.verify.gradients import in_float64

DIAGONAL = {"RTU": ow.RTUGates, "LRU": ow.LRUGates, "MinGRU": ow.MinGRUGates, "ELSTM": ow.ELSTMGates}


def numbers(cell, xs):
    """The cell's arrays in float64 and its states along a stream."""
    carry, states = cell.init(), []
    for x in xs:
        carry = cell(carry, x)
        states.append([np.asarray(h) for h in carry.hidden])
    return [np.asarray(a) for a in (cell.weight, cell.bias)], states


@pytest.fixture(name="stream")
def stream_(key):
    with jax.enable_x64(True):
        yield jax.random.normal(key, (7, 3), jnp.float64)


def made(gates, key, **options):
    return in_float64(ow.Columns(gates, 3, 5, key=key, spread=0.8, **options))


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


@pytest.mark.parametrize("recurrence", ["linear", "nonlinear"])
def test_rtu_is_its_equation_in_complex_numbers(recurrence, stream, key):
    cell = made(ow.RTUGates("tanh", recurrence), key)
    (w, own), states = numbers(cell, stream)
    turn = np.exp(-np.exp(own[0]) + 1j * np.exp(own[1]))
    n = np.sqrt(1 - np.abs(turn) ** 2) + 1e-8
    h = np.zeros(5, complex)
    for x, (a, b) in zip(np.asarray(stream), states, strict=True):
        h = turn * h + n * (x @ w[:, 0] + 1j * (x @ w[:, 1]))
        if recurrence == "nonlinear":
            h = np.tanh(h.real) + 1j * np.tanh(h.imag)
        np.testing.assert_allclose(a + 1j * b, h, rtol=1e-12)
    seen = cell.features(ow.Carry(tuple(map(jnp.asarray, states[-1])), cell.init().stats))
    f = np.tanh if recurrence == "linear" else lambda a: a
    np.testing.assert_allclose(seen, np.concatenate([f(h.real), f(h.imag)]), rtol=1e-12)


def test_lru_is_its_equation_in_complex_numbers(stream, key):
    (w, own), states = numbers(made(ow.LRUGates(), key), stream)
    h = np.zeros(5, complex)
    for x, (a, b) in zip(np.asarray(stream), states, strict=True):
        h = np.exp(-np.exp(own[0]) + 1j * np.exp(own[1])) * h + np.exp(own[2]) * (x @ w[:, 0] + 1j * (x @ w[:, 1]))
        np.testing.assert_allclose(a + 1j * b, h, rtol=1e-12)


@pytest.mark.parametrize("candidate", ["linear", "positive"])
def test_mingru_is_its_equation(candidate, stream, key):
    (w, bias), states = numbers(made(ow.MinGRUGates(candidate), key), stream)
    h = np.zeros(5)
    for x, (found,) in zip(np.asarray(stream), states, strict=True):
        u = x @ w[:, 1] + bias[1]
        z, c = sigmoid(x @ w[:, 0] + bias[0]), u if candidate == "linear" else np.where(u > 0, u + 0.5, sigmoid(u))
        h = (1 - z) * h + z * c
        np.testing.assert_allclose(found, h, rtol=1e-12)


def test_elstm_is_its_equation(stream, key):
    (w, bias), states = numbers(made(ow.ELSTMGates(), key), stream)
    c = np.zeros(5)
    for x, (memory, h) in zip(np.asarray(stream), states, strict=True):
        a = np.einsum("i,igk->gk", x, w) + bias[:3]
        f = sigmoid(a[0] + bias[3] * c)
        c = f * c + (1 - f) * np.tanh(a[1] + bias[4] * c)
        np.testing.assert_allclose(memory, c, rtol=1e-12)
        np.testing.assert_allclose(h, sigmoid(a[2] + bias[5] * c) * c, rtol=1e-12)


@pytest.mark.parametrize("kind", DIAGONAL)
def test_units_without_recurrent_weights_make_columns_only(kind, key):
    gates = DIAGONAL[kind]()
    cell = ow.Columns(gates, 3, 4, key=key)
    assert cell.recurrent is None
    assert len(jax.tree.leaves(eqx.filter(cell, cell.trainable()))) == 2
    with pytest.raises(TypeError, match=rf"Dense: .* {type(gates).__name__} have no recurrent weights .* use Columns"):
        ow.Dense(gates, 3, 4, key=key)


@pytest.mark.parametrize(("kind", "width"), [("RTU", 8), ("LRU", 8), ("MinGRU", 4), ("ELSTM", 4)])
def test_every_feature_of_a_unit_is_normalised_and_grown_over(kind, width, key):
    moments = ow.Moments(rate=0.9)
    cell = ow.Cascade(ow.Columns(DIAGONAL[kind](), 3, 4, key=key, spread=0.8, normalise_features=moments))
    carry = cell.init()
    for x in jax.random.normal(key, (40, 3)):
        carry = cell(carry, x)
    before = cell.features(carry)
    assert before.shape == (cell.feature_count,) == (width,)
    mean, scale = carry.stats[-1].features.mean, carry.stats[-1].features.scale
    np.testing.assert_allclose(before, (cell.stage.seen(carry.hidden[-1]) - mean) * scale, rtol=1e-5)
    grown, after = cell.grow(carry, key=key)
    assert grown.live.inputs == 3 + width
    np.testing.assert_allclose(grown.features(after)[:width], before, rtol=1e-6)


@pytest.mark.parametrize("kind", ["RTU", "LRU"])
def test_a_stage_without_a_bias_on_its_inputs_is_refused_before_it_could_grow(kind, key):
    stage = ow.Columns(DIAGONAL[kind](), 3, 4, key=key, normalise_inputs=ow.Moments(rate=0.9))
    with pytest.raises(TypeError, match=r"have no bias on their inputs.*leave normalise_inputs out"):
        ow.Cascade(stage)


def test_folding_moves_the_mean_into_the_rows_of_the_inputs(key):
    """With rows of the bias in another order than those of the weights, and one of the unit's own among them."""
    moments = ow.Moments(rate=0.9)
    cell = ow.Columns(ow.ELSTMGates(), 3, 4, key=key, spread=0.8, normalise_inputs=moments)
    own = ow.Columns(OwnBias(), 3, 4, key=key, spread=0.8, normalise_inputs=moments)
    for columns in (cell, own):
        carry = columns.init()
        for x in 3 + jax.random.normal(key, (40, 3)):
            carry = columns(carry, x)
        folded = columns.fold(carry.stats)
        x = jnp.array([2.0, 3.0, 5.0])
        plain = columns.read(carry, x)[1]
        frozen = eqx.tree_at(lambda s: s.inputs, carry.stats, plain)
        again = columns.fold(frozen)(ow.Carry(carry.hidden, ow.Columns.init(folded).stats), x)
        np.testing.assert_allclose(again.hidden[-1], columns(carry, x).hidden[-1], rtol=1e-5)


class OwnBias(ow.AbstractGates):
    states, slots = 1, 3
    input_slots = (2, 0)
    recurrent_slots = ()
    bias_slots = (0, 1, 2)

    def next_state(self, i, preactivation, states, new):
        a, own, b = preactivation
        return jnp.tanh(a) * jax.nn.sigmoid(own) * states[0] + b


def kind_of(**changed):
    """A class of gates that is right but for what is changed."""

    def next_state(self, i, preactivation, states, new):
        return preactivation[0] + states[0]

    right = {"states": 1, "slots": 1, "input_slots": (0,), "recurrent_slots": (), "next_state": next_state}
    return type("Mine", (ow.AbstractGates,), {**right, "__module__": __name__, **changed})


def two_features(self, states):
    return states[0], jnp.concatenate([states[0], states[0]])


WRONG = {
    "no state": ({"states": 0}, "Mine: states must be a whole number of at least 1, got 0"),
    "half a slot": ({"slots": 1.5}, "Mine: slots must be a whole number of at least 1, got 1.5"),
    "no inputs": ({"input_slots": ()}, "Mine: input_slots is empty: at least one slot must be driven by the inputs"),
    "a slot too high": (
        {"input_slots": (1,)},
        r"input_slots must be a tuple of different slots out of 0 .. 0, got \(1,\)",
    ),
    "a slot twice": ({"recurrent_slots": (0, 0)}, "recurrent_slots must be a tuple of different slots out of 0 .. 0"),
    "no tuple": ({"bias_slots": [0]}, r"bias_slots must be a tuple of different slots out of 0 .. 0, got \[0\]"),
    "an idle slot": ({"slots": 2}, "slot 1 is in none of input_slots, recurrent_slots, bias_slots: nothing drives it"),
    "too few states": (
        {"next_state": lambda self, i, a, s, new: s[1]},
        r"next_state\(0, ...\) of 1 preactivations and 1 states fails: tuple index out of range",
    ),
    "too many slots": (
        {"next_state": lambda self, i, a, s, new: (lambda x, y: x)(*a)},
        r"next_state\(0, ...\) of 1 preactivations and 1 states fails: .*missing 1 required positional argument",
    ),
    "a sum over units": (
        {"next_state": lambda self, i, a, s, new: jnp.sum(s[0])},
        r"next_state\(0, ...\) .* must be an array of shape \(units,\), here \(2,\); got \(\)",
    ),
    "a state of all": (
        {"next_state": lambda self, i, a, s, new: tuple(s)},
        r"next_state\(0, ...\) .* must be an array of shape",
    ),
    "features of two shapes": (
        {"features": two_features},
        r"features of 1 states must be a tuple of arrays, one at least, each of shape \(units,\), here \(2,\)",
    ),
    "one feature, no tuple": ({"features": lambda self, states: states[0]}, "features of 1 states must be a tuple"),
    "no feature": (
        {"features": lambda self, states: ()},
        "features of 1 states must be a tuple of arrays, one at least",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("structure", [ow.Columns, ow.Dense])
def test_gates_that_contradict_themselves_are_told_what_does_not_fit(wrong, structure, key):
    changed, said = WRONG[wrong]
    with pytest.raises(TypeError, match=said):
        structure(kind_of(**changed)(), 3, 4, key=key)


def test_stochastic_units_show_their_state_only(key):
    layer = ow.Dense(OwnRate(), 3, 4, key=key)
    assert ow.Hybrid(layer, share=0.0).feature_count == 8
    with pytest.raises(ValueError, match="Hybrid: OwnRate show a head more than h"):
        ow.Hybrid(layer)


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("kind", ["RTU", "LRU"])
def test_ring_puts_units_where_it_says(kind, even, key):
    cell = ow.ring(ow.Columns(DIAGONAL[kind](), 3, 400, key=key), 0.5, 0.9, phase=0.3, even=even, key=key)
    radius, angle = np.exp(-np.exp(cell.bias[0])), np.exp(cell.bias[1])
    assert 0.5 <= radius.min() < 0.53
    assert 0.88 < radius.max() <= 0.9
    assert angle.min() > 0
    assert angle.max() <= 0.3
    # Evenly over the area.
    assert abs(float(np.mean(radius**2)) - (0.25 + 0.81) / 2) < 0.02
    if even:
        np.testing.assert_allclose(np.sort(angle), 0.3 * (np.arange(400) + 0.5) / 400, rtol=1e-5)
    if kind == "LRU":
        np.testing.assert_allclose(np.exp(cell.bias[2]), np.sqrt(1 - radius**2), rtol=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "phase", "said"),
    [(-0.1, 1, 1, "radii"), (0.5, 0.5, 1, "radii"), (0, 1.1, 1, "radii"), (0, 1, 0, "phase"), (0, 1, 7, "phase")],
)
def test_ring_refuses_what_is_no_part_of_the_disc(low, high, phase, said, key):
    with pytest.raises(ValueError, match=f"ring: {said} must be"):
        ow.ring(ow.Columns(ow.RTUGates(), 3, 4, key=key), low, high, phase=phase, key=key)


def test_ring_and_knots_refuse_other_units(key):
    with pytest.raises(TypeError, match="GRUGates does not turn in a plane; use RTU or LRU units"):
        ow.ring(ow.GRU(3, 4, key=key), key=key)
    with pytest.raises(TypeError, match="knots: RTUGates have no bias on their content"):
        ow.knots(ow.Columns(ow.RTUGates(), 3, 4, key=key), key=key)
    with pytest.raises(TypeError, match=r"ring: needs a layer .*Columns, got Echo"):
        ow.ring(ow.Echo(3), key=key)


@pytest.mark.parametrize("kind", ["GRU", "LSTM", *DIAGONAL])
def test_chrono_makes_columns_forget_in_the_time_it_says(kind, key):
    """Without input, what is kept of a state after u steps is about 1/e of it (of gates that squash: of a small one)."""
    gates = {"GRU": ow.GRUGates, "LSTM": ow.LSTMGates, **DIAGONAL}[kind]()
    cell = ow.chrono(ow.Columns(gates, 3, 300, key=key, spread=0.0), 1000, key=key)
    if kind in ("RTU", "LRU"):
        kept = np.exp(-np.exp(cell.bias[0]))
    else:
        small = tuple(jnp.full(300, 1e-3) for _ in range(gates.states))
        kept = np.asarray(cell(ow.Carry(small, cell.init().stats), jnp.zeros(3)).hidden[0]) / 1e-3
    times = np.sort(-1 / np.log(kept)) if kind in ("RTU", "LRU") else np.sort(1 / (1 - kept))
    assert 1 <= times[0] < 2.3
    assert 600 < times[-1] < 1100
    assert abs(np.median(np.log(times)) - np.log(1000) / 2) < 0.7


def test_knots_of_columns_tell_apart_the_range_of_the_inputs(key):
    cell = ow.knots(ow.Columns(ow.MinGRUGates(), 1, 200, key=key), -1.0, 2.0, key=key)
    centres = -cell.bias[1] / cell.weight[0, 1]
    assert -1 <= centres.min() < -0.9
    assert 1.9 < centres.max() <= 2


@pytest.mark.parametrize("gates", [ow.RTUGates(), ow.LRUGates()], ids=["RTU", "LRU"])
def test_chrono_lets_a_unit_turn_once_at_most_while_it_remembers(gates, key):
    """The angle that was drawn, in 0 .. 2 pi, divided by the span; a longest of 1 changes no angle."""
    cell = ow.Columns(gates, 3, 300, key=key)
    angle = lambda c: np.exp(np.asarray(c.bias[1]))
    spans = lambda c: 1 / np.exp(np.asarray(c.bias[0]))
    slow = ow.chrono(cell, 1000, key=key)
    np.testing.assert_allclose(angle(slow) * spans(slow), angle(cell), rtol=1e-4)
    assert angle(slow).max() > 1
    assert np.median(angle(slow)) < 0.3
    assert spans(slow).max() > 500
    np.testing.assert_allclose(angle(ow.chrono(cell, 1, key=key)), angle(cell), rtol=1e-6)
