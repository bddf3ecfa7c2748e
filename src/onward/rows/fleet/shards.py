"""Where the entities of a fleet are learned: in this process, or divided among the workers of a Dask cluster."""

import json
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from onward.errors import OnwardError
from onward.lab.cluster import Lost, connected
from onward.rows.fleet.shard import Said, Shard, Told
from onward.rows.options import Learn
from onward.rows.stream import as_usual

# The files of records in a folder: one, or one a worker.
FILES = "entities*.sqlite"
# Seconds that a worker may take for a block of rows, or a checkpoint.
PATIENCE = 3600.0


class Facts(NamedTuple):
    """How many entities there are and how many fit into memory, and the bytes of each."""

    known: int
    most: int
    each: int


class Shards(Protocol):
    """All entities. `take` begins with rows, and the function that it gives waits for what came of them.

    `waits`: whether it is worth while to do something else until then.
    """

    waits: bool

    @property
    def facts(self) -> Facts:
        """As of the last block."""

    def take(self, names: Sequence[str], *numbers: Any, learn: bool) -> Callable[[], Told]:
        """As `Shard.take`."""

    def few(self, names: Sequence[str]) -> "Shards":
        """Some entities, as they are now, apart from all others."""

    def standing(self) -> Iterator[tuple[str, np.void]]:
        """As `Shard.standing`, of all, by name."""

    def open(self, folder: Path) -> None:
        """Keep records in a folder."""

    def save(self, generation: int) -> dict[str, np.ndarray]:
        """Commit the records, and give what all entities share."""

    def load(self, *what: Any) -> None:
        """As `Shard.load`."""

    def forget_waiting(self) -> None:
        """As if nothing had been said, and no time was."""

    def close(self) -> None:
        """What was not saved is gone."""


def shard_of(options: Learn) -> Shard:
    """A shard of a run with these options."""
    size = int(options.memory * 1e9 / max(1, options.workers))
    return Shard(
        options.recipe,
        options.share,
        period=options.period,
        coverage=options.coverage,
        alarm=options.alarm,
        size=size,
    )


class Here:
    """All in one shard, in this process."""

    waits = False

    def __init__(self, options: Learn):
        self.options, self.shard = options, shard_of(options)
        self.standing, self.save, self.load = self.shard.standing, self.shard.save, self.shard.load
        self.close, self.forget_waiting = self.shard.entities.close, self.shard.forget_waiting

    @property
    def facts(self) -> Facts:
        """As of now."""
        return facts_of(self.shard)

    def take(self, names: Sequence[str], *numbers: Any, learn: bool) -> Callable[[], Told]:
        """At once."""
        told = self.shard.take(names, *numbers, learn=learn)
        return lambda: told

    def few(self, names: Sequence[str]) -> "Here":
        """Some entities, as they are now, apart from all others."""
        mine, apart = self.shard, Here(self.options)
        apart.shard.capacity, apart.shard.shared, apart.shard.known = mine.capacity, mine.shared, mine.known
        entities = apart.shard.entities
        entities.begin(mine.entities.start)
        for name in dict.fromkeys(names):
            place = entities.places([name])
            entities.records[place] = mine.entities.as_it_is(name)
        return apart

    def open(self, folder: Path) -> None:
        """Keep records in a folder."""
        self.shard.open(folder / FILES.replace("*", ""))


