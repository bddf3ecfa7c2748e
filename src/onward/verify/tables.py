"""What `onward verify` prints: text, Markdown and JSON."""

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from onward.text import markdown_table
from onward.verify.claims import SAMPLES, Row
from onward.verify.costs import Cost
from onward.verify.faults import Fault
from onward.verify.matrix import STEPS, STREAMS
from onward.verify.targets import Check


def as_json(
    rows: Sequence[Row], checks: Sequence[Check], spent: Sequence[Cost], faults: Sequence[Fault | None] = ()
) -> str:
    """Every comparison, claim and cost by the names of its fields, and whether all is as it should be.

    faults: of each row where it goes wrong, or None; those that there are follow with the rule and the cell.
    """
    ok = all(row.ok for row in rows) and all(check.ok for check in checks)
    told = [
        {"rule": row.rule, "cell": row.cell, **asdict(fault), "ratio": None if math.isnan(fault.ratio) else fault.ratio}
        for row, fault in zip(rows, faults, strict=False)
        if fault
    ]
    found = {"ok": ok, "rows": rows, "checks": checks, "costs": spent, "faults": told}
    return json.dumps(found, indent=1, default=asdict)


def as_junit(found: Sequence[tuple[Row, Fault | None]], checks: Sequence[Check]) -> str:
    """A test case for each comparison and claim, as JUnit's XML."""
    failed = sum(not r.ok for r, _ in found) + sum(not c.ok for c in checks)
    suite = ET.Element("testsuite", name="onward verify", tests=str(len(found) + len(checks)), failures=str(failed))
    for row, fault in found:
        case = ET.SubElement(suite, "testcase", classname=row.cell, name=f"{row.rule}, {_setting(row)}")
        if not row.ok:
            ET.SubElement(case, "failure", message=as_failure(row, fault))
    for check in checks:
        case = ET.SubElement(suite, "testcase", classname="checks", name=check.name)
        if not check.ok:
            ET.SubElement(case, "failure", message=f"{check.what}: {check.value:.5g}, must be {check.limit}")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _setting(row: Row) -> str:
    resets, streams = ", resets" * row.resets, f", {row.streams} streams" * (row.streams > 1)
    return f"{row.steps} step{'s' * (row.steps > 1)}{resets}{streams}"


def as_failure(row: Row, fault: Fault | None) -> str:
    """One line: what a rule claims on a cell, what it is, and where it goes wrong: array, step and ratio."""
    line = f"{row.rule} on {row.cell} ({_setting(row)}) claims {row.claim}, is {row.found}"
    if fault is None:
        return f"{line}; relative error {row.relative_error:.2g}"
    should = "BPTT's" if fault.of == "rule" else "that of finite differences"
    whose = "its gradient" if fault.of == "rule" else "a derivative of the cell"
    ratio = "should be zero" if math.isnan(fault.ratio) else f"is {fault.ratio:.6g} times {should}"
    size = (
        f"{fault.error:.1f} standard errors"
        if row.claim == "unbiased" and fault.of == "rule"
        else f"relative error {fault.error:.2g}"
    )
    return f"{line}; {whose} of {fault.leaf!r} {ratio} at step {fault.step} ({size})"


def as_text(found: Sequence[tuple[Row, Fault | None]], checks: Sequence[Check]) -> list[str]:
    """Lines of text: the count, what failed and where, and the tables."""
    rows = [row for row, _ in found]
    bad = sum(not r.ok for r in rows) + sum(not c.ok for c in checks)
    counts = f"{len(rows)} comparisons" + (f" and {len(checks)} other claims" if checks else "")
    first = f"FAILED: {bad} of {counts}" if bad else f"ok: {counts}, all as claimed"
    failures = [f"  {as_failure(row, fault)}" for row, fault in found if not row.ok]
    failures += [f"  {c.name}: {c.what}: {c.value:.5g}, must be {c.limit}" for c in checks if not c.ok]
    told = ["", *checks_table(checks)] if checks else []
    return [first, *failures, "", *as_table(rows), *told]


def as_table(rows: Sequence[Row], spent: Sequence[Cost] = ()) -> list[str]:
    """Lines of text: every comparison, what each rule costs, and the count."""
    lines = [
        f"{'rule':11} {'cell':13} depth steps resets streams claim     relative error  cosine     "
        "smallest - largest ratio  finite differences"
    ]
    for r in rows:
        of_mean = f"  mean of {r.samples:,}: worst {r.worst_z:.1f} se" if r.worst_z is not None else ""
        lines.append(
            f"{r.rule:11} {r.cell:13} {r.depth:5} {r.steps:5} {'yes' if r.resets else 'no':6} {r.streams:7} {r.claim:8} "
            f"{r.relative_error:14.1e}  {r.cosine:.8f}  {r.ratio_min:.9f} - {r.ratio_max:.9f} "
            f"{r.finite_difference:14.1e}  {'ok' if r.ok else f'FAILED: it is {r.found}'}{of_mean}"
        )
    if spent:
        lines += ["", f"{'rule':11} {'cell':18} parameters    floats  multiply-adds  microseconds a step"]
    for c in spent:
        lines.append(
            f"{c.rule:11} {c.cell:18} {c.parameters:10,} {c.floats:9,} {c.multiply_adds:14,} {c.microseconds:20.1f}"
        )
    good = sum(r.ok for r in rows)
    return [*lines, f"{good} of {len(rows)} comparisons ok (float64; exact: below 1e-9 in every parameter array)"]


