"""Losses of waveforms, masks, band masks and captioned mixtures, and the cross-entropy of matching pairs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

WEIGHT_RANGE = (1e-3, 10.0)  # of one time-frequency point
EPSILON = 1e-10


def l1_loss(target: Tensor, estimate: Tensor) -> Tensor:
    """Mean absolute error of waveforms (..., time) -> (...). AudioSep is trained with it."""
    return (target - estimate).abs().mean(-1)


def snr_loss(target: Tensor, estimate: Tensor, floor: float = 1e-3) -> Tensor:
    """Negative signal-to-noise ratio of waveforms (..., time) -> (...), in dB.

    10 log10((error + floor * target) / target), where all terms are energies. With `floor` = 1e-3 nothing is gained
    beyond 30 dB.
    """
    energy = target.square().sum(-1)
    error = (target - estimate).square().sum(-1)
    return 10 * torch.log10((error + floor * energy) / energy.clamp_min(EPSILON))


def si_sdr_loss(target: Tensor, estimate: Tensor, floor: float = 1e-3) -> Tensor:
    """Negative scale-invariant SDR of waveforms (..., time) -> (...), in dB.

    The target is scaled to fit the estimate best, t = <target, estimate> / <target, target> * target, and the loss is
    10 log10((|estimate - t|^2 + floor |t|^2) / |t|^2). The mean of the waveforms is not removed. Le Roux et al.,
    "SDR - half-baked or well done?", 2019.
    """
    epsilon = torch.finfo(target.dtype).eps
    scale = (target * estimate).sum(-1, keepdim=True) / target.square().sum(-1, keepdim=True).clamp_min(epsilon)
    energy = (scale * target).square().sum(-1)
    error = (estimate - scale * target).square().sum(-1)
    return 10 * torch.log10((error + floor * energy + epsilon) / (energy + epsilon))


WAVEFORM_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": l1_loss, "si_sdr": si_sdr_loss, "snr": snr_loss}
DECIBEL_LOSSES = ("si_sdr", "snr")  # undefined for silent targets


def absent_loss(mixture_energy: Tensor, output_energy: Tensor, floor: float = 3e-3) -> Tensor:
    """Level of the output relative to the mixture, in dB, for queries whose sound is absent.

    With `floor` = 3e-3 nothing is gained below -25 dB.
    """
    return 10 * torch.log10(output_energy / mixture_energy.clamp_min(EPSILON) + floor)


# Masks on bands


class MaskError:
    """Error energy of a band mask, computed exactly on the bands.

    A mask M (bands) is interpolated to the bins by B (bins, bands). For a mixture spectrum X and a target S

        sum_f |S - (B M)_f X|^2 = |S|^2 - 2 Re sum_b M_b r_b + sum_b |M_b|^2 g_b + 2 Re sum_b M_b conj(M_(b+1)) h_b

    with r = B^T (X conj(S)), g_b = sum_f B_fb^2 |X_f|^2 and h_b = sum_f B_fb B_f,b+1 |X_f|^2, because at most two
    neighbouring bands reach a bin. r, g and h need no gradient; what needs one is 6 times smaller than the spectra.

    Args:
        mixture: complex spectrum (batch, bins, frames).
        sources: complex spectra (batch, sources, bins, frames).
        to_bins: B (bins, bands).

    Attributes:
        energy: energy of each source (batch, sources).
        mixture_energy: energy of the mixture (batch, 1).
    """

    def __init__(self, mixture: Tensor, sources: Tensor, to_bins: Tensor) -> None:
        power = mixture.abs().square()
        product = mixture[:, None] * sources.conj()
        transposed = to_bins.T.contiguous()
        self.cross_real = transposed @ product.real  # (batch, sources, bands, frames)
        self.cross_imaginary = transposed @ product.imag
        self.own = (transposed.square() @ power)[:, None]  # (batch, 1, bands, frames)
        self.shared = ((transposed[:-1] * transposed[1:]) @ power)[:, None]
        self.energy = sources.abs().square().sum((2, 3))
        self.mixture_energy = power.sum((1, 2))[:, None]

    def output_energy(self, mask: Tensor) -> Tensor:
        """Energy of the masked mixture: mask (batch, sources, 2, bands, frames) -> (batch, sources)."""
        real, imaginary = mask.unbind(2)
        own = ((real.square() + imaginary.square()) * self.own).sum((2, 3))
        neighbours = real[:, :, :-1] * real[:, :, 1:] + imaginary[:, :, :-1] * imaginary[:, :, 1:]
        return own + 2 * (neighbours * self.shared).sum((2, 3))

    def error_energy(self, mask: Tensor) -> Tensor:
        """Energy of target minus masked mixture: mask (batch, sources, 2, bands, frames) -> (batch, sources)."""
        real, imaginary = mask.unbind(2)
        agreement = (real * self.cross_real - imaginary * self.cross_imaginary).sum((2, 3))
        return (self.energy - 2 * agreement + self.output_energy(mask)).clamp_min(0)

    def untouched_energy(self) -> Tensor:
        """Energy of target minus mixture (batch, sources): the error of a mask of ones."""
        return (self.energy - 2 * self.cross_real.sum((2, 3)) + self.mixture_energy).clamp_min(0)


# Masks on a log-frequency axis: Zhao et al., "The Sound of Pixels", 2018; Dong et al., "CLIPSep", 2023


def loudness_weight(mixture: Tensor) -> Tensor:
    """Weight of every point of a mixture's magnitude (batch, rows, frames): ln(1 + magnitude), limited to a range."""
    return torch.log1p(mixture).clamp(*WEIGHT_RANGE)


