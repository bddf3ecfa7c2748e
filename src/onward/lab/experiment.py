"""What an experiment is: a choice of parts, of published numbers and of figures. And how one is run."""

import abc
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optax

import onward as ow
from onward.lab.fields import from_json
from onward.lab.method import TILE, Method, step_sizes_of_tile
from onward.lab.own import Source


@dataclass(frozen=True, kw_only=True)
class Experiment(abc.ABC):
    """A choice of parts, a published number and a report; its fields are its command line.

    A subclass adds fields, gives `methods` a default, and others another one where it must.
    """

    name: ClassVar[str]
    """What it is called; a class that says nothing: its own name, in small letters."""
    title: ClassVar[str]
    """What its report is called; a class that says nothing: the first line of its docstring."""
    reference: ClassVar[str]
    """How a run folder names it: its name, or the file and class that it is."""
    source: ClassVar[Source | None] = None
    """The file of a person's own experiment."""
    higher_is_better: ClassVar[bool] = False
    also: ClassVar[tuple[str, ...]] = ()
    """Other numbers of the last point that stand beside the reported one."""
    levels: ClassVar[str] = "exact"
    """What the references are."""
    optimum: ClassVar[str] = ""
    """The reference that no method can be better than on average; empty: none is known."""
    length_field: ClassVar[str] = "steps"
    """The field that says how long a run is."""
    final_metric: ClassVar[str] = "error"
    """What the reported number is called."""
    figures: ClassVar[str] = "onward.lab.plain_figures"
    """The module that draws its report (`onward.lab.figures.write_report`)."""

    methods: tuple[str, ...]
    """Which methods to run."""
    seeds: int = 5
    """Runs per method and step size. Fewer than 16 decide little."""
    first_seed: int = 0
    """The seeds are first_seed, first_seed + 1, ..."""
    step_sizes: tuple[float, ...] = ()
    """Step sizes to run. Empty: each method's own. Several are run side by side, each with all seeds."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own, words = vars(cls), re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", cls.__name__)
        cls.name = own.get("name", "-".join(words).lower())
        cls.title = own.get("title", (cls.__doc__ or cls.__name__).strip().splitlines()[0].rstrip("."))
        cls.reference = own.get("reference", cls.name)

    def check(self) -> None:
        """Refuse what cannot be run."""
        known = self.all_methods()
        for name in self.methods:
            if name not in known:
                raise ow.OnwardError(f"--methods: there is no method {name!r} here; the methods are {', '.join(known)}")
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise ow.OnwardError(f"--methods must name at least one method, each once, got {' '.join(self.methods)!r}")
        require_positive(self, "seeds")
        if self.first_seed < 0 or self.first_seed + self.seeds > 2**32:
            raise ow.OnwardError(f"--first-seed must be in 0 .. 2^32 - seeds, got {self.first_seed}")
        for size in self.step_sizes:
            if not 0 < size < math.inf:
                raise ow.OnwardError(f"--step-sizes must be positive and finite, got {size}")
        if len(set(self.step_sizes)) != len(self.step_sizes):
            raise ow.OnwardError("--step-sizes: the same value is given twice")

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """The names of all methods that can be run, in the order of the report: unless said, the default of `methods`."""
        usual: tuple[str, ...] = next(field.default for field in dataclasses.fields(cls) if field.name == "methods")
        return usual

    @property
    def rows(self) -> tuple[str, ...]:
        """What is run and reported, one name each: the methods, unless each is run in several settings."""
        return self.methods

    @abc.abstractmethod
    def build(self, name: str) -> Method:
        """The parts of a method."""

    def default_step_size(self, name: str) -> float:
        """The step size of a method unless the user says otherwise."""
        return 1e-3

    def tile_of(self, name: str) -> int:
        """How many runs of a method advance together, known without building it."""
        return TILE

    @property
    def fingerprint(self) -> str:
        """Of data that is read from outside, so that a run does not go on with other data; empty: there is none."""
        return ""

    @property
    def notice(self) -> str:
        """What a user should know before the run starts; empty: nothing."""
        return ""

    @property
    def fuse_outputs(self) -> bool:
        """Whether the command line may use an XLA option that makes columns faster; it crashes on some other programs."""
        return False

    def references(self) -> dict[str, float]:
        """Exact levels that the metric is to be read against; a class that knows none: nothing."""
        return {}

    def final_values(self, lines: Sequence[dict[str, Any]]) -> np.ndarray:
        """The number that is reported of each run, from its metric lines: `final_metric` at the last point."""
        return np.asarray(lines[-1][self.final_metric])

    def write_report(self, folder: Path) -> Path:
        """Draw the figures and report.html of a finished run from what its folder holds; returns the path of the page."""
        # By name, so that running imports no matplotlib.
        page: Path = import_module("onward.lab.figures").write_report(self, folder)
        return page


@dataclass(frozen=True, kw_only=True)
class StreamExperiment(Experiment):
    """An experiment on an endless stream: the number reported of a run is the mean over its last steps."""

    longest_window: ClassVar[int] = 100_000
    """Steps that the mean is over at most."""

    steps: int
    """Steps of each run."""

    def check(self) -> None:
        """Refuse settings that cannot be run, naming the option."""
        super().check()
        require_positive(self, "steps")

    @property
    def final_window(self) -> int:
        """The last steps, over which the reported error is averaged."""
        return min(self.longest_window, max(1, self.steps // 5))

    def scored(self, steps: int) -> int:
        """How many of the first `steps` have a prediction that is scored."""
        return steps

    def final_values(self, lines: Sequence[dict[str, Any]]) -> np.ndarray:
        """Mean over the final window, weighted as the error is."""
        late = [m for m in lines if m["step"] > self.steps - self.final_window]
        weights = np.asarray([self.scored(m["step"]) - self.scored(m["step"] - m["count"]) for m in late], float)
        values = np.asarray([m["values"] for m in late])
        there = (weights > 0) & ~np.isnan(values).all(1)  # a point may hold nothing that is scored
        return values[there].T @ weights[there] / weights[there].sum()


def _options(experiment: Experiment, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Option and value of each of these fields that is not None."""
    for name in names:
        if (value := getattr(experiment, name)) is not None:
            yield f"--{name.replace('_', '-')}", value


