"""Answers as data: what was said at rows, and how odd these were, as JSON holds it."""

import json
from typing import Any

import numpy as np

from onward.rows.session import Session


def as_data(session: Session) -> list[dict[str, Any]]:
    """Of each row that was answered last: its number and time, what is said of the row `horizon` rows later, alarms.

    `targets`: by name the prediction, with `low` and `high` or, of a class, its `probability`, and the row's `score`
    where there is one. What is not known is None.
    """
    said, found, options = session.answered, [], session.options
    labels, extra = list(session.targets.classes), session.format.extra
    for i, row in enumerate(said.rows):
        each: dict[str, Any] = {"row": row}
        if not session.of_rows:
            each["of_row"] = row + options.lag
        each["time"] = said.times[i] or None
        if options.by:
            each["entity"] = {name: column[i] for name, column in zip(options.by, session.whose, strict=True)}
        targets = {}
        for j, name in enumerate(options.outputs):
            value = said.said[i, j]
            answer: dict[str, Any] = {"prediction": _class(value, labels) if session.format.classes else _number(value)}
            if extra == 1:
                answer["probability"] = _number(said.extra[i, 0])
            elif extra == 2:
                answer["low"], answer["high"] = (_number(v) for v in said.extra[i, 2 * j : 2 * j + 2])
            if session.odds is not None:
                answer["score"] = _number(session.odds.score[i, j])
            targets[name] = answer
        each["targets"] = targets
        if session.odds is not None:
            each["alarm"], each["shift"] = bool(session.odds.alarm[i]), bool(session.odds.shift[i])
        found.append(each)
    return found


def as_lines(answers: list[dict[str, Any]]) -> str:
    """An object a line."""
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in answers)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _class(value: float, labels: list[str]) -> str | None:
    return labels[int(value)] if value == value and value < len(labels) else None
