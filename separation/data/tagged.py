"""Batches of clips with clip-level labels, classes balanced: for taggers, and for weak supervision by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from separation.data.balanced import BalancedSampler
from separation.data.corpus import Corpus
from separation.data.datamodule import MixtureData
from separation.data.fixed_mixtures import Row
from separation.data.made import Padded
from separation.data.manifest import DataError

AUDIOSET, AUDIOSET_CLASSES = "audioset", 527
SHOWN = 3  # labels that are none of the classes
PLACE = 3  # marks the generator of where a clip is cut


@dataclass
class TaggedBatch:
    """Clips and what their labels say.

    waveforms: (batch, time). tags: ones and zeros (batch, classes), all labels of each clip. drawn: (batch,), the class
    that each clip was drawn for.
    """

    waveforms: Tensor
    tags: Tensor
    drawn: Tensor


def class_of(label: str, labels: Sequence[str] | str) -> int | None:
    """A label's number in a list, or among the 527 AudioSet classes; None where it has none."""
    if labels != AUDIOSET:
        return list(labels).index(label) if label in labels else None
    from separation.ontology import OntologyError, class_index

    try:
        return class_index(label)
    except OntologyError:
        return None


class Positions(Dataset[TaggedBatch]):
    """The batches of one epoch. Batch b of rank r holds the sampler's places from (b * world + r) * size on.

    Args:
        data: draws a batch from its first place.
        epoch: number of the epoch.
        rank, world: this process's number, and how many there are.
    """

    def __init__(self, data: TaggedData, epoch: int, rank: int = 0, world: int = 1) -> None:
        self.data, self.epoch, self.rank, self.world = data, epoch, rank, world

    def __len__(self) -> int:
        return self.data.batches

    def __getitem__(self, index: int) -> TaggedBatch:
        batch = (self.epoch * len(self) + index) * self.world + self.rank
        return self.data.batch(batch * self.data.batch_size)


class TaggedData(MixtureData):
    """Clips drawn class by class.

    Args:
        labels: the classes in the tagger's order; the manifest's own, sorted, by default, or "audioset" for the 527
            AudioSet classes. Clips of other labels are left out, and classes without clips are never drawn.
        as_recorded: clips at their recordings' own levels; otherwise each with its peak at one.
        common: see `CorpusData`; `seconds` is a clip's length. Shorter clips end in silence, of longer ones a random
            part is taken.
    """

    def __init__(
        self, *args: Any, labels: list[str] | str | None = None, as_recorded: bool = False, **common: Any
    ) -> None:
        super().__init__(*args, **common)
        self.labels, self.as_recorded = labels, as_recorded

    def of_use(self, rows: list[Row], where: str) -> list[Row]:
        """The rows that ask for a class."""
        if self.labels is None:
            return rows
        known = [row for row in rows if class_of(row["query"], self.labels) is not None]
        if not known:
            raise DataError(f"{where}: none of the {len(rows)} mixtures asks for one of the classes.")
        if len(known) < len(rows):
            self.say(f"{where}: {len(rows) - len(known)} of {len(rows)} mixtures are left out: they ask for no class.")
        return known

    def ready(self, corpus: Corpus) -> None:
        self.use(corpus, corpus.labels)

    def use(self, source: Corpus | Padded, names: list[str]) -> None:
        """Draws from these clips; `names` are the classes where none were given."""
        self.source = source
        self.peaks = source.peaks if self.as_recorded and isinstance(source, Corpus) else None
        labels: list[str] | str = self.labels if self.labels is not None else names
        self.classes = AUDIOSET_CLASSES if labels == AUDIOSET else len(labels)
        found = [[class_of(label, labels) for label in clip.labels] for clip in source.clips]
        self.numbers = [sorted({number for number in each if number is not None}) for each in found]
        self.say_left_out()
        members: dict[int, list[int]] = {}
        for clip, numbers in enumerate(self.numbers):
            for number in numbers:
                members.setdefault(number, []).append(clip)
        self.present = sorted(members)
        self.sampler = BalancedSampler([members[number] for number in self.present], self.seed)

    def say_left_out(self) -> None:
        """Says how many clips are never drawn because they have no class, and what they are called."""
        left = [clip for clip, numbers in zip(self.source.clips, self.numbers, strict=True) if not numbers]
        if not left:
            return
        names = list(dict.fromkeys(label for clip in left for label in clip.labels)) or ["they have none"]
        shown = ", ".join(names[:SHOWN] + ["..."] * (len(names) > SHOWN))
        count = f"{len(left)} of {len(self.source.clips)}"
        self.say(f"{count} clips are left out: none of their labels is a class ({shown}).")

    def batch(self, first: int) -> TaggedBatch:
        """The batch at the sampler's places from `first` on."""
        places = range(first, first + self.batch_size)
        drawn = [self.sampler[place] for place in places]
        tags = torch.zeros(self.batch_size, self.classes)
        for row, (_, clip) in zip(tags, drawn, strict=True):
            row[self.numbers[clip]] = 1
        waveforms = [self.fitted(clip, place) for place, (_, clip) in zip(places, drawn, strict=True)]
        return TaggedBatch(torch.stack(waveforms), tags, torch.tensor([self.present[label] for label, _ in drawn]))

    def fitted(self, clip: int, place: int) -> Tensor:
        """A clip (time,) of the wanted length."""
        wave = self.source.waveform(clip)
        if self.peaks is not None:
            wave = wave * self.peaks[clip]
        return self.part(wave, np.random.default_rng((self.seed, PLACE, place)))

    def part(self, wave: Tensor, rng: np.random.Generator) -> Tensor:
        """A clip's samples (time,) brought to the wanted length: silence behind it, or a random part of it."""
        room = self.length - wave.numel()
        if room >= 0:
            return F.pad(wave, (0, room))
        start = int(rng.integers(-room + 1))
        return wave[start : start + self.length]

    def epoch(self, number: int) -> Positions:  # type: ignore[override]
        """The batches of one epoch."""
        return Positions(self, number, *self.ranks())
