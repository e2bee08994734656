"""The transform against a direct sum, its inverse at every length, and the band axis."""

import math

import numpy as np
import pytest
import torch

from separation.models.spectra import STFT, band_centres, band_matrix

SIZES = [(1600, 500, 8), (256, 125, 8), (64, 32, 1), (64, 16, 4), (100, 30, 1)]
BANDS = [(128, 801, 48), (32, 129, 12), (64, 513, 20), (10, 50, 1)]


def wave(length, *shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((*shape, length)).astype(np.float32))


@pytest.mark.parametrize("n_fft, hop, multiple", SIZES)
def test_inverse_is_exact_at_every_length(n_fft, hop, multiple):
    stft = STFT(n_fft, hop, multiple)
    for length in [0, 1, 2, hop - 1, hop, hop + 1, 2 * hop, n_fft - 1, n_fft, n_fft + 1, 8 * hop, 12345]:
        signal = wave(length, 2, seed=length)
        back = stft.inverse(stft(signal), length)
        assert back.shape == signal.shape
        assert torch.allclose(back, signal, rtol=0, atol=2e-6), length


@pytest.mark.parametrize("seed", range(8))
def test_inverse_is_exact_for_random_sizes(seed):
    rng = np.random.default_rng(seed)
    n_fft = 2 * int(rng.integers(8, 200))
    hop = int(rng.integers(1, n_fft // 2 + 1))
    stft = STFT(n_fft, hop, int(rng.integers(1, 9)))
    signal = wave(int(rng.integers(1, 3000)), 3, seed=seed)
    assert (stft.inverse(stft(signal), signal.shape[-1]) - signal).abs().max() < 1e-5


@pytest.mark.parametrize("n_fft, hop, multiple", SIZES)
def test_forward_is_the_windowed_sum_around_each_hop(n_fft, hop, multiple):
    length = 5 * hop + 7
    signal = wave(length, seed=3)
    spectrum = STFT(n_fft, hop, multiple)(signal).numpy()
    frames = math.ceil((math.ceil(length / hop) + 1) / multiple) * multiple
    assert spectrum.shape == (n_fft // 2 + 1, frames)
    padded = np.zeros(n_fft + frames * hop)
    padded[n_fft // 2 : n_fft // 2 + length] = signal.numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    direct = np.stack([np.fft.rfft(padded[k * hop : k * hop + n_fft] * window) for k in range(frames)], axis=1)
    assert np.abs(spectrum - direct).max() < 1e-4


def test_frame_k_is_centred_on_sample_k_times_hop():
    signal = torch.zeros(4000)
    signal[3 * 500] = 1.0  # the window's middle: gain one, and the phase of half a window, (-1) ** bin
    spectrum = STFT(1600, 500, 8)(signal)
    sign = 1.0 - 2.0 * (torch.arange(801) % 2)
    assert torch.allclose(spectrum[:, 3], sign.to(torch.complex64), atol=1e-5)
    assert spectrum[:, 5:].abs().max() == 0  # 1000 samples on: out of the window


def test_leading_axes_are_kept_and_independent():
    stft = STFT(64, 16, 4)
    signal = wave(333, 2, 3, seed=1)
    spectrum = stft(signal)
    assert spectrum.shape == (2, 3, 33, 24)
    assert torch.allclose(spectrum[1, 2], stft(signal[1, 2]), atol=1e-6)
    assert stft.inverse(spectrum, 333).shape == (2, 3, 333)


def test_the_window_is_not_stored_with_the_weights():
    assert STFT(64, 16).state_dict() == {}


@pytest.mark.parametrize("bands, bins, linear", BANDS)
def test_band_centres_rise_by_a_constant_factor_and_end_at_the_last_bin(bands, bins, linear):
    centres = band_centres(bands, bins, linear)
    assert len(centres) == bands
    assert np.array_equal(centres[:linear], np.arange(linear))
    assert (np.diff(centres) > 0).all()
    assert centres[-1] == pytest.approx(bins - 1, abs=1e-6)
    steps = np.diff(centres)[linear - 1 :]
    assert np.allclose(steps[1:] / steps[:-1], steps[0])  # q, q^2, q^3, ...
    assert steps[0] > 1


@pytest.mark.parametrize("bands, bins, linear", BANDS)
def test_band_matrix_interpolates_linearly(bands, bins, linear):
    matrix = band_matrix(bands, bins, linear).double().numpy()
    assert matrix.shape == (bins, bands)
    assert (matrix >= 0).all() and (matrix.sum(0) > 0).all()
    assert np.allclose(matrix.sum(1), 1, atol=1e-6)
    assert np.array_equal(matrix[:linear, :linear], np.eye(linear))
    # At most two bands reach a bin, and they are neighbours.
    for row in matrix:
        used = np.flatnonzero(row)
        assert len(used) <= 2 and used[-1] - used[0] <= 1
    centres = band_centres(bands, bins, linear)
    assert np.allclose(matrix @ centres, np.arange(bins), atol=1e-3)  # exact for anything linear in frequency
    curve = np.random.default_rng(0).standard_normal(bands)
    assert np.allclose(matrix @ curve, np.interp(np.arange(bins), centres, curve), atol=1e-4)
