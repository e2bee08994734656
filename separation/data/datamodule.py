"""Data modules: where the clips come from, and the batches of every epoch.

Every batch is a function of (seed, epoch, index), so a checkpoint needs to hold no more than the trainer's position.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from separation.compat import make_importable
from separation.data.corpus import Corpus
from separation.data.derived import AllowedPairs
from separation.data.manifest import absolute_entries, read_entries, refuse_leaks
from separation.data.mixing import Augment, Draw, Mixer
from separation.data.streaming import StreamedBatches, count_batches
from separation.data.texts import Texts
from separation.data.validation import FixedMixtures, Rows
from separation.errors import DataError

make_importable()  # before Lightning, whose import fails with a torchvision that does not load
import lightning  # noqa: E402

SHARED = 1  # marks the generator of what the items of a batch share


class Batches(Dataset[Any]):
    """The batches of all epochs for one rank, by (epoch, index)."""

    def __init__(self, data: CorpusData) -> None:
        self.data = data
        self.rank, self.world = data.ranks()

    def __getitem__(self, key: tuple[int, int]) -> Any:
        return self.data.batch(*key, self.rank, self.world)


class Loader:
    """The batches of an epoch, from the training's position on; its workers stay for all epochs.

    This is not a `DataLoader`, so Lightning adds no sampler: the batches depend on the rank already.

    Args:
        dataset: returns batches by (epoch, index), or by index if there is no `position`; or a function that returns
            the stream of an epoch.
        count: batches per epoch.
        position: returns the epoch and the batch at which the training stands; None = there are no epochs.
        workers: processes that draw batches.
    """

    def __init__(
        self,
        dataset: Dataset[Any] | Callable[[int], IterableDataset[Any]],
        count: int,
        position: Callable[[], tuple[int, int]] | None = None,
        workers: int = 0,
    ) -> None:
        self.dataset, self.count, self.position = dataset, count, position
        # The default generator belongs to the training.
        self.settings: dict[str, Any] = {"num_workers": workers, "generator": torch.Generator(), "batch_size": None}
        self.settings["pin_memory"] = torch.cuda.is_available()
        self.keys: list[Any] = []  # of the batches that are left of the epoch
        self.loader: DataLoader[Any] | None = None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        # A generator: the position is asked for when the first batch is needed. Lightning creates iterators earlier,
        # when it does not yet know where a resumed training stands.
        epoch, first = self.position() if self.position else (None, 0)
        if not isinstance(self.dataset, Dataset):
            stream: DataLoader[Any] = DataLoader(self.dataset(epoch or 0), **self.settings)
            yield from islice(stream, first, self.count)
            return
        self.keys[:] = [number if epoch is None else (epoch, number) for number in range(first, self.count)]
        if self.loader is None:
            stays = self.settings["num_workers"] > 0
            self.loader = DataLoader(self.dataset, sampler=self.keys, persistent_workers=stays, **self.settings)
        yield from self.loader

    def state_dict(self) -> dict[str, int]:
        """Empty: the position in the trainer's checkpoint is enough. Lightning requires both methods."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """See `state_dict`."""


