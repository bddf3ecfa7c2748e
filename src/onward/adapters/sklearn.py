"""Distributions of a target, given a row or a sequence, as scikit-learn regressors."""
# ruff: noqa: N803, N806  (X is the name that scikit-learn gives it)

import abc
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from onward.adapters.parameters import require_real, require_whole
from onward.cells.gru import GRU
from onward.cells.start import chrono
from onward.errors import NotFinite, needs
from onward.heads.mixture import Mixture
from onward.learners.bptt import BPTT, sequence_loss
from onward.model import Model
from onward.random import seed_of, uniform
from onward.saving import FORMAT, Unreadable, from_named_arrays, named_arrays
from onward.types import PyTree, Sequence

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(needs(__name__, "sklearn")) from error

# How often a fit looks at its held-out rows, and at how many of them at most.
LOOKS, HELD_OUT = 25, 4096
# Rows that are asked about at once.
BLOCK = 8192
# Arrays are padded to powers of two, of at least so many rows and inputs: then few programs are compiled.
ROWS, INPUTS = 256, 16
# The mixture's range of log sigma and where its components start, in standard deviations of the target.
BOUNDS, SPREAD = (-7.0, 3.0), (-2.0, 2.0)
# Inputs are cut off so many standard deviations from the mean: beyond, every unit is saturated.
REACH = 1e6
# A standard deviation below this share of the largest value is rounding: the column is constant.
ROUNDING = 1e-12
# How often the network reads a row that is not a sequence: the second time through its recurrent weights.
READS = 2


class Scale(NamedTuple):
    """Column by column: value = unit (centre + spread z), z of mean 0 and variance 1; spread 0: a constant column.

    The unit, the largest absolute value, keeps squares of huge and of tiny values finite.
    """

    unit: np.ndarray
    centre: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, weights: np.ndarray) -> Self:
        """The weighted moments over all axes but the last; weights have the shape of those axes."""
        values, weights = values.reshape(-1, values.shape[-1]), weights.reshape(-1)
        unit = np.max(np.abs(values), 0)
        unit = np.where(unit > 0, unit, 1.0)
        values = values / unit
        centre = np.average(values, 0, weights)
        spread = np.sqrt(np.average(np.square(values - centre), 0, weights))
        return cls(unit, centre, np.where(spread > ROUNDING, spread, 0.0))

    def standardise(self, values: np.ndarray) -> np.ndarray:
        """Z; 0 in constant columns."""
        with np.errstate(over="ignore"):
            values = np.clip(values / self.unit, -1e100, 1e100)
        return np.where(self.spread > 0, (values - self.centre) / np.where(self.spread > 0, self.spread, 1.0), 0.0)

    def restore(self, z: np.ndarray) -> np.ndarray:
        """The values of z."""
        return (self.centre + self.spread * z) * self.unit


