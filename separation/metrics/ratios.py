"""Ratios of energies in dB, on waveforms (..., time): numpy arrays, or tensors on the CPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
CAP_DB = 60.0
PUBLISHED_FLOOR = 1e-10  # of mean squares, in the code that USS, AudioSep and DCASE 2024 task 9 are scored with
PUBLISHED_EPSILON = float(np.finfo(np.float32).eps)  # of sums of squares, in their SI-SDR
SEGMENT_SECONDS, SEGMENT_STEP = 0.03, 0.25
SEGMENT_LOW, SEGMENT_HIGH = -10.0, 35.0


def decibel(numerator: float, denominator: float) -> float:
    """10 log10 of a ratio of energies; infinite where one of them is zero."""
    if denominator == 0:
        return float("inf")
    return float(10 * np.log10(numerator / denominator)) if numerator > 0 else float("-inf")


def double(wave: Array) -> Array:
    """A waveform in double precision, from whatever holds it."""
    return np.asarray(wave, dtype=np.float64)


def energy(wave: Array) -> float:
    """Sum of squares, in double precision."""
    return float(np.square(double(wave)).sum())


def sdr(reference: Array, estimate: Array, floor: float = 0.0) -> float:
    """Signal-to-distortion ratio: 10 log10(sum r^2 / sum (r - e)^2).

    Args:
        reference: the true target.
        estimate: what was separated.
        floor: least mean square of either, so that silence and perfect estimates have a figure; published tables
            (USS, AudioSep, DCASE 2024 task 9) have PUBLISHED_FLOOR.
    """
    least = floor * double(reference).size
    error = energy(double(reference) - double(estimate))
    return decibel(max(energy(reference), least), max(error, least))


def sdri(reference: Array, estimate: Array, mixture: Array, floor: float = 0.0) -> float:
    """SDR improvement: what the estimate gains over the mixture itself."""
    return sdr(reference, estimate, floor) - sdr(reference, mixture, floor)


def si_sdr(reference: Array, estimate: Array, epsilon: float = 0.0) -> float:
    """Scale-invariant SDR (Le Roux et al., 2019): 10 log10(|a r|^2 / |e - a r|^2) with a = <e, r> / <r, r>.

    The means are not removed.

    Args:
        reference: the true target.
        estimate: what was separated.
        epsilon: added to every sum; published tables have PUBLISHED_EPSILON, which gives a silent estimate 0 dB.

    Returns:
        dB; NaN where one of the two is silent and `epsilon` is 0.
    """
    reference, estimate = double(reference), double(estimate)
    inner, power = float((reference * estimate).sum()) + epsilon, energy(reference) + epsilon
    if power == 0 or not (epsilon or estimate.any()):
        return float("nan")
    target = inner / power * reference
    return decibel(energy(target) + epsilon, energy(estimate - target) + epsilon)


def si_sdri(reference: Array, estimate: Array, mixture: Array, epsilon: float = 0.0) -> float:
    """SI-SDR improvement: what the estimate gains over the mixture itself."""
    return si_sdr(reference, estimate, epsilon) - si_sdr(reference, mixture, epsilon)


def snr(reference: Array, estimate: Array, zero_mean: bool = False) -> float:
    """Signal-to-noise ratio of an estimate: `sdr` as speech enhancement calls it, on request without the means."""
    if zero_mean:
        reference, estimate = (w - w.mean(axis=-1, keepdims=True) for w in map(double, (reference, estimate)))
    return sdr(reference, estimate)


def segmental_snr(reference: Array, estimate: Array, sample_rate: int) -> float:
    """Mean over 30-ms frames of their SNR, each kept between -10 and 35 dB (Hansen and Pellom, 1998).

    Hann windows, a quarter of a frame apart; the last frame is left out, as in the common implementations.

    Args:
        reference: clean speech (time,).
        estimate: enhanced speech (time,).
        sample_rate: Hz.

    Raises:
        ValueError: there are fewer than two frames.
    """
    length, step = round(SEGMENT_SECONDS * sample_rate), int(SEGMENT_STEP * SEGMENT_SECONDS * sample_rate)
    if reference.shape[-1] < length + step:
        raise ValueError(f"Segmental SNR needs {(length + step) / sample_rate:.3f} s of sound or more.")
    window = np.hanning(length + 2)[1:-1]  # the ends that are zero are not part of it

    def energies(wave: Array) -> Array:
        frames = np.lib.stride_tricks.sliding_window_view(wave, length)[::step][:-1]
        return np.square(frames * window).sum(axis=-1)

    tiny = np.finfo(np.float64).eps
    reference, estimate = double(reference), double(estimate)
    ratios = energies(reference) / (energies(reference - estimate) + tiny) + tiny
    return float(np.clip(10 * np.log10(ratios), SEGMENT_LOW, SEGMENT_HIGH).mean())


def suppression(mixture: Array, estimate: Array) -> float:
    """How far the output lies under the mixture, 10 log10(E_mixture / E_output), at most 60 dB: for absent queries."""
    return min(CAP_DB, decibel(energy(mixture), energy(estimate)))
