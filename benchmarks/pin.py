"""What must not change while the code around it does: short runs of everything, to the bit.

    python benchmarks/pin.py write FILE [--only PREFIX ...] [--all]
    python benchmarks/pin.py compare OLD NEW [--common]
    python benchmarks/pin.py check REV [--only PREFIX ...] [--all]

`write` runs every experiment, `learn`, `predict` and `sweep`, the estimators and the learners of the library, and writes
what came of them: numbers as `float.hex()`, long ones as SHA-256. `--all` adds the methods of experiments that lead
through no code of their own, and `onward verify` (minutes each). `check` does so for another revision and for this
working tree, and compares. Only public interfaces are used, so that it runs before and after a refactoring. Programs
are compiled as the tests compile them, fast rather than well: compiling is most of the time. With COMPILE=well in the
environment they are compiled as users have them. Numbers are to be compared on one machine and one JAX only.
"""

import argparse
import csv
import hashlib
import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

Entries = dict[str, Any]
# A part of the pin: what its entries begin with, and what makes them.
Unit = tuple[str, Callable[[Path], Entries]]

# Times, and what depends on where it runs.
LEFT_OUT = {"cpu_seconds", "compile_seconds", "microseconds", "seconds", "source", "note", "notes"}
HEX = re.compile(r"-?0x[01]\.[0-9a-f]+p[+-]\d+|-?inf|nan")


def fast() -> dict[str, str]:
    """Variables of the environment with which programs are compiled in half the time (as in tests/conftest.py)."""
    if os.environ.get("COMPILE") == "well":
        return {}
    from importlib.metadata import version

    older = version("jaxlib").split(".")[:2] == ["0", "10"]
    flags = "--xla_cpu_parallel_codegen_split_count=1" + " --xla_cpu_use_fusion_emitters=false" * older
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true", "XLA_FLAGS": flags}


