"""Cost of a row of the River estimators, beside River's own linear regression, on one core.

    python benchmarks/rivers.py [--json]

Microseconds of process CPU time a row: 12 numeric features as a dict, 32 columns. All rows are timed in one process,
pinned to one core, interleaved, and the best of several rounds is taken. "One by one": predict_one, then learn_one.
"Many": learn_many of 128 rows.
"""

import argparse
import json
import os
import time

FEATURES, ROWS, CHUNK, ROUNDS = 12, 1024, 128, 7
# name -> microseconds a row at most, or None
LIMITS = {"one by one": 120.0, "predict_one": None, "learn_one": None, "many": 10.0, "linear regression": None}


def pin() -> None:
    """One core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def measure() -> dict[str, float]:
    import numpy as np
    from river import linear_model, preprocessing

    from onward.adapters.river import OnlineRegressor

    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(ROWS, FEATURES))
    xs = [{f"x{i}": v for i, v in enumerate(row)} for row in numbers.tolist()]
    ys = (numbers @ rng.normal(size=FEATURES) + rng.normal(size=ROWS)).tolist()
    model, chunks = OnlineRegressor(), OnlineRegressor()
    linear = preprocessing.StandardScaler() | linear_model.LinearRegression()

    def one_by_one(model):
        for x, y in zip(xs, ys, strict=True):
            model.predict_one(x)
            model.learn_one(x, y)

    def predict():
        for x in xs:
            model.predict_one(x)

    def learn():
        for x, y in zip(xs, ys, strict=True):
            model.learn_one(x, y)

    def many():
        for i in range(0, ROWS, CHUNK):
            chunks.learn_many(xs[i : i + CHUNK], ys[i : i + CHUNK])

    rows = {
        "one by one": lambda: one_by_one(model),
        "predict_one": predict,
        "learn_one": learn,
        "many": many,
        "linear regression": lambda: one_by_one(linear),
    }
    best = dict.fromkeys(rows, float("inf"))
    for call in rows.values():
        call()
    for _ in range(ROUNDS):
        for name, call in rows.items():
            start = time.process_time()
            call()
            best[name] = min(best[name], (time.process_time() - start) / ROWS * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    asked = parser.parse_args()
    pin()
    found = measure()
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{FEATURES} features, 32 columns, one core: microseconds of CPU time a row")
    for name, value in found.items():
        limit = LIMITS[name]
        verdict = "" if limit is None else f"   at most {limit:g}: {'met' if value <= limit else 'MISSED'}"
        print(f"{name:20} {value:7.1f}{verdict}")


if __name__ == "__main__":
    main()
