"""A corpus in memory: every clip decoded once, at one rate, ready to be cut and mixed.

4.5 hours at 32 kHz are 1 GB of 16-bit samples. The decoded samples are kept in a cache file beside the run, because
decoding takes longer than a short training leg.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from separation.data.cut import BROKEN, complaint, read_part
from separation.data.manifest import Clip, DataError, read_manifest

FULL_SCALE = 32767.0
BROKEN_LIMIT = 0.01
FOLEY, FOLEY_SECONDS, FIRST_SEED = "foley", 5.0, 1000


def decode(path: Path, sample_rate: int, start: float = 0.0, seconds: float = 0.0) -> np.ndarray:
    """A part of a file (time,) as mono int16 at `sample_rate`, scaled to full scale (mixing sets the level anyway).

    Raises as `cut.read_part`.
    """
    import soxr

    mono, rate = read_part(path, start, seconds)
    mono = soxr.resample(mono, rate, sample_rate)
    peak = float(np.abs(mono).max(initial=0.0))
    if peak == 0.0:
        raise DataError(f"{path}: nothing is left of it at {sample_rate} Hz.")
    return np.round(mono / peak * FULL_SCALE).astype(np.int16)


class Corpus:
    """Clips of one split, decoded and grouped by label and recording.

    Args:
        manifest: the list of clips (see `manifest.py`); none = procedural clips alone.
        split: which rows.
        root: folder that the manifest's paths start from; the manifest's own by default.
        sample_rate: rate to decode to, Hz.
        cache: folder for the decoded samples; none = decode each time.
        foley: procedural clips added for each sound that `foley` can make, besides the recordings.

    Raises:
        DataError: there are no clips, or more than 1 % of them cannot be read. Fewer are reported once, by path, and
            left out.
    """

    def __init__(
        self,
        manifest: Path | None,
        split: str = "train",
        root: Path | None = None,
        sample_rate: int = 32000,
        cache: Path | None = None,
        foley: int = 0,
    ) -> None:
        self.sample_rate = sample_rate
        if manifest is None and not foley:
            raise DataError("There is nothing to train on: give a manifest, or ask for procedural clips (foley).")
        clips = (read_manifest(manifest, split) if manifest else []) + synthesised(foley)
        asked = f"{split} {sample_rate} {foley}{root or ''}"
        key = hashlib.sha256((manifest.read_bytes() if manifest else b"") + asked.encode()).hexdigest()[:16]
        file = cache / f"corpus_{key}.npz" if cache else None
        if file is not None and file.exists():
            stored = np.load(file, allow_pickle=False)
            samples, lengths = stored["samples"], stored["lengths"]
        else:
            samples, lengths = decode_all(clips, root or (manifest or Path()).parent, sample_rate)
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                partial = file.with_name(f"partial_{os.getpid()}_{file.name}")
                np.savez(partial, samples=samples, lengths=lengths)
                partial.replace(file)
        self.samples = torch.from_numpy(samples)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        readable = [i for i, n in enumerate(lengths) if n > 0]
        self.clips = [clips[i] for i in readable]
        self.starts, self.lengths = starts[readable].tolist(), lengths[readable].tolist()
        self.labels = sorted({clip.label for clip in self.clips})
        # label -> recording -> clip numbers: drawing goes down this tree, so that no recording outweighs its label.
        self.tree: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for number, clip in enumerate(self.clips):
            self.tree[clip.label][clip.recording].append(number)

    def __len__(self) -> int:
        return len(self.clips)

    def waveform(self, number: int) -> Tensor:
        """Clip `number` as (time,) float32 in [-1, 1]."""
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


def synthesise_clip(clip: Clip, sample_rate: int) -> np.ndarray:
    """A procedural clip's samples (time,) as int16."""
    from separation.data.foley import synthesise

    seed = int(clip.path.rsplit(".", 1)[1])
    wave = synthesise(clip.label, FOLEY_SECONDS, sample_rate, seed)
    return np.round(wave / np.abs(wave).max() * FULL_SCALE).astype(np.int16)


def decode_all(clips: list[Clip], root: Path, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """All samples one after another, and each clip's length (0 for a clip that could not be read)."""
    decoded, broken = [], []
    for clip in clips:
        try:
            decoded.append(
                synthesise_clip(clip, sample_rate)
                if clip.source == FOLEY
                else decode(root / clip.path, sample_rate, clip.start, clip.seconds)
            )
        except BROKEN as error:
            broken.append(complaint(root / clip.path, error))
            decoded.append(np.zeros(0, dtype=np.int16))
    for line in broken:
        print(f"left out: {line}")
    if len(broken) > BROKEN_LIMIT * len(clips):
        raise DataError(f"{len(broken)} of {len(clips)} clips cannot be read; the first: {broken[0]}")
    return np.concatenate(decoded), np.array([len(d) for d in decoded], dtype=np.int64)
