"""What each expert of `onward learn`, and each group of what least squares reads, is worth: errors with it left out.

    python examples/series.py FOLDER --development && python benchmarks/ablations.py FOLDER [--most 20000]

Progressive mean absolute error of each series, the first tenth of its rows left out, by that with everything: the
geometric mean over the series, the least and the most. Above 1 it was worth having.
"""

import argparse
import contextlib
import io
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from rivals import read
from series import learned

from onward.rows.stream import EXPERTS, experts
from onward.rows.stream.programs import programs_of

GROUPS = ("lags", "seasons", "classes", "mean", "waves")
whole = experts.groups


def without(group: str) -> Callable[..., dict[str, jnp.ndarray]]:
    """`groups`, of which one says nothing."""
    return lambda *given: {name: 0 * part if name == group else part for name, part in whole(*given).items()}


def main() -> None:
    """Learn every series with all, then with each part left out."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=20_000)
    asked = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    files, out = sorted(asked.folder.glob("*.csv")), Path(tempfile.mkdtemp())
    tables = {path: read(path, asked.most) for path in files}

    def error(path: Path, options: list[str]) -> float:
        with contextlib.redirect_stderr(io.StringIO()):
            said, _ = learned(path, out / path.stem, options)
        y = tables[path].y
        return float(np.nanmean(np.abs(said[: len(y)] - y)[len(y) // 10 :]))

    usual = {path: error(path, []) for path in files}
    print(f"{len(files)} series\n| left out | geometric mean | least | most |\n|---|---|---|---|", flush=True)

    def tell(what: str, options: list[str]) -> None:
        ratios = [error(path, options) / usual[path] for path in files]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"| {what} | {mean:.4f} | {min(ratios):.3f} | {max(ratios):.3f} |", flush=True)

    for name in EXPERTS:
        tell(f"expert {name}", ["--experts", *(each for each in EXPERTS if each != name)])
    tell("all experts but the network", ["--experts", "network"])
    for group in GROUPS:
        programs_of.cache_clear()
        experts.groups = without(group)
        tell(f"what is read: {group}", [])
    programs_of.cache_clear()
    experts.groups = whole


if __name__ == "__main__":
    main()
