"""How far back a network that acts can learn to remember, by rule, unit and lambda."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array

import onward as ow
from onward.lab.method import Monitor
from onward.lab.papers.control import ControlExperiment
from onward.loop import Measure
from onward.types import Info, Step


@dataclass(frozen=True, kw_only=True)
class MemoryControlExperiment(ControlExperiment):
    """Act by what was seen long ago, over lengths.

    `chain`: say at the end of an episode of so many steps what was shown at its start. `t-maze`: walk down a corridor
    of so many steps and turn as was shown at its start. `k-chain`: a fresh bit at every step, and name that of so many
    steps ago; it never ends, and the number reported is the mean reward of a step.
    """

    name: ClassVar[str] = "memory-control"
    title: ClassVar[str] = "Memory for acting: how far back what was seen is still of use"
    figures: ClassVar[str] = "onward.lab.papers.memory_control_figures"

    methods: tuple[str, ...] = ("mingru", "rtu", "lstm", "tbptt-1", "memoryless")
    seeds: int = 16
    steps: int = 500_000
    task: Literal["chain", "t-maze", "k-chain"] = "chain"
    """What is to be remembered, and what for."""
    lengths: tuple[int, ...] = (16, 64, 256, 512)
    """Steps of an episode, of the corridor, or back to the bit; each method runs at each."""
    discount: float = 0.999
    longest: float = 3000.0

    def check(self) -> None:
        """Refuse settings that cannot be run, naming the option."""
        super().check()
        if not self.lengths or len({*self.lengths}) != len(self.lengths) or min(self.lengths) < 1:
            raise ow.OnwardError(f"--lengths must be whole numbers of at least 1, each once, got {self.lengths}")
        if max(self.lengths) * 10 > self.steps:
            least = 10 * max(self.lengths)
            raise ow.OnwardError(f"--steps must be at least {least}, ten episodes of the longest, got {self.steps}")

    @property
    def rows(self) -> tuple[str, ...]:
        """Every method at every length: METHOD-LENGTH."""
        return tuple(f"{method}-{length}" for length in self.lengths for method in self.methods)

    def method_of(self, row: str) -> str:
        """What stands before the length."""
        return row.rpartition("-")[0]

    def length_of(self, row: str) -> int:
        """What stands behind the method."""
        return int(row.rpartition("-")[2])

    def task_of(self, row: str) -> Any:
        """The task of the row's length."""
        kind = {"chain": ow.MemoryChain, "t-maze": ow.TMaze, "k-chain": ow.KMemoryChain}[self.task]
        return kind(self.length_of(row))

    @property
    def in_order(self) -> bool:
        """Of the K-chain."""
        return self.task == "k-chain"

    @property
    def measure(self) -> Measure:
        """Of the K-chain, which has no episodes, the reward of a step."""
        return reward if self.task == "k-chain" else super().measure

    @property
    def monitor(self) -> Monitor:
        """Of the K-chain every step weighs the same."""
        return every_step if self.task == "k-chain" else super().monitor

    def references(self) -> dict[str, float]:
        """Exact levels of the longest task."""
        levels: dict[str, float] = self.task_of(f"-{max(self.lengths)}").references()
        return levels


def reward(example: Step, info: Info) -> tuple[Array, Array]:
    """The reward of a step."""
    return jnp.asarray(example.y), jnp.ones(())


def every_step(example: Step, info: Info) -> dict[str, tuple[Array, Array]]:
    """One, a step."""
    return {"ended": (jnp.ones(()), jnp.ones(()))}
