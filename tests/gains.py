"""A double of the Separator that the command's and the page's tests share: what comes out of it is known.

A query says its gain, in words or as a number; the target is gain * mixture and comes late, as a real one does.
"""

import torch

from separation.listing import Heard

GAINS = {"half": 0.5, "all": 1.0, "none": 0.0, "nothing": 0.0, "double": 2.0, "quarter": 0.25}
OTHER = 0.3
HEARD = [Heard("rain", 0.9, ((0.0, 2.0),)), Heard("door knock", 0.6, ((1.0, 2.0), (3.0, 4.0)))]


def gain_of(query):
    """The gain that a query asks for; an example's is its largest sample."""
    if not isinstance(query, str):
        forms = query.forms()
        return gain_of(forms["text"][0]) if "text" in forms else round(float(forms["audio"][0][0].max()), 3)
    try:
        return GAINS[query] if query in GAINS else float(query)
    except ValueError:
        return OTHER


class GainStream:
    """Gives gain * mixture per query, `held` samples late."""

    held = 4711

    def __init__(self, queries, channels):
        self.gains = torch.tensor([gain_of(query) for query in queries])[:, None, None]
        self.tail = torch.zeros(channels, 0)

    def push(self, block):
        signal = torch.cat([self.tail, block], dim=1)
        ready = max(0, signal.shape[1] - self.held)
        self.tail = signal[:, ready:]
        return self.gains * signal[:, :ready]

    def flush(self):
        return self.gains * self.tail

    @property
    def presence(self):
        return [min(1.0, gain) for gain in self.gains.flatten().tolist()]


class Ears:
    """Counts the samples that it is given."""

    def __init__(self):
        self.samples = 0

    def push(self, block):
        self.samples += block.shape[-1]


class GainSeparator:
    """Has what the command and the page use of a Separator."""

    sample_rate = 32000
    name = "fake"
    stream_class = GainStream

    def __init__(self):
        self.streams = []

    def level(self, blocks):
        return max((float(block.abs().max()) for block in blocks if block.numel()), default=0.0)

    def stream(self, queries, sample_rate, channels, level):
        self.streams.append((tuple(queries), sample_rate, channels, level))
        return self.stream_class(queries, channels)

    def listener(self, sample_rate, level):
        return Ears()

    def heard(self, listener, at_least=0.5, most=None):
        return HEARD[:most] if listener.samples else []

    def encoded(self, query):
        return query
