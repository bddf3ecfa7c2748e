"""Experiments of a person's own file: they run, resume and report like a paper's, and what is wrong is said in a line."""

import json
from pathlib import Path

import pytest

from onward import cli
from onward.errors import OnwardError
from onward.lab.own import Reference, is_file
from onward.lab.papers import EXPERIMENTS, kind_of
from onward.lab.results import load_summary

pytestmark = pytest.mark.usefixtures("compile_fast")
GOOD = Path(__file__).parents[2] / "examples/own_experiment.py"
TEXT = GOOD.read_text(encoding="utf-8")
SHORT = ["--steps", "200", "--seeds", "2", "--methods", "snap-1", "--units", "3"]

METHOD = (
    (GOOD.parent / "own_method.py").read_text(encoding="utf-8").replace("12", "3")
    + """

def rtrl(experiment):
    return None
"""
)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """`file(text)`: a Python file of that text, in a folder that one works in."""
    monkeypatch.chdir(tmp_path)

    def file(text=TEXT, name="mine.py"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return file


@pytest.fixture
def said(capsys):
    """`said(*words)`: exit status, what was printed, and the last line of standard error."""

    def said(*words):
        capsys.readouterr()
        status = cli.main(list(map(str, words)))
        out, error = capsys.readouterr()
        return status, out, error

    return said


def values(folder):
    return [row["values"] for row in load_summary(Path(folder))["methods"]]


# Names.


@pytest.mark.parametrize(
    ("text", "reference", "written"),
    [
        ("memory", Reference("memory"), "memory"),
        ("mine.py", Reference("", "mine.py"), None),
        ("a b/mine.py:Mine", Reference("", "a b/mine.py", "Mine"), "mine.py:Mine"),
        (r"C:\x+y\mine.py:Mine", Reference("", r"C:\x+y\mine.py", "Mine"), None),
        ("memory+x/mine.py:mine", Reference("memory", "x/mine.py", "mine"), "memory+mine.py:mine"),
    ],
)
def test_how_an_experiment_is_named(text, reference, written):
    assert Reference.of(text) == reference
    assert written is None or str(reference) == written
    assert is_file(text) == bool(reference.file)


def test_a_paper_s_experiment_is_named_by_itself():
    for name in EXPERIMENTS:
        kind = kind_of(name)
        assert (kind.name, kind.reference, kind.source) == (name, name, None)


# What one gets for nothing.


def test_a_file_runs_reports_and_is_listed(file, said):
    name = file()
    status, out, _ = said("run", name, *SHORT, "--out", "runs/a")
    assert status == 0
    assert "snap-1" in out
    assert "bayes 0.00000" in out
    folder = Path("runs/a")
    assert (folder / "mine.py").read_text() == TEXT
    page = (folder / "report.html").read_text()
    assert "Repeat two symbols after a delay" in page
    assert "memoryless" in page
    Path(name).unlink()  # the folder is enough
    for words in (("report", folder), ("report", folder, "--markdown"), ("run", "--resume", folder)):
        assert said(*words)[0] == 0, words
    status, out, _ = said("list", folder / "mine.py")
    assert status == 0
    assert "--units" in out
    assert "Units of the GRU. (default: 8)" in out
    assert "--units" in said("run", folder / "mine.py", "--help")[1]


def test_step_sizes_have_a_figure(file, said):
    assert said("run", file(), *SHORT, "--step-sizes", "1e-3,1e-2", "--out", "a")[0] == 0
    assert {path.stem for path in Path("a/figures").glob("*.svg")} == {"curves", "final-errors", "step-sizes"}


def test_stopped_and_resumed_it_is_the_same(file, said, monkeypatch):
    from onward.lab import results

    assert said("run", file(), *SHORT, "--out", "whole")[0] == 0
    calls = []

    class Halfway:
        def __enter__(self):
            return lambda: len(calls) > 2 or calls.append(1)

        def __exit__(self, *_):
            return None

    with monkeypatch.context() as patch:
        patch.setattr(results, "stopping", Halfway)
        assert said("run", "mine.py", *SHORT, "--out", "half")[0] == 130
    assert said("run", "--resume", "half")[0] == 0
    assert values("half") == values("whole")


def test_a_sweep_of_it_gives_the_numbers_of_a_run(file, said):
    name = file()
    assert said("run", name, *SHORT, "--out", "run")[0] == 0
    words = [*SHORT[:-1], "3,4"]
    assert said("sweep", name, *words, "--out", "sweep")[0] == 0
    rows = json.loads(Path("sweep/summary.json").read_text())["configurations"]
    assert [row["values"] for row in rows if row["units"] == 3] == values("run")
    assert said("sweep", name, *words, "--out", "sweep")[0] == 0
    Path(name).write_text(TEXT.replace("ow.GRU(", "ow.LSTM("))
    status, _, error = said("sweep", name, *words, "--out", "sweep")
    assert status == 1
    assert "choose another --out" in error


@pytest.mark.interfaces
def test_workers_find_it(file, said):
    assert said("sweep", file(), *SHORT[:-1], "3,4", "--out", "here")[0] == 0
    assert said("sweep", "mine.py", *SHORT[:-1], "3,4", "--workers", 2, "--out", "there")[0] == 0
    here, there = (json.loads(Path(f, "summary.json").read_text())["configurations"] for f in ("here", "there"))
    assert [row["values"] for row in here] == [row["values"] for row in there]


# One method more.


def test_a_method_beside_those_of_a_paper(file, said):
    file(METHOD)
    words = ("--methods", "snap-1,plain-rnn", "--steps", "200", "--seeds", "2", "--units", "3")
    assert said("run", "memory", "--with", "mine.py:plain_rnn", *words, "--out", "a")[0] == 0
    assert said("run", "memory", *("--methods", "snap-1"), *words[2:], "--out", "b")[0] == 0
    own = load_summary(Path("a"))["methods"]
    assert [row["name"] for row in own] == ["snap-1", "plain-rnn"]
    assert own[1]["step_size"] == 3e-3
    assert own[0]["values"] == values("b")[0]
    Path("mine.py").unlink()
    for more in (("report", "a"), ("run", "--resume", "a")):
        assert said(*more)[0] == 0
    assert kind_of("memory").all_methods() == load_methods()


def test_a_method_runs_beside_the_default_ones(file, said):
    file(METHOD)
    default = kind_of("memory")().methods
    assert (
        said(
            "run",
            "memory",
            "--with",
            "mine.py:plain_rnn",
            "--steps",
            "200",
            "--seeds",
            "1",
            "--units",
            "3",
            "--out",
            "a",
        )[0]
        == 0
    )
    assert {row["name"] for row in load_summary(Path("a"))["methods"]} == {*default, "plain-rnn"}
    assert kind_of("memory")().methods == default


def load_methods():
    from onward.lab.papers.memory import METHODS

    return METHODS


# What is wrong is said in a line.

HEAD = """
from dataclasses import dataclass
import onward as ow
from onward.lab.experiment import StreamExperiment
from typing import Any
"""
CLASS = "@dataclass(frozen=True, kw_only=True)\nclass Mine(StreamExperiment):\n    methods: tuple[str, ...] = ('a',)\n"
BUILD = "    steps: int = 10\n    def build(self, name):\n        return None\n"
WRONG = {
    "nothing in it": ("x = 1\n", "mine.py holds no experiment: a class that derives from"),
    "two": (
        HEAD + CLASS + BUILD + CLASS.replace("Mine", "Yours") + BUILD,
        "several experiments, Mine, Yours: say which, FILE.py:NAME",
    ),
    "a syntax error": ("x = (1\n", r"mine.py, line 1: '\(' was never closed"),
    "an import that is missing": (
        HEAD + "import nowhere_to_be_found\n",
        "line 6: it imports nowhere_to_be_found, which",
    ),
    "an error": (HEAD + "1 / 0\n", "mine.py, line 6: ZeroDivisionError: division by zero"),
    "an exit": ("raise SystemExit(3)\n", "mine.py, line 1: SystemExit: 3"),
    "no decorator": (HEAD + CLASS.partition("\n")[2] + BUILD, "write @dataclass"),
    "no build": (HEAD + CLASS + "    steps: int = 10\n", "mine.py: Mine lacks build"),
    "a field of another kind": (
        HEAD + CLASS + "    other: Any = 1\n" + BUILD,
        "Mine.other cannot be an option: its type",
    ),
    "a field without a default": (HEAD + CLASS + "    other: int\n" + BUILD, "mine.py: Mine.other needs a default"),
    "a default of another kind": (
        HEAD + CLASS + "    other: int = 'x'\n" + BUILD,
        "Mine.other takes a whole number, and",
    ),
    "the name of an option": (HEAD + CLASS + "    workers: int = 1\n" + BUILD, "Mine.workers is an option of every"),
    "no method": (HEAD + CLASS + BUILD, "mine.py: build must return a Method, not NoneType"),
    "an error in build": (
        HEAD + CLASS + BUILD.replace("return None", "return 1 / 0"),
        "mine.py, line 11: ZeroDivisionError: division by zero",
    ),
    "a measure of the wrong shape": (
        TEXT.replace("metrics.stream_loss", "lambda example, info: (example.x, 1.0)"),
        r"mine.py: .*measure.*two numbers, .*\(3,\)",
    ),
    "a measure that gives one number": (
        TEXT.replace("metrics.stream_loss", "lambda example, info: info.loss"),
        "mine.py: .*measure.*two numbers",
    ),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_what_is_wrong_with_a_file_is_said(file, said, command, text, message):
    status, out, error = said(command, file(text), "--out", "a")
    assert (status, out) == (1, "")
    last = error.strip().splitlines()[-1]
    assert last.startswith("onward: ")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(last)
    assert "Traceback" not in error
    assert not Path("a").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", "-5"), "--steps must be positive, got -5"),
        (("--steps", "0"), "--steps must be positive, got 0"),
        (("--units", "0", "--steps", "20"), "mine.py, line "),
    ],
)
def test_a_field_that_cannot_be_is_said_before_anything_starts(file, said, words, message):
    name = file()
    status, out, error = said("run", name, *words, "--out", "a")
    assert (status, out) == (1, "")
    assert message in error
    assert "Traceback" not in error
    assert not Path("a").exists()


