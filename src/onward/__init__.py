"""Onward: learning in recurrent networks as the data arrive."""

from onward.cells.cascade import Cascade as Cascade
from onward.cells.columns import Columns as Columns
from onward.cells.dense import Dense as Dense
from onward.cells.gru import GRU as GRU, GRUGates as GRUGates
from onward.cells.lstm import LSTM as LSTM, LSTMGates as LSTMGates
from onward.cells.moments import Moments as Moments
from onward.credit.columnwise import Columnwise as Columnwise
from onward.credit.rtrl import RTRL as RTRL
from onward.heads.categorical import Categorical as Categorical
from onward.heads.linear import Linear as Linear
from onward.learners.online import Online as Online
from onward.model import Model as Model
from onward.objectives.supervised import Supervised as Supervised
from onward.objectives.td import TDLambda as TDLambda
from onward.tasks.animal import (
    NoisyPatterning as NoisyPatterning,
    TraceConditioning as TraceConditioning,
    TracePatterning as TracePatterning,
)
