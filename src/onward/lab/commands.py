"""The commands of the laboratory, as words become work: onward list, run and sweep."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onward.devices import Process, set_up_jax
from onward.errors import OnwardError
from onward.lab.own import WITH, is_file
from onward.lab.papers import EXPERIMENTS, kind_of

if TYPE_CHECKING:
    from onward.lab.experiment import Experiment
    from onward.lab.sweeps.plan import Options, Sweep
    from onward.lab.words import Words

Work = Callable[[], int]


def words_of(command: str, usage: str, about: str, arguments: Sequence[str]) -> "Words":
    """The words of a command."""
    from onward.lab.words import Words

    return Words(command, usage, about, arguments)


# list


def list_experiments(arguments: Sequence[str]) -> Work:
    """What `onward list` asks for, to be called; OnwardError where the words do not fit."""
    words = words_of("list", "[FILE.py]", "The experiments: name, and what each is; or the fields of yours.", arguments)
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


def run(arguments: Sequence[str]) -> Work:
    """What `onward run` asks for."""
    from onward.lab.fields import Field

    words = words_of(
        *("run", "EXPERIMENT [--field value ...]"),
        "Run an experiment, or go on with one. Its curves and numbers are in report.html of its folder.\n\n"
        f"The experiments are {', '.join(EXPERIMENTS)}. The fields of one: onward run EXPERIMENT --help.",
        arguments,
    )
    words.add_folder("runs/EXPERIMENT")
    words.add_with()
    words.add_value(
        Field("workers", int), "processes that share the jobs (default: as many as there are cores, where that pays)"
    )
    said = words.take()
    if said.get("workers", 1) < 1:
        raise OnwardError(f"--workers must be at least 1, got {said['workers']}")
    kind = _experiment_among(words, said.get("with", ""))
    if kind:
        words.describe(kind.__doc__ or "")
    words.help_if_asked()
    import_module("onward.lab.results")
    how = {"device": said.get("device", ""), "workers": said.get("workers")}
    if "resume" in said:
        asked = words.finish() if kind else {}
        return partial(_resume, words.folder(said), kind, words, asked, **how)
    if kind is None:
        raise _no_name("run")
    experiment = kind(**words.finish())
    experiment.check()
    folder = words.folder(said, f"runs/{kind.name}")
    return partial(_execute, experiment, folder, replace="replace" in said, **how)


def _resume(folder: Path, kind: "type[Experiment] | None", words: "Words", asked: dict[str, Any], **how: Any) -> int:
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
    return _execute(experiment, folder, resume=True, **how)


def _execute(
    experiment: "Experiment",
    folder: Path,
    *,
    resume: bool = False,
    replace: bool = False,
    device: str = "",
    workers: int | None = None,
) -> int:
    from onward.lab.results import execute, load_summary
    from onward.text import counted

    single = experiment.seeds * max(1, len(experiment.step_sizes)) == 1
    set_up_jax(columns=Process.of_command and experiment.fuse_outputs, single=single, device=device)
    report = execute(experiment, folder, resume=resume, replace=replace, workers=workers)
    summary = load_summary(folder)
    for method in summary["methods"]:
        spread = f"sd {method['std']:.5f}, " if len(method["values"]) > 1 else ""
        print(
            f"{method['name']:14} {method['metric']} {method['mean']:.5f} ({spread}"
            f"{counted(len(method['values']), 'seed')}, {method['steps']:,} steps)"
        )
    print("   ".join(f"{k} {v:.5f}" for k, v in summary["references"].items()))
    print(f"report: {report}")
    return 0


# sweep


def sweep(arguments: Sequence[str]) -> Work:
    """What `onward sweep` asks for."""
    from onward.lab.fields import fields_of
    from onward.lab.sweeps.axes import read_axis
    from onward.lab.sweeps.plan import Options, Range, make_sweep

    words = words_of(
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


# compare


def compare(arguments: Sequence[str]) -> Work:
    """What `onward compare` asks for."""
    words = words_of(
        *("compare", "DIR DIR"),
        "What two runs differ in: their settings, and the finals of every method that both have, seed by seed, with an "
        "interval of the difference. The tables are Markdown.",
        arguments,
    )
    words.finish(most=2)
    if len(words.rest) != 2:
        raise OnwardError(f"compare needs two folders, got {len(words.rest)}; the command is: onward compare DIR DIR")
    return partial(_print_comparison, *map(Path, words.rest))


def _print_comparison(a: Path, b: Path) -> int:
    from onward.lab.outcome import compare

    print(compare(a, b).markdown())
    return 0
