"""`onward verify`: what is chosen, done in processes of one core each, and told."""

import itertools
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from onward.devices import Process, cores, pin
from onward.errors import OnwardError, require_known
from onward.lab.progress import Progress
from onward.lab.signals import end_with_parent

if TYPE_CHECKING:
    from onward.credit.base import AbstractCredit
    from onward.verify import matrix
    from onward.verify.claims import Row
    from onward.verify.faults import Fault
    from onward.verify.targets import Check

# What --quick compares: every rule, on two cells, and seeds of an unbiased one.
QUICK_CELLS, QUICK_SAMPLES = ("Elman sparse", "Elman column-stack"), 2_000


class Found(NamedTuple):
    """What one job has found."""

    rows: "list[tuple[Row, Fault | None]]"
    checks: "list[Check]"


@dataclass(frozen=True)
class Choice:
    """What is verified: a file's part or everything; names of rules and of cells, none for all; whether quickly."""

    file: str = ""
    rules: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    quick: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is everything that Onward claims."""
        return self == Choice()

    def jobs(self) -> list[str]:
        """Cells, and checks that are called `check 0`; OnwardError for a name that is not known."""
        found = self._cells()
        chosen = list(found) if not self.cells else [name for name in found if self._chosen(name)]
        for word in self.cells:
            if not any(_names_cell(word, name) for name in found):
                known = [*found, *dict.fromkeys(itertools.chain.from_iterable(name.split() for name in found))]
                require_known("cell", word, known)
        if self.quick and not self.cells and not self.file:
            chosen = [name for name in chosen if name in QUICK_CELLS]
        if self.rules:
            few = chosen if self.file else QUICK_CELLS  # which have every rule
            there = dict.fromkeys(
                each for name in few for rule in self._rules(found[name]()[1]) for each in _called(rule)
            )
            for word in self.rules:
                if word not in there and len(found) == 1:
                    self._say_why_not(word, next(iter(found.values()))()[1])
                require_known("rule", word, there)
        if not self.whole:
            return chosen
        from onward.verify.targets import PARTS

        return [*chosen, *(f"check {i}" for i in range(len(PARTS)))]

    def do(self, job: str) -> Found:
        """One of the jobs."""
        import jax

        from onward.verify import matrix, targets
        from onward.verify.claims import SAMPLES

        word, _, number = job.partition(" ")
        if word == "check" and number.isdecimal():
            found = Found([], targets.PARTS[int(number)]())
        else:
            start = self._cells()[job]()
            rules = [r for r in self._rules(start[1]) if not self.rules or {*_called(r)} & {*self.rules}]
            settings = matrix.SETTINGS[2:3] if self.quick else matrix.SETTINGS
            samples = QUICK_SAMPLES if self.quick else SAMPLES
            found = Found([*matrix.judged(job, start, rules, settings=settings, samples=samples)], [])
        jax.clear_caches()  # programs of one cell are of no use to another one
        return found

    def _chosen(self, name: str) -> bool:
        return any(_names_cell(word, name) for word in self.cells)

    def _cells(self) -> "dict[str, Callable[[], matrix.Start]]":
        from onward.verify import matrix

        if not self.file:
            return matrix.cells()
        from onward.lab.own_parts import own

        mine = own(self.file)
        return {n: make for n, make in mine.cells.items() if mine.rule is None or _works(mine.rule, make()[1])}

    def _say_why_not(self, word: str, cell: object) -> None:
        """OnwardError by the rule itself, where it is a rule that does not work on this cell."""
        from onward.verify import matrix

        made = matrix.cells()
        for rule in (rule for name in QUICK_CELLS for rule in matrix.rules(made[name]()[1])):
            if word in _called(rule):
                try:
                    rule.on(cell)  # type: ignore[arg-type]
                except TypeError as error:
                    raise OnwardError(f"verify: {error}") from None
                return

    def _rules(self, cell: object) -> "list[AbstractCredit]":
        from onward.verify import matrix

        if self.file:
            from onward.lab.own_parts import own

            if (rule := own(self.file).rule) is not None:
                return [rule]
        return [rule for rule in matrix.rules(cell) if _works(rule, cell)]  # type: ignore[arg-type]


def _works(rule: "AbstractCredit", cell: object) -> bool:
    try:
        rule.on(cell)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def _called(rule: "AbstractCredit") -> tuple[str, str]:
    from onward.verify.claims import name_of

    return type(rule).__name__, name_of(rule)


def _names_cell(word: str, name: str) -> bool:
    return word.lower() == name.lower() or word.lower() in name.lower().split()


def verified(choice: Choice, jobs: Sequence[str], progress: Progress, workers: int = 0) -> Found:
    """All jobs, in as many processes as there are cores, or `workers`; in their order, whichever ends first."""
    workers = min(workers or len(cores()), len(jobs))
    began, done = time.monotonic(), {}
    progress.show("verify", 0, len(jobs), rate=0, metric="", value=None, note="", unit="jobs")
    for job, found in _done(choice, jobs, workers):
        done[job] = found
        rate = len(done) / (time.monotonic() - began)
        failed = sum(not row.ok for f in done.values() for row, _ in f.rows)
        note = f"  {job}" + (f", {failed} FAILED" if failed else "")
        progress.show("verify", len(done), len(jobs), rate=rate, metric="", value=None, note=note, unit="jobs")
    return Found([row for job in jobs for row in done[job].rows], [check for job in jobs for check in done[job].checks])


def _done(choice: Choice, jobs: Sequence[str], workers: int) -> Iterator[tuple[str, Found]]:
    if workers < 2:
        yield from ((job, choice.do(job)) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _begin, (context.Value("i", 0),))
    # This process only waits, so Ctrl-C may be an exception: what the pool has is then given back.
    theirs = signal.signal(signal.SIGINT, signal.default_int_handler) if Process.of_command else None
    try:
        futures = {pool.submit(choice.do, job): job for job in jobs}
        yield from ((futures[future], future.result()) for future in as_completed(futures))
    except BaseException:
        for child in multiprocessing.active_children():
            child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        if Process.of_command:
            signal.signal(signal.SIGINT, theirs)


def _begin(counter: object) -> None:
    """In a process of the pool: one core of its own, and an end with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()
    with counter.get_lock():  # type: ignore[attr-defined]
        mine = counter.value  # type: ignore[attr-defined]
        counter.value += 1  # type: ignore[attr-defined]
    here = cores()
    pin(here[mine % len(here)])
    from onward.devices import cache_programs

    cache_programs()


