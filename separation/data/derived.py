"""Corpora that are derived from another one, for weak supervision and studies: mixed and polluted clips.

Each clip is a function of (seed, its number), so the set is as fixed as one on a disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import Corpus
from separation.data.lists import read_text_lists
from separation.data.manifest import Clip
from separation.data.mixing import draw_excerpt, repeat_to
from separation.encoders.table import normalize_label

ONE_SOURCE, SEVERAL_SOURCES = "The sound of {}", "The sound mixture of {}"  # captions
GAIN_DB = 3.0  # largest deviation of a source's level
MAX_ATTEMPTS = 100
FLOOR = 1e-10


def unrelated(one: Clip, other: Clip) -> bool:
    """Whether two clips share neither a label nor their recording."""
    return not set(one.labels) & set(other.labels) and one.recording != other.recording


class AllowedPairs:
    """Which classes may sound together in a mixture: semantically consistent mixing, as in Hive.

    Args:
        path: JSON object with a list of classes for each class; a pair counts in either order. A class that the file
            does not name may sound with any. `separation-data prepare hive` writes Hive's.

    Raises:
        DataError: the file cannot be read or holds something else.
    """

    def __init__(self, path: Path) -> None:
        table = read_text_lists(path, "a list of classes for each class")
        self.pairs = {frozenset(map(normalize_label, (one, other))) for one in table for other in table[one]}
        self.known = {normalize_label(name) for one, others in table.items() for name in (one, *others)}

    def allows(self, one: Iterable[str], other: Iterable[str]) -> bool:
        """Whether every label of one clip may sound with every label of another."""
        pairs = (frozenset(map(normalize_label, pair)) for pair in product(one, other))
        return all(pair in self.pairs or not pair <= self.known or len(pair) == 1 for pair in pairs)

    def matrix(self, labels: Sequence[str]) -> Tensor:
        """Which of the labels may sound together: (labels, labels), booleans."""
        return torch.tensor([[self.allows([one], [other]) for other in labels] for one in labels])


def draw_normalised(corpus: Corpus, number: int, length: int, rng: np.random.Generator) -> Tensor:
    """Draw an excerpt (length,) of a clip, which is repeated if it is shorter, with a root mean square of one."""
    excerpt = draw_excerpt(repeat_to(corpus.waveform(number), length), length, rng)
    return excerpt / excerpt.square().mean().sqrt().clamp_min(1e-5)


class MixedClips:
    """Clips that are sums of recordings of different labels, with captions that name the labels.

    Args:
        corpus: the recordings.
        sources: recordings per clip; 1 gives isolated clips.
        count: number of clips.
        seconds: length of a clip.
        seed: of everything that is drawn.
    """

    def __init__(self, corpus: Corpus, sources: int, count: int, seconds: float, seed: int = 0) -> None:
        self.corpus, self.seed, self.length = corpus, seed, round(seconds * corpus.sample_rate)
        rng = np.random.default_rng((seed, 0))
        self.numbers: list[list[int]] = []
        self.clips: list[Clip] = []
        for number in range(count):
            labels = [corpus.labels[i] for i in rng.choice(len(corpus.labels), sources, replace=False)]
            self.numbers.append([corpus.draw_clip(label, rng) for label in labels])
            names = " and ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)
            caption = (ONE_SOURCE if sources == 1 else SEVERAL_SOURCES).format(names)
            self.clips.append(Clip(f"mixed:{number}", ";".join(labels), caption, f"mixed:{number}", "made", seconds))

    def __len__(self) -> int:
        return len(self.clips)

    def waveform(self, number: int) -> Tensor:
        """Clip `number` (time,): sources within 3 dB of one level, their sum with a mean square of about one."""
        rng = np.random.default_rng((self.seed, 1, number))
        waves = [draw_normalised(self.corpus, each, self.length, rng) for each in self.numbers[number]]
        gains = 10 ** (rng.uniform(-GAIN_DB, GAIN_DB, len(waves)) / 20) / len(waves) ** 0.5
        return torch.stack([wave * float(gain) for wave, gain in zip(waves, gains, strict=True)]).sum(0)


class PollutedClips:
    """A corpus in which an unrelated clip is mixed into a share of the clips, as in videos from the wild.

    Args:
        corpus: the clean clips.
        share: share of the clips that are polluted.
        low, high: bounds of the clip's level relative to the other, dB.
        seed: of everything that is drawn.

    Raises:
        ValueError: if the share is not between 0 and 1.
    """

    def __init__(self, corpus: Corpus, share: float, low: float = -5.0, high: float = 5.0, seed: int = 0) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"the share of polluted clips must be between 0 and 1, not {share}")
        self.corpus, self.share, self.low, self.high, self.seed = corpus, share, low, high, seed

    def pollutant(self, number: int) -> tuple[int, float] | None:
        """The clip that is mixed into clip `number`, and the level of clip `number` over it, dB; None if clean."""
        rng, clips = np.random.default_rng((self.seed, number)), self.corpus.clips
        if rng.random() >= self.share:
            return None
        for _ in range(MAX_ATTEMPTS):
            other = int(rng.integers(len(clips)))
            if unrelated(clips[number], clips[other]):
                return other, float(rng.uniform(self.low, self.high))
        return None

    def waveform(self, number: int) -> Tensor:
        """Clip `number` as (time,) float32 in [-1, 1]."""
        wave, found = self.corpus.waveform(number), self.pollutant(number)
        if found is None:
            return wave
        other = repeat_to(self.corpus.waveform(found[0]), wave.numel())[: wave.numel()]
        ratio = (wave.square().mean() / other.square().mean().clamp_min(FLOOR)).sqrt()
        both = wave + ratio * 10 ** (-found[1] / 20) * other
        return both / both.abs().max().clamp_min(1)
