"""What the studies share: options, short training runs, a small network, fixed clean mixtures, tables with intervals.

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
from collections import defaultdict
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import Corpus
from separation.evaluate.metrics import bootstrap, sdri
from separation.evaluate.tables import markdown
from separation.models.band_unet import BandUNet

RATE, SECONDS = 16000, 3.0  # of the small network and its mixtures


def options(description: str | None, steps: int, **defaults: Any) -> argparse.ArgumentParser:
    """Build the parser of a study."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv and the recordings")
    parser.add_argument("--seeds", type=int, default=defaults.get("seeds", 3), help="runs of each arm")
    parser.add_argument("--steps", type=int, default=steps, help="training steps of each run")
    parser.add_argument("--batch_size", type=int, default=defaults.get("batch_size", 8))
    parser.add_argument("--mixtures", type=int, default=defaults.get("mixtures", 200), help="clean pairs to score on")
    parser.add_argument("--labels", type=int, default=defaults.get("labels", 0), help="only the N commonest; 0 = all")
    parser.add_argument("--cache", type=Path, help="folder for decoded samples")
    parser.add_argument("--json", type=Path, help="write settings, scores and table here")
    parser.add_argument("--arms", nargs="*", help="only these ways to train")
    parser.add_argument(
        "--tune", action="store_true", help="score on train recordings that are held out, to choose settings by"
    )
    return parser


def held_out(train: Corpus, share: int = 5) -> tuple[Corpus, Corpus]:
    """Split a corpus: without every `share`-th recording of each label, and those alone.

    The second part serves to choose settings without the validation recordings. Labels with fewer recordings than
    `share` are in neither.
    """
    kept, held = copy(train), copy(train)
    trees: list[dict[str, dict[str, list[int]]]] = [{}, {}]
    for label, recordings in train.tree.items():
        names = sorted(recordings)
        if len(names) >= share:
            trees[0][label] = {name: recordings[name] for i, name in enumerate(names) if i % share}
            trees[1][label] = {name: recordings[name] for name in names[::share]}
    for part, tree in zip((kept, held), trees, strict=True):
        part.tree, part.labels = defaultdict(dict, tree), sorted(tree)
    return kept, held


def fit(objective: Any, data: Any, steps: int, seed: int, **settings: Any) -> float:
    """Train for `steps` steps without files, loggers and progress bars; return the seconds."""
    import warnings

    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it greets at every run
    lightning.seed_everything(seed, verbose=False)
    trainer = lightning.Trainer(
        max_steps=steps,
        max_epochs=-1,
        reload_dataloaders_every_n_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        **({"accelerator": "auto", "devices": 1, "gradient_clip_val": 1.0} | settings),
    )
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on workers and the like
        trainer.fit(objective, data)
    if hasattr(objective, "calibrate"):
        objective.calibrate()
    return time.perf_counter() - started


@dataclass(frozen=True)
class Pair:
    """Two clean clips of different labels: waves (2, time), labels, captions and recordings."""

    waves: Tensor
    labels: tuple[str, str]
    captions: tuple[str, str]
    recordings: tuple[str, str]


def common_labels(train: Corpus, other: Corpus, count: int = 0) -> list[str]:
    """Return the labels of both splits, those with the most train recordings first; all of them, or `count`."""
    both = sorted(set(train.labels) & set(other.labels), key=lambda label: (-len(train.tree[label]), label))
    return both[:count] if count else both


def clean_pairs(corpus: Corpus, labels: list[str], count: int, seconds: float, seed: int = 0) -> list[Pair]:
    """Draw `count` pairs of clips of equal energy; short clips are repeated."""
    rng = np.random.default_rng(seed)
    length = round(seconds * corpus.sample_rate)
    pairs = []
    while len(pairs) < count:
        two = [labels[i] for i in rng.choice(len(labels), 2, replace=False)]
        numbers = [pick(corpus, label, rng) for label in two]
        waves = torch.stack([cut_or_repeat(corpus.waveform(number), length, rng) for number in numbers])
        level = waves.square().mean(-1, keepdim=True).sqrt()
        if level.min() < 1e-3:
            continue  # a pause
        clips = [corpus.clips[number] for number in numbers]
        waves = 0.1 * waves / level
        pairs.append(Pair(waves, (two[0], two[1]), *((c[0], c[1]) for c in (
            [clip.caption for clip in clips], [clip.recording for clip in clips]
        ))))  # fmt: skip
    return pairs


def pick(corpus: Corpus, label: str, rng: np.random.Generator) -> int:
    """Draw the number of a clip of a label, by recording."""
    recordings = list(corpus.tree[label].values())
    numbers = recordings[rng.integers(len(recordings))]
    return numbers[rng.integers(len(numbers))]


