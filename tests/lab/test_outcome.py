"""What came of a run, as arrays and frames; and two runs beside each other."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import onward.lab
from onward.cli import main
from onward.errors import OnwardError
from onward.lab.page import interval
from onward.lab.papers import kind_of
from test_cli import fails

pytestmark = pytest.mark.usefixtures("compile_fast")

OWN = """
import dataclasses, optax
import onward as ow
from onward.lab import Method, StreamExperiment

@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiny(StreamExperiment):
    "Tiny."
    methods: tuple[str, ...] = ("small", "large")
    steps: int = 40
    seeds: int = 6
    units: int = 2
    def build(self, name):
        columns = lambda key: ow.Columns(ow.LSTMGates(), 3, self.units, key=key)
        return Method(name, ow.AnBn(), lambda key: ow.Model(columns(key), ow.Linear(self.units, 3)),
            lambda model, size: ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(0.01), size),
            self.steps, lambda example, info: (info.loss, example.weight), "error", point_every=10)
    def references(self):
        return {"nothing": 1.0}
"""


@pytest.fixture(scope="module")
def kind(tmp_path_factory):
    file = tmp_path_factory.mktemp("own") / "tiny.py"
    file.write_text(OWN)
    return kind_of(str(file))


@pytest.fixture(scope="module")
def pair(kind, tmp_path_factory):
    place = tmp_path_factory.mktemp("pair")
    a = onward.lab.run(kind(), place / "a", quiet=True)
    return a, onward.lab.run(kind(methods=("small",), units=3, first_seed=1), place / "b", quiet=True)


def test_an_outcome_holds_what_its_files_say(pair):
    outcome, _ = pair
    assert [*outcome.finals] == [*outcome.curves] == ["small", "large"]
    lines = [json.loads(line) for line in (outcome.folder / "metrics.jsonl").read_text().splitlines()]
    for name, curve in outcome.curves.items():
        mine = [line for line in lines if line["job"] == name]
        assert curve.steps.tolist() == [line["step"] for line in mine] == [10, 20, 30, 40]
        assert curve.values.tolist() == [line["values"] for line in mine]
        assert curve.seeds == (0, 1, 2, 3, 4, 5)
        assert outcome.finals[name].tolist() == curve.values[-1].tolist()
    assert outcome.references == {"nothing": 1.0}
    again = onward.lab.load(outcome.folder)
    assert again.finals["large"].tolist() == outcome.finals["large"].tolist()
    assert "6 seeds, 40 steps" in repr(again)


def test_frames_have_a_line_a_run_and_a_line_a_point(pair):
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    outcome, _ = pair
    finals, curves = outcome.frame(), outcome.curve_frame()
    assert isinstance(finals, pandas.DataFrame)
    assert [*finals.columns] == ["method", "step_size", "seed", "error"]
    assert (len(finals), len(curves)) == (12, 48)
    last = curves[curves.step == 40].set_index(["method", "seed"]).value
    for method, seed, value in finals[["method", "seed", "error"]].itertuples(index=False):
        assert last[method, seed] == value == outcome.finals[method][seed]


def test_frames_without_pandas_say_what_is_missing(pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for frame in (pair[0].frame, pair[0].curve_frame):
        with pytest.raises(ImportError, match="frames need pandas: pip install pandas; the arrays are in curves"):
            frame()


def test_a_comparison_pairs_the_seeds_that_both_have(pair, capsys):
    a, b = pair
    compared = onward.lab.compare(a, b.folder)
    (difference,) = compared.differences
    each = b.finals["small"][:5] - a.finals["small"][1:]  # seeds 1 to 5
    assert (difference.method, difference.seeds) == ("small", 5)
    assert difference.mean == pytest.approx(each.mean())
    assert (difference.low, difference.high) == interval(each)
    assert compared.alone == ("large",)
    assert compared.settings == {
        "methods": (["small", "large"], ["small"]),
        "first_seed": (0, 1),
        "units": (2, 3),
    }
    assert main(["compare", str(a.folder), str(b.folder)]) == 0
    said = capsys.readouterr().out
    assert said.strip() == compared.markdown()
    assert "| units | 2 | 3 |" in said


@pytest.mark.parametrize(("shift", "verdict"), [(-1.0, "b"), (1.0, "a"), (0.0, "not told apart")])
@pytest.mark.parametrize("higher", [False, True])
def test_what_is_better_follows_the_metric(pair, shift, verdict, higher, monkeypatch):
    a, b = pair
    monkeypatch.setattr(type(b.experiment), "higher_is_better", higher)
    monkeypatch.setattr(type(a.experiment), "higher_is_better", higher)
    monkeypatch.setitem(b.finals, "small", np.append(a.finals["small"][1:], 0.0) + shift)
    said = onward.lab.compare(a, b).markdown().splitlines()[-3 if "Only" in onward.lab.compare(a, b).markdown() else -1]
    other = {"a": "b", "b": "a"}
    assert said.endswith(f"| {other.get(verdict, verdict) if higher else verdict} |"), said


def test_of_few_common_seeds_no_interval_is_said(kind, pair, tmp_path):
    few = onward.lab.run(kind(methods=("small",), seeds=4), tmp_path / "few", quiet=True)
    (difference,) = onward.lab.compare(pair[0], few).differences
    assert difference.seeds == 4
    assert difference.mean == 0
    assert np.isnan(difference.low)
    assert "| too few seeds | - |" in onward.lab.compare(pair[0], few).markdown()


def test_the_page_shows_what_python_prints(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs/own-experiment.md").read_text().split("## From Python")[1]
    program, shown = (page.split(f"```{kind}\n")[1].split("```")[0] for kind in ("python", "text"))
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    assert capsys.readouterr().out == shown
    assert main(["compare", "runs/four", "runs/four"]) == 0


def test_runs_of_no_common_metric_or_that_have_not_ended_are_refused(kind, pair, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    fails(["compare", str(pair[0].folder), str(tmp_path / "empty")], capsys, "is not a run folder")
    fails(["compare", str(pair[0].folder)], capsys, "onward compare DIR DIR")
    fails(["compare", "a", "b", "c"], capsys, "c")
    other = type("Other", (kind,), {"final_metric": "gain"})
    loaded = onward.lab.load(pair[1].folder)
    object.__setattr__(loaded, "experiment", other())
    with pytest.raises(OnwardError, match=r"reports error, .* gain: there is nothing to compare"):
        onward.lab.compare(pair[0], loaded)
