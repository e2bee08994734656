"""Fits how a model directory tells presence and lists sounds, on mixtures of training recordings, into its config.

python -m separation.calibrate DIRECTORY --manifest clips/manifest.csv
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import yaml

from separation import listing
from separation.data.corpus import Corpus
from separation.data.mixing import Augment, Mixer
from separation.hub import read_config
from separation.listing import ListingRule
from separation.presence import PresenceRule, energy_ratio_db, fit
from separation.separator import Separator


def observe(separator: Separator, mixer: Mixer, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detection, energy ratio in dB and truth of `count` mixtures' queries: each source's label, and an absent one."""
    detections, ratios, present = [], [], []
    for number in range(count):
        sources, labels, used = mixer.mixture(np.random.default_rng((seed, number)))
        mixture = sources.sum(0, keepdim=True)
        queries = [mixer.corpus.labels[label] for label in labels]
        stream = separator.stream(queries, separator.sample_rate, 1, separator.level([mixture]))
        stream.push(mixture)
        stream.flush()
        detections += stream.logits.tolist()
        ratios += [energy_ratio_db(float(energy), stream.mixture_energy) for energy in stream.target_energy]
        present += [slot < used for slot in range(len(queries))]
    return np.array(detections), np.array(ratios), np.array(present)


def listen(separator: Separator, mixer: Mixer, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Surest logit and truth of every sound of the corpus in `count` mixtures (mixtures, sounds)."""
    logits, present = [], torch.zeros(count, len(mixer.corpus.labels), dtype=torch.bool)
    for number in range(count):
        sources, labels, used = mixer.mixture(np.random.default_rng((seed, number)))
        mixture = sources.sum(0, keepdim=True)
        listener = separator.listener(separator.sample_rate, separator.level([mixture]))
        listener.push(mixture)
        logits.append(listener.flush().amax(0))
        present[number, labels[:used].tolist()] = True
    return torch.stack(logits), present


def calibrate(directory: Path, corpus: Corpus, count: int, seconds: float = 5.0) -> PresenceRule:
    """Fits both and writes them to the directory's config; what is listened for are the corpus's labels."""
    separator = Separator.from_pretrained(directory)
    length = round(seconds * separator.sample_rate)
    mixer = Mixer(corpus, length, Augment(level=(0.0, 0.0)), three=0.0, balance=0.75)
    rule = fit(*observe(separator, mixer, count, seed=1))
    config = read_config(directory) | {"presence": asdict(rule)}
    if separator.model.hears:
        separator.listing = ListingRule(offsets=dict.fromkeys(corpus.labels, 0.0))
        config["listing"] = asdict(listing.fit(*listen(separator, mixer, count, seed=2), corpus.labels))
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return rule


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fit a model's presence rule on training mixtures.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--foley", type=int, default=0)
    parser.add_argument("--count", type=int, default=300, help="mixtures")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    corpus = Corpus(arguments.manifest, "train", arguments.root, cache=arguments.cache, foley=arguments.foley)
    print(calibrate(arguments.directory, corpus, arguments.count))


if __name__ == "__main__":
    main()