@dataclass(kw_only=True, eq=False, repr=False)
class _MixtureRegressor(RegressorMixin, BaseEstimator, abc.ABC):
    """Fits a GRU with a mixture head to sequences, and asks it; how a row is a sequence is up to the subclass."""

    units: int = 32
    components: int = 3
    updates: int = 1000
    batch_size: int = 64
    step_size: float = 3e-3
    validation: float = 0.1
    random_state: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Parameters and scales as they are; of the network, every array under its name, and its sizes."""
        state: dict[str, Any] = super().__getstate__()
        if "model_" not in state:
            return state
        model: Model = state["model_"]
        assert isinstance(model.head, Mixture)
        sizes = {"inputs": model.cell.inputs, "units": model.cell.feature_count, "components": model.head.components}
        network = {"format": FORMAT, "sizes": sizes, "arrays": named_arrays(model)}
        return {name: value for name, value in state.items() if name != "model_"} | {"network": network}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Refuses, naming the array, a network that is not what its sizes ask for (`onward.saving.Unreadable`)."""
        what, state = f"the pickle of a {type(self).__name__}", dict(state)
        if "model_" in state:
            raise Unreadable(f"{what} was written by onward 0.1 and is not read any more: fit it again")
        network = state.pop("network", None)
        if network is not None:
            if network["format"] != FORMAT:
                found = network["format"]
                raise Unreadable(f"{what} has format {found!r}, this version of onward reads format {FORMAT}")
            like = eqx.filter_eval_shape(_network, key=jax.random.key(0), **network["sizes"])
            state["model_"] = from_named_arrays(network["arrays"], like, what)
        super().__setstate__(state)

    @abc.abstractmethod
    def _series(self, X: np.ndarray) -> np.ndarray:
        """Rows (n, columns) as sequences (time, n, features), or a ValueError if they cannot be."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from X (n, columns) and y (n,), with non-negative weights (n,) of the rows; returns self.

        A weight of k is the same as k equal rows, and 0 the same as none. The order of rows does not matter. Costs
        about `updates` x `batch_size` x time x 9 units (units + features) multiply-adds, whatever n, and seconds of
        compilation where the powers of two above n and above the features, the length, or `units`, `components`,
        `updates` or `batch_size` are new.

        However it ends, by an error or an interrupt, the regressor is as it was before or as it is after.

        ValueError: a parameter is not allowed (the message names it, and what is), fewer than two rows of positive
        weight, values that are not finite numbers. `onward.errors.NotFinite`: `step_size` is too large.
        """
        # Of what `fit` sets, every name ends in an underscore.
        after = self._with({name: value for name, value in vars(self).items() if not name.endswith("_")})
        after._learn(X, y, sample_weight)
        self.__dict__ = after.__dict__  # one step: an interrupt comes before it or after it
        return self

    def _with(self, attributes: dict[str, Any]) -> Self:
        """One of these attributes."""
        other = object.__new__(type(self))
        other.__dict__.update(attributes)
        return other

    def _learn(self, X: Any, y: Any, sample_weight: Any) -> None:
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if np.sum(weights > 0) < 2:
            raise ValueError(
                f"{type(self).__name__}: needs at least two rows whose sample_weight is not zero, "
                f"got {np.sum(weights > 0)} (n_samples = {len(y)})"
            )
        X, y, weights = _distinct(X, np.asarray(y, np.float64), weights)
        random = check_random_state(self.random_state)
        seed, order = random.randint(2**31 - 1), random.permutation(len(y))
        xs = self._series(X)
        self.input_scale_ = Scale.of(xs, np.broadcast_to(weights, xs.shape[:2]))
        self.target_scale_ = Scale.of(y[:, None], weights)
        xs, y = self._inputs(X), self.target_scale_.standardise(y[:, None])[:, 0]
        held = min(int(self.validation * len(y)), HELD_OUT)
        part = lambda rows: _batch(xs[:, rows], y[rows], weights[rows])
        # The result shall not depend on the user's setting.
        with jax.enable_x64(False):
            cell_key, time_key, key = jax.random.split(jax.random.key(seed), 3)
            cell = GRU(xs.shape[2], int(self.units), key=cell_key)
            head = _head(int(self.units), int(self.components))
            self.model_ = _train(
                Model(chrono(cell, len(xs), key=time_key), head),
                key,
                part(np.sort(order[held:])),
                part(order[:held]),
                jnp.float32(self.step_size),
                updates=int(self.updates),
                batch_size=int(self.batch_size),
            )
        if not all(np.isfinite(weights).all() for weights in jax.tree.leaves(self.model_)):
            raise NotFinite(f"{type(self).__name__}: learning diverged with step_size={self.step_size}; lower it")

    def predict(self, X: Any) -> np.ndarray:
        """The mean of y given each row, (n,)."""
        return self._values("mean", X, lambda rows: np.zeros((rows, 1)))[:, 0]

    def predict_quantile(self, X: Any, q: Any) -> np.ndarray:
        """The values below which y lies with probability q: (n,) for one q, (n, k) for k of them; 0 < q < 1."""
        levels = np.asarray(q, np.float64)
        if levels.ndim > 1 or levels.size == 0 or not np.all((levels > 0) & (levels < 1)):
            raise ValueError(f"{type(self).__name__}: q must be one number or several between 0 and 1, got {q!r}")
        answers = self._values("quantile", X, lambda rows: np.tile(levels.reshape(1, -1), (rows, 1)))
        return answers if levels.ndim else answers[:, 0]

    def predict_interval(self, X: Any, level: float = 0.9) -> np.ndarray:
        """The central interval in which y lies with probability `level`, 0 < level < 1: (n, 2), lower and upper end."""
        require_real(self, "a number between 0 and 1", lambda share: 0 < share < 1, level=level)
        return self.predict_quantile(X, [(1 - level) / 2, (1 + level) / 2])

    def sample(self, X: Any, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Independent draws of y given each row, (n, n_samples)."""
        require_whole(self, n_samples=n_samples)
        random = check_random_state(random_state)
        return self._values("sample", X, lambda rows: random.randint(2**32, size=(rows, n_samples), dtype=np.uint32))

    def log_prob(self, X: Any, y: Any) -> np.ndarray:
        """The log density of y (n,) given each row, in nats, (n,).

        If all targets of `fit` were one number, the distribution is a point: inf there and -inf elsewhere.
        """
        whole = self._whole()
        X, y = validate_data(whole, X, y, reset=False, dtype=np.float64, y_numeric=True)
        y, (unit, _, spread) = np.asarray(y, np.float64)[:, None], whole.target_scale_
        if spread[0] == 0:
            return np.where(y == whole.target_scale_.restore(np.zeros(1)), np.inf, -np.inf)[:, 0]
        answers = whole._ask("log_prob", X, whole.target_scale_.standardise(y))
        return answers[:, 0] - math.log(spread[0]) - math.log(unit[0])

    def _check_parameters(self) -> None:
        require_whole(self, units=self.units, components=self.components)
        require_whole(self, updates=self.updates, batch_size=self.batch_size)
        positive, share = "a positive, finite number", "a number of at least 0 and below 1"
        require_real(self, positive, lambda size: 0 < size < math.inf, step_size=self.step_size)
        require_real(self, share, lambda part: 0 <= part < 1, validation=self.validation)

    def _values(self, method: str, X: Any, arguments: Callable[[int], np.ndarray]) -> np.ndarray:
        """The head's answers (n, k) as values of y, with arguments of so many rows."""
        whole = self._whole()
        X = validate_data(whole, X, reset=False, dtype=np.float64)
        return whole.target_scale_.restore(whole._ask(method, X, arguments(len(X))))

    def _whole(self) -> Self:
        """What it is now, also while another thread calls `fit`."""
        check_is_fitted(self)
        return self._with(self.__dict__)

    def _inputs(self, X: np.ndarray) -> np.ndarray:
        """What the network reads, (time, n, inputs): standardised features, the time, and zeros.

        Without the time, a GRU would have to count in order to treat one step unlike another.
        """
        xs = np.clip(self.input_scale_.standardise(self._series(X)), -REACH, REACH)
        time, rows, features = xs.shape
        inputs = np.zeros((time, rows, _power_of_two(features + 1, INPUTS)))
        inputs[:, :, :features] = xs
        inputs[:, :, features] = math.sqrt(3) * np.linspace(-1, 1, time)[:, None]
        return inputs

    def _ask(self, method: str, X: np.ndarray, arguments: np.ndarray) -> np.ndarray:
        """The head's answers (n, k) to arguments (n, k), in float64: what a row is asked with does not show."""
        answers = []
        with jax.enable_x64(True):
            model = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), self.model_)
            for start in range(0, len(X), BLOCK):
                here = slice(start, start + BLOCK)
                xs, asked = self._inputs(X[here]), arguments[here]
                size = _power_of_two(len(asked), ROWS)
                padded = _pad(xs, size, 1), _pad(asked, size, 0, "edge")
                answers.append(np.asarray(_answer(method, model, *padded))[: len(asked)])
        return np.concatenate(answers)


