"""Clips of videos: a part of the sound, and the pictures seen around its middle.

A manifest's `frame` is one picture, or `folder/*.jpg` for a video's pictures, one a second in the order of their names.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from separation.data.corpus import FOLEY, Corpus, report
from separation.data.drawn import drawn_frame
from separation.data.manifest import Clip, DataError
from separation.data.queried import QueriedData

JPEG, END, TAIL = "JPEG", b"\xff\xd9", 1024  # what ends a picture of that kind, in its last bytes
CHECKED = "PNG"  # `verify` reads the whole of these
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def check_picture(path: Path) -> None:
    """Sees that a picture can be read, decoding it only where nothing less tells: there may be very many.

    Raises:
        DataError: it is damaged, cut short or no picture.
    """
    try:
        with Image.open(path) as image:
            if image.format == CHECKED or (image.format == JPEG and is_whole(path)):
                image.verify()
            else:
                image.load()
    except Exception:  # whatever readers of a dozen formats raise at bytes that are none of theirs
        raise DataError(f"{path}: it is damaged or no picture.") from None


def is_whole(path: Path) -> bool:
    """Whether a JPEG has its end, which within its data stands nowhere; some programs write a little behind it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return END in file.read()


class FrameData(QueriedData):
    """As `QueriedData`, with pictures: sound and pictures are of the same moment where there is one a second.

    Procedural clips have drawn pictures (`drawn.py`). Clips whose pictures are missing or broken are left out, as those
    are whose recording is.

    Args:
        frames: pictures a query, around the middle of the sound.
        margin: seconds at either end of a video in which no middle is chosen.
        common: see `QueriedData`.

    Raises:
        BrokenError: in `setup`, pictures of more than 1 % of the clips are missing or broken.
    """

    has_pictures = True

    def __init__(self, frames: int = 3, margin: int = 3, **common: Any) -> None:
        super().__init__(**common)
        self.frames, self.margin = frames, margin
        self.seen: dict[str, list[Path]] = {}

    def ready(self, corpus: Corpus) -> None:
        asked = [clip for clip in corpus.clips if clip.source != FOLEY]
        firsts: dict[str, Clip] = {}  # several clips may share a `frame`
        for clip in asked:
            if clip.frame:
                firsts.setdefault(clip.frame, clip)
        with ThreadPoolExecutor() as pool:  # it waits for the disk
            known = dict(zip(firsts, pool.map(self.fault, firsts.values()), strict=True))
        faults = [
            "" if clip.source == FOLEY else known[clip.frame] if clip.frame else self.fault(clip)
            for clip in corpus.clips
        ]
        report([fault for fault in faults if fault], corpus.recordings(), self.say)
        corpus.keep([number for number, fault in enumerate(faults) if not fault])
        super().ready(corpus)

    def fault(self, clip: Clip) -> str:
        """What is wrong with a clip's pictures, empty where nothing is."""
        try:
            for path in self._find(clip):
                check_picture(path)
        except DataError as error:
            return str(error)
        return ""

    def pictures(self, clip: Clip) -> list[Any]:
        """All pictures of a clip, in order.

        Raises:
            DataError: it has none, or they are not there.
        """
        if clip.source == FOLEY:
            return [drawn_frame(clip.label, int(clip.path.rsplit(".", 1)[1]))]
        if clip.frame not in self.seen:
            self.seen[clip.frame] = self._find(clip)
        return list(self.seen[clip.frame])

    def _find(self, clip: Clip) -> list[Path]:
        if not clip.frame:
            raise DataError(f"{clip.path}: the manifest names no frame for it.")
        root = self.root or (self.manifest or Path()).parent
        path = root / clip.frame
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
