"""Which configuration is better: of errors the less, of shares of right answers the more."""

import json
from types import SimpleNamespace

import pytest

from onward.lab.experiment import Experiment
from onward.lab.papers import digits, kind_of
from onward.lab.sweeps import results
from onward.lab.sweeps import sweep as sweeping


def ran(value, failed=None, **also):
    return {"value": value, "failed": failed, "also": also}


@pytest.mark.parametrize("higher", [False, True])
def test_a_score_is_less_where_the_number_is_better(higher):
    score = lambda *run, **also: results.score(ran(*run, **also), higher)
    assert (score(0.9) < score(0.5)) == higher
    assert (score(-2.0) < score(1.0)) != higher
    assert score(0.5, 7) == float("inf")  # a run that broke is the last in both orders
    # Validation loss decides where there is one, and less of it is better whatever is reported.
    assert score(0.1, None, valid_least=1.0) < score(0.9, None, valid_least=2.0)
    assert score(0.9, None, valid_least=1.0) < score(0.1, None, valid_least=2.0)


def test_which_experiments_report_a_share_of_right_answers():
    assert kind_of("sequential-digits").higher_is_better
    assert issubclass(kind_of("sequential-digits"), digits.DigitsExperiment)
    assert not kind_of("trace-patterning").higher_is_better
    assert not Experiment.higher_is_better


def run_of(row, configuration, value, seed=0, failed=None):
    config = {"methods": [row]}
    return {
        "configuration": configuration, "method": row, "step_size": 0.1, "seed": seed, "value": value,
        "failed": failed, "steps": 10, "cpu_seconds": 1.0, "last": True, "config": config,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "best"), [("sequential-digits", "c"), ("trace-patterning", "a")])
def test_the_best_of_a_sweep_is_that_of_its_metric(name, best, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "_references", lambda *_: {})
    kind = kind_of(name)
    runs = [run_of("ccn", c, v + s / 100, s) for c, v in {"a": 0.2, "b": 0.5, "c": 0.9}.items() for s in range(5)]
    for run in runs:
        run["score"] = results.score(run | {"also": {}}, kind.higher_is_better)
    ended = results.Ended({"axes": []}, kind, "a number", runs)
    summary = results.summarise(ended, tmp_path)
    assert [row["configuration"] for row in summary["configurations"] if row["best"]] == [best]
    assert summary["higher_is_better"] == kind.higher_is_better
    assert summary["ranks"]["configurations"][0] == best
    mean = {"a": 0.22, "c": 0.92}[best]
    assert summary["chosen_on_other_seeds"]["ccn"]["mean"] == pytest.approx(mean)
    assert json.dumps(summary)


# Halving.


def kept(values, eta, higher=False, rows=("ccn",)):
    """What `_survivors` keeps of configurations with these values, the same of every row."""
    asked, entries, ended = {}, [], {}
    for row in rows:
        for i, value in enumerate(values):
            run = SimpleNamespace(key=(f"{row}{i}", 0))
            asked[i, row] = [run]
            job = SimpleNamespace(as_runs=lambda run=run: [run], id=f"{row}{i}")
            entries.append((0, job))
            ended[job.id] = {"runs": [ran(value)]} if value is not None else None
    kind = type("Kind", (), {"higher_is_better": higher})
    state = SimpleNamespace(
        jobs=entries, result=lambda job: ended[job.id], sweep=SimpleNamespace(experiment=kind(), eta=eta)
    )
    return sweeping._survivors(state, 0, asked)


@pytest.mark.parametrize("eta", [2, 3, 4])
@pytest.mark.parametrize("count", range(1, 10))
def test_halving_keeps_at_least_one_in_eta_of_every_row_and_the_best(count, eta):
    """Rounded up: 5 halve to 3, and 1 is never lost."""
    values = [(7 * i) % 10 / 10 for i in range(count)]
    order = sorted(range(count), key=lambda i: values[i])
    many = (count + eta - 1) // eta
    assert kept(values, eta, rows=("ccn", "snap")) == {(i, row) for i in order[:many] for row in ("ccn", "snap")}
    assert kept(values, eta, higher=True) == {(i, "ccn") for i in order[::-1][:many]}


def test_halving_puts_what_has_no_result_last():
    assert kept([None, 0.3, 0.2, None], 2) == {(1, "ccn"), (2, "ccn")}
    assert kept([None, 0.3, 0.2, None], 2, higher=True) == {(1, "ccn"), (2, "ccn")}
