"""BSS Eval: an estimate split into target, distortion of the target, interference and artefacts.

The estimate is projected by least squares on delayed copies (0 to 511 samples) of the true target, and on those of all
true sources. With s the true target, P_s and P the two projections:

    e_spat = P_s(e) - s        e_interf = P(e) - P_s(e)        e_artif = e - P(e)

    SDR = |s|^2 / |e - s|^2                    ISR = |s|^2 / |e_spat|^2
    SIR = |s + e_spat|^2 / |e_interf|^2        SAR = |s + e_spat + e_interf|^2 / |e_artif|^2

That is version 4 (Stoeter, Liutkus and Ito, 2018), which finds the filters once on the whole signal and the ratios per
window. The older `sources` version (Vincent, Gribonval and Fevotte, 2006) forgives filtering: there s is P_s(e).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from separation.metrics.ratios import decibel, energy

Array = NDArray[np.floating]
FILTER_LENGTH = 512


@dataclass(frozen=True)
class BSS:
    """Ratios in dB, (sources, windows); NaN in windows where a source or an estimate is silent."""

    sdr: Array
    isr: Array
    sir: Array
    sar: Array


@dataclass(frozen=True)
class References:
    """True sources (sources, channels, time), their spectra and the Gram matrix of their delayed copies."""

    waves: Array
    spectra: NDArray[np.complexfloating]
    gram: Array
    n_fft: int


def bss_eval(
    references: Array,
    estimates: Array,
    window: int | None = None,
    hop: int | None = None,
    sources_version: bool = False,
    filter_length: int = FILTER_LENGTH,
) -> BSS:
    """SDR, ISR, SIR and SAR of estimates in the order of their references (no permutation is sought).

    Args:
        references: true sources, (sources, time) or (sources, channels, time).
        estimates: of the same shape.
        window: samples per window; None is the whole signal.
        hop: samples between windows; None is `window`.
        sources_version: forgive filtering of the target, as `bss_eval_sources` did; ISR is NaN then.
        filter_length: samples that the filters reach.

    Raises:
        ValueError: the shapes differ or are of another kind.
    """
    references, estimates = as_sources(references), as_sources(estimates)
    if references.shape != estimates.shape:
        raise ValueError(f"References have the shape {references.shape}, estimates {estimates.shape}.")
    cuts = windows(references.shape[-1], window, hop)
    found = np.full((4, len(references), len(cuts)), np.nan)
    sounding = [k for k, cut in enumerate(cuts) if not (silent(references[..., cut]) or silent(estimates[..., cut]))]
    if sounding:
        known = gram_of(references, filter_length)
        for j, estimate in enumerate(estimates):
            own = solve(known, estimate, filter_length, j)
            everything = solve(known, estimate, filter_length)
            for k in sounding:
                cut = cuts[k]
                by_target = project(references[j : j + 1, :, cut], own)
                by_all = project(references[..., cut], everything)
                parts = references[j][:, cut], estimate[:, cut], by_target, by_all
                found[:, j, k] = ratios(*parts, sources_version)
    return BSS(*found)


def as_sources(waves: Array) -> Array:
    """(sources, time) or (sources, channels, time) to (sources, channels, time) in double precision."""
    waves = np.asarray(waves, dtype=np.float64)
    if waves.ndim not in (2, 3) or not waves.size:
        raise ValueError(f"Sources have the shape (sources, channels, time), not {waves.shape}.")
    return waves[:, None] if waves.ndim == 2 else waves


def windows(length: int, window: int | None, hop: int | None) -> list[slice]:
    """The windows of a signal; a last one that would be shorter is left out."""
    if window is None or window >= length:
        return [slice(0, length)]
    hop = hop or window
    return [slice(start, start + window) for start in range(0, length - window + 1, hop)]


def silent(waves: Array) -> bool:
    """Whether one of the sources (sources, channels, time) is zero throughout."""
    return bool((~waves.any(axis=(1, 2))).any())


def gram_of(waves: Array, filter_length: int) -> References:
    """Inner products of all delayed copies of all channels of all sources, by correlation."""
    sources, channels, length = waves.shape
    n_fft = 1 << (length + filter_length - 2).bit_length()
    spectra = np.fft.rfft(waves.reshape(sources * channels, length), n_fft)
    lags = np.arange(filter_length)
    difference = lags[:, None] - lags[None, :]
    signals = len(spectra)
    gram = np.empty((signals, filter_length, signals, filter_length))
    for a in range(signals):
        for b in range(a + 1):
            # sum_t x_a(t - p) x_b(t - q) depends on p - q alone.
            correlation = np.fft.irfft(np.conj(spectra[a]) * spectra[b], n_fft)
            gram[a, :, b, :] = correlation[difference]
            gram[b, :, a, :] = gram[a, :, b, :].T
    return References(waves, spectra, gram, n_fft)


def solve(known: References, estimate: Array, filter_length: int, source: int | None = None) -> Array:
    """Filters (signals, filter_length, channels) from the sources' channels, or one source's, to the estimate's."""
    channels = known.waves.shape[1]
    chosen = slice(None) if source is None else slice(source * channels, (source + 1) * channels)
    spectra = known.spectra[chosen]
    gram = known.gram[chosen, :, chosen].reshape(len(spectra) * filter_length, -1)
    seen = np.fft.rfft(estimate, known.n_fft)
    cross = np.fft.irfft(np.conj(spectra)[:, None] * seen[None], known.n_fft)[..., :filter_length]
    right = np.moveaxis(cross, 1, 2).reshape(len(gram), len(estimate))
    try:
        filters = np.linalg.solve(gram + np.finfo(float).eps * np.eye(len(gram)), right)
    except np.linalg.LinAlgError:
        filters = np.linalg.lstsq(gram, right, rcond=None)[0]
    return filters.reshape(len(spectra), filter_length, len(estimate))