def require_positive(experiment: Experiment, *names: str) -> None:
    """Refuse fields that are zero, negative or infinite, naming the option."""
    for option, value in _options(experiment, names):
        if not 0 < value < math.inf:
            raise ow.OnwardError(f"{option} must be positive, got {value}")


def require_share(experiment: Experiment, *names: str) -> None:
    """Refuse fields outside [0, 1)."""
    for option, value in _options(experiment, names):
        if not 0 <= value < 1:
            raise ow.OnwardError(f"{option} must be in [0, 1), got {value}")


def require_interval(experiment: Experiment, name: str, least: int) -> None:
    """Refuse an interval that is empty or starts below `least`."""
    low, high = getattr(experiment, name)
    if not least <= low <= high:
        raise ow.OnwardError(f"--{name} must be two whole numbers, {least} <= least <= most, got {low} {high}")


def require_stages(columns: int, width: int, *, columns_field: str = "ccn-columns") -> None:
    """Refuse columns that do not fall into whole stages."""
    if columns % width:
        raise ow.OnwardError(
            f"--ccn-width must divide --{columns_field}: {columns} columns do not fall into stages of {width}"
        )


def config_of(experiment: Experiment) -> dict[str, Any]:
    """The fields as JSON values."""
    fields: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(experiment)))
    return fields


def from_config(kind: Any, config: dict[str, Any], where: Path) -> Experiment:
    """The experiment of a run folder."""
    experiment: Experiment = kind(**from_json(kind, config, where))
    return experiment


def data_of(experiment: Experiment) -> str:
    """A fingerprint of what decides the numbers beside the fields: data from outside, and a person's own file."""
    return " ".join(filter(None, (experiment.fingerprint, experiment.source.digest if experiment.source else "")))


def digest_of(experiment: Experiment) -> str:
    """A fingerprint of everything that decides the numbers."""
    data = data_of(experiment)
    more = {"fingerprint": data} if data else {}
    text = json.dumps({"experiment": experiment.name, **config_of(experiment), **more}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan_of(experiment: Experiment, name: str) -> list[list[tuple[float, int]]]:
    """(step size, seed) of every run of a method, in tiles."""
    seeds = range(experiment.first_seed, experiment.first_seed + experiment.seeds)
    sizes = experiment.step_sizes or (experiment.default_step_size(name),)
    return step_sizes_of_tile(seeds, sizes, experiment.tile_of(name))


def jobs_of(experiment: Experiment, name: str) -> dict[str, list[tuple[float, int]]]:
    """The jobs of a method: each advances one tile of `plan_of`."""
    tiles = plan_of(experiment, name)
    return {name: tiles[0]} if len(tiles) == 1 else {f"{name}.{i}": tile for i, tile in enumerate(tiles)}


def rule_named(name: str) -> ow.AbstractCredit:
    """`rtrl`, `uoro`, `rflo`, `snap-N` or `tbptt-K` as a credit rule: those that a dense layer can have."""
    kind, _, number = name.partition("-")
    plain = {"rtrl": ow.RTRL, "uoro": ow.UORO, "rflo": ow.RFLO}
    if kind in plain and not number:
        return plain[kind]()
    if kind in ("snap", "tbptt") and number.isdecimal() and int(number) >= (kind == "tbptt"):
        return ow.SnAp(int(number)) if kind == "snap" else ow.TBPTT(int(number))
    raise ow.OnwardError(
        f"there is no rule {name!r}; rules are rtrl, uoro, rflo, snap-N (N from 0) and tbptt-K (K from 1)"
    )


def falling(updates: int) -> optax.GradientTransformation:
    """A step size that falls to zero along a cosine over so many updates, behind any optimiser."""
    return optax.scale_by_schedule(optax.cosine_decay_schedule(1.0, updates))
