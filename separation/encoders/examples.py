"""Example recordings as queries: read, stripped of silence, cut into segments."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from separation.audio import read, resample

FRAME_SECONDS, SILENT_PEAK = 0.1, 0.02


def remove_silence(waveform: Tensor, sample_rate: int) -> Tensor:
    """The 0.1-s frames of a waveform (time,) whose peak is over 0.02, joined; an incomplete last frame is lost."""
    size = round(FRAME_SECONDS * sample_rate)
    frames = waveform[: len(waveform) // size * size].reshape(-1, size)
    return frames[frames.abs().amax(1) > SILENT_PEAK].flatten()


def segments(waveform: Tensor, size: int) -> Tensor:
    """(batch, time) to consecutive segments (batch, count, size); the last one repeats itself until it is full.

    Raises:
        ValueError: there is no sample.
    """
    if not waveform.shape[-1]:
        raise ValueError("an example recording has at least one sample")
    count = -(-waveform.shape[-1] // size)
    tail = waveform[:, (count - 1) * size :]
    tail = tail.repeat(1, -(-size // tail.shape[-1]))[:, :size]
    return torch.cat([waveform[:, : (count - 1) * size], tail], 1).reshape(len(waveform), count, size)


def read_mono(path: str | Path, sample_rate: int) -> Tensor:
    """A file's mean over channels (time,) at `sample_rate`."""
    waveform, rate = read(path)
    return resample(waveform.mean(0, keepdim=True), rate, sample_rate)[0]


def audio_files(query: str | Path | Iterable[str | Path]) -> list[Path]:
    """A file, several files, or the .wav and .flac files of a folder, sorted by name."""
    if not isinstance(query, str | Path):
        return [Path(each) for each in query]
    path = Path(query)
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix.lower() in (".wav", ".flac"))
    return [path]
