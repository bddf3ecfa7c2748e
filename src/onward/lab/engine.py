"""All jobs of a run: in this process, and in others beside it where that pays; the same numbers to the bit."""

import multiprocessing
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from filelock import FileLock, Timeout

from onward import saving
from onward.devices import cache_programs, choose_device, computing_in, cores, pin, platform, precision
from onward.errors import OnwardError, Stopped
from onward.lab.experiment import Experiment, digest_of, jobs_of
from onward.lab.folder import LOCK, RunFolder, newest_first, path_of
from onward.lab.method import Method
from onward.lab.progress import Progress
from onward.lab.signals import end_with_parent
from onward.lab.train import METRICS, train
from onward.lab.watch import ProgressFile, Watch
from onward.loop import Programs, Run

# Files of jobs in hand; seconds for which one waits for a process that is at its end.
JOBS, PATIENCE = "jobs", 30.0
# A second process starts up in about three seconds. It is started at once where so many run-steps wait, else after
# `TRY` seconds, where what is left seems to take so many.
WORTH_STEPS, WORTH_SECONDS, TRY = 2e6, 8.0, 2.0
Load = Callable[[Path], Experiment]


class JobFolder(RunFolder):
    """One job's hold on a run folder that its command has locked: files of its own names, in whichever process.

    A process that was killed may have left another at work on the same job for a moment: who comes waits for it.
    """

    def __init__(self, path: Path, job: str, hold: Callable[[], None] = lambda: None):
        super().__init__(path, "job")
        self._lock = FileLock(path / JOBS / f"{job}.{LOCK}", timeout=PATIENCE, thread_local=False)
        self._hold = hold

    def __enter__(self) -> Self:
        (self / JOBS).mkdir(exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise OnwardError(f"{self._lock.lock_file} is held by another process; stop it") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def hold(self) -> None:
        """See `RunFolder.hold`, of the whole."""
        self._hold()


class Jobs:
    """The jobs of a run: their methods, their tiles, and how one is done."""

    def __init__(self, experiment: Experiment, methods: Sequence[Method]) -> None:
        self.experiment, self.digest = experiment, digest_of(experiment)
        each = {method.name: method for method in methods}
        self.tiles: dict[str, list[Run]] = {}
        self._methods: dict[str, Method] = {}
        for name in experiment.rows:
            for job, tile in jobs_of(experiment, name).items():
                self.tiles[job], self._methods[job] = tile, each[name]
        self._programs: dict[tuple[str, int], Programs] = {}

    @property
    def metric(self) -> str:
        """What is measured."""
        return next(iter(self._methods.values())).metric

    def steps(self, job: str) -> int:
        """Of each of its runs."""
        return self._methods[job].steps

    def run_steps(self, jobs: Sequence[str]) -> int:
        """Of all runs together."""
        return sum(self.steps(job) * len(self.tiles[job]) for job in jobs)

    def do(self, job: str, folder: JobFolder, progress: Progress, stop: Callable[[], bool]) -> dict[str, Any]:
        """One job, to its end; see `train`."""
        method, tile = self._methods[job], self.tiles[job]
        program = method.name, len(tile)  # a last, smaller tile needs programs of its own
        if program not in self._programs:
            self._programs.clear()  # of one method at a time: programs take memory
        return train(
            method,
            tile,
            job=job,
            folder=folder,
            digest=self.digest,
            progress=progress,
            stop=stop,
            metrics=_lines_of(job),
            programs=self._programs.setdefault(program, {}),
        )


def _lines_of(job: str) -> str:
    return f"{JOBS}/{job}.jsonl"


def _file_of(job: str) -> str:
    return f"{JOBS}/{job}.json"


def run_jobs(
    jobs: Jobs,
    folder: RunFolder,
    *,
    progress: Progress,
    stop: Callable[[], bool],
    load: Load | None,
    workers: int | None,
) -> dict[str, dict[str, Any]]:
    """Do every job that has not ended, then join their metrics; returns the meta of each one's last checkpoint.

    `load` reads the experiment from the folder, in another process; None: in this one alone. `workers`: how many
    processes; None: as many as there are cores, once that pays. Raises as `train` does, after the other processes have
    kept what they have.
    """
    crew = _Crew(jobs, folder, progress, load, workers, stop)
    try:
        while not crew.ending() and crew.at_work:
            if (job := crew.take()) is None:
                time.sleep(0.05)
                continue
            with JobFolder(folder.path, job, folder.hold) as place:
                crew.ended(job, jobs.do(job, place, crew.watch, crew.ending))
        crew.wait(Stopped(f"stopped; go on with: onward run --resume {folder}"))
    except OnwardError as error:
        crew.wait(error)
    finally:
        crew.dismiss()
    join(folder, list(jobs.tiles))
    return {job: crew.ends[job] for job in jobs.tiles}


def join(folder: RunFolder, jobs: Sequence[str]) -> None:
    """One file of metrics from those of the jobs, in the order of the plan; done again after a kill in between."""
    parts = [folder / _lines_of(job) for job in jobs]
    if all(part.is_file() for part in parts):
        with saving.reading(folder / JOBS):
            text = b"".join(part.read_bytes() for part in parts)
        saving.write_bytes(folder / METRICS, text)
    shutil.rmtree(folder / JOBS, ignore_errors=True)


class _Setting(NamedTuple):
    """What another process must know."""

    folder: Path
    load: Load
    precision: str
    core: int


class _Helper:
    """Another process that does one job at a time."""

    def __init__(self, setting: _Setting, stop: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.job = ""
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_help, args=(theirs, setting, stop), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, job: str) -> None:
        """Something to do."""
        self.job = job
        with suppress(OSError):  # it has died: its answer says so
            self._connection.send(job)

    def answer(self) -> tuple[str, Any] | None:
        """What came of it: "ended" and the meta, "failed" and the error, "stopped" or "died"; None: nothing yet."""
        try:
            return self._connection.recv() if self._connection.poll() else None
        except (EOFError, OSError):
            return "died", None

    def end(self) -> None:
        """Let it go."""
        self.process.kill()
        self.process.join()
        self._connection.close()


def _help(connection: Connection, setting: _Setting, stop: Any) -> None:
    """The life of a helper."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the one that started us is asked, and asks us
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    pin(setting.core)
    choose_device("cpu")
    cache_programs()  # options of the compiler stand in the environment
    with computing_in(setting.precision):
        jobs: Jobs | None = None
        while True:
            try:
                job = connection.recv()
            except EOFError:
                return
            try:
                if jobs is None:
                    experiment = setting.load(setting.folder)
                    jobs = Jobs(experiment, [experiment.build(name) for name in experiment.rows])
                with JobFolder(setting.folder, job) as place:
                    watched = ProgressFile(place / _file_of(job))
                    connection.send(("ended", jobs.do(job, place, watched, stop.is_set)))
            except Stopped:
                connection.send(("stopped", None))
            except OnwardError as error:
                connection.send(("failed", error))


class _Crew:
    """The process of the command, and those that help it."""

    def __init__(
        self,
        jobs: Jobs,
        folder: RunFolder,
        progress: Progress,
        load: Load | None,
        workers: int | None,
        asked: Callable[[], bool],
    ) -> None:
        self.ends: dict[str, dict[str, Any]] = {}
        self._jobs, self._folder, self._load, self._asked = jobs, folder, load, asked
        left = [job for job in jobs.tiles if not path_of(folder.checkpoints, job, jobs.steps(job)).exists()]
        most = len(cores()) if workers is None else workers
        self._most = min(most, len(left)) if load and platform() == "cpu" else 1
        self._at_once = workers is not None or jobs.run_steps(left) >= WORTH_STEPS
        self._todo = deque(sorted(jobs.tiles, key=left.__contains__))  # those that have ended are looked at first
        self._helpers: list[_Helper] = []
        self._stop: Any = None
        self._error: OnwardError | None = None
        self._ending = False
        self._began = time.monotonic()
        self._held = False
        self.watch = Watch(
            progress,
            jobs.experiment.name,
            steps={job: jobs.steps(job) for job in jobs.tiles},
            runs={job: len(tile) for job, tile in jobs.tiles.items()},
            left=left,
            file=lambda job: folder / _file_of(job),
            workers=lambda: 1 + len(self._helpers),
            metric=jobs.metric,
            look=self._hold,
        )

    @property
    def at_work(self) -> bool:
        """Whether something is left to do, or in somebody's hands."""
        return bool(self._todo) or self._busy

    def take(self) -> str | None:
        """The next job for this process; None: there is none."""
        if not self._todo:
            return None
        self.watch.job = self._todo.popleft()
        return self.watch.job

    def ended(self, job: str, meta: dict[str, Any]) -> None:
        """A job has come to its end."""
        self.ends[job] = meta
        self.watch.ended(job)

    @property
    def _busy(self) -> bool:
        return any(helper.job for helper in self._helpers)

    def ending(self) -> bool:
        """Whether all are to end; asked all the time.

        It hears what came of the helpers' jobs and gives them others, and starts helpers where that pays.
        """
        for helper in list(self._helpers):
            told = helper.answer()
            if told is not None:
                self._take(helper, *told)
        self._ending = self._ending or self._asked() or self._error is not None
        if self._ending:
            self._todo.clear()
            if self._stop is not None:
                self._stop.set()
        for helper in self._helpers:
            if self._todo and not helper.job:
                helper.give(self._todo.pop())
        while self._todo and 1 + len(self._helpers) < self._most and self._pays:
            self._start()
        if self._helpers:
            self.watch.poll()
        return self._ending

    def _take(self, helper: _Helper, what: str, value: Any) -> None:
        job, helper.job = helper.job, ""
        if what == "ended":
            self.ended(job, value)
        elif what == "failed":
            self._error = self._error or value
        elif what == "died":
            self._helpers.remove(helper)
            helper.end()
            if job:
                self.watch.say(f"the process that did {job} died, most often for memory: it is done here")
                self._todo.append(job)
            self._most = 1 + len(self._helpers)

    @property
    def _pays(self) -> bool:
        if self._at_once:
            return True
        spent, share = time.monotonic() - self._began, self.watch.share
        return spent > TRY and spent * (1 - share) > WORTH_SECONDS * share

    def _start(self) -> None:
        if self._stop is None:
            self._stop = multiprocessing.get_context("spawn").Event()
        assert self._load is not None
        here = cores()
        core = here[(1 + len(self._helpers)) % len(here)]
        self._helpers.append(_Helper(_Setting(self._folder.path, self._load, precision(), core), self._stop))
        self._helpers[-1].give(self._todo.pop())

    def wait(self, error: OnwardError) -> None:
        """Until the helpers have kept what they have; raises their error, or this one, unless all jobs have ended."""
        self._ending = True
        end = time.monotonic() + PATIENCE
        while self.ending() and self._busy and time.monotonic() < end:
            time.sleep(0.05)
        if len(self.ends) < len(self._jobs.tiles):
            raise self._error or error

    def dismiss(self) -> None:
        """Let the helpers go."""
        for helper in self._helpers:
            helper.end()

    def _hold(self) -> None:
        if not self._held and any(newest_first(self._folder.checkpoints, job) for job in self._jobs.tiles):
            self._held = True
            self._folder.hold()


def _stopped(folder: RunFolder) -> str:
    return f"stopped between two jobs; go on with: onward run --resume {folder}"
