"""Onward: learning in recurrent networks as the data arrive.

This is the only list of parts. A cell and a head make a `Model`; a credit rule, an objective and an
optimiser make an `Online` learner; a task makes examples; `verify` checks a rule's gradient.
"""

from onward._types import Carry as Carry
from onward._types import Info as Info
from onward._types import Sequence as Sequence
from onward._types import Step as Step
from onward.cells.cascade import Cascade as Cascade
from onward.cells.columns import Columns as Columns
from onward.cells.dense import Dense as Dense
from onward.cells.gru import GRU as GRU
from onward.cells.gru import GRUGates as GRUGates
from onward.cells.lstm import LSTM as LSTM
from onward.cells.lstm import LSTMGates as LSTMGates
from onward.cells.moments import Moments as Moments
from onward.credit.columnwise import Columnwise as Columnwise
from onward.credit.rtrl import RTRL as RTRL
from onward.heads.categorical import Categorical as Categorical
from onward.heads.linear import Linear as Linear
from onward.learners.bptt import BPTT as BPTT
from onward.learners.online import Online as Online
from onward.learners.optimisers import rms as rms
from onward.learners.optimisers import scale_head as scale_head
from onward.model import Model as Model
from onward.objectives.supervised import Supervised as Supervised
from onward.objectives.td import TDLambda as TDLambda
from onward.tasks.animal import NoisyPatterning as NoisyPatterning
from onward.tasks.animal import TraceConditioning as TraceConditioning
from onward.tasks.animal import TracePatterning as TracePatterning
from onward.tasks.digits import SequentialDigits as SequentialDigits