# Title of each section of the page, and the last word of the names of its cells.
STRUCTURES = {
    "One layer, every unit reads every unit (normalised inputs and features)": "dense",
    "One layer, sparse": "sparse",
    "Two layers": "stack",
    "Columns": "columns",
    "A cascade of two stages, normalised": "cascade",
    "Two layers of columns": "column-stack",
}


def in_order(rules: Iterable[str]) -> list[str]:
    """Names of rules once each, exact ones first, as the README lists them."""
    first = ("Columnwise", "RTRL", "Layerwise", "SnAp", "UORO", "TBPTT", "RFLO")
    place = lambda rule: [rule.strip("`").startswith(name) for name in first].index(True)
    return sorted(dict.fromkeys(rules), key=lambda rule: (place(rule), len(rule), rule))


def as_markdown(rows: Sequence[Row], spent: Sequence[Cost]) -> str:
    """`docs/exactness.md`: the matrix in short, and the cost of each rule."""
    rules = in_order(r.rule for r in rows)
    lines = [
        "# Exactness",
        "",
        "Written by `make exactness` (`onward verify --markdown`); do not edit. Each rule is driven step by step in float64 and",
        f"compared, parameter array by parameter array, with BPTT, and BPTT with finite differences: {len(rows)} comparisons, of which",
        f"{sum(r.ok for r in rows)} say what the rule claims. Each entry is the worst over one step, {STEPS} steps, {STEPS} steps with resets, and {STREAMS} parallel streams.",
        "",
        "- **exact** with the largest relative error of an array.",
        "- **biased** with relative error and cosine of the whole gradient, after more than one step.",
        f"- **unbiased** with the largest deviation of the mean of {SAMPLES:,} seeds, in standard errors over all coordinates (5 would fail),",
        "  and the standard error of its ratio to the gradient (±; the test would notice a bias five times as large).",
        "",
        f"TBPTT({STEPS}) sees the whole stream, SnAp(5) on the sparse layer and SnAp(2) on a full one leave nothing out: then both are exact, as they should be.",
    ]
    for title, structure in STRUCTURES.items():
        mine = [cell for cell in dict.fromkeys(r.cell for r in rows) if cell.split()[-1] == structure]
        if not mine:
            continue
        by_cell = {rule: [[r for r in rows if (r.rule, r.cell) == (rule, cell)] for cell in mine] for rule in rules}
        entries = [[f"`{rule}`", *map(_entry, found)] for rule, found in by_cell.items() if any(found)]
        lines += ["", f"## {title}", "", markdown_table(["rule", *(cell.split()[0] for cell in mine)], entries)]
    costs = [
        [c.cell, f"`{c.rule}`", f"{c.parameters:,}", f"{c.floats:,}", f"{c.multiply_adds:,}", f"{c.microseconds:.1f}"]
        for c in spent
    ]
    worst = max(r.finite_difference for r in rows)
    lines += [
        "",
        "## Cost",
        "",
        "One learning step (forward, gradient, SGD update) with 8 inputs. Floats of the rule's own state, counted from its arrays; multiply-adds as",
        "counted in the traced program (products as they are, other arithmetic as half a one, a loop as often as it runs); microseconds of CPU time on",
        "one core of a shared machine, best of twelve, without the options that the command line sets. `make bench` has the ratios.",
        "",
        markdown_table(["cell", "rule", "parameters", "floats", "multiply-adds", "microseconds"], costs),
        "",
        f"BPTT against finite differences: largest relative error along a random direction of each array {worst:.1e}.",
    ]
    return "\n".join(lines)


def _entry(rows: Sequence[Row]) -> str:
    if not rows:
        return "-"
    failed = "" if all(r.ok for r in rows) else " **FAILED**"
    several = [r for r in rows if r.steps > 1]
    claim = several[0].claim
    if claim == "unbiased":
        return f"unbiased, {max(r.worst_z or 0 for r in rows):.1f} se; ratio ± {max(r.ratio_error or 0 for r in rows):.3f}{failed}"
    worst = max(several, key=lambda r: r.relative_error)
    if claim == "exact":
        return f"exact, {worst.relative_error:.0e}{failed}"
    return f"biased, {worst.relative_error:.2g}; cosine {worst.cosine:.4f}{failed}"


def checks_table(checks: Sequence[Check]) -> list[str]:
    """Lines of text: every claim, its number, what it has to be."""
    width = max(len(c.name) for c in checks)
    lines = [f"{c.name:{width}}  {c.value:12.3g}  {c.limit:9}  {'ok' if c.ok else 'FAILED'}  {c.what}" for c in checks]
    return [*lines, f"{sum(c.ok for c in checks)} of {len(checks)} claims of target propagation hold"]


def checks_markdown(checks: Sequence[Check]) -> str:
    """The section of `docs/exactness.md` on the claims of target propagation."""
    found = lambda c: f"{c.value:.5g}{'' if c.ok else ' **FAILED**'}"
    rows = [[c.name, c.what, found(c), c.limit] for c in checks]
    table = markdown_table(["claim", "what is compared", "found", "must be"], rows)
    return f"## Target propagation, stochastic units and mixtures\n\n{table}"
