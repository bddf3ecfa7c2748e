"""`onward verify` of every day: what is chosen, a file of one's own, planted faults, and what is told."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from onward.cli import main
from onward.lab import verifying
from onward.lab.progress import Progress

pytestmark = pytest.mark.usefixtures("compile_fast")

CELL = """
import jax, jax.numpy as jnp, equinox as eqx
import onward as ow

{before}
class Mine(ow.AbstractCell):
    read: jax.Array
    loop: jax.Array
    inputs = property(lambda self: self.read.shape[1])
    feature_count = property(lambda self: self.read.shape[0])

    def __init__(self, inputs, units, *, key):
        a, b = jax.random.split(key)
        self.read, self.loop = jax.random.normal(a, (units, inputs)), jax.random.normal(b, (units, units)) / 2

    def init(self):
        return ow.Carry(jnp.zeros(self.feature_count), ())

    def __call__(self, carry, x, *, key=None):
        h = carry.hidden
        return {after}

    def features(self, carry, *, key=None):
        return carry.hidden
"""
SOUND = CELL.format(before="", after="ow.Carry(jnp.tanh(self.read @ x + self.loop @ h), ())")
# A derivative written by hand that is twice too large, of the recurrent weights only.
HALF = """
@jax.custom_vjp
def back(a):
    return a
back.defvjp(lambda a: (a, None), lambda _, g: (2 * g,))
"""
WRONG = CELL.format(before=HALF, after="ow.Carry(jnp.tanh(self.read @ x + back(self.loop) @ h), ())")
RULE = """
import jax
from typing import ClassVar
import onward as ow

class Tripled(ow.AbstractCredit):
    kind: ClassVar[str] = "exact"
    def on(self, cell):
        return ow.RTRL().on(cell)
    def pull(self, cell, state, cotangent):
        g = ow.RTRL().pull(cell, state, cotangent)
        return jax.tree.map(lambda a: 3 * a, g)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "mine.py").write_text(text)
        return "mine.py:Mine"

    return write