class There:
    """A shard a worker: an entity belongs to the one that the checksum of its name says, whatever came before."""

    waits = True

    def __init__(self, options: Learn, client: Any):
        self._client, self.options = client, options
        addresses = sorted(client.scheduler_info(n_workers=-1)["workers"])
        if len(addresses) < options.workers:
            raise OnwardError(
                f"--workers {options.workers}: the cluster has {len(addresses)}; start more, or ask for fewer"
            )
        with _losing(), client.as_current():
            # Each has a key that never was: of one that was, Dask may give an old worker, with what it had learned.
            made = [
                client.submit(Worker, options, actor=True, workers=[address], pure=False, key=f"shard-{uuid.uuid4()}")
                for address in addresses[: options.workers]
            ]
            self._workers = [future.result(timeout=PATIENCE) for future in made]
        self._facts: list[Facts] = self._all("facts")

    def _all(self, method: str, *arguments: Sequence[Any]) -> list[Any]:
        """What all say; `arguments`: of each worker its own."""
        each = zip(*arguments, strict=True) if arguments else [()] * len(self._workers)
        with _losing():
            futures = [getattr(worker, method)(*args) for worker, args in zip(self._workers, each, strict=True)]
        return [_result(future) for future in futures]

    @property
    def facts(self) -> Facts:
        """As of the last block."""
        return Facts(sum(f.known for f in self._facts), sum(f.most for f in self._facts), self._facts[0].each)

    def take(self, names: Sequence[str], *numbers: Any, learn: bool) -> Callable[[], Told]:
        """Rows to those whose they are; another block may be sent before these have come back."""
        many = len(self._workers)
        mine = {name: zlib.crc32(name.encode("utf-8", "surrogatepass")) % many for name in dict.fromkeys(names)}
        whose = np.fromiter((mine[name] for name in names), np.int64, len(names))
        # Dask sends them when it likes, and the reader of the next block may change what is its own before that.
        moments, x, plain, y = (np.array(part) for part in numbers)
        sent = []
        for i, worker in enumerate(self._workers):
            rows = np.flatnonzero(whose == i)
            if len(rows):
                # As one: Dask looks at each item of a list.
                named = json.dumps([names[row] for row in rows.tolist()]).encode()
                with _losing():
                    sent.append((i, rows, worker.take(named, moments[rows], x[rows], plain, y[rows], learn)))

        def wait() -> Told:
            parts = []
            for i, _, future in sent:
                told, self._facts[i] = _result(future)
                parts.append(told)
            both = Told.joined(parts)
            order = np.argsort(np.concatenate([rows for _, rows, _ in sent]), kind="stable")
            pick = lambda said: Said(*(part[order] for part in said))
            each = ("strange", "doubted", "earlier", "scores", "shift")
            rest = {name: getattr(both, name)[order] for name in each}
            return Told(pick(both.judged), pick(both.asked), both.others[:, order], **rest)

        return wait

    def few(self, names: Sequence[str]) -> "Shards":
        """Not of workers."""
        raise NotImplementedError("entities of workers are not copied")

    def standing(self) -> Iterator[tuple[str, np.void]]:
        """Of all, by name."""
        yield from sorted((pair for part in self._all("standing") for pair in part), key=lambda pair: pair[0])

    def open(self, folder: Path) -> None:
        """A file of records a worker."""
        self._all("open", [str(folder / FILES.replace("*", f"-{i}")) for i in range(len(self._workers))])

    def save(self, generation: int) -> dict[str, np.ndarray]:
        """Commit all records; nothing is shared."""
        shared: dict[str, np.ndarray] = self._all("save", [generation] * len(self._workers))[0]
        return shared

    def load(self, *what: Any) -> None:
        """As `Shard.load`, each its own file."""
        self._all("load", [what] * len(self._workers))
        self._facts = self._all("facts")

    def forget_waiting(self) -> None:
        """Of all."""
        self._all("forget_waiting")

    def close(self) -> None:
        """What was not saved is gone; of workers that are lost it is already."""
        for worker in self._workers:
            with suppress(Lost), _losing():
                _result(worker.close())


class Worker:
    """A shard on a worker, as an actor. What it refuses comes back as words: errors of ours are no pickles."""

    def __init__(self, options: Learn):
        with as_usual():
            self.shard = shard_of(options)

    def _safe(self, function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
        try:
            with as_usual():
                return "", function(*arguments)
        except OnwardError as error:
            return str(error), None

    def facts(self) -> tuple[str, Any]:
        """As of now."""
        return self._safe(facts_of, self.shard)

    def take(self, names: bytes, moments: Any, x: Any, plain: Any, y: Any, learn: bool) -> tuple[str, Any]:
        """What came of it, and the facts after it; `names` as JSON."""
        work = lambda: (self.shard.take(json.loads(names), moments, x, plain, y, learn=learn), facts_of(self.shard))
        return self._safe(work)

    def standing(self) -> tuple[str, Any]:
        """All of it."""
        return self._safe(lambda: list(self.shard.standing()))

    def open(self, path: str) -> tuple[str, Any]:
        """Keep records there."""
        return self._safe(self.shard.open, Path(path))

    def save(self, generation: int) -> tuple[str, Any]:
        """Commit."""
        return self._safe(self.shard.save, generation)

    def load(self, what: tuple[Any, ...]) -> tuple[str, Any]:
        """Go back to it."""
        return self._safe(self.shard.load, *what)

    def forget_waiting(self) -> tuple[str, Any]:
        """As if nothing had been said."""
        return self._safe(self.shard.forget_waiting)

    def close(self) -> tuple[str, Any]:
        """No file is open."""
        return self._safe(self.shard.entities.close)


def facts_of(shard: Shard) -> Facts:
    """Of a shard."""
    return Facts(shard.entities.count, shard.entities.most, shard.entities.start.dtype.itemsize)


def _result(future: Any) -> Any:
    with _losing():
        error, value = future.result(timeout=PATIENCE)
    if error:
        raise OnwardError(error)
    return value


@contextmanager
def _losing() -> Iterator[None]:
    """Whatever Dask says where a worker is gone."""
    try:
        yield
    except OnwardError:
        raise
    except Exception as error:
        raise Lost(f"a worker is gone ({type(error).__name__}: {str(error)[:100]})") from error


@contextmanager
def shards(options: Learn) -> Iterator[Callable[[], Shards]]:
    """What makes the shards of a run: anew, where a worker was lost."""
    if not options.workers and not options.scheduler:
        yield lambda: Here(options)
        return
    with connected(options.workers, options.scheduler) as (client, _):

        def made() -> Shards:
            client.wait_for_workers(options.workers, timeout=PATIENCE)
            return There(options, client)

        yield made
