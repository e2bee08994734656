"""Clips of videos: a part of the sound, and the pictures seen around its middle.

A manifest's `frame` is one picture, or `folder/*.jpg` for a video's pictures, one a second in the order of their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from separation.data.corpus import FOLEY
from separation.data.drawn import drawn_frame
from separation.data.manifest import Clip, DataError
from separation.data.queried import QueriedData

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


class FrameData(QueriedData):
    """As `QueriedData`, with pictures: sound and pictures are of the same moment where there is one a second.

    Procedural clips have drawn pictures (`drawn.py`).

    Args:
        frames: pictures a query, around the middle of the sound.
        margin: seconds at either end of a video in which no middle is chosen.
        common: see `QueriedData`.
    """

    def __init__(self, frames: int = 3, margin: int = 3, **common: Any) -> None:
        super().__init__(**common)
        self.frames, self.margin = frames, margin
        self.seen: dict[str, list[Path]] = {}

    def pictures(self, clip: Clip) -> list[Any]:
        """All pictures of a clip, in order.

        Raises:
            DataError: it has none, or they are not there.
        """
        if clip.source == FOLEY:
            return [drawn_frame(clip.label, int(clip.path.rsplit(".", 1)[1]))]
        frame = clip.frame
        if not frame:
            raise DataError(f"{clip.path}: the manifest names no frame for it.")
        if frame not in self.seen:
            self.seen[frame] = self._find(clip, frame)
        return list(self.seen[frame])

    def _find(self, clip: Clip, frame: str) -> list[Path]:
        root = self.root or (self.manifest or Path()).parent
        path = root / frame
        if any(sign in path.name for sign in "*?["):
            found = sorted(path.parent.glob(path.name))
        elif path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
        else:
            found = [path] if path.is_file() else []
        if not found:
            raise DataError(f"{clip.path}: its pictures {path} are not there.")
        if found[0].suffix.lower() not in PICTURES:
            raise DataError(f"{clip.path}: {found[0]} is no picture; extract a video's frames first.")
        return found

    def cut(self, number: int, rng: np.random.Generator) -> tuple[Tensor, list[Any]]:
        """A part of a clip (time,) and the pictures around its middle."""
        shown = self.pictures(self.clips[number])
        if len(shown) < max(2, self.frames):
            return super().cut(number, rng)[0], shown[: self.frames]
        margin = min(self.margin, (len(shown) - 1) // 2)
        middle = int(rng.integers(margin, len(shown) - margin))  # counted from 0: shows second middle + 0.5
        first = min(max(0, middle - self.frames // 2), len(shown) - self.frames)
        wave = self.sounds.waveform(number)
        start = round((middle + 0.5) * self.sample_rate) - self.length // 2
        start = min(max(0, start), max(0, wave.numel() - self.length))
        return self.fitted(wave, start, rng), shown[first : first + self.frames]
