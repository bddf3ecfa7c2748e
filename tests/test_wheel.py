"""The package as others get it: built, looked into, installed and started."""

import email
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (dependency group dev)")
ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.interfaces,
    pytest.mark.skipif(find_spec("uv") is None, reason="uv is not installed in this environment"),
    pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="this is no checkout"),
]


def call(*words, **options):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "uv", "build", "--quiet", "--out-dir", folder, ROOT)
    (archive,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return archive, wheel


def tracked():
    return set(call("git", "ls-files", "--cached", cwd=ROOT).splitlines())


def contents(archive):
    with tarfile.open(archive) as tar:
        files = {member.name.partition("/")[2]: tar.extractfile(member).read() for member in tar if member.isfile()}
    return files


def unzipped(wheel):
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_the_wheel_holds_every_module_and_nothing_else(built):
    files = unzipped(built[1])
    packaged = {name.removeprefix("src/"): name for name in tracked() if name.startswith("src/")}
    info = {name for name in files if ".dist-info/" in name}
    assert set(files) - info == set(packaged)
    for name, source in packaged.items():
        assert files[name] == (ROOT / source).read_bytes(), name
    assert {name.partition(".dist-info/")[2] for name in info} == {
        *("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    assert "onward/py.typed" in files
    assert built[1].name.endswith("-py3-none-any.whl")


def test_the_source_distribution_holds_what_is_under_version_control(built):
    files, known = contents(built[0]), tracked()
    assert set(files) - {"PKG-INFO"} <= known
    assert not known - set(files), "not in the source distribution"
    assert {"LICENSE", "CITATION.cff", "tests/test_wheel.py", "docs/index.md", "src/onward/py.typed"} <= set(files)


def test_no_path_of_a_machine_is_in_them(built):
    places = re.compile(rb"/(?:home|Users|root)/[\w.-]+/|" + re.escape(str(ROOT).encode()) + rb"\b")
    for files in map(lambda read, path: read(path), (contents, unzipped), built):
        for name, content in files.items():
            if name != "tests/test_wheel.py":
                assert not places.search(content), f"{name}: {places.search(content)[0]}"


def test_the_long_description_reads_without_the_checkout(built):
    """No link that leads nowhere, no figure that is not there; the words are the README's."""
    files = unzipped(built[1])
    (metadata,) = [email.message_from_bytes(files[name]) for name in files if name.endswith("METADATA")]
    text = metadata.get_payload()
    assert metadata["Description-Content-Type"] == "text/markdown"
    links = re.findall(r"\]\(([^)]*)\)", re.sub(r"`[^`]*`", "", text))
    assert not [link for link in links if not link.startswith("https://")]
    readme = (ROOT / "README.md").read_text()
    assert text.startswith("# Onward\n")
    assert "![" in readme
    assert "![" not in text
    assert re.findall(r"^## .*$", text, re.MULTILINE) == re.findall(r"^## .*$", readme, re.MULTILINE)
    blocks = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    assert blocks.findall(text) == blocks.findall(readme)
    paths = re.findall(r"(?<!!)\[[^]]+\]\(([^)#]+)[^)]*\)", readme)
    assert "docs/start.md" in paths
    assert all(f"(`{path}`)" in text and path in contents(built[0]) for path in paths)


def test_the_wheel_is_installed_and_starts(built, tmp_path):
    """In an environment of its own, which sees what Onward needs in this one's packages."""
    home = tmp_path / "venv"
    call(sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, home)
    python = home / "bin" / "python"
    call(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--python", python, built[1])
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "zz_needs.pth").write_text(sysconfig.get_path("purelib") + "\n")  # after what is installed here
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    version = re.search(r"onward-([\d.]+)-", built[1].name)[1]
    assert call(home / "bin" / "onward", "--version", env=clean, cwd=tmp_path) == f"onward {version}\n"
    where = call(python, "-c", "import onward, onward.lab; print(onward.__file__)", env=clean, cwd=tmp_path).strip()
    assert Path(where).is_relative_to(site)
    words = ["run", "memory", "--methods", "columns", "--steps", "200", "--seeds", "1", "--out", "out"]
    said = call(home / "bin" / "onward", *words, env=clean, cwd=tmp_path)
    assert "report: out/report.html" in said
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_the_conda_recipe_builds_from_the_source_distribution(built, tmp_path):
    """What it says, in an environment that holds its host requirements only; conda itself is not asked."""
    recipe = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text())
    name = recipe["source"]["path"].replace("${{ version }}", recipe["context"]["version"])
    assert Path(name).name == built[0].name
    home = tmp_path / "host"
    python = home / "bin" / "python"
    call(sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, home)
    host = [line.replace(" ", "") for line in recipe["requirements"]["host"] if not line.startswith("python ")]
    call(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, *host)
    with tarfile.open(built[0]) as tar:
        tar.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("onward-*")
    call(*recipe["build"]["script"].replace("${{ PYTHON }}", str(python)).split(), cwd=source)
    version = call(python, "-c", "from importlib.metadata import version; print(version('onward'))", cwd=tmp_path)
    assert version.strip() == recipe["context"]["version"]
    (entry,) = recipe["build"]["python"]["entry_points"]
    assert (home / "bin" / entry.partition(" ")[0]).is_file()
