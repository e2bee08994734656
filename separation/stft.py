"""Short-time Fourier transform with an exact inverse, and the band axis that the default model works on.

Frame ``k`` is centred on sample ``k * hop``; what lies outside the signal counts as zero. With a Hann window and
``hop <= n_fft / 2`` the windows' squares never vanish together, so the inverse is exact for every length.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class STFT(nn.Module):
    """STFT of waveforms and its inverse.

    Args:
        n_fft: window and transform length in samples.
        hop: distance between frames in samples.
        frame_multiple: the number of frames is rounded up to a multiple of this, so that a network can halve it.
    """

    window: Tensor

    def __init__(self, n_fft: int, hop: int, frame_multiple: int = 1) -> None:
        super().__init__()
        self.n_fft, self.hop, self.frame_multiple = n_fft, hop, frame_multiple
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def frames(self, length: int) -> int:
        """Number of frames for a signal of `length` samples."""
        needed = max(1, -(-length // self.hop)) + 1
        return -(-needed // self.frame_multiple) * self.frame_multiple

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform (..., time) to complex spectrum (..., frequency, frames)."""
        length = waveform.shape[-1]
        padded = F.pad(waveform, (0, (self.frames(length) - 1) * self.hop - length))
        spectrum = torch.stft(
            padded.reshape(-1, padded.shape[-1]),
            self.n_fft,
            self.hop,
            window=self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return spectrum.reshape(*waveform.shape[:-1], *spectrum.shape[-2:])

    def inverse(self, spectrum: Tensor, length: int) -> Tensor:
        """Complex spectrum (..., frequency, frames) back to a waveform (..., time) of `length` samples."""
        frames = spectrum.reshape(-1, *spectrum.shape[-2:])
        full = (spectrum.shape[-1] - 1) * self.hop
        waveform = torch.istft(frames, self.n_fft, self.hop, window=self.window, center=True, length=full)
        return waveform[:, :length].reshape(*spectrum.shape[:-2], length)


def band_centres(bands: int, bins: int, linear: int) -> np.ndarray:
    """Band centres in bins: the first `linear` are bins themselves, the others grow wider by a constant factor.

    The factor q solves q + q^2 + ... + q^n = bins - linear with n = bands - linear, so the last centre is the last bin.
    """
    wide = bands - linear
    powers = np.arange(1, wide + 1)
    low, high = 1.0, 2.0
    for _ in range(100):
        factor = (low + high) / 2
        low, high = (low, factor) if (factor**powers).sum() > bins - linear else (factor, high)
    return np.concatenate([np.arange(linear), linear - 1 + np.cumsum(low**powers)])


def band_matrix(bands: int, bins: int, linear: int) -> Tensor:
    """Linear interpolation from bands to bins, (bins, bands); each row sums to one."""
    centres = band_centres(bands, bins, linear)
    frequency = np.arange(bins)
    left = np.clip(np.searchsorted(centres, frequency, side="right") - 1, 0, bands - 2)
    weight = np.clip((frequency - centres[left]) / (centres[left + 1] - centres[left]), 0.0, 1.0)
    matrix = np.zeros((bins, bands), dtype=np.float32)
    matrix[frequency, left] = 1.0 - weight
    matrix[frequency, left + 1] += weight
    return torch.from_numpy(matrix)
