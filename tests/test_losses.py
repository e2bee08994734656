"""Losses against their definitions."""

import math

import numpy as np
import pytest
import torch

from separation.models.spectra import STFT, band_matrix
from separation.training.losses import MaskError, absent_loss, matching_loss, snr_loss

BINS, BANDS, FRAMES = 33, 12, 7


def complex_noise(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def example(batch=2, sources=3):
    """Mixture, sources, interpolation and masks, in double precision."""
    mixture = complex_noise(batch, BINS, FRAMES, seed=1)
    parts = complex_noise(batch, sources, BINS, FRAMES, seed=2)
    to_bins = band_matrix(BANDS, BINS, 5).double()
    mask = torch.from_numpy(np.random.default_rng(3).standard_normal((batch, sources, 2, BANDS, FRAMES)))
    return mixture, parts, to_bins, mask


def masked(mixture, to_bins, mask):
    """The masked mixture in bins, (batch, sources, bins, frames)."""
    bins = to_bins @ mask
    return torch.complex(bins[:, :, 0], bins[:, :, 1]) * mixture[:, None]


def test_mask_error_is_the_sum_over_all_bins():
    mixture, parts, to_bins, mask = example()
    error = MaskError(mixture, parts, to_bins)
    output = masked(mixture, to_bins, mask)
    assert torch.allclose(error.output_energy(mask), output.abs().square().sum((2, 3)), rtol=1e-10)
    assert torch.allclose(error.error_energy(mask), (parts - output).abs().square().sum((2, 3)), rtol=1e-10)
    assert torch.allclose(error.energy, parts.abs().square().sum((2, 3)))
    assert torch.allclose(error.mixture_energy[:, 0], mixture.abs().square().sum((1, 2)))
    assert torch.allclose(error.untouched_energy(), (parts - mixture[:, None]).abs().square().sum((2, 3)))


def test_mask_error_has_the_gradient_of_the_sum_over_all_bins():
    mixture, parts, to_bins, mask = example()
    mask.requires_grad_()
    (fast,) = torch.autograd.grad(MaskError(mixture, parts, to_bins).error_energy(mask).log().sum(), mask)
    direct = (parts - masked(mixture, to_bins, mask)).abs().square().sum((2, 3)).log().sum()
    (slow,) = torch.autograd.grad(direct, mask)
    assert torch.allclose(fast, slow, rtol=1e-8, atol=1e-12)


def test_mask_error_vanishes_for_the_mask_that_made_the_source():
    mixture, _, to_bins, mask = example()
    made = masked(mixture, to_bins, mask)
    error = MaskError(mixture, made, to_bins)
    assert (error.error_energy(mask) / error.energy).max() < 1e-12
    single = MaskError(mixture.to(torch.complex64), made.to(torch.complex64), to_bins.float())
    assert (single.error_energy(mask.float()) >= 0).all()
    assert torch.allclose(error.error_energy(0 * mask), error.energy)


def test_mask_error_in_single_precision_at_the_models_size():
    stft, to_bins = STFT(1600, 500, 8), band_matrix(128, 801, 48)
    rng = np.random.default_rng(0)
    sources = torch.from_numpy(rng.standard_normal((1, 2, 16000)).astype(np.float32))
    spectra = stft(sources)
    mixture = spectra.sum(1)
    mask = torch.from_numpy(rng.uniform(-1, 1, (1, 2, 2, 128, spectra.shape[-1])).astype(np.float32))
    direct = (spectra - masked(mixture, to_bins, mask)).abs().square().sum((2, 3))
    assert torch.allclose(MaskError(mixture, spectra, to_bins).error_energy(mask), direct, rtol=1e-4)


@pytest.mark.parametrize("error", [0.5, 0.1, 0.01])
def test_snr_loss_is_the_negative_ratio_in_decibels(error):
    target = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    wanted = 10 * np.log10(error**2 + 1e-3)
    assert torch.allclose(snr_loss(target, target * (1 - error)), torch.tensor([wanted, wanted], dtype=torch.float32))
    assert snr_loss(target, target * (1 - error), floor=0)[0].item() == pytest.approx(20 * np.log10(error), abs=1e-4)


def test_snr_loss_ends_at_thirty_decibels_and_is_nought_for_silence():
    target = torch.randn(5, 100)
    assert torch.allclose(snr_loss(target, target), torch.full((5,), -30.0))
    assert torch.allclose(snr_loss(target, 0 * target), torch.full((5,), 0.0043), atol=1e-3)


def test_absent_loss_is_the_outputs_level_down_to_its_floor():
    mixture = torch.tensor([2.0, 2.0, 2.0, 0.0])
    output = torch.tensor([2.0, 0.2, 0.0, 0.0])
    wanted = 10 * np.log10(np.array([1.003, 0.103, 0.003, 0.003]))
    assert np.allclose(absent_loss(mixture, output).numpy(), wanted, atol=1e-4)
    assert absent_loss(mixture, output)[2].item() == pytest.approx(-25.2, abs=0.1)


def test_absent_loss_pulls_towards_silence():
    output = torch.tensor([1.0, 1e-2, 1e-6], requires_grad=True)
    absent_loss(torch.ones(3), output).sum().backward()
    assert (output.grad > 0).all()


@pytest.mark.parametrize(
    "similarity, wanted",
    [(torch.zeros(4, 4), math.log(4)), (3 * torch.eye(4), math.log(1 + 3 * math.exp(-3))), (100 * torch.eye(4), 0.0)],
)
def test_matching_loss_of_pairs_is_a_cross_entropy(similarity, wanted):
    assert matching_loss(similarity, torch.eye(4)).item() == pytest.approx(wanted, abs=1e-5)


def test_matching_loss_counts_all_matches_of_a_row_in_equal_parts():
    rng = np.random.default_rng(0)
    similarity, same = rng.standard_normal((4, 4)), np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    log_share = similarity - np.log(np.exp(similarity).sum(1, keepdims=True))
    wanted = -np.mean([log_share[i][same[i] == 1].mean() for i in range(4)])
    found = matching_loss(torch.tensor(similarity), torch.tensor(same, dtype=torch.float64))
    assert found.item() == pytest.approx(wanted)
