"""Saved states: the same bits after loading, and whatever does not fit is refused by its name."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import onward as ow
from onward import saving

KEY = jax.random.key(3)
GRU = ow.Model(ow.GRU(2, 3, key=KEY), ow.Linear(3))
STEP = ow.Step(jnp.ones(2), jnp.ones(()), jnp.ones(()), jnp.asarray(False), jnp.ones(()))
BATCH = ow.Sequence(jnp.ones((4, 3, 2)), jnp.ones((1, 3)), jnp.ones((1, 3)))
LEARNERS = {
    "Online": (ow.Online(ow.UORO(), ow.Supervised(), optax.adam(1.0), 0.1), STEP),
    "BPTT": (ow.BPTT(optax.adam(1.0), 0.1), BATCH),
    "TPTT": (ow.TPTT(ow.AffineInverse(noise=0.1), optax.adam(1.0), step_size=0.1), BATCH),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_loaded_state_is_the_same_and_goes_on_the_same(name, tmp_path):
    learner, example = LEARNERS[name]
    step = eqx.filter_jit(learner.step)
    state, _ = step(learner.init(GRU, example, key=KEY), example)
    ow.save(tmp_path / "state.npz", state, step=1, who="me")
    like = eqx.filter_eval_shape(learner.init, GRU, example, key=jax.random.key(9))
    loaded, meta = ow.load(tmp_path / "state.npz", like)
    assert meta == {"step": 1, "who": "me"}
    assert eqx.tree_equal(loaded, state)
    assert eqx.tree_equal(step(loaded, example), step(state, example))


TREE = {"a": jnp.arange(6.0), "whole": jnp.arange(3), "key": KEY, "size": 7, "host": np.eye(2)}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "tree.npz"
    ow.save(path, TREE)
    return path


def change(path, **arrays):
    """The file with some arrays put in the place of others; None: removed."""
    meta, old = saving.load_arrays(path)
    kept = {name: value for name, value in (old | arrays).items() if value is not None}
    saving.save_arrays(path, kept, {k: v for k, v in meta.items() if k not in ("format", "onward")})


BAD = {
    "one number inserted": ({"state.a": np.insert(np.arange(6, dtype="f4"), 2, 9)}, r"a is float32\[7\], float32\[6\]"),
    "one number removed": ({"state.a": np.arange(5, dtype="f4")}, r"a is float32\[5\], float32\[6\] is needed"),
    "another type": ({"state.whole": np.arange(3, dtype="f4")}, r"whole is float32\[3\], int32\[3\] is needed"),
    "a longer type": ({"state.a": np.arange(6.0)}, r"a is float64\[6\], float32\[6\] is needed"),
    "an array removed": ({"state.whole": None}, "lacks whole"),
    "an array too many": ({"state.b": np.zeros(1)}, "holds b, which is not a part"),
    "another generator": ({"state.key.implementation": np.asarray("rbg")}, "key is a key of 'rbg'"),
    "no generator": ({"state.key.implementation": None}, "key is a key of 'None'"),
    "no saved tree": ({"b": np.zeros(1)}, "holds b: it was not written by save"),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_does_not_fit_is_refused_by_name(saved, fault):
    arrays, message = BAD[fault]
    change(saved, **arrays)
    with pytest.raises(saving.Unreadable, match=message) as error:
        ow.load(saved, TREE)
    assert str(saved) in str(error.value)


def test_another_format_or_version_is_named(saved, monkeypatch):
    old = saved.with_name("old.npz")
    header = np.frombuffer(json.dumps({"format": 0}).encode(), np.uint8)
    np.savez(old, meta=header)
    with pytest.raises(saving.Unreadable, match=r"old.npz has format 0, this version of onward reads format \d"):
        ow.load(old, TREE)
    meta, arrays = saving.load_arrays(saved)
    header = np.frombuffer(json.dumps(meta | {"onward": "0.0.1"}).encode(), np.uint8)
    np.savez(old, meta=header, **arrays)
    assert eqx.tree_equal(ow.load(old, TREE)[0], TREE)  # all arrays are what they should be
    with pytest.raises(saving.Unreadable, match=r"written by onward 0.0.1, this is \S+\) lacks new"):
        ow.load(old, TREE | {"new": jnp.zeros(1)})


def test_a_damaged_file_and_none(saved):
    data = saved.read_bytes()
    for bad in (b"", b"nothing", data[:-9], data[:300] + bytes([data[300] ^ 1]) + data[301:]):
        saved.write_bytes(bad)
        with pytest.raises(saving.Unreadable, match=r"tree.npz is damaged"):
            ow.load(saved, TREE)
    with pytest.raises(saving.Unreadable, match="there is no file"):
        ow.load(saved.with_name("none.npz"), TREE)


def test_a_tree_in_memory_is_named_and_checked_alike():
    arrays = saving.named_arrays(TREE)
    assert set(arrays) == {"a", "whole", "key", "key.implementation", "host"}
    back = saving.from_named_arrays(arrays, TREE, "a pickle")
    assert eqx.tree_equal(back, TREE)
    assert isinstance(back["host"], np.ndarray), "what lay on the host stays there: masks are read when traced"
    with pytest.raises(saving.Unreadable, match="a pickle lacks a:"):
        saving.from_named_arrays({}, TREE, "a pickle")


def test_names_that_would_hide_one_another_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"two arrays of the tree have the name 'a\.b'"):
        ow.save(tmp_path / "x.npz", {"a.b": jnp.ones(1), "a": {"b": jnp.zeros(1)}})
    with pytest.raises(ValueError, match="'format' is a name of the file's own"):
        ow.save(tmp_path / "x.npz", TREE, format=3)
    assert not list(tmp_path.iterdir())


def test_keys_of_any_generator_and_short_floats(tmp_path):
    tree = {"keys": jax.random.split(jax.random.key(1, impl="rbg"), 3), "short": jnp.ones(2, jnp.bfloat16)}
    ow.save(tmp_path / "x.npz", tree)
    back, _ = ow.load(tmp_path / "x.npz", tree)
    assert eqx.tree_equal(back, tree)
    assert np.array_equal(jax.random.bits(back["keys"][1]), jax.random.bits(tree["keys"][1]))
