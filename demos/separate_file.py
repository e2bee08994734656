"""The Python API on a file: separate a sound, write it and the rest of the recording.

    python demos/separate_file.py demos/mix.wav "dog barking" --output out

This writes out/mix.dog_barking.wav (the target) and out/mix.not_dog_barking.wav (the residual), block by block. Rate,
channels and length are those of the recording.
"""

import argparse

from separation import ModelError, Separator
from separation.audio import AudioError


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Separate the sound that a text describes from a file.")
    parser.add_argument("recording", help="an audio file, or a video with sound")
    parser.add_argument("query", help='for example "dog barking"')
    parser.add_argument("--output", default=".", help="folder to write to (default: the current one)")
    parser.add_argument("--model", default="default", help="model name or directory")
    options = parser.parse_args(argv)
    try:
        separator = Separator.from_pretrained(options.model)  # load once, use for many recordings
        file = separator.separate_file(options.recording, options.query, output=options.output, residual=True)
    except (AudioError, ModelError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    print(*file.outputs, f'presence of "{options.query}": {file.presence[0]:.2f}', sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
