"""Hive's own mixtures as training data, see `hive.py`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import READ_ERRORS
from separation.data.datamodule import CorpusData
from separation.data.fixed_mixtures import read_clip
from separation.data.hive import MOST_SOURCES, HiveMixture, read_hive
from separation.data.queried import QueriedBatch
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
        self.mixtures = list(islice(read_hive(self.folder, "train"), self.limit or None))
        self.corpus = self.mixtures

    def draw_batch(self, items: Sequence[np.random.Generator], shared: np.random.Generator, rank: int) -> QueriedBatch:
        sources = torch.zeros(len(items), MOST_SOURCES, self.length)
        texts = [[self.draw_mixture(waves, rng)] for waves, rng in zip(sources, items, strict=True)]
        return QueriedBatch(sources, texts, texts)

    def draw_mixture(self, waves: Tensor, rng: np.random.Generator) -> str:
        """Write the sources of a mixture, the queried one first, to silent `waves` (5, time); return its label."""
        for _ in range(MAX_ATTEMPTS):
            sources = self.mixtures[int(rng.integers(len(self.mixtures)))].sources
            first = int(rng.integers(len(sources)))
            ordered = sources[first:] + sources[:first]
            try:
                for wave, source in zip(waves, ordered, strict=False):
                    found = read_clip(self.folder / source.path, self.sample_rate, source.start, source.seconds)
                    found = found[: self.length]
                    wave[: len(found)] = source.gain * torch.from_numpy(found)
                return ordered[0].label
            except READ_ERRORS as error:
                broken = error
                waves.zero_()
        raise DataError(f"{self.folder}: {MAX_ATTEMPTS} mixtures in a row cannot be read; the last: {broken}")
