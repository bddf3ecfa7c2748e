"""What a checkpoint of `onward learn` says of itself beside its arrays, and whether that can be true."""

import dataclasses
import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from onward.errors import OnwardError
from onward.rows.beginning import ROWS
from onward.rows.clock import WORDS
from onward.rows.encoder import Encoder
from onward.rows.oddness import is_true
from onward.rows.options import Learn
from onward.rows.predictions import Waiting
from onward.saving import Unreadable, check_meta

# Numbers and words of a session that a checkpoint holds as they are.
AS_IT_IS = ("rows", "last_row", "constant", "first_target", "notes", "cpu")


class _Learner(TypedDict):
    recipe: dict[str, Any]
    capacity: int
    classes: int
    stage: int
    rows: int


class _Waiting(TypedDict):
    rows: list[int]
    times: list[str]


class _Beginning(TypedDict):
    rows: int
    values: dict[str, list[float]]
    passed: dict[str, list[int]]


class ReadingMeta(TypedDict):
    """What a checkpoint keeps of how cells are read."""

    encoder: dict[str, Any]
    moments: list[Any] | None
    clock: float | None
    names: list[str]
    wild: dict[str, list[int]]
    beginning: _Beginning


class WhereMeta(TypedDict):
    """How many rows a remark was made of, and where the first were."""

    rows: int
    at: list[list[int]]
    told: int


class StrangeMeta(TypedDict):
    """Rows unlike any before, and the first of them."""

    rows: int
    first: list[dict[str, Any]]


class _Calibration(TypedDict):
    recent: list[float]
    seen: int
    fit: dict[str, float]
    scored: float
    below: list[float]


class _Runs(TypedDict):
    rows: int
    length: int
    last: float | None
    reached: list[int]


class _Shift(TypedDict):
    evidence: list[float]
    told: bool
    runs: _Runs


class MarksMeta(TypedDict):
    """How many rows were scored, alarms and shifts, and the first of these."""

    counts: list[int]
    first: list[dict[str, Any]]


class _Odd(MarksMeta):
    calibrations: list[_Calibration]
    shifts: list[_Shift]


class _Calendar(TypedDict):
    rows: int
    step: float
    width: float
    base: int
    origin: float | None
    last: float | None
    recent: list[float]


class Kept(TypedDict):
    """The meta of a checkpoint."""

    rows: int
    last_row: int
    constant: list[bool]
    first_target: list[float | None]
    notes: list[str]
    cpu: float
    strange: StrangeMeta
    odd: _Odd | None
    remarks: dict[str, WhereMeta]
    learner: _Learner
    reading: ReadingMeta
    calendar: _Calendar
    none: dict[str, int]
    units: dict[str, float]
    classes: list[str]
    waiting: _Waiting


class _Position(TypedDict):
    at: int
    row: int
    line: NotRequired[int]
    names: NotRequired[list[str]]


class _Fingerprint(TypedDict):
    form: str
    names: list[str]
    head: NotRequired[str]
    tail: NotRequired[str]


class _Again(TypedDict):
    last: int | None
    passed: int
    steps: list[int]


class _Files(TypedDict):
    """What a checkpoint holds besides the session: the fields of config.json, and how far source and files were.

    `again` is of `onward learn`, `keys` of `onward serve`: either goes on from the other's.
    """

    options: dict[str, Any]
    position: _Position
    fingerprint: _Fingerprint
    written: dict[str, int]
    again: NotRequired[_Again]
    keys: NotRequired[dict[str, list[int]]]


def room_for(classes: int) -> int:
    """How many classes a learner has room for when so many have been seen."""
    room = 2
    while room < classes:
        room *= 2
    return room


def require_true(meta: dict[str, Any], options: Learn, encoder: Encoder, waiting: Waiting, what: str) -> None:
    """Refuse a meta whose values cannot be those of a learning with these options; `Unreadable`, naming the value."""
    learner, rows, classes = meta["learner"], meta["rows"], meta["classes"]
    of_classes = options.task == "classification"
    grown = 1 + rows // options.stage_rows if options.network == "ccn" else 1
    recipe = json.loads(json.dumps(dataclasses.asdict(options.recipe)))
    allowed = {
        "rows": 0 < rows <= meta["last_row"],
        "constant": len(meta["constant"]) == len(options.outputs),
        "first_target": len(meta["first_target"]) == len(options.outputs),
        "cpu": meta["cpu"] >= 0,
        "strange.rows": len(meta["strange"]["first"]) <= meta["strange"]["rows"] <= rows,
        "odd": is_true(meta["odd"], options.alarm, len(options.outputs), rows),
        "learner.recipe": learner["recipe"] == recipe,
        "learner.capacity": learner["capacity"] == encoder.capacity,
        "learner.classes": learner["classes"] == (room_for(len(classes)) if of_classes else 0),
        "learner.stage": learner["stage"] == min(grown, max(1, options.stages)),
        "learner.rows": learner["rows"] == rows,
        "units": {*meta["units"]} <= {*options.target},
        "classes": len({*classes}) == len(classes) and (of_classes or not classes),
        "waiting.rows": len(meta["waiting"]["rows"]) == len(waiting.rows)
        and all(0 <= row <= meta["last_row"] for row in meta["waiting"]["rows"]),
        "waiting.times": len(meta["waiting"]["times"]) == len(waiting.rows),
        "reading.beginning.rows": meta["reading"]["beginning"]["rows"] in (rows, ROWS),
        "calendar.rows": meta["calendar"]["rows"] == rows,
        "calendar.step": 0 <= meta["calendar"]["width"] <= meta["calendar"]["step"] < math.inf,
        "calendar.recent": all(0 < step < math.inf for step in meta["calendar"]["recent"]),
        "reading.wild": all(meta["reading"]["wild"].values()),
        "reading.moments": meta["reading"]["moments"] is None or _is_clock(meta["reading"]["moments"]),
    }
    if wrong := [name for name, good in allowed.items() if not good]:
        value: Any = meta
        for part in wrong[0].split("."):
            value = value[part]
        raise Unreadable(f"{what} says that {wrong[0]} is {str(value)[:60]}, which cannot be: it is damaged")


def _is_clock(kept: list[Any]) -> bool:
    return len(kept) == 3 and list(map(type, kept)) == [str, str, bool] and kept[0] in WORDS


def require_same(config: Path, fields: dict[str, Any], meta: dict[str, Any], files: Collection[str]) -> None:
    """Refuse to go on, or to predict, where config.json says other than when its checkpoint was learned.

    `files`: those whose sizes a checkpoint keeps.
    """
    what = f"a checkpoint beside {config}"
    check_meta(meta, _Files, what)
    position, written = meta["position"], meta["written"]
    if {*written} != {*files} or min(position["at"], position["row"], position.get("line", 0), *written.values()) < 0:
        raise Unreadable(f"{what} is damaged: files were {written}, the source at {position}")
    if "again" in meta and (len(steps := meta["again"]["steps"]) != 2 or min(steps) < 0):
        raise Unreadable(f"{what} is damaged: steps of offsets were {steps}")
    before = meta["options"]
    for name in sorted({*before, *fields}):
        was, now = (json.dumps(each.get(name)) for each in (before, fields))
        if was != now:
            raise OnwardError(
                f"{config}: {name} is {now}, and was {was} when the checkpoint was learned: put {was} back, or start "
                "anew with --replace"
            )
