"""What all parts have in common: the list of their names, and what is said where one is named wrongly or not made."""

import jax
import optax
import pytest

import onward as ow
from onward.verify.costs import cost_of, multiply_adds


@pytest.mark.parametrize(
    ("wrong", "part"), [("Gru", "GRU"), ("LSTMs", "LSTM"), ("Snap", "SnAp"), ("TDlambda", "TDLambda")]
)
def test_a_misspelt_part_is_answered_with_the_nearest(wrong, part):
    with pytest.raises(AttributeError, match=f"onward has no {wrong}: did you mean {part}[?]"):
        getattr(ow, wrong)


def test_a_name_like_no_other_is_answered_with_where_the_list_is():
    with pytest.raises(AttributeError, match=r"onward has no zzzzzz; dir[(]onward[)] lists its parts"):
        ow.zzzzzz  # noqa: B018
    assert not hasattr(ow, "__wrapped__")


MADE = {
    "credit": lambda: ow.Online(ow.RTRL, ow.Supervised(), optax.sgd(1.0), 0.1),
    "objective": lambda: ow.Online(ow.RTRL(), ow.Supervised, optax.sgd(1.0), 0.1),
    "cell": lambda: ow.Model(ow.Dense, ow.Linear(3)),
    "head": lambda: ow.Model(ow.GRU(2, 3, key=jax.random.key(0)), ow.Linear),
    "gates": lambda: ow.Dense(ow.GRUGates, 2, 3, key=jax.random.key(0)),
}


@pytest.mark.parametrize("field", MADE)
def test_a_class_in_place_of_a_part_is_named(field):
    with pytest.raises(TypeError, match=rf"{field} is the class \w+, not a part made from it: write \w+[(]"):
        MADE[field]()


def test_multiply_adds_count_a_loop_as_often_as_it_runs():
    a = jax.numpy.ones((3, 3))
    turn = lambda n: lambda b: jax.lax.fori_loop(0, n, lambda i, b: a @ b, b)
    counted = [multiply_adds(jax.make_jaxpr(turn(n))(a).jaxpr) for n in (1, 7)]
    assert counted == [27, 7 * 27]


@pytest.mark.parametrize("gates", [ow.GRUGates(), ow.LSTMGates()], ids=lambda g: type(g).__name__)
def test_the_work_of_rtrl_is_that_of_its_equation(gates):
    """Each float of the influence is a sum over the units that a unit reads, and little else is done."""
    cell = ow.Dense(gates, 8, 16, key=jax.random.key(0))
    spent = cost_of(ow.RTRL(), cell, "")
    floats = spent.parameters * 16 * gates.states
    assert spent.floats == floats
    assert 16 * floats < spent.multiply_adds < 1.5 * 16 * floats
