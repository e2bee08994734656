"""A corpus in memory: every clip decoded once, at one rate, ready to be cut and mixed.

4.5 hours at 32 kHz take 1 GB as 16-bit samples. Decoding takes longer than a short training run, so the samples are
kept in a cache file. It belongs to one manifest, one folder and the files as they were: if one of them changes, all are
decoded again.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from separation.audio import Reader
from separation.audio.formats import FFMPEG_SUFFIXES
from separation.data.manifest import Clip, DataError, read_manifest
from separation.download import replace_when_complete
from separation.errors import AudioError

FULL_SCALE = 32767.0
BROKEN_LIMIT = 0.01  # share of unreadable recordings that a run accepts
FOLEY, FOLEY_SECONDS, FOLEY_SEED = "foley", 5.0, 1000  # procedural clips; demos use seeds below
CACHE_FORMAT = 3  # part of a cache file's name
ROUNDING = 0.05  # seconds by which a length in a manifest may be off: lists round them
TRUNCATED = 0.02  # share of a clip that may be missing at its end
READ_ERRORS = (OSError, RuntimeError, DataError, AudioError)
"""What `read_part` raises for a broken or missing file; `describe_error` puts it into words."""


class BrokenError(DataError):
    """More recordings are unreadable than a run accepts."""


# Reading


def read_samples(path: Path, start: float = 0.0, seconds: float = 0.0, slack: float = 0.0) -> tuple[np.ndarray, int]:
    """Read a part of an audio file; start and length are rounded to the nearest sample.

    Args:
        path: any file that `separation.audio` reads.
        start: start of the part, s.
        seconds: its length; 0 = to the end.
        slack: if at most so many seconds follow the part, they are read too.

    Returns:
        samples (time, channels), fewer if the file ends before the part does, and their rate, Hz.

    Raises:
        RuntimeError: if libsndfile cannot read the file.
        AudioError: if another container cannot be decoded.
    """
    if path.suffix.lower().lstrip(".") in FFMPEG_SUFFIXES:
        reader = Reader(path)
        rate, chunks, got = reader.sample_rate, [np.zeros((0, reader.channels), np.float32)], 0
        end = round((start + seconds + 2 * slack) * rate) if seconds else math.inf
        for chunk in reader.chunks():  # from the start: these containers cannot be searched exactly
            chunks.append(chunk)
            got += len(chunk)
            if got >= end:
                break
        first, count = _frame_range(rate, start, seconds, slack, got)
        return np.concatenate(chunks)[first : first + count], rate
    import soundfile

    with soundfile.SoundFile(path) as file:
        first, count = _frame_range(file.samplerate, start, seconds, slack, file.frames)
        file.seek(min(first, file.frames))
        return file.read(count, dtype="float32", always_2d=True), file.samplerate


def _frame_range(rate: int, start: float, seconds: float, slack: float, length: int) -> tuple[int, int]:
    """First frame and number of frames of a part of a file of `length` frames."""
    first, count = round(start * rate), round(seconds * rate)
    rest = max(0, length - first)
    return first, rest if not seconds or rest <= count + slack * rate else count


def read_part(path: Path, start: float = 0.0, seconds: float = 0.0) -> tuple[np.ndarray, int]:
    """Read a clip as mono: samples (time,), the mean of the channels, and their rate, Hz.

    A file that is at most 0.05 s longer than the clip is read to its end. Args as in `read_samples`.

    Raises:
        DataError: if the file is missing, empty or damaged, ends before the clip does, is silent there, or contains
            NaN or infinity. The message names the file.
        AudioError: as `read_samples`.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    if not path.stat().st_size:
        raise DataError(f"{path}: the file is empty (0 bytes).")
    try:
        samples, rate = read_samples(path, start, seconds, ROUNDING)
    except RuntimeError as error:
        detail = getattr(error, "error_string", str(error)).rstrip(".")
        raise DataError(f"{path}: the file is damaged or not audio ({detail}).") from None
    found = len(samples) / rate
    if not found:
        raise DataError(f"{path}: there is no sound at {start:g} s." if start else f"{path}: the file has no samples.")
    if found < seconds - max(ROUNDING, TRUNCATED * seconds):
        raise DataError(f"{path}: the clip is cut short, {found:.2f} s of {seconds:.2f} s are there.")
    with np.errstate(invalid="ignore"):  # inf - inf, reported below
        mono: np.ndarray = samples.mean(axis=1)
    peak = float(np.abs(mono).max())
    if not np.isfinite(peak) or peak == 0.0:
        raise DataError(f"{path}: the clip is silent or not finite.")
    return mono, rate


