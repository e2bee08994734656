"""A corpus: every clip decoded once, at one rate, ready to be cut and mixed.

Six hours at 32 kHz are 1.4 GB as 16-bit samples, in memory or in a folder that `packing.py` has written. A packed
corpus is given in place of a manifest; its samples are mapped into memory, and all processes share their pages.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from separation.audio.reading import Reader
from separation.data.manifest import Clip, Entry, read_entries
from separation.errors import AudioError, DataError

FULL_SCALE = 32767.0
BROKEN_LIMIT = 0.01  # share of unreadable recordings that a run accepts
FOLEY, FOLEY_SECONDS, FOLEY_SEED = "foley", 5.0, 1000  # procedural clips; demos use seeds below
SAMPLES, INDEX = "samples.raw", "index.json"  # files of a packed corpus
DECODED_AT_ONCE = 64  # clips
ROUNDING = 0.05  # seconds by which a length in a manifest may be off: lists round them
TRUNCATED = 0.02  # share of a clip that may be missing at its end
READ_ERRORS = (OSError, RuntimeError, DataError, AudioError)
"""What `read_samples` raises for a broken or missing file."""


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
        AudioError: if the file cannot be read.
    """
    reader = Reader(path)
    rate = reader.sample_rate
    first, count = round(start * rate), round(seconds * rate)
    most, got = count + math.floor(slack * rate), 0
    chunks = [np.zeros((0, reader.channels), np.float32)]
    for chunk in reader.chunks(first):
        chunks.append(chunk)
        got += len(chunk)
        if seconds and got > most:
            break
    samples = np.concatenate(chunks)
    return samples[:count] if seconds and got > most else samples, rate


def read_part(path: Path, start: float = 0.0, seconds: float = 0.0) -> tuple[np.ndarray, int]:
    """Read a clip as mono: samples (time,), the mean of the channels, and their rate, Hz.

    A file that is at most 0.05 s longer than the clip is read to its end. Args as in `read_samples`.

    Raises:
        DataError: if the file is missing, empty or damaged, ends before the clip does, is silent there, or contains
            NaN or infinity. The message names the file.
    """
    try:
        samples, rate = read_samples(path, start, seconds, ROUNDING)
    except READ_ERRORS as error:
        raise DataError(f"{path}: " + re.sub(f"^{re.escape(str(path))}", "the file", str(error))) from None
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


def decode(path: Path, sample_rate: int, start: float = 0.0, seconds: float = 0.0) -> tuple[np.ndarray, float]:
    """Read a part of a file as mono at `sample_rate`: samples (time,) as int16 at full scale, and their peak before.

    Raises as `read_part`.
    """
    import soxr

    mono, rate = read_part(path, start, seconds)
    mono = soxr.resample(mono, rate, sample_rate)
    peak = float(np.abs(mono).max(initial=0.0))
    if peak == 0.0:
        raise DataError(f"{path}: the clip is silent at {sample_rate} Hz.")
    return np.round(mono / peak * FULL_SCALE).astype(np.int16), peak


def decode_clips(
    clips: Sequence[Clip], root: Path, sample_rate: int, broken: list[str]
) -> Iterator[tuple[int, np.ndarray, float]]:
    """Yield (number, samples, peak) of each clip in order, as `decode`; `broken` gets a line for each of the others."""

    def decode_clip(clip: Clip) -> tuple[np.ndarray, float] | str:
        if clip.source == FOLEY:
            from separation.data.foley import synthesise

            wave = synthesise(clip.label, FOLEY_SECONDS, sample_rate, foley_seed(clip))
            peak = float(np.abs(wave).max())
            return np.round(wave / peak * FULL_SCALE).astype(np.int16), peak
        try:
            return decode(root / clip.path, sample_rate, clip.start, clip.seconds)
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(clips), DECODED_AT_ONCE):
            for number, sound in enumerate(pool.map(decode_clip, clips[first : first + DECODED_AT_ONCE]), first):
                if isinstance(sound, str):
                    broken.append(sound)
                else:
                    yield number, *sound


def report_broken(
    broken: Sequence[str], total: int, notice: Callable[[str], None] = print, what: str = "clips", least: int = 0
) -> None:
    """Report what cannot be read, by its lines in `broken`; raise BrokenError if it is more than 1 % of the recordings.

    `total` is their number without procedural clips; 1 % of `least` may be broken even if there are fewer.
    """
    for line in dict.fromkeys(broken):
        notice(f"left out: {line}")
    if len(broken) > BROKEN_LIMIT * max(total, least):
        raise BrokenError(f"{len(broken)} of {total} {what} cannot be read; the first: {broken[0]}")


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


# The corpus


