"""Mixing on the device: a whole batch's equalisers and levels equal those of one source after the other."""

import numpy as np
import pytest
import torch

from separation.data.mixing import KNOTS, NO_LOW_PASS, Treatment, filter_response, treat


def random_treatment(shape, seed=0):
    generator = np.random.default_rng(seed)
    cutoff = np.where(generator.random(shape) < 0.4, generator.uniform(0.2, 0.9, shape), NO_LOW_PASS)
    return Treatment(
        filtered=torch.from_numpy(generator.random(shape) < 0.5),
        knots=torch.from_numpy(generator.uniform(-8, 8, (*shape, KNOTS)).astype(np.float32)),
        cutoff=torch.from_numpy(cutoff.astype(np.float32)),
        gain=torch.from_numpy(generator.uniform(-20, 12, shape).astype(np.float32)),
    )


def alone(wave, filtered, knots, cutoff, gain):
    """One source, in double precision, by interpolation: an independent computation."""
    wave = wave.numpy().astype(np.float64)
    if filtered:
        spectrum = np.fft.rfft(wave)
        share = np.linspace(0, 1, len(spectrum))
        position = 7 * np.log(np.maximum(share, 0.004) / 0.004) / np.log(250)
        level = np.interp(position, np.arange(8), knots.numpy())
        level -= 60 * np.clip((share - float(cutoff)) / 0.02, 0, 1)
        wave = np.fft.irfft(spectrum * 10 ** (level / 20), len(wave))
    return wave / max(np.sqrt(np.mean(wave**2)), 1e-5) * 10 ** (float(gain) / 20)


@pytest.mark.parametrize("samples", [2000, 2001])
def test_a_batch_equals_one_source_after_the_other(samples):
    waves = torch.randn(5, 3, samples, generator=torch.Generator().manual_seed(0))
    treatment = random_treatment((5, 3))
    assert 3 < treatment.filtered.sum() < 12 and (treatment.cutoff <= 1).any()
    before = waves.clone()
    found = treat(waves, treatment)
    assert torch.equal(waves, before)
    for row in range(5):
        for slot in range(3):
            one = (getattr(treatment, name)[row, slot] for name in ("filtered", "knots", "cutoff", "gain"))
            wanted = alone(waves[row, slot], *one)
            assert np.abs(found[row, slot].numpy() - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_silence_stays_silent_and_levels_are_decibels():
    waves = torch.randn(2, 3, 1000)
    waves[:, 2] = 0
    treatment = Treatment.stack([Treatment.identity(3)] * 2)
    treatment.gain[:] = torch.tensor([[0.0, -6.0, 12.0], [3.0, 0.0, 0.0]])
    treatment.filtered[1, 2] = True
    found = treat(waves, treatment)
    level = 10 * found[:, :2].square().mean(-1).log10()
    assert torch.allclose(level, treatment.gain[:, :2], atol=1e-4)
    assert not found[:, 2].any()


def test_the_response_is_that_of_its_knots():
    knots = torch.tensor([[3.0, -2.0, 5.0, 0.0, 1.0, -7.0, 4.0, 6.0], [0.0] * 8])
    gain = 20 * filter_response(251, knots, torch.tensor([NO_LOW_PASS, 0.5])).log10()
    # Knots lie at 0.4 % to 100 % of the highest frequency; bins 1 and 250 hold the first and the last.
    assert gain[0, [0, 1, 250]].tolist() == pytest.approx([3.0, 3.0, 6.0], abs=1e-3)
    middle = round(250 * 0.004 ** (1 - 4 / 7))
    assert gain[0, middle].item() == pytest.approx(1.0, abs=0.4)
    assert gain[1, :125].abs().max() < 1e-4
    assert gain[1, 125].item() == pytest.approx(0.0, abs=1e-3)
    assert gain[1, 128].item() == pytest.approx(-60 * 0.012 / 0.02, abs=0.01)
    assert gain[1, 131:].tolist() == pytest.approx([-60.0] * 120, abs=1e-3)


def test_filtering_is_linear_phase_and_keeps_the_length():
    impulse = torch.zeros(20, 801)
    impulse[:, 400] = 1.0
    treatment = random_treatment((20,))
    treatment.filtered[:] = True
    found = treat(impulse, treatment)
    assert found.shape == impulse.shape
    assert found.abs().argmax(1).tolist() == [400] * 20
    assert torch.allclose(found, found.flip(1), atol=1e-4)


@pytest.mark.parametrize("samples", [2, 3])
def test_the_shortest_sources_survive(samples):
    treatment = random_treatment((20,))
    treatment.filtered[:] = True
    assert torch.isfinite(treat(torch.ones(20, samples), treatment)).all()
