"""Separation scores in dB, on numpy waveforms (..., time)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
CAP_DB = 60.0


def decibel(numerator: float, denominator: float) -> float:
    """10 log10 of a ratio of energies; infinite where one of them is zero."""
    if denominator == 0:
        return float("inf")
    return float(10 * np.log10(numerator / denominator)) if numerator > 0 else float("-inf")


def energy(wave: Array) -> float:
    """Sum of squares, in double precision."""
    return float(np.square(wave, dtype=np.float64).sum())


def sdr(reference: Array, estimate: Array) -> float:
    """Signal-to-distortion ratio: 10 log10(sum r^2 / sum (r - e)^2)."""
    return decibel(energy(reference), energy(np.subtract(reference, estimate, dtype=np.float64)))


def sdri(reference: Array, estimate: Array, mixture: Array) -> float:
    """SDR improvement: what the estimate gains over the mixture itself."""
    return sdr(reference, estimate) - sdr(reference, mixture)


def suppression(mixture: Array, estimate: Array) -> float:
    """How far the output lies under the mixture, 10 log10(E_mixture / E_output), at most 60 dB: for absent queries."""
    return min(CAP_DB, decibel(energy(mixture), energy(estimate)))


def bootstrap(values: Array, groups: list[str], rounds: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean, resampling whole groups (recordings), because their rows are not independent."""
    names = sorted(set(groups))
    index = np.array([names.index(group) for group in groups])
    sums = np.bincount(index, weights=values, minlength=len(names))
    counts = np.bincount(index, minlength=len(names))
    drawn = np.random.default_rng(seed).integers(len(names), size=(rounds, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
