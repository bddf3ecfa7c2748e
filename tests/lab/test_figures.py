"""What draws: only reports, and the tables they share."""

import ast
import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import onward
from onward.lab.figures import Run, spread_columns
from onward.lab.page import ENOUGH, interval, span
from onward.lab.papers import EXPERIMENTS, kind_of
from onward.lab.papers.memory import MemoryExperiment
from onward.lab.papers.piano import PianoExperiment

SRC = Path(onward.__file__).parent
# `page` and `figures` draw what reports share; a report is imported when its page is asked for.
DRAWS = {"page", "figures", "report"}


def imported(path):
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_running_imports_nothing_that_draws():
    seen = 0
    for path in [*(SRC / "lab" / "papers").glob("*.py"), *(SRC / "lab").glob("*.py")]:
        if path.stem in DRAWS or path.stem.endswith("_figures"):
            continue
        seen += 1
        for name in imported(path):
            assert not name.startswith("matplotlib"), path
            assert not any(part == "figures" or part.endswith("_figures") for part in name.split(".")), path
    assert seen > 15


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_names_what_draws_its_report(name):
    assert callable(import_module(kind_of(name).figures).report)


@pytest.mark.parametrize(
    ("experiment", "names"),
    [(MemoryExperiment(), ["rtrl", "columns"]), (PianoExperiment(data="etudes"), ["bptt-adam", "ccn-adam"])],
)
def test_the_tile_of_a_method_is_known_without_building_it(experiment, names):
    assert [experiment.tile_of(name) for name in names] == [experiment.build(name).tile for name in names]


def test_levels_fill_the_first_columns_of_the_table_of_methods(tmp_path):
    rows = [{"name": "rtrl", "note": "exact", "mean": 0.26, "steps": 10}]
    columns = {"mean": lambda row: f"{row['mean']:.1f}", "steps": lambda row: str(row["steps"])}
    more = {"metric": "", "also": {}, "values": [], "median": 0.26, "std": 0.0, "cpu_seconds": 1.0, "published": None}
    method = {**rows[0], **more, "name": "rtrl@0.1", "step_size": 0.1, "seeds": [0]}
    content = {"config": {}, "references": {}, "methods": [method] * 2}
    (tmp_path / "summary.json").write_text(json.dumps(content))
    table = Run(MemoryExperiment(), tmp_path).table(columns, {"best possible": ["0.1"]}, "a caption.")
    assert table.header == ["method", "mean", "steps"]
    assert table.rows == [["rtrl (exact)", "0.3", "10"], ["best possible", "0.1", ""]]
    assert table.caption == "a caption. Of each method its best step size."


@pytest.mark.parametrize("seeds", range(1, 9))
def test_an_interval_of_few_seeds_is_none(seeds):
    """Of two values a bootstrap interval is their range, which holds the mean half of the time."""
    values = np.random.default_rng(seeds).normal(size=seeds)
    low, high = interval(values)
    told = span(low, high, lambda value: f"{value:.2f}")
    if seeds < ENOUGH:
        assert np.isnan([low, high]).all()
        assert told == "too few seeds"
    else:
        drawn = np.random.default_rng(1).choice(values, (20_000, seeds)).mean(1)
        np.testing.assert_allclose([low, high], np.percentile(drawn, [2.5, 97.5]), atol=0.05 * np.ptp(values))
        assert told == f"{low:.2f} - {high:.2f}"
    assert span(None, None, str) == "too few seeds"


@pytest.mark.parametrize("higher", [False, True])
def test_best_is_best_in_the_direction_of_the_metric(higher):
    columns = spread_columns(1, higher_is_better=higher)
    row = {"values": [1.0, 3.0, 2.0], "mean": 2.0, "std": 1.0}
    assert (columns["best"](row), columns["worst"](row)) == (("3.0", "1.0") if higher else ("1.0", "3.0"))
    assert columns["95 % interval"](row) == "too few seeds"
