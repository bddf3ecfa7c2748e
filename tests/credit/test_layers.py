"""Columns upon columns: exact block-triangular traces, and errors sent down through the present step."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
import onward.verify as v
from onward.verify.gradients import quick

KINDS = (ow.RTUGates(), ow.LSTMGates(), ow.MinGRUGates(), ow.GRUGates())
MOMENTS = ow.Moments(rate=0.9)


def stack(depth, key, reads="last", normal=None):
    cells, inputs = [], 3
    for i in range(depth):
        cell = ow.Columns(
            KINDS[i],
            inputs,
            2 + i,
            key=jax.random.fold_in(key, i),
            spread=0.8,
            normalise_inputs=normal,
            normalise_features=normal,
        )
        cells.append(cell)
        inputs = cell.feature_count
    return ow.Stack(*cells, reads=reads)


def data(cell, key, steps=9, streams=2):
    a, b = jax.random.split(key)
    xs = jax.random.normal(a, (streams, steps, 3))
    starts = jnp.zeros((streams, steps), bool).at[1, 4].set(True)
    return xs, starts, jax.random.normal(b, (streams, steps, cell.feature_count))


def of_rule(cell, rule, xs, starts, cotangents, carry=None):
    one = lambda x, s, c: v.stepwise_gradient(cell, rule, cell.init() if carry is None else carry, x, s, c)
    return quick(jax.vmap(one))(xs, starts, cotangents)


@pytest.mark.parametrize("normal", [None, MOMENTS], ids=["plain", "normalised"])
@pytest.mark.parametrize("reads", ["last", "all"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_columnwise_on_a_stack_is_backpropagation(depth, reads, normal, key):
    """Four kinds of columns upon one another, with resets, normalised and not; a vmap over streams besides."""
    with jax.enable_x64(True):
        cell = v.in_float64(stack(depth, key, reads, normal))
        given = data(cell, key)
        found = of_rule(cell, ow.Columnwise(), *given)
        exact = quick(jax.vmap(lambda x, s, c: v.reference_gradient(cell, cell.init(), x, s, c)))(*given)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12 * float(np.abs(b).max()))


@pytest.mark.parametrize("reads", ["last", "all"])
def test_layerwise_is_exact_where_it_says(reads, key):
    """For the last layer's parameters always, for the others at the first step; below that it differs."""
    with jax.enable_x64(True):
        cell = v.in_float64(stack(3, key, reads))
        xs, starts, cotangents = data(cell, key)
        warm = cell(cell(cell.init(), xs[0, 0]), xs[0, 1])
        for steps in (1, 9):
            given = (xs[:, :steps], starts[:, :steps], cotangents[:, :steps])
            found, exact = (of_rule(cell, rule, *given, warm) for rule in (ow.Layerwise(), ow.Columnwise()))
            close = [v.compare(a, b).relative_error for a, b in zip(found.cells, exact.cells, strict=True)]
            assert close[-1] < 1e-12
            assert max(close) < 1e-12 if steps == 1 else min(close[:-1]) > 1e-2


