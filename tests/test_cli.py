"""The command line, and the errors that a hurried person makes."""

import dataclasses
import json
import subprocess
import sys

import pytest

from onward.cli import COMMANDS, main, read
from onward.errors import nearest
from onward.lab.fields import explained
from onward.lab.papers import EXPERIMENTS, kind_of
from onward.lab.sweeps.plan import Range


def fails(arguments, capsys, *words):
    assert main(arguments) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("onward: ")
    assert "\n" not in said, said
    assert all(word in said for word in words), said


def test_help_and_list(capsys):
    assert main(["--help"]) == 0
    assert "onward run EXPERIMENT" in capsys.readouterr().out
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in EXPERIMENTS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("onward 0.")


def test_the_package_can_be_run_as_the_command():
    command = [sys.executable, "-m", "onward"]
    assert subprocess.check_output([*command, "--version"], text=True).startswith("onward 0.")
    refused = subprocess.run([*command, "learn", "there-is-no.csv"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr


def test_nothing_asked_for_shows_how_it_is_asked(capsys):
    for words, shown in (([], "onward learn SOURCE"), (["data"], "onward data fetch")):
        assert main(words) == 2
        assert shown in capsys.readouterr().out


HELPED = [[name] for name in COMMANDS] + [["data", name] for name in ("list", "fetch", "import", "where")]


@pytest.mark.parametrize("command", HELPED, ids=" ".join)
def test_every_command_has_its_own_help(command, capsys):
    for words in ([*command, "--help"], [*command, "-h"]):
        assert main(words) == 0
        said = capsys.readouterr().out
        assert f"onward {' '.join(command)}" in said.splitlines()[0]
        assert len(said.splitlines()) > 3
        assert max(map(len, said.splitlines())) <= 120


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run -h memory", "--step-sizes"),
        ("run memory --steps many -h", "--step-sizes"),
        ("sweep --units 3 memory --help", "--step-sizes"),
        ("learn a.csv -h --target", "Column to predict"),
    ],
)
def test_help_is_given_wherever_it_is_asked_for(line, words, capsys):
    assert main(line.split()) == 0
    assert words in capsys.readouterr().out


def test_list_does_not_import_jax():
    code = "import sys; from onward.cli import main; main(['list']); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_field_is_explained(name, capsys):
    assert main(["run", name, "--help"]) == 0
    said = capsys.readouterr().out
    kind = kind_of(name)
    lines = explained(kind)
    for field in dataclasses.fields(kind):
        assert f"--{field.name.replace('_', '-')}" in said
        assert lines[field.name]
    together = " ".join(said.split())
    assert "Runs per method" in together
    assert f"There are {', '.join(kind.all_methods())}." in together


def experiment_of(*words):
    """The experiment that words ask for."""
    (experiment,) = read(words).args[:1]
    return experiment


@pytest.mark.parametrize("steps", ["--steps|1e6", "--steps=1_000_000", "--steps|1000000", "--steps|1e6 "])
@pytest.mark.parametrize("methods", ["--methods|rtrl,uoro", "--methods|rtrl|uoro", "--methods=rtrl,uoro"])
@pytest.mark.parametrize("sizes", ["--step-sizes|1e-3,1e-2", "--step-sizes|1e-3,|1e-2", "--step_sizes|1e-3|1e-2"])
def test_one_meaning_may_be_written_in_several_ways(steps, methods, sizes):
    words = [word for option in (sizes, steps, methods) for word in option.split("|")]
    for line in ([*words, "memory"], ["memory", *words]):
        experiment = experiment_of("run", *line)
        assert experiment.step_sizes == (1e-3, 1e-2)
        assert experiment.steps == 1_000_000
        assert isinstance(experiment.steps, int)
        assert experiment.methods == ("rtrl", "uoro")


def test_fields_of_several_values_take_commas_and_spaces():
    for lengths in (["2,20"], ["2", "20"], ["2,", "20"]):
        assert experiment_of("run", "one-to-many-classes", "--lengths", *lengths).lengths == (2, 20)
    for interval in (["10,20"], ["10", "20"]):
        assert experiment_of("run", "trace-patterning", "--isi", *interval).isi == (10, 20)
    assert experiment_of("run", "trace-patterning", "--spread", "None").spread is None
    assert experiment_of("run", "trace-patterning", "--spread", "1e-2").spread == 0.01


