"""The errors a person can act on. The command line prints each as one line, without a traceback."""

from collections.abc import Collection, Iterable


class OnwardError(Exception):
    """Something the user can put right; the message says what and how."""


# Optional extras of the package, and what of theirs a person may miss.
EXTRAS = {
    "dask": "distributed",
    "export": "flatbuffers",
    "gymnasium": "gymnasium",
    "holidays": "holidays",
    "midi": "mido",
    "parquet": "pyarrow",
    "river": "river",
    "safetensors": "safetensors",
    "serve": "starlette",
    "sklearn": "scikit-learn",
    "tensorboard": "tensorboardX",
    "torch": "torch",
    "zstd": "backports.zstd",
}


def needs(what: str, extra: str) -> str:
    """That `what` cannot be done without an optional extra, and how to get it: the text of an error."""
    return (
        f'{what} needs {EXTRAS[extra]}: pip install "onward[{extra}]"; '
        f'from a checkout, in its folder: pip install ".[{extra}]"'
    )


class NotFinite(OnwardError):
    """A number became NaN or infinite while learning."""


class Stopped(OnwardError):
    """The run was asked to stop, and can be resumed."""

    status = 130


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is a slip of: the nearest one, if few enough letters differ; None if there is none.

    Letters are inserted, left out, changed, or swapped with the next: one of a name of 3 to 5 letters, one more with
    every 6 letters. Capitals and the kind of dash do not count.
    """
    plain = lambda text: text.lower().replace("_", "-").strip("-")
    most = lambda text: (len(text) > 2) + len(text) // 6
    apart = {other: _letters_apart(plain(name), plain(other)) for other in known}
    near = min(apart, key=apart.__getitem__, default=None)
    return near if near is not None and apart[near] <= most(plain(near)) else None


def _letters_apart(a: str, b: str) -> int:
    before, last = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (letter != other)))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                row[-1] = min(row[-1], before[j - 2] + 1)
        before, last = last, row
    return last[-1]


def require_known(what: str, name: str, known: Collection[str]) -> None:
    """Refuse a name that is none of the known ones, with the nearest or else all of them in the message."""
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near}?" if near else f"there are: {', '.join(known)}"
        raise OnwardError(f"unknown {what} {name!r}; {hint}")
