"""One row for each public part: how to make a small one. A test fails if a public class has no row."""

import jax
import numpy as np
import optax

import onward as ow

KEY = jax.random.key(7)
MOMENTS = ow.Moments(rate=0.99)


class OwnRate(ow.AbstractGates):
    """Leaky units that learn their rate: a slot that a bias alone drives, in a layer with recurrent weights."""

    states = 2
    slots = 3
    input_slots = (1,)
    recurrent_slots = (1, 2)
    bias_slots = (0, 2)

    def next_state(self, i, preactivation, states, new):
        rate, content, gate = preactivation
        if i == 0:
            return states[0] + jax.nn.sigmoid(rate) * (jax.numpy.tanh(content) - states[0])
        return new[0] * jax.nn.sigmoid(gate)

    def features(self, states):
        return states[0] * states[1], states[1]


def _columns(gates):
    return ow.Columns(gates, 3, 4, key=KEY, spread=0.5, normalise_inputs=MOMENTS, normalise_features=MOMENTS)


def _grown(gates):
    cell = ow.Cascade(_columns(gates))
    return cell.grow(cell.init(), key=KEY)[0]


GATES = {
    "LSTMGates": ow.LSTMGates,
    "GRUGates": ow.GRUGates,
    "ElmanGates": ow.ElmanGates,
    "ElmanGates-relu": lambda: ow.ElmanGates("relu"),
    "ELSTMGates": ow.ELSTMGates,
    "LRUGates": ow.LRUGates,
    "MinGRUGates": ow.MinGRUGates,
    "MinGRUGates-positive": lambda: ow.MinGRUGates("positive"),
    "RTUGates": ow.RTUGates,
    "RTUGates-nonlinear": lambda: ow.RTUGates("relu", "nonlinear"),
}
MASK = np.eye(4, dtype=bool) | np.eye(4, k=1, dtype=bool)
CELLS = {
    "Columns": lambda: _columns(ow.LSTMGates()),
    "Columns-GRU": lambda: _columns(ow.GRUGates()),
    "Cascade": lambda: ow.Cascade(_columns(ow.GRUGates())),
    "Columns-MinGRU": lambda: _columns(ow.MinGRUGates()),
    "Columns-RTU": lambda: _columns(ow.RTUGates()),
    "Cascade-grown": lambda: _grown(ow.LSTMGates()),
    "Cascade-ELSTM": lambda: _grown(ow.ELSTMGates()),
    "Dense-own": lambda: ow.Dense(OwnRate(), 3, 4, key=KEY),
    "Dense": lambda: ow.Dense(ow.LSTMGates(), 3, 4, key=KEY),
    "LSTM": lambda: ow.LSTM(3, 4, key=KEY),
    "GRU": lambda: ow.GRU(3, 4, key=KEY, normalise_inputs=MOMENTS, normalise_features=MOMENTS),
    "Elman": lambda: ow.Elman(3, 4, key=KEY),
    "Elman-sparse": lambda: ow.Elman(3, 4, key=KEY, activation="sigmoid", mask=MASK),
    "Hybrid": lambda: ow.Hybrid(ow.GRU(3, 4, key=KEY)),
    "Hybrid-sigmoid": lambda: ow.Hybrid(ow.Elman(3, 4, key=KEY, activation="sigmoid"), share=1.0),
    "Echo": lambda: ow.Echo(3),
    "Encoder": lambda: ow.Encoder(3, 5, key=KEY),
    "Stack-encoder": lambda: ow.Stack(
        ow.Encoder(3, 5, key=KEY, sparsity=0.5), ow.Columns(ow.MinGRUGates(), 5, 4, key=KEY, spread=0.5)
    ),
    "Skip": lambda: ow.Skip(_columns(ow.GRUGates())),
    "Skip-dense": lambda: ow.Skip(ow.GRU(3, 4, key=KEY)),
    "Stack-columns": lambda: ow.Stack(
        _columns(ow.RTUGates()), ow.Columns(ow.LSTMGates(), 8, 3, key=KEY, spread=0.5), reads="all"
    ),
    "Parallel": lambda: ow.Parallel(_columns(ow.ELSTMGates()), _columns(ow.LRUGates())),
    "Stack": lambda: ow.Stack(ow.GRU(3, 4, key=KEY), ow.Elman(4, 3, key=KEY)),
}
# Credit rules have nothing to do there.
WITHOUT_PARAMETERS = {"Echo"}
HEADS = {
    "Linear": lambda features: ow.Linear(features),
    "Linear-3": lambda features: ow.Linear(features, 3),
    "Categorical": lambda features: ow.Categorical(features, 5),
    "Bernoulli": lambda features: ow.Bernoulli(features, 4),
    "Mixture": lambda features: ow.Mixture(features, 3),
    "MLP": lambda features: ow.MLP(ow.Linear(6), features, 6, key=KEY),
    "MLP-MLP": lambda features: ow.MLP(
        ow.MLP(ow.Categorical(3, 4), 5, 3, key=KEY, activation="relu"), features, 5, key=KEY, activation="leaky_relu"
    ),
    "Mixture-2": lambda features: ow.Mixture(features, 3, outputs=2),
    "MonteCarlo": lambda features: ow.MonteCarlo(ow.Categorical(features, 5), samples=3),
    "MonteCarlo-Mixture": lambda features: ow.MonteCarlo(ow.Mixture(features, 3), samples=3),
}
CREDIT = {
    "RTRL": ow.RTRL,
    "Columnwise": ow.Columnwise,
    "SnAp": ow.SnAp,
    "SnAp-2": lambda: ow.SnAp(2),
    "Layerwise": ow.Layerwise,
    "RFLO": ow.RFLO,
    "UORO": ow.UORO,
    "UORO-nobacktrack": lambda: ow.UORO("nobacktrack"),
    "TBPTT": lambda: ow.TBPTT(3),
}
IMAGES = np.eye(3)[[[0, 1], [1, 2]]]
OBJECTIVES = {
    "Supervised": ow.Supervised,
    "TDLambda": ow.TDLambda,
    "QLambda": ow.QLambda,
    "SarsaLambda": ow.SarsaLambda,
    "QRC": ow.QRC,
    "ActorCritic": ow.ActorCritic,
    "ActorCritic-continuous": lambda: ow.ActorCritic(continuous=True),
    "Reinforce": ow.Reinforce,
    "Reinforce-continuous": lambda: ow.Reinforce(continuous=True),
}
# Numbers that an objective wants predicted, where not one.
OUTPUTS = {"QLambda": 2, "SarsaLambda": 3, "QRC": 4, "ActorCritic": 3, "ActorCritic-continuous": 5}
OUTPUTS |= {"Reinforce": 2, "Reinforce-continuous": 4}
TASKS = {
    "TracePatterning": ow.TracePatterning,
    "TracePatterning-rafiee": ow.TracePatterning.rafiee,
    "TraceConditioning": ow.TraceConditioning,
    "TraceConditioning-rafiee": lambda: ow.TraceConditioning.rafiee(20),
    "NoisyPatterning": ow.NoisyPatterning,
    "NoisyPatterning-rafiee": ow.NoisyPatterning.rafiee,
    "Copy": ow.Copy,
    "Copy-resets": lambda: ow.Copy(length=3, delay=0, symbols=4, resets=True),
    "AnBn": ow.AnBn,
    "SequentialDigits": lambda: ow.SequentialDigits(IMAGES, [3, 4]),
    "SequentialDigits-batch": lambda: ow.SequentialDigits(IMAGES, [3, 4], batch=3),
    "SequentialDigits-pixels": lambda: ow.SequentialDigits(IMAGES, [3, 4], by="pixels", every=True),
    "PianoRoll": lambda: ow.PianoRoll([np.eye(5)[[0, 1, 2]], np.eye(5)[[4, 3]]]),
    "PianoRoll-batch": lambda: ow.PianoRoll([np.eye(5)[[0, 1, 2, 4]]], 2, batch=3, every=True, transpose=1),
    "MemoryChain": ow.MemoryChain,
    "KMemoryChain": ow.KMemoryChain,
    "TMaze": ow.TMaze,
    "RepeatPrevious": ow.RepeatPrevious,
    "RepeatFirst": ow.RepeatFirst,
    "CountRecall": ow.CountRecall,
    "HigherLower": ow.HigherLower,
    "Concentration": ow.Concentration,
    "Concentration-ranks": lambda: ow.Concentration(13, 4),
    "MultiarmedBandit": ow.MultiarmedBandit,
    "MineSweeper": ow.MineSweeper,
    "CartPole": ow.CartPole,
    "CartPole-popgym": ow.CartPole.popgym,
    "Pendulum": ow.Pendulum,
    "Pendulum-seen": lambda: ow.Pendulum(hidden=False, scaled=False),
    "Breakout": ow.Breakout,
    "WithLastAction": lambda: ow.WithLastAction(ow.MultiarmedBandit(3, 5)),
    "WithLastAction-torque": lambda: ow.Streams(ow.Normalised(ow.WithLastAction(ow.Pendulum())), 2),
    "Streams-acting": lambda: ow.Streams(ow.MemoryChain(3), 2),
    "Normalised-acting": lambda: ow.Normalised(ow.MemoryChain(3)),
    "Streams": lambda: ow.Streams(ow.AnBn(), 3),
    "Normalised": lambda: ow.Normalised(ow.TracePatterning(), rewards=ow.ReturnScale(0.9)),
    "OneToManyClasses": lambda: ow.OneToManyClasses(4, batch=3),
    "OneToManyMixture": lambda: ow.OneToManyMixture(4, batch=3, rows=5),
    "TemporalOrder": lambda: ow.TemporalOrder(12, batch=3),
    "TemporalOrder-3": lambda: ow.TemporalOrder(20, bits=3, batch=3),
    "Adding": lambda: ow.Adding(12, batch=3),
    "RandomPermutation": lambda: ow.RandomPermutation(6, symbols=5, batch=3),
}
LEARNERS = {
    "Online": lambda: ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(0.1)),
    "Late": lambda: ow.Late(ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(0.1)), 3),
    "Watched": lambda: ow.Watched(ow.Online(ow.Columnwise(), ow.Supervised(), optax.sgd(0.1)), (ow.SnAp(1),)),
    "BPTT": lambda: ow.BPTT(optax.sgd(0.1)),
    "Frequencies": ow.Frequencies,
    "Preserving": lambda: ow.Preserving(optax.sgd(0.1), 0.5),
    "TPTT": lambda: ow.TPTT(ow.FeedbackInverse(), optax.sgd(0.1)),
}
INVERSES = {
    "IdentityInverse": ow.IdentityInverse,
    "AffineInverse": ow.AffineInverse,
    "AffineInverse-noise": lambda: ow.AffineInverse("sigmoid", noise=0.1),
    "AffineInverse-difference": lambda: ow.AffineInverse(training="difference"),
    "ResidualInverse": lambda: ow.ResidualInverse(width=3),
    "FeedbackInverse": ow.FeedbackInverse,
    "FeedbackInverse-mirrored": lambda: ow.FeedbackInverse(mirrored=True),
    "MemoryInverse": ow.MemoryInverse,
    "SteadyInverse": lambda: ow.SteadyInverse(ow.FeedbackInverse()),
}
OTHERS = {
    "Model": lambda: ow.Model(CELLS["Columns"](), ow.Linear(4)),
    "Moments": ow.Moments,
    "ReturnScale": ow.ReturnScale,
}
# Values that parts hand over, and functions: nothing to build.
PLAIN = {"Carry", "Step", "Sequence", "Info", "Draw", "Episode", "rms", "least_squares", "scale_by_rms", "scale_head"}
PLAIN |= {
    "Horizon",
    "horizon",
    "Staleness",
    "staleness",
    "autostep",
    "idbd",
    "intentional",
    "obgd",
    "on_head",
    "swift_td",
}
PLAIN |= {"chrono", "knots", "orthogonal", "ring", "solved"}
PLAIN |= {"Loop", "fit", "load", "save", "NotFinite", "OnwardError", "Unreadable", "verify"}
PLAIN |= {name for name in ow.__all__ if name.startswith("Abstract")}
