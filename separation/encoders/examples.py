"""Example recordings as queries: found, read, stripped of silence, cut into segments."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from separation.audio import read, resample
from separation.audio.waveform import as_rate, as_waveform

FRAME_SECONDS, SILENT_PEAK = 0.1, 0.02
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")  # taken from a folder

Example = str | Path | tuple[Tensor | np.ndarray, int]
"""A file, or a waveform (time,) or (channels, time) with its sample rate in Hz."""


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


def load_mono(example: Example, sample_rate: int) -> Tensor:
    """An example's mean over channels (time,) at `sample_rate`.

    Raises:
        AudioError: the file cannot be read.
        ValueError: the waveform or its rate is none.
    """
    if isinstance(example, str | Path):
        waveform, rate = read(example)
    else:
        waveform, rate = as_waveform(example[0], "example"), as_rate(example[1])
    return resample(waveform.mean(0, keepdim=True), rate, sample_rate)[0]


def called(example: Example) -> str:
    """What messages call an example."""
    return str(example) if isinstance(example, str | Path) else "The example"


def is_waveform(example: object) -> bool:
    """Whether it is a waveform with its sample rate."""
    return isinstance(example, tuple) and len(example) == 2 and isinstance(example[0], Tensor | np.ndarray)


def each_example(query: Example | Iterable[Example]) -> list[Example]:
    """One example or several; a folder stands for the recordings in it (wav, flac, ogg, mp3), sorted by name."""
    if isinstance(query, str | Path):
        path = Path(query)
        return sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if is_waveform(query):
        return [query]  # type: ignore[list-item]
    return [example for entry in query for example in each_example(entry)]  # type: ignore[arg-type]
