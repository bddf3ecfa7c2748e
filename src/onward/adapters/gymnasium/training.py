"""Learning in an environment of Gymnasium: one compiled step for each observation."""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from onward import saving
from onward.adapters.gymnasium.matching import require_fit, require_state, require_streams
from onward.adapters.gymnasium.spaces import name_of
from onward.adapters.gymnasium.words import Wording, Words, said_with
from onward.adapters.gymnasium.worlds import MORE, Ended, World, world_of
from onward.cells.base import require_size
from onward.devices import must_compute
from onward.errors import NotFinite, OnwardError, Stopped
from onward.lab.folder import RunFolder, newest_good, path_of, prune
from onward.lab.progress import Progress
from onward.lab.signals import stopping
from onward.learners.base import AbstractLearner
from onward.loop import compile_wide
from onward.model import Model
from onward.types import PyTree, Step

JOB, COMMAND, METRICS = "train", "train", "metrics.jsonl"
CHECKPOINT_SECONDS, SHOW_SECONDS = 20.0, 0.5
# Episodes that the mean return at the end is taken over.
LAST = 100


class Trained(NamedTuple):
    """What came of `train`: the learner's state (`state.model` is the network), and of each episode that ended, in
    this order, the sum of its rewards, its moves, and the step that showed its end.
    """

    state: PyTree
    returns: Float[np.ndarray, " episodes"]
    lengths: Int[np.ndarray, " episodes"]
    ends: Int[np.ndarray, " episodes"]
    steps: int
    summary: str
    """All of it in a line; where no episode ended it says so."""


_Line = TypedDict("_Line", {"step": int, "stream": int, "return": float, "length": int})


class _Kept(TypedDict):
    steps: int
    metrics_bytes: int


def train(
    env: Any,
    learner: AbstractLearner,
    model: Model,
    steps: int,
    *,
    key: PRNGKeyArray,
    state: PyTree = None,
    out: str | Path | None = None,
    quiet: bool = False,
) -> Trained:
    """Learn in an environment of Gymnasium for so many steps: what `learner` chooses is done, what comes of it learned.

    >>> import gymnasium, jax, optax, onward as ow
    >>> from onward.adapters.gymnasium import train
    >>> env = gymnasium.make("CartPole-v1")
    >>> model = ow.Model(ow.GRU(4, 8, key=jax.random.key(0)), ow.Linear(8, 2))
    >>> learner = ow.Online(ow.SnAp(1), ow.QLambda(), optax.adam(1e-3))
    >>> trained = train(env, learner, model, 300, key=jax.random.key(1), quiet=True)
    >>> int(trained.lengths.sum()) + len(trained.lengths) <= 300
    True

    `env`: observations may be Box of one dimension, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these;
    the network reads `gymnasium.spaces.flatdim(env.observation_space)` numbers, choices one-hot. Actions may be
    Discrete (from whatever `start`), MultiDiscrete and MultiBinary (all combinations, numbered as `np.unravel_index`
    does), or a Box of floats, to whose bounds they are clipped. `learner`: one whose objective acts
    (`Online(..., QLambda())`); for a vector environment of n, `Online(..., streams=n)`, and autoreset_mode NEXT_STEP.

    A step is one observation: the first of an episode, or the one after a move (of each environment, if there are
    several). An ended episode ends with a discount of 0, one that was truncated with 1, as for `AbstractEnvironment`.

    `state`: go on from what an earlier call returned; `model` is then not read. `out`: a run folder. It gets
    `metrics.jsonl` (a line for each episode), checkpoints, and `report.html` with returns and, where the environment
    renders "rgb_array", a strip of frames of one more episode (of several environments, of the first), from which
    nothing is kept. If it holds such a run, that goes on until `steps` are done in all. An environment cannot be saved:
    whoever goes on begins a new episode there, from another seed, and the one that was cut off is not learned to its
    end; all else goes on as it was. `key` decides the first state of the learner and the environment's seed. `quiet`:
    no progress and no summary on stderr.

    Exact or biased as the learner is. Cost of a step: the environment's own, and a compiled call (`docs/gymnasium.md`
    has its microseconds). Compiled once a call of `train`.

    Whatever ends it early, an interrupt too, has a field `trained` with what was learned until then; with `out` that is
    also saved. Raises OnwardError for spaces that cannot be learned from and for observations that are none of their
    space; `NotFinite` for a reward or an observation that is NaN or infinite, which is not learned from, and if
    learning diverges; `Stopped` after Ctrl-C or SIGTERM; ValueError or TypeError for a network or a learner that does
    not fit the environment.
    """
    require_size("train", steps=steps)
    must_compute()
    world = world_of(env)
    require_streams(world, learner)
    network: Model = model if state is None else state.model
    require_fit(world, learner, network)
    learner_key, env_key = jax.random.split(key)
    example = _example(jnp.asarray(world.row))
    if given := state is not None:
        require_state(learner, state, example, learner_key)
    else:
        state = learner.init(model, example, key=learner_key)
    folder = None if out is None else RunFolder(Path(out), COMMAND)
    with folder or nullcontext(), Progress(quiet=quiet) as progress:
        run = _Run(world, learner, state, steps, folder, given)
        if folder is not None:
            run.open(folder, progress)
        try:
            run.go(env_key, progress)
            trained = run.trained()
            if folder is not None:
                from onward.adapters.gymnasium.report import write_report

                run.keep()
                if run.program or not (folder / "report.html").exists():
                    write_report(folder, world, trained, run.play, progress.say)
        except BaseException as error:
            vars(error)["trained"] = run.trained()
            run.keep_what_is_good()
            raise
        progress.say(trained.summary)
    return trained


