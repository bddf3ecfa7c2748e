"""How a command starts: its options are looked at first, then what it reads, then its folder; and a start that is
refused says one line, makes nothing and deletes nothing.

One table: for every command the options, the sources and the folders that are wrong, each with the words that name it.
Every one of them is tried alone, and every two of different kinds together, where the first kind must be told.
"""

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from onward.cli import COMMANDS, main
from onward.lab import folder as lab_folder
from onward.lab.experiment import config_of
from onward.lab.folder import RunFolder
from onward.lab.papers import kind_of
from onward.lab.sweeps import plan
from onward.rows import learn
from onward.rows.options import Learn

pytestmark = pytest.mark.usefixtures("compile_fast")
LONG = "x" * 300
# What the options, the sources and the folders of a command are, if nothing is said of them.
GOOD = {
    "run": ("run memory --methods rtrl --steps 120", "", "--out new"),
    "sweep": ("sweep memory --methods rtrl --units 2,3 --steps 120", "", "--out new"),
    "learn": ("learn --target y --units 2", "data.csv", "--out new"),
    "serve": ("serve --target y --units 2 --port 0", "", "new"),
    "predict": ("predict", "data.csv", "learn"),
    "report": ("report", "", "run"),
    "compare": ("compare", "", "run run"),
    "verify": ("verify", "", ""),
    "list": ("list", "", ""),
    "data": ("data", "", ""),
}
# What of a source is wrong, whatever reads it.
FILES = {
    "nope.csv": "there is no nope.csv",
    "nowhere/data.csv": "there is no nowhere/data.csv, nor a folder nowhere",
    "mine": "mine is a folder; name a file",
    "empty.csv": "empty.csv is empty",
    "empty.parquet": "empty.parquet is empty",
    LONG: f"cannot read {LONG}",
}
if os.path.exists("/proc/self/mem"):
    FILES["/proc/self/mem"] = "cannot read /proc/self/mem"  # it is there, and reading it fails
# What of a folder is wrong, whatever is to be written there. MINE: of this command; OTHER: of another one.
FOLDERS = {
    "--out file": "file is a file; name a folder",
    "--out file --replace": "file is a file; name a folder",
    "--out file/below": "cannot make the folder file/below",
    "--out new/{LONG}": "cannot make the folder new/x",
    "--out link": "cannot make the folder link",
    "--out mine": "mine is not empty and not a run folder",
    "--out mine --replace": "mine is not empty and not a run folder: --replace will not delete it",
    "--out {OTHER}": "{OTHER} belongs to onward {OTHER}",
    "--out {OTHER} --replace": "{OTHER} belongs to onward {OTHER}",
}
if os.path.exists("/proc"):
    FOLDERS["--out /proc/onward"] = "cannot make the folder /proc/onward"
    FOLDERS["--out /proc/sys"] = "cannot lock /proc/sys"
