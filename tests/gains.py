"""A Separator that multiplies: the tests of the command and of the page know what comes out of it.

A query says its gain, in words or as a number; the target is gain * mixture and is delayed, as a network's is.
"""

import torch

from separation import cli
from separation.inference.suggestions import Hint
from separation.listing import DetectedSound
from separation.separator import Separator, Stream

GAINS = {"half": 0.5, "all": 1.0, "none": 0.0, "nothing": 0.0, "double": 2.0, "quarter": 0.25}
OTHER = 0.3
HEARD = [
    DetectedSound("rain", 0.9, ((0.0, 2.0),)),
    DetectedSound("door knock", 0.6, ((1.0, 2.0), (3.0, 4.0))),
]


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
        self.conditions = self.gains = torch.tensor([gain_of(query) for query in queries])[:, None, None]
        self.tail = torch.zeros(channels, 0)
        self.parts = [query.split(" then ") if isinstance(query, str) else [] for query in queries]

    def push(self, block):
        signal = torch.cat([self.tail, block], dim=1)
        ready = max(0, signal.shape[1] - self.held)
        self.tail = signal[:, ready:]
        return self.gains * signal[:, :ready]

    def flush(self):
        return self.gains * self.tail

    def limit(self, begin, end):
        return 0, float("inf")

    separate = Stream.separate

    @property
    def queries(self):
        return len(self.gains)

    @property
    def part_presence(self):
        """That of the gain of each part of "half then quarter"."""
        found = [{part: self.presence_of(gain_of(part)) for part in parts} for parts in self.parts]
        return [each if len(each) > 1 else {} for each in found]

    @property
    def presence(self):
        return [self.presence_of(gain) for gain in self.gains.flatten().tolist()]

    @staticmethod
    def presence_of(gain):
        return min(1.0, gain)


class GainSeparator(Separator):
    """Overrides what depends on a network."""

    stream_class = GainStream
    listed_sounds, listing_conditions = (), ()

    def __init__(self):
        self.sample_rate, self.name = 32000, "fake"
        self.streams, self.shared = [], []

    def level(self, blocks, sample_rate):
        return max((float(block.abs().max()) for block in blocks if block.numel()), default=0.0)

    def stream(self, queries, sample_rate, channels, level, share=False, summed=False):
        self.streams.append((tuple(queries), sample_rate, channels, level))
        self.shared.append(share)
        return self.stream_class(queries, channels)

    def list_sounds_in_blocks(self, blocks, sample_rate, level, at_least=0.5, most=None, span=None):
        blocks = span.cut(blocks, sample_rate) if span else blocks
        return HEARD[:most] if sum(block.shape[-1] for block in blocks) else []

    def suggest(self, query):
        return [Hint(query, 0.1, None, {"rain": 0.5})] if query == "nothing" else []

    def encode(self, query):
        return query if isinstance(query, str) or query.negative else query.name


def run(*arguments):
    """Run `separate` in this process; returns its exit status."""
    return cli.main([str(argument) for argument in arguments])
