"""Cells with their credit rule as PyTorch modules: `backward` gives the online gradient of each step's loss."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial, reduce
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from onward.adapters.parameters import require_whole
from onward.cells.base import AbstractCell, AbstractColumnar
from onward.credit.base import AbstractCredit
from onward.credit.columnwise import Columnwise
from onward.credit.rtrl import RTRL
from onward.devices import DOUBLE, SINGLE, computing_in, must_compute
from onward.errors import needs
from onward.learners.online import grown
from onward.saving import from_named_arrays, named_arrays
from onward.trees import select
from onward.types import Carry, PyTree

try:
    import torch
    from torch.autograd.function import once_differentiable
except ImportError as error:
    raise ImportError(needs(__name__, "torch")) from error


class _Stream(NamedTuple):
    """All that goes on from step to step but the parameters; with `streams`, carry and credit have that axis first."""

    frozen: PyTree
    carry: Carry
    credit: PyTree
    steps: Array
    seed: Array


class OnlineCell(torch.nn.Module):
    """A cell and a credit rule as a stateful `torch.nn.Module`: one call is one step of a stream.

    `cell`: any cell (`Columns`, `Cascade`, ...). `rule`: any credit rule (None: `Columnwise` for columns, else `RTRL`,
    both exact). The module's parameters are the trainable arrays of the cell, under their names, as CPU tensors of its
    precision (float32, or float64 for a cell made under `jax.enable_x64`). Carry and traces are kept from call to call;
    `state_dict` holds them too, so that a loaded module goes on to the bit.

    >>> import jax, torch, onward as ow
    >>> module = OnlineCell(ow.Columns(ow.LSTMGates(), 3, 5, key=jax.random.key(0)))
    >>> [name for name, _ in module.named_parameters()]
    ['weight', 'recurrent', 'bias']
    >>> head = torch.nn.Linear(5, 1)
    >>> optimiser = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=1e-3)
    >>> for x in torch.ones(4, 3):
    ...     loss = (head(module(x)) - 1).square().sum()
    ...     optimiser.zero_grad()
    ...     loss.backward()
    ...     optimiser.step()
    >>> tuple(module.weight.grad.shape)
    (3, 4, 5)

    The gradient is d loss_t / d theta through all steps since the last `reset`, in constant memory: the rule's `pull`
    of the cotangent that PyTorch brings to the features. Exact if the rule is and while the weights stand: then the sum
    over steps is the gradient of the unrolled graph. With an optimiser's step between calls the traces are partly those
    of earlier weights, the usual approximation of online learning. A loss of a step may be differentiated later, or
    with those of other steps; its traces are kept until then. Running moments are constants of the gradient. There is
    no second derivative.

    An x that requires grad is refused, because the gradient of what made it would lack its way through earlier steps:
    the module has traces of its own parameters only. `input_gradient=True` gives the exact d loss_t / d x_t of the
    present step, and nothing of what x_t does to later losses, nor earlier inputs to this one.

    `streams`: read that many streams side by side, one a row of x; gradients are summed over them, as PyTorch does.
    `seed`: for rules and cells that draw random numbers. Cost of a call: a step of the rule, and the way between the
    libraries. Compiled once for each cell, rule and shape.

    Raises TypeError for a rule that does not work on the cell, and ValueError for arrays in other precisions.
    """

    def __init__(
        self,
        cell: AbstractCell,
        rule: AbstractCredit | None = None,
        *,
        streams: int | None = None,
        input_gradient: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._stream: _Stream
        must_compute()
        if not isinstance(cell, AbstractCell):
            raise TypeError(f"OnlineCell: cell must be a cell of onward (Columns, GRU, ...), got {type(cell).__name__}")
        if rule is None:
            rule = Columnwise() if isinstance(cell, AbstractColumnar) else RTRL()
        if not isinstance(rule, AbstractCredit):
            raise TypeError(f"OnlineCell: rule must be a credit rule (Columnwise(), ...), got {type(rule).__name__}")
        require_whole(self, 0, seed=seed)
        if streams is not None:
            require_whole(self, streams=streams)
        self._rule, self._streams, self._input_gradient = rule, streams, input_gradient
        self._double = _is_double(cell)
        with self._as_made():
            self._take(cell, self._each(cell.init()), jnp.zeros((), jnp.int32), jnp.asarray(seed, jnp.uint32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Read x (inputs,), or (streams, inputs), and return the features (features,), or (streams, features).

        Carry and traces move on, with gradients switched off too. Raises TypeError for what is no tensor, and
        ValueError for another shape, dtype or device, and for an x that requires grad unless `input_gradient`.
        """
        must_compute()
        parameters = self._tensors()
        lead = () if self._streams is None else (self._streams,)
        self._require("x", x, (*lead, self._template.inputs))
        if x.requires_grad and torch.is_grad_enabled() and not self._input_gradient:
            raise ValueError(
                "OnlineCell: x requires grad, but its gradient through earlier steps is not kept; give x.detach(), or "
                "say OnlineCell(..., input_gradient=True) for the gradient through the present step alone"
            )
        with self._as_made():
            cell, before, observation = self._cell_of(parameters), self._stream, _array(x)
            features, after = _advance(self._rule, cell, before, observation)
            said = torch.tensor(np.asarray(features))
        self._stream = after

        def pull(cotangent: torch.Tensor, on_x: bool) -> "tuple[torch.Tensor | None, ...]":
            with self._as_made():
                back = _array(cotangent)
                gradient = _pull(self._rule, cell, after, back)
                to_x = torch.tensor(np.asarray(_on_input(cell, before, observation, back))) if on_x else None
                return to_x, *(torch.tensor(array) for array in named_arrays(gradient).values())

        return _Answer.apply(said, pull, x, *parameters)

    def reset(self, where: "torch.Tensor | None" = None) -> None:
        """Start an episode: hidden state and traces begin anew, running moments and weights go on.

        `where`: in which streams, (streams,) bools; None: everywhere. ValueError for another shape or dtype.
        """
        must_compute()
        if where is not None and (where.dtype != torch.bool or tuple(where.shape) != (self._streams,)):
            wanted = "nothing, for there is one stream" if self._streams is None else f"({self._streams},) of bool"
            raise ValueError(f"OnlineCell: reset takes {wanted}; got {tuple(where.shape)} of {where.dtype}")
        with self._as_made():
            cell = self.cell
            fresh = (self._each(cell.init().hidden), self._fresh_credit(cell, self._stream.steps, self._stream.seed))
            now = (self._stream.carry.hidden, self._stream.credit)
            if where is None:
                hidden, credit = fresh
            else:
                hidden, credit = jax.vmap(select)(_array(where), fresh, now)
            self._stream = self._stream._replace(carry=self._stream.carry._replace(hidden=hidden), credit=credit)

    def grow(self) -> None:
        """Let the cell grow: of a `Cascade`, freeze the live stage and add the next, drawn by `seed`.

        Parameters are new tensors then: make a new optimiser, and widen the head to `module.cell.feature_count`
        features, of which those of before come first. TypeError for a cell that does not grow.
        """
        must_compute()
        with self._as_made():
            _, carry, _, steps, seed = self._stream
            cell, carry = grown(self.cell, carry, self._streams, key=_key(seed, steps))
            self._take(cell, carry, steps, seed)

    @property
    def cell(self) -> Any:
        """The cell of onward, with the weights of now."""
        with self._as_made():
            return jax.tree.map(
                lambda a: jnp.asarray(a) if isinstance(a, np.ndarray) else a, self._cell_of(self._tensors())
            )

    def get_extra_state(self) -> dict[str, torch.Tensor]:
        """What `state_dict` holds besides the parameters: frozen arrays, carry and traces."""
        return {name: torch.tensor(array) for name, array in named_arrays(self._stream).items()}

    def set_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a `state_dict`. Raises `Unreadable`, by name of the array, for one of another cell or rule."""
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        with self._as_made():
            self._stream = from_named_arrays(arrays, self._stream, "the state_dict of an OnlineCell")

    def extra_repr(self) -> str:
        """Cell and rule."""
        return f"{self.cell!r}, {self._rule!r}"

    def _as_made(self) -> AbstractContextManager[None]:
        return computing_in(DOUBLE if self._double else SINGLE)

    def _each(self, tree: PyTree) -> PyTree:
        """A copy of it for each stream."""
        spread = lambda a: jnp.broadcast_to(a, (self._streams, *a.shape))
        return tree if self._streams is None else jax.tree.map(spread, tree)

    def _fresh_credit(self, cell: AbstractCell, steps: Array, seed: Array) -> PyTree:
        x = jnp.zeros(cell.inputs, jnp.float64 if self._double else jnp.float32)
        return self._each(self._rule.init(cell, x, key=_key(seed, steps)))

    def _take(self, cell: AbstractCell, carry: Carry, steps: Array, seed: Array) -> None:
        """Go on with this cell: its trainable arrays become parameters, and traces begin."""
        learnt, rest = eqx.partition(cell, cell.trainable())
        stream = _Stream(eqx.filter(rest, eqx.is_array), carry, self._fresh_credit(cell, steps, seed), steps, seed)
        arrays = named_arrays(learnt)
        for name in {name.split(".")[0] for name in self._shapes}:
            delattr(self, name)
        for name, array in arrays.items():
            *path, leaf = name.split(".")
            place: torch.nn.Module = self
            for part in path:
                if part not in dict(place.named_children()):
                    place.add_module(part, torch.nn.Module())
                place = place.get_submodule(part)
            place.register_parameter(leaf, torch.nn.Parameter(torch.tensor(array)))
        self._shapes = {name: array.shape for name, array in arrays.items()}
        self._template, self._stream = cell, stream
        self._take_apart()

    def _take_apart(self) -> None:
        """What a cell is made from, besides arrays."""
        learnt, rest = eqx.partition(self._template, self._template.trainable())
        self._structure, self._static = jax.tree.structure(learnt), eqx.filter(rest, eqx.is_array, inverse=True)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_structure", "_static")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._take_apart()  # structures of JAX stand no copy

    def _tensors(self) -> list[torch.Tensor]:
        """The parameters, or what stands in their place (`torch.func.functional_call`)."""
        tensors = [reduce(getattr, name.split("."), self) for name in self._shapes]
        for (name, shape), tensor in zip(self._shapes.items(), tensors, strict=True):
            self._require(f"parameter {name}", tensor, shape)
        return tensors  # type: ignore[return-value]

    def _cell_of(self, tensors: list[torch.Tensor]) -> Any:
        learnt = jax.tree.unflatten(self._structure, [_array(tensor) for tensor in tensors])
        return eqx.combine(learnt, self._stream.frozen, self._static)

    def _require(self, what: str, tensor: Any, shape: tuple[int, ...]) -> None:
        """Refuse what is no dense tensor on the CPU of this shape, in the precision of the cell."""
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"OnlineCell: {what} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            raise ValueError(
                f"OnlineCell: {what} must be a dense tensor on the CPU, where PyTorch and JAX meet; it is "
                f"{tensor.layout} on {tensor.device}, give {what.split()[-1]}.cpu()"
            )
        wanted = torch.float64 if self._double else torch.float32
        if tensor.dtype != wanted:
            raise ValueError(
                f"OnlineCell: {what} must be of {wanted}, the precision that the cell was made in, got {tensor.dtype}; "
                "a cell made under jax.enable_x64(True) computes in torch.float64"
            )
        if tuple(tensor.shape) != shape:
            hint = f"; for parallel streams say OnlineCell(..., streams={len(tensor)})" * (
                what == "x" and self._streams is None and tensor.ndim == 2
            )
            raise ValueError(f"OnlineCell: {what} must have the shape {shape}, got {tuple(tensor.shape)}{hint}")


class _Answer(torch.autograd.Function):
    """Features whose gradient is what `pull` says of their cotangent: of x, if asked, and of each parameter."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, pull: Callable[..., Any], x: Any, *parameters: Any) -> torch.Tensor:
        ctx.pull = pull
        return features.view_as(features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: torch.Tensor) -> "tuple[torch.Tensor | None, ...]":
        return None, None, *ctx.pull(cotangent, ctx.needs_input_grad[2])