def exact(value: Any) -> Any:
    """The same, with floats as text to the bit, and without what is left out."""
    if isinstance(value, dict):
        return {str(k): exact(v) for k, v in value.items() if k not in LEFT_OUT}
    if isinstance(value, list | tuple):
        return [exact(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return exact(value.tolist())
    return value.hex() if isinstance(value, float) else value


def digest(value: Any) -> str:
    """SHA-256 of a file, or of numbers to the bit."""
    data = value.read_bytes() if isinstance(value, Path) else json.dumps(exact(value), sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def onward(*words: Any) -> str:
    """What the command line says on standard output."""
    command = [sys.executable, "-m", "onward.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(lines[-1])
    return done.stdout


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# Experiments.

NETWORK_RULES = (
    *("bptt", "tptt", "random", "memory", "hold", "affine", "affine-noise", "affine-difference"),
    *("residual", "residual-difference", "last-step"),
)
TRACE = ("ccn", "columnar", "constructive", "snap-1", "uoro", "rtrl", "tbptt-3-10", "tbptt-30-2")
SMALL_TRACE = "--steps 400 --isi 4 6 --iti 8 12 --ccn-columns 4 --ccn-width 2 --constructive-columns 3 --budget 1500"
DIGITS = (
    *("columnar", "columnar-gru", "ccn", "constructive-gru", "snap-1", "uoro", "rtrl"),
    *("bptt", "tbptt-5", "authors-columnar", "authors-bptt"),
)
MORE_DIGITS = ("ccn-gru", "constructive", "bptt-gru", "tbptt-1", "tbptt-10")
SMALL_DIGITS = (
    "--passes 0.05 --columns 6 --gru-columns 6 --ccn-width 3 --gru-ccn-width 3 --constructive-columns 2 --units 4"
)
MEMORY = ("rtrl", "snap-1", "uoro", "tbptt-1", "tbptt-4", "columns")
PIANO = ("bptt", "ste", "stptt", "columnar", "ccn")
SMALL_PIANO = (
    "--iterations 10 --frames 40 --held-out 10 --units 6 --ccn-width 3 --length 12 --batch 4 --streams 2 --evaluation 2"
)
SMALL_ONE_TO_MANY = "--lengths 3 --iterations 12 --units 6 --batch 8 --held-out 100 --transitions 10 --paper-rows 40"
SMALL_CLASSES = f"{SMALL_ONE_TO_MANY} --paper-epochs 5 --samples 2 --evaluation 3"
CLASSES = [f"gru-{rule}" for rule in ("bptt", "tptt", "memory", "affine", "last-step")]
CLASSES += [
    "lstm-tptt",
    "elman-residual",
    "detgru-bptt",
    "detelman-tptt",
    "paper-stptt",
    "authors-stptt",
    "authors-ste",
]
MIXTURES = [f"gru-{rule}" for rule in NETWORK_RULES]
MIXTURES += ["lstm-bptt", "elman-tptt", "paper-tptt", "authors-tptt", "authors-bptt"]


def other(networks: tuple[str, ...], named: list[str]) -> list[str]:
    """Every network with every rule, but those."""
    return [f"{n}-{rule}" for n in networks for rule in NETWORK_RULES if f"{n}-{rule}" not in named]


# What follows the experiment's name tells several runs of one experiment apart.
RUNS: dict[str, tuple[Any, str]] = {
    "trace-patterning": (TRACE, SMALL_TRACE),
    "trace-patterning:lstm conditioning": (
        ("ccn", "tbptt-3-10"),
        f"{SMALL_TRACE} --gates lstm --stream conditioning --watch snap-1 uoro",
    ),
    "trace-patterning:noisy": (
        ("columnar", "rtrl"),
        f"{SMALL_TRACE} --stream noisy --discount 0 --moment-prior 5 --second-moment-start 1",
    ),
    "sequential-digits": (DIGITS, SMALL_DIGITS),
    "sequential-digits:pixels, every": (("ccn", "bptt"), f"{SMALL_DIGITS} --by pixels --every"),
    "sequential-digits:streams, decay": (("ccn-gru", "uoro"), f"{SMALL_DIGITS} --streams 3 --decay"),
    "sequential-mnist": (("ccn", "snap-1", "tbptt-5", "authors-columnar"), SMALL_DIGITS),
    "piano": (PIANO, SMALL_PIANO),
    "piano:optimisers": (("bptt", "columnar"), f"{SMALL_PIANO} --optimisers adagrad nesterov rms --no-every"),
    "piano:lstm": (("stptt", "ccn"), f"{SMALL_PIANO} --cell lstm --samples 2 --optimisers sgd"),
    "one-to-many-classes": (CLASSES, SMALL_CLASSES),
    "one-to-many-classes:code": (
        ("gru-tptt", "authors-ste"),
        f"{SMALL_CLASSES} --labels code --inverse-steps 2",
    ),
    "one-to-many-mixture": (MIXTURES, f"{SMALL_ONE_TO_MANY} --paper-iterations 12"),
    "memory": (MEMORY, "--steps 200"),
    "memory:anbn, lstm": (("rtrl", "tbptt-4", "columns"), "--steps 200 --task anbn --cell lstm --units 5 --most 3"),
    "memory:long copy": (("uoro", "columns"), "--steps 400 --units 4 --length 3 --delay 4 --symbols 3"),
}
# All other methods: they lead through code that those above lead through too.
REST: dict[str, tuple[Any, str]] = {
    "trace-patterning:rest": (
        ("tbptt-2-13", "tbptt-5-8", "tbptt-8-5", "tbptt-10-5", "tbptt-15-4", "tbptt-20-3"),
        SMALL_TRACE,
    ),
    "sequential-digits:rest": (MORE_DIGITS, SMALL_DIGITS),
    "sequential-mnist:rest": (
        [name for name in (*DIGITS, *MORE_DIGITS) if name not in ("ccn", "snap-1", "tbptt-5", "authors-columnar")],
        SMALL_DIGITS,
    ),
    "one-to-many-classes:rest": (other(("gru", "lstm", "elman", "detgru", "detelman"), CLASSES), SMALL_CLASSES),
    "one-to-many-mixture:rest": (other(("gru", "lstm", "elman"), MIXTURES), SMALL_ONE_TO_MANY),
    "memory:rest": (("tbptt-10", "tbptt-20"), "--steps 200"),
}


def experiment(name: str, methods: Any, fields: str, folder: Path) -> Entries:
    """What each method ends with, and its curves."""
    out = folder / "run"
    onward("run", name.split(":")[0], "--methods", *methods, "--seeds", 2, *fields.split(), "--out", out, "--replace")
    summary = read(out / "summary.json")
    kept = ("values", "also", "step_size", "seeds", "steps", "grown_at")
    found = {row["name"]: {k: row[k] for k in kept} for row in summary["methods"]}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    jobs = dict.fromkeys(line["job"] for line in lines)
    found["curves"] = {job: digest([line for line in lines if line["job"] == job]) for job in jobs}
    return found | {"references": summary["references"]}


# Tables.


def table(kind: str) -> list[dict[str, Any]]:
    """1,500 rows of a series with a season, a category, and cells that are missing."""
    rng = np.random.default_rng(sum(kind.encode()))
    rows: list[dict[str, Any]] = []
    level = 0.0
    for t in range(1500):
        level = 0.9 * level + rng.normal() * 0.3
        place = ("north", "south", "east")[rng.integers(3)]
        y = level + math.sin(2 * math.pi * t / 24) + (place == "north")
        row: dict[str, Any] = {
            "time": f"2024-01-{1 + t // 24:02d}T{t % 24:02d}:00:00" if t < 31 * 24 else "",
            "a": round(float(level + 0.1 * rng.normal()), 4),
            "b": "" if rng.random() < 0.1 else round(float(10 + 3 * rng.normal()), 3),
            "place": place if rng.random() > 0.05 else "",
            "y": "" if rng.random() < 0.05 else round(float(y), 4),
            "z": round(float(y * 2 + rng.normal()), 4),
            "label": ("low", "middle", "high")[int(y > -0.3) + int(y > 0.6)],
        }
        if kind == "calendar":
            row["time"] = str(np.datetime64("2024-03-01T00:00:00") + np.timedelta64(t, "h"))
        elif kind != "series":
            del row["time"]
        rows.append(row)
    return rows


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """As CSV, or as JSON lines, by the name."""
    with path.open("w", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps({k: v for k, v in row.items() if v != ""}) + "\n" for row in rows)
    return path


NARROW = "--units 6 --every 250"
LEARN = {
    "numbers": f"--target y --ignore z label {NARROW}",
    "classes": f"--target label --task classification --ignore y z {NARROW}",
    "return": f"--target a --task return --discount 0.8 --ignore label y z {NARROW}",
    "two targets": f"--target y z --ignore label {NARROW}",
    "calendar": f"--target y --time time --horizon 24 --ignore z label {NARROW}",
    "ccn": f"--target y --ignore z label --network ccn --stages 3 --stage-rows 400 --horizon 2 {NARROW}",
    "gru": f"--target z --ignore label --network gru --rule snap-1 --horizon 0 --interval 0 --seed 3 {NARROW}",
    "lstm": f"--target label --task classification --network lstm --rule tbptt-10 --horizon 5 {NARROW}",
    "json lines": f"--target y --ignore z label --components 2 --interval 0.5 --period 24 {NARROW}",
}


def learned(run: Path) -> Entries:
    """Predictions, final numbers and curves of a run of `learn`."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "predictions": digest(run / "predictions.csv"),
        "summary": read(run / "summary.json"),
        "metrics": digest(lines),
    }


def learn(kind: str, options: str, folder: Path) -> Entries:
    source = write_table(folder / f"rows.{'jsonl' if kind == 'json lines' else 'csv'}", table(kind))
    onward("learn", source, *options.split(), "--out", folder / "run")
    return learned(folder / "run")


def resumed(folder: Path) -> Entries:
    """Half of the file, then the file grown to whole; and predictions for rows that come next."""
    rows, run, source = table("numbers"), folder / "run", folder / "rows.csv"
    whole = learn("numbers", LEARN["numbers"], folder)
    shutil.move(run, folder / "at once")
    write_table(source, rows[:750])
    onward("learn", source, *LEARN["numbers"].split(), "--out", run)
    half = learned(run)
    write_table(source, rows)
    onward("learn", source, "--resume", run)
    after = learned(run)
    onward("predict", run, write_table(folder / "next.csv", rows[200:500]), "--out", folder / "next.txt")
    return {
        "half": half,
        "whole": after,
        "as at once": after["predictions"] == whole["predictions"],
        "predict": digest(folder / "next.txt"),
    }


def sweep(folder: Path) -> Entries:
    """Two step sizes by two seeds, in this process."""
    fields = "--methods columns,rtrl --steps 200 --units 3 --step-sizes 1e-3,1e-2 --seeds 2 --tile 2"
    onward("sweep", "memory", *fields.split(), "--out", folder / "sweep")
    with (folder / "sweep" / "configurations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    as_number = lambda text: float(text) if re.fullmatch(r"-?\d+\.\d*(e[+-]?\d+)?|-?\d+e[+-]?\d+", text) else text
    # A configuration's name may be made otherwise; what it is follows.
    return {
        f"{row['method']} {row['step_size']}": {k: as_number(v) for k, v in row.items() if k != "configuration"}
        for row in rows
    }


def verified(folder: Path) -> Entries:
    """Every comparison and check, and costs that are counted."""
    # It ends with 1 where a claim fails: that is an entry too.
    command = [sys.executable, "-m", "onward.cli", "verify", "--json"]
    # Mostly it computes: compiled as users have it, and kept in their cache, it is faster.
    as_users = {k: v for k, v in os.environ.items() if k not in fast()}
    done = subprocess.run(command, capture_output=True, text=True, env=as_users)
    if not done.stdout:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    found = json.loads(done.stdout)
    entries: Entries = {"ok": found["ok"]}
    for row in found["rows"]:
        entries.setdefault(f"{row['rule']} on {row['cell']}", []).append(row)
    entries |= {f"check {check['name']}": check for check in found["checks"]}
    return entries | {f"cost {cost['rule']} on {cost['cell']}": cost for cost in found["costs"]}


# Estimators.


def features(rows: int, seed: int = 0) -> list[tuple[dict[str, Any], float]]:
    """Rows with numbers, a category, dates and what is missing, and a target."""
    import datetime

    rng = np.random.default_rng(seed)
    found, level = [], 0.0
    for t in range(rows):
        level = 0.8 * level + float(rng.normal())
        x: dict[str, Any] = {"a": level + float(rng.normal()), "phase": t % 7, "day": "week" if t % 7 < 5 else "end"}
        x |= {"b": float(rng.normal())} if rng.random() > 0.2 else {}
        x |= {"when": datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=t)} if t > 30 else {}
        found.append((x, 5 + level + t % 7 if rng.random() > 0.03 else math.nan))
    return found


ESTIMATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "regressor": ("OnlineRegressor", {}),
    "regressor, not autoregressive": ("OnlineRegressor", {"autoregressive": False, "seed": 2}),
    "regressor, ccn": ("OnlineRegressor", {"network": "ccn", "stages": 2, "stage_rows": 150}),
    "regressor, gru": ("OnlineRegressor", {"network": "gru"}),
    "regressor, lstm snap-1": ("OnlineRegressor", {"network": "lstm", "rule": "snap-1"}),
    "regressor, gru rflo": ("OnlineRegressor", {"network": "gru", "rule": "rflo"}),
    "regressor, gru uoro": ("OnlineRegressor", {"network": "gru", "rule": "uoro", "step_size": 0.01}),
    "regressor, gru tbptt-10": ("OnlineRegressor", {"network": "gru", "rule": "tbptt-10"}),
    "classifier": ("OnlineClassifier", {}),
    "classifier, ccn": ("OnlineClassifier", {"network": "ccn", "stage_rows": 150}),
    "classifier, lstm": ("OnlineClassifier", {"network": "lstm", "step_size": 0.01}),
    "forecaster": ("OnlineForecaster", {}),
    "forecaster, gru": ("OnlineForecaster", {"network": "gru", "rule": "snap-1"}),
    "forecaster, ccn": ("OnlineForecaster", {"network": "ccn", "stage_rows": 150}),
}


def river(kind: str, options: dict[str, Any], folder: Path) -> Entries:
    from onward.adapters import river as estimators

    model = getattr(estimators, kind)(units=4, **options)
    rows = features(400)
    xs, ys = [x for x, _ in rows], [y for _, y in rows]
    said: list[Any] = []
    if kind == "OnlineForecaster":
        for t, (x, y) in enumerate(rows):
            if t % 20 == 0:
                said += model.forecast(3, xs[t : t + 3])
            model.learn_one(y, x)
        return {"said": digest(said), "last": said[-9:], "ahead": model.forecast(24, xs[:24])}
    if kind == "OnlineClassifier":
        ys = [None if y != y else ("low", "middle", "high")[int(y > 6) + int(y > 9)] for y in ys]
        ask = lambda x: [model.predict_one(x), model.predict_proba_one(x)]
    else:
        ask = model.predict_one
    for x, y in zip(xs[:250], ys[:250], strict=True):
        said.append(ask(x))
        model.learn_one(x, y)
    model.learn_many(xs[250:], ys[250:])
    after = model.predict_proba_many(xs[:5]) if kind == "OnlineClassifier" else model.predict_many(xs[:5])
    return {"said": digest(said), "last": said[-5:], "after many": [ask(x) for x in xs[:5]], "many": after}


def sklearn(kind: str, options: dict[str, Any], folder: Path) -> Entries:
    from onward.adapters import sklearn as estimators

    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 6))
    y = np.where(rng.random(150) < 0.5, 1, -1) * x[:, 0] + 0.1 * rng.normal(size=150)
    model = getattr(estimators, kind)(units=6, updates=40, batch_size=16, random_state=0, **options)
    model.fit(x, y, sample_weight=rng.integers(0, 3, 150))
    some = x[:7]
    return {
        "predict": model.predict(some),
        "quantile": model.predict_quantile(some, [0.1, 0.5]),
        "interval": model.predict_interval(some, 0.8),
        "sample": model.sample(some, 3, random_state=1),
        "log_prob": model.log_prob(some, y[:7]),
    }


# The library.

STEPS = 60
INPUTS, UNITS = 3, 4


def cell(name: str) -> Any:
    import jax

    import onward as ow

    key, moments = jax.random.key(7), ow.Moments(rate=0.99)
    columns = lambda gates: ow.Columns(
        gates, INPUTS, UNITS, key=key, spread=0.5, normalise_inputs=moments, normalise_features=moments
    )
    near = np.eye(UNITS, dtype=bool) | np.eye(UNITS, k=1, dtype=bool)
    cells: dict[str, Callable[[], Any]] = {
        "columns lstm": lambda: columns(ow.LSTMGates()),
        "columns gru": lambda: columns(ow.GRUGates()),
        "cascade": lambda: ow.Cascade(columns(ow.GRUGates())),
        "skip columns": lambda: ow.Skip(columns(ow.GRUGates())),
        "skip cascade": lambda: ow.Skip(ow.Cascade(columns(ow.GRUGates()))),
        "skip gru": lambda: ow.Skip(ow.GRU(INPUTS, UNITS, key=key)),
        "gru": lambda: ow.GRU(INPUTS, UNITS, key=key, normalise_inputs=moments, normalise_features=moments),
        "lstm": lambda: ow.LSTM(INPUTS, UNITS, key=key),
        "elman": lambda: ow.Elman(INPUTS, UNITS, key=key),
        "elman sparse": lambda: ow.Elman(INPUTS, UNITS, key=key, activation="sigmoid", mask=near),
        "stack": lambda: ow.Stack(ow.GRU(INPUTS, UNITS, key=key), ow.Elman(UNITS, INPUTS, key=key)),
        "hybrid": lambda: ow.Hybrid(ow.GRU(INPUTS, UNITS, key=key)),
        "hybrid sigmoid": lambda: ow.Hybrid(ow.Elman(INPUTS, UNITS, key=key, activation="sigmoid"), share=1.0),
        "start": lambda: ow.chrono(
            ow.knots(ow.orthogonal(ow.GRU(INPUTS, UNITS, key=key), 1.0, key=key), 0.0, 1.0, slope=2.0, key=key),
            9,
            key=key,
        ),
    }
    return cells[name]()


def rule(name: str) -> Any:
    import onward as ow

    rules = {
        "Columnwise": ow.Columnwise,
        "RTRL": ow.RTRL,
        "SnAp(1)": lambda: ow.SnAp(1),
        "SnAp(2)": lambda: ow.SnAp(2),
        "UORO": ow.UORO,
        "UORO nobacktrack": lambda: ow.UORO("nobacktrack"),
        "TBPTT(4)": lambda: ow.TBPTT(4),
        "RFLO": ow.RFLO,
    }
    return rules[name]()


def head(name: str, width: int) -> Any:
    import onward as ow

    heads = {
        "linear": lambda: ow.Linear(width),
        "linear 3": lambda: ow.Linear(width, 3),
        "categorical": lambda: ow.Categorical(width, 3),
        "bernoulli": lambda: ow.Bernoulli(width, 2),
        "mixture": lambda: ow.Mixture(width, 2),
        "monte carlo": lambda: ow.MonteCarlo(ow.Categorical(width, 3), samples=3),
    }
    return heads[name]()


def target(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    import jax.numpy as jnp

    if kind in ("categorical", "monte carlo"):
        return jnp.asarray(rng.integers(0, 3, shape))
    if kind == "bernoulli":
        return jnp.asarray(rng.integers(0, 2, (*shape, 2)), jnp.float32)
    return jnp.asarray(rng.normal(size=(*shape, 3) if kind == "linear 3" else shape), jnp.float32)


def stream(kind: str, streams: int | None) -> Any:
    """Random steps; weights are 0 here and there, and two episodes start in the middle."""
    import jax.numpy as jnp

    import onward as ow

    rng = np.random.default_rng(0)
    shape = (STEPS,) if streams is None else (STEPS, streams)
    reset = np.zeros((STEPS, streams or 1), bool)
    reset[17, 0] = reset[-20, -1] = True
    return ow.Step(
        x=jnp.asarray(rng.normal(size=(*shape, INPUTS)), jnp.float32),
        y=target(kind, rng, shape),
        weight=jnp.asarray(rng.choice([0, 0.5, 1], shape, p=[0.2, 0.2, 0.6]), jnp.float32),
        reset=jnp.asarray(reset.reshape(shape)),
        truth=jnp.zeros(shape),
    )


def late(fields: dict[str, Any], delay: int) -> Any:
    """A learner whose targets come so many steps late, however that is said."""
    import onward as ow

    if not delay:
        return ow.Online(**fields)
    return ow.Late(ow.Online(**fields), delay) if hasattr(ow, "Late") else ow.Online(**fields, delay=delay)


def arrays_of(tree: Any) -> list[Any]:
    import equinox as eqx
    import jax

    return [np.asarray(a) for a in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]


def outcome(model: Any, info: Any) -> Entries:
    """The final network, its size for a look, and what was said and lost on the way."""
    arrays = arrays_of(model)
    found = {"model": digest(arrays), "sums": [float(np.sum(a, dtype=np.float64)) for a in arrays]}
    return found | {"predictions": digest(arrays_of(info.prediction)), "losses": digest(arrays_of(info.loss))}


def run_of(learner: Any, state: Any, examples: Any) -> Any:
    """All steps, in one compiled loop."""
    import equinox as eqx
    import jax

    dynamic, static = eqx.partition(state, eqx.is_array)

    def body(dynamic: Any, example: Any) -> Any:
        after, info = learner.step(eqx.combine(dynamic, static), example)
        return eqx.filter(after, eqx.is_array), info

    dynamic, info = jax.jit(lambda d, e: jax.lax.scan(body, d, e))(dynamic, examples)
    return eqx.combine(dynamic, static), info


def online(
    rule_name: str,
    cell_name: str,
    folder: Path,
    *,
    td: bool = False,
    delay: int = 0,
    streams: int | None = None,
    head_name: str = "linear",
    optimiser: str = "rms",
    watch: tuple[str, ...] = (),
    grow: bool = False,
) -> Entries:
    import jax
    import optax

    import onward as ow

    network = cell(cell_name)
    model = ow.Model(network, head(head_name, network.feature_count))
    optimisers: dict[str, Callable[[], Any]] = {
        "rms": lambda: ow.rms(0.99),
        "rms from 1": lambda: optax.chain(ow.rms(0.99, initial=1.0), ow.scale_head(0.25)),
        "adam": lambda: optax.adam(1.0),
        "least squares": lambda: ow.least_squares(ow.rms(0.99)),
    }
    fields: dict[str, Any] = {
        "credit": rule(rule_name),
        "objective": ow.TDLambda(0.9, 0.8) if td else ow.Supervised(),
        "optimiser": optimisers[optimiser](),
        "step_size": 1.0 if optimiser == "least squares" else 0.01,
        "streams": streams,
    }
    rules = tuple(map(rule, watch))
    if watch and not hasattr(ow, "Watched"):
        fields["watch"] = rules
    learner, examples = late(fields, delay), stream(head_name, streams)
    if watch and hasattr(ow, "Watched"):
        learner = ow.Watched(learner, rules)
    at = lambda t: jax.tree.map(lambda a: a[t], examples)
    state = learner.init(model, at(0), key=jax.random.key(1))
    if grow:
        half = jax.tree.map(lambda a: a[: STEPS // 2], examples)
        state, _ = run_of(learner, state, half)
        state = learner.grow(state, at(0))
    state, info = run_of(learner, state, examples)
    found = outcome(state.model, info)
    return found | ({"alignment": digest(arrays_of(info.alignment))} if watch else {})


def sequences(kind: str, outputs: int) -> Any:
    """Batches of 5 sequences of 6 steps, one after another."""
    import jax.numpy as jnp

    import onward as ow

    rng = np.random.default_rng(3)
    mask = rng.choice([0.5, 1.0], (STEPS // 2, outputs, 5))
    xs = jnp.asarray(rng.normal(size=(STEPS // 2, 6, 5, INPUTS)), jnp.float32)
    return ow.Sequence(xs=xs, y=target(kind, rng, mask.shape), mask=jnp.asarray(mask, jnp.float32))


INVERSES = {
    "identity": lambda ow: ow.IdentityInverse(),
    "affine": lambda ow: ow.AffineInverse(),
    "affine noise": lambda ow: ow.AffineInverse("sigmoid", noise=0.1),
    "affine difference": lambda ow: ow.AffineInverse(training="difference"),
    "residual": lambda ow: ow.ResidualInverse(width=3),
    "residual difference": lambda ow: ow.ResidualInverse(training="difference"),
    "feedback": lambda ow: ow.FeedbackInverse(0.5),
}


def whole(
    cell_name: str,
    folder: Path,
    *,
    inverse: str = "",
    head_name: str = "linear",
    outputs: int = 1,
    window: int | None = None,
    inverse_steps: int = 1,
    transitions: int | None = None,
) -> Entries:
    """A learner that takes batches of sequences: BPTT, or TPTT with an inverse."""
    import jax
    import optax

    import onward as ow

    network = cell(cell_name)
    model = ow.Model(network, head(head_name, network.feature_count))
    learner: Any
    if inverse:
        sizes = {"inverse_steps": inverse_steps, "transitions": transitions, "inverse_step_size": 0.01}
        learner = ow.TPTT(INVERSES[inverse](ow), optax.adam(1.0), optax.adam(1.0), 0.02, **sizes)
    else:
        learner = ow.BPTT(optax.adam(1.0), 0.02, window=window)
    batches = sequences(head_name, outputs)
    state = learner.init(model, jax.tree.map(lambda a: a[0], batches), key=jax.random.key(1))
    state, info = run_of(learner, state, batches)
    return outcome(state.model, info)


def counted(given: str, kind: str, folder: Path) -> Entries:
    """Frequencies."""
    import jax
    import jax.numpy as jnp

    import onward as ow

    examples = stream(kind, None)
    width = {"categorical": INPUTS, "bernoulli": 2}[kind]
    x = np.random.default_rng(5).integers(0, width, STEPS)
    bits = jnp.asarray(np.eye(width, dtype=np.float32)[x])
    examples = examples._replace(x=bits)
    learner = ow.Frequencies(given)
    model = ow.Model(ow.Echo(width), head(kind, width))
    state = learner.init(model, jax.tree.map(lambda a: a[0], examples), key=jax.random.key(0))
    state, info = run_of(learner, state, examples)
    return outcome(state.model, info)


def tasks(folder: Path) -> Entries:
    """The first 40 examples of every task on embedded data."""
    import jax

    import onward as ow

    try:
        from onward.lab.data.datasets import load_digits
    except ImportError:  # as it was before the rooms
        from onward.datasets import load_digits

    digits = load_digits("digits")
    scanned = partial(ow.SequentialDigits, images=digits.train_images, labels=digits.train_labels, top=digits.top)
    found = {}
    kinds: dict[str, Callable[[], Any]] = {
        "TracePatterning": ow.TracePatterning,
        "TraceConditioning": ow.TraceConditioning,
        "NoisyPatterning": ow.NoisyPatterning,
        "Copy": lambda: ow.Copy(length=3, delay=1, symbols=4, resets=True),
        "AnBn": ow.AnBn,
        "SequentialDigits": scanned,
        "SequentialDigits of 3": lambda: scanned(batch=3),
        "PianoRoll": lambda: ow.PianoRoll([np.eye(5)[[0, 1, 2, 4]]], 2, batch=3, every=True, transpose=1),
        "Streams": lambda: ow.Streams(ow.AnBn(), 3),
        "OneToManyClasses": lambda: ow.OneToManyClasses(4, batch=3),
        "OneToManyMixture": lambda: ow.OneToManyMixture(4, batch=3, rows=5),
    }
    for name, make in kinds.items():
        task = make()
        emit = lambda state, _, task=task: task.emit(state)
        _, examples = jax.jit(lambda s, emit=emit: jax.lax.scan(emit, s, length=40))(task.init(jax.random.key(4)))
        found[name] = digest(arrays_of(examples))
    return found


DENSE_RULES = ("RTRL", "SnAp(1)", "SnAp(2)", "UORO", "TBPTT(4)", "RFLO")
SETTINGS: dict[str, dict[str, Any]] = {
    "Supervised": {},
    "TDLambda": {"td": True},
    "delay 1": {"delay": 1},
    "delay 5": {"delay": 5},
    "streams 3": {"streams": 3},
}
MORE_SETTINGS: dict[str, dict[str, Any]] = {
    "TDLambda, streams 3": {"td": True, "streams": 3},
    "delay 5, streams 3": {"delay": 5, "streams": 3},
}


def learners() -> Iterator[Unit]:
    pairs = [("Columnwise", name, SETTINGS | MORE_SETTINGS) for name in ("columns lstm",)]
    pairs += [("Columnwise", name, SETTINGS) for name in ("cascade",)]
    two = {name: SETTINGS[name] for name in ("Supervised", "TDLambda")}
    pairs += [("Columnwise", name, two) for name in ("columns gru", "skip columns")]
    pairs += [(name, "gru", SETTINGS) for name in DENSE_RULES]
    pairs += [(name, other, two) for name in DENSE_RULES for other in ("lstm", "elman sparse")]
    one = {"Supervised": {}}
    pairs += [("RTRL", other, one) for other in ("columns gru", "stack", "skip gru", "hybrid", "start", "elman")]
    pairs += [("UORO", "stack", one), ("UORO nobacktrack", "gru", one), ("RFLO", "elman", one)]
    pairs += [("TBPTT(4)", "stack", one)]
    for rule_name, cell_name, settings in pairs:
        for setting, fields in settings.items():
            yield f"online/{rule_name}, {cell_name}, {setting}", partial(online, rule_name, cell_name, **fields)
    more: dict[str, tuple[str, str, dict[str, Any]]] = {
        "watched": ("SnAp(1)", "gru", {"watch": ("UORO", "TBPTT(4)")}),
        "watched, TD": ("TBPTT(4)", "lstm", {"watch": ("RFLO",), "td": True}),
        "grown": ("Columnwise", "cascade", {"grow": True}),
        "grown, TD": ("Columnwise", "cascade", {"grow": True, "td": True}),
        "grown, delay 5": ("Columnwise", "cascade", {"grow": True, "delay": 5}),
        "grown skip": ("Columnwise", "skip cascade", {"grow": True}),
        "adam": ("Columnwise", "columns gru", {"optimiser": "adam"}),
        "rms from 1": ("Columnwise", "columns gru", {"optimiser": "rms from 1", "td": True}),
        "least squares": ("Columnwise", "columns gru", {"optimiser": "least squares"}),
        "least squares, delay 5": ("RTRL", "gru", {"optimiser": "least squares", "delay": 5}),
        **{f"head {h}": ("RTRL", "gru", {"head_name": h}) for h in ("linear 3", "categorical", "bernoulli", "mixture")},
    }
    for name, (rule_name, cell_name, fields) in more.items():
        yield f"online/{name}", partial(online, rule_name, cell_name, **fields)
    batches: dict[str, Callable[[Path], Entries]] = {
        **{
            f"BPTT, {n}": partial(whole, n)
            for n in ("gru", "lstm", "elman sparse", "columns lstm", "stack", "skip gru")
        },
        "BPTT, gru, window 3": partial(whole, "gru", window=3),
        "BPTT, gru, every step": partial(whole, "gru", outputs=6, head_name="categorical"),
        "BPTT, mixture": partial(whole, "gru", head_name="mixture"),
        "BPTT, straight through": partial(whole, "hybrid", head_name="monte carlo"),
        "BPTT, straight through, sigmoid": partial(whole, "hybrid sigmoid", head_name="monte carlo"),
        **{f"TPTT, {name}": partial(whole, "gru", inverse=name) for name in INVERSES},
        **{f"TPTT, {name}, elman": partial(whole, "elman", inverse=name) for name in ("affine", "feedback")},
        "TPTT, every step": partial(whole, "lstm", inverse="feedback", outputs=6),
        "TPTT, transitions": partial(whole, "gru", inverse="affine", transitions=7, inverse_steps=2),
        "TPTT, stochastic": partial(whole, "hybrid", inverse="feedback", head_name="monte carlo"),
    }
    yield from ((f"batches/{name}", unit) for name, unit in batches.items())
    for given in ("nothing", "last"):
        for kind in ("categorical", "bernoulli"):
            yield f"frequencies/{kind}, given {given}", partial(counted, given, kind)
    yield "tasks", tasks


def units(everything: bool) -> Iterator[Unit]:
    """The cheapest first; `everything`: with all methods of the experiments, and `onward verify`, in the end."""
    yield from learners()
    for name, (methods, fields) in RUNS.items():
        yield f"experiments/{name}", partial(experiment, name, methods, fields)
    for kind, options in LEARN.items():
        yield f"learn/{kind}", partial(learn, kind, options)
    yield "learn/resumed", resumed
    for name, (kind, options) in ESTIMATORS.items():
        yield f"river/{name}", partial(river, kind, options)
    yield "sklearn/mixture", partial(sklearn, "MixtureDensityRegressor", {"components": 2})
    yield "sklearn/sequence", partial(sklearn, "SequenceMixtureRegressor", {"features": 2, "validation": 0.2})
    yield "sweep", sweep
    if everything:
        for name, (methods, fields) in REST.items():
            yield f"experiments/{name}", partial(experiment, name, methods, fields)
        yield "verify", verified


# Units whose parts are entries of their own.
SEVERAL = ("experiments/", "verify", "sweep", "tasks")


def spent() -> float:
    """CPU seconds of this process and those that it has started."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def meant(name: str, prefixes: list[str]) -> bool:
    """Whether a unit, or an entry, is one of those, or holds them."""
    return any(name.startswith(prefix) or prefix.startswith(f"{name}/") for prefix in prefixes)


def write(path: Path, only: list[str], everything: bool) -> None:
    begun = spent()
    found: Entries = {}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ |= fast() | {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg", "ONWARD_DATA": f"{temporary}/no data"}
        # Bytecode of all that is imported is made once, and not for each command again.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = f"{temporary}/bytecode"
        for number, (name, unit) in enumerate(units(everything)):
            if only and not meant(name, only):
                continue
            folder, started = Path(temporary) / str(number), spent()
            folder.mkdir()
            try:
                parts = exact(unit(folder))
                several = name.startswith(SEVERAL)
                new = {f"{name}/{part}": value for part, value in parts.items()} if several else {name: parts}
            except Exception as error:
                text = str(error).strip().splitlines() or [type(error).__name__]
                new = {name: f"FAILED: {text[-1]}".replace(temporary, "")}
            shutil.rmtree(folder)
            found |= {k: v for k, v in new.items() if not only or meant(k, only)}
            failed = "  FAILED" if str(new.get(name)).startswith("FAILED") else ""
            print(f"{spent() - started:7.1f} CPU s  {name}{failed}", file=sys.stderr, flush=True)
            path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(found)} entries in {spent() - begun:.0f} CPU s: {path}", file=sys.stderr)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every number or text in a value, and where it is."""
    if isinstance(value, dict):
        for k, v in value.items():
            yield from flat(v, f"{name}.{k}")
    elif isinstance(value, list):
        for i, v in enumerate(value):
            yield from flat(v, f"{name}[{i}]")
    else:
        yield name, value


def difference(old: Any, new: Any) -> str:
    """In what two entries differ."""
    before, after = dict(flat(old)), dict(flat(new))
    places = [k for k in before.keys() | after.keys() if before.get(k, ...) != after.get(k, ...)]
    worst, other = 0.0, set()
    for place in places:
        pair = before.get(place), after.get(place)
        if all(isinstance(v, str) and HEX.fullmatch(v) for v in pair):
            a, b = map(float.fromhex, pair)  # type: ignore[arg-type]
            apart = abs(a - b) / max(abs(a), abs(b), sys.float_info.min)
            worst = max(worst, math.inf if math.isnan(apart) else apart)
        else:
            other.add(place.strip(".") or "all")
    said = [f"numbers by up to {worst:.1e}, relative"] * (worst > 0)
    if isinstance(old, str) and isinstance(new, str):
        said.append(f"{old!r}, now {new!r}")
    elif other:
        said.append(", ".join(sorted(other)[:4]) + f" and {len(other) - 4} more" * (len(other) > 4))
    return "; ".join(said)


def compare(old: Path, new: Path, common: bool = False) -> int:
    before, after = read(old), read(new)
    names = [name for name in before | after if not common or (name in before and name in after)]
    differ = 0
    for name in names:
        if name not in before or name not in after:
            print(f"{name}: only in {old if name in before else new}")
        elif before[name] != after[name]:
            print(f"{name}: {difference(before[name], after[name])}")
        else:
            continue
        differ += 1
    failed = sum(str(v).startswith("FAILED") for v in after.values())
    print(f"{len(names)} entries, {len(names) - differ} equal, {differ} differ" + f" ({failed} FAILED)" * (failed > 0))
    return 1 if differ else 0


def check(revision: str, only: list[str], everything: bool) -> int:
    here = Path(__file__).resolve().parents[1]
    git = partial(subprocess.run, check=True, cwd=here)
    with tempfile.TemporaryDirectory() as temporary:
        there = Path(temporary) / "there"
        git(["git", "worktree", "add", "--quiet", "--detach", str(there), revision])
        try:
            script = there / "benchmarks" / "pin.py"
            if not script.exists():
                shutil.copy(__file__, script)
            files = []
            for root in (there, here):
                print(f"{revision if root == there else 'this working tree'}:", file=sys.stderr)
                files.append(Path(temporary) / f"{'old' if root == there else 'new'}.json")
                words = [str(root / "benchmarks" / "pin.py"), "write", str(files[-1])]
                environment = os.environ | {"PYTHONPATH": str(root / "src")}
                words += ["--only", *only] * bool(only) + ["--all"] * everything
                subprocess.run([sys.executable, *words], check=True, cwd=root, env=environment)
        finally:
            git(["git", "worktree", "remove", "--force", str(there)])
        return compare(*files)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in {"write": ["file"], "compare": ["old", "new"], "check": ["revision"]}.items():
        command = commands.add_parser(name)
        for word in words:
            command.add_argument(word, type=str if word == "revision" else Path)
        if name == "compare":
            command.add_argument("--common", action="store_true", help="only entries that both have")
        else:
            command.add_argument("--only", nargs="+", default=[], metavar="PREFIX")
            command.add_argument("--all", action="store_true", help="every method, and onward verify")
    given = parser.parse_args()
    if given.command == "write":
        write(given.file, given.only, given.all)
        return 0
    if given.command == "compare":
        return compare(given.old, given.new, given.common)
    return check(given.revision, given.only, given.all)


if __name__ == "__main__":
    sys.exit(main())
