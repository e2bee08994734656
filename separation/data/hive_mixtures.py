"""Hive's own mixtures as training data, see `hive.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from separation.data.corpus import READ_ERRORS
from separation.data.datamodule import CorpusData
from separation.data.fixed_mixtures import read_clip
from separation.data.hive import MOST_SOURCES, HiveMixture, HiveSource, read_hive
from separation.data.queried import Queried
from separation.errors import DataError

MAX_ATTEMPTS = 20


class HiveData(CorpusData):
    """Hive's training mixtures, read from the copies of its sources while training; one source of each is asked for.

    A mixture with a missing or broken recording is replaced by another one.

    Args:
        root: folder of the datasets and the metadata, see `read_hive`.
        limit: use the first so many mixtures; 0 uses all, which need about 2 kB of memory each.
        common: see `CorpusData`; published mixtures for training last 4 s, longer ones are cut.

    Raises:
        DataError: in `setup`, as `read_hive`; in a batch, if 20 mixtures in a row cannot be read.
    """

    def __init__(self, root: Path, limit: int = 0, **common: Any) -> None:
        super().__init__(root=root, **common)
        self.limit, self.mixtures = limit, list[HiveMixture]()

    def load(self) -> None:
        """Read the metadata."""
        for mixture in read_hive(self.folder_of_sources, "train"):
            self.mixtures.append(mixture)
            if len(self.mixtures) == self.limit:
                break
        self.corpus = self.mixtures

    @property
    def folder_of_sources(self) -> Path:
        """Where the paths of the metadata start."""
        assert self.root is not None
        return self.root

    def draw_batch(self, items: Sequence[np.random.Generator], shared: np.random.Generator, rank: int) -> Queried:
        """See `CorpusData`."""
        sources = torch.zeros(len(items), MOST_SOURCES, self.length)
        texts = []
        for place, rng in enumerate(items):
            waves, label = self.draw_mixture(rng)
            sources[place, : len(waves)] = waves
            texts.append([label])
        return Queried(sources, texts, texts)

    def draw_mixture(self, rng: np.random.Generator) -> tuple[Tensor, str]:
        """Draw a mixture: its sources (sources, time), the one that is asked for first, and the label that asks."""
        for _ in range(MAX_ATTEMPTS):
            mixture = self.mixtures[int(rng.integers(len(self.mixtures)))]
            order = np.roll(np.arange(len(mixture.sources)), -int(rng.integers(len(mixture.sources))))
            try:
                waves = [self.read_source(mixture.sources[number]) for number in order]
            except READ_ERRORS as error:
                broken = error
                continue
            return torch.stack(waves), mixture.sources[order[0]].label
        raise DataError(
            f"{self.folder_of_sources}: {MAX_ATTEMPTS} mixtures in a row cannot be read; the last: {broken}"
        )

    def read_source(self, source: HiveSource) -> Tensor:
        """Read a source (time,), at its level in the mixture."""
        path = self.folder_of_sources / source.path
        wave = torch.from_numpy(read_clip(path, self.sample_rate, source.start, source.seconds)).float()[: self.length]
        return source.gain * F.pad(wave, (0, self.length - len(wave)))
