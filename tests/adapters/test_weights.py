"""Weights in safetensors: the same bits after loading, and what does not fit is refused in a line."""

import hashlib
import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow

safetensors = pytest.importorskip(
    "safetensors.numpy", reason='safetensors is not installed: pip install "onward[safetensors]"'
)
from onward.adapters.safetensors import described, load_weights, save_weights  # noqa: E402

pytestmark = [pytest.mark.interfaces, pytest.mark.usefixtures("compile_fast")]

KEY = jax.random.key(0)


def filled(part, seed=1):
    """Every floating array drawn: of a head too, which starts at zero."""
    rng = np.random.default_rng(seed)
    draw = lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype) if eqx.is_inexact_array(a) else a
    return jax.tree.map(draw, part)


def gru(units=3, head=None, **options):
    return ow.Model(ow.GRU(2, units, key=KEY, **options), head or ow.Linear(units))


def cascade():
    stage = ow.Columns(ow.LSTMGates(), 2, 3, key=KEY, normalise_inputs=ow.Moments(), normalise_features=ow.Moments(0.9))
    cell = ow.Cascade(stage)
    return ow.Model(cell.grow(cell.init(), key=KEY)[0], ow.Mixture(6, 2))


PARTS = {
    "a dense layer": gru,
    "a cascade and a mixture": cascade,
    "a masked layer": lambda: gru(5, mask=np.eye(5, k=1, dtype=bool) | np.eye(5, k=-2, dtype=bool)),
    "a cell alone": lambda: ow.Columns(ow.GRUGates(0.5), 2, 3, key=KEY),
    "several outputs": lambda: ow.Model(ow.Elman(2, 3, key=KEY, activation="relu"), ow.Linear(3, 4)),
    "a dictionary": lambda: {"short": jnp.ones(2, jnp.float16), "whole": (jnp.arange(3), np.array([True, False]))},
}


@pytest.mark.parametrize("name", PARTS)
def test_what_is_loaded_is_what_was_saved_to_the_bit(name, tmp_path):
    part = filled(PARTS[name]())
    save_weights(tmp_path, part, rows=7, name="mine")
    back, meta = load_weights(tmp_path, PARTS[name]())
    assert meta == {"rows": 7, "name": "mine"}
    assert eqx.tree_equal(back, part, typematch=True)
    assert not eqx.tree_equal(back, PARTS[name]()) or name == "a dictionary"
    back, _ = load_weights(tmp_path, eqx.filter_eval_shape(PARTS[name]))
    assert jax.tree.all(
        jax.tree.map(lambda a, b: np.array_equal(a, b), *(eqx.filter(p, eqx.is_array) for p in (back, part)))
    )


def test_a_loaded_model_answers_the_same(tmp_path):
    model = filled(cascade())
    save_weights(tmp_path, model)
    back, _ = load_weights(tmp_path, cascade())
    x = jnp.ones(2)
    assert eqx.tree_equal(back(back.init(), x), model(model.init(), x))