def _is_double(cell: AbstractCell) -> bool:
    """Whether its arrays are of float64, not of float32; ValueError for a mixture, or another type."""
    types = {str(leaf.dtype) for leaf in jax.tree.leaves(eqx.filter(cell, eqx.is_inexact_array))}
    if types not in ({"float32"}, {"float64"}):
        raise ValueError(f"OnlineCell: the cell's arrays must be all of float32 or all of float64, got {sorted(types)}")
    return types == {"float64"}


def _array(tensor: torch.Tensor) -> Any:
    """A copy: optimisers change tensors in place."""
    return tensor.detach().numpy().copy()


def _key(seed: Array, steps: Array) -> PRNGKeyArray:
    return jax.random.fold_in(jax.random.key(seed), steps)


def _over(function: Callable[..., Any], stream: _Stream, x: Array) -> Callable[..., Any]:
    """The function of a stream, of each; its first argument is the key of the next step."""
    key = _key(stream.seed, stream.steps)
    return partial(function, key) if x.ndim == 1 else partial(jax.vmap(function), jax.random.split(key, len(x)))


def _features(cell: AbstractCell, carry: Carry, key: PRNGKeyArray) -> Array:
    """What a head reads; other draws than those of the step that led here, as in `Model`."""
    return cell.features(carry, key=jax.random.fold_in(key, 1))


