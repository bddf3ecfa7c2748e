"""What came and what was said of it, where `onward learn` predicts classes, and whether its probabilities hold."""

from typing import Any

import numpy as np

from onward.lab.page import Table, number

# Classes of the table, at most; the rarer ones are counted as one.
SHOWN = 12
OTHERS = "all others"


def confused(scores: dict[str, Any]) -> list[Table]:
    """Tables of what came and what was said, and of probabilities beside shares; none where no class is predicted."""
    if "classes" not in scores or not scores["classes"]["names"]:
        return []
    return [_came_and_said(scores["classes"]), _probabilities(scores["classes"])]


def _came_and_said(classes: dict[str, Any]) -> Table:
    counts, names = np.array(classes["came and said"]), classes["names"]
    by_rows = [i for i in np.argsort(-counts.sum(1), kind="stable").tolist() if names[i] != OTHERS]
    shown = by_rows if len(names) <= SHOWN else by_rows[: SHOWN - 1]
    rest = [i for i in range(len(names)) if i not in shown]
    parts = [[i] for i in shown] + ([rest] if rest else [])
    titles = [names[i] for i in shown] + ([OTHERS] if rest else [])
    table = np.array([[counts[np.ix_(came, said)].sum() for said in parts] for came in parts])
    # Where classes were counted as one, nobody knows how many of them were right.
    hits = [sum(counts[i, i] if names[i] != OTHERS else np.nan for i in part) for part in parts]
    share = lambda hit, total: "" if not total or np.isnan(hit) else f"{hit / total:.1%}"
    rows = [
        [title, *(f"{many:,}" for many in line), share(hit, line.sum())]
        for title, line, hit in zip(titles, table, hits, strict=True)
    ]
    caption = (
        "Rows by the class that came (a line each) and the class that was predicted, and how many of each were right."
    )
    return Table(["came \\ said", *titles, "right"], rows, caption)


def _probabilities(classes: dict[str, Any]) -> Table:
    parts = zip(*(classes[f"probability, {name}"] for name in ("rows", "right", "sum")), strict=True)
    width = 1 / len(classes["probability, rows"])
    rows = [
        [f"{i * width:.0%} to {(i + 1) * width:.0%}", f"{many:,}", f"{total / many:.1%}", f"{right / many:.1%}"]
        for i, (many, right, total) in enumerate(parts)
        if many
    ]
    of_shares = classes["of shares"]
    beside = "" if of_shares is None else f" ({number(of_shares, 4)} for the share of each class in all rows)"
    caption = (
        "How sure the prediction was, beside how often it was right. The mean log loss of the class that came is "
        f"{number(classes['log loss'], 4)}{beside}, over {classes['rows']:,} rows whose class had been seen before."
    )
    return Table(["probability of the class predicted", "rows", "mean probability", "right"], rows, caption)