def test_a_task_that_is_none_is_said(file, said):
    file(METHOD.replace("task = experiment.stream", "task = 'stream'").replace("task.inputs", "3"))
    status, _, error = said("run", "memory", "--with", "mine.py:plain_rnn", "--out", "a")
    assert status == 1
    assert "mine.py: the task of plain-rnn is 'stream': it must be a task (onward.AbstractTask)" in error
    assert not Path("a").exists()


def test_a_file_without_its_ending_is_found_out(file, said):
    file()
    status, _, error = said("run", "mine")
    assert status == 1
    assert "did you mean mine.py?" in error


def test_a_file_may_be_missing_or_hold_bytes(file, said):
    file()
    Path("bytes.py").write_bytes(b"\xff\xfe\x00")
    for name, message in (
        ("no.py", "no.py is not there"),
        ("bytes.py", "bytes.py"),
        ("mine.py:Me", "unknown experiment in"),
    ):
        status, _, error = said("run", name)
        assert status == 1
        assert message in error
        assert "Traceback" not in error


def test_what_a_file_prints_is_not_taken_for_output(file, said):
    status, out, error = said("list", file("print('hello')\n" + TEXT))
    assert status == 0
    assert "hello" not in out
    assert "hello" in error


def test_an_edit_is_refused_and_shown(file, said):
    name = file()
    assert said("run", name, *SHORT, "--out", "a")[0] == 0
    Path(name).write_text(TEXT.replace("return 1e-2", "return 1e-3"))
    for words in (("run", "--resume", "a"), ("run", name, "--resume", "a")):
        status, _, error = said(*words)
        assert status == 1
        assert "-        return 1e-2" in error
        assert "+        return 1e-3" in error
    assert said("run", "a/mine.py", "--resume", "a")[0] == 0
    Path("a/mine.py").write_text(TEXT + "\n")
    for words in (("report", "a"), ("run", "--resume", "a")):
        status, _, error = said(*words)
        assert status == 1
        assert "a/mine.py was changed since the run began" in error


