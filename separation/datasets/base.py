"""The description of a dataset, and tools for texts and files that several datasets share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separation.audio.formats import FFMPEG_SUFFIXES, READABLE
from separation.data.frames import VIDEO
from separation.data.manifest import Clip, Entry


@dataclass(frozen=True)
class Preparer:
    """A dataset and the function that reads its folder.

    Attributes:
        name: name on the command line.
        title: name that its authors use.
        home: official page.
        get: how to get it, a sentence or two.
        licence: of the whole; clips may have their own.
        splits: which splits there are and who defined them.
        needs: patterns that the folder must contain.
        clips: yields (split, clip) pairs of a folder, paths relative to it. Clips whose file is missing are included:
            the caller checks the files.
        complete: whether the dataset comes with its audio. If everybody fetches it on their own (videos), any number of
            files may be missing.
        counts: clips of each split in the whole release, to report when a folder has fewer.
        parts: its clips are parts of longer files.
        before: preparation of the folder, such as the extraction of stems.
    """

    name: str
    title: str
    home: str
    get: str
    licence: str
    splits: str
    needs: tuple[str, ...]
    clips: Callable[[Path], Iterator[Entry]]
    complete: bool = True
    counts: dict[str, int] = field(default_factory=dict)
    parts: bool = False
    before: Callable[[Path], None] = lambda root: None


PREPARERS: dict[str, Preparer] = {}


def preparer(**about: Any) -> Callable[[Callable[[Path], Iterator[Entry]]], Callable[[Path], Iterator[Entry]]]:
    """Register the decorated function as `clips` of a dataset; `about` are the other fields of `Preparer`."""

    def register(clips: Callable[[Path], Iterator[Entry]]) -> Callable[[Path], Iterator[Entry]]:
        each = Preparer(clips=clips, **about)
        PREPARERS[each.name] = each
        return clips

    return register


# Texts


def clean_text(text: str) -> str:
    """Replace the manifest's separators in a label or caption, and collapse white space."""
    return " ".join(text.replace(";", ",").replace("|", ",").split())


def label_words(label: str) -> str:
    """Return a label such as `Acoustic_guitar` as words: "acoustic guitar"."""
    return clean_text(label.replace("_", " ")).lower()


def unique(values: Iterable[str]) -> tuple[str, ...]:
    """Return the values that are not empty in their order, without repetitions."""
    return tuple(dict.fromkeys(value for value in values if value))


# Files


class FileIndex:
    """The audio and video files below a folder by their name without suffix, as paths relative to it.

    With `below`, only files in folders of that name, or of that name with `_flac` appended.
    """

    def __init__(self, root: Path, below: str | None = None) -> None:
        self.audio: dict[str, str] = {}
        self.video: dict[str, str] = {}
        for folder, folders, names in os.walk(root, followlinks=True):
            folders.sort()
            if below is not None and Path(folder).name not in (below, f"{below}_flac"):
                continue
            for name in sorted(names):
                stem, _, suffix = name.rpartition(".")
                suffix, path = suffix.lower(), Path(os.path.relpath(Path(folder) / name, root)).as_posix()
                if suffix in VIDEO:
                    self.video.setdefault(stem, path)
                elif suffix in READABLE or suffix in FFMPEG_SUFFIXES:
                    self.audio.setdefault(stem, path)

    def find(self, *stems: str) -> str:
        """Return the first file of these names, audio before video; if there is none, a missing one."""
        return next((kind[s] for kind in (self.audio, self.video) for s in stems if s in kind), f"{stems[0]}.wav")

    def find_video(self, *stems: str) -> str:
        """Return the first video of these names; empty if there is none."""
        return next((self.video[stem] for stem in stems if stem in self.video), "")

    def make_clip(self, video: str, source: str, seconds: float, stems: Iterable[str], **more: Any) -> Clip:
        """Make the clip of a YouTube video: its sound and picture are the first files of the given names."""
        path, frame = self.find(*stems), self.find_video(*stems)
        return Clip(path, more.pop("label", ""), "", f"youtube:{video}", source, seconds, frame=frame, **more)


def youtube_stems(video: str, start: float) -> tuple[str, ...]:
    """Return the usual file names of a part of a YouTube video: id and start in several formats, then the bare id.

    `X_000030` is VGGSound's format, `YX` that of AudioSet's mirrors, `X_30000_40000` and `X_30` those of common
    download tools.
    """
    seconds, milliseconds = int(start), round(1000 * start)
    starts = (f"{seconds:06d}", f"{seconds}", f"{milliseconds}", f"{milliseconds}_{milliseconds + 10000}")
    names = [f"{prefix}{video}_{stamp}" for prefix in ("", "Y") for stamp in (*starts, f"{start:.3f}")]
    return (*names, f"Y{video}", video)
