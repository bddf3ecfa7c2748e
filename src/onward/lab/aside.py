"""What a new start replaces: set aside, then put back or deleted, so that a kill loses none of it."""

import shutil
from pathlib import Path

MOVING, ASIDE, KEPT, DELETED = ".moving", ".replaced", ".kept", ".deleted"


class Aside:
    """What a folder held before a start, under a name that says what is to become of it.

    `.moving`: on its way, some of it still in its place. `.replaced`: it comes back unless the start goes well.
    `.kept`: the start has something to go on with, so both stay. `.deleted`: there may be only a part of it. From name
    to name it goes in one step each.

    `stays`: the name of a file that is never moved.
    """

    def __init__(self, folder: Path, stays: str):
        self._folder, self._stays = folder, stays

    def put(self) -> None:
        """Set aside all that the folder holds."""
        (self._folder / MOVING).mkdir()
        for path in self._content():
            path.rename(self._folder / MOVING / path.name)
        (self._folder / MOVING).rename(self._folder / ASIDE)

    def back(self) -> None:
        """Take away what was begun since, and put back what was set aside."""
        for path in self._content():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        if (self._folder / ASIDE).exists():
            (self._folder / ASIDE).rename(self._folder / MOVING)
        self.recover()

    def keep(self) -> None:
        """From now on it stays where it is, in `.kept`."""
        if (self._folder / ASIDE).exists():
            (self._folder / ASIDE).rename(self._folder / KEPT)

    def delete(self) -> None:
        """It is not needed any more."""
        self.keep()
        if (self._folder / KEPT).exists():
            (self._folder / KEPT).rename(self._folder / DELETED)  # a kill while it is deleted keeps no part of it
            shutil.rmtree(self._folder / DELETED)

    def recover(self) -> None:
        """Make good what a kill has left."""
        if (self._folder / DELETED).exists():
            shutil.rmtree(self._folder / DELETED)
        if (self._folder / ASIDE).exists():
            self.back()
        if (self._folder / MOVING).exists():
            for path in (self._folder / MOVING).iterdir():
                path.rename(self._folder / path.name)
            (self._folder / MOVING).rmdir()

    @property
    def kept(self) -> Path | None:
        """Where it is, if both runs are there."""
        path = self._folder / KEPT
        return path if path.is_dir() else None

    def _content(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if path.name not in (self._stays, MOVING, ASIDE, DELETED)]
