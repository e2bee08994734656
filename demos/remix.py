"""List the sounds of a recording, and remix it with some of them louder, softer or removed.

python demos/remix.py demos/mix.wav                                              lists the sounds
python demos/remix.py demos/mix.wav remix.wav "dog barking=off" engine=-6        writes a remix; numbers are dB
"""

from __future__ import annotations

import argparse
import sys

from separation import Separator
from separation.audio import read, write
from separation.changes import parse_gain


def gain_of(change: str) -> tuple[str, float]:
    """Return query and gain in dB of a change: rain=-6 is ("rain", -6.0), rain=off is ("rain", -inf)."""
    try:
        query, gain = parse_gain(change.removesuffix("off") + "-inf" if change.endswith("=off") else change)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return query.strip(), gain


def main() -> int:
    """List the sounds; if changes are given, separate these sounds in one pass and add them up again."""
    parser = argparse.ArgumentParser(description="List the sounds of a recording; change the level of some.")
    parser.add_argument("recording")
    parser.add_argument("output", nargs="?", help="the remix; if omitted, the sounds are only listed")
    parser.add_argument("change", nargs="*", type=gain_of, help='for example "dog barking=off" or rain=-6')
    parser.add_argument("--model", default="default", help="model name or directory")
    options = parser.parse_intermixed_args()

    mixture, sample_rate = read(options.recording)
    separator = Separator.from_pretrained(options.model)
    for sound in separator.list_sounds(mixture, sample_rate):
        times = ", ".join(f"{begin:g}-{end:g} s" for begin, end in sound.times)
        print(f"may be heard: {sound.label} ({sound.probability:.2f}), {times}")
    if not options.change:
        return 0
    remix = separator.remix(mixture, options.change, sample_rate)  # everything else stays as it is
    for (query, gain), presence in zip(options.change, remix.presence, strict=True):
        print(f"{query}: presence {presence:.2f}, {gain:+g} dB")
    write(options.output, remix.waveform, sample_rate, overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
