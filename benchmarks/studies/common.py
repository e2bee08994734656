"""What the studies share: their options, small training runs, fixed clean mixtures, tables with intervals.

A study compares arms (ways to train) that differ in one thing. Each arm is trained with several seeds and scored on the
same mixtures, so the interval of a difference comes from differences mixture by mixture, averaged over the seeds.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import Corpus
from separation.evaluate.metrics import bootstrap, sdri


def options(description: str | None, steps: int, **defaults: Any) -> argparse.ArgumentParser:
    """The options of every study: where the recordings lie, how many seeds, how long, where the result goes."""
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
    """Two views of a corpus: without every `share`-th recording of each label, and those alone.

    Settings that are chosen by the second leave the validation recordings unseen. Labels with fewer recordings than
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
    """Trains for `steps` steps, without files, loggers and bars; returns the seconds it took."""
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
    """Two clean clips of different labels: waves (2, time), what they are called, which recordings they are from."""

    waves: Tensor
    labels: tuple[str, str]
    captions: tuple[str, str]
    recordings: tuple[str, str]


def common_labels(train: Corpus, other: Corpus, count: int = 0) -> list[str]:
    """Labels that both splits have, those with the most train recordings first; all of them, or `count`."""
    both = sorted(set(train.labels) & set(other.labels), key=lambda label: (-len(train.tree[label]), label))
    return both[:count] if count else both


def clean_pairs(corpus: Corpus, labels: list[str], count: int, seconds: float, seed: int = 0) -> list[Pair]:
    """`count` pairs of a corpus's clips, every sound of the same energy; short clips are repeated."""
    rng = np.random.default_rng(seed)
    length = round(seconds * corpus.sample_rate)
    pairs = []
    while len(pairs) < count:
        two = [labels[i] for i in rng.choice(len(labels), 2, replace=False)]
        numbers = [pick(corpus, label, rng) for label in two]
        waves = torch.stack([tiled(corpus.waveform(number), length, rng) for number in numbers])
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
    """A random clip's number, recording first."""
    recordings = list(corpus.tree[label].values())
    numbers = recordings[rng.integers(len(recordings))]
    return numbers[rng.integers(len(numbers))]


def tiled(wave: Tensor, length: int, rng: np.random.Generator) -> Tensor:
    """`length` samples of a clip (time,) from a random place; a shorter one is repeated."""
    wave = wave.repeat(-(-length // wave.numel())) if wave.numel() < length else wave
    start = int(rng.integers(wave.numel() - length + 1))
    return wave[start : start + length]


@torch.no_grad()
def score_pairs(model: Any, encode: Callable[[list[str]], Tensor], pairs: list[Pair]) -> list[float]:
    """SDRi, dB, of both sources of every pair, asked for by their labels: two values a pair, in order."""
    values = []
    for pair in pairs:
        mixture = pair.waves.sum(0)
        conditions = encode(list(pair.labels))
        targets, _ = model.eval().separate(mixture[None, None], conditions[None])
        estimates = targets[0, :, 0].numpy()
        values += [sdri(wave.numpy(), estimates[i], mixture.numpy()) for i, wave in enumerate(pair.waves)]
    return values


Scores = dict[str, list[list[float]]]
"""Arm to seeds to values, one for each query of the mixtures."""


def over_seeds(name: str, arms: Scores, make: Callable[[str, int], list[float]], seeds: int) -> Scores:
    """Runs an arm with every seed and adds its values to `arms`, saying what came out."""
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
    """Mean over seeds and mixtures, and its 95 % interval over recordings."""
    mean = np.mean(np.array(values), axis=0)
    low, high = bootstrap(mean, groups)
    return float(mean.mean()), low, high


def lines(arms: Scores, groups: list[str], against: str | None = None) -> list[dict[str, Any]]:
    """One line an arm, and for every other arm its difference to the arm `against`, mixture by mixture.

    `groups` names each value's recording: values of one recording are not independent.
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
    """Markdown."""
    head = "| arm | SDRi, dB | 95 % interval | each seed |\n|---|---|---|---|\n"
    return head + "\n".join(
        f"| {r['arm']} | {r['mean']:.2f} | {r['low']:.2f} to {r['high']:.2f} | "
        f"{', '.join(f'{value:.2f}' for value in r['seeds'])} |"
        for r in rows
    )


def finish(settings: dict[str, Any], arms: Scores, groups: list[str], against: str | None, file: Path | None) -> None:
    """Prints the table; writes everything to JSON when asked."""
    rows = lines(arms, groups, against)
    print(f"\n{table(rows)}")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        machine = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "python": platform.python_version()}
        shown = {key: value.name if isinstance(value, Path) else value for key, value in settings.items()}
        result = {"settings": shown, "machine": machine, "table": rows, "scores": arms}
        file.write_text(json.dumps(result, indent=1), encoding="utf-8")
