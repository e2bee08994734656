"""Bi-modal weak supervision: what three statements about a mixture of captioned clips cost.

Mahmud et al., "Weakly-supervised Audio Separation via Bi-modal Semantic Similarity", 2024. The mixture X is the sum of
clips X_n. What is taken out of X by a clip's whole caption is that clip (URL); what is taken out by its phrases adds up
to it (CRL); and each phrase's part sounds like the phrase (CNT).

Estimates and clips are compared as magnitudes where a network only scales them, and as complex spectra where it turns
their phase as well; the modulus of the difference serves both.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from separation.losses.masks import loudness_weight


def weighted_l1(estimate: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """mean(w |a - b|) over bins and frames: (..., bins, frames) each to (...)."""
    return (weight * (estimate - truth).abs()).mean((-1, -2))


def reconstruction_loss(estimates: Tensor, clips: Tensor, mixture: Tensor) -> Tensor:
    """URL: what each clip's own text takes out of the mixture is the clip.

    Args:
        estimates: by the clips' texts (batch, clips, bins, frames), real or complex.
        clips: the clips themselves (batch, clips, bins, frames).
        mixture: their mixture (batch, bins, frames), which gives the weights.

    Returns:
        sum over the clips, mean over the batch.
    """
    return weighted_l1(estimates, clips, loudness_weight(mixture.abs())[:, None]).sum(1).mean()


def consistency_loss(estimates: Tensor, shares: Tensor, clips: Tensor) -> Tensor:
    """CRL: what the phrases of a clip take out of the mixture adds up to the clip, which gives the weights.

    Args:
        estimates: by the phrases (batch, clips, slots, bins, frames), real or complex.
        shares: of the slots (batch, clips, slots): a phrase that fills two slots counts half in each.
        clips: (batch, clips, bins, frames).

    Returns:
        sum over the clips, mean over the batch.
    """
    total = (shares[..., None, None] * estimates).sum(2)
    return weighted_l1(total, clips, loudness_weight(clips.abs())).sum(1).mean()


def contrastive_loss(audio: Tensor, text: Tensor, same: Tensor, scale: float) -> Tensor:
    """CNT: each separated sound is closer to its own phrase than to all others, from audio to text only.

    Args:
        audio: unit vectors of the separated sounds (items, dim).
        text: unit vectors of all phrases (phrases, dim).
        same: ones where a phrase is the item's, zeros elsewhere (items, phrases). Equal phrases are no negatives.
        scale: of the similarities (the space's inverse temperature).
    """
    share = same / same.sum(1, keepdim=True)
    return -(share * F.log_softmax(scale * audio @ text.T, dim=1)).sum(1).mean()


def same_phrase(own: list[str], every: list[str], device: torch.device | None = None) -> Tensor:
    """Which texts are equal, (own, every), ones and zeros."""
    numbers = {phrase: number for number, phrase in enumerate(dict.fromkeys(every))}
    rows = torch.tensor([numbers.get(phrase, -1) for phrase in own], device=device)
    columns = torch.tensor([numbers[phrase] for phrase in every], device=device)
    return (rows[:, None] == columns).float()
