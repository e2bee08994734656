"""Procedural everyday sounds: seeded, a few lines each, nothing recorded.

`synthesise("dog bark", seconds=4.0, sample_rate=32000, seed=1)` returns one sound; `SOUNDS` maps
every label to its function. A seed fixes the parameters (pitch, tempo, brightness, spacing), at
any sample rate and length; another seed gives another dog, clock or engine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from separation.data.foley import animals, elements, machines, people
from separation.data.foley.registry import SOUNDS as SOUNDS

__all__ = ["SOUNDS", "animals", "elements", "machines", "people", "synthesise"]


def synthesise(label: str, seconds: float = 4.0, sample_rate: int = 32000, seed: int = 0) -> NDArray[np.float32]:
    """Render one sound, (time,) float32, peak at most 1, round(seconds * sample_rate) samples.

    The same arguments give the same samples. Raises ValueError for a label that is not in
    `SOUNDS`, for a negative or infinite duration and for a sample rate that is not positive.
    """
    if label not in SOUNDS:
        raise ValueError(f"no sound is called {label!r}; there are: {', '.join(SOUNDS)}")
    return SOUNDS[label](np.random.default_rng(seed), seconds, sample_rate)
