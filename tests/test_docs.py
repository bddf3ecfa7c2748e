"""What the documents show works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from onward import verify
from onward.text import markdown_table

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def test_the_readme_example_learns(capsys):
    """It prints what the page says, and learns."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (said,) = re.findall(r"```text\n(mean square .*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(code, {})
    first, last = map(float, re.findall(r"\d\.\d+", capsys.readouterr().out))
    assert [first, last] == pytest.approx([float(n) for n in re.findall(r"\d\.\d+", said)], abs=0.05)
    assert last < 0.2 < 0.8 < first


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        away = target.startswith("https://")
        assert away or (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.interfaces
def test_the_example_beats_the_last_value():
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "own_stream.py"], capture_output=True, text=True, check=True
    )
    last = done.stdout.splitlines()[-1]
    ours, theirs = map(float, re.findall(r"0\.\d+", last))
    assert ours < 0.8 * theirs


@pytest.mark.interfaces
def test_the_example_reads_a_file(tmp_path):
    path = tmp_path / "series.csv"
    path.write_text("a,b\n" + "\n".join(f"{t % 7},{t % 3}" for t in range(1200)) + "\n")
    command = [sys.executable, ROOT / "examples" / "own_stream.py", path, "b"]
    assert "row   1000" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.interfaces
def test_a_cell_of_one_s_own_is_verified_and_learns():
    command = [sys.executable, ROOT / "examples" / "own_cell.py", "6000"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["RTRL", "exact"], ["TBPTT(5)", "biased"], ["UORO", "unbiased"]]
    assert all(" as it claims " in line for line in lines)
    errors = [float(re.search(r"learning (\S+)", line)[1]) for line in lines]
    assert max(errors) < 0.7, errors


def short_form(page):
    """Of `docs/exactness.md` what the page of rules shows: one column, LSTM units, of each structure."""
    tables = {}
    for section in page.split("\n## ")[1:]:
        structure = verify.tables.STRUCTURES.get(section.splitlines()[0])
        rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
        if structure is not None:
            at = rows[0].index("LSTM")
            tables[structure] = {row[0]: row[at] for row in rows[1:] if row[at] != "-"}
    rules = verify.tables.in_order(rule for table in tables.values() for rule in table)
    entries = [[rule, *(table.get(rule, "-") for table in tables.values())] for rule in rules]
    return markdown_table(["rule", *tables], entries)


def test_the_exactness_page_is_of_this_matrix():
    """Every rule and every kind of unit is on the page, nothing failed, and the short form is the page's."""
    page = (ROOT / "docs" / "exactness.md").read_text()
    assert "FAILED" not in page
    cells = verify.matrix.cells()
    for name in ("GRU dense", "LSTM sparse", "Elman stack", "GRU columns", "LSTM cascade"):
        for rule in verify.matrix.rules(cells[name]()[1]):
            assert f"| `{verify.name_of(rule)}` |" in page
    short = re.search(r"<!-- exactness -->\n(.*?)<!-- end -->", (ROOT / "docs/rules.md").read_text(), re.DOTALL)[1]
    assert short.strip() == short_form(page)
