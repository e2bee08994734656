"""Separation metrics on numpy waveforms (..., time).

Energy ratios are our own; PESQ, STOI and BSS Eval come from the packages of the extra `eval`. `METRICS` lists what
`python -m separation.evaluate --metrics` accepts. SDR and SI-SDR have the floors of the published tables there, so that
every row has a value.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from separation.evaluate.bss3 import BSS3, bss_eval_3

Array = NDArray[np.floating]
CAP_DB = 60.0
PUBLISHED_FLOOR = 1e-10  # of mean squares, in the code that scores USS, AudioSep and DCASE 2024 task 9
PUBLISHED_EPSILON = float(np.finfo(np.float32).eps)  # of sums of squares, in their SI-SDR
SEGMENT_SECONDS, SEGMENT_STEP = 0.03, 0.25
SEGMENT_LOW, SEGMENT_HIGH = -10.0, 35.0
SPEECH_RATE = 16000
ROUNDS = 2000  # of the bootstrap
PACKAGES = {"pesq": "pesq", "stoi": "pystoi"} | dict.fromkeys(("bss_isr", "bss_sir", "bss_sar"), "museval")


class MissingPackage(ImportError):
    """A metric needs a package that is not installed; the text is one sentence for the user."""


# Energy ratios


def decibel(numerator: float, denominator: float) -> float:
    """Return 10 log10 of a ratio of energies: inf if the denominator is zero, else -inf if the numerator is."""
    if denominator == 0:
        return float("inf")
    return float(10 * np.log10(numerator / denominator)) if numerator > 0 else float("-inf")


def energy(wave: Array) -> float:
    """Return the sum of squares of an array or CPU tensor, in double precision."""
    return float(np.square(np.asarray(wave, dtype=np.float64)).sum())


def sdr(reference: Array, estimate: Array, floor: float = 0.0) -> float:
    """Signal-to-distortion ratio, 10 log10(sum r^2 / sum (r - e)^2), in dB.

    Args:
        reference: true target (..., time).
        estimate: separated target, of the same shape.
        floor: smallest mean square of numerator and denominator, so that silence and perfect estimates have a finite
            value; published tables use `PUBLISHED_FLOOR`.
    """
    reference, estimate = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
    least = floor * reference.size
    return decibel(max(energy(reference), least), max(energy(reference - estimate), least))


def sdri(reference: Array, estimate: Array, mixture: Array, floor: float = 0.0) -> float:
    """SDR improvement over the unprocessed mixture, in dB."""
    return sdr(reference, estimate, floor) - sdr(reference, mixture, floor)


def si_sdr(reference: Array, estimate: Array, epsilon: float = 0.0) -> float:
    """Scale-invariant SDR (Le Roux et al., 2019), 10 log10(|a r|^2 / |e - a r|^2) with a = <e, r> / <r, r>, in dB.

    Means are not removed.

    Args:
        reference: true target (..., time).
        estimate: separated target, of the same shape.
        epsilon: added to every sum; published tables use `PUBLISHED_EPSILON`, which gives a silent estimate 0 dB.

    Returns:
        The ratio; NaN if one of the signals is silent and `epsilon` is 0.
    """
    reference, estimate = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
    inner, power = float((reference * estimate).sum()) + epsilon, energy(reference) + epsilon
    if power == 0 or not (epsilon or estimate.any()):
        return float("nan")
    target = inner / power * reference
    return decibel(energy(target) + epsilon, energy(estimate - target) + epsilon)


def si_sdri(reference: Array, estimate: Array, mixture: Array, epsilon: float = 0.0) -> float:
    """SI-SDR improvement over the unprocessed mixture, in dB."""
    return si_sdr(reference, estimate, epsilon) - si_sdr(reference, mixture, epsilon)


def snr(reference: Array, estimate: Array, zero_mean: bool = False) -> float:
    """Signal-to-noise ratio: `sdr` under its name in speech enhancement, optionally after removing the means."""
    reference, estimate = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
    if zero_mean:
        reference, estimate = (wave - wave.mean(axis=-1, keepdims=True) for wave in (reference, estimate))
    return sdr(reference, estimate)


def segmental_snr(reference: Array, estimate: Array, sample_rate: int) -> float:
    """Mean SNR of 30-ms Hann frames, each limited to -10 to 35 dB (Hansen and Pellom, 1998).

    The hop is a quarter of a frame; the last frame is left out, as in the common implementations. Clean and enhanced
    speech are (time,); ValueError if that is less than two frames.
    """
    length, step = round(SEGMENT_SECONDS * sample_rate), int(SEGMENT_STEP * SEGMENT_SECONDS * sample_rate)
    if reference.shape[-1] < length + step:
        raise ValueError(f"Segmental SNR needs at least {(length + step) / sample_rate:.3f} s of sound.")
    window = np.hanning(length + 2)[1:-1]  # without the zeros at both ends

    def frame_energies(wave: Array) -> Array:
        frames = np.lib.stride_tricks.sliding_window_view(wave, length)[::step][:-1]
        return np.square(frames * window).sum(axis=-1)

    tiny = np.finfo(np.float64).eps
    reference, estimate = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
    ratios = frame_energies(reference) / (frame_energies(reference - estimate) + tiny) + tiny
    return float(np.clip(10 * np.log10(ratios), SEGMENT_LOW, SEGMENT_HIGH).mean())


def suppression(mixture: Array, estimate: Array) -> float:
    """Level of the output below the mixture, 10 log10(E_mixture / E_output), at most 60 dB: for absent queries."""
    return min(CAP_DB, decibel(energy(mixture), energy(estimate)))


def windowed_sdr(reference: Array, estimate: Array, window: int | None = None) -> Array:
    """SDR of BSS Eval version 4 for one source: the plain ratio in each window, which needs no filters.

    Args:
        reference: true source (..., time).
        estimate: separated source, of the same shape.
        window: samples per window; None: the whole signal. A shorter last window is left out.

    Returns:
        (windows,) values in dB; NaN in windows where one of the signals is silent.
    """
    length = reference.shape[-1]
    window = length if window is None else min(window, length)
    found = []
    for start in range(0, length - window + 1, max(1, window)):
        true, guess = reference[..., start : start + window], estimate[..., start : start + window]
        found.append(sdr(true, guess) if true.any() and guess.any() else float("nan"))
    return np.array(found)


# Metrics of other packages


def import_package(name: str, metric: str) -> Any:
    """Import the package of a metric; raise MissingPackage if it is not installed."""
    package = find_spec(name)
    if package is None or package.origin is None:
        why = f"{metric} needs the package {name}: pip install {name}, or pip install 'separation[eval]'."
        raise MissingPackage(why)
    if name != "museval":
        return import_module(name)
    # Only its file with the metrics: importing the package raises where no ffmpeg program is installed.
    if "museval_metrics" not in sys.modules:
        spec = spec_from_file_location("museval_metrics", Path(package.origin).with_name("metrics.py"))
        assert spec is not None and spec.loader is not None
        sys.modules["museval_metrics"] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules["museval_metrics"])
    return sys.modules["museval_metrics"]


@dataclass(frozen=True)
class BSS:
    """BSS Eval ratios in dB, (sources, windows); NaN in windows where a source or an estimate is silent."""

    sdr: Array
    isr: Array
    sir: Array
    sar: Array


def bss_eval(references: Array, estimates: Array, window: int | None = None, hop: int | None = None) -> BSS:
    """BSS Eval version 4 (Stoeter, Liutkus and Ito, 2018) as implemented by museval, without permutation.

    The estimate is projected by least squares on delayed copies (0 to 511 samples) of the true target, and on those of
    all true sources. With s the true target, P_s and P the two projections:

        e_spat = P_s(e) - s        e_interf = P(e) - P_s(e)        e_artif = e - P(e)

        SDR = |s|^2 / |e - s|^2                    ISR = |s|^2 / |e_spat|^2
        SIR = |s + e_spat|^2 / |e_interf|^2        SAR = |s + e_spat + e_interf|^2 / |e_artif|^2

    Args:
        references: true sources (sources, time) or (sources, channels, time).
        estimates: separated sources in the order of the references, of the same shape.
        window: samples per window; None: the whole signal.
        hop: samples between windows; None: `window`.

    Raises:
        ValueError: the shapes differ, or are not as described.
        MissingPackage: museval is not installed.
    """
    if references.shape != estimates.shape or references.ndim not in (2, 3):
        raise ValueError(f"References have the shape {references.shape}, estimates {estimates.shape}.")
    museval = import_package("museval", "BSS Eval")
    sources, *_, length = references.shape
    window = length if window is None else min(window, length)
    hop = hop or window
    if not all(source.any() for source in (*references, *estimates)):  # refused by museval
        return BSS(*np.full((4, sources, 1 + (length - window) // hop), np.nan))
    waves = (np.moveaxis(w, 1, 2) if w.ndim == 3 else w[..., None] for w in (references, estimates))
    return BSS(*museval.bss_eval(*waves, window, hop)[:4])


def resample_speech(wave: Array, sample_rate: int) -> Array:
    """Resample (time,) to 16 kHz."""
    import soxr

    return wave if sample_rate == SPEECH_RATE else soxr.resample(wave, sample_rate, SPEECH_RATE)


def pesq(reference: Array, estimate: Array, sample_rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2), 1 to 4.64, of clean and enhanced speech (time,); NaN if no utterance is found.

    Other rates than 16 kHz are resampled. Raises MissingPackage if the package `pesq` is not installed.
    """
    package = import_package("pesq", "PESQ")
    waves = (resample_speech(wave, sample_rate) for wave in (reference, estimate))
    reference, estimate = (np.asarray(wave, dtype=np.float32) for wave in waves)
    if not reference.any() or not estimate.any():  # the package would divide by zero
        return float("nan")
    try:
        return float(package.pesq(SPEECH_RATE, reference, estimate, "wb"))
    except (package.NoUtterancesError, package.BufferTooShortError):
        return float("nan")


