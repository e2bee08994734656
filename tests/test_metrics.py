"""Metrics of signals with known values, and against independent libraries where they are installed."""

import json
import sys
import warnings

import numpy as np
import pytest
import torch
from parity.fixtures import ROOT, needs_fixtures, rules
from scipy import signal, stats

from separation.compat import make_importable
from separation.evaluate import metrics
from separation.evaluate.metrics import (
    METRICS,
    PUBLISHED_EPSILON,
    PUBLISHED_FLOOR,
    Signals,
    bootstrap,
    bss_eval,
    energy,
    sdr,
    sdri,
    si_sdr,
    si_sdri,
    snr,
    suppression,
    windowed_sdr,
)
from separation.evaluate.scoring import oracle_estimate

RATE = 16000
RNG = np.random.default_rng(0)
TARGET = RNG.standard_normal(10000)
OTHER = RNG.standard_normal(10000)


def test_ratios_of_silence_and_of_perfect_estimates():
    assert (metrics.decibel(1, 0), metrics.decibel(0, 1), metrics.decibel(100, 1)) == (np.inf, -np.inf, 20)
    assert energy(np.full(4, 1e30, dtype=np.float32)) == pytest.approx(4e60, rel=1e-6)  # in double precision
    assert np.isnan([si_sdr(TARGET, 0 * TARGET), si_sdr(0 * TARGET, TARGET)]).all()
    assert si_sdr(TARGET, 0 * TARGET, PUBLISHED_EPSILON) == pytest.approx(0, abs=1e-6)
    assert sdr(TARGET, TARGET, PUBLISHED_FLOOR) == pytest.approx(10 * np.log10(np.square(TARGET).mean() / 1e-10))
    assert sdr(0 * TARGET, 0 * TARGET, PUBLISHED_FLOOR) == 0
    tensors = [torch.from_numpy(wave) for wave in (TARGET, TARGET + OTHER, TARGET + 2 * OTHER)]
    assert sdri(*tensors) == sdri(*(tensor.numpy() for tensor in tensors))


