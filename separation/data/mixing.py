"""Mixtures drawn at random from a corpus: which clips, from where, how loud, through which filter.

A mixture is a function of (seed, epoch, index) and nothing else, so epochs differ, runs repeat, a resumed run sees
what an uninterrupted one would have seen, and several devices together see what one would have seen. What is drawn here
is carried out in `treatment.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from separation.data.corpus import Corpus
from separation.data.treatment import KNOTS, NO_LOW_PASS, Treatment, treated, untreated

PAUSE = 1e-3  # root mean square of a cut, with the whole clip's peak at one, below which it counts as silent
ATTEMPTS = 5


@dataclass
class Batch:
    """Mixtures' sources and the queries put to them.

    sources: (batch, slots, time); an unused slot is silent. Query number i asks for source i, so an unused slot's
    query asks for something absent. labels: (batch, slots), the queries' label numbers. sentences: (batch, slots, dim),
    the sentence vectors of the queries' texts. bank: (labels, dim), one sentence vector for every label.
    used: (batch,), how many slots hold a source. treatment: what is still to be done to the sources, see `mixed`.
    """

    sources: Tensor
    labels: Tensor
    sentences: Tensor
    bank: Tensor
    used: Tensor
    treatment: Treatment | None = None

    def mixed(self) -> Batch:
        """This batch with its sources filtered and at their levels, on the device where they are."""
        if self.treatment is None:
            return self
        return replace(self, sources=treated(self.sources, self.treatment), treatment=None)


@dataclass
class Drawn:
    """One mixture as it is drawn: cuts (slots, time), their treatment, the queries' labels, how many sources sound."""

    waves: Tensor
    treatment: Treatment
    labels: np.ndarray
    used: int


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

    def equaliser(self, rng: np.random.Generator) -> tuple[np.ndarray, float] | None:
        """Gains (8,) at a random smooth equaliser's knots, dB, and its low-pass.

        Some recordings have lost their highest frequencies, hence the low-pass. None: the source stays as it is.
        """
        if rng.random() >= self.chance:
            return None
        knots = rng.uniform(-self.tone, self.tone, KNOTS)
        return knots, rng.uniform(0.2, 0.9) if rng.random() < 0.4 else NO_LOW_PASS


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

    def cut(self, label: str, rng: np.random.Generator) -> tuple[Tensor, tuple[np.ndarray, float] | None]:
        """One source (time,) as it was recorded, and the equaliser that it goes through."""
        wave = self.heard(label, rng)
        if rng.random() < self.double:
            wave = wave + self.heard(label, rng)
        return wave, self.augment.equaliser(rng)

    def cuts(self, labels: list[str], slots: int, rng: np.random.Generator) -> tuple[Tensor, Treatment]:
        """Sources (slots, time) of the first slots, at the same level, and silence in the others."""
        waves, treatment = torch.zeros(slots, self.length), untreated(slots)
        for slot, label in enumerate(labels):
            waves[slot], equaliser = self.cut(label, rng)
            if equaliser is not None:
                treatment.filtered[slot] = True
                treatment.knots[slot], treatment.cutoff[slot] = torch.from_numpy(equaliser[0]), equaliser[1]
        return waves, treatment

    def source(self, label: str, rng: np.random.Generator) -> Tensor:
        """One source (time,) of mean square one."""
        return treated(*self.cuts([label], 1, rng))[0]

    def draw(self, rng: np.random.Generator) -> Drawn:
        """One mixture."""
        labels = rng.choice(len(self.corpus.labels), self.slots, replace=False, p=self.chances)
        used = min(self.slots, 3 if rng.random() < self.three else 2)
        waves, treatment = self.cuts([self.corpus.labels[label] for label in labels[:used]], self.slots, rng)
        level = rng.uniform(*self.augment.level)
        treatment.gain[:used] = torch.from_numpy(level + rng.uniform(-self.augment.gain, self.augment.gain, used))
        return Drawn(waves, treatment, labels, used)

    def mixture(self, rng: np.random.Generator) -> tuple[Tensor, np.ndarray, int]:
        """Sources (slots, time), the queries' labels (slots,), and how many sources sound."""
        drawn = self.draw(rng)
        return treated(drawn.waves, drawn.treatment), drawn.labels, drawn.used
