"""What the studies share: options, short training runs, a small network, clean mixtures, tables with intervals.

A study compares arms (ways to train) that differ in one thing. Each arm is trained with several seeds and scored on the
same mixtures; the interval of a difference comes from differences mixture by mixture, averaged over the seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import Corpus
from separation.data.mixing import draw_excerpt, repeat_to
from separation.evaluate.metrics import Signals, bootstrap, sdri
from separation.evaluate.tables import markdown
from separation.models.band_unet import BandUNet

sys.path.append(str(Path(__file__).resolve().parents[1]))
from common import run_benchmark as run_benchmark

RATE, SECONDS = 16000, 3.0  # of the small network and its mixtures
SILENCE_RMS = 1e-3


def make_parser(
    description: str | None, steps: int, labels: int, batch_size: int = 8, mixtures: int = 150
) -> argparse.ArgumentParser:
    """Build the parser of a study with its default settings."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with manifest.csv and the recordings")
    add("--seeds", type=int, default=3, help="runs of each arm")
    add("--steps", type=int, default=steps, help="training steps of each run")
    add("--batch_size", type=int, default=batch_size)
    add("--mixtures", type=int, default=mixtures, help="clean pairs to score on")
    add("--labels", type=int, default=labels, help="only the N most frequent ones; 0 = all")
    add("--json", type=Path, help="write settings, scores and table to this file")
    add("--arms", nargs="*", help="only these ways to train")
    return parser


# Recordings and mixtures


@dataclass(frozen=True)
class Pair:
    """Two clips of different labels that are asked for: waves (2, time), labels and recordings.

    A third wave, without a label here, is one that nobody asks for.
    """

    waves: Tensor
    labels: tuple[str, ...]
    recordings: tuple[str, ...]


def read_data(arguments: argparse.Namespace, seconds: float = SECONDS) -> tuple[Corpus, Corpus, list[str], list[Pair]]:
    """Return train and validation recordings, the most frequent labels of both, and clean validation pairs."""
    manifest = arguments.data / "manifest.csv"
    train, held = (Corpus(manifest, split, arguments.data, RATE) for split in ("train", "validation"))
    labels = common_labels(train, held, arguments.labels)
    return train, held, labels, clean_pairs(held, labels, arguments.mixtures, seconds)


def common_labels(train: Corpus, other: Corpus, count: int = 0) -> list[str]:
    """Return the labels of both splits, those with the most train recordings first; all of them, or `count`."""
    both = sorted(set(train.labels) & set(other.labels), key=lambda label: (-len(train.tree[label]), label))
    return both[:count] if count else both


def clean_pairs(
    corpus: Corpus, labels: list[str], count: int, seconds: float, *, as_recorded: bool = False, unasked: bool = False
) -> list[Pair]:
    """Draw `count` pairs of clips of equal energy; short clips are repeated.

    Args:
        corpus: the clips.
        labels: to choose from.
        count: number of pairs.
        seconds: length of the mixtures.
        as_recorded: leave the levels as they are.
        unasked: mix a third clip, of another label of the corpus, with each pair.
    """
    rng, length = np.random.default_rng(0), round(seconds * corpus.sample_rate)
    pairs: list[Pair] = []
    while len(pairs) < count:
        chosen = tuple(labels[i] for i in rng.choice(len(labels), 2, replace=False))
        drawn = chosen + (rng.choice([label for label in corpus.labels if label not in chosen]),) * unasked
        numbers = [corpus.draw_clip(label, rng) for label in drawn]
        clips = [repeat_to(corpus.waveform(number), length) for number in numbers]
        waves = torch.stack([draw_excerpt(clip, length, rng, attempts=1) for clip in clips])
        levels = waves.square().mean(-1, keepdim=True).sqrt()
        if levels.min() >= SILENCE_RMS:
            recordings = tuple(corpus.clips[number].recording for number in numbers[:2])
            pairs.append(Pair(waves if as_recorded else 0.1 * waves / levels, chosen, recordings))
    return pairs


