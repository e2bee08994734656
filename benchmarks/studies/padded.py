"""Clips in which the labelled sound is a short part, for the study of anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import Corpus
from separation.data.derived import draw_normalised


class Padded:
    """Clips that contain their labelled sound at a random place, and sounds of other labels around it.

    Args:
        corpus: the recordings.
        labels: labels of the clips.
        unrelated: labels of the sounds around.
        seconds: length of a clip.
        heard: seconds of the labelled sound in it.
        seed: of everything that is drawn.

    Raises:
        ValueError: if a label is in both lists.
    """

    def __init__(
        self,
        corpus: Corpus,
        labels: Sequence[str],
        unrelated: Sequence[str],
        seconds: float = 8.0,
        heard: float = 2.0,
        seed: int = 0,
    ) -> None:
        if common := set(labels) & set(unrelated):
            raise ValueError(f"{min(common)} is in both lists of labels")
        self.corpus, self.seed = corpus, seed
        self.labels, self.unrelated = list(labels), list(unrelated)
        self.length, self.heard = round(seconds * corpus.sample_rate), round(heard * corpus.sample_rate)
        of_labels = [numbers for label in labels for numbers in corpus.tree[label].values()]
        self.numbers = sorted({number for numbers in of_labels for number in numbers})
        self.clips = [replace(corpus.clips[number], seconds=seconds) for number in self.numbers]

    def __len__(self) -> int:
        return len(self.clips)

    def start(self, number: int) -> int:
        """Sample at which the labelled sound begins."""
        return int(np.random.default_rng((self.seed, 0, number)).integers(self.length - self.heard + 1))

    def waveform(self, number: int) -> Tensor:
        """Clip `number` (time,): unrelated sound, the labelled one, unrelated sound, all at one level."""
        rng, start = np.random.default_rng((self.seed, 1, number)), self.start(number)
        before = self.padding(start, rng)
        heard = draw_normalised(self.corpus, self.numbers[number], self.heard, rng)
        return torch.cat([before, heard, self.padding(self.length - self.heard - start, rng)])

    def padding(self, length: int, rng: np.random.Generator) -> Tensor:
        """`length` samples of a sound of an unrelated label."""
        if length == 0:
            return torch.zeros(0)
        label = self.unrelated[rng.integers(len(self.unrelated))]
        return draw_normalised(self.corpus, self.corpus.draw_clip(label, rng), length, rng)