@pytest.mark.parametrize("odd", [None, 3, {}, {"path": 1, "digest": "x"}])
def test_a_damaged_config_is_refused(file, said, odd):
    assert said("run", file(), *SHORT, "--out", "a")[0] == 0
    config = json.loads(Path("a/config.json").read_text())
    Path("a/config.json").write_text(json.dumps(config | {"file": odd}))
    for words in (("report", "a"), ("run", "--resume", "a")):
        status, _, error = said(*words)
        assert status == 1
        assert "config.json, file" in error
        assert "Traceback" not in error


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("mine.py", "say which function makes the method, FILE.py:NAME"),
        ("mine.py:rtrl", "memory has a method rtrl already"),
        ("mine.py:other", "unknown function in mine.py 'other'"),
        ("no.py:other", "no.py is not there"),
    ],
)
def test_a_method_that_cannot_be_added(file, said, method, message):
    file(METHOD)
    status, _, error = said("run", "memory", "--with", method, "--out", "a")
    assert status == 1
    assert message in error
    status, _, error = said("run", "mine.py", "--with", method)
    assert status == 1
    assert "--with adds a method to an experiment of a paper" in error


def test_a_file_that_changes_is_loaded_anew(file):
    name = file()
    first = kind_of(name)
    assert kind_of(name) is first
    file(TEXT.replace("8", "9"))
    assert kind_of(name)().units == 9
    with pytest.raises(OnwardError, match="did you mean Repeat"):
        kind_of("mine.py:Repaet")


def test_the_page_shows_what_the_examples_are(file, said):
    """Without annotations and docstrings: the same numbers."""
    page = (GOOD.parents[1] / "docs/own-experiment.md").read_text()
    whole, method = (block.split("```")[0] for block in page.split("```python\n")[1:3])
    assert said("run", GOOD, *SHORT, "--out", "example")[0] == 0
    assert said("run", file(whole), *SHORT, "--out", "page")[0] == 0
    assert values("page") == values("example")
    words = ("--methods", "plain-rnn", "--steps", "200", "--seeds", "1")
    for text, out in ((method, "shown"), ((GOOD.parent / "own_method.py").read_text(), "there")):
        assert said("run", "memory", "--with", f"{file(text)}:plain_rnn", *words, "--out", out)[0] == 0
    assert values("shown") == values("there")