def stoi(reference: Array, estimate: Array, sample_rate: int, extended: bool = False) -> float:
    """Short-time objective intelligibility (Taal et al., 2011), 0 to 1, of clean and enhanced speech (time,).

    NaN if too little speech is left. `extended` is ESTOI (Jensen and Taal, 2016). Raises MissingPackage if the package
    `pystoi` is not installed.
    """
    package = import_package("pystoi", "STOI")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # the package warns if fewer than 30 frames are left
        try:
            return float(package.stoi(reference, estimate, sample_rate, extended=extended))
        except (RuntimeWarning, ValueError):  # without any frame it fails on an empty array
            return float("nan")


# Metrics of a row, by name


@dataclass
class Signals:
    """Waveforms (time,) of one row and one system: true target, input, separated target, estimate of everything else.

    `window` is the length in samples of BSS Eval's windows, over which a row's value is the median; None: one window.
    """

    target: Array
    mixture: Array
    estimate: Array
    rest: Array
    sample_rate: int
    window: int | None = None

    @cached_property
    def bss(self) -> BSS:
        """BSS Eval of the target and everything else."""
        references = np.stack([self.target, self.mixture - self.target])
        return bss_eval(references, np.stack([self.estimate, self.rest]), self.window)

    @cached_property
    def bss3(self) -> BSS3:
        """BSS Eval version 3 of the target among itself and everything else, over the whole signal."""
        return bss_eval_3(np.stack([self.target, self.mixture - self.target]), self.estimate)


