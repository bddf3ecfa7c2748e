"""Windows and streams of piano rolls."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.lab import metrics
from onward.tasks.piano import window_starts


def pieces(*lengths, notes=20, seed=0):
    draw = np.random.default_rng(seed)
    return [(draw.random((n, notes)) < 0.3).astype(np.uint8) for n in lengths]


def test_windows_stay_inside_a_piece():
    assert window_starts([2], 2).tolist() == []
    rolls = pieces(9, 3, 7)
    task = ow.PianoRoll(rolls, length=4, batch=64)
    assert (task.windows, task.left_out) == (5 + 3, 1)
    _, batch = eqx.filter_jit(task.emit)(task.init(jax.random.key(0)))
    assert batch.xs.shape == (4, 64, 20)
    assert batch.y.shape == (1, 64, 20)
    assert batch.mask.tolist() == [[1.0] * 64]
    allowed = {roll[i : i + 5].tobytes() for roll in rolls for i in range(len(roll) - 4)}
    seen = {np.concatenate([batch.xs[:, i], batch.y[:, i]]).astype(np.uint8).tobytes() for i in range(64)}
    assert seen == allowed


def test_every_frame_may_be_asked_for():
    task = ow.PianoRoll(pieces(9), length=4, batch=3, every=True)
    _, batch = task.emit(task.init(jax.random.key(0)))
    assert np.array_equal(batch.xs[1:], batch.y[:-1])
    assert batch.mask.shape == (4, 3)


def test_transposed_windows_are_moved_and_lose_what_falls_off():
    roll = np.zeros((6, 20), np.uint8)
    roll[:, [0, 10]] = 1
    task = ow.PianoRoll([roll], length=5, batch=200, transpose=3)
    _, batch = eqx.filter_jit(task.emit)(task.init(jax.random.key(1)))
    highest = np.argmax(np.asarray(batch.xs[0]) * np.arange(1, 21), 1)
    assert sorted(set(highest.tolist())) == list(range(7, 14))
    for i, high in enumerate(highest):
        expected = {high, high - 10} & set(range(20))
        assert set(np.flatnonzero(batch.xs[2, i]).tolist()) == expected
        assert np.array_equal(batch.y[0, i], batch.xs[0, i])


def test_a_stream_plays_whole_pieces():
    rolls = pieces(5, 3, 8)
    task = ow.PianoRoll(rolls)
    _, stream = jax.lax.scan(lambda s, _: task.emit(s), task.init(jax.random.key(0)), length=60)
    starts = np.flatnonzero(stream.reset)
    assert starts[0] == 0
    played = [stream.x[a:b] for a, b in itertools.pairwise(starts)]
    known = {len(r) - 1: r for r in rolls}
    assert {len(p) for p in played} == set(known)
    for begin, piece in zip(starts, played, strict=False):
        roll = known[len(piece)]
        assert np.array_equal(piece, roll[:-1])
        assert np.array_equal(stream.y[begin : begin + len(piece)], roll[1:])
    assert stream.weight.min() == 1


@pytest.mark.parametrize(
    ("rolls", "fields", "words"),
    [
        (pieces(30, 20), {"length": 50, "batch": 1}, r"no piece has the 51 frames .* the longest of 2 has 30"),
        ([np.zeros((9, 4)), np.zeros((9, 5))], {"length": 2}, "piece 1 must be"),
        ([np.full((9, 4), 2)], {"length": 2}, "piece 0 holds other values"),
        (pieces(9), {"length": 2, "transpose": -1}, "transpose"),
        (pieces(9), {"length": 0}, "length"),
    ],
)
def test_bad_pieces_are_refused(rolls, fields, words):
    with pytest.raises(ValueError, match=words):
        ow.PianoRoll(rolls, **fields)


def network(notes=20, samples=None):
    cell = ow.GRU(notes, 6, key=jax.random.key(3))
    head = ow.Bernoulli(6, notes)
    head = jax.tree.map(lambda w: w + 0.3 * jax.random.normal(jax.random.key(w.size), w.shape), head)
    if samples is None:
        return ow.Model(cell, head)
    return ow.Model(ow.Hybrid(cell), ow.MonteCarlo(head, 1, samples))


def state_of(model, task):
    learner = ow.BPTT(optax.sgd(0.1))
    return learner.init(model, task.emit(task.init(jax.random.key(0)))[1], key=jax.random.key(0))


def loss_by_hand(model, frames):
    """Of the last frame, given those before it."""
    carry = model.init()
    for x in frames[:-1]:
        carry, prediction = model(carry, jnp.asarray(x, float))
    return -float(model.head.log_prob(prediction, frames[-1]))


def test_losses_are_means_over_all_windows_and_over_all_frames_but_the_first():
    rolls = pieces(9, 6)
    state, starts, frames = (
        state_of(network(), ow.PianoRoll(rolls, length=4, batch=2)),
        window_starts([9, 6], 4),
        np.concatenate(rolls),
    )
    measures = {
        "test": metrics.WindowLoss("test", jnp.asarray(frames), jnp.asarray(starts), 4, block=3),
        "piece": metrics.PieceLoss("piece", rolls),
    }
    asked = {"test": [frames[s : s + 5] for s in starts], "piece": [r[:i] for r in rolls for i in range(2, len(r) + 1)]}
    for name, measure in measures.items():
        by_hand = np.mean([loss_by_hand(state.model, part) for part in asked[name]])
        assert float(measure(state)[name]) == pytest.approx(by_hand, rel=1e-5)


def test_more_trajectories_give_a_better_likelihood_and_the_same_draws_each_time():
    rolls = pieces(30)
    task = ow.PianoRoll(rolls, length=4, batch=2)
    measure = metrics.WindowLoss("test", jnp.asarray(rolls[0]), jnp.asarray(window_starts([30], 4)), 4)
    one, many = (float(measure(state_of(network(samples=m), task))["test"]) for m in (1, 30))
    assert many < one
    assert many == float(measure(state_of(network(samples=30), task))["test"])


def test_a_continuation_starts_where_the_prompt_ends():
    (roll,) = pieces(12)
    task = ow.PianoRoll([roll], length=4, batch=2)
    for samples in (None, 3):
        found = metrics.Continuation(jnp.asarray(roll), 6, 9)(state_of(network(samples=samples), task))
        assert found["probabilities"].shape == (11, 20)
        assert found["continuation"].shape == (9, 20)
        assert set(np.unique(found["continuation"])) <= {0, 1}
        assert 0 < found["probabilities"].min() < found["probabilities"].max() < 1
    # A network that is sure says what it is sure of: here, every other note.
    sure = ow.Bernoulli(6, 20)
    sure = eqx.tree_at(lambda h: h.bias, sure, jnp.where(jnp.arange(20) % 2, 50.0, -50.0))
    model = ow.Model(network().cell, sure)
    found = metrics.Continuation(jnp.asarray(roll), 6, 4)(state_of(model, task))
    assert np.array_equal(found["continuation"], np.tile(np.arange(20) % 2, (4, 1)))
