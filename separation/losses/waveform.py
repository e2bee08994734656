"""Losses of waveforms, one value a waveform: (..., time) to (...)."""

from __future__ import annotations

import torch
from torch import Tensor


def l1_loss(target: Tensor, estimate: Tensor) -> Tensor:
    """Mean absolute deviation, as AudioSep is trained."""
    return (target - estimate).abs().mean(-1)


def si_sdr_loss(target: Tensor, estimate: Tensor, floor: float = 1e-3) -> Tensor:
    """Negative scale-invariant SDR, dB (Le Roux et al., "SDR - half-baked or well done?", 2019).

    The target is scaled to fit the estimate best, t = <target, estimate> / <target, target> * target, and the loss is
    10 log10((|estimate - t|^2 + floor |t|^2) / |t|^2); `floor` = 1e-3 stops rewarding beyond 30 dB. No mean is removed.
    """
    epsilon = torch.finfo(target.dtype).eps
    scale = (target * estimate).sum(-1, keepdim=True) / target.square().sum(-1, keepdim=True).clamp_min(epsilon)
    energy = (scale * target).square().sum(-1)
    error = (estimate - scale * target).square().sum(-1)
    return 10 * torch.log10((error + floor * energy + epsilon) / (energy + epsilon))
