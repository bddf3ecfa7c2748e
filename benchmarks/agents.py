"""Agents that act and learn at every step: thousand agent-steps per CPU second, and PyTorch beside it.

    python benchmarks/agents.py [--runs 16] [--steps 4000] [--turns 7]

`onward run memory-control` on a chain of 256: 64 columns of each kind with exact traces, actor-critic, RMSProp, the task
too in one compiled loop of so many runs side by side. PyTorch, where it is installed, does the same for one agent of 64
minimal GRU columns, step by step: traces by the derivatives of one step, which autograd gives, and the task in Python.
First both replay `CHECKED` steps with the same weights, observations and actions; they must end with the same weights.
Pinned to one core, process CPU time, in turns; the ratio is the median over turns, with its least and largest.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

LENGTH, DISCOUNT, ENTROPY, STEP, ACTOR, DECAY = 256, 0.999, 0.01, 1e-4, 3.0, 0.9999
CHECKED, TORCH_STEPS = 600, 1500
# Thousand agent-steps per CPU second that are aimed at, with 16 runs.
AIMS = {"mingru": 400, "rtu": 150}


def built(kind: str) -> Any:
    """The method of the experiment."""
    from onward.lab.papers.memory_control import MemoryControlExperiment

    return MemoryControlExperiment(methods=(kind,), lengths=(LENGTH,)).build(f"{kind}-{LENGTH}")


def onward(kind: str, runs: int, steps: int) -> Callable[[], int]:
    """A turn of so many runs side by side; the agent-steps of it."""
    import onward as ow

    made = built(kind)
    loop = ow.Loop(
        made.task, made.model, made.learner, made.measure, seeds=range(runs), step_sizes=(STEP,), axis=made.batch_axis
    )
    loop.start()
    loop.advance(1)
    loop.means()

    def turn() -> int:
        loop.advance(steps)
        loop.means()
        return runs * steps

    return turn


class TorchAgent:
    """64 minimal GRU columns that read x, a policy and a value over [x, h], and what they learn by."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray, head: np.ndarray, head_bias: np.ndarray) -> None:
        import torch

        self.torch = torch
        torch.set_num_threads(1)
        tensor = lambda a: torch.tensor(np.asarray(a), dtype=torch.float32, requires_grad=True)
        # Slots: the memory gate, then the content.
        self.cell = [tensor(a) for a in (weight[:, 0].T, weight[:, 1].T, bias[0], bias[1])]
        self.head = [tensor(head), tensor(head_bias)]
        none = lambda: [torch.zeros_like(p) for p in (*self.cell, *self.head)]
        self.second = [none(), none()]
        self.count = 0
        self.none = none
        self.begin()

    def begin(self) -> None:
        """An episode starts."""
        self.h = self.torch.zeros(len(self.cell[2]))
        self.traces = [self.torch.zeros_like(p) for p in self.cell]
        self.z_v, self.z_p, self.uncertain, self.v = self.none(), self.none(), self.none(), None

    def read(self, x: Any) -> Any:
        """Move on; what is predicted."""
        torch = self.torch
        h = self.h.detach().requires_grad_()
        gate = torch.sigmoid(self.cell[0] @ x + self.cell[2])
        after = (1 - gate) * h + gate * (self.cell[1] @ x + self.cell[3])
        *now, kept = torch.autograd.grad(after.sum(), [*self.cell, h])
        spread = lambda kept, trace: kept[:, None] * trace if trace.ndim == 2 else kept * trace
        self.traces = [spread(kept, trace) + each for trace, each in zip(self.traces, now, strict=True)]
        self.h = after.detach()
        self.live = self.h.clone().requires_grad_()
        self.said = self.head[0] @ torch.cat([x, self.live]) + self.head[1]
        return self.said.detach()

    def pull(self, value: Any) -> list[Any]:
        """The gradient of a number that was made of the prediction."""
        weight, bias, h = self.torch.autograd.grad(value, [*self.head, self.live], retain_graph=True)
        spread = lambda trace: h[:, None] * trace if trace.ndim == 2 else h * trace
        return [*map(spread, self.traces), weight, bias]

    def learn(self, action: int, y: float, discount: float, starts: bool) -> None:
        """Actor-critic with lambda 0, and a step of RMSProp for each of both."""
        torch = self.torch
        with torch.enable_grad():
            log_policy, value = torch.log_softmax(self.said[:-1], 0), self.said[-1]
            pulled_v, pulled_p = self.pull(value), self.pull(log_policy[action])
            uncertain = self.pull(-(log_policy.exp() * log_policy).sum())
        delta = 0.0 if starts else float(y + DISCOUNT * discount * value.detach() - self.v)
        sign = float(np.sign(delta))
        self.count += 1
        for eligible, size, second in (
            (self.z_v, STEP, self.second[0]),
            (
                [z + ENTROPY * sign * u for z, u in zip(self.z_p, self.uncertain, strict=True)],
                ACTOR * STEP,
                self.second[1],
            ),
        ):
            for weight, z, q in zip((*self.cell, *self.head), eligible, second, strict=True):
                gradient = -delta * z
                q.mul_(DECAY).addcmul_(gradient, gradient, value=1 - DECAY)
                with torch.no_grad():
                    weight -= size * gradient * torch.rsqrt(q / (1 - DECAY**self.count) + 1e-16)
        self.z_v, self.z_p, self.uncertain, self.v = pulled_v, pulled_p, uncertain, float(value.detach())

    @property
    def weights(self) -> list[np.ndarray]:
        """Gate and content weights, both biases, the head's."""
        return [p.detach().numpy().copy() for p in (*self.cell, *self.head)]


