"""A network that learns from rows, and how it is saved."""

import dataclasses
import itertools
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np

from onward.rows.packed import Packed
from onward.rows.stream.programs import MANY, ONE, Answers, Programs, own, programs_of
from onward.rows.stream.recipe import RowRecipe
from onward.saving import FORMAT, Unreadable, from_named_arrays, named_arrays


class RowLearner:
    """A network that learns from rows: `learn`, `peek`, `read`, at the speed of one compiled call.

    Holds all that a restart needs: `save` gives it as arrays by name and JSON, `load` takes it back, and so do pickles.
    `widen` makes room for more numbers in a row and `add_classes` for more classes: what was learned stays, and
    programs are compiled anew. `lengths`: rows of the programs that are compiled.
    """

    def __init__(self, recipe: RowRecipe, capacity: int, classes: int = 0, *, lengths: tuple[int, ...] = (ONE, MANY)):
        self.recipe, self.capacity, self.classes, self.stage, self.rows = recipe, capacity, classes, 1, 0
        self.lengths = lengths
        self._packed: Packed | None = None

    @property
    def programs(self) -> Programs:
        """The compiled functions for the present shapes."""
        return programs_of(self.recipe, self.capacity, self.classes, self.stage)

    @property
    def packed(self) -> Packed:
        """The state; made when it is first asked for."""
        if self._packed is None:
            self._packed = self.programs.start()
        return self._packed

    def _split(self, answers: np.ndarray) -> Answers:
        outputs = self.programs.stream.target.outputs
        linear = outputs + self.recipe.targets
        return Answers(answers[:, :outputs], answers[:, outputs:linear], answers[:, linear:])

    def learn(self, x: np.ndarray, plain: np.ndarray, y: np.ndarray, arrived: np.ndarray | None = None) -> Answers:
        """Learn from rows x (rows, capacity) with targets y (rows, targets), in order; the answers to each."""
        arrived = y if arrived is None else arrived
        parts = []
        for start, stop in self._stretches(len(x)):
            parts.append(self._run("step", x[start:stop], plain, y[start:stop], arrived[start:stop]))
            self.count(stop - start)
        return Answers(*map(np.concatenate, zip(*parts, strict=True)))

    def learn_row(self, packed: Packed) -> bool:
        """Take the state after one more row, as the program "row" gives it; whether the network has grown then."""
        self._packed = packed
        return self.count(1)

    def count(self, rows: int) -> bool:
        """So many rows more were learned; the network grows where it is due: whether it did."""
        self.rows += rows
        recipe = self.recipe
        grows = recipe.network == "ccn" and self.stage < recipe.stages and self.rows == self.stage * recipe.stage_rows
        if grows:
            self._change(self.stage + 1, self.capacity, self.classes)
        return grows

    def read(self, x: np.ndarray, plain: np.ndarray, y: np.ndarray) -> Answers:
        """Answer rows in order without learning."""
        most = self.lengths[-1]
        parts = [self._run("read", x[i : i + most], plain, y[i : i + most]) for i in range(0, len(x), most)]
        return Answers(*map(np.concatenate, zip(*parts, strict=True)))

    def peek(self, x: np.ndarray, plain: np.ndarray, y: np.ndarray) -> Answers:
        """The answer to one row (capacity,); nothing changes."""
        return self._split(np.asarray(self.programs.of("peek", 1)(self.packed, x, plain, y))[None])

    def _stretches(self, rows: int) -> list[tuple[int, int]]:
        """Cut where the network grows, and where a program ends."""
        every, done = self.recipe.stage_rows, self.rows
        cuts = {0, rows, *range(0, rows, self.lengths[-1])}
        if self.recipe.network == "ccn":
            cuts |= {stage * every - done for stage in range(1, self.recipe.stages)}
        inside = sorted(cut for cut in cuts if 0 <= cut <= rows)
        return list(itertools.pairwise(inside))

    def _run(
        self, what: str, x: np.ndarray, plain: np.ndarray, y: np.ndarray, arrived: np.ndarray | None = None
    ) -> Answers:
        rows, programs = len(x), self.programs
        length = next(n for n in self.lengths if n >= rows)
        fill = lambda a: a if len(a) == length else np.concatenate([a, np.zeros((length - rows, a.shape[1]), a.dtype)])
        x, y = fill(x), fill(np.asarray(y, np.float32))
        arrived = y if arrived is None else fill(np.asarray(arrived, np.float32))
        self._packed, answers = programs.of(what, length)(self.packed, x, plain, y, arrived, np.int32(rows))
        return self._split(np.asarray(answers)[:rows])

    def widen(self, capacity: int) -> None:
        """Rows of more numbers, from now on."""
        self._change(self.stage, capacity, self.classes)

    def add_classes(self, classes: int) -> None:
        """Room for so many classes, from now on."""
        self._change(self.stage, self.capacity, classes)

    def _change(self, stage: int, capacity: int, classes: int) -> None:
        before = self.programs
        self.stage, self.capacity, self.classes = stage, capacity, classes
        if self._packed is not None:
            self._packed = before.change(self.programs)(self._packed)

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Every array of the state under its name, and what JSON can hold: recipe, shapes, format and version."""
        return named_arrays(self.programs.packing.on_host(self.packed)), self._meta()

    def _meta(self) -> dict[str, Any]:
        shapes = {"capacity": self.capacity, "classes": self.classes, "stage": self.stage, "rows": self.rows}
        written = {"format": FORMAT, "onward": metadata.version("onward")}
        return {"recipe": dataclasses.asdict(self.recipe), "lengths": list(self.lengths), **shapes, **written}

    @classmethod
    def load(
        cls, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], what: str = "the saved learner"
    ) -> "RowLearner":
        """The learner that `save` gave; `what` says in errors where it is from.

        Raises `onward.saving.Unreadable`, naming the array, if one is missing, one too many, or of another shape or
        type than recipe and shapes ask for, and if another version of onward wrote it in another format.
        """
        if "floats" in arrays:
            raise Unreadable(
                f"{what} was written by onward 0.1, in a buffer without names, which is not read any more: learn anew, "
                "or go on with onward 0.1"
            )
        if meta.get("format") != FORMAT:
            raise Unreadable(f"{what} has format {meta.get('format')!r}, this version of onward reads format {FORMAT}")
        learner = cls(RowRecipe(**meta["recipe"]), meta["capacity"], meta["classes"], lengths=tuple(meta["lengths"]))
        learner.stage, learner.rows = meta["stage"], meta["rows"]
        packing = learner.programs.packing
        learner._packed = own(packing.from_host(from_named_arrays(arrays, packing.shapes, what)))
        return learner

    def __getstate__(self) -> tuple[dict[str, np.ndarray] | None, dict[str, Any]]:
        return (None, self._meta()) if self._packed is None else self.save()

    def __setstate__(self, kept: tuple[dict[str, np.ndarray] | None, dict[str, Any]]) -> None:
        arrays, meta = kept
        what = "the pickle of a learner of rows"
        if arrays is None:
            learner = RowLearner(
                RowRecipe(**meta["recipe"]), meta["capacity"], meta["classes"], lengths=tuple(meta["lengths"])
            )
        else:
            learner = RowLearner.load(arrays, meta, what)
        self.__dict__.update(learner.__dict__)
