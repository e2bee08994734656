"""Example recordings: the demo mixture and mixtures of procedural sounds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from separation.audio import write
from separation.data.foley import synthesise

MIX = Path(__file__).resolve().parents[1] / "mix.wav"
SAMPLE_RATE = 32_000


class Example(NamedTuple):
    """A recording and queries for it; without parts, it is `demos/mix.wav`."""

    title: str
    queries: tuple[str, ...]  # filled in when the example is chosen
    parts: tuple[tuple[str, int, float], ...] = ()  # sound of `separation.data.foley`, seed, level


EXAMPLES = (
    Example("Dog, alarm clock, engine", ("dog barking", "alarm clock", "engine")),
    Example(
        "Rooster, sea, bells",
        ("rooster", "sea waves", "church bells"),
        (("rooster crow", 3, 0.5), ("sea waves", 2, 0.35), ("church bells", 4, 0.4)),
    ),
    Example(
        "Typing, clock, wind",
        ("typing", "clock ticking", "wind"),
        (("keyboard typing", 1, 0.5), ("clock ticking", 5, 0.5), ("wind", 2, 0.3)),
    ),
)


def render(number: int, folder: Path) -> Path:
    """Return the wav file of an example, made in `folder` on first use."""
    example = EXAMPLES[number]
    path = folder / f"example.{number}.wav" if example.parts else MIX
    if not path.exists():
        mix = sum(level * synthesise(label, 8.0, SAMPLE_RATE, seed) for label, seed, level in example.parts)
        write(path, torch.from_numpy(mix / np.abs(mix).max() * 0.7).float(), SAMPLE_RATE, overwrite=True)
    return path
