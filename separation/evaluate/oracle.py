"""Oracle mask: an upper bound for masking, computed from the true target.

The mask is the Wiener gain |T|^2 / (|T|^2 + |N|^2) per time-frequency bin, with T the spectrum of the target and N that
of all interference, on 50-ms frames.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from separation.models.spectra import STFT

Array = NDArray[np.floating]
TINY = 1e-12


def wiener(target: Tensor, interference: Tensor) -> Tensor:
    """Return the gain between 0 and 1 of two powers."""
    return target / (target + interference + TINY)


def power(spectrum: Tensor) -> Tensor:
    """Sum the power of a spectrum (channels, bins, frames) over channels, which share a mask: (bins, frames)."""
    return spectrum.abs().square().sum(0)


@cache
def transform(sample_rate: int) -> STFT:
    """50-ms windows, 64 frames a second, as in the default model at 32 kHz."""
    return STFT(2 * round(sample_rate / 40), round(sample_rate / 64))


@torch.inference_mode()
def oracle_estimate(target: Array, mixture: Array, sample_rate: int) -> Array:
    """Filter the mixture (time,) by the Wiener mask of its target (time,)."""
    stft = transform(sample_rate)
    clean, spectrum = (stft(torch.from_numpy(wave).float()[None]) for wave in (target, mixture))
    mask = wiener(power(clean), power(spectrum - clean))
    return stft.inverse(mask * spectrum, len(mixture))[0].numpy()
