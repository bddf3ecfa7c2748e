"""The one-to-many rows against their definition, and what is known of them against brute force and samples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onward.tasks import one_to_many as known
from onward.tasks.one_to_many import OneToManyClasses, OneToManyMixture
from onward.types import Sequence

# Rows are compared to the bit between programs, as users have them compiled.
pytestmark = pytest.mark.usefixtures("compile_well")

BOTH = pytest.mark.parametrize("kind", [OneToManyClasses, OneToManyMixture])
PYTHON = {"nearest": lambda a: int(np.rint(9 * a)), "code": lambda a: int(round(a, 1) * 9)}


@functools.partial(jax.jit, static_argnames="calls")
def run(task, key, calls):
    return jax.lax.scan(lambda s, _: task.emit(s), task.init(key), None, length=calls)[1]


def roll(task, calls, seed=0):
    return jax.tree.map(np.asarray, run(task, jax.random.key(seed), calls))


def flat(sequences):
    """The rows of several batches: xs (rows, length) and y (rows,)."""
    return np.moveaxis(sequences.xs[..., 0], 1, 2).reshape(-1, sequences.xs.shape[1]), sequences.y.ravel()


def curve(a):
    return a + 0.3 * np.sin(2 * np.pi * a)


@pytest.fixture(scope="module")
def large():
    """60,000 new rows with their latents, and with both kinds of class."""
    mixture = flat(roll(OneToManyMixture(4, 20_000), 3))
    return *mixture, {rule: flat(roll(OneToManyClasses(4, 20_000, rule), 3)) for rule in PYTHON}


@BOTH
@pytest.mark.parametrize(("length", "batch", "rows"), [(1, 1, None), (5, 3, None), (5, 3, 7), (2, 4, 4), (2, 9, 4)])
def test_shapes(kind, length, batch, rows):
    task = kind(length, batch, rows=rows)
    xs, y, mask = roll(task, 2)
    assert xs.shape == (2, length, batch, task.inputs) == (2, length, batch, 1)
    assert y.shape == mask.shape == (2, 1, batch)
    assert (mask == 1).all()
    assert (xs.dtype, mask.dtype) == (np.float32, np.float32)
    assert y.dtype == (np.int32 if kind is OneToManyClasses else np.float32)
    held = task.held_out(6, seed=0)
    assert isinstance(held, Sequence)
    assert [a.shape for a in held] == [(length, 6, 1), (1, 6), (1, 6)]


def test_rows_are_as_defined(large):
    xs, a, _ = large
    noise = xs[:, 0] - curve(a.astype(float))
    assert abs(noise).max() <= 0.1 + 1e-6
    for numbers, low, high in ((a, 0, 1), (noise, -0.1, 0.1), (xs[:, 1], 0, 1), (xs[:, 3], 0, 1)):
        share = np.histogram(numbers, 20, (low, high))[0] / len(a)
        assert abs(share - 0.05).max() < 5 * (0.05 / len(a)) ** 0.5
    assert xs[:, 1:].min() >= 0
    assert xs[:, 1:].max() < 1
    assert len(np.unique(a)) > 0.99 * len(a), "new rows at every call"


def test_distractors_say_nothing(large):
    xs, a, _ = large
    several = np.c_[a, abs(a - 0.5), noise := xs[:, 0] - curve(a), abs(noise), xs[:, 1:]]
    correlation = np.corrcoef(several, rowvar=False) - np.eye(several.shape[1])
    assert abs(correlation).max() < 5 / len(a) ** 0.5
    # Nor do neighbours: of a batch, and of successive batches.
    for lag in (1, 20_000):
        across = np.corrcoef(np.c_[several[:-lag], several[lag:]], rowvar=False)[:7, 7:]
        assert abs(across).max() < 5 / (len(a) - lag) ** 0.5


@pytest.mark.parametrize(("rule", "first", "last"), [("nearest", 1 / 18, 1 / 18), ("code", 0.15, 0.05)])
def test_classes_of_rows(large, rule, first, last):
    xs, a, classes = large
    same, y = classes[rule]
    assert np.array_equal(same, xs), "the same rows as the mixture task"
    assert y[:5000].tolist() == [PYTHON[rule](v) for v in a[:5000].tolist()]
    share = np.bincount(y, minlength=10) / len(y)
    expected = np.r_[first, [0.1 if rule == "code" else 1 / 9] * 8, last]
    assert abs(share - expected).max() < 5 * (0.15 / len(y)) ** 0.5


@pytest.mark.parametrize("rule", PYTHON)
def test_class_of_is_exact_at_every_edge(rule):
    """Every number of the grid next to a change of class, and the tenths and ninths themselves."""
    at = np.r_[np.arange(21) / 20, np.arange(19) / 18, [0.25, 0.5, 0.75]]
    near = (np.rint(at * 2**24)[:, None] + np.arange(-4, 5)).ravel() / 2**24
    a = near[(near >= 0) & (near <= 1)].astype(np.float32)
    assert np.array_equal(a * 2.0**24 % 1, np.zeros(len(a)))
    assert known.class_of(jnp.asarray(a), rule).tolist() == [PYTHON[rule](v) for v in a.tolist()]


@BOTH
def test_fixed_rows(kind):
    """Whole batches give every row once, alike each time; smaller ones draw from the same rows, all of them."""
    whole = roll(kind(3, 50, rows=50), 3)
    for leaf in whole:
        assert np.array_equal(leaf[0], leaf[1])
        assert np.array_equal(leaf[0], leaf[2])
    table, y = flat(Sequence(*(a[:1] for a in whole)))
    place = {tuple(row): i for i, row in enumerate(table.tolist())}
    assert len(place) == 50
    for batch in (7, 60):
        xs, answers = flat(roll(kind(3, batch, rows=50), 4200 // batch))
        drawn = np.array([place[tuple(row)] for row in xs.tolist()])
        assert np.array_equal(answers, y[drawn])
        assert abs(np.bincount(drawn, minlength=50) - 84).max() < 5 * 84**0.5
        assert not np.array_equal(drawn[:batch], drawn[batch : 2 * batch])
    more, _ = flat(roll(kind(3, 80, rows=80), 1))
    assert np.array_equal(more[:50], table), "a row does not depend on how many there are"


@BOTH
@pytest.mark.parametrize(("batch", "rows"), [(6, None), (6, 20), (20, 20)])
def test_the_key_determines_the_stream(kind, batch, rows):
    first, same, other = (roll(kind(3, batch, rows=rows), 3, seed) for seed in (3, 3, 4))
    assert all(map(np.array_equal, first, same))
    assert not np.isin(other.xs, first.xs).any()


@BOTH
def test_held_out_rows_are_others(kind):
    """Other than the fixed and the new rows of the same seed, alike when asked again, and from the same law."""
    task = kind(3, 500, rows=500)
    held, again, other = (task.held_out(20_000, seed) for seed in (0, 0, 1))
    assert all(map(np.array_equal, held, again))
    seen = np.concatenate([roll(t, 2).xs[:, 0].ravel() for t in (task, kind(3, 500))] + [np.ravel(other.xs[0])])
    assert len(np.intersect1d(np.ravel(held.xs[0]), seen)) < 50, "coincidences of 24 bits only"
    assert not (np.ravel(held.xs[0])[:500] == roll(task, 1).xs[0, 0].ravel()).any()
    assert np.array_equal(held.xs, kind(3, 1).held_out(20_000, 0).xs)
    v = np.ravel(held.xs[0])
    assert abs(v.mean() - 0.5) < 5 * v.std() / len(v) ** 0.5


@pytest.fixture(scope="module")
def brute():
    """Which of 3000 values of `a` can give which of 3001 of v, and p(v) dv."""
    a, v = (np.arange(3000) + 0.5) / 3000, np.linspace(-0.1, 1.1, 3001)
    possible = (abs(v[:, None] - curve(a)) <= 0.1).astype(float)
    kept = possible.any(1)
    return a, v[kept], possible[kept], possible[kept].sum(1) / possible.sum()


def test_levels_agree_with_brute_force(brute):
    a, v, possible, weight = brute
    density = possible.mean(1) / 0.2
    assert known.input_density(v) == pytest.approx(density, abs=0.02)
    for rule, of in PYTHON.items():
        share = possible @ np.eye(10)[[of(x) for x in a.tolist()]] / possible.sum(1, keepdims=True)
        entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(1)
        assert known.class_floor(rule) == pytest.approx(weight @ entropy, abs=1e-3)
        assert known.class_accuracy(rule) == pytest.approx(weight @ share.max(1), abs=1e-3)
        inside = density > 0.1
        assert abs(known.class_probabilities(v, rule) - share)[inside].max() < 0.02
    assert known.mixture_floor() == pytest.approx(weight @ np.log(possible.mean(1)), abs=1e-3)
    mean = possible @ a / possible.sum(1)
    variance = possible @ a**2 / possible.sum(1) - mean**2 + 1 / 12 / 3000**2
    gaussian = weight @ np.log(2 * np.pi * np.e * variance) / 2
    assert known.mixture_floor_of(1) == pytest.approx(gaussian, abs=1e-3)


def test_levels_of_the_mixture():
    assert known.mixture_floor() == pytest.approx(-1.2823, abs=2e-4)
    assert known.mixture_learn_nothing(1) == pytest.approx(np.log(2 * np.pi * np.e / 12) / 2, abs=1e-9)
    assert known.mixture_learn_nothing(3) == pytest.approx(0.0587, abs=1e-4)
    for components, level in ((1, -0.6553), (2, -1.1284), (3, -1.1791), (5, -1.2240)):
        assert known.mixture_floor_of(components) == pytest.approx(level, abs=1e-3)
        assert known.mixture_floor() < known.mixture_floor_of(components) < known.mixture_learn_nothing(components)


def test_two_gaussians_for_a_uniform_agree_with_a_search():
    """By symmetry two parameters: the distance of the means from the middle, and the deviation."""
    u = (np.arange(400) + 0.5) / 400 - 0.5
    at, sd = np.linspace(0.2, 0.3, 41)[:, None, None], np.linspace(0.1, 0.2, 41)[:, None]
    bumps = np.exp(-(((u - at) / sd) ** 2) / 2) + np.exp(-(((u + at) / sd) ** 2) / 2)
    loss = -np.log(bumps / (2 * sd * np.sqrt(2 * np.pi))).mean(-1)
    assert known.mixture_learn_nothing(2) == pytest.approx(loss.min(), abs=1e-4)


def test_the_conditional_is_a_density():
    v, grid = np.linspace(-0.05, 1.05, 40), (np.arange(20_000) + 0.5) / 20_000
    density = known.conditional(v, grid)
    assert density.shape == (40, 20_000)
    assert density.mean(1) == pytest.approx(np.ones(40), abs=0.005)
    assert density.max(1) == pytest.approx(5 / known.input_density(v))
    assert np.array_equal(known.conditional(v[3], grid), density[3])
    assert not known.conditional(np.array([-0.2, 1.2]), grid).any()
    assert not known.conditional(v, np.array([-0.01, 1.01])).any()
    for rule in PYTHON:
        assert known.class_probabilities(v, rule).sum(1) == pytest.approx(np.ones(40))
        assert known.class_probabilities(0.5, rule).shape == (10,)
        assert not known.class_probabilities(np.array([-0.2, 1.2]), rule).any()


def test_floors_are_the_mean_loss_of_the_truth_on_samples():
    rng = np.random.default_rng(0)
    a = rng.random(40_000)
    v = curve(a) + rng.uniform(-0.1, 0.1, len(a))

    def agrees(losses, level):
        return abs(losses.mean() - level) < 4 * losses.std() / len(losses) ** 0.5

    for rule, of in PYTHON.items():
        p = known.class_probabilities(v, rule)[np.arange(len(a)), [of(x) for x in a.tolist()]]
        assert agrees(-np.log(p), known.class_floor(rule))
    pairs = zip(np.split(v, 80), np.split(a, 80), strict=True)
    p = np.concatenate([known.conditional(x, y).diagonal() for x, y in pairs])
    assert agrees(-np.log(p), known.mixture_floor())


@BOTH
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 0}, "a sequence needs at least one step, got length=0"),
        ({"length": 2.0}, "a sequence needs at least one step, got length=2.0"),
        ({"batch": 0}, "batch must be a whole number of at least 1, got 0"),
        ({"rows": 0}, "rows must be a whole number of at least 1, got 0"),
        ({"rows": True}, "rows must be a whole number of at least 1, got True"),
    ],
)
def test_wrong_fields_are_refused(kind, fields, message):
    with pytest.raises(ValueError, match=f"{kind.__name__}: {message}"):
        kind(**{"length": 3, "batch": 2} | fields)


def test_wrong_arguments_are_refused():
    for rule in ("Nearest", None, []):
        with pytest.raises(ValueError, match="OneToManyClasses: labels must be 'nearest' or 'code', got"):
            OneToManyClasses(3, 2, rule)
    with pytest.raises(ValueError, match="labels must be 'nearest' or 'code', got 'rint'"):
        known.class_floor("rint")
    with pytest.raises(
        ValueError, match=r"OneToManyMixture\.held_out: count must be a whole number of at least 1, got 0"
    ):
        OneToManyMixture(3, 2).held_out(0, 0)
    with pytest.raises(ValueError, match="components must be a whole number of at least 1, got 0"):
        known.mixture_floor_of(0)
