"""The scores of a run of `onward learn`, and what its columns were read as: what summary.json holds."""

from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from onward import saving
from onward.errors import OnwardError
from onward.rows.scores import CONTESTANTS, measure
from onward.rows.session import Session

SUMMARY = "summary.json"


def summary(session: Session) -> dict[str, Any]:
    """Everything that a report says, but for its figures."""
    scores, options, encoder = session.scores, session.options, session.reading.encoder
    counts = np.maximum(scores.total[..., 0], 1)
    content: dict[str, Any] = {
        "source": session.name,
        "task": options.task,
        "rows": session.rows,
        "scored": int(scores.total[0, :, 0].sum()),
        "targets": list(options.target),
        "contestants": list(CONTESTANTS),
        "mean absolute error": (scores.total[..., 1] / counts).tolist(),
        "root mean square error": np.sqrt(scores.total[..., 2] / counts).tolist(),
        "period": session.baselines.period,
        "columns read": len({*encoder.slots, *encoder.vocabulary} - {*session.seasonal}),
        "inputs": encoder.used,
        "columns": session.reading.columns(),
        "constant": session.constant,
        "cpu_seconds": session.cpu,
        "strange": session.strange.as_dict(),
        "notes": session.notes,
    }
    if session.extras:
        rows, inside, size = scores.extra
        content["interval"] = {"rows": rows, "inside": inside / max(rows, 1), "size": size / max(rows, 1)}
    return content


class _Column(TypedDict):
    missing: int
    odd: int


class _Summary(TypedDict):
    source: str
    task: str
    rows: int
    scored: int
    targets: list[str]
    contestants: list[str]
    period: int | None
    inputs: int
    columns: list[dict[str, Any]]
    constant: bool
    cpu_seconds: float
    notes: list[str]


def load_summary(folder: Path) -> dict[str, Any]:
    """The summary of a run that came to its end; OnwardError where there is none, or where it is damaged."""
    file = folder / SUMMARY
    if not file.is_file():
        raise OnwardError(f"{folder} has not been learned to its end: {file} is missing")
    content = saving.read_json(file)
    saving.check_meta(content, _Summary, str(file))
    for name in ("mean absolute error", "root mean square error"):
        errors: Any = content.get(name)
        saving.check_meta(errors, list[list[float]], f"{file}, {name}")
        shape = [len(content["targets"])] * len(content["contestants"])
        if content["contestants"] != list(CONTESTANTS) or list(map(len, errors)) != shape:
            raise saving.Unreadable(f"{file} is damaged: {name} is not of {CONTESTANTS} and {content['targets']}")
    saving.check_meta(content.get("columns read"), int, f"{file}, columns read")
    for column in content["columns"]:
        saving.check_meta(column, _Column, f"{file}, columns")
        words = {name: column.get(name) for name in ("name", "role", "read as", "otherwise")}
        saving.check_meta(words, dict[str, str], f"{file}, columns")
    if "interval" in content:
        saving.check_meta(content["interval"], dict[str, float], f"{file}, interval")
    return content


def as_lines(folder: Path) -> list[str]:
    """The scores of a run folder for a terminal, best first."""
    content = load_summary(folder)
    errors = np.mean(content["mean absolute error"], 1)
    order, what = np.argsort(errors, kind="stable"), measure(content["task"])
    return [f"{content['contestants'][j]:12} {what} {errors[j]:.5g}" for j in order]
