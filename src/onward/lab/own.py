"""Experiments and methods of a person's own file: loaded, kept in the folder of a run, compared with what they were."""

import contextlib
import difflib
import hashlib
import linecache
import re
import sys
import traceback
import types
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import isabstract, isfunction
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from onward.errors import OnwardError, require_known

# Between a paper's experiment and the file of a method that is added to it.
WITH = "+"
# Words of the command line, which no field may be called.
_TAKEN = ("out", "replace", "resume", "device", "with", "help")
_SHOWN = 12


class Reference(NamedTuple):
    """How an experiment is named: one of a paper, a class of a file, or a paper's with a method of a file."""

    paper: str
    file: str = ""
    name: str = ""

    @classmethod
    def of(cls, text: str) -> "Reference":
        """From `memory`, `FILE.py`, `FILE.py:NAME` or `memory+FILE.py:NAME`."""
        paper, _, file = text.partition(WITH)
        if not re.fullmatch(r"[a-z0-9-]+", paper):
            paper, file = ("", text) if is_file(text) else (text, "")
        place, colon, name = file.rpartition(":")
        return cls(paper, place, name) if colon and place.endswith(".py") else cls(paper, file)

    def __str__(self) -> str:
        file = f"{Path(self.file).name}:{self.name}" if self.file else ""
        return WITH.join(filter(None, (self.paper, file)))


