"""The one-to-many experiments: target propagation beside BPTT, on mixtures and on classes."""

import json

import numpy as np
import pytest

from onward.cli import main
from onward.lab.experiment import from_config
from onward.lab.figures import Run
from onward.lab.folder import read_config
from onward.lab.papers.one_to_many import PROTOCOLS, RULES, split
from onward.lab.papers.one_to_many_classes import OneToManyClassesExperiment
from onward.lab.papers.one_to_many_figures import held_out_table
from onward.lab.papers.one_to_many_mixture import OneToManyMixtureExperiment

TINY = ["--seeds", "1", "--iterations", "6", "--units", "4", "--held-out", "20", "--batch", "5", "--transitions", "8"]
KINDS = {"one-to-many-mixture": OneToManyMixtureExperiment, "one-to-many-classes": OneToManyClassesExperiment}


@pytest.mark.interfaces
@pytest.mark.parametrize("name", ["one-to-many-mixture", pytest.param("one-to-many-classes", marks=pytest.mark.slow)])
def test_a_small_run_ends_with_a_summary_a_report_and_every_figure(name, tmp_path, capsys):
    out = tmp_path / "run"
    fields = ["--lengths", "3", "--methods", "gru-tptt", *TINY]
    assert main(["run", name, *fields, "--out", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    (row,) = summary["methods"]
    assert row["name"] == "gru-tptt-3"
    assert np.isfinite(row["values"]).all()
    assert {p.stem for p in (out / "figures").iterdir()} == {"curves", "samples", "densities", "credit"}
    page = (out / "report.html").read_text()
    published = KINDS[name]().published
    assert all(f"paper: {method}" in page for method in published)
    assert "learn nothing" in page
    experiment = from_config(KINDS[name], read_config(out)["fields"], out)
    table = held_out_table(Run(experiment, out))
    assert table.header == ["", "T = 3"]
    assert table.rows[-1][1] == f"{summary['references']['learn nothing']:.3f}"
    with np.load(out / "records" / "gru-tptt-3-end.npz") as record:
        assert record["density"].shape[1:] == (97, len(experiment.answers))
        assert record["samples"].shape == (1, 1000)
        assert record["shift_cosine"].shape == (1, 3)
        # The first target is the gradient's own; float32.
        np.testing.assert_allclose(record["shift_cosine"][0, -1], 1, atol=1e-5)
        np.testing.assert_allclose(record["shift_ratio"][0, -1], 1, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method"),
    [
        (name, m)
        for name, kind in KINDS.items()
        for m in kind.all_methods()
        if m.startswith((*PROTOCOLS, "elman", "det"))
    ],
)
def test_every_method_runs(name, method, tmp_path):
    paper = ["--paper-rows", "40", *(["--paper-iterations", "3"] if "mixture" in name else ["--paper-epochs", "2"])]
    out = tmp_path / "run"
    assert main(["run", name, "--lengths", "3", "--methods", method, *TINY, *paper, "--out", str(out)]) == 0
    assert np.isfinite(json.loads((out / "summary.json").read_text())["methods"][0]["values"]).all()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_part(tmp_path, capsys):
    fields = ["--lengths", "3", "--methods", "elman-bptt", *TINY, "--step-sizes", "1e38"]
    assert main(["run", "one-to-many-mixture", *fields, "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "became NaN or infinite between steps" in said
    assert "model." in said
    assert "smaller step size" in said


def test_every_rule_has_a_network_and_a_name():
    for kind in KINDS.values():
        names = kind.all_methods()
        assert len(set(names)) == len(names)
        assert all(f"gru-{rule}" in names for rule in RULES)
        assert split("gru-last-step-20") == ("gru-last-step", 20)
