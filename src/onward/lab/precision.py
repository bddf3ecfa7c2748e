"""A folder keeps to the precision it was begun in: numbers of two precisions are not to be mixed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from onward import saving
from onward.devices import DOUBLE, SINGLE, precision
from onward.errors import OnwardError
from onward.lab.folder import CONFIG


def require_precision(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse to go on in a folder that was begun in another precision than JAX is set to.

    Where its configuration does not say which, the arrays of its checkpoints do, those of its jobs included. Raises
    OnwardError, which says what to set.
    """
    begun = config["precision"] if "precision" in config else _of_checkpoints(folder)
    if begun not in (SINGLE, DOUBLE):
        raise saving.Unreadable(f"{folder / CONFIG} is damaged: precision is {begun!r}, not {SINGLE} or {DOUBLE}")
    if begun != precision():
        raise OnwardError(
            f"{folder} was begun in {begun} precision, and JAX is set to {precision()}: set "
            f"JAX_ENABLE_X64={int(begun == DOUBLE)} (in Python, jax_enable_x64) to go on, or choose another --out"
        )


def _of_checkpoints(folder: Path) -> str:
    """What arrays of a loop tell, whose sums are floats; where nothing is kept yet, JAX's own."""
    for path in sorted(_checkpoints(folder)):
        try:
            arrays = saving.load_arrays(path)[1]
        except saving.Unreadable:
            continue
        return DOUBLE if any(array.dtype == float for array in arrays.values()) else SINGLE
    return SINGLE


def _checkpoints(folder: Path) -> Iterable[Path]:
    yield from folder.glob("checkpoints/*.npz")
    yield from folder.glob("jobs/*/checkpoints/*.npz")