OCCUPIED = {"--out {MINE}": "{MINE} is not empty: it holds a run already"}
RESUMED = {
    "--resume nowhere": "nowhere is not a run folder: it is not there",
    "--resume mine": "mine is not a run folder: it has no config.json",
    "--resume file": "file is not a run folder: it is a file",
    "--resume {OTHER}": "{OTHER} belongs to onward {OTHER}",
}
READ = {
    "nowhere": "nowhere is not a run folder: it is not there",
    "mine": "mine is not a run folder: it has no config.json",
    "file": "file is ",
    LONG: "is not a run folder",
}
# Of every command: wrong options, wrong sources, wrong folders; and folders in which all is well, to be left as they are.
OPTIONS = {
    "run": {
        "--steps many": "--steps takes a whole number, got 'many'",
        "--steps 0": "--steps must be",
        "--workers 0": "--workers must be at least 1, got 0",
        "--methods rtrll": "there is no method 'rtrll'",
        "--step 10": "no field --step",
        "--device abacus": "--device is cpu, gpu or tpu",
    },
    "sweep": {
        "--units 2,-3": "--units must be positive",
        "--units 2,many": "--units takes a whole number, got 'many'",
        "--workers -1": "--workers must be at least 0",
        "--tile 0": "--tile must be at least 1",
        "--eta 1": "--eta must be at least 2",
        "--device abacus": "--device is cpu, gpu or tpu",
        "--scheduler nonsense": "--scheduler nonsense: neither an address",
    },
    "learn": {
        "--horizon -1": "--horizon must be at least 0",
        "--horizon soon": "--horizon takes a whole number, got 'soon'",
        "--discount 1": "--discount must be in [0, 1)",
        "--network ccn --stages 3": "--stages must divide --units",
        "--unit 3": "did you mean --units?",
        "--device abacus": "--device is cpu, gpu or tpu",
    },
    "serve": {
        "--port 70000": "--port must be from 0 to 65535",
        "--port many": "--port takes a whole number, got 'many'",
        "--host 0.0.0.0": "put a token into a file",
        "--token-file nowhere --host 0.0.0.0": "--token-file nowhere",
        "--most-bytes 0": "--most-bytes must be at least 1",
        "--unit 3": "did you mean --units?",
    },
    "predict": {
        "--out mine": "--out mine: it is a folder",
        "--out nowhere/file.csv": "--out nowhere/file.csv: there is no folder nowhere",
        "--out file/file.csv": "--out file/file.csv: there is no folder file",
        "--out data.csv": "--out data.csv is the source itself",
        "--out learn/config.json": "--out learn/config.json is in learn",
        "--out learn/new.csv": "--out learn/new.csv is in learn",
        "--to file": "no option --to",
    },
    "report": {"--md": "no option --md"},
    "compare": {"--md": "no option --md", "mine": "onward compare"},
    "verify": {"--jsn": "did you mean --json?", "--json --markdown": "choose one", "all": "'all' stands alone"},
    "list": {"all": "'all' stands alone"},
    "data": {
        "lst": "did you mean list?",
        "fetch nope": "unknown data set 'nope'",
        "import digits mine": "digits is embedded",
        "import ../own mine": "cannot be the name of a data set",
        "import own nowhere": "nowhere",
        "import own file": "file",
        "import own empty.csv": "empty.csv",
    },
}
SOURCES = {
    "learn": FILES
    | {
        "data.csv --target z": "data.csv has no column 'z'",
        "data.csv --time when": "data.csv has no column 'when'",
        "data.csv --delimiter ;;": "one character",
        "numbers.csv": "a header is needed",
    },
    "predict": FILES,
}
PLACES = {
    "compare": {f"{words} run": told for words, told in READ.items()}
    | {"run run": "summary.json is missing", "learn run": "learn belongs to onward learn"},
    "run": FOLDERS | OCCUPIED | RESUMED,
    "sweep": FOLDERS | {"--out {MINE}": "{MINE} holds another sweep"},
    "learn": FOLDERS | OCCUPIED | RESUMED,
    "serve": {
        "mine": "mine is not empty and not a run folder: name another folder",
        "file": "file is a file; name a folder",
        "file/below": "cannot make the folder file/below",
        "run": "run belongs to onward run",
        "sweep": "sweep belongs to onward sweep",
    },
    "predict": READ | {"run": "run belongs to onward run", "learn-0": "learn-0 has no checkpoint"},
    "report": READ
    | {"run": "summary.json is missing", "sweep": "plan.json is missing", "learn-0": "summary.json is miss"},
}
# These are wrong with the usual source and folder only.
ALONE = {"--out data.csv", "--out learn/config.json", "--out learn/new.csv"}
# What only the folder of a resumed run can say: of these two faults the folder is told.
BY_FOLDER = {"--steps 0", "--methods rtrll", "--horizon -1", "--discount 1", "--network ccn --stages 3", "numbers.csv"}
BY_FOLDER |= {words for words in SOURCES["learn"] if words.startswith("data.csv")}
LEFT = {"run": ["--out run --replace"], "sweep": ["--out sweep --replace", "--out sweep"],
        "learn": ["--out learn --replace", "--resume learn"]}  # fmt: skip
OTHER = {"run": "learn", "sweep": "run", "learn": "sweep"}


# What fits none of these.
ALSO = [
    ("predict data.csv learn", "learn is a folder; name a file, after the run folder: onward predict FOLDER SOURCE"),
    (
        "learn learn/predictions.csv --target target --out learn --replace",
        "--replace would delete learn/predictions.csv",
    ),
    ("run memory --resume run --replace", "choose one"),
    ("run memory --resume run --out new", "leave out --out"),
    ("run memory --resume run --steps 240", "run was run with --steps 120, not 240"),
    ("learn data.csv --target y --resume learn --horizon 2", "learn was run with --horizon 1, not 2"),
    ("learn data.csv --target x --resume learn", "learn was run with --target y, not x"),
    ("serve learn --target x --port 0", "learn was run with --target y, not x"),
    ("serve new --target y --horizon -1 --port 0", "--horizon must be at least 0"),
    ("serve new --port 0", "--target: name the column to predict"),
    ("serve new --target y --by x --workers 2 --port 0", "a service learns in one process"),
]


