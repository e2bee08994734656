"""The Python API on a file: read it, separate a sound, write both parts.

    python demos/separate_file.py demos/mix.wav "dog barking" --output out

This writes out/mix.dog_barking.wav (the target) and out/mix.not_dog_barking.wav (the residual). To keep the example
simple it holds the whole file in memory; the `separate` command processes files of any length block by block.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from separation import ModelError, Separation, Separator, read, write
from separation.audio import AudioError
from separation.outputs import slug


def separate_file(separator: Separator, recording: Path, query: str, folder: Path) -> tuple[Separation, list[Path]]:
    """Separate one recording; write target and residual as float32 wav; return the result and both paths.

    Raises:
        FileExistsError: if an output exists; nothing is written then.
    """
    outputs = [folder / f"{recording.stem}.{part}{slug(query)}.wav" for part in ("", "not_")]
    if existing := [path for path in outputs if path.exists()]:
        raise FileExistsError(f"{existing[0]} exists already; it is not replaced.")

    mixture, sample_rate = read(recording)  # (channels, time), at any sample rate
    result = separator(mixture, query, sample_rate=sample_rate)

    # Rate, channels and length are those of the input, and target + residual == mixture.
    folder.mkdir(parents=True, exist_ok=True)
    for path, waveform in zip(outputs, (result.target, result.residual), strict=True):
        write(path, waveform, sample_rate)
    return result, outputs


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Separate the sound that a text describes from a file.")
    parser.add_argument("recording", type=Path, help="an audio file, or a video with sound")
    parser.add_argument("query", help='for example "dog barking"')
    parser.add_argument("--output", type=Path, default=Path(), help="folder to write to (default: the current one)")
    parser.add_argument("--model", default="default", help="model name or directory")
    options = parser.parse_args(argv)
    try:
        separator = Separator.from_pretrained(options.model)  # load once, use for many recordings
        result, outputs = separate_file(separator, options.recording, options.query, options.output)
    except (AudioError, ModelError, OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    print(*outputs, f'presence of "{options.query}": {result.presence:.2f}', sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
