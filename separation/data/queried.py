"""Mixtures of clips with what they are asked for in words, labels and pictures, for any query encoder.

Unlike `mixing.py`, which prepares the default separator's sentence vectors, a batch holds the queries themselves; the
objective encodes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from separation.data.corpus import Corpus
from separation.data.datamodule import MixtureData
from separation.data.gains import Gains, RandomGains
from separation.data.manifest import Clip, DataError
from separation.data.pollution import Polluted, unrelated
from separation.data.wordings import texts_of

PAUSE = 1e-3  # root mean square, with the whole clip's peak at one, below which a cut counts as silent
ATTEMPTS = 5


@dataclass
class Queried:
    """Mixtures' sources and the queries for the first `asked` of them.

    sources: (batch, sources, time); the mixture is their sum. levels: (batch, numbers), what `Gains` has drawn for
    their levels; none where they are at their levels. texts, labels: for each mixture, `asked` strings.
    pictures: the same, of lists of pictures; empty where the data has none.
    """

    sources: Tensor
    texts: list[list[str]]
    labels: list[list[str]]
    pictures: list[list[list[Any]]] = field(default_factory=list)
    levels: Tensor | None = None

    @property
    def asked(self) -> int:
        """Queries a mixture."""
        return len(self.texts[0])


class QueriedData(MixtureData):
    """Mix-and-separate: several clips are drawn and added, and some of them are asked for.

    Args:
        sources: how many a mixture has.
        asked: how many of them are asked for, the first ones.
        text: what a clip is called: by its label, one of its captions, or any text for its label (`wordings.py`). A
            clip that lacks the one is called by the other.
        gains: how loud the sources are.
        short: a clip shorter than the mixture is repeated, padded with silence, or put at a random place of it.
        distinct: the sources of a mixture share no label; they never share a recording.
        polluted: share of the training clips that an unrelated sound is mixed into, see `pollution.py`.
        pollution_db: bounds of a clip's level over that sound.
        common: see `CorpusData`; `balance` 1 draws every recording as often as any other, 0 every label.

    Attributes:
        has_pictures: whether its batches have pictures to ask by.
    """

    has_pictures = False

    def __init__(
        self,
        sources: int = 2,
        asked: int = 2,
        text: Literal["label", "caption", "any"] = "label",
        gains: Gains | None = None,
        short: Literal["repeat", "pad", "place"] = "repeat",
        distinct: bool = True,
        polluted: float = 0.0,
        pollution_db: tuple[float, float] = (-5.0, 5.0),
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if not 1 <= asked <= sources:
            raise ValueError(f"of {sources} sources, {asked} cannot be asked for")
        self.sources, self.asked, self.text, self.gains = sources, asked, text, gains or RandomGains()
        self.short, self.distinct, self.polluted, self.pollution_db = short, distinct, polluted, pollution_db

    def ready(self, corpus: Corpus) -> None:
        """See `CorpusData.ready`."""
        self.use(corpus, corpus.labels)

    def use(self, corpus: Corpus, labels: list[str]) -> None:
        """Draws from these clips, and of them only those of some labels."""
        self.corpus, self.clips, self.labels = corpus, corpus.clips, labels
        self.sounds: Corpus | Polluted = corpus
        if self.polluted:
            self.sounds = Polluted(corpus, self.polluted, *self.pollution_db, seed=self.seed)
        counts = np.array([len(corpus.tree[label]) for label in labels], dtype=float)
        self.chances = counts**self.balance / (counts**self.balance).sum()

    def number(self, rng: np.random.Generator) -> int:
        """A random clip: its label, then its recording, then one of that."""
        recordings = self.sounds.tree[self.labels[int(rng.choice(len(self.chances), p=self.chances))]]
        numbers = recordings[list(recordings)[int(rng.integers(len(recordings)))]]
        return numbers[int(rng.integers(len(numbers)))]

    def fits(self, clip: Clip, other: Clip) -> bool:
        """Whether two clips may be mixed."""
        return unrelated(clip, other) if self.distinct else clip.recording != other.recording

    def numbers(self, rng: np.random.Generator) -> list[int]:
        """The clips of one mixture."""
        chosen: list[int] = []
        for _ in range(100 * self.sources):
            number = self.number(rng)
            if all(self.fits(self.clips[number], self.clips[other]) for other in chosen):
                chosen.append(number)
            if len(chosen) == self.sources:
                return chosen
        raise DataError(f"{self.manifest or 'data'}: there are no {self.sources} clips that may be mixed.")

    def fitted(self, wave: Tensor, start: int, rng: np.random.Generator) -> Tensor:
        """The mixture's length of a clip (time,) from `start`, or the whole of a shorter one."""
        if wave.numel() >= self.length:
            return wave[start : start + self.length]
        room = self.length - wave.numel()
        if self.short == "repeat":
            return wave.repeat(-(-self.length // wave.numel()))[: self.length]
        before = int(rng.integers(room + 1)) if self.short == "place" else 0
        return F.pad(wave, (before, room - before))

    def cut(self, number: int, rng: np.random.Generator) -> tuple[Tensor, list[Any]]:
        """A part of a clip (time,), with its pictures: none here, see `pictured.py`. Pauses are passed over."""
        return self.part(self.sounds.waveform(number), rng), []

    def part(self, wave: Tensor, rng: np.random.Generator, pause: float = PAUSE) -> Tensor:
        """The mixture's length of a clip (time,), from a random place that is no pause if there is one.

        `pause` is the root mean square below which a place counts as one.
        """
        for _ in range(ATTEMPTS):
            start = int(rng.integers(max(0, wave.numel() - self.length) + 1))
            part = self.fitted(wave, start, rng)
            if part.square().mean().sqrt() > pause:
                break
        return part

    def called(self, clip: Clip, rng: np.random.Generator) -> str:
        """A text for a clip."""
        if self.text == "any" and clip.label:
            texts: list[str] | tuple[str, ...] = texts_of(clip.label, clip.captions)
        else:
            first, other = ((clip.label,), clip.captions) if self.text == "label" else (clip.captions, (clip.label,))
            texts = [text for text in first if text] or [text for text in other if text]
        if not texts:
            raise DataError(f"{clip.path}: it has neither label nor caption to ask for it by.")
        return texts[int(rng.integers(len(texts)))]

    def item(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, list[str], list[str], list[list[Any]]]:
        """One mixture: its sources, what was drawn for their levels, and the queries' texts, labels and pictures."""
        numbers = self.numbers(rng)
        cuts = [self.cut(number, rng) for number in numbers]
        waves = torch.stack([wave for wave, _ in cuts])
        if self.gains.as_recorded:
            waves = waves * torch.tensor([self.sounds.peaks[number] for number in numbers])[:, None]
        levels = self.gains.draw(len(waves), rng)
        asked = [self.clips[number] for number in numbers[: self.asked]]
        texts = [self.called(clip, rng) for clip in asked]
        return waves, levels, texts, [clip.label for clip in asked], [shown for _, shown in cuts[: self.asked]]

    def drawn(self, items: Sequence[np.random.Generator], shared: np.random.Generator) -> Queried:  # type: ignore[override]
        """One batch, of one mixture for each generator."""
        sources, levels, texts, labels, pictures = zip(*map(self.item, items), strict=True)
        seen = list(pictures) if all(shown for row in pictures for shown in row) else []
        return Queried(torch.stack(sources), list(texts), list(labels), seen, torch.stack(levels))

    def mixed(self, batch: Any) -> Any:
        """A batch with its sources at their levels, on the device where it is; other things as they are."""
        if not isinstance(batch, Queried) or batch.levels is None:
            return batch
        return replace(batch, sources=self.gains.applied(batch.sources, batch.levels), levels=None)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.mixed(batch)
