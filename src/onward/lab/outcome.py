"""What has come of a run, as arrays and as frames; and what two runs differ in."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from onward.errors import OnwardError
from onward.lab.experiment import Experiment, config_of
from onward.lab.folder import read_config
from onward.lab.page import ENOUGH, interval, span
from onward.lab.results import base_name, curves_of, execute, finished, load_environment
from onward.lab.train import read_metrics
from onward.text import counted, markdown_table

# What of a machine is worth a word where two runs were made on two.
MACHINE = ("onward", "jax", "jaxlib", "python", "cpu", "devices", "xla_flags")


class Curve(NamedTuple):
    """A metric along a run: `steps` (points,) and `values` (points, seeds), one column a seed of `seeds`."""

    steps: Int[np.ndarray, " points"]
    values: Float[np.ndarray, "points seeds"]
    seeds: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Outcome:
    """A finished run. Where several step sizes were run, a method is called `NAME@STEP_SIZE`.

    `curves`: of each method. `finals`: of each the reported number, (seeds,), in the order of its curve's.
    `references`: exact levels, by name. `summary`: all that summary.json holds.
    """

    experiment: Experiment
    folder: Path
    curves: dict[str, Curve]
    finals: dict[str, Float[np.ndarray, " seeds"]]
    references: dict[str, float]
    summary: dict[str, Any]

    def frame(self) -> Any:
        """The finals as a pandas frame, a line a run: method, step_size, seed, and the metric by its name."""
        rows = [
            {"method": base_name(m), "step_size": m["step_size"], "seed": seed, m["metric"]: value}
            for m in self.summary["methods"]
            for seed, value in zip(m["seeds"], m["values"], strict=True)
        ]
        return _frame(rows)

    def curve_frame(self) -> Any:
        """The curves as a pandas frame, a line a point of a run: method, step_size, seed, step, and the value."""
        return _frame(list(self._points()))

    def _points(self) -> Iterator[dict[str, Any]]:
        for row in self.summary["methods"]:
            steps, values, seeds = self.curves[row["name"]]
            for i, seed in enumerate(seeds):
                for step, value in zip(steps.tolist(), values[:, i].tolist(), strict=True):
                    yield {
                        "method": base_name(row), "step_size": row["step_size"], "seed": seed, "step": step,
                        "value": value,
                    }  # fmt: skip

    def __repr__(self) -> str:
        lines = [f"{self.experiment.title}: {self.folder}"]
        for row in self.summary["methods"]:
            spread = f"sd {row['std']:.5f}, {counted(len(row['values']), 'seed')}"
            lines.append(f"  {row['name']:14} {row['metric']} {row['mean']:.5f} ({spread}, {row['steps']:,} steps)")
        levels = "   ".join(f"{name} {value:.5f}" for name, value in self.references.items())
        return "\n".join([*lines, *([f"  {levels}"] if levels else [])])


def _frame(rows: list[dict[str, Any]]) -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError("frames need pandas: pip install pandas; the arrays are in curves and finals") from error
    return pandas.DataFrame(rows)


def run(
    experiment: Experiment,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    replace: bool = False,
    quiet: bool = False,
    workers: int = 1,
) -> Outcome:
    """Run an experiment, write its report, and return what came of it.

    `folder`: where to; None: a new temporary one. `resume`: go on with the run there. `replace`: delete an older one.
    `workers`: processes that share the jobs (started as by `multiprocessing`'s spawn). `quiet`: show no progress.

    >>> from onward.lab.papers.trace_patterning import TracePatterningExperiment
    >>> experiment = TracePatterningExperiment(methods=("columnar",), columnar_columns=2, steps=200, seeds=2)
    >>> outcome = run(experiment, quiet=True)
    >>> outcome.finals["columnar"].shape, sorted(outcome.references)
    ((2,), ['bayes', 'pattern-blind', 'predict-zero'])

    Raises OnwardError as the command does, `NotFinite` where a run breaks, and `Stopped` after Ctrl-C.
    """
    place = Path(tempfile.mkdtemp(prefix="onward-")) / "run" if folder is None else Path(folder)
    execute(experiment, place, resume=resume, replace=replace, quiet=quiet, workers=workers)
    return load(place)


def load(folder: str | Path) -> Outcome:
    """What came of a finished run; OnwardError where the folder holds none."""
    path = Path(folder)
    experiment, summary = finished(path)
    lines, curves, finals = read_metrics(path), {}, {}
    for row in summary["methods"]:
        steps, values = curves_of(experiment, lines, base_name(row), row["step_size"])
        curves[row["name"]] = Curve(steps, values, tuple(row["seeds"]))
        finals[row["name"]] = np.asarray(row["values"], float)
    return Outcome(experiment, path, curves, finals, summary["references"], summary)


class Difference(NamedTuple):
    """What a method's finals differ in, b less a, over the seeds that both have; the interval is of 95 %, or NaN."""

    method: str
    seeds: int
    a: float
    b: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two runs beside each other.

    `settings`: of every field, or word on the machine, that differs, its two values. `differences`: of every method
    that both have. `alone`: methods of one of them.
    """

    a: Outcome
    b: Outcome
    settings: dict[str, tuple[Any, Any]]
    differences: tuple[Difference, ...]
    alone: tuple[str, ...]

    def markdown(self) -> str:
        """As tables."""
        kind, metric = type(self.a.experiment), self.a.experiment.final_metric
        show = lambda v: f"{v:.5f}"
        better = "higher" if kind.higher_is_better else "lower"
        parts = [f"a: {self.a.folder}, b: {self.b.folder}"]
        words = lambda v: " ".join(map(str, v)) if isinstance(v, list | tuple) else "none" if v is None else str(v)
        rows = [[name, words(a) or "-", words(b) or "-"] for name, (a, b) in self.settings.items()]
        parts += [markdown_table(["what differs", "a", "b"], rows)] if rows else ["All settings are the same."]
        between = lambda d: span(d.low, d.high, show).replace(" - ", " to ")  # either may be negative
        rows = [
            [d.method, str(d.seeds), show(d.a), show(d.b), show(d.mean), between(d), _verdict(d, kind)]
            for d in self.differences
        ]
        header = [metric, "common seeds", "a", "b", "b - a", "95 % interval", f"better ({better} is)"]
        parts += [markdown_table(header, rows)] if rows else ["No method is in both."]
        parts += [f"Only in one of them: {', '.join(self.alone)}."] if self.alone else []
        return "\n\n".join(parts)

    def __repr__(self) -> str:
        return self.markdown()

    _repr_markdown_ = markdown


def _verdict(d: Difference, kind: type[Experiment]) -> str:
    if d.low <= 0 <= d.high or not d.low <= d.high:
        return "not told apart" if d.seeds >= ENOUGH else "-"
    return "b" if (d.mean > 0) == kind.higher_is_better else "a"


def compare(a: str | Path | Outcome, b: str | Path | Outcome) -> Comparison:
    """Two finished runs of one metric: which settings differ, and what that does, seed by seed.

    A seed draws the same stream and the same first weights in both wherever fields that decide them are equal, so
    differences are taken within seeds: their mean, with a bootstrap interval of 95 % where at least five seeds are in
    both.

    Raises OnwardError where a folder holds no finished run, and where the two measure different things.
    """
    one, two = (each if isinstance(each, Outcome) else load(each) for each in (a, b))
    if one.experiment.final_metric != two.experiment.final_metric:
        raise OnwardError(
            f"{one.folder} reports {one.experiment.final_metric}, {two.folder} {two.experiment.final_metric}: there is "
            "nothing to compare"
        )
    differences = [
        _difference(name, dict(zip(one.curves[name].seeds, values, strict=True)), two)
        for name, values in one.finals.items()
        if name in two.finals
    ]
    alone = sorted({*one.finals} ^ {*two.finals})
    return Comparison(one, two, _settings(one, two), tuple(differences), tuple(alone))


def _difference(name: str, values: dict[int, float], two: Outcome) -> Difference:
    others = dict(zip(two.curves[name].seeds, two.finals[name], strict=True))
    common = sorted({*values} & {*others})
    mine, its = (np.array([each[seed] for seed in common]) for each in (values, others))
    mean = lambda array: float(array.mean()) if common else float("nan")
    return Difference(name, len(common), mean(mine), mean(its), mean(its - mine), *interval(its - mine))


def _settings(one: Outcome, two: Outcome) -> dict[str, tuple[Any, Any]]:
    sides = []
    for outcome in (one, two):
        config = read_config(outcome.folder)
        machine = {name: load_environment(outcome.folder).get(name) for name in MACHINE}
        more = {name: config[name] for name in ("experiment", "precision") if name in config}
        sides.append({**more, **config_of(outcome.experiment), **machine})
    first, second = sides
    names = dict.fromkeys([*first, *second])
    return {n: (first.get(n), second.get(n)) for n in names if first.get(n) != second.get(n)}
