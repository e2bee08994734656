"""BSS Eval version 3 (Vincent, Gribonval and Fevotte, 2006): one filter of 512 taps over the whole signal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TAPS = 512


class BSS3(NamedTuple):
    """Ratios of one source in dB; NaN if a source or the estimate is silent."""

    sdr: float
    sir: float
    sar: float


def bss_eval_3(references: NDArray[np.floating], estimate: NDArray[np.floating]) -> BSS3:
    """Score the estimate of the first source.

    The estimate is projected by least squares on delayed copies (0 to 511 samples) of its true source, P_s, and on
    those of all true sources, P. Unlike in version 4, the filtered source counts as target:

        SDR = |P_s e|^2 / |e - P_s e|^2    SIR = |P_s e|^2 / |P e - P_s e|^2    SAR = |P e|^2 / |e - P e|^2

    Args:
        references: true sources (sources, time).
        estimate: (time,).
    """
    if not estimate.any() or not all(each.any() for each in references):
        return BSS3(np.nan, np.nan, np.nan)
    length = len(estimate) + TAPS - 1
    size = 1 << (length + TAPS).bit_length()
    spectra = np.fft.rfft(references.astype(np.float64), size)
    spectrum = np.fft.rfft(estimate.astype(np.float64), size)
    lags = np.subtract.outer(np.arange(TAPS), np.arange(TAPS))
    padded = np.pad(estimate.astype(np.float64), (0, TAPS - 1))

    def project(chosen: NDArray[np.complexfloating]) -> NDArray[np.floating]:
        """Project the estimate on delayed copies of sources, given by their spectra (sources, bins): (time,)."""
        gram = np.block([[np.fft.irfft(a.conj() * b, size)[lags] for b in chosen] for a in chosen])
        products = np.concatenate([np.fft.irfft(a.conj() * spectrum, size)[:TAPS] for a in chosen])
        try:
            filters = np.linalg.solve(gram, products)
        except np.linalg.LinAlgError:
            filters = np.linalg.lstsq(gram, products, rcond=None)[0]
        return np.fft.irfft((np.fft.rfft(filters.reshape(len(chosen), TAPS), size) * chosen).sum(0), size)[:length]

    target, everything = project(spectra[:1]), project(spectra)

    def ratio(signal: NDArray[np.floating], error: NDArray[np.floating]) -> float:
        with np.errstate(divide="ignore"):
            return float(10 * np.log10(np.square(signal).sum() / np.square(error).sum()))

    return BSS3(
        ratio(target, padded - target), ratio(target, everything - target), ratio(everything, padded - everything)
    )
