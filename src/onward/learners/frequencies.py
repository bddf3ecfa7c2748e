"""Counting instead of descending: the predictors that any network has to beat."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from onward.cells.echo import Echo
from onward.heads.bernoulli import Bernoulli
from onward.heads.categorical import Categorical
from onward.learners.base import AbstractLearner, compiled, require_sequences
from onward.learners.bptt import sequence_loss
from onward.model import Model
from onward.types import Info, PyTree, Sequence, Step

Table = Float[Array, "groups contexts values"]


class FrequenciesState(NamedTuple):
    """The model, whose head is the table, and the counts: their true value is `counts + rest`."""

    model: Model
    stats: PyTree
    key: PRNGKeyArray
    counts: Table
    rest: Table


class Frequencies(AbstractLearner):
    """Counts what came, and predicts with the frequencies so far: maximum likelihood without a gradient.

    The model must be `Model(Echo(inputs), head)`; its head is overwritten, and before the first example says
    1/2 or 1/classes.

        head                given       p(y)                              table (groups, contexts, values)
        Categorical         "nothing"   n(y) / n                          (1, 1, classes)
        Categorical         "last"      n(x, y) / n(x)                    (1, inputs + 1, classes)
        Bernoulli           "nothing"   n_i(y_i) / n                      (outputs, 1, 2)
        Bernoulli           "last"      n_i(x_i, y_i) / n_i(x_i)          (outputs, 2, 2)
        Bernoulli, shared   either      the same, of all i together       (1, ..., 2)

    `given="last"`: x is the observation just read, whether or not it belongs to the episode of y. For Bernoulli
    its entries are 0 or 1, one for each output. For Categorical it is one-hot, or all 0, which is a context of its own
    (the first). Other values where a target counts make the table NaN, so that a run stops. `shared`: one row of the
    table for all outputs, 1 or 2 numbers ("it stays as it is, with this probability").

    `pseudo` is added to every count: it must be positive, so that nothing is held impossible. An example counts with
    its `weight` or `mask`, those of 0 not at all, and a negative one takes back what was counted; of a sequence only the steps that `y` covers. Counts are kept as
    two floats each, so that whole weights are counted exactly up to 2^47 (one float32 would stop at 2^24).
    Cost: the table a step. Learns from `Step` and from `Sequence`, with the losses of `Supervised` and of `BPTT`.

    >>> import jax, jax.numpy as jnp
    >>> from onward import Bernoulli, Echo, Model, Step
    >>> learner, one = Frequencies(pseudo=1.0), jnp.ones(())
    >>> step = Step(jnp.zeros(1), jnp.ones(1), one, jnp.asarray(False), one)
    >>> state = learner.init(Model(Echo(1), Bernoulli(1, outputs=1)), step, key=jax.random.key(0))
    >>> for _ in range(3):
    ...     state, info = learner.step(state, step)
    >>> round(float(jax.nn.sigmoid(state.model.head.bias[0])), 6)
    0.8
    """

    given: Literal["nothing", "last"] = eqx.field(default="nothing", static=True)
    shared: bool = eqx.field(default=False, static=True)
    pseudo: float = eqx.field(default=0.5, static=True)

    def __check_init__(self) -> None:
        if self.given not in ("nothing", "last"):
            raise ValueError(f"Frequencies: given must be 'nothing' or 'last', got {self.given!r}")
        if not isinstance(self.shared, bool):
            raise ValueError(f"Frequencies: shared must be True or False, got {self.shared!r}")
        if not 0 < self.pseudo < float("inf"):
            raise ValueError(f"Frequencies: pseudo must be positive and finite, got {self.pseudo}")

    def init(self, model: Model, example: Step | Sequence, *, key: PRNGKeyArray) -> FrequenciesState:
        """Nothing counted; `example` gives shapes only."""
        head, last = self._require(model, example), self.given == "last"
        if isinstance(head, Bernoulli):
            shape = (1 if self.shared else head.outputs, 2 if last else 1, 2)
        else:
            shape = (1, model.cell.inputs + 1 if last else 1, head.classes)
        zero = jnp.zeros(shape, head.bias.dtype)
        model = Model(model.cell, self._head(head, zero))
        return FrequenciesState(model, model.cell.init().stats, key, zero, zero)

    @compiled
    def step(self, state: FrequenciesState, example: Step | Sequence) -> tuple[FrequenciesState, Info]:
        """Predict, then count."""
        model = state.model
        head = self._require(model, example)
        if isinstance(example, Step):
            _, prediction = model(model.init(), example.x)
            x, y, weight = map(jnp.asarray, (example.x, example.y, example.weight))
            loss = jnp.where(weight != 0, -weight * head.log_prob(prediction, y), 0)
            rows = (x[None], y[None], weight[None])
        else:
            # Nothing is remembered: the steps that no target covers need not be read.
            example = example._replace(xs=example.xs[len(example.xs) - len(example.mask) :])
            loss, (prediction, _) = sequence_loss(model, state.stats, example)
            rows = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), tuple(example))
        counts, rest = _add(state.counts, state.rest, self._count(head, *rows))
        model = Model(model.cell, self._head(head, counts + rest))
        return FrequenciesState(model, state.stats, state.key, counts, rest), Info(prediction, loss)

    def _require(self, model: Model, example: Step | Sequence) -> Bernoulli | Categorical:
        """The head; refuses other models, and shapes that do not fit."""
        head, inputs = model.head, model.cell.inputs
        if not isinstance(model.cell, Echo) or not isinstance(head, Bernoulli | Categorical):
            raise TypeError(
                "Frequencies needs Model(Echo(inputs), head) with a Bernoulli or a Categorical head, got "
                f"{type(model.cell).__name__} and {type(head).__name__}"
            )
        if head.weight.shape[1] != inputs:
            raise ValueError(f"Frequencies: the head reads {head.weight.shape[1]} features, Echo gives {inputs}")
        if self.shared and not isinstance(head, Bernoulli):
            raise TypeError("Frequencies: shared=True is for the outputs of a Bernoulli head; Categorical has one")
        if self.given == "last" and isinstance(head, Bernoulli) and head.outputs != inputs:
            raise ValueError(
                "Frequencies: given='last' pairs every output with an input, and needs as many of both; there are "
                f"{head.outputs} outputs and {inputs} inputs"
            )
        each = (head.outputs,) if isinstance(head, Bernoulli) else ()
        if isinstance(example, Sequence):
            require_sequences("Frequencies", model, example)
            found = example.y.shape[2:]
        else:
            if example.x.shape != (inputs,):
                raise ValueError(f"Frequencies: the cell reads {inputs} inputs, the stream has {example.x.shape}")
            if jnp.shape(example.weight) != ():
                raise ValueError(f"Frequencies: the weight of a step must be a scalar, got {jnp.shape(example.weight)}")
            found = jnp.shape(example.y)
        if found != each:
            raise ValueError(
                f"Frequencies: {type(head).__name__} needs a target of shape {each}, the task gives {found}"
            )
        return head

    def _count(
        self, head: Bernoulli | Categorical, x: Float[Array, "rows inputs"], y: Array, weight: Float[Array, " rows"]
    ) -> Table:
        """The weighted counts of some examples; where the weight is 0 they may be anything."""
        counts = weight != 0
        clean = lambda a: jnp.where(counts.reshape(-1, *[1] * (a.ndim - 1)), a, 0)
        x, y, weight, dtype = clean(x), clean(y), clean(weight), head.bias.dtype
        if isinstance(head, Bernoulli):
            x, y = x.astype(dtype), y.astype(dtype)
            value = jnp.stack([1 - y, y], -1)
            context = _checked(jnp.stack([1 - x, x], -1)) if self.given == "last" else jnp.ones_like(value[..., :1])
        else:
            value = jax.nn.one_hot(y.astype(jnp.int32), head.classes, dtype=dtype)[:, None]
            blank = 1 - jnp.sum(x.astype(dtype), -1, keepdims=True)
            context = jnp.ones_like(blank)
            if self.given == "last":
                context = _checked(jnp.concatenate([blank, x.astype(dtype)], -1))
            context = context[:, None]
        found = jnp.einsum("r,rgc,rgv->gcv", weight.astype(dtype), context, value, precision="highest")
        return jnp.sum(found, 0, keepdims=True) if self.shared else found

    def _head(self, head: Bernoulli | Categorical, counts: Table) -> Bernoulli | Categorical:
        """The head that says the frequencies: its bias is the first context, its weights what changes in the others."""
        logs = jnp.log(counts + self.pseudo)
        if isinstance(head, Bernoulli):
            logits = logs[..., 1] - logs[..., 0]
            logits = jnp.broadcast_to(logits, (head.outputs, logits.shape[1]))
            bias, weight = logits[:, 0], jnp.zeros_like(head.weight)
            if self.given == "last":
                weight = jnp.diag(logits[:, 1] - bias)
        else:
            table = jax.nn.log_softmax(logs[0])
            bias, weight = table[0], jnp.zeros_like(head.weight)
            if self.given == "last":
                weight = (table[1:] - bias[None]).T
        return eqx.tree_at(lambda h: (h.weight, h.bias), head, (weight, bias))


def _checked(context: Array) -> Array:
    """NaN where a context is neither there nor not."""
    return jnp.where((context == 0) | (context == 1), context, jnp.nan)


def _add(total: Table, rest: Table, more: Table) -> tuple[Table, Table]:
    """The sum of all three as a float and its rounding error (Knuth's two-sum)."""
    more = more + rest
    new = total + more
    part = new - total
    return new, (total - (new - part)) + (more - part)
