"""Data sets: imports are checked, downloads are checked, nothing runs code, and what is kept is whole."""

import gzip
import hashlib
import http.server
import io
import os
import sys
import threading
from pathlib import Path

import mido
import numpy as np
import pytest
import scipy.io

from onward import cli
from onward.errors import OnwardError
from onward.lab.data import datasets, formats
from onward.lab.data.known import Download

REAL = os.environ.get("ONWARD_TEST_DATA")
real = pytest.mark.skipif(not REAL, reason="ONWARD_TEST_DATA names no folder with mnist/ and music/")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ONWARD_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def said():
    return []


def roll(steps, seed=0):
    return (np.random.default_rng(seed).random((steps, 88)) < 0.1).astype(np.uint8)


def rolls(*steps):
    return [roll(n, i) for i, n in enumerate(steps)]


def leftovers(folder):
    return [p.name for p in folder.rglob("*") if p.suffix != ".npz"] if folder.exists() else []


# MNIST and its like


def idx(array):
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_idx(place, *, mark="-", end="", train=7, test=3, **changed):
    random = np.random.default_rng(0)
    place.mkdir(parents=True, exist_ok=True)
    for stem, array in {
        f"train-images{mark}idx3": random.integers(0, 256, (train, 5, 4)),
        f"train-labels{mark}idx1": random.integers(0, 10, train),
        f"t10k-images{mark}idx3": random.integers(0, 256, (test, 5, 4)),
        f"t10k-labels{mark}idx1": random.integers(0, 10, test),
    }.items():
        data = changed.get(stem[:-5].replace("-", "_"), idx(array))
        (place / f"{stem}-ubyte{end}").write_bytes(gzip.compress(data) if end else data)
    return place


@pytest.mark.parametrize(("mark", "end"), [("-", ""), ("-", ".gz"), (".", ""), (".", ".gz")])
def test_idx_in_every_spelling(tmp_path, folder, said, mark, end):
    datasets.install("mine", write_idx(tmp_path / "idx", mark=mark, end=end), said.append)
    digits = datasets.load_digits("mine")
    assert digits.train_images.shape == (7, 5, 4)
    assert digits.train_images.dtype == np.uint8
    assert digits.test_labels.dtype == np.int32
    assert digits.top == 255
    assert said == [f"mine: 7 + 3 images, installed in {folder / 'mine.npz'}"]
    assert datasets.kind_of("mine") == "digits"
    assert not leftovers(folder)


def test_gzip_is_known_by_its_content(tmp_path, said):
    place = write_idx(tmp_path / "idx", end=".gz")
    path = place / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    datasets.install("mine", place, said.append)
    assert len(datasets.load_digits("mine").train_images) == 7


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"train_images": b"\0\0\x0d\3" + bytes(40)}, "train-images-idx3-ubyte starts with 00 00 0d 03;.* 00 00 08 03"),
        ({"train_labels": b""}, "train-labels-idx1-ubyte starts with nothing"),
        ({"train_images": idx(np.zeros((7, 5, 4)))[:10]}, "within its header"),
        ({"train_images": idx(np.zeros((7, 5, 4)))[:-1]}, "7 x 5 x 4 = 140 bytes, and 139 follow"),
        ({"train_images": idx(np.zeros((7, 5, 4))) + b"x"}, "and more follow"),
        ({"t10k_images": bytes([0, 0, 8, 3] + [255] * 12)}, "are allowed"),
        ({"train_labels": idx(np.array([0, 1, 2, 10, 4, 5, 11]))}, r"label 4 is 10; labels are 0 to 9 \(2 are not"),
        ({"train_labels": idx(np.zeros(6))}, "7 train images and 6 labels"),
        ({"t10k_images": idx(np.zeros((3, 4, 4)))}, r"\[5, 4\] pixels and test images of \[4, 4\]"),
    ],
)
def test_bad_idx(tmp_path, folder, changed, wanted):
    with pytest.raises(OnwardError, match=wanted):
        datasets.install("mnist", write_idx(tmp_path / "idx", **changed))
    assert not folder.exists()


