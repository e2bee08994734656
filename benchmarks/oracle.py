"""Oracle masks: computed from the true target, everything else as in the model.

The bin mask is the Wiener gain |T|^2 / (|T|^2 + |N|^2) per time-frequency bin, with T the
target's spectrum and N that of all interference. The band masks have one value per band and frame, interpolated to the
bins as the model does it: the Wiener gain of the band's powers, and the complex gain of least squared error in the
band, at most 1, which is the ceiling of a model that estimates magnitude and phase.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from separation.evaluate.metrics import sdri
from separation.evaluate.oracle import TINY, bin_mask, power, wiener
from separation.models.spectra import STFT

Array = NDArray[np.floating[Any]]
Estimate = Callable[[Tensor, Tensor], Tensor]


def band_mask(target: Tensor, mixture: Tensor, to_bins: Tensor, to_bands: Tensor) -> Tensor:
    """Return the Wiener mask of bands, interpolated to (bins, frames), of spectra (channels, bins, frames)."""
    return to_bins @ wiener(to_bands @ power(target), to_bands @ power(mixture - target))


def complex_band_mask(target: Tensor, mixture: Tensor, to_bins: Tensor, to_bands: Tensor) -> Tensor:
    """Return the least-squares complex mask of bands, interpolated to (bins, frames)."""
    cross = (target * mixture.conj()).sum(0)
    gain = (to_bands.to(cross.dtype) @ cross) / (to_bands @ power(mixture) + TINY)
    return to_bins.to(cross.dtype) @ (gain / gain.abs().clamp(min=1))


def masks(to_bins: Tensor, to_bands: Tensor) -> dict[str, Estimate]:
    """Return the oracle masks by their names in tables; each takes the spectra of target and mixture.

    Args:
        to_bins: the model's interpolation from bands to bins (bins, bands).
        to_bands: its mean over each band's bins (bands, bins).
    """
    return {
        "oracle mask, bins": bin_mask,
        "oracle mask, bands": lambda target, mixture: band_mask(target, mixture, to_bins, to_bands),
        "oracle mask, bands, complex": lambda target, mixture: complex_band_mask(target, mixture, to_bins, to_bands),
    }


@torch.inference_mode()
def oracle_sdri(target: Array, mixture: Array, stft: STFT, kinds: dict[str, Estimate]) -> dict[str, float]:
    """Return the SDRi of each mask in dB, for a target and a mixture (time,) or (channels, time)."""
    wave = torch.from_numpy(np.atleast_2d(mixture)).float()
    target_spectrum, spectrum = stft(torch.from_numpy(np.atleast_2d(target)).float()), stft(wave)
    scores = {}
    for name, mask in kinds.items():
        estimate = stft.inverse(mask(target_spectrum, spectrum) * spectrum, wave.shape[-1]).numpy()
        scores[name] = sdri(np.atleast_2d(target), estimate, np.atleast_2d(mixture))
    return scores
