"""Sequential digits: real scanned images, embedded, read row by row and learned one at a time."""

from dataclasses import dataclass
from typing import ClassVar

from onward.lab.papers.digits import DigitsExperiment


@dataclass(frozen=True, kw_only=True)
class SequentialDigitsExperiment(DigitsExperiment):
    """Classify scanned 8x8 digits read one row of pixels at a time; the label comes with the last row.

    The columnar networks learn online, one image after another, with exact traces in constant memory.
    Beside them a dense LSTM of about as many parameters learns with backpropagation through time.
    """

    name: ClassVar[str] = "sequential-digits"
    title: ClassVar[str] = "Sequential digits: real images, row by row"

    methods: tuple[str, ...] = ("columnar", "ccn", "bptt")

    def default_step_size(self, name: str) -> float:
        """Of Adam; of plain SGD for the authors' settings."""
        return 0.03 if name.startswith("authors-") else 3e-3
