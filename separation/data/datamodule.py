"""Batches for training: every item is a whole batch, a function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from separation.data.corpus import Corpus
from separation.data.mixing import Augment, Batch, Mixer
from separation.data.protocol import Rendered, read_rows, render
from separation.data.texts import Texts


class Batches(Dataset[Any]):
    """`count` batches of one epoch, each drawn with its own random generator."""

    def __init__(self, draw: Callable[[np.random.Generator], Any], count: int, seed: int, epoch: int) -> None:
        self.draw, self.count, self.seed, self.epoch = draw, count, seed, epoch

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.draw(np.random.default_rng((self.seed, self.epoch, index)))


class Rows(Dataset[Rendered]):
    """The mixtures of a fixed list, rendered as they are asked for."""

    def __init__(self, rows: list[dict[str, str]], root: Path) -> None:
        self.rows, self.root = rows, root

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Rendered:
        return render(self.rows[index], self.root)


class CorpusData(lightning.LightningDataModule):
    """Shared by all data modules on a corpus: where it lies, how much of it makes an epoch.

    Args:
        manifest: CSV file of the clips.
        root: folder that its paths start from; its own folder by default.
        cache: folder for decoded samples and sentence vectors.
        batch_size, seconds: size of a batch.
        batches: batches an epoch.
        seed: of everything drawn.
        sample_rate: Hz.
        workers: processes that draw batches beside the training.
        augment, balance: see `mixing.py`.
        foley: procedural clips per sound, see `corpus.py`.
        validation: CSV of fixed mixtures to score on, in `test` all, after an epoch every `validation_every`-th.
        validation_root: folder that its paths start from; its own folder by default.
    """

    def __init__(
        self,
        manifest: Path,
        root: Path | None = None,
        cache: Path | None = None,
        batch_size: int = 12,
        seconds: float = 3.109375,
        batches: int = 200,
        seed: int = 0,
        sample_rate: int = 32000,
        workers: int = 0,
        augment: Augment | None = None,
        balance: float = 0.5,
        foley: int = 0,
        validation: Path | None = None,
        validation_root: Path | None = None,
        validation_every: int = 1,
    ) -> None:
        super().__init__()
        self.manifest, self.root, self.cache = manifest, root, cache
        self.batch_size, self.length, self.batches = batch_size, round(seconds * sample_rate), batches
        self.seed, self.sample_rate, self.workers = seed, sample_rate, workers
        self.augment, self.balance, self.foley = augment or Augment(), balance, foley
        self.validation, self.validation_every = validation, validation_every
        self.validation_root = validation_root or (validation.parent if validation else None)
        self.corpus: Corpus | None = None

    def setup(self, stage: str | None = None) -> None:
        if self.corpus is None and stage in (None, "fit"):
            self.corpus = Corpus(self.manifest, "train", self.root, self.sample_rate, self.cache, self.foley)
            self.texts = Texts(self.corpus, self.cache)
            self.mixer = Mixer(self.corpus, self.length, self.augment, balance=self.balance)

    def draw(self, rng: np.random.Generator) -> Any:
        """One batch."""
        raise NotImplementedError

    def bank(self, rng: np.random.Generator) -> Tensor:
        """One text of every label as sentence vectors (labels, dim)."""
        return torch.stack([self.texts.draw(label, rng) for label in range(len(self.texts.vectors))])

    def train_dataloader(self) -> DataLoader[Any]:
        # Lightning calls this anew each epoch (reload_dataloaders_every_n_epochs=1), so epochs differ.
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        batches = Batches(self.draw, self.batches, self.seed, epoch)
        return DataLoader(batches, batch_size=None, num_workers=self.workers)


class MixtureData(CorpusData):
    """Mixtures of two or three sources with queries for each and for something absent."""

    def draw(self, rng: np.random.Generator) -> Batch:
        drawn = [self.mixer.mixture(rng) for _ in range(self.batch_size)]
        labels = np.stack([labels for _, labels, _ in drawn])
        return Batch(
            sources=torch.stack([sources for sources, _, _ in drawn]),
            labels=torch.from_numpy(labels),
            sentences=torch.stack([torch.stack([self.texts.draw(label, rng) for label in row]) for row in labels]),
            bank=self.bank(rng),
            used=torch.tensor([used for _, _, used in drawn]),
        )

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        if self.validation is None and self.trainer is not None:
            self.trainer.limit_val_batches = 0  # Lightning would warn of an empty list at each epoch's end

    def fixed(self, every: int) -> list[DataLoader[Any]]:
        """Loader of the fixed mixtures, or none where no list was given."""
        if self.validation is None or self.validation_root is None:
            return []
        rows = Rows(read_rows(self.validation)[::every], self.validation_root)
        return [DataLoader(rows, batch_size=None)]

    def val_dataloader(self) -> list[DataLoader[Any]]:
        return self.fixed(self.validation_every)

    def test_dataloader(self) -> list[DataLoader[Any]]:
        return self.fixed(1)


class ClipData(CorpusData):
    """Single clips, some with another sound quietly behind them, each with one of its texts: for the joint space."""

    def draw(self, rng: np.random.Generator) -> Batch:
        labels = rng.choice(len(self.corpus.labels), self.batch_size, p=self.mixer.chances)  # type: ignore[union-attr]
        waves = [self.mixer.source(self.corpus.labels[label], rng) for label in labels]  # type: ignore[union-attr]
        behind = torch.stack(waves).roll(1, 0)
        level = 10 ** (-rng.uniform(6, 24, self.batch_size) / 20) * (rng.random(self.batch_size) < 0.4)
        return Batch(
            sources=(torch.stack(waves) + behind * torch.from_numpy(level).float()[:, None])[:, None],
            labels=torch.from_numpy(labels)[:, None],
            sentences=torch.stack([self.texts.draw(label, rng) for label in labels])[:, None],
            bank=self.bank(rng),
            used=torch.ones(self.batch_size, dtype=torch.long),
        )
