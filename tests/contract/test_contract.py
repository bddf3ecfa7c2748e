"""What holds for every public part."""

import dataclasses
import functools
import inspect
import itertools
import math
import typing

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from contract import zoo
from onward.cells.base import AbstractColumnar
from onward.trees import parameter_count, trainable
from onward.verify.targets import filled

# Tiny programs that run once: compile them fast rather than well.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
ROWS = {**zoo.GATES, **zoo.CELLS, **zoo.HEADS, **zoo.CREDIT, **zoo.OBJECTIVES}
ROWS |= {**zoo.TASKS, **zoo.LEARNERS, **zoo.INVERSES, **zoo.OTHERS}


def public():
    return {n: getattr(ow, n) for n in ow.__all__}


def test_every_public_name_has_a_row_and_a_docstring():
    for name, value in public().items():
        if name.startswith("Abstract"):
            assert inspect.isabstract(value), f"{name} can be built"
        else:
            known = name in ROWS or name in zoo.PLAIN or inspect.ismodule(value)
            assert known, f"{name} has no row in tests/contract/zoo.py"
        assert inspect.getdoc(value), f"{name} has no docstring"


def test_every_row_is_public():
    assert {name.split("-")[0] for name in ROWS} <= set(public())


def test_parts_are_final_or_abstract():
    for name, value in public().items():
        if inspect.isclass(value) and issubclass(value, eqx.Module):
            bases = [b for b in value.__mro__[1:] if issubclass(b, eqx.Module) and b is not eqx.Module]
            assert all(b.__name__.startswith("Abstract") for b in bases), f"{name} inherits from a final class"


def test_only_arrays_and_step_sizes_are_leaves():
    """A word, a flag or a number among the leaves would be traced, or end a compiled call that is not equinox's.

    Step sizes alone may be traced: `Loop` runs many side by side.
    """
    modules = [value for value in public().values() if inspect.isclass(value) and issubclass(value, eqx.Module)]
    simple = [bool, int, float, str, typing.Literal]
    for kind in {base for value in modules for base in value.__mro__ if base.__module__.startswith("onward.")}:
        if not dataclasses.is_dataclass(kind):
            continue
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            parts = [*typing.get_args(hints[field.name]), hints[field.name], typing.get_origin(hints[field.name])]
            traced = not field.metadata.get("static") and not field.name.endswith("step_size")
            assert not (traced and any(part in simple for part in parts)), (
                f"{kind.__name__}.{field.name} must be static"
            )
    for name, make in ROWS.items():
        part = make(4) if name in zoo.HEADS else make()
        odd = [leaf for leaf in jax.tree.leaves(part) if not (eqx.is_array(leaf) or type(leaf) is float)]
        assert not odd, name


@pytest.mark.parametrize("name", zoo.CELLS)
def test_cell(name, key):
    cell = zoo.CELLS[name]()
    carry = cell.init()
    xs = jax.random.normal(key, (6, cell.inputs))
    after, features = quick(
        lambda c: jax.lax.scan(lambda c, x: ((d := cell(c, x, key=key)), cell.features(d, key=key)), c, xs)
    )(carry)
    assert jax.tree.structure(after) == jax.tree.structure(carry)
    assert features.shape == (6, cell.feature_count)
    assert np.isfinite(features).all()
    assert float(jnp.abs(features[-1]).max()) > 0
    assert jax.tree.structure(trainable(cell)) == jax.tree.structure(cell)
    assert (parameter_count(cell) > 0) == (name not in zoo.WITHOUT_PARAMETERS)
    for width in (1, cell.inputs + 1):
        with pytest.raises(ValueError, match=rf"reads {cell.inputs} inputs, the observation has shape \({width},\)"):
            cell(carry, jnp.ones(width), key=key)
    if not cell.grows:
        with pytest.raises(TypeError, match="only a Cascade grows"):
            cell.grow(carry, key=key)