@eqx.filter_jit
def _advance(rule: AbstractCredit, cell: AbstractCell, stream: _Stream, x: Array) -> tuple[Array, _Stream]:
    """The features after one more observation."""
    kernel = rule.on(cell)

    def step(key: PRNGKeyArray, carry: Carry, credit: PyTree, x: Array) -> tuple[Array, Carry, PyTree]:
        carry, credit = kernel.advance(carry, x, credit, key=key)
        return _features(cell, carry, key), carry, credit

    features, carry, credit = _over(step, stream, x)(stream.carry, stream.credit, x)
    return features, stream._replace(carry=carry, credit=credit, steps=stream.steps + 1)


@eqx.filter_jit
def _pull(rule: AbstractCredit, cell: AbstractCell, stream: _Stream, cotangent: Array) -> PyTree:
    """The gradient of the cell, summed over streams, for a cotangent on the features that were read last."""
    kernel = rule.on(cell)

    def pull(key: PRNGKeyArray, carry: Carry, credit: PyTree, cotangent: Array) -> PyTree:
        read = lambda hidden: _features(cell, Carry(hidden, carry.stats), key)
        (on_hidden,) = jax.vjp(read, carry.hidden)[1](cotangent)
        return kernel.pull(credit, on_hidden)

    last = stream._replace(steps=stream.steps - 1)
    gradient = _over(pull, last, cotangent)(stream.carry, stream.credit, cotangent)
    return gradient if cotangent.ndim == 1 else jax.tree.map(lambda a: jnp.sum(a, 0), gradient)


@eqx.filter_jit
def _on_input(cell: AbstractCell, before: _Stream, x: Array, cotangent: Array) -> Array:
    """The same cotangent on x, through the present step."""

    def pull(key: PRNGKeyArray, carry: Carry, x: Array, cotangent: Array) -> Array:
        return jax.vjp(lambda x: _features(cell, cell(carry, x, key=key), key), x)[1](cotangent)[0]

    return _over(pull, before, x)(before.carry, x, cotangent)
