"""How far back a network that acts can learn to remember, by rule, unit and lambda."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import onward as ow
from onward.lab.papers.control import ControlExperiment


@dataclass(frozen=True, kw_only=True)
class MemoryControlExperiment(ControlExperiment):
    """Act by what was seen long ago: a bit at the start of an episode, over lengths.

    `chain`: say at the end of an episode of so many steps what was shown at its start. `t-maze`: walk down a corridor
    of so many steps and turn as was shown at its start.
    """

    name: ClassVar[str] = "memory-control"
    title: ClassVar[str] = "Memory for acting: how far back a bit is still of use"

    methods: tuple[str, ...] = ("mingru", "rtu", "lstm", "tbptt-1", "memoryless")
    seeds: int = 16
    steps: int = 500_000
    task: Literal["chain", "t-maze"] = "chain"
    """What is to be remembered, and what for."""
    lengths: tuple[int, ...] = (16, 64, 256, 512)
    """Steps of an episode, or of the corridor; each method runs at each."""
    discount: float = 0.999

    def check(self) -> None:
        """Refuse settings that cannot be run, naming the option."""
        super().check()
        if not self.lengths or len({*self.lengths}) != len(self.lengths) or min(self.lengths) < 1:
            raise ow.OnwardError(f"--lengths must be whole numbers of at least 1, each once, got {self.lengths}")
        if max(self.lengths) * 10 > self.steps:
            raise ow.OnwardError(
                f"--steps must be at least ten episodes of the longest, {10 * max(self.lengths)}, got {self.steps}"
            )

    @property
    def rows(self) -> tuple[str, ...]:
        """Every method at every length: METHOD-LENGTH."""
        return tuple(f"{method}-{length}" for length in self.lengths for method in self.methods)

    def method_of(self, row: str) -> str:
        """What stands before the length."""
        return row.rpartition("-")[0]

    def task_of(self, row: str) -> Any:
        """The task of the row's length."""
        length = int(row.rpartition("-")[2])
        return ow.MemoryChain(length) if self.task == "chain" else ow.TMaze(length)

    def references(self) -> dict[str, float]:
        """Exact levels of the longest task."""
        return self.task_of(f"-{max(self.lengths)}").references()
