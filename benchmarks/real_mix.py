"""Mixes two real recordings in stereo, separates them with the command, and measures and draws the results.

    python benchmarks/real_mix.py --data FOLDER --out FOLDER

The first validation recording of each label in the manifest is used, so none is chosen by ear. Prints the SDRi of each
query in dB, and how far the output for an absent query lies below the mixture; writes mixtures, targets, residuals and
their spectrograms.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from common import find_data, make_parser, run_benchmark, run_python, separate_words, write_json
from torch import from_numpy

from separation.audio import read, resample, write
from separation.data.manifest import MANIFEST, read_manifest
from separation.errors import DataError
from separation.evaluate.metrics import sdri, suppression
from separation.evaluate.tables import markdown

RATE, SECONDS = 44100, 10
PAIRS = (  # label and query of both sounds, an absent query
    (("rooster crow", "a rooster"), ("vacuum cleaner", "vacuum cleaner"), "church bells"),
    (("frog", "frogs croaking"), ("thunderstorm", "thunder"), "violin"),
    (("baby cry", "a crying baby"), ("rain", "rain"), "dog barking"),
    (("crow caw", "crow"), ("washing machine", "washing machine"), "violin"),
)
PANS = ((0.8, 0.35), (0.4, 0.7))  # left and right


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = make_parser(__doc__, mixtures=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    options = parser.parse_args(argv)
    root, files = find_data(options), {}
    for clip in read_manifest(root / MANIFEST, "validation"):
        files.setdefault(clip.label, root / clip.path)  # the first
    for label in (label for *sounds, _ in PAIRS for label, _ in sounds):
        if label not in files:
            raise DataError(f"{root / MANIFEST}: there is no validation recording of “{label}”.")
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for *sounds, absent in PAIRS[:: options.every]:
        waves = {}
        for (label, query), pan in zip(sounds, PANS, strict=True):
            wave, rate = read(files[label])
            mono = resample(wave.mean(0, keepdim=True), rate, RATE)[0].numpy()
            mono = np.resize(mono, SECONDS * RATE)  # repeated if it is shorter
            waves[query] = np.outer(pan, 0.1 * mono / np.sqrt(np.mean(np.square(mono))))
        mixture = np.sum(list(waves.values()), axis=0).astype(np.float32)
        name = "_and_".join(label for label, _ in sounds).replace(" ", "_")
        path = options.out / f"{name}.wav"
        write(path, from_numpy(mixture), RATE, overwrite=True)
        more = ("--residual", "--plot", "--json", "--model", options.model)
        record = json.loads(run_python(*separate_words(path, options.out, [*waves, absent], *more)))
        for query, presence in record["presence"].items():
            target = read(record["targets"][query])[0].numpy()
            gain = f"{sdri(waves[query], target, mixture):.1f}" if query in waves else "absent"
            rows.append((name, query, gain, f"{suppression(mixture, target):.1f}", f"{presence:.2f}"))
    head = ("mixture", "query", "SDRi, dB", "under the mixture, dB", "presence")
    print(markdown(head, rows))
    write_json(options.json, [dict(zip(head, row, strict=True)) for row in rows])


if __name__ == "__main__":
    run_benchmark(main)
