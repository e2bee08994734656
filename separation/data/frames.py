"""Pictures of videos, one a second, which image queries and the noise-invariant objective are trained with.

They are written as `<name>/000001.jpg`, ..., and a manifest names them as `<name>/*.jpg`. ffmpeg does it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from separation.data.manifest import Clip, DataError, Entry

PER_SECOND = 1
HEIGHT = 256
PICTURES = "*.jpg"
VIDEO = frozenset({"mp4", "webm", "mkv", "mov", "avi", "m4v"})


def ffmpeg() -> str:
    """The ffmpeg program.

    Raises:
        DataError: there is none on the PATH.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise DataError("Frames of videos need the program ffmpeg, and there is none on the PATH.")
    return program


def video_of(clip: Clip) -> str:
    """The clip's video: what `frame` names, or the clip's own file; empty where neither is one."""
    return next((path for path in (clip.frame, clip.path) if path.rpartition(".")[2].lower() in VIDEO), "")


def folder_of(clip: Clip) -> str:
    """A folder name of its own for a clip's frames: the video's name, and a hash of which part of which file it is."""
    part = f"{video_of(clip)} {clip.start} {clip.seconds}"
    return f"{Path(video_of(clip)).stem}_{hashlib.sha256(part.encode()).hexdigest()[:8]}"


def extract(video: Path, folder: Path, start: float = 0.0, seconds: float = 0.0) -> int:
    """Writes one picture for each second of a part of a video; returns how many. All of the folder appears at once.

    Args:
        video: any file that ffmpeg reads.
        folder: gets 000001.jpg, ..., 256 pixels high.
        start: where the part begins, s.
        seconds: how long it is; 0 = to the end.

    Raises:
        DataError: there is no ffmpeg, or it finds no picture there.
    """
    program = ffmpeg()
    if not video.is_file():
        raise DataError(f"{video}: there is no such file.")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    part = [*(["-ss", f"{start:g}"] if start else []), *(["-t", f"{seconds:g}"] if seconds else [])]
    command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file", *part, "-i", f"file:{video}"]
    command += ["-vf", f"fps={PER_SECOND},scale=-2:{HEIGHT}", "-q:v", "3", "-f", "image2", f"{partial}/%06d.jpg"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        count = len(list(partial.glob(PICTURES)))
        if done.returncode or not count:
            detail = next(iter(done.stderr.strip().splitlines()), "it holds no picture")
            raise DataError(f"{video}: no frames can be taken from it (ffmpeg: {detail}).")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count


def add_frames(
    entries: list[Entry], root: Path, out: Path, folder: Path, say: Callable[[str], None] = print
) -> list[Entry]:
    """The entries with the frames of their videos in `frame`; videos that are broken are said and keep none.

    Args:
        entries: from a manifest.
        root: the folder that their paths start from.
        out: where the folders of frames go; those that are there are not made again.
        folder: what the frames' paths in the manifest start from.
        say: gets a line for each broken video.

    Raises:
        DataError: there is no ffmpeg.
        OSError: the frames cannot be written.
    """
    ffmpeg()
    out.mkdir(parents=True, exist_ok=True)  # a place that cannot be written to is no fault of the first video's
    done = []
    for split, clip in entries:
        video, frames = video_of(clip), ""
        if video:
            target = out / folder_of(clip)
            try:
                if not target.is_dir():
                    extract(root / video, target, clip.start, clip.seconds)
                frames = Path(os.path.relpath(target / PICTURES, folder)).as_posix()
            except DataError as error:
                say(f"no frames: {error}")
        done.append((split, replace(clip, frame=frames) if video else clip))
    return done