def cut_or_repeat(wave: Tensor, length: int, rng: np.random.Generator) -> Tensor:
    """Cut `length` samples of a clip (time,) at a random place; a shorter clip is repeated."""
    wave = wave.repeat(-(-length // wave.numel())) if wave.numel() < length else wave
    start = int(rng.integers(wave.numel() - length + 1))
    return wave[start : start + length]


@torch.no_grad()
def score_pairs(model: Any, encode: Callable[[list[str]], Tensor], pairs: list[Pair]) -> list[float]:
    """Return the SDRi in dB of both sources of every pair, asked by label: two values a pair."""
    values = []
    for pair in pairs:
        mixture = pair.waves.sum(0)
        conditions = encode(list(pair.labels))
        targets, _ = model.eval().separate(mixture[None, None], conditions[None])
        estimates = targets[0, :, 0].numpy()
        values += [sdri(wave.numpy(), estimates[i], mixture.numpy()) for i, wave in enumerate(pair.waves)]
    return values


def band_unet(condition_dim: int, seed: int) -> BandUNet:
    """Build a network of half a million parameters at 16 kHz."""
    torch.manual_seed(seed)
    sizes = {"bands": 64, "linear_bands": 24, "channels": (24, 40, 64, 96), "stream_dim": 96}
    return BandUNet(sample_rate=RATE, n_fft=800, hop=250, condition_dim=condition_dim, **sizes)


def score_at_level(model: BandUNet, encode: Callable[[list[str]], Tensor], pairs: list[Pair]) -> list[float]:
    """Score pairs as `score_pairs`, with every mixture at the input level of the network."""
    levels = [model.input_level / pair.waves.sum(0).square().mean().sqrt() for pair in pairs]
    scaled = [replace(pair, waves=pair.waves * level) for pair, level in zip(pairs, levels, strict=True)]
    return score_pairs(model, encode, scaled)


def recording_groups(pairs: list[Pair]) -> list[str]:
    """Return the recording of every score of pairs."""
    return [recording for pair in pairs for recording in pair.recordings]


Scores = dict[str, list[list[float]]]
"""By arm and seed, one value for each query of the mixtures."""


def over_seeds(name: str, arms: Scores, make: Callable[[str, int], list[float]], seeds: int) -> Scores:
    """Run an arm with every seed, add its values to `arms` and print their mean."""
    for seed in range(seeds):
        started = time.perf_counter()
        values = make(name, seed)
        arms.setdefault(name, []).append(values)
        spent = time.perf_counter() - started
        print(
            f"{name}, seed {seed}: SDRi {np.mean(values):.2f} dB over {len(values)} queries, {spent:.0f} s", flush=True
        )
    return arms


def interval(values: list[list[float]], groups: list[str]) -> tuple[float, float, float]:
    """Return the mean over seeds and mixtures and its 95 % interval over recordings."""
    mean = np.mean(np.array(values), axis=0)
    low, high = bootstrap(mean, groups)
    return float(mean.mean()), low, high


def lines(arms: Scores, groups: list[str], against: str | None = None) -> list[dict[str, Any]]:
    """Return a line for each arm, and for the difference of each other arm to `against`, mixture by mixture.

    `groups` names the recording of each value: values of one recording are not independent.
    """
    rows = [(name, values) for name, values in arms.items()]
    if against is not None:
        base = np.array(arms[against])
        rows += [(f"{n} - {against}", (np.array(v) - base).tolist()) for n, v in arms.items() if n != against]
    found = []
    for name, values in rows:
        mean, low, high = interval(values, groups)
        each = [float(np.mean(run)) for run in values]
        found.append({"arm": name, "mean": mean, "low": low, "high": high, "seeds": each})
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Format the lines."""
    cells = [
        (r["arm"], f"{r['mean']:.2f}", f"{r['low']:.2f} to {r['high']:.2f}", ", ".join(f"{v:.2f}" for v in r["seeds"]))
        for r in rows
    ]
    return markdown(("arm", "SDRi, dB", "95 % interval", "each seed"), cells)


def finish(settings: dict[str, Any], arms: Scores, groups: list[str], against: str | None, file: Path | None) -> None:
    """Print the table; write everything to a JSON file if one is named."""
    rows = lines(arms, groups, against)
    print(f"\n{table(rows)}")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        machine = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "python": platform.python_version()}
        shown = {key: value.name if isinstance(value, Path) else value for key, value in settings.items()}
        result = {"settings": shown, "machine": machine, "table": rows, "scores": arms}
        file.write_text(json.dumps(result, indent=1), encoding="utf-8")
