"""Sequential MNIST: 70,000 real digits read row by row, with every rule."""

from dataclasses import dataclass
from typing import ClassVar

from onward.lab.papers.digits import DigitsExperiment

# Of Adam, falling to zero along a cosine (docs/experiments/sequential-mnist.md says what else was tried).
STEP_SIZES = {
    **dict.fromkeys(("columnar", "columnar-gru", "rtrl"), 3e-3),
    **dict.fromkeys(("ccn", "ccn-gru", "constructive", "constructive-gru", "snap-0", "snap-1"), 4e-3),
    **dict.fromkeys(("bptt", "bptt-gru", "tbptt-1", "tbptt-10"), 5e-3),
    **dict.fromkeys(("mingru", "elstm", "lru", "rtu", "stack", "layerwise", "frozen"), 1e-3),
    **dict.fromkeys(("bptt-mingru", "bptt-lru", "bptt-rtu"), 5e-3),
    **dict.fromkeys(("uoro", "tbptt-5"), 1e-3),
    **dict.fromkeys(("authors-columnar", "authors-bptt"), 0.3),
}


@dataclass(frozen=True, kw_only=True)
class SequentialMNISTExperiment(DigitsExperiment):
    """Classify MNIST's digits read one row of 28 pixels at a time (or pixel by pixel); the label comes with the last row.

    Networks of about 7.7 thousand recurrent parameters: columns that learn online with exact traces, a dense LSTM with
    approximate or exact online rules, and with backpropagation through time, whole and cut. Without MNIST it runs on
    the embedded 8x8 digits, and says so.
    """

    name: ClassVar[str] = "sequential-mnist"
    title: ClassVar[str] = "Sequential MNIST: real digits, with every rule"
    published: ClassVar[dict[str, float]] = {
        "bptt": 0.976,
        "tbptt-10": 0.935,
        "columnar": 0.918,
        "tbptt-5": 0.857,
        "tbptt-1": 0.713,
    }

    methods: tuple[str, ...] = (
        *("columnar", "columnar-gru", "ccn", "ccn-gru"),
        *("bptt", "tbptt-10", "tbptt-5", "tbptt-1", "snap-1", "uoro"),
    )
    data: str = "auto"
    passes: float | None = None
    ccn_width: int = 23
    gru_ccn_width: int = 29
    constructive_columns: int = 39
    wide_columns: int = 128
    stack_columns: int = 96
    hidden: int = 64
    units: int = 32
    batch: int = 16
    spread: float = 0.1
    memory_bias: float = 2.0
    decay: bool = True

    def default_step_size(self, name: str) -> float:
        """Of Adam; of plain SGD for the authors' settings."""
        return STEP_SIZES[name]
