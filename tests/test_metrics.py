"""Scores of signals whose score is known."""

import numpy as np
import pytest
from scipy import stats

from separation.metrics import bootstrap, decibel, energy, sdr, sdri, suppression

RNG = np.random.default_rng(0)
TARGET = RNG.standard_normal(10000)
OTHER = RNG.standard_normal(10000)


@pytest.mark.parametrize("wanted", [-10, 0, 3, 6.5, 20, 60])
def test_sdr_of_a_target_and_an_error_of_known_energy(wanted):
    error = OTHER * np.sqrt(energy(TARGET) / energy(OTHER)) * 10 ** (-wanted / 20)
    assert sdr(TARGET, TARGET + error) == pytest.approx(wanted, abs=1e-9)


def test_sdr_does_not_forgive_a_wrong_gain():
    assert sdr(TARGET, 0.5 * TARGET) == pytest.approx(20 * np.log10(2))
    assert sdr(TARGET, 0 * TARGET) == pytest.approx(0, abs=1e-12)
    assert sdr(TARGET, -TARGET) == pytest.approx(-20 * np.log10(2))


def test_sdr_is_infinite_for_a_perfect_estimate():
    assert sdr(TARGET, TARGET) == np.inf


@pytest.mark.parametrize("gain", [1, 0.5, 0.1, 0.01])
def test_sdri_is_how_far_the_interference_was_lowered(gain):
    assert sdri(TARGET, TARGET + gain * OTHER, TARGET + OTHER) == pytest.approx(-20 * np.log10(gain), abs=1e-9)


@pytest.mark.parametrize("gain, wanted", [(1, 0), (2, -6.0206), (0.1, 20), (1e-3, 60), (1e-5, 60), (0, 60)])
def test_suppression_is_how_far_the_output_lies_under_the_mixture(gain, wanted):
    assert suppression(TARGET, gain * TARGET) == pytest.approx(wanted, abs=1e-4)


def test_energy_is_summed_in_double_precision():
    wave = np.full(10_000_000, 1e-3, dtype=np.float32)
    assert energy(wave) == pytest.approx(10.0, rel=1e-6)
    assert energy(np.full(4, 1e30, dtype=np.float32)) == pytest.approx(4e60, rel=1e-6)


def test_decibels_of_nothing():
    assert decibel(1, 0) == np.inf
    assert decibel(0, 1) == -np.inf
    assert decibel(100, 1) == 20


def test_bootstrap_of_independent_values_is_the_normal_interval():
    values = np.random.default_rng(5).normal(7.0, 2.0, 400)
    low, high = bootstrap(values, [str(i) for i in range(400)])
    wanted = stats.norm.interval(0.95, values.mean(), values.std() / 20)
    assert low == pytest.approx(wanted[0], abs=0.03)
    assert high == pytest.approx(wanted[1], abs=0.03)


def test_bootstrap_counts_recordings_and_not_their_rows():
    values = np.random.default_rng(5).normal(7.0, 2.0, 50)
    once = bootstrap(values, [f"{i:02}" for i in range(50)])
    repeated = bootstrap(np.repeat(values, 9), [f"{i:02}" for i in np.repeat(np.arange(50), 9)])
    assert repeated == pytest.approx(once, abs=1e-9)
    independent = bootstrap(np.repeat(values, 9), [f"{i:03}" for i in range(450)])
    assert independent[1] - independent[0] < 0.5 * (once[1] - once[0])


def test_bootstrap_weighs_a_recording_by_its_rows():
    values = np.tile([0.0] * 9 + [1.0], 100)  # a hundred recordings of nine rows each, a hundred of one
    low, high = bootstrap(values, [f"{i // 10}{'one' if i % 10 == 9 else 'nine'}" for i in range(1000)])
    assert 0.07 < low < 0.1 < high < 0.14
    low, high = bootstrap(np.array([1.0, 3.0] * 100), [str(i // 2) for i in range(200)])
    assert (low, high) == (2.0, 2.0)  # every recording has the mean 2


def test_bootstrap_repeats_itself_and_follows_its_seed():
    values = RNG.standard_normal(30)
    groups = [str(i) for i in range(30)]
    assert bootstrap(values, groups) == bootstrap(values, groups)
    assert bootstrap(values, groups) != bootstrap(values, groups, seed=1)
    assert bootstrap(np.array([4.2]), ["only"]) == pytest.approx((4.2, 4.2))
