"""The animal-learning testbed: a stimulus, a gap, and something worth predicting (Rafiee et al., 2022).

One trial: a conditional stimulus (CS) of `cs_length` steps; the unconditional stimulus (US) of
`us_length` steps, if the trial is an activating one, exactly ISI steps after CS onset; then ITI
steps of nothing. The prediction target is the discounted sum of the US to come in this trial.

All three tasks come in two parametrisations: the one of Javed et al. (stimuli of one step, the
default) and Rafiee's originals (`.rafiee(...)`: CS of 4 steps, US of 2, discount 1 - 1/ISI).
"""

import abc
import itertools
import math
from typing import Any, ClassVar, Literal, NamedTuple, Self

import equinox as eqx
import jax.numpy as jnp
import jax.random
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt32

from onward.random import integer, seed_of, uniform
from onward.tasks.base import AbstractTask
from onward.types import Step

PATTERNS = tuple(sum(1 << i for i in bits) for bits in itertools.combinations(range(6), 3))
ACTIVATING = 10

# Lanes of the counter-based random numbers; distractors take the lanes from DISTRACTOR on.
ISI, ITI, PATTERN, FLIP, DISTRACTOR = range(5)


class TrialState(NamedTuple):
    """Where a stream is in its trial. Times are steps from the instant that was emitted last."""

    seed: UInt32[Array, "2"]
    step: Int[Array, ""]
    valid: UInt32[Array, ""]
    remaining: Int[Array, ""]
    since: Int[Array, ""]
    isi: Int[Array, ""]
    pattern: UInt32[Array, ""]
    active: Bool[Array, ""]
    burst: Int[Array, " distractors"]


