"""The scores of a run of `onward learn`, and what its columns were read as: what summary.json holds."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from onward import saving
from onward.errors import OnwardError
from onward.rows.scores import APART, CONTESTANTS, PARTS, Scores, by_target, each_target, mean_errors, measure
from onward.rows.session import Session
from onward.rows.stream import EXPERTS
from onward.text import counted

SUMMARY = "summary.json"
ERRORS = ("mean absolute error", "root mean square error")
WITHOUT = "without strange targets"
# No file has more rows.
MOST = 2**53


def summary(session: Session) -> dict[str, Any]:
    """Everything that a report says, but for its figures."""
    scores, options, encoder = session.scores, session.options, session.reading.encoder
    counts = mean_errors(scores.total)[1]
    content: dict[str, Any] = {
        "source": session.name,
        "task": options.task,
        "rows": session.rows,
        "scored": by_target(options.outputs, counts),
        "targets": list(options.outputs),
        **({"path": options.spans} if options.path else {}),
        "contestants": list(CONTESTANTS),
        **_errors(scores.total),
        "period": session.baselines.period,
        "columns read": len({*encoder.slots, *encoder.vocabulary} - {*session.seasonal}),
        "inputs": encoder.used,
        "columns": session.reading.columns(),
        "constant": by_target(options.outputs, session.constant),
        "cpu_seconds": session.cpu,
        "strange": session.strange.as_dict(),
        "remarks": session.remarks.as_dict(),
        "notes": session.notes,
    }
    if session.oddness:
        odd = session.oddness
        content["odd"] = {"scored": odd.scored, "alarms": odd.alarms, "shifts": odd.shifted, "first": odd.first}
    doubted = scores.total[0, :, 0] - scores.believed[0, :, 0]
    if doubted.any():
        content[WITHOUT] = {
            "rows left out": by_target(options.outputs, doubted.astype(int).tolist()),
            **_errors(scores.believed),
        }
    if session.experts:
        heard = session.learner.in_stack if session.learner else {}
        each = [_experts(session.experts, sums, heard, i) for i, sums in enumerate(scores.experts)]
        content["experts"] = by_target(options.outputs, each)
    if options.task == "classification":
        content["classes"] = _classes(list(session.targets.classes), scores)
    if session.extras:
        shares = [
            {"rows": rows, "inside": inside / max(rows, 1), "size": size / max(rows, 1)}
            for rows, inside, size in scores.extra.tolist()
        ]
        content["interval"] = by_target(options.outputs, shares)
    return content


def _classes(names: list[str], scores: Scores) -> dict[str, Any]:
    """What came and what was said of it, and how well probabilities fit.

    `log loss`: the mean -log, by nature, of the probability of the class that came, over `rows`; `of shares`: the same
    of the shares of all classes, had they been known beforehand, None where classes are counted as one.
    """
    rows, total = scores.log_loss.tolist()
    named = names[:APART] + (["all others"] if len(names) > APART else [])
    came = scores.confusion[: len(named)].sum(1)
    shares = came[came > 0] / max(came.sum(), 1)
    return {
        "rows": int(rows),
        "log loss": total / max(rows, 1),
        "of shares": None if len(names) > APART else float(-shares @ np.log(shares)),
        "names": named,
        "came and said": scores.confusion[: len(named), : len(named)].astype(int).tolist(),
        "probability, rows": scores.calibration[:, 0].astype(int).tolist(),
        "probability, right": scores.calibration[:, 1].astype(int).tolist(),
        "probability, sum": scores.calibration[:, 2].tolist(),
    }


def _experts(names: Sequence[str], sums: np.ndarray, heard: dict[str, np.ndarray], i: int) -> list[dict[str, Any]]:
    """Of those that ever answered: the error of their own answers, in how many rows, and their mean weight.

    `in stack`: how much the stack listens to it at the end, None where it does not; of target `i`.
    """
    told = {name: float(each[i]) for name, each in heard.items() if np.isfinite(each[i])}
    return [
        {
            "name": name,
            "weight": weight / max(judged, 1),
            ERRORS[0]: error / rows,
            "rows": int(rows),
            "in stack": told.get(name),
        }
        for name, (rows, error, judged, weight) in zip(names, sums.tolist(), strict=True)
        if rows
    ]


def _errors(sums: np.ndarray) -> dict[str, list[list[float | None]]]:
    """The errors of each contestant and target; None where no row was scored."""
    means, counts = mean_errors(sums)
    with np.errstate(invalid="ignore"):
        squares = np.sqrt(sums[..., 2] / counts).tolist()
    named = zip(ERRORS, (means, squares), strict=True)
    return {name: [[None if e != e else e for e in errors] for errors in each] for name, each in named}


class _Column(TypedDict):
    missing: int
    odd: int


_Expert = TypedDict(
    "_Expert",
    {"name": str, "weight": float, "rows": int, "mean absolute error": float, "in stack": NotRequired[float | None]},
)
_Classes = TypedDict(
    "_Classes",
    {
        "rows": int,
        "names": list[str],
        "log loss": float,
        "of shares": float | None,
        "came and said": list[list[int]],
        "probability, rows": list[int],
        "probability, right": list[int],
        "probability, sum": list[float],
    },
)


class _OddRow(TypedDict):
    row: int
    time: str
    kind: str
    score: float
    entity: NotRequired[str]


class _Odd(TypedDict):
    scored: int
    alarms: int
    shifts: int
    first: list[dict[str, Any]]


class _Summary(TypedDict):
    source: str
    task: str
    rows: int
    scored: Any
    targets: list[str]
    contestants: list[str]
    period: int | None
    inputs: int
    columns: list[dict[str, Any]]
    constant: Any
    cpu_seconds: float
    notes: list[str]


def load_summary(folder: Path) -> dict[str, Any]:
    """The summary of a run that came to its end; OnwardError where there is none, or where it is damaged."""
    file = folder / SUMMARY
    if not file.is_file():
        raise OnwardError(f"{folder} has not been learned to its end: {file} is missing")
    content = saving.read_json(file)
    saving.check_meta(content, _Summary, str(file))
    saving.check_meta(content.get(WITHOUT, {}), dict[str, Any], f"{file}, {WITHOUT}")
    path = content.get("path", 1)
    saving.check_meta(path, int, f"{file}, path")
    if not 0 < path <= len(content["targets"]) or len(content["targets"]) % path:
        raise saving.Unreadable(f"{file} is damaged: {len(content['targets'])} targets are no paths of {path}")
    for part in (content, *([content[WITHOUT]] if WITHOUT in content else [])):
        for name in ERRORS:
            errors: Any = part.get(name)
            saving.check_meta(errors, list[list[float | None]], f"{file}, {name}")
            shape = [len(content["targets"])] * len(content["contestants"])
            if content["contestants"] != list(CONTESTANTS) or list(map(len, errors)) != shape:
                raise saving.Unreadable(f"{file} is damaged: {name} is not of {CONTESTANTS} and {content['targets']}")
    saving.check_meta(content.get("columns read"), int, f"{file}, columns read")
    for column in content["columns"]:
        saving.check_meta(column, _Column, f"{file}, columns")
        words = {name: column.get(name) for name in ("name", "role", "read as", "otherwise")}
        saving.check_meta(words, dict[str, str], f"{file}, columns")
    if WITHOUT in content:
        left = content[WITHOUT].get("rows left out")
        check_targets(left, content["targets"], int, f"{file}, {WITHOUT}")
    if "odd" in content:
        _check_odd(content["odd"], f"{file}, odd")
    if "entities" in content:
        from onward.rows.fleet.ranking import check_ranking

        check_ranking(content["entities"], f"{file}, entities")
    if "classes" in content:
        _check_classes(content["classes"], f"{file}, classes")
    kinds = {"scored": int, "constant": bool, "interval": dict[str, float], "experts": list[dict[str, Any]]}
    for name, kind in kinds.items():
        if name in content:
            check_targets(content[name], content["targets"], kind, f"{file}, {name}")
    _check_experts(content, f"{file}, experts")
    return content


def _check_odd(odd: Any, where: str) -> None:
    saving.check_meta(odd, _Odd, where)
    for each in odd["first"]:
        saving.check_meta(each, _OddRow, where)
    if not all(0 <= odd[name] <= odd["scored"] <= MOST for name in ("alarms", "shifts")):
        raise saving.Unreadable(f"{where} is damaged: it holds counts that are none")


def _check_classes(classes: Any, where: str) -> None:
    saving.check_meta(classes, _Classes, where)
    counts, many = classes["came and said"], len(classes["names"])
    parts = [classes[f"probability, {name}"] for name in ("rows", "right", "sum")]
    if list(map(len, counts)) != [many] * many or any(len(part) != PARTS for part in parts):
        raise saving.Unreadable(f"{where} is damaged: its parts are not of {many} classes and {PARTS} probabilities")
    if not all(0 <= count <= MOST for count in itertools.chain(*counts, *parts)):
        raise saving.Unreadable(f"{where} is damaged: it holds counts that are none")


def _check_experts(content: dict[str, Any], where: str) -> None:
    for each in each_target(content["targets"], content["experts"]) if "experts" in content else ():
        for expert in each:
            saving.check_meta(expert, _Expert, where)
            if expert["name"] not in EXPERTS:
                raise saving.Unreadable(f"{where} is damaged, or of another version of onward: {expert['name']!r}")


def by_weight(content: dict[str, Any], i: int) -> list[dict[str, Any]]:
    """The experts of target i, by weight."""
    if "experts" not in content:
        return []
    experts = each_target(content["targets"], content["experts"])[i]
    return sorted(experts, key=lambda expert: -expert["weight"])


def check_targets(content: Any, targets: list[str], kind: Any, what: str) -> None:
    """Refuse what `by_target` did not write of values of this kind."""
    if len(targets) > 1:
        saving.check_meta(content, dict[str, Any], what)
        if [*content] != targets:
            raise saving.Unreadable(f"{what} is damaged: it is of {list(content)}, and the targets are {targets}")
    for value in each_target(targets, content):
        saving.check_meta(value, kind, what)


def best_first(content: dict[str, Any], i: int) -> list[tuple[str, float]]:
    """The contestants and their errors of target i, best first; none where no row of it was scored."""
    errors = [errors[i] for errors in content["mean absolute error"]]
    named = [(name, error) for name, error in zip(content["contestants"], errors, strict=True) if error is not None]
    return sorted(named, key=lambda each: each[1])


def without(content: dict[str, Any], i: int) -> tuple[int, dict[str, list[float | None]]] | None:
    """How many rows of target i were not believed, and the errors of each contestant without them; None: none was."""
    if WITHOUT not in content or not (rows := each_target(content["targets"], content[WITHOUT]["rows left out"])[i]):
        return None
    said = [[errors[i] for errors in content[WITHOUT][name]] for name in ERRORS]
    return rows, dict(zip(content["contestants"], map(list, zip(*said, strict=True)), strict=True))


def as_lines(folder: Path) -> list[str]:
    """The scores of a run folder for a terminal, best first; of several targets a block each."""
    content = load_summary(folder)
    if content.get("path", 1) > 1:
        return _paths(content)
    what, several, lines = measure(content["task"]), len(content["targets"]) > 1, []
    for i, target in enumerate(content["targets"]):
        ranked = best_first(content, i)
        lines += [f"{target}: {'' if ranked else 'no row could be scored'}".rstrip()] if several else []
        rows, believed = without(content, i) or (0, {})
        for name, error in ranked:
            mean = believed[name][0] if believed else None
            beside = "" if mean is None else f" ({mean:.5g} without {counted(rows, 'row')} not believed)"
            lines.append(f"{'  ' * several}{name:12} {what} {error:.5g}{beside}")
    return lines + _odd(content)


def _odd(content: dict[str, Any]) -> list[str]:
    odd = content.get("odd")
    counts = [counted(odd[name], name[:-1]) for name in ("alarms", "shifts")] if odd else []
    return [f"{' and '.join(counts)} in {counted(odd['scored'], 'row')}"] if odd else []


def _paths(content: dict[str, Any]) -> list[str]:
    """The errors of paths, a line for each number of rows ahead."""
    told = lambda error: "-" if error is None else f"{error:.5g}"
    head = f"{measure(content['task'])} by rows ahead"
    width = max(map(len, [head, *content["targets"]]))
    lines = [f"{head:{width}}  " + "  ".join(f"{name:>10}" for name in content["contestants"])]
    for i, target in enumerate(content["targets"]):
        errors = [told(errors[i]) for errors in content[ERRORS[0]]]
        lines.append(f"{target:{width}}  " + "  ".join(f"{error:>10}" for error in errors))
    return lines
