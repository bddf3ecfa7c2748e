"""Onward: learning in recurrent networks as the data arrive.

This is the only list of parts. A cell and a head make a `Model`; a credit rule, an objective and an optimiser make an
`Online` learner; a task makes examples. `fit` learns from arrays and `Loop` from a task, many runs side by side; `save`
and `load` keep any state; `verify` checks a rule's gradient. Parts of one's own derive from an `Abstract...`.
"""

from . import verify as verify
from .cells.base import AbstractCell as AbstractCell
from .cells.base import AbstractColumnar as AbstractColumnar
from .cells.base import AbstractGated as AbstractGated
from .cells.base import AbstractGates as AbstractGates
from .cells.cascade import Cascade as Cascade
from .cells.columns import Columns as Columns
from .cells.dense import Dense as Dense
from .cells.echo import Echo as Echo
from .cells.elman import Elman as Elman
from .cells.elman import ElmanGates as ElmanGates
from .cells.elstm import ELSTMGates as ELSTMGates
from .cells.gru import GRU as GRU
from .cells.gru import GRUGates as GRUGates
from .cells.hybrid import Hybrid as Hybrid
from .cells.lstm import LSTM as LSTM
from .cells.lstm import LSTMGates as LSTMGates
from .cells.mingru import MinGRUGates as MinGRUGates
from .cells.moments import Moments as Moments
from .cells.rtu import LRUGates as LRUGates
from .cells.rtu import RTUGates as RTUGates
from .cells.skip import Skip as Skip
from .cells.stack import Stack as Stack
from .cells.start import chrono as chrono
from .cells.start import knots as knots
from .cells.start import orthogonal as orthogonal
from .cells.start import ring as ring
from .credit.base import AbstractCredit as AbstractCredit
from .credit.base import AbstractKernel as AbstractKernel
from .credit.columnwise import Columnwise as Columnwise
from .credit.layerwise import Layerwise as Layerwise
from .credit.rflo import RFLO as RFLO
from .credit.rtrl import RTRL as RTRL
from .credit.snap import SnAp as SnAp
from .credit.tbptt import TBPTT as TBPTT
from .credit.uoro import UORO as UORO
from .errors import NotFinite as NotFinite
from .errors import OnwardError as OnwardError
from .fitting import fit as fit
from .heads.base import AbstractHead as AbstractHead
from .heads.bernoulli import Bernoulli as Bernoulli
from .heads.categorical import Categorical as Categorical
from .heads.linear import Linear as Linear
from .heads.mixture import Mixture as Mixture
from .heads.mlp import MLP as MLP
from .heads.monte_carlo import MonteCarlo as MonteCarlo
from .learners.base import AbstractLearner as AbstractLearner
from .learners.bptt import BPTT as BPTT
from .learners.frequencies import Frequencies as Frequencies
from .learners.inverses import AbstractInverse as AbstractInverse
from .learners.inverses import AffineInverse as AffineInverse
from .learners.inverses import FeedbackInverse as FeedbackInverse
from .learners.inverses import IdentityInverse as IdentityInverse
from .learners.inverses import ResidualInverse as ResidualInverse
from .learners.late import Late as Late
from .learners.online import Online as Online
from .learners.optimisers import least_squares as least_squares
from .learners.optimisers import rms as rms
from .learners.optimisers import scale_by_rms as scale_by_rms
from .learners.optimisers import scale_head as scale_head
from .learners.tptt import TPTT as TPTT
from .learners.watched import Watched as Watched
from .loop import Loop as Loop
from .model import Model as Model
from .objectives.base import AbstractObjective as AbstractObjective
from .objectives.supervised import Supervised as Supervised
from .objectives.td import TDLambda as TDLambda
from .saving import Unreadable as Unreadable
from .saving import load as load
from .saving import save as save
from .tasks.anbn import AnBn as AnBn
from .tasks.animal import NoisyPatterning as NoisyPatterning
from .tasks.animal import TraceConditioning as TraceConditioning
from .tasks.animal import TracePatterning as TracePatterning
from .tasks.base import AbstractTask as AbstractTask
from .tasks.copy import Copy as Copy
from .tasks.digits import SequentialDigits as SequentialDigits
from .tasks.one_to_many import OneToManyClasses as OneToManyClasses
from .tasks.one_to_many import OneToManyMixture as OneToManyMixture
from .tasks.piano import PianoRoll as PianoRoll
from .tasks.streams import Streams as Streams
from .types import Carry as Carry
from .types import Info as Info
from .types import Sequence as Sequence
from .types import Step as Step

__version__: str
