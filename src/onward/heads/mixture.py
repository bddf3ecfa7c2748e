"""A mixture of Gaussians."""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.base import require_size
from onward.heads.base import AbstractHead
from onward.heads.linear import grow_weight

# Phi(-40) is below the smallest number of float64: the bracket holds the quantile of every level.
REACH = 40.0
# Halvings that take the bracket, of any ordinary width, to neighbouring numbers of float64.
HALVINGS = 64
# Log sigmas up to here, of either sign, need little care, and beyond 40 sigma or its inverse is near no number.
MODEST, NEAR = 8.0, 40.0
# What of a gradient would be larger is taken for a large number: times what comes afterwards it stays finite.
STEEP = 2.0**88


class Mixture(AbstractHead):
    """p(y) = sum_k pi_k N(y; mu_k, sigma_k^2 I): a mixture density network (Bishop, 1994).

    pi = softmax(a), log sigma = bound(r), and a, mu and r are linear in the features, rows of one `weight`.
    `outputs=None` predicts a scalar; a whole number predicts a vector of that many, each component an isotropic
    Gaussian with one sigma. A prediction is one vector, log pi, mu (component by component) and log sigma end to
    end; `parts` takes it apart.

    bound(r) = centre + half z / sqrt(1 + z^2), z = (r - centre) / half, with the centre and the half-width of
    `bounds`. Its slope is 1 at the centre and falls only with the cube of the distance, so a sigma that an
    outlier has driven to a bound still has a gradient (tanh's is exactly 0 in float32 eight half-widths out).

    Weights start at zero and the components equally likely. Equal components would get equal gradients and stay
    equal, so the mu start at the quantiles (i - 1/2) / components of the interval `spread` (for vectors, the same
    in every coordinate) and every sigma at the width of `spread` / components, its log moved into the middle four
    fifths of `bounds` if it lies outside. Set `spread` to the range of y.

    >>> import jax.numpy as jnp
    >>> head = Mixture(3, components=2)
    >>> log_pi, mu, log_sigma = head.parts(head(jnp.ones(3)))
    >>> mu.tolist(), jnp.exp(log_sigma).round(3).tolist()
    ([0.25, 0.75], [0.5, 0.5])
    >>> round(float(head.quantile(head(jnp.ones(3)), 0.5)), 3)
    0.5
    """

    weight: Float[Array, "rows features"]
    bias: Float[Array, " rows"]
    components: int = eqx.field(static=True)
    outputs: int | None = eqx.field(static=True)
    bounds: tuple[float, float] = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        components: int,
        *,
        outputs: int | None = None,
        bounds: tuple[float, float] = (-7.0, 3.0),
        spread: tuple[float, float] = (0.0, 1.0),
    ):
        require_size("Mixture", features=features, components=components, outputs=1 if outputs is None else outputs)
        self.components, self.outputs, self.bounds = components, outputs, _interval("bounds", bounds)
        low, high = _interval("spread", spread)
        mu = low + (high - low) * (np.arange(components) + 0.5) / components
        centre, half = self._centre_half()
        offset = np.clip((math.log((high - low) / components) - centre) / half, -0.8, 0.8)
        r = centre + half * offset / math.sqrt(1 - offset**2)
        self.bias = jnp.asarray(
            np.concatenate([np.zeros(components), np.repeat(mu, outputs or 1), np.full(components, r)])
        )
        self.weight = jnp.zeros((self.bias.size, features))

    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " rows"]:
        """Log pi, mu and log sigma end to end."""
        rows = self.weight @ features + self.bias
        k = self.components
        centre, half = self._centre_half()
        far = 2.0**20 * half  # from there on log sigma is at a bound
        z = (jnp.clip(rows[-k:], -far, far) - centre) / half
        log_sigma = centre + half * z * jax.lax.rsqrt(1 + z * z)
        return jnp.concatenate([jax.nn.log_softmax(rows[:k]), rows[k:-k], log_sigma])

    def parts(
        self, prediction: Float[Array, " rows"]
    ) -> tuple[Float[Array, " components"], Float[Array, "components *outputs"], Float[Array, " components"]]:
        """Log pi, mu and log sigma of a prediction."""
        k = self.components
        shape = (k,) if self.outputs is None else (k, self.outputs)
        return prediction[:k], prediction[k:-k].reshape(shape), prediction[-k:]

    def log_prob(self, prediction: Array, y: Float[Array, "*outputs"]) -> Float[Array, ""]:
        """The log of sum_k pi_k (2 pi)^(-d/2) sigma_k^-d exp(-|y - mu_k|^2 / (2 sigma_k^2)).

        Finite where, and only where, its arguments are, and so is its gradient: |y - mu_k| / sigma_k is cut off where
        its square would overflow, and a gradient by log sigma_k, mu_k or y that would be larger than `STEEP` is taken
        for a large number of its sign.
        """
        self._check_target(y)
        log_pi, mu, log_sigma = self.parts(prediction)
        d = self.outputs or 1
        wide = max(map(abs, self.bounds)) > MODEST
        z = _standardised(wide, jnp.reshape(y, (1, d)), mu.reshape(-1, d), log_sigma)
        log_density = -0.5 * jnp.sum(jnp.square(z), axis=1) - d * (log_sigma + 0.5 * math.log(2 * math.pi))
        return jax.nn.logsumexp(log_pi + log_density)

    def mean(self, prediction: Array) -> Float[Array, "*outputs"]:
        """sum_k pi_k mu_k."""
        log_pi, mu, _ = self.parts(prediction)
        return jnp.exp(log_pi) @ mu

    def variance(self, prediction: Array) -> Float[Array, "*outputs"]:
        """sum_k pi_k (sigma_k^2 + (mu_k - mean)^2), of each output."""
        log_pi, mu, log_sigma = self.parts(prediction)
        pi = jnp.exp(log_pi)
        return pi @ jnp.exp(2 * log_sigma) + pi @ jnp.square(mu - (pi @ mu)[None])

    def sample(self, prediction: Array, *, key: PRNGKeyArray) -> Float[Array, "*outputs"]:
        """One component, then one draw from it."""
        log_pi, mu, log_sigma = self.parts(prediction)
        which, noise = jax.random.split(key)
        k = jax.random.categorical(which, log_pi)
        return mu[k] + jnp.exp(log_sigma[k]) * jax.random.normal(noise, mu.shape[1:], mu.dtype)

    def cdf(self, prediction: Array, y: Float[Array, ""]) -> Float[Array, ""]:
        """P(Y <= y) = sum_k pi_k Phi((y - mu_k) / sigma_k). For scalar targets."""
        self._require_scalar("cdf")
        self._check_target(y)
        # Rounding in pi can carry the sum over 1.
        return jnp.exp(jnp.minimum(_log_tail(*self.parts(prediction), y, 1.0), 0.0))

    def quantile(self, prediction: Array, level: Float[Array, ""] | float) -> Float[Array, ""]:
        """The y with P(Y <= y) = level, by bisection; level in (0, 1), nan elsewhere if traced. For scalar targets.

        Solves for the smaller tail, in log space, so that levels near 0 and 1 keep their digits. The derivative is
        that of the implicit function: d y / d level = 1 / p(y).
        """
        self._require_scalar("quantile")
        if jnp.shape(level) != ():
            raise ValueError(f"Mixture: level must be one number, got shape {jnp.shape(level)}; use jax.vmap")
        # Checked as rounded: 1 - 1e-9 is 1 in float32.
        if not isinstance(level, jax.core.Tracer) and not 0 < np.asarray(level, prediction.dtype) < 1:
            raise ValueError(
                f"Mixture: level must be between 0 and 1, both excluded, as {prediction.dtype}, got {level}"
            )
        level = jnp.asarray(level, prediction.dtype)
        inside = (level > 0) & (level < 1)
        safe = jnp.where(inside, level, 0.5)
        return jnp.where(inside, _quantile(*self.parts(prediction), safe), jnp.nan)

    def grow(self, features: int) -> "Mixture":
        """New weights are zero: the prediction does not change."""
        return grow_weight(self, features)

    def _centre_half(self) -> tuple[float, float]:
        low, high = self.bounds
        return (low + high) / 2, (high - low) / 2

    def _check_target(self, y: Array) -> None:
        """Refuse a y that would broadcast against the components."""
        shape = () if self.outputs is None else (self.outputs,)
        if jnp.shape(y) != shape:
            raise ValueError(f"Mixture: y must have shape {shape} (outputs={self.outputs}), got {jnp.shape(y)}")

    def _require_scalar(self, method: str) -> None:
        if self.outputs is not None:
            raise TypeError(
                f"Mixture: {method} is of scalar targets (outputs=None), this head has outputs={self.outputs}"
            )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _standardised(wide: bool, y: Array, mu: Array, log_sigma: Array) -> Float[Array, "components outputs"]:
    """(y - mu) / sigma, cut off where its square would overflow; `wide`: a log sigma need not be modest."""
    if wide:
        # In two factors, of which the second is one where log sigma is modest. Halves cannot overflow.
        near = jnp.clip(log_sigma, -NEAR, NEAR)
        rest = jnp.clip(log_sigma - near, -2 * NEAR, 2 * NEAR)
        z = (0.5 * y - 0.5 * mu) * (2 * jnp.exp(-near))[:, None] * jnp.exp(-rest)[:, None]
    else:
        z = (y - mu) * jnp.exp(-log_sigma)[:, None]
    return jnp.where(jnp.isfinite(y), jnp.clip(z, -_largest(mu), _largest(mu)), z)


