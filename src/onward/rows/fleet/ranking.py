"""How well each entity of a table is predicted: a file with a line each, and which of them stand out."""

import csv
import io
from typing import Any, NotRequired, TypedDict

import numpy as np

from onward import saving
from onward.rows.fleet.fleet import Fleet
from onward.rows.predictions import as_text, csv_line
from onward.rows.scores import CONTESTANTS

FILE = "entities.csv"
# Entities that are named in each list of the summary, and rows of one that must have been scored.
NAMED, ENOUGH = 5, 20
# Bins of the shares of entities by their ratio, and the largest ratio that is told apart.
BINS, MOST = 40, 2.0


class Entity(TypedDict):
    """One of those that stand out: `ratio` to the best alternative of it, `late` to its own error before.

    `alarms`, `shifts`: how many rows were one, where that was asked for.
    """

    entity: str
    rows: int
    ratio: float
    late: NotRequired[float | None]
    alarms: NotRequired[int]
    shifts: NotRequired[int]


class Ranking(TypedDict):
    """What summary.json holds of entities. `ahead`: of how many of the `scored` no alternative is level."""

    count: int
    scored: int
    ahead: int
    unnamed: int
    best: list[dict[str, Any]]
    worst: list[dict[str, Any]]
    changed: list[dict[str, Any]]
    alarmed: list[dict[str, Any]]
    shares: list[int]


def ranked(fleet: Fleet) -> tuple[Ranking, str]:
    """The ranking, and the text of `FILE`.

    The ratio of an entity is the mean over its targets of Onward's mean absolute error to that of whichever alternative
    was best for it, afterwards. Of late: the error of the last `LATE` to twice as many scored rows, to that before.
    """
    options = fleet.options
    several = len(options.target) > 1
    columns = [f"{target} {name}" if several else name for target in options.target for name in (*CONTESTANTS, "late")]
    file, marks_of = io.StringIO(), ("alarms", "shifts") if options.alarm else ()
    counts = [f"{t} scored" if several else "scored" for t in options.target]
    file.write(csv_line([*options.by, "rows", *counts, *columns, *marks_of]))
    found: list[Entity] = []
    count = 0
    for name, record in fleet.shards.standing():
        count += 1
        sums, scored, marks = record["sums"], record["scored"], record["marks"]
        with np.errstate(divide="ignore", invalid="ignore"):
            means = sums / scored
            late = (sums[0] - marks[0, 1]) / (scored - marks[0, 0])
            before = np.where(marks[0, 0] > 0, marks[0, 1] / marks[0, 0], np.nan)
            ratio = float(np.mean(means[0] / means[1:].min(0)))
            change = float(np.mean(late / before))
        told = np.concatenate([means, late[None]]).T.ravel()
        texts = [str(int(record["rows"])), *(str(int(n)) for n in scored), *as_text(told)]
        marked = {each: int(record[each]) for each in marks_of}
        file.write(csv_line([*fleet.columns_of(name), *texts, *map(str, marked.values())]))
        if scored.min() >= ENOUGH and np.isfinite(ratio):
            each: Entity = {"entity": name, "rows": int(record["rows"]), "ratio": ratio, **marked}  # type: ignore[typeddict-item]
            each["late"] = change if np.isfinite(change) else None
            found.append(each)
    found.sort(key=lambda each: each["ratio"])
    changed = sorted((each for each in found if each["late"] is not None), key=lambda each: -(each["late"] or 0))
    # The most alarms and shifts a row.
    alarming = [each for each in found if each.get("alarms") or each.get("shifts")]
    alarming.sort(key=lambda each: -(each["alarms"] + each["shifts"]) / each["rows"])
    ratios = np.array([each["ratio"] for each in found])
    shares = np.histogram(np.clip(ratios, 0, MOST), BINS, (0, MOST))[0]
    ranking: Ranking = {
        "count": count,
        "scored": len(found),
        "ahead": int((ratios < 1).sum()),
        "unnamed": fleet.unnamed,
        "best": [dict(each) for each in found[:NAMED]],
        "worst": [dict(each) for each in found[: -NAMED - 1 : -1]],
        "changed": [dict(each) for each in changed[:NAMED]],
        "alarmed": [dict(each) for each in alarming[:NAMED]],
        "shares": shares.tolist(),
    }
    return ranking, file.getvalue()


def check_ranking(ranking: Any, where: str) -> None:
    """Refuse what `ranked` did not write."""
    saving.check_meta(ranking, Ranking, where)
    for name in ("best", "worst", "changed", "alarmed"):
        for each in ranking[name]:
            saving.check_meta(each, Entity, f"{where}, {name}")
    if len(ranking["shares"]) != BINS or min(ranking["shares"]) < 0:
        raise saving.Unreadable(f"{where} is damaged: it holds counts that are none")


def cells_of(name: str, by: tuple[str, ...]) -> list[str]:
    """What the columns of `by` hold of an entity."""
    return [name] if len(by) == 1 else next(csv.reader([name]))
