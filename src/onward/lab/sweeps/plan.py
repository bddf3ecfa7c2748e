"""What a sweep runs: fields and their values, to configurations, to runs, to jobs."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, NotRequired, TypedDict

import numpy as np

from onward import saving
from onward.devices import require_device
from onward.errors import OnwardError, needs
from onward.lab.experiment import Experiment, config_of, data_of

PLAN = "plan.json"
"""The file of a sweep's folder that lists its jobs."""
ASK_FROM = 10_000
"""Runs from which a sweep asks before it starts."""


@dataclass(frozen=True)
class Options:
    """How to search, and on what to compute. Fields of the experiment are given as --field v1,v2,..."""

    name: ClassVar[str] = "sweep"

    search: Literal["grid", "random", "halving"] = "grid"
    """Every combination; combinations drawn at random; or successive halving: all of them for a short time, then the best 1/eta of each method for eta times as long, and so on."""
    draws: int | None = None
    """Random and halving: how many combinations to draw for every method. Left out: 16; halving takes all combinations, unless a field has a range (1e-5..1e-2)."""
    search_seed: int = 0
    """Seed of these draws."""
    eta: int = 3
    """Halving: one combination in eta goes on."""
    rungs: int = 3
    """Halving: how many times it is decided; the first rung is eta^(rungs - 1) times shorter than the last."""
    workers: int = 0
    """Processes on this machine (a local Dask cluster). 0: in this process."""
    scheduler: str = ""
    """Address of a running Dask scheduler, tcp://HOST:PORT, or the path of its scheduler file; its workers must see the folder."""
    tile: int | None = None
    """Runs that advance together in one program. Left out: measured at the start."""
    device: str = ""
    """cpu, gpu or tpu, or one of several: gpu:1. Empty: as JAX chooses."""
    tensorboard: bool = False
    """Also write TensorBoard events."""
    yes: bool = False
    """Do not ask before a very large sweep."""

    def check(self) -> None:
        """Refuse what cannot be run."""
        for name, least in (("draws", 1), ("search_seed", 0), ("eta", 2), ("rungs", 1), ("workers", 0), ("tile", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise OnwardError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
        if self.workers and self.scheduler:
            raise OnwardError("--workers starts a cluster here, --scheduler joins one: choose one")
        if self.search == "grid" and self.draws:
            raise OnwardError("--draws needs --search random or --search halving")
        if self.tensorboard and find_spec("tensorboardX") is None:
            raise OnwardError(needs("--tensorboard", "tensorboard"))
        require_device(self.device)


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, drawn evenly in the logarithm (evenly, where `low` is not positive)."""

    low: float
    high: float
    whole: bool = False

    def draw(self, rng: np.random.Generator) -> Any:
        """One of them."""
        if self.low > 0:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = rng.uniform(self.low, self.high)
        return round(value) if self.whole else float(f"{value:.4g}")


Axes = dict[str, "list[Any] | Range"]


@dataclass(frozen=True)
class Run:
    """One run: its configuration (fields of its own, a row of the experiment, a step size) and its seed."""

    row: str
    config: dict[str, Any]
    step_size: float
    seed: int

    @property
    def configuration(self) -> str:
        """The same for all seeds."""
        return _digest({"row": self.row, "config": self.config, "step_size": self.step_size})

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from all other runs."""
        return self.configuration, self.seed


@dataclass(frozen=True)
class Job:
    """Runs that advance together: (step size, seed) of each; all else is the same.

    `width` is how many runs the program is made for: the last run is repeated where there are fewer.
    """

    row: str
    config: dict[str, Any]
    runs: tuple[tuple[float, int], ...]
    width: int

    @property
    def id(self) -> str:
        """Named after what decides its numbers."""
        return f"{self.row}-{_digest([self.row, self.config, self.runs, self.width])}"

    @property
    def program(self) -> str:
        """The same for jobs that need the same program."""
        return _digest([self.row, self.config, self.width])

    def as_runs(self) -> list[Run]:
        """Its runs."""
        return [Run(self.row, self.config, size, seed) for size, seed in self.runs]

    def as_dict(self) -> dict[str, Any]:
        """JSON."""
        return {"row": self.row, "config": self.config, "runs": list(map(list, self.runs)), "width": self.width}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Job":
        """From JSON."""
        return cls(values["row"], values["config"], tuple((s, n) for s, n in values["runs"]), values["width"])


class _Job(TypedDict):
    row: str
    config: dict[str, Any]
    runs: list[list[float]]
    width: int


class _Planned(TypedDict):
    rung: int
    job: _Job


class _Tile(TypedDict):
    tile: int


class _Plan(TypedDict):
    digest: str
    jobs: list[_Planned]
    tiles: dict[str, _Tile]


def write_plan(folder: Path, jobs: Sequence[tuple[int, Job]], tiles: dict[str, Any]) -> None:
    """Rung and job of all that is planned, and the tiles that were measured."""
    planned = [{"rung": rung, "job": job.as_dict()} for rung, job in jobs]
    saving.write_json(folder / PLAN, with_digest({"tiles": tiles, "jobs": planned}))


def read_plan(folder: Path) -> tuple[list[tuple[int, Job]], dict[str, Any]]:
    """Rung and job of all that was planned, and the tiles that were measured; OnwardError where they are damaged."""
    file = folder / PLAN
    if not file.is_file():
        raise OnwardError(f"{file} is missing: {folder} has not been finished; go on with it first")
    try:
        plan = saving.read_json(file)
        saving.check_meta(plan, _Plan, str(file))
        require_digest(plan, str(file))
    except saving.Unreadable as error:
        raise OnwardError(f"{error}; put it back, or delete it, and the sweep is planned and run anew") from error
    return [(each["rung"], Job.from_dict(each["job"])) for each in plan["jobs"]], plan["tiles"]


def with_digest(content: dict[str, Any]) -> dict[str, Any]:
    """What is to be written, with a digest of it."""
    plain = json.loads(json.dumps(content))
    return {**plain, "digest": _digest(plain)}


def require_digest(content: dict[str, Any], what: str) -> None:
    """Refuse what is not as `with_digest` wrote it; raises `Unreadable`."""
    if content.get("digest") != _digest({name: value for name, value in content.items() if name != "digest"}):
        raise saving.Unreadable(f"{what} is damaged, or was changed: its digest is another")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


class Definition(TypedDict):
    """A sweep, as JSON."""

    experiment: str
    data: str
    fields: dict[str, Any]
    axes: dict[str, Any]
    seeds: int
    search: str
    draws: int
    search_seed: int
    eta: int
    rungs: int


class _Settings(TypedDict):
    columns: bool
    single: bool


class Defined(TypedDict):
    """What the config.json of a sweep holds besides."""

    fields: Definition
    settings: _Settings
    defined: NotRequired[str]


def defined(definition: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The digest of what defines a sweep, for its config.json."""
    return _digest([definition, settings])


def require_defined(config: Mapping[str, Any], what: str) -> None:
    """Refuse a config.json that is not of a sweep, or not as it was written; raises `Unreadable`."""
    saving.check_meta(config, Defined, what)
    if config.get("defined", "") not in ("", defined(config["fields"], config["settings"])):
        raise saving.Unreadable(f"{what} is damaged, or was changed: its digest is another")


@dataclass(frozen=True)
class Sweep:
    """An experiment, the fields that vary, and how to search among their values."""

    experiment: Experiment
    axes: Axes
    search: str = "grid"
    draws: int = 0
    search_seed: int = 0
    eta: int = 3
    rungs: int = 3

    @property
    def count(self) -> int:
        """Configurations; of a drawn sweep at most."""
        if self.draws:
            return self.draws * len(self.axes["methods"])  # type: ignore[arg-type]
        return math.prod(len(v) for v in self.axes.values() if not isinstance(v, Range))

    def as_dict(self) -> dict[str, Any]:
        """The definition, as JSON."""
        fixed = {k: v for k, v in config_of(self.experiment).items() if k != "seeds" and k not in self.axes}
        definition = {
            "experiment": self.experiment.reference,
            "data": data_of(self.experiment),
            "fields": fixed,
            "axes": {k: asdict(v) if isinstance(v, Range) else v for k, v in self.axes.items()},
            "seeds": self.experiment.seeds,
            **{name: getattr(self, name) for name in ("search", "draws", "search_seed", "eta", "rungs")},
        }
        plain: dict[str, Any] = json.loads(json.dumps(definition))
        return plain

    def choices(self) -> Iterator[dict[str, Any]]:
        """The value of every axis, configuration by configuration."""
        if not self.draws:
            names = list(self.axes)
            for values in itertools.product(*self.axes.values()):  # type: ignore[arg-type]
                yield dict(zip(names, values, strict=True))
            return
        rng, seen = np.random.default_rng(self.search_seed), set()
        others = {name: v for name, v in self.axes.items() if name != "methods"}
        for _ in range(100 * self.draws):
            drawn = {
                name: v.draw(rng) if isinstance(v, Range) else v[int(rng.integers(len(v)))]
                for name, v in others.items()
            }
            if (text := json.dumps(drawn)) not in seen:
                seen.add(text)
                yield from ({"methods": method, **drawn} for method in self.axes["methods"])  # type: ignore[union-attr]
            if len(seen) == self.draws:
                return

    def experiments(self, share: float = 1.0) -> list[Experiment]:
        """One of each configuration, with one method; refuses those that cannot be run.

        `share`: of the length of a run (halving).
        """
        good, wrong = [], []
        for choice in self.choices():
            experiment = replace(self.experiment, **{k: as_field(k, v) for k, v in choice.items()})
            if share < 1:
                name = type(experiment).length_field
                length = getattr(experiment, name)
                shorter = max(1, round(share * length)) if isinstance(length, int) else share * length
                experiment = replace(experiment, **{name: shorter})  # type: ignore[arg-type]
            try:
                experiment.check()
            except OnwardError as error:
                what = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in choice.items())
                wrong.append(f"{what}: {error}")
                continue
            good.append(experiment)
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise OnwardError(f"a configuration cannot be run: {wrong[0]}{more}; leave it out of the sweep")
        return good

    def runs(self, share: float = 1.0) -> dict[tuple[int, str], list[Run]]:
        """The runs of every configuration: of each choice (its number), each row of the experiment, every seed."""
        runs = {}
        for i, experiment in enumerate(self.experiments(share)):
            config = {**config_of(experiment), "seeds": 1, "first_seed": 0, "step_sizes": []}
            for row in experiment.rows:
                (size,) = experiment.step_sizes or (experiment.default_step_size(row),)
                first = experiment.first_seed
                seeds = range(first, first + experiment.seeds)
                runs[i, row] = [Run(row, config, float(size), seed) for seed in seeds]
        return runs


SHARED = ("seeds", "first_seed")
"""Fields that every configuration has alike."""
LISTED = ("methods", "step_sizes")
"""Fields that hold several values, of which a configuration has one."""


def as_field(name: str, value: Any) -> Any:
    """The value of an axis, as the experiment holds it."""
    return (value,) if name in LISTED else tuple(value) if isinstance(value, list) else value


def make_sweep(experiment: Experiment, axes: Axes, options: Options) -> Sweep:
    """A sweep whose axes hold `methods` and, if several are asked for, `step_sizes`; checked, but for combinations."""
    axes = dict(axes)
    axes.setdefault("methods", list(experiment.methods))
    if experiment.step_sizes:
        axes.setdefault("step_sizes", list(experiment.step_sizes))
    for name, values in axes.items():
        option = name.replace("_", "-")
        if name in SHARED:
            raise OnwardError(f"--{option} takes one number in a sweep: every configuration gets the same seeds")
        if isinstance(values, Range):
            if options.search == "grid":
                raise OnwardError(f"--{option}: a range needs --search random (or halving), or name the values")
            if not -math.inf < values.low < values.high < math.inf:
                raise OnwardError(f"--{option}: a range goes from less to more, got {values.low:g}..{values.high:g}")
            continue
        if not values:
            raise OnwardError(f"--{option} has no values: the sweep would be empty")
        texts = [json.dumps(v) for v in values]
        if len(set(texts)) < len(texts):
            twice = next(v for v, text in zip(values, texts, strict=True) if texts.count(text) > 1)
            raise OnwardError(f"--{option}: {twice} is given twice")
    experiment = replace(experiment, methods=tuple(experiment.methods[:1]), step_sizes=())
    ranges = any(isinstance(v, Range) for v in axes.values())
    draws = options.draws or (16 if options.search == "random" or ranges else 0)
    sweep = Sweep(experiment, axes, options.search, draws, options.search_seed, options.eta, options.rungs)
    if options.search == "halving":
        length = type(experiment).length_field
        if length in axes:
            raise OnwardError(f"--{length.replace('_', '-')} is what halving changes: give it one value")
        if getattr(experiment, length) < options.eta ** (options.rungs - 1):
            raise OnwardError(
                f"--{length.replace('_', '-')} {getattr(experiment, length)} is too short for {options.rungs} rungs "
                f"of halving by {options.eta}"
            )
    return sweep


def covers(new: dict[str, Any], old: dict[str, Any]) -> str:
    """Why a sweep `new` is not `old` or more of it; empty: it is."""
    for name in ("experiment", "data", "search", "search_seed", "eta", "rungs"):
        if new[name] != old[name]:
            return f"its {name} is {old[name]!r}, not {new[name]!r}"
    for name in sorted({*old["fields"], *new["fields"]}):
        mine, its = new["fields"].get(name), old["fields"].get(name)
        if mine != its:
            return f"its {name} is {its!r}, not {mine!r}"
    if sorted(new["axes"]) != sorted(old["axes"]):
        return f"it varies {', '.join(old['axes'])}, not {', '.join(new['axes'])}"
    exact = old["search"] != "grid"
    for name, values in old["axes"].items():
        mine = new["axes"][name]
        if (exact and mine != values) or (not exact and [v for v in values if v not in mine]):
            return f"it has --{name.replace('_', '-')} {values}, you ask for {mine}"
    for name in ("seeds", "draws"):
        if new[name] < old[name] or (old["search"] == "halving" and new[name] != old[name]):
            return f"it has {old[name]} {name}, you ask for {new[name]}"
    return ""


def group(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that can share a program: those that differ in seed and step size only."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_digest([run.row, run.config]), []).append(run)
    return list(groups.values())


def into_jobs(runs: Sequence[Run], tile: int) -> list[Job]:
    """A group in jobs of at most `tile` runs, all of the same width."""
    count = -(-len(runs) // tile)
    width = -(-len(runs) // count)
    pairs = tuple((run.step_size, run.seed) for run in runs)
    return [Job(runs[0].row, runs[0].config, pairs[i : i + width], width) for i in range(0, len(runs), width)]
