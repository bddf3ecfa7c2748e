"""Imports point one way, at the top of modules and inside functions alike, only reports draw, and little stands between
a command and the gradient.
"""

import ast
import sys
from pathlib import Path

import pytest

from onward import cli

SRC = Path(__file__).parents[1] / "src" / "onward"
# Each room may import from those below it.
ROOMS = [
    {"cli"},
    {"adapters"},
    {"lab", "rows"},
    {"verify"},
    {"fitting"},
    {"loop", "saving"},
    {"learners", "tasks"},
    {"objectives", "credit"},
    {"model"},
    {"cells", "heads"},
    {"types", "trees", "batching", "random", "errors", "devices", "text"},
]
RANK = {name: i for i, room in enumerate(ROOMS) for name in room}
# What rows take from the lab: the run folder, what a person sees of a run, and processes that share work.
SHARED = {"folder", "signals", "page", "progress", "cluster"}


def public_names():
    """The dotted name behind each public one."""
    lines = [node for node in ast.parse((SRC / "__init__.pyi").read_text()).body if isinstance(node, ast.ImportFrom)]
    return {a.name: ".".join(filter(None, ("onward", n.module, a.name))) for n in lines for a in n.names}


def imports():
    """(file, its parts, the dotted name it imports) of every import, wherever it stands; of `ow.X` what X stands for."""
    public = public_names()
    for path in SRC.rglob("*.py"):
        parts = path.relative_to(SRC).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: imports are absolute"
                names = [f"{node.module}.{a.name}" for a in node.names]
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ow":
                names = [public[node.attr]]
            yield from ((path, parts, name.split(".")[1:]) for name in names if name.startswith("onward."))


def test_imports_point_one_way():
    seen = 0
    for path, parts, name in imports():
        mine, other = RANK.get(parts[0]), RANK.get(name[0])
        if parts == ("__init__",) or other is None:
            continue
        seen += 1
        assert mine is not None, f"{path}: which room is it in?"
        assert other >= mine, f"{path} imports onward.{'.'.join(name)}, which lies above it"
    assert seen > 300


def test_rows_and_lab_share_the_folder_only():
    for path, parts, name in imports():
        if parts[0] == "rows" and name[0] == "lab":
            assert set(name[1:2]) <= SHARED, f"{path} imports onward.{'.'.join(name)}"
        assert not (parts[0] == "lab" and name[0] == "rows"), f"{path} imports onward.{'.'.join(name)}"


def test_modules_that_learn_do_not_draw():
    for path in SRC.rglob("*.py"):
        top = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = {(n.module or "") if isinstance(n, ast.ImportFrom) else n.names[0].name for n in top}
        draws = path.stem in ("page", "figures", "report") or path.stem.endswith("_figures")
        assert draws or not any(n.startswith("matplotlib") for n in names), path


# The last call that is counted, and how many of ours it is from the command line, itself included.
DEPTHS = {
    "run": {"credit/columnwise.py:advance": 13, "credit/columnwise.py:pull": 15, "learners/online.py:_update": 12},
    "learn": {"credit/columnwise.py:advance": 16, "learners/online.py:_update": 14},
}


class Counted(BaseException):
    """All was counted; the command need not go on."""


@pytest.mark.parametrize("command", DEPTHS)
def test_little_stands_between_a_command_and_the_gradient(command, tmp_path):
    """Every layer costs the one who reads a traceback; counted while the program is traced."""
    depths, here = {}, str(SRC) + "/"

    def count(frame, event, _):
        name = frame.f_code.co_filename.removeprefix(here) + ":" + frame.f_code.co_name
        if event == "call" and name in DEPTHS[command]:
            ours = []
            while frame:
                if frame.f_code.co_filename.startswith(here):
                    ours.append(frame.f_code.co_name)
                frame = frame.f_back
            if "record" not in ours:  # which the run of a paper does besides
                depths.setdefault(name, len(ours))
            if len(depths) == len(DEPTHS[command]):
                sys.setprofile(before)
                raise Counted

    words = ["trace-patterning", "--methods", "columnar", "--seeds", "1", "--steps", "20"]
    if command == "learn":
        rows = tmp_path / "rows.csv"
        rows.write_text("y,x\n" + "".join(f"{i % 7},{i}\n" for i in range(40)))
        words = [str(rows), "--target", "y", "--units", "3"]
    before = sys.getprofile()
    sys.setprofile(count)
    with pytest.raises(Counted):
        cli.main([command, *words, "--out", str(tmp_path / "out")])
    assert depths == DEPTHS[command]
