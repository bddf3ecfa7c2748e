"""Optional extras: what misses one says in one line what it is, and how to install it, also from a checkout."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from onward.cli import read
from onward.errors import EXTRAS, OnwardError, needs
from onward.lab.data import datasets
from onward.rows.sources import open_rows

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADAPTERS = ("export", "gymnasium", "river", "safetensors", "sklearn", "torch")


def names_of(requirements):
    return {re.match(r"[\w.-]+", line)[0] for line in requirements}


def adapter(name, monkeypatch):
    monkeypatch.delitem(sys.modules, f"onward.adapters.{name}", raising=False)
    importlib.import_module(f"onward.adapters.{name}")


def source(name, content, path):
    (path / name).write_bytes(content)
    open_rows(str(path / name), complain=print)


def sweep(option):
    read(["sweep", "memory", "--units", "2", *option.split(), "--out", "never"])()


# Extra: what a person does that needs it, and how the sentence begins.
DONE = {
    "dask": (lambda path, patch: sweep("--workers 2"), "--workers"),
    "holidays": (
        lambda path, patch: read(["learn", "a.csv", *["--target", "y", "--time", "t", "--holidays", "DE"]]),
        "--holidays",
    ),
    "midi": (lambda path, patch: datasets.write_midi(np.zeros((4, 88)), path / "a.mid"), "reading and writing MIDI"),
    "parquet": (lambda path, patch: source("a.parquet", b"PAR1PAR1", path), "reading {path}/a.parquet"),
    "serve": (lambda path, patch: read(["serve", "never", "--target", "y"]), "onward serve"),
    "tensorboard": (lambda path, patch: sweep("--tensorboard"), "--tensorboard"),
    "zstd": (lambda path, patch: source("a.csv.zst", b"\x28\xb5\x2f\xfd" + bytes(9), path), "reading {path}/a.csv.zst"),
    **{name: (lambda path, patch, name=name: adapter(name, patch), f"onward.adapters.{name}") for name in ADAPTERS},
}
# What is imported of a package, where it is called otherwise; all of it is taken away.
MODULES = {
    "scikit-learn": ["sklearn"],
    "backports.zstd": ["compression", "compression.zstd", "backports", "backports.zstd"],
}


def test_every_extra_of_the_package_is_known():
    extras = PROJECT["optional-dependencies"]
    assert set(EXTRAS) == set(extras) == set(DONE)
    for extra, package in EXTRAS.items():
        assert package in names_of(extras[extra])


@pytest.mark.parametrize("extra", EXTRAS)
def test_without_an_extra_it_says_how_to_install_it(extra, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gone = MODULES.get(EXTRAS[extra], [EXTRAS[extra]])
    for name in [*gone, *(m for m in [*sys.modules] if m.split(".")[0] in gone)]:
        monkeypatch.setitem(sys.modules, name, None)
    do, what = DONE[extra]
    with pytest.raises((OnwardError, ImportError)) as caught:
        do(tmp_path, monkeypatch)
    said = str(caught.value)
    assert not (tmp_path / "never").exists()
    assert said == needs(what.format(path=tmp_path), extra)
    assert f'{EXTRAS[extra]}: pip install "onward[{extra}]"; ' in said
    assert said.endswith(f'from a checkout, in its folder: pip install ".[{extra}]"')
    assert "\n" not in said


def test_one_helper_says_it():
    """No other place of the package has such a sentence; docstrings name the extra."""
    for path in (ROOT / "src").rglob("*.py"):
        found = re.findall(r"(?:Error|exit)\([^)]*onward\[\w", path.read_text())
        assert not found or path.name == "errors.py", path


def test_pages_name_extras_that_there_are():
    pages = [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").glob("*.py"),
    ]
    named = [
        extra
        for page in pages
        for names in re.findall(r"(?:onward|\.)\[([\w,]+)\]['\"]", page.read_text())
        for extra in names.split(",")
    ]
    assert len(named) > 10
    assert set(named) <= set(EXTRAS)
