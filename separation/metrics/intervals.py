"""How sure a mean is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def bootstrap(values: Array, groups: list[str], rounds: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean, resampling whole groups (recordings), because their rows are not independent."""
    names = sorted(set(groups))
    number = {name: place for place, name in enumerate(names)}
    index = np.array([number[group] for group in groups])
    sums = np.bincount(index, weights=values, minlength=len(names))
    counts = np.bincount(index, minlength=len(names))
    drawn = np.random.default_rng(seed).integers(len(names), size=(rounds, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
