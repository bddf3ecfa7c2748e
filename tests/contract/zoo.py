"""One row for each public part: how to make a small one. A test fails if a public class has no row."""

import jax
import optax

import onward as ow

KEY = jax.random.key(7)
MOMENTS = ow.Moments(rate=0.99)


def _columns(gates):
    return ow.Columns(gates, 3, 4, key=KEY, spread=0.5, normalise_inputs=MOMENTS, normalise_features=MOMENTS)


def _grown():
    cell = ow.Cascade(_columns(ow.LSTMGates()))
    return cell.grow(cell.init(), key=KEY)[0]


GATES = {"LSTMGates": ow.LSTMGates, "GRUGates": ow.GRUGates}
CELLS = {
    "Columns": lambda: _columns(ow.LSTMGates()),
    "Columns-GRU": lambda: _columns(ow.GRUGates()),
    "Cascade": lambda: ow.Cascade(_columns(ow.GRUGates())),
    "Cascade-grown": _grown,
    "Dense": lambda: ow.Dense(ow.LSTMGates(), 3, 4, key=KEY),
    "LSTM": lambda: ow.LSTM(3, 4, key=KEY),
    "GRU": lambda: ow.GRU(3, 4, key=KEY),
}
HEADS = {
    "Linear": lambda features: ow.Linear(features),
    "Linear-3": lambda features: ow.Linear(features, 3),
    "Categorical": lambda features: ow.Categorical(features, 5),
}
CREDIT = {"RTRL": ow.RTRL, "Columnwise": ow.Columnwise}
OBJECTIVES = {"Supervised": ow.Supervised, "TDLambda": ow.TDLambda}
TASKS = {
    "TracePatterning": ow.TracePatterning,
    "TracePatterning-rafiee": ow.TracePatterning.rafiee,
    "TraceConditioning": ow.TraceConditioning,
    "TraceConditioning-rafiee": lambda: ow.TraceConditioning.rafiee(20),
    "NoisyPatterning": ow.NoisyPatterning,
    "NoisyPatterning-rafiee": ow.NoisyPatterning.rafiee,
    "SequentialDigits": ow.SequentialDigits,
    "SequentialDigits-batch": lambda: ow.SequentialDigits(batch=3),
}
LEARNERS = {
    "Online": lambda: ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(0.1)),
    "BPTT": lambda: ow.BPTT(optax.sgd(0.1)),
}
OTHERS = {"Model": lambda: ow.Model(CELLS["Columns"](), ow.Linear(4)), "Moments": ow.Moments}
# Values that parts hand over, and functions: nothing to build.
PLAIN = {"Carry", "Step", "Sequence", "Info", "rms", "scale_head"}
