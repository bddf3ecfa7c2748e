"""The prediction of a network as one compiled program, which JAX runs without onward."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from onward.devices import DOUBLE, SINGLE, computing_in, must_compute
from onward.errors import needs
from onward.model import Model
from onward.types import Carry, PyTree

try:
    import flatbuffers  # noqa: F401  (by which JAX writes programs)
except ImportError as error:
    raise ImportError(needs(__name__, "export")) from error


def export_step(model: Model, carry: Carry | None = None) -> bytes:
    """A program for one step of one stream, weights within, as bytes that `jax.export.deserialize` reads.

        prediction, *carry = program.call(x, start, *carry)

    x: (inputs,). start: a bool; true begins the stream, with the `carry` that was given here (None: `model.init()`),
    and what comes in as carry is not read. With running moments give `state.carry` of the learner, which holds them.
    `program.in_avals[2:]` says the shapes of a carry, flat. prediction: the head's. Nothing is learned.

    Whoever runs the program needs JAX and flatbuffers, on the kind of device it was made on. The numbers are those of
    `eqx.filter_jit(model)` in the same version of JAX, in the precision of the model: the tests hold them to the bit.
    `Online.read` is another program, which moves traces on too; its last bits may differ.

    Raises TypeError for what is no model, or a carry of another one, and ValueError for cells that draw random numbers.

    >>> import jax, numpy as np, onward as ow
    >>> model = ow.Model(ow.GRU(2, 3, key=jax.random.key(0)), ow.Linear(3))
    >>> program = jax.export.deserialize(bytearray(export_step(model)))
    >>> carry = [np.zeros(a.shape, a.dtype) for a in program.in_avals[2:]]
    >>> for x in np.ones((4, 2), np.float32):
    ...     prediction, *carry = program.call(x, not carry[0].any(), *carry)
    >>> prediction.shape, [a.shape for a in carry]
    ((), [(3,)])
    """
    must_compute()
    if not isinstance(model, Model):
        raise TypeError(f"export_step: model must be an onward.Model, got {type(model).__name__}")
    arrays = jax.tree.leaves(eqx.filter(model, eqx.is_array))
    precision = DOUBLE if any(leaf.dtype == "float64" for leaf in arrays) else SINGLE
    with computing_in(precision):
        begin = model.init() if carry is None else carry
        if not _alike(begin, model.init()):
            raise TypeError(
                "export_step: the carry is not one of this model's cell; give the state.carry of one stream that the "
                "model was learned from, or none"
            )
        leaves, structure = jax.tree.flatten(begin)

        def step(x: Array, start: Array, *flat: Array) -> tuple[Any, ...]:
            # Chosen before the step, not within it: fused with a `where` its last bits would be others.
            now = lax.cond(start, lambda _: leaves, lambda given: given, list(flat))
            after, prediction = model(jax.tree.unflatten(structure, now), x)
            return prediction, *jax.tree.leaves(after)

        kind = jnp.float64 if precision == DOUBLE else jnp.float32
        x, start = jax.ShapeDtypeStruct((model.cell.inputs,), kind), jax.ShapeDtypeStruct((), jnp.bool_)
        flat = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
        return bytes(jax.export.export(jax.jit(step))(x, start, *flat).serialize())


def _alike(tree: PyTree, other: PyTree) -> bool:
    """Whether both have the same arrays, by structure, shape and type."""
    kinds = lambda tree: [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree)]
    structure: Any = jax.tree.structure(tree)
    return structure == jax.tree.structure(other) and kinds(tree) == kinds(other)
