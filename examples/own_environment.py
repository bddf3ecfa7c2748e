"""An environment of your own, and which credit learns to act in it: a lamp shines on the left or on the right, and at
the end of a corridor one must turn to that side.

onward run examples/own_environment.py
onward run examples/own_environment.py --length 12 --steps 300000 --seeds 16
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

import onward as ow
from onward.lab.experiment import StreamExperiment
from onward.lab.method import Method


class World(NamedTuple):
    side: Array  # of the lamp: -1 or 1
    place: Array


class Corridor(ow.AbstractEnvironment[World]):
    """Seen: the lamp, from the start only, and whether this is the end. Actions: turn left, go ahead, turn right."""

    length: int = 6
    inputs, actions, limit = 2, 3, 50

    def begin(self, draw: ow.Draw) -> World:
        return World(2 * draw.integer(0, 1) - 1, jnp.zeros((), int))

    def move(self, world: World, action: Array, draw: ow.Draw) -> tuple[World, Array, Array]:
        over = (action != 1) & (world.place == self.length)
        reward = jnp.where(over, jnp.where(action - 1 == world.side, 1.0, -1.0), -0.02)
        return World(world.side, jnp.minimum(world.place + (action == 1), self.length)), reward, over

    def observe(self, world: World) -> Array:
        return jnp.stack([jnp.where(world.place == 0, world.side, 0), world.place == self.length])


RULES = {"exact": ow.Columnwise(), "tbptt-1": ow.TBPTT(1)}


@dataclass(frozen=True, kw_only=True)
class Turn(StreamExperiment):
    """Turn to the side where the lamp was: exact credit, and credit that ends at each step."""

    final_metric: ClassVar[str] = "return"
    higher_is_better: ClassVar[bool] = True
    methods: tuple[str, ...] = ("exact", "tbptt-1")
    steps: int = 100_000
    length: int = 6
    """Steps from the lamp to the end of the corridor."""

    def build(self, name: str) -> Method:
        """Columns of 16 GRU units, and the values of three actions."""
        objective = ow.QLambda(discount=0.98, trace_decay=0.9, exploration=0.05)
        return Method(
            name=name,
            task=Corridor(self.length),
            model=lambda key: ow.Model(ow.Columns(ow.GRUGates(), 2, 16, key=key, spread=0.5), ow.Linear(16, 3)),
            learner=lambda model, step_size: ow.Online(RULES[name], objective, ow.rms(0.999), step_size),
            steps=self.steps,
            # The return of each episode, at its end.
            measure=lambda example, info: (example.truth.total * example.truth.over, 1.0 * example.truth.over),
            metric="return",
        )

    def default_step_size(self, name: str) -> float:
        """Of both."""
        return 1e-3

    def references(self) -> dict[str, float]:
        """The best return, and that of turning to either side without looking."""
        return {"best": 1 - 0.02 * self.length, "blind": -0.02 * self.length}
