"""What the studies share: options, short training runs, a small network, clean mixtures, tables with intervals.

A study compares arms (ways to train) that differ in one thing. Each arm is trained with several seeds and scored on the
same mixtures; the interval of a difference comes from differences mixture by mixture, averaged over the seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import Corpus
from separation.data.mixing import draw_excerpt, repeat_to
from separation.evaluate.metrics import bootstrap, sdri
from separation.evaluate.tables import markdown
from separation.models.band_unet import BandUNet

RATE, SECONDS = 16000, 3.0  # of the small network and its mixtures
SILENCE_RMS = 1e-3
Scores = dict[str, list[list[float]]]
"""By arm and seed, one value for each query of the mixtures."""


def make_parser(
    description: str | None, steps: int, labels: int, seeds: int = 3, batch_size: int = 8, mixtures: int = 150
) -> argparse.ArgumentParser:
    """Build the parser of a study with its default settings."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with manifest.csv and the recordings")
    add("--seeds", type=int, default=seeds, help="runs of each arm")
    add("--steps", type=int, default=steps, help="training steps of each run")
    add("--batch_size", type=int, default=batch_size)
    add("--mixtures", type=int, default=mixtures, help="clean pairs to score on")
    add("--labels", type=int, default=labels, help="only the N most frequent ones; 0 = all")
    add("--cache", type=Path, help="folder for decoded samples")
    add("--json", type=Path, help="write settings, scores and table to this file")
    add("--arms", nargs="*", help="only these ways to train")
    add("--tune", action="store_true", help="score on held-out train recordings, to choose settings by")
    return parser


# Recordings


def read_corpora(arguments: argparse.Namespace) -> tuple[Corpus, Corpus]:
    """Return the recordings to train on and those to score on: the validation split."""
    manifest = arguments.data / "manifest.csv"
    train, validation = (
        Corpus(manifest, split, arguments.data, RATE, arguments.cache) for split in ("train", "validation")
    )
    return train, validation


def hold_out(train: Corpus, share: int = 5) -> tuple[Corpus, Corpus]:
    """Split a corpus: without every `share`-th recording of each label, and those alone.

    Labels with fewer recordings than `share` are in neither.
    """
    kept, held = copy(train), copy(train)
    kept.tree, held.tree = {}, {}
    for label, recordings in train.tree.items():
        names = sorted(recordings)
        if len(names) >= share:
            kept.tree[label] = {name: recordings[name] for number, name in enumerate(names) if number % share}
            held.tree[label] = {name: recordings[name] for name in names[::share]}
    kept.labels = held.labels = sorted(kept.tree)
    return kept, held


def common_labels(train: Corpus, other: Corpus, count: int = 0) -> list[str]:
    """Return the labels of both splits, those with the most train recordings first; all of them, or `count`."""
    both = sorted(set(train.labels) & set(other.labels), key=lambda label: (-len(train.tree[label]), label))
    return both[:count] if count else both


@dataclass(frozen=True)
class Pair:
    """Two clean clips of different labels: waves (2, time), labels and recordings."""

    waves: Tensor
    labels: tuple[str, ...]
    recordings: tuple[str, ...]


def clean_pairs(corpus: Corpus, labels: list[str], count: int, seconds: float, seed: int = 0) -> list[Pair]:
    """Draw `count` pairs of clips of equal energy; short clips are repeated."""
    rng = np.random.default_rng(seed)
    length = round(seconds * corpus.sample_rate)
    pairs: list[Pair] = []
    while len(pairs) < count:
        chosen = tuple(labels[i] for i in rng.choice(len(labels), 2, replace=False))
        numbers = [corpus.draw_clip(label, rng) for label in chosen]
        clips = [repeat_to(corpus.waveform(number), length) for number in numbers]
        waves = torch.stack([draw_excerpt(clip, length, rng, attempts=1) for clip in clips])
        levels = waves.square().mean(-1, keepdim=True).sqrt()
        if levels.min() >= SILENCE_RMS:
            recordings = tuple(corpus.clips[number].recording for number in numbers)
            pairs.append(Pair(0.1 * waves / levels, chosen, recordings))
    return pairs


