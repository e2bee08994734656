"""The main job as a person does it: two recordings mixed in stereo, separated by the command, measured, drawn.

    python benchmarks/real_mix.py --data FOLDER --out FOLDER

Of each label the first validation recording of the manifest is taken, so nothing is picked by ear. Prints what each
query gains, dB, and how far the output of a query for something absent lies under the mixture; writes mix, targets,
residuals and their spectrograms.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from speed import environment
from torch import from_numpy

from separation.audio import read, resample, write
from separation.data.manifest import read_manifest
from separation.evaluate.metrics import sdri, suppression

RATE, SECONDS = 44100, 10
ASKED = {  # the manifest's label: what a person types
    "rooster crow": "a rooster", "vacuum cleaner": "vacuum cleaner", "frog": "frogs croaking",
    "thunderstorm": "thunder",
    "baby cry": "a crying baby", "rain": "rain", "crow caw": "crow", "washing machine": "washing machine",
}  # fmt: skip
PAIRS = (  # one sound, the other, what is asked for in vain
    ("rooster crow", "vacuum cleaner", "church bells"),
    ("frog", "thunderstorm", "violin"),
    ("baby cry", "rain", "dog barking"),
    ("crow caw", "washing machine", "violin"),
)
PANS = ((0.8, 0.35), (0.4, 0.7))  # left and right


def recording(data: Path, label: str, pan: tuple[float, float]) -> np.ndarray:
    """The label's first validation recording at one level, repeated to ten seconds and panned: (2, time)."""
    clip = next(clip for clip in read_manifest(data / "manifest.csv", "validation") if clip.label == label)
    wave, rate = read(data / clip.path)
    mono = resample(wave.mean(0, keepdim=True), rate, RATE)[0].numpy()
    mono = np.resize(mono, SECONDS * RATE)
    mono = 0.1 * mono / np.sqrt(np.mean(np.square(mono)))
    return np.stack([gain * mono for gain in pan])


def separated(mix: Path, queries: list[str], out: Path) -> dict[str, object]:
    """What `separate --json` says of one file."""
    words = [word for query in queries for word in ("--query", query)]
    command = [sys.executable, "-m", "separation.cli", *words, str(mix), "-o", str(out)]
    done = subprocess.run(
        [*command, "--residual", "--plot", "--overwrite", "--json", "--quiet"],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv and the recordings")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print("| mixture | query | SDRi, dB | under the mixture, dB | presence |\n|---|---|---|---|---|")
    for first, second, absent in PAIRS:
        labels = zip((first, second), PANS, strict=True)
        waves = {ASKED[label]: recording(options.data, label, pan) for label, pan in labels}
        mixture = np.sum(list(waves.values()), axis=0).astype(np.float32)
        path = options.out / f"{first.replace(' ', '_')}_and_{second.replace(' ', '_')}.wav"
        write(path, from_numpy(mixture), RATE, overwrite=True)
        queries = [*waves, absent]
        said = separated(path, queries, options.out)
        for query in queries:
            target = read(said["targets"][query])[0].numpy()  # type: ignore[index]
            gain = f"{sdri(waves[query], target, mixture):.1f}" if query in waves else "absent"
            under = suppression(mixture, target)
            presence = said["presence"][query]  # type: ignore[index]
            print(f"| {first}, {second} | {query} | {gain} | {under:.1f} | {presence:.2f} |", flush=True)


if __name__ == "__main__":
    main()
