"""`onward learn` on real series: progressive mean absolute error, beside the alternatives.

    python examples/series.py FOLDER && python benchmarks/series.py FOLDER [--horizon H] [--out DIR] [learn options ...]

Every CSV in the folder: the first column is the time, the second the target. Prints a Markdown table, the best of each
row in bold; "ratio" is its error by that of the best alternative, so below 1 it wins.
"""

import csv
import json
import math
import sys
import tempfile
from pathlib import Path

from onward import cli


def main() -> None:
    """Learn every file, then print."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        raise SystemExit(__doc__)
    if not list(Path(arguments[0]).glob("*.csv")):
        raise SystemExit(f"no CSV in the folder {arguments[0]!r}; examples/series.py writes the series")
    source, options = Path(arguments[0]), arguments[1:]
    out = Path(tempfile.mkdtemp())
    if "--out" in options:
        at = options.index("--out")
        out, options = Path(options[at + 1]), options[:at] + options[at + 2 :]
    ratios: dict[str, list[float]] = {}
    print(
        "| series | rows | onward | linear | last value | seasonal | mean | ratio |\n|---|---|---|---|---|---|---|---|"
    )
    for path in sorted(source.glob("*.csv")):
        with open(path, newline="") as file:
            time, target, *_ = next(csv.reader(file))
        folder = out / path.stem
        sys.stdout, kept = sys.stderr, sys.stdout
        status = cli.main(["learn", str(path), "--target", target, "--time", time, "--out", str(folder), *options])
        sys.stdout = kept
        if status:
            raise SystemExit(status)
        found = json.loads((folder / "summary.json").read_text())
        errors = dict(zip(found["contestants"], (row[0] for row in found["mean absolute error"]), strict=True))
        best = min(errors.values())
        cell = lambda v, best=best: f"**{v:.4g}**" if v == best else f"{v:.4g}"
        ours, *others = (errors[name] for name in ("onward", "linear", "last value", "seasonal", "mean"))
        for name, value in errors.items():
            ratios.setdefault(name, []).append(ours / value)
        ratios.setdefault("best", []).append(ours / min(others))
        print(
            f"| {path.stem} | {found['rows']:,} | {' | '.join(map(cell, (ours, *others)))} | {ours / min(others):.3f} |"
        )
        sys.stdout.flush()
    many = len(ratios["best"])
    for name, values in ratios.items():
        if name != "onward":
            mean = math.exp(sum(map(math.log, values)) / many)
            who = "the best of them" if name == "best" else name
            print(
                f"against {who}: ahead on {sum(v < 1 for v in values)} of {many}, geometric mean of the ratio {mean:.3f}"
            )


if __name__ == "__main__":
    main()
