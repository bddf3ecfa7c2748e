"""What several files of the package repeat is the same in all: version, requirements, interpreters, commands; and the
texts beside the package say what the pages and the code say.
"""

import re
import sys
import tomllib
from pathlib import Path

import pytest

import onward
from onward import saving
from onward.lab import folder

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (dependency group dev)")
ROOT = Path(__file__).parents[1]
TOML = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = TOML["project"]
RECIPE = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text())
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
PAPER = (ROOT / "paper" / "paper.md").read_text()
# What conda-forge calls otherwise: matplotlib without its windows.
CONDA = {"matplotlib": "matplotlib-base"}
PYTHONS = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", name)]


def as_conda(requirement):
    """`name>=1` as conda writes it."""
    name, version = re.fullmatch(r"([\w.-]+)(\S*)", requirement).groups()
    return f"{CONDA.get(name, name)} {version}".strip()


def test_one_version_everywhere():
    version = PROJECT["version"]
    assert version == onward.__version__ == CITATION["version"] == RECIPE["context"]["version"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+)", changes, re.MULTILINE)[1] == version
    assert f"onward~={version}" in (ROOT / "docs" / "upgrades.md").read_text()


def test_one_name_licence_and_summary_everywhere():
    assert PROJECT["license"] == CITATION["license"] == RECIPE["about"]["license"]
    assert PROJECT["description"] == RECIPE["about"]["summary"]
    (author,) = PROJECT["authors"]
    assert [author] == CITATION["authors"]
    assert f"  - name: {author['name']}" in PAPER
    assert "Apache License" in (ROOT / PROJECT["license-files"][0]).read_text()
    assert set(CITATION["keywords"]) <= set(PROJECT["keywords"])


def test_the_recipe_requires_what_the_package_requires():
    run = RECIPE["requirements"]["run"]
    assert run == [
        f"python {PROJECT['requires-python']}".replace("python >", "python >"),
        *map(as_conda, PROJECT["dependencies"]),
    ]
    host = RECIPE["requirements"]["host"]
    assert host[:2] == [f"python {PYTHONS[0]}.*", "pip"]
    assert host[2:] == list(map(as_conda, TOML["build-system"]["requires"]))
    (entry,) = RECIPE["build"]["python"]["entry_points"]
    assert dict([entry.split(" = ")]) == PROJECT["scripts"]
    (first, second) = RECIPE["tests"]
    assert all(map(__import__, first["python"]["imports"]))
    assert all(line.startswith("onward ") for line in second["script"])


def test_the_workflow_does_what_the_gate_does():
    """Its commands are those of `.ci/run`, each a target of the Makefile, on every Python that the package names."""
    (job,) = WORKFLOW["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    gate = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    assert commands == gate
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command.split()[1] for command in commands} <= set(targets)
    assert job["strategy"]["matrix"]["python"] == PYTHONS
    (setup,) = [step["with"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert setup["python-version"] == "${{ matrix.python }}"
    assert WORKFLOW["permissions"] == {"contents": "read"}
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    assert all(command in contributing for command in gate)


def test_the_interpreters_are_said():
    assert PYTHONS == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    page = (ROOT / "docs" / "developer" / "releasing.md").read_text()
    assert re.findall(r"^\| (3\.\d+) \|", page, re.MULTILINE) == PYTHONS
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in PYTHONS


def test_formats_on_the_page_of_upgrades_are_those_of_the_code():
    page = (ROOT / "docs" / "upgrades.md").read_text()
    formats = dict(re.findall(r"^\| ([^|]+?) \| (\d+) \|", page, re.MULTILINE))
    text = (ROOT / "src" / "onward" / "adapters" / "safetensors.py").read_text()
    weights = re.search(r"^FORMAT = (\d+)$", text, re.MULTILINE)[1]
    assert [*formats.values()] == [str(folder.FORMAT), str(saving.FORMAT), weights]
    for name in re.findall(r"`\.(\w+)`", page):
        place = ROOT / "src" / "onward" / "adapters" / name
        assert place.is_dir() or place.with_suffix(".py").is_file()


def paragraphs():
    return [part for part in PAPER.split("---\n")[2].split("\n\n") if part.strip() and not part.startswith("#")]


def measured(text):
    """Numbers that only a program can have said: all but years of references and sections."""
    return re.findall(r"(?<![\w@.-])\d+(?:\.\d+)?(?![\w-])", re.sub(r"\[@[^]]*\]|`[^`]*`|float64", "", text))


CLAIMS = [part for part in paragraphs() if "(`" in part]


def test_every_number_of_the_paper_has_its_command():
    assert len(CLAIMS) >= 6
    for part in paragraphs():
        if part not in CLAIMS:
            assert not measured(part), part
    for part in CLAIMS:
        assert not measured(part[part.rindex(".md)") :]), "a number after the last command"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda part: part[:30])
def test_a_claim_of_the_paper_stands_on_its_page_beside_its_command(claim):
    before = 0
    for found in re.finditer(r"\(`([^`]+)`,\s+(docs/[\w/.-]+\.md)\)", claim):
        command, page = found[1], (ROOT / found[2]).read_text()
        assert command in " ".join(page.split()), f"{found[2]} does not give {command}"
        missing = [
            n
            for n in measured(claim[before : found.start()])
            if not re.search(rf"(?<![\d.,]){re.escape(n)}(?!\d|,\d)", page)
        ]
        assert not missing, f"{found[2]} does not say {missing}"
        before = found.end()


def test_references_of_the_paper_are_there():
    entries = re.findall(r"^@\w+\{(\w+),", (ROOT / "paper" / "paper.bib").read_text(), re.MULTILINE)
    cited = set(re.findall(r"@(\w+)", PAPER))
    assert cited == set(entries)
    assert len(entries) == len(set(entries))


def test_no_address_is_made_up():
    """Onward has no public address; every one in these files is of somebody else's paper, or of a tool."""
    texts = [
        ROOT / name
        for name in (
            "pyproject.toml",
            "CITATION.cff",
            "recipe/recipe.yaml",
            "README.md",
            "CONTRIBUTING.md",
            "SECURITY.md",
        )
    ]
    for path in texts:
        assert not re.findall(r"https?://(?!\)|\\S)[\w.-]+\.\w+", path.read_text()), path
    assert "urls" not in PROJECT