class Source(NamedTuple):
    """A person's file, as it was when it was loaded."""

    path: Path
    text: str

    @property
    def digest(self) -> str:
        """Of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def is_file(word: str) -> bool:
    """Whether a word names a Python file, or something in one, rather than an experiment of a paper."""
    return word.endswith(".py") or word.rpartition(":")[0].endswith(".py")


def experiment(reference: Reference, home: Path) -> Any:
    """The class of an experiment in a file; `home`: the folder that a relative path is of.

    OnwardError in one line, which names the file and the line in it, where there is no such file, where Python does
    not run it, and where what it holds is no experiment that can be run.
    """
    from onward.lab.experiment import Experiment

    module, source = loaded(home / reference.file)
    its_own = lambda value: isinstance(value, type) and value.__module__ == module.__name__
    found = {n: v for n, v in vars(module).items() if its_own(v) and issubclass(v, Experiment) and n == v.__name__}
    whole = {name: kind for name, kind in found.items() if not isabstract(kind) and not name.startswith("_")}
    if reference.name:
        require_known(f"experiment in {source.path}", reference.name, found)
        kind = found[reference.name]
    elif len(whole) > 1:
        raise OnwardError(f"{source.path} holds several experiments, {', '.join(whole)}: say which, FILE.py:NAME")
    elif not found:
        raise OnwardError(
            f"{source.path} holds no experiment: a class that derives from onward.lab.experiment.StreamExperiment"
        )
    else:
        kind = next(iter(whole.values()), None) or next(iter(found.values()))
    _require_sound(kind, source.path)
    kind.reference, kind.source = str(reference._replace(paper="", name=kind.__name__)), source
    if not hasattr(kind.build, "its_own"):
        its_build = kind.build

        def build(self: Any, name: str) -> Any:
            return _checked(its_build, source.path, self, name, name=name)

        build.its_own = its_build  # type: ignore[attr-defined]
        kind.build = build
    return kind


def with_method(kind: Any, reference: Reference, home: Path) -> Any:
    """An experiment of a paper with one more method: a function of a file, which takes the experiment to a `Method`.

    It runs beside the paper's own default ones, where `methods` does not say which.
    The method is called as the function. Its step size is the function's attribute `step_size`, 1e-3 where it has none.
    OnwardError as by `experiment`.
    """
    from onward.lab.experiment import Experiment

    module, source = loaded(home / reference.file)
    found = {n: v for n, v in vars(module).items() if isfunction(v) and v.__module__ == module.__name__}
    if not reference.name:
        raise OnwardError(f"--with {source.path}: say which function makes the method, FILE.py:NAME")
    require_known(f"function in {source.path}", reference.name, found)
    function, name = found[reference.name], reference.name.replace("_", "-")
    if name in kind.all_methods():
        raise OnwardError(f"--with {source.path}: {kind.name} has a method {name} already; give yours another name")

    def build(self: Any, row: str) -> Any:
        return _checked(function, source.path, self, name=row) if row == name else kind.build(self, row)

    def default_step_size(self: Any, row: str) -> float:
        return float(getattr(function, "step_size", 1e-3)) if row == name else kind.default_step_size(self, row)

    def tile_of(self: Any, row: str) -> int:
        return build(self, row).tile if row == name else kind.tile_of(self, row)  # type: ignore[no-any-return]

    content = {
        "methods": (*kind.methods, name),
        "__annotations__": {"methods": tuple[str, ...]},
        "all_methods": classmethod(lambda cls: (*kind.all_methods(), name)),
        "build": build,
        "default_step_size": default_step_size,
        "tile_of": tile_of,
        "reference": str(reference),
        "source": source,
        "figures": Experiment.figures,  # those of the paper know its own methods only
        **{each: getattr(kind, each) for each in ("name", "title", "__doc__", "__module__")},
    }
    return dataclass(frozen=True, kw_only=True)(type(kind.__name__, (kind,), content))


def _checked(function: Any, path: Path, *arguments: Any, name: str) -> Any:
    """The method of this name that a person's function makes; what is wrong with it is said in one line."""
    from dataclasses import replace

    from onward.lab.method import Method
    from onward.tasks.base import AbstractTask

    with in_file(path):
        method = function(*arguments)
    if not isinstance(method, Method):
        raise OnwardError(f"{path}: {function.__name__} must return a Method, not {type(method).__name__}")
    if not isinstance(method.task, AbstractTask):
        raise OnwardError(f"{path}: the task of {name} is {method.task!r}: it must be a task (onward.AbstractTask)")

    def model(key: Any) -> Any:
        with in_file(path):
            return method.model(key)

    def learner(model: Any, step_size: Any) -> Any:
        with in_file(path):
            return method.learner(model, step_size)

    def measure(example: Any, info: Any) -> Any:
        with in_file(path):
            found = method.measure(example, info)
        shapes = [getattr(part, "shape", ()) for part in found] if isinstance(found, tuple) else None
        if shapes != [(), ()]:
            got = "one value" if shapes is None else f"values of shapes {', '.join(map(str, shapes))}"
            raise OnwardError(
                f"{path}: measure of {name} must return two numbers, a metric and its weight; it returns {got}"
            )
        return found

    return replace(method, name=name, model=model, learner=learner, measure=measure)


def kept_of(kind: Any) -> dict[str, Any]:
    """What a folder's config.json says of the file of an experiment; of a paper's nothing."""
    source: Source | None = kind.source
    return {} if source is None else {"file": {"path": str(source.path.resolve()), "digest": source.digest}}


def keep(kind: Any, folder: Path) -> None:
    """Copy the file of an experiment into the folder of a run."""
    from onward import saving

    if kind.source is not None:
        saving.write_bytes(folder / kind.source.path.name, kind.source.text.encode())


class _Kept(TypedDict):
    path: str
    digest: str


