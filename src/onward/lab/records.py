"""What a run keeps for its pictures: arrays of a job, in `records/` of its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np

from onward import saving
from onward.errors import OnwardError


class Record(dict[str, np.ndarray]):
    """Arrays by name; one that is not there is missed in a sentence."""

    def __init__(self, file: Path, arrays: Mapping[str, np.ndarray]):
        super().__init__(arrays)
        self.file = file

    def __missing__(self, name: str) -> NoReturn:
        raise OnwardError(f"{self.file} has no array {name!r}: {_WHAT_TO_DO}")

    def first(self) -> "Record":
        """Of every array its first entry: the first run."""
        return Record(self.file, {name: array[0] for name, array in self.items()})


_WHAT_TO_DO = (
    "only pictures are drawn from it, and the numbers of the run are whole: put it back, or read them with onward "
    "report FOLDER --markdown"
)


def load_record(path: Path, job: str, when: str) -> Record:
    """What `RunFolder.record` kept of a job; empty where there is none. Raises OnwardError if it is damaged."""
    file = path / "records" / f"{job}-{when}.npz"
    try:
        return Record(file, saving.load_arrays(file)[1] if file.is_file() else {})
    except saving.Unreadable as error:
        raise OnwardError(f"{error}; {_WHAT_TO_DO}") from error
