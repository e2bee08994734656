"""What a mask could reach at best: the mask is computed from the true target.

It is the Wiener gain |T|^2 / (|T|^2 + |N|^2) per time-frequency bin, with T the target's spectrum and N that of all
interference, on 50-ms frames.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from separation.models.spectra import STFT

Array = NDArray[np.floating[Any]]
TINY = 1e-12


def power(spectrum: Tensor) -> Tensor:
    """Spectrum (channels, bins, frames) to power (bins, frames), summed over channels: one mask serves all of them."""
    return spectrum.abs().square().sum(0)


def wiener(target: Tensor, interference: Tensor) -> Tensor:
    """Powers to the gain between 0 and 1."""
    return target / (target + interference + TINY)


def bin_mask(target: Tensor, mixture: Tensor) -> Tensor:
    """Spectra (channels, bins, frames) to the Wiener mask (bins, frames)."""
    return wiener(power(target), power(mixture - target))


@cache
def transform(sample_rate: int) -> STFT:
    """50-ms windows, 64 frames a second: what the default model has at 32 kHz."""
    return STFT(2 * round(sample_rate / 40), round(sample_rate / 64))


@torch.inference_mode()
def oracle_estimate(target: Array, mixture: Array, sample_rate: int) -> Array:
    """The mixture (time,) through the mask that its target gives."""
    stft = transform(sample_rate)
    spectrum = stft(torch.from_numpy(mixture).float()[None])
    mask = bin_mask(stft(torch.from_numpy(target).float()[None]), spectrum)
    return stft.inverse(mask * spectrum, len(mixture))[0].numpy()
