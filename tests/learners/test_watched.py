"""How two gradients are compared."""

import numpy as np
import pytest

from onward.learners.watched import _compare


@pytest.mark.parametrize("scale", [1.0, -3.0, 0.5])
def test_a_comparison_is_that_of_all_numbers_as_one_vector(scale):
    """Arrays of several sizes: each number counts once, whichever array it lies in."""
    rng = np.random.default_rng(0)
    draw = lambda: {"a": rng.normal(size=(1,)), "b": rng.normal(size=(4, 5)), "c": rng.normal(size=3)}
    one, other = draw(), draw()
    u, v = (np.concatenate([a.ravel() for a in tree.values()]) for tree in (one, other))
    lengths = np.linalg.norm(u), np.linalg.norm(v)
    cosine, ratio = u @ v / np.prod(lengths), lengths[0] / lengths[1]
    found = _compare({name: scale * a for name, a in one.items()}, other)
    np.testing.assert_allclose(found, [np.sign(scale) * cosine, abs(scale) * ratio, 1], rtol=1e-5)


def test_nothing_is_compared_with_an_exact_gradient_of_zero():
    np.testing.assert_array_equal(_compare([np.ones(2)], [np.zeros(2)]), [0, 0, 0])
    np.testing.assert_array_equal(_compare([np.zeros(2)], [np.ones(2)]), [0, 0, 1])