def count_workers() -> int:
    """Number of processes that draw batches for one of this machine's devices."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", 0)) or max(1, torch.cuda.device_count())
    return max(0, min(8, (processors - 1) // devices))


class CorpusData(lightning.LightningDataModule):
    """Interface of the data modules. Subclasses implement `set_corpus` and `draw_batch`.

    Args:
        manifest: list of the clips, or a folder of `separation-data pack`; None = procedural clips only.
        root: folder that its paths start from; by default its own.
        cache: no longer used; old configurations have it.
        batch_size: items per batch, on each device.
        seconds: length of an item.
        batches: batches per epoch.
        seed: of everything that is drawn.
        sample_rate: Hz.
        workers: processes that draw batches; "auto" = one for each processor but one, at most 8 on each device.
        augment: random changes of sources, see `Augment`.
        balance: a label is drawn in proportion to (number of its recordings) ** balance.
        foley: number of procedural clips per sound, see `Corpus`.
        validation: CSV of fixed mixtures to score on: all of them in `test`, otherwise every `validation_every`-th.
        validation_root: folder that its paths start from; by default its own.
        validation_count: without a list, this many mixtures are drawn from the split `validation` of the manifest (in
            `test`: from the split `test`, if it exists), the same ones each time; 0 = none.
        validation_absent: share of them whose query occurs in neither source.

    Raises:
        DataError: if a number is out of its range; in `setup` also if a recording occurs in two splits, or as `Corpus`.
    """

    shards: str | None = None  # set by data modules whose clips can be streamed
    more_manifests: tuple[Path, ...] = ()  # further ones, whose split train is trained on

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
        workers: int | Literal["auto"] = 0,
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
        workers = count_workers() if workers == "auto" else workers
        counts = {"workers": workers, "batch_size": batch_size, "batches": batches, "sample_rate": sample_rate}
        for name, value in counts.items():
            if value < (least := 0 if name == "workers" else 1):
                raise DataError(f"data.{name} is {value}; the least is {least}.")
        if not seconds > 0 or not math.isfinite(seconds):
            raise DataError(f"data.seconds is {seconds:g}; it must be a time above 0 s.")
        self.manifest, self.root, self.cache = manifest, root, cache
        packed = manifest is not None and manifest.is_dir()
        self.folder = (manifest if packed else root) or (manifest or Path()).parent  # where the manifest's paths start
        self.batch_size, self.length, self.batches = batch_size, round(seconds * sample_rate), batches
        self.seed, self.sample_rate, self.workers = seed, sample_rate, workers
        self.augment, self.balance, self.foley = augment or Augment(), balance, foley
        self.fixed = FixedMixtures(
            manifest, self.folder, validation, validation_root, validation_every,
            validation_count, validation_absent, seed, self.notice,
        )  # fmt: skip
        self.corpus: Any = None
        self.rows: list[dict[str, str]] = []
        self.loader: Loader | None = None

    # Clips

    def setup(self, stage: str | None = None) -> None:
        """Decode the clips to train on and choose the mixtures to validate on."""
        if self.corpus is None and stage in (None, "fit") and not self.shards:
            self.load()
        self.rows = [] if stage == "test" else self.fixed.validation_rows(required=stage == "validate")
        if stage != "test" and not self.rows and self.trainer is not None:
            self.trainer.limit_val_batches = 0  # or Lightning would warn of an empty list after each epoch

    def load(self) -> None:
        """Decode the clips to train on; raise DataError if one of their recordings occurs in another split."""
        entries = None if self.manifest is None else list(read_entries(self.manifest))
        if self.manifest is not None and entries is not None:
            refuse_leaks(self.manifest, entries)
            for other in self.more_manifests:
                train = (entry for entry in read_entries(other) if entry[0] == "train")
                found = [*absolute_entries(entries, self.folder), *absolute_entries(train, self.root or other.parent)]
                refuse_leaks(other, found)
        self.corpus = Corpus(self.manifest, "train", self.root, self.sample_rate, self.foley, self.notice, entries)
        if self.cache and self.corpus.folder is None:
            self.notice("data.cache is no longer used: give a folder of `separation-data pack` as data.manifest.")
        self.set_corpus(self.corpus)

    def set_corpus(self, corpus: Any) -> None:
        """Draw from these clips from now on."""
        raise NotImplementedError

    # Batches

    def draw_batch(self, items: Sequence[np.random.Generator], shared: np.random.Generator, rank: int) -> Any:
        """Draw a batch with one item per generator of `items`; `shared` is the same on all ranks."""
        raise NotImplementedError

    def batch(self, epoch: int, index: int, rank: int = 0, world: int = 1) -> Any:
        """A batch of an epoch for one rank. Two ranks together see what one would see with batches twice as large."""
        first = (index * world + rank) * self.batch_size
        items = [np.random.default_rng((self.seed, epoch, first + i)) for i in range(self.batch_size)]
        return self.draw_batch(items, np.random.default_rng((self.seed, epoch, index, SHARED)), rank)

    def complete(self, batch: Any) -> Any:
        """Complete a batch on its device. Rows of fixed mixtures stay as they are."""
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.complete(batch)

    def train_dataloader(self) -> Loader:
        if self.shards:
            return Loader(partial(StreamedBatches, self), count_batches(self), self.position, self.workers)
        if self.loader is None:  # Lightning asks again before each epoch
            self.loader = Loader(Batches(self), self.batches, self.position, self.workers)
        return self.loader

    def val_dataloader(self) -> list[Loader]:
        return self.load_rows(self.rows)

    def test_dataloader(self) -> list[Loader]:
        return self.load_rows(self.fixed.test_rows())

    def load_rows(self, rows: list[dict[str, str]]) -> list[Loader]:
        """A loader of this rank's share of fixed mixtures; none if there are no mixtures."""
        share = Rows(rows, self.fixed.folder, *self.ranks())
        return [Loader(share, len(share))] if rows else []

    # The trainer

    def position(self) -> tuple[int, int]:
        """Epoch and batch at which the training stands."""
        if self.trainer is None:
            return 0, 0
        return self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def ranks(self) -> tuple[int, int]:
        """Number of this process, and number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def notice(self, text: str) -> None:
        """Print a line, on the first rank only."""
        if self.ranks()[0] == 0:
            print(text)


class MixtureData(CorpusData):
    """Mixtures of two or three sources, with queries for each and for something absent.

    Args:
        union: share of mixtures of three sources, two of which are asked for by one caption.
        together: JSON file with the classes that may sound together, see `derived.AllowedPairs`; None = all of them.
        on_device: the device holds the samples, and cuts and mixes every batch; otherwise the workers cut it.
        common: see `CorpusData`.
    """

    background = False

    def __init__(
        self, *args: Any, union: float = 0.0, together: Path | None = None, on_device: bool = False, **common: Any
    ) -> None:
        super().__init__(*args, **common)
        self.together = together
        self.union, self.on_device = union, on_device
        self.mixer: Any = None

    def set_corpus(self, corpus: Corpus) -> None:
        # One process that draws the batches need not encode texts that it may never draw.
        self.corpus, texts = corpus, Texts(corpus, unions=self.union > 0, ahead=self.workers > 0)
        self.mixer = Mixer(
            corpus, texts, self.length, self.augment,
            balance=self.balance, union=self.union, background=self.background,
            together=AllowedPairs(self.together).matrix(corpus.labels) if self.together else None,
        )  # fmt: skip

    def batch(self, epoch: int, index: int, rank: int = 0, world: int = 1) -> Draw:
        """All ranks draw the whole batch, and each cuts its part."""
        seed = np.random.SeedSequence((self.seed, epoch, index)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(seed[0] >> 1))
        drawn: Draw = self.mixer.draw(world * self.batch_size, generator)
        part = slice(rank * self.batch_size, (rank + 1) * self.batch_size)
        drawn = replace(drawn, **{k: v[part] for k, v in vars(drawn).items() if v is not None and k != "bank"})
        if not self.on_device:
            self.mixer.cut(drawn)
        return drawn

    def complete(self, batch: Any) -> Any:
        """Cut the excerpts if they are not, apply filters and levels."""
        return self.mixer.mix(batch) if isinstance(batch, Draw) else batch


class ClipData(MixtureData):
    """Single clips, some with a quiet sound in the background, each with one of its texts: for the joint space."""

    background = True
    # No mixtures are separated, so there are none to validate on.
    val_dataloader = lightning.LightningDataModule.val_dataloader
    test_dataloader = lightning.LightningDataModule.test_dataloader

    def setup(self, stage: str | None = None) -> None:
        """Decode the clips to train on."""
        if self.corpus is None and stage in (None, "fit"):
            self.load()
