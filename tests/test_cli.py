"""The command line, and the errors that a hurried person makes."""

import json
import subprocess
import sys

import pytest

from onward.cli import EXPERIMENTS, main


def fails(arguments, capsys, *words):
    status = main(arguments)
    said = capsys.readouterr().err.strip()
    assert status != 0
    assert said.startswith("onward: ")
    assert "\n" not in said, said
    for word in words:
        assert word in said, said


def test_help_and_list(capsys):
    assert main(["--help"]) == 0
    assert "onward run EXPERIMENT" in capsys.readouterr().out
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in EXPERIMENTS)
    assert main(["run", "--help"]) == 0
    assert main(["verify", "--help"]) == 0
    assert capsys.readouterr().out.count("onward list") == 2
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("onward 0.")


def test_list_does_not_import_jax():
    code = "import sys; from onward.cli import main; main(['list']); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_field_is_explained(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", name, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "--seeds" in said
    assert "Runs per method" in said


def test_unknown_names_suggest_the_nearest(capsys):
    fails(["lst"], capsys, "unknown command 'lst'; did you mean list?")
    fails(["run", "trace-paterning"], capsys, "did you mean trace-patterning?")
    fails(["run", "xyz"], capsys, "there are: trace-patterning, sequential-digits")
    fails(["run"], capsys, "run what?")
    fails(["run", "trace-patterning", "--step", "10"], capsys, "no field --step;", "did you mean --steps?")
    fails(
        ["run", "trace-patterning", "--methods", "ccnn"],
        capsys,
        "there is no method 'ccnn'",
        "ccn, columnar, constructive",
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["--steps", "0"], "--steps must be positive, got 0"),
        (["--steps", "-5"], "--steps"),
        (["--steps", "many"], "--steps"),
        (["--seeds", "0"], "--seeds must be positive"),
        (["--ccn-width", "3"], "--ccn-width must divide --ccn-columns"),
        (["--columnar-columns", "0"], "--columnar-columns must be positive"),
        (["--isi", "36", "24"], "--isi must be two whole numbers, 1 <= least <= most, got 36 24"),
        (["--iti", "-1", "4"], "--iti"),
        (["--discount", "1"], "--discount must be in [0, 1), got 1.0"),
        (["--discount", "-0.1"], "--discount must be in [0, 1)"),
        (["--discount", "nan"], "--discount must be in [0, 1)"),
        (["--trace-decay", "1.5"], "--trace-decay must be in [0, 1]"),
        (["--step-sizes", "0"], "--step-sizes must be positive"),
        (["--step-sizes", "0.1", "0.1"], "the same value is given twice"),
        (["--gates", "rnn"], "gates"),
        (["--out"], "--out needs a folder"),
    ],
)
def test_bad_fields_end_with_one_clear_line(fields, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails(["run", "trace-patterning", *fields], capsys, words)
    assert not list(tmp_path.iterdir()), "a refused run left something behind"


def test_bad_fields_of_digits(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails(["run", "sequential-digits", "--columns", "0"], capsys, "--columns must be positive")
    fails(["run", "sequential-digits", "--stages", "0"], capsys, "--stages must be positive")
    fails(["run", "sequential-digits", "--passes", "-1"], capsys, "--passes must be positive, got -1")


def test_a_folder_in_use_is_not_overwritten(capsys, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    fails(["run", "trace-patterning", "--out", str(tmp_path)], capsys, "is not empty")
    fails(["run", "trace-patterning", "--out", str(tmp_path), "--replace"], capsys, "will not delete it")
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_report_without_a_finished_run(capsys, tmp_path):
    fails(["report"], capsys, "takes one run folder")
    fails(["report", "--md"], capsys, "takes one run folder")
    fails(["list", "all"], capsys, "takes no 'all'")


def test_digits_end_to_end(tmp_path, capsys):
    words = [
        "--passes",
        "0.2",
        "--seeds",
        "2",
        "--columns",
        "6",
        "--ccn-width",
        "2",
        "--units",
        "3",
    ]
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