def describe_error(path: Path, error: Exception) -> str:
    """A read error as a sentence that starts with the path."""
    text = str(error)
    return text if text.startswith(str(path)) else f"{path}: {text}"


Sound = tuple[np.ndarray, float]
"""Samples (time,) as int16 at full scale, and their peak before scaling."""


def decode(path: Path, sample_rate: int, start: float = 0.0, seconds: float = 0.0) -> Sound:
    """Read a part of a file as mono at `sample_rate`, scaled to full scale. Raises as `read_part`."""
    import soxr

    mono, rate = read_part(path, start, seconds)
    mono = soxr.resample(mono, rate, sample_rate)
    peak = float(np.abs(mono).max(initial=0.0))
    if peak == 0.0:
        raise DataError(f"{path}: the clip is silent at {sample_rate} Hz.")
    return np.round(mono / peak * FULL_SCALE).astype(np.int16), peak


# The corpus


class Corpus:
    """Clips of one split, decoded and grouped by label and recording.

    Args:
        manifest: list of clips (see `manifest.py`); None = procedural clips only.
        split: rows to use.
        root: folder that the manifest's paths start from; by default the manifest's folder.
        sample_rate: Hz.
        cache: folder for the decoded samples; None = decode each time.
        foley: number of procedural clips of each sound of `separation.data.foley`, in addition to the recordings.
        notice: receives a line for each clip that is left out.

    Attributes:
        clips: the readable clips.
        labels: their labels, sorted.
        tree: label -> recording -> clip numbers.
        peaks: peak of each clip as recorded; `waveform` scales it to one.

    Raises:
        DataError: if there are no clips.
        BrokenError: if more than 1 % of the recordings cannot be read. Fewer are reported and left out.
    """

    def __init__(
        self,
        manifest: Path | None,
        split: str = "train",
        root: Path | None = None,
        sample_rate: int = 32000,
        cache: Path | None = None,
        foley: int = 0,
        notice: Callable[[str], None] = print,
    ) -> None:
        if manifest is None and not foley:
            raise DataError("There is nothing to train on: give a manifest, or ask for procedural clips (foley).")
        self.sample_rate = sample_rate
        self.clips = (read_manifest(manifest, split) if manifest else []) + foley_clips(foley)
        root = root or (manifest or Path()).parent
        key = f"{CACHE_FORMAT} {split} {sample_rate} {foley}"
        file = cache / f"corpus_{_fingerprint(manifest, self.clips, root, key)}.npz" if cache else None
        if cached := file is not None and file.exists():
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in ("samples", "lengths", "peaks", "broken")}
        else:
            arrays = _decode_all(self.clips, root, sample_rate)
        report_broken(arrays["broken"].tolist(), self.recording_count(), notice)
        if file is not None and not cached:
            with replace_when_complete(file) as partial:
                np.savez(partial, **arrays)
        self.samples = torch.from_numpy(arrays["samples"])
        self.lengths: list[int] = arrays["lengths"].tolist()
        self.starts: list[int] = (np.cumsum(arrays["lengths"]) - arrays["lengths"]).tolist()
        self.peaks: list[float] = arrays["peaks"].tolist()
        self.keep([number for number, length in enumerate(self.lengths) if length > 0])

    def keep(self, numbers: Sequence[int]) -> None:
        """Drop all clips but these, and renumber."""
        for name in ("clips", "peaks", "starts", "lengths"):
            setattr(self, name, [getattr(self, name)[number] for number in numbers])
        self.labels = sorted({clip.label for clip in self.clips})
        self.tree: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for number, clip in enumerate(self.clips):
            self.tree[clip.label][clip.recording].append(number)

    def __len__(self) -> int:
        return len(self.clips)

    def recording_count(self) -> int:
        """Number of clips that are not procedural."""
        return sum(clip.source != FOLEY for clip in self.clips)

    def waveform(self, number: int) -> Tensor:
        """Clip `number` as (time,) float32 with a peak of one."""
        start = self.starts[number]
        return self.samples[start : start + self.lengths[number]].float() / FULL_SCALE

    def label_weights(self, balance: float, labels: Sequence[str] | None = None) -> np.ndarray:
        """Probabilities of the labels, in proportion to (number of recordings) ** balance."""
        counts = np.array([len(self.tree[label]) for label in labels or self.labels], dtype=float)
        return counts**balance / (counts**balance).sum()

    def draw_clip(self, label: str, rng: np.random.Generator) -> int:
        """Draw a clip of a label: a recording first, so that recordings with many clips do not dominate."""
        recordings = list(self.tree[label].values())
        numbers = recordings[int(rng.integers(len(recordings)))]
        return numbers[int(rng.integers(len(numbers)))]


