"""Rows of many entities, sorted by entity: what came before a row is what came before it of its own entity."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Entities whose rows are summed side by side.
ABREAST = 256


class Groups(NamedTuple):
    """Rows sorted by entity, in each as they came. Arrays of values are (rows, ...) in this order.

    `order`: (rows,) where each stood. `entity`: (groups,) whose rows they are. `first`, `counts`: (groups,) where each
    begins, and how many it has. `group`, `rank`: (rows,) of each row its group, and how many of that are before it.
    """

    order: np.ndarray
    entity: np.ndarray
    first: np.ndarray
    counts: np.ndarray
    group: np.ndarray
    rank: np.ndarray

    @classmethod
    def of(cls, who: np.ndarray) -> "Groups":
        """Of rows of these entities, (rows,) whole numbers."""
        order = np.argsort(who, kind="stable")
        entity, first, counts = np.unique(who[order], return_index=True, return_counts=True)
        group = np.repeat(np.arange(len(entity)), counts)
        return cls(order, entity, first, counts, group, np.arange(len(who)) - first[group])

    def back(self, values: np.ndarray) -> np.ndarray:
        """Values as the rows stood."""
        out = np.empty_like(values)
        out[self.order] = values
        return out

    def filled(self, values: np.ndarray, held: np.ndarray) -> np.ndarray:
        """(rows, columns) values, where NaN the last before of the entity, or what was `held`, (groups, columns)."""
        known = ~np.isnan(values)
        at = np.maximum.accumulate(np.where(known, np.arange(len(values))[:, None], -1), 0)
        mine = at >= self.first[self.group][:, None]
        return np.where(mine, np.take_along_axis(values, np.maximum(at, 0), 0), held[self.group])

    def before(self, values: np.ndarray, ring: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """(rows, ...) what stood so many rows of the entity before each as `ring`, (groups, lag, ...), holds.

        Row i of an entity lies in place i % lag of its ring; `seen`: (groups,) rows until now. The ring moves on.
        """
        lag = ring.shape[1]
        if not lag:
            return values.copy()
        here = np.arange(len(values))
        old = self.rank < lag
        out = values[np.maximum(here - lag, 0)]
        place = (seen[self.group] + self.rank) % lag
        out[old] = ring[self.group[old], place[old]]
        late = self.counts[self.group] - self.rank <= lag
        ring[self.group[late], place[late]] = values[late]
        return out

    def sums(self, values: np.ndarray, base: np.ndarray) -> np.ndarray:
        """(rows, columns) sums of each entity up to each row, from `base`, (groups, columns).

        One after the other: the same to the last bit however rows come in blocks.
        """
        out = np.empty_like(values)
        for groups in self.abreast(ABREAST):
            rows, there = self.square(groups)
            each = np.where(there[..., None], values[rows], 0)
            added = np.add.accumulate(np.concatenate([base[groups][None], each]), 0)[1:]
            out[rows[there]] = added[there]
        return out

    def last(self, values: np.ndarray) -> np.ndarray:
        """(groups, ...) those of the last row of each entity."""
        return values[self.first + self.counts - 1]

    def abreast(self, most: int) -> Iterator[np.ndarray]:
        """The groups, up to `most` at a time, those with the most rows first."""
        longest = np.argsort(-self.counts, kind="stable")
        return (longest[i : i + most] for i in range(0, len(longest), most))

    def square(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(steps, groups) the rows of some groups side by side, and whether there is one."""
        counts = self.counts[groups]
        steps = np.arange(counts.max())[:, None]
        there = steps < counts
        return np.where(there, self.first[groups] + steps, 0), there
