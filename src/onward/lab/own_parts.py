"""Cells, gates and credit rules of a person's own file, to be verified."""

from collections.abc import Callable
from inspect import isabstract, isfunction, ismodule
from pathlib import Path
from typing import Any, NamedTuple

import jax

import onward as ow
from onward.errors import OnwardError, require_known
from onward.lab.own import Reference, in_file, loaded
from onward.verify import matrix

INPUTS, UNITS = 3, 4
PARTS = (ow.AbstractCell, ow.AbstractGates, ow.AbstractCredit)


class Own(NamedTuple):
    """What a file names: cells by name, and the rule they are put to, or None for those of the matrix."""

    cells: dict[str, Callable[[], matrix.Start]]
    rule: ow.AbstractCredit | None = None


def own(text: str) -> Own:
    """From `FILE.py:NAME`, or `FILE.py` that holds one part.

    NAME is a cell, a class or function that makes one if called as `NAME(3, 4, key=key)` with inputs and units; gates,
    which are put on every structure; or a credit rule, which is put to the cells of the matrix that it works on.
    OnwardError in one line where it is none of them, or does not do what a cell must.
    """
    reference = Reference.of(text)
    path = Path(reference.file)
    module, _ = loaded(path, "a cell, gates or a credit rule")
    if reference.name:
        known = {n: v for n, v in vars(module).items() if not n.startswith("__")}
        home = lambda v: getattr(v, "__module__", module.__name__)
        its_own = [n for n, v in known.items() if not ismodule(v) and home(v) == module.__name__]
        if reference.name not in known:
            require_known(f"part in {path}", reference.name, its_own)
        name, part = reference.name, known[reference.name]
    else:
        mine = {n: v for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__}
        found = {n: v for n, v in mine.items() if isinstance(v, PARTS) or _is_whole_part(v)}
        if len(found) != 1:
            held = f"several parts, {', '.join(found)}" if found else "no cell, gates or credit rule"
            raise OnwardError(f"{path} holds {held}: say which, FILE.py:NAME")
        name, part = next(iter(found.items()))
    if isinstance(part, type) and issubclass(part, PARTS) and isabstract(part):
        raise OnwardError(f"{path}: {name} lacks {', '.join(sorted(part.__abstractmethods__))}")
    return _as_own(name, part, path)


def _is_whole_part(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, PARTS) and not isabstract(value)


def _as_own(name: str, part: Any, path: Path) -> Own:
    if isinstance(part, type) and issubclass(part, ow.AbstractGates | ow.AbstractCredit):
        part = _made(part, path, f"{name}()")
    elif isfunction(part) or (isinstance(part, type) and issubclass(part, ow.AbstractCell)):
        call = f"{name}({INPUTS}, {UNITS}, key=key)"
        part = _made(lambda: _call(part), path, call)
        if not isinstance(part, ow.AbstractCell):
            raise OnwardError(f"{path}: {call} must make a cell, it made {_article(part)}")
    if isinstance(part, ow.AbstractCredit):
        return Own(matrix.cells(), part)
    if isinstance(part, ow.AbstractGates):
        return Own(matrix.cells({name: lambda: part}))
    if not isinstance(part, ow.AbstractCell):
        raise OnwardError(
            f"{path}: {name} is {_article(part)}, no part that can be verified: name a cell (onward.AbstractCell), "
            "gates, a credit rule, or a function that makes a cell"
        )
    _require_protocol(name, part, path)
    return Own({name: lambda: (1, part, part.init())})


def _call(make: Callable[..., Any]) -> Any:
    return make(INPUTS, UNITS, key=jax.random.key(1))


def _made(make: Callable[[], Any], path: Path, call: str) -> Any:
    try:
        with in_file(path):
            return make()
    except OnwardError as error:
        raise OnwardError(
            f"{error} (of {call}, which must work: or name a cell, or a function that makes it)"
        ) from None


def _article(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def _require_protocol(name: str, cell: ow.AbstractCell, path: Path) -> None:
    """Refuse a cell whose step or features are not of the shapes that it says."""
    with in_file(path):
        carry = cell.init()
        if not isinstance(carry, ow.Carry):
            raise OnwardError(f"{path}: {name}.init() must return a Carry, not {type(carry).__name__}")
        x = jax.ShapeDtypeStruct((cell.inputs,), "float32")
        after = jax.eval_shape(cell, carry, x)
        if not isinstance(after, ow.Carry):
            raise OnwardError(f"{path}: a step of {name} must return a Carry, not {type(after).__name__}")
        shapes = lambda tree: [jax.numpy.shape(leaf) for leaf in jax.tree.leaves(tree)]
        structures = {str(jax.tree.structure(each)) for each in (after, carry)}
        if len(structures) > 1 or shapes(after) != shapes(carry):
            raise OnwardError(
                f"{path}: a step of {name} must keep the shapes of its carry: {shapes(carry)} became {shapes(after)}"
            )
        features = jax.eval_shape(cell.features, carry).shape
    if features != (cell.feature_count,):
        raise OnwardError(f"{path}: features of {name} must have shape ({cell.feature_count},), not {features}")
