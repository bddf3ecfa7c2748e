"""Polyphonic music: which of 88 notes sound next? Manchev & Spratling 5.3, Tables 3 and 4."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

import onward as ow
from onward.lab import metrics
from onward.lab.data import datasets
from onward.lab.experiment import Experiment, require_positive, require_share, require_stages
from onward.lab.method import TILE, Growth, Method
from onward.tasks.piano import NOTES, window_starts

POINTS = 10
PROMPT, INVENTED, DRAWN = 50, 100, 200
METHODS = ("bptt", "ste", "stptt", "columnar", "ccn")
ONLINE = ("columnar", "ccn")
CELLS: dict[str, Any] = {"gru": ow.GRU, "lstm": ow.LSTM, "elman": ow.Elman}
OPTIMISERS: dict[str, Any] = {
    "adam": optax.scale_by_adam,
    "adagrad": lambda: optax.scale_by_rss(initial_accumulator_value=0.0),
    "nesterov": lambda: optax.trace(0.9, nesterov=True),
    "sgd": optax.identity,
    "rms": optax.scale_by_rms,
}
# How each was chosen is in docs/experiments/piano.md.
STEP_SIZES = {"adam": 1e-2, "adagrad": 0.3, "nesterov": 1.0, "sgd": 5.0, "rms": 1e-2}
ONLINE_SHARE = 0.3
# Pieces that a notice names.
NAMED = 3
# The paper's Tables 3 (T = 50, 100 units) and 4 (T = 100, 300 units; it does not name the optimiser).
TABLE_3 = {
    "ste": {"adagrad": 13.34, "nesterov": 13.39, "sgd": 13.39, "rms": 13.17},
    "stptt": {"adagrad": 9.69, "nesterov": 12.44, "sgd": 12.44, "rms": 9.86},
}
TABLE_4 = {"bptt": 11.22, "ste": 13.25, "stptt": 9.45}


@dataclass(frozen=True, kw_only=True)
class PianoExperiment(Experiment):
    """Predict the next frame of piano music, 88 notes on or off, from the T frames before it.

    A recurrent layer that is deterministic (bptt), or half of whose units are stochastic, trained with the straight-through
    estimator (ste) or with target propagation (stptt); and columns that learn online from whole pieces (columnar, ccn).
    Test loss over every window of the test pieces, in the state where the loss on validation windows was least. Without
    the real music it runs on embedded, generated etudes, and says so.
    """

    name: ClassVar[str] = "piano"
    title: ClassVar[str] = "Polyphonic music: the next notes of a piece"
    length_field: ClassVar[str] = "iterations"
    figures: ClassVar[str] = "onward.lab.papers.piano_figures"
    final_metric: ClassVar[str] = "test"
    also: ClassVar[tuple[str, ...]] = ("test_joint", "valid_least", "pieces")
    levels: ClassVar[str] = "counting"

    methods: tuple[str, ...] = ("bptt", "ste", "stptt", "ccn")
    seeds: int = 3
    data: str = "auto"
    """Which music: piano-midi, jsb, nottingham, muse, etudes (generated, embedded), or a name that `onward data import` gave your own.
    auto: piano-midi where it is installed, else etudes."""
    optimisers: tuple[str, ...] = ("adam",)
    """adam, adagrad, nesterov, sgd, rms: every method is run with each."""
    length: int = 50
    """Frames T of a window."""
    units: int = 100
    """Hidden units; columns have as many."""
    cell: Literal["gru", "lstm", "elman"] = "gru"
    """Kind of unit; columns of elman stay GRU."""
    stochastic: float = 0.5
    """Share of stochastic units of ste and stptt."""
    samples: int = 1
    """Trajectories M while learning."""
    evaluation: int = 20
    """Trajectories M while measuring."""
    every: bool = True
    """Whether every frame of a window is predicted while learning, not only the one after it. Measured is always that one."""
    transpose: int = 6
    """Training windows are moved by a random number of semitones, this many at most."""
    drop: float = 0.1
    """Share of the notes that training windows leave out of what is read."""
    iterations: int | None = None
    """Updates, each from `batch` windows. None: 2,500, or 300 on the embedded etudes."""
    batch: int = 32
    """Windows of an update."""
    frames: int | None = None
    """Updates of the online learners, one at every frame of `streams` pieces. None: 30,000, or 4,000 on the embedded etudes."""
    streams: int = 8
    """Pieces that online learners hear side by side."""
    weight_decay: float = 0.1
    """Decoupled weight decay of adam and rms, relative to the step size; none for other optimisers, whose size is of another kind, nor
    online, where updates are many and small."""
    gain: float = 1.0
    """Size of the recurrent weights at the start (`orthogonal`)."""
    inverse_step_size: float = 3e-3
    """stptt: alpha_g, step size of the inverse model (Adam)."""
    target_step_size: float = 1.0
    """stptt: alpha_i, how far the first target lies along the gradient."""
    transitions: int = 200
    """stptt: transitions of a batch that the inverse model learns from."""
    ccn_width: int = 50
    """ccn: columns in each stage."""
    spread: float = 0.3
    """Column weights start uniform in -spread .. spread."""
    held_out: int | None = None
    """Validation windows, evenly spaced, that decide which state is kept. None: 1,000, or 200 on the embedded etudes."""

    def __post_init__(self) -> None:
        """Settle which data it is, and how much of it is used, so that a run folder says it."""
        if self.data == "auto":
            object.__setattr__(self, "data", "piano-midi" if datasets.installed("piano-midi") else "etudes")
        for field, small, large in (("iterations", 300, 2_500), ("frames", 4_000, 30_000), ("held_out", 200, 1_000)):
            if getattr(self, field) is None:
                object.__setattr__(self, field, small if self.data == "etudes" else large)

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """Three of the paper, two that learn online."""
        return METHODS

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        for name in self.optimisers:
            if name not in OPTIMISERS:
                raise ow.OnwardError(f"--optimisers: there is no {name!r}; there are {', '.join(OPTIMISERS)}")
        if not self.optimisers or len(set(self.optimisers)) != len(self.optimisers):
            raise ow.OnwardError("--optimisers must name at least one optimiser, each once")
        require_positive(self, "length", "units", "samples", "evaluation", "batch", "streams", "gain", "ccn_width")
        require_positive(self, "inverse_step_size", "target_step_size", "transitions", "spread")
        require_positive(self, "iterations", "frames", "held_out")
        require_share(self, "weight_decay", "drop")
        if not 0 < self.stochastic <= 1:
            raise ow.OnwardError(
                f"--stochastic must be in (0, 1], got {self.stochastic}; bptt is the deterministic network"
            )
        if not 0 <= self.transpose < NOTES:
            raise ow.OnwardError(f"--transpose must be in 0 .. {NOTES - 1}, got {self.transpose}")
        if "ccn" in self.methods:
            require_stages(self.units, self.ccn_width, columns_field="units")
        if datasets.kind_of(self.data) not in (None, "music"):
            raise ow.OnwardError(f"--data: {self.data} is not music; see: onward data list")
        for split, pieces in self._splits().items():
            if not any(len(p) > self.length for p in pieces):
                longest = max((len(p) for p in pieces), default=0)
                raise ow.OnwardError(
                    f"--length {self.length}: no {split} piece of {self.data} has a window of so many frames and a next one; "
                    f"the longest of {len(pieces)} has {longest} frames"
                )

    def _splits(self) -> dict[str, Any]:
        music = datasets.load_music(self.data)
        return {"train": music.train, "valid": music.valid, "test": music.test}

    @property
    def rows(self) -> tuple[str, ...]:
        """Every method with every optimiser: METHOD-OPTIMISER."""
        return tuple(f"{method}-{optimiser}" for optimiser in self.optimisers for method in self.methods)

    @property
    def fingerprint(self) -> str:
        """A digest of all pieces."""
        return datasets.fingerprint(datasets.load_music(self.data))

    @property
    def notice(self) -> str:
        """What data it is, where a reader would expect other; and what is too short for a window."""
        return "; ".join(filter(None, (self.origin, self.left_out)))

    @property
    def origin(self) -> str:
        """That it is not real music, if it is not."""
        if self.data != "etudes":
            return ""
        generated = "these are embedded etudes, generated by a program"
        if datasets.installed("piano-midi"):
            return generated
        return (
            f"no real music is installed (onward data fetch piano-midi, or onward data import NAME PATH): {generated}"
        )

    @property
    def left_out(self) -> str:
        """Which pieces are shorter than a window, if any are."""
        parts = []
        for (part, pieces), titles in zip(self._splits().items(), datasets.load_music(self.data).titles, strict=True):
            short = [i for i, piece in enumerate(pieces) if len(piece) <= self.length]
            if short:
                names = ", ".join(titles[i] if titles else f"number {i + 1}" for i in short[:NAMED])
                more = f" and {len(short) - NAMED} more" if len(short) > NAMED else ""
                parts.append(f"{len(short)} of {len(pieces)} {part} ({names}{more})")
        if not parts:
            return ""
        return f"pieces without a window of {self.length} frames and a next one are left out of windows: {', '.join(parts)}"

    @property
    def validation_windows(self) -> int:
        """At most so many validation windows are read."""
        assert self.held_out is not None  # `__post_init__`
        return self.held_out

    def updates(self, online: bool) -> int:
        """Updates of a run of an online learner, or of another."""
        count = self.frames if online else self.iterations
        assert count is not None  # `__post_init__`
        return count

    def default_step_size(self, name: str) -> float:
        """Of the optimiser; online, where updates come at every frame, a fraction of it."""
        method, optimiser = split(name)
        return STEP_SIZES[optimiser] * (ONLINE_SHARE if method in ONLINE else 1)

    def optimiser(self, name: str, updates: int, weight_decay: float = 0.0) -> optax.GradientTransformation:
        """Clipped, warmed up, falling to zero along a cosine."""
        decayed = weight_decay > 0 and name in ("adam", "rms")
        decay = [optax.add_decayed_weights(weight_decay)] if decayed else []
        warm = min(100, max(1, updates // 4))
        return optax.chain(
            optax.clip_by_global_norm(1.0),
            OPTIMISERS[name](),
            *decay,
            optax.scale_by_schedule(optax.warmup_cosine_decay_schedule(0.0, -1.0, warm, max(warm + 1, updates))),
        )

    def tile_of(self, name: str) -> int:
        """Online learners side by side; the others, whose arrays are large, one by one."""
        return TILE if split(name)[0] in ONLINE else 1

    def build(self, name: str) -> Method:
        """A network and how it learns."""
        method, optimiser_name = split(name)
        online, stochastic = method in ONLINE, method in ("ste", "stptt")
        pieces = datasets.load_music(self.data)
        gates: ow.AbstractGates = ow.LSTMGates(1.0) if self.cell == "lstm" else ow.GRUGates(1.0)
        width = self.ccn_width if method == "ccn" else self.units
        stages = self.units // width if method == "ccn" else 1
        steps = self.updates(online)
        optimiser = self.optimiser(optimiser_name, steps // stages, 0 if online else self.weight_decay)
        rate = frequencies(pieces.train)

        def model(key: PRNGKeyArray) -> ow.Model:
            cell: ow.AbstractCell
            if online:
                cell = ow.Cascade(ow.Columns(gates, NOTES, width, key=key, spread=self.spread))
            else:
                cell = layer(self.cell, self.units, self.gain, key)
                cell = ow.Hybrid(cell, self.stochastic) if stochastic else cell
            # Starts at the share of the time that each note sounds.
            head: ow.AbstractHead = with_bias(ow.Bernoulli(cell.feature_count, NOTES), np.log(rate / (1 - rate)))
            return ow.Model(cell, ow.MonteCarlo(head, self.samples, self.evaluation) if stochastic else head)

        def learner(model: ow.Model, step_size: Any) -> ow.AbstractLearner:
            if online:
                return ow.Online(ow.Columnwise(), ow.Supervised(), optimiser, step_size, streams=self.streams)
            if method != "stptt":
                return ow.BPTT(optimiser, step_size)
            falling = optax.scale_by_schedule(optax.cosine_decay_schedule(-1.0, steps, 0.1))
            return ow.TPTT(
                ow.FeedbackInverse(0.1),
                optimiser,
                optax.chain(optax.scale_by_adam(), falling),
                step_size,
                self.inverse_step_size,
                self.target_step_size,
                transitions=self.transitions,
            )

        changed: Any = {"transpose": self.transpose, "drop": self.drop}
        task: Any
        if online:
            task = ow.Streams(ow.PianoRoll(pieces.train, self.length, **changed), self.streams)
        else:
            task = ow.PianoRoll(pieces.train, self.length, self.batch, every=self.every, **changed)
        kind = self.cell.upper() if self.cell != "elman" else "tanh Elman"
        column = "LSTM" if self.cell == "lstm" else "GRU"
        notes = {
            "bptt": f"{kind}-{self.units}, deterministic, BPTT",
            "ste": f"{kind}-{self.units}, {self.stochastic:.0%} stochastic, straight-through BPTT",
            "stptt": f"{kind}-{self.units}, {self.stochastic:.0%} stochastic, target propagation",
            "columnar": f"{self.units} {column} columns, exact traces, online",
            "ccn": f"{stages} stages of {width} {column} columns, exact traces, online",
        }
        return Method(
            name=name,
            task=task,
            model=model,
            learner=learner,
            steps=steps,
            measure=metrics.stream_loss if online else metrics.training_loss,
            metric="training NLL",
            growth=Growth(stages=stages, every=max(1, steps // stages)),
            batch_axis=-1 if online else 0,
            tile=self.tile_of(name),
            point_every=max(1, steps // POINTS),
            examples_per_step=self.streams / self.length if online else self.batch,
            evaluate=self._windows("valid", pieces.valid, self.validation_windows),
            conclude=metrics.Together(
                self._windows("test", pieces.test, None), metrics.PieceLoss("pieces", pieces.test)
            ),
            select="valid",
            inspect=self.sampled(pieces.test),
            published=self.published(method, optimiser_name),
            note=f"{notes[method]}, {optimiser_name}",
        )

    def published(self, method: str, optimiser: str) -> float | None:
        """The paper's number, where it has one for these windows and units."""
        if self.data != "piano-midi":
            return None
        if (self.length, self.units) == (100, 300):
            return TABLE_4.get(method)
        return TABLE_3.get(method, {}).get(optimiser) if (self.length, self.units) == (50, 100) else None

    def _windows(self, name: str, pieces: Any, most: int | None) -> metrics.WindowLoss:
        starts = window_starts([len(p) for p in pieces], self.length)
        if most is not None and len(starts) > most:
            starts = starts[np.linspace(0, len(starts) - 1, most).astype(int)]
        return metrics.WindowLoss(name, jnp.asarray(np.concatenate(pieces)), jnp.asarray(starts), self.length)

    def sampled(self, pieces: Any) -> metrics.Continuation:
        """The first test piece that is long enough, its first frames."""
        piece = next((p for p in pieces if len(p) > DRAWN), max(pieces, key=len))[: DRAWN + 1]
        return metrics.Continuation(jnp.asarray(piece), min(PROMPT, len(piece) - 1), INVENTED)

    def references(self) -> dict[str, float]:
        """Predictors that count, fitted to the training windows and measured on the same test windows as the networks."""
        pieces = datasets.load_music(self.data)
        return trivial_levels(pieces.train, pieces.test, self.length)


