"""Clips that something unrelated sounds in, as in videos from the wild: for studies of noisy training data."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from separation.data.corpus import Corpus
from separation.data.manifest import Clip

ATTEMPTS = 100
SILENT = 1e-10


def labels_of(clip: Clip) -> set[str]:
    """All labels of a clip."""
    return set(clip.labels)


def unrelated(one: Clip, other: Clip) -> bool:
    """Whether two clips share neither a label nor their recording."""
    return not labels_of(one) & labels_of(other) and one.recording != other.recording


class Polluted:
    """A corpus in which a share of the clips has an unrelated clip mixed into it, always the same one.

    Which clips, with what and how loud, is a function of the seed and the clip's number.

    Args:
        corpus: the clean clips.
        share: of the clips that are polluted.
        low, high: bounds of the clip's level over the other's, dB.
        seed: chooses.
    """

    def __init__(self, corpus: Corpus, share: float, low: float = -5.0, high: float = 5.0, seed: int = 0) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"the share of polluted clips lies between 0 and 1, not at {share}")
        self.corpus, self.share, self.low, self.high, self.seed = corpus, share, low, high, seed
        self.clips, self.labels, self.tree = corpus.clips, corpus.labels, corpus.tree
        self.peaks = corpus.peaks  # of the clean clips: what is mixed into them has its level from theirs
        self.sample_rate = corpus.sample_rate

    def __len__(self) -> int:
        return len(self.corpus)

    def other(self, number: int) -> tuple[int, float] | None:
        """The clip that sounds in clip `number`, and that clip's level over it, dB; None where it is clean."""
        rng = np.random.default_rng((self.seed, number))
        if rng.random() >= self.share:
            return None
        for _ in range(ATTEMPTS):
            other = int(rng.integers(len(self.clips)))
            if unrelated(self.clips[number], self.clips[other]):
                return other, float(rng.uniform(self.low, self.high))
        return None

    def waveform(self, number: int) -> Tensor:
        """Clip `number` as (time,) float32 in [-1, 1], polluted or not."""
        wave, found = self.corpus.waveform(number), self.other(number)
        if found is None:
            return wave
        added = self.corpus.waveform(found[0])
        added = added.repeat(-(-wave.numel() // added.numel()))[: wave.numel()]
        level = (wave.square().mean() / added.square().mean().clamp_min(SILENT)).sqrt() * 10 ** (-found[1] / 20)
        both = wave + level * added
        return both / both.abs().max().clamp_min(1)
