"""Batches of captioned clips for weak supervision from text: captions, their phrases, and isolated clips beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import Corpus
from separation.data.datamodule import Batches, MixtureData
from separation.data.made import Mixed, excerpt
from separation.data.manifest import Clip, DataError
from separation.data.phrases import phrases, slots

ATTEMPTS = 50
GAINS = (0.5, 1.5)


@dataclass
class CaptionedBatch:
    """Mixtures of captioned clips. Text lists run over the batch, then over clips, then over phrases.

    clips: (batch, clips, time); their sum is the mixture. captions: batch * clips texts. phrases: batch * clips * slots
    texts. shares: (batch, clips, slots), a phrase's weight in its clip. isolated: (items, clips, time), recordings of
    one sound each, or none; names: items * clips texts.
    """

    clips: Tensor
    captions: list[str]
    phrases: list[str]
    shares: Tensor
    isolated: Tensor
    names: list[str]


class Captions(Protocol):
    """What batches are drawn from: a corpus, or clips made of one."""

    clips: list[Clip]

    def __len__(self) -> int: ...

    def waveform(self, number: int) -> Tensor: ...


class Drawn:
    """Clips with captions that say different things.

    Args:
        source: gives waveforms and captions.
        count: clips a mixture.
        length: samples of a clip.
        slots: phrases a clip.
        as_recorded: clips at their recordings' own level, cut off at [-1, 1] after the gain as published; otherwise at
            the level that the source gives them.

    Raises:
        DataError: no clip has a caption.
    """

    def __init__(
        self, source: Captions | Corpus, count: int, length: int, slots: int, as_recorded: bool = False
    ) -> None:
        self.source, self.count, self.length, self.slots = source, count, length, slots
        self.peaks = source.peaks if as_recorded and isinstance(source, Corpus) else None
        self.phrases = [phrases(clip.caption) for clip in source.clips]
        self.usable = [number for number, found in enumerate(self.phrases) if found]
        if len(self.usable) < count:
            raise DataError(f"{len(self.usable)} clips have a caption; {count} are needed for a mixture.")

    def numbers(self, rng: np.random.Generator) -> list[int]:
        """Clips of which no two have a phrase in common; after many attempts, just different ones."""
        for _ in range(ATTEMPTS):
            chosen = [self.usable[i] for i in rng.choice(len(self.usable), self.count, replace=False)]
            said = [phrase.lower() for number in chosen for phrase in self.phrases[number]]
            if len(set(said)) == len(said):
                break
        return chosen

    def waves(self, numbers: list[int], rng: np.random.Generator) -> Tensor:
        """Clips (clips, time) at random levels. They are divided once by their number: their sum is the mixture."""
        waves = torch.stack([excerpt(self.source.waveform(number), self.length, rng) for number in numbers])
        gains = torch.from_numpy(rng.uniform(*GAINS, len(numbers))).float()[:, None]
        if self.peaks is None:
            return waves * gains / len(numbers)
        peaks = torch.tensor([self.peaks[number] for number in numbers])[:, None]
        return (waves * peaks * gains).clamp(-1, 1) / len(numbers)

    def captions(self, numbers: list[int]) -> list[str]:
        """The clips' captions."""
        return [self.source.clips[number].caption for number in numbers]


class CaptionedData(MixtureData):
    """Mixtures of captioned clips, which are mixtures themselves.

    Args:
        clips: clips a mixture (N).
        slots: phrases a clip (P).
        sources: make each clip of so many of the manifest's recordings, with a caption that names their labels; 0
            takes the manifest's clips and captions as they are.
        made: how many clips are made so.
        isolated_manifest: recordings of one sound each, for semi-supervised training.
        isolated: mixtures of those in a batch, beside its `batch_size` others and not more than these.
        as_recorded: the manifest's clips at their own levels; otherwise each with its peak at one. Clips that are made
            have no level of their own.
        common: see `CorpusData`; `seconds` is a clip's length.

    Raises:
        ValueError: one of `isolated` and `isolated_manifest` is given without the other, or `isolated` is impossible;
            or clips that are made are asked for as they were recorded.
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
        **common: Any,
    ) -> None:
        super().__init__(*args, **common)
        if bool(isolated) != (isolated_manifest is not None):
            given, other = ("isolated", "isolated_manifest") if isolated else ("isolated_manifest", "isolated")
            raise ValueError(f"semi-supervised training takes isolated_manifest and isolated: {given} lacks {other}")
        if not 0 <= isolated <= self.batch_size:
            raise ValueError(f"isolated is a number from 0 to batch_size, {self.batch_size}, and not {isolated}")
        if sources and as_recorded:
            raise ValueError("clips that are made of several sources were never recorded: as_recorded must be false")
        self.as_recorded, self.place = as_recorded, (0, 1)
        self.clips, self.slots, self.sources, self.made = clips, slots, sources, made
        self.isolated_manifest, self.isolated = isolated_manifest, isolated
        self.alone: Drawn | None = None

    def others(self) -> list[Path]:
        return [] if self.isolated_manifest is None else [self.isolated_manifest]

    def ready(self, corpus: Corpus) -> None:
        source = Mixed(corpus, self.sources, self.made, self.seconds, self.seed) if self.sources else corpus
        self.mixtures = Drawn(source, self.clips, self.length, self.slots, self.as_recorded)
        if self.isolated_manifest is not None:
            singles = Corpus(self.isolated_manifest, "train", self.root, self.sample_rate, self.cache, say=self.say)
            single = Mixed(singles, 1, self.made, self.seconds, self.seed + 1)
            self.alone = Drawn(single, self.clips, self.length, 1)

    @property
    def seconds(self) -> float:
        """Length of a clip."""
        return self.length / self.sample_rate

    def epoch(self, number: int) -> Batches:
        self.place = self.ranks()  # for `drawn`, which a worker of its own may call
        return super().epoch(number)

    def drawn(self, items: Sequence[np.random.Generator], shared: np.random.Generator) -> CaptionedBatch:  # type: ignore[override]
        source = self.mixtures
        numbers = [source.numbers(rng) for rng in items]
        filled = [slots(source.phrases[number], self.slots) for each in numbers for number in each]
        rank, world = self.place
        alone = shared.spawn(world * self.isolated)[rank * self.isolated :][: self.isolated]
        waves, names = self.drawn_alone(alone)
        return CaptionedBatch(
            clips=torch.stack([source.waves(each, rng) for each, rng in zip(numbers, items, strict=True)]),
            captions=[caption for each in numbers for caption in source.captions(each)],
            phrases=[phrase for texts, _ in filled for phrase in texts],
            shares=torch.tensor([weights for _, weights in filled]).view(len(items), self.clips, self.slots),
            isolated=waves,
            names=names,
        )

    def drawn_alone(self, items: Sequence[np.random.Generator]) -> tuple[Tensor, list[str]]:
        """Mixtures of isolated recordings (items, clips, time) with their texts."""
        if self.alone is None or not items:
            return torch.zeros(0, self.clips, self.length), []
        numbers = [self.alone.numbers(rng) for rng in items]
        waves = [self.alone.waves(each, rng) for each, rng in zip(numbers, items, strict=True)]
        return torch.stack(waves), [caption for each in numbers for caption in self.alone.captions(each)]
