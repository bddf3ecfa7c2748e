"""How predictions are judged: sums of errors of all that predict the same rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from onward.rows.baselines import NAMES

# Classes that are told apart where they are counted by what was said of them; the others count as one.
APART = 64
# Parts of [0, 1] in which probabilities are held against what came.
PARTS = 10
# What is scored, in this order: what is predicted, the linear baseline, and those of `Baselines`.
OURS = "onward"
CONTESTANTS = (OURS, "linear", *NAMES)


def measure(task: str) -> str:
    """What is called an error where this task is scored."""
    return "error rate" if task == "classification" else "mean absolute error"


def by_target(names: Sequence[str], values: Sequence[Any]) -> Any:
    """A value of each target, as files hold it: of one target the value, of several an object; null for NaN."""
    told = [None if value != value else value for value in values]
    return told[0] if len(names) == 1 else dict(zip(names, told, strict=True))


def each_target(names: Sequence[str], content: Any) -> list[Any]:
    """The values that `by_target` put together."""
    return [content] if len(names) == 1 else [content[name] for name in names]


def mean_errors(sums: np.ndarray) -> tuple[list[list[float]], list[int]]:
    """The mean absolute error of each contestant and target, NaN where no row was scored, and the rows of each target.

    `sums`: as in `Scores.total`.
    """
    counts = sums[0, :, 0]
    with np.errstate(invalid="ignore"):
        return (sums[..., 1] / counts).tolist(), counts.astype(int).tolist()


def added(sums: np.ndarray, each: np.ndarray) -> np.ndarray:
    """Sums, and those of more rows, one after the other: the same to the last bit however rows come in blocks."""
    last: np.ndarray = np.add.accumulate(np.concatenate([sums[:, None], each], 1), 1)[:, -1]
    return last


class Scores:
    """Sums of errors of every contestant, over all rows and over the present window."""

    def __init__(self, targets: int, experts: int = 0):
        # contestant, target, (rows, |error|, error^2)
        self.total = np.zeros((len(CONTESTANTS), targets, 3))
        self.window = np.zeros_like(self.total)
        # As `total`, without the rows whose target itself was not believed, and those before learning began anew.
        self.believed = np.zeros_like(self.total)
        # Of the network and each target: rows with an interval or a probability, values inside (classes: hit), width
        # (probability).
        self.extra = np.zeros((targets, 3))
        # Of each target and expert: rows that it answered, |error|, rows that were judged, weight.
        self.experts = np.zeros((targets, experts, 4))
        self.experts_window = np.zeros_like(self.experts)
        # Of classes: rows by the class that came and the class that was said; by the probability of the latter rows,
        # hits and the sum of it; and rows with a probability of the class that came, and the sum of its -log.
        self.confusion = np.zeros((APART + 1, APART + 1))
        self.calibration = np.zeros((PARTS, 3))
        self.log_loss = np.zeros(2)

    def add(self, errors: np.ndarray, doubted: np.ndarray) -> None:
        """Errors (contestant, rows, targets); a row counts if all contestants answered it.

        `doubted`: (rows, targets), where a target was not believed.
        """
        known = np.isfinite(errors).all(0)
        clean = np.where(known[None], errors, 0)
        each = np.stack([np.broadcast_to(known, clean.shape), np.abs(clean), np.square(clean)], -1)
        self.total, self.window = added(self.total, each), added(self.window, each)
        self.believed = added(self.believed, np.where(doubted[None, ..., None], 0, each))

    def add_experts(self, said: np.ndarray, arrived: np.ndarray, *, classes: bool) -> None:
        """What experts said, and their weights, as `Waiting.experts`, of targets that arrived; `classes`: by number."""
        answers, weights = said[:, :, 0], said[:, :, 1]
        error = np.abs(answers - arrived[..., None])
        error = np.minimum(error, 1) if classes else error
        judged = np.isfinite(arrived)[..., None] & np.isfinite(weights)
        there = judged & np.isfinite(error)
        each = np.stack([there, np.where(there, error, 0), judged, np.where(judged, weights, 0)], -1)
        self.experts = added(self.experts[None], each[None])[0]
        self.experts_window = added(self.experts_window[None], each[None])[0]

    def add_classes(self, said: np.ndarray, came: np.ndarray, probabilities: np.ndarray) -> None:
        """Classes that were said, (rows,), that came, NaN where missing, and what was given to each class before.

        A class that was not known of then has the probability 0 there; such a row counts for no log loss.
        """
        known = np.isfinite(came) & np.isfinite(said)
        rows, was, is_ = probabilities[known], *(each[known].astype(int) for each in (said, came))
        sure = rows[np.arange(len(rows)), was]
        np.add.at(self.confusion, (np.minimum(is_, APART), np.minimum(was, APART)), 1)
        part = np.minimum((sure * PARTS).astype(int), PARTS - 1)
        np.add.at(self.calibration, part, np.stack([np.ones_like(sure), was == is_, sure], 1))
        wide = np.concatenate([rows, np.zeros((len(rows), 1))], 1)
        given = wide[np.arange(len(rows)), np.minimum(is_, rows.shape[1])]
        each = np.where(given > 0, -np.log(np.where(given > 0, given, 1)), 0)
        self.log_loss = added(self.log_loss[None], np.stack([given > 0, each], 1)[None])[0]

    def take_weights(self) -> np.ndarray:
        """The mean weight of each target's experts in the window, NaN where nothing was judged; a new window begins."""
        taken, self.experts_window = self.experts_window, np.zeros_like(self.experts_window)
        with np.errstate(invalid="ignore"):
            mean: np.ndarray = taken[..., 3] / taken[..., 2]
        return mean

    def take_window(self) -> np.ndarray:
        """The sums of the window, as in `total`; a new window begins."""
        taken, self.window = self.window, np.zeros_like(self.total)
        return taken