class Corpus:
    """Clips of one split, decoded and grouped by label and recording.

    Args:
        manifest: list of clips (see `manifest.py`), or folder of a packed corpus; None = procedural clips only.
        split: rows to use.
        root: folder that the manifest's paths start from; by default the manifest's folder.
        sample_rate: Hz.
        foley: number of procedural clips of each sound of `separation.data.foley`, in addition to the recordings. A
            packed corpus has those that it was packed with.
        notice: receives a line for each clip that is left out.
        entries: the rows of the manifest if they were read before.

    Attributes:
        clips: the readable clips.
        samples: (time,) int16, one clip after another; `starts` and `lengths` say where each lies.
        peaks: peak of each clip as recorded; `waveform` scales it to one.
        labels: labels of the clips, sorted.
        tree: label -> recording -> clip numbers.
        recordings: label -> clip numbers of each recording.
        folder: of a packed corpus; else None.

    Raises:
        DataError: if there are no clips, or a packed corpus is damaged or has another rate.
        BrokenError: if more than 1 % of the recordings cannot be read. Fewer are reported and left out.
    """

    def __init__(
        self,
        manifest: Path | None,
        split: str = "train",
        root: Path | None = None,
        sample_rate: int = 32000,
        foley: int = 0,
        notice: Callable[[str], None] = print,
        entries: Sequence[Entry] | None = None,
    ) -> None:
        self.sample_rate, self.folder = sample_rate, manifest if manifest and manifest.is_dir() else None
        self.labels: list[str] = []
        self.tree: dict[str, dict[str, list[int]]] = {}
        entries = list(read_entries(manifest)) if manifest and entries is None else entries or []
        if self.folder is not None:
            index = read_index(self.folder, sample_rate)
            self.samples = map_samples(self.folder, index["samples"])
            self.clips = [clip for _, clip in entries]
            self.lengths, self.starts, self.peaks = index["lengths"], index["starts"], index["peaks"]
            self.keep([number for number, (name, _) in enumerate(entries) if name == split])
            if not self.clips:
                raise DataError(f"{manifest}: the corpus has no clips of split {split}.")
            return
        self.clips = [clip for name, clip in entries if name == split]
        if manifest and not self.clips:
            raise DataError(f"{manifest}: the manifest has no rows with split {split}.")
        self.clips += foley_clips(foley)
        if not self.clips:
            raise DataError("There is nothing to train on: give a manifest, or ask for procedural clips (foley).")
        broken: list[str] = []
        sounds = list(decode_clips(self.clips, root or (manifest or Path()).parent, sample_rate, broken))
        report_broken(broken, self.recording_count(), notice)
        self.samples = torch.from_numpy(np.concatenate([samples for _, samples, _ in sounds]))
        self.clips = [self.clips[number] for number, _, _ in sounds]
        self.lengths, self.peaks = [len(samples) for _, samples, _ in sounds], [peak for _, _, peak in sounds]
        self.starts = (np.cumsum(self.lengths) - self.lengths).tolist()
        self.keep(range(len(sounds)))

    def keep(self, numbers: Sequence[int]) -> None:
        """Drop all clips but these, and renumber."""
        for name in ("clips", "peaks", "starts", "lengths"):
            setattr(self, name, [getattr(self, name)[number] for number in numbers])
        self.labels, self.tree = sorted({clip.label for clip in self.clips}), {}
        for number, clip in enumerate(self.clips):
            self.tree.setdefault(clip.label, {}).setdefault(clip.recording, []).append(number)
        self.recordings = {label: list(recordings.values()) for label, recordings in self.tree.items()}

    def __len__(self) -> int:
        return len(self.clips)

    def __getstate__(self) -> dict[str, Any]:
        """A process that is not forked maps the samples of a packed corpus again."""
        return self.__dict__ | ({"samples": len(self.samples)} if self.folder else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if self.folder:
            self.samples = map_samples(self.folder, state["samples"])

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
        recordings = self.recordings[label]
        numbers = recordings[int(rng.integers(len(recordings)))]
        return numbers[int(rng.integers(len(numbers)))]


def read_index(folder: Path, sample_rate: int) -> dict[str, Any]:
    """Read where each clip of a packed corpus lies; raise DataError if it is damaged or has another rate."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        counts = {len(index[name]) for name in ("starts", "lengths", "peaks")}
        ends = [start + length for start, length in zip(index["starts"], index["lengths"], strict=True)]
        complete = counts == {index["clips"]} and max(ends, default=0) <= index["samples"]
        complete = complete and (folder / SAMPLES).stat().st_size == 2 * index["samples"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{folder}: not a corpus that separation-data pack has written.") from None
    if not complete:
        raise DataError(f"{folder}: the packed corpus is damaged.")
    if index["sample_rate"] != sample_rate:
        rate = index["sample_rate"]
        raise DataError(f"{folder}: the corpus is packed at {rate} Hz, and {sample_rate} Hz are needed (--rate).")
    return dict(index)


def map_samples(folder: Path, count: int) -> Tensor:
    """The samples of a packed corpus (time,), int16, mapped into memory."""
    return torch.from_file(str(folder / SAMPLES), shared=False, size=count, dtype=torch.int16)
