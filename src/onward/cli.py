"""The command line: onward list | run | learn | predict | report | verify | data."""

import difflib
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onward.experiments.base import Experiment

# name: (module, class, one line). Here, and not in the classes, so that `onward list` need not import JAX.
EXPERIMENTS = {
    "trace-patterning": (
        "onward.experiments.trace_patterning",
        "TracePatterningExperiment",
        "Javed et al.: predict a delayed stimulus online; CCN, columnar and constructive networks",
    ),
    "sequential-digits": (
        "onward.experiments.sequential_digits",
        "SequentialDigitsExperiment",
        "real 8x8 digits read row by row: columns learning online beside a dense LSTM with BPTT",
    ),
    "sequential-mnist": (
        "onward.experiments.sequential_mnist",
        "SequentialMNISTExperiment",
        "MNIST read row by row or pixel by pixel: columns, exact and approximate online rules, BPTT whole and cut",
    ),
    "piano": (
        "onward.experiments.piano",
        "PianoExperiment",
        "Manchev & Spratling 5.3: the next notes of piano music; BPTT, straight-through, STPTT, online columns",
    ),
    "one-to-many-classes": (
        "onward.experiments.one_to_many_classes",
        "OneToManyClassesExperiment",
        "Manchev & Spratling 5.1: stochastic units after T steps; straight-through BPTT beside STPTT",
    ),
    "one-to-many-mixture": (
        "onward.experiments.one_to_many_mixture",
        "OneToManyMixtureExperiment",
        "Manchev & Spratling 5.2: mixture densities after T steps; target propagation beside BPTT",
    ),
    "memory": (
        "onward.experiments.memory",
        "MemoryExperiment",
        "copy or count: exact, biased and truncated credit on one stream, beside exact levels",
    ),
}

USAGE = """onward: recurrent networks that learn as the data arrive

  onward list                            the experiments
  onward run EXPERIMENT [--field value]  run one; its fields: onward run EXPERIMENT --help
             [--out DIR] [--replace]     where to (default runs/EXPERIMENT); delete an older run there
  onward run --resume DIR                go on with a run that was stopped
  onward learn SOURCE --target COLUMN    learn from your own rows: CSV, JSON lines, Parquet, or - for standard input
             [--out DIR] [--replace]     where to (default runs/learn); all options: onward learn --help
  onward learn SOURCE --resume DIR       go on after a stop, or after SOURCE has grown
  onward predict DIR SOURCE [--out FILE] predict with what DIR has learned, and learn nothing
  onward report DIR                      draw the figures and report.html of a run again
  onward report DIR --markdown           print its tables as Markdown, every seed included
  onward verify [--json | --markdown]    compare every rule with BPTT and finite differences, and check the rest
  onward data list                       the data sets: embedded, installed or to be had
  onward data fetch NAME                 download one, and check it
  onward data import NAME PATH           take one from your files: IDX digits, piano rolls, a folder of MIDI files
  onward data where                      the folder they are kept in; ONWARD_DATA names another
"""

# Undocumented XLA options, measured in docs/performance.md. Kernels with several outputs: 1.2x and more for columns;
# other programs can crash this XLA's compiler with it (decisions.md). For a single stream, one kernel for the whole
# loop: 3x. Nothing depends on them.
XLA_COLUMNS = "xla_cpu_use_multi_output_fusion=true"
XLA_SINGLE = "xla_cpu_small_while_loop_byte_threshold=10000000"


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    from onward.errors import OnwardError, Stopped

    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return _dispatch(arguments)
    except Stopped as stopped:
        print(f"onward: {stopped}", file=sys.stderr)
        return 130
    except OnwardError as error:
        print(f"onward: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("onward: stopped at once; what was checkpointed is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"onward {version('onward')}")
        return 0
    commands = {"list": _list, "run": _run, "learn": _learn, "predict": _predict}
    commands |= {"report": _report, "verify": _verify, "data": _data}
    name, rest = arguments[0], arguments[1:]
    if name not in commands:
        raise _unknown("command", name, commands)
    return commands[name](rest)


