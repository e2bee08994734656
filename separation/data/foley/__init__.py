"""Procedural everyday sounds, seeded, without recordings.

`synthesise("dog bark", seconds=4.0, sample_rate=32000, seed=1)` returns one sound; `SOUNDS` maps every label to its
function. A seed fixes the parameters (pitch, tempo, brightness, spacing) at any sample rate and length.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from separation.data.foley import sounds as sounds  # registers them
from separation.data.foley.parts import SOUNDS as SOUNDS

PEAK = 0.9
SHORTEST = 0.5  # s; shorter sounds are rendered this long and cut, so that every sound has its first event


def synthesise(label: str, seconds: float = 4.0, sample_rate: int = 32000, seed: int = 0) -> NDArray[np.float32]:
    """Synthesise one sound: (time,) float32, peak at most 1, round(seconds * sample_rate) samples.

    The same arguments give the same samples. Raises ValueError if one of them is not valid.
    """
    if label not in SOUNDS:
        raise ValueError(f"no sound is called {label!r}; there are: {', '.join(SOUNDS)}")
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"a sound cannot last {seconds} seconds")
    if sample_rate <= 0:
        raise ValueError(f"a sample rate must be positive, not {sample_rate}")
    length = round(seconds * sample_rate)
    wave = SOUNDS[label](np.random.default_rng(seed), max(length, math.ceil(SHORTEST * sample_rate)), sample_rate)
    part: NDArray[np.float64] = wave[:length] * (PEAK / np.abs(wave).max())
    return part.astype(np.float32)