def test_a_sweep_takes_commas_and_spaces():
    words = ["--units", "8", "16", "--methods", "rtrl", "uoro", "--steps", "1e3"]
    spaced = read(["sweep", "memory", *words]).args[0]
    assert spaced == read(["sweep", "memory", "--units", "8,16", "--methods=rtrl,uoro", "--steps", "1_000"]).args[0]
    assert spaced.axes == {"units": [8, 16], "methods": ["rtrl", "uoro"]}
    isi = read(["sweep", "trace-patterning", "--isi", "24 36,10 20"]).args[0]
    assert isi.axes["isi"] == [[24, 36], [10, 20]]
    below = read(["sweep", "memory", "--memory-bias", "-1..2", "--search", "random", "--step-sizes=.1"]).args[0]
    assert below.axes["memory_bias"] == Range(-1.0, 2.0)
    assert read(["sweep", "memory", "--memory-bias", "-1,-.5"]).args[0].axes["memory_bias"] == [-1.0, -0.5]


def test_the_name_of_a_column_may_hold_a_comma_or_be_a_number():
    words = ["learn", "--horizon", "3", "rows.csv", "--target", "load, MW", "-5", "--strict"]
    source, fields, _ = read(words).args
    assert source == "rows.csv"
    assert fields == {"horizon": 3, "target": ("load, MW", "-5"), "strict": True}


NAMES = [*EXPERIMENTS, *COMMANDS, "--methods", "--step-sizes", "--ccn-width", "--seeds", "--no-every", "--isi"]


@pytest.mark.parametrize("name", NAMES)
def test_one_slip_is_near(name):
    start = 2 * name.startswith("--")
    for i in range(start, len(name)):
        slips = {name[:i] + name[i + 1 :], name[:i] + "x" + name[i:], name[:i] + "x" + name[i + 1 :]}
        slips.add(name[:i] + name[i + 1 : i + 2] + name[i] + name[i + 2 :])
        for slip in slips:
            assert nearest(slip, NAMES) == name, slip
    assert nearest(name.upper(), NAMES) == name
    assert nearest(name[:start] + name[start:].replace("-", "_"), NAMES) == name


FAR = ["", "x", "foo", "rust", "--speed", "train", "evaluate", "--epochs", "--lr", "--verbose", "--gpu", "--model"]


