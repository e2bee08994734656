"""The log-mel spectrogram that PANNs and CLAP see: Slaney's scale, decibels with a floor of -100."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Slaney's mel scale is linear up to 1 kHz (15 mel) and logarithmic above, 27 steps to a factor of 6.4.
LINEAR_HERTZ, BREAK_MEL, STEP = 200 / 3, 15.0, math.log(6.4) / 27
FLOOR = 1e-10


def hertz_to_mel(hertz: Tensor) -> Tensor:
    """Frequency in Hz on Slaney's scale."""
    linear = hertz / LINEAR_HERTZ
    return torch.where(
        linear < BREAK_MEL, linear, BREAK_MEL + torch.log(linear.clamp_min(BREAK_MEL) / BREAK_MEL) / STEP
    )


def mel_to_hertz(mel: Tensor) -> Tensor:
    """The inverse of `hertz_to_mel`."""
    linear = mel.clamp_max(BREAK_MEL) * LINEAR_HERTZ
    return linear * torch.exp((mel - BREAK_MEL).clamp_min(0) * STEP)


def slaney_filters(sample_rate: int, n_fft: int, mels: int, low: float, high: float) -> Tensor:
    """Triangular filters (n_fft / 2 + 1, mels), each of unit area over Hz."""
    ends = hertz_to_mel(torch.tensor([low, high], dtype=torch.float64))
    edges = mel_to_hertz(torch.linspace(float(ends[0]), float(ends[1]), mels + 2, dtype=torch.float64))
    frequency = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rise, fall).clamp_min(0)
    return (triangles * (2 / (edges[2:] - edges[:-2]))).float()


class LogMel(nn.Module):
    """Waveform (batch, time) to decibels (batch, 1, frames, mels), frames = time // hop + 1.

    Args:
        sample_rate: Hz.
        n_fft: window (periodic Hann) and transform length.
        hop: samples a frame.
        mels: bands.
        low: lower edge of the first band, Hz.
        high: upper edge of the last band, Hz.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int, n_fft: int, hop: int, mels: int, low: float, high: float) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filters", slaney_filters(sample_rate, n_fft, mels, low, high), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        spectrum = torch.stft(
            waveform, self.n_fft, self.hop, window=self.window, pad_mode="reflect", return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()  # (batch, bins, frames)
        return 10 * torch.log10((power.transpose(1, 2) @ self.filters).clamp_min(FLOOR))[:, None]
