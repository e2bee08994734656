"""A long spectrogram through a network in windows of the length that it was trained on.

Some networks depend on the length of what they are given: their grid is stretched from corner to corner when it is
upsampled, or they attend over all of it. No two lengths then give the same values. So such a network is always given
windows of one length, `size` frames, which begin every `hop` frames from the recording's start; each frame is taken
from the window in whose middle it lies, with a short linear fade from one window to the next. A segment that begins at
a multiple of `hop` frames is then cut into the same windows as the whole, and segments equal the whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FADE = 32  # frames


def count(frames: int, size: int, hop: int) -> int:
    """How many windows hold all frames."""
    return 1 + max(0, -(-(frames - size) // hop))


def reach(size: int, hop: int) -> int:
    """Frames on either side that can change one: the farthest in the windows that it is taken from."""
    return size - (size - hop) // 2 + FADE // 2


def in_windows(features: Tensor, size: int, hop: int, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """(..., frames) to what `compute` makes of windows (..., size), joined, (..., frames).

    The last window repeats its content until it is full.
    """
    frames, windows = features.shape[-1], count(features.shape[-1], size, hop)
    joined = features.new_zeros(0)
    for number in range(windows):
        start = number * hop
        window = features[..., start : start + size]
        length = window.shape[-1]
        full = window.repeat(*[1] * (window.ndim - 1), -(-size // length))[..., :size]
        part = compute(full)[..., :length] * weight(number, windows, size, hop, features)[:length]
        if number == 0:
            joined = part.new_zeros(*part.shape[:-1], frames)
        joined[..., start : start + length] += part
    return joined


def weight(number: int, windows: int, size: int, hop: int, like: Tensor) -> Tensor:
    """How much each frame of a window counts (size,); all windows' weights add up to 1."""
    position = torch.arange(size, device=like.device, dtype=like.dtype) + 0.5 - (size - hop) / 2
    rise = (position / FADE + 0.5).clamp(0, 1)
    fall = ((position - hop) / FADE + 0.5).clamp(0, 1)
    return (rise if number else torch.ones_like(rise)) - (fall if number < windows - 1 else torch.zeros_like(fall))
