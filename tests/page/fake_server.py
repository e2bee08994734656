"""The page with a fast double instead of the model, whose output is known.

    python tests/page/fake_server.py        prints the page's address

The gain of a query is what it says ("half", "quarter", "nothing"); "slow ..." takes two seconds per block, "broken"
fails. Loading a model takes LOAD_SECONDS.
"""

import os
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "demos"), str(ROOT / "tests")]

from separation import process  # noqa: E402

process.begin("app.py")
import app  # noqa: E402
from gains import GainSeparator, GainStream  # noqa: E402
from page import jobs  # noqa: E402
from page.engine import Engine  # noqa: E402
from page.limits import Limits  # noqa: E402

from separation.pretrained import Card  # noqa: E402


class Stream(GainStream):
    """Prints a line for each block."""

    def __init__(self, queries, channels):
        if "broken" in queries:
            raise RuntimeError("nobody foresaw this")
        super().__init__(queries, channels)
        self.pause = 2.0 * any(isinstance(query, str) and query.startswith("slow") for query in queries)

    def push(self, block):
        time.sleep(self.pause)
        print("block", flush=True)
        return super().push(block)

    @staticmethod
    def presence_of(gain):
        return 0.02 if gain == 0 else min(1.0, 0.5 + gain)


class Separator(GainSeparator):
    """A Separator with these streams."""

    stream_class = Stream


def card(name, description, queries):
    return Card(name, description, queries, 32000, "20 MB", "MIT", "none")


def load(name):
    print("load", name, flush=True)
    time.sleep(float(os.environ.get("LOAD_SECONDS", 0)))
    return Separator()


def main():
    jobs.PATIENCE = 600.0  # on a busy machine, no request for a while does not mean a closed page
    torch.set_num_threads(1)
    cards = [card("double", "gives a known gain", ("text", "audio")), card("other", "the same", ("text",))]
    absent = {"name": "far", "size": "1.2 GB", "licence": "MIT", "description": "elsewhere", "home": ""}
    engine = Engine(cards, load, ["dog bark", "door knock", "rain", "siren"], [absent | {"command": "fetch far"}])
    options = app.parse_arguments(sys.argv[1:])
    return app.serve(engine, options, Limits(minutes=options.max_minutes, megabytes=options.max_megabytes, waiting=4))


if __name__ == "__main__":
    sys.exit(main())
