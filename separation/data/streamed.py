"""Mixtures of clips that stream in from shards, for sets that one machine cannot hold.

Nobody can draw from clips that have not come yet. So the last ones are held, and every clip that comes in is mixed with
some of those: the shards' order and this choice are functions of (seed, epoch, rank, worker).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from separation.data.manifest import Clip, DataError
from separation.data.queried import PAUSE, Queried, QueriedData
from separation.data.shards import ShardedClips

Held = tuple[Clip, Tensor]


class Streamed(Protocol):
    """A data module whose clips stream in.

    shards, buffer: see `StreamedData`. The others are those of `CorpusData`.
    """

    shards: str
    buffer: int
    batch_size: int
    seed: int
    sample_rate: int
    workers: int

    def position(self) -> tuple[int, int]: ...

    def ranks(self) -> tuple[int, int]: ...

    def stream(self, epoch: int) -> Stream: ...


class Stream(Protocol):
    """The batches of one epoch, as `DataLoader` takes them.

    clips: what they are made of.
    """

    clips: ShardedClips

    def __iter__(self) -> Iterator[Any]: ...

    def turns_of(self, clips: int) -> int:
        """How many items a worker makes of so many clips."""
        ...


def clips_of(data: Streamed, epoch: int, as_recorded: bool = False) -> ShardedClips:
    """The stream of one epoch, of which every rank gets as many clips.

    Raises:
        DataError: as `ShardedClips`, or the shards are at another rate than the training.
    """
    clips = ShardedClips(data.shards, "train", data.buffer, data.seed, even=True, as_recorded=as_recorded)
    if clips.sample_rate != data.sample_rate:
        raise DataError(f"{clips.index}: the shards are at {clips.sample_rate} Hz, the training at {data.sample_rate}.")
    clips.set_epoch(epoch)
    return clips


def generator(*numbers: int) -> np.random.Generator:
    """This worker's generator, of these numbers and its own."""
    return np.random.default_rng((*numbers, info.id if (info := get_worker_info()) else 0))


class StreamedData(QueriedData):
    """Mix-and-separate as in `QueriedData`, from a folder of shards instead of a manifest's recordings.

    An epoch is every clip once, as a mixture's first source; the first ones of each worker only fill what is held.
    Those of them that are still held when the stream ends get their turn then: short streams are trained on too.

    Args:
        shards: where `separation-data shard` wrote, a folder or an http(s) address.
        held: clips that each worker holds to mix with; more of them mix more freely and take more memory.
        buffer: clips that are held to be shuffled before that.
        common: see `QueriedData`; manifest, root and validation serve the validation alone. Pollution, procedural clips
            and `balance` belong to a corpus: a stream is what was written.

    Raises:
        ValueError: a setting asks for what a stream cannot give.
    """

    def __init__(self, shards: str, held: int = 64, buffer: int = 256, **common: Any) -> None:
        super().__init__(**common)
        if self.polluted:
            raise ValueError("clips that stream in are not polluted; write the shards from polluted clips")
        if held < self.sources:
            raise ValueError(f"of {held} clips that are held, no {self.sources} can be mixed in some order")
        self.shards, self.held, self.buffer = shards, held, buffer

    def load(self) -> None:
        """Nothing: each epoch opens its stream."""

    def stream(self, epoch: int) -> Mixtures:
        """The batches of one epoch."""
        return Mixtures(self, epoch)

    def mixture(self, clip: Held, held: deque[Held], rng: np.random.Generator) -> list[Held]:
        """A clip and others of those held that may be mixed with it.

        Raises:
            DataError: there are none.
        """
        chosen = [clip]
        for number in rng.permutation(len(held)):
            if len(chosen) == self.sources:
                break
            if all(self.fits(held[number][0], other) for other, _ in chosen):
                chosen.append(held[number])
        if len(chosen) < self.sources:
            raise DataError(
                f"{self.shards}: {clip[0].path} cannot be mixed with {self.sources - 1} of the {len(held)} clips that "
                "are held; hold more of them, or stream more clips."
            )
        return chosen

    def batch(self, mixtures: list[list[Held]], rng: np.random.Generator) -> Queried:
        """Cut and called, with what was drawn for the levels."""
        waves = [[self.part(wave, rng, PAUSE * float(wave.abs().max())) for _, wave in each] for each in mixtures]
        levels = torch.stack([self.gains.draw(len(each), rng) for each in waves])
        asked = [[clip for clip, _ in mixture[: self.asked]] for mixture in mixtures]
        texts = [[self.called(clip, rng) for clip in clips] for clips in asked]
        labels = [[clip.label for clip in clips] for clips in asked]
        return Queried(torch.stack([torch.stack(each) for each in waves]), texts, labels, levels=levels)

    def train_dataloader(self) -> Any:
        return StreamLoader(self)


