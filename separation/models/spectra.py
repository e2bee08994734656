"""Short-time Fourier transform, and the frequency axes of networks and encoders: bands, mel, log-frequency."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class STFT(nn.Module):
    """Short-time Fourier transform and its inverse, with a periodic Hann window.

    Frame `k` is centred on sample `k * hop`. With `hop <= n_fft / 2` the inverse is exact at every length for which
    the frames cover the signal, which a `frame_multiple` ensures.

    Args:
        n_fft: length of window and transform in samples.
        hop: distance between frames in samples.
        frame_multiple: the signal is padded with zeros until its frames cover it and their number is a multiple of
            this. None: no padding, so there are `time // hop + 1` frames, as in `torch.stft`.
        pad_mode: what lies outside the signal: "constant" (silence) or "reflect".
        double: compute spectra in double precision, on devices that have it.
        window_length: samples of the window, if it is shorter than the transform.
    """

    window: Tensor

    def __init__(
        self,
        n_fft: int,
        hop: int,
        frame_multiple: int | None = 1,
        pad_mode: str = "constant",
        double: bool = False,
        window_length: int | None = None,
    ) -> None:
        super().__init__()
        self.n_fft, self.hop, self.frame_multiple = n_fft, hop, frame_multiple
        self.pad_mode, self.double_precision = pad_mode, double
        window = torch.hann_window(window_length or n_fft, dtype=torch.float32, device="cpu")
        self.register_buffer("window", window, persistent=False)

    def frames(self, length: int) -> int:
        """Number of frames of a signal of `length` samples."""
        if self.frame_multiple is None:
            return length // self.hop + 1
        needed = max(1, -(-length // self.hop)) + 1
        return -(-needed // self.frame_multiple) * self.frame_multiple

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform (..., time) to complex spectrum (..., frequency, frames)."""
        padded, window = waveform, self.window
        if self.frame_multiple is not None:
            length = waveform.shape[-1]
            padded = F.pad(waveform, (0, (self.frames(length) - 1) * self.hop - length))
        flat = padded.reshape(-1, padded.shape[-1])
        if self.double_precision and flat.device.type != "mps":
            flat = flat.double()
            window = torch.hann_window(len(window), dtype=flat.dtype, device=flat.device)
        spectrum = torch.stft(
            flat, self.n_fft, self.hop, len(window), window, pad_mode=self.pad_mode, return_complex=True
        )
        if self.double_precision:
            spectrum = spectrum.to(torch.complex64)
        return spectrum.reshape(*waveform.shape[:-1], *spectrum.shape[-2:])

    def inverse(self, spectrum: Tensor, length: int) -> Tensor:
        """Complex spectrum (..., frequency, frames) to waveform (..., time) of `length` samples."""
        flat = spectrum.reshape(-1, *spectrum.shape[-2:])
        waveform = torch.istft(flat, self.n_fft, self.hop, window=self.window, length=max(length, 1))
        return waveform[:, :length].reshape(*spectrum.shape[:-2], length)


# --- Bands of the default network --------------------------------------------------------------


def band_centres(bands: int, bins: int, linear: int) -> np.ndarray:
    """Centres of bands, in bins: the first `linear` are single bins, the distance of the others grows geometrically.

    The factor q solves q + q^2 + ... + q^n = bins - linear with n = bands - linear: the last centre is the last bin.
    """
    powers = np.arange(1, bands - linear + 1)
    low, high = 1.0, 2.0
    for _ in range(100):
        factor = (low + high) / 2
        low, high = (low, factor) if (factor**powers).sum() > bins - linear else (factor, high)
    return np.concatenate([np.arange(linear), linear - 1 + np.cumsum(low**powers)])


def band_matrix(bands: int, bins: int, linear: int) -> Tensor:
    """Linear interpolation from bands to bins (bins, bands); each row sums to one."""
    centres = band_centres(bands, bins, linear)
    frequency = np.arange(bins)
    left = np.clip(np.searchsorted(centres, frequency, side="right") - 1, 0, bands - 2)
    weight = np.clip((frequency - centres[left]) / (centres[left + 1] - centres[left]), 0.0, 1.0)
    matrix = np.zeros((bins, bands), dtype=np.float32)
    matrix[frequency, left] = 1.0 - weight
    matrix[frequency, left + 1] += weight
    return torch.from_numpy(matrix)


# --- Mel ---------------------------------------------------------------------------------------

# Slaney's mel scale is linear up to 1 kHz (15 mel) and logarithmic above, 27 steps for a factor of 6.4.
LINEAR_HERTZ, BREAK_MEL, STEP = 200 / 3, 15.0, math.log(6.4) / 27


def hertz_to_mel(hertz: Tensor, scale: Literal["slaney", "htk"] = "slaney") -> Tensor:
    """Frequency in Hz to mel, on Slaney's scale or HTK's."""
    if scale == "htk":
        return 2595 * torch.log10(1 + hertz / 700)
    linear = hertz / LINEAR_HERTZ
    logarithmic = BREAK_MEL + torch.log(linear.clamp_min(BREAK_MEL) / BREAK_MEL) / STEP
    return torch.where(linear < BREAK_MEL, linear, logarithmic)


