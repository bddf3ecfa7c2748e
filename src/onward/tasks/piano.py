"""Polyphonic music: the notes that sound next."""

from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8, UInt32
from numpy.typing import ArrayLike

from onward.cells.base import require_size
from onward.random import integer, seed_of, uniform
from onward.tasks.base import AbstractTask
from onward.types import Sequence, Step

NOTES = 88


def window_starts(lengths: Iterable[int], length: int) -> Int[np.ndarray, " windows"]:
    """Where a window of `length` frames and the frame after it lie inside one piece, pieces laid end to end.

    >>> window_starts([4, 2, 3], 2).tolist()
    [0, 1, 6]
    """
    starts, at = [np.zeros(0, np.int32)], 0
    for frames in lengths:
        starts.append(np.arange(at, at + max(0, frames - length), dtype=np.int32))
        at += frames
    return np.concatenate(starts)


class PianoState(NamedTuple):
    """The counter of the random numbers; of a stream its place, the end of its piece and how far that is moved."""

    seed: UInt32[Array, "2"]
    step: Int[Array, ""]
    at: Int[Array, ""]
    end: Int[Array, ""]
    shift: Int[Array, ""]


class PianoRoll(AbstractTask):
    """Predict the next frame of a piece from those before it: 88 notes that sound (1) or not (0).

    `batch=n`: n windows of `length` frames a time, from random places inside pieces, as a `Sequence`: y is the frame
    after the window, or (`every=True`) the frame after each of its frames. `batch=None`: a stream of whole pieces in
    random order, each started with `reset`; weight 1 at every step. `transpose=k` moves each window (each piece) by a
    random -k .. k semitones; what falls off the keyboard is lost. `drop`: each note of what is read (not of y) is left
    out with this probability. `pieces`: arrays (frames, notes) of 0 and 1. Pieces shorter than a window and its next frame
    are left out: `left_out` counts them. Raises ValueError if pieces have other shapes or values, or all are too short.

    >>> task = PianoRoll([np.eye(88)[:60], np.eye(88)[:5]], length=50, batch=2)
    >>> task.windows, task.left_out
    (10, 1)
    """

    frames: UInt8[Array, "frames notes"]
    firsts: Int[Array, " pieces"]
    ends: Int[Array, " pieces"]
    starts: Int[Array, " windows"]
    length: int = eqx.field(static=True)
    batch: int | None = eqx.field(static=True)
    every: bool = eqx.field(static=True)
    transpose: int = eqx.field(static=True)
    drop: float = eqx.field(static=True)
    left_out: int = eqx.field(static=True)

    def __init__(
        self,
        pieces: SequenceOf[ArrayLike],
        length: int = 50,
        batch: int | None = None,
        *,
        every: bool = False,
        transpose: int = 0,
        drop: float = 0.0,
    ):
        require_size("PianoRoll", length=length, **({} if batch is None else {"batch": batch}))
        if isinstance(transpose, bool) or not isinstance(transpose, int) or transpose < 0:
            raise ValueError(f"PianoRoll: transpose must be a whole number of at least 0, got {transpose!r}")
        if not 0 <= drop < 1:
            raise ValueError(f"PianoRoll: drop must be in [0, 1), got {drop}")
        rolls = [np.asarray(piece) for piece in pieces]
        for i, piece in enumerate(rolls):
            if piece.ndim != 2 or piece.shape[1] != rolls[0].shape[1]:
                raise ValueError(f"PianoRoll: piece {i} must be (frames, notes) as piece 0 is, got shape {piece.shape}")
            if not np.isin(piece, (0, 1)).all():
                raise ValueError(f"PianoRoll: piece {i} holds other values than 0 and 1")
        needs = 2 if batch is None else length + 1
        long = [p for p in rolls if len(p) >= needs]
        if not long:
            longest = max((len(p) for p in rolls), default=0)
            raise ValueError(
                f"PianoRoll: no piece has the {needs} frames that a window and its next frame need; "
                f"the longest of {len(rolls)} has {longest}. Choose a smaller length"
            )
        ends = np.cumsum([len(p) for p in long])
        self.frames = jnp.asarray(np.concatenate(long).astype(np.uint8))
        self.ends, self.firsts = jnp.asarray(ends, jnp.int32), jnp.asarray(ends - [len(p) for p in long], jnp.int32)
        self.starts = jnp.asarray(window_starts([len(p) for p in long], length if batch else 1))
        self.length, self.batch, self.every, self.transpose, self.drop = length, batch, every, transpose, drop
        self.left_out = len(rolls) - len(long)

    @property
    def inputs(self) -> int:
        """Size of an observation: the notes of a frame."""
        return self.frames.shape[1]

    @property
    def windows(self) -> int:
        """How many different windows there are."""
        return len(self.starts)

    def init(self, key: PRNGKeyArray) -> PianoState:
        """Before the first window or piece."""
        zero = jnp.zeros((), jnp.int32)
        return PianoState(seed_of(key), zero, zero, zero, zero)

    def _moved(self, frames: Array, shift: Array) -> Float[Array, "..."]:
        """Frames (..., notes) by as many semitones; `shift` has their leading axes."""
        if self.transpose:
            source = jnp.arange(self.inputs).reshape((1,) * shift.ndim + (-1,)) - shift[..., None]
            inside = (source >= 0) & (source < self.inputs)
            moved = jnp.take_along_axis(frames, jnp.clip(source, 0, self.inputs - 1), -1)
            frames = jnp.where(inside, moved, 0)
        return frames.astype(jnp.float32)

    def _read(self, frames: Float[Array, "..."], state: PianoState, count: Array) -> Float[Array, "..."]:
        """What is read of frames: all, or all but what is dropped."""
        if not self.drop:
            return frames
        lanes = 2 * (self.batch or 1) + jnp.arange(frames.size, dtype=jnp.uint32)
        return jnp.where(uniform(state.seed, count, lanes).reshape(frames.shape) < self.drop, 0, frames)

    def emit(self, state: PianoState) -> tuple[PianoState, Step | Sequence]:
        """The next frame, or the next batch of windows."""
        count = state.step + 1
        if self.batch is not None:
            lanes = jnp.arange(self.batch, dtype=jnp.uint32)
            drawn = self.starts[integer(state.seed, count, lanes, 0, len(self.starts) - 1)]
            shift = integer(state.seed, count, lanes + self.batch, -self.transpose, self.transpose)
            frames = self.frames[drawn[None] + jnp.arange(self.length + 1)[:, None]]
            frames = self._moved(frames, jnp.broadcast_to(shift, frames.shape[:2]))
            y = frames[1:] if self.every else frames[-1:]
            xs = self._read(frames[:-1], state, count)
            return state._replace(step=count), Sequence(xs, y, jnp.ones(y.shape[:2]))
        starts = state.at + 1 >= state.end
        piece = integer(state.seed, count, 0, 0, len(self.ends) - 1)
        drawn = integer(state.seed, count, 1, -self.transpose, self.transpose)
        at, end, shift = (
            jnp.where(starts, new, old)
            for new, old in ((self.firsts[piece], state.at), (self.ends[piece], state.end), (drawn, state.shift))
        )
        x, y = (self._moved(self.frames[i], shift) for i in (at, at + 1))
        x = self._read(x, state, count)
        return PianoState(state.seed, count, at + 1, end, shift), Step(x, y, jnp.ones(()), starts, y)