@pytest.mark.parametrize("name", zoo.CELLS)
def test_no_gradient_flows_through_statistics(name, key):
    cell = zoo.CELLS[name]()
    xs = jax.random.normal(key, (4, cell.inputs))
    carry = cell.init()

    def total(cell):
        c = carry
        for x in xs:
            c = cell(c, x, key=key)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(c.stats)) + 0.0

    gradient = eqx.filter_grad(total)(cell)
    assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", zoo.HEADS)
def test_head(name, key):
    head = filled(lambda: zoo.HEADS[name](4))
    features = jax.random.normal(key, (4,) if head.trajectories is None else (head.trajectories, 4))
    prediction = head(features)
    y = head.sample(prediction, key=key)
    assert head.log_prob(prediction, y).shape == ()
    assert np.isfinite(head.log_prob(prediction, y))
    assert np.isfinite(head.mean(prediction)).all()
    grown = head.grow(6)
    wider = jnp.concatenate([features, jnp.ones((*features.shape[:-1], 2))], -1)
    np.testing.assert_allclose(grown(wider), prediction, rtol=1e-5, atol=1e-6)
    assert type(grown) is type(head)
    with pytest.raises(ValueError, match="cannot grow"):
        head.grow(3)


def is_columns(cell):
    """Columns alone, a stack of them, or several side by side."""
    layers = cell.cells if isinstance(cell, ow.Stack | ow.Parallel) else (cell,)
    return isinstance(cell, AbstractColumnar) or all(isinstance(layer, ow.Columns) for layer in layers)


def is_wired(cell):
    """Made of dense layers or of columns, whose wiring can be read."""
    dense = isinstance(cell, ow.Stack) and all(isinstance(layer, ow.Dense) for layer in cell.cells)
    return isinstance(cell, ow.Dense | AbstractColumnar) or dense


REFUSED = {
    "Columnwise": (is_columns, "use RTRL"),
    "Layerwise": (lambda cell: isinstance(cell, ow.Stack), "is for a Stack of layers"),
    "RFLO": (lambda cell: isinstance(cell, ow.Dense), "columns have the exact Columnwise"),
    "TBPTT": (lambda cell: not isinstance(cell, ow.Hybrid), "cannot draw the same samples"),
    "SnAp": (is_wired, "use RTRL, UORO or TBPTT"),
    "SnAp-2": (is_wired, "use RTRL, UORO or TBPTT"),
}


# Rules that see no more of a cell than its step, and a cell of each structure: other cells meet them among the interfaces.
GENERIC = ("RTRL", "UORO", "UORO-nobacktrack", "TBPTT")
STRUCTURES = ("Columns", "Cascade-grown", "GRU", "Elman-sparse", "Hybrid", "Echo", "Skip", "Stack-columns", "Parallel")


def cells_and_rules():
    for name, rule in itertools.product(zoo.CELLS, zoo.CREDIT):
        late = rule in GENERIC and name not in STRUCTURES
        yield pytest.param(name, rule, marks=pytest.mark.interfaces if late else [], id=f"{name}-{rule}")