def test_other_programs_read_both_files(tmp_path):
    model = filled(gru())
    save_weights(tmp_path, model, rows=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    arrays = safetensors.load_file(tmp_path / "model.safetensors")
    assert {*arrays} == {"cell.weight", "cell.recurrent", "cell.bias", "head.weight", "head.bias"}
    assert np.array_equal(arrays["cell.weight"], model.cell.weight)
    assert arrays["head.bias"].shape == ()
    config = json.loads((tmp_path / "config.json").read_text())
    assert {*config} == {"format", "onward", "sha256", "parts", "meta"}
    assert config["sha256"] == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert config["parts"]["part"] == "Model"
    assert config["parts"]["cell"] == {
        "part": "Dense",
        "gates": {"part": "GRUGates", "update_bias": 0.0},
        "weight": "float32[2, 3, 3]",
        "recurrent": "float32[3, 3, 3]",
        "bias": "float32[3, 3]",
        "sources": None,
        "normalise_inputs": None,
        "normalise_features": None,
    }
    assert config["parts"]["head"] == {"part": "Linear", "weight": "float32[3]", "bias": "float32[]", "outputs": None}


def test_an_array_of_any_order_and_what_is_no_number(tmp_path):
    tree = {"fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "turned": np.arange(6.0).reshape(2, 3).T}
    save_weights(tmp_path, tree)
    back, _ = load_weights(tmp_path, tree)
    assert all(np.array_equal(back[name], tree[name]) for name in tree)
    for odd, said in (
        ({"key": KEY}, "key.implementation holds <U"),
        ({"a": jnp.ones(1, jnp.bfloat16)}, "a holds bfloat16"),
    ):
        with pytest.raises(TypeError, match=f"{said}.*, numbers of NumPy are needed; use onward.save"):
            save_weights(tmp_path, odd)
    with pytest.raises(ValueError, match=r"two arrays of the tree have the name 'a\.b'"):
        save_weights(tmp_path, {"a.b": jnp.ones(1), "a": {"b": jnp.zeros(1)}})
    assert eqx.tree_equal(load_weights(tmp_path, tree)[0], back), "what was refused has changed nothing"


def test_a_description_is_json_and_the_same_in_every_process():
    part = {"inf": float("inf"), "one": np.float32(1.5), "call": jnp.tanh, "none": None, "list": [1, (2.0, True)]}
    said = described(part)
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert said == {"inf": "inf", "one": 1.5, "call": said["call"], "none": None, "list": [1, [2.0, True]]}
    assert "0x" not in json.dumps(said)


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def other_weights(folder, change):
    """A file of other arrays, with a digest that fits."""
    arrays = safetensors.load_file(folder / "model.safetensors")
    data = safetensors.save(change(arrays))
    (folder / "model.safetensors").write_bytes(data)
    edit(folder, sha256=hashlib.sha256(data).hexdigest())


def flip(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def not_safetensors(folder):
    (folder / "model.safetensors").write_bytes(b"\x80\x04pickle")
    edit(folder, sha256=hashlib.sha256(b"\x80\x04pickle").hexdigest())


BAD = {
    "a bit of the weights changed": (flip, gru, "model.safetensors is damaged, or not the file that config.json was"),
    "weights cut off": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-4]),
        gru,
        "model.safetensors is damaged",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), gru, "there is no file .*model.safetensors$"),
    "no config": (lambda f: (f / "config.json").unlink(), gru, "there is no file .*config.json$"),
    "no folder": (lambda f: [p.unlink() for p in f.iterdir()], gru, "there is no file .*config.json$"),
    "weights that are a pickle": (not_safetensors, gru, "model.safetensors is damaged .*Error: "),
    "config that is no JSON": (lambda f: (f / "config.json").write_text("{"), gru, "config.json is damaged"),
    "config that is a list": (lambda f: (f / "config.json").write_text("[]"), gru, "config.json is damaged"),
    "config of a later format": (lambda f: edit(f, format=2), gru, "config.json has format 2, .* has 1$"),
    "config without a format": (lambda f: edit(f, format=None), gru, "config.json has format None, .* has 1$"),
    "config whose format is true": (lambda f: edit(f, format=True), gru, "config.json has format True"),
    "config without a digest": (lambda f: edit(f, sha256=None), gru, "config.json is damaged.*sha256 is missing"),
    "config without parts": (lambda f: edit(f, parts=7), gru, "config.json: parts? is 7|config.json: .*is needed"),
    "other shapes": (
        lambda f: None,
        lambda: gru(4),
        r"config.json: cell.weight is 'float32\[2, 3, 3\]', 'float32\[2, 3, 4\]' is needed: the weights are of other",
    ),
    "another kind of unit": (
        lambda f: None,
        lambda: ow.Model(ow.LSTM(2, 3, key=KEY), ow.Linear(3)),
        "config.json: cell.gates.part is 'GRUGates', 'LSTMGates' is needed",
    ),
    "another setting of the same shapes": (
        lambda f: None,
        lambda: gru(update_bias=1.0),
        "config.json: cell.gates.update_bias is 0.0, 1.0 is needed",
    ),
    "another head": (lambda f: None, lambda: gru(head=ow.Linear(3, 1)), r"head.weight is 'float32\[3\]'"),
    "another class": (lambda f: None, lambda: gru().cell, "config.json: part is 'Model', 'Dense' is needed"),
    "parts of a later version": (
        lambda f: edit(f, parts=json.loads((f / "config.json").read_text())["parts"] | {"tail": 1}),
        gru,
        "config.json: tail is not a field",
    ),
    "an array removed": (
        lambda f: other_weights(f, lambda a: {n: v for n, v in a.items() if n != "head.bias"}),
        gru,
        "model.safetensors lacks head.bias",
    ),
    "an array too many": (
        lambda f: other_weights(f, lambda a: a | {"more": np.ones(1)}),
        gru,
        "model.safetensors holds more, which is not a part",
    ),
    "an array of another shape": (
        lambda f: other_weights(f, lambda a: a | {"cell.bias": np.ones((3, 4), np.float32)}),
        gru,
        r"model.safetensors: cell.bias is float32\[3, 4\], float32\[3, 3\] is needed",
    ),
    "an array of another type": (
        lambda f: other_weights(f, lambda a: a | {"cell.bias": np.ones((3, 3))}),
        gru,
        r"model.safetensors: cell.bias is float64\[3, 3\], float32\[3, 3\] is needed",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_does_not_fit_is_refused_in_a_line(what, tmp_path):
    change, make, said = BAD[what]
    save_weights(tmp_path, gru())
    change(tmp_path)
    with pytest.raises(ow.Unreadable, match=said) as error:
        load_weights(tmp_path, make())
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_folder_that_cannot_be_written_is_said_to_be_one(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((ow.OnwardError, OSError), match="file"):
        save_weights(tmp_path / "file", gru())


def test_what_is_not_installed_is_said_in_a_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "onward.adapters.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r'needs safetensors: pip install "onward\[safetensors\]"; from a checkout'):
        import onward.adapters.safetensors  # noqa: F401
