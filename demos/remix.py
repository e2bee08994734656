"""List the sounds of a recording, and remix it with some of them louder, softer or removed.

python demos/remix.py demos/mix.wav                                              lists the sounds
python demos/remix.py demos/mix.wav remix.wav "dog barking=off" engine=-6        writes a remix; numbers are dB
"""

import argparse

from separation import ModelError, Separator, read
from separation.audio import AudioError
from separation.inference.changes import parse_gain


def main() -> None:
    """List the sounds; if changes are given, separate these sounds in one pass and add them up again."""
    parser = argparse.ArgumentParser(description="List the sounds of a recording; change the level of some.")
    parser.add_argument("recording")
    parser.add_argument("output", nargs="?", help="the remix; if omitted, the sounds are only listed")
    parser.add_argument("change", nargs="*", help='for example "dog barking=off" or rain=-6')
    parser.add_argument("--model", default="default", help="model name or directory")
    options = parser.parse_intermixed_args()
    try:
        gains = dict(parse_gain(change.replace("=off", "=-inf")) for change in options.change)
        separator = Separator.from_pretrained(options.model)
        for sound in separator.list_sounds(*read(options.recording)):
            times = ", ".join(f"{begin:g}-{end:g} s" for begin, end in sound.times)
            print(f"may be heard: {sound.label} ({sound.probability:.2f}), {times}")
        if gains:  # everything else stays as it is
            file = separator.separate_file(options.recording, gains=gains, output=options.output, overwrite=True)
            for (query, gain), presence in zip(gains.items(), file.presence, strict=True):
                print(f"{query}: presence {presence:.2f}, {gain:+g} dB")
    except (AudioError, ModelError, ValueError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
