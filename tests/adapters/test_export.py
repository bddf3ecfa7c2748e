"""An exported step runs in a process without onward, and gives the same numbers to the bit."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward.verify import in_float64

pytest.importorskip("flatbuffers", reason='flatbuffers is not installed: pip install "onward[export]"')
from onward.adapters.export import export_step

pytestmark = [pytest.mark.interfaces, pytest.mark.usefixtures("compile_fast")]

KEY = jax.random.key(0)
XS = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
# What another program does with the bytes: JAX and NumPy alone.
ELSEWHERE = """
import sys
sys.modules["onward"] = sys.modules["equinox"] = None
import jax, numpy as np
folder = sys.argv[1]
program = jax.export.deserialize(bytearray(open(f"{folder}/step.bin", "rb").read()))
carry = [np.zeros(a.shape, a.dtype) for a in program.in_avals[2:]]
said = []
for t, x in enumerate(np.load(f"{folder}/xs.npy")):
    prediction, *carry = program.call(x, t in (0, 20), *carry)
    said.append(np.asarray(prediction))
np.save(f"{folder}/said.npy", np.stack(said))
"""


def columns(**options):
    options = {name: ow.Moments(0.9) for name in ("normalise_inputs", "normalise_features")} | options
    return ow.Columns(ow.LSTMGates(), 2, 4, key=KEY, spread=0.7, **options)


def fitted(cell, head, rule, ys):
    learner = ow.Online(rule, ow.Supervised(), optax.adam(0.01))
    return learner, ow.fit(learner, ow.Model(cell, head), XS, ys, key=KEY)[0]


def cascade():
    cell = ow.Cascade(columns())
    return cell.grow(cell.init(), key=KEY)[0]


MODELS = {
    "columns with running moments": lambda: fitted(columns(), ow.Linear(4), ow.Columnwise(), XS[:, 0]),
    "a cascade": lambda: fitted(cascade(), ow.Linear(8, 2), ow.Columnwise(), XS),
    "a dense layer and classes": lambda: fitted(
        ow.GRU(2, 5, key=KEY), ow.Categorical(5, 3), ow.SnAp(1), np.arange(30) % 3
    ),
    "a mixture": lambda: fitted(ow.Elman(2, 5, key=KEY), ow.Mixture(5, 2), ow.RTRL(), XS[:, 1]),
}


def here(model, carry, xs):
    """The predictions in this process, begun anew at step 20."""
    step, now, said = eqx.filter_jit(model), carry, []
    for t, x in enumerate(xs):
        now, prediction = step(carry if t == 20 else now, jnp.asarray(x))
        said.append(np.asarray(prediction))
    return np.stack(said)


@pytest.mark.parametrize("name", MODELS)
def test_another_process_without_onward_says_the_same_to_the_bit(name, tmp_path):
    learner, state = MODELS[name]()
    (tmp_path / "step.bin").write_bytes(export_step(state.model, state.carry))
    np.save(tmp_path / "xs.npy", XS)
    subprocess.run([sys.executable, "-c", ELSEWHERE, tmp_path], check=True)
    said = np.load(tmp_path / "said.npy")
    assert said.std() > 0
    assert np.array_equal(said, here(state.model, state.carry, XS))
    # And the learner itself, which goes on from where it stands.
    for x, there in zip(XS[:20], said, strict=False):
        state, prediction = learner.read(state, x)
        assert np.asarray(prediction) == pytest.approx(there, abs=1e-6)


def call(program, xs, carry=None):
    carry = [np.full(a.shape, np.nan, a.dtype) for a in program.in_avals[2:]] if carry is None else carry
    said = []
    for t, x in enumerate(xs):
        prediction, *carry = program.call(x, t == 0, *carry)
        said.append(np.asarray(prediction))
    return np.stack(said)


def read(data):
    return jax.export.deserialize(bytearray(data))


def test_a_run_of_a_loop_is_exported(compile_well):
    """One of its runs, taken out along its axis."""
    learner = ow.Online(ow.Columnwise(), ow.Supervised(), optax.adam(1.0), 0.01)
    model = lambda key: ow.Model(ow.Columns(ow.GRUGates(), 3, 4, key=key), ow.Categorical(4, 3))
    loop = ow.Loop(ow.AnBn(), model, learner, lambda e, i: (i.loss, e.weight), seeds=range(3))
    loop.start()
    loop.advance(50)
    states = [
        jax.tree.map(lambda a, i=i: jnp.take(a, i, axis=loop.axis) if eqx.is_array(a) else a, loop.state[1])
        for i in range(3)
    ]
    xs = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    each = [call(read(export_step(state.model, state.carry)), xs) for state in states]
    for said, state in zip(each, states, strict=True):
        assert np.array_equal(said, here(state.model, state.carry, xs))
    assert not np.allclose(each[0], each[1])


def test_a_start_reads_no_carry_and_begins_where_it_was_said():
    _, state = MODELS["columns with running moments"]()
    fresh, on = (read(export_step(state.model, carry)) for carry in (None, state.carry))
    assert np.isfinite(call(fresh, XS)).all()
    assert not np.allclose(call(fresh, XS[:1]), call(on, XS[:1]))
    assert np.array_equal(call(fresh, XS[:1]), here(state.model, state.model.init(), XS[:1]))


def test_double_precision_is_kept():
    with jax.enable_x64(True):
        model = in_float64(ow.Model(columns(normalise_inputs=None), ow.Linear(4)))
    data = export_step(model)
    with jax.enable_x64(True):
        program = read(data)
        assert {a.dtype.name for a in program.in_avals} == {"float64", "bool"}
        assert np.array_equal(call(program, XS.astype(float)), here(model, model.init(), XS.astype(float)))


BAD = {
    "a carry of another model": (
        lambda: export_step(ow.Model(columns(), ow.Linear(4)), ow.GRU(2, 4, key=KEY).init()),
        TypeError,
        "export_step: the carry is not one of this model's cell; give the state.carry of one stream",
    ),
    "a carry of several streams": (
        lambda: export_step(
            ow.Model(columns(), ow.Linear(4)), jax.tree.map(lambda a: jnp.stack([a] * 3), columns().init())
        ),
        TypeError,
        "the carry is not one of this model's cell; give the state.carry of one stream",
    ),
    "no model": (lambda: export_step(columns()), TypeError, "export_step: model must be an onward.Model, got Columns"),
    "a cell that draws": (
        lambda: export_step(ow.Model(ow.Hybrid(ow.GRU(2, 4, key=KEY)), ow.Linear(4))),
        ValueError,
        "Hybrid: its units are sampled when they are read",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_exported_is_refused_in_a_line(what):
    act, kind, said = BAD[what]
    with pytest.raises(kind, match=said) as error:
        act()
    assert "\n" not in str(error.value)


def test_what_is_not_installed_is_said_in_a_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "onward.adapters.export")
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ImportError, match=r'needs flatbuffers: pip install "onward\[export\]"; from a checkout'):
        import onward.adapters.export  # noqa: F401