def verify(choice: Choice, form: str, junit: str) -> int:
    """Do it and print it; 0, or 1 where something is not what it claims to be."""
    from onward.devices import cache_programs

    with Progress() as progress:
        progress.say("verify: starting")
        cache_programs()
        from onward.verify import costs, tables

        found = verified(choice, choice.jobs(), progress)
        if not found.rows:
            raise OnwardError("verify: none of the rules works on any of the cells; choose others")
        if choice.whole and form:
            progress.say("verify: measuring costs")
            if Process.of_command:  # its one core, before JAX counts them
                pin(cores()[0])
        spent = costs.measured() if choice.whole and form else []
    rows, faults = [row for row, _ in found.rows], [fault for _, fault in found.rows]
    if junit:
        try:
            Path(junit).write_text(tables.as_junit(found.rows, found.checks), encoding="utf-8")
        except OSError as error:
            raise OnwardError(f"--junit {junit}: {error.strerror}") from None
    if form == "json":
        print(tables.as_json(rows, found.checks, spent, faults))
    elif form:
        print(f"{tables.as_markdown(rows, spent)}\n\n{tables.checks_markdown(found.checks)}")
    else:
        print("\n".join(tables.as_text(found.rows, found.checks)))
    return 0 if all(row.ok for row in rows) and all(check.ok for check in found.checks) else 1
