"""Whether the intervals of `onward learn` hold what they say, and what they cost: interval score, share inside, width.

    python benchmarks/intervals.py FOLDER [--rows 6000] [--horizon 1] [--series NAME ...] [--save FILE] [--beside FILE]

FOLDER: series as `examples/series.py FOLDER` writes them. Of each the first ROWS rows, untouched defaults, 90 % intervals
said before each row was seen; the first tenth is left out. The interval score (Gneiting and Raftery, 2007) is the width
and 20 times the distance by which a target lies outside: the smaller the better, and least for the true quantiles. The
share inside stands by quarters of the rows, too. `--beside`: ratios to what `--save` kept of another version.
"""

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from series import geometric, learned

SHARE = 0.9


def judged(predictions: Path) -> tuple[float, float, float, list[float]]:
    """Interval score, share inside, mean width, and the share by quarters, of a table of predictions."""
    with open(predictions, newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [np.array([float(row[name] or "nan") for row in rows]) for name in ("target", "low", "high")]
    known = np.isfinite(columns).all(0)
    known[: len(known) // 10] = False
    target, low, high = (column[known] for column in columns)
    outside = np.maximum(low - target, 0) + np.maximum(target - high, 0)
    inside = outside == 0
    quarters = [float(part.mean()) for part in np.array_split(inside, 4)]
    score = high - low + 2 / (1 - SHARE) * outside
    return float(score.mean()), float(inside.mean()), float((high - low).mean()), quarters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--horizon", type=int, default=1)
    parser.add_argument("--series", nargs="+", default=[])
    parser.add_argument("--save", type=Path)
    parser.add_argument("--beside", type=Path)
    given = parser.parse_args()
    before = json.loads(given.beside.read_text()) if given.beside else {}
    found: dict[str, float] = {}
    print("| series | interval score | inside | by quarters of the rows | width |" + (" ratio |" if before else ""))
    print("|---|---|---|---|---|" + ("---|" if before else ""))
    for path in sorted(given.folder.glob("*.csv")):
        if given.series and path.stem not in given.series:
            continue
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / path.name
            with open(path) as file:
                part.write_text("".join(line for _, line in zip(range(given.rows + 1), file, strict=False)))
            learned(part, Path(folder) / "out", ["--horizon", str(given.horizon)])
            score, inside, width, quarters = judged(Path(folder) / "out" / "predictions.csv")
        found[path.stem] = score
        by = ", ".join(f"{share:.3f}" for share in quarters)
        ratio = f" {score / before[path.stem]:.3f} |" if path.stem in before else ""
        print(f"| {path.stem} | {score:.5g} | {inside:.3f} | {by} | {width:.5g} |{ratio}", flush=True)
    if given.save:
        given.save.write_text(json.dumps(found))
    both = [found[name] / before[name] for name in found if name in before]
    if both:
        print(f"geometric mean of the ratios: {geometric(both):.3f}")
    if not found:
        sys.exit(f"intervals.py: no series in {given.folder}")


if __name__ == "__main__":
    main()
