"""Fine-tune a model on your own clips: one subfolder per sound, whose name is the text query for it.

    python demos/finetune.py my_clips my_model --steps 300           my_clips/door bell/1.wav, my_clips/dog/2.wav, ...
    separate --model my_model --query "door bell" mix.wav

The clips are mixed with each other and with procedural sounds, so a few clips per sound are enough to begin with.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import soundfile

from separation.data.datamodule import MixtureData
from separation.data.manifest import Clip, write_manifest
from separation.pretrained import build, find_model, read_config, save_model
from separation.training.objectives.bands import BandSupervised
from separation.training.optimiser import AdamW


def clip_of(path: Path, folder: Path) -> Clip:
    """Return a clip as a row of the manifest; the name of its subfolder is its label and its caption."""
    place, label = path.relative_to(folder).as_posix(), path.parent.name
    return Clip(place, label, label, place, "own", soundfile.info(path).duration)


def main(argv: list[str] | None = None, **data: object) -> None:
    """Run the command line; `data` overrides arguments of `MixtureData`."""
    parser = argparse.ArgumentParser(description="Fine-tune a model on your own clips.")
    parser.add_argument("clips", type=Path, help="folder with one subfolder of clips per sound")
    parser.add_argument("output", type=Path, help="model directory to write")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--start-from", default="default", help="model name or directory")
    options = parser.parse_args(argv)
    from lightning import Trainer  # after separation, which makes it importable beside any torchvision

    clips = sorted(path for path in options.clips.glob("*/*") if path.suffix in (".wav", ".flac", ".ogg", ".mp3"))
    source = find_model(options.start_from)
    config = read_config(source)
    model, encoder = build(config["model"]), build(config["encoder"])
    optimiser = AdamW(lr=2e-4, warmup=min(50, options.steps // 2))
    objective = BandSupervised(model, encoder, start_from=str(source), optimiser=optimiser, absent_from=0, ema=0.99)
    with tempfile.TemporaryDirectory() as scratch:
        manifest = Path(scratch) / "manifest.csv"
        write_manifest(manifest, [("train", clip_of(path, options.clips)) for path in clips])
        mixtures = MixtureData(manifest, options.clips, batches=options.steps, **({"batch_size": 4, "foley": 2} | data))
        quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        Trainer(max_epochs=1, devices=1, gradient_clip_val=5.0, **quiet).fit(objective, mixtures)
    save_model(options.output, config, objective.average, objective.encoder)


if __name__ == "__main__":
    main()
