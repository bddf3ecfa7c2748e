"""Units that turn in a plane: recurrent trace units and linear recurrent units."""

import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.base import AbstractGates, States

Activation = Literal["identity", "tanh", "relu"]
ACTIVATIONS = {"identity": lambda a: a, "tanh": jnp.tanh, "relu": jax.nn.relu}
# The smallest of r, 1 - r and the angle that a start may ask for: their logarithms are kept.
SMALLEST = 1e-6


@jax.custom_jvp
def cos_sin(angle: Array) -> tuple[Array, Array]:
    """Cosine and sine of an array, to some 2 units in the last place; angles up to 1e4 in single precision.

    The angle less its quarter turns, halved, gives c and s by their series; (c^2 - s^2, 2 c s) is divided by c^2 + s^2.
    XLA's own sine is no vector code, and it takes sines for cheap: it would compute them anew for every parameter's
    trace. A quotient it writes down.
    """
    quarters = jnp.round(angle * (2 / math.pi))
    rest = angle
    for part in _quarter_in_parts(jnp.finfo(angle.dtype).nmant // 2):
        rest = rest - quarters * part
    half = rest / 2
    square = half * half
    s, c = half * _series(square, 1), _series(square, 0)
    cos, sin, length = c * c - s * s, 2 * c * s, c * c + s * s
    which = quarters.astype(jnp.int32) & 3
    odd = (which & 1) == 1
    low, high = jnp.where(odd, sin, cos), jnp.where(odd, cos, sin)
    flip = lambda value, when: jnp.where(when, -value, value)
    return flip(low, (which == 1) | (which == 2)) / length, flip(high, which >= 2) / length


def _quarter_in_parts(bits: int) -> tuple[float, float, float]:
    """A quarter turn as three numbers; the first two have so few bits that whole multiples of them are exact."""
    rest = math.pi / 2
    first = round(rest * 2**bits) / 2**bits
    second = round((rest - first) * 4**bits) / 4**bits
    return first, second, (rest - first - second) + 6.123233995736766e-17


def _series(square: Array, first: int) -> Array:
    """sum_k (-square)^k / (2 k + first)!, to 1e-18 for squares up to (pi / 8)^2."""
    total = jnp.zeros_like(square)
    for k in reversed(range(8)):
        total = (-1) ** k / math.factorial(2 * k + first) + square * total
    return total


@cos_sin.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    cos, sin = cos_sin(*primals)
    return (cos, sin), (-sin * tangents[0], cos * tangents[0])


def rotate(nu: Array, theta: Array, states: States) -> States:
    """Both coordinates of r exp(i t) (h1 + i h2), with r = exp(-exp nu) and t = exp theta."""
    r = jnp.exp(-jnp.exp(nu))
    cos, sin = cos_sin(jnp.exp(theta))
    g, p = r * cos, r * sin
    return g * states[0] - p * states[1], g * states[1] + p * states[0]


def nu_theta(radius: Array, angle: Array) -> tuple[Array, Array]:
    """The nu and theta of a radius and an angle, within what their logarithms can keep."""
    nu = jnp.log(-jnp.log(jnp.clip(radius, SMALLEST, 1 - SMALLEST)))
    return nu, jnp.log(jnp.maximum(angle, SMALLEST))


def on_disc(key: PRNGKeyArray, units: int, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Nu and theta of points spread evenly over the unit disc: r the root of a uniform number, the angle uniform."""
    radius_key, angle_key = jax.random.split(key)
    square = jax.random.uniform(radius_key, (units,), dtype)
    return nu_theta(jnp.sqrt(square), 2 * jnp.pi * jax.random.uniform(angle_key, (units,), dtype))


class RTUGates(AbstractGates):
    """Recurrent trace unit (Elelimy et al., 2024): two coordinates, both features, that turn and shrink.

        r = exp(-exp nu);  t = exp theta;  n = sqrt(1 - r^2) + 1e-8
        h1' = r cos t h1 - r sin t h2 + n a1;  h2' = r cos t h2 + r sin t h1 + n a2

    nu and theta are parameters of the unit's own; a1 and a2 are driven by the inputs, without a bias.
    `recurrence`: "linear", and a head reads f(h1), f(h2); or "nonlinear", f(h1'), f(h2') are the states. f is
    `activation`. At the start r is the root of a uniform number and t uniform in 0 .. 2 pi (`ring` makes other
    starts). For `Columns` only. Memory of an exact trace: one float a parameter, 2 if nonlinear.

    >>> import jax
    >>> from onward import Columns, RTUGates
    >>> cell = Columns(RTUGates(), inputs=3, columns=5, key=jax.random.key(0))
    >>> cell.weight.shape, cell.recurrent, cell.bias.shape, cell.feature_count
    ((3, 2, 5), None, (2, 5), 10)
    """

    states: ClassVar[int] = 2
    slots: ClassVar[int] = 4
    input_slots: ClassVar[tuple[int, ...]] = (0, 1)
    recurrent_slots: ClassVar[tuple[int, ...]] = ()
    contracting: ClassVar[bool] = True
    bias_slots: ClassVar[tuple[int, ...] | None] = (2, 3)
    activation: Activation = eqx.field(default="tanh", static=True)
    recurrence: Literal["linear", "nonlinear"] = eqx.field(default="linear", static=True)

    def __check_init__(self) -> None:
        for name, known in (("activation", ACTIVATIONS), ("recurrence", ("linear", "nonlinear"))):
            if getattr(self, name) not in known:
                raise ValueError(f"RTUGates: {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")

    @property
    def in_a_plane(self) -> bool:
        """A linear recurrence is a complex one."""
        return self.recurrence == "linear"

    def next_state(self, i: int, preactivation: States, states: States, new: States) -> Array:
        """State i, h1' or h2', from four preactivations and (h1, h2), each (units,)."""
        nu, theta = preactivation[2:]
        # sqrt(1 - r^2) without losing digits where r is close to 1.
        n = jnp.sqrt(-jnp.expm1(-2 * jnp.exp(nu))) + 1e-8
        moved = rotate(nu, theta, states)[i] + n * preactivation[i]
        return ACTIVATIONS[self.activation](moved) if self.recurrence == "nonlinear" else moved

    def features(self, states: States) -> States:
        """f(h1) and f(h2), or the states themselves where the recurrence is nonlinear already."""
        if self.recurrence == "nonlinear":
            return states
        return tuple(ACTIVATIONS[self.activation](h) for h in states)

    def initial_bias(self, bias: Array, *, key: PRNGKeyArray) -> Array:
        """Nu and theta of points spread evenly over the unit disc."""
        return jnp.stack(on_disc(key, bias.shape[-1], bias.dtype))

    def remember(self, bias: Array, log_time: Array) -> Array:
        """The bias with r = exp(-1 / time), and the angle divided by the time: one turn at most while it remembers."""
        return jnp.stack([-log_time, bias[1] - log_time])

    def turn(self, bias: Array, radius: Float[Array, " units"], angle: Float[Array, " units"]) -> Array:
        """The bias with this radius and angle."""
        return jnp.stack(nu_theta(radius, angle))


class LRUGates(AbstractGates):
    """Linear recurrent unit (Orvieto et al., 2023; online: Zucchet et al., 2023); real and imaginary part are features.

        h' = lambda h + exp(gamma) (a1 + i a2),    lambda = exp(-exp nu + i exp theta)

    nu, theta and gamma are parameters of the unit's own; a1 + i a2 is driven by the inputs, without a bias. At the
    start lambda is spread evenly over the unit disc (`ring` makes other starts) and exp(gamma) = sqrt(1 - |lambda|^2).
    The layer's readout, Re(C h) + D x, is a linear head over `Skip(Columns(LRUGates(), ...))`: it reads Re, Im and x.
    For `Columns` only. Memory of an exact trace: one float a parameter.
    """

    states: ClassVar[int] = 2
    slots: ClassVar[int] = 5
    input_slots: ClassVar[tuple[int, ...]] = (0, 1)
    recurrent_slots: ClassVar[tuple[int, ...]] = ()
    contracting: ClassVar[bool] = True
    bias_slots: ClassVar[tuple[int, ...] | None] = (2, 3, 4)

    @property
    def in_a_plane(self) -> bool:
        """Always."""
        return True

    def next_state(self, i: int, preactivation: States, states: States, new: States) -> Array:
        """State i, the real or the imaginary part of h', from five preactivations and (Re, Im), each (units,)."""
        nu, theta, gamma = preactivation[2:]
        return rotate(nu, theta, states)[i] + jnp.exp(gamma) * preactivation[i]

    def features(self, states: States) -> States:
        """Real and imaginary part."""
        return states

    def initial_bias(self, bias: Array, *, key: PRNGKeyArray) -> Array:
        """Points spread evenly over the unit disc, and the gamma that belongs to them."""
        return self._with_gamma(*on_disc(key, bias.shape[-1], bias.dtype))

    def remember(self, bias: Array, log_time: Array) -> Array:
        """The bias with |lambda| = exp(-1 / time) and its gamma; the angle divided by the time, as in `RTUGates`."""
        return self._with_gamma(-log_time, bias[1] - log_time)

    def turn(self, bias: Array, radius: Float[Array, " units"], angle: Float[Array, " units"]) -> Array:
        """The bias with this radius and angle, and the gamma that belongs to it."""
        return self._with_gamma(*nu_theta(radius, angle))

    def _with_gamma(self, nu: Array, theta: Array) -> Array:
        return jnp.stack([nu, theta, 0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(nu)))])
