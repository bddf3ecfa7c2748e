"""Rows of a table from a file or a stream: CSV, JSON lines (each plain or packed), Parquet, Arrow, standard input.

Reading goes forward in blocks, keeps a bounded part of the table in memory, and knows after every block where the next
row begins, so that a stopped reading goes on exactly there. A row that cannot be used is left out and reported.
"""

from onward.rows.sources.base import Rows as Rows
from onward.rows.sources.base import Source as Source
from onward.rows.sources.base import gathered as gathered
from onward.rows.sources.cells import Cell as Cell
from onward.rows.sources.cells import is_missing as is_missing
from onward.rows.sources.cells import number_in as number_in
from onward.rows.sources.cells import numbers as numbers
from onward.rows.sources.cells import numbers_of as numbers_of
from onward.rows.sources.open import open_rows as open_rows
from onward.rows.sources.open import require_source as require_source