def starts():
    """(command, words, what must be told) of every start that is to be refused."""
    yield from ((line.split()[0], line.split(), told) for line, told in ALSO)
    for command, good in GOOD.items():
        names = {"MINE": command, "OTHER": OTHER.get(command, ""), "LONG": LONG}
        tables = [table.get(command, {}) for table in (OPTIONS, SOURCES, PLACES)]
        tables = [{words.format(**names): told.format(**names) for words, told in table.items()} for table in tables]

        def line(parts, good=good, command=command):
            options, source, place = (parts.get(i, good[i]) for i in range(3))
            if 0 in parts:
                options = f"{good[0]} {options}"
            order = (options, place, source) if command == "predict" else (options, source, place)
            words = " ".join(order).split()
            for option in ("--units", "--target", "--methods", "--steps", "--port"):  # the last one counts
                at = [i for i, word in enumerate(words) if word == option]
                for i in reversed(at[:-1]):
                    del words[i : i + 2]
            return words

        for i, table in enumerate(tables):
            for words, told in table.items():
                yield command, line({i: words}), told
        for i, j in combinations(range(3), 2):
            for words, told in tables[i].items():
                for also in [*tables[j], *(LEFT.get(command, ()) if j == 2 else ())]:
                    by_folder = words in BY_FOLDER and also.startswith("--resume") and also in tables[j]
                    if words not in ALONE:
                        yield command, line({i: words, j: also}), tables[j][also] if by_folder else told


def tree(place):
    """Names, kinds, bytes and times of all that is there."""
    found = {}
    for path in sorted(place.rglob("*")):
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        found[str(path.relative_to(place))] = (
            kind,
            *((path.read_bytes(), path.stat().st_mtime_ns) if kind == "file" else ()),
        )
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A person's folder: tables, good and bad, folders of runs, and what is none of ours."""
    place = tmp_path_factory.mktemp("place")
    before = Path.cwd()
    os.chdir(place)
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("mine")
    Path("file").write_text("mine")
    Path("link").symlink_to("gone")
    Path("data.csv").write_text("y,x\n" + "1,2\n3,5\n" * 10)
    Path("numbers.csv").write_text("1,2\n3,4\n")
    Path("empty.csv").write_text("")
    Path("empty.parquet").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab_folder, "environment", lambda: {"python": "3"})
        memory = kind_of("memory")(methods=("rtrl",), steps=120)
        with RunFolder(Path("run"), "run") as folder:
            folder.begin(config_of(memory), experiment="memory")
            folder.append("metrics.jsonl", "one\n")
        sweep = plan.make_sweep(memory, {"units": [4, 5]}, plan.Options())
        with RunFolder(Path("sweep"), "sweep") as folder:
            more = {"experiment": "memory", "settings": {"columns": False, "single": False}}
            folder.begin(sweep.as_dict(), **more)
        with RunFolder(Path("learn-0"), "learn") as folder:
            folder.begin(learn.as_json(Learn(target=("y",), units=2)), source="data.csv")
        learn.learn(Learn(target=("y",), units=2), "data.csv", Path("learn"))
    yield place
    os.chdir(before)


@pytest.mark.parametrize("command", GOOD)
def test_a_start_that_is_refused_names_the_first_fault_and_leaves_all_as_it_was(command, place, capsys, monkeypatch):
    monkeypatch.setenv("ONWARD_DATA", str(place / "file" / "data"))
    assert {*GOOD} == {*COMMANDS}
    before, wrong = tree(place), []
    capsys.readouterr()
    for _, words, told in (start for start in starts() if start[0] == command):
        status = main(words)
        out, err = capsys.readouterr()
        good = status == 1 and not out and err.startswith("onward: ") and len(err.splitlines()) == 1 and told in err
        if not good:
            wrong.append(f"{' '.join(words)}\n  said {status}: {out}{err}  wanted: {told}".replace(LONG, "LONG"))
        if tree(place) != before:
            changed = {name for name, _ in {*tree(place).items()} ^ {*before.items()}}
            wrong.append(f"{' '.join(words)}\n  changed {sorted(changed)}")
            break
    assert not wrong, "\n".join([f"{len(wrong)} of the starts:", *wrong[:40]])


@pytest.mark.interfaces
@pytest.mark.parametrize(
    "words",
    ["run memory --out file", "learn data.csv --target y --out /proc/onward", "predict data.csv learn", "report mine"],
)
def test_a_process_of_its_own_says_the_line_too(words, place):
    before = tree(place)
    ended = subprocess.run([sys.executable, "-m", "onward.cli", *words.split()], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("onward: ")
    assert len(ended.stderr.splitlines()) == 1
    assert tree(place) == before
