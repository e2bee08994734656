"""Render `mix.wav`, ten seconds of procedural sounds to separate, and `mix.json`, its description.

`stems()` returns each sound alone, as it sounds in the mix, so that a separation can be measured.
"""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from separation.data.foley import synthesise

SAMPLE_RATE = 44100
SECONDS = 10.0
PEAK_DB = -3.0
FADE_SECONDS = 0.3
FOLDER = Path(__file__).resolve().parent


class Stem(NamedTuple):
    """One sound of the mix."""

    label: str  # its name in `separation.data.foley.SOUNDS`
    query: str  # a text query for it
    seed: int  # of the synthesis
    start: float  # seconds
    seconds: float
    pan: float  # from -1 (left) to 1 (right)
    gain_db: float  # its RMS over the whole mix, relative to the other stems


STEMS = (
    Stem("dog bark", "dog barking", 7, 0.2, 9.6, -0.5, 0.0),
    Stem("alarm clock", "alarm clock", 1, 1.5, 7.5, 0.6, 0.0),
    Stem("engine", "engine", 1, 0.0, 10.0, 0.1, 0.0),
)


def stems() -> dict[str, NDArray[np.float64]]:
    """Render every stem as it sounds in the mix: {label: (2, time)}. Their sum is the mix, with its peak at PEAK_DB."""
    rendered = {}
    for stem in STEMS:
        sound = synthesise(stem.label, stem.seconds, SAMPLE_RATE, stem.seed).astype(np.float64)
        fade = np.minimum(np.arange(len(sound)) / (FADE_SECONDS * SAMPLE_RATE), 1)
        sound *= fade * fade[::-1]
        sound *= 10 ** (stem.gain_db / 20) / np.sqrt(np.sum(sound**2) / (SECONDS * SAMPLE_RATE))
        start = round(stem.start * SAMPLE_RATE)
        mono = np.zeros(round(SECONDS * SAMPLE_RATE))
        mono[start : start + len(sound)] = sound[: len(mono) - start]
        angle = (stem.pan + 1) * np.pi / 4
        rendered[stem.label] = np.stack([np.cos(angle) * mono, np.sin(angle) * mono])
    scale = 10 ** (PEAK_DB / 20) / np.abs(sum(rendered.values())).max()
    return {label: scale * sound for label, sound in rendered.items()}


def main(folder: Path = FOLDER) -> None:
    """Write mix.wav (16 bits) and mix.json into a folder."""
    mix = np.sum(list(stems().values()), axis=0)
    with wave.open(str(folder / "mix.wav"), "wb") as file:
        file.setparams((2, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(np.round(mix * 32768).astype("<i2").T.tobytes())
    facts = {"file": "mix.wav", "sample_rate": SAMPLE_RATE, "channels": 2, "seconds": SECONDS, "peak_db": PEAK_DB}
    facts |= {"made_by": "make_mix.py", "stems": [stem._asdict() for stem in STEMS]}
    (folder / "mix.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