def data_settings(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Return the arguments that the data modules of the arms have in common; an epoch is a quarter of the training."""
    batches = {"batch_size": arguments.batch_size, "batches": max(1, arguments.steps // 4), "validation_count": 0}
    return {"seconds": SECONDS, "sample_rate": RATE, "seed": seed} | batches


# Training and scores


def band_unet(condition_dim: int, seed: int) -> BandUNet:
    """Build a network of half a million parameters at 16 kHz."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"bands": 64, "linear_bands": 24, "channels": (24, 40, 64, 96), "stream_dim": 96}
    return BandUNet(sample_rate=RATE, n_fft=800, hop=250, condition_dim=condition_dim, **sizes)


def fit(objective: Any, data: Any, steps: int, seed: int) -> None:
    """Train for `steps` steps without files, loggers and progress bars."""
    import lightning  # after the objectives, which make it importable

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # without greetings at every run
    lightning.seed_everything(seed, verbose=False)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    length = {"max_steps": steps, "max_epochs": -1, "limit_val_batches": 0, "reload_dataloaders_every_n_epochs": 1}
    trainer = lightning.Trainer(accelerator="auto", devices=1, gradient_clip_val=1.0, **length, **quiet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on the number of workers and the like
        trainer.fit(objective, data)
    if hasattr(objective, "calibrate"):
        objective.calibrate()


def score_pairs(
    model: Any, encode: Callable[[list[str]], Tensor], pairs: list[Pair], level: float | None = None
) -> list[float]:
    """Return the SDRi in dB of both sources of every pair, see `score_metrics`."""
    return score_metrics(model, encode, pairs, level, {"SDRi": lambda s: sdri(s.target, s.estimate, s.mixture)})["SDRi"]


@torch.no_grad()
def score_metrics(
    model: Any,
    encode: Callable[[list[str]], Tensor],
    pairs: list[Pair],
    level: float | None,
    metrics: dict[str, Callable[[Signals], float]],
) -> dict[str, list[float]]:
    """Return each metric of both sources of every pair, asked by label: two values a pair.

    Args:
        model: separates mixtures (1, 1, time).
        encode: returns the conditions of labels.
        pairs: to score on.
        level: root mean square that mixtures are scaled to; None: as they are.
        metrics: functions of the signals, by heading.
    """
    values: dict[str, list[float]] = {name: [] for name in metrics}
    for pair in pairs:
        waves = pair.waves
        if level is not None:
            waves = waves * (level / waves.sum(0).square().mean().sqrt())
        mixture = waves.sum(0)
        targets = model.eval().separate(mixture[None, None], encode(list(pair.labels))[None])[0]
        for wave, estimate in zip(waves[:2].numpy(), targets[0, :, 0].numpy(), strict=True):
            signals = Signals(wave, mixture.numpy(), estimate, mixture.numpy() - estimate, RATE)
            for name, metric in metrics.items():
                values[name].append(metric(signals))
    return values


def compare_arms(
    arguments: argparse.Namespace,
    arms: Iterable[str],
    run: Callable[[str, int], list[float] | dict[str, list[float]]],
    pairs: list[Pair] | dict[str, list[Pair]],
    base: str,
    facts: dict[str, Any],
) -> dict[str, float]:
    """Train and score every arm with every seed, print and write the table, and return the mean of each arm.

    `run` returns the values of an arm and a seed: the SDRi, or several metrics by heading, each of which gets a table;
    the means are those of the first. `pairs` are what was scored, by heading if they differ. A table has a line for
    each arm, and for the difference of each to the arm `base`, mixture by mixture. Values of one recording are not
    independent, so intervals resample recordings. `facts` are written beside the settings.
    """
    scores: dict[str, dict[str, list[list[float]]]] = {}  # of each metric, arm and seed
    for arm in arguments.arms or arms:
        for seed in range(arguments.seeds):
            started = time.perf_counter()
            found = run(arm, seed)
            found = found if isinstance(found, dict) else {"SDRi": found}
            for metric, values in found.items():
                scores.setdefault(metric, {}).setdefault(arm, []).append(values)
            means = ", ".join(f"{metric} {np.mean(values):.2f} dB" for metric, values in found.items())
            count, seconds = len(next(iter(found.values()))), time.perf_counter() - started
            print(f"{arm}, seed {seed}: {means} over {count} queries, {seconds:.0f} s", flush=True)
    tables = {}
    for metric, of_arms in scores.items():
        of_metric = pairs[metric] if isinstance(pairs, dict) else pairs
        recordings = [recording for pair in of_metric for recording in pair.recordings]
        table = {name: np.array(values) for name, values in of_arms.items()}
        if base in table:
            table |= {f"{name} - {base}": table[name] - table[base] for name in of_arms if name != base}
        lines, cells = [], []
        for name, array in table.items():
            mean, (low, high) = float(array.mean()), bootstrap(array.mean(0), recordings)
            lines.append({"arm": name, "mean": mean, "low": low, "high": high, "seeds": array.mean(1).tolist()})
            seeds = ", ".join(f"{value:.2f}" for value in lines[-1]["seeds"])
            cells.append((name, f"{mean:.2f}", f"{low:.2f} to {high:.2f}", seeds))
        print(f"\n{markdown(('arm', f'{metric}, dB', '95 % interval', 'each seed'), cells)}")
        tables[metric] = lines
    first = next(iter(tables))
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        settings = {key: value.name if isinstance(value, Path) else value for key, value in vars(arguments).items()}
        result = {"settings": settings | facts, "table": tables[first], "scores": scores[first]}
        result |= {"tables": tables} if len(tables) > 1 else {}
        arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return {line["arm"]: line["mean"] for line in tables[first]}