def test_layerwise_is_the_present_steps_chain_rule(key):
    """Against a gradient written out by hand: traces of each layer, and the layers above differentiated at this step."""
    with jax.enable_x64(True):
        cell = v.in_float64(stack(2, key))
        below, above = cell.cells
        xs, _, cotangents = data(cell, key)
        low, high = below.init(), above.init()
        rule, credit = ow.Columnwise(), ow.Columnwise().init(below, xs[0, 0])
        total = jax.tree.map(jnp.zeros_like, eqx.filter(below, below.trainable()))
        for x, c in zip(xs[0], cotangents[0], strict=True):
            low, credit = rule.advance(below, low, x, credit)
            answer = lambda h, high=high, stats=low.stats: above.features(
                above(high, below.features(ow.Carry(h, stats)))
            )
            error = jax.vjp(answer, low.hidden)[1](c)[0]
            total = jax.tree.map(jnp.add, total, rule.pull(below, credit, error))
            high = above(high, below.features(low))
        found = v.stepwise_gradient(
            cell, ow.Layerwise(), cell.init(), xs[0], jnp.zeros(len(xs[0]), bool), cotangents[0]
        )
    for a, b in zip(jax.tree.leaves(found.cells[0]), jax.tree.leaves(total), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_memory_of_a_stack_is_what_the_docs_say(key):
    cell = stack(3, key)
    sizes = [sum(a.size for a in jax.tree.leaves(c.parameters)) for c in cell.cells]
    own = sum(c.gates.states * p for c, p in zip(cell.cells, sizes, strict=True))
    across = sum(cell.cells[i].gates.states * cell.cells[i].columns * sizes[k] for i in range(3) for k in range(i))
    assert v.costs.state_floats(ow.Columnwise(), cell) == own + across
    with pytest.raises(MemoryError, match="Columnwise would need"):
        ow.Columnwise(1000).init(cell, jnp.ones(3))


def test_what_layers_refuse(key):
    one = ow.Stack(ow.GRU(3, 4, key=key))
    for cell, error, said in (
        (ow.GRU(3, 4, key=key), TypeError, "Layerwise is for a Stack of layers, got Dense"),
        (one, ValueError, "Layerwise: the Stack has one layer"),
        (ow.Stack(ow.GRU(3, 4, key=key), ow.Hybrid(ow.GRU(4, 4, key=key))), TypeError, "cannot draw the samples"),
    ):
        with pytest.raises(error, match=said):
            ow.Layerwise().init(cell, jnp.ones(3))
    with pytest.raises(TypeError, match=r"Columnwise needs columns .* got Dense"):
        ow.Layerwise(ow.Columnwise()).init(ow.Stack(stack(1, key), ow.GRU(4, 4, key=key)), jnp.ones(3))
    with pytest.raises(ValueError, match="Stack: reads must be 'last' or 'all', got 'first'"):
        ow.Stack(ow.GRU(3, 4, key=key), reads="first")


@pytest.mark.parametrize(
    ("mask", "n", "exact"), [("chain", 4, True), ("chain", 3, False), ("own", 1, True), ("ring", 2, False)]
)
def test_snap_claims_exact_where_no_step_more_reaches_anything_new(mask, n, exact, key):
    eye = np.eye(4, dtype=bool)
    masks = {"chain": eye | np.eye(4, k=1, dtype=bool), "own": eye, "ring": eye | np.roll(eye, 1, 0)}
    with jax.enable_x64(True):
        cell = v.in_float64(ow.GRU(3, 4, key=key, mask=masks[mask]))
        given = data(cell, key)
        found, true = (of_rule(cell, rule, *given) for rule in (ow.SnAp(n), ow.RTRL()))
    assert (v.compare(found, true).relative_error < 1e-12) is exact
    assert ow.SnAp(n).claim(cell, 9) == ("exact" if exact else "biased")


@pytest.mark.parametrize("make", [lambda k: ow.GRU(3, 4, key=k), lambda k: ow.Columns(ow.RTUGates(), 3, 4, key=k)])
def test_snap_0_is_the_derivative_of_the_present_step(make, key):
    with jax.enable_x64(True):
        cell = v.in_float64(make(key))
        given = data(cell, key)
        found, same = (of_rule(cell, rule, *given) for rule in (ow.SnAp(0), ow.TBPTT(1)))
        carry, total = cell.init(), jax.tree.map(jnp.zeros_like, eqx.filter(cell, cell.trainable()))
        for x, c in zip(given[0][0], given[2][0], strict=True):
            parameters, rest = eqx.partition(cell, cell.trainable())
            step = lambda p, carry=carry, x=x, rest=rest: eqx.combine(p, rest)(carry, x)
            answer = lambda p, rest=rest, step=step: eqx.combine(p, rest).features(step(p))
            total = jax.tree.map(jnp.add, total, jax.vjp(answer, parameters)[1](c)[0])
            carry = cell(carry, x)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(same), strict=True))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(total), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-9, atol=1e-14)


def test_cells_side_by_side_are_exact_column_by_column(key):
    """Of two kinds, one of them a cascade, with moments; against BPTT, and cells of different widths are refused."""
    with jax.enable_x64(True):
        cascade = ow.Cascade(ow.Columns(ow.LSTMGates(), 3, 2, key=key, spread=0.5))
        grown, _ = cascade.grow(cascade.init(), key=key)
        other = ow.Columns(ow.LRUGates(), 3, 4, key=key, spread=0.5, normalise_features=MOMENTS)
        cell = v.in_float64(ow.Parallel(grown, other))
        given = data(cell, key)
        found = of_rule(cell, ow.Columnwise(), *given)
        exact = quick(jax.vmap(lambda x, s, c: v.reference_gradient(cell, cell.init(), x, s, c)))(*given)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12 * float(np.abs(b).max()))
    with pytest.raises(ValueError, match=r"these read \[3, 2\] inputs"):
        ow.Parallel(other, ow.Columns(ow.GRUGates(), 2, 3, key=key))
    with pytest.raises(ValueError, match="at least one cell"):
        ow.Parallel()
    with pytest.raises(TypeError, match=r"Columnwise needs columns .* got GRU|got Dense"):
        ow.Columnwise().init(ow.Parallel(other, ow.GRU(3, 2, key=key)), jnp.zeros(3))
