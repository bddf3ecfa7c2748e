"""The command line: onward list | run | sweep | learn | serve | predict | report | verify | data.

Every command first reads all its words, imports what it works with, and refuses what does not fit; then it works.
The exit status is 0; 1 after a complaint, in one line, or a gradient that is not what its rule claims; 2 for usage that
no command was named in; 3 after an alarm, where that is to be the end; 130 after a stop.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from onward.devices import Process, out_of_memory, set_up_jax
from onward.errors import OnwardError, Stopped, require_known
from onward.lab import commands
from onward.lab.commands import Work, words_of
from onward.lab.signals import leaving_at_once

START = """onward: recurrent networks that learn as the data arrive. Five things to do:

  onward run trace-patterning               run an experiment of a paper; onward list says which there are
  onward run FILE.py                        run an experiment of your own
  onward sweep EXPERIMENT --field v1,v2     compare settings, with several seeds each
  onward learn SOURCE --target COLUMN       learn from your own rows, and predict each one first
  onward verify                             check that every gradient is what its rule claims

All commands: onward --help. All options of one: onward COMMAND --help."""
USAGE = """onward: recurrent networks that learn as the data arrive

  onward list                               the experiments
  onward run EXPERIMENT [--field value]     run one, with fields of your own
  onward run FILE.py [--field value]        run an experiment of your own
  onward run --resume FOLDER                go on with a run that was stopped
  onward sweep EXPERIMENT --field v1,v2     run every combination of values, with several seeds, and compare them
  onward compare FOLDER FOLDER              what two runs differ in, seed by seed
  onward learn SOURCE --target COLUMN       learn from your own rows: CSV, JSON lines, Parquet, or - for standard input
  onward learn SOURCE --resume FOLDER       go on after a stop, or after SOURCE has grown
  onward serve FOLDER --target COLUMN       learn rows that come over HTTP, and answer them
  onward predict FOLDER SOURCE [--out FILE] predict with what FOLDER has learned, and learn nothing
  onward report FOLDER [--markdown]         draw the figures and report.html of a run again, or print its tables
  onward verify [FILE.py:NAME] [--quick]    compare every rule, or yours, with BPTT and finite differences
  onward data list|fetch|import|where       the data sets: which there are, and how to get one