def start(made: Any) -> tuple[Any, TorchAgent]:
    """A network, and PyTorch's of the same weights."""
    import jax

    model = made.model(jax.random.key(0))
    columns = model.cell.cell
    arrays = (columns.weight, columns.bias, model.head.weight, model.head.bias)
    return model, TorchAgent(*map(np.asarray, arrays))


def check() -> float:
    """Replay the same steps; the largest difference of a weight, as a share of how far the weights moved."""
    import jax

    made = built("mingru")
    model, agent = start(made)
    learner, task = made.learner(model, STEP), made.task

    def step(loop: Any, _: None) -> Any:
        state, world = loop
        world, example = task.emit(world)
        state, info = learner.step(state, example)
        told = (example.x, example.y, example.discount, example.reset, info.action)
        return (state, task.act(world, info.action)), told

    _, first = task.emit(task.init(jax.random.key(1)))
    begun = learner.init(model, first, key=jax.random.key(2))
    (state, _), told = jax.jit(lambda *loop: jax.lax.scan(step, loop, None, CHECKED))(
        begun, task.init(jax.random.key(1))
    )
    before = agent.weights
    for x, y, discount, reset, action in zip(*map(np.asarray, told), strict=True):
        if reset:
            agent.begin()
        agent.read(agent.torch.from_numpy(x.copy()))
        agent.learn(int(action), float(y), float(discount), bool(reset))
    columns = state.model.cell.cell
    ours = [
        columns.weight[:, 0].T,
        columns.weight[:, 1].T,
        *columns.bias,
        state.model.head.weight,
        state.model.head.bias,
    ]
    moved = max(np.abs(a - b).max() for a, b in zip(agent.weights, before, strict=True))
    return max(np.abs(np.asarray(a) - b).max() for a, b in zip(ours, agent.weights, strict=True)) / moved


def torch_turn() -> Callable[[], int]:
    """A turn of PyTorch with the chain in Python."""
    _, agent = start(built("mingru"))
    torch, rng = agent.torch, np.random.default_rng(0)
    place = {"t": 0, "bit": 1.0, "y": 0.0, "over": True}

    def turn() -> int:
        for _ in range(TORCH_STEPS):
            t, starts, y = place["t"], place["t"] == 0 and place["over"], place["y"]
            if starts:
                agent.begin()
                place["bit"] = float(rng.choice((-1.0, 1.0)))
            x = torch.tensor([1 - t / LENGTH, float(t == LENGTH - 1), place["bit"] if t == 0 else 0.0])
            policy = torch.softmax(agent.read(x)[:-1], 0)
            action = int(rng.random() > float(policy[0]))
            agent.learn(action, y, float(not starts), starts)
            last = t == LENGTH - 1
            place["y"] = (1.0 if 2 * action - 1 == place["bit"] else -1.0) if last else 0.0
            place["t"], place["over"] = (0 if last else t + 1), last
        return TORCH_STEPS

    turn()
    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--turns", type=int, default=7)
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    from onward.devices import set_up_jax

    set_up_jax(columns=True, single=False)
    turns: dict[str, Callable[[], int]] = {
        kind: onward(kind, given.runs, given.steps) for kind in ("mingru", "rtu", "lstm")
    }
    if find_spec("torch"):
        off = check()
        print(f"the same {CHECKED} steps in both: weights differ by {off:.1e} of how far they moved")
        assert off < 1e-2, "PyTorch does not learn the same"
        turns["PyTorch"] = torch_turn()
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(given.turns):
        for name, turn in turns.items():
            begun = time.process_time()
            rates[name].append(turn() / (time.process_time() - begun) / 1e3)
    print(f"thousand agent-steps per CPU second, one core, {given.runs} runs side by side (PyTorch: one)")
    for name, each in rates.items():
        ratio = [a / b for a, b in zip(each, rates["PyTorch"], strict=True)] if "PyTorch" in rates else []
        beside = f"   {statistics.median(ratio):6.0f} times PyTorch ({min(ratio):.0f} to {max(ratio):.0f})" * bool(
            ratio
        )
        met = "met" if statistics.median(each) >= AIMS.get(name, 0) else "MISSED"
        aim = f"   at least {AIMS[name]}: {met}" if name in AIMS and given.runs == 16 else ""
        print(f"{name:8} {statistics.median(each):8.1f} ({min(each):.1f} to {max(each):.1f}){beside}{aim}")


if __name__ == "__main__":
    main()
