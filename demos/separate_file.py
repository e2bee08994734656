"""The Python API on a file: read it, take a sound out, write both parts.

    python demos/separate_file.py demos/mix.wav "dog barking" --output out

writes out/mix.dog_barking.wav (the target) and out/mix.not_dog_barking.wav (the residual). This script holds the
whole file in memory, to keep the example plain; the `separate` command reads files of any length block by block.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import soundfile

from separation import ModelError, Separation, Separator
from separation.cli_outputs import slug


def separate_file(separator: Separator, recording: Path, query: str, folder: Path) -> tuple[Separation, list[Path]]:
    """Separates one recording and writes target and residual as float32 wav; returns both and the two paths.

    Raises:
        FileExistsError: an output is there already; nothing is written.
    """
    outputs = [folder / f"{recording.stem}.{part}{slug(query)}.wav" for part in ("", "not_")]
    if taken := [path for path in outputs if path.exists()]:
        raise FileExistsError(f"{taken[0]} exists already; it is not replaced.")

    # soundfile gives (time, channels); a Separator takes (channels, time), at any sample rate.
    samples, sample_rate = soundfile.read(recording, dtype="float32", always_2d=True)
    result = separator(samples.T, query, sample_rate=sample_rate)

    # Rate, channels and length are the input's, and target + residual == mixture.
    folder.mkdir(parents=True, exist_ok=True)
    for path, waveform in zip(outputs, (result.target, result.residual), strict=True):
        soundfile.write(path, waveform.T.numpy(), sample_rate, subtype="FLOAT")
    return result, outputs


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Take the sound that a text describes out of a file.")
    parser.add_argument("recording", type=Path, help="any file that soundfile reads")
    parser.add_argument("query", help='for example "dog barking"')
    parser.add_argument("--output", type=Path, default=Path(), help="folder to write to (default: the current one)")
    parser.add_argument("--model", default="default", help="a model's name or its directory")
    options = parser.parse_args(argv)
    try:
        separator = Separator.from_pretrained(options.model)  # load once, use for many recordings
        result, outputs = separate_file(separator, options.recording, options.query, options.output)
    except (ModelError, OSError, ValueError, soundfile.SoundFileError) as error:
        parser.exit(1, f"{error}\n")
    print(*outputs, f'presence of "{options.query}": {result.presence:.2f}', sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
