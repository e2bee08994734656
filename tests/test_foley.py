"""Procedural sounds: shape, seeds, plausible spectra; the demo's mix. test_frozen_evaluate.py holds their samples."""

from __future__ import annotations

import importlib.util
import json
import sys
import wave
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from separation.data.foley import SOUNDS, synthesise

ROOT = Path(__file__).resolve().parent.parent
LABELS = sorted(SOUNDS)
RATE = 16000
# Bounds of the spectral centroid of power, in Hz, for 16 kHz renderings.
CENTROIDS = {
    "alarm clock": (1200, 5000), "car horn": (300, 2500), "church bells": (250, 2500), "clock ticking": (800, 4500),
    "crackling fire": (50, 3000), "crickets": (2000, 6000), "dog bark": (400, 1600), "door knock": (50, 500),
    "engine": (30, 600), "footsteps": (60, 1500), "helicopter": (50, 800), "keyboard typing": (200, 4500),
    "rain": (500, 4500), "rooster crow": (700, 3000), "sea waves": (200, 2500), "siren": (500, 2000),
    "water drops": (300, 3000), "wind": (40, 600),
}  # fmt: skip


def centroid(sound: np.ndarray, sample_rate: int) -> float:
    """Mean frequency in Hz, weighted by power."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    return float(np.sum(np.fft.rfftfreq(len(sound), 1 / sample_rate) * power) / np.sum(power))


def envelope(sound: np.ndarray, sample_rate: int, rate: int = 200) -> np.ndarray:
    """Root mean square `rate` times a second."""
    size = sample_rate // rate
    blocks = sound[: len(sound) // size * size].reshape(-1, size).astype(np.float64)
    return np.asarray(np.sqrt(np.mean(blocks**2, axis=1)))


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    """The script demos/make_mix.py as a module."""
    spec = importlib.util.spec_from_file_location("make_mix", ROOT / "demos" / "make_mix.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_mix"] = module  # dataclasses look up their module there
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["make_mix"]
    return module


@pytest.mark.parametrize("label", LABELS)
def test_length_range_and_level(label: str) -> None:
    for sample_rate in (8000, 32000, 44100):
        sound = synthesise(label, 0.7, sample_rate, 3)
        assert (sound.dtype, sound.shape) == (np.float32, (round(0.7 * sample_rate),))
        assert np.isfinite(sound).all() and np.abs(sound).max() <= 1
        assert np.sqrt(np.mean(sound**2)) > 0.003
    for samples in (0, 1, 2, 37):
        sound = synthesise(label, samples / RATE, RATE)
        assert sound.shape == (samples,) and np.isfinite(sound).all()


@pytest.mark.parametrize("label", LABELS)
def test_the_seed_determines_waveform_and_parameters(label: str) -> None:
    sounds = [synthesise(label, 2.0, RATE, seed) for seed in range(6)]
    assert np.array_equal(sounds[5], synthesise(label, 2.0, RATE, 5))
    likeness = np.dot(sounds[4], sounds[5]) / (np.linalg.norm(sounds[4]) * np.linalg.norm(sounds[5]))
    assert abs(likeness) < 0.8
    low, high = CENTROIDS[label]
    assert all(low <= centroid(sound, RATE) <= high for sound in sounds)
    # Seeds differ in their spectra, not only in noise.
    edges = (2 * np.geomspace(60, 7800, 25)).astype(int)
    powers = [np.abs(np.fft.rfft(sound)) ** 2 for sound in sounds[:4]]
    profiles = np.stack([10 * np.log10(np.add.reduceat(power, edges) + 1e-9) for power in powers])
    profiles -= profiles.max(axis=1, keepdims=True)
    assert np.mean(np.std(np.maximum(profiles, -50), axis=0)) > 1.0


@pytest.mark.parametrize("label", ["dog bark", "door knock", "siren", "clock ticking", "footsteps"])
def test_a_seed_gives_the_same_parameters_at_any_rate(label: str) -> None:
    low, high = (envelope(synthesise(label, 3.0, rate, 2), rate, 50) for rate in (16000, 44100))
    size = min(len(low), len(high))
    if label == "siren":
        hz = [centroid(synthesise(label, 3.0, rate, 2), rate) for rate in (16000, 44100)]
        assert hz[1] == pytest.approx(hz[0], rel=0.1)
    else:
        assert np.corrcoef(low[:size], high[:size])[0, 1] > 0.8


@pytest.mark.parametrize(
    ("label", "seconds", "sample_rate", "words"),
    [
        ("unicorn", 1.0, RATE, "no sound is called 'unicorn'"),
        ("rain", -1.0, RATE, "cannot last -1.0 seconds"),
        ("rain", float("nan"), RATE, "cannot last nan seconds"),
        ("rain", float("inf"), RATE, "cannot last inf seconds"),
        ("rain", 1.0, 0, "must be positive, not 0"),
    ],
)
def test_bad_requests(label: str, seconds: float, sample_rate: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        synthesise(label, seconds, sample_rate)


def test_demo_stems_add_up_to_the_committed_mix(stems: dict) -> None:
    assert "dog bark" in stems
    assert 3 <= len(stems) <= 4
    with wave.open(str(ROOT / "demos" / "mix.wav"), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (44100, 2, 2)
        raw = file.readframes(file.getnframes())
    stored = np.frombuffer(raw, dtype="<i2").reshape(-1, 2).T.astype(np.float64)
    total = sum(stems.values())
    assert stored.shape == total.shape == (2, 441000)
    # One step for rounding, half a step and a little for other versions of numpy.
    assert np.abs(stored - 32768 * total).max() <= 1.5
    assert 20 * np.log10(np.abs(stored).max() / 32768) == pytest.approx(-3.0, abs=0.05)
    assert (ROOT / "demos" / "mix.wav").stat().st_size < 2_000_000


def test_demo_stems_are_equally_loud_overlap_and_lie_apart(stems: dict) -> None:
    energy = 10 * np.log10([np.sum(sound**2) for sound in stems.values()])
    assert np.ptp(energy) < 3
    balance = sorted(np.sum(sound[1] ** 2) / np.sum(sound**2) for sound in stems.values())
    assert min(np.diff(balance)) > 0.05
    levels = [envelope(sound.mean(axis=0), 44100, 10) for sound in stems.values()]
    sounding = np.stack([level > 0.2 * level.max() for level in levels])
    assert np.mean(sounding.sum(axis=0) >= 2) > 0.5
    assert np.mean(sounding.all(axis=0)) > 0.1


def test_demo_written_again_is_the_same(
    demo: ModuleType, stems: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "stems", lambda: stems)
    demo.main(tmp_path)
    first = (tmp_path / "mix.wav").read_bytes()
    committed = (ROOT / "demos" / "mix.wav").read_bytes()
    assert len(first) == len(committed)
    new, old = (np.frombuffer(data[44:], "<i2").astype(int) for data in (first, committed))
    assert np.abs(new - old).max() <= 1
    listed = json.loads((ROOT / "demos" / "mix.json").read_text(encoding="utf-8"))
    assert listed == json.loads((tmp_path / "mix.json").read_text(encoding="utf-8"))
    assert [stem["label"] for stem in listed["stems"]] == list(stems)
    assert all(stem["query"] and isinstance(stem["seed"], int) for stem in listed["stems"])
