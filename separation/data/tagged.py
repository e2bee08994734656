"""Clips with clip-level labels, drawn class by class: for taggers, and for weak supervision by them."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from separation.data.corpus import Corpus
from separation.data.datamodule import CorpusData, Loader
from separation.data.mixing import draw_excerpt
from separation.data.streaming import StreamedClip
from separation.data.transfer import Transferable
from separation.errors import DataError

AUDIOSET, AUDIOSET_CLASSES = "audioset", 527
SHOWN_LABELS = 3  # in messages
PLACE = 3  # marks the generator of a clip's excerpt
TaggedItem = tuple[int, list[int], Tensor]
"""The class that a clip was drawn for, all its classes, and its waveform (time,)."""


@dataclass
class TaggedBatch(Transferable):
    """Clips and their labels.

    Attributes:
        waveforms: (batch, time).
        tags: (batch, classes), one for each label of a clip, otherwise zero.
        drawn_class: (batch,), the class that each clip was drawn for.
    """

    waveforms: Tensor
    tags: Tensor
    drawn_class: Tensor


class BalancedSampler:
    """An endless list of (class, clip): every class equally often, every clip of a class equally often.

    As in USS, classes come from a shuffled list of all classes, which is shuffled again when it is used up, and so do
    the clips of a class. Each position is a function of (seed, position), so a resumed run continues the same list.

    Args:
        members: clip numbers of every class.
        seed: of the shuffling.

    Raises:
        DataError: if there is no class, or a class has no clip.
    """

    def __init__(self, members: Sequence[Sequence[int]], seed: int) -> None:
        empty = [number for number, clips in enumerate(members) if not clips]
        if empty:
            raise DataError(f"The class number {empty[0]} has no clip.")
        if not members:
            raise DataError("No clip has one of the classes.")
        self.members, self.seed = members, seed
        self.orders: dict[int, tuple[int, np.ndarray]] = {}  # the last turn and order of each list

    def __getitem__(self, position: int) -> tuple[int, int]:
        """Class and clip number at a position."""
        visit, place = divmod(position, len(self.members))  # a class is visited once per round
        label = int(self._order(len(self.members), 0, visit)[place])
        clips = self.members[label]
        visit, place = divmod(visit, len(clips))
        return label, clips[int(self._order(len(clips), 1 + label, visit)[place])]

    def _order(self, size: int, which: int, turn: int) -> np.ndarray:
        """The `turn`-th order of a list, which is kept until another turn is asked for."""
        if self.orders.get(which, (-1,))[0] != turn:
            order = np.random.default_rng((self.seed, which, turn)).permutation(size)
            self.orders[which] = turn, order.astype(np.min_scalar_type(max(size - 1, 0)))
        return self.orders[which][1]


def class_of(label: str, labels: Sequence[str] | str) -> int | None:
    """Number of a label in a list or, for "audioset", among the 527 classes; None if it is not one of them."""
    if labels != AUDIOSET:
        return list(labels).index(label) if label in labels else None
    from separation.vocabulary.ontology import OntologyError, class_index

    try:
        return class_index(label)
    except OntologyError:
        return None


class SplitClips(Dataset[TaggedBatch]):
    """All clips of a split that have one of the classes, in batches; each rank has its share."""

    def __init__(self, data: TaggedData, corpus: Corpus) -> None:
        self.data, self.corpus = data, corpus
        numbers = ((place, data.class_numbers(clip.labels)) for place, clip in enumerate(corpus.clips))
        rank, world = data.ranks()
        self.clips = [clip for clip in numbers if clip[1]][rank::world]

    def __len__(self) -> int:
        return -(-len(self.clips) // self.data.batch_size)

    def __getitem__(self, index: int) -> TaggedBatch:
        items, size = [], self.data.batch_size
        for place, numbers in self.clips[index * size : (index + 1) * size]:
            level = self.corpus.peaks[place] if self.data.as_recorded else 1.0
            items.append((numbers[0], numbers, self.corpus.waveform(place) * level))
        return self.data.make_batch(items, [np.random.default_rng((self.data.seed, PLACE, index))] * len(items))


class TaggedData(CorpusData):
    """Clips drawn class by class.

    The clips are those of the manifest, drawn with the `BalancedSampler`, or stream from shards. An epoch of a stream
    draws as many clips as arrive, each time first a class among the clips that are held, then one of its clips.

    Args:
        labels: classes in the tagger's order; by default the manifest's labels, sorted; "audioset" = the 527 AudioSet
            classes. Clips of other labels are left out, classes without clips are never drawn.
        validation_clips: validate on the clips of the split "validation" (in `test`: "test") instead of mixtures.
        as_recorded: clips at their recorded levels; otherwise with a peak of one.
        shards: folder or http(s) address of `separation-data shard`; None = the manifest's clips.
        held: clips of a stream that each worker holds to draw from; ten seconds at 32 kHz take 1.3 MB.
        buffer: clips of a stream that are held to be shuffled before that.
        common: see `CorpusData`; `seconds` is the length of a clip. Shorter clips end in silence, longer ones are cut.
            With shards, manifest, root and validation serve the validation only.

    Raises:
        ValueError: if shards are given without labels or held clips.
    """

    def __init__(
        self,
        *args: Any,
        labels: list[str] | str | None = None,
        validation_clips: bool = False,
        as_recorded: bool = False,
        shards: str | None = None,
        held: int = 512,
        buffer: int = 256,
        **common: Any,
    ) -> None:
        super().__init__(*args, **common)
        if shards and labels is None:
            raise ValueError('streamed clips need data.labels: a list, or "audioset"')
        if shards and held < 1:
            raise ValueError(f"data.held is {held}; the least is 1")
        self.labels, self.as_recorded, self.validation_clips = labels, as_recorded, validation_clips
        self.shards, self.held, self.buffer = shards, held, buffer
        self.stream_options = {"balance": 0.0, "classes": self.is_class}  # every class equally often
        self.numbers_of: dict[str, int | None] = {}
        # Set with the corpus
        self.source: Any = None
        self.numbers: list[list[int]] = []
        self.present: list[int] = []
        self.sampler: Any = None
        if labels is not None:
            self.classes = AUDIOSET_CLASSES if labels == AUDIOSET else len(labels)
            self.fixed.accepts = self.is_class

    def is_class(self, label: str) -> bool:
        """Whether a label is one of the classes."""
        return bool(self.class_numbers([label]))

    def class_numbers(self, labels: Sequence[str]) -> list[int]:
        """The classes among labels, sorted."""
        for label in labels:
            if label not in self.numbers_of:
                self.numbers_of[label] = class_of(label, self.labels or [])
        return sorted({number for label in labels if (number := self.numbers_of[label]) is not None})

    def val_dataloader(self) -> list[Loader]:
        return self.load_clips("validation") if self.validation_clips else super().val_dataloader()

    def test_dataloader(self) -> list[Loader]:
        return self.load_clips("test") if self.validation_clips else super().test_dataloader()

    def load_clips(self, split: str) -> list[Loader]:
        """A loader of this rank's share of a split's clips in batches; of a long clip always the same excerpt."""
        if self.manifest is None:
            return []
        share = SplitClips(self, Corpus(self.manifest, split, self.root, self.sample_rate, 0, self.notice))
        return [Loader(share, len(share))]

    # From a corpus

    def set_corpus(self, corpus: Corpus) -> None:
        """Draw from the clips of a corpus, or of anything that has `clips`, `labels` and `waveform`."""
        self.source, self.numbers_of = corpus, {}
        if self.labels is None:
            self.labels = list(corpus.labels)
        self.classes = AUDIOSET_CLASSES if self.labels == AUDIOSET else len(self.labels)
        self.numbers = [self.class_numbers(clip.labels) for clip in corpus.clips]
        if left := [clip for clip, numbers in zip(corpus.clips, self.numbers, strict=True) if not numbers]:
            names = list(dict.fromkeys(label for clip in left for label in clip.labels)) or ["they have none"]
            shown = ", ".join(names[:SHOWN_LABELS] + ["..."] * (len(names) > SHOWN_LABELS))
            count = f"{len(left)} of {len(corpus.clips)}"
            self.notice(f"{count} clips are left out: none of their labels is a class ({shown}).")
        members: dict[int, list[int]] = defaultdict(list)
        for place, numbers in enumerate(self.numbers):
            for number in numbers:
                members[number].append(place)
        self.present = sorted(members)
        self.sampler = BalancedSampler([members[number] for number in self.present], self.seed)

    def batch(self, epoch: int, index: int, rank: int = 0, world: int = 1) -> TaggedBatch:
        """Return the next part of the sampler's list."""
        first = ((epoch * self.batches + index) * world + rank) * self.batch_size
        items, places = [], range(first, first + self.batch_size)
        for label, clip in (self.sampler[place] for place in places):
            wave = self.source.waveform(clip) * (self.source.peaks[clip] if self.as_recorded else 1.0)
            items.append((self.present[label], self.numbers[clip], wave))
        return self.make_batch(items, [np.random.default_rng((self.seed, PLACE, place)) for place in places])

    def make_batch(self, items: Sequence[TaggedItem], rngs: Sequence[np.random.Generator]) -> TaggedBatch:
        """Make a batch of random excerpts of long clips, which may be silent; silence follows short clips."""
        waveforms, tags = torch.zeros(len(items), self.length), torch.zeros(len(items), self.classes)
        for row, ((_, numbers, wave), rng) in enumerate(zip(items, rngs, strict=True)):
            waveforms[row] = draw_excerpt(wave, self.length, rng, "pad", attempts=1)
            tags[row, numbers] = 1
        return TaggedBatch(waveforms, tags, torch.tensor([number for number, _, _ in items]))

    # From a stream

    def stream(self, clips: Iterator[StreamedClip], rng: np.random.Generator) -> Iterator[TaggedItem]:
        """Draw a clip of those that are held whenever another one arrives, once `held` clips are there. At the end as
        many are drawn as are held, so the number of draws is that of the clips, which is the same on every rank.

        Raises:
            DataError: if no clip that is held has one of the classes.
        """
        held: deque[tuple[list[int], Tensor]] = deque()
        members: dict[int, deque[tuple[list[int], Tensor]]] = {}  # the same clips by class
        arrived = 0
        for arrived, (clip, wave) in enumerate(clips, 1):
            if arrived > self.held:
                yield self.draw_held(members, rng)
            if not (numbers := self.class_numbers(clip.labels)):
                continue
            if len(held) == self.held:
                for number in held.popleft()[0]:
                    members[number].popleft()
                    if not members[number]:
                        del members[number]
            held.append((numbers, wave))
            for number in numbers:
                members.setdefault(number, deque()).append(held[-1])
        for _ in range(min(arrived, self.held)):
            yield self.draw_held(members, rng)

    def draw_held(self, members: dict[int, Any], rng: np.random.Generator) -> TaggedItem:
        """Draw a class of the clips that are held, then one of its clips."""
        if not members:
            raise DataError(f"{self.shards}: none of the clips so far has one of the {self.classes} labels.")
        number = sorted(members)[int(rng.integers(len(members)))]
        return number, *members[number][int(rng.integers(len(members[number])))]

    def count_turns(self, clips: int) -> int:
        """Number of clips that are drawn from a stream of so many clips."""
        return clips
