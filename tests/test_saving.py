"""Saved states: the same bits after loading, and whatever does not fit is refused by its name."""

import io
import json
import math
import tracemalloc
import warnings
import zipfile
from typing import NotRequired, TypedDict

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


# Files that were made to do harm


def npy(array, **changes):
    """An npy file, its header as NumPy writes it but for what is changed in it."""
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
    } | changes
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + array.tobytes()


def zipped(members, compression=zipfile.ZIP_STORED):
    """A zip file of (name, bytes), which may hold a name twice."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def with_meta(meta=b'{"format": 2}', *members):
    return zipped([*members, ("meta.npy", npy(np.frombuffer(meta, np.uint8)))])


def patched(data, mark, at, value):
    """The file with bytes put at a place of its last record that begins with `mark`."""
    start = data.rindex(mark) + at
    return data[:start] + value + data[start + len(value) :]


ONES = np.ones(6, np.float32)
GOOD = ("state.a.npy", npy(ONES))
DIRECTORY, END = b"PK\1\2", b"PK\5\6"
FOUR_GB = (3 << 30).to_bytes(4, "little")
MADE_UP = {
    "a bomb, packed": lambda: zipped([("meta.npy", bytes(2**26))], zipfile.ZIP_DEFLATED),
    "a bomb, declared": lambda: patched(patched(with_meta(), DIRECTORY, 20, FOUR_GB), DIRECTORY, 24, FOUR_GB),
    "encrypted": lambda: patched(with_meta(), DIRECTORY, 8, b"\1\0"),
    "a patch": lambda: patched(with_meta(), DIRECTORY, 8, b"\x20\0"),
    "an unknown compression": lambda: patched(with_meta(), DIRECTORY, 10, b"\x63\0"),
    "a member twice": lambda: with_meta(b'{"format": 2}', GOOD, GOOD),
    "a member that is no array": lambda: with_meta(b'{"format": 2}', ("state.a", b"1")),
    "a member that the directory lacks": lambda: patched(with_meta(b'{"format": 2}', GOOD), END, 10, b"\3\0"),
    "objects": lambda: with_meta(b'{"format": 2}', ("state.a.npy", npy(ONES, descr="|O"))),
    "objects within": lambda: with_meta(b'{"format": 2}', ("state.a.npy", npy(ONES, descr=[("x", "|O")]))),
    "fields": lambda: with_meta(b'{"format": 2}', ("state.a.npy", npy(ONES, descr=[("x", "<f4")]))),
    "a shape beyond all memory": lambda: with_meta(b'{"format": 2}', ("state.a.npy", npy(ONES, shape=(10**15,)))),
    "a shape of no bytes": lambda: with_meta(b'{"format": 2}', ("state.a.npy", npy(ONES[:0], shape=(0, 10**30)))),
    "a negative shape": lambda: with_meta(b'{"format": 2}', ("state.a.npy", npy(ONES, shape=(-2, -3)))),
    "a shape too small": lambda: with_meta(b'{"format": 2}', ("state.a.npy", npy(ONES, shape=(5,)))),
    "bytes after the array": lambda: with_meta(b'{"format": 2}', ("state.a.npy", npy(ONES) + b"....")),
    "an array cut off": lambda: with_meta(b'{"format": 2}', ("state.a.npy", npy(ONES)[:-4])),
    "a header that is no header": lambda: with_meta(b'{"format": 2}', ("state.a.npy", npy(ONES).replace(b"{", b"("))),
    "a header without an end": lambda: with_meta(b'{"format": 2}', ("state.a.npy", npy(ONES).replace(b"}", b"'"))),
    "a header that calls": lambda: with_meta(b'{"format": 2}', ("state.a.npy", npy(ONES).replace(b"False", b"exit()"))),
    "a version that is none": lambda: with_meta(b'{"format": 2}', ("state.a.npy", b"\x93NUMPY\7" + npy(ONES)[7:])),
    "no meta": lambda: zipped([GOOD]),
    "a meta that is a list": lambda: with_meta(b"[2]"),
    "a meta without a format": lambda: with_meta(b"{}"),
    "a meta as deep as a well": lambda: with_meta(b"[" * 10**6),
    "a meta that is no text": lambda: with_meta(b"\xff\xfe"),
    "a number of a million digits": lambda: with_meta(b'{"format": ' + b"2" * 10**6 + b"}"),
    "a format that equals ours": lambda: with_meta(b'{"format": 2.0}'),
    "a format that is true": lambda: with_meta(b'{"format": true}'),
}


@pytest.mark.parametrize("what", MADE_UP)
def test_what_was_made_to_do_harm_is_refused_in_a_line_and_costs_nothing(what, tmp_path):
    path = tmp_path / "bad.npz"
    path.write_bytes(MADE_UP[what]())
    tracemalloc.start()
    with pytest.raises(saving.Unreadable) as error:
        saving.load_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_arrays_of_any_order_and_size_come_back_to_be_written_in(tmp_path):
    arrays = {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "none": np.zeros((0, 3)),
        "number": np.array(7),
        "words": np.array(["a", "bc"]),
        "big": np.arange(3, dtype=">i4"),
        "name with . and \N{GREEK SMALL LETTER MU}": np.array([True]),
    }
    saving.save_arrays(tmp_path / "x.npz", arrays, {})
    _, found = saving.load_arrays(tmp_path / "x.npz")
    assert {*found} == {*arrays}
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].flags.writeable
        np.testing.assert_array_equal(found[name], array)


def test_no_bit_of_a_header_can_change_what_is_read(saved):
    """Among them bit 4 of the length of a header, with which NumPy stops short of the end of the member."""
    data, good = saved.read_bytes(), saving.load_arrays(saved)
    at = data.index(b"\x93NUMPY")
    for place in range(at, at + 128):
        for bit in range(8):
            saved.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            with pytest.raises(saving.Unreadable, match="is damaged"):
                saving.load_arrays(saved)
    saved.write_bytes(data)
    assert saving.load_arrays(saved)[0] == good[0]


class Sample(TypedDict):
    count: int
    share: float
    maybe: float | None
    names: list[str]
    inner: dict[str, list[int]]
    more: NotRequired[saving.Number]


SAMPLE = {"count": 1, "share": 0.5, "maybe": None, "names": ["a"], "inner": {"x": [1]}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": True}, "count is True"),
        ({"count": 1.0}, "count is 1.0"),
        ({"share": "0.5"}, "share is '0.5'"),
        ({"share": math.nan}, "share is nan"),
        ({"share": 10**400}, "share is 1000"),
        ({"maybe": [1.0]}, r"maybe is \[1.0\]"),
        ({"names": "a"}, "names is 'a'"),
        ({"names": ["a", None]}, r"names\[1\] is None"),
        ({"inner": {"x": [1, "2"]}}, r"inner.x\[1\] is '2'"),
        ({"more": None}, "more is None"),
    ],
    ids=str,
)
def test_json_of_another_type_is_refused_by_its_key(change, said):
    for good in ({}, {"share": 1}, {"maybe": 2.0}, {"more": math.inf}, {"other": object()}):
        saving.check_meta(SAMPLE | good, Sample, "it")
    with pytest.raises(saving.Unreadable, match=f"it is damaged, or of another version of onward: {said}"):
        saving.check_meta(SAMPLE | change, Sample, "it")
    for name in SAMPLE:
        with pytest.raises(saving.Unreadable, match=f"{name} is missing"):
            saving.check_meta({k: v for k, v in SAMPLE.items() if k != name}, Sample, "it")
    with pytest.raises(saving.Unreadable, match="is 7"):
        saving.check_meta(7, Sample, "it")


@pytest.mark.parametrize("length", [57, 58, 59, 1000])
def test_a_long_value_is_shown_by_its_beginning(length):
    shown = "'" + "x" * length + "'" if length < 58 else "'" + "x" * min(length, 59) + ("'" if length == 58 else "")
    cut = " ..." if length > 57 else ""
    with pytest.raises(saving.Unreadable) as error:
        saving.check_meta({"a": "x" * length}, dict[str, int], "it")
    assert str(error.value).endswith(f": a is {shown}{cut}")
