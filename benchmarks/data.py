"""Speed of the experiments on data sets: MNIST read row by row and piano music, learned by every rule, beside PyTorch.

    python benchmarks/data.py [--json] [--only GROUP]

Images (group "digits") or windows ("piano") learned from per CPU second, at each experiment's default sizes; measuring is
left out. Online learners read as many streams as their experiment's default, unless the row says more. No data set is
needed: images and rolls of the same shapes are random. Group "digits" sets the XLA option that `onward run` sets by
default there. Each group is timed in one process, pinned to one core, by process CPU time; its rows are interleaved and the
best of several rounds is taken. "Spread": of the rounds, best / median - 1. "n at once": so many independent runs side by
side, as `onward run` does. Where PyTorch is installed (dependency group `oracles`) `torch.nn.LSTM` joins in its eager mode:
same sizes, same batches, trained by autograd and Adam.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from unittest import mock

from rules import pin

TITLES = {
    "digits": "28 rows of 28 pixels, the label at the last; BPTT and PyTorch: 16 images an update; images",
    "piano": "windows of 50 frames of 88 notes, a target at each; BPTT, TPTT and PyTorch: 32 windows an update; windows",
}
PYTORCH = "PyTorch LSTM"
SECONDS, ROUNDS = 0.2, 5


def ours(experiment, name, *, stage=0):
    """A function that learns for so many steps, and examples a step: the very loop of `onward run`, at a stage of growth."""
    from onward.lab.experiment import plan_of

    method, tile = experiment.build(name), plan_of(experiment, name)[0]
    loop = method.loop(tile)
    loop.start()
    for _ in range(stage):
        loop.grow()
    return loop.advance, len(tile) * method.examples_per_step


def foreign(network, head, draw, loss, *, batch, clip=None):
    """A function that learns from so many batches in eager PyTorch, and examples a batch."""
    import torch

    torch.set_num_threads(1)
    parameters = [*network.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=3e-3, fused=True)

    def advance(steps):
        for _ in range(steps):
            x, y = draw()
            states, _ = network(x)
            error = loss(head(states[-len(y) :] if y.ndim > 1 else states[-1]), y)
            optimiser.zero_grad()
            error.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(parameters, clip)
            optimiser.step()

    return advance, batch


def digits():
    """Name -> function and examples a step."""
    import numpy as np

    from onward.lab.data import datasets
    from onward.lab.papers.sequential_mnist import SequentialMNISTExperiment

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60_000, 28, 28), np.uint8)
    labels = random.integers(0, 10, len(images), np.int32)
    found = datasets.Digits(images, labels, images[:100], labels[:100])
    with mock.patch.object(datasets, "load_digits", return_value=found):
        run = SequentialMNISTExperiment(data="mnist")
        one, many = replace(run, seeds=1), f", {run.seeds} at once"
        wide, streams = replace(run, streams=16), f", 16 streams{many}"
        rows = {
            "columnar 63 LSTM": ours(one, "columnar"),
            "columnar 63 LSTM" + many: ours(run, "columnar"),
            "columnar 63 LSTM" + streams: ours(wide, "columnar"),
            "CCN 26 + 26 LSTM, stage 2" + many: ours(run, "ccn", stage=1),
            "BPTT LSTM-32": ours(one, "bptt"),
            "BPTT LSTM-32" + many: ours(run, "bptt"),
            "T-BPTT(10) LSTM-32" + many: ours(run, "tbptt-10"),
            "SnAp(1) LSTM-32" + many: ours(run, "snap-1"),
            "SnAp(1) LSTM-32" + streams: ours(wide, "snap-1"),
            "UORO LSTM-32" + many: ours(run, "uoro"),
            "RTRL LSTM-32" + many: ours(run, "rtrl"),
        }
    if find_spec("torch") is not None:
        import torch

        pixels, classes = torch.from_numpy(images), torch.from_numpy(labels).long()

        def draw():
            drawn = torch.randint(len(pixels), (run.batch,))
            return pixels[drawn].float().div_(255).transpose(0, 1), classes[drawn]

        network, head = torch.nn.LSTM(28, run.units), torch.nn.Linear(run.units, 10)
        rows[PYTORCH] = foreign(network, head, draw, torch.nn.functional.cross_entropy, batch=run.batch)
    return rows


def piano():
    """Name -> function and examples a step."""
    import numpy as np

    from onward.lab.data import datasets
    from onward.lab.papers.piano import PianoExperiment

    random = np.random.default_rng(0)
    pieces = [(random.random((500, 88)) < 0.05).astype(np.uint8) for _ in range(87)]
    found = datasets.Music(tuple(pieces), tuple(pieces[:2]), tuple(pieces[:2]))
    with mock.patch.object(datasets, "load_music", return_value=found):
        run = PianoExperiment(data="piano-midi")
        rows = {
            "BPTT LSTM-100": ours(replace(run, cell="lstm"), "bptt-adam"),
            "BPTT GRU-100": ours(run, "bptt-adam"),
            "STE GRU-100, half stochastic": ours(run, "ste-adam"),
            "STPTT GRU-100, half stochastic": ours(run, "stptt-adam"),
            f"CCN 50 + 50 GRU, stage 2, {run.seeds} at once": ours(run, "ccn-adam", stage=1),
        }
    if find_spec("torch") is not None:
        import torch

        most = run.transpose
        frames = torch.from_numpy(np.pad(np.concatenate(pieces), ((0, 0), (most, most))))
        starts = torch.from_numpy(np.concatenate([500 * i + np.arange(500 - run.length) for i in range(len(pieces))]))
        time_axis, notes = torch.arange(run.length + 1)[:, None, None], torch.arange(88)

        def draw():
            drawn = starts[torch.randint(len(starts), (run.batch,))]
            shift = torch.randint(2 * most + 1, (run.batch, 1))
            window = frames[drawn[:, None] + time_axis, notes + shift].float()
            return window[:-1], window[1:]

        loss = torch.nn.functional.binary_cross_entropy_with_logits
        for name, kind in ((PYTORCH, torch.nn.LSTM), ("PyTorch GRU", torch.nn.GRU)):
            network, head = kind(88, run.units), torch.nn.Linear(run.units, 88)
            rows[name] = foreign(network, head, draw, loss, batch=run.batch, clip=1.0)
    return rows


GROUPS = {"digits": digits, "piano": piano}


def time_group(group):
    """Examples per CPU second of every round of every row."""
    pin()
    os.environ["OMP_NUM_THREADS"] = "1"
    from onward.devices import set_up_jax

    set_up_jax(columns=group == "digits", single=False)
    import jax

    jax.config.update("jax_enable_compilation_cache", False)

    def spent(advance, steps):
        started = time.process_time()
        advance(steps)
        return time.process_time() - started

    rows, steps = GROUPS[group](), {}
    for name, (advance, _) in rows.items():
        advance(1)
        steps[name] = 1
        while spent(advance, steps[name]) < SECONDS:
            steps[name] *= 2
    rounds = [{name: spent(row[0], steps[name]) for name, row in rows.items()} for _ in range(ROUNDS)]
    return {name: [steps[name] * examples / r[name] for r in rounds] for name, (_, examples) in rows.items()}


def show(group, timed):
    print(f"\n{group}: {TITLES[group]} per CPU second")
    best = {name: max(rates) for name, rates in timed.items()}
    print(f"  {'':42} {'':>9}   spread" + "   ratio to PyTorch" * (PYTORCH in best))
    for name, rates in timed.items():
        line = f"  {name:42} {best[name]:9,.0f}   {best[name] / statistics.median(rates) - 1:6.0%}"
        print(line + (f"   {best[name] / best[PYTORCH]:16.3f}" if PYTORCH in best else ""))
    if PYTORCH not in best:
        print("  PyTorch is not installed: left out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--group", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=list(GROUPS))
    arguments = parser.parse_args()
    if arguments.group:
        print(json.dumps(time_group(arguments.group)))
        return
    found = {}
    for group in [arguments.only] if arguments.only else GROUPS:
        command = [sys.executable, __file__, "--group", group]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[group] = json.loads(done.splitlines()[-1])
        if not arguments.json:
            show(group, found[group])
    if arguments.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
