"""Batches for training: every item is a mixture, a function of (seed, epoch, index)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from separation.compat import make_importable
from separation.data.corpus import BrokenError, Corpus
from separation.data.fixed_mixtures import Row, locate_files, read_rows
from separation.data.loader import Loader
from separation.data.manifest import DataError, located, read_entries, read_manifest, refuse_leaks
from separation.data.mixing import Augment, Batch, Drawn, Mixer
from separation.data.recordings import MANIFEST, known_of, recordings_of, with_recordings
from separation.data.texts import Texts
from separation.data.treatment import stacked
from separation.data.validation import Rows, drawn_rows, with_examples

make_importable()  # before Lightning, which a torchvision that does not load takes down with it
import lightning  # noqa: E402

WHOLE_BATCH = 1  # marks the generator of what a batch's items share


class Batches(Dataset[Any]):
    """`count` batches of one epoch.

    Batch b of rank r holds the items from (b * world + r) * size on, so that two ranks together see what one rank sees
    with batches twice as large.

    Args:
        draw: a batch from its items' generators and one for what they share.
        size: items a batch.
        count: batches.
        seed, epoch: of the items' generators, whose third number is the item's own.
        rank, world: this process's number, and how many there are.
    """

    def __init__(
        self,
        draw: Callable[[Sequence[np.random.Generator], np.random.Generator], Any],
        size: int,
        count: int,
        seed: int,
        epoch: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.draw, self.size, self.count, self.seed, self.epoch = draw, size, count, seed, epoch
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        first = (index * self.world + self.rank) * self.size
        items = [np.random.default_rng((self.seed, self.epoch, first + i)) for i in range(self.size)]
        return self.draw(items, np.random.default_rng((self.seed, self.epoch, index, WHOLE_BATCH)))


def check_least(least: int, **settings: int) -> None:
    """Sees that settings, given by their names, are not below their least value.

    Raises:
        DataError: names the setting.
    """
    for name, value in settings.items():
        if value < least:
            raise DataError(f"data.{name} is {value}; the least is {least}.")


class CorpusData(lightning.LightningDataModule):
    """Shared by all data modules on a corpus: where it lies, how much of it makes an epoch.

    A subclass gives `drawn`.

    Args:
        manifest: the list of the clips; none = procedural clips alone.
        root: folder that its paths start from; its own folder by default.
        cache: folder for decoded samples and sentence vectors.
        batch_size, seconds: size of a batch, on each device.
        batches: batches an epoch.
        seed: of everything drawn.
        sample_rate: Hz.
        workers: processes that draw batches beside the training.
        augment, balance: see `mixing.py`.
        foley: procedural clips per sound, see `corpus.py`.
        validation: CSV of fixed mixtures to score on, in `test` all, otherwise every `validation_every`-th.
        validation_root: folder that its paths start from; its own folder by default.
        validation_count: without a list, so many mixtures are drawn from the manifest's rows of split `validation`
            (in `test`: of split `test`, where there are such), always the same ones; 0 = none.
        validation_absent: share of them whose query sounds in neither source.

    Raises:
        DataError: a number is out of its range; in `setup` also: a recording stands in two splits, or as `Corpus`.
    """

    def __init__(
        self,
        manifest: Path | None = None,
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
        validation_count: int = 50,
        validation_absent: float = 0.2,
    ) -> None:
        super().__init__()
        check_least(0, workers=workers)
        check_least(1, batch_size=batch_size, batches=batches, sample_rate=sample_rate)
        if not seconds > 0 or not math.isfinite(seconds):
            raise DataError(f"data.seconds is {seconds:g}; it is a time of more than 0 s.")
        self.manifest, self.root, self.cache = manifest, root, cache
        self.batch_size, self.length, self.batches = batch_size, round(seconds * sample_rate), batches
        self.seed, self.sample_rate, self.workers = seed, sample_rate, workers
        self.augment, self.balance, self.foley = augment or Augment(), balance, foley
        self.validation, self.validation_every = validation, validation_every
        self.validation_root = validation_root or (validation.parent if validation else root)
        self.validation_count, self.validation_absent = validation_count, validation_absent
        self.corpus: Corpus | None = None

    def setup(self, stage: str | None = None) -> None:
        if self.corpus is None and stage in (None, "fit"):
            self.load()

    def load(self) -> None:
        """Decodes the clips to train on."""
        self.refuse_shared()
        self.corpus = Corpus(self.manifest, "train", self.root, self.sample_rate, self.cache, self.foley, self.say)
        self.ready(self.corpus)

    def others(self) -> list[Path]:
        """Manifests besides the first one whose split `train` is trained on."""
        return []

    def refuse_shared(self) -> None:
        """Sees that nothing that is trained on stands in another split of the manifest.

        Raises:
            DataError: names the recording, or the file.
        """
        if self.manifest is None:
            return
        entries = list(read_entries(self.manifest))
        refuse_leaks(self.manifest, entries)
        others = self.others()
        found = list(located(entries, self.root or self.manifest.parent)) if others else []
        for other in others:
            taken = (entry for entry in read_entries(other) if entry[0] == "train")
            refuse_leaks(other, [*found, *located(taken, self.root or other.parent)])

    def ready(self, corpus: Corpus) -> None:
        """What drawing needs besides the clips."""
        self.texts = Texts(corpus, self.cache)
        self.mixer = Mixer(corpus, self.length, self.augment, balance=self.balance)

    def drawn(self, items: Sequence[np.random.Generator], shared: np.random.Generator) -> Batch:
        """A batch of one item for each generator of `items`; what it holds but once comes from `shared`."""
        raise NotImplementedError

    def draw(self, rng: np.random.Generator) -> Batch:
        """A batch outside of any epoch, mixed."""
        return self.mixed(self.drawn(rng.spawn(self.batch_size), rng))

    def mixed(self, batch: Batch) -> Batch:
        """What has been drawn, mixed on the device where it is."""
        return batch.mixed()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.mixed(batch) if isinstance(batch, Batch) else batch

    def bank(self, rng: np.random.Generator) -> Tensor:
        """One text of every label as sentence vectors (labels, dim)."""
        return torch.stack([self.texts.draw(label, rng) for label in range(len(self.texts.vectors))])

    def position(self) -> tuple[int, int]:
        """Epoch and batch at which the training stands."""
        if self.trainer is None:
            return 0, 0
        return self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def say(self, text: str) -> None:
        """Prints a line, once for all ranks."""
        if self.ranks()[0] == 0:
            print(text)

    def ranks(self) -> tuple[int, int]:
        """This process's number, and how many there are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def epoch(self, number: int) -> Batches:
        """The batches of one epoch."""
        return Batches(self.drawn, self.batch_size, self.batches, self.seed, number, *self.ranks())

    def train_dataloader(self) -> Loader:
        return Loader(self.epoch, self.batches, self.position, self.workers)


