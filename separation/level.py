"""How loud a recording is, measured once for all its segments."""

from __future__ import annotations

import torch
from torch import Tensor

FRAME = 4096  # samples, about a tenth of a second
ROUNDING = 1e-12  # of an offset's power
GATE = 1e-4  # frames 40 dB under the loudest are pauses


def power(frames: Tensor) -> Tensor:
    """Variance summed over channels: (channels, frames, samples) -> (frames,). Rounding of an offset is no sound."""
    variance, mean = torch.var_mean(frames, -1, correction=0)
    return torch.where(variance > ROUNDING * mean.square(), variance, 0).sum(0)


def energy(waveform: Tensor) -> Tensor:
    """Sum of all squares, float64; without a copy of the waveform in that precision."""
    return torch.linalg.vector_norm(waveform, dtype=torch.float64).square()


class Level:
    """Root mean square over all channels' sum of squares, of frames that are not pauses; fed block by block.

    The mean is over frames of 4096 samples within 40 dB of the loudest, so that long silence around a sound does not
    count; nor does a constant offset, as cheap converters add it. The result scales with the input and does not
    depend on how it is cut into blocks.
    """

    def __init__(self) -> None:
        self.powers: list[Tensor] = []
        self.rest = torch.zeros(0, 0, dtype=torch.float64)

    def push(self, block: Tensor) -> None:
        """Adds (channels, n)."""
        samples = torch.cat([self.rest.reshape(block.shape[0], -1), block.double()], dim=1)
        whole = samples.shape[1] // FRAME * FRAME
        if whole:
            self.powers.append(power(samples[:, :whole].unflatten(1, (-1, FRAME))))
        self.rest = samples[:, whole:]

    @property
    def value(self) -> float:
        """Linear amplitude; 0 for silence."""
        if not self.rest.numel() and not self.powers:
            return 0.0
        if not self.powers:  # too short to tell an offset from sound
            return float(self.rest.square().mean(1).sum().sqrt())
        end = [power(self.rest[:, None])] if self.rest.numel() else []
        powers = torch.cat([*self.powers, *end])
        loudest = powers.max()
        if loudest <= 0:
            return 0.0
        return float(powers[powers >= GATE * loudest].mean().sqrt())
