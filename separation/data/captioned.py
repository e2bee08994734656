"""Mixtures of captioned clips, for weak supervision from text: captions, their phrases, and isolated clips."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from separation.data.corpus import Corpus
from separation.data.datamodule import CorpusData
from separation.data.derived import MixedClips
from separation.data.gains import RandomGains
from separation.data.mixing import draw_excerpt, repeat_to
from separation.data.texts import draw_published_phrases, fill_slots, phrases, published_phrases
from separation.data.transfer import Transferable
from separation.errors import DataError

MAX_ATTEMPTS = 50
WORD = re.compile(r"\w")
GAINS = RandomGains(0.5, 1.5)


@dataclass
class CaptionedBatch(Transferable):
    """Mixtures of captioned clips. Lists of texts run over the batch, then over clips, then over phrases.

    Attributes:
        clips: (batch, clips, time); their sum is the mixture.
        captions: batch * clips texts.
        phrases: batch * clips * slots texts.
        shares: (batch, clips, slots), weight of a phrase in its clip.
        isolated: (items, clips, time), recordings of one sound each; items may be 0.
        names: items * clips texts.
    """

    clips: Tensor
    captions: list[str]
    phrases: list[str]
    shares: Tensor
    isolated: Tensor
    names: list[str]


class CaptionMixer:
    """Draws mixtures of clips whose captions differ.

    Args:
        source: the clips.
        count: clips per mixture.
        length: samples of a clip.
        as_recorded: clips at their recorded levels, clipped to [-1, 1] after the gain, as published; otherwise at the
            levels that the source gives them.
        published: phrases by the published rules, the middle of each clip with zeros around shorter ones, and captions
            with a common phrase in one mixture, as in the published AudioCaps training.

    Raises:
        DataError: if fewer than `count` clips have a caption.
    """

    def __init__(
        self, source: Corpus | MixedClips, count: int, length: int, as_recorded: bool = False, published: bool = False
    ) -> None:
        self.source, self.count, self.length, self.published = source, count, length, published
        self.peaks = source.peaks if as_recorded and isinstance(source, Corpus) else None
        self.usable = [number for number, clip in enumerate(source.clips) if WORD.search(clip.caption)]
        if len(self.usable) < count:
            raise DataError(f"{len(self.usable)} clips have a caption; {count} are needed for a mixture.")

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, list[str]]:
        """Draw a mixture: clips (clips, time), whose sum is the mixture, and their captions.

        No two clips have a phrase in common, unless none are found in 50 attempts or `published` is set.
        """
        for _ in range(MAX_ATTEMPTS):
            numbers = [self.usable[i] for i in rng.choice(len(self.usable), self.count, replace=False)]
            captions = [self.source.clips[number].caption for number in numbers]
            said = [phrase.lower() for caption in captions for phrase in split_caption(caption, self.published)]
            if self.published or len(set(said)) == len(said):
                break
        waves = torch.zeros(self.count, self.length)
        for wave, clip in zip(waves, map(self.source.waveform, numbers), strict=True):
            if self.published:
                before = self.length // 2 - len(clip) // 2  # negative: samples that are cut off
                wave[:] = F.pad(clip, (before, self.length - before - len(clip)))
            else:
                wave[:] = draw_excerpt(repeat_to(clip, self.length), self.length, rng)
        gains = GAINS.draw(self.count, rng)
        if self.peaks is None:
            return waves * gains[:, None] / self.count, captions
        peaks = torch.tensor([self.peaks[number] for number in numbers])[:, None]
        return GAINS.apply(waves * peaks, gains), captions


@lru_cache(100_000)
def split_caption(caption: str, published: bool) -> list[str]:
    """Phrases of a caption; the caption itself if it has none."""
    return (published_phrases if published else phrases)(caption) or [caption]


class CaptionedData(CorpusData):
    """Mixtures of captioned clips, which are mixtures themselves.

    Args:
        clips: clips per mixture (N).
        slots: phrases per clip (P).
        sources: make each clip from this many of the manifest's recordings, with a caption that names their labels; 0
            takes the manifest's clips and captions as they are.
        made: number of clips that are made.
        isolated_manifest: recordings of one sound each, for semi-supervised training.
        isolated: number of mixtures of those per batch, in addition to `batch_size` others; at most `batch_size`.
        published: phrases, excerpts and pairs as in the published AudioCaps training, see `CaptionMixer`; more than
            `slots` phrases are drawn from instead of joined.
        as_recorded: the manifest's clips at their recorded levels; otherwise with a peak of one. Clips that are made
            have no recorded level.
        common: see `CorpusData`; `seconds` is the length of a clip.

    Raises:
        ValueError: if only one of `isolated` and `isolated_manifest` is given, `isolated` is out of its range, or clips
            that are made should come as recorded.
    """

    def __init__(
        self,
        *args: Any,
        clips: int = 2,
        slots: int = 2,
        sources: int = 0,
        made: int = 2000,
        isolated_manifest: Path | None = None,
        isolated: int = 0,
        as_recorded: bool = False,
        published: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(*args, **common)
        if bool(isolated) != (isolated_manifest is not None):
            raise ValueError("data.isolated and data.isolated_manifest must be given together")
        if not 0 <= isolated <= self.batch_size:
            raise ValueError(f"isolated must be between 0 and batch_size ({self.batch_size}), not {isolated}")
        if sources and as_recorded:
            raise ValueError("clips made of several sources have no recorded level: as_recorded must be false")
        self.clips, self.slots, self.sources, self.made = clips, slots, sources, made
        self.isolated_manifest, self.isolated, self.as_recorded = isolated_manifest, isolated, as_recorded
        self.published = published
        self.more_manifests = (isolated_manifest,) if isolated_manifest else ()
        self.mixer: Any = None  # set with the corpus
        self.isolated_mixer: CaptionMixer | None = None

    def set_corpus(self, corpus: Corpus) -> None:
        seconds = self.length / self.sample_rate
        source = MixedClips(corpus, self.sources, self.made, seconds, self.seed) if self.sources else corpus
        self.mixer = CaptionMixer(source, self.clips, self.length, self.as_recorded, self.published)
        if self.isolated_manifest is not None:
            singles = Corpus(self.isolated_manifest, "train", self.root, self.sample_rate, notice=self.notice)
            single = MixedClips(singles, 1, self.made, seconds, self.seed + 1)
            self.isolated_mixer = CaptionMixer(single, self.clips, self.length)

    def draw_batch(
        self, items: Sequence[np.random.Generator], shared: np.random.Generator, rank: int
    ) -> CaptionedBatch:
        mixtures = [self.mixer.draw(rng) for rng in items]
        filled, slots = [], self.slots
        for rng, (_, captions) in zip(items, mixtures, strict=True):
            for found in (split_caption(caption, self.published) for caption in captions):
                filled.append(draw_published_phrases(found, slots, rng) if self.published else fill_slots(found, slots))
        isolated, names = [torch.zeros(0, self.clips, self.length)], []
        if self.isolated_mixer is not None:
            for rng in shared.spawn((rank + 1) * self.isolated)[rank * self.isolated :]:
                waves, captions = self.isolated_mixer.draw(rng)
                isolated.append(waves[None])
                names += captions
        return CaptionedBatch(
            clips=torch.stack([waves for waves, _ in mixtures]),
            captions=[caption for _, captions in mixtures for caption in captions],
            phrases=[phrase for texts, _ in filled for phrase in texts],
            shares=torch.tensor([weights for _, weights in filled]).view(len(items), self.clips, slots),
            isolated=torch.cat(isolated),
            names=names,
        )