class MixtureDensityRegressor(_MixtureRegressor):
    """The distribution of a number y given a row x: a mixture of Gaussians whose weights, means and widths depend on x.

    A GRU layer reads the standardised row twice and a `Mixture` reads the layer; both are trained by `BPTT`, with
    Adam (warm-up, then a cosine down to zero; gradients clipped to norm 1).

    `units` >= 1: of the layer. `components` >= 1: Gaussians of the mixture. `updates` >= 1: steps of Adam; raise it
    where there are many more rows than the 64,000 that the defaults draw. `batch_size` >= 1: rows of an update, drawn
    in proportion to their weights. `step_size` > 0: of Adam, at its peak. `validation` in [0, 1): share of the rows
    (at most 4096) held out to choose, out of 25 equally spaced states, the one that predicts them best; 0, or less than
    one row: the last state is kept. `random_state`: None, a whole number or a `numpy.random.RandomState`.

    After `fit`: `model_`, the Onward `Model`, and `input_scale_` and `target_scale_`, by which its inputs and its
    target are standardised. A feature that was constant in `fit` is ignored; if y was, every answer is that number.

    >>> import numpy as np
    >>> from onward.adapters.sklearn import MixtureDensityRegressor
    >>> x = np.linspace(-1, 1, 200)
    >>> y = np.where(np.arange(200) % 2, x, -x)  # two answers to every x
    >>> regressor = MixtureDensityRegressor(components=2, updates=200, random_state=0).fit(x[:, None], y)
    >>> low, high = regressor.predict_interval([[0.8]])[0]
    >>> bool(low < -0.7 and high > 0.7)
    True
    """

    def _series(self, X: np.ndarray) -> np.ndarray:
        return np.broadcast_to(X, (READS, *X.shape))


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceMixtureRegressor(_MixtureRegressor):
    """The distribution of a number y given a sequence: a GRU reads it, and a `Mixture` its last state.

    A row of X holds one sequence, step after step: `features` numbers of the first step, then those of the second, and
    so on: `X.reshape(len(X), -1)` of an array (n, time, features). Each feature is standardised over all rows and
    steps; the network also reads the time.

    `features` >= 1: numbers of a step, a divisor of the columns of X. All else as in `MixtureDensityRegressor`; time
    and memory of `fit` grow with the length, and each new length is one more compilation.

    >>> import numpy as np
    >>> from onward.adapters.sklearn import SequenceMixtureRegressor
    >>> X = np.random.default_rng(0).normal(size=(100, 5, 2))
    >>> regressor = SequenceMixtureRegressor(features=2, updates=10).fit(X.reshape(100, -1), X[:, 0, 1])
    >>> regressor.sample(X[:3].reshape(3, -1), 4).shape
    (3, 4)
    """

    features: int = 1

    def _check_parameters(self) -> None:
        super()._check_parameters()
        require_whole(self, features=self.features)

    def _series(self, X: np.ndarray) -> np.ndarray:
        if X.shape[1] % self.features:
            raise ValueError(
                f"{type(self).__name__}: features must divide the columns of X, {X.shape[1]}, got {self.features}"
            )
        return np.moveaxis(X.reshape(len(X), -1, self.features), 1, 0)


