"""Mixtures of clips with queries as texts, labels and pictures, for any query encoder.

Unlike `MixtureData`, which provides sentence vectors, a batch holds the queries themselves; the objective encodes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import Corpus
from separation.data.datamodule import CorpusData
from separation.data.derived import AllowedPairs, PollutedClips, unrelated
from separation.data.gains import Gains, RandomGains
from separation.data.manifest import Clip
from separation.data.mixing import SILENCE_RMS, draw_excerpt
from separation.data.pictures import Pictures
from separation.data.streaming import StreamedClip, stream_turns
from separation.data.texts import texts_of
from separation.data.transfer import Transferable
from separation.errors import DataError


@dataclass
class QueriedBatch(Transferable):
    """Sources of mixtures, and queries for the first `asked` of them.

    Attributes:
        sources: (batch, sources, time); the mixture is their sum.
        texts, labels: `asked` strings for each mixture.
        pictures: `asked` lists of pictures for each mixture, as paths, bytes of files, PIL, or vectors (dim,) of those
            that are in `VectorStore`; empty if the data has none.
        levels: (batch, numbers), what `Gains` has drawn; None once the levels are set.
    """

    sources: Tensor
    texts: list[list[str]]
    labels: list[list[str]]
    pictures: list[list[list[Any]]] = field(default_factory=list)
    levels: Tensor | None = None

    @property
    def asked(self) -> int:
        """Queries per mixture."""
        return len(self.texts[0])


class QueriedData(CorpusData):
    """Mix-and-separate: clips are drawn and added, and some of them are asked for.

    The clips are those of the manifest, or stream from shards. An epoch of a stream mixes every clip once as the first
    source; the first `held` clips of a worker are held to be mixed with later ones, and those that are still held at
    the end get their turn then.

    Args:
        sources: number of clips in a mixture.
        asked: number of them that are asked for, the first ones.
        text: text of a query: the clip's label, one of its captions, or any text for its label (see `texts.py`). A clip
            without a label is asked for by caption, and the other way round.
        gains: levels of the sources.
        short: a clip shorter than the mixture is repeated, padded with silence, or placed at random in silence.
        distinct: the sources of a mixture share no label; they never share a recording.
        together: JSON file with the classes that may sound together, see `AllowedPairs`; None = all of them.
        polluted: share of the training clips that an unrelated sound is mixed into, see `PollutedClips`.
        pollution_db: bounds of a clip's level relative to that sound, dB.
        frames: pictures per query, around the middle of the excerpt if a clip has one per second; 0 = none. Clips whose
            pictures are missing or broken are left out. Shards must have been written with pictures.
        vectors: file in which the vectors of pictures are kept for later trainings, see `VectorStore`; None: memory.
        margin: no middle is drawn in so many seconds at either end of a video.
        shards: folder or http(s) address of `separation-data shard`; None = the manifest's clips.
        held: clips of a stream that each worker holds to mix with; more clips mix more freely and take more memory.
        buffer: clips of a stream that are held to be shuffled before that.
        common: see `CorpusData`; `balance` 1 draws every recording equally often, 0 every label. With shards, manifest,
            root and validation serve the validation only, clips count instead of recordings (see `ShardedClips`), and
            pollution and procedural clips are not available.

    Raises:
        ValueError: if `asked` exceeds `sources`, or a setting is not available with shards.
        BrokenError: in `setup`, if pictures of more than 1 % of the clips are missing or broken.
    """

    def __init__(
        self,
        sources: int = 2,
        asked: int = 2,
        text: Literal["label", "caption", "any"] = "label",
        gains: Gains | None = None,
        short: Literal["repeat", "pad", "place"] = "repeat",
        distinct: bool = True,
        together: Path | None = None,
        polluted: float = 0.0,
        pollution_db: tuple[float, float] = (-5.0, 5.0),
        frames: int = 0,
        margin: int = 3,
        vectors: Path | None = None,
        shards: str | None = None,
        held: int = 64,
        buffer: int = 256,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if not 1 <= asked <= sources:
            raise ValueError(f"data.asked must be between 1 and data.sources ({sources}), not {asked}")
        if shards and polluted:
            raise ValueError("streamed clips cannot be polluted; write shards of polluted clips")
        if shards and held < sources:
            raise ValueError(f"data.held is {held}, but {sources} sources are mixed from the clips that are held")
        self.sources, self.asked, self.text, self.gains = sources, asked, text, gains or RandomGains()
        self.short, self.distinct, self.polluted, self.pollution_db = short, distinct, polluted, pollution_db
        self.together = None if together is None else AllowedPairs(together)
        self.frames, self.margin, self.vectors, self.pictures = frames, margin, vectors, Pictures(self.folder)
        self.shards, self.held, self.buffer = shards, held, buffer
        self.stream_options = {"balance": self.balance, "frames": self.has_pictures}
        # Set with the corpus
        self.clips: list[Clip] = []
        self.labels: Sequence[str] = ()
        self.label_bounds = np.zeros(0)  # cumulative probabilities of the labels
        self.sounds: Any = None

    @property
    def has_pictures(self) -> bool:
        """Whether batches contain pictures."""
        return self.frames > 0

    @property
    def as_recorded(self) -> bool:
        """Whether clips come at their recorded levels."""
        return self.gains.as_recorded

    # From a corpus

    def set_corpus(self, corpus: Corpus, labels: Sequence[str] | None = None) -> None:
        """Draw from the clips of a corpus, only from those of `labels` if they are given."""
        if self.frames:
            self.pictures.keep_readable(corpus, self.notice)
        self.corpus, self.clips, self.labels = corpus, corpus.clips, labels or corpus.labels
        polluted = PollutedClips(corpus, self.polluted, *self.pollution_db, seed=self.seed) if self.polluted else None
        self.sounds = polluted or corpus
        self.label_bounds = corpus.label_weights(self.balance, self.labels).cumsum()
        self.label_bounds /= self.label_bounds[-1]

    def draw_batch(self, items: Sequence[np.random.Generator], shared: np.random.Generator, rank: int) -> QueriedBatch:
        return self.make_batch(([self.load_clip(number) for number in self.draw_clips(rng)] for rng in items), items)

    def draw_clips(self, rng: np.random.Generator) -> list[int]:
        """Draw the clips of one mixture; raise DataError if none are found that may be mixed."""
        chosen: list[int] = []
        for _ in range(100 * self.sources):
            label = self.labels[int(self.label_bounds.searchsorted(rng.random(), "right"))]
            number = self.corpus.draw_clip(label, rng)
            if all(self.may_mix(self.clips[number], self.clips[other]) for other in chosen):
                chosen.append(number)
            if len(chosen) == self.sources:
                return chosen
        raise DataError(f"{self.manifest or 'data'}: there are no {self.sources} clips that may be mixed.")

    def may_mix(self, clip: Clip, other: Clip) -> bool:
        """Whether two clips may be in one mixture."""
        if self.together is not None and not self.together.allows(clip.labels, other.labels):
            return False
        return unrelated(clip, other) if self.distinct else clip.recording != other.recording

    def load_clip(self, number: int) -> StreamedClip:
        """Return a clip of the corpus as those of a stream are."""
        clip, wave = self.clips[number], self.sounds.waveform(number)
        wave = wave * self.corpus.peaks[number] if self.as_recorded else wave
        return (clip, wave, self.pictures.list_pictures(clip)) if self.frames else (clip, wave)

    def make_batch(
        self, mixtures: Iterable[Sequence[StreamedClip]], rngs: Sequence[np.random.Generator]
    ) -> QueriedBatch:
        """Make a batch of the clips of mixtures, each with a generator."""
        sources, clips, pictures = [], [], []
        for mixture, rng in zip(mixtures, rngs, strict=True):
            excerpts = [self.cut(wave, shown[0] if shown else [], rng) for _, wave, *shown in mixture]
            sources.append(torch.stack([wave for wave, _ in excerpts]))
            clips.append([clip for clip, *_ in mixture[: self.asked]])
            pictures.append([self.pictures.look_up(shown) for _, shown in excerpts[: self.asked]])
        levels = torch.stack([self.gains.draw(self.sources, rng) for rng in rngs])
        texts = [[self.draw_text(clip, rng) for clip in asked] for asked, rng in zip(clips, rngs, strict=True)]
        labels = [[clip.label for clip in asked] for asked in clips]
        return QueriedBatch(torch.stack(sources), texts, labels, pictures if self.frames else [], levels)

    def cut(self, wave: Tensor, pictures: list[Any], rng: np.random.Generator) -> tuple[Tensor, list[Any]]:
        """Draw an excerpt (time,) that is not silent beside the waveform's peak, and the pictures around its middle."""
        if len(pictures) < max(2, self.frames):  # not one per second
            silence = SILENCE_RMS * float(wave.abs().max())
            return draw_excerpt(wave, self.length, rng, self.short, silence), pictures[: self.frames]
        margin = min(self.margin, (len(pictures) - 1) // 2)
        middle = int(rng.integers(margin, len(pictures) - margin))  # picture number `middle` shows second middle + 0.5
        first = min(max(0, middle - self.frames // 2), len(pictures) - self.frames)
        start = round((middle + 0.5) * self.sample_rate) - self.length // 2
        start = min(max(0, start), max(0, wave.numel() - self.length))
        excerpt = draw_excerpt(wave[start : start + self.length], self.length, rng, self.short, attempts=1)
        return excerpt, pictures[first : first + self.frames]

    def draw_text(self, clip: Clip, rng: np.random.Generator) -> str:
        """Draw a text that asks for a clip; raise DataError if the clip has neither label nor caption."""
        if self.text == "any" and clip.label:
            texts = texts_of(clip.label, clip.captions)
        else:
            first, other = ((clip.label,), clip.captions) if self.text == "label" else (clip.captions, (clip.label,))
            texts = [text for text in first if text] or [text for text in other if text]
        if not texts:
            raise DataError(f"{clip.path}: the clip has neither label nor caption to ask for it by.")
        return texts[int(rng.integers(len(texts)))]

    def complete(self, batch: Any) -> Any:
        """Set the levels of the sources."""
        if not isinstance(batch, QueriedBatch) or batch.levels is None:
            return batch
        return replace(batch, sources=self.gains.apply(batch.sources, batch.levels), levels=None)

    # From a stream

    def stream(self, clips: Iterator[StreamedClip], rng: np.random.Generator) -> Iterator[list[StreamedClip]]:
        """Choose the clips of every mixture from those that are held; raise DataError if a clip fits none of them."""
        for clip, held in stream_turns(clips, self.held):
            chosen = [clip]
            for number in rng.permutation(len(held)):
                if len(chosen) == self.sources:
                    break
                if all(self.may_mix(held[number][0], other) for other, *_ in chosen):
                    chosen.append(held[number])
            if len(chosen) < self.sources:
                raise DataError(
                    f"{self.shards}: {clip[0].path} cannot be mixed with {self.sources - 1} of the {len(held)} clips "
                    "that are held; hold more of them, or stream more clips."
                )
            yield chosen

    def count_turns(self, clips: int) -> int:
        """Number of mixtures of a stream of so many clips."""
        return clips if clips < self.held else max(clips - self.held, self.held)
