"""Experiments: which parts, which published number, which report. Here only their names, which need no JAX."""

from importlib import import_module
from typing import Any

from onward.errors import require_known

# name: (module, class, one line).
EXPERIMENTS = {
    "trace-patterning": (
        "onward.lab.papers.trace_patterning",
        "TracePatterningExperiment",
        "Javed et al.: predict a delayed stimulus online; CCN, columnar and constructive networks",
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
    "memory": (
        "onward.lab.papers.memory",
        "MemoryExperiment",
        "copy or count: exact, biased and truncated credit on one stream, beside exact levels",
    ),
}


def kind_of(name: str) -> Any:
    """The class of an experiment; OnwardError for another name."""
    require_known("experiment", name, EXPERIMENTS)
    module, kind, _ = EXPERIMENTS[name]
    return getattr(import_module(module), kind)