def weighted_bce(mask: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Mean of weight * binary cross-entropy: (..., rows, frames) -> (...).

    The sum is divided by the number of points, not by the sum of the weights. Masks of exactly 0 or 1 cost at most 100.
    All arguments are broadcast.
    """
    mask, truth = torch.broadcast_tensors(mask, truth)
    return (weight * F.binary_cross_entropy(mask, truth, reduction="none")).mean((-1, -2))


def best_order(pairs: Tensor) -> Tensor:
    """Permutation-invariant mean of two losses (Yu et al., "Permutation invariant training of deep models", 2017).

    Args:
        pairs: loss of each of two estimates with each of two truths (batch, 2, 2).

    Returns:
        Mean loss in the better order (batch,).
    """
    if pairs.shape[-2:] != (2, 2):
        raise ValueError(f"the best order needs two estimates and two sources, not {tuple(pairs.shape[-2:])}")
    straight = (pairs[:, 0, 0] + pairs[:, 1, 1]) / 2
    crossed = (pairs[:, 0, 1] + pairs[:, 1, 0]) / 2
    return torch.minimum(straight, crossed)


# Noise invariant training: Dong et al., "CLIPSep", 2023


def noise_invariant_bce(targets: Tensor, noise: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of min(1, T_n + P_j) with the true mask of source n, for the better assignment of j to n.

    A sound that does not belong to a clip's query may so be left out of the clip's target mask. Clamped points have no
    gradient. Target masks T, noise masks P and true masks are (batch, 2, rows, frames), the weight is (batch, rows,
    frames), the result (batch,).
    """
    combined = (targets[:, :, None] + noise[:, None]).clamp(max=1)  # (batch, n, j, rows, frames)
    return best_order(weighted_bce(combined, truth[:, :, None], weight[:, None, None]))


# Captioned mixtures: Mahmud et al., "Weakly-supervised Audio Separation via Bi-modal Semantic Similarity", 2024.
# Estimates and clips are magnitudes, or complex spectra where the network changes the phase.


def weighted_l1(estimate: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """mean(w |a - b|) over bins and frames: (..., bins, frames) -> (...)."""
    return (weight * (estimate - truth).abs()).mean((-1, -2))


def reconstruction_loss(estimates: Tensor, clips: Tensor, mixture: Tensor) -> Tensor:
    """URL: the estimate by a clip's caption is the clip.

    Args:
        estimates: by the captions (batch, clips, bins, frames), real or complex.
        clips: (batch, clips, bins, frames).
        mixture: (batch, bins, frames); gives the weights.

    Returns:
        Sum over the clips, mean over the batch.
    """
    return weighted_l1(estimates, clips, loudness_weight(mixture.abs())[:, None]).sum(1).mean()


def consistency_loss(estimates: Tensor, shares: Tensor, clips: Tensor) -> Tensor:
    """CRL: the estimates by the phrases of a clip add up to the clip.

    Args:
        estimates: by the phrases (batch, clips, slots, bins, frames), real or complex.
        shares: weight of each slot (batch, clips, slots); a phrase that fills two slots counts half in each.
        clips: (batch, clips, bins, frames); they also give the weights.

    Returns:
        Sum over the clips, mean over the batch.
    """
    total = (shares[..., None, None] * estimates).sum(2)
    return weighted_l1(total, clips, loudness_weight(clips.abs())).sum(1).mean()


# Pairs


def matching_loss(similarity: Tensor, same: Tensor) -> Tensor:
    """Cross-entropy of rows of similarities whose targets are all matches, in equal parts.

    With one match in each row this is CLIP's loss in one direction (Radford et al., 2021); several matches follow
    Khosla et al., "Supervised contrastive learning", 2020.

    Args:
        similarity: logits (rows, columns).
        same: one where a column matches the row, zero elsewhere (rows, columns).
    """
    return F.cross_entropy(similarity, same / same.sum(1, keepdim=True))
