"""Losses in dB, one value a query, so that loud and quiet targets count alike."""

from __future__ import annotations

import torch
from torch import Tensor


def snr_loss(target: Tensor, estimate: Tensor, floor: float = 1e-3) -> Tensor:
    """Negative SNR of waveforms (..., time) -> (...), dB: 10 log10((error + floor * target) / target), energies.

    `floor` = 1e-3 stops rewarding beyond 30 dB.
    """
    energy = target.square().sum(-1)
    error = (target - estimate).square().sum(-1)
    return 10 * torch.log10((error + floor * energy) / energy.clamp_min(1e-10))


def absent_loss(mixture_energy: Tensor, output_energy: Tensor, floor: float = 3e-3) -> Tensor:
    """Output's level under the mixture's, dB, for a query that does not sound; no reward beyond `floor` (-25 dB)."""
    return 10 * torch.log10(output_energy / mixture_energy.clamp_min(1e-10) + floor)
