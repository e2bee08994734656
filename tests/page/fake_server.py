"""The page with a double in the place of the model: quick, and what comes out of it is known.

    python tests/page/fake_server.py        prints the page's address

A query's gain is what it says ("half", "quarter", "nothing"); "slow ..." takes a second for each block, "broken" fails.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "demos")]

import app  # noqa: E402
from page.engine import Engine  # noqa: E402
from page.limits import Limits  # noqa: E402

GAINS = {"half": 0.5, "quarter": 0.25, "nothing": 0.0}


class Stream:
    """Gives gain * mixture, `held` samples late as a real one does."""

    held = 4711

    def __init__(self, queries, channels):
        if "broken" in queries:
            raise RuntimeError("nobody foresaw this")
        self.pause = float(any(query.startswith("slow") for query in queries))
        self.gains = torch.tensor([GAINS.get(query, 0.1) for query in queries])[:, None, None]
        self.tail = torch.zeros(channels, 0)

    def push(self, block):
        time.sleep(self.pause)
        print("block", flush=True)
        signal = torch.cat([self.tail, block], dim=1)
        ready = max(0, signal.shape[1] - self.held)
        self.tail = signal[:, ready:]
        return self.gains * signal[:, :ready]

    def flush(self):
        return self.gains * self.tail

    @property
    def presence(self):
        return [0.02 if gain == 0 else 0.5 + gain for gain in self.gains.flatten().tolist()]


class Separator:
    """Has what the page uses of a Separator."""

    def level(self, blocks):
        return max(float(block.abs().max()) for block in blocks)

    def stream(self, queries, sample_rate, channels, level):
        return Stream(queries, channels)


def card(name, description):
    return SimpleNamespace(
        name=name, description=description, queries=("text",), sample_rate=32000, size="20 MB",
        licence="MIT", scores="none",
    )  # fmt: skip


def main():
    torch.set_num_threads(1)
    cards = [card("double", "gives a known gain"), card("other", "the same")]
    engine = Engine(cards, lambda name: Separator(), ["dog bark", "door knock", "rain", "siren"])
    options = app.parse(sys.argv[1:])
    app.serve(engine, options, Limits(minutes=options.max_minutes, megabytes=options.max_megabytes, waiting=4))


if __name__ == "__main__":
    main()
