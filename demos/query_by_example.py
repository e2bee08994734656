"""Query by example: separate what sounds like a recording.

    python demos/query_by_example.py demos/mix.wav out.wav --sound "alarm clock"

The example is synthesised, with another seed than the sound in the mix. `--example FILE` uses a recording of your own,
or a folder of recordings. The command line does the same: separate --query-audio FILE mix.wav
"""

import argparse

from separation import ModelError, Query, Separator
from separation.audio import AudioError
from separation.data.foley import SOUNDS, synthesise

SAMPLE_RATE, SECONDS = 32000, 4.0


def example_of(sound: str, seed: int) -> Query:
    """Return a query by a synthesised recording of a sound."""
    return Query(audio=(synthesise(sound, SECONDS, SAMPLE_RATE, seed), SAMPLE_RATE))


def main(argv: list[str] | None = None) -> int:
    """Separate what sounds like the example and write it; return the exit status."""
    parser = argparse.ArgumentParser(description="Separate what sounds like an example from a recording.")
    parser.add_argument("recording")
    parser.add_argument("output")
    parser.add_argument("--sound", default="dog bark", choices=sorted(SOUNDS), metavar="NAME", help=", ".join(SOUNDS))
    parser.add_argument("--seed", type=int, default=7, help="seed of the synthesised example")
    parser.add_argument("--example", help="a recording, or a folder of recordings, instead of --sound")
    parser.add_argument("--model", default="default", help="model name or directory")
    options = parser.parse_args(argv)
    try:
        query = Query(audio=options.example) if options.example else example_of(options.sound, options.seed)
        separator = Separator.from_pretrained(options.model)
        file = separator.separate_file(options.recording, query, output=options.output)
    except (AudioError, ModelError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    print(f"{options.output}  presence {file.presence[0]:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
