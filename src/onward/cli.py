"""The command line: onward list | run | sweep | learn | predict | report | verify | data.

Every command first reads all its words, imports what it works with, and refuses what does not fit; then it works.
The exit status is 0; 1 after a complaint, in one line, or a gradient that is not what its rule claims; 2 for usage that
no command was named in; 130 after a stop.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onward.devices import Process, cache_programs, out_of_memory, set_up_jax
from onward.errors import OnwardError, Stopped, require_known
from onward.lab.own import WITH, is_file
from onward.lab.papers import EXPERIMENTS, kind_of
from onward.lab.signals import leaving_at_once

if TYPE_CHECKING:
    from onward.lab.experiment import Experiment
    from onward.lab.sweeps.plan import Options, Sweep
    from onward.lab.words import Words

USAGE = """onward: recurrent networks that learn as the data arrive

  onward list                               the experiments
  onward run EXPERIMENT [--field value]     run one, with fields of your own
  onward run FILE.py [--field value]        run an experiment of your own
  onward run --resume FOLDER                go on with a run that was stopped
  onward sweep EXPERIMENT --field v1,v2     run every combination of values, with several seeds, and compare them
  onward learn SOURCE --target COLUMN       learn from your own rows: CSV, JSON lines, Parquet, or - for standard input
  onward learn SOURCE --resume FOLDER       go on after a stop, or after SOURCE has grown
  onward predict FOLDER SOURCE [--out FILE] predict with what FOLDER has learned, and learn nothing
  onward report FOLDER [--markdown]         draw the figures and report.html of a run again, or print its tables
  onward verify [--json | --markdown]       compare every rule with BPTT and finite differences, and check the rest
  onward data list|fetch|import|where       the data sets: which there are, and how to get one

All options of a command: onward COMMAND --help; the fields of an experiment: onward run EXPERIMENT --help."""
Work = Callable[[], int]


def main(arguments: list[str] | None = None) -> int:
    """Read the words, by default those of the process, and do what they say; the exit status.

    `arguments`: of a Python program, whose process then outlives every Ctrl-C.
    """
    words = sys.argv[1:] if arguments is None else arguments
    Process.of_command = arguments is None
    of_process = leaving_at_once if arguments is None else nullcontext
    try:
        with of_process():
            work = read(words)
        with of_process() if words[:1] == ["verify"] else nullcontext():  # it writes nothing
            return work()
    except SystemExit as stop:  # help was asked for
        return int(stop.code or 0)
    except Stopped as stopped:
        print(f"onward: {stopped}", file=sys.stderr)
        return 130
    except OnwardError as error:
        print(f"onward: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if not out_of_memory(error):
            raise
        print(f"onward: not enough memory; take fewer units, seeds or columns: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("onward: stopped at once; what was checkpointed is kept", file=sys.stderr)
        return 130


def read(arguments: Sequence[str]) -> Work:
    """What the words ask for, to be called; OnwardError where they do not fit, SystemExit after help."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return partial(_print, USAGE, 0 if arguments else 2)
    if arguments[0] in ("-V", "--version"):
        return _version
    require_known("command", arguments[0], COMMANDS)
    return COMMANDS[arguments[0]](arguments[1:])


def _print(text: str, status: int) -> int:
    print(text)
    return status


def _version() -> int:
    from importlib.metadata import version

    print(f"onward {version('onward')}")
    return 0


def _words(command: str, usage: str, about: str, arguments: Sequence[str]) -> "Words":
    from onward.lab.words import Words

    return Words(command, usage, about, arguments)


# list


def _list(arguments: Sequence[str]) -> Work:
    words = _words("list", "[FILE.py]", "The experiments: name, and what each is; or the fields of yours.", arguments)
    if words.rest and is_file(words.rest[0]):
        kind = kind_of(words.rest.pop(0))
        words.finish()
        return partial(_print_fields, kind)
    words.finish()
    return _print_experiments


def _print_experiments() -> int:
    for name, (_, _, line) in EXPERIMENTS.items():
        print(f"{name:20} {line}")
    return 0


