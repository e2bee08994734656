"""How loud a recording is, measured once for all its segments."""

from __future__ import annotations

import torch
from torch import Tensor

FRAME = 4096  # samples, about a tenth of a second
GATE = 1e-4  # frames 40 dB under the loudest are pauses


class Level:
    """Root mean square over all channels' sum of squares, of frames that are not pauses; fed block by block.

    The mean is over frames of 4096 samples within 40 dB of the loudest, so that long silence around a sound does not
    count. The result scales with the input and does not depend on how it is cut into blocks.
    """

    def __init__(self) -> None:
        self.powers: list[Tensor] = []
        self.rest = torch.zeros(0, dtype=torch.float64)

    def push(self, block: Tensor) -> None:
        """Adds (channels, n)."""
        power = torch.cat([self.rest, block.double().square().sum(0)])
        whole = power.numel() // FRAME * FRAME
        self.powers.append(power[:whole].unflatten(0, (-1, FRAME)).mean(1) if whole else power[:0])
        self.rest = power[whole:]

    @property
    def value(self) -> float:
        """Linear amplitude; 0 for silence."""
        end = [self.rest.mean()[None]] if self.rest.numel() else []
        powers = torch.cat([*self.powers, *end]) if self.powers or end else torch.zeros(1)
        loudest = powers.max() if powers.numel() else torch.zeros(())
        if loudest <= 0:
            return 0.0
        return float(powers[powers >= GATE * loudest].mean().sqrt())
