"""The command line: onward list | run | sweep | learn | predict | report | verify | data."""

import difflib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onward.devices import cache_programs, set_up_jax
from onward.lab.papers import EXPERIMENTS, kind_of

if TYPE_CHECKING:
    from onward.lab.experiment import Experiment

USAGE = """onward: recurrent networks that learn as the data arrive

  onward list                            the experiments
  onward run EXPERIMENT [--field value]  run one; its fields: onward run EXPERIMENT --help
             [--out DIR] [--replace]     where to (default runs/EXPERIMENT); delete an older run there
             [--device cpu|gpu|tpu]      on what to compute; also for sweep and learn
  onward run --resume DIR                go on with a run that was stopped
  onward sweep EXPERIMENT --field v1,v2  run every combination of values, with several seeds, and compare them
             [--seeds N] [--workers N]   all options: onward sweep EXPERIMENT --help
             [--out DIR] [--replace]     where to (default runs/sweep-EXPERIMENT); the same command goes on after a stop
  onward learn SOURCE --target COLUMN    learn from your own rows: CSV, JSON lines, Parquet, or - for standard input
             [--out DIR] [--replace]     where to (default runs/learn); all options: onward learn --help
  onward learn SOURCE --resume DIR       go on after a stop, or after SOURCE has grown
  onward predict DIR SOURCE [--out FILE] predict with what DIR has learned, and learn nothing
  onward report DIR                      draw the figures and report.html of a run or a sweep again
  onward report DIR --markdown           print its tables as Markdown, every seed included
  onward verify [--json | --markdown]    compare every rule with BPTT and finite differences, and check the rest
  onward data list                       the data sets: embedded, installed or to be had
  onward data fetch NAME                 download one, and check it
  onward data import NAME PATH           take one from your files: IDX digits, piano rolls, a folder of MIDI files
  onward data where                      the folder they are kept in; ONWARD_DATA names another
"""


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
    commands = {"list": _list, "run": _run, "sweep": _sweep, "learn": _learn, "predict": _predict}
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
    return kind_of(name)


def _take(arguments: list[str], option: str, what: str = "a folder") -> tuple[list[str], str | None]:
    """The arguments without `--option VALUE` (or `--option=VALUE`), and the value."""
    from onward.errors import OnwardError

    for i, argument in enumerate(arguments):
        if argument == option:
            if i + 1 == len(arguments) or arguments[i + 1].startswith("--"):
                raise OnwardError(f"{option} needs {what}")
            return arguments[:i] + arguments[i + 2 :], arguments[i + 1]
        if argument.startswith(option + "="):
            return arguments[:i] + arguments[i + 1 :], argument.partition("=")[2]
    return arguments, None


