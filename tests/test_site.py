"""The documentation site: its examples run, its reference is whole, its commands exist, and it builds."""

import contextlib
import importlib.util
import io
import itertools
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from onward import cli
from onward.errors import OnwardError
from onward.lab.papers import EXPERIMENTS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)]
WITH_CODE = [p for p in PAGES if p.is_relative_to(DOCS) and "```python\n" in p.read_text()]
BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<printed>.*?)```)?", re.DOTALL)


def module(name):
    """A Python file of the documents."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


# What a page's examples import that not every environment has, by the extra that the page names.
EXTRAS = {"export": "flatbuffers", "gymnasium": "gymnasium", "safetensors": "safetensors", "torch": "torch"}


def require_extras(page):
    """Skip where one is missing. PyTorch warns while it is imported."""
    for extra in re.findall(r"onward\[(\w+)\]", page.read_text()):
        if extra in EXTRAS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pytest.importorskip(EXTRAS[extra], reason=f'the page needs pip install "onward[{extra}]"')


@pytest.mark.interfaces
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.stem)
def test_examples_of_a_page_run_and_print_what_it_says(page, tmp_path, monkeypatch):
    require_extras(page)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCK.finditer(page.read_text()):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(block["code"], names)
        assert said.getvalue() == (block["printed"] or ""), block["code"]


def test_pages_have_examples():
    assert {"start", "concepts", "rules"} <= {p.stem for p in WITH_CODE}


def commands_of(page):
    """Every `onward ...` of a page, in blocks and in the text, as words; placeholders stand for themselves."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    spans = [
        " ".join(s.split())
        for s in re.findall(r"(?<!`)`([^`]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    ]
    for line in lines + spans:
        found = re.match(
            r"(?:\$ )?(?:.*(?:\||&&) )?(?:nice \S+ |[A-Z_]+=\S+ )*onward (?P<rest>\S.+)$", line
        )  # a command, not a row of a table
        if found and not re.search(r"onward: ", line):
            rest = re.split(r"\s#|\s\||\s&&|;|\s>|\s&$", found["rest"])[0]
            rest = re.sub(r"\s*\[(-[^]]*)\]", r" \1", rest).replace("ROWS", "1").replace("EXPERIMENT", "memory")
            rest = rest.replace("FILE.py:MyRule", "examples/own_cell.py:make")
            # No column is named twice.
            columns = itertools.count()
            rest = re.sub("COLUMN", lambda _, n=columns: f"COLUMN{next(n)}", rest)
            if "..." not in rest:
                yield tuple(shlex.split(rest))


COMMANDS = sorted({c for page in PAGES for c in commands_of(page)})


def complaint(words):
    """What the command line says against the words, which it only reads; empty: nothing."""
    try:
        cli.read(words)
    except SystemExit:  # help
        pass
    except OnwardError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_of_the_pages_exist(words, capsys):
    """The subcommand, the experiment and every field are there, and the values fit."""
    said = complaint(words)
    # In running text a command may be named without what it needs: `onward learn`.
    alone = " what? " in said or (len(words) <= 2 and not said.startswith("unknown"))
    elsewhere = said.startswith("unknown data set") or " is not installed" in said
    assert not said or alone or elsewhere, said


def test_pages_have_commands():
    assert len(COMMANDS) > 30
    assert {c[0] for c in COMMANDS} >= {"list", "run", "learn", "predict", "report", "verify", "data"}


def test_drawings_are_those_of_the_script():
    pages = "".join((DOCS / page).read_text() for page in ("concepts.md", "acting.md", "developer/house.md"))
    for name, draw in module("_draw").DRAWINGS.items():
        assert (DOCS / "figures" / name).read_text() == draw().svg(), f"run: python docs/_draw.py ({name})"
        assert name in pages


def test_the_reference_lists_every_public_name():
    """Each group of the list of parts is on one page; a new part needs no new line, a new group a directive."""
    pytest.importorskip("sphinx", reason="the documentation's tools are not installed (dependency group docs)")
    import onward

    groups = module("_parts").groups()
    assert sorted(n for names in groups.values() for n in names) == sorted({*onward.__all__} - {"verify"})
    pages = "".join(p.read_text() for p in (DOCS / "api").glob("*.md"))
    assert sorted(re.findall(r"^```\{parts\} (\w+)$", pages, re.MULTILINE)) == sorted(groups)


def test_the_reference_lists_every_experiment():
    page = (DOCS / "api" / "experiments.md").read_text()
    for place, kind, *_ in EXPERIMENTS.values():
        assert f"\n{place}.{kind}\n" in page


def test_docstrings_become_prose_code_and_equations():
    pytest.importorskip("sphinx", reason="the documentation's tools are not installed (dependency group docs)")
    parts = module("_parts")
    lines = ["A |x| of *b_ with `RTRL` and `x = 1`.", "- 2 more.", "", "    y = a*b", "", ">>> 1", "1"]
    assert parts.as_rst(lines) == [
        r"A \|x\| of \*b\_ with :py:obj:`~onward.RTRL`\  and ``x = 1``\ .",
        r"\- 2 more.",
        "",
        *("::", "", "        y = a*b", ""),
        *(">>> 1", "1", ""),
    ]
    assert parts.plain("(x: Float[Array, ' inputs']) -> Array") == "(x: Array['inputs']) -> Array"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_needs_nothing_from_outside(tmp_path):
    pytest.importorskip("sphinx", reason="the documentation's tools are not installed (dependency group docs)")
    for tool in ("furo", "myst_nb", "sphinxcontrib.bibtex"):
        pytest.importorskip(tool, reason="the documentation's tools are not installed (dependency group docs)")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", DOCS, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    import onward

    reference = "".join(p.read_text() for p in (tmp_path / "api").glob("*.html"))
    for name in {*onward.__all__, "verify.gradient"} - {"verify"}:  # a module
        assert f'id="onward.{name}"' in reference
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"([^\"]+)\"", page.read_text())
        assert not [a for a in loaded if a.startswith(("http:", "https:", "//"))], page.name
