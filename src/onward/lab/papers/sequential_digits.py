"""Sequential digits: real scanned images, embedded, read row by row and learned one at a time."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from onward.lab.papers.digits import DigitsExperiment


@dataclass(frozen=True)
class SequentialDigitsExperiment(DigitsExperiment):
    """Classify scanned 8x8 digits read one row of pixels at a time; the label comes with the last row.

    The columnar networks learn online, one image after another, with exact traces in constant memory.
    Beside them a dense LSTM of about as many parameters learns with backpropagation through time.
    """

    name: ClassVar[str] = "sequential-digits"
    title: ClassVar[str] = "Sequential digits: real images, row by row"

    methods: tuple[str, ...] = ("columnar", "ccn", "bptt")
    seeds: int = 5
    first_seed: int = 0
    step_sizes: tuple[float, ...] = ()
    data: str = "digits"
    by: Literal["rows", "pixels"] = "rows"
    every: bool = False
    passes: float = 50.0
    columns: int = 63
    gru_columns: int = 84
    stages: int = 2
    ccn_width: int = 32
    gru_ccn_width: int = 32
    constructive_columns: int = 16
    units: int = 24
    batch: int = 4
    streams: int = 1
    spread: float = 0.5
    memory_bias: float = 1.0
    decay: bool = False

    def default_step_size(self, name: str) -> float:
        """Of Adam; of plain SGD for the authors' settings."""
        return 0.03 if name.startswith("authors-") else 3e-3
