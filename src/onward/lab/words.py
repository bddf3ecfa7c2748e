"""The words of a command line: options are taken from them, and what is left are names."""

import argparse
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from onward.devices import require_device
from onward.errors import OnwardError, nearest
from onward.lab.fields import Field, explained, fields_of, split

HELP = ("-h", "--help")
# Before a number, which else might be taken for an option; no word of a shell holds it.
NUMBER = "\0"
# What people of the field also call a field: the fields that it may mean. Help names them.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "lambda": ("trace_decay",),
    "gamma": ("discount",),
    "lr": ("step_size", "step_sizes"),
    "learning-rate": ("step_size", "step_sizes"),
    "hidden": ("units", "columns"),
    "batch-size": ("batch",),
}


class Words(argparse.ArgumentParser):
    """The words of one command.

    Arguments: the command; what follows it, as help shows it; what it does, in paragraphs; the words. Those that have
    not been taken are in `rest`.
    """

    def __init__(self, command: str, usage: str, about: str, words: Sequence[str]):
        super().__init__(
            prog=f"onward {command}",
            usage=f"%(prog)s {usage}".strip(),
            add_help=False,
            allow_abbrev=False,
            exit_on_error=False,
            formatter_class=_Whole,
        )
        self.describe(about)
        self.command = command
        self.asks_help = any(word in HELP for word in words)
        self.rest = [word for word in words if word not in HELP]
        self.has = "option"
        self.takes: dict[str, str] = {}
        self.meant: dict[str, list[str]] = {}
        self.known = list(HELP)
        self.add_argument(*HELP, action="store_true", help="show this, and do nothing else", default=argparse.SUPPRESS)

    def narrow(self, name: str) -> None:
        """From now on these words are about one subject of the command."""
        self.prog, self.command = f"{self.prog} {name}", f"{self.command} {name}"
        self.usage = "%(prog)s [--field value ...]"

    def describe(self, about: str) -> None:
        """What help says first, in paragraphs."""
        self.description = "\n\n".join(
            textwrap.fill(" ".join(part.split()), 80, break_on_hyphens=False) for part in about.split("\n\n")
        )

    def add_flag(self, name: str, about: str) -> None:
        """An option that is said or not."""
        self.known.append(f"--{name}")
        self.add_argument(f"--{name}", action="store_true", help=about, default=argparse.SUPPRESS)

    def add_value(
        self, field: Field, about: str, *, read: Callable[[list[str]], object] | None = None, several: bool = False
    ) -> None:
        """An option that takes a word, or one or more where there may be `several`; `read` reads them, or the field."""
        names = [field.option, f"--no-{field.option[2:]}"] if field.switch else [field.option]
        self.known += names
        if not field.switch:
            self.takes[field.option] = field.takes
        count: str | int | None = ("*" if several else 0) if field.switch else ("+" if several else None)
        self.add_argument(
            *names,
            action=_Once,
            nargs=count,
            read=read or field.read,
            dest=field.name,
            metavar=field.metavar,
            help=f"{about}{field.usual}".replace("%", "%%"),
            default=argparse.SUPPRESS,
        )

    def add_fields(
        self,
        kind: type,
        *,
        commas: bool = True,
        read: Callable[[Field, Sequence[str]], object] | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """An option for every field of a dataclass.

        Arguments: whether a comma separates the values of a field that takes several; how words are read, if not as
        the field does; what help says besides, by the name of the field.
        """
        self.has = "field"
        lines = explained(kind) if self.asks_help else {}
        fields = list(fields_of(kind))
        meant = _meant(fields)
        self.meant |= meant
        self.known += meant
        for field in fields:
            how: Callable[[list[str]], object] = field.read
            if read:
                how = partial(read, field)
            elif commas and field.count != 1:
                how = partial(_read_split, field)
            also = ", ".join(word for word, options in meant.items() if options == [field.option])
            parts = (lines.get(field.name), (more or {}).get(field.name), also and f"Also {also}.")
            about = " ".join(filter(None, parts))
            self.add_value(field, about, read=how, several=read is not None or field.count != 1)

    def add_folder(self, usual: str, *, runs: bool = True) -> None:
        """Options for where to, `usual` if left out; where a command `runs`, also for where to go on, and on what."""
        self.add_value(Field("out", what="a folder"), f"where to (default: {usual})")
        self.add_flag("replace", "delete an older run there")
        if runs:
            self.add_value(Field("resume", what="a folder"), "go on with the run there, after a stop")
            self.add_value(Field("device", what="a device"), "cpu, gpu or tpu, or one of several: gpu:1")

    def add_with(self) -> None:
        """An option for a method of one's own."""
        about = "one more method: FILE.py:NAME, a function that takes the experiment and returns a Method"
        self.add_value(Field("with", what="a file"), about)

    @staticmethod
    def folder(said: Mapping[str, Any], usual: str = "") -> Path:
        """Where to, or where to go on; OnwardError where both are said, or a device that is none."""
        require_device(said.get("device", ""))
        if "resume" not in said:
            return Path(said.get("out", usual))
        if said["resume"] != said.get("out", said["resume"]):
            raise OnwardError("--resume goes on in its own folder: leave out --out")
        if "replace" in said:
            raise OnwardError("--resume goes on, --replace starts anew: choose one")
        return Path(said["resume"])

    def take(self) -> dict[str, Any]:
        """Values of the options that were said, of those added until now."""
        words = [_plain(word) for word in self.rest]
        try:
            said, rest = self._parsed([self._as_known(word) for word in words])
        except OnwardError as error:  # of a synonym: it says which field that is
            raise OnwardError(f"{self._written(words, str(error))}{error}") from None
        self.rest = [word.removeprefix(NUMBER) for word in rest]
        return vars(said)

    def _parsed(self, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
        try:
            return self.parse_known_args(words)
        except argparse.ArgumentError as error:  # the number of words: all else is read, and refused, by the fields
            name = str(error.argument_name)
            allowed = self.takes.get(name)
            raise OnwardError(f"{name} takes {allowed}, got nothing" if allowed else f"{name} takes no value") from None

    def _as_known(self, word: str) -> str:
        """With the name of the field, where it begins with what people also call that."""
        option, equals, value = word.partition("=")
        options = self.meant.get(option, [])
        return f"{options[0]}{equals}{value}" if len(options) == 1 else word

    def _written(self, words: Sequence[str], error: str) -> str:
        """The synonym among the words for the option that an error begins with; nothing where it is that option."""
        options = [word.partition("=")[0] for word in words]
        said = [option for option in options if self._as_known(option) == error.split()[0] != option]
        return f"{said[0]}: " if said else ""

    def help_if_asked(self) -> None:
        """Help, which ends the program."""
        if self.asks_help:
            self.print_help()
            self.exit()

    def finish(self, most: int = 0) -> dict[str, Any]:
        """As `take`, all options added, after help; OnwardError for an unknown option, or over `most` other words."""
        self.help_if_asked()
        said = self.take()
        for word in self.rest:
            if word.startswith("-") and word != "-" and not _is_negative(word):
                option = word.partition("=")[0]
                if option in self.meant:
                    raise OnwardError(f"{self.command}: {option} may be {' or '.join(self.meant[option])}: say which")
                near = nearest(option, self.known)
                hint = f"did you mean {near}?" if near else f"see {self.prog} --help"
                raise OnwardError(f"{self.command} has no {self.has} {option}; {hint}")
        if len(self.rest) > most:
            raise OnwardError(f"{self.command}: {self.rest[most]!r} stands alone; see {self.prog} --help")
        return said


class _Whole(argparse.RawDescriptionHelpFormatter):
    """Breaks no line within a name, so that names can be copied."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


class _Once(argparse.Action):
    """Reads the value of an option, and refuses a second one."""

    def __init__(self, read: Callable[[list[str]], object], **options: Any):
        super().__init__(**options)
        self.read = read

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        words = [values] if isinstance(values, str) else list(values)
        if not words:  # a switch
            words = ["false" if option and option.startswith("--no-") else "true"]
        if hasattr(namespace, self.dest):
            raise OnwardError(f"{self.option_strings[0]} is given twice")
        setattr(namespace, self.dest, self.read([word.removeprefix(NUMBER) for word in words]))


def _meant(fields: Sequence[Field]) -> dict[str, list[str]]:
    """The synonyms that may stand for these fields, none of which they are the names of, and the options they mean."""
    names = {field.name: field.option for field in fields}
    found = {f"--{word}": [names[name] for name in means if name in names] for word, means in SYNONYMS.items()}
    return {word: options for word, options in found.items() if options and word not in names.values()}


def _read_split(field: Field, words: Sequence[str]) -> object:
    return field.read(split(words))


def _plain(word: str) -> str:
    """As argparse takes it as it is meant: options with dashes, and a negative number marked as no option."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return f"{name.replace('_', '-')}{equals}{value}"
    return NUMBER + word if _is_negative(word) else word


def _is_negative(word: str) -> bool:
    """Whether it is a negative number, or begins with one as `-1..2` and `-1,2` do."""
    return word.startswith("-") and (word[1:2].isdigit() or word[1:].startswith((".", "inf", "nan")))
