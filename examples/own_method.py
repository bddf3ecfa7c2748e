"""A method of your own beside a paper's: a plain layer on the streams of `memory`.

onward run memory --with examples/own_method.py:plain_rnn --methods rtrl,snap-1,plain-rnn
"""

import onward as ow
from onward.lab import metrics
from onward.lab.method import Method
from onward.lab.papers.memory import MemoryExperiment


def plain_rnn(experiment: MemoryExperiment) -> Method:
    """Tanh units with exact gradients, on the stream that the fields of the experiment describe."""
    task = experiment.stream
    return Method(
        name="plain-rnn",
        task=task,
        model=lambda key: ow.Model(ow.Elman(task.inputs, 12, key=key), ow.Categorical(12, experiment.classes)),
        learner=lambda model, step_size: ow.Online(ow.RTRL(), ow.Supervised(), ow.rms(0.999), step_size),
        steps=experiment.steps,
        measure=metrics.stream_loss,
        metric="nats",
        note="a layer of 12 tanh units",
    )


plain_rnn.step_size = 3e-3
