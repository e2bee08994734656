"""Recordings to try the page with, made by the project's own synthesis."""

from __future__ import annotations

import secrets
import wave
from dataclasses import dataclass
from pathlib import Path

MIX = Path(__file__).resolve().parents[1] / "mix.wav"
SAMPLE_RATE = 32_000


@dataclass(frozen=True)
class Example:
    """A recording and what can be asked for in it.

    Attributes:
        title: shown to people.
        queries: filled in when it is chosen.
        parts: (sound of `separation.data.foley`, seed, level); none: the recording is `demos/mix.wav`.
    """

    title: str
    queries: tuple[str, ...]
    parts: tuple[tuple[str, int, float], ...] = ()


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
    """The wav file of an example, made in `folder` when it is first asked for.

    Raises:
        IndexError: there is no such example.
    """
    example = EXAMPLES[number]
    if not example.parts:
        return MIX
    path = folder / f"example.{number}.wav"
    if not path.exists():
        import numpy as np

        from separation.data.foley import synthesise

        mix = sum(level * synthesise(label, 8.0, SAMPLE_RATE, seed) for label, seed, level in example.parts)
        partial = folder / f"example.{secrets.token_hex(8)}.partial"  # two people may ask for it at once
        with wave.open(str(partial), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(np.round(mix / np.abs(mix).max() * 0.7 * 32767).astype("<i2").tobytes())
        partial.rename(path)
    return path
