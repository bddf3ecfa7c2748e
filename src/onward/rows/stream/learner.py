"""A network that learns from rows, and how it is saved."""

import dataclasses
import itertools
from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from onward.devices import Forked
from onward.errors import OnwardError
from onward.rows.calendar import NONE
from onward.rows.encoder import MOST_SLOTS
from onward.rows.packed import Packed
from onward.rows.stream.programs import MANY, Answers, Programs, as_usual, own, programs_of
from onward.rows.stream.recipe import RowRecipe
from onward.saving import FORMAT, Unreadable, from_named_arrays, named_arrays, names_of

Saved = tuple[dict[str, np.ndarray] | None, dict[str, Any]]
# In the names of arrays of the network's cell.
CELL = ".model.cell."


class RowLearner(NamedTuple):
    """A network that learns from rows, at one moment. It never changes: what learns gives the next one.

    So whoever is interrupted still has the one before, whole, and others may ask one while the next is computed.
    `save` gives all that a restart needs as arrays by name and JSON, `load` takes it back, and so do pickles. `widen`
    makes room for more numbers in a row and `add_classes` for more classes: what was learned stays, and programs are
    compiled anew.

    `rows`: learned from so far. `state`: None until it is first needed. `lengths`: rows of the programs that are
    compiled. `in_place`: save the memory and the time of a second state; then `learn` and `read` use up the learner
    that they are called on, also where they end in an error, and the caller keeps JAX's switches `as_usual`.
    """

    recipe: RowRecipe
    capacity: int
    classes: int = 0
    stage: int = 1
    rows: int = 0
    state: Packed | None = None
    lengths: tuple[int, ...] = (MANY,)
    in_place: bool = False

    @property
    def programs(self) -> Programs:
        """The compiled functions for the present shapes."""
        return programs_of(self.recipe, self.capacity, self.classes, self.stage)

    @property
    def packed(self) -> Packed:
        """The state, or that of the start."""
        return self.programs.start() if self.state is None else self.state

    def learn(
        self,
        x: np.ndarray,
        plain: np.ndarray,
        y: np.ndarray,
        arrived: np.ndarray | None = None,
        at: np.ndarray | None = None,
    ) -> tuple["RowLearner", Answers]:
        """After learning from rows x (rows, capacity) with targets y (rows, targets), in order; the answers to each.

        `at`: where the rows lie in time, (rows, WIDTH) as `onward.rows.calendar` has them; None: unknown.
        """
        arrived, at = y if arrived is None else arrived, self._at(at, len(x))
        after, parts = self, []
        for start, stop in self._stretches(len(x)):
            part = slice(start, stop)
            packed, answers = after._run("step", x[part], plain, y[part], arrived[part], at[part])
            after = after.learned(packed, stop - start)
            parts.append(answers)
        return after, Answers(*map(np.concatenate, zip(*parts, strict=True)))

    def learned(self, packed: Packed, rows: int = 1) -> "RowLearner":
        """With the state after so many rows more; the network grows where it is due."""
        recipe, rows = self.recipe, self.rows + rows
        after = RowLearner(recipe, self.capacity, self.classes, self.stage, rows, packed, self.lengths, self.in_place)
        if recipe.network == "ccn" and rows == after._growth:
            return after._changed(stage=self.stage + 1)
        return after

    def read(
        self, x: np.ndarray, plain: np.ndarray, y: np.ndarray, at: np.ndarray | None = None
    ) -> tuple["RowLearner", Answers]:
        """After answering rows in order without learning; the answers."""
        after, parts, most, at = self, [], self.lengths[-1], self._at(at, len(x))
        for i in range(0, len(x), most):
            part = slice(i, i + most)
            packed, answers = after._run("read", x[part], plain, y[part], y[part], at[part])
            after = after._replace(state=packed)
            parts.append(answers)
        return after, Answers(*map(np.concatenate, zip(*parts, strict=True)))

    def peek(self, x: np.ndarray, plain: np.ndarray, y: np.ndarray) -> Answers:
        """The answer to one row (capacity,); nothing changes."""
        return self.split(np.asarray(self.programs.of("peek", 1)(self.packed, x, plain, y))[None])

    def _at(self, at: np.ndarray | None, rows: int) -> np.ndarray:
        width = self.programs.stream.width
        return np.full((rows, width), NONE, np.int32) if at is None or not width else at

    def split(self, answers: np.ndarray) -> Answers:
        """What the programs say of rows, taken apart."""
        stream, k, rows = self.programs.stream, self.recipe.targets, len(answers)
        outputs = stream.target.outputs
        many = k * len(self.recipe.answering)
        sizes = outputs, k, 3 * k * self.recipe.components, many, many, k
        said, linear, spread, weights, experts, doubted, strange = np.split(answers, np.cumsum(sizes), 1)
        each = lambda part: part.reshape(rows, k, -1) if part.size else np.zeros((rows, k, 0), part.dtype)
        return Answers(said, linear, each(spread), each(weights), each(experts), strange[:, 0], doubted > 0)

    def _stretches(self, rows: int) -> list[tuple[int, int]]:
        """Cut where the network grows, and where a program ends."""
        every, done = self.recipe.stage_rows, self.rows
        cuts = {0, rows, *range(0, rows, self.lengths[-1])}
        if self.recipe.network == "ccn":
            cuts |= {stage * every - done for stage in range(1, self.recipe.stages)}
        inside = sorted(cut for cut in cuts if 0 <= cut <= rows)
        return list(itertools.pairwise(inside))

    def _run(
        self, what: str, x: np.ndarray, plain: np.ndarray, y: np.ndarray, arrived: np.ndarray, at: np.ndarray
    ) -> tuple[Packed, Answers]:
        rows = len(x)
        length = next(n for n in self.lengths if n >= rows)
        fill = lambda a: a if len(a) == length else np.concatenate([a, np.zeros((length - rows, a.shape[1]), a.dtype)])
        x, y, arrived, at = fill(x), fill(np.asarray(y, np.float32)), fill(np.asarray(arrived, np.float32)), fill(at)
        run = self.programs.of(what, length, in_place=self.in_place)
        packed, answers = run(self.packed, x, plain, y, arrived, at, np.int32(rows))
        return packed, self.split(np.asarray(answers)[:rows])

    def compile(self, what: str) -> None:
        """Compile the program that `learn` ("step") or `read` runs, of a learner that works in place."""
        for length in self.lengths:
            self.programs.compile(what, length)

    def next_shapes(self) -> list["RowLearner"]:
        """Learners, without a state, of the shapes that this one may have after its next change."""
        after = self._replace(state=None)
        more = [after._replace(capacity=2 * self.capacity)] if self.capacity < MOST_SLOTS else []
        more += [after._replace(classes=2 * self.classes)] if self.classes else []
        return more + ([after._replace(stage=self.stage + 1)] if self._growth else [])

    def grows_within(self, rows: int) -> bool:
        """Whether a new stage begins once so many rows more are learned."""
        return self._growth is not None and self._growth <= self.rows + rows

    @property
    def _growth(self) -> int | None:
        """Rows at which the next stage begins; None if there is none."""
        recipe = self.recipe
        return self.stage * recipe.stage_rows if recipe.network == "ccn" and self.stage < recipe.stages else None

    @property
    def in_stack(self) -> dict[str, np.ndarray]:
        """How much the stack listens to each other expert, (targets,); empty where there is no stack."""
        if "stack" not in self.recipe.experts:
            return {}
        with as_usual():
            experts = self.programs.packing.on_host(self.packed).experts
        return {name: np.asarray(part) for name, part in experts.in_stack.items() if name in self.recipe.experts}

    def widen(self, capacity: int) -> "RowLearner":
        """For rows of more numbers."""
        return self._changed(capacity=capacity)

    def add_classes(self, classes: int) -> "RowLearner":
        """With room for so many classes."""
        return self._changed(classes=classes)

    def _changed(self, **shapes: int) -> "RowLearner":
        after = self._replace(**shapes)  # type: ignore[arg-type]
        if self.state is None:
            return after
        return after._replace(state=self.programs.change(after.programs)(self.state))

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Every array of the state under its name, and what JSON can hold: recipe, shapes, format and version."""
        with as_usual():
            return named_arrays(self.programs.packing.on_host(self.packed)), self._meta()

    def _meta(self) -> dict[str, Any]:
        shapes = {"capacity": self.capacity, "classes": self.classes, "stage": self.stage, "rows": self.rows}
        written = {"format": FORMAT, "onward": metadata.version("onward")}
        return {"recipe": dataclasses.asdict(self.recipe), "lengths": list(self.lengths), **shapes, **written}

    @classmethod
    def load(
        cls, arrays: Mapping[str, np.ndarray] | None, meta: Mapping[str, Any], what: str = "the saved learner"
    ) -> "RowLearner":
        """The learner that `save` gave; `what` says in errors where it is from. Arrays None: of one not yet begun.

        Raises `onward.saving.Unreadable`, naming the array, if one is missing, one too many, or of another shape or
        type than recipe and shapes ask for, and if another version of onward wrote it in another format. Raises
        OnwardError for one whose cell is made of other parts: a version with another network wrote it, and it is whole.
        """
        if arrays is not None and "floats" in arrays:
            raise Unreadable(
                f"{what} was written by onward 0.1, in a buffer without names, which is not read any more: learn anew, "
                "or go on with onward 0.1"
            )
        if meta.get("format") != FORMAT:
            raise Unreadable(f"{what} has format {meta.get('format')!r}, this version of onward reads format {FORMAT}")
        shapes = {name: meta[name] for name in ("capacity", "classes", "stage", "rows")}
        recipe = RowRecipe(**{**meta["recipe"], "experts": tuple(meta["recipe"].get("experts", ()))})
        learner = cls(recipe, **shapes, lengths=tuple(meta["lengths"]))
        if arrays is None:
            return learner
        packing = learner.programs.packing
        with as_usual():
            ours = {name for name in names_of(packing.shapes) if CELL in name}
            theirs = {name for name in arrays if CELL in name}
            if ours - theirs and theirs - ours:
                raise OnwardError(
                    f"{what} (onward {meta['onward']}) is of another network than {learner.recipe.network!r} of this "
                    f"version ({metadata.version('onward')}). Go on with the version that wrote it, or learn anew"
                )
            return learner._replace(state=own(packing.from_host(from_named_arrays(arrays, packing.shapes, what))))

    def __reduce__(self) -> tuple[Any, Saved]:
        return _unpickled, (None, self._meta()) if self.state is None else self.save()


def _unpickled(arrays: dict[str, np.ndarray] | None, meta: dict[str, Any]) -> RowLearner | None:
    """None in a process that cannot compute: whoever would use it is told so then, and not while a pickle is read."""
    if Forked.forked:
        return None
    return RowLearner.load(arrays, meta, "the pickle of a learner of rows")
