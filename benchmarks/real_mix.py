"""Mixes two real recordings in stereo, separates them with the command, and measures and draws the results.

    python benchmarks/real_mix.py --data FOLDER --out FOLDER

The first validation recording of each label in the manifest is used, so none is chosen by ear. Prints the SDRi of each
query in dB, and how far the output for an absent query lies below the mixture; writes mixtures, targets, residuals and
their spectrograms.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from common import run_python, separate_words
from torch import from_numpy

from separation.audio import read, resample, write
from separation.data.manifest import read_manifest
from separation.evaluate.metrics import sdri, suppression

RATE, SECONDS = 44100, 10
PAIRS = (  # label and query of both sounds, an absent query
    (("rooster crow", "a rooster"), ("vacuum cleaner", "vacuum cleaner"), "church bells"),
    (("frog", "frogs croaking"), ("thunderstorm", "thunder"), "violin"),
    (("baby cry", "a crying baby"), ("rain", "rain"), "dog barking"),
    (("crow caw", "crow"), ("washing machine", "washing machine"), "violin"),
)
PANS = ((0.8, 0.35), (0.4, 0.7))  # left and right


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv and the recordings")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    clips = read_manifest(options.data / "manifest.csv", "validation")
    print("| mixture | query | SDRi, dB | under the mixture, dB | presence |\n|---|---|---|---|---|")
    for *sounds, absent in PAIRS:
        waves = {}
        for (label, query), pan in zip(sounds, PANS, strict=True):
            wave, rate = read(options.data / next(clip.path for clip in clips if clip.label == label))
            mono = resample(wave.mean(0, keepdim=True), rate, RATE)[0].numpy()
            mono = np.resize(mono, SECONDS * RATE)  # repeated if it is shorter
            waves[query] = np.outer(pan, 0.1 * mono / np.sqrt(np.mean(np.square(mono))))
        mixture = np.sum(list(waves.values()), axis=0).astype(np.float32)
        labels = [label for label, _ in sounds]
        path = options.out / f"{'_and_'.join(labels).replace(' ', '_')}.wav"
        write(path, from_numpy(mixture), RATE, overwrite=True)
        queries = [*waves, absent]
        record = json.loads(run_python(*separate_words(path, options.out, queries, "--residual", "--plot", "--json")))
        for query in queries:
            target = read(record["targets"][query])[0].numpy()
            gain = f"{sdri(waves[query], target, mixture):.1f}" if query in waves else "absent"
            under, presence = suppression(mixture, target), record["presence"][query]
            print(f"| {', '.join(labels)} | {query} | {gain} | {under:.1f} | {presence:.2f} |", flush=True)


if __name__ == "__main__":
    main()