TRIVIAL: dict[str, tuple[Literal["nothing", "last"], bool]] = {
    "one probability": ("nothing", True),
    "note frequencies": ("nothing", False),
    "repeat last, 2 numbers": ("last", True),
    "repeat last, table": ("last", False),
}


def trivial_levels(train: Any, test: Any, length: int) -> dict[str, float]:
    """NLL of the frame after every test window, of predictors that know at most the frame before it."""

    def pairs(pieces: Any) -> ow.Sequence:
        frames, starts = np.concatenate(pieces), window_starts([len(p) for p in pieces], length)
        x, y = (frames[starts + length - 1 + i].astype(np.float32)[None] for i in (0, 1))
        return ow.Sequence(jnp.asarray(x), jnp.asarray(y), jnp.ones(y.shape[:2]))

    seen, asked = pairs(train), pairs(test)
    levels = {}
    for name, (given, shared) in TRIVIAL.items():
        counter = ow.Frequencies(given, shared)
        notes = seen.xs.shape[2]
        state = counter.init(ow.Model(ow.Echo(notes), ow.Bernoulli(notes, notes)), seen, key=jax.random.key(0))
        state, _ = counter.step(state, seen)
        levels[name] = float(metrics.network_loss(state.model, state.stats, asked, state.key)[0])
    return levels


def split(name: str) -> tuple[str, str]:
    """Method and optimiser of a row."""
    method, _, optimiser = name.rpartition("-")
    return method, optimiser


def frequencies(pieces: Any) -> np.ndarray:
    """Share of the frames in which each note sounds, half a frame added to both counts."""
    frames = np.concatenate(pieces)
    return (frames.sum(0, dtype=np.float64) + 0.5) / (len(frames) + 1)


def with_bias(head: ow.Bernoulli, bias: np.ndarray) -> ow.Bernoulli:
    """The head, starting at these logits."""
    changed: ow.Bernoulli = eqx.tree_at(lambda h: h.bias, head, jnp.asarray(bias, head.bias.dtype))
    return changed


def layer(kind: str, units: int, gain: float, key: PRNGKeyArray) -> ow.Dense:
    """A layer that starts with orthogonal recurrent weights."""
    draw, mix = jax.random.split(key)
    return ow.orthogonal(CELLS[kind](NOTES, units, key=draw), gain, key=mix)
