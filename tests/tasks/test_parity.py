"""The stream of odd and even digits against its definition, and its exact levels against tables fitted to it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow


def roll(task, steps, seed=0):
    run = jax.jit(lambda k: jax.lax.scan(lambda s, _: task.emit(s), task.init(k), length=steps)[1])
    return jax.tree.map(np.asarray, run(jax.random.key(seed)))


def small(**fields):
    """Six images of three rows, in grey: two agree in their first row, two in all but their parity."""
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 4)).astype(np.uint8)
    images[1, 0] = images[0, 0]
    images[3] = images[2]
    return ow.DigitParity(images, [3, 8, 4, 5, 0, 7], top=255, **fields)


def drawn(task, x):
    """Which image was shown in each whole period: all that look so."""
    pixels = np.asarray(task.images) >= task.top / 2
    shown = x[: len(x) // task.period * task.period].reshape(-1, task.period, task.inputs)[:, : task.height]
    return (shown[:, None] == pixels[None]).all((2, 3))


@pytest.mark.parametrize("task", [small(), small(gap=1), small(gap=3), ow.DigitParity()], ids=["0", "1", "3", "digits"])
def test_rows_come_in_order_and_the_cumulant_right_after_them(task):
    x, y, weight, reset, _ = roll(task, 300 * task.period)
    assert (x.dtype, y.dtype, weight.dtype, reset.dtype) == (np.float32, np.float32, np.float32, bool)
    assert set(np.unique(x)) == {0, 1}
    assert not reset.any(), "one stream"
    assert (weight == 1).all()
    assert not x.reshape(-1, task.period, task.inputs)[:, task.height :].any(), "blank between images"
    match = drawn(task, x)
    assert match.any(1).all()
    odd = np.asarray(task.labels) % 2
    due = np.arange(len(match)) * task.period + task.height
    inside = due < len(y)
    certain = np.asarray([len(set(odd[m])) == 1 for m in match]) & inside
    label = np.asarray([odd[m][0] for m in match])
    assert certain.sum() > 100
    assert np.array_equal(y[due[certain]], label[certain])
    others = np.delete(y, due[inside])
    assert not others.any(), "and at no other step"
    assert y[due[inside]].mean() == pytest.approx(odd.mean(), abs=5 * 0.5 / 300**0.5)


def test_a_pixel_is_on_from_half_of_white():
    images = np.asarray([[[0, 127, 128, 255]]], np.uint8)
    assert roll(ow.DigitParity(images, [1]), 2).x.tolist() == [[0, 0, 1, 1]] * 2
    assert roll(ow.DigitParity(images // 2, [1], top=255), 1).x.tolist() == [[0, 0, 0, 0]]
    assert roll(ow.DigitParity(images / 255.0, [1]), 1).x.tolist() == [[0, 0, 1, 1]]


def test_every_image_is_drawn_as_often():
    task = small()
    count = drawn(task, roll(task, 6000 * task.period).x).sum(0)
    assert abs(count - 1000 * np.asarray([1, 1, 2, 2, 1, 1])).max() < 5 * 2000**0.5


@pytest.mark.parametrize(
    "task",
    [ow.DigitParity(), small(gap=2), small(discount=0.99), small(discount=0.5, gap=20), small(discount=0.0)],
    ids=["digits", "gap", "far", "near", "next"],
)
def test_truth_is_the_return_of_this_very_stream(task):
    steps, tail = 4000, 0 if task.discount == 0 else int(np.log(1e-7) / np.log(task.discount))
    _, y, _, _, truth = roll(task, steps, seed=1)
    expected, total = np.zeros(steps), 0.0
    for t in reversed(range(steps)):
        expected[t] = total
        total = y[t] + task.discount * total
    short = 1e-6 / (1 - task.discount**task.period)
    near = slice(steps - tail)  # beyond, the return reaches past the end of what was recorded
    np.testing.assert_allclose(truth[near], expected[near], rtol=1e-5, atol=2 * short)
    assert truth.max() > 0.9


def levels(task, steps):
    """Errors of the best tables by what an observer knows, on the stream that they were fitted to."""
    x, _, _, _, truth = roll(task, steps, seed=2)
    steps = len(x) // task.period * task.period
    x, truth = x[:steps], truth[:steps].reshape(-1, task.period)
    rows = (x @ 2 ** np.arange(task.inputs)).astype(int).reshape(-1, task.period)[:, : task.height]
    odd = task.discount ** -(task.height - 1.0) * (truth[:, 0] - task.discount**task.period * np.roll(truth[:, 0], -1))
    odd[-1] = 0  # what comes after the end is not known
    seen = np.zeros(len(rows), int)
    known = {"predict-mean": [], "phase-only": [], "oracle": [], "bayes": []}
    for phase in range(task.period):
        reading = phase < task.height
        if reading:
            seen = np.unique(np.c_[seen, rows[:, phase]], axis=0, return_inverse=True)[1].ravel()
        known["predict-mean"].append(np.zeros(len(rows), int))
        known["phase-only"].append(np.full(len(rows), phase))
        known["oracle"].append(np.full(len(rows), phase) + task.period * np.round(odd).astype(int) * reading)
        known["bayes"].append(phase + task.period * (seen if reading else 0 * seen))
    found = {}
    for name, keys in known.items():
        _, where = np.unique(np.stack(keys, 1).ravel(), return_inverse=True)
        count = np.bincount(where)
        mean = np.bincount(where, truth.ravel()) / count
        # A table fitted to n numbers underestimates their variance by (n - 1)/n.
        inflate = np.where(count > 1, count / np.maximum(count - 1, 1), 1)
        found[name] = (inflate[where] * (truth.ravel() - mean[where]) ** 2).mean()
    return found


@pytest.mark.parametrize(
    "task",
    [ow.DigitParity(), ow.DigitParity(gap=4, discount=0.95), small(), small(gap=2, discount=0.8)],
    ids=["digits", "digits-gap", "small", "small-gap"],
)
def test_exact_levels_agree_with_tables(task):
    # 3 %: 4 standard errors of a variance over the 33,000 images of the longest period.
    measured, exact = levels(task, 400_000), task.references()
    assert list(measured) == list(exact)
    for name, level in exact.items():
        assert measured[name] == pytest.approx(level, rel=0.03), name
    assert exact["oracle"] <= exact["bayes"] < exact["phase-only"] < exact["predict-mean"]


def test_the_task_is_an_argument_of_a_program_and_the_key_decides():
    run = eqx.filter_jit(lambda task, key: jax.lax.scan(lambda s, _: task.emit(s), task.init(key), length=200)[1])
    task = ow.DigitParity()
    first, same, other = (np.asarray(run(task, jax.random.key(s)).x) for s in (3, 3, 4))
    assert np.array_equal(first, roll(task, 200, 3).x)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_columns_learn_more_than_the_row_tells(compile_well):
    task, units, steps, key = ow.DigitParity(), 32, 150_000, jax.random.key(0)
    model = ow.Model(ow.Columns(ow.GRUGates(), 8, units, key=key), ow.Linear(units))
    learner = ow.Online(ow.Columnwise(), ow.TDLambda(task.discount, 0.9), optax.adam(3e-3))

    @jax.jit
    def run():
        state = task.init(key)
        example = task.emit(state)[1]
        dynamic, static = eqx.partition(learner.init(model, example, key=key), eqx.is_array)

        def step(both, _):
            stream, example = task.emit(both[0])
            learned, info = learner.step(eqx.combine(both[1], static), example)
            error = (example.truth - info.prediction) ** 2
            return (stream, eqx.filter(learned, eqx.is_array)), error

        return jax.lax.scan(step, (state, dynamic), length=steps)[1]

    exact, final = task.references(), float(np.asarray(run())[-50_000:].mean())
    assert exact["bayes"] < final < 0.9 * exact["predict-mean"]
    assert final < 0.97 * exact["phase-only"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": [1]}, "give both images and labels"),
        ({"images": np.ones((2, 3, 4))}, "give both images and labels"),
        ({"images": np.ones((2, 3)), "labels": [1, 2]}, r"images must be \(count, height, width\), got shape \(2, 3\)"),
        ({"images": np.ones((2, 3, 4)), "labels": [1]}, r"2 images need as many whole labels, got int64 \(1,\)"),
        ({"images": np.ones((1, 3, 4)), "labels": [1.0]}, "1 images need as many whole labels, got float64"),
        ({"images": np.zeros((1, 3, 4)), "labels": [1]}, "every pixel is 0; give `top`"),
        ({"gap": -1}, "gap must be a whole number of at least 0, got -1"),
        ({"gap": True}, "gap must be a whole number of at least 0, got True"),
        ({"discount": 1.0}, r"discount must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=f"DigitParity: {message}"):
        ow.DigitParity(**fields)


def test_an_online_state_holds_no_images():
    state = ow.DigitParity().init(jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 4
    assert jnp.size(state.seed) == 2