def mel_filters(
    sample_rate: int,
    n_fft: int,
    mels: int,
    low: float,
    high: float,
    scale: Literal["slaney", "htk"] = "slaney",
    unit_sum: bool = True,
) -> Tensor:
    """Triangular mel filters (n_fft / 2 + 1, mels).

    Args:
        sample_rate: Hz.
        n_fft: length of the transform.
        mels: number of filters.
        low: lower edge of the first filter, Hz.
        high: upper edge of the last filter, Hz.
        scale: "slaney": triangles over Hz, each of unit area; "htk": triangles over mel, each of unit sum.
        unit_sum: False: the triangles over HTK's mel have a peak of one instead.
    """
    frequency = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    ends = hertz_to_mel(torch.tensor([low, high], dtype=torch.float64), scale)
    edges = torch.linspace(float(ends[0]), float(ends[1]), mels + 2, dtype=torch.float64)
    if scale == "slaney":  # back to Hz
        edges = edges.clamp_max(BREAK_MEL) * LINEAR_HERTZ * torch.exp((edges - BREAK_MEL).clamp_min(0) * STEP)
    else:
        frequency = hertz_to_mel(frequency, scale)
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rise, fall).clamp_min(0)
    if scale == "slaney":
        return (triangles * (2 / (edges[2:] - edges[:-2]))).float()
    return (triangles / triangles.sum(0).clamp_min(1e-8) if unit_sum else triangles).float()


class LogMel(nn.Module):
    """Waveform (batch, time) to a log-mel spectrogram (batch, 1, frames, mels), frames = time // hop + 1.

    Args:
        sample_rate: Hz.
        n_fft: length of window and transform.
        hop: samples between frames.
        mels: number of bands.
        low: lower edge of the first band, Hz.
        high: upper edge of the last band, Hz; by default half the sample rate.
        relative: False: decibels with a floor of -100, on Slaney's scale, reflected at the ends, as in PANNs and CLAP.
            True: relative to the recording's mean, log10(x + 1e-6) / 2 + 1, on HTK's scale, silent outside.
    """

    filters: Tensor

    def __init__(
        self,
        sample_rate: int,
        n_fft: int = 1024,
        hop: int = 640,
        mels: int = 64,
        low: float = 50.0,
        high: float | None = None,
        relative: bool = False,
    ) -> None:
        super().__init__()
        self.relative = relative
        self.stft = STFT(n_fft, hop, None, "constant" if relative else "reflect")
        scale: Literal["slaney", "htk"] = "htk" if relative else "slaney"
        filters = mel_filters(sample_rate, n_fft, mels, low, sample_rate / 2 if high is None else high, scale)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        if self.relative:
            waveform = F.pad(waveform, (0, max(0, self.stft.n_fft - waveform.shape[-1])))
        spectrum = self.stft(waveform)
        power = spectrum.real.square() + spectrum.imag.square()  # (batch, bins, frames)
        mel = (power.transpose(1, 2) @ self.filters)[:, None]
        if not self.relative:
            return 10 * torch.log10(mel.clamp_min(1e-10))
        mean = mel.mean((2, 3), keepdim=True).clamp_min(1e-12)
        return torch.log10(mel / mean + 1e-6) / 2 + 1


# --- Log-frequency axis of CLIPSep -------------------------------------------------------------


def log_frequency(rows: int, bins: int, base: float = 21.0) -> tuple[Tensor, Tensor]:
    """Positions of the rows of CLIPSep's log-frequency axis among the bins (rows,), and of the bins among its rows.

    Positions run from -1 (first) to 1 (last), as `resample_rows` takes them. With u along the rows and v along the
    bins, v = 2 (base^((u + 1) / 2) - 1) / (base - 1) - 1.
    """
    u, v = np.linspace(-1, 1, rows), np.linspace(-1, 1, bins)
    among_bins = 2 * (base ** ((u + 1) / 2) - 1) / (base - 1) - 1
    among_rows = 2 * np.log1p((v + 1) / 2 * (base - 1)) / np.log(base) - 1
    return torch.from_numpy(among_bins).float(), torch.from_numpy(among_rows).float()


def resample_rows(x: Tensor, positions: Tensor) -> Tensor:
    """Linear interpolation along the rows: (batch, channels, rows, frames) to (batch, channels, positions, frames).

    It samples a grid in single precision, because the networks that use it were trained with the rounding of that: it
    mixes in a hundred-thousandth of the neighbouring frames, which the logarithm of near silence shows.
    """
    frames = torch.from_numpy(np.linspace(-1, 1, x.shape[-1])).to(x.device, torch.float32)
    grid = torch.stack(torch.broadcast_tensors(frames, positions[:, None]), dim=-1)
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), mode="bilinear", align_corners=True)
