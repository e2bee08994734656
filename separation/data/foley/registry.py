"""The procedural sounds by their labels; length and peak are taken care of here."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from separation.data.foley.parts import Array

Renderer = Callable[[np.random.Generator, int, int], Array]
Sound = Callable[[np.random.Generator, float, int], NDArray[np.float32]]

PEAK = 0.9
# Shorter requests are rendered this long and cut, so that every sound has its first event.
SHORTEST = 0.5

SOUNDS: dict[str, Sound] = {}


def sound(label: str) -> Callable[[Renderer], Sound]:
    """Register a renderer under a label, with its length and its peak taken care of."""

    def register(render: Renderer) -> Sound:
        def rendered(rng: np.random.Generator, seconds: float, sample_rate: int) -> NDArray[np.float32]:
            if not (math.isfinite(seconds) and seconds >= 0):
                raise ValueError(f"a sound cannot last {seconds} seconds")
            if sample_rate <= 0:
                raise ValueError(f"a sample rate must be positive, not {sample_rate}")
            length = round(seconds * sample_rate)
            wave = render(rng, max(length, math.ceil(SHORTEST * sample_rate)), sample_rate)
            cut: Array = wave[:length] * (PEAK / np.abs(wave).max())
            return cut.astype(np.float32)

        rendered.__doc__ = render.__doc__
        rendered.__name__ = rendered.__qualname__ = render.__name__
        SOUNDS[label] = rendered
        return rendered

    return register
