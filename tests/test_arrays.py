"""Files of arrays are data: no reader of them runs what somebody wrote into one, and types count as shapes do."""

import io
import json
import pickle
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import onward as ow
from onward import saving
from onward.errors import OnwardError
from onward.lab.data.formats import read_npz
from onward.lab.records import load_record

EXECUTED: list[str] = []


def execute():
    EXECUTED.append("executed")


class Hostile:
    """What runs code of its own when it is unpickled."""

    def __reduce__(self):
        return execute, ()


def test_the_case_is_one():
    """Whoever does unpickle it runs the code: the tests below could fail."""
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([Hostile()], object))
    buffer.seek(0)
    with np.load(buffer, allow_pickle=True) as file:
        file["a"]
    assert EXECUTED.pop() == "executed"
    assert pickle.loads(pickle.dumps(Hostile())) is None
    assert EXECUTED.pop() == "executed"


def checkpoint(path, arrays):
    saving.load_arrays(path)


def meta(path, arrays):
    saving.read_meta(path)


def state(path, arrays):
    ow.load(path, {name.removeprefix("state."): jnp.zeros(3) for name in arrays if name != "meta"})


def record(path, arrays):
    load_record(path.parents[1], "job", "end")


def data_set(path, arrays):
    read_npz(path)


HEADER = np.frombuffer(json.dumps({"format": saving.FORMAT, "onward": "0"}).encode(), np.uint8)
# A reader, and arrays that it reads.
READERS = {
    "a checkpoint": (checkpoint, {"meta": HEADER, "a": np.zeros(3)}),
    "its meta": (meta, {"meta": HEADER, "a": np.zeros(3)}),
    "a state": (state, {"meta": HEADER, "state.a": np.zeros(3, np.float32), "state.b": np.zeros(3, np.float32)}),
    "a record": (record, {"meta": HEADER, "a": np.zeros(3)}),
    "a data set": (data_set, {"train": np.zeros((2, 88), np.uint8), "train_lengths": np.ones(2, int)}),
}


def written(folder: Path, arrays):
    path = folder / "records" / "job-end.npz"
    path.parent.mkdir()
    np.savez(path, allow_pickle=True, **arrays)
    return path


@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_an_array_of_objects_and_runs_nothing(name, tmp_path):
    """Whichever of its arrays it is."""
    read, arrays = READERS[name]
    for i, hit in enumerate(arrays):
        folder = tmp_path / str(i)
        folder.mkdir()
        path = written(folder, arrays | {hit: np.array([Hostile()] * len(arrays[hit]), object)})
        with pytest.raises((OnwardError, ValueError), match=r"(?i)object|pickle|damaged"):
            read(path, arrays)
        assert EXECUTED == [], f"{hit} was unpickled"


def test_no_source_file_reads_arrays_with_pickles():
    """`np.load` is called with `allow_pickle=False`, or without the word where numpy's own default says so."""
    for path in (Path(ow.__file__).parent).rglob("*.py"):
        text = path.read_text()
        assert "allow_pickle=True" not in text, path
        assert "pickle.load" not in text, path


TYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "bool", "complex64")


@pytest.mark.parametrize("wanted", ["float32", "int32", "uint8", "bool", "float16"])
def test_an_array_of_any_other_type_is_refused_by_name_wherever_it_is(wanted, tmp_path):
    """Also where a conversion would lose nothing; on the device and on the host."""
    for like in ({"a": jnp.zeros(3), "b": jnp.zeros(3, wanted)}, {"a": np.zeros(3), "b": np.zeros(3, wanted)}):
        right = {name: np.asarray(leaf) for name, leaf in like.items()}
        for found in TYPES:
            arrays = right | {"b": np.zeros(3, found)}
            if found == wanted:
                whole = saving.from_named_arrays(arrays, like, "the file")
                assert {name: leaf.dtype for name, leaf in whole.items()} == {n: a.dtype for n, a in right.items()}
                continue
            with pytest.raises(ow.Unreadable, match=rf"the file: b is {found}\[3\], {wanted}\[3\] is needed"):
                saving.from_named_arrays(arrays, like, "the file")


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [("V4", jnp.bfloat16), ("V1", jnp.bfloat16), ("V2", jnp.float16), ("V4", jnp.float32), ("V4", jnp.int32)],
)
def test_raw_bytes_are_taken_for_nothing_but_what_numpy_cannot_name(raw, wanted):
    """numpy reads bfloat16 back as two raw bytes. They are no bfloat16 if they are more or fewer, and no float16."""
    with pytest.raises(ow.Unreadable, match=rf"a is .*{raw[1:]}.*, {jnp.dtype(wanted).name}\[3\] is needed"):
        saving.from_named_arrays({"a": np.zeros(3, raw)}, {"a": jnp.zeros(3, wanted)}, "the file")


def test_bfloat16_is_saved_and_read_to_the_bit(tmp_path):
    ow.save(tmp_path / "a.npz", {"a": jnp.asarray([1, -2, 3e38], jnp.bfloat16)})
    read = ow.load(tmp_path / "a.npz", {"a": jnp.zeros(3, jnp.bfloat16)})[0]["a"]
    assert read.dtype == jnp.bfloat16
    assert read.tolist() == jnp.asarray([1, -2, 3e38], jnp.bfloat16).tolist()


@pytest.mark.parametrize("change", [-1, 1, 8, -8])
def test_an_array_of_another_size_than_it_says_is_told_by_its_bytes(change):
    """A byte more or less than the header says, whatever the checksum: how many there are is said."""
    whole = io.BytesIO()
    np.save(whole, np.arange(3.0))
    data = whole.getvalue() + bytes(8)
    with pytest.raises(ValueError, match=rf"^{24 + change} bytes are no float64\[3\]$"):
        saving._array(data[: len(data) - 8 + change])