@pytest.mark.parametrize(("name", "rule"), [*cells_and_rules()])
def test_credit(name, rule, key):
    cell, credit = zoo.CELLS[name](), zoo.CREDIT[rule]()
    x = jax.random.normal(key, (cell.inputs,))
    works, match = REFUSED.get(rule, (lambda cell: True, ""))
    if name in zoo.WITHOUT_PARAMETERS:  # there is nothing to assign credit to
        works, match = (lambda cell: False), f"no array of this {name} is trainable" + (f"|{match}" if match else "")
    if name == "Skip-dense" and rule in ("Columnwise", "SnAp", "SnAp-2"):  # a cell of columns only over columns
        works, match = (lambda cell: False), "use RTRL"
    if not works(cell):
        with pytest.raises(TypeError, match=match):
            credit.init(cell, x, key=key)
        return
    state = credit.init(cell, x, key=key)
    carry, after = quick(lambda *a: credit.advance(*a, key=key))(cell, cell.init(), x, state)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), state)
    plain = quick(lambda c, x: cell(c, x, key=key))(cell.init(), x)
    for a, b in zip(jax.tree.leaves(carry), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    cotangent = jax.tree.map(lambda h: jax.random.normal(key, h.shape), carry.hidden)
    gradient = quick(credit.pull)(cell, after, cotangent)
    assert jax.tree.structure(gradient) == jax.tree.structure(eqx.filter(cell, cell.trainable()))
    assert any(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(gradient))
    assert credit.kind in ("exact", "unbiased", "biased")
    assert credit.claim(cell, 1) in (credit.kind, "exact")


@pytest.mark.parametrize("objective", zoo.OBJECTIVES)
@pytest.mark.parametrize(
    ("name", "rule"),
    [("Columns", "Columnwise"), ("Cascade-grown", "Columnwise"), ("GRU", "SnAp"), ("Stack", "RTRL"), ("LSTM", "UORO")],
)
def test_every_objective_learns(name, rule, objective, key):
    import optax

    cell = zoo.CELLS[name]()
    learner = ow.Online(zoo.CREDIT[rule](), zoo.OBJECTIVES[objective](), optax.sgd(0.1))
    example = ow.Step(jnp.ones(cell.inputs), jnp.array(1.0), jnp.ones(()), jnp.asarray(False), jnp.array(1.0))
    head = ow.Linear(cell.feature_count, zoo.OUTPUTS.get(objective))
    state = learner.init(ow.Model(cell, head), example, key=key)
    step = quick(learner.step)
    for _ in range(4):
        state, info = step(state, example)
    assert np.isfinite(info.loss)
    assert float(jnp.abs(state.model.head.bias).max()) > 0
    before, after = (jax.tree.leaves(eqx.filter(c, c.trainable())) for c in (cell, state.model.cell))
    assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.interfaces
@pytest.mark.parametrize("objective", zoo.OUTPUTS)
def test_every_objective_that_acts_fits_every_rule(objective, key):
    """By shapes: what a step gives back is what it took, and what was chosen is one of the actions."""
    fits = {"Columnwise": "Columns", "Layerwise": "Stack-columns"}
    for name, rule in zoo.CREDIT.items():
        cell = zoo.CELLS[fits.get(name, "GRU")]()
        model = ow.Model(cell, ow.Linear(cell.feature_count, zoo.OUTPUTS[objective]))
        learner = ow.Online(rule(), zoo.OBJECTIVES[objective](), ow.rms())
        example = ow.Step(jnp.ones(3), jnp.ones(()), jnp.ones(()), jnp.asarray(False), None, jnp.ones(()))
        state = eqx.filter_eval_shape(lambda k, m=model, lr=learner, e=example: lr.init(m, e, key=k), key)
        after, info = eqx.filter_eval_shape(learner.step, state, example)
        assert eqx.filter(after, eqx.is_array_like) == eqx.filter(state, eqx.is_array_like), name
        actions = learner.actions(model)
        assert info.action.shape == (() if isinstance(actions, int) else actions)
        assert info.delta.shape == info.loss.shape == ()


@pytest.mark.parametrize("name", zoo.TASKS)
def test_task(name, key):
    task = zoo.TASKS[name]()
    state = task.init(key)
    emit = quick(lambda s: task.emit(s))  # a task may hold arrays, and a method is then no key of jit's cache
    after, example = emit(state)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), state)
    _, same = emit(state)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(example), jax.tree.leaves(same), strict=True))
    xs = example.x if isinstance(example, ow.Step) else example.xs
    assert xs.shape[-1] == task.inputs
    other, _ = emit(task.init(jax.random.key(99)))
    if task.actions is not None:
        shape = () if isinstance(task.actions, int) else task.actions
        action = jnp.zeros((*example.reset.shape, *shape), int if isinstance(task.actions, int) else float)
        moved = quick(lambda s: task.act(s, action))(after)
        assert jax.tree.map(lambda a: (a.shape, a.dtype), moved) == jax.tree.map(lambda a: (a.shape, a.dtype), after)
        assert not all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (after, moved)), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(other), strict=True))


