"""What both experiments on scanned digits share: networks, rules, curves, answers."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

import onward as ow
from onward.lab import metrics
from onward.lab.data import datasets
from onward.lab.experiment import Experiment, require_positive, rule_named
from onward.lab.method import Growth, Method
from onward.lab.papers.authors_heads import SigmoidSquares
from onward.lab.papers.control import COLUMNS, KINDS
from onward.tasks.digits import as_sequences

CLASSES = 10
POINTS = 12
SHOWN = 400
COLUMNAR = ("columnar", "columnar-gru", "ccn", "ccn-gru", "constructive", "constructive-gru")
# Columns of other units, and layers of them, with a hidden layer after them.
UNITS = ("mingru", "elstm", "lru", "rtu")
TURNING = ("lru", "rtu")
LAYERED = {
    "stack": "exact traces through both",
    "layerwise": "errors sent down through the present step only",
    "frozen": "the lower one stays as it was drawn",
}
WHOLE_COLUMNS = ("bptt-mingru", "bptt-lru", "bptt-rtu")
WIDE = (*UNITS, *LAYERED, *WHOLE_COLUMNS)
WHOLE = ("bptt", "tbptt")
# From this many columns on, runs lie in front.
NARROW = 16
# First weights of the columns with a hidden layer after them, times the root of the number of inputs.
WIDE_SPREAD = 1.6
METHODS = (
    *(
        *COLUMNAR,
        *UNITS,
        *LAYERED,
        "snap-0",
        "snap-1",
        "uoro",
        "rtrl",
        "bptt",
        "bptt-gru",
        *WHOLE_COLUMNS,
        "tbptt-1",
        "tbptt-5",
        "tbptt-10",
    ),
    *("authors-columnar", "authors-bptt"),
)
RULE_NOTES = {
    "bptt": "BPTT",
    "bptt-gru": "BPTT",
    "tbptt-1": "BPTT through the last step only",
    "tbptt-5": "BPTT through the last 5 steps",
    "tbptt-10": "BPTT through the last 10 steps",
    "snap-0": "immediate derivatives",
    "snap-1": "SnAp-1",
    "uoro": "UORO",
    "rtrl": "dense RTRL, exact",
}


def below(model: Any) -> Any:
    """Which arrays are of the lowest cell of a stack."""
    nothing = jax.tree.map(lambda leaf: False, model)
    return eqx.tree_at(lambda m: m.cell.cells[0], nothing, jax.tree.map(lambda leaf: True, model.cell.cells[0]))


def own_of(model: Any) -> Any:
    """Which arrays are the columns' own: decays, angles, and of an LRU how much it takes in."""
    nothing = jax.tree.map(lambda leaf: False, model)
    return eqx.tree_at(lambda m: m.cell.bias, nothing, jax.tree.map(lambda leaf: True, model.cell.bias))


