"""Clips made of a corpus's recordings, for studies: mixtures with a caption, and clips padded with unrelated sound.

Both stand in for a corpus. What clip number i sounds like is a function of (seed, i), so the set is as fixed as one on
a disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import Corpus
from separation.data.manifest import Clip

SINGLE, SEVERAL = "The sound of {}", "The sound mixture of {}"
GAIN_DB = 3.0  # largest deviation of a source's level
PAUSE = 1e-3


def level(wave: Tensor) -> Tensor:
    """Wave (time,) with a mean square of one; silence stays."""
    return wave / wave.square().mean().sqrt().clamp_min(1e-5)


def excerpt(wave: Tensor, length: int, rng: np.random.Generator) -> Tensor:
    """`length` samples of a wave (time,) from a random place; a shorter one is repeated. Pauses are avoided."""
    if wave.numel() < length:
        wave = wave.repeat(-(-length // wave.numel()))
    for _ in range(5):
        start = int(rng.integers(wave.numel() - length + 1))
        part = wave[start : start + length]
        if part.square().mean().sqrt() > PAUSE:
            break
    return part


def drawn(corpus: Corpus, label: str, rng: np.random.Generator) -> int:
    """A random clip's number, recording first."""
    recordings = list(corpus.tree[label].values())
    numbers = recordings[rng.integers(len(recordings))]
    return int(numbers[rng.integers(len(numbers))])


def listed(names: Sequence[str]) -> str:
    """One, two and three."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


class Mixed:
    """`count` clips, each the sum of some recordings of different labels, with a caption that names them.

    Args:
        corpus: the recordings.
        sources: recordings a clip; 1 gives isolated clips.
        count: clips.
        seconds: of a clip.
        seed: of everything drawn.
        labels: which to draw from; all by default.
    """

    def __init__(
        self,
        corpus: Corpus,
        sources: int,
        count: int,
        seconds: float,
        seed: int = 0,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.corpus, self.seed, self.sample_rate = corpus, seed, corpus.sample_rate
        self.length = round(seconds * corpus.sample_rate)
        names = list(labels or corpus.labels)
        rng = np.random.default_rng((seed, 0))
        self.numbers: list[list[int]] = []
        self.clips: list[Clip] = []
        for number in range(count):
            chosen = [names[i] for i in rng.choice(len(names), sources, replace=False)]
            self.numbers.append([drawn(corpus, label, rng) for label in chosen])
            caption = (SINGLE if sources == 1 else SEVERAL).format(listed(chosen))
            self.clips.append(Clip(f"mixed:{number}", ";".join(chosen), caption, f"mixed:{number}", "made", seconds))

    def __len__(self) -> int:
        return len(self.clips)

    def waveform(self, number: int) -> Tensor:
        """Clip `number` (time,): its sources at about one level, the sum at a mean square of about one."""
        rng = np.random.default_rng((self.seed, 1, number))
        waves = [level(excerpt(self.corpus.waveform(each), self.length, rng)) for each in self.numbers[number]]
        gains = 10 ** (rng.uniform(-GAIN_DB, GAIN_DB, len(waves)) / 20) / len(waves) ** 0.5
        return torch.stack([wave * float(gain) for wave, gain in zip(waves, gains, strict=True)]).sum(0)


class Padded:
    """Clips in which the labelled sound is a part, and the rest is sound of other labels that nobody has noted.

    Args:
        corpus: the recordings.
        labels: which clips are kept, with their labels.
        unrelated: labels that only pad.
        seconds: of a clip.
        heard: seconds of the labelled sound in it, at a random place.
        seed: of everything drawn.
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
        common = set(labels) & set(unrelated)
        if common:
            raise ValueError(f"{min(common)} is padded and pads")
        self.corpus, self.seed, self.sample_rate = corpus, seed, corpus.sample_rate
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
        rng = np.random.default_rng((self.seed, 1, number))
        start = self.start(number)
        parts = [
            self.padding(start, rng),
            level(excerpt(self.corpus.waveform(self.numbers[number]), self.heard, rng)),
            self.padding(self.length - self.heard - start, rng),
        ]
        return torch.cat(parts)

    def padding(self, length: int, rng: np.random.Generator) -> Tensor:
        """`length` samples of a sound of an unrelated label."""
        if length == 0:
            return torch.zeros(0)
        label = self.unrelated[rng.integers(len(self.unrelated))]
        return level(excerpt(self.corpus.waveform(drawn(self.corpus, label, rng)), length, rng))