def foley_clips(count: int) -> list[Clip]:
    """`count` procedural clips of each sound."""
    if count == 0:
        return []
    from separation.data.foley import SOUNDS

    return [
        Clip(f"{label}.{seed}", label, f"{label}.", f"foley:{label}:{seed}", FOLEY, FOLEY_SECONDS)
        for label in SOUNDS
        for seed in range(FOLEY_SEED, FOLEY_SEED + count)
    ]


def foley_seed(clip: Clip) -> int:
    """The seed of a procedural clip."""
    return int(clip.path.rsplit(".", 1)[1])


def _decode_all(clips: list[Clip], root: Path, sample_rate: int) -> dict[str, np.ndarray]:
    """Decode clips: `samples`, one clip after another, with `lengths`, `peaks`, and a line for each `broken` clip."""
    sounds: list[Sound] = []
    broken = []
    for clip in clips:
        if clip.source == FOLEY:
            from separation.data.foley import synthesise

            wave = synthesise(clip.label, FOLEY_SECONDS, sample_rate, foley_seed(clip))
            peak = float(np.abs(wave).max())
            sounds.append((np.round(wave / peak * FULL_SCALE).astype(np.int16), peak))
            continue
        try:
            sounds.append(decode(root / clip.path, sample_rate, clip.start, clip.seconds))
        except READ_ERRORS as error:
            broken.append(describe_error(root / clip.path, error))
            sounds.append((np.zeros(0, dtype=np.int16), 0.0))
    samples, peaks = zip(*sounds, strict=True)
    return {
        "samples": np.concatenate(samples),
        "lengths": np.array([len(each) for each in samples], dtype=np.int64),
        "peaks": np.array(peaks),
        "broken": np.array(broken, dtype=str),
    }


def report_broken(broken: Sequence[str], recordings: int, notice: Callable[[str], None] = print) -> None:
    """Report clips that are left out.

    Args:
        broken: a line for each; equal lines are reported once.
        recordings: number of recordings; procedural clips do not count.
        notice: receives the lines.

    Raises:
        BrokenError: if more than 1 % of the recordings are broken.
    """
    for line in dict.fromkeys(broken):
        notice(f"left out: {line}")
    if len(broken) > BROKEN_LIMIT * recordings:
        raise BrokenError(f"{len(broken)} of {recordings} clips cannot be read; the first: {broken[0]}")


def _fingerprint(manifest: Path | None, clips: list[Clip], root: Path, key: str) -> str:
    """A hash of everything that decoded samples depend on: manifest, folder, and size and time of every file."""
    if manifest is None:
        return hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = os.path.realpath(root)
    digest = hashlib.sha256(manifest.read_bytes())
    digest.update(os.fsencode(f"{key} {folder}"))
    for path in dict.fromkeys(clip.path for clip in clips if clip.source != FOLEY):
        try:
            found = os.stat(os.path.join(folder, path))
            digest.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(b"missing\n")
    return digest.hexdigest()[:16]