class AbstractConditioning(AbstractTask):
    """What the three tasks share: the clock of a trial, the target, and its exact reference levels."""

    isi: tuple[int, int] = eqx.field(default=(24, 36), static=True)
    iti: tuple[int, int] = eqx.field(default=(80, 120), static=True)
    cs_length: int = eqx.field(default=1, static=True)
    us_length: int = eqx.field(default=1, static=True)
    discount: float = eqx.field(default=0.9, static=True)
    distractor_rates: tuple[float, ...] = eqx.field(default=tuple(1 / (10 * k) for k in range(1, 6)), static=True)
    distractor_length: int = eqx.field(default=1, static=True)
    distractors_with_cs: bool = eqx.field(default=False, static=True)
    returns: Literal["trial", "all", "both"] = eqx.field(default="trial", static=True)
    """What `truth` counts: the US of this trial only, as the papers do; all that are to come, as TD learns it; or both,
    (all, trial)."""

    cs_inputs: eqx.AbstractClassVar[int]
    """How many inputs carry the CS."""

    @abc.abstractmethod
    def stimulus(self, state: TrialState) -> tuple[UInt32[Array, ""], Bool[Array, ""]]:
        """A new trial's CS as a bit mask, and whether the US will follow."""

    @abc.abstractmethod
    def classes(self) -> list[tuple[float, float]]:
        """For each kind of CS that can be told apart: its probability, and the probability of a US after it."""

    @property
    def inputs(self) -> int:
        """Size of an observation: CS, US and distractors."""
        return self.cs_inputs + 1 + len(self.distractor_rates)

    def __check_init__(self) -> None:
        name = type(self).__name__
        for field, least in (("isi", 1), ("iti", 0)):
            low, high = getattr(self, field)
            if not least <= low <= high:
                raise ValueError(
                    f"{name}: {field} must be (least, most) with {least} <= least <= most, got {low}, {high}"
                )
        if min(self.cs_length, self.us_length, self.distractor_length) < 1:
            raise ValueError(f"{name}: cs_length, us_length and distractor_length must be at least 1")
        if self.cs_length > self.isi[0] + self.us_length + self.iti[0]:
            raise ValueError(f"{name}: a CS of {self.cs_length} steps does not fit the shortest trial")
        if not 0 <= self.discount < 1:
            raise ValueError(f"{name}: discount must be in [0, 1), got {self.discount}")
        if self.returns not in ("trial", "all", "both"):
            raise ValueError(f"{name}: returns must be 'trial', 'all' or 'both', got {self.returns!r}")
        if any(not 0 <= r <= 1 for r in self.distractor_rates):
            raise ValueError(f"{name}: distractor_rates must be in [0, 1], got {self.distractor_rates}")

    def init(self, key: PRNGKeyArray) -> TrialState:
        """The next instant is a CS. Ten of the twenty patterns, drawn from `key`, are activating."""
        seed_key, valid_key = jax.random.split(key)
        chosen = jax.random.permutation(valid_key, len(PATTERNS))[:ACTIVATING]
        valid = jnp.sum(jnp.uint32(1) << chosen.astype(jnp.uint32), dtype=jnp.uint32)
        zero = jnp.zeros((), jnp.int32)
        burst = jnp.zeros(len(self.distractor_rates), jnp.int32)
        return TrialState(
            seed_of(seed_key), zero, valid, zero, zero, zero, jnp.uint32(0) + valid * 0, zero.astype(bool), burst
        )

    def emit(self, state: TrialState) -> tuple[TrialState, Step]:
        """One instant: x = [CS bits, US, distractors], y = US (the cumulant), truth = the return."""
        count, seed = state.step + 1, state.seed
        starts = state.remaining == 0
        state = state._replace(step=count)
        isi = integer(seed, count, ISI, *self.isi)
        iti = integer(seed, count, ITI, *self.iti)
        pattern, active = self.stimulus(state)
        choose = lambda new, old: jnp.where(starts, new, old)
        isi, pattern, active = choose(isi, state.isi), choose(pattern, state.pattern), choose(active, state.active)
        remaining = choose(isi + self.us_length + iti, state.remaining) - 1
        since = choose(0, state.since + 1)

        noise, burst = self._distractors(seed, count, since, state.burst)
        cs_on = since < self.cs_length
        us_age = since - isi
        us = (active & (us_age >= 0) & (us_age < self.us_length)).astype(jnp.float32)
        bits = (pattern >> jnp.arange(self.cs_inputs, dtype=jnp.uint32)) & 1
        cs = jnp.where(cs_on, bits, 0).astype(jnp.float32)
        # Of the US steps, `left` are still to come, the first of them in `wait` steps.
        left = jnp.clip(self.us_length - 1 - us_age, 0, self.us_length)
        wait = jnp.maximum(-us_age - 1, 0)
        power = lambda n: jnp.power(jnp.float32(self.discount), n.astype(jnp.float32))
        total = (1 - power(left)) / (1 - self.discount) if self.us_length > 1 else (left > 0).astype(jnp.float32)
        truth = jnp.where(active, power(wait) * total, 0.0)
        if self.returns != "trial":
            everything = truth + power(remaining) * self._to_come(state, count + remaining + 1)
            truth = everything if self.returns == "all" else jnp.stack([everything, truth])
        x = jnp.concatenate([cs, us[None], noise])
        state = TrialState(seed, count, state.valid, remaining, since, isi, pattern, active, burst)
        return state, Step(x, us, jnp.ones(()), jnp.asarray(False), truth)

    def _distractors(self, seed: Array, count: Array, since: Array, burst: Array) -> tuple[Array, Array]:
        """Which distractors are on, and for how many steps each stays on."""
        drawn = uniform(seed, count, jnp.arange(DISTRACTOR, DISTRACTOR + len(self.distractor_rates), dtype=jnp.uint32))
        fires = drawn < jnp.asarray(self.distractor_rates, jnp.float32)
        if self.distractors_with_cs:
            burst = jnp.where(since == 0, jnp.where(fires, self.cs_length, 0), jnp.maximum(burst - 1, 0))
        elif self.distractor_length > 1:
            burst = jnp.where(fires, self.distractor_length, jnp.maximum(burst - 1, 0))
        else:
            return fires.astype(jnp.float32), burst
        return (burst > 0).astype(jnp.float32), burst

    def _to_come(self, state: TrialState, onset: Array) -> Array:
        """The discounted sum of every US from the onset of the next trial on, up to 1e-7 of one US.

        Trials are drawn from counters, so those to come are known.
        """
        shortest = self.isi[0] + self.us_length + self.iti[0]
        far = math.log(1e-7) / math.log(max(self.discount, 1e-7))
        power = lambda n: jnp.power(jnp.float32(self.discount), n.astype(jnp.float32))
        one = sum(self.discount**k for k in range(self.us_length))
        total, start = jnp.zeros(()), onset
        for _ in range(math.ceil(far / shortest)):
            isi = integer(state.seed, start, ISI, *self.isi)
            _, active = self.stimulus(state._replace(step=start))
            total = total + jnp.where(active, one * power(start - onset + isi), 0.0)
            start = start + isi + self.us_length + integer(state.seed, start, ITI, *self.iti)
        return total

    def references(self) -> dict[str, float]:
        """Exact mean squared errors of the return that `truth` is (of both: all), by enumerating every trial.

        `predict-zero`: the second moment of the return. `pattern-blind`: the best prediction from the time since the CS
        and the US seen so far. `bayes`: the same knowing which CS it was. No predictor that reads only this stream can
        beat `bayes`.
        """
        return {name: self.level(name) for name in ("predict-zero", "pattern-blind", "bayes")}

    def level(self, knows: Literal["predict-zero", "memoryless", "us-blind", "pattern-blind", "bayes"]) -> float:
        """The exact error of the best prediction from a part of what there is to know.

        Beside those of `references`: `memoryless`, from the present observation alone; `us-blind`, from which CS it was
        and the time since it, but not whether the US was seen.
        """
        isi: np.ndarray
        iti: np.ndarray
        isis, itis = (np.arange(low, high + 1) for low, high in (self.isi, self.iti))
        kinds = [(c, p * q, 1.0) for c, (p, q) in enumerate(self.classes())]
        kinds += [(c, p * (1 - q), 0.0) for c, (p, q) in enumerate(self.classes())]
        index, isi, iti = np.meshgrid(np.arange(len(kinds)), isis, itis, indexing="ij")
        which, weight, active = (np.array(each)[index.ravel()] for each in zip(*kinds, strict=True))
        isi, iti = isi.ravel(), iti.ravel()
        weight = weight / (len(isis) * len(itis))
        length = isi + self.us_length + iti
        # Of a trial from its onset, and of all trials from an onset on: B = U + discount^length B', B' as B.
        us_times = isi[:, None] + np.arange(self.us_length)
        own = active * (self.discount ** us_times.astype(float)).sum(1)
        fade = self.discount ** length.astype(float)
        to_come = weight @ own / (1 - weight @ fade)
        squared = (weight @ own**2 + 2 * weight @ (own * fade) * to_come) / (1 - weight @ fade**2)

        time = np.arange(length.max())
        running = weight[:, None] * (time < length[:, None])
        ahead = us_times[:, None, :] - time[None, :, None] - 1
        trial = active[:, None] * np.where(ahead >= 0, self.discount ** np.maximum(ahead, 0.0), 0.0).sum(-1)
        rest = np.maximum(length[:, None] - time - 1, 0)
        later = self.discount ** rest.astype(float) if self.returns != "trial" else np.zeros(rest.shape)
        mean = trial + later * to_come
        # Nobody can know what later trials bring; what differs from the best guess of what is known comes on top.
        error = later**2 * (squared - to_come**2)
        guess = np.zeros_like(mean)
        if knows != "predict-zero":
            label = self._label(knows, which[:, None], isi[:, None], active[:, None] > 0, time)
            mass, sums = (np.bincount(label.ravel(), (running * a).ravel()) for a in (np.ones_like(mean), mean))
            guess = np.divide(sums, mass, out=np.zeros_like(mass), where=mass > 0)[label]
        error = error + (mean - guess) ** 2
        return float((running * error).sum() / (weight @ length))

    def _label(self, knows: str, which: np.ndarray, isi: np.ndarray, active: np.ndarray, time: np.ndarray) -> Any:
        """A number for each thing that can be known, of every trial and time."""
        age = time - isi
        seen = active & (age >= 0)
        kinds = len(self.classes())
        if knows == "memoryless":
            cs = np.where(time < self.cs_length, which + 1, 0)
            return 2 * cs + (seen & (age < self.us_length))
        label = time + 0 * isi
        if knows != "us-blind":
            label = label * (self.isi[1] + 2) + np.where(seen, isi + 1, 0)
        return label if knows == "pattern-blind" else label * kinds + which