class MixtureData(CorpusData):
    """Mixtures of two or three sources with queries for each and for something absent."""

    def drawn(self, items: Sequence[np.random.Generator], shared: np.random.Generator) -> Batch:
        mixtures = [self.mixer.draw(rng) for rng in items]
        sentences = [self.sentences(mixture, rng) for mixture, rng in zip(mixtures, items, strict=True)]
        return Batch(
            sources=torch.stack([mixture.waves for mixture in mixtures]),
            labels=torch.from_numpy(np.stack([mixture.labels for mixture in mixtures])),
            sentences=torch.stack(sentences),
            bank=self.bank(shared),
            used=torch.tensor([mixture.used for mixture in mixtures]),
            treatment=stacked([mixture.treatment for mixture in mixtures]),
        )

    def sentences(self, mixture: Drawn, rng: np.random.Generator) -> Tensor:
        """A text of each query (slots, dim)."""
        return torch.stack([self.texts.draw(label, rng) for label in mixture.labels])

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self.rows = [] if stage == "test" else self.validated(stage)
        if stage != "test" and not self.rows and self.trainer is not None:
            self.trainer.limit_val_batches = 0  # Lightning would warn of an empty list at each epoch's end

    def validated(self, stage: str | None) -> list[Row]:
        """Rows to validate on; a training goes on without any, and says so.

        Raises:
            DataError: there is no such list, too many recordings are broken, or there is nothing to `validate`.
        """
        try:
            return self.listed() if self.validation else self.drawn_from("validation")
        except BrokenError:
            raise
        except DataError as error:
            if self.validation or stage == "validate":
                raise
            if self.validation_count > 0:
                self.say(f"Nothing is validated, so there will be no best.ckpt: {error}")
            return []

    def listed(self) -> list[Row]:
        """The given list's rows.

        Raises:
            DataError: it cannot be read, or holds no row of use.
        """
        assert self.validation is not None
        if not self.validation.is_file():
            raise DataError(f"{self.validation}: there is no such list of validation mixtures.")
        rows = read_rows(self.validation)
        if not any(isinstance(locate_files(row, self.from_folder()), Path) for row in rows):
            raise DataError(
                f"{self.validation}: none of its {len(rows)} rows has its recordings in {self.from_folder()}."
            )
        known = recordings_of(self.naming())
        return self.of_use(with_examples(with_recordings(rows, known)), str(self.validation))

    def naming(self) -> Path:
        """The manifest that knows the list's recordings: the one beside them, or the training's if it starts there."""
        folder = self.from_folder()
        own = self.manifest is not None and (self.root or self.manifest.parent).resolve() == folder.resolve()
        beside = folder / MANIFEST
        return self.manifest if own and self.manifest and not beside.is_file() else beside

    def drawn_from(self, split: str) -> list[Row]:
        """Rows drawn from a split of the manifest.

        Raises:
            DataError: says why there are none.
        """
        if self.validation_count == 0:
            raise DataError("data.validation_count is 0.")
        if self.manifest is None:
            raise DataError("there is no manifest, and no data.validation.")
        clips = read_manifest(self.manifest, split)
        count, seed, absent = self.validation_count, self.seed, self.validation_absent
        try:
            rows = drawn_rows(clips, self.from_folder(), count, seed, absent, self.say)
        except DataError as error:
            raise type(error)(f"{self.manifest}, split {split}: {error}") from None
        return self.of_use(with_recordings(rows, known_of(clips)), f"{self.manifest}, split {split}")

    def of_use(self, rows: list[Row], where: str) -> list[Row]:
        """The rows that can be asked for.

        Raises:
            DataError: there are none.
        """
        return rows

    def from_folder(self) -> Path:
        """Where the paths of fixed mixtures start."""
        return self.validation_root or (self.manifest or Path()).parent

    def fixed(self, rows: list[Row]) -> list[Loader]:
        """Loader of fixed mixtures, or none where there are none."""
        share = Rows(rows, self.from_folder(), *self.ranks())
        return [Loader(lambda epoch: share, len(share), lambda: (0, 0))] if rows else []

    def val_dataloader(self) -> list[Loader]:
        return self.fixed(self.rows[:: self.validation_every] if self.validation else self.rows)

    def test_dataloader(self) -> list[Loader]:
        return self.fixed(self.listed() if self.validation else self.tested())

    def tested(self) -> list[Row]:
        """Rows drawn from split `test`, or, where that has none, from split `validation`, which is said.

        Raises:
            DataError: there are neither.
        """
        try:
            return self.drawn_from("test")
        except BrokenError:
            raise
        except DataError as error:
            why = error
        try:
            rows = self.drawn_from("validation")
        except BrokenError:
            raise
        except DataError:
            raise DataError(f"Nothing to test on: give data.validation, or rows of split test. {why}") from None
        self.say(f"Tested on split validation: {why}")
        return rows