def _run(arguments: list[str]) -> int:
    from onward.errors import OnwardError

    arguments, resume = _take(arguments, "--resume")
    arguments, out = _take(arguments, "--out")
    arguments, device = _take(arguments, "--device", "cpu, gpu or tpu")
    replace = "--replace" in arguments
    arguments = [a for a in arguments if a != "--replace"]
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    fields = arguments[1:] if name else arguments
    if resume:
        return _resume(Path(resume), name, fields, out, device or "")
    if name is None and fields and fields[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if name is None:
        raise OnwardError(f"run what? The experiments are: {', '.join(EXPERIMENTS)}")
    experiment = _parse(_kind(name), fields)
    return _execute(experiment, Path(out or f"runs/{name}"), replace=replace, device=device or "")


def _sweep(arguments: list[str]) -> int:
    from onward.errors import OnwardError

    arguments, out = _take(arguments, "--out")
    fresh = "--replace" in arguments
    arguments = [a for a in arguments if a != "--replace"]
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if name is None:
        if {"-h", "--help"} & set(arguments):
            print(USAGE, end="")
            return 0
        raise OnwardError(f"sweep what? The experiments are: {', '.join(EXPERIMENTS)}")
    kind = _kind(name)
    from onward.lab.sweeps.plan import ASK_FROM, Options, make_sweep

    if {"-h", "--help"} & set(arguments):
        return _sweep_help(kind, Options)
    own, fixed, axes = _read_fields(kind, Options, arguments[1:])
    options = _parse(Options, own, prog="onward sweep")
    experiment = _parse(kind, fixed, check=False)
    sweep = make_sweep(experiment, axes, options)
    runs = sweep.count * experiment.seeds
    if runs > ASK_FROM and not options.yes:
        _ask(f"{sweep.count:,} configurations, {runs:,} runs. Start?", runs)
    from onward.lab.sweeps.results import as_lines
    from onward.lab.sweeps.sweep import run_sweep

    folder = Path(out or f"runs/sweep-{name}")
    report = run_sweep(sweep, options, folder, fresh=fresh)
    print("\n".join([*as_lines(folder), f"report: {report}"]))
    return 0


def _sweep_help(kind: Any, options: Any) -> int:
    import contextlib

    import tyro

    print(
        "Every combination of the values given for the fields of an experiment, each with --seeds seeds. A comma\n"
        "separates values: --step-sizes 1e-4,3e-4,1e-3 --methods ccn,columnar. A value of several words:\n"
        "--isi '24 36,10 20'. Random search and halving take ranges: --step-sizes 1e-5..1e-2. Where to: --out DIR\n"
        "(default runs/sweep-EXPERIMENT), --replace. The same command goes on where it stopped; with more seeds or\n"
        "values it adds them.\n"
    )
    for one, prog in ((options, "onward sweep EXPERIMENT"), (kind, f"onward sweep {kind.name}")):
        with contextlib.suppress(SystemExit):
            tyro.cli(one, args=["--help"], prog=prog)
    return 0


def _ask(question: str, runs: int) -> None:
    from onward.errors import OnwardError

    if not sys.stdin.isatty():
        raise OnwardError(f"the sweep has {runs:,} runs: say --yes if that is meant")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise OnwardError("not started")


def _read_fields(kind: Any, options: Any, arguments: list[str]) -> tuple[list[str], list[str], dict[str, Any]]:
    """Words for the sweep's own options, words for fields of one value, and the values of the others."""
    import dataclasses

    from onward.errors import OnwardError
    from onward.lab.sweeps.plan import LISTED, Range

    mine = {f.name for f in dataclasses.fields(options)}
    fields = {f.name: f for f in dataclasses.fields(kind)}
    flags = [f"no_{n}" for n, f in fields.items() if f.type in (bool, "bool")]
    groups: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("--"):
            option, equals, value = argument[2:].partition("=")
            groups.append((option, [value] if equals else []))
        elif groups:
            groups[-1][1].append(argument)
        else:
            raise OnwardError(f"{argument!r} stands alone: a sweep takes --field value,value")
    own: list[str] = []
    fixed: list[str] = []
    axes: dict[str, Any] = {}
    for option, words in groups:
        name = option.replace("-", "_")
        if name in mine or name.removeprefix("no_") in mine:
            own += [f"--{option}", *words]
            continue
        if name not in fields and name not in flags:
            near = difflib.get_close_matches(name, [*fields, *mine], 1, 0.4)
            hint = f"did you mean --{near[0].replace('_', '-')}?" if near else f"see onward sweep {kind.name} --help"
            raise OnwardError(f"{kind.name} has no field --{option}; {hint}")
        if name in axes or f"--{option}" in fixed:
            raise OnwardError(f"--{option} is given twice: name all its values once, with commas")
        if not words and (name in flags or fields[name].type in (bool, "bool")):
            fixed.append(f"--{option}")
            continue
        values = [value.strip() for value in " ".join(words).split(",")]
        if name in LISTED:
            values = [word for value in values for word in (value.split() or [""])]
        if not all(values):
            raise OnwardError(
                f"--{option} has {'no values' if not any(values) else 'an empty value'}: name at least one"
            )

        def read(value: str, option: str = option, name: str = name) -> Any:
            flag = {"true": f"--{option}", "false": f"--no-{option}"} if fields[name].type in (bool, "bool") else {}
            words = [flag[value]] if value in flag else [f"--{option}", *value.split()]
            found = getattr(_parse(kind, words, check=False), name)
            return found[0] if name in LISTED else list(found) if isinstance(found, tuple) else found

        if any(".." in value for value in values):
            if len(values) > 1 or name in ("seeds", "first_seed"):
                raise OnwardError(f"--{option} takes one range (1e-5..1e-2) or values, not both")
            low, high = map(read, values[0].split("..", 1))
            if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)):
                raise OnwardError(f"--{option} {values[0]}: a range is between two numbers")
            axes[name] = Range(low, high, isinstance(low, int) and isinstance(high, int))
        elif len(values) == 1 and name not in LISTED:
            fixed += [f"--{option}", *values[0].split()]
        else:
            if name in ("seeds", "first_seed"):
                raise OnwardError(f"--{option} takes one number in a sweep: every configuration gets the same seeds")
            axes[name] = [read(value) for value in values]
    return own, fixed, axes


