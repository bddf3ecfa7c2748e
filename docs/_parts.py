"""The reference of the site: public names by group, and docstrings as they are written here.

`onward/__init__.pyi` is the only list of parts. The directive `parts` documents one group of it, in its order, as
`onward.Name`; a new part therefore needs no new line in the documents. Docstrings are plain text with `code` in single
backticks, indented equations and doctests; `as_rst` says so to Sphinx.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.ext.autodoc.mock import mock


def groups() -> dict[str, list[str]]:
    """The public names by the folder (or file) they come from, in the order of `onward/__init__.pyi`."""
    spec = find_spec("onward")
    assert spec is not None
    assert spec.origin is not None
    found: dict[str, list[str]] = {}
    for node in ast.parse(Path(spec.origin).with_suffix(".pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names = found.setdefault(node.module.split(".")[0], [])
            names += [alias.asname or alias.name for alias in node.names]
    return found


PUBLIC = {name for names in groups().values() for name in names}


# Libraries of interfaces that the reference does without.
OPTIONAL = ("flatbuffers", "safetensors", "torch")


class Parts(Directive):
    """Document the names of one group; or, without an argument, those in the body (dotted, one a line)."""

    optional_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """One autodoc directive a name."""
        names = [line.strip() for line in self.content if line.strip()]
        if self.arguments:
            known = groups()
            if self.arguments[0] not in known:
                raise self.error(f"there is no group {self.arguments[0]!r}; there are: {', '.join(known)}")
            names = [f"onward.{name}" for name in known[self.arguments[0]]] + names
        lines = ["```{eval-rst}"]
        for name in names:
            lines += _directive(name)
        container = nodes.container()
        self.state.nested_parse(StringList([*lines, "```"], "parts"), self.content_offset, container)
        return container.children


def _directive(name: str) -> list[str]:
    module, _, attribute = name.rpartition(".")
    missing = [library for library in OPTIONAL if find_spec(library) is None]
    with mock(missing):
        found = getattr(import_module(module), attribute)
    if inspect.isclass(found):
        ours = any(base.__module__.startswith("onward") and base.__name__[0] != "_" for base in found.__bases__)
        options = ["   :members:", "   :special-members: __call__", *["   :show-inheritance:"] * ours]
        signature = _own_signature(found) if module.split(".")[-1] in missing else ""
        return [f".. autoclass:: {name}{signature}", *options, ""]
    return [f".. autofunction:: {name}", ""]


def _own_signature(found: type) -> str:
    """What a class is made with, which the stand-in for a base of a missing library would hide from Sphinx."""
    own = inspect.signature(found).parameters.values()
    return str(inspect.Signature([each.replace(annotation=each.empty) for each in own]))


def as_rst(lines: list[str]) -> list[str]:
    """A docstring of this package in Sphinx's markup.

    An indented block is shown as it is, and so is a doctest; a name of the package in backticks is a link to it, any
    other is code; all else is prose, in which no character means more than itself.
    """
    out: list[str] = []
    for block in _paragraphs(lines):
        if block[0].startswith(" "):
            out += ["::", "", *("    " + line for line in block)]
        elif block[0].startswith(">>> "):
            out += block
        else:
            out += _prose("\n".join(block)).split("\n")
        out.append("")
    return out


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Blocks between blank lines; blank lines inside an indented block belong to it."""
    block: list[str] = []
    for line in lines:
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block


def _prose(text: str) -> str:
    parts = re.split(r"(`[^`]+`)", text)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = _code(part[1:-1])
        else:
            parts[i] = re.sub(r"([\\*|_`])", r"\\\1", part)
    # A sum that goes on in a new line is no list.
    return re.sub(r"^([-+]) ", r"\\\1 ", "".join(parts), flags=re.MULTILINE)


def _code(code: str) -> str:
    name = re.match(r"\w+", code)
    if name and name[0] in PUBLIC and name[0] == code:
        return rf":py:obj:`~onward.{code}`\ "
    return f"``{' '.join(code.split())}``\\ "


def _docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_rst(lines)


def _signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    return plain(signature), plain(returned)


KEY = r"Key\[Array, ''\] \| UInt32\[Array, '2'\] \| UInt32\[Array, '4'\]"


def plain(text: str | None) -> str | None:
    """Shapes are kept, the names of libraries are not: `Float[Array, 'time batch']` is `Array['time batch']`."""
    if text is None:
        return None
    text = re.sub(r"~?\b(?:jaxlib\._jax|jaxtyping|jax)\.(?=[A-Z])", "", text).replace("<factory>", "...")
    text = re.sub(KEY, "PRNGKey", text)
    text = re.sub(r"\b(?:Float|Int|UInt32|Bool|Shaped|Num|Inexact)\[Array, '\s*([^']*?)'\]", r"Array['\1']", text)
    return text.replace("Array['']", "Array")


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Fields of a named tuple are in its signature; methods that another library adds are its own matter."""
    alias = (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")
    return True if alias or (getattr(obj, "__module__", None) or "").startswith("sklearn.") else None


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("parts", Parts)
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
