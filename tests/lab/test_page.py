"""The page of a report: one file, read by people, by programs that read aloud, at night and on paper."""

import csv
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from onward.lab.figures import curve_with_spread, spread_words
from onward.lab.page import Picture, Table, heat, interval, write_page


def picture(name):
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.plot([0, 1, 2], [0, 1, 0])
    axes.set(xlabel="x & <y>")
    return Picture(name, figure, f'What "{name}" shows & why.')


class Read(HTMLParser):
    """What a page is made of: elements with their attributes, and which are open at its end."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "use", "path", "rect", "stop"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    table = Table(["method", "mean", "95 % interval"], [["a <b>", "1.5", "-2 - 3"], ["c", "2", ""]], "Of & all.")
    parts = [picture("one"), table, picture("two"), "A <text>.", ["one & two"]]
    folder = tmp_path_factory.mktemp("page")
    text = write_page(folder, title="A & B", lead="So <it> is.", parts=parts, settings="{}").read_text()
    return folder, text, Read(text)


def test_on_a_small_screen_a_wide_table_names_each_number(page, tmp_path):
    *_, read = page
    assert [a.get("class") for a in read.all("table")] == [None]
    header = ["m", *"abcde&"]
    text = write_page(
        tmp_path, title="", lead="", parts=[Table(header, [["x", *"123456"]], "")], settings=""
    ).read_text()
    read = Read(text)
    assert [a["class"] for a in read.all("table")] == ["many"]
    assert [a["data-label"] for a in read.all("td")] == header[1:]
    for cell, kind in (("1.653 (1.642 to 1.669)", "many"), ("1.653", None)):
        table = Table(["m", "T = 2", "T = 5"], [["x", cell, cell]], "")
        text = write_page(tmp_path, title="", lead="", parts=[table], settings="").read_text()
        assert Read(text).all("table")[0].get("class") == kind


def test_dark_stays_dark_in_a_heat_map(tmp_path):
    figure = Figure(figsize=(3, 2))
    for axes in figure.subplots(1, 2):
        heat(axes, np.eye(3))
    text = write_page(tmp_path, title="", lead="", parts=[Picture("p", figure, "")], settings="").read_text()
    names = [a["id"] for a in Read(text).all("image")]
    assert names == ["p-heat-0", "p-heat-1"]
    assert '[id*="-heat-"]{filter:invert(1)' in text


def test_a_page_needs_no_other_file_and_is_whole(page):
    folder, text, read = page
    assert not read.open
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', re.sub(r'xmlns(:\w+)?="[^"]*"', "", text))
    assert sorted(path.name for path in (folder / "figures").iterdir()) == ["one.png", "one.svg", "two.png", "two.svg"]


def test_names_within_drawings_are_unique_and_found(page):
    _, text, read = page
    names = [attributes["id"] for _, attributes in read.found if "id" in attributes]
    assert names
    assert len(names) == len({*names})
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert used
    assert {*used} <= {*names}


def test_who_hears_the_page_is_told_what_stands_where(page):
    read = page[2]
    assert [svg["aria-label"] for svg in read.all("svg")] == ['What "one" shows & why.', 'What "two" shows & why.']
    assert {svg["role"] for svg in read.all("svg")} == {"img"}
    assert [th["scope"] for th in read.all("th")] == ["col", "col", "col", "row", "row"]
    (region,) = [div for div in read.all("div") if "role" in div]
    assert region == {"class": "wide", "tabindex": "0", "role": "region", "aria-label": "Of & all."}


def test_night_paper_and_small_screens_have_their_rules(page):
    for rule in ("@media screen and (prefers-color-scheme:dark)", "@media print", "@media(max-width:40rem)"):
        assert rule in page[1]


@pytest.mark.parametrize(
    ("seeds", "words"), [(1, "one seed"), (2, "thin lines"), (4, "thin lines"), (5, "95 % interval")]
)
def test_what_lies_around_a_mean_is_its_interval_from_five_seeds_on(seeds, words):
    assert words in spread_words(seeds)
    axes = Figure().subplots()
    values = np.random.default_rng(0).normal(size=(3, seeds))
    curve_with_spread(axes, np.arange(3), values, label="a", colour="k")
    assert len(axes.lines) == {1: 1, 2: 3, 4: 5, 5: 1}[seeds]
    assert np.allclose(axes.lines[0].get_ydata(), values.mean(1))
    assert len(axes.collections) == (seeds >= 5)
    if seeds >= 5:
        edge = axes.collections[0].get_paths()[0].vertices
        at_one = sorted({y for x, y in edge if x == 1})
        assert np.allclose((at_one[0], at_one[-1]), interval(values[1], draws=1000))


def test_curves_are_written_for_other_programs(tmp_path, monkeypatch):
    from onward.lab.papers.trace_patterning import TracePatterningExperiment
    from onward.lab.results import execute, load_summary
    from onward.lab.train import read_metrics

    monkeypatch.setattr(TracePatterningExperiment, "figures", "test_page_figures", raising=False)
    experiment = TracePatterningExperiment(
        methods=("columnar",), columnar_columns=2, steps=300, seeds=2, step_sizes=(1e-3, 1e-2)
    )
    with pytest.raises(ModuleNotFoundError):  # nothing is drawn
        execute(experiment, tmp_path / "run", quiet=True)
    with open(tmp_path / "run" / "curves.csv") as file:
        rows = list(csv.DictReader(file))
    lines = read_metrics(tmp_path / "run")
    runs = [
        (size, seed)
        for row in load_summary(tmp_path / "run")["methods"]
        for size in [row["step_size"]]
        for seed in row["seeds"]
    ]
    assert len(rows) == len(lines) * len(runs) == len(lines) * 4
    values = {(float(r["step_size"]), int(r["seed"]), int(r["step"])): r["value"] for r in rows}
    for line in lines:
        for (size, seed), value in zip(runs, line["values"], strict=True):
            said = values[size, seed, line["step"]]
            assert said == ("" if value is None or np.isnan(value) else repr(value))


def report_of(tmp_path, lines, summary, **fields):
    """A run as its report reads it, of these metric lines and rows of the summary."""
    import json

    from onward.lab.figures import Run
    from onward.lab.papers.trace_patterning import TracePatterningExperiment

    experiment = TracePatterningExperiment(methods=("columnar",), seeds=2, step_sizes=(0.1,), **fields)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = Run(experiment, tmp_path)
    run.__dict__["summary"] = {"methods": summary, "references": {"predict-zero": 2.0, "bayes": 1.0}}
    return run


ROW = {"name": "columnar", "step_size": 0.1, "note": "", "mean": 1.0, "values": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("last", "merged"), [(20, True), (50, True), (51, False), (100, False)], ids=["short", "half", "long", "whole"]
)
def test_a_last_point_of_few_steps_is_drawn_with_the_one_before(tmp_path, last, merged):
    steps = [100, 200, 300, 300 + last]
    values = [[1.0, 2.0], [3.0, 4.0], [5.0, float("nan")], [50.0, 7.0]]
    counts = [100, 100, 100, last]
    lines = [
        {"job": "columnar", "step": step, "count": count, "values": value}
        for step, count, value in zip(steps, counts, values, strict=True)
    ]
    run = report_of(tmp_path, lines, [ROW], steps=steps[-1])
    drawn, curve = run.curve(ROW)
    if not merged:
        assert drawn.tolist() == steps
        assert np.array_equal(curve, values, equal_nan=True)
        return
    assert drawn.tolist() == [100, 200, steps[-1]]
    assert curve[:2].tolist() == values[:2]
    assert np.allclose(curve[2], [(500 + 50 * last) / (100 + last), 7.0])


@pytest.mark.parametrize(("mean", "marked"), [(0.99, True), (1.0, False), (1.5, False)])
def test_a_mean_better_than_the_best_possible_is_marked_as_chance(tmp_path, mean, marked):
    run = report_of(tmp_path, [], [])
    table = run.table({"mean": lambda row: str(row["mean"])}, {}, "Finals.", [ROW | {"mean": mean}])
    assert table.rows[0][0] == ("columnar *" if marked else "columnar")
    assert ("better than bayes, the best possible on average" in table.caption) == marked


def test_the_optimum_of_every_experiment_is_one_of_its_references():
    from onward.lab.papers import EXPERIMENTS, kind_of

    known = {name: kind_of(name) for name in EXPERIMENTS}
    assert {name for name, kind in known.items() if kind.optimum} >= {"trace-patterning", "memory"}
    for name, kind in known.items():
        if kind.optimum:
            assert kind.optimum in kind().references(), name