@pytest.mark.parametrize("word", [*FAR, "--batch-size"])
def test_another_word_is_not_near(word):
    assert nearest(word, NAMES) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lst", "unknown command 'lst'; did you mean list?"),
        ("train", "unknown command 'train'; there are: list, run"),
        ("run", "run what?"),
        ("run --seeds 2", "run what?"),
        ("run trace-paterning", "did you mean trace-patterning?"),
        ("run Memory", "unknown experiment 'Memory'; did you mean memory?"),
        ("run trace_patterning", "did you mean trace-patterning?"),
        ("run xyz", "there are: trace-patterning, trace-conditioning, sequential-digits"),
        ("run memory --step 10", "run memory has no field --step; did you mean --steps?"),
        ("run memory -steps 10", "run memory has no field -steps; did you mean --steps?"),
        ("run memory --epochs 10", "run memory has no field --epochs; see onward run memory --help"),
        ("run memory --steps", "--steps takes a whole number, got nothing"),
        ("run memory --steps --seeds 3", "--steps takes a whole number, got nothing"),
        ("run memory --steps= --seeds 3", "--steps takes a whole number, got ''"),
        ("run memory --steps many", "--steps takes a whole number, got 'many'"),
        ("run memory --steps 1.5", "--steps takes a whole number, got '1.5'"),
        ("run memory --steps 1e99", "--steps takes a whole number, got '1e99'"),
        ("run memory --steps inf", "--steps takes a whole number, got 'inf'"),
        ("run memory --steps 1e3 2e3", "run memory: '2e3' stands alone"),
        ("run memory 1e3", "run memory: '1e3' stands alone"),
        ("run memory memory", "run memory: 'memory' stands alone"),
        ("run memory --steps 5 --steps 6", "--steps is given twice"),
        ("run memory --out a --out b", "--out is given twice"),
        ("run memory --out", "--out takes a folder, got nothing"),
        ("run memory --out=", "--out takes a folder, got nothing"),
        ("run memory --out --seeds 2", "--out takes a folder, got nothing"),
        ("run memory --cell rnn", "--cell takes gru or lstm, got 'rnn'"),
        ("run memory --methods", "--methods takes words, got nothing"),
        ("run memory --methods rtrll", "there is no method 'rtrll' here; the methods are rtrl, snap-1"),
        ("run memory --memory-bias wide", "--memory-bias takes a number, got 'wide'"),
        ("run memory --delay -1e0", "--delay must not be negative, got -1"),
        ("run trace-patterning --discount -1e-3", "--discount must be in [0, 1), got -0.001"),
        ("run trace-patterning --isi 3", "--isi takes 2 whole numbers, got 3"),
        ("run trace-patterning --isi 3 4 5", "--isi takes 2 whole numbers, got 3 4 5"),
        ("run trace-patterning --spread wide", "--spread takes a number, or none, got 'wide'"),
        ("run trace-patterning --steps 0", "--steps must be positive, got 0"),
        ("run trace-patterning --steps -5", "--steps must be positive, got -5"),
        ("run trace-patterning --seeds 0", "--seeds must be positive"),
        ("run trace-patterning --ccn-width 3", "--ccn-width must divide --ccn-columns"),
        ("run trace-patterning --columnar-columns 0", "--columnar-columns must be positive"),
        ("run trace-patterning --isi 36 24", "--isi must be two whole numbers, 1 <= least <= most, got 36 24"),
        ("run trace-patterning --iti -1 4", "--iti"),
        ("run trace-patterning --discount 1", "--discount must be in [0, 1), got 1.0"),
        ("run trace-patterning --discount nan", "--discount must be in [0, 1)"),
        ("run trace-patterning --trace-decay 1.5", "--trace-decay must be in [0, 1]"),
        ("run trace-patterning --step-sizes 0", "--step-sizes must be positive"),
        ("run trace-patterning --step-sizes 0.1 0.1", "the same value is given twice"),
        ("run trace-patterning --gates rnn", "gates"),
        ("run sequential-digits --columns 0", "--columns must be positive"),
        ("run sequential-digits --stages 0", "--stages must be positive"),
        ("run sequential-digits --passes -1", "--passes must be positive, got -1"),
        ("run piano --every=3", "--every/--no-every takes no value"),
        ("run memory --resume a --replace", "choose one"),
        ("run memory --resume a --out b", "leave out --out"),
        ("sweep", "sweep what?"),
        ("sweep memory --units", "--units takes a whole number, got nothing"),
        ("sweep memory --units 8,1.5", "--units takes a whole number, got '1.5'"),
        ("sweep memory --units 8,,16", "--units has an empty value"),
        ("sweep memory --units ,", "--units has no values"),
        ("sweep memory --unit 8,16", "did you mean --units?"),
        ("sweep memory --worker 2", "did you mean --workers?"),
        ("sweep piano --every maybe", "--every takes true or false, got 'maybe'"),
        ("sweep memory --device", "--device takes a word, got nothing"),
        ("learn", "learn from what?"),
        ("learn a.csv", "--target: name the column to predict"),
        ("learn a.csv b.csv --target y", "learn: 'b.csv' stands alone"),
        ("learn a.csv --target", "--target takes words, got nothing"),
        ("learn a.csv --target y --task guess", "--task takes regression, classification or return, got 'guess'"),
        ("predict a", "onward predict FOLDER SOURCE"),
        ("predict a b c", "predict: 'c' stands alone"),
        ("predict a b --to c", "predict has no option --to; see onward predict --help"),
        ("report", "takes one run folder"),
        ("report a b", "report: 'b' stands alone"),
        ("report a --md", "report has no option --md"),
        ("verify --jsn", "verify has no option --jsn; did you mean --json?"),
        ("verify all", "verify: 'all' stands alone"),
        ("verify --json --markdown", "choose one"),
        ("list all", "list: 'all' stands alone"),
        ("data lst", "unknown data command 'lst'; did you mean list?"),
        ("data fetch", "onward data fetch NAME"),
        ("data import a", "onward data import NAME PATH"),
        ("data where there", "data where: 'there' stands alone"),
    ],
)
def test_a_hurried_person_is_told_in_one_line(line, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails(line.split(" "), capsys, words)
    assert not list(tmp_path.iterdir()), "a refused command left something behind"


def test_a_folder_in_use_is_not_overwritten(capsys, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    fails(["run", "trace-patterning", "--out", str(tmp_path)], capsys, "is not empty")
    fails(["run", "trace-patterning", "--out", str(tmp_path), "--replace"], capsys, "will not delete it")
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.interfaces
def test_digits_end_to_end(tmp_path, capsys):
    words = ["--passes", "0.2", "--seeds", "2", "--columns", "6", "--ccn-width", "2", "--units", "3"]
    assert main(["run", "sequential-digits", *words, "--out", str(tmp_path / "d")]) == 0
    summary = json.loads((tmp_path / "d" / "summary.json").read_text())
    assert [m["name"] for m in summary["methods"]] == ["columnar", "ccn", "bptt"]
    assert all(0 <= v <= 1 for m in summary["methods"] for v in m["values"])
    assert {p.stem for p in (tmp_path / "d" / "figures").iterdir()} == {"accuracy", "cost", "reading", "confusion"}
    assert main(["report", str(tmp_path / "d")]) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path / "d"), "--markdown"]) == 0
    said = capsys.readouterr().out
    assert "| *majority-class* (exact) |" in said
    assert "- bptt, seeds 0 to 1: " in said
