"""Where a gradient goes wrong: the first step, and there the array and its ratio."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from onward.credit.base import AbstractCredit
from onward.types import PyTree
from onward.verify.claims import BATCH, EXACT, FINITE_DIFFERENCE, SIGMAS, Case
from onward.verify.gradients import gradient_of_seeds, mean_gradient, mean_reference, slopes


@dataclass(frozen=True)
class Fault:
    """The first step (from 1) whose loss has a wrong gradient, and the array that is most wrong there.

    of: `rule`, whose gradient is not BPTT's, or `cell`, whose derivatives are not those of finite differences.
    ratio: what is claimed over what it should be; NaN where it should be zero. error: relative, or in standard errors
    for an unbiased rule.
    """

    of: Literal["rule", "cell"]
    leaf: str
    step: int
    ratio: float
    error: float


def locate(rule: AbstractCredit, case: Case) -> Fault | None:
    """Where a rule that has failed in a case goes wrong (inside `jax.enable_x64`); None where no step shows it.

    The loss of each step is taken alone. Cost: that of the comparison, times the steps.
    """
    if case.finite_difference >= FINITE_DIFFERENCE:
        return _of_cell(case)
    claim = rule.claim(case.cell, case.steps)
    return None if claim == "biased" else _of_rule(rule, case, unbiased=claim == "unbiased")


def _names(tree: PyTree) -> list[str]:
    named = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in named]


def _of_rule(rule: AbstractCredit, case: Case, *, unbiased: bool) -> Fault | None:
    cell, data, key = case.cell, case.data, jax.random.key(6)
    for step in range(case.steps):
        alone = jnp.zeros_like(data.cotangents).at[:, step].set(data.cotangents[:, step])
        on = (case.carry, data.xs, data.starts, alone)
        reference = mean_reference(cell, *on)
        if unbiased:
            drawn = gradient_of_seeds(cell, rule, *on, jax.random.split(key, BATCH))
        else:
            drawn = jax.tree.map(lambda g: np.asarray(g)[None], mean_gradient(cell, rule, *on, key))
        found = []
        for name, g, r in zip(_names(reference), jax.tree.leaves(drawn), jax.tree.leaves(reference), strict=True):
            g, r = np.asarray(g).reshape(len(g), -1), np.asarray(r).ravel()
            off, size = np.abs(g.mean(0) - r), float(np.linalg.norm(r))
            if unbiased:
                spread = g.std(0, ddof=1) / len(g) ** 0.5
                error = float(np.max(off / np.maximum(spread, EXACT)))
            else:
                error = float(np.linalg.norm(off)) / max(size, EXACT)
            found.append((error, name, float(g.mean(0) @ r) / size**2 if size else float("nan")))
        error, name, ratio = max(found)
        if error > (SIGMAS if unbiased else EXACT):
            return Fault("rule", name, step + 1, ratio, error)
    return None


def _of_cell(case: Case) -> Fault | None:
    cell, data = case.cell, case.data
    for step in range(data.xs.shape[1]):
        alone = jnp.zeros_like(case.first).at[step].set(case.first[step])
        batch = jnp.zeros_like(data.cotangents).at[0].set(alone)
        gradient = mean_reference(cell, case.carry, data.xs, case.starts, batch)
        gradient = jax.tree.map(lambda g: g * len(data.xs), gradient)
        found = slopes(cell, case.carry, data.xs[0], case.starts[0], alone, gradient, jax.random.key(11))
        wrong = [abs(s.measured - s.claimed) / max(s.scale, abs(s.measured), EXACT) for s in found]
        error, name, slope = max(zip(wrong, _names(gradient), found, strict=True))
        if error > FINITE_DIFFERENCE:
            ratio = slope.claimed / slope.measured if slope.measured else float("nan")
            return Fault("cell", name, step + 1, ratio, error)
    return None
