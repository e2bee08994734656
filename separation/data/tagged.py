"""Batches of clips with clip-level labels, classes balanced: for taggers, and for weak supervision by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from separation.data.balanced import BalancedSampler
from separation.data.corpus import Corpus
from separation.data.datamodule import MixtureData
from separation.data.made import Padded
from separation.data.manifest import Clip

AUDIOSET = "audioset"


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


def labels_of(clip: Clip) -> tuple[str, ...]:
    """All labels of a clip."""
    return getattr(clip, "labels", ()) or (clip.label,)


class Positions(Dataset[TaggedBatch]):
    """The batches of one epoch: batch `index` holds the next positions of the sampler's endless list."""

    def __init__(self, data: TaggedData, epoch: int) -> None:
        self.data, self.epoch = data, epoch

    def __len__(self) -> int:
        return self.data.batches

    def __getitem__(self, index: int) -> TaggedBatch:
        return self.data.batch(self.epoch * len(self) + index)


class TaggedData(MixtureData):
    """Clips drawn class by class.

    Args:
        labels: the classes in the tagger's order; the manifest's own, sorted, by default, or "audioset" for the 527
            AudioSet classes. Clips of other labels are left out.
        common: see `CorpusData`; `seconds` is a clip's length. Shorter clips end in silence, of longer ones a random
            part is taken.
    """

    def __init__(self, *args: Any, labels: list[str] | str | None = None, **common: Any) -> None:
        super().__init__(*args, **common)
        self.labels = labels
        self.source: Corpus | Padded | None = None

    def setup(self, stage: str | None = None) -> None:
        if self.source is None and stage in (None, "fit"):
            corpus = Corpus(self.manifest, "train", self.root, self.sample_rate, self.cache, self.foley)
            self.use(corpus, corpus.labels)
        if self.validation is None and self.trainer is not None:
            self.trainer.limit_val_batches = 0

    def use(self, source: Corpus | Padded, names: list[str]) -> None:
        """Draws from these clips; `names` are the classes where none were given."""
        self.source = source
        labels: list[str] | str = self.labels if self.labels is not None else names
        self.classes = 527 if labels == AUDIOSET else len(labels)
        found = [[class_of(label, labels) for label in labels_of(clip)] for clip in source.clips]
        self.numbers = [sorted({number for number in each if number is not None}) for each in found]
        members: list[list[int]] = [[] for _ in range(self.classes)]
        for clip, numbers in enumerate(self.numbers):
            for number in numbers:
                members[number].append(clip)
        self.sampler = BalancedSampler(members, self.seed, labels if labels != AUDIOSET else ())

    def batch(self, number: int) -> TaggedBatch:
        """Batch `number` of the run."""
        drawn = [self.sampler[number * self.batch_size + i] for i in range(self.batch_size)]
        rng = np.random.default_rng((self.seed, 2, number))
        tags = torch.zeros(self.batch_size, self.classes)
        for row, (_, clip) in zip(tags, drawn, strict=True):
            row[self.numbers[clip]] = 1
        return TaggedBatch(
            waveforms=torch.stack([self.fitted(clip, rng) for _, clip in drawn]),
            tags=tags,
            drawn=torch.tensor([label for label, _ in drawn]),
        )

    def fitted(self, clip: int, rng: np.random.Generator) -> Tensor:
        """A clip (time,) of the wanted length."""
        wave = self.source.waveform(clip)  # type: ignore[union-attr]
        room = self.length - wave.numel()
        if room >= 0:
            return F.pad(wave, (0, room))
        start = int(rng.integers(-room + 1))
        return wave[start : start + self.length]

    def train_dataloader(self) -> DataLoader[Any]:
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        return DataLoader(Positions(self, epoch), batch_size=None, num_workers=self.workers)
