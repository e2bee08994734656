"""The part of a file that a clip is: read without the rest, checked against what the manifest promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from separation.audio import AudioError, Reader
from separation.audio.formats import FFMPEG_SUFFIXES
from separation.data.manifest import Clip, DataError

ROUNDING = 0.05
"""Seconds by which a length in a manifest may be off without meaning anything: lists round them."""
TRUNCATED = 0.02
"""Share of a clip that may be missing at its end before it counts as cut short."""
BROKEN = (OSError, RuntimeError, DataError, AudioError)
"""What reading a clip raises when its file is broken or missing; `complaint` says it."""


def read_part(path: Path, start: float = 0.0, seconds: float = 0.0) -> tuple[np.ndarray, int]:
    """The samples (time,) of a part of a file, its channels averaged, and their rate.

    Args:
        path: any audio or video file.
        start: where it begins, s.
        seconds: how long it is; 0 = until the end. A file that is hardly longer is read to its end.

    Raises:
        DataError: the file is missing, empty or damaged, ends before the part does, holds nothing but zeros there, or
            a sample is no number. The message names the file.
        AudioError: as `separation.audio.Reader`, for containers.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    if not path.stat().st_size:
        raise DataError(f"{path}: it is empty, 0 bytes.")
    samples, rate = (_through_ffmpeg if needs_ffmpeg(path) else _through_libsndfile)(path, start, seconds)
    if not len(samples):
        raise DataError(f"{path}: there is no sound at {start:g} s." if start else f"{path}: it holds no samples.")
    _check_length(path, len(samples) / rate, seconds)
    with np.errstate(invalid="ignore"):  # an inf less an inf; reported below
        mono: np.ndarray = samples.mean(axis=1)
    peak = float(np.abs(mono).max())
    if not np.isfinite(peak) or peak == 0.0:
        raise DataError(f"{path}: the clip is silent or not finite.")
    return mono, rate


def read_clip(root: Path, clip: Clip) -> tuple[np.ndarray, int]:
    """A clip's samples (time,) and rate; raises as `read_part`."""
    return read_part(root / clip.path, clip.start, clip.seconds)


def needs_ffmpeg(path: Path) -> bool:
    """Whether a file is of a kind that only ffmpeg reads."""
    return path.suffix.lower().lstrip(".") in FFMPEG_SUFFIXES


def decoded(path: Path, end: float = 0.0) -> tuple[np.ndarray, int]:
    """The samples (time, channels) of such a file from its start at least to `end`, s, and their rate; 0 = all of it.

    Raises:
        AudioError: as `separation.audio.Reader`, or there is no audio in it.
    """
    decoder = Reader(path)
    rate, chunks, got = decoder.sample_rate, [], 0
    for chunk in decoder.chunks():
        chunks.append(chunk)
        got += len(chunk)
        if end and got >= round(end * rate):
            break
    if not chunks:
        raise AudioError(f"{path} holds no audio.")
    return np.concatenate(chunks), rate


def complaint(path: Path, error: Exception) -> str:
    """What is wrong with a file, its path named once and first."""
    text = str(error)
    return text if text.startswith(str(path)) else f"{path}: {text}"


def _check_length(path: Path, there: float, promised: float) -> None:
    if there < promised - max(ROUNDING, TRUNCATED * promised):
        raise DataError(f"{path}: it is cut short, {there:.2f} s of {promised:.2f} s are there.")


def _frames(rate: int, start: float, seconds: float, length: int) -> int:
    """How many frames to read of a file of `length`; a difference that is mere rounding is not a cut."""
    first = round(start * rate)
    wanted = round(seconds * rate)
    rest = max(0, length - first)
    return rest if not seconds or rest <= wanted + ROUNDING * rate else wanted


def _through_libsndfile(path: Path, start: float, seconds: float) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            if start:
                file.seek(min(round(start * rate), file.frames))
            wanted = _frames(rate, start, seconds, file.frames)
            samples = file.read(wanted, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path}: it is damaged or no audio ({error.error_string.rstrip('.')}).") from None
    _check_length(path, len(samples) / rate, wanted / rate)
    return samples, rate


def _through_ffmpeg(path: Path, start: float, seconds: float) -> tuple[np.ndarray, int]:
    """Decodes from the file's start; long videos are better made into audio files once."""
    samples, rate = decoded(path, start + seconds + 2 * ROUNDING if seconds else 0.0)
    first = round(start * rate)
    return samples[first : first + _frames(rate, start, seconds, len(samples))], rate