def _print_fields(kind: "type[Experiment]") -> int:
    from onward.lab.fields import explained, fields_of

    print(f"{kind.name:20} {kind.title}; methods {', '.join(kind.all_methods())}")
    lines = explained(kind)
    for field in fields_of(kind):
        print(f"  {field.option:18} {lines.get(field.name, '')}{field.usual}")
    return 0


# run


def _experiment_among(words: "Words", method: str = "", **options: Any) -> "type[Experiment] | None":
    """The experiment among the words, its fields now options: the first word, or, after options, a known one.

    `method`: what --with names.
    """
    for i, word in enumerate(words.rest):
        if word in EXPERIMENTS or is_file(word) or (i == 0 and not word.startswith("-")):
            if method and is_file(word):
                raise OnwardError("--with adds a method to an experiment of a paper; write yours into the file")
            kind: type[Experiment] = kind_of(f"{words.rest.pop(i)}{WITH}{method}" if method else words.rest.pop(i))
            words.narrow(kind.name)
            _add_experiment(words, kind, **options)
            return kind
    return None


def _add_experiment(words: "Words", kind: "type[Experiment]", **options: Any) -> None:
    words.add_fields(kind, more={"methods": f"There are {', '.join(kind.all_methods())}."}, **options)


def _no_name(command: str) -> OnwardError:
    return OnwardError(f"{command} what? The experiments are: {', '.join(EXPERIMENTS)}")


def _run(arguments: Sequence[str]) -> Work:
    words = _words(
        *("run", "EXPERIMENT [--field value ...]"),
        "Run an experiment, or go on with one. Its curves and numbers are in report.html of its folder.\n\n"
        f"The experiments are {', '.join(EXPERIMENTS)}. The fields of one: onward run EXPERIMENT --help.",
        arguments,
    )
    words.add_folder("runs/EXPERIMENT")
    words.add_with()
    said = words.take()
    kind = _experiment_among(words, said.get("with", ""))
    if kind:
        words.describe(kind.__doc__ or "")
    words.help_if_asked()
    import_module("onward.lab.results")
    if "resume" in said:
        asked = words.finish() if kind else {}
        return partial(_resume, words.folder(said), kind, words, asked, said.get("device", ""))
    if kind is None:
        raise _no_name("run")
    experiment = kind(**words.finish())
    experiment.check()
    folder = words.folder(said, f"runs/{kind.name}")
    return partial(_execute, experiment, folder, replace="replace" in said, device=said.get("device", ""))


def _resume(folder: Path, kind: "type[Experiment] | None", words: "Words", asked: dict[str, Any], device: str) -> int:
    from onward.lab.experiment import config_of
    from onward.lab.folder import read_config, same_fields
    from onward.lab.own import require_kept, require_original
    from onward.lab.results import experiment_of

    experiment = experiment_of(folder)
    if kind is None:
        require_original(experiment, read_config(folder), folder)
        kind = type(experiment)
        _add_experiment(words, kind)
        asked = words.finish()
    if kind.reference != experiment.reference:
        raise OnwardError(f"{folder} is a run of {experiment.reference}, not of {kind.reference}")
    require_kept(kind, read_config(folder), folder)
    same_fields(folder, config_of(experiment), asked)
    return _execute(experiment, folder, resume=True, device=device)


def _execute(
    experiment: "Experiment", folder: Path, *, resume: bool = False, replace: bool = False, device: str = ""
) -> int:
    from onward.lab.results import execute, load_summary

    single = experiment.seeds * max(1, len(experiment.step_sizes)) == 1
    set_up_jax(columns=Process.of_command and experiment.fuse_outputs, single=single, device=device)
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


# sweep


