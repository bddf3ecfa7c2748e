import json
import math
from collections import Counter
from dataclasses import fields

import pytest

from onward.errors import OnwardError
from onward.lab.papers import EXPERIMENTS, kind_of
from onward.lab.papers.trace_patterning import TracePatterningExperiment
from onward.lab.sweeps.plan import Job, Options, Range, covers, group, into_jobs, make_sweep
from onward.lab.sweeps.sweep import enough


def swept(axes=None, options=None, **fields):
    return make_sweep(
        TracePatterningExperiment(**{"methods": ("ccn",), "seeds": 2, **fields}), axes or {}, options or Options()
    )


def runs_of(sweep, share=1.0):
    return [run for own in sweep.runs(share).values() for run in own]


def test_a_grid_is_every_combination_with_every_seed():
    sweep = swept({"methods": ["ccn", "columnar"], "step_sizes": [1e-3, 1e-4], "discount": [0.8, 0.9]}, seeds=3)
    found = Counter((r.row, r.step_size, r.config["discount"], r.seed) for r in runs_of(sweep))
    assert len(found) == 2 * 2 * 2 * 3 == sweep.count * 3
    assert set(found.values()) == {1}


def test_methods_have_their_own_step_sizes_unless_they_are_swept():
    experiment = TracePatterningExperiment()
    found = {r.row: r.step_size for r in runs_of(swept(methods=("ccn", "columnar")))}
    assert found == {name: experiment.default_step_size(name) for name in ("ccn", "columnar")}


def test_runs_that_differ_in_seed_and_step_size_only_share_a_program():
    sweep = swept({"step_sizes": [1e-3, 1e-4], "discount": [0.8, 0.9]}, seeds=5)
    groups = group(runs_of(sweep))
    assert [len(own) for own in groups] == [10, 10]
    jobs = [job for own in groups for job in into_jobs(own, 4)]
    assert [len(job.runs) for job in jobs] == [4, 4, 2] * 2
    assert {job.width for job in jobs} == {4}
    assert len({job.program for job in jobs}) == 2
    assert len({job.id for job in jobs}) == 6
    assert sorted(r.key for job in jobs for r in job.as_runs()) == sorted(r.key for r in runs_of(sweep))


def test_a_job_survives_its_json():
    (job, *_) = into_jobs(runs_of(swept(seeds=3)), 2)
    again = Job.from_dict(json.loads(json.dumps(job.as_dict())))
    assert again == job
    assert again.id == job.id


@pytest.mark.parametrize(("runs", "tile", "width"), [(96, 64, 48), (17, 16, 9), (5, 64, 5), (64, 64, 64), (1, 1, 1)])
def test_tiles_are_even(runs, tile, width):
    jobs = into_jobs(runs_of(swept(seeds=runs)), tile)
    assert {job.width for job in jobs} == {width}
    assert sum(len(job.runs) for job in jobs) == runs


def test_more_workers_than_jobs_make_smaller_tiles():
    assert enough([64, 64], [64, 16], 4) == [16, 64]
    assert enough([1], [1], 8) == [1]
    assert enough([48], [96], 2) == [48]


def test_draws_are_those_of_the_seed_and_more_of_them_add():
    options = lambda n, seed=0: Options(search="random", draws=n, search_seed=seed)
    axes = {"methods": ["ccn", "columnar"], "step_sizes": Range(1e-5, 1e-2), "columnar_columns": Range(4, 32, True)}
    few, more, other = (list(swept(axes, o).choices()) for o in (options(8), options(20), options(8, 1)))
    assert more[: len(few)] == few
    assert few != other
    assert len(more) == 40
    assert all(1e-5 <= c["step_sizes"] <= 1e-2 and c["columnar_columns"] in range(4, 33) for c in more)
    logs = [math.log10(c["step_sizes"]) for c in list(swept(axes, options(400)).choices())[::2]]
    assert abs(sum(logs) / 400 - -3.5) < 0.15  # even in the logarithm


def test_drawing_without_ranges_never_repeats_and_ends():
    options = Options(search="random", draws=50)
    assert len(list(swept({"step_sizes": [1e-3, 1e-4], "discount": [0.8, 0.9]}, options).choices())) == 4


def test_a_rung_of_halving_is_shorter():
    sweep = swept({"step_sizes": [1e-3, 1e-4]}, Options(search="halving", eta=4, rungs=3), steps=1600)
    assert {r.config["steps"] for r in runs_of(sweep, 1 / 16)} == {100}
    assert {r.config["steps"] for r in runs_of(sweep)} == {1600}


@pytest.mark.parametrize(
    ("axes", "options", "words"),
    [
        ({"step_sizes": []}, {}, "--step-sizes has no values"),
        ({"discount": [0.9, 0.8, 0.9]}, {}, "0.9 is given twice"),
        ({"seeds": [1, 2]}, {}, "the same seeds"),
        ({"step_sizes": Range(1e-4, 1e-2)}, {}, "--search random"),
        ({"step_sizes": Range(1e-2, 1e-4)}, {"search": "random"}, "from less to more"),
        ({"steps": [10, 20]}, {"search": "halving"}, "what halving changes"),
        ({"step_sizes": [1e-3]}, {"search": "halving"}, "--steps 8 is too short for 3 rungs"),
    ],
)
def test_what_cannot_be_swept_is_refused(axes, options, words):
    with pytest.raises(OnwardError, match=words):
        swept(axes, Options(**options), steps=8)


def test_configurations_that_cannot_be_run_are_named_before_anything_runs():
    with pytest.raises(OnwardError, match=r"--ccn-width 3 .* do not fall into stages of 3 \(and 1 more\)"):
        swept({"ccn_width": [4, 3], "discount": [0.8, 0.9]}).experiments()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": -1}, "--workers must be at least 0"),
        ({"workers": 2, "scheduler": "tcp://a:1"}, "choose one"),
        ({"eta": 1}, "--eta"),
        ({"draws": 3}, "--search random"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises(OnwardError, match=words):
        Options(**options).check()


def test_only_more_of_the_same_goes_on():
    old = swept({"step_sizes": [1e-3, 1e-4]}).as_dict()
    assert covers(swept({"step_sizes": [1e-3, 1e-4]}).as_dict(), old) == ""
    assert covers(swept({"step_sizes": [1e-3, 1e-4, 1e-5]}, seeds=4).as_dict(), old) == ""
    for other, words in (
        (swept({"step_sizes": [1e-3]}), "--step-sizes"),
        (swept({"step_sizes": [1e-3, 1e-4]}, seeds=1), "2 seeds"),
        (swept({"step_sizes": [1e-3, 1e-4]}, steps=5), "its steps"),
        (swept({"step_sizes": [1e-3, 1e-4], "discount": [0.8, 0.9]}), "its discount"),
        (swept({"step_sizes": [1e-3, 1e-4]}, first_seed=1), "first_seed"),
    ):
        assert words in covers(other.as_dict(), old), words


def test_no_experiment_has_a_field_with_the_name_of_an_option():
    for name in EXPERIMENTS:
        assert not {f.name for f in fields(Options)} & {f.name for f in fields(kind_of(name))}, name
        assert kind_of(name).length_field in {f.name for f in fields(kind_of(name))}, name
