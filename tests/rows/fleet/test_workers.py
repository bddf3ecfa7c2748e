"""Entities that are divided among processes: the same to the byte, also where one of them dies."""

import dataclasses
import os
import signal
from contextlib import nullcontext

import numpy as np
import pytest
from shops import learned, options, panel, write

from onward.errors import OnwardError
from onward.rows import learn
from onward.rows.fleet.fleet import Fleet
from onward.rows.fleet.shards import Facts, There
from onward.rows.options import Learn

pytest.importorskip("distributed")
pytestmark = pytest.mark.interfaces
FILES = ("predictions.csv", "entities.csv", "metrics.jsonl")


@pytest.fixture(autouse=True)
def blocks_of_100_rows(monkeypatch):
    monkeypatch.setattr("onward.rows.report.write_report", lambda folder: folder / "report.html")
    monkeypatch.setattr(Fleet, "least", 100)
    started = Fleet.__init__
    monkeypatch.setattr(Fleet, "__init__", lambda self, *args, **more: started(self, *args, **more | {"block": 100}))


def test_two_workers_learn_what_one_process_does_though_one_of_them_dies(tmp_path, monkeypatch, capsys):
    rows = panel(12, 80)
    here = learned(tmp_path, rows, "here", alarm=1e-2)
    killed: list[int] = []
    look = learn._Run._look_around

    def kill(self):
        look(self)
        if self.session.rows >= 300 and not killed:
            self._keep()
        if self.session.rows >= 500 and not killed:
            client = self.session.shards._client
            pids = client.run(os.getpid)
            killed.append(next(iter(pids.values())))
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(learn._Run, "_look_around", kill)
    there = learned(tmp_path, rows, "there", workers=2, alarm=1e-2)
    assert killed
    assert "a worker is gone" in capsys.readouterr().err
    for name in FILES:
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
    assert sorted(path.name for path in (there / "checkpoints").glob("*.sqlite")) == [
        "entities-0.sqlite",
        "entities-1.sqlite",
    ]
    # What they left is read here, and gone on with by as many.
    source = write(tmp_path / "new.csv", [("s1", 100, 1.0, 1.0), ("s1", 101, 1.0, 1.0)])
    learn.predict(there, source, str(tmp_path / "said.csv"), print)
    learn.predict(here, source, str(tmp_path / "said too.csv"), print)
    assert (tmp_path / "said.csv").read_bytes() == (tmp_path / "said too.csv").read_bytes()
    with pytest.raises(OnwardError, match="was run with --workers 2, not 1"):
        learn.learn(dataclasses.replace(learn.load_options(there)[0], workers=1), source, there, resume=True)


class Late:
    """A client and its worker in one, which looks at what it was sent when it is asked for the result."""

    def __init__(self, workers=2):
        self.keys, self.sent, self.workers = [], [], workers

    def scheduler_info(self, n_workers):
        return {"workers": {f"tcp://{i}": {} for i in range(self.workers)}}

    def as_current(self):
        return nullcontext()

    def submit(self, *what, key, **more):
        self.keys.append(key)
        return self

    def result(self, timeout):
        return self

    def facts(self):
        return Kept(("", Facts(0, 1, 1)))

    def take(self, *what):
        self.sent.append(what)
        return Kept(None)


class Kept:
    def __init__(self, value):
        self.value = value

    def result(self, timeout):
        return self.value


def test_workers_that_are_asked_for_again_are_others():
    """Of a key that was there before Dask may give the old one, with what it has learned."""
    client, chosen = Late(), options(workers=2)
    for _ in range(50):
        There(chosen, client)
    assert len({*client.keys}) == 100


def test_what_was_sent_is_what_it_was_then():
    """Dask sends later: a reader that has gone on to the next rows has changed what is its own."""
    client = Late()
    names, moments = ["a", "b", "c"], np.arange(3.0)
    x, plain, y = np.ones((3, 8)), np.zeros(8, bool), np.ones((3, 1))
    There(options(workers=2), client).take(names, moments, x, plain, y, learn=True)
    for part in (moments, x, plain, y):
        part[...] = 7
    assert client.sent
    for _, when, inputs, flags, targets, _ in client.sent:
        assert (when < 3).all()
        assert (inputs == 1).all()
        assert (targets == 1).all()
        assert not flags.any()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"workers": 2}, "--workers divide the entities"),
        ({"by": ("shop",), "workers": 2, "share": "all"}, "leave --workers out"),
        ({"by": ("shop",), "scheduler": "tcp://127.0.0.1:1"}, "with --workers"),
        ({"by": ("shop",), "workers": 1, "scheduler": "nowhere"}, "neither an address"),
        ({"by": ("shop",), "workers": -1}, "--workers must be at least 0"),
    ],
)
def test_options_that_do_not_fit(fields, match):
    with pytest.raises(OnwardError, match=match):
        Learn(target=("y",), **fields).check()