def test_a_sound_cell_of_a_file_passes(mine, capsys, tmp_path):
    assert main(["verify", mine(SOUND), "--rule", "RTRL", "TBPTT", "--quick", "--junit", "out.xml"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("ok: 3 comparisons, all as claimed\n")
    assert told.err.startswith("verify: starting\n")
    assert "verify: 1 of 1 jobs (100%)" in told.err
    suite = ET.parse(tmp_path / "out.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "0")
    assert [c.get("name").partition(",")[0] for c in suite] == ["RTRL", "TBPTT(4)", "TBPTT(12)"]


def test_a_wrong_derivative_is_told_with_array_step_and_ratio(mine, capsys, tmp_path):
    """The first step reads a state of zero, so that `loop` counts from the second on: there its slope is twice too large."""
    assert main(["verify", mine(WRONG), "--rule", "RTRL", "--quick", "--junit", "out.xml", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (fault,) = found["faults"]
    assert not found["ok"]
    assert (fault["of"], fault["leaf"], fault["step"], fault["cell"]) == ("cell", "loop", 2, "Mine")
    assert fault["ratio"] == pytest.approx(2, abs=1e-6)
    (failure,) = ET.parse(tmp_path / "out.xml").iter("failure")
    assert "a derivative of the cell of 'loop' is 2 times that of finite differences at step 2" in failure.get(
        "message"
    )


def test_a_wrong_rule_is_told_with_array_step_and_ratio(mine, capsys):
    mine(RULE)
    assert main(["verify", "mine.py", "--cell", "Elman columns", "--quick"]) == 1
    first, failure, *_ = capsys.readouterr().out.splitlines()
    assert first == "FAILED: 1 of 1 comparisons"
    assert failure.startswith("  Tripled on Elman columns (12 steps, resets) claims exact, is biased; its gradient of ")
    assert "is 3 times BPTT's at step 1 (relative error 2)" in failure


def test_a_rule_that_does_not_work_on_a_cell_says_why(mine, capsys):
    assert main(["verify", mine(CELL.format(before="", after="ow.Carry(h, ())")), "--rule", "SnAp(1)"]) == 1
    told = capsys.readouterr().err
    assert "SnAp reads its pattern off the wiring of Dense cells" in told
    assert "got Mine" in told


BAD = {
    "a number": ("Mine = 3", "mine.py: Mine is of type int, no part that can be verified"),
    "no cell": ("x = 3", "mine.py: unknown|unknown part in mine.py 'Mine'"),
    "a slip": ("Mne = 3", "did you mean Mne?"),
    "a class that is no cell": ("class Mine: pass", "mine.py: Mine is the class Mine, no part"),
    "syntax": ("def Mine(:", "mine.py, line 1: invalid syntax"),
    "another argument": ("def Mine(): pass", "of Mine(3, 4, key=key), which must work"),
    "makes nothing": ("def Mine(i, u, key): pass", "Mine(3, 4, key=key) must make a cell, it made of type NoneType"),
    "an unfinished cell": (
        "import onward as ow\nclass Mine(ow.AbstractCell):\n    pass",
        "mine.py: Mine lacks __call__, feature_count, features, init, inputs",
    ),
    "a step without carry": (CELL.format(before="", after="h"), "a step of Mine must return a Carry, not "),
    "another shape": (CELL.format(before="", after="ow.Carry(h[:2], ())"), "must keep the shapes of its carry"),
    "a step that fails": (CELL.format(before="", after="ow.Carry(self.nope, ())"), "mine.py, line 21: AttributeError"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_part_is_refused_in_one_line(what, mine, capsys):
    text, message = BAD[what]
    assert main(["verify", mine(text)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert any(each in told.err for each in message.split("|"))
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nowhere.py:Mine", "nowhere.py is not there: name a Python file that holds a cell, gates or a credit rule"),
        ("--rule RTLR", "unknown rule 'RTLR'; did you mean RTRL?"),
        ("--cell GRO", "unknown cell 'GRO'; did you mean GRU?"),
        ("--quick --markdown", "--markdown is the page of all comparisons"),
        ("--junit nowhere/out.xml", "--junit nowhere/out.xml: there is no folder nowhere"),
        ("Mine", "verify: 'Mine' stands alone"),
    ],
)
def test_words_that_do_not_fit_are_refused_in_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["verify", *words.split()]) == 1
    told = capsys.readouterr()
    assert message in told.err
    assert (told.out, told.err.count("\n")) == ("", 1)


def test_a_file_without_a_part_or_with_two_says_so(mine, capsys):
    mine("x = 3")
    assert main(["verify", "mine.py"]) == 1
    assert "mine.py holds no cell, gates or credit rule: say which" in capsys.readouterr().err
    mine(SOUND + "other = Mine(2, 3, key=jax.random.key(0))\n")
    assert main(["verify", "mine.py"]) == 1
    assert "mine.py holds several parts, Mine, other" in capsys.readouterr().err


def test_what_is_chosen():
    assert verifying.Choice(cells=("gru",)).jobs() == [
        f"GRU {each}" for each in ("dense", "sparse", "stack", "columns", "cascade", "column-stack")
    ]
    assert len([job for job in verifying.Choice().jobs() if job.startswith("check ")]) == 7
    assert verifying.Choice(quick=True).jobs() == list(verifying.QUICK_CELLS)


def test_quick_has_every_rule_of_the_matrix():
    from onward.verify import matrix

    names = lambda cells: {type(rule) for name in cells for rule in matrix.rules(matrix.cells()[name]()[1])}
    assert names(verifying.QUICK_CELLS) == names(matrix.cells())


@pytest.mark.slow
def test_two_processes_find_what_one_finds():
    choice = verifying.Choice(cells=("columns", "stack"), rules=("RTRL",))
    jobs = choice.jobs()
    with Progress(quiet=True) as progress:
        one, two = (verifying.verified(choice, jobs, progress, workers) for workers in (1, 2))
    # A process that has all cores splits sums among them: the last bits may differ, what was found may not.
    told = lambda found: [(row.rule, row.cell, row.steps, row.streams, row.found, row.ok) for row, _ in found.rows]
    assert told(one) == told(two)
    assert one.checks == two.checks == []
    numbers = lambda found: [(row.cosine, row.ratio_min, row.ratio_max, row.finite_difference) for row, _ in found.rows]
    np.testing.assert_allclose(numbers(one), numbers(two), rtol=1e-9, atol=1e-8)
    assert len(one.rows) == 4 * len(jobs)
