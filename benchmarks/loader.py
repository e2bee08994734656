"""How fast batches are drawn from a packed corpus of any size, without recordings: rows and samples are made up.

    python benchmarks/loader.py --rows 1000 2000000
    python benchmarks/loader.py --pictures 32

All rows lie in one stretch of noise, so that the disk takes no part. For each recipe it prints the CPU seconds and the
memory that opening the corpus takes, and the mixtures or clips per CPU second of one process. With --pictures it draws
mixtures as clipsep.yaml does and encodes their pictures by CLIP (random weights), in a first training and, with the
vectors that it kept, in a second one.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from separation.data.captioned import CaptionedData
from separation.data.corpus import INDEX, SAMPLES
from separation.data.manifest import MANIFEST, Clip, read_entries, write_manifest
from separation.data.pictures import draw_picture
from separation.data.queried import QueriedData
from separation.data.tagged import TaggedData
from separation.encoders.clip import ClipEncoder
from separation.models.clipsep_unet import CLIPSepUNet
from separation.training.objectives.supervised import Supervised

RATE, SECONDS = 32000, 10
LABELS = [f"sound {number}" for number in range(500)]
RECIPES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "audiosep.yaml": (QueriedData, {"text": "caption", "seconds": 5.0}),
    "panns.yaml": (TaggedData, {"seconds": 10.0}),
    "bimodal.yaml": (CaptionedData, {"seconds": 4.1, "clips": 2, "slots": 2}),
}


def write_corpus(folder: Path, rows: int) -> None:
    """Write a packed corpus of captioned 10-s clips; a fifth of them have the first label, as speech in AudioSet."""
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal(60 * RATE) * 4000).astype(np.int16)
    noise.tofile(folder / SAMPLES)
    classes = np.where(rng.random(rows) < 0.2, 0, rng.integers(len(LABELS), size=rows))
    starts = rng.integers(len(noise) - SECONDS * RATE, size=rows)
    index = {"sample_rate": RATE, "samples": len(noise), "clips": rows, "starts": starts.tolist()}
    index |= {"lengths": [SECONDS * RATE] * rows, "peaks": [1.0] * rows}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")

    def entries() -> Iterator[tuple[str, Clip]]:
        for number, label in enumerate(classes):
            caption = f"{LABELS[label]} and {LABELS[(number * 7 + 1) % len(LABELS)]}"
            yield "train", Clip(f"{number}.wav", LABELS[label], caption, f"made:{number}", "made", SECONDS)

    write_manifest(folder / MANIFEST, entries())


def measure_pictures(folder: Path, clips: int, batches: int) -> None:
    """Print the mixtures of `clips` clips, with ten pictures each, that are drawn and encoded per CPU second."""
    write_corpus(folder, clips)
    entries = list(read_entries(folder / MANIFEST))
    for number, (_, clip) in enumerate(entries):
        (folder / str(number)).mkdir()
        for second in range(SECONDS):
            draw_picture(clip.label, number * SECONDS + second, 256).save(folder / str(number) / f"{second:06d}.jpg")
    framed = [(split, replace(clip, frame=f"{number}/*.jpg")) for number, (split, clip) in enumerate(entries)]
    write_manifest(folder / MANIFEST, framed)
    encoder = ClipEncoder(prompts="photo")
    for training in ("first", "second"):
        data = QueriedData(
            manifest=folder, batch_size=8, batches=batches, seconds=4.1, frames=3, distinct=False, balance=1.0,
            vectors=folder / "vectors.sqlite",
        )  # fmt: skip
        data.load()
        module = Supervised(CLIPSepUNet(condition_dim=encoder.embedding_dim), encoder, "binary_mask", ["image"])
        module.trainer = SimpleNamespace(datamodule=data, global_step=0)  # type: ignore[assignment]
        module.on_fit_start()
        began = time.process_time()
        for batch in data.train_dataloader():
            module.conditions(batch)
        print(
            f"{training} training: {8 * batches / (time.process_time() - began):.2f} mixtures per CPU second",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 100_000], help="sizes of the corpus")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), help="default: all")
    parser.add_argument("--batches", type=int, default=20, help="batches to draw (default: 20)")
    parser.add_argument("--pictures", type=int, metavar="CLIPS", help="measure clipsep.yaml on so many clips instead")
    options = parser.parse_args()
    if options.pictures:
        with tempfile.TemporaryDirectory() as name:
            measure_pictures(Path(name), options.pictures, options.batches)
        return 0
    print("| rows | recipe | opened in s | memory GB | items per CPU second, first 2 batches | afterwards |")
    print("|---|---|---|---|---|---|")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as name:
            write_corpus(Path(name), rows)
            for recipe in options.recipes:
                kind, settings = RECIPES[recipe]
                began = time.process_time()
                data = kind(manifest=Path(name), batch_size=32, batches=options.batches + 2, **settings)
                data.load()
                opened, times = time.process_time() - began, [time.process_time()]
                for _ in islice(data.train_dataloader(), options.batches + 2):
                    times.append(time.process_time())
                first, later = (
                    32 * n / t for n, t in ((2, times[2] - times[0]), (options.batches, times[-1] - times[2]))
                )
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
                print(f"| {rows} | {recipe} | {opened:.1f} | {memory:.1f} | {first:.0f} | {later:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
