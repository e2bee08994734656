"""Files of a folder by their name without suffix: for datasets of which everybody fetches the videos on their own."""

from __future__ import annotations

import os
from pathlib import Path

from separation.audio.formats import FFMPEG_SUFFIXES, READABLE
from separation.data.frames import VIDEO


class Lookup:
    """The audio and video files below a folder, found by stem; audio goes before video.

    Args:
        root: the folder that paths are relative to.
        below: only files in folders of these names, or in those named so with `_flac` behind.
    """

    def __init__(self, root: Path, below: str | None = None) -> None:
        self.audio: dict[str, str] = {}
        self.video: dict[str, str] = {}
        wanted = None if below is None else {below, f"{below}_flac"}
        for folder, folders, names in os.walk(root, followlinks=True):
            folders.sort()
            if wanted is not None and Path(folder).name not in wanted:
                continue
            for name in sorted(names):
                stem, _, suffix = name.rpartition(".")
                self._add(stem, suffix.lower(), Path(os.path.relpath(Path(folder) / name, root)).as_posix())

    def _add(self, stem: str, suffix: str, path: str) -> None:
        if suffix in VIDEO:
            self.video.setdefault(stem, path)
        elif suffix in READABLE or suffix in FFMPEG_SUFFIXES:
            self.audio.setdefault(stem, path)

    def find(self, *stems: str) -> str:
        """The first of some names that there is a file for; the first name itself, as a wav file, where there is none.

        Such a path is then reported as missing.
        """
        for kind in (self.audio, self.video):
            for stem in stems:
                if stem in kind:
                    return kind[stem]
        return f"{stems[0]}.wav"

    def film(self, *stems: str) -> str:
        """The video of the first name that has one, else nothing."""
        return next((self.video[stem] for stem in stems if stem in self.video), "")


def youtube_stems(video: str, start: float) -> tuple[str, ...]:
    """The usual names of a part of a YouTube video: its id and start in several manners, the bare id last.

    `X_000030` is VGGSound's, `YX` that of AudioSet's mirrors, `X_30000_40000` and `X_30` those of common fetchers.
    """
    seconds, milliseconds = int(start), round(1000 * start)
    starts = (f"{seconds:06d}", f"{seconds}", f"{milliseconds}", f"{milliseconds}_{milliseconds + 10000}")
    stamped = [f"{prefix}{video}_{stamp}" for prefix in ("", "Y") for stamp in (*starts, f"{start:.3f}")]
    return (*stamped, f"Y{video}", video)
