"""Do mined anchors help? Clips of 6 s hold their labelled sound for 2 s and unrelated sound around it.

    python benchmarks/studies/uss_anchors.py --data FOLDER --seeds 3 --json uss_anchors.json

The frame-wise tagger is trained first, from the clip labels of these padded clips only. Then separators are trained on
2-s anchors, mined with it or cut at random; nothing else differs. What pads comes from labels of its own, which nobody
has noted. Scored on clean pairs of validation recordings; a label is asked for by the mean condition of its anchors in
training, as USS is evaluated.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from common import (
    RATE,
    SECONDS,
    Scores,
    band_unet,
    clean_pairs,
    common_labels,
    finish,
    fit,
    held_out,
    options,
    over_seeds,
    recording_groups,
    score_at_level,
)
from padded import Padded

from separation.data.anchors import find_anchors
from separation.data.corpus import Corpus
from separation.data.tagged import TaggedData
from separation.encoders.taggers import FrameTagger
from separation.training.objectives.tagging import Tagging
from separation.training.objectives.weakly_supervised import WeaklySupervised
from separation.training.optimiser import AdamW

MINED, RANDOM = "mined anchors", "random anchors"
CLIP, HEARD, ANCHOR = 6.0, 2.0, 2.0  # seconds


class PaddedData(TaggedData):
    """The padded clips, class by class."""

    def __init__(self, padded: Padded, **common: Any) -> None:
        super().__init__(labels=padded.labels, seconds=CLIP, sample_rate=RATE, validation_count=0, **common)
        self.padded = padded

    def setup(self, stage: str | None = None) -> None:
        """The clips are in memory."""
        self.use(self.padded)


def tagger_of(padded: Padded, seed: int, arguments: Any) -> FrameTagger:
    """A tagger that has seen nothing but these clips and their labels."""
    torch.manual_seed(seed)
    encoder = FrameTagger(padded.labels, sample_rate=RATE)
    data = PaddedData(
        padded, batch_size=arguments.tagger_batch, batches=max(1, arguments.tagger_steps // 4), seed=seed
    )  # fmt: skip
    fit(Tagging(encoder, AdamW(2e-3, 0.02, 50)), data, arguments.tagger_steps, seed)
    return encoder.eval().requires_grad_(False)


@torch.no_grad()
def overlaps(encoder: FrameTagger, padded: Padded, most: int = 200) -> tuple[float, float]:
    """How much of an anchor is the labelled sound, on average: mined ones, and ones anywhere."""
    reach = round(ANCHOR * RATE) // (2 * encoder.hop)
    found, chance = [], []
    for number in range(0, len(padded), max(1, len(padded) // most)):
        framewise = encoder(padded.waveform(number)[None]).framewise
        at = padded.labels.index(padded.clips[number].label)
        start = int(find_anchors(framewise[:, :, at], reach)[0]) * encoder.hop
        found.append(shared(start, padded.start(number)))
        anywhere = range(0, padded.length - round(ANCHOR * RATE) + 1, encoder.hop)
        chance.append(np.mean([shared(each, padded.start(number)) for each in anywhere]))
    return float(np.mean(found)), float(np.mean(chance))


def shared(anchor: int, sound: int) -> float:
    """Share of an anchor that begins at one sample and lies in a sound that begins at another."""
    first, last = max(anchor, sound), min(anchor + round(ANCHOR * RATE), sound + round(HEARD * RATE))
    return max(0, last - first) / round(ANCHOR * RATE)


def study(arguments: Any) -> tuple[Scores, list[str], dict[str, Any]]:
    """Scores of both arms, the recordings they belong to, and what else was measured."""
    manifest = arguments.data / "manifest.csv"
    train = Corpus(manifest, "train", arguments.data, RATE, arguments.cache)
    validation = Corpus(manifest, "validation", arguments.data, RATE, arguments.cache)
    if arguments.tune:
        train, validation = held_out(train)
    labels = common_labels(train, validation, arguments.labels)
    unrelated = [label for label in train.labels if label not in labels]
    pairs = clean_pairs(validation, labels, arguments.mixtures, SECONDS)
    taggers: dict[int, FrameTagger] = {}
    hits: list[tuple[float, float]] = []

    def make(arm: str, seed: int) -> list[float]:
        padded = Padded(train, labels, unrelated, CLIP, HEARD, seed)
        if seed not in taggers:
            taggers[seed] = tagger_of(padded, seed, arguments)
            hits.append(overlaps(taggers[seed], padded))
            print(f"tagger, seed {seed}: anchors hold {hits[-1][0]:.0%} of their sound, chance {hits[-1][1]:.0%}")
        encoder = deepcopy(taggers[seed])
        objective = WeaklySupervised(
            band_unet(len(labels), seed), encoder, anchors="mined" if arm == MINED else "random", seconds=ANCHOR,
            loss="snr", own_level=True, optimiser=AdamW(2e-3, 0.02, 50), ema=0.99,
        )  # fmt: skip
        data = PaddedData(
            padded, batch_size=arguments.batch_size, batches=max(1, arguments.steps // 4), seed=seed
        )  # fmt: skip
        fit(objective, data, arguments.steps, seed)
        return score_at_level(objective.average, encoder.encode_label, pairs)

    arms: Scores = {}
    for arm in arguments.arms or (RANDOM, MINED):
        over_seeds(arm, arms, make, arguments.seeds)
    overlap, chance = np.mean(hits, axis=0)
    return arms, recording_groups(pairs), {"labels_used": labels, "anchor_overlap": overlap, "chance_overlap": chance}


def main() -> None:
    """Command line."""
    parser = options(__doc__, 1200, batch_size=12, mixtures=150)
    parser.set_defaults(labels=20)
    parser.add_argument("--tagger_steps", type=int, default=500)
    parser.add_argument("--tagger_batch", type=int, default=24)
    arguments = parser.parse_args()
    arms, recordings, facts = study(arguments)
    finish(vars(arguments) | facts, arms, recordings, RANDOM if RANDOM in arms else None, arguments.json)


if __name__ == "__main__":
    main()
