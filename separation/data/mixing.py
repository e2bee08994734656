"""Random training mixtures: excerpts of clips, their filters and levels.

A mixture depends only on (seed, epoch, index). Runs are repeatable, a resumed run continues the same sequence, and
several devices together see what a single device would see. Excerpts and the parameters of filters and levels are drawn
in worker processes; `treat` applies them to whole batches, on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from separation.data.corpus import Corpus

SILENCE_RMS = 1e-3  # excerpts below this level count as silent; clips have a peak of one
MAX_ATTEMPTS = 5
KNOTS = 8  # of the equaliser, evenly spaced in log frequency from LOWEST to the highest frequency
LOWEST = 0.004  # share of the highest frequency
STOP_DB, SLOPE = 60.0, 0.02  # attenuation of the low-pass, and the share of the highest frequency where it is reached
NO_LOW_PASS = 2.0
MIN_LEVEL = 1e-5


def draw_excerpt(
    clip: Tensor,
    length: int,
    rng: np.random.Generator,
    short: Literal["repeat", "pad", "place"] = "place",
    silence: float = SILENCE_RMS,
    attempts: int = MAX_ATTEMPTS,
) -> Tensor:
    """Draw a random excerpt of a clip, if possible one that is not silent.

    Args:
        clip: (time,).
        length: samples.
        rng: draws the place.
        short: a clip shorter than `length` is repeated, padded with silence at its end, or placed at random in silence.
        silence: root mean square at or below which another place is drawn.
        attempts: number of places that are tried.

    Returns:
        (length,).
    """
    room = length - clip.numel()
    for _ in range(attempts):
        start = int(rng.integers(abs(room) + 1)) if room < 0 or short == "place" else 0
        if room < 0:
            excerpt = clip[start : start + length]
        elif short == "repeat":
            excerpt = repeat_to(clip, length)[:length]
        else:
            excerpt = F.pad(clip, (start, room - start))
        if excerpt.square().mean().sqrt() > silence:
            break
    return excerpt


def repeat_to(clip: Tensor, length: int) -> Tensor:
    """Repeat a clip (time,) until it has `length` samples or more."""
    return clip.repeat(max(1, -(-length // clip.numel())))


@dataclass
class Treatment:
    """Filters and levels of sources (..., slots, time).

    Attributes:
        filtered: (..., slots), whether the equaliser is applied.
        knots: (..., slots, 8), gains of the equaliser, dB.
        cutoff: (..., slots), of its low-pass, as a share of the highest frequency; none above one.
        gain: (..., slots), level of the result, dB relative to a root mean square of one.
    """

    filtered: Tensor
    knots: Tensor
    cutoff: Tensor
    gain: Tensor

    @classmethod
    def identity(cls, slots: int) -> Treatment:
        """No filters, and a root mean square of one for every source."""
        filtered, knots = torch.zeros(slots, dtype=torch.bool), torch.zeros(slots, KNOTS)
        return cls(filtered, knots, torch.full((slots,), NO_LOW_PASS), torch.zeros(slots))

    @classmethod
    def stack(cls, treatments: Sequence[Treatment]) -> Treatment:
        """The treatments of single mixtures as that of a batch."""
        return cls(*(torch.stack([getattr(each, f.name) for each in treatments]) for f in fields(cls)))


def filter_response(bins: int, knots: Tensor, cutoff: Tensor) -> Tensor:
    """Response of equalisers at `bins` evenly spaced frequencies from zero to the highest.

    Args:
        bins: number of frequencies.
        knots: (..., 8), gains in dB, interpolated along log frequency.
        cutoff: (...), of the low-pass, as a share of the highest frequency.

    Returns:
        (..., bins), linear.
    """
    frequency = torch.linspace(0, 1, bins, device=knots.device)
    position = (KNOTS - 1) * (frequency.clamp_min(LOWEST) / LOWEST).log() / -torch.tensor(LOWEST).log()
    hats = (1 - (position - torch.arange(KNOTS, device=knots.device)[:, None]).abs()).clamp_min(0)  # (8, bins)
    stop = STOP_DB * ((frequency - cutoff[..., None]) / SLOPE).clamp(0, 1)
    return 10 ** ((knots @ hats - stop) / 20)


def treat(waves: Tensor, treatment: Treatment) -> Tensor:
    """Apply filters and levels to sources (..., slots, time); silent ones stay silent."""
    chosen = treatment.filtered
    if chosen.any():
        waves = waves.clone()
        spectra = torch.fft.rfft(waves[chosen])
        response = filter_response(spectra.shape[-1], treatment.knots[chosen], treatment.cutoff[chosen])
        waves[chosen] = torch.fft.irfft(spectra * response, waves.shape[-1])
    level = waves.square().mean(-1).sqrt().clamp_min(MIN_LEVEL)
    return waves * (10 ** (treatment.gain / 20) / level)[..., None]


@dataclass
class Mixture:
    """One training mixture before filters and levels are applied.

    Attributes:
        waves: (slots, time); unused slots are silent.
        treatment: filter and level of each slot.
        labels: (slots,) label numbers. Those of unused slots are queries for something absent.
        used: number of slots that hold a source.
    """

    waves: Tensor
    treatment: Treatment
    labels: np.ndarray
    used: int

    def sources(self) -> Tensor:
        """The sources (slots, time) with filters and levels applied; their sum is the mixture."""
        return treat(self.waves, self.treatment)


@dataclass
class Batch:
    """Sources of mixtures, and the queries for them.

    Attributes:
        sources: (batch, slots, time). Query i asks for source i; an unused slot is silent, so its query is for
            something absent.
        labels: (batch, slots), label numbers of the queries.
        sentences: (batch, slots, dim), sentence vectors of the queries' texts.
        bank: (labels, dim), a sentence vector of every label.
        used: (batch,), number of slots that hold a source.
        treatment: filters and levels that `apply_treatment` applies; None afterwards.
    """

    sources: Tensor
    labels: Tensor
    sentences: Tensor
    bank: Tensor
    used: Tensor
    treatment: Treatment | None = None

    def apply_treatment(self) -> Batch:
        """The batch with filters and levels applied, on the device of its tensors."""
        if self.treatment is None:
            return self
        return replace(self, sources=treat(self.sources, self.treatment), treatment=None)


@dataclass
class Augment:
    """Random changes of single sources.

    Args:
        speed: largest change of speed and pitch, octaves.
        tone: largest gain of the random equaliser at its knots, dB.
        gain: largest deviation of a source's level, dB.
        chance: probability of a change of speed, and of a filter.
        level: lowest and highest level of the whole mixture, dB.
    """

    speed: float = 0.3
    tone: float = 8.0
    gain: float = 6.0
    chance: float = 0.5
    level: tuple[float, float] = (-14.0, 6.0)


class Mixer:
    """Draws mixtures of two or three labelled clips.

    Args:
        corpus: the clips.
        length: samples per mixture.
        augment: random changes of the sources.
        slots: queries per mixture.
        three: share of mixtures with three sources rather than two.
        balance: a label is drawn in proportion to (number of its recordings) ** balance.
        double: probability that a second clip of the same label is added to a source.
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
        self.label_weights = corpus.label_weights(balance)

    def draw(self, rng: np.random.Generator) -> Mixture:
        """Draw one mixture."""
        labels = rng.choice(len(self.corpus.labels), self.slots, replace=False, p=self.label_weights)
        used = min(self.slots, 3 if rng.random() < self.three else 2)
        waves, treatment = self.draw_sources(labels[:used], self.slots, rng)
        level = rng.uniform(*self.augment.level)
        treatment.gain[:used] = torch.from_numpy(level + rng.uniform(-self.augment.gain, self.augment.gain, used))
        return Mixture(waves, treatment, labels, used)

    def draw_with_background(self, rng: np.random.Generator) -> Mixture:
        """Draw a clip in the first slot and, in 40 % of the cases, a quiet sound in the second: its background."""
        labels = rng.choice(len(self.corpus.labels), 2 if rng.random() < 0.4 else 1, p=self.label_weights)
        waves, treatment = self.draw_sources(labels, 2, rng)
        treatment.gain[1] = -rng.uniform(6, 24)
        return Mixture(waves, treatment, labels[:1], 1)

    def draw_sources(
        self, labels: Sequence[int] | np.ndarray, slots: int, rng: np.random.Generator
    ) -> tuple[Tensor, Treatment]:
        """Draw a source for each label: excerpts (slots, time), the remaining slots silent, and their filters."""
        waves, treatment = torch.zeros(slots, self.length), Treatment.identity(slots)
        for slot, label in enumerate(labels):
            waves[slot] = self.draw_source(self.corpus.labels[label], rng)
            if rng.random() < self.double:
                waves[slot] += self.draw_source(self.corpus.labels[label], rng)
            if rng.random() < self.augment.chance:
                treatment.filtered[slot] = True
                treatment.knots[slot] = torch.from_numpy(rng.uniform(-self.augment.tone, self.augment.tone, KNOTS))
                # Many recordings lack their highest frequencies: bandwidth must not tell sources apart.
                treatment.cutoff[slot] = rng.uniform(0.2, 0.9) if rng.random() < 0.4 else NO_LOW_PASS
        return waves, treatment

    def draw_source(self, label: str, rng: np.random.Generator) -> Tensor:
        """Draw an excerpt (time,) of a random clip of a label at a random speed; draw again if it is silent."""
        for _ in range(MAX_ATTEMPTS):
            clip = self.corpus.waveform(self.corpus.draw_clip(label, rng))
            if rng.random() < self.augment.chance and clip.numel() > 1:
                # Linear interpolation is good enough for an augmentation.
                size = max(2, round(clip.numel() * 2.0 ** rng.uniform(-self.augment.speed, self.augment.speed)))
                clip = F.interpolate(clip[None, None], size=size, mode="linear", align_corners=True)[0, 0]
            excerpt = draw_excerpt(clip, self.length, rng, attempts=1)
            if excerpt.square().mean().sqrt() > SILENCE_RMS:
                break
        return excerpt