All options of a command: onward COMMAND --help; the fields of an experiment: onward run EXPERIMENT --help."""


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
        return stopped.status
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
    if not arguments:
        return partial(_print, START, 2)
    if arguments[0] in ("-h", "--help", "help"):
        return partial(_print, USAGE, 0)
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


# learn, predict


def _learn(arguments: Sequence[str]) -> Work:
    from onward.lab.fields import Field
    from onward.rows.options import Learn

    words = words_of("learn", "SOURCE --target COLUMN [--field value ...]", Learn.__doc__ or "", arguments)
    words.add_folder("runs/learn")
    words.add_fields(Learn, commas=False)  # the name of a column may hold one
    about = "with --resume: which row of the stream comes next; those that were learned from are passed over"
    words.add_value(Field("from_row", int, what="a row"), about)
    said = words.finish(most=1)
    if not words.rest:
        raise OnwardError("learn from what? onward learn SOURCE --target COLUMN, with a file or - for standard input")
    own: dict[str, Any] = {name: said.pop(name) for name in ("out", "replace", "resume", "device") if name in said}
    from_row = said.pop("from_row", None)
    folder = words.folder(own, "runs/learn")
    if "resume" not in own:
        Learn(**said).check()
    import_module("onward.rows.report")
    return partial(
        *(_run_learn, words.rest[0], said, folder),
        resume="resume" in own,
        replace="replace" in own,
        device=own.get("device", ""),
        from_row=from_row,
    )


def _run_learn(
    source: str,
    fields: dict[str, Any],
    folder: Path,
    *,
    resume: bool,
    replace: bool,
    device: str,
    from_row: int | None,
) -> int:
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
    page = learn.learn(options, source, folder, resume=resume, replace=replace, from_row=from_row, report=write_report)
    text = "\n".join(as_lines(folder))
    print(f"{text}\nreport: {page}", file=sys.stderr if source == "-" else sys.stdout)
    return 0


def _serve(arguments: Sequence[str]) -> Work:
    from onward.rows.options import Learn
    from onward.rows.serve.options import Serve

    words = words_of(
        *("serve", "FOLDER [--target COLUMN] [--field value ...]"),
        "Learn rows that come over HTTP, and answer each: POST /rows learns and answers, POST /ask only answers, GET "
        "/state, /metrics and / show how it goes. FOLDER goes on where it ended, or is new, with the fields of `onward "
        "learn`.",
        arguments,
    )
    words.add_fields(Serve)
    words.add_fields(Learn, commas=False)
    said = words.finish(most=1)
    if not words.rest:
        raise OnwardError("serve what? onward serve FOLDER --target COLUMN")
    serve = Serve(**{name: said.pop(name) for name in [*said] if name in Serve.__dataclass_fields__})
    serve.check()
    if not os.path.exists(words.rest[0]):
        Learn(**said).check()
    import_module("onward.rows.serve.command")
    return partial(_run_serve, Path(words.rest[0]), said, serve)


def _run_serve(path: Path, fields: dict[str, Any], serve: Any) -> int:
    from onward.rows.serve.command import run

    set_up_jax(columns=False, single=True)
    run(path, fields, serve)
    return 0


def _predict(arguments: Sequence[str]) -> Work:
    from onward.lab.fields import Field

    words = words_of(
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
    words = words_of(
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
    from onward.lab.fields import Field
    from onward.lab.own import is_file
    from onward.lab.verifying import Choice, verify

    words = words_of(
        *("verify", "[FILE.py[:NAME]] [--rule NAME ...] [--cell NAME ...] [--quick]"),
        "Compare every credit rule with BPTT and finite differences on every kind of cell, and check target "
        "propagation; or a cell, gates or a rule of your own file. The exit status is 1 if one is not what it claims "
        "to be.",
        arguments,
    )
    names = lambda what: Field(what, count=None, what="names")
    words.add_value(names("rule"), "these rules only, such as SnAp or SnAp(1)", several=True)
    words.add_value(names("cell"), "these cells only: GRU, sparse or 'GRU sparse'", several=True)
    words.add_flag("quick", "every rule in one setting, on two cells")
    words.add_value(Field("junit", what="a file"), "also write the results as JUnit's XML")
    words.add_flag("json", "print the results as JSON")
    words.add_flag("markdown", "print them as Markdown")
    said = words.finish(most=1)
    file = words.rest[0] if words.rest else ""
    if file and not is_file(file):
        raise OnwardError(f"verify: {file!r} stands alone; name a file, FILE.py:NAME, or see onward verify --help")
    forms = [form for form in ("json", "markdown") if form in said]
    if len(forms) == 2:
        raise OnwardError("--json and --markdown are two forms: choose one")
    choice = Choice(file, said.get("rule", ()), said.get("cell", ()), "quick" in said)
    if forms == ["markdown"] and not choice.whole:
        raise OnwardError("--markdown is the page of all comparisons: leave out what chooses some, or take --json")
    junit = said.get("junit", "")
    if junit and not Path(junit).parent.is_dir():
        raise OnwardError(f"--junit {junit}: there is no folder {Path(junit).parent}")
    if not choice.whole:
        choice.jobs()
    return partial(verify, choice, next(iter(forms), ""), junit)


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
    words = words_of(f"data {name}", takes, about, arguments[1:])
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
    "list": commands.list_experiments,
    "run": commands.run,
    "sweep": commands.sweep,
    "compare": commands.compare,
    "learn": _learn,
    "serve": _serve,
    "predict": _predict,
    "report": _report,
    "verify": _verify,
    "data": _data,
}

if __name__ == "__main__":
    sys.exit(main())
