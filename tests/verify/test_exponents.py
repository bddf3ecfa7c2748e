"""The benchmark of exponents: what it says of memory and work, from shapes alone, and that it notices what is off."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax

import onward as ow
from onward.verify.costs import multiply_adds

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("exponents", ROOT / "benchmarks" / "exponents.py")
    module = sys.modules["exponents"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["exponents"]


def state_floats(bench, name, **changes):
    start, _ = bench.steps_of(name, replace(bench.At(), **changes))
    return bench.floats_in(eqx.filter_eval_shape(start).credit)


@pytest.mark.parametrize(
    ("name", "variable", "sizes", "limit"),
    [
        ("RTRL", "n", (128, 256, 512), 3),
        ("SnAp(2) full", "n", (128, 256, 512), 3),
        ("SnAp(1)", "n", (256, 512, 1024), 2),
        ("RFLO", "n", (256, 512, 1024), 2),
        ("UORO", "n", (256, 512, 1024), 2),
        ("SnAp(2) sparse", "n", (16, 32, 64), 1),
        ("Columnwise", "n", (64, 128, 256), 1),
        ("Columnwise, live stage", "n", (64, 128, 256), 1),
        ("TBPTT(k)", "n", (64, 128, 256), 1),
        ("TBPTT(k)", "k", (16, 32, 64), 1),
        ("UORO", "seeds", (2, 8, 64), 1),
        ("Columnwise", "seeds", (2, 8, 64), 1),
    ],
)
def test_memory_grows_as_the_theory_says(bench, name, variable, sizes, limit):
    floats = [state_floats(bench, name, **{variable: size}) for size in sizes]
    assert bench.exponents(sizes, floats)[1] == pytest.approx(limit, abs=0.1)
    formula = [bench.theory_of(name, variable, replace(bench.At(), **{variable: size}))["floats"] for size in sizes]
    assert floats == pytest.approx(formula, rel=0.1)


def judged(bench, name, variable, sizes, **changes):
    where = [replace(bench.At(**changes), **{variable: size}) for size in sizes]
    found = {"rule": name, "variable": variable, "sizes": list(sizes)}
    for kind, of in (("theory ", bench.theory_of), ("", bench.shapes_of)):
        each = [of(name, variable, s) for s in where]
        found |= {f"{kind}{what}": [e[what] for e in each] for what in ("work", "floats")}
    return bench.judge(found)


@pytest.mark.parametrize("name", ["RTRL", "SnAp(1)", "UORO", "TBPTT(k)", "Columnwise"])
def test_a_longer_stream_takes_no_more_memory(bench, name):
    found = judged(bench, name, "T", (64, 4096), n=8)
    assert found["ok"] == {"work": True, "floats": True}
    assert found["exponents"]["floats"][1] == 0
    assert found["exponents"]["work"][1] == pytest.approx(1)


def test_backpropagation_takes_memory_by_the_step(bench):
    found = judged(bench, "BPTT", "T", (32, 128), batch=2)
    assert found["exponents"]["floats"][1] == pytest.approx(1, abs=0.05)
    assert found["exponents"]["work"][1] == pytest.approx(1, abs=0.05)


def test_memory_that_grows_with_the_stream_is_noticed(bench, monkeypatch):
    """A window as long as the stream, which says that it is SnAp(1)."""
    honest = bench.parts

    def planted(name, s):
        learner, model, example = honest(name, s)
        return ow.Online(ow.TBPTT(s.T), learner.objective, optax.sgd(1.0), 1e-5), model, example

    monkeypatch.setattr(bench, "parts", planted)
    found = judged(bench, "SnAp(1)", "T", (16, 64), n=8)
    assert not found["ok"]["floats"]
    assert found["exponents"]["floats"][1] > 0.5


def test_a_wrong_exponent_is_noticed(bench, monkeypatch):
    """RTRL, which says that it is SnAp(1): a power of n too many in memory, two in work."""
    honest = bench.parts
    monkeypatch.setattr(bench, "parts", lambda name, s: honest("RTRL", s))
    found = judged(bench, "SnAp(1)", "n", (8, 16, 32))
    assert found["ok"] == {"work": False, "floats": False}


def test_a_wrong_constant_of_memory_is_noticed(bench, monkeypatch):
    rule = bench.RULES["UORO"]
    assert judged(bench, "UORO", "n", (8, 16, 32))["ok"]["floats"]
    monkeypatch.setitem(bench.RULES, "UORO", replace(rule, floats=lambda s: 2 * rule.floats(s)))
    assert not judged(bench, "UORO", "n", (8, 16, 32))["ok"]["floats"]


def test_time_is_judged(bench):
    found = {"rule": "RTRL", "variable": "n", "sizes": [1, 2, 4]}
    found |= {what: [1.0, 8.0, 64.0] for what in ("floats", "theory floats")}
    found |= {what: [1.0, 16.0, 256.0] for what in ("work", "theory work")}
    assert bench.judge({**found, "time": [1.0, 13.0, 169.0]})["ok"]["time"]  # 2^3.7
    assert not bench.judge({**found, "time": [1.0, 8.0, 64.0]})["ok"]["time"]
    assert not bench.judge({**found, "time": [1.0, 32.0, 1024.0]})["ok"]["time"]
    # Runs side by side may share what a step costs at least, and no more.
    runs = {**found, "rule": "UORO", "variable": "seeds", "work": [1.0, 2.0, 4.0], "theory work": [1.0, 2.0, 4.0]}
    assert bench.judge({**runs, "time": [1.0, 1.1, 1.2]})["ok"]["time"]
    assert not bench.judge({**runs, "time": [1.0, 3.0, 9.0]})["ok"]["time"]


def test_loops_count_as_often_as_they_run(bench):
    def program(a, b):
        return lax.scan(lambda c, _: (jnp.tanh(a @ c), c), b, length=10)

    counted = jax.make_jaxpr(program)(jnp.ones((4, 4)), jnp.ones(4)).jaxpr
    assert multiply_adds(counted) == 10 * (4 * 4 + 4 / 2)
    assert bench.stacked(counted) == 10 * 4


@pytest.mark.parametrize("name", ["SnAp(1)", "UORO", "Columnwise"])
def test_the_count_agrees_with_xla_where_there_is_no_loop(bench, name):
    """With its count of the program as it was handed over; after its optimiser some is done twice."""
    _, step = bench.steps_of(name, bench.At())
    state, program = bench.traced(name, "n", bench.At())
    dynamic, static = eqx.partition(state, lambda a: isinstance(a, jax.ShapeDtypeStruct))
    after = lambda dynamic, t: eqx.filter(step(eqx.combine(dynamic, static), t), eqx.is_array)
    analysis = jax.jit(after).lower(dynamic, jnp.asarray(0)).cost_analysis()
    assert multiply_adds(program) == pytest.approx(analysis["flops"] / 2, rel=0.15)


def test_the_page_has_every_row(bench):
    page = (ROOT / "docs" / "costs.md").read_text()
    for variable in bench.TITLES:
        for name, (_, sizes) in bench.plan(variable).items():
            assert f"| {variable} | {name} | {sizes[0]}-{sizes[-1]} |" in page