def _interval(mean: int) -> tuple[int, int]:
    return mean - mean // 3, mean + mean // 3


def _originals(interval: int) -> dict[str, Any]:
    return {
        "isi": _interval(interval),
        "iti": (80, 120),
        "cs_length": 4,
        "us_length": 2,
        "discount": 1 - 1 / interval,
        "distractor_length": 4,
    }


class TracePatterning(AbstractConditioning):
    """Which of 20 patterns of 3 CS bits in 6 was seen, and how long ago: ten patterns announce the US.

    >>> {k: round(v, 5) for k, v in TracePatterning().references().items()}
    {'predict-zero': 0.02004, 'pattern-blind': 0.01264, 'bayes': 0.00168}
    """

    cs_inputs: ClassVar[int] = 6

    @classmethod
    def rafiee(cls, interval: int = 10) -> Self:
        """The original: distractors come with the CS, each with probability 1/2."""
        return cls(**_originals(interval), distractor_rates=(0.5,) * 5, distractors_with_cs=True)

    def stimulus(self, state: TrialState) -> tuple[Array, Array]:
        """One of the twenty patterns, uniformly."""
        return _pattern(state)

    def classes(self) -> list[tuple[float, float]]:
        """Half of the patterns always activate, the others never."""
        return [(0.5, 1.0), (0.5, 0.0)]