def require_kept(kind: Any, config: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on in a folder with another file than it was begun with, and show how they differ."""
    from onward import saving

    source: Source | None = kind.source
    if source is None:
        return
    copy = folder / source.path.name
    saving.check_meta(config.get("file"), _Kept, f"{folder / 'config.json'}, file")
    with saving.reading(copy):
        kept = copy.read_text(encoding="utf-8")
    if Source(copy, kept).digest != config["file"]["digest"]:
        raise OnwardError(f"{copy} was changed since the run began: put back what it was, or start anew")
    _same(source, kept, folder)


def require_original(kind: Any, config: Mapping[str, Any], folder: Path) -> None:
    """The same of the file that an experiment was copied from, where that is still there."""
    if kind.source is not None and (path := Path(config["file"]["path"])).is_file():
        _same(Source(path, path.read_text(encoding="utf-8", errors="replace")), kind.source.text, folder)


def _same(source: Source, kept: str, folder: Path) -> None:
    if source.text != kept:
        raise OnwardError(
            f"{source.path} was changed since the run in {folder} began. Start anew in another --out, or go on with "
            f"what it was: onward run {folder / source.path.name} --resume {folder}\n{_difference(kept, source.text)}"
        )


def _difference(before: str, now: str) -> str:
    lines = [*difflib.unified_diff(before.splitlines(), now.splitlines(), "was", "is", lineterm="", n=0)][2:]
    changed = [line for line in lines if not line.startswith("@@")]
    more = [f"  ... and {len(changed) - _SHOWN} lines more"] if len(changed) > _SHOWN else []
    return "\n".join([*(f"  {line}" for line in changed[:_SHOWN]), *more])


def loaded(path: Path, what: str = "an experiment") -> tuple[types.ModuleType, Source]:
    """The module that a file makes, loaded once, and its text; `what` it should hold, if it is not there."""
    if not path.is_file():
        raise OnwardError(f"{path} is not there: name a Python file that holds {what}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OnwardError(f"cannot read {path}: {error}") from None
    source = Source(path, text)
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"onward_own_{place}_{source.digest}"
    if name in sys.modules:
        return sys.modules[name], source
    module = types.ModuleType(name)
    module.__file__ = str(path)
    linecache.checkcache(str(path))
    sys.modules[name] = module
    try:
        with in_file(path), contextlib.redirect_stdout(sys.stderr):
            exec(compile(text, str(path), "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module, source


@contextlib.contextmanager
def in_file(path: Path) -> Any:
    """Errors of a person's file in one line, with the line in it."""
    try:
        yield
    except (OnwardError, KeyboardInterrupt):
        raise
    except SyntaxError as error:
        raise OnwardError(f"{path}, line {error.lineno}: {error.msg}") from None
    except ModuleNotFoundError as error:
        raise OnwardError(
            f"{path}, line {_line(error, path)}: it imports {error.name}, which is not installed here. An experiment "
            "is one file, which is copied into the folder of its run: what else it needs must be an installed package"
        ) from error
    except (Exception, SystemExit) as error:
        raise OnwardError(f"{path}, line {_line(error, path)}: {type(error).__name__}: {error}") from error


def _line(error: BaseException, path: Path) -> int:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] or 0 if lines else 0


def _require_sound(kind: Any, path: Path) -> None:
    """Refuse a class that cannot be an experiment, by name of what it lacks."""
    import dataclasses

    from onward.lab.fields import fields_of
    from onward.lab.sweeps.plan import Options

    name = kind.__name__
    if isabstract(kind):
        raise OnwardError(f"{path}: {name} lacks {', '.join(sorted(kind.__abstractmethods__))}")
    if "__dataclass_params__" not in vars(kind):
        raise OnwardError(f"{path}: write @dataclass(frozen=True, kw_only=True) above class {name}")
    try:
        fields = list(fields_of(kind))
    except (TypeError, NameError, ValueError) as error:
        raise OnwardError(
            f"{path}: {error}. A field is a bool, an int, a float, a str, a Literal of words, or a tuple of them"
        ) from None
    for each in dataclasses.fields(kind):
        if each.default is dataclasses.MISSING:
            raise OnwardError(f"{path}: {name}.{each.name} needs a default")
    taken = {*_TAKEN, *(field.name for field in fields_of(Options))}
    if both := sorted({field.name for field in fields} & taken):
        raise OnwardError(f"{path}: {name}.{both[0]} is an option of every experiment: give the field another name")
    for field in fields:
        try:
            field.take(_plain(field.default), str(path))
        except OnwardError:
            raise OnwardError(
                f"{path}: {name}.{field.name} takes {field.takes}, and its default is {field.default!r}"
            ) from None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
