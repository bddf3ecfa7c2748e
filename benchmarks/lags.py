"""How far back `onward learn` remembers: white noise, and as the target what it was so many rows ago.

    python benchmarks/lags.py [--lags 1 3 10 30 100] [--rows N] [--seeds N] [--noise SD] [--pulses] [learn options ...]

Prints a Markdown table of progressive mean absolute errors over the whole stream, the mean of several streams. One row
ahead, nothing but memory helps: with it the error is 0, without it at best that of the mean, 0.798. A network that ends
in NaN is left out, and counted. `learn options` are for the first column, which is the default without them. --noise
is added to the target, whose error is then at least .798 of it; --pulses: in place of noise, a 1 in 5 % of rows.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from onward import cli

# LSTM columns in one stage: a ccn that does not grow.
ALONE = ("--experts", "network")
OTHERS = {
    "network alone": ALONE,
    "LSTM columns": ("--network", "ccn", "--stages", "1", *ALONE),
    "dense GRU": ("--network", "gru", *ALONE),
}


def errors(given: argparse.Namespace, folder: Path, lag: int, seed: int, options: tuple[str, ...]) -> dict[str, float]:
    """The error of each contestant on one stream; none where learning ended in an error."""
    rng, rows = np.random.default_rng([seed, lag]), given.rows
    x = rng.normal(size=rows + lag)
    if given.pulses:
        x = (x > 1.645).astype(float)
    y = x[:rows] + given.noise * rng.normal(size=rows)
    path, out = folder / "lag.csv", folder / "out"
    np.savetxt(path, np.stack([x[lag:], y], 1), fmt="%.5f", delimiter=",", header="x,y", comments="")
    sys.stdout, kept = sys.stderr, sys.stdout
    status = cli.main(["learn", str(path), "--target", "y", "--out", str(out), "--replace", *options])
    sys.stdout = kept
    if status:
        return {}
    found = json.loads((out / "summary.json").read_text())
    return dict(zip(found["contestants"], (row[0] for row in found["mean absolute error"]), strict=True))


def said(found: list[dict[str, float]], who: str) -> str:
    """The mean of a contestant, and of how many streams where some are missing."""
    there = [each[who] for each in found if each]
    if not there:
        return "NaN"
    return f"{np.mean(there):.3g}" + f" ({len(there)} of {len(found)})" * (len(there) < len(found))


def main() -> None:
    """Make the streams, learn each, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lags", type=int, nargs="+", default=[1, 3, 10, 30, 100])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--pulses", action="store_true")
    given, options = parser.parse_known_args()
    networks = {" ".join(options) or "default": tuple(options)} | OTHERS
    print(f"| lag | {' | '.join(networks)} | linear | mean |\n|---|{'---|' * (len(networks) + 2)}")
    with tempfile.TemporaryDirectory() as folder:
        for lag in given.lags:
            found = {
                name: [errors(given, Path(folder), lag, seed, more) for seed in range(given.seeds)]
                for name, more in networks.items()
            }
            cells = [said(found[name], "onward") for name in networks]
            cells += [said(next(iter(found.values())), who) for who in ("linear", "mean")]
            print(f"| {lag} | {' | '.join(cells)} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
