"""Waveforms and sample rates: checks on what callers pass in, resampling, and removal of rumble."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MAX_CHANNELS = 1024
MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz; others are mistakes in headers, and resampling would take hours


def as_rate(sample_rate: float | None) -> int:
    """Return a sample rate as a whole number of hertz.

    Raises:
        ValueError: if it is None, or not a whole number from `MIN_RATE` to `MAX_RATE`.
    """
    if sample_rate is None:
        raise ValueError("sample_rate is missing: give that of the recording in hertz, for example 44100.")
    try:
        whole = int(sample_rate)
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if whole < 1 or whole != sample_rate:
        raise ValueError(f"The sample rate must be a positive whole number of hertz, not {sample_rate}.")
    if not MIN_RATE <= whole <= MAX_RATE:
        raise ValueError(f"The sample rate must be from {MIN_RATE} to {MAX_RATE} Hz, not {whole}.")
    return whole


def as_waveform(samples: Tensor | np.ndarray, what: str = "mixture", finite: bool = True) -> Tensor:
    """Return samples as float32 (channels, time) on the CPU; integers are scaled to [-1, 1).

    Args:
        samples: a tensor or array (time,) or (channels, time) of any real type and byte order.
        what: the name to use in error messages.
        finite: whether samples that are not finite are refused.

    Raises:
        ValueError: for other dimensions or types, no or too many channels, and samples that are not finite.
    """
    import numpy as np
    import torch

    if isinstance(samples, np.ndarray):
        kind = samples.dtype
        if kind.kind not in "iuf":
            raise ValueError(f"The {what} must hold floats or integers, not {kind}.")
        if kind.kind == "f" and kind.itemsize > 8:  # torch has no extended precision
            kind = np.dtype(np.float64)
        samples = torch.from_numpy(np.require(samples, kind.newbyteorder("="), requirements=["C", "W"]))
    try:
        wave = torch.as_tensor(samples, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"The {what} must be an array of samples, not {type(samples).__name__}.") from None
    if wave.ndim == 1:
        wave = wave[None]
    if wave.ndim != 2 or wave.shape[0] == 0:
        raise ValueError(f"The {what} must be (time,) or (channels, time), not {tuple(wave.shape)}.")
    if wave.shape[0] > MAX_CHANNELS:
        raise ValueError(f"The {what} has {wave.shape[0]} channels; (channels, time) is expected: transpose it.")
    if wave.dtype == torch.bool or wave.is_complex():
        raise ValueError(f"The {what} must hold floats or integers, not {wave.dtype}.")
    if not wave.is_floating_point():
        span = torch.iinfo(wave.dtype)
        wave = (wave.double() - (span.max + span.min + 1) / 2) / ((span.max - span.min + 1) / 2)
    wave = wave.float()
    if finite and not torch.isfinite(wave).all():
        raise ValueError(f"The {what} holds NaN or infinite samples.")
    return wave


def resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Change the sample rate with a linear-phase filter (soxr, quality "VHQ").

    Args:
        waveform: (channels, time).
        source_rate: its sample rate in Hz.
        target_rate: the new sample rate in Hz.

    Returns:
        (channels, ceil(time * target_rate / source_rate)), float32, aligned with the input.

    Raises:
        ValueError: if a rate is not positive.
    """
    if min(source_rate, target_rate) <= 0:
        raise ValueError(f"Sample rates must be positive, not {source_rate} and {target_rate}.")
    if source_rate == target_rate:
        return waveform
    import numpy as np
    import soxr
    import torch

    channels, time = waveform.shape
    result = np.zeros((-(-time * target_rate // source_rate), channels), np.float32)
    if time:
        samples = np.ascontiguousarray(waveform.detach().to("cpu", torch.float32).numpy().T)
        filtered = soxr.resample(samples, source_rate, target_rate, quality="VHQ")[: len(result)]
        result[: len(filtered)] = filtered
    return torch.from_numpy(result.T.copy()).to(waveform.device)


@functools.cache
def low_pass_kernel(sample_rate: int, hertz: float) -> np.ndarray:
    """Linear-phase low-pass filter (taps,) of unit sum: -6 dB at `hertz`, -110 dB from 1.2 times that (Kaiser)."""
    import numpy as np

    half = int(9.6 * sample_rate / hertz)
    time = np.arange(-half, half + 1) / sample_rate
    kernel = np.sinc(2 * hertz * time) * np.kaiser(2 * half + 1, 11.2)
    return kernel / kernel.sum()


@functools.lru_cache(8)
def low_frequency_functions(frames: int, sample_rate: int, hertz: float) -> tuple[Tensor, Tensor]:
    """Orthonormal functions of time below 0.84 * `hertz` (frames, n), and the gain of each (n,).

    Combinations of waves that hardly occur within so short a time would mostly fit noise. They have a small gain.
    """
    import numpy as np
    import torch

    phase = 2 * np.pi * 0.02 * hertz / sample_rate * np.outer(np.arange(frames), np.arange(43))
    waves = np.concatenate([np.cos(phase), np.sin(phase[:, 1:])], axis=1)
    power, mixing = np.linalg.eigh(waves.T @ waves / frames)
    gain = power / (power + 1e-6)
    functions = waves @ mixing[:, gain > 1e-3] / np.sqrt(frames * power[gain > 1e-3])
    return torch.from_numpy(functions).float(), torch.from_numpy(gain[gain > 1e-3]).float()


def high_pass(waveform: Tensor, sample_rate: int, hertz: float, ends: tuple[bool, bool] = (True, True)) -> Tensor:
    """Remove constant offsets and, by 110 dB, what lies below 0.8 * `hertz`; unchanged from 1.2 * `hertz` on.

    A sample depends on those within 9.6 / `hertz` seconds of it. The waveform is reflected at its ends, which bends low
    frequencies there. At the ends of a recording, what low frequencies can fit is therefore removed first, from the
    first and last 20 / `hertz` seconds.

    Args:
        waveform: (channels, time) on the CPU.
        sample_rate: Hz.
        hertz: where the filter has -6 dB.
        ends: whether the waveform starts where the recording does, and ends where it does.
    """
    import numpy as np
    import torch
    from torch.nn import functional as F

    kernel, time = torch.from_numpy(low_pass_kernel(sample_rate, hertz)).float(), waveform.shape[-1]
    if time == 0:
        return waveform
    if any(ends):
        waveform, frames = waveform.clone(), min(time, int(20 / hertz * sample_rate))
        functions, gain = low_frequency_functions(frames, sample_rate, hertz)
        fade = torch.cos(torch.arange(frames) * (torch.pi / 2 / frames)).square()
        for end, turn, place in zip(ends, ((), (1,)), (slice(frames), slice(time - frames, time)), strict=True):
            if end:
                part = waveform[:, place].flip(turn)
                fitted = ((part - part.mean(1, keepdim=True)) @ functions * gain) @ functions.T
                waveform[:, place] -= (fitted * fade).flip(turn)
    edge = len(kernel) // 2
    padded = torch.from_numpy(np.pad(waveform.numpy(), ((0, 0), (edge, edge)), "reflect" if time > 1 else "edge"))
    # Overlap-save: transforms of this size stay in the processor's cache, one of the whole would not.
    size = 1 << (2 * len(kernel)).bit_length()
    blocks = F.pad(padded, (0, size)).unfold(-1, size, size - 2 * edge)
    low = torch.fft.irfft(torch.fft.rfft(blocks) * torch.fft.rfft(kernel, size))[..., 2 * edge :]
    return waveform - low.flatten(1)[:, :time]