@dataclass(frozen=True, kw_only=True)
class DigitsExperiment(Experiment):
    """What the experiments on 8x8 digits and on MNIST share: fields, networks, what is measured."""

    higher_is_better: ClassVar[bool] = True
    length_field: ClassVar[str] = "passes"
    figures: ClassVar[str] = "onward.lab.papers.digits_figures"
    final_metric: ClassVar[str] = "test_accuracy"
    published: ClassVar[dict[str, float]] = {}

    data: str = "digits"
    """Which set of images: digits (8x8, embedded), mnist, or one that `onward data import` gave a name. auto: mnist where it is
    installed, else digits."""
    by: Literal["rows", "pixels"] = "rows"
    """What a step reads: a row of pixels, or one pixel."""
    every: bool = False
    """Whether the label counts at every step, not only at the last."""
    passes: float | None = 50.0
    """Images seen, as a multiple of the training images. None: 10, or 20 of the embedded 1,438."""
    columns: int = 63
    """LSTM columns of the columnar network."""
    gru_columns: int = 84
    """Columns of the columnar network of GRU columns, which have three quarters of the parameters."""
    stages: int = 2
    """Stages of the columnar-constructive networks."""
    ccn_width: int = 32
    """LSTM columns in each stage."""
    gru_ccn_width: int = 32
    """GRU columns in each stage."""
    constructive_columns: int = 16
    """Columns of the constructive networks when fully grown, one a stage."""
    wide_columns: int = 64
    """Columns of mingru, elstm, lru and rtu, which have a hidden layer after them."""
    stack_columns: int = 48
    """Minimal GRU columns in each of the two layers of stack, layerwise and frozen."""
    hidden: int = 32
    """Units of that hidden layer."""
    units: int = 24
    """Units of the dense layer."""
    batch: int = 4
    """Images per update of BPTT and its truncations."""
    streams: int = 1
    """Images read side by side by the online learners, and averaged in one update."""
    spread: float = 0.5
    """Column weights start uniform in -spread .. spread."""
    memory_bias: float = 1.0
    """Added to the first bias of the columns' forget gate (LSTM) or update gate (GRU)."""
    decay: bool = False
    """Whether step sizes fall to zero along a cosine, over the run or, of growing networks, over each stage."""

    def __post_init__(self) -> None:
        """Settle which data it is, and how often they are seen, so that a run folder says it."""
        if self.data == "auto":
            object.__setattr__(self, "data", "mnist" if datasets.installed("mnist") else "digits")
        if self.passes is None:
            object.__setattr__(self, "passes", 20.0 if self.data == "digits" else 10.0)

    @classmethod
    def all_methods(cls) -> tuple[str, ...]:
        """Columns and dense rules that learn online; BPTT whole and cut; the authors' settings."""
        return METHODS

    def check(self) -> None:
        """Refuse what cannot be run, naming the option."""
        super().check()
        sizes = ("columns", "gru_columns", "stages", "ccn_width", "gru_ccn_width", "constructive_columns", "units")
        wide = ("wide_columns", "stack_columns", "hidden")
        require_positive(self, *sizes, *wide, "batch", "streams", "spread", "passes")
        if datasets.kind_of(self.data) not in (None, "digits"):
            raise ow.OnwardError(f"--data: {self.data} is not a set of images; see: onward data list")
        if self.every and any(name.startswith("tbptt") for name in self.methods):
            raise ow.OnwardError(
                "--every: truncated BPTT is for labels at the last step only; leave it out of --methods"
            )
        if self.seen < self.batch:
            raise ow.OnwardError(
                f"--passes {self.passes:g} of {len(self.images.train_images):,} images are less than one --batch"
            )

    @property
    def notice(self) -> str:
        """What data it is, where a reader would expect other."""
        if self.data == "digits" and self.name == "sequential-mnist":
            if datasets.installed("mnist"):
                return "these are the embedded 8x8 digits"
            return (
                "MNIST is not installed (onward data fetch mnist, or onward data import mnist FOLDER): "
                "these are the embedded 8x8 digits"
            )
        return ""

    @property
    def images(self) -> datasets.Digits:
        """The images that the experiment reads, from the data folder."""
        return datasets.load_digits(self.data)

    @property
    def fingerprint(self) -> str:
        """A digest of all images and labels."""
        return datasets.fingerprint(self.images)

    @property
    def fuse_outputs(self) -> bool:
        """The option has been tried with all but these, reading rows."""
        untried = {"rtrl", "authors-columnar", "constructive", "constructive-gru"}
        return self.by == "rows" and not untried & set(self.methods)

    @property
    def seen(self) -> int:
        """Training images drawn in a run."""
        assert self.passes is not None  # `__post_init__`
        return round(self.passes * len(self.images.train_images))

    def shape(self, name: str) -> tuple[int, int]:
        """Stages of a columnar network, and columns in each."""
        kind, gru = name.removesuffix("-gru"), name.endswith("-gru")
        if kind == "ccn":
            return self.stages, self.gru_ccn_width if gru else self.ccn_width
        return (
            (self.constructive_columns, 1) if kind == "constructive" else (1, self.gru_columns if gru else self.columns)
        )

    def side(self, name: str) -> int:
        """Images of one update: of a batch, or of streams side by side."""
        if name.startswith("authors-"):
            return 1
        return self.batch if name.startswith(WHOLE) else self.streams

    def images_per_step(self, name: str) -> float:
        """Images that a step reads: those of a batch, or a row or a pixel of those read side by side."""
        if name.removeprefix("authors-").startswith(WHOLE):
            return self.side(name)
        _, height, width = self.images.train_images.shape
        return self.side(name) / (height if self.by == "rows" else height * width)

    def build(self, name: str) -> Method:
        """A network and how it learns."""
        images, kind = self.images, name.removeprefix("authors-")
        authors, columnar = name != kind, kind in COLUMNAR
        whole = kind.startswith(WHOLE)
        sequences = as_sequences(images.test_images, self.by)
        length, inputs = sequences.shape[1:]
        stages, width = self.shape(kind) if columnar else (1, self.units)
        side = self.side(name)
        steps = max(1, self.seen // side) * (1 if whole else length)
        updates = max(1, self.seen // side * (length if self.every and not whole else 1) // stages)
        unit = "GRU" if kind.endswith("-gru") else "LSTM"

        def model(key: PRNGKeyArray) -> ow.Model:
            if kind in WIDE:
                return self.wide(kind, inputs, length, key)
            if columnar:
                gates = (ow.GRUGates if unit == "GRU" else ow.LSTMGates)(self.memory_bias)
                columns = ow.Columns(gates, inputs, width, key=key, spread=self.spread)
                cell: ow.AbstractCell = ow.Cascade(columns)
            else:
                cell = (ow.GRU if unit == "GRU" else ow.LSTM)(inputs, self.units, key=key)
            return ow.Model(cell, (SigmoidSquares if authors else ow.Categorical)(cell.feature_count, CLASSES))

        def learner(model: ow.Model, step_size: Any) -> ow.AbstractLearner:
            optimiser = optax.sgd(1.0) if authors else optax.adam(1.0)
            if self.decay and not authors:
                falling = optax.scale_by_schedule(optax.cosine_decay_schedule(-1.0, updates))
                optimiser = optax.chain(optax.scale_by_adam(), falling)
            if self.turning(kind):
                # An angle that is off by d is off by 784 d at the end of an image: as much slower as there are more steps.
                slower = optax.scale(1 / self.images.train_images.shape[-1])
                optimiser = optax.chain(optimiser, optax.masked(slower, own_of))
            if kind == "frozen":
                optimiser = optax.chain(optimiser, optax.masked(optax.set_to_zero(), below))
            if whole:
                window = int(kind.split("-")[1]) if kind.startswith("tbptt") else None
                return ow.BPTT(optimiser, step_size, window)
            columns = columnar or kind in WIDE
            # What is frozen needs no credit, and above it that of the layer itself is all there is.
            layerwise = kind in ("layerwise", "frozen")
            rule = ow.Layerwise() if layerwise else ow.Columnwise() if columns else rule_named(kind)
            return ow.Online(rule, ow.Supervised(), optimiser, step_size, streams=None if side == 1 else side)

        batch = side if whole else None
        task: ow.AbstractTask = ow.SequentialDigits(
            images.train_images, images.train_labels, batch, by=self.by, every=self.every, top=images.top
        )
        if not whole and side > 1:
            task = ow.Streams(task, side)
        layer = {
            "columnar": f"{width} {unit} columns, exact traces",
            "ccn": f"{stages} stages of {width} {unit} columns, exact traces",
            "constructive": f"{stages} {unit} columns grown one by one, exact traces",
        }.get(kind.removesuffix("-gru"), f"dense {unit}-{self.units}, {RULE_NOTES.get(kind, '')}")
        if kind in WIDE:
            layer = self.described(kind)
        per_update = f"{side} image{'s' if side > 1 else ''} an update"
        read = metrics.ReadDigits(jnp.asarray(sequences), jnp.asarray(images.test_labels), images.top)
        as_published = self.data == "mnist" and self.by == "rows" and not self.every
        return Method(
            name=name,
            task=task,
            model=model,
            learner=learner,
            steps=steps,
            measure=metrics.accuracy,
            metric="training accuracy",
            growth=Growth(stages=stages, every=max(1, steps // stages)),
            batch_axis=-1 if columnar and width < NARROW else 0,
            # Rounded up, so that a point falls where a stage ends.
            point_every=max(1 if whole else length, -(-steps // max(POINTS, stages))),
            examples_per_step=self.images_per_step(name),
            evaluate=read,
            inspect=replace(read, shown=min(SHOWN, len(sequences))),
            published=self.published.get(kind) if as_published else None,
            note=f"{layer}; {per_update}" + ("; SGD on squared error" if authors else ""),
        )

    def turning(self, kind: str) -> bool:
        """Whether a network is of units that turn and reads pixel by pixel: one start and one step for all of them."""
        return self.by == "pixels" and kind.removeprefix("bptt-") in TURNING

    def wide(self, kind: str, inputs: int, length: int, key: PRNGKeyArray) -> ow.Model:
        """Columns with memories of up to the whole image, or two layers of them, and a hidden layer after them."""
        unit = kind.removeprefix("bptt-")
        *draws, last = jax.random.split(key, 5)
        cells: list[ow.AbstractCell] = []
        for layer in range(2 if kind in LAYERED else 1):
            reads = self.stack_columns if layer else inputs
            columns = ow.Columns(
                COLUMNS.get(unit, ow.MinGRUGates)(),
                reads,
                self.stack_columns if kind in LAYERED else self.wide_columns,
                key=draws[2 * layer],
                spread=WIDE_SPREAD * reads**-0.5,
            )
            if self.turning(kind):
                # An image is many turns long: what forgets within a row, or turns fast, tells its end only.
                low, high = math.exp(-2 / length), math.exp(-0.1 / length)
                phase = 3 * 2 * math.pi / self.images.train_images.shape[-1]
                cells.append(ow.ring(columns, low, high, phase=phase, key=draws[2 * layer + 1]))
            else:
                cells.append(ow.chrono(columns, float(length), key=draws[2 * layer + 1]))
        cell = ow.Stack(*cells, reads="all") if kind in LAYERED else cells[0]
        features = cell.feature_count
        return ow.Model(cell, ow.MLP(ow.Categorical(self.hidden, CLASSES), features, self.hidden, key=last))

    def described(self, kind: str) -> str:
        """Such a network in words."""
        unit = kind.removeprefix("bptt-")
        columns = f"{self.wide_columns} {KINDS.get(unit, KINDS['mingru'])} columns"
        how = "BPTT" if kind.startswith("bptt") else "exact traces"
        if kind in LAYERED:
            columns, how = f"2 layers of {self.stack_columns} {KINDS['mingru']} columns", LAYERED[kind]
        return f"{columns}, hidden layer of {self.hidden}, {how}"

    def references(self) -> dict[str, float]:
        """Always answering the most frequent training class, and the ceiling."""
        images = self.images
        counter, many = ow.Frequencies(), len(images.train_labels)
        example = ow.Sequence(jnp.zeros((1, many, 1)), jnp.asarray(images.train_labels)[None], jnp.ones((1, many)))
        state = counter.init(ow.Model(ow.Echo(1), ow.Categorical(1, CLASSES)), example, key=jax.random.key(0))
        model = counter.step(state, example)[0].model
        answer = int(jnp.argmax(model.head(jnp.zeros(1))))
        return {"majority-class": float(np.mean(images.test_labels == answer)), "perfect": 1.0}