def _sweep(arguments: Sequence[str]) -> Work:
    from onward.lab.fields import fields_of
    from onward.lab.sweeps.axes import read_axis
    from onward.lab.sweeps.plan import Options, Range, make_sweep

    words = _words(
        *("sweep", "EXPERIMENT [--field v1,v2 ...]"),
        "Run every combination of the values that are given for the fields of an experiment, each with --seeds "
        "seeds.\n\n"
        "A comma or a space separates values: --step-sizes 1e-4,3e-4,1e-3 --methods ccn columnar. Between values of "
        "several words only a comma does: --isi '24 36,10 20'. Random search and halving take ranges: --step-sizes "
        "1e-5..1e-2.\n\nThe same command goes on where it stopped; with more seeds or values it adds them.\n\n"
        f"The experiments are {', '.join(EXPERIMENTS)}.",
        arguments,
    )
    words.add_folder("runs/sweep-EXPERIMENT", runs=False)
    words.add_with()
    said = words.take()
    words.add_fields(Options)
    kind = _experiment_among(words, said.get("with", ""), read=read_axis)
    words.help_if_asked()
    if kind is None:
        raise _no_name("sweep")
    values = words.finish()
    options = Options(**{field.name: values.pop(field.name) for field in fields_of(Options) if field.name in values})
    options.check()
    axes = {name: value for name, value in values.items() if isinstance(value, list | Range)}
    experiment = kind(**{name: value for name, value in values.items() if name not in axes})
    sweep = make_sweep(experiment, axes, options)
    return partial(_run_sweep, sweep, options, words.folder(said, f"runs/sweep-{kind.name}"), fresh="replace" in said)


def _run_sweep(sweep: "Sweep", options: "Options", folder: Path, *, fresh: bool) -> int:
    from onward.lab.sweeps.plan import ASK_FROM
    from onward.lab.sweeps.results import as_lines
    from onward.lab.sweeps.sweep import run_sweep

    runs = sweep.count * sweep.experiment.seeds
    if runs > ASK_FROM and not options.yes:
        _ask(f"{sweep.count:,} configurations, {runs:,} runs. Start?", runs)
    report = run_sweep(sweep, options, folder, fresh=fresh)
    print("\n".join([*as_lines(folder), f"report: {report}"]))
    return 0


def _ask(question: str, runs: int) -> None:
    if not sys.stdin.isatty():
        raise OnwardError(f"the sweep has {runs:,} runs: say --yes if that is meant")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise OnwardError("not started")


# learn, predict


def _learn(arguments: Sequence[str]) -> Work:
    from onward.rows.options import Learn

    words = _words("learn", "SOURCE --target COLUMN [--field value ...]", Learn.__doc__ or "", arguments)
    words.add_folder("runs/learn")
    words.add_fields(Learn, commas=False)  # the name of a column may hold one
    said = words.finish(most=1)
    if not words.rest:
        raise OnwardError("learn from what? onward learn SOURCE --target COLUMN, with a file or - for standard input")
    own: dict[str, Any] = {name: said.pop(name) for name in ("out", "replace", "resume", "device") if name in said}
    folder = words.folder(own, "runs/learn")
    if "resume" not in own:
        Learn(**said).check()
    import_module("onward.rows.report")
    return partial(
        *(_run_learn, words.rest[0], said, folder),
        resume="resume" in own,
        replace="replace" in own,
        device=own.get("device", ""),
    )


def _run_learn(source: str, fields: dict[str, Any], folder: Path, *, resume: bool, replace: bool, device: str) -> int:
    import dataclasses

    from onward.rows import learn
    from onward.rows.options import Learn
    from onward.rows.report import write_report
    from onward.rows.sources import require_source
    from onward.rows.summary import as_lines

    set_up_jax(columns=False, single=True, device=device)
    if resume:
        require_source(source)
    options = dataclasses.replace(learn.load_options(folder)[0] if resume else Learn(), **fields)
    page = learn.learn(options, source, folder, resume=resume, replace=replace, report=write_report)
    text = "\n".join(as_lines(folder))
    print(f"{text}\nreport: {page}", file=sys.stderr if source == "-" else sys.stdout)
    return 0


def _predict(arguments: Sequence[str]) -> Work:
    from onward.lab.fields import Field

    words = _words(
        *("predict", "DIR SOURCE [--out FILE]"),
        "Predict the rows of SOURCE, a file or - for standard input, with what `onward learn` has left in FOLDER, and "
        "learn nothing.",
        arguments,
    )
    words.add_value(Field("out", what="a file"), "where to; else the predictions are printed")
    said = words.finish(most=2)
    if len(words.rest) != 2:
        raise OnwardError("the command is: onward predict FOLDER SOURCE [--out FILE]")
    import_module("onward.rows.learn")
    return partial(_run_predict, Path(words.rest[0]), words.rest[1], said.get("out"))


