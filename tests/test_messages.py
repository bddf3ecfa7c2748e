"""What the command line says: over all commands and all fields, in the words of the field and none of the parser's."""

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from onward.cli import COMMANDS, main, read
from onward.errors import OnwardError
from onward.lab.fields import fields_of
from onward.lab.papers import EXPERIMENTS, kind_of
from onward.lab.sweeps.plan import Options
from onward.lab.words import SYNONYMS
from onward.rows.options import Learn

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_experiment.py"
# What has fields: the words before them, and the class.
SUBJECTS = {
    **{f"run {name}": kind_of(name) for name in EXPERIMENTS},
    "learn rows.csv --target y": Learn,
    "sweep memory --units 2": Options,
}
FIELDS = [(line, field) for line, kind in SUBJECTS.items() for field in fields_of(kind) if field.name != "target"]
JARGON = re.compile(
    r"argument|invalid|expected|unrecogni[sz]ed|usage:|required:|ambiguous|Namespace|nargs|dest\b|Error\b|<class|(?-i:None)\b",
    re.IGNORECASE,
)
JUNK = [
    "--",
    "--=3",
    "---",
    "-x",
    "--x=",
    "\u2013\u2013steps",
    "=",
    "''",
    "- -",
    "--steps=a=b",
    "--no-steps 3",
    "--help=3",
]
ids = lambda pairs: [f"{line}: {field.name}" for line, field in pairs]


def refused(words):
    """The one line that words are refused with."""
    with pytest.raises(OnwardError) as caught:
        read(words)
    said = str(caught.value)
    assert "\n" not in said
    assert not JARGON.search(said), said
    return said


def helped(line, capsys):
    assert main([*line.split(), "--help"]) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("line", "field"), FIELDS, ids=ids(FIELDS))
def test_what_a_field_does_not_take_is_refused_in_plain_words(line, field):
    words = line.split()
    if field.switch:
        positive, negative = field.option, f"--no-{field.option[2:]}"
        assert refused([*words, f"{positive}=3"]) == f"{positive}/{negative} takes no value"
        assert refused([*words, positive, negative]) == f"{positive} is given twice"
        return
    assert refused([*words, field.option]) == f"{field.option} takes {field.takes}, got nothing"
    good = [*map(str, field.default)] if isinstance(field.default, tuple) else [str(field.default).lower()]
    good = good if good != [""] else ["1"]
    assert (
        refused([*words, field.option, *(good or ["1"]), field.option, *(good or ["1"])])
        == f"{field.option} is given twice"
    )
    if field.scalar is not str:
        said = refused([*words, field.option, "x?"])
        assert said.startswith(f"{field.option} takes {field.takes}, got ")
        assert all(choice in said for choice in get_args(field.scalar))


@pytest.mark.parametrize("line", SUBJECTS)
def test_help_lists_what_a_field_may_be(line, capsys):
    """The choices of every field that has some, every method, and every default."""
    said, kind = helped(line, capsys), SUBJECTS[line]
    parts = {}
    for field in fields_of(kind):
        part = parts[field.name] = said[said.index(f" {field.option} " if not field.switch else f" {field.option}, ") :]
        if choices := get_args(field.scalar):
            assert part.startswith(f" {field.option} {{{','.join(choices)}}} "), part[:80]
        if field.usual:
            assert field.usual in part
    if "run" in line:
        assert all(name in parts["methods"][: len(", ".join(kind.all_methods())) + 200] for name in kind.all_methods())
    assert "True" not in said
    assert "None" not in said.replace("None:", "")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("junk", JUNK)
def test_nonsense_is_refused_in_plain_words(command, junk):
    refused([command, *3 * shlex.split(junk)])


# A field's own name is never taken for another's synonym.
PAIRS = [
    (line, word)
    for line, kind in SUBJECTS.items()
    for word in SYNONYMS
    if word.replace("-", "_") not in {field.name for field in fields_of(kind)}
]


def meant(kind, word):
    return [field for field in fields_of(kind) if field.name in SYNONYMS[word]]


@pytest.mark.parametrize(("line", "word"), PAIRS, ids=[f"{line}: {word}" for line, word in PAIRS])
def test_a_synonym_is_the_field_it_means(line, word, capsys):
    words = line.split()
    fields = meant(SUBJECTS[line], word)
    if not fields:
        if not (words[0] == "sweep" and meant(kind_of("memory"), word)):
            assert "has no field --" in refused([*words, f"--{word}", "1"])
        return
    options = [field.option for name in SYNONYMS[word] for field in fields if field.name == name]
    if len(fields) > 1:
        assert refused([*words, f"--{word}", "1"]).endswith(f": --{word} may be {' or '.join(options)}: say which")
        return
    (field,) = fields
    value = str(2 * field.default) if field.scalar is int else "0.5"
    known = read([*words, field.option, value]).args
    assert known != read(words).args
    for said in ([f"--{word}", value], [f"--{word}={value}"], [f"--{word.replace('-', '_')}", value]):
        assert read([*words, *said]).args == known
    assert refused([*words, f"--{word}", value, field.option, value]) == f"--{word}: {field.option} is given twice"
    assert refused([*words, f"--{word}=x?"]) == f"--{word}: {field.option} takes {field.takes}, got 'x?'"
    assert refused([*words, f"--{word}"]) == f"--{word}: {field.option} takes {field.takes}, got nothing"
    assert f"--{word}" in re.search(rf" {field.option} .*? Also ([^.]*)\.", helped(line, capsys))[1]


def test_every_synonym_means_something_and_some_mean_two_things():
    found = {word: max(len(meant(kind, word)) for kind in SUBJECTS.values()) for word in SYNONYMS}
    assert min(found.values()) == 1
    assert found["hidden"] == 2


def test_a_field_of_one_s_own_comes_before_a_synonym(tmp_path, monkeypatch):
    """And a word that two fields may be meant by is refused with both."""
    text = EXAMPLE.read_text()
    first = re.search(r"^    (\w+): int = .*$", text, re.MULTILINE)[0]
    own = {"lr": 4, "gamma": 5, "discount": 6, "step_size": 7}
    more = "".join(f'    {name}: int = {value}\n    """Of mine."""\n' for name, value in own.items())
    (tmp_path / "mine.py").write_text(text.replace(first, more + first, 1))
    monkeypatch.chdir(tmp_path)
    for name in own:
        (mine,) = read(["run", "mine.py", f"--{name.replace('_', '-')}", "99"]).args[:1]
        assert {each: getattr(mine, each) for each in own} == own | {name: 99}
    assert "--learning-rate may be --step-size or --step-sizes: say which" in refused(
        ["run", "mine.py", "--learning-rate", "7"]
    )


def test_onward_alone_shows_five_things_that_one_can_do(capsys):
    assert main([]) == 2
    said = capsys.readouterr().out
    things = [line.split("  ")[1] for line in said.splitlines() if line.startswith("  onward ")]
    assert len(things) == 5
    assert {thing.split()[1] for thing in things} == {"run", "sweep", "learn", "verify"}
    for thing in things:
        thing = (
            thing.replace("FILE.py", str(EXAMPLE))
            .replace("EXPERIMENT", "memory")
            .replace("--field v1,v2", "--units 2,3")
        )
        assert callable(read(thing.split()[1:]))
    assert max(map(len, said.splitlines())) <= 110