@pytest.mark.parametrize("name", zoo.GATES)
def test_gates_derivatives_are_those_of_the_program(name, key):
    gates = zoo.GATES[name]()
    a = tuple(jax.random.normal(jax.random.fold_in(key, i), (5,)) for i in range(gates.slots))
    s = tuple(jax.random.normal(jax.random.fold_in(key, 9 + i), (5,)) for i in range(gates.states))
    new, derivatives = gates.jacobian(a, s)
    for x, y in zip(new, gates(a, s), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)
    assert len(derivatives) == gates.states
    for i, (by_slot, by_state, by_new) in enumerate(derivatives):
        for k, found in enumerate((*by_slot, *by_state, *by_new)):
            dense = jax.jacrev(
                lambda *z, i=i: gates.next_state(
                    i, z[: gates.slots], z[gates.slots : gates.slots + gates.states], z[gates.slots + gates.states :]
                ),
                argnums=k,
            )(*a, *s, *new[:i])
            assert np.allclose(dense, np.diag(np.diag(dense))), "gates mix units"
            assert np.allclose(np.diag(dense), 0 if found is None else found, atol=1e-6)


@pytest.mark.parametrize("name", zoo.GATES)
def test_units_that_say_so_contract(name, key):
    """No small change of the states grows, at any preactivations and states; the others can make one grow."""
    gates = zoo.GATES[name]()
    draw = lambda i, n: tuple(2 * jax.random.normal(jax.random.fold_in(key, i), (n, 500)))
    a, s = draw(0, gates.slots), draw(1, gates.states)

    def change(weight):
        def step(*states):
            moved = list(a)
            # Through the unit's own h, where it reads that.
            for slot in gates.recurrent_slots:
                moved[slot] = moved[slot] + weight * states[-1]
            return gates(tuple(moved), states)

        rows = [
            jax.jvp(step, s, tuple(jnp.full(500, float(j == i)) for j in range(gates.states)))[1]
            for i in range(gates.states)
        ]
        return np.linalg.norm(np.moveaxis(np.asarray(rows), -1, 0), 2, axis=(1, 2)).max()

    if gates.contracting:
        assert change(0.0) <= 1 + 1e-5
        assert not gates.recurrent_slots
    else:
        assert max(change(0.0), change(5.0)) > 1


def test_gates_hold_no_arrays():
    class Leaky(ow.ElmanGates):
        rate: jax.Array | float | tuple[float, ...] = ()

    class Constant(ow.ElmanGates):
        rate: float = eqx.field(default=0.5, static=True)

    for rate in (jnp.ones(4), np.ones(4), 0.5, (0.5, 1.0)):
        what = "a number" if isinstance(rate, float | tuple) else "an array"
        match = rf"Leaky: field 'rate' holds {what}.*rate: float = eqx.field\(static=True\)"
        with pytest.raises(TypeError, match=match):
            ow.Columns(Leaky(rate=rate), 3, 4, key=zoo.KEY)
    assert ow.Columns(Constant(), 3, 4, key=zoo.KEY).gates.rate == 0.5


def test_errors_of_construction(key):
    for build, match in (
        (lambda: ow.Columns(ow.LSTMGates(), 3, 0, key=key), "columns must be a whole number of at least 1"),
        (lambda: ow.TDLambda(discount=1.0), "discount must be in"),
        (lambda: ow.Moments(rate=1.0), "rate must be in"),
        (lambda: ow.TracePatterning(isi=(5, 4)), "isi must be"),
        (lambda: ow.NoisyPatterning(noise=2.0), "noise must be in"),
        (lambda: ow.rms(decay=1.0), "decay must be in"),
    ):
        with pytest.raises(ValueError, match=match):
            build()
    assert math.isinf(ow.Moments().prior)


@pytest.mark.parametrize("name", ROWS)
def test_a_part_says_what_it_is_made_of(name):
    """Every field, at its default too, but for limits of memory."""
    part = ROWS[name](4) if name in zoo.HEADS else ROWS[name]()
    said = repr(part)
    assert said.startswith(type(part).__name__)
    for field in dataclasses.fields(part):
        assert (f"{field.name}=" in said) == (field.name != "memory_limit"), field.name
