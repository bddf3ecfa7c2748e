"""Tables of other libraries as rows of dicts, and answers as the library has them that brought the rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np


def _frame(rows: Any) -> Any:
    """A data frame that narwhals knows (pandas, polars, pyarrow, ...); None if it is none."""
    frame = None if _is_built_in(rows) else nw.from_native(rows, eager_only=True, pass_through=True)
    return frame if isinstance(frame, nw.DataFrame) else None


def _series(values: Any) -> Any:
    """A series of such a library; None if it is none."""
    series = None if _is_built_in(values) else nw.from_native(values, series_only=True, pass_through=True)
    return series if isinstance(series, nw.Series) else None


def _is_built_in(values: Any) -> bool:
    # To ask narwhals takes as long as to learn from some rows.
    return values.__class__ in (list, tuple, dict, str)


def records(owner: object, rows: Any) -> list[Mapping[Any, Any]]:
    """Rows as dicts: of a data frame, a table of Arrow, an array (its columns are 0, 1, ...), or dicts.

    ValueError: they are none of these, or two columns have one name.
    """
    frame = _frame(rows)
    if frame is not None:
        columns = list(frame.iter_columns())
        names = [column.name for column in columns]
        if len(set(names)) < len(names):
            raise ValueError(f"{type(owner).__name__}: two columns of the rows have one name: {names}"[:200])
        values = zip(*(column.to_list() for column in columns), strict=True)
        return [dict(zip(names, row, strict=True)) for row in values] if names else [{}] * len(frame)
    if isinstance(rows, np.ndarray) and rows.dtype.names:
        return [dict(zip(rows.dtype.names, row, strict=True)) for row in rows.tolist()]
    if isinstance(rows, np.ndarray) and rows.ndim == 2:
        return [dict(enumerate(row)) for row in rows.tolist()]
    single = isinstance(rows, Mapping | str) or _series(rows) is not None
    if hasattr(rows, "to_pylist"):
        rows = rows.to_pylist()
    elif hasattr(rows, "to_dict") and not single:
        rows = rows.to_dict("records")
    single = single or not hasattr(rows, "__iter__")
    read = [] if single else list(rows)
    if single or not all(row.__class__ is dict or isinstance(row, Mapping) for row in read):
        raise ValueError(
            f"{type(owner).__name__}: rows must be dicts, a data frame or an array (rows, features), "
            f"got {'' if single else 'an iterable that is not of dicts: '}{type(rows).__name__}"
        )
    return read


def values(owner: object, ys: Any) -> list[Any]:
    """The values of a list, an array, or a series of pandas, polars or Arrow. ValueError: it is a whole frame."""
    if _frame(ys) is not None:
        raise ValueError(f"{type(owner).__name__}: the targets must be one column, got a {type(ys).__name__}")
    if hasattr(ys, "to_pylist"):
        return list(ys.to_pylist())
    series = _series(ys)
    return list(ys) if series is None else series.to_list()


def series_like(rows: Any, answers: Sequence[Any] | np.ndarray) -> Any:
    """Answers as a series of the library that the rows are of, with their index; None if they are no data frame."""
    frame = _frame(rows)
    if frame is None:
        return None
    series = nw.new_series("prediction", _plain(answers), backend=frame.implementation)
    return _indexed(series.to_native(), frame)


def frame_like(rows: Any, answers: Mapping[Any, Sequence[float]]) -> Any:
    """The same of columns, as a data frame. Names are text where the library has no others."""
    frame = _frame(rows)
    if frame is None:
        return None
    columns = nw.from_dict(
        {str(i): list(column) for i, column in enumerate(answers.values())}, backend=frame.implementation
    )
    if not frame.implementation.is_pandas_like():
        return columns.rename({str(i): str(name) for i, name in enumerate(answers)}).to_native()
    native = columns.to_native()
    native.columns = _plain(list(answers))
    return _indexed(native, frame)


def _indexed(answers: Any, frame: Any) -> Any:
    """Answers with the index of a frame, in libraries that have one."""
    index = nw.maybe_get_index(frame)
    if index is not None:
        answers = answers.reindex(index) if not len(answers) else answers.set_axis(index, axis=0)
    return answers


def _plain(answers: Sequence[Any] | np.ndarray) -> Any:
    if isinstance(answers, np.ndarray):
        return answers
    return [each.item() if isinstance(each, np.generic) else each for each in answers]
