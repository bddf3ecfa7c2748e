"""What makes local targets reach further back: one small table a choice, for docs/experiments/long-memory.md.

    python benchmarks/long_memory.py [--only NAME ...] [--length T] [--seeds N] [--out DIR]

Runs the experiment long-memory on temporal order, shortened, on tuning seeds from 100 on, once for each value; a run that is
there already is not made again. Prints Markdown: share of seeds that solved the task, and wrong answers at the end.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from onward.devices import cache_programs
from onward.lab.experiment import config_of
from onward.lab.figures import Run
from onward.lab.folder import read_config
from onward.lab.papers.long_memory import LongMemoryExperiment
from onward.lab.papers.long_memory_figures import success
from onward.lab.results import execute

BASE = LongMemoryExperiment(methods=("elman-tptt",), iterations=2_000, held_out=2_000, first_seed=100)
# name: (what it is, field, values)
TABLES = {
    "rules": (
        "rule, tanh Elman",
        "methods",
        tuple((f"elman-{r}",) for r in ("clipped", "norm", "tptt", "tptt-5", "mirrored", "steady", "random", "affine", "affine-5")),
    ),
    "starts": (
        "GRU with short memories at the start (plain) or long ones (gru)",
        "methods",
        tuple((f"{n}-{r}",) for n in ("plain", "gru") for r in ("clipped", "tptt", "memory", "hold")),
    ),
    "warm-up": ("updates of warm-up, elman-tptt", "warm_up", (100, 250, 500)),
    "alpha-f": ("step size of the network, elman-tptt", "step_sizes", ((1e-4,), (3e-4,), (1e-3,))),
    "alpha-g": ("alpha_g, elman-tptt", "inverse_step_size", (1e-3, 3e-3, 1e-2)),
    "alpha-i": ("alpha_i, elman-tptt", "target_step_size", (0.01, 1.0, 100.0)),
    "transitions": ("transitions that the inverse learns from, elman-tptt", "transitions", (100, 400, 1600)),
}  # fmt: skip


def main() -> None:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--length", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/long-memory-choices"))
    arguments = parser.parse_args()
    cache_programs()
    for name in arguments.only:
        title, field, values = TABLES[name]
        print(
            f"\n| {title}, T = {arguments.length} | solved, of {arguments.seeds} | after | wrong at the end |\n|---|---|---|---|"
        )
        for value in values:
            experiment = replace(BASE, lengths=(arguments.length,), seeds=arguments.seeds, **{field: value})
            label = value[0] if isinstance(value, tuple) else value
            folder = arguments.out / f"{name}-{arguments.length}" / f"{label}"
            done = (folder / "summary.json").exists() and read_config(folder)["fields"] == config_of(experiment)
            if not done:
                execute(experiment, folder, replace=True, quiet=True)
            run = Run(experiment, folder)
            share, steps = success(run, run.rows[0])
            wrong = ", ".join(f"{v:.1%}" for v in run.rows[0]["values"])
            print(f"| {label} | {share:.0%} | {steps:,.0f} | {wrong} |", flush=True)


if __name__ == "__main__":
    main()