class NoisyPatterning(AbstractConditioning):
    """Patterning without a gap but with a wrong label in a fraction `noise` of the trials.

    The US follows as soon as the CS ends: there is nothing to remember, but much noise to average. `truth` counts this
    trial's US only, unless `returns` says all. With a discount near 1 what TD learns also counts the next trial's,
    which a network that can time the ITI will anticipate and be charged for; 0 asks for the next step.
    """

    isi: tuple[int, int] = eqx.field(default=(1, 1), static=True)
    noise: float = eqx.field(default=0.1, static=True)
    cs_inputs: ClassVar[int] = 6

    def __check_init__(self) -> None:
        if not 0 <= self.noise <= 1:
            raise ValueError(f"NoisyPatterning: noise must be in [0, 1], got {self.noise}")

    @classmethod
    def rafiee(cls, noise: float = 0.1) -> Self:
        """The original: a CS of 4 steps, the US right after it, distractors with the CS."""
        fields = _originals(4) | {"isi": (4, 4)}
        return cls(**fields, noise=noise, distractor_rates=(0.5,) * 5, distractors_with_cs=True)

    def stimulus(self, state: TrialState) -> tuple[Array, Array]:
        """One of the twenty patterns; its label is flipped with probability `noise`."""
        pattern, active = _pattern(state)
        return pattern, active ^ (uniform(state.seed, state.step, FLIP) < self.noise)

    def classes(self) -> list[tuple[float, float]]:
        """The label is right with probability 1 - noise."""
        return [(0.5, 1 - self.noise), (0.5, self.noise)]


class TraceConditioning(AbstractConditioning):
    """One CS, always followed by the US: only the time in between must be remembered."""

    distractor_rates: tuple[float, ...] = eqx.field(default=(), static=True)
    cs_inputs: ClassVar[int] = 1

    @classmethod
    def rafiee(cls, interval: int = 10) -> Self:
        """The original: ten distractors of 4 steps, with rates 1/10 ... 1/100."""
        return cls(**_originals(interval), distractor_rates=tuple(1 / (10 * k) for k in range(1, 11)))

    def stimulus(self, state: TrialState) -> tuple[Array, Array]:
        """The CS, and a US to follow."""
        return jnp.uint32(1), jnp.asarray(True)

    def classes(self) -> list[tuple[float, float]]:
        """One kind of CS, always followed by a US."""
        return [(1.0, 1.0)]


def _pattern(state: TrialState) -> tuple[Array, Array]:
    index = integer(state.seed, state.step, PATTERN, 0, len(PATTERNS) - 1).astype(jnp.uint32)
    return jnp.asarray(PATTERNS, jnp.uint32)[index], ((state.valid >> index) & 1).astype(bool)
