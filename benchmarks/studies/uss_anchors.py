"""Do mined anchors help? Clips of 6 s contain their labelled sound for 2 s and unrelated sound around it.

    python benchmarks/studies/uss_anchors.py --data FOLDER --seeds 3 --json uss_anchors.json

The frame-wise tagger is trained first, from the clip labels of these padded clips only. Then separators are trained on
2-s anchors, mined with it or cut at random; nothing else differs. The padding has labels of its own, which are not
given. Scored on clean pairs of validation recordings; a label is asked for by the mean condition of its anchors in
training, as USS is evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import study
import torch
from torch import Tensor

from separation.data.corpus import Corpus
from separation.data.derived import draw_normalised
from separation.data.tagged import TaggedData
from separation.encoders.taggers import FrameTagger
from separation.training.objectives.tagging import Tagging
from separation.training.objectives.weakly_supervised import WeaklySupervised, find_anchors
from separation.training.optimiser import AdamW

MINED, RANDOM = "mined anchors", "random anchors"
CLIP_SECONDS, SOUND_SECONDS, ANCHOR_SECONDS = 6.0, 2.0, 2.0
ANCHOR = round(ANCHOR_SECONDS * study.RATE)
CLIPS_TO_CHECK = 200


class Padded:
    """Clips that contain their labelled sound at a random place, between sounds of other labels.

    Args:
        corpus: the recordings.
        labels: labels of the clips.
        unrelated: labels of the sounds around.
        seed: of everything that is drawn.
    """

    def __init__(self, corpus: Corpus, labels: Sequence[str], unrelated: Sequence[str], seed: int = 0) -> None:
        self.corpus, self.labels, self.unrelated, self.seed = corpus, list(labels), list(unrelated), seed
        self.length, self.sound = round(CLIP_SECONDS * corpus.sample_rate), round(SOUND_SECONDS * corpus.sample_rate)
        recordings = [numbers for label in labels for numbers in corpus.tree[label].values()]
        self.numbers = sorted({number for numbers in recordings for number in numbers})
        self.clips = [replace(corpus.clips[number], seconds=CLIP_SECONDS) for number in self.numbers]

    def __len__(self) -> int:
        return len(self.clips)

    def start(self, number: int) -> int:
        """Return the sample at which the labelled sound begins."""
        return int(np.random.default_rng((self.seed, 0, number)).integers(self.length - self.sound + 1))

    def waveform(self, number: int) -> Tensor:
        """Return clip `number` (time,): unrelated sound, the labelled one, unrelated sound, all at one level."""
        rng, start = np.random.default_rng((self.seed, 1, number)), self.start(number)

        def draw_padding(length: int) -> Tensor:
            if length == 0:
                return torch.zeros(0)
            label = self.unrelated[rng.integers(len(self.unrelated))]
            return draw_normalised(self.corpus, self.corpus.draw_clip(label, rng), length, rng)

        before = draw_padding(start)
        sound = draw_normalised(self.corpus, self.numbers[number], self.sound, rng)
        return torch.cat([before, sound, draw_padding(self.length - self.sound - start)])


@torch.no_grad()
def anchor_overlaps(tagger: Any, padded: Padded) -> tuple[float, float]:
    """Return which share of an anchor is the labelled sound, on average: mined anchors, and anchors anywhere."""

    def overlap(anchor: int, sound: int) -> float:
        return max(0, min(anchor + ANCHOR, sound + padded.sound) - max(anchor, sound)) / ANCHOR

    found, chance = [], []
    for number in range(0, len(padded), max(1, len(padded) // CLIPS_TO_CHECK)):
        sound, label = padded.start(number), padded.labels.index(padded.clips[number].label)
        probabilities = tagger(padded.waveform(number)[None]).framewise[:, :, label]
        start = int(find_anchors(probabilities, ANCHOR // (2 * tagger.hop))[0]) * tagger.hop
        found.append(overlap(start, sound))
        chance.append(np.mean([overlap(each, sound) for each in range(0, padded.length - ANCHOR + 1, tagger.hop)]))
    return float(np.mean(found)), float(np.mean(chance))


def main(argv: list[str] | None = None) -> None:
    """Run the study."""
    parser = study.make_parser(__doc__, steps=1200, batch_size=12, labels=20)
    parser.add_argument("--tagger_steps", type=int, default=500)
    parser.add_argument("--tagger_batch", type=int, default=24)
    arguments = parser.parse_args(argv)
    train, _, labels, pairs = study.read_data(arguments)
    unrelated = [label for label in train.labels if label not in labels]
    taggers: dict[int, FrameTagger] = {}
    overlaps = []
    optimiser = AdamW(2e-3, 0.02, 50)

    def run(arm: str, seed: int) -> list[float]:
        padded = Padded(train, labels, unrelated, seed)

        def load(**changes: Any) -> TaggedData:
            settings = study.data_settings(arguments, seed) | {"seconds": CLIP_SECONDS} | changes
            data = TaggedData(labels=padded.labels, **settings)
            data.set_corpus(padded)
            data.corpus = padded  # so that the training does not look for a manifest
            return data

        if seed not in taggers:
            torch.manual_seed(seed)
            tagger = FrameTagger(padded.labels, sample_rate=study.RATE)
            data = load(batch_size=arguments.tagger_batch, batches=max(1, arguments.tagger_steps // 4))
            study.fit(Tagging(tagger, optimiser), data, arguments.tagger_steps, seed)
            taggers[seed] = tagger.eval().requires_grad_(False)
            overlaps.append(anchor_overlaps(tagger, padded))
            found, chance = overlaps[-1]
            print(f"tagger, seed {seed}: anchors hold {found:.0%} of their sound, chance {chance:.0%}")
        encoder = deepcopy(taggers[seed])
        anchors = {"anchors": "mined" if arm == MINED else "random", "seconds": ANCHOR_SECONDS}
        training = {"loss": "snr", "own_level": True, "optimiser": optimiser, "ema": 0.99}
        objective = WeaklySupervised(study.band_unet(len(labels), seed), encoder, **anchors, **training)
        study.fit(objective, load(), arguments.steps, seed)
        facts.update(zip(("anchor_overlap", "chance_overlap"), np.mean(overlaps, axis=0), strict=True))
        return study.score_pairs(objective.average, encoder.encode_label, pairs, objective.average.input_level)

    facts: dict[str, Any] = {"labels_used": labels}
    study.compare_arms(arguments, (RANDOM, MINED), run, pairs, RANDOM, facts)


if __name__ == "__main__":
    study.run_benchmark(main)
