"""Experiments: which parts, which published number, which report. Here only their names, which need no JAX."""

from importlib import import_module
from pathlib import Path
from typing import Any

from onward.errors import OnwardError, require_known
from onward.lab import own

# name: (module, class, one line).
EXPERIMENTS = {
    "trace-patterning": (
        "onward.lab.papers.trace_patterning",
        "TracePatterningExperiment",
        "Javed et al.: predict a delayed stimulus online; CCN, columnar and constructive networks",
    ),
    "trace-conditioning": (
        "onward.lab.papers.trace_conditioning",
        "TraceConditioningExperiment",
        "Farr et al.: the return over gaps of 20, 40, 80 steps; columns of any kind, CCN, truncated dense networks",
    ),
    "sequential-digits": (
        "onward.lab.papers.sequential_digits",
        "SequentialDigitsExperiment",
        "real 8x8 digits read row by row: columns learning online beside a dense LSTM with BPTT",
    ),
    "sequential-mnist": (
        "onward.lab.papers.sequential_mnist",
        "SequentialMNISTExperiment",
        "MNIST read row by row or pixel by pixel: columns, exact and approximate online rules, BPTT whole and cut",
    ),
    "piano": (
        "onward.lab.papers.piano",
        "PianoExperiment",
        "Manchev & Spratling 5.3: the next notes of piano music; BPTT, straight-through, STPTT, online columns",
    ),
    "one-to-many-classes": (
        "onward.lab.papers.one_to_many_classes",
        "OneToManyClassesExperiment",
        "Manchev & Spratling 5.1: stochastic units after T steps; straight-through BPTT beside STPTT",
    ),
    "one-to-many-mixture": (
        "onward.lab.papers.one_to_many_mixture",
        "OneToManyMixtureExperiment",
        "Manchev & Spratling 5.2: mixture densities after T steps; target propagation beside BPTT",
    ),
    "long-memory": (
        "onward.lab.papers.long_memory",
        "LongMemoryExperiment",
        "Manchev & Spratling 2020: order, adding, permutation; target propagation beside BPTT, by cell and length",
    ),
    "memory-control": (
        "onward.lab.papers.memory_control",
        "MemoryControlExperiment",
        "act by what was seen long ago: a memory chain and a T-maze; exact traces beside truncated ones",
    ),
    "popgym": (
        "onward.lab.papers.popgym",
        "PopgymExperiment",
        "POPGym's easy tasks from one stream: cards, pairs, a bandit, mines, the pole and the pendulum",
    ),
    "cartpole-in-the-dark": (
        "onward.lab.papers.cartpole",
        "CartpoleInTheDarkExperiment",
        "balance a pole without seeing how fast it falls; columns with exact traces beside no memory",
    ),
    "memory": (
        "onward.lab.papers.memory",
        "MemoryExperiment",
        "copy or count: exact, biased and truncated credit on one stream, beside exact levels",
    ),
}


def kind_of(name: str, home: Path = Path()) -> Any:
    """The class of an experiment: of a paper by its name, or of a file, FILE.py:NAME, in the folder `home`.

    `memory+FILE.py:NAME` is a paper's experiment with one more method. OnwardError where there is none.
    """
    reference = own.Reference.of(name)
    if reference.file and not reference.paper:
        return own.experiment(reference, home)
    if reference.paper not in EXPERIMENTS and (home / f"{reference.paper}.py").is_file():
        raise OnwardError(f"unknown experiment {reference.paper!r}; did you mean {reference.paper}.py?")
    require_known("experiment", reference.paper, EXPERIMENTS)
    module, kind, _ = EXPERIMENTS[reference.paper]
    found = getattr(import_module(module), kind)
    return own.with_method(found, reference, home) if reference.file else found
