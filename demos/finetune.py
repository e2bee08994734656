"""Teach a model the sounds in a folder of your own: one subfolder of clips a sound, named as you will ask for it.

    python demos/finetune.py my_clips my_model --steps 300           my_clips/door bell/1.wav, my_clips/dog/2.wav, ...
    separate --model my_model --query "door bell" mix.wav

Your clips are mixed with each other and with procedural sounds, so a few of a sound are enough to begin with.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import lightning
import soundfile

from separation.data.datamodule import MixtureData
from separation.data.manifest import COLUMNS
from separation.hub import build, find_model, read_config, save_model
from separation.objectives.bands import BandSupervised
from separation.objectives.optimisers import AdamW


def write_manifest(folder: Path, file: Path) -> None:
    """Every clip as a row: its subfolder's name is its label and its caption."""
    clips = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in (".wav", ".flac", ".ogg", ".mp3"))
    with file.open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        for path in clips:
            place, label = path.relative_to(folder).as_posix(), path.parent.name
            writer.writerow([place, "train", label, label, place, "own", soundfile.info(path).duration])


def main(argv: list[str] | None = None, **data: object) -> None:
    """Command line; `data` goes to `MixtureData`."""
    parser = argparse.ArgumentParser(description="Teach a model the sounds in a folder of your own.")
    parser.add_argument("clips", type=Path, help="folder of folders of clips")
    parser.add_argument("output", type=Path, help="model directory to write")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--start-from", default="default", help="a model's name or its directory")
    options = parser.parse_args(argv)
    source = find_model(options.start_from)
    config = read_config(source)
    model, encoder = build(config["model"]), build(config["encoder"])
    optimiser = AdamW(lr=2e-4, warmup=min(50, options.steps // 2))
    objective = BandSupervised(model, encoder, start_from=str(source), optimiser=optimiser, absent_from=0, ema=0.99)
    with tempfile.TemporaryDirectory() as scratch:
        write_manifest(options.clips, manifest := Path(scratch) / "manifest.csv")
        mixtures = MixtureData(manifest, options.clips, batches=options.steps, **({"batch_size": 4, "foley": 2} | data))
        quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        lightning.Trainer(max_epochs=1, devices=1, gradient_clip_val=5.0, **quiet).fit(objective, mixtures)
    save_model(options.output, config, objective.average, objective.encoder)


if __name__ == "__main__":
    main()