def _network(inputs: int, units: int, components: int, *, key: Any) -> Model:
    return Model(GRU(inputs, units, key=key), _head(units, components))


def _head(units: int, components: int) -> Mixture:
    return Mixture(units, components, bounds=BOUNDS, spread=SPREAD)


@functools.partial(jax.jit, static_argnames=("updates", "batch_size"))
def _train(
    model: Model, key: Any, data: Sequence, held_out: Sequence, step_size: Any, *, updates: int, batch_size: int
) -> Model:
    """All updates, in one program: the model that was best on the held-out rows, or the last if there are none."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, updates // 20, updates)
    learner = BPTT(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)), step_size)
    seed, lanes = seed_of(key), jnp.arange(batch_size)
    borders = jnp.cumsum(data.mask[0])
    # Rounding must not lead to the padding behind the last row.
    last = jnp.searchsorted(borders, borders[-1])

    def draw(i: Any) -> Sequence:
        """A stratified sample: one row of each of `batch_size` equal shares of the weight."""
        shares = lanes + uniform(seed, i, lanes)
        rows = jnp.minimum(jnp.searchsorted(borders, shares / batch_size * borders[-1], side="right"), last)
        return Sequence(data.xs[:, rows], data.y[:, rows], jnp.ones((1, batch_size)))

    def update(carry: PyTree, i: Any) -> tuple[PyTree, None]:
        state, best, least = carry
        state, _ = learner.step(state, draw(i))
        due = (i + 1) * LOOKS // updates > i * LOOKS // updates
        look = lambda: sequence_loss(state.model, state.stats, held_out)[0]
        loss = lax.cond(due & jnp.any(held_out.mask > 0), look, lambda: jnp.full((), jnp.inf))
        best = jax.tree.map(lambda new, old: jnp.where(loss < least, new, old), state.model, best)
        return (state, best, jnp.minimum(loss, least)), None

    start = learner.init(model, data, key=key), model, jnp.full((), jnp.inf)
    (state, best, least), _ = lax.scan(update, start, jnp.arange(updates))
    return jax.tree.map(lambda chosen, last: jnp.where(least < jnp.inf, chosen, last), best, state.model)


READINGS: dict[str, Callable[..., Any]] = {
    "mean": lambda head, prediction, _: head.mean(prediction),
    "quantile": lambda head, prediction, level: head.quantile(prediction, level),
    "log_prob": lambda head, prediction, y: head.log_prob(prediction, y),
    "sample": lambda head, prediction, seed: head.sample(prediction, key=jax.random.key(seed)),
}


@functools.partial(jax.jit, static_argnames="method")
def _answer(method: str, model: Model, xs: Any, arguments: Any) -> Any:
    """Readings (n, k) of the distributions given sequences (time, n, inputs), with arguments (n, k)."""

    def one(xs: Any, arguments: Any) -> Any:
        carry, _ = lax.scan(lambda carry, x: (model.advance(carry, x), None), model.init(), xs)
        prediction = model.head(model.features(carry))
        return jax.vmap(lambda argument: READINGS[method](model.head, prediction, argument))(arguments)

    return jax.vmap(one, (1, 0))(xs, arguments)


def _distinct(X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted, without rows of no weight, and equal rows as one with the sum of their weights."""
    kept = weights > 0
    # By a power of two: sums cannot overflow, and three times a weight is the weight of three rows to the last bit.
    rows, weights = np.column_stack([X, y])[kept], np.ldexp(weights[kept], -np.frexp(weights.max())[1])
    order = np.lexsort(rows.T)
    rows = rows[order]
    first = np.concatenate([[True], np.any(rows[1:] != rows[:-1], axis=1)])
    return rows[first, :-1], rows[first, -1], np.add.reduceat(weights[order], np.flatnonzero(first))


def _batch(xs: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Sequence:
    """Rows as float32, of mean weight 1, and rows of weight 0 up to a power of two; there may be none at all."""
    size = _power_of_two(len(y), ROWS)
    mask = weights / np.maximum(weights.sum(), np.finfo(float).tiny) * len(weights)
    arrays = _pad(xs, size, 1), _pad(y[None], size, 1), _pad(mask[None], size, 1)
    return Sequence(*(jnp.asarray(a, jnp.float32) for a in arrays))


def _pad(array: np.ndarray, size: int, axis: int, mode: Any = "constant") -> np.ndarray:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return np.pad(array, widths, mode)


def _power_of_two(size: int, least: int) -> int:
    """The first that is neither below `size` nor below `least`, itself one."""
    return max(1 << max(size - 1, 0).bit_length(), least)