def _run_predict(folder: Path, source: str, out: str | None) -> int:
    set_up_jax(columns=False, single=True)
    from onward.rows.learn import predict

    predict(folder, source, out, lambda text: print(text, file=sys.stderr))
    return 0


# report

# What draws a folder of a command again, and prints its tables.
REPORTS = {"run": "onward.lab.results", "sweep": "onward.lab.sweeps.report", "learn": "onward.rows.report"}


def _report(arguments: Sequence[str]) -> Work:
    words = _words(
        *("report", "DIR [--markdown]"),
        "Draw the figures and report.html again, from what a run, a sweep or `onward learn` has left in FOLDER.",
        arguments,
    )
    words.add_flag("markdown", "print the tables as Markdown, every seed included, and draw nothing")
    said = words.finish(most=1)
    if not words.rest:
        raise OnwardError("onward report takes one run folder, and --markdown")
    return partial(_write_report, Path(words.rest[0]), markdown="markdown" in said)


def _write_report(path: Path, *, markdown: bool) -> int:
    from onward.lab.folder import RunFolder, read_config

    with RunFolder(path, "report"):
        # A job of a sweep has no report of its own: as a run it is refused, with the name of what it belongs to.
        part = import_module(REPORTS.get(read_config(path)["command"], REPORTS["run"]))
        print(part.as_markdown(path) if markdown else f"report: {part.write_report(path)}")
    return 0


# verify


def _verify(arguments: Sequence[str]) -> Work:
    words = _words(
        *("verify", "[--json | --markdown]"),
        "Compare every credit rule with BPTT and finite differences on every kind of cell, and check target "
        "propagation. The exit status is 1 if one is not what it claims to be.",
        arguments,
    )
    words.add_flag("json", "print the results as JSON")
    words.add_flag("markdown", "print them as Markdown")
    said = words.finish()
    if len(said) == 2:
        raise OnwardError("--json and --markdown are two forms: choose one")
    import_module("onward.verify.targets")
    return partial(_print_verify, next(iter(said), ""))


def _print_verify(form: str) -> int:
    cache_programs()
    from onward.verify import costs, matrix, tables, targets

    rows, spent, checks = matrix.rows(), costs.measured(), targets.checks()
    if form == "json":
        print(tables.as_json(rows, checks, spent))
    elif form:
        print(f"{tables.as_markdown(rows, spent)}\n\n{tables.checks_markdown(checks)}")
    else:
        print("\n".join([*tables.as_table(rows, spent), "", *tables.checks_table(checks)]))
    ok = all(row.ok for row in rows) and all(check.ok for check in checks)
    return 0 if ok else 1


# data

DATA = {
    "list": ("", "The data sets: embedded, installed or to be had."),
    "fetch": ("NAME", "Download a known data set, and check it."),
    "import": ("NAME PATH", "Take a data set from your files: IDX digits, piano rolls, a folder of MIDI files."),
    "where": ("", "The folder that data sets are kept in; ONWARD_DATA names another."),
}


def _data(arguments: Sequence[str]) -> Work:
    usage = "\n".join(f"  {f'onward data {name} {takes}':30} {about}" for name, (takes, about) in DATA.items())
    if not arguments or arguments[0] in ("-h", "--help"):
        return partial(_print, usage, 0 if arguments else 2)
    name = arguments[0]
    require_known("data command", name, DATA)
    takes, about = DATA[name]
    words = _words(f"data {name}", takes, about, arguments[1:])
    words.finish(most=len(takes.split()))
    if len(words.rest) < len(takes.split()):
        raise OnwardError(f"the command is: onward data {name} {takes}")
    return partial(_do_data, name, *words.rest)


def _do_data(command: str, *words: str) -> int:
    from onward.lab.data import datasets

    if command == "list":
        print("\n".join(datasets.overview()))
    elif command == "where":
        print(datasets.data_folder())
    elif command == "fetch":
        datasets.fetch(words[0])
    else:
        datasets.install(words[0], Path(words[1]))
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], Work]] = {
    "list": _list,
    "run": _run,
    "sweep": _sweep,
    "learn": _learn,
    "predict": _predict,
    "report": _report,
    "verify": _verify,
    "data": _data,
}

if __name__ == "__main__":
    sys.exit(main())
