"""No row of a stream waits for a compiler, and what is learned is the same to the last bit."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from onward.rows.options import Learn
from onward.rows.session import Session
from onward.rows.sources import Rows
from onward.rows.stream import as_usual
from onward.rows.stream.ahead import Ahead

COMPILED = "/jax/core/compile/backend_compile_duration"
BLOCK = 4


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The threads in which something was compiled, one by one."""
    seen: list[str] = []

    def listen(event: str, seconds: float, **more: object) -> None:
        if event == COMPILED:
            seen.append(threading.current_thread().name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def table(rows: int, columns: int) -> list[dict]:
    rng = np.random.default_rng(0)
    made = [{f"x{i}": f"{v:.4g}" for i, v in enumerate(line)} for line in rng.normal(size=(rows, columns)).tolist()]
    return [{"y": f"{np.sin(2 * np.pi * t / 8) + 0.1 * t % 1:.4g}"} | row for t, row in enumerate(made)]


def season(rows: list[dict]) -> None:
    """Seven inputs and the target: there is no room for the season that is found at row 256."""


def column(rows: list[dict]) -> None:
    for t, row in enumerate(rows):
        row["late"] = "1.5" if t >= 100 else ""


def categories(rows: list[dict]) -> None:
    for t, row in enumerate(rows):
        row["x0"] = "abcdefgh"[min(t // 30, 7)]


def classes(rows: list[dict]) -> None:
    for t, row in enumerate(rows):
        row["y"] = "abcdefgh"[min(t // 50, 3) if t % 2 else 0]


def stage(rows: list[dict]) -> None:
    """None of these, but a network that grows."""


CASES = {
    season: (7, 300, {}),
    column: (7, 150, {}),
    categories: (4, 150, {"horizon": 2}),
    classes: (2, 150, {"task": "classification"}),
    stage: (2, 150, {"network": "ccn", "stages": 3, "stage_rows": 50}),
}


def learned(rows: list[dict], sizes: Iterator[int], **options) -> tuple[Session, list[int], list[str]]:
    """A session that has learned the rows; the shapes it had, and where compiled for after the first answer."""
    fields = {"target": ("y",), "network": "columnar", "units": 3} | options
    session, shapes, at = Session(Learn(**fields), "rows", lambda text: None, block=BLOCK, live=True), [], 0
    with as_usual(), compilations() as seen, session.ahead:
        while at < len(rows):
            part = rows[at : at + next(sizes)]
            cells = {name: [row[name] or None for row in part] for name in part[0]}
            session.take(Rows(at + 1, range(at + 1, at + 1 + len(part)), cells, {}))
            session.ahead.ready()
            if not at:
                seen.clear()
            at += len(part)
            learner = session.learner
            shapes.append((learner.capacity, learner.classes, learner.stage))
    return session, sorted(set(shapes)), seen


def ones() -> Iterator[int]:
    while True:
        yield 1


@pytest.mark.parametrize(
    "spoil",
    [column, *(pytest.param(each, marks=pytest.mark.interfaces) for each in (season, categories, classes, stage))],
    ids=lambda spoil: spoil.__name__,
)
def test_what_a_row_needs_was_compiled_before_it_came(spoil, monkeypatch):
    columns, count, options = CASES[spoil]
    rows = table(count, columns)
    spoil(rows)
    session, shapes, seen = learned(rows, ones(), **options)
    assert len(shapes) > 1
    assert seen.count("MainThread") == 0
    assert len(seen) > 0 or len(shapes) == 2
    # The same to the last bit, however rows come, and without anything that goes on beside.
    monkeypatch.setattr(Ahead, "follow", lambda *arguments: None)
    draw = np.random.default_rng(1)
    other, _, _ = learned(rows, iter(lambda: int(draw.integers(1, BLOCK + 1)), 0), **options)
    assert "".join(other.lines) == "".join(session.lines)
    (arrays, meta), (others, other_meta) = session.learner.save(), other.learner.save()
    assert meta == other_meta
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)


@pytest.mark.interfaces
def test_without_it_rows_would_wait(monkeypatch):
    """The test above would notice."""
    jax.clear_caches()
    rows = table(60, 7)
    for t, row in enumerate(rows):
        row["late"] = "1.5" if t >= 40 else ""
    monkeypatch.setattr(Ahead, "follow", lambda *arguments: None)
    _, shapes, seen = learned(rows, ones(), units=5)
    assert len(shapes) == 2
    assert "MainThread" in seen


def test_an_end_waits_for_what_is_being_compiled_and_begins_no_more():
    session = Session(Learn(target=("y",), network="ccn", units=4, stages=3), "rows", print, block=BLOCK, live=True)
    with as_usual(), session.ahead as ahead:
        cells = {"y": ["1.0"], "x": ["2.0"]}
        session.take(Rows(1, [1], cells, {}))
        before = threading.active_count()
        ahead.follow(session.learner._replace(stage=2), "step")
        assert ahead._thread.is_alive()
    assert not ahead._thread.is_alive()
    assert threading.active_count() == before
