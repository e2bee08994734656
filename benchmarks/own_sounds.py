"""Teaches a model five sounds (conf/recipe/finetune.yaml), and measures what it gained and what the old sounds lost.

    python benchmarks/own_sounds.py --data FOLDER --model small --sounds saxophone drawer
    python benchmarks/own_sounds.py --data FOLDER --model default            # five procedural sounds of its own

The recordings of `--sounds` are those of FOLDER/manifest_all.csv. Every fifth is held out, and mixed with recordings of
the validation list at -5, 0 and 5 dB. The old sounds are those of the list, every sixth row. Further words are options
of separation-train.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from common import LIST, ROOT, find_data, make_parser, run_benchmark

from separation import Separator
from separation.data.fixed_mixtures import Row, read_rows, render
from separation.data.manifest import Clip, Entry, absolute_entries, read_entries, write_manifest
from separation.datasets.folder import assign_splits, prepare_folder
from separation.evaluate.tables import compare
from separation.training import cli

RATE, CLIPS = 32000, 12
SNR_DB = (-5, 0, 5)


def synthesise(sound: str, rng: np.random.Generator) -> np.ndarray:
    """Three seconds of one of five sounds that no model knows (time,)."""
    time = np.arange(3 * RATE) / RATE
    if sound == "robot siren":  # two tones at an odd interval, in turn, with odd harmonics
        turn = (time * rng.uniform(1.5, 3)) % 1 < 0.5
        hz = rng.uniform(500, 900) * np.where(turn, 1.0, rng.uniform(1.55, 1.75))
        phase = 2 * np.pi * np.cumsum(hz) / RATE
        return np.sin(phase) + 0.5 * np.sin(3 * phase) + 0.3 * np.sin(5 * phase)
    if sound == "laser bird":  # chirps with frequency modulation
        each, hz = rng.uniform(0.25, 0.6), rng.uniform(1500, 3000)
        place = time % each
        sweep = hz * np.exp(-4 * place) + 300 * np.sin(2 * np.pi * rng.uniform(25, 60) * place)
        return np.sin(2 * np.pi * np.cumsum(sweep) / RATE + 2 * np.sin(2 * np.pi * 90 * place)) * np.exp(-5 * place)
    if sound == "steam press":  # pulsed noise, high-passed, with a thump
        each = rng.uniform(0.5, 1.0)
        place, noise = time % each, np.diff(rng.standard_normal(len(time) + 1))
        thump = np.sin(2 * np.pi * rng.uniform(50, 80) * place) * np.exp(-30 * place)
        return noise * np.clip(8 * place, 0, 1) * np.exp(-rng.uniform(5, 9) * place) + 2 * thump
    if sound == "crystal machine":  # inharmonic partials struck at irregular times
        wave = np.zeros(len(time))
        base = rng.uniform(700, 1100)
        for start in np.cumsum(rng.uniform(0.08, 0.35, 12)):
            since = np.maximum(time - start, 0)
            tone = sum(
                np.sin(2 * np.pi * base * ratio * since) * np.exp(-6 * since * ratio) for ratio in (1, 2.76, 5.4)
            )
            wave += rng.uniform(0.4, 1) * tone * (time >= start)
        return wave
    low = rng.uniform(60, 110)  # "mud engine": a buzz whose brightness wobbles
    wobble = 1 + np.sin(2 * np.pi * rng.uniform(3, 6) * time)
    phase = 2 * np.pi * np.cumsum(low * (1 + 0.04 * np.sin(2 * np.pi * 2 * time))) / RATE
    return sum(np.sin(k * phase) * np.exp(-k / (3 + 9 * wobble)) for k in range(1, 40))


SYNTHETIC = ("robot siren", "laser bird", "steam press", "crystal machine", "mud engine")


def write_synthetic(folder: Path) -> Path:
    """Write clips of the synthetic sounds, one subfolder each, and their manifest."""
    for number, sound in enumerate(SYNTHETIC):
        (folder / sound).mkdir(parents=True, exist_ok=True)
        for clip in range(CLIPS):
            wave = synthesise(sound, np.random.default_rng((number, clip)))
            wave = wave + 0.003 * np.random.default_rng(clip).standard_normal(len(wave)) * np.abs(wave).max()
            soundfile.write(folder / sound / f"{clip:02d}.wav", 0.5 * wave / np.abs(wave).max(), RATE)
    prepare_folder(folder, folder / "manifest.csv")
    return folder / "manifest.csv"


def write_chosen(folder: Path, data: Path, sounds: list[str]) -> Path:
    """Write the manifest of some sounds of manifest_all.csv, every fifth recording of each held out."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = absolute_entries(read_entries(data / "manifest_all.csv"), data)
    entries: list[Entry] = assign_splits([("", clip) for _, clip in listed if clip.label in sounds])
    write_manifest(folder / "manifest.csv", entries)
    return folder / "manifest.csv"


def held_out_rows(clips: list[Clip], others: list[Row], data: Path) -> list[Row]:
    """Three rows for each clip: with a recording of the list at each SNR."""
    rows = []
    for number, clip in enumerate(clips):
        for turn, snr in enumerate(SNR_DB):
            other = others[(7 * number + 31 * turn) % len(others)]
            row = {"id": f"{number}.{snr}", "kind": "pair", "query": clip.label, "snr_db": str(snr)}
            row |= {"target": clip.path, "recording": clip.recording, "target_seconds": "", "target_start": "0"}
            row |= {"interference1": str(data / other["target"]), "interference1_start": other["target_start"]}
            rows.append(row | {"interference1_offset": other["target_offset"]})
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, mixtures=True, every=6)
    parser.add_argument("--sounds", nargs="+", default=[], metavar="LABEL", help="labels of manifest_all.csv")
    parser.add_argument("--out", type=Path, default=Path("runs/own_sounds"), metavar="FOLDER")
    parser.add_argument("--measure", action="store_true", help="only measure what is in --out")
    options, more = parser.parse_known_args()
    root = find_data(options)
    listed = read_rows(root / LIST)
    manifest = write_chosen(options.out, root, options.sounds) if options.sounds else None
    manifest = manifest or write_synthetic(options.out / "clips")
    run = options.out / "run"
    if not options.measure:
        recipe = str(ROOT / "conf" / "recipe" / "finetune.yaml")
        words = ["fit", "--config", recipe, "--data.manifest", str(manifest), "--model.base", options.model, *more]
        sys.argv = ["separation-train", *words, "--trainer.default_root_dir", str(run)]
        begin, used = time.monotonic(), time.process_time()
        cli.main()
        print(f"{time.monotonic() - begin:.0f} s, {time.process_time() - used:.0f} s of processor time")
    clips = [clip for split, clip in absolute_entries(read_entries(manifest), manifest.parent) if split == "validation"]
    rows = held_out_rows(clips, [row for row in listed if row["kind"] == "pair"], root)
    models = [Separator.from_pretrained(name, "cpu") for name in (options.model, run)]
    old = [row for row in listed if row["kind"] != "absent"][:: options.every]
    new = [render(row, Path()) for row in rows]
    print(compare(*models, {"own sounds": new, "old sounds": [render(row, root) for row in old]}))


if __name__ == "__main__":
    torch.manual_seed(0)
    run_benchmark(main)
