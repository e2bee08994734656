"""Mixtures drawn at random from a corpus: which clips, from where, how loud, through which filter.

A batch is a function of (seed, epoch, index) and nothing else, so epochs differ, runs repeat, and a resumed run sees
what an uninterrupted one would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from separation.data.corpus import Corpus

PAUSE = 1e-3  # root mean square of a cut, with the whole clip's peak at one, below which it counts as silent
ATTEMPTS = 5


@dataclass
class Batch:
    """Mixtures' sources and the queries put to them.

    sources: (batch, slots, time); an unused slot is silent. Query number i asks for source i, so an unused slot's
    query asks for something absent. labels: (batch, slots), the queries' label numbers. sentences: (batch, slots, dim),
    the sentence vectors of the queries' texts. bank: (labels, dim), one sentence vector for every label.
    """

    sources: Tensor
    labels: Tensor
    sentences: Tensor
    bank: Tensor
    used: Tensor


class Augment:
    """What happens to a single source: speed, band limit, tone, level.

    Args:
        speed: largest change of speed and pitch, in octaves.
        tone: largest gain of the random equaliser at its knots, dB.
        gain: largest deviation of a source's level, dB.
        level: the whole mixture's level, lowest and highest, dB.
        chance: how often speed and filter each are applied.
    """

    def __init__(
        self,
        speed: float = 0.3,
        tone: float = 8.0,
        gain: float = 6.0,
        chance: float = 0.5,
        level: tuple[float, float] = (-14.0, 6.0),
    ) -> None:
        self.speed, self.tone, self.gain, self.chance, self.level = speed, tone, gain, chance, level

    def resampled(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """Clip (time,) at another speed; linear interpolation is good enough for an augmentation."""
        if rng.random() >= self.chance or clip.numel() < 2:
            return clip
        factor = 2.0 ** rng.uniform(-self.speed, self.speed)
        length = max(2, round(clip.numel() * factor))
        return F.interpolate(clip[None, None], size=length, mode="linear", align_corners=True)[0, 0]

    def response(self, bins: int, rng: np.random.Generator) -> Tensor:
        """Gain (bins,) of a random smooth equaliser, sometimes with a low-pass as half of the recordings have one."""
        knots = rng.uniform(-self.tone, self.tone, 8)
        # Knots are evenly spaced in log frequency, 60 Hz to the top.
        position = 7 * np.log(np.maximum(np.linspace(0, 1, bins), 0.004) / 0.004) / np.log(250)
        gain = np.interp(position, np.arange(8), knots)
        if rng.random() < 0.4:
            cutoff = rng.uniform(0.2, 0.9)
            gain = gain - 60 * np.clip((np.linspace(0, 1, bins) - cutoff) / 0.02, 0, 1)
        return torch.from_numpy((10 ** (gain / 20)).astype(np.float32))

    def filtered(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """Clip (time,) through a random equaliser."""
        if rng.random() >= self.chance:
            return clip
        spectrum = torch.fft.rfft(clip)
        return torch.fft.irfft(spectrum * self.response(spectrum.numel(), rng), clip.numel())


class Mixer:
    """Draws batches of mixtures.

    Args:
        corpus: the decoded clips.
        length: samples a mixture.
        slots: queries a mixture.
        three: share of mixtures with three sources rather than two.
        balance: a label is drawn in proportion to (its recordings) ** balance.
        double: how often a second recording of the same label joins the first.
    """

    def __init__(
        self,
        corpus: Corpus,
        length: int,
        augment: Augment,
        slots: int = 3,
        three: float = 0.25,
        balance: float = 0.5,
        double: float = 0.2,
    ) -> None:
        self.corpus, self.length, self.augment = corpus, length, augment
        self.slots, self.three, self.double = slots, three, double
        counts = np.array([len(corpus.tree[label]) for label in corpus.labels], dtype=float)
        self.chances = counts**balance / (counts**balance).sum()

    def clip(self, label: str, rng: np.random.Generator) -> Tensor:
        """A random clip of a label: recording first, so that no recording outweighs the others."""
        recordings = self.corpus.tree[label]
        numbers = recordings[list(recordings)[rng.integers(len(recordings))]]
        return self.corpus.waveform(numbers[rng.integers(len(numbers))])

    def placed(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """Clip at a random place of the mixture: cut when longer, put into silence when shorter."""
        room = self.length - clip.numel()
        if room < 0:
            start = int(rng.integers(-room + 1))
            return clip[start : start + self.length]
        start = int(rng.integers(room + 1))
        return F.pad(clip, (start, room - start))

    def heard(self, label: str, rng: np.random.Generator) -> Tensor:
        """A clip of a label at a random place; drawn again when the cut has hit a pause."""
        for _ in range(ATTEMPTS):
            wave = self.placed(self.augment.resampled(self.clip(label, rng), rng), rng)
            if wave.square().mean().sqrt() > PAUSE:
                break
        return wave

    def source(self, label: str, rng: np.random.Generator) -> Tensor:
        """One source (time,) of mean square one."""
        wave = self.heard(label, rng)
        if rng.random() < self.double:
            wave = wave + self.heard(label, rng)
        wave = self.augment.filtered(wave, rng)
        return wave / wave.square().mean().sqrt().clamp_min(1e-5)

    def mixture(self, rng: np.random.Generator) -> tuple[Tensor, np.ndarray, int]:
        """Sources (slots, time), the queries' labels (slots,), and how many sources sound."""
        labels = rng.choice(len(self.corpus.labels), self.slots, replace=False, p=self.chances)
        used = min(self.slots, 3 if rng.random() < self.three else 2)
        waves = [self.source(self.corpus.labels[label], rng) for label in labels[:used]]
        level = rng.uniform(*self.augment.level)
        gains = 10 ** ((level + rng.uniform(-self.augment.gain, self.augment.gain, used)) / 20)
        sources = torch.zeros(self.slots, self.length)
        for i, (wave, gain) in enumerate(zip(waves, gains, strict=True)):
            sources[i] = wave * float(gain)
        return sources, labels, used
