"""MIDI files to piano rolls and back. Needs `pip install "onward[midi]"`."""

import io
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onward.errors import OnwardError, needs
from onward.lab.data.formats import (
    HIGHEST,
    KEYS,
    LOWEST,
    MAX_STEPS,
    SPLITS,
    Piece,
    Pieces,
    as_pieces,
    as_roll,
    listed,
    note_dropped,
    note_outside,
    usable,
)
from onward.saving import write_bytes
from onward.text import counted

_DRUMS = 9
_TICKS = 480


def _mido() -> Any:
    try:
        import mido
    except ImportError:
        raise OnwardError(needs("reading and writing MIDI", "midi")) from None
    return mido


class _Missed(NamedTuple):
    outside: Counter[int]
    short: int
    drums: int


def read_midi(folder: Path) -> Pieces:
    """A folder of MIDI files, sampled at every eighth note: a step has the notes that sound at its first instant.

    Files in folders named train, valid and test stay there. Otherwise the usable pieces are dealt in the order of their
    names: of each ten the ninth to valid and the tenth to test; of fewer than ten, the last two.
    """
    mido = _mido()
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".mid", ".midi") and p.is_file())
    if not paths:
        raise OnwardError(f"{folder} has no .mid or .midi file, and no IDX file")
    pieces: list[Piece] = []
    damaged: list[str] = []
    outside: dict[str, Counter[int]] = {}
    short = drums = 0
    for path in paths:
        title = path.relative_to(folder).as_posix()
        try:
            roll, missed = sampled(mido.MidiFile(path))
        except Exception as error:  # mido raises nearly anything
            damaged.append(f"{title} ({str(error) or type(error).__name__})")
            continue
        pieces.append(Piece(title, roll))
        outside[title], short, drums = missed.outside, short + missed.short, drums + missed.drums
    if not pieces:
        raise OnwardError(f"none of the {len(paths):,} MIDI files in {folder} could be read: {listed(damaged)}")
    notes = [*note_outside(outside)]
    if damaged:
        notes.append(f"left out {counted(len(damaged), 'damaged file')}: {listed(damaged)}")
    if drums:
        notes.append(f"left out {counted(drums, 'note')} of percussion")
    if short:
        notes.append(f"left out {counted(short, 'note')} between two samples, an eighth note apart")
    return _deal(pieces, folder, notes)


def _deal(pieces: list[Piece], folder: Path, notes: list[str]) -> Pieces:
    own = [next((part for part in piece.title.split("/")[:-1] if part in SPLITS), None) for piece in pieces]
    parts: dict[str, list[Piece]] = {split: [] for split in SPLITS}
    if None not in own and set(own) == set(SPLITS):
        for split, piece in zip(own, pieces, strict=True):
            parts[str(split)].append(piece)
        return as_pieces(parts, folder, notes)
    kept, left_out = usable(pieces, "")
    count = len(kept)
    if count < 3:
        raise OnwardError(
            f"{folder} has {counted(count, 'usable piece')}; training, validation and test need at least 3: "
            "add MIDI files" + "".join(f"; {note}" for note in (*notes, *note_dropped(left_out)))
        )
    for i, piece in enumerate(kept):
        place = i % 10 - 8 if count >= 10 else i - (count - 2)
        parts["train" if place < 0 else ("valid", "test")[place]].append(piece)
    return as_pieces(parts, folder, (*notes, *note_dropped(left_out)))


def sampled(file: Any) -> tuple[np.ndarray, _Missed]:
    """Of a file that mido has read: which notes sound in each frame (frames, 88), and what could not be used."""
    if file.ticks_per_beat <= 0:
        raise ValueError("its time is in film frames, not in beats")
    if file.type == 2:
        raise ValueError("its tracks are separate pieces")
    sounding: dict[tuple[int, int], int] = {}
    heard: list[tuple[int, int, int]] = []
    outside: Counter[int] = Counter()
    tick = short = drums = 0

    def end(channel: int, note: int) -> None:
        nonlocal short
        start = sounding.pop((channel, note), None)
        if start is not None:
            first, last = (-(-2 * t // file.ticks_per_beat) for t in (start, tick))
            short += last == first
            heard.append((first, last, note))

    for message in _merged(file):
        tick += message.time
        if message.type not in ("note_on", "note_off"):
            continue
        starts = message.type == "note_on" and message.velocity > 0
        if message.channel == _DRUMS:
            drums += starts
        elif LOWEST <= message.note <= HIGHEST:
            end(message.channel, message.note)
            if starts:
                sounding[message.channel, message.note] = tick
        elif starts:
            outside[message.note] += 1
    for channel, note in list(sounding):
        end(channel, note)
    steps = max((last for _, last, _ in heard), default=0)
    if steps > MAX_STEPS:
        raise ValueError(f"it lasts {steps:,} eighth notes; {MAX_STEPS:,} are allowed")
    roll = np.zeros((steps, KEYS), np.uint8)
    for first, last, note in heard:
        roll[first:last, note - LOWEST] = 1
    return roll, _Missed(outside, short, drums)


def _merged(file: Any) -> Any:
    return _mido().merge_tracks(file.tracks)


def write_midi(roll: np.ndarray, path: Path, *, tempo: float = 120.0) -> None:
    """Write a piano roll of 0 and 1, (steps, 88), an eighth note a step; a key that stays down is one long note.

    `tempo`: quarter notes a minute. Needs `pip install "onward[midi]"`.
    """
    mido = _mido()
    frames = as_roll(roll, "the piano roll")
    if not 4 <= tempo <= 1000:
        raise OnwardError(f"tempo={tempo}: give 4 to 1000 quarter notes a minute")
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo))])
    changes = np.diff(frames.astype(np.int8), axis=0, prepend=0, append=0)
    said = 0
    for step, change in enumerate(changes):
        for key in (*np.flatnonzero(change < 0), *np.flatnonzero(change > 0)):
            kind, velocity = ("note_on", 64) if change[key] > 0 else ("note_off", 0)
            wait, said = (step - said) * _TICKS // 2, step
            track.append(mido.Message(kind, note=int(key) + LOWEST, velocity=velocity, time=wait))
    track.append(mido.MetaMessage("end_of_track", time=(len(frames) - said) * _TICKS // 2))
    file = mido.MidiFile(type=0, ticks_per_beat=_TICKS, tracks=[track])
    written = io.BytesIO()
    file.save(file=written)
    write_bytes(Path(path), written.getvalue())
