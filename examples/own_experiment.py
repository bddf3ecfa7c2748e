"""An experiment of your own: which rules learn to repeat two symbols after six steps.

onward run examples/own_experiment.py --steps 20000
onward sweep examples/own_experiment.py --units 4,8 --step-sizes 1e-3,1e-2
"""

from dataclasses import dataclass

import onward as ow
from onward.lab import metrics
from onward.lab.experiment import StreamExperiment, rule_named
from onward.lab.method import Method


@dataclass(frozen=True, kw_only=True)
class Repeat(StreamExperiment):
    """Repeat two symbols after a delay: exact, sparse and truncated credit."""

    methods: tuple[str, ...] = ("rtrl", "snap-1", "tbptt-4")
    steps: int = 20_000
    units: int = 8
    """Units of the GRU."""

    def build(self, name: str) -> Method:
        """One network, another rule."""
        task, units, rule = ow.Copy(2, 6, 2), self.units, rule_named(name)
        return Method(
            name=name,
            task=task,
            model=lambda key: ow.Model(ow.GRU(task.inputs, units, key=key), ow.Categorical(units, 2)),
            learner=lambda model, step_size: ow.Online(rule, ow.Supervised(), ow.rms(0.999), step_size),
            steps=self.steps,
            measure=metrics.stream_loss,
            metric="nats",
        )

    def default_step_size(self, name: str) -> float:
        """Of every rule."""
        return 1e-2

    def references(self) -> dict[str, float]:
        """Exact levels, as the task has them."""
        return ow.Copy(2, 6, 2).references()
