"""How loud the sources of a training mixture are, as the published systems choose it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FLOOR = 1e-10


class Gains:
    """What brings sources (sources, time) to their levels in the mixture, which is their sum.

    Attributes:
        as_recorded: the sources that it is given are at their recordings' own levels, and not with each clip's peak at
            one.
    """

    as_recorded = False

    def __call__(self, sources: Tensor, rng: np.random.Generator) -> Tensor:
        """Sources (sources, time) to the same."""
        raise NotImplementedError


class RandomGains(Gains):
    """CLIPSep's: each source by a random factor, clipped to [-1, 1] and divided by the number of sources.

    It acts on the recordings' own levels: with every peak at one, half of the sources would be cut off at [-1, 1].

    Args:
        low, high: bounds of the factor.
        as_recorded: see `Gains`; false takes every clip with its peak at one.
    """

    def __init__(self, low: float = 0.5, high: float = 1.5, as_recorded: bool = True) -> None:
        self.low, self.high, self.as_recorded = low, high, as_recorded

    def __call__(self, sources: Tensor, rng: np.random.Generator) -> Tensor:
        """Sources (sources, time) to the same."""
        factors = torch.from_numpy(rng.uniform(self.low, self.high, len(sources))).to(sources.dtype)
        return (sources * factors[:, None]).clamp(-1, 1) / len(sources)


class EnergyGains(Gains):
    """AudioSep's: the first source as it is, the others together at a random energy ratio to it.

    Each of the others is brought to the first one's energy and changed by a random number of dB; so is their sum. All
    is scaled down where the mixture's peak exceeds 1.

    Args:
        low, high: bounds of the change, dB.
        whole: draw whole numbers of dB, both bounds among them.
        peak: that a mixture which exceeds 1 is scaled to.
        least, most: bounds of the factor that equals energies.
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

    def decibels(self, rng: np.random.Generator) -> float:
        """A change of level."""
        return float(
            rng.integers(int(self.low), int(self.high) + 1) if self.whole else rng.uniform(self.low, self.high)
        )

    def rescaled(self, wave: Tensor, reference: Tensor, rng: np.random.Generator) -> Tensor:
        """A wave (time,) at the reference's energy, then louder or quieter."""
        ratio = (wave.square().mean() / reference.square().mean().clamp_min(FLOOR)).sqrt()
        return wave / ratio.clamp(self.least, self.most) * 10 ** (self.decibels(rng) / 20)

    def __call__(self, sources: Tensor, rng: np.random.Generator) -> Tensor:
        """Sources (sources, time) to the same."""
        first = sources[0]
        others = torch.stack([self.rescaled(wave, first, rng) for wave in sources[1:]])
        background = others.sum(0)
        # One factor for all of them, so that they still add up to what their sum was scaled to.
        factor = self.rescaled(background, first, rng).norm() / background.norm().clamp_min(FLOOR)
        scaled = torch.cat([first[None], others * factor])
        top = float(scaled.sum(0).abs().max())
        return scaled * (self.peak / top) if top > 1 else scaled
