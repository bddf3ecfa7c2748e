"""How far back a gradient reaches: against a copy of the parameters for each step, by backpropagation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import onward as ow
import onward.verify as v

STEPS, AGES = 8, [1, 2, 4, 8]


def by_hand(model, xs, decay, cotangent, cut=None):
    """Of each use of the parameters the gradient of sum_j decay^j prediction_{T-j}: (steps, parameters).

    `cut`: a prediction's credit goes back so many steps only, as truncated backpropagation has it.
    """
    theta, unravel = ravel_pytree(model.cell)
    uses = jnp.broadcast_to(theta, (len(xs), theta.size))

    def total(uses):
        carry, found = model.init(), 0.0
        carries = [carry]
        for t in range(len(xs)):
            begin = carries[t] if cut is None else jax.lax.stop_gradient(carries[max(0, t + 1 - cut)])
            carry = begin
            for back in range(t if cut is None else max(0, t + 1 - cut), t + 1):
                carry = unravel(uses[back])(carry, xs[back])
            carries.append(carry)
            said = jnp.sum(cotangent * model.head(model.features(carry)))
            found = found + decay ** (len(xs) - 1 - t) * said
        return found

    return np.asarray(jax.grad(total)(uses))


@pytest.mark.parametrize("decay", [0.0, 0.7])
@pytest.mark.parametrize(
    ("rule", "cut"), [(ow.Columnwise(), None), (ow.RTRL(), None), (ow.TBPTT(1), 1), (ow.TBPTT(3), 3)], ids=str
)
def test_what_lies_beyond_an_age(rule, cut, decay, key):
    with jax.enable_x64(True):
        columns = isinstance(rule, ow.Columnwise)
        cell = (ow.Columns if columns else ow.Dense)(ow.GRUGates(), 2, 3, key=key, spread=0.6)
        model = v.in_float64(ow.Model(cell, ow.Linear(3, 2)))
        head = jax.random.normal(jax.random.fold_in(key, 2), (2, 3))
        model = jax.tree.map(lambda a: head if a.shape == (2, 3) and not a.any() else a, model)
        xs = jax.random.normal(jax.random.fold_in(key, 1), (STEPS, 2))
        cotangent = jnp.asarray([1.0, -0.5])
        found = ow.horizon(rule, model, xs, AGES, decay=decay, cotangent=cotangent)
        uses = by_hand(model, xs, decay, cotangent, cut)
        whole = uses.sum(0)
        np.testing.assert_allclose(ravel_pytree(found.gradient)[0], whole, rtol=1e-9, atol=1e-12)
        wanted = [np.linalg.norm(uses[: STEPS - age].sum(0)) / np.linalg.norm(whole) for age in AGES]
        np.testing.assert_allclose(found.beyond, wanted, rtol=1e-8, atol=1e-12)
        if cut is None:
            assert found.beyond[0] > 0.05
        elif decay == 0:
            assert (np.asarray(found.beyond)[np.asarray(AGES) >= cut] == 0).all()


def test_what_is_left_of_a_state(key):
    with jax.enable_x64(True):
        model = v.in_float64(ow.Model(ow.Columns(ow.MinGRUGates(), 2, 3, key=key, spread=0.6), ow.Linear(3)))
        xs = jax.random.normal(jax.random.fold_in(key, 1), (STEPS, 2))
        found = ow.horizon(ow.Columnwise(), model, xs, AGES)
        carry = model.init()
        carries = [carry, *[carry := model.cell(carry, x) for x in xs]]

        def later(flat, age):
            now = carries[STEPS - age]
            now = now._replace(hidden=unravel(flat))
            for x in xs[STEPS - age :]:
                now = model.cell(now, x)
            return ravel_pytree(now.hidden)[0]

        for age, left in zip(AGES, found.left, strict=True):
            flat, unravel = ravel_pytree(carries[STEPS - age].hidden)
            jacobian = jax.jacrev(lambda h, age=age: later(h, age))(flat)
            np.testing.assert_allclose(left, np.linalg.norm(jacobian, 2), rtol=1e-9)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"xs": jnp.ones((4, 3))}, r"xs must have shape \(steps, 2\), one at least, got \(4, 3\)"),
        ({"xs": jnp.ones((0, 2))}, "one at least"),
        ({"ages": [0]}, "ages must be whole numbers of 1 to 4, the steps of xs"),
        ({"ages": [5]}, r"got \[5\]"),
        ({"ages": []}, "ages must be"),
        ({"ages": [1.5]}, "ages must be whole numbers"),
        ({"decay": 1.2}, r"decay must be in \[0, 1\], got 1.2"),
    ],
)
def test_what_it_refuses(changed, match, key):
    given = {"xs": jnp.ones((4, 2)), "ages": [1]} | changed
    model = ow.Model(ow.Columns(ow.GRUGates(), 2, 3, key=key), ow.Linear(3))
    with pytest.raises(ValueError, match=match):
        ow.horizon(ow.Columnwise(), model, **given)
