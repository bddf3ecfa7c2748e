"""Imports point one way, at the top of modules and inside functions alike, and only reports draw."""

import ast
from pathlib import Path

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
# What rows take from the lab: the run folder, and what a person sees of a run.
SHARED = {"folder", "page", "progress"}


def imports():
    """(file, its parts, the dotted name it imports) of every import, wherever it stands."""
    for path in SRC.rglob("*.py"):
        parts = path.relative_to(SRC).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: imports are absolute"
                names = [f"{node.module}.{a.name}" for a in node.names]
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names]
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
