"""Query by example: no words, a recording of the sound is what is asked for.

    python demos/query_by_example.py demos/mix.wav out.wav --sound "alarm clock"

The example is synthesised here, another one than that in the mix; `--example FILE` takes a recording of yours, or a
folder of them. The command line has the same: separate --query-audio FILE mix.wav
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from separation import ModelError, Query, Separator
from separation.audio import AudioError, read, write
from separation.data.foley import SOUNDS, synthesise

SAMPLE_RATE, SECONDS = 32000, 4.0


def example_of(sound: str, seed: int) -> Query:
    """A query by a procedural recording of a sound."""
    waveform = synthesise(sound, SECONDS, SAMPLE_RATE, seed)  # (time,)
    return Query(audio=(waveform, SAMPLE_RATE))


def main(argv: list[str] | None = None) -> int:
    """Separates what sounds like the example and writes it; returns the exit status."""
    parser = argparse.ArgumentParser(description="Take out of a recording what sounds like an example.")
    parser.add_argument("recording", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--sound", default="dog bark", choices=sorted(SOUNDS), metavar="NAME", help=", ".join(SOUNDS))
    parser.add_argument("--seed", type=int, default=7, help="another seed, another example")
    parser.add_argument("--example", type=Path, help="a recording or a folder of them, in place of --sound")
    parser.add_argument("--model", default="default", help="a name or a model directory")
    options = parser.parse_args(argv)
    try:
        mixture, sample_rate = read(options.recording)  # (channels, time)
        query = Query(audio=options.example) if options.example else example_of(options.sound, options.seed)
        result = Separator.from_pretrained(options.model)(mixture, query, sample_rate=sample_rate)
        write(options.output, result.target, sample_rate)
    except (AudioError, ModelError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    print(f"{options.output}  presence {result.presence:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
