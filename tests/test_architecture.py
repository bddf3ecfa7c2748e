"""Imports point one way, and a new part has its row (tests/contract)."""

import ast
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "onward"
# Each layer may import from those to its right.
LAYERS = [
    {"cli"},
    {"sweeps"},
    {"experiments", "adapters"},
    {"run", "report", "verify", "verify_targets", "metrics", "checkpoint", "_progress"},
    {"tasks", "learners"},
    {"objectives", "credit"},
    {"model"},
    {"cells", "heads"},
    {"_types", "_tree", "_random", "errors", "datasets", "_formats", "_midi", "_mat", "_etudes", "_devices"},
]


def test_imports_point_one_way():
    rank = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    for path in SRC.rglob("*.py"):
        parts = path.relative_to(SRC).with_suffix("").parts
        if parts == ("__init__",):
            continue
        mine = rank[parts[0]]
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.startswith("onward."):
                    other = rank[name.split(".")[1]]
                    assert other >= mine, f"{path.name} imports {name}, which lies above it"


def test_modules_that_learn_do_not_draw():
    for path in SRC.rglob("*.py"):
        top = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = {(n.module or "") if isinstance(n, ast.ImportFrom) else n.names[0].name for n in top}
        assert path.stem == "report" or not any(n.startswith("matplotlib") for n in names), path