class Mixtures(IterableDataset[Queried]):
    """The batches that one worker makes of its clips of one epoch."""

    def __init__(self, data: StreamedData, epoch: int) -> None:
        self.clips, self.epoch = clips_of(data, epoch, data.gains.as_recorded), epoch
        self.seed, self.rank = data.seed, data.ranks()[0]
        self.held, self.size = data.held, data.batch_size
        self.mixture: Callable[..., list[Held]] = data.mixture
        self.batch: Callable[..., Queried] = data.batch

    def __iter__(self) -> Iterator[Queried]:
        rng = generator(self.seed, self.epoch, self.rank)
        waiting: list[list[Held]] = []
        for clip, held in self.turns():
            waiting.append(self.mixture(clip, held, rng))
            if len(waiting) == self.size:
                yield self.batch(waiting, rng)
                waiting = []

    def turns(self) -> Iterator[tuple[Held, deque[Held]]]:
        """Every clip that gets a mixture of its own, with those that are held when its turn comes.

        How many there are depends on the number of clips alone, which is the same on every rank.
        """
        held: deque[Held] = deque(maxlen=self.held)
        had: deque[bool] = deque(maxlen=self.held)  # whether each of them has had its turn
        for clip in self.clips:
            full = len(held) == self.held
            if full:
                yield clip, held
            held.append(clip)
            had.append(full)
        yield from ((clip, held) for clip, done in zip(list(held), had, strict=True) if not done)

    def turns_of(self, clips: int) -> int:
        """How many `turns` so many clips give: the first ones that are held have none unless they stay to the end."""
        return clips if clips < self.held else max(clips - self.held, self.held)


class StreamLoader:
    """An epoch's batches; a training that goes on in the middle of one passes over those that it has had.

    Raises:
        DataError: an epoch has not a single batch.
    """

    def __init__(self, data: Streamed) -> None:
        self.data = data

    def __len__(self) -> int:
        """Batches of an epoch, of each the same number: by it Lightning knows how long a training is."""
        return self.count

    @cached_property
    def count(self) -> int:
        """See `__len__`; the shards' index is read once."""
        stream, ranks, workers = self.data.stream(0), self.data.ranks()[1], max(1, self.data.workers)
        stream.clips.check_round(ranks, workers)
        turns = stream.turns_of(stream.clips.each(ranks, workers))
        count = workers * (turns // self.data.batch_size)
        if count == 0:
            raise DataError(
                f"{self.data.shards}: an epoch of it makes no batch of {self.data.batch_size} in any of "
                f"{workers} workers; stream more clips, or lower data.batch_size or data.workers."
            )
        return count

    def __iter__(self) -> Iterator[Any]:
        epoch, first = self.data.position()
        loader: DataLoader[Any] = DataLoader(
            self.data.stream(epoch),  # type: ignore[arg-type]
            batch_size=None,
            num_workers=self.data.workers,
            generator=torch.Generator(),
        )
        yield from islice(loader, first, self.count)

    def state_dict(self) -> dict[str, int]:
        """Nothing is kept, as in `Loader`."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """See `state_dict`."""