def _example(row: Array) -> Step:
    return Step(row[..., :-MORE], row[..., -3], 1.0, row[..., -2] > 0, None, row[..., -1])


@dataclass
class _Run:
    """One call of `train`: how far it has come. `before`: the state before the last step."""

    world: World
    learner: AbstractLearner
    first: PyTree
    steps: int
    folder: RunFolder | None
    given: bool
    done: int = 0
    saved: int = -1
    broken: bool = False
    episodes: list[tuple[int, Ended]] = field(default_factory=list)
    written: int = 0
    words: Any = None
    before: Any = None
    program: Callable[[Words, np.ndarray], Words] | None = None

    def __post_init__(self) -> None:
        self.name = name_of(self.world.env)
        self.wording = Wording(self.first)
        self.said = 0

    # The folder.

    def open(self, folder: RunFolder, progress: Progress) -> None:
        """Begin there, or go on."""
        about = {"environment": self.name, "inputs": self.world.seen.width, "actions": str(self.world.doing.actions)}
        if not folder.holds_run:
            folder.begin(about | {"steps": self.steps})
            return
        if self.given:
            raise OnwardError(
                f"{folder} holds a run, which goes on from its own checkpoint: leave state out, or name another folder"
            )
        fields = folder.resume()["fields"]
        for name, value in about.items():
            if fields.get(name) != value:
                raise OnwardError(
                    f"{folder} was learned in another environment: its {name} was {fields.get(name)}, this one's is "
                    f"{value}. Name another folder"
                )
        unread: list[str] = []
        found = newest_good(folder.checkpoints, JOB, lambda path: saving.load(path, self.first), unread.append)
        if found is None and unread:
            why = unread[0].rpartition("; ")[0]
            raise saving.Unreadable(f"{why}. Give the learner and network of before, or name another folder")
        for why in unread:
            progress.say(why)
        if found is None:
            folder.cut({METRICS: 0})
            return
        self.first, meta = found
        saving.check_meta(meta, _Kept, f"the checkpoint of {folder}")
        folder.cut({METRICS: meta["metrics_bytes"]})
        self.done = self.saved = meta["steps"]
        self.episodes = _read_episodes(folder / METRICS)
        self.written = len(self.episodes)
        folder.hold()

    def keep(self) -> None:
        """A checkpoint, and the lines of the episodes until now."""
        if self.folder is None or self.saved == self.done:
            return
        state = self.state()
        for leaf in jax.tree.leaves(eqx.filter(state.model, eqx.is_inexact_array)):
            if not np.isfinite(leaf).all():
                self.broken = True
                raise self._diverged()
        self.write_lines()
        sizes = self.folder.sizes(METRICS)
        path = path_of(self.folder.checkpoints, JOB, self.done)
        saving.save(path, state, steps=self.done, metrics_bytes=sizes[METRICS])
        prune(self.folder.checkpoints, JOB)
        self.folder.hold()
        self.saved = self.done

    def keep_what_is_good(self) -> None:
        """`keep`, where something else went wrong."""
        if self.done and not self.broken:
            self.keep()

    def write_lines(self) -> None:
        """The lines of the episodes that were not written yet."""
        if self.folder is not None:
            new = self._ended()[self.written :]
            self.folder.append(METRICS, "".join(_line(step, each) for step, each in new))
            self.written += len(new)

    def _ended(self) -> list[tuple[int, Ended]]:
        late = sum(step > self.done for step, _ in self.episodes[-(self.world.streams or 1) :])
        return self.episodes[: len(self.episodes) - late]

    # Learning.

    def go(self, key: PRNGKeyArray, progress: Progress) -> None:
        """Learn until all steps are done."""
        if self.done >= self.steps:
            return
        world = self.world
        self.program = program = self._compiled()
        world.begin(int(jax.random.bits(jax.random.fold_in(key, self.done))) >> 1)
        shown = saved = began = time.monotonic()
        from_step, count, streams = self.done, self.said, world.streams or 1
        with stopping() as stop:
            while True:
                after = program(self.words, world.row)
                said = said_with(after, count)
                if not said[-1]:
                    self.broken = True
                    raise self._diverged()
                self._take(after)
                now = time.monotonic()
                if now - shown > SHOW_SECONDS or self.done == self.steps:
                    self._show(progress, (self.done - from_step) / (now - began))
                    shown = now
                if now - saved > CHECKPOINT_SECONDS:
                    self.keep()
                    saved = now
                if self.done == self.steps:
                    return
                if stop():
                    how = "state=error.trained.state" if self.folder is None else f"out={str(self.folder)!r}"
                    raise Stopped(f"train: stopped at step {self.done:,} of {self.steps:,}; go on with {how}")
                world.go(said[:-1].reshape(streams, -1))

    def _take(self, after: Any) -> None:
        """One more step was learned. An episode that ended with it does not count until `done` does."""
        for each in self.world.ended():
            self.episodes.append((self.done + 1, each))
        vars(self).update(words=after, before=self.words, done=self.done + 1)

    def _compiled(self) -> Callable[[Words, np.ndarray], Words]:
        """From words and a row to the next words: with them is said what was chosen, and whether all was finite."""
        learner, wording = self.learner, self.wording

        def step(words: Words, row: Array) -> Words:
            after, info = learner.step(wording.unpack(words), _example(row))
            fine = jnp.isfinite(info.loss).all() & jnp.isfinite(info.prediction).all()
            said = (jnp.asarray(info.action).reshape(-1).astype(jnp.float32), fine[None].astype(jnp.float32))
            return wording.pack(after, jnp.concatenate(said))

        shape = self.world.doing.actions
        self.said = (self.world.streams or 1) * (1 if isinstance(shape, int) else math.prod(shape)) + 1
        words = wording.pack(self.first, jnp.zeros(self.said, jnp.float32))
        self.words = self.before = words
        return compile_wide(jax.jit(step).lower(words, self.world.row))

    def play(self, moves: int, show: Callable[[], None]) -> None:
        """One more episode (of several environments, that of the first), of so many moves at most.

        `show` is called at each observation. Nothing of it is kept.
        """
        words, program, world = self.words, self.program, self.world
        if program is None:
            return
        world.begin(None)
        for _ in range(moves + 1):
            show()
            words = program(words, world.row)
            if any(each.stream == 0 for each in world.ended()):
                return
            world.go(said_with(words, self.said)[:-1].reshape(world.streams or 1, -1))

    def _diverged(self) -> NotFinite:
        return NotFinite(
            f"train: {self.name}: learning diverged at step {self.done + 1:,}: what is predicted, or a weight, became "
            "NaN or infinite; try a smaller step size, or smaller rewards"
        )

    # What came of it.

    def state(self) -> PyTree:
        """The last one that is good."""
        words = self.before if self.broken else self.words
        return self.first if words is None else self.wording.state(words)

    def trained(self) -> Trained:
        """Until now."""
        ended = self._ended()
        returns = np.array([each.total for _, each in ended], float)
        lengths = np.array([each.length for _, each in ended], int)
        ends = np.array([step for step, _ in ended], int)
        return Trained(self.state(), returns, lengths, ends, self.done, self._summary(returns))

    def _summary(self, returns: np.ndarray) -> str:
        start = f"{self.name}: {self.done:,} steps, "
        if not len(returns):
            total, length = self.world.unfinished()
            return f"{start}no episode ended (so far one of {length:,} moves, with rewards of {total:.4g} in all)"
        last = returns[-LAST:]
        return f"{start}{len(returns):,} episodes, mean return of the last {len(last)}: {last.mean():.4g}"

    def _show(self, progress: Progress, rate: float) -> None:
        self.write_lines()
        last = [each.total for _, each in self._ended()[-LAST:]]
        value = sum(last) / len(last) if last else None
        note = "" if last else "  no episode ended yet"
        progress.show(self.name, self.done, self.steps, rate=rate, metric="return", value=value, note=note)


def _line(step: int, ended: Ended) -> str:
    line = {"step": step, "stream": ended.stream, "return": ended.total, "length": ended.length}
    return json.dumps(line) + "\n"


def _read_episodes(path: Path) -> list[tuple[int, Ended]]:
    """The episodes of a run folder; `Unreadable` where a line is damaged."""
    episodes = []
    text = path.read_text() if path.exists() else ""
    for i, text_of_one in enumerate(text.splitlines(), 1):
        with saving.reading(f"{path}, line {i}"):
            line = json.loads(text_of_one)
            saving.check_meta(line, _Line, f"{path}, line {i}")
            episodes.append((line["step"], Ended(line["stream"], line["return"], line["length"])))
    return episodes
