"""Fits the presence rule and the listing rule of a model directory and writes them to its config.

python -m separation.calibrate DIRECTORY --manifest clips/manifest.csv          presence, on mixtures of training clips
python -m separation.calibrate DIRECTORY --mixtures validation_mixtures.csv     listing, on held-out fixed mixtures
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from separation.data.corpus import Corpus
from separation.data.fixed_mixtures import read_rows, render
from separation.data.mixing import Augment, Mixer
from separation.data.texts import Texts
from separation.listing import ListingRule, score_seconds
from separation.pretrained import read_config
from separation.separator import Separator
from separation.stream import PresenceRule, energy_ratio_db


def fit_logistic(features: np.ndarray, truth: np.ndarray, weight: np.ndarray | float = 1.0) -> list[float]:
    """Fit a logistic regression by Newton's method.

    Args:
        features: (samples, features); a column of ones gives a bias.
        truth: (samples,) booleans.
        weight: of each sample.

    Returns:
        One coefficient per feature, rounded to four digits.
    """
    coefficients = np.zeros(features.shape[1])
    for _ in range(30):
        probability = 1 / (1 + np.exp(-np.clip(features @ coefficients, -30, 30)))
        gradient = features.T @ (weight * (truth - probability)) - 1e-3 * coefficients
        curvature = features.T @ (features * (weight * probability * (1 - probability))[:, None])
        coefficients += np.linalg.solve(curvature + 1e-3 * np.eye(len(coefficients)), gradient)
    return [round(float(value), 4) for value in coefficients]


def fit_presence(detections: np.ndarray, ratios_db: np.ndarray, present: np.ndarray) -> PresenceRule:
    """Fit the presence rule; present and absent queries have the same total weight.

    Args:
        detections: largest logit of each query (queries,).
        ratios_db: energy of its target relative to the mixture, dB (queries,).
        present: whether it occurs in its mixture (queries,), booleans.
    """
    weight = np.where(present, 0.5 / present.mean(), 0.5 / (1 - present.mean()))
    features = np.stack([np.ones_like(detections), detections, ratios_db], axis=1)
    return PresenceRule(*fit_logistic(features, present, weight))


def fit_listing(logits: torch.Tensor, present: torch.Tensor) -> tuple[float, float]:
    """Fit slope and bias of the listing rule.

    All samples have the same weight, so the probabilities hold for recordings with about as many sounds as these. The
    recordings must be held out of training, because a network is too certain about those it was trained on.

    Args:
        logits: largest logit of each sound in each recording (recordings, sounds).
        present: whether the sound occurs (recordings, sounds), booleans.
    """
    values = logits.flatten().double().numpy()
    slope, bias = fit_logistic(np.stack([values, np.ones_like(values)], axis=1), present.flatten().numpy())
    return slope, bias


def write_section(directory: Path, name: str, values: dict[str, Any]) -> None:
    """Update a section of a model directory's config."""
    config = read_config(directory)
    config[name] = (config.get(name) or {}) | values
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def calibrate_presence(directory: Path, corpus: Corpus, count: int, seconds: float = 5.0) -> PresenceRule:
    """Fit the presence rule on `count` mixtures of two clips and write it to the directory's config.

    Each mixture is queried for the labels of its sources and for an absent one.
    """
    separator = Separator.from_pretrained(directory)
    length = round(seconds * separator.sample_rate)
    mixer = Mixer(corpus, Texts(corpus), length, Augment(level=(0.0, 0.0)), three=0.0, balance=0.75)
    detections, ratios, present = [], [], []
    for number in range(count):
        drawn = mixer.mix(mixer.draw(1, torch.Generator().manual_seed(number)))
        mixture = drawn.sources[0].sum(0, keepdim=True)
        queries = [corpus.labels[label] for label in drawn.labels[0]]
        stream = separator.stream(queries, separator.sample_rate, 1, separator.level([mixture], separator.sample_rate))
        stream.push(mixture)
        stream.flush()
        detections += stream.logits.tolist()
        ratios += [energy_ratio_db(float(energy), stream.mixture_energy) for energy in stream.target_energy]
        present += drawn.has_source()[0].tolist()
    rule = fit_presence(np.array(detections), np.array(ratios), np.array(present))
    write_section(directory, "presence", asdict(rule))
    return rule


def score_row(separator: Separator, row: dict[str, str], root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest logit and truth of every known sound (sounds,) for one row of a list of mixtures."""
    rendered = render(row, root)
    mixture = torch.from_numpy(rendered.mixture).float()[None]
    conditions = separator.listing_conditions.to(separator.device)
    level = separator.level([mixture], rendered.sample_rate)
    logits = score_seconds(separator.model, conditions, [mixture], rendered.sample_rate, level)
    labels = {row[name] for name in ("target_label", "interference1_label", "interference2_label")}
    return logits.amax(0), torch.tensor([sound in labels for sound in separator.listing.sounds])


def calibrate_listing(directory: Path, mixtures: Path, root: Path) -> ListingRule:
    """Fit the listing rule on a list of mixtures and write it to the directory's config, which keeps its sounds."""
    separator = Separator.from_pretrained(directory)
    scores = [score_row(separator, row, root) for row in read_rows(mixtures)]
    slope, bias = fit_listing(*(torch.stack(column) for column in zip(*scores, strict=True)))
    write_section(directory, "listing", {"slope": slope, "bias": bias})
    return replace(separator.listing, slope=slope, bias=bias)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Fit the presence rule and the listing rule of a model directory.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--manifest", type=Path, help="clips, or a packed corpus; fits presence on mixtures of them")
    parser.add_argument("--mixtures", type=Path, help="CSV of held-out fixed mixtures; fits the listing on them")
    parser.add_argument("--root", type=Path, help="folder that paths are relative to (default: that of the CSV)")
    parser.add_argument("--foley", type=int, default=0)
    parser.add_argument("--count", type=int, default=300, help="number of mixtures for presence")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.manifest:
        corpus = Corpus(arguments.manifest, "train", arguments.root, foley=arguments.foley)
        print(calibrate_presence(arguments.directory, corpus, arguments.count))
    if arguments.mixtures:
        root = arguments.root or arguments.mixtures.parent
        rule = calibrate_listing(arguments.directory, arguments.mixtures, root)
        print(f"listing: slope {rule.slope}, bias {rule.bias}")


if __name__ == "__main__":
    main()
