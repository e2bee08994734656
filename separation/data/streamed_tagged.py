"""Clips with labels that stream in from shards, drawn class by class from those that are held: AudioSet for USS.

A class cannot be drawn whose clips have not come yet. So classes are equally often among those that are held, which is
the nearer to the balanced sampler the more clips are held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from separation.data.manifest import DataError
from separation.data.streamed import StreamLoader, clips_of, generator
from separation.data.tagged import AUDIOSET, AUDIOSET_CLASSES, TaggedBatch, TaggedData, class_of

Tagged = tuple[list[int], Tensor]
"""A clip's classes and its samples (time,)."""


class StreamedTaggedData(TaggedData):
    """Clips drawn class by class as in `TaggedData`, from a folder of shards instead of a manifest's recordings.

    An epoch draws as many clips as stream in: one for each that comes once the first ones are held, and the others when
    the stream has ended.

    Args:
        shards: where `separation-data shard` wrote, a folder or an http(s) address.
        labels: as in `TaggedData`, and must be given: a stream is not read beforehand.
        held: clips that each worker holds to draw from; ten seconds at 32 kHz take 1.3 MB.
        buffer: clips that are held to be shuffled before that.
        common: see `TaggedData`; manifest, root and validation serve the validation alone.

    Raises:
        ValueError: no labels or no held clips are asked for.
    """

    def __init__(
        self, shards: str, labels: list[str] | str | None = None, held: int = 512, buffer: int = 256, **common: Any
    ) -> None:
        super().__init__(labels=labels, **common)
        if labels is None:
            raise ValueError('name the labels of clips that stream in, or "audioset"')
        if held < 1:
            raise ValueError(f"of {held} clips that are held, none can be drawn")
        self.shards, self.held, self.buffer = shards, held, buffer
        self.classes = AUDIOSET_CLASSES if labels == AUDIOSET else len(labels)

    def load(self) -> None:
        """Nothing: each epoch opens its stream."""

    def stream(self, epoch: int) -> Draws:
        """The batches of one epoch."""
        return Draws(self, epoch)

    def train_dataloader(self) -> Any:
        return StreamLoader(self)


class Draws(IterableDataset[TaggedBatch]):
    """The batches that one worker draws of its clips of one epoch."""

    def __init__(self, data: StreamedTaggedData, epoch: int) -> None:
        self.clips, self.epoch, self.data = clips_of(data, epoch, data.as_recorded), epoch, data
        self.rank = data.ranks()[0]
        self.labels: list[str] | str = data.labels or []
        self.known: dict[str, int | None] = {}

    def __iter__(self) -> Iterator[TaggedBatch]:
        rng = generator(self.data.seed, self.epoch, self.rank)
        waiting: list[tuple[int, Tagged]] = []
        for held in self.turns():
            waiting.append(self.drawn(held, rng))
            if len(waiting) == self.data.batch_size:
                yield self.batch(waiting, rng)
                waiting = []

    def turns(self) -> Iterator[deque[Tagged]]:
        """What is held when a clip is to be drawn. How often depends on the number of clips alone, as on every rank."""
        held: deque[Tagged] = deque(maxlen=self.data.held)
        came = 0
        for came, (clip, wave) in enumerate(self.clips, 1):
            if came > self.data.held:
                yield held
            if numbers := self.numbers(clip.labels):
                held.append((numbers, wave))
        for _ in range(min(came, self.data.held)):
            yield held

    def turns_of(self, clips: int) -> int:
        """As many as there are clips."""
        return clips

    def numbers(self, labels: tuple[str, ...]) -> list[int]:
        """The classes of labels, each once; labels that are none are left out."""
        for label in labels:
            if label not in self.known:
                self.known[label] = class_of(label, self.labels)
        return sorted({number for label in labels if (number := self.known[label]) is not None})

    def drawn(self, held: deque[Tagged], rng: np.random.Generator) -> tuple[int, Tagged]:
        """A class of those that are held, and one of its clips.

        Raises:
            DataError: no clip that is held has one of the classes.
        """
        members: dict[int, list[Tagged]] = {}
        for each in held:
            for number in each[0]:
                members.setdefault(number, []).append(each)
        if not members:
            raise DataError(
                f"{self.data.shards}: none of the clips that came has one of the {self.data.classes} labels."
            )
        number = sorted(members)[int(rng.integers(len(members)))]
        return number, members[number][int(rng.integers(len(members[number])))]

    def batch(self, drawn: list[tuple[int, Tagged]], rng: np.random.Generator) -> TaggedBatch:
        """Clips of one length, with all their labels."""
        tags = torch.zeros(len(drawn), self.data.classes)
        for row, (_, (numbers, _)) in zip(tags, drawn, strict=True):
            row[numbers] = 1
        waveforms = [self.data.part(wave, rng) for _, (_, wave) in drawn]
        return TaggedBatch(torch.stack(waveforms), tags, torch.tensor([number for number, _ in drawn]))
