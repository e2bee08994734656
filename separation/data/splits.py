"""Splits that share no recording: what to do where published ones do, and a validation split where there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from separation.data.manifest import Entry

STRICTEST = ("test", "validation", "train")


@dataclass(frozen=True)
class Resolved:
    """Clips of which no recording is in two splits, and those that had to go for it."""

    kept: list[Entry]
    dropped: list[Entry]

    @property
    def recordings(self) -> list[str]:
        """The recordings that clips were left out of, sorted."""
        return sorted({clip.recording for _, clip in self.dropped})


def _strictness(split: str) -> int:
    return STRICTEST.index(split) if split in STRICTEST else len(STRICTEST)


def without_leaks(entries: Iterable[Entry]) -> Resolved:
    """Leaves each recording (and each file) in one split: test goes before validation, validation before train.

    Clips are dropped rather than moved, so that a published test split stays what it is.
    """
    entries = list(entries)
    strictest: dict[str, int] = {}
    for split, clip in entries:
        for name in {clip.recording, clip.path}:
            strictest[name] = min(strictest.get(name, len(STRICTEST)), _strictness(split))
    resolved = Resolved([], [])
    for split, clip in entries:
        names = [name for name in (clip.recording, clip.path) if "?" not in name]
        stays = all(_strictness(split) <= strictest[name] for name in names)
        (resolved.kept if stays else resolved.dropped).append((split, clip))
    return resolved


def hold_out(entries: Iterable[Entry], share: float) -> list[Entry]:
    """Makes about `share` of the train recordings (0 to 1) the validation split.

    Whether a recording is held out depends on its id alone, so it is the same in every manifest that it stands in.
    """
    return [
        ("validation" if split == "train" and _place(clip.recording) < share else split, clip)
        for split, clip in entries
    ]


def _place(recording: str) -> float:
    """A number from 0 to 1, as good as random, that belongs to a recording; 1 for an unknown one."""
    if "?" in recording:
        return 1.0
    return int.from_bytes(hashlib.sha256(recording.encode()).digest()[:4], "big") / 2**32
