"""Random training mixtures: excerpts of clips, their filters and levels.

A batch is drawn as a whole. `Mixer.draw` draws all random numbers, a function of (seed, epoch, index): runs are
repeatable, a resumed run continues the same sequence, and several devices together see what a single device would see.
`Mixer.cut` and `Mixer.mix` then cut, filter and add whole batches wherever the samples are: in a worker process, or on
the accelerator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from separation.data.corpus import FULL_SCALE, Corpus
from separation.data.transfer import Transferable
from separation.errors import DataError

if TYPE_CHECKING:
    from separation.data.texts import Texts

SILENCE_RMS = 1e-3  # excerpts below this level count as silent; clips have a peak of one
MAX_ATTEMPTS = 5
KNOTS = 8  # of the equaliser, evenly spaced in log frequency from LOWEST to the highest frequency
LOWEST = 0.004  # share of the highest frequency
STOP_DB, SLOPE = 60.0, 0.02  # attenuation of the low-pass, and the share of the highest frequency where it is reached
NO_LOW_PASS = 2.0
MIN_LEVEL = 1e-5
BACKGROUND, BACKGROUND_DB = 0.4, (6.0, 24.0)  # share of clips with a background, and how far below the clip it is


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


def filter_response(bins: int, knots: Tensor, cutoff: Tensor) -> Tensor:
    """Linear response (..., bins) of equalisers at `bins` evenly spaced frequencies from zero to the highest.

    `knots` (..., 8) are gains in dB, interpolated along log frequency; `cutoff` (...) is that of the low-pass, as a
    share of the highest frequency.
    """
    frequency = torch.linspace(0, 1, bins, device=knots.device)
    position = (KNOTS - 1) * (frequency.clamp_min(LOWEST) / LOWEST).log() / -torch.tensor(LOWEST).log()
    hats = (1 - (position - torch.arange(KNOTS, device=knots.device)[:, None]).abs()).clamp_min(0)  # (8, bins)
    stop = STOP_DB * ((frequency - cutoff[..., None]) / SLOPE).clamp(0, 1)
    return 10 ** ((knots @ hats - stop) / 20)


def treat(waves: Tensor, filtered: Tensor, knots: Tensor, cutoff: Tensor, gain: Tensor) -> Tensor:
    """Apply filters and levels to sources; silent ones stay silent.

    Args:
        waves: (..., slots, time).
        filtered: (..., slots), whether the equaliser is applied.
        knots: (..., slots, 8), gains of the equaliser, dB.
        cutoff: (..., slots), of its low-pass, as a share of the highest frequency; none above one.
        gain: (..., slots), level of the result, dB relative to a root mean square of one.
    """
    if waves.device.type != "cpu":  # one shape for every batch: plans of Fourier transforms are slow to make
        spectra = torch.fft.rfft(waves)
        equalised = torch.fft.irfft(spectra * filter_response(spectra.shape[-1], knots, cutoff), waves.shape[-1])
        waves = torch.where(filtered[..., None], equalised, waves)
    elif filtered.any():
        waves, spectra = waves.clone(), torch.fft.rfft(waves[filtered])
        response = filter_response(spectra.shape[-1], knots[filtered], cutoff[filtered])
        waves[filtered] = torch.fft.irfft(spectra * response, waves.shape[-1])
    level = waves.square().mean(-1).sqrt().clamp_min(MIN_LEVEL)
    return waves * (10 ** (gain / 20) / level)[..., None]


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


@dataclass
class Batch:
    """Sources of mixtures, and queries.

    Attributes:
        sources: (batch, slots, time); the mixture is their sum, unused slots are silent.
        labels: (batch, slots), label numbers of the sources; of unused slots, numbers of labels that do not sound.
        sentences: (batch, slots, dim), sentence vectors of the queries.
        bank: (labels, dim), a sentence vector of every label.
        used: (batch,), number of slots that hold a source.
        clips: (batch, slots), clip numbers of the sources.
        asks: (batch, slots, slots), whether a query asks for a source: for its own, for several, or for something
            absent. None = query i asks for source i.
    """

    sources: Tensor
    labels: Tensor
    sentences: Tensor
    bank: Tensor
    used: Tensor
    clips: Tensor | None = None
    asks: Tensor | None = None

    def has_source(self) -> Tensor:
        """Which slots hold a source (batch, slots)."""
        return torch.arange(self.sources.shape[1], device=self.used.device) < self.used[:, None]

    def asked(self) -> Tensor:
        """Which queries ask for a source (batch, queries)."""
        return self.has_source() if self.asks is None else self.asks.any(-1)

    def asked_sources(self) -> Tensor:
        """The sources that each query asks for (batch, queries, sources), as ones and zeros."""
        asks = torch.diag_embed(self.has_source()) if self.asks is None else self.asks
        return asks.to(self.sources.dtype)


@dataclass
class Draw(Transferable):
    """All that is random in a batch; (batch, slots, ...) unless stated.

    Attributes:
        labels, used, sentences, bank, asks: as in `Batch`.
        choices: (batch, slots, 2, attempts, 5), numbers from 0 to 1 that choose recording, clip, whether the speed
            changes, the speed, and the place of two clips of a source, each again if the excerpt is silent.
        doubled: whether the second clip is added to the first.
        filtered, knots, cutoff, gain: as in `treat`.
        waves: excerpts, once they are cut.
        clips: number of the first clip, once it is cut.
    """

    labels: Tensor
    used: Tensor
    sentences: Tensor
    bank: Tensor
    asks: Tensor | None
    choices: Tensor
    doubled: Tensor
    filtered: Tensor
    knots: Tensor
    cutoff: Tensor
    gain: Tensor
    waves: Tensor | None = None
    clips: Tensor | None = None


class Mixer:
    """Draws mixtures of two or three labelled clips, each with queries.

    Args:
        corpus: the clips.
        texts: of the labels of the corpus.
        length: samples per mixture.
        augment: random changes of the sources.
        slots: sources and queries per mixture.
        three: share of mixtures with three sources rather than two.
        balance: a label is drawn in proportion to (number of its recordings) ** balance.
        double: probability that a second clip of the same label is added to a source.
        union: share of mixtures of three sources, two of which are asked for by one caption.
        together: which labels may sound together (labels, labels), booleans, except in a caption of two; None = all.
        background: draw single clips, of which 40 % have a quiet sound in the background.

    Raises:
        DataError: if the corpus has fewer labels than a mixture needs.
    """

    def __init__(
        self,
        corpus: Corpus,
        texts: Texts,
        length: int,
        augment: Augment,
        slots: int = 3,
        three: float = 0.25,
        balance: float = 0.5,
        double: float = 0.2,
        union: float = 0.0,
        background: bool = False,
        together: Tensor | None = None,
    ) -> None:
        least = 1 if background else max(slots, 4 if union else 0)
        if len(corpus.labels) < least:
            raise DataError(f"A mixture needs clips of {least} labels, and there are {len(corpus.labels)}.")
        self.texts, self.length, self.augment, self.background = texts, length, augment, background
        self.slots, self.three, self.double, self.union = 2 if background else slots, three, double, union
        self.label_weights = torch.from_numpy(corpus.label_weights(balance))
        recordings = [clips for label in corpus.labels for clips in corpus.tree[label].values()]
        order = [clip for clips in recordings for clip in clips]
        self.samples, self.together = corpus.samples, together
        # Places of the labels' recordings, of the recordings' clips, and of the clips' samples.
        self.tables = {
            "labels": spans([len(corpus.tree[label]) for label in corpus.labels]),
            "recordings": spans([len(clips) for clips in recordings]),
            "clips": torch.tensor([[corpus.starts[clip], corpus.lengths[clip], clip] for clip in order]),
        }

    def draw(self, count: int, generator: torch.Generator) -> Draw:
        """Draw everything for `count` mixtures, on the CPU."""
        shape, augment = (count, self.slots), self.augment

        def uniform(low: float, high: float, *sizes: int) -> Tensor:
            return low + (high - low) * torch.rand(*sizes, generator=generator)

        weights = self.label_weights.expand(count, -1)
        labels = torch.multinomial(weights, self.slots, self.background, generator=generator)
        if self.background:
            used = 1 + (uniform(0, 1, count) < BACKGROUND).long()
            gain = torch.stack([torch.zeros(count), -uniform(*BACKGROUND_DB, count)], 1)
        else:
            used = (2 + (uniform(0, 1, count) < self.three).long()).clamp_max(self.slots)
            gain = uniform(*augment.level, count, 1) + uniform(-augment.gain, augment.gain, *shape)
        if self.together is not None:
            labels = self.draw_together(labels, used, self.together, generator)
        sentences, asks = self.texts.draw(labels, generator), None
        if self.union:
            labels, used, sentences, asks = self.with_unions(labels, used, sentences, uniform(0, 1, count), generator)
        # Many recordings lack their highest frequencies: bandwidth must not tell sources apart.
        cutoff = torch.where(uniform(0, 1, *shape) < 0.4, uniform(0.2, 0.9, *shape), NO_LOW_PASS)
        return Draw(
            labels, used, sentences, self.texts.draw(torch.arange(len(self.label_weights)), generator), asks,
            choices=torch.rand(*shape, 2, MAX_ATTEMPTS, 5, dtype=torch.float64, generator=generator),
            doubled=uniform(0, 1, *shape) < self.double,
            filtered=uniform(0, 1, *shape) < augment.chance,
            knots=uniform(-augment.tone, augment.tone, *shape, KNOTS),
            cutoff=cutoff,
            gain=gain,
        )  # fmt: skip

    def draw_together(self, labels: Tensor, used: Tensor, together: Tensor, generator: torch.Generator) -> Tensor:
        """Draw labels (batch, slots) but the first again; a source may sound with those before, if any label may."""
        for slot in range(1, labels.shape[1]):
            others = self.label_weights.expand(len(labels), -1).scatter(1, labels[:, :slot], 0.0)
            allowed = others * (together[labels[:, :slot]].all(1) | (slot >= used)[:, None])
            weights = torch.where(allowed.sum(1, keepdim=True) > 0, allowed, others)
            labels[:, slot] = torch.multinomial(weights, 1, generator=generator)[:, 0]
        return labels

    def with_unions(
        self, labels: Tensor, used: Tensor, sentences: Tensor, chances: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give a share of the mixtures three sources and three queries, which ask for two of them, for the third, and
        for something absent.

        Returns labels, used, sentences and `Batch.asks`.
        """
        chosen, pairs = chances < self.union, self.texts.pairs
        likely = self.label_weights[pairs].prod(1).sqrt()
        number = torch.multinomial(likely, len(labels), replacement=True, generator=generator)
        weights = self.label_weights.expand(len(labels), -1).scatter(1, pairs[number], 0.0)
        others = torch.multinomial(weights, 2, generator=generator)  # the third source, and the absent sound
        united = torch.cat([pairs[number], others[:, :1]], 1)
        asked = torch.stack([self.texts.captions[number], *self.texts.draw(others, generator).unbind(1)], 1)
        used = torch.where(chosen, 3, used)
        own = torch.diag_embed(torch.arange(3) < used[:, None])
        both = torch.tensor([[1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
        chosen = chosen[:, None, None]
        asks, sentences = torch.where(chosen, both, own), torch.where(chosen, asked, sentences)
        return torch.where(chosen[:, 0], united, labels), used, sentences, asks

    def cut(self, draw: Draw) -> None:
        """Cut the excerpts of a draw, where the samples are."""
        on = torch.arange(self.slots, device=draw.used.device) < draw.used[:, None]
        waves, clips = self.excerpts(draw.labels[on], draw.choices[on][:, 0])
        if (twice := draw.doubled[on]).any():
            waves[twice] += self.excerpts(draw.labels[on][twice], draw.choices[on][twice, 1])[0]
        draw.waves = waves.new_zeros(*on.shape, self.length)
        draw.waves[on] = waves
        draw.clips = torch.full(on.shape, -1, device=on.device)
        draw.clips[on] = clips

    def excerpts(self, labels: Tensor, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Excerpts (n, time) of labels (n,) by choices (n, attempts, 5), and the clips' numbers (n,).

        A silent excerpt is cut again, by the next of the choices.
        """
        waves, clips = self.excerpt(labels, choices[:, 0])
        for attempt in range(1, choices.shape[1]):
            silent = (waves.square().mean(1).sqrt() <= SILENCE_RMS).nonzero()[:, 0]
            if not len(silent):
                break
            waves[silent], clips[silent] = self.excerpt(labels[silent], choices[silent, attempt])
        return waves, clips

    def excerpt(self, labels: Tensor, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Excerpts (n, time) of random clips of labels (n,) at a random speed, by choices (n, 5), and their clips (n,).

        A recording is chosen first, so that recordings with many clips do not dominate. A clip that is shorter lies in
        silence. Linear interpolation is good enough for a change of speed as augmentation.
        """
        if labels.device.type == "cpu" and len(labels) > 1:  # one by one, so that they fit into the processor's cache
            waves, clips = zip(*map(self.excerpt, labels.split(1), choices.split(1)), strict=True)
            return torch.cat(waves), torch.cat(clips)
        recording, clip, changed, octaves, place = choices.unbind(1)
        for table, choice in (("labels", recording), ("recordings", clip)):
            first, count = self.tables[table][labels].unbind(1)
            labels = first + (choice * count).long()
        start, size, number = self.tables["clips"][labels].unbind(1)
        speed = torch.where(changed < self.augment.chance, 2.0 ** ((2 * octaves - 1) * self.augment.speed), 1.0)
        length = (size * speed).round().clamp_min(2)
        room = self.length - length
        offset = torch.where(room < 0, -(place * (1 - room)).floor(), (place * (room + 1)).floor())
        step = (size - 1) / (length - 1)
        position = (torch.arange(self.length, device=start.device) - offset[:, None]) * step[:, None]
        last = (size - 1)[:, None]
        outside = (position < 0) | (position > last + 1e-6)  # the last sample may be missed by rounding
        left = position.clamp_(min=0).minimum(last).long()
        weight = (position - left).float()
        left += start[:, None]
        wave = self.samples[left].float()
        if (speed != 1).any():
            right = (left + 1).minimum((start + size - 1)[:, None])
            wave = wave.lerp(self.samples[right].float(), weight)
        return wave.div_(FULL_SCALE).masked_fill_(outside, 0.0), number

    def mix(self, draw: Draw) -> Batch:
        """Complete a batch on its device: cut excerpts if they are not, apply filters and levels."""
        if draw.waves is None:
            device = draw.labels.device
            if self.samples.device != device:  # samples and tables stay where batches are cut
                self.samples = self.samples.to(device)
                self.tables = {name: table.to(device) for name, table in self.tables.items()}
            self.cut(draw)
        assert draw.waves is not None
        sources = treat(draw.waves, draw.filtered, draw.knots, draw.cutoff, draw.gain)
        batch = Batch(sources, draw.labels, draw.sentences, draw.bank, draw.used, draw.clips, draw.asks)
        if self.background:
            mixed, first = sources.sum(1, keepdim=True), slice(0, 1)
            batch.sources, batch.labels, batch.sentences = mixed, draw.labels[:, first], draw.sentences[:, first]
            batch.used = torch.ones_like(draw.used)
        return batch


def spans(counts: Sequence[int]) -> Tensor:
    """First index and length (n, 2) of consecutive groups of `counts` items."""
    number = torch.tensor(counts)
    return torch.stack([number.cumsum(0) - number, number], 1)