def test_idx_gzip_cut_in_half(tmp_path):
    place = write_idx(tmp_path / "idx", end=".gz")
    path = place / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(OnwardError, match=r"t10k-images-idx3-ubyte\.gz .*damaged or cut short"):
        datasets.install("mnist", place)


def test_idx_missing(tmp_path):
    place = write_idx(tmp_path / "idx")
    (place / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(OnwardError, match="lacks t10k-labels"):
        datasets.install("mnist", place)
    with pytest.raises(OnwardError, match="is a file"):
        datasets.install("mnist", place / "train-images-idx3-ubyte")
    with pytest.raises(OnwardError, match="there is no"):
        datasets.install("mnist", tmp_path / "nowhere")


def test_another_set_under_the_name_of_mnist_is_said(tmp_path, said):
    datasets.install("mnist", write_idx(tmp_path / "idx"), said.append)
    assert said[0].startswith("warning: this is not the mnist that others report on (60,000 + 10,000 images)")
    assert len(datasets.load_digits("mnist").train_images) == 7


def test_embedded_digits_cannot_be_written_to_or_replaced():
    assert not datasets.load_digits("digits").train_images.flags.writeable
    with pytest.raises(OnwardError, match="embedded"):
        datasets.install("digits", Path())


# Music


PARTS = {"train": rolls(5, 9), "valid": rolls(4), "test": rolls(6)}


def as_npz(path):
    """The music of PARTS, pieces laid end to end."""
    flat = {split: np.concatenate(pieces) for split, pieces in PARTS.items()}
    lengths = {f"{split}_lengths": [len(piece) for piece in pieces] for split, pieces in PARTS.items()}
    np.savez(path, **flat, **lengths)
    return path


def as_mat(path, **options):
    """The same as a .mat file of the known kind."""
    cells = {}
    for split, pieces in PARTS.items():
        cells[f"{split}data"] = np.empty((1, len(pieces)), object)
        cells[f"{split}data"][0, :] = [piece.astype(float) for piece in pieces]
    scipy.io.savemat(path, cells, **options)
    return path


def stands_in(name, path, monkeypatch, *addresses):
    """Let this file be the known set of that name."""
    checksum = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    wanted = datasets.KNOWN[name].downloads[0]._replace(checksum=checksum, addresses=addresses)
    known = datasets.KNOWN[name]._replace(downloads=(wanted,), counts=(2, 1, 1))
    monkeypatch.setitem(datasets.KNOWN, name, known)


@pytest.mark.parametrize("squeezed", [False, True])
@pytest.mark.parametrize("form", ["mat", "npz"])
def test_music_in_every_form(tmp_path, folder, said, monkeypatch, form, squeezed):
    path = tmp_path / f"a.{form}"
    if form == "mat":
        stands_in("muse", as_mat(path, do_compression=squeezed), monkeypatch)
    else:
        as_npz(path)
    datasets.install("mine", path, said.append)
    music = datasets.load_music("mine")
    for split, pieces in PARTS.items():
        for kept, piece in zip(getattr(music, split), pieces, strict=True):
            np.testing.assert_array_equal(kept, piece)
            assert kept.dtype == np.uint8
    assert said == [f"mine: 2/1/1 pieces, installed in {folder / 'mine.npz'}"]
    datasets.install("copy", folder / "mine.npz", said.append)
    assert [len(p) for p in datasets.load_music("copy").train] == [5, 9]
    assert not leftovers(folder)


def test_a_mat_file_of_another_checksum_is_refused_unread(tmp_path, folder, monkeypatch):
    path = as_mat(tmp_path / "Piano_midi.mat")
    monkeypatch.setattr(scipy.io, "loadmat", None)  # a damaged file can crash it
    with pytest.raises(OnwardError, match=r"none of the known .mat files, JSB_Chorales.mat, .* MIDI files or an .npz"):
        datasets.install("piano-midi", path)
    assert not folder.exists()


def test_simple_arrays(tmp_path, said):
    np.savez(tmp_path / "a.npz", train=np.ones((3, 4, 88)), valid=np.ones((1, 4, 88), bool), test=np.ones((1, 5, 88)))
    datasets.install("mine", tmp_path / "a.npz", said.append)
    assert [len(part) for part in datasets.load_music("mine")[:3]] == [3, 1, 1]


def test_a_known_name_for_other_music_is_said(tmp_path, said):
    datasets.install("jsb", as_npz(tmp_path / "a.npz"), said.append)
    assert "not the jsb that others report on (229/76/77 pieces)" in said[0]
    np.savez(tmp_path / "d.npz", **formats.pack(formats.read_images(write_idx(tmp_path / "idx"))))
    with pytest.raises(OnwardError, match="holds digits, and this set is music"):
        datasets.install("jsb", tmp_path / "d.npz")


def test_empty_pieces_are_named(tmp_path, said):
    parts = {"train": np.ones((6, 88)), "train_lengths": [3, 0, 1, 2], "valid": np.ones((1, 2, 88))}
    parts["train"][4:] = 0  # two frames of silence
    np.savez(tmp_path / "a.npz", **parts, test=np.ones((1, 2, 88)))
    datasets.install("mine", tmp_path / "a.npz", said.append)
    assert said[0] == "mine: left out 3 pieces, empty or of a single frame: train 2, train 3, train 4"
    np.savez(tmp_path / "a.npz", **parts, test=np.ones((1, 1, 88)))
    with pytest.raises(OnwardError, match=r"no piece of the test part can be used \(1 given\)"):
        datasets.install("mine", tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arrays", "wanted"),
    [
        ({"train": np.ones((2, 3, 80))}, r"piece 1 of train is float64\[3, 80\]; a piano roll is \[steps, 88\]"),
        ({"train": np.full((2, 3, 88), 2)}, "piece 1 of train holds 2;"),
        ({"train": np.ones((3, 88)), "train_lengths": [1, 1]}, "train_lengths must be whole numbers that sum to its 3"),
        ({"train": np.ones((3, 88))}, "train_lengths must be"),
        ({"train": np.ones(3)}, "train has 1 axes"),
        ({"x_train": np.ones(3)}, "holds x_train; music is train, valid and test"),
        ({"train": np.array([None])}, "cannot read .*Object arrays"),
    ],
)
def test_bad_npz(tmp_path, arrays, wanted):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(OnwardError, match=wanted):
        datasets.install("mine", tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.txt", "a.pickle"])
def test_files_of_no_known_form(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(OnwardError, match=r"of no known form: music is read from an .npz file"):
        datasets.install("mine", tmp_path / name)


def test_damage_of_any_kind_is_an_error_and_no_crash(tmp_path):
    path = as_npz(tmp_path / "a.npz")
    good, random = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(good)
        for place in random.integers(0, len(good), 5):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            datasets.install("mine", path, lambda line: None)
        except OnwardError:
            refused += 1
    assert refused > 30


# MIDI


def write_songs(place, *names, steps=8):
    for i, name in enumerate(names):
        datasets.write_midi(roll(steps, i), place / name)
    return place


def test_midi_round_trip(tmp_path):
    piece = roll(40, 1)
    piece[-1, 3] = 1
    datasets.write_midi(piece, tmp_path / "a.mid", tempo=90)
    file = mido.MidiFile(tmp_path / "a.mid")
    np.testing.assert_array_equal(_midi_roll(file), piece)
    assert file.length == pytest.approx(40 * 30 / 90)
    held = np.zeros((4, 88), np.uint8)
    held[:, 39] = 1
    datasets.write_midi(held, tmp_path / "a.mid")
    messages = [m for m in mido.MidiFile(tmp_path / "a.mid").tracks[0] if not m.is_meta]
    assert [(m.type, m.note, m.time) for m in messages] == [("note_on", 60, 0), ("note_off", 60, 960)]
    with pytest.raises(OnwardError, match=r"piano roll is int64\[3\]"):
        datasets.write_midi(np.zeros(3, int), tmp_path / "b.mid")
    with pytest.raises(OnwardError, match="tempo=0"):
        datasets.write_midi(held, tmp_path / "b.mid", tempo=0)


def _midi_roll(file):
    from onward.lab.data.midi import sampled

    return sampled(file)[0]


def test_midi_is_dealt_by_name(tmp_path, said):
    place = write_songs(tmp_path / "songs", *(f"{i:02}.mid" for i in range(20)), "sub/x.MIDI")
    datasets.install("mine", place, said.append)
    with np.load(datasets.data_folder() / "mine.npz") as kept:
        assert list(kept["valid_titles"]) == ["08.mid", "18.mid"]
        assert list(kept["test_titles"]) == ["09.mid", "19.mid"]
        assert kept["train_titles"][-1] == "sub/x.MIDI"
    assert [len(part) for part in datasets.load_music("mine")[:3]] == [17, 2, 2]
    datasets.install("three", write_songs(tmp_path / "three", "a.mid", "b.mid", "c.mid"), said.append)
    assert [len(part) for part in datasets.load_music("three")[:3]] == [1, 1, 1]
    with pytest.raises(OnwardError, match=r"has 2 usable pieces; .* at least 3"):
        datasets.install("two", write_songs(tmp_path / "two", "a.mid", "b.mid"))


def test_midi_with_folders_of_its_own(tmp_path, said):
    songs = write_songs(tmp_path / "s", "train/a.mid", "train/b.mid", "valid/c.mid", "test/d.mid")
    datasets.install("mine", songs, said.append)
    assert [len(part) for part in datasets.load_music("mine")[:3]] == [2, 1, 1]


def test_midi_with_flaws(tmp_path, said):
    place = write_songs(tmp_path / "songs", "a.mid", "b.mid", "c.mid")
    (place / "broken.mid").write_bytes((place / "a.mid").read_bytes()[:60])
    (place / "text.mid").write_text("not music")
    mido.MidiFile(tracks=[mido.MidiTrack()]).save(place / "empty.mid")
    notes = [("note_on", 0, 12, 0), ("note_on", 0, 110, 0), ("note_on", 9, 40, 0), ("note_on", 0, 60, 0)]
    notes += [("note_off", 0, 60, 480), ("note_on", 0, 61, 10), ("note_off", 0, 61, 20), ("note_on", 0, 62, 450)]
    track = mido.MidiTrack([mido.Message(kind, channel=c, note=n, time=t) for kind, c, n, t in notes])
    track.append(mido.MetaMessage("end_of_track", time=240))
    mido.MidiFile(ticks_per_beat=480, tracks=[track]).save(place / "odd.mid")
    datasets.install("mine", place, said.append)
    assert said[0] == "mine: left out 2 notes outside the piano, MIDI 21 to 108: odd.mid (12, 110)"
    assert said[1].startswith("mine: left out 2 damaged files: broken.mid (EOFError), text.mid (")
    assert "text.mid" in said[1]
    assert said[2] == "mine: left out 1 note of percussion"
    assert said[3] == "mine: left out 1 note between two samples, an eighth note apart"
    assert said[4] == "mine: left out 1 piece, empty or of a single frame: empty.mid"
    assert said[5].startswith("mine: 2/1/1 pieces")
    last = datasets.load_music("mine").test[0]
    assert [list(np.flatnonzero(step) + 21) for step in last] == [[60], [60], [], [], [62]]


def test_midi_that_cannot_be_used(tmp_path, monkeypatch):
    place = tmp_path / "songs"
    place.mkdir()
    with pytest.raises(OnwardError, match=r"has no \.mid"):
        datasets.install("mine", place)
    (place / "a.mid").write_bytes(b"MThd")
    with pytest.raises(OnwardError, match=r"none of the 1 MIDI files .* a\.mid \("):
        datasets.install("mine", place)
    monkeypatch.setitem(sys.modules, "mido", None)
    with pytest.raises(OnwardError, match=r'pip install "onward\[midi\]"'):
        datasets.install("mine", place)
    with pytest.raises(OnwardError, match=r'pip install "onward\[midi\]"'):
        datasets.write_midi(roll(3), place / "b.mid")


# Fetching


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`: path to bytes, or to (bytes, the length it claims)."""

    files: dict


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.server.files.get(self.path)
        if found is None:
            self.send_error(404)
            return
        data, length = found if isinstance(found, tuple) else (found, len(found))
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.files = {}
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def jsb(server, tmp_path, monkeypatch):
    """The bytes of a .mat file that stands in for the chorales, to be had from /one/ and /two/."""
    path = as_mat(tmp_path / "a.mat")
    places = (f"http://127.0.0.1:{server.server_port}/{place}/J.mat" for place in ("one", "two"))
    stands_in("jsb", path, monkeypatch, *places)
    return path.read_bytes()


def test_fetch(server, jsb, folder, said):
    server.files = {"/one/J.mat": jsb}
    assert not datasets.installed("jsb")
    with pytest.raises(OnwardError, match="onward data fetch jsb, or onward data import jsb PATH"):
        datasets.load_music("jsb")
    datasets.fetch("jsb", said.append)
    assert len(said) == 2
    assert [len(p) for p in datasets.load_music("jsb").train] == [5, 9]
    assert [p.name for p in folder.iterdir()] == ["jsb.npz"]
    server.files = {}
    datasets.fetch("jsb", said.append)
    assert said[-1].startswith("jsb is already installed")
    (folder / "jsb.npz").write_bytes(b"broken")
    server.files = {"/one/J.mat": jsb}
    datasets.fetch("jsb", said.append)
    assert "Fetching it anew" in said[3]
    assert len(datasets.load_music("jsb").train) == 2


WRONG = "wrong checksum: damaged, cut short or another file; not used"
BAD_DOWNLOADS = {
    "cut in half, as its length says": (lambda d: (d[: len(d) // 2], len(d)), "the download was cut short; not used"),
    "cut in half, silently": (lambda d: d[: len(d) // 2], WRONG),
    "one bit": (lambda d: d[:-1] + bytes([d[-1] ^ 1]), WRONG),
    "not there": (lambda d: None, "the server answers 404"),
}


@pytest.mark.parametrize("case", BAD_DOWNLOADS)
def test_a_bad_download_is_said_and_the_next_address_tried(server, jsb, folder, said, case):
    harm, reason = BAD_DOWNLOADS[case]
    served = harm(jsb)
    server.files = {"/one/J.mat": served, "/two/J.mat": jsb}
    datasets.fetch("jsb", said.append)
    assert said[1] == f"jsb: {reason}"
    assert "/two/J.mat" in said[2]
    assert len(datasets.load_music("jsb").train) == 2
    (folder / "jsb.npz").unlink()
    server.files["/two/J.mat"] = served
    with pytest.raises(OnwardError) as error:
        datasets.fetch("jsb", said.append)
    assert str(error.value).count(reason) == 2
    assert not datasets.installed("jsb")
    assert not list(folder.iterdir()), "nothing of a bad download stays"


def test_fetch_of_several_files(server, tmp_path, said, monkeypatch):
    place = write_idx(tmp_path / "idx", end=".gz")
    base = f"http://127.0.0.1:{server.server_port}/"
    server.files = {f"/{path.name}": path.read_bytes() for path in place.iterdir()}
    downloads = tuple(
        Download(name[1:], "md5:" + hashlib.md5(data).hexdigest(), (base + name[1:],))
        for name, data in server.files.items()
    )
    monkeypatch.setitem(datasets.KNOWN, "mnist", datasets.KNOWN["mnist"]._replace(downloads=downloads))
    datasets.fetch("mnist", said.append)
    assert len(datasets.load_digits("mnist").train_images) == 7


def test_no_network(monkeypatch, capsys, folder):
    """Addresses at a port that nothing listens to."""
    for name in ("mnist", "jsb"):
        downloads = tuple(
            d._replace(addresses=(f"http://127.0.0.1:9/a/{d.file}", f"http://127.0.0.1:9/b/{d.file}"))
            for d in datasets.KNOWN[name].downloads
        )
        monkeypatch.setitem(datasets.KNOWN, name, datasets.KNOWN[name]._replace(downloads=downloads))
    assert cli.main(["data", "fetch", "mnist"]) == 1
    error = capsys.readouterr().err
    assert "http://127.0.0.1:9/a/train-images-idx3-ubyte.gz: no connection" in error
    assert "http://127.0.0.1:9/b/train-images-idx3-ubyte.gz: no connection" in error
    assert "http://127.0.0.1:9/a/t10k-labels-idx1-ubyte.gz" in error
    assert error.endswith("and then: onward data import mnist FOLDER\n")
    assert cli.main(["data", "fetch", "jsb"]) == 1
    assert capsys.readouterr().err.endswith("and then: onward data import jsb JSB_Chorales.mat\n")
    assert not list(folder.iterdir())


def test_the_bar_on_a_terminal(server, jsb, said, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    server.files = {"/one/J.mat": jsb}
    monkeypatch.setattr(sys, "stderr", Terminal())
    datasets.fetch("jsb", said.append)
    assert "JSB_Chorales.mat" in sys.stderr.getvalue()


def test_addresses_and_checksums_are_whole():
    for known in datasets.KNOWN.values():
        for download in known.downloads:
            kind, _, digest = download.checksum.partition(":")
            assert len(digest) == {"md5": 32, "sha256": 64}[kind]
            assert len(download.addresses) >= 2
            assert all(a.startswith("https://") and a.endswith("/" + download.file) for a in download.addresses)


# The folder


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, said):
    path = as_npz(tmp_path / "a.npz")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ONWARD_DATA", str(tmp_path / "file" / "data"))
    for attempt in (lambda: datasets.install("mine", path), lambda: datasets.fetch("jsb", said.append)):
        with pytest.raises(OnwardError, match=r"cannot write .*file/data.*ONWARD_DATA"):
            attempt()
    assert datasets.overview()


@pytest.mark.parametrize("kept", [0, 30, 0.5, 0.98])
def test_a_damaged_file(tmp_path, folder, kept, said):
    datasets.install("jsb", as_npz(tmp_path / "a.npz"), said.append)
    data = (folder / "jsb.npz").read_bytes()
    (folder / "jsb.npz").write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    words = r"damaged: .*jsb\.npz.*onward data fetch jsb, or onward data import jsb PATH"
    with pytest.raises(OnwardError, match=words):
        datasets.load_music("jsb")
    assert any("damaged" in line for line in datasets.overview())


def test_a_damaged_byte(tmp_path, folder, said):
    datasets.install("mine", as_npz(tmp_path / "a.npz"), said.append)
    data = bytearray((folder / "mine.npz").read_bytes())
    data[200] ^= 255
    (folder / "mine.npz").write_bytes(data)
    with pytest.raises(OnwardError, match=r"damaged: .*Install it anew: onward data import mine PATH"):
        datasets.load_music("mine")


def test_loads_are_kept_for_their_folder_only(tmp_path, monkeypatch, said):
    datasets.install("mine", as_npz(tmp_path / "a.npz"), said.append)
    first = datasets.load_music("mine")
    assert datasets.load_music("mine") is first
    assert not first.train[0].flags.writeable
    monkeypatch.setenv("ONWARD_DATA", str(tmp_path / "other"))
    assert not datasets.installed("mine")
    assert datasets.kind_of("mine") is None
    np.savez(tmp_path / "d.npz", train=np.ones((3, 4, 88)), valid=np.ones((1, 4, 88)), test=np.ones((1, 5, 88)))
    datasets.install("mine", tmp_path / "d.npz", said.append)
    assert len(datasets.load_music("mine").train) == 3
    monkeypatch.setenv("ONWARD_DATA", str(tmp_path / "data"))
    assert len(datasets.load_music("mine").train) == 2


@pytest.mark.parametrize(
    ("ask", "name", "words"),
    [
        (datasets.load_digits, "mnits", "unknown data set 'mnits'; did you mean mnist"),
        (datasets.fetch, "qqq", "unknown data set 'qqq'; there are: digits, mnist, etudes"),
        (lambda name: datasets.install(name, Path()), "MNIST", "did you mean mnist"),
        (datasets.load_music, "../secret", "letters, digits"),
        (datasets.load_digits, "jsb", "jsb holds music, and digits is asked for, such as digits, mnist"),
        (datasets.load_music, "muse", "not installed"),
    ],
)
def test_names_that_are_refused(ask, name, words):
    with pytest.raises(OnwardError, match=words):
        ask(name)


def test_what_a_name_holds():
    assert [datasets.kind_of(name) for name in ("mnist", "etudes", "qqq")] == ["digits", "music", None]
    assert datasets.installed("etudes")


# Generated etudes


def test_etudes():
    music = datasets.load_music("etudes")
    assert [len(part) for part in music[:3]] == [60, 12, 12]
    pieces = [*music.train, *music.valid, *music.test]
    assert all(60 <= len(piece) <= 150 and piece.shape[1] == 88 and piece.any(1).mean() > 0.9 for piece in pieces)
    assert len({piece.tobytes() for piece in pieces}) == len(pieces)
    # The same pieces on every machine and with every numpy.
    digest = hashlib.sha256(b"".join(piece.tobytes() for piece in pieces)).hexdigest()
    assert digest == "8e2a139c93a3e0d1546abfd41564869c7dbce10842c03f53422f1848850a305d"


def test_etudes_have_harmony():
    """Each piece ends on its tonic, in the bass and in the melody."""
    for piece in datasets.load_music("etudes").test:
        sounding = np.flatnonzero(piece[-3]) + 21
        assert sounding.min() % 12 == sounding.max() % 12


# The command


def test_the_command(tmp_path, folder, capsys):
    path = as_npz(tmp_path / "a.npz")
    assert cli.main(["data", "where"]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert cli.main(["data", "import", "my-songs", str(path)]) == 0
    assert cli.main(["data", "fetch", "etudes"]) == 0
    assert capsys.readouterr().out.endswith("etudes is embedded: nothing to fetch\n")
    assert cli.main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("digits       embedded       scanned digits")
    assert lines[1].startswith("mnist        not installed")
    assert lines[1].endswith("onward data fetch mnist (11.6 MB)")
    assert "generated etudes" in lines[2]
    assert lines[-1] == "my-songs     installed      your own; 2/1/1 pieces"
    assert cli.main(["data", "fetch", "my-songs"]) == 1
    assert "your own" in capsys.readouterr().err
    for wrong in (["data", "lst"], ["data", "import", "x"], ["data", "fetch"], ["data", "list", "x"]):
        assert cli.main(wrong) == 1
        assert capsys.readouterr().err.startswith("onward: ")
    assert cli.main(["data"]) == 2
    assert cli.main(["data", "--help"]) == 0


# The real sets


@real
def test_real_mnist(said):
    datasets.install("mnist", Path(REAL) / "mnist", said.append)
    assert len(said) == 1, "the checksums of the original do not fit"
    digits = datasets.load_digits("mnist")
    assert digits.train_images.shape == (60000, 28, 28)
    assert digits.test_images.shape == (10000, 28, 28)
    assert list(digits.train_labels[:5]) == [5, 0, 4, 1, 9]


@real
@pytest.mark.parametrize("name", ["jsb", "piano-midi", "nottingham", "muse"])
def test_real_music(name, said):
    known = datasets.KNOWN[name]
    path = Path(REAL) / "music" / known.downloads[0].file
    assert "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() == known.downloads[0].checksum
    datasets.install(name, path, said.append)
    assert len(said) == 1
    music = datasets.load_music(name)
    assert tuple(len(part) for part in music[:3]) == known.counts
    original = scipy.io.loadmat(path)
    for split in ("train", "valid", "test"):
        for one, other in zip(getattr(music, split), original[f"{split}data"][0], strict=True):
            np.testing.assert_array_equal(one, other)
