"""A corpus in memory: every clip decoded once, at one rate, ready to be cut and mixed.

4.5 hours at 32 kHz are 1 GB of 16-bit samples. The decoded samples are kept in a cache file beside the run, because
decoding takes longer than a short training leg. That file is of one manifest, one folder and the files as they were:
when one of them is replaced, all are decoded anew.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from separation.data.cut import BROKEN, complaint, read_part
from separation.data.manifest import Clip, DataError, read_manifest

FULL_SCALE = 32767.0
BROKEN_LIMIT = 0.01
FOLEY, FOLEY_SECONDS, FIRST_SEED = "foley", 5.0, 1000
CACHE_FORMAT = 3  # of what a cache file holds; part of its name


class BrokenError(DataError):
    """More files of a set are broken than a run goes on without."""


Sound = tuple[np.ndarray, float]
"""Samples (time,) as int16 at full scale, and the peak that they had before they were scaled."""


def decode(path: Path, sample_rate: int, start: float = 0.0, seconds: float = 0.0) -> Sound:
    """A part of a file as mono at `sample_rate`, scaled to full scale, and its own peak.

    Most mixing sets the level anyway, and quiet clips keep their bits; what wants the recorded level has the peak.
    Raises as `cut.read_part`.
    """
    import soxr

    mono, rate = read_part(path, start, seconds)
    mono = soxr.resample(mono, rate, sample_rate)
    peak = float(np.abs(mono).max(initial=0.0))
    if peak == 0.0:
        raise DataError(f"{path}: nothing is left of it at {sample_rate} Hz.")
    return np.round(mono / peak * FULL_SCALE).astype(np.int16), peak


class Corpus:
    """Clips of one split, decoded and grouped by label and recording.

    Args:
        manifest: the list of clips (see `manifest.py`); none = procedural clips alone.
        split: which rows.
        root: folder that the manifest's paths start from; the manifest's own by default.
        sample_rate: rate to decode to, Hz.
        cache: folder for the decoded samples; none = decode each time.
        foley: procedural clips added for each sound that `foley` can make, besides the recordings.
        say: gets a line for each clip that is left out; of several processes only one should print it.

    Attributes:
        clips: those that could be read.
        peaks: their largest samples as they were recorded, where `waveform` has brought them to one.

    Raises:
        DataError: there are no clips, or more than 1 % of the recordings cannot be read. Fewer are reported once, by
            path, and left out, whether they are decoded or come from the cache.
    """

    def __init__(
        self,
        manifest: Path | None,
        split: str = "train",
        root: Path | None = None,
        sample_rate: int = 32000,
        cache: Path | None = None,
        foley: int = 0,
        say: Callable[[str], None] = print,
    ) -> None:
        self.sample_rate = sample_rate
        if manifest is None and not foley:
            raise DataError("There is nothing to train on: give a manifest, or ask for procedural clips (foley).")
        clips = (read_manifest(manifest, split) if manifest else []) + synthesised(foley)
        folder = root or (manifest or Path()).parent
        file = None
        if cache is not None:
            asked = f"{CACHE_FORMAT} {split} {sample_rate} {foley}"
            file = cache / f"corpus_{fingerprint(manifest, clips, folder, asked)}.npz"
        cached = file is not None and file.exists()
        decoded = restored(file) if file is not None and cached else decode_all(clips, folder, sample_rate)
        report(decoded.broken, sum(clip.source != FOLEY for clip in clips), say)
        if file is not None and not cached:
            store(decoded, file)
        lengths = decoded.lengths
        self.samples = torch.from_numpy(decoded.samples)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        self.clips = clips
        self.peaks: list[float] = decoded.peaks.tolist()
        self.starts: list[int] = starts.tolist()
        self.lengths: list[int] = lengths.tolist()
        self.keep([number for number, length in enumerate(lengths) if length > 0])

    def keep(self, numbers: Sequence[int]) -> None:
        """Goes on with these clips alone, numbered anew."""
        self.clips = [self.clips[i] for i in numbers]
        self.peaks = [self.peaks[i] for i in numbers]
        self.starts, self.lengths = [self.starts[i] for i in numbers], [self.lengths[i] for i in numbers]
        self.labels = sorted({clip.label for clip in self.clips})
        # label -> recording -> clip numbers: drawing goes down this tree, so that no recording outweighs its label.
        self.tree: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for number, clip in enumerate(self.clips):
            self.tree[clip.label][clip.recording].append(number)

    def __len__(self) -> int:
        return len(self.clips)

    def recordings(self) -> int:
        """How many of the clips are no procedural ones."""
        return sum(clip.source != FOLEY for clip in self.clips)

    def waveform(self, number: int) -> Tensor:
        """Clip `number` as (time,) float32 in [-1, 1], its peak at one."""
        start = self.starts[number]
        return self.samples[start : start + self.lengths[number]].float() / FULL_SCALE


def synthesised(count: int) -> list[Clip]:
    """`count` procedural clips of each sound; their seeds start where those of the demos do not reach."""
    if count == 0:
        return []
    from separation.data.foley import SOUNDS

    return [
        Clip(f"{label}.{seed}", label, f"{label}.", f"foley:{label}:{seed}", FOLEY, FOLEY_SECONDS)
        for label in SOUNDS
        for seed in range(FIRST_SEED, FIRST_SEED + count)
    ]


def synthesise_clip(clip: Clip, sample_rate: int) -> Sound:
    """A procedural clip, as `decode` gives recordings."""
    from separation.data.foley import synthesise

    seed = int(clip.path.rsplit(".", 1)[1])
    wave = synthesise(clip.label, FOLEY_SECONDS, sample_rate, seed)
    peak = float(np.abs(wave).max())
    return np.round(wave / peak * FULL_SCALE).astype(np.int16), peak


@dataclass
class Decoded:
    """What is kept of clips.

    samples: (time,) int16, one clip after another. lengths: (clips,), samples of each, 0 where it could not be read.
    peaks: (clips,), see `Sound`. broken: what is wrong with those that could not be read.
    """

    samples: np.ndarray
    lengths: np.ndarray
    peaks: np.ndarray
    broken: list[str]


def decode_all(clips: list[Clip], root: Path, sample_rate: int) -> Decoded:
    """All clips; those that cannot be read have no samples and a line that says why."""
    decoded: list[Sound] = []
    broken = []
    for clip in clips:
        try:
            decoded.append(
                synthesise_clip(clip, sample_rate)
                if clip.source == FOLEY
                else decode(root / clip.path, sample_rate, clip.start, clip.seconds)
            )
        except BROKEN as error:
            broken.append(complaint(root / clip.path, error))
            decoded.append((np.zeros(0, dtype=np.int16), 0.0))
    samples, peaks = zip(*decoded, strict=True)
    lengths = np.array([len(each) for each in samples], dtype=np.int64)
    return Decoded(np.concatenate(samples), lengths, np.array(peaks), broken)


def report(broken: Sequence[str], recordings: int, say: Callable[[str], None] = print) -> None:
    """Names what was left out of so many recordings; procedural clips are never broken and do not count.

    Args:
        broken: a line for each; what several have in common is said once.
        recordings: how many there are.
        say: gets the lines.

    Raises:
        BrokenError: it is more than 1 % of them.
    """
    for line in dict.fromkeys(broken):
        say(f"left out: {line}")
    if len(broken) > BROKEN_LIMIT * recordings:
        raise BrokenError(f"{len(broken)} of {recordings} clips cannot be read; the first: {broken[0]}")


# The cache


def fingerprint(manifest: Path | None, clips: list[Clip], folder: Path, asked: str) -> str:
    """All that decoded samples depend on, in 16 characters.

    The manifest alone does not do: another folder may have the same one, and a file may be replaced under its name.
    """
    if manifest is None:
        return hashlib.sha256(asked.encode()).hexdigest()[:16]
    root = os.path.realpath(folder)
    key = hashlib.sha256(manifest.read_bytes())
    key.update(os.fsencode(f"{asked} {root}"))
    for path in dict.fromkeys(clip.path for clip in clips if clip.source != FOLEY):
        key.update(stamp(os.path.join(root, path)))
    return key.hexdigest()[:16]


def stamp(path: str) -> bytes:
    """A file's size in bytes and its time of change in nanoseconds; of a missing one, that it is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return b"missing\n"
    return f"{found.st_size} {found.st_mtime_ns}\n".encode()


def store(decoded: Decoded, file: Path) -> None:
    """Writes a cache file; a kill leaves none rather than a part of one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"partial_{os.getpid()}_{file.name}")
    broken = np.array(decoded.broken, dtype=str)
    np.savez(partial, samples=decoded.samples, lengths=decoded.lengths, peaks=decoded.peaks, broken=broken)
    partial.replace(file)


def restored(file: Path) -> Decoded:
    """What `store` wrote; nothing in it is unpickled."""
    with np.load(file, allow_pickle=False) as stored:
        return Decoded(stored["samples"], stored["lengths"], stored["peaks"], stored["broken"].tolist())