def project(waves: Array, filters: Array) -> Array:
    """Sources (sources, channels, time) through filters, summed: (channels, time + filter_length - 1)."""
    signals = waves.reshape(len(filters), -1)
    length = signals.shape[1] + filters.shape[1] - 1
    n_fft = 1 << (length - 1).bit_length()
    spectra = np.fft.rfft(signals, n_fft)[:, :, None] * np.fft.rfft(filters, n_fft, axis=1)
    return np.fft.irfft(spectra.sum(axis=0), n_fft, axis=0)[:length].T


def ratios(reference: Array, estimate: Array, by_target: Array, by_all: Array, sources_version: bool) -> list[float]:
    """SDR, ISR, SIR, SAR of one estimate (channels, time) and its two projections."""
    more = ((0, 0), (0, by_all.shape[1] - reference.shape[1]))
    reference, estimate = np.pad(reference, more), np.pad(estimate, more)
    interference, artefacts = energy(by_all - by_target), energy(estimate - by_all)
    sir = decibel(energy(by_target), interference)
    sar = decibel(energy(by_all), artefacts)
    if sources_version:
        return [decibel(energy(by_target), energy(estimate - by_target)), float("nan"), sir, sar]
    distortion = energy(by_target - reference)
    return [decibel(energy(reference), energy(estimate - reference)), decibel(energy(reference), distortion), sir, sar]


def windowed_sdr(reference: Array, estimate: Array, window: int | None = None, hop: int | None = None) -> Array:
    """The SDR of `bss_eval` alone, (windows,), of one source (time,) or (channels, time): it needs no filters."""
    found = []
    for cut in windows(reference.shape[-1], window, hop):
        true, guess = reference[..., cut], estimate[..., cut]
        error = energy(np.subtract(true, guess, dtype=np.float64))
        found.append(decibel(energy(true), error) if true.any() and guess.any() else float("nan"))
    return np.array(found)