def _unknown(what: str, name: str, known: Any) -> Exception:
    from onward.errors import OnwardError

    near = difflib.get_close_matches(name, list(known), 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
    return OnwardError(f"unknown {what} {name!r}; {hint}")


def _list(arguments: list[str]) -> int:
    _no_more(arguments, "list")
    for name, (_, _, line) in EXPERIMENTS.items():
        print(f"{name:20} {line}")
    return 0


def _no_more(arguments: list[str], command: str) -> None:
    from onward.errors import OnwardError

    if arguments:
        raise OnwardError(f"onward {command} takes no {arguments[0]!r}; see onward --help")


def _kind(name: str) -> Any:
    if name not in EXPERIMENTS:
        raise _unknown("experiment", name, EXPERIMENTS)
    module, kind, _ = EXPERIMENTS[name]
    return getattr(import_module(module), kind)


def _set_up_jax(*, columns: bool, single: bool) -> None:
    """Options that must be set before JAX is first used, and the cache of compiled programs."""
    options = [option for option, asked in ((XLA_COLUMNS, columns), (XLA_SINGLE, single)) if asked]
    flags = os.environ.get("XLA_FLAGS", "")
    if options and "xla_backend_extra_options" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_extra_options={','.join(options)}".strip()
    _cache_programs()


def _cache_programs() -> None:
    """Keep compiled programs in the user's cache folder."""
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "onward" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _take(arguments: list[str], option: str) -> tuple[list[str], str | None]:
    """The arguments without `--option VALUE` (or `--option=VALUE`), and the value."""
    from onward.errors import OnwardError

    for i, argument in enumerate(arguments):
        if argument == option:
            if i + 1 == len(arguments) or arguments[i + 1].startswith("--"):
                raise OnwardError(f"{option} needs a folder")
            return arguments[:i] + arguments[i + 2 :], arguments[i + 1]
        if argument.startswith(option + "="):
            return arguments[:i] + arguments[i + 1 :], argument.partition("=")[2]
    return arguments, None


def _run(arguments: list[str]) -> int:
    from onward.errors import OnwardError

    arguments, resume = _take(arguments, "--resume")
    arguments, out = _take(arguments, "--out")
    replace = "--replace" in arguments
    arguments = [a for a in arguments if a != "--replace"]
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    fields = arguments[1:] if name else arguments
    if resume:
        return _resume(Path(resume), name, fields, out)
    if name is None and fields and fields[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if name is None:
        raise OnwardError(f"run what? The experiments are: {', '.join(EXPERIMENTS)}")
    experiment = _parse(_kind(name), fields)
    return _execute(experiment, Path(out or f"runs/{name}"), replace=replace)


def _learn(arguments: list[str]) -> int:
    from onward.errors import OnwardError

    arguments, resume = _take(arguments, "--resume")
    arguments, out = _take(arguments, "--out")
    replace = "--replace" in arguments
    arguments = [a for a in arguments if a != "--replace"]
    source = arguments[0] if arguments and (arguments[0] == "-" or not arguments[0].startswith("-")) else None
    fields = arguments[1:] if source else arguments
    if source is None and not {"-h", "--help"} & set(fields):
        raise OnwardError("learn from what? onward learn SOURCE --target COLUMN, with a file or - for standard input")
    _set_up_jax(columns=False, single=True)
    from onward.adapters import learn
    from onward.adapters.options import Learn
    from onward.adapters.report import write_report

    before = learn.load_options(Path(resume))[0] if resume else None
    options = _parse(Learn, fields, prog="onward learn SOURCE", default=before)
    assert source is not None  # --help has ended by now
    if resume:
        if out and Path(out) != Path(resume):
            raise OnwardError("--resume goes on in its own folder: leave out --out")
        if replace:
            raise OnwardError("--resume goes on, --replace starts anew: choose one")
        options = learn.same_options(Path(resume), options)
    folder = Path(resume or out or "runs/learn")
    learn.learn(options, source, folder, resume=bool(resume), replace=replace)
    text = "\n".join(learn.as_lines(folder))
    print(f"{text}\nreport: {write_report(folder)}", file=sys.stderr if source == "-" else sys.stdout)
    return 0


def _predict(arguments: list[str]) -> int:
    from onward.errors import OnwardError

    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    arguments, out = _take(arguments, "--out")
    if len(arguments) != 2 or any(a.startswith("--") for a in arguments):
        raise OnwardError("the command is: onward predict DIR SOURCE [--out FILE]")
    _set_up_jax(columns=False, single=True)
    from onward.adapters.learn import predict

    predict(Path(arguments[0]), arguments[1], out, lambda text: print(text, file=sys.stderr))
    return 0


def _resume(folder: Path, name: str | None, fields: list[str], out: str | None) -> int:
    from onward.errors import OnwardError

    if out and Path(out) != folder:
        raise OnwardError("--resume goes on in its own folder: leave out --out")
    from onward.experiments.base import config_of, from_config, load_config

    config = load_config(folder)
    if name not in (None, config["experiment"]):
        raise OnwardError(f"{folder} is a run of {config['experiment']}, not of {name}")
    kind = _kind(config["experiment"])
    experiment = from_config(kind, config["fields"], folder / "config.json")
    if fields:
        asked, default = config_of(_parse(kind, fields)), config_of(kind())
        for field, value in asked.items():
            if value != default[field] and value != config["fields"][field]:
                raise OnwardError(
                    f"{folder} was run with {field}={config['fields'][field]}, not {value}: "
                    "leave the option out, or start a new run"
                )
    return _execute(experiment, folder, resume=True)


def _execute(experiment: "Experiment", folder: Path, *, resume: bool = False, replace: bool = False) -> int:
    from onward.experiments.base import execute, load_summary

    _set_up_jax(columns=experiment.fuse_outputs, single=experiment.seeds * max(1, len(experiment.step_sizes)) == 1)
    report = execute(experiment, folder, resume=resume, replace=replace)
    summary = load_summary(folder)
    for method in summary["methods"]:
        print(
            f"{method['name']:14} {method['metric']} {method['mean']:.5f} (sd {method['std']:.5f}, "
            f"{len(method['values'])} seeds, {method['steps']:,} steps)"
        )
    print("   ".join(f"{k} {v:.5f}" for k, v in summary["references"].items()))
    print(f"report: {report}")
    return 0


def _parse(kind: Any, fields: list[str], prog: str = "", default: Any = None) -> Any:
    """Fields to an experiment, or to other options; those left out are as in `default`.

    Unknown fields get the nearest name; tyro does the rest.
    """
    import contextlib
    import dataclasses
    import io
    import re

    import tyro

    from onward.errors import OnwardError

    known = [f.name for f in dataclasses.fields(kind)]
    known += [f"no_{f.name}" for f in dataclasses.fields(kind) if f.type in (bool, "bool")]
    for argument in fields:
        if argument.startswith("--") and argument != "--help":
            given = argument[2:].partition("=")[0]
            if given.replace("-", "_") not in known:
                near = difflib.get_close_matches(given.replace("-", "_"), known, 1, 0.4)
                hint = f"did you mean --{near[0].replace('_', '-')}?" if near else "see --help"
                raise OnwardError(f"{kind.name} has no field --{given}; {hint}")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            kept: dict[str, Any] = {} if default is None else {"default": default}
            experiment = tyro.cli(kind, args=fields, prog=prog or f"onward run {kind.name}", **kept)
    except SystemExit as stop:
        if not stop.code:
            raise
        words = re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│─┌┐└┘]+", " ", said.getvalue())
        first = re.split(r"For full helptext", " ".join(words.split()))[0]
        raise OnwardError(first.strip() or "the fields do not fit; see --help") from None
    experiment.check()
    return experiment


def _report(arguments: list[str]) -> int:
    from onward.errors import OnwardError

    markdown = "--markdown" in arguments
    arguments = [a for a in arguments if a != "--markdown"]
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise OnwardError("onward report takes one run folder, and --markdown")
    folder = Path(arguments[0])
    if (folder / "predictions.csv").exists() and not markdown:
        from onward.adapters.report import write_report

        print(f"report: {write_report(folder)}")
        return 0
    from onward.experiments.base import as_markdown, from_config, load_config

    config = load_config(folder)
    kind = _kind(config["experiment"])
    experiment = from_config(kind, config["fields"], folder / "config.json")
    print(as_markdown(folder, kind) if markdown else f"report: {experiment.write_report(folder)}")
    return 0


def _verify(arguments: list[str]) -> int:
    form = arguments[0] if len(arguments) == 1 and arguments[0] in ("--json", "--markdown") else None
    if arguments in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    if form is None:
        _no_more(arguments, "verify")
    _cache_programs()
    from onward import verify_targets
    from onward.verify import as_markdown, as_table, costs, matrix

    rows, spent, checks = matrix(), costs(), verify_targets.checks()
    ok = all(row.ok for row in rows) and all(check.ok for check in checks)
    if form == "--json":
        import json

        parts: dict[str, Any] = {"rows": rows, "checks": checks, "costs": spent}
        print(json.dumps({"ok": ok, **{k: [one.as_dict() for one in v] for k, v in parts.items()}}, indent=1))
    elif form:
        print(f"{as_markdown(rows, spent)}\n\n{verify_targets.as_markdown(checks)}")
    else:
        print("\n".join([*as_table(rows, spent), "", *verify_targets.as_table(checks)]))
    return 0 if ok else 1


def _data(arguments: list[str]) -> int:
    from onward.errors import OnwardError

    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    known = {"list": "", "fetch": "NAME", "import": "NAME PATH", "where": ""}
    command, rest = arguments[0], arguments[1:]
    if command not in known:
        raise _unknown("data command", command, known)
    if len(rest) != len(known[command].split()) or any(argument.startswith("--") for argument in rest):
        raise OnwardError(f"the command is: onward data {command} {known[command]}".rstrip())
    from onward import datasets

    if command == "list":
        print("\n".join(datasets.overview()))
    elif command == "where":
        print(datasets.data_folder())
    elif command == "fetch":
        datasets.fetch(rest[0])
    else:
        datasets.install(rest[0], Path(rest[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
