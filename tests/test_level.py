"""The recording's level for signals whose level is known."""

import numpy as np
import pytest
import torch

from separation.level import FRAME, Level


def level(*blocks):
    meter = Level()
    for block in blocks:
        meter.push(block)
    return meter.value


def sine(frames=10, amplitude=1.0, channels=1):
    """Whole periods in every frame."""
    phase = 2 * np.pi * 16 * np.arange(frames * FRAME) / FRAME
    return torch.tensor(amplitude * np.sin(phase), dtype=torch.float32).expand(channels, -1)


def test_a_sine_has_its_root_mean_square():
    assert level(sine(amplitude=0.3)) == pytest.approx(0.3 / np.sqrt(2), rel=1e-6)


def test_channels_add_up_in_power_whatever_their_sign():
    left = sine(amplitude=0.3)
    assert level(torch.cat([left, left])) == pytest.approx(0.3, rel=1e-6)
    assert level(torch.cat([left, -left])) == pytest.approx(0.3, rel=1e-6)
    assert level(torch.cat([left, 0 * left])) == pytest.approx(level(left))


@pytest.mark.parametrize("length", [1, FRAME - 1, FRAME, FRAME + 1, 5 * FRAME + 17])
def test_it_does_not_depend_on_the_blocks(length):
    rng = np.random.default_rng(length)
    signal = torch.from_numpy(rng.standard_normal((2, length)).astype(np.float32))
    whole = level(signal)
    for _ in range(5):
        cuts = np.sort(rng.integers(0, length + 1, 4))
        assert level(*torch.tensor_split(signal, cuts.tolist(), dim=1)) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("decibel", [-120, -60, -20, 0, 40])
def test_it_scales_with_the_input(decibel):
    signal = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 50000)))
    gain = 10 ** (decibel / 20)
    assert level(gain * signal) == pytest.approx(gain * level(signal), rel=1e-9)


def test_pauses_do_not_count():
    sound = sine(3, 0.3)
    assert level(torch.zeros(1, 200 * FRAME), sound, torch.zeros(1, 99 * FRAME)) == pytest.approx(level(sound))


@pytest.mark.parametrize("under, counts", [(39.5, True), (40.5, False)])
def test_a_pause_is_forty_decibels_under_the_loudest_frame(under, counts):
    quiet = 10 ** (-under / 20)
    power = (1 + quiet**2) / 4 if counts else 0.5
    assert level(sine(1), sine(1, quiet)) == pytest.approx(np.sqrt(power), rel=1e-6)


def test_the_last_incomplete_frame_counts_as_one():
    ones = torch.tensor([[1.0, -1.0]])
    assert level(ones.repeat(1, FRAME // 2), 2 * ones.repeat(1, 5)) == pytest.approx(np.sqrt((1 + 4) / 2))


def test_silence_and_nothing_have_level_zero():
    assert level() == 0.0
    assert level(torch.zeros(2, 0)) == 0.0
    assert level(torch.zeros(2, 3 * FRAME + 5)) == 0.0


def test_one_sample_is_enough():
    assert level(torch.tensor([[0.25]])) == pytest.approx(0.25)


def test_full_scale_of_single_precision_does_not_overflow():
    assert level(1e30 * torch.tensor([[1.0, -1.0]]).repeat(2, FRAME // 2)) == pytest.approx(np.sqrt(2) * 1e30)


def test_a_constant_offset_does_not_count():
    offset = torch.tensor([[0.5], [-0.2]])
    assert level(sine(channels=2) * 0.01 + offset) == pytest.approx(0.01, rel=1e-4)
    assert level(offset.expand(-1, 3 * FRAME + 5) * 1.1) == 0.0