def finite_median(values: Array) -> float:
    """Return the median without NaN; NaN if nothing is left."""
    numbers = values[~np.isnan(values)]
    return float(np.median(numbers)) if len(numbers) else float("nan")


def bss_sdr(signals: Signals, improvement: bool = False, swapped: bool = False) -> float:
    """Return BSS Eval's SDR of the target, or its improvement over the mixture; NaN if that of the mixture is infinite.

    `swapped` passes estimate and reference in the wrong order, as USS does with museval for MUSDB18, for comparison
    with its published figures only.
    """
    first, second = (signals.estimate, signals.target) if swapped else (signals.target, signals.estimate)
    value = finite_median(windowed_sdr(first, second, signals.window))
    if not improvement:
        return value
    before = finite_median(windowed_sdr(first, signals.mixture, signals.window))
    return value - before if np.isfinite(before) else float("nan")


def segmental_snr_16k(signals: Signals) -> float:
    """Segmental SNR at 16 kHz, like PESQ; NaN if the signals are too short."""
    target, estimate = (resample_speech(wave, signals.sample_rate) for wave in (signals.target, signals.estimate))
    try:
        return segmental_snr(target, estimate, SPEECH_RATE)
    except ValueError:
        return float("nan")


@dataclass(frozen=True)
class Metric:
    """A metric: its heading in tables and its function of a row's signals."""

    heading: str
    compute: Callable[[Signals], float]


