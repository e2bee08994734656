"""Fixed mixtures for validation: each row of a CSV says which clips, from where, how loud."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SAMPLE_RATE, SECONDS = 32000, 5
PEAK = 0.9


@dataclass(frozen=True)
class Rendered:
    """One mixture and its target, mono (time,); the target is silence in an `absent` row."""

    row: dict[str, str]
    mixture: np.ndarray
    target: np.ndarray
    sample_rate: int = SAMPLE_RATE


def read_rows(path: Path, kind: str | None = None) -> list[dict[str, str]]:
    """The list's rows, all or of one kind (pair, three, absent)."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if kind is None or row["kind"] == kind]


def placed(path: Path, start: float, offset: float) -> np.ndarray:
    """A clip (time,) in five seconds: cut from `start` when longer, put at `offset` into silence when shorter."""
    import soundfile
    import soxr

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    clip = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        clip = soxr.resample(clip, rate, SAMPLE_RATE)
    length = SECONDS * SAMPLE_RATE
    if len(clip) > length:
        first = int(start * SAMPLE_RATE)
        return np.pad(clip[first : first + length], (0, max(0, length - len(clip[first : first + length]))))
    room = np.zeros(length, dtype=np.float32)
    first = int(offset * SAMPLE_RATE)
    room[first : first + len(clip)] = clip[: length - first]
    return room


def render(row: dict[str, str], root: Path) -> Rendered:
    """A row as audio. Each interference is scaled to the row's SNR; over a peak of 0.9 everything is scaled down."""
    waves = []
    for name in ("target", "interference1", "interference2"):
        if row[name]:
            waves.append(placed(root / row[name], float(row[f"{name}_start"]), float(row[f"{name}_offset"])))
    energy = float((waves[0] ** 2).sum())
    mixture = waves[0].copy()
    for wave in waves[1:]:
        wanted = energy / 10 ** (float(row["snr_db"]) / 10)
        mixture += wave * np.sqrt(wanted / float((wave**2).sum()))
    target = waves[0] if row["kind"] != "absent" else np.zeros_like(mixture)
    scale = min(1.0, PEAK / max(float(np.abs(mixture).max()), 1e-9))
    return Rendered(row, mixture * scale, target * scale)