def data_settings(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Return the arguments that the data modules of the arms have in common; an epoch is a quarter of the training."""
    return {
        "batch_size": arguments.batch_size,
        "batches": max(1, arguments.steps // 4),
        "seconds": SECONDS,
        "sample_rate": RATE,
        "seed": seed,
        "validation_count": 0,
    }


# Training and scores


def band_unet(condition_dim: int, seed: int, network: type[BandUNet] = BandUNet, **changes: Any) -> BandUNet:
    """Build a network of half a million parameters at 16 kHz."""
    torch.manual_seed(seed)
    sizes = {"bands": 64, "linear_bands": 24, "channels": (24, 40, 64, 96), "stream_dim": 96}
    return network(sample_rate=RATE, n_fft=800, hop=250, **(sizes | {"condition_dim": condition_dim} | changes))


def fit(objective: Any, data: Any, steps: int, seed: int) -> float:
    """Train for `steps` steps without files, loggers and progress bars; return the seconds."""
    import lightning  # after the objectives, which make it importable

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # without greetings at every run
    lightning.seed_everything(seed, verbose=False)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    length = {"max_steps": steps, "max_epochs": -1, "limit_val_batches": 0, "reload_dataloaders_every_n_epochs": 1}
    trainer = lightning.Trainer(accelerator="auto", devices=1, gradient_clip_val=1.0, **length, **quiet)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on the number of workers and the like
        trainer.fit(objective, data)
    if hasattr(objective, "calibrate"):
        objective.calibrate()
    return time.perf_counter() - started


@torch.no_grad()
def score_pairs(
    model: Any, encode: Callable[[list[str]], Tensor], pairs: list[Pair], level: float | None = None
) -> list[float]:
    """Return the SDRi in dB of both sources of every pair, asked by label: two values a pair.

    Args:
        model: separates mixtures (1, 1, time).
        encode: returns the conditions of labels.
        pairs: to score on.
        level: root mean square that mixtures are scaled to; None: as they are.
    """
    values = []
    for pair in pairs:
        waves = pair.waves
        if level is not None:
            waves = waves * (level / waves.sum(0).square().mean().sqrt())
        mixture = waves.sum(0)
        targets, _ = model.eval().separate(mixture[None, None], encode(list(pair.labels))[None])
        for wave, estimate in zip(waves.numpy(), targets[0, :, 0].numpy(), strict=True):
            values.append(sdri(wave, estimate, mixture.numpy()))
    return values


def run_arms(arms: Iterable[str], run: Callable[[str, int], list[float]], seeds: int) -> Scores:
    """Train and score every arm with every seed and print its mean."""
    scores: Scores = {}
    for arm in arms:
        scores[arm] = []
        for seed in range(seeds):
            started = time.perf_counter()
            values = run(arm, seed)
            scores[arm].append(values)
            what = f"SDRi {np.mean(values):.2f} dB over {len(values)} queries"
            print(f"{arm}, seed {seed}: {what}, {time.perf_counter() - started:.0f} s", flush=True)
    return scores


def summarize(scores: Scores, groups: list[str], against: str | None = None) -> list[dict[str, Any]]:
    """Return a line for each arm, and for the difference of each other arm to `against`, mixture by mixture.

    `groups` names the recording of each value: values of one recording are not independent.
    """
    arms = {name: np.array(values) for name, values in scores.items()}
    if against is not None:
        arms |= {f"{name} - {against}": arms[name] - arms[against] for name in scores if name != against}
    lines = []
    for name, values in arms.items():
        low, high = bootstrap(values.mean(0), groups)
        lines.append(
            {"arm": name, "mean": float(values.mean()), "low": low, "high": high, "seeds": values.mean(1).tolist()}
        )
    return lines


def report(settings: dict[str, Any], scores: Scores, pairs: list[Pair], against: str | None, file: Path | None) -> None:
    """Print the table; write settings, scores and table to a JSON file if one is named."""
    lines = summarize(scores, [recording for pair in pairs for recording in pair.recordings], against)
    cells = [
        (e["arm"], f"{e['mean']:.2f}", f"{e['low']:.2f} to {e['high']:.2f}", ", ".join(f"{v:.2f}" for v in e["seeds"]))
        for e in lines
    ]
    print(f"\n{markdown(('arm', 'SDRi, dB', '95 % interval', 'each seed'), cells)}")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        machine = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "python": platform.python_version()}
        shown = {key: value.name if isinstance(value, Path) else value for key, value in settings.items()}
        result = {"settings": shown, "machine": machine, "table": lines, "scores": scores}
        file.write_text(json.dumps(result, indent=1), encoding="utf-8")