class ClipData(CorpusData):
    """Single clips, some with another sound quietly behind them, each with one of its texts: for the joint space."""

    def drawn(self, items: Sequence[np.random.Generator], shared: np.random.Generator) -> Batch:
        clips = [self.clip(rng) for rng in items]
        labels = [clip.labels[0] for clip in clips]
        return Batch(
            sources=torch.stack([clip.waves for clip in clips]),
            labels=torch.tensor(labels)[:, None],
            sentences=torch.stack([self.texts.draw(n, rng) for n, rng in zip(labels, items, strict=True)])[:, None],
            bank=self.bank(shared),
            used=torch.ones(len(clips), dtype=torch.long),
            treatment=stacked([clip.treatment for clip in clips]),
        )

    def clip(self, rng: np.random.Generator) -> Drawn:
        """A clip in the first slot, in the second what sounds behind it, if anything."""
        used = 2 if rng.random() < 0.4 else 1
        labels = rng.choice(len(self.mixer.corpus.labels), used, p=self.mixer.chances)
        waves, treatment = self.mixer.cuts([self.mixer.corpus.labels[label] for label in labels], 2, rng)
        treatment.gain[1] = -rng.uniform(6, 24)
        return Drawn(waves, treatment, labels, used)

    def mixed(self, batch: Batch) -> Batch:
        """The clips (batch, 1, time), each with what is behind it."""
        batch = super().mixed(batch)
        return replace(batch, sources=batch.sources.sum(1, keepdim=True))
