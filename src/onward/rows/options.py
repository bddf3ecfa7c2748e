"""What a person can say to `onward learn`."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from onward.errors import OnwardError
from onward.lab.cluster import require_place
from onward.rows.alarms import words_of
from onward.rows.clock import clock_of
from onward.rows.holidays import Holidays
from onward.rows.kinds import Judge, decimal_of
from onward.rows.stream import EXPERTS, Kind, RowRecipe, experts_of

# A return counts as known when what is still to come weighs less than this share of it.
REST = 1e-3
KINDS: dict[str, Kind] = {"regression": "number", "classification": "class", "return": "return"}
MOST_ALARM = 0.1
LEAST = {
    "horizon": 0,
    "workers": 0,
    "skip": 0,
    "units": 1,
    "stages": 1,
    "stage_rows": 1,
    "components": 1,
    "every": 1,
    "seed": 0,
}


@dataclass(frozen=True)
class Learn:
    """Predict, then learn, at every row of a table, in constant memory.

    SOURCE is a file (CSV, JSON lines, Parquet) or - for standard input. Further: --out DIR for the results
    (runs/learn), --replace to delete an older run there, --resume DIR to go on with one.
    """

    name: ClassVar[str] = "learn"

    target: tuple[str, ...] = ()
    """Column to predict; several are predicted side by side (numbers only)."""
    time: str = ""
    """Column that says when: dates add the time of day, week and year to the inputs. Of two columns: date+clock."""
    holidays: str = ""
    """Country whose public holidays count as Sundays, such as DE, or a part of one, such as US-CA. Needs --time."""
    time_format: str = ""
    """How times are written: s, ms, us or ns (since 1970), day-first, month-first, compact (YYYYMMDDHHMM), excel,
    steps (plain numbers), or a pattern such as %d.%m.%Y. Empty: as they look."""
    by: tuple[str, ...] = ()
    """Column that names the entity of each row (a sensor, a shop), or several: every entity is learned by itself, in
    its own units, with a state and scores of its own. The network answers alone."""
    share: Literal["none", "features", "all"] = "none"
    """What the entities of --by share: nothing, the network with a readout each, or all but scales and states."""
    memory: float = 4.0
    """GB that the states of the entities of --by may take in memory; the others are kept on disk until needed."""
    workers: int = 0
    """Processes among which the entities of --by are divided, with the extra dask. 0: this one alone."""
    scheduler: str = ""
    """Dask scheduler whose workers they are, as tcp://HOST:PORT or a scheduler file. Empty: of this machine."""
    features: tuple[str, ...] = ()
    """Columns to read. Empty: all but the time."""
    ignore: tuple[str, ...] = ()
    """Columns not to read."""
    categories: tuple[str, ...] = ()
    """Columns whose numbers are names (a station, a code)."""
    numbers: tuple[str, ...] = ()
    """Columns of numbers, whatever else stands in them: that is taken as missing."""
    missing: tuple[str, ...] = ()
    """Cells that stand for nothing, such as -9999, beside those that are known (NA, null, --, #DIV/0! and so on)."""
    decimal: str = ""
    """The decimal mark, a point or a comma. Empty: by column, as its numbers look."""
    thousands: str = ""
    """What separates thousands: a comma, a point, a space or '. Empty: as the numbers look."""
    task: Literal["regression", "classification", "return"] = "regression"
    """A number, a class, or the discounted sum of the target's coming values."""
    horizon: int = 1
    """Predict the target so many rows ahead. 0: that of the same row, from its other columns. Not for returns."""
    path: bool = False
    """Predict every row up to the horizon, 1, 2, ... rows ahead, and not that row alone."""
    discount: float = 0.9
    """Of a return: what the value of the row after counts, relative to this one's."""
    network: Literal["columnar", "ccn", "gru", "lstm"] = "columnar"
    """Columns in one stage, columns that grow in stages (both exact online), or a dense layer."""
    rule: Literal["exact", "snap-1", "rflo", "uoro", "tbptt-10"] = "exact"
    """Credit of a dense layer; exact is RTRL. Columns are always exact."""
    units: int = 32
    """Features that the columns of all stages have together, or units of the layer."""
    stages: int = 2
    """Stages of a ccn."""
    stage_rows: int = 20_000
    """Rows after which a ccn grows by its next stage."""
    step_size: float | None = None
    """Of the recurrent weights. Left out: what did well everywhere. The readout needs none."""
    experts: tuple[str, ...] = EXPERTS
    """Whose answers are mixed, by how well each did. Of numbers at least one row ahead: stack, network, lags, calendar,
    delays, last, mean, day, week, year, season. Of classes: stack, network, trees, linear, last, mean; of numbers of
    the same row these without last. network: the network alone."""
    interval: float | None = None
    """Share of a target's values that should lie between low and high. 0: no interval. Left out: 0.9. Not for classes
    and returns."""
    components: int = 3
    """Gaussians in the mixture behind the interval."""
    alarm: float | None = None
    """Say how odd each row is, and mark as an alarm a row whose score is below this, such as 1e-4. Not for returns and
    paths."""
    on_alarm: str = ""
    """Command to run for each alarm, without a shell; it gets the row's answer as JSON on its standard input."""
    stop_on_alarm: bool = False
    """End, with status 3, after the first rows with an alarm; what was learned is kept."""
    period: int | None = None
    """Rows in a season, for the seasonal baseline. Left out: found in the data."""
    seed: int = 0
    """Of the weights at the start."""
    form: Literal["auto", "csv", "jsonl", "parquet"] = "auto"
    """Of the source. auto: by its name; of standard input, by its first byte."""
    delimiter: str = ""
    """Between the cells of a CSV. Empty: the commonest of , ; | and tab in the header."""
    skip: int = 0
    """Lines before the header of a CSV that are no part of the table."""
    comment: str = ""
    """What a line of a CSV begins with that is no row, such as #. Empty: # before the header only."""
    encoding: str = ""
    """Of text, such as latin-1 or cp1252. Empty: by the first bytes UTF-8 or UTF-16."""
    answers: Literal["auto", "csv", "jsonl"] = "auto"
    """How rows of standard input are answered. auto: JSON lines by JSON lines, all others by CSV."""
    offset: str = ""
    """Column of standard input that numbers its rows, rising (an offset, a sequence number): rows that come again after
    a restart are passed over."""
    strict: bool = False
    """End at the first row that cannot be read, instead of passing over it."""
    every: int = 1_000
    """Rows between two lines of metrics.jsonl."""
    checkpoint_seconds: float = 20.0
    """Time between two checkpoints."""

    def check(self) -> None:
        """Refuse what cannot be learned."""
        if not self.target:
            raise OnwardError("--target: name the column to predict")
        for name in ("target", "by", "features", "ignore", "numbers", "categories", "experts"):
            if len(set(values := getattr(self, name))) != len(values):
                raise OnwardError(f"--{name}: {'one' if name == 'experts' else 'a column'} is named twice")
        if unknown := [name for name in self.experts if name not in EXPERTS]:
            raise OnwardError(f"--experts: there is no {unknown[0]!r}; there are {', '.join(EXPERTS)}")
        if not self.experts:
            raise OnwardError("--experts: name one at least, such as network")
        if len(self.target) > 1 and self.task != "regression":
            raise OnwardError(f"--task {self.task} predicts one column, --target names {len(self.target)}")
        if self.time in self.target:
            raise OnwardError(f"--time and --target are the same column {self.time!r}")
        if both := {*self.numbers} & {*self.categories}:
            raise OnwardError(f"--numbers and --categories both name {min(both)!r}")
        if self.task == "classification" and self.target[0] in self.numbers:
            raise OnwardError(f"--numbers names {self.target[0]!r}, whose classes are to be predicted")
        if self.task != "classification" and (both := {*self.target} & {*self.categories}):
            raise OnwardError(
                f"--categories names the target {min(both)!r}: say --task classification, or leave it out"
            )
        if self.time_format:
            if not self.time:
                raise OnwardError("--time-format is of the column that --time names")
            clock_of(self.time_format)
        if self.holidays:
            if not self.time:
                raise OnwardError("--holidays are found by the column that --time names")
            Holidays(self.holidays)
        self._check_by()
        decimal_of(self.decimal, self.thousands)
        for name, least in LEAST.items():
            if (value := getattr(self, name)) < least:
                raise OnwardError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
        if self.period is not None and self.period < 2:
            raise OnwardError(f"--period {self.period}: a season has at least 2 rows; leave it out to have it found")
        for name in ("discount", "interval"):
            if (share := getattr(self, name)) is not None and not 0 <= share < 1:
                raise OnwardError(f"--{name} must be in [0, 1), got {share}")
        if self.alarm is not None:
            if not 0 < self.alarm <= MOST_ALARM:
                raise OnwardError(
                    f"--alarm must be above 0 and at most {MOST_ALARM:g}, the share of calm rows that are one, got "
                    f"{self.alarm}"
                )
            if self.task == "return" or self.path or self.interval == 0:
                what = "returns" if self.task == "return" else "a path" if self.path else "--interval 0"
                raise OnwardError(f"--alarm needs the distribution of each row's target, and of {what} there is none")
        for name in ("on_alarm", "stop_on_alarm"):
            if getattr(self, name) and self.alarm is None:
                raise OnwardError(f"--{name.replace('_', '-')} needs --alarm, which says what an alarm is")
        if self.on_alarm:
            words_of(self.on_alarm)
        if self.offset and self.offset in (*self.target, *self.by, *self.features, *self.time.split("+")):
            raise OnwardError(f"--offset names {self.offset!r}, which is learned from: it only numbers rows")
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise OnwardError(f"--step-size must be positive and finite, or left out, got {self.step_size}")
        if not self.checkpoint_seconds >= 0:
            raise OnwardError(f"--checkpoint-seconds must be 0 or more, got {self.checkpoint_seconds}")
        if self.network in ("ccn", "columnar") and self.rule != "exact":
            raise OnwardError(
                f"--rule {self.rule}: columns learn exactly; choose --network gru or lstm for other rules"
            )
        if self.network == "ccn" and self.units % self.stages:
            raise OnwardError(f"--stages must divide --units: {self.units} do not fall into {self.stages} equal stages")

    def _check_by(self) -> None:
        """Refuse what a table of many entities cannot be learned with."""
        if not self.by:
            if self.share != "none":
                raise OnwardError(f"--share {self.share} is of the entities that --by names a column of")
            if self.workers or self.scheduler:
                raise OnwardError(
                    "--workers divide the entities that --by names a column of: one stream is one process"
                )
            return
        taken = {"target": self.target, "time": (self.time, *self.time.split("+")), "features": self.features}
        taken |= {"categories": self.categories, "numbers": self.numbers, "ignore": self.ignore}
        for name, columns in taken.items():
            if both := {*self.by} & {*columns}:
                raise OnwardError(f"--by and --{name} both name {min(both)!r}")
        if self.task != "regression" or self.path:
            what = "a path" if self.path else f"--task {self.task}"
            raise OnwardError(f"--by is of numbers a row or more ahead or of the same row, not of {what}: leave it out")
        if self.network == "ccn":
            raise OnwardError("--by: entities do not grow; choose --network columnar, gru or lstm")
        if self.holidays:
            raise OnwardError("--holidays is not there for the entities of --by yet: leave it out")
        if self.experts not in (EXPERTS, ("network",)):
            raise OnwardError("--experts: with --by the network answers alone; leave it out")
        if self.workers and self.share != "none":
            raise OnwardError(f"--share {self.share} is learned in one process: leave --workers out")
        if self.scheduler and not self.workers:
            raise OnwardError("--scheduler: say among how many of its workers entities are divided, with --workers")
        require_place(self.workers, self.scheduler)
        if not 0 < self.memory < math.inf:
            raise OnwardError(f"--memory must be above 0 GB, got {self.memory}")

    def check_served(self) -> None:
        """Refuse what a new run cannot serve. Folders of older versions say it of every run, and are read."""
        if "stack" in self.experts and not {*self.experts} - {"stack", "last" if self.horizon else "", "mean"}:
            raise OnwardError("--experts: the stack says nothing by itself: name one more, such as network")
        if self.experts not in (EXPERTS, ("network",)):
            there = experts_of(self._kind, self.lag)
            of = "a return" if self.task == "return" else "a class" if self.task == "classification" else "numbers"
            of += " of the same row (--horizon 0)" if self.task == "regression" and not self.horizon else ""
            if not there:
                raise OnwardError(f"--experts: of {of} the network answers alone; leave it out")
            if unknown := [name for name in self.experts if name not in there]:
                raise OnwardError(f"--experts: there is no {unknown[0]!r} of {of}; there are {', '.join(there)}")
        if self.path and (self.task != "regression" or self.horizon < 2):
            has = f"--task is {self.task}" if self.task != "regression" else f"--horizon is {self.horizon}"
            raise OnwardError(
                f"--path is of numbers up to a --horizon of at least 2 rows ahead, and {has}: leave it out"
            )
        if self.interval and self.task != "regression":
            instead = "a class has a probability instead" if self.task == "classification" else "a return has none"
            raise OnwardError(
                f"--interval {self.interval:g} is for numbers, and --task is {self.task}: leave --interval out "
                f"({instead})"
            )

    @property
    def spans(self) -> int:
        """How many numbers are predicted of each target: of a path as many as rows."""
        return self.horizon if self.path else 1

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what is predicted: the targets, or of a path each of them so many rows ahead."""
        if not self.path:
            return self.target
        return tuple(f"{name} +{ahead}" for name in self.target for ahead in range(1, self.horizon + 1))

    @property
    def coverage(self) -> float:
        """The share of each target's values that its interval should hold; 0: there is no interval."""
        if self.task != "regression":
            return 0.0
        return 0.9 if self.interval is None else self.interval

    @property
    def judge(self) -> Judge:
        """What a person has said of columns."""
        numbers = (*self.numbers, *(self.target if self.task != "classification" else ()))
        return Judge(numbers, self.categories, decimal_of(self.decimal, self.thousands))

    @property
    def lag(self) -> int:
        """Rows until the target of a prediction is known."""
        if self.task != "return":
            return self.horizon
        return max(1, math.ceil(math.log(REST) / math.log(self.discount))) if self.discount > 0 else 1

    @property
    def whole(self) -> float:
        """The return of a target that is always 1, over `lag` rows; 1 if no return is predicted."""
        return (1 - self.discount**self.lag) / (1 - self.discount) if self.task == "return" else 1.0

    @property
    def recipe(self) -> RowRecipe:
        """What learns."""
        kind, there = self._kind, experts_of(self._kind, self.lag)
        return RowRecipe(
            kind=kind,
            targets=len(self.outputs),
            path=self.spans,
            network=self.network,
            rule=self.rule,
            units=self.units,
            stages=self.stages,
            stage_rows=self.stage_rows,
            horizon=0 if kind == "return" else self.horizon,
            lag=self.lag,
            discount=self.discount,
            step_size=self.step_size,
            components=self.components if self.coverage else 0,
            experts=() if self.by or self.experts == ("network",) else tuple(e for e in self.experts if e in there),
            seed=self.seed,
        )

    @property
    def _kind(self) -> Kind:
        return KINDS[self.task]
