"""How much target propagation depends on what one may choose: one small table a choice, for docs/experiments/targets.md.

    python benchmarks/sensitivity.py [--only NAME ...] [--seeds N] [--out DIR]

Runs the one-to-many experiments, shortened, once for each value; a run that is there already is not made again. Prints
Markdown: held-out loss at the end, mean over seeds and the range from best to worst seed.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from onward.devices import cache_programs
from onward.lab.experiment import config_of
from onward.lab.folder import read_config
from onward.lab.papers.one_to_many_classes import OneToManyClassesExperiment
from onward.lab.papers.one_to_many_mixture import OneToManyMixtureExperiment
from onward.lab.results import base_name, execute, load_summary

MIXTURE = OneToManyMixtureExperiment(lengths=(30,), iterations=800, methods=("gru-tptt",))
CLASSES = OneToManyClassesExperiment(lengths=(20,), iterations=400, methods=("gru-tptt",), held_out=2000)
INVERSES = (
    "tptt",
    "random",
    "memory",
    "hold",
    "affine",
    "affine-noise",
    "affine-difference",
    "residual",
    "residual-difference",
)

# name: (what it is, experiment, field, values)
TABLES = {
    "inverses": ("inverse model, GRU, T = 30", MIXTURE, "methods", tuple((f"gru-{rule}",) for rule in INVERSES)),
    "inverses-elman": (
        "inverse model, tanh Elman, T = 5",
        replace(MIXTURE, lengths=(5,)),
        "methods",
        tuple((f"elman-{rule}",) for rule in INVERSES),
    ),
    "cells": ("cell, T = 30", MIXTURE, "methods", (("gru-tptt",), ("lstm-tptt",), ("lstm-bptt",), ("elman-tptt",))),
    "alpha-i": ("alpha_i (first target), T = 30", MIXTURE, "target_step_size", (0.01, 0.1, 1.0, 10.0)),
    "alpha-g": ("alpha_g (inverse model), T = 30", MIXTURE, "inverse_step_size", (3e-4, 1e-3, 3e-3, 1e-2)),
    "steps-g": ("inverse steps for each step of the network, T = 30", MIXTURE, "inverse_steps", (1, 3)),
    "k": ("Gaussians k, T = 30", MIXTURE, "components", (1, 2, 3, 5)),
    "width": ("hidden units, T = 30", MIXTURE, "units", (10, 25, 50, 100)),
    "samples": ("trajectories M while learning (20 while measuring), T = 20", CLASSES, "samples", (1, 2, 4, 10)),
    "share": ("share of stochastic units, T = 20", CLASSES, "stochastic", (0.0, 0.25, 0.5, 1.0)),
}


def main() -> None:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/sensitivity"))
    arguments = parser.parse_args()
    cache_programs()
    for name in arguments.only:
        title, base, field, values = TABLES[name]
        print(f"\n| {title} | held-out loss, mean of {arguments.seeds} seeds | best to worst seed |\n|---|---|---|")
        for value in values:
            experiment = replace(base, seeds=arguments.seeds, **{field: value})
            label = value[0] if isinstance(value, tuple) else f"{value:g}"
            folder = arguments.out / name / label
            done = (folder / "summary.json").exists() and read_config(folder)["fields"] == config_of(experiment)
            if not done:
                execute(experiment, folder, replace=True, quiet=True)
            row = load_summary(folder)["methods"][0]
            assert base_name(row).startswith(experiment.methods[0])
            print(f"| {label} | {row['mean']:.3f} | {min(row['values']):.3f} to {max(row['values']):.3f} |", flush=True)


if __name__ == "__main__":
    main()
