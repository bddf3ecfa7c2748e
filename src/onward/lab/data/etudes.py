"""Generated etudes: short piano pieces written by a program, so that music can be learned without a download.

How a piece is made, all choices drawn with a fixed seed:

1. A key (C, F or G major, A, D or E minor) and a metre (8 or 6 eighth notes a bar).
2. A form of two to six phrases of four bars, such as A B A C: a phrase that returns brings back its chords, rhythm and
   melody, all but its cadence.
3. A chord a bar: the first is the tonic, the second follows a Markov chain, and the last two are a cadence (half,
   deceptive or full; the last phrase ends full).
4. A bass note on the root of the chord, an accompaniment (held, on the off-beat, broken or arpeggio) in close
   position, and a melody that walks the scale, meets a tone of the chord on each strong beat, and rests now and then.

In a minor key the seventh is raised over the dominant. Nothing in a piece is quoted from anywhere.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from onward.lab.data.formats import KEYS, LOWEST

COUNTS = {"train": 60, "valid": 12, "test": 12}
_SEED = 88
_MAJOR, _MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
_SCALES = ((0, _MAJOR), (5, _MAJOR), (7, _MAJOR), (9, _MINOR), (2, _MINOR), (4, _MINOR))
_TONIC, _SUPERTONIC, _SUBDOMINANT, _DOMINANT, _SUBMEDIANT = 0, 1, 3, 4, 5
# Chord: the chords that may follow, the likely ones several times.
_FOLLOWS = {
    _TONIC: (_SUBDOMINANT, _SUBDOMINANT, _DOMINANT, _SUBMEDIANT, _SUBMEDIANT, _SUPERTONIC),
    _SUBMEDIANT: (_SUPERTONIC, _SUPERTONIC, _SUBDOMINANT, _SUBDOMINANT, _DOMINANT),
}
_CADENCES = ((_SUPERTONIC, _DOMINANT), (_SUBDOMINANT, _DOMINANT), (_DOMINANT, _SUBMEDIANT), (_DOMINANT, _TONIC))
_FULL = (_DOMINANT, _TONIC)
_FORMS = {8: ("AB", "AAB", "ABA", "ABAB", "AABA", "ABAC"), 6: ("ABA", "AABA", "ABAC", "AABAB", "ABACA", "AABBAC")}
# Lengths of the notes of a bar, in eighths; a negative one is a rest.
_RHYTHMS: dict[int, tuple[tuple[int, ...], ...]] = {
    8: (
        (2, 2, 2, 2),
        (2, 1, 1, 2, 2),
        (3, 1, 2, 2),
        (4, 2, 2),
        (1, 1, 1, 1, 2, 2),
        (2, 2, 4),
        (-2, 2, 2, 2),
        (3, 1, 4),
    ),
    6: ((3, 3), (2, 1, 2, 1), (1, 1, 1, 3), (2, 1, 3), (1, 1, 1, 2, 1), (3, 2, 1), (-3, 2, 1)),
}
_CLOSE = {8: (6, -2), 6: (5, -1)}
# Which tones of the chord sound at each eighth of half a bar, lowest first (3 is the lowest an octave higher).
_PATTERNS = {
    8: (((0, 1, 2),) * 4, ((), (0, 1, 2)) * 2, ((0,), (2,), (1,), (2,)), ((0,), (1,), (2,), (3,))),
    6: (((0, 1, 2),) * 3, ((), (0, 1, 2), (0, 1, 2)), ((0,), (2,), (1,)), ((0,), (1,), (2,))),
}
T = TypeVar("T")


class _Phrase(NamedTuple):
    opening: tuple[int, int]
    rhythms: list[tuple[int, ...]]
    steps: list[int]
    leaps: list[int]


class _Composer:
    """One piece; every choice is a uniform number of the generator, so that it is the same with every numpy."""

    def __init__(self, seed: int):
        self._random = np.random.Generator(np.random.PCG64([_SEED, seed]))
        self._tonic, self._scale = self._pick(_SCALES)
        self._bar = self._pick((8, 8, 6))
        self._pattern = self._pick(_PATTERNS[self._bar])
        self._fifth_in_bass = self._pick((False, True))

    def _pick(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]

    def _pitch(self, degree: int, chord: int) -> int:
        """Semitones above the C below the tonic."""
        octave, step = divmod(degree, 7)
        raised = self._scale is _MINOR and chord == _DOMINANT and step == 6
        return self._tonic + self._scale[step] + 12 * octave + raised

    def _phrase(self) -> _Phrase:
        rhythms = [self._pick(_RHYTHMS[self._bar]) for _ in range(4)]
        opening = (_TONIC, self._pick(_FOLLOWS[_TONIC]))
        if self._random.random() < 0.25:
            opening = (_SUBMEDIANT, self._pick(_FOLLOWS[_SUBMEDIANT]))
        return _Phrase(
            opening,
            rhythms,
            [self._pick((-1, 1, 1, 1)) for _ in range(4 * self._bar)],  # goes on, or turns round
            [self._pick((1, 1, 1, 1, 2)) for _ in range(4 * self._bar)],
        )

    def compose(self) -> np.ndarray:
        form = self._pick(_FORMS[self._bar])
        phrases = {letter: self._phrase() for letter in sorted(set(form))}
        roll = np.zeros((len(form) * 4 * self._bar, KEYS), np.uint8)
        for i, letter in enumerate(form):
            last = i == len(form) - 1
            phrase = phrases[letter]
            chords = (*phrase.opening, *(_FULL if last else self._pick(_CADENCES)))
            frames = roll[i * 4 * self._bar : (i + 1) * 4 * self._bar]
            for bar, chord in enumerate(chords):
                self._accompany(frames[bar * self._bar : (bar + 1) * self._bar], chord, ends=last and bar == 3)
            self._sing(frames, phrase, chords)
        return roll

    def _accompany(self, frames: np.ndarray, chord: int, *, ends: bool) -> None:
        root, half = self._pitch(chord, chord), self._bar // 2
        frames[:, 36 + root % 12 - LOWEST] = 1
        if self._fifth_in_bass and not ends:
            frames[half:, 36 + root % 12 - LOWEST] = 0
            frames[half:, 36 + self._pitch(chord + 4, chord) % 12 - LOWEST] = 1
        tones = sorted(52 + (self._pitch(chord + third, chord) - 52) % 12 for third in (0, 2, 4))
        tones.append(tones[0] + 12)
        for step in range(self._bar):
            for tone in (0, 1, 2) if ends else self._pattern[step % half]:
                frames[step, tones[tone] - LOWEST] = 1

    def _sing(self, frames: np.ndarray, phrase: _Phrase, chords: tuple[int, ...]) -> None:
        degree, direction, note = 9, 1, 0
        for bar, chord in enumerate(chords):
            step = 0
            for length in phrase.rhythms[bar] if bar < 3 else _CLOSE[self._bar]:
                if length > 0:
                    direction *= phrase.steps[note]
                    if not 5 <= degree + direction * phrase.leaps[note] <= 15:
                        direction = -direction
                    degree += direction * phrase.leaps[note]
                    if step % (self._bar // 2) == 0:
                        near = [d for d in range(5, 16) if (d - chord) % 7 in (0, 2, 4)]
                        degree = min(near, key=lambda d: (abs(d - degree), d))
                    if bar == 3 and chord == _TONIC:
                        degree = 7 if degree < 11 else 14
                    start = bar * self._bar + step
                    frames[start : start + length, 60 + self._pitch(degree, chord) - LOWEST] = 1
                    note += 1
                step += abs(length)


@functools.cache
def etudes() -> dict[str, tuple[np.ndarray, ...]]:
    """The generated etudes: 60, 12 and 12 pieces of 64 to 144 eighth notes, each (steps, 88) uint8.

    >>> {split: len(pieces) for split, pieces in etudes().items()}
    {'train': 60, 'valid': 12, 'test': 12}
    """
    pieces: dict[str, tuple[np.ndarray, ...]] = {}
    seed = 0
    for split, count in COUNTS.items():
        pieces[split] = tuple(_Composer(seed + i).compose() for i in range(count))
        seed += count
    for roll in (roll for rolls in pieces.values() for roll in rolls):
        roll.setflags(write=False)
    return pieces
