"""Levels of the sources of a training mixture, as in the published systems.

Random numbers are drawn with the mixture, in worker processes; levels are applied to whole batches, on the device.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FLOOR = 1e-10


class Gains:
    """Sets the levels of sources, whose sum is the mixture.

    Attributes:
        as_recorded: whether the sources come at their recorded levels; otherwise the peak of every clip is one.
    """

    as_recorded = False

    def draw(self, sources: int, rng: np.random.Generator) -> Tensor:
        """Draw the random numbers (numbers,) for one mixture of `sources` sources, as float32."""
        raise NotImplementedError

    def apply(self, sources: Tensor, drawn: Tensor) -> Tensor:
        """Set the levels of sources (..., sources, time) by the numbers drawn for their mixtures (..., numbers)."""
        raise NotImplementedError


class RandomGains(Gains):
    """CLIPSep: multiply each source by a random factor, clip it to [-1, 1], and divide by the number of sources.

    Sources come at their recorded levels: with every peak at one, half of them would be clipped.

    Args:
        low, high: bounds of the factor.
        as_recorded: see `Gains`.
    """

    def __init__(self, low: float = 0.5, high: float = 1.5, as_recorded: bool = True) -> None:
        self.low, self.high, self.as_recorded = low, high, as_recorded

    def draw(self, sources: int, rng: np.random.Generator) -> Tensor:
        """Draw a factor for each source."""
        return torch.from_numpy(rng.uniform(self.low, self.high, sources)).float()

    def apply(self, sources: Tensor, drawn: Tensor) -> Tensor:
        return (sources * drawn[..., None]).clamp(-1, 1) / sources.shape[-2]


class EnergyGains(Gains):
    """AudioSep: the first source stays as it is, the sum of the others is set to a random energy ratio to it.

    Each of the others is first set to a random energy ratio to the first source. Mixtures whose peak exceeds 1 are
    scaled down.

    Args:
        low, high: bounds of the ratio, dB.
        whole: draw whole numbers of dB, including both bounds.
        peak: peak of mixtures that are scaled down.
        least, most: bounds of the factor between energies.
        as_recorded: see `Gains`.
    """

    def __init__(
        self,
        low: float = -10.0,
        high: float = 10.0,
        whole: bool = True,
        peak: float = 0.9,
        least: float = 0.02,
        most: float = 50.0,
        as_recorded: bool = True,
    ) -> None:
        self.low, self.high, self.whole, self.peak = low, high, whole, peak
        self.least, self.most, self.as_recorded = least, most, as_recorded

    def draw(self, sources: int, rng: np.random.Generator) -> Tensor:
        """Draw a ratio, dB, for each source but the first, and for their sum."""
        if self.whole:
            return torch.tensor([float(rng.integers(int(self.low), int(self.high) + 1)) for _ in range(sources)])
        return torch.tensor([float(rng.uniform(self.low, self.high)) for _ in range(sources)])

    def apply(self, sources: Tensor, drawn: Tensor) -> Tensor:
        first = sources[..., :1, :]
        others = self.set_ratio(sources[..., 1:, :], first, drawn[..., :-1])
        background = others.sum(-2, keepdim=True)
        # One factor for all of them, so that their sum has the ratio.
        wanted = self.set_ratio(background, first, drawn[..., -1:]).norm(dim=-1, keepdim=True)
        factor = wanted / background.norm(dim=-1, keepdim=True).clamp_min(FLOOR)  # (..., 1, 1)
        scaled = torch.cat([first, others * factor], dim=-2)
        peak = scaled.sum(-2).abs().amax(-1)[..., None, None]
        return torch.where(peak > 1, scaled * (self.peak / peak.clamp_min(1)), scaled)

    def set_ratio(self, waves: Tensor, reference: Tensor, decibels: Tensor) -> Tensor:
        """Scale waves (..., waves, time) to an energy ratio (..., waves) to a reference (..., 1, time)."""
        energy, wanted = waves.square().mean(-1), reference.square().mean(-1).clamp_min(FLOOR)
        factor = 10 ** (decibels / 20) / (energy / wanted).sqrt().clamp(self.least, self.most)
        return waves * factor[..., None]