def _learn(arguments: list[str]) -> int:
    from onward.errors import OnwardError

    arguments, resume = _take(arguments, "--resume")
    arguments, out = _take(arguments, "--out")
    arguments, device = _take(arguments, "--device", "cpu, gpu or tpu")
    replace = "--replace" in arguments
    arguments = [a for a in arguments if a != "--replace"]
    source = arguments[0] if arguments and (arguments[0] == "-" or not arguments[0].startswith("-")) else None
    fields = arguments[1:] if source else arguments
    if source is None and not {"-h", "--help"} & set(fields):
        raise OnwardError("learn from what? onward learn SOURCE --target COLUMN, with a file or - for standard input")
    set_up_jax(columns=False, single=True, device=device or "")
    from onward.rows import learn
    from onward.rows.options import Learn
    from onward.rows.report import write_report

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
    set_up_jax(columns=False, single=True)
    from onward.rows.learn import predict

    predict(Path(arguments[0]), arguments[1], out, lambda text: print(text, file=sys.stderr))
    return 0


def _resume(folder: Path, name: str | None, fields: list[str], out: str | None, device: str) -> int:
    from onward.errors import OnwardError

    if out and Path(out) != folder:
        raise OnwardError("--resume goes on in its own folder: leave out --out")
    from onward.lab.experiment import config_of, from_config
    from onward.lab.results import load_config

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
    return _execute(experiment, folder, resume=True, device=device)


def _execute(
    experiment: "Experiment", folder: Path, *, resume: bool = False, replace: bool = False, device: str = ""
) -> int:
    from onward.lab.results import execute, load_summary

    single = experiment.seeds * max(1, len(experiment.step_sizes)) == 1
    set_up_jax(columns=experiment.fuse_outputs, single=single, device=device)
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


def _parse(kind: Any, fields: list[str], prog: str = "", default: Any = None, *, check: bool = True) -> Any:
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
    if check:
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
        from onward.rows.report import write_report

        print(f"report: {write_report(folder)}")
        return 0
    from onward.lab.experiment import from_config
    from onward.lab.results import as_markdown, load_config

    if (folder / "sweep.json").exists():
        from onward.lab.sweeps.results import write

        if markdown:
            raise OnwardError("a sweep has its tables as CSV: configurations.csv and runs.csv, beside report.html")
        print(f"report: {write(folder)}")
        return 0
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
    cache_programs()
    from onward.verify import costs, matrix, tables, targets

    rows, spent, checks = matrix.rows(), costs.measured(), targets.checks()
    if form == "--json":
        print(tables.as_json(rows, checks, spent))
    elif form:
        print(f"{tables.as_markdown(rows, spent)}\n\n{tables.checks_markdown(checks)}")
    else:
        print("\n".join([*tables.as_table(rows, spent), "", *tables.checks_table(checks)]))
    ok = all(row.ok for row in rows) and all(check.ok for check in checks)
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
    from onward.lab.data import datasets

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
