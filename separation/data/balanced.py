"""The balanced sampler: every class equally often, every clip of a class equally often.

As in USS, classes come from a shuffled list of all classes, which is shuffled anew when it is used up; a class's clips
likewise. What stands at a position is a function of (seed, position): a resumed run goes on as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from separation.data.manifest import DataError


class BalancedSampler:
    """An endless list of (class, clip).

    Args:
        members: the clip numbers of every class.
        seed: of the shuffling.

    Raises:
        DataError: there is no class, or one has no clip.
    """

    def __init__(self, members: Sequence[Sequence[int]], seed: int) -> None:
        empty = [number for number, clips in enumerate(members) if not clips]
        if empty:
            raise DataError(f"The class number {empty[0]} has no clip.")
        if not members:
            raise DataError("No clip has one of the classes.")
        self.members, self.seed = members, seed

    def __getitem__(self, position: int) -> tuple[int, int]:
        """Class and clip number at a position. A class comes up once a round, so the round counts its visits."""
        turn, place = divmod(position, len(self.members))
        label = int(self.shuffled(len(self.members), 0, turn)[place])
        clips = self.members[label]
        turn, place = divmod(turn, len(clips))
        return label, clips[int(self.shuffled(len(clips), 1 + label, turn)[place])]

    def shuffled(self, size: int, which: int, turn: int) -> np.ndarray:
        """The `turn`-th order of a list."""
        return np.random.default_rng((self.seed, which, turn)).permutation(size)
