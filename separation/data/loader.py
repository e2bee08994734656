"""Epochs of batches that go on exactly where a killed run has stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


class Loader:
    """An epoch's batches, from the one at which the training stands.

    Not a `DataLoader`, so Lightning puts no sampler of its own into it: `batches` already knows its rank.

    Args:
        batches: gives an epoch's batches.
        count: batches an epoch.
        position: tells epoch and batch at which the training stands.
        workers: processes that draw batches beside the training.
    """

    def __init__(
        self,
        batches: Callable[[int], Dataset[Any]],
        count: int,
        position: Callable[[], tuple[int, int]],
        workers: int = 0,
    ) -> None:
        self.batches, self.count, self.position, self.workers = batches, count, position, workers

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        # A generator: nothing is asked or drawn before the first batch is wanted. Lightning makes iterators earlier,
        # some of which it drops, and knows only then where a resumed training stands.
        epoch, first = self.position()
        yield from DataLoader(
            self.batches(epoch),
            batch_size=None,
            sampler=range(first, self.count),
            num_workers=self.workers,
            generator=torch.Generator(),  # or it would take from the training's own
        )

    def state_dict(self) -> dict[str, int]:
        """Nothing is kept: the trainer's own counters, which are in every checkpoint, say all.

        Lightning asks for this method and the next before it believes that a loader can be resumed, but does not call
        the next one in every case.
        """
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """See `state_dict`."""