@pytest.mark.parametrize("gain, wanted", [(1, 0), (2, -6.0206), (0.1, 20), (1e-3, 60), (1e-5, 60), (0, 60)])
def test_suppression_is_the_level_below_the_mixture(gain, wanted):
    assert suppression(TARGET, gain * TARGET) == pytest.approx(wanted, abs=1e-4)


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
    assert bootstrap(np.array([1.0, 3.0] * 100), [str(i // 2) for i in range(200)]) == (2.0, 2.0)  # all have the mean 2
    unequal = np.tile([0.0] * 9 + [1.0], 100)  # a hundred recordings of nine rows each, a hundred of one
    low, high = bootstrap(unequal, [f"{i // 10}{'one' if i % 10 == 9 else 'nine'}" for i in range(1000)])
    assert 0.07 < low < 0.1 < high < 0.14


# SI-SDR, SNR, segmental SNR


@pytest.mark.parametrize("gain", [1, 0.5, -2, 100])
def test_si_sdr_ignores_gain_only(gain):
    other = OTHER - (OTHER @ TARGET) / (TARGET @ TARGET) * TARGET  # at right angles to the target
    other *= np.sqrt(energy(TARGET) / energy(other)) / 10
    assert si_sdr(TARGET, gain * (TARGET + other)) == pytest.approx(20, abs=1e-9)
    assert si_sdri(TARGET, TARGET + 0.1 * other, TARGET + other) == pytest.approx(20, abs=1e-9)


@needs_fixtures
def test_values_of_the_published_systems():
    fixture = json.loads((ROOT / "uss/fixtures/metrics.json").read_text())
    uniform = rules("uss").signed_uniform
    reference, noise = (uniform(f"anchorwav/{i}", 320000, 1)[:8000].astype(np.float32) for i in (0, 1))
    for row in fixture["rows"]:
        estimate = (row["gain"] * reference + row["noise"] * noise).astype(np.float32)
        # Theirs are single-precision sums: where the error is nothing they are figures of rounding.
        assert sdr(reference, estimate, PUBLISHED_FLOOR) == pytest.approx(row["sdr"], abs=1e-4)
        assert si_sdr(reference, estimate, PUBLISHED_EPSILON) == pytest.approx(row["sisdr"], abs=1e-4)


@pytest.fixture
def torchmetrics():
    """Its metrics of audio; they come with lightning."""
    make_importable()
    return pytest.importorskip("torchmetrics.functional.audio")


@pytest.mark.parametrize("share", [0.01, 0.3, 2.0])
def test_ratios_equal_torchmetrics(torchmetrics, share):
    estimate = 0.7 * TARGET + share * OTHER + 0.05
    given = torch.from_numpy(estimate), torch.from_numpy(TARGET)
    assert sdr(TARGET, estimate) == pytest.approx(float(torchmetrics.signal_noise_ratio(*given)), abs=1e-6)
    zero_mean = torchmetrics.signal_noise_ratio(*given, zero_mean=True)
    assert snr(TARGET, estimate, zero_mean=True) == pytest.approx(float(zero_mean), abs=1e-6)
    scale_free = torchmetrics.scale_invariant_signal_distortion_ratio(*given)
    assert si_sdr(TARGET, estimate) == pytest.approx(float(scale_free), abs=1e-6)


def test_segmental_snr_is_the_mean_of_frames_within_limits():
    window = signal.windows.hann(482)[1:-1]
    estimate = TARGET + np.where(np.arange(10000) < 5000, 1e-4, 0.3) * OTHER

    def energies(wave):  # by Parseval, from scipy's spectra
        frames = signal.ShortTimeFFT(window, 120, RATE, fft_mode="twosided")
        spectra = frames.stft(wave, p0=2, p1=2 + len(range(0, 10000 - 479, 120)))
        return np.square(np.abs(spectra)).sum(axis=0)

    ratios = 10 * np.log10(energies(TARGET) / energies(TARGET - estimate))
    assert ratios.max() > 60
    assert metrics.segmental_snr(TARGET, estimate, RATE) == pytest.approx(
        np.clip(ratios, -10, 35)[:-1].mean(), abs=1e-6
    )
    assert metrics.segmental_snr(TARGET, TARGET, RATE) == 35
    assert metrics.segmental_snr(TARGET, -100 * TARGET, RATE) == -10
    with pytest.raises(ValueError, match=r"needs at least 0\.037 s"):
        metrics.segmental_snr(TARGET[:500], TARGET[:500], RATE)


# BSS Eval


def sources(channels=1, length=8000):
    """Two sources (2, channels, length), one silent for a while, and estimates with leaks, filtering and noise."""
    rng = np.random.default_rng(3)
    true = rng.standard_normal((2, channels, length))
    true[0, :, 2000:4000] = 0
    first = true[0] + 0.3 * true[1] + 0.1 * rng.standard_normal((channels, length))
    second = true[1] + 0.4 * np.roll(true[1], 5, -1) + 0.2 * true[0]
    return true, np.stack([first, second])


@pytest.mark.filterwarnings("ignore:mir_eval.separation.bss_eval_sources")
def test_bss_eval_version_3_equals_mir_eval():
    mir_eval = pytest.importorskip("mir_eval.separation")
    rng = np.random.default_rng(4)
    references = rng.standard_normal((2, 9000))
    filtered = np.convolve(references[0], [0.2, 0.0, 0.7])[:9000]
    estimates = np.stack(
        [
            filtered + 0.3 * references[1] + 0.1 * rng.standard_normal(9000),
            references.sum(0) + 0.2 * rng.standard_normal(9000),
        ]
    )
    theirs = mir_eval.bss_eval_sources(references, estimates, compute_permutation=False)[:3]
    mixture = references.sum(0)
    for source in range(2):
        signals = Signals(references[source], mixture, estimates[source], mixture - estimates[source], 16000)
        ours = [METRICS[f"bss3_{name}"].compute(signals) for name in ("sdr", "sir", "sar")]
        assert ours == pytest.approx([each[source] for each in theirs], abs=1e-6)
        before = mir_eval.bss_eval_sources(references, np.stack([mixture] * 2), compute_permutation=False)[0][source]
        assert METRICS["bss3_sdri"].compute(signals) == pytest.approx(theirs[0][source] - before, abs=1e-6)
    silent = Signals(0 * mixture, mixture, mixture, mixture, 16000)
    assert np.isnan([METRICS[f"bss3_{name}"].compute(silent) for name in ("sdr", "sdri", "sir", "sar")]).all()


@pytest.mark.parametrize("channels", [1, 2])
def test_bss_eval_equals_mir_eval(channels):
    mir_eval = pytest.importorskip("mir_eval.separation")
    true, guess = sources(channels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # they will drop it
        theirs = mir_eval.bss_eval_images(np.moveaxis(true, 1, 2), np.moveaxis(guess, 1, 2), compute_permutation=False)
    found = bss_eval(true, guess)
    for ours, their in zip((found.sdr, found.isr, found.sir, found.sar), theirs, strict=False):
        assert np.allclose(ours[:, 0], their, atol=1e-8)


def test_sdr_of_windows_needs_no_filters():
    true, guess = sources()
    found = bss_eval(true, guess, 2000)
    assert np.allclose(windowed_sdr(true[1], guess[1], 2000)[[0, 2, 3]], found.sdr[1, [0, 2, 3]], atol=1e-9)
    assert np.isnan(windowed_sdr(true[0], guess[0], 2000)).tolist() == [False, True, False, False]
    assert windowed_sdr(TARGET, TARGET + 0.1 * OTHER)[0] == sdr(TARGET, TARGET + 0.1 * OTHER)


def test_bss_eval_of_silence_and_of_shapes_that_differ():
    true, guess = sources()
    silent = bss_eval(true, 0 * guess)
    assert np.isnan([silent.sdr, silent.isr, silent.sir, silent.sar]).all()
    with pytest.raises(ValueError, match="shape"):
        bss_eval(true, guess[:1])
    with pytest.raises(ValueError, match="shape"):
        bss_eval(TARGET, TARGET)


# Speech


def speech(seconds=2.0, rate=RATE):
    """Something with syllables: harmonics of 120 Hz that come and go four times a second."""
    time = np.arange(int(seconds * rate)) / rate
    voice = sum(np.sin(2 * np.pi * 120 * k * time + k) / k for k in range(1, 30))
    return 0.1 * voice * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * time))


def test_pesq_falls_with_noise():
    pytest.importorskip("pesq")
    clean = speech()
    noise = np.random.default_rng(0).standard_normal(len(clean))
    found = [metrics.pesq(clean, clean + share * noise, RATE) for share in (0, 0.005, 0.05)]
    assert found[0] == pytest.approx(4.644, abs=1e-3)  # the scale's end
    assert found[0] > found[1] > found[2] > 1
    assert metrics.pesq(speech(rate=32000), speech(rate=32000), 32000) == pytest.approx(4.644, abs=0.01)
    assert np.isnan(metrics.pesq(clean, 0 * clean, RATE))
    assert np.isnan(metrics.pesq(clean[:100], clean[:100], RATE))


def test_stoi_equals_pystoi():
    library = pytest.importorskip("pystoi")
    clean = speech()
    noisy = clean + 0.1 * np.random.default_rng(0).standard_normal(len(clean))
    assert metrics.stoi(clean, clean, RATE) == pytest.approx(1, abs=1e-6)
    assert metrics.stoi(clean, noisy, RATE) == pytest.approx(library.stoi(clean, noisy, RATE), abs=1e-9)
    extended = library.stoi(clean, noisy, RATE, extended=True)
    assert metrics.stoi(clean, noisy, RATE, extended=True) == pytest.approx(extended, abs=1e-9)
    for wave in (clean[:2000], clean[:200], clean[:1], np.eye(1, 32000, 16000)[0]):  # too little speech
        assert np.isnan(metrics.stoi(wave, wave, RATE))


@pytest.mark.parametrize(("function", "name"), [(metrics.pesq, "pesq"), (metrics.stoi, "pystoi")])
def test_a_missing_package_is_named(monkeypatch, function, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(metrics.MissingPackage, match=f"needs the package {name}: pip install {name}"):
        function(TARGET, TARGET, RATE)


# Oracle mask


@pytest.mark.parametrize("rate", [16000, 22050, 32000, 44100])
def test_oracle_mask_separates_disjoint_spectra(rate):
    time = np.arange(rate) / rate
    low, high = (np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (500, 4000))
    estimate = oracle_estimate(low, low + high, rate)
    assert estimate.shape == low.shape
    assert sdr(low, estimate) > 25
    # Equal spectra leave half of the mixture.
    assert np.allclose(oracle_estimate(low, 2 * low, rate), low, atol=1e-3)