METRICS = {
    "sdr": Metric("SDR", lambda s: sdr(s.target, s.estimate, PUBLISHED_FLOOR)),
    "sdri": Metric("SDRi", lambda s: sdri(s.target, s.estimate, s.mixture, PUBLISHED_FLOOR)),
    "si_sdr": Metric("SI-SDR", lambda s: si_sdr(s.target, s.estimate, PUBLISHED_EPSILON)),
    "si_sdri": Metric("SI-SDRi", lambda s: si_sdri(s.target, s.estimate, s.mixture, PUBLISHED_EPSILON)),
    "snr": Metric("SNR, means removed", lambda s: snr(s.target, s.estimate, zero_mean=True)),
    "segmental_snr": Metric("segmental SNR", segmental_snr_16k),
    "pesq": Metric("PESQ", lambda s: pesq(s.target, s.estimate, s.sample_rate)),
    "stoi": Metric("STOI", lambda s: stoi(s.target, s.estimate, s.sample_rate)),
    "bss_sdr": Metric("BSS SDR", bss_sdr),
    "bss_sdri": Metric("BSS SDRi", partial(bss_sdr, improvement=True)),
    "bss_isr": Metric("BSS ISR", lambda s: finite_median(s.bss.isr[0])),
    "bss_sir": Metric("BSS SIR", lambda s: finite_median(s.bss.sir[0])),
    "bss_sar": Metric("BSS SAR", lambda s: finite_median(s.bss.sar[0])),
    "bss3_sdr": Metric("BSS v3 SDR", lambda s: s.bss3.sdr),
    "bss3_sdri": Metric("BSS v3 SDRi", lambda s: s.bss3.sdr - replace(s, estimate=s.mixture).bss3.sdr),
    "bss3_sir": Metric("BSS v3 SIR", lambda s: s.bss3.sir),
    "bss3_sar": Metric("BSS v3 SAR", lambda s: s.bss3.sar),
    "bss_sdr_swapped": Metric("BSS SDR, swapped as in USS", partial(bss_sdr, swapped=True)),
    "bss_sdri_swapped": Metric("BSS SDRi, swapped as in USS", partial(bss_sdr, improvement=True, swapped=True)),
}
SUPPRESSION = "suppression"  # the only metric of absent queries
DEFAULT_METRICS = ("sdr", "sdri", "si_sdr")


def is_installed(metric: str) -> bool:
    """Return whether the package that a metric needs is installed."""
    return metric not in PACKAGES or find_spec(PACKAGES[metric]) is not None


# Confidence


def bootstrap(values: Array, groups: list[str]) -> tuple[float, float]:
    """Return the 95 % interval of the mean by resampling groups (recordings), whose rows are not independent."""
    names = sorted(set(groups))
    number = {name: place for place, name in enumerate(names)}
    index = np.array([number[group] for group in groups])
    sums = np.bincount(index, weights=values, minlength=len(names))
    counts = np.bincount(index, minlength=len(names))
    chosen = np.random.default_rng(0).integers(len(names), size=(ROUNDS, len(names)))
    low, high = np.quantile(sums[chosen].sum(1) / counts[chosen].sum(1), [0.025, 0.975])
    return float(low), float(high)
