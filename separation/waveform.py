"""What callers hand over as a waveform and a sample rate, checked and brought to one form."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MAX_CHANNELS = 1024


def native(array: np.ndarray, what: str = "mixture") -> Tensor:
    """A numpy array of any byte order as a tensor.

    Raises:
        ValueError: it holds no real numbers.
    """
    if array.dtype.kind not in "iuf":
        raise ValueError(f"The {what} must hold floats or integers, not {array.dtype}.")
    kind = np.dtype(np.float64) if array.dtype.kind == "f" and array.dtype.itemsize > 8 else array.dtype
    return torch.from_numpy(np.require(array, kind.newbyteorder("="), requirements=["C", "W"]))


def as_rate(sample_rate: float) -> int:
    """A sample rate as a whole number of hertz.

    Raises:
        ValueError: it is none.
    """
    try:
        whole = int(sample_rate)
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if whole < 1 or whole != sample_rate:
        raise ValueError(f"The sample rate must be a positive whole number of hertz, not {sample_rate}.")
    return whole


def as_waveform(samples: Tensor | np.ndarray, what: str = "mixture") -> Tensor:
    """Any (time,) or (channels, time) array as float32 (channels, time) on the CPU; integers are scaled to [-1, 1).

    Args:
        samples: the array.
        what: errors call it so.

    Raises:
        ValueError: other dimensions, no channels or too many, other types, or samples that are not finite.
    """
    try:
        wave = torch.as_tensor(native(samples, what) if isinstance(samples, np.ndarray) else samples).detach().cpu()
    except (TypeError, RuntimeError):
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
    if not torch.isfinite(wave).all():
        raise ValueError(f"The {what} holds NaN or infinite samples.")
    return wave