@_standardised.defjvp
def _standardised_jvp(wide: bool, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    (y, mu, log_sigma), (dy, dmu, dlog_sigma) = primals, tangents
    z, residual, inverse = _standardised(wide, *primals), y - mu, jnp.exp(-log_sigma)
    if not wide:
        far = jnp.clip(z, -(2.0**25), 2.0**25)
        residual = jnp.where(jnp.abs(z) < 2.0**44, residual, far)
        return z, (dy - dmu) * inverse[:, None] - residual * (dlog_sigma * inverse)[:, None]
    # As they are where all products are finite. The cotangent of z is z, times a weight, or less.
    size = jnp.maximum(jnp.abs(z), 2.0**-38)
    slope = jnp.minimum(inverse[:, None], STEEP / size)
    modest = (jnp.abs(residual) < 2.0**60) & (size < 2.0**40)
    usual = jnp.all(modest, 1) & (inverse < 2.0**60)
    residual = jnp.where(usual[:, None], residual, jnp.clip(z, -STEEP / size, STEEP / size))
    dscale = -(dlog_sigma * jnp.where(usual, inverse, 1.0))
    return z, (dy - dmu) * slope + residual * dscale[:, None]


def _largest(mu: Array) -> float:
    """The largest standardised number: the squares of all outputs together are finite."""
    return math.sqrt(float(jnp.finfo(mu.dtype).max) / (4 * mu.shape[1]))


def _log_tail(log_pi: Array, mu: Array, log_sigma: Array, y: Array, sign: Array | float) -> Array:
    """Log P(Y <= y) at sign 1, log P(Y > y) at sign -1."""
    return jax.nn.logsumexp(log_pi + log_ndtr(sign * (y - mu) * jnp.exp(-log_sigma)))


# Compiled by itself: a call outside jit would compile the loop every time.
@jax.jit
def _quantile(log_pi: Array, mu: Array, log_sigma: Array, level: Array) -> Array:
    sign = jnp.where(level > 0.5, -1.0, 1.0).astype(mu.dtype)
    target = jnp.log(jnp.minimum(level, 1 - level))
    reach = REACH * jnp.exp(log_sigma)
    bracket = jnp.min(mu - reach), jnp.max(mu + reach)

    def excess(y: Array) -> Array:
        return sign * (_log_tail(log_pi, mu, log_sigma, y, sign) - target)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        below = excess(middle) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    def solve(_: Any, start: Array) -> Array:
        low, high = jax.lax.fori_loop(0, HALVINGS, halve, bracket)
        return 0.5 * (low + high)

    def solve_tangent(slope: Any, tangent: Array) -> Array:
        # Between components far apart the density, and so the slope, can round to zero.
        return tangent / jnp.maximum(slope(jnp.ones_like(tangent)), jnp.finfo(tangent.dtype).tiny)

    # The root of a function, so that its derivative is the implicit one and not that of the halvings.
    return jax.lax.custom_root(excess, mu[0], solve, solve_tangent)


def _interval(name: str, ends: tuple[float, float]) -> tuple[float, float]:
    """Two finite numbers in increasing order."""
    try:
        low, high = (float(end) for end in ends)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"Mixture: {name} must be two finite numbers, the first below the second, got {ends!r}")
    return low, high
