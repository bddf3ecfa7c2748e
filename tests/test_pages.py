"""The pages as a whole: each is reached from the index, no link is dead, every method has its source, notebooks run."""

import ast
import importlib.util
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)
GALLERY = [p for p in PAGES if "file_format: mystnb" in p.read_text()]
CELL = re.compile(r"```\{code-cell\} ipython3\n(?::[^\n]*\n)*\n?(.*?)^```", re.DOTALL | re.MULTILINE)


# Links


def prose(page):
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def links(page):
    """Pages and anchors that a page links to, within the repository."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            yield (page.parent / name).resolve() if name else page, anchor


def children(page):
    """Pages of its tables of contents."""
    for block in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.strip() and not line.startswith(":"):
                yield (page.parent / f"{line.strip()}.md").resolve()


def anchors(page):
    """What its headings are called in links, as GitHub and MyST make it."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def reached(start, follow):
    """All pages that are found by following from one."""
    found, ahead = set(), [start]
    while ahead:
        page = ahead.pop()
        if page not in found and page.suffix == ".md" and page.exists():
            found.add(page)
            ahead += follow(page)
    return found


def test_every_page_is_reached_from_the_index_by_contents_and_by_links():
    index = DOCS / "index.md"
    assert {*PAGES} == reached(index, children)
    assert {*PAGES} <= reached(index, lambda page: [target for target, _ in links(page)])


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_pages_and_headings_that_exist(page):
    for target, anchor in links(page):
        assert target.exists(), f"{page.name} links to {target}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name} links to #{anchor} of {target.name}"


# Sources

BIBLIOGRAPHY, ENTRIES = DOCS / "bibliography.md", DOCS / "references.bib"


def entries():
    """The BibTeX entries by key: authors' surnames, and the year."""
    found = {}
    for text in re.split(r"^@", ENTRIES.read_text(), flags=re.MULTILINE)[1:]:
        key = re.match(r"\w+\{([\w]+),", text)[1]
        authors = re.search(r"author = \{(.*)\},\n", text)[1]
        names = {re.sub(r"\{\\.(\w)\}|\{\\(\w)\}", r"\1\2", a.split(",")[0]).strip() for a in authors.split(" and ")}
        assert key not in found, key
        found[key] = names, re.search(r"year = \{(\d{4})\}", text)[1]
    return found


def parts_of_groups(*names):
    """Exported parts that are no base of others' parts."""
    pytest.importorskip("sphinx", reason="the documentation's tools are not installed (dependency group docs)")
    spec = importlib.util.spec_from_file_location("_parts", DOCS / "_parts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {part for name in names for part in module.groups()[name] if not part.startswith("Abstract")}


def sources():
    """The table of the page: part, and keys of its entries."""
    rows = re.findall(r"^\| (`.+`) \| \{cite:t\}`(.+)` \|$", BIBLIOGRAPHY.read_text(), re.MULTILINE)
    return {part: keys.split(",") for parts, keys in rows for part in re.findall(r"`(\w+)`", parts)}


def test_every_part_has_a_source_and_every_source_is_cited():
    table, known = sources(), entries()
    assert {*table} == parts_of_groups("cells", "credit", "heads", "learners", "objectives")
    cited = {key for keys in re.findall(r"\{cite:[tp]\}`([^`]+)`", BIBLIOGRAPHY.read_text()) for key in keys.split(",")}
    assert cited == {*known}


def cited_in_docstrings():
    """(surname, year or "", where) of what docstrings name: `Name and Name, 1990`, `Name et al.`, `Name's (1990)`."""
    name = r"(?<![\w`])([A-Z][a-z]+)(?:'s)?((?: and [A-Z][a-z]+| & [A-Z][a-z]+| et al\.)?)(?:,? \(?((?:19|20)\d\d)\b)?"
    for path in sorted((ROOT / "src" / "onward").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for surname, others, year in re.findall(name, ast.get_docstring(node) or ""):
                    if year or others.strip(" .") == "et al" or others.startswith(" &"):
                        yield surname, year, path.name


def test_what_docstrings_cite_is_in_the_bibliography():
    known, seen = entries().values(), [*cited_in_docstrings()]
    assert len(seen) > 15
    for surname, year, where in seen:
        assert any(surname in names and year in ("", at) for names, at in known), f"{where} cites {surname} {year}"


# Notebooks: what each must show, of the names it leaves.


def first_program(names):
    ends = {name: squares[-500:].mean() for name, squares in names["found"].items()}
    assert names["optimum"] < ends["RTRL"] < ends["SnAp-1"] < 0.4 * names["memoryless"]
    assert names["kept"]["RTRL"] == 12 * names["kept"]["SnAp-1"]


def columns(names):
    assert names["shares"] == {"dense GRU layer": 1.0, "GRU columns": pytest.approx(1 / names["units"])}
    exact, dense, cut = (each.relative_error for each in names["seen"].values())
    assert max(exact, dense) < 1e-5 < 0.05 < cut
    assert names["column"][-1] == 16 * names["column"][0]
    assert names["dense"][-1] > 1000 * names["dense"][0]


def own_stream(names):
    assert names["error"] < 0.85 * names["last_value"]
    assert names["strange"] == [names["fault"] + 1]
    assert 0.8 < names["inside"] < 1
    after = list(names["at"]).index(names["fault"] + 2)
    assert 80 < names["prediction"][after] < 120


def target_propagation(names):
    assert names["floor"] < sum(names["losses"][-10:]) / 10 < 0.75 * names["nothing"]


def own_experiment(names):
    ends = {method["name"]: method["mean"] for method in names["summary"]["methods"]}
    assert names["status"] == 0
    assert ends["snap-1"] < 0.1 < 0.5 < ends["tbptt-2"]


SHOWS = {
    f.__name__.replace("_", "-"): f for f in (first_program, columns, own_stream, target_propagation, own_experiment)
}


def test_each_notebook_is_judged():
    assert {page.stem for page in GALLERY} == {*SHOWS}


@pytest.mark.interfaces
@pytest.mark.parametrize("page", GALLERY, ids=lambda p: p.stem)
def test_a_notebook_runs_and_shows_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names = {}
    with plt.rc_context():
        for code in CELL.findall(page.read_text()):
            exec(compile(code, page.name, "exec"), names)
    assert plt.get_fignums()
    plt.close("all")
    SHOWS[page.stem](names)
