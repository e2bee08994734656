"""Pictures of videos, one per second, for image queries and the noise-invariant objective.

They are written as `<name>/000001.jpg`, ...; a manifest names them as `<name>/*.jpg`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from separation.audio import AudioError
from separation.audio.containers import pictures
from separation.data.manifest import Clip, Entry
from separation.errors import DataError
from separation.process import remove, temporary_path

HEIGHT = 256
PICTURES = "*.jpg"
VIDEO = frozenset({"mp4", "webm", "mkv", "mov", "avi", "m4v"})


def find_video(clip: Clip) -> str:
    """Return the clip's video: what `frame` names, or the clip's own file; "" if neither is a video."""
    return next((path for path in (clip.frame, clip.path) if path.rpartition(".")[2].lower() in VIDEO), "")


def extract(video: Path, folder: Path, start: float = 0.0, seconds: float = 0.0) -> int:
    """Write a picture, 256 pixels high, for each second of a part of a video into a new folder; return their number.

    The folder appears when it is complete. `seconds` 0 means to the end. Raises DataError if the video is missing or
    cannot be decoded, or has no picture there.
    """
    if not video.is_file():
        raise DataError(f"{video}: there is no such file.")
    partial = temporary_path(folder)
    partial.mkdir(parents=True)
    try:
        count = 0
        for count, picture in enumerate(pictures(video, start, seconds, HEIGHT), 1):
            (partial / f"{count:06d}.jpg").write_bytes(picture)
        if not count:
            raise DataError(f"{video}: no frames can be extracted: it holds no picture.")
        partial.rename(folder)
    except AudioError as error:
        raise DataError(f"{video}: no frames can be extracted: {error}") from None
    finally:
        remove(partial)
    return count


def add_frames(entries: list[Entry], root: Path, out: Path, folder: Path) -> list[Entry]:
    """Return entries with the frames of their videos in `frame`; broken videos get none, and a line is printed.

    Paths of the entries start at `root`, those of the frames at `folder`. Folders of frames are written into `out`;
    existing ones are kept.
    """
    out.mkdir(parents=True, exist_ok=True)  # an unwritable folder is not the fault of the first video
    done = []
    for split, clip in entries:
        video, frames = find_video(clip), ""
        if video:
            part = hashlib.sha256(f"{video} {clip.start} {clip.seconds}".encode()).hexdigest()[:8]
            target = out / f"{Path(video).stem}_{part}"
            try:
                if not target.is_dir():
                    extract(root / video, target, clip.start, clip.seconds)
                frames = Path(os.path.relpath(target / PICTURES, folder)).as_posix()
            except DataError as error:
                print(f"no frames: {error}")
        done.append((split, replace(clip, frame=frames) if video else clip))
    return done
