"""Entities that are divided among processes: the same to the byte, also where one of them dies."""

import dataclasses
import os
import signal

import pytest
from shops import learned, panel, write

from onward.errors import OnwardError
from onward.rows import learn
from onward.rows.fleet.fleet import Fleet
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
