"""Parts of procedural sounds: noise, harmonics, envelopes, bursts, damped modes, rooms and rhythms.

Sounds are float64 arrays (time,). A spectrum is a list of (hz, decibels) points, interpolated over log frequency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Spectrum = Sequence[tuple[float, float]]
Renderer = Callable[[np.random.Generator, int, int], Array]
"""Renders (time,) samples by random numbers, number of samples and rate."""
SOUNDS: dict[str, Renderer] = {}


def sound(label: str) -> Callable[[Renderer], Renderer]:
    """Register a renderer under a label."""
    return lambda render: SOUNDS.setdefault(label, render)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number between two bounds, uniformly on a logarithmic scale."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def amplitude(spectrum: Spectrum, hz: Array) -> Array:
    """Return the linear amplitude of a spectrum at each frequency."""
    points, decibels = zip(*spectrum, strict=True)
    level = np.interp(np.log(np.maximum(hz, 1.0)), np.log(points), decibels)
    return np.asarray(10 ** (level / 20))


def vary(rng: np.random.Generator, spectrum: Spectrum, spread: float = 3.0) -> list[tuple[float, float]]:
    """Vary a spectrum at random: shift it in frequency, tilt it, and change each point a little."""
    shift, tilt = log_uniform(rng, 0.8, 1.25), rng.uniform(-1.0, 1.0)
    return [
        (hz * shift, decibels + tilt * np.log2(hz / 500) + rng.uniform(-spread, spread)) for hz, decibels in spectrum
    ]


def noise(rng: np.random.Generator, length: int, sample_rate: int, spectrum: Spectrum) -> Array:
    """Return Gaussian noise with a spectrum, high-passed at 30 Hz, root mean square 1."""
    # A single draw from rng at any length, so that later parameters are the same at every sample rate.
    white = np.random.default_rng(int(rng.integers(2**32))).standard_normal(length)
    hz: Array = np.fft.rfftfreq(length, 1 / sample_rate).astype(np.float64)
    response = amplitude(spectrum, hz) * hz**2 / (hz**2 + 30.0**2)
    wave = np.fft.irfft(np.fft.rfft(white) * response, length)
    return wave / max(float(np.sqrt(np.mean(wave**2))), 1e-12)


def wander(rng: np.random.Generator, length: int, sample_rate: int, hz: float) -> Array:
    """Return a smooth random control signal between 0 and 1 that changes about `hz` times a second."""
    knots = rng.random(math.ceil(length / sample_rate * hz) + 2)
    place = np.arange(length) * (hz / sample_rate)
    first = place.astype(np.int64)
    blend = 0.5 - 0.5 * np.cos(np.pi * (place - first))
    return np.asarray(knots[first] * (1 - blend) + knots[first + 1] * blend)


def harmonics(hz: Array, sample_rate: int, spectrum: Spectrum, most: int = 30) -> Array:
    """Return a tone that follows a frequency contour (time,), with harmonics weighted by a spectrum."""
    phase = 2 * np.pi * np.cumsum(hz) / sample_rate
    wave = np.zeros(len(hz))
    for order in range(1, min(most, int(0.47 * sample_rate / hz.min())) + 1):
        audible = order * hz < 0.47 * sample_rate
        # A quadratic phase lowers the crest factor, as a throat or a horn does.
        wave += audible * amplitude(spectrum, order * hz) * np.sin(order * phase + 0.7 * order**2)
    return wave


def strike(length: int, sample_rate: int, attack: float, decay: float) -> Array:
    """Return an envelope that rises in `attack` seconds and falls by a factor e in `decay` seconds."""
    time = np.arange(length) / sample_rate
    return np.asarray(np.minimum(1.0, (time + 1e-5) / attack) * np.exp(-time / decay))


def hold(length: int, sample_rate: int, attack: float, release: float) -> Array:
    """Return an envelope that rises, stays at 1, and falls to 0 at the end."""
    time = np.arange(length) / sample_rate
    edges = np.minimum(time / attack, (length / sample_rate - time) / release)
    return np.asarray(np.sin(0.5 * np.pi * np.clip(edges, 0, 1)))


def burst(rng: np.random.Generator, sample_rate: int, decay: float, spectrum: Spectrum) -> Array:
    """Return a noisy impact that falls by a factor e in `decay` seconds, peak about 1."""
    length = math.ceil(7 * decay * sample_rate) + 32
    wave = noise(rng, length, sample_rate, spectrum)
    return wave * strike(length, sample_rate, 0.0005, decay) / 3


def ring(rng: np.random.Generator, sample_rate: int, partials: Sequence[tuple[float, float, float]]) -> Array:
    """Return a sum of damped sines, partials as (hz, seconds of decay, amplitude)."""
    length = math.ceil(6 * max(decay for _, decay, _ in partials) * sample_rate)
    time = np.arange(length) / sample_rate
    wave = np.zeros(length)
    for hz, decay, amplitude in partials:
        phase = rng.uniform(0, 2 * np.pi)
        if hz < 0.47 * sample_rate:
            audible = time[: math.ceil(6 * decay * sample_rate)]
            sine = np.sin(2 * np.pi * hz * audible + phase)
            wave[: len(audible)] += amplitude * sine * np.exp(-audible / decay)
    return wave * np.minimum(1.0, time / 0.0005)


def add_event(wave: Array, event: Array, second: float, sample_rate: int, level: float = 1.0) -> None:
    """Add an event to a wave at a time; it is cut at the end of the wave."""
    start = round(second * sample_rate)
    end = min(start + len(event), len(wave))
    if start < end:
        wave[start:end] += level * event[: end - start]


def beats(rng: np.random.Generator, seconds: float, gap: float, jitter: float = 0.03) -> Iterator[float]:
    """Yield the times of nearly regular events, the first one within 0.15 s."""
    second = rng.uniform(0.02, 0.15)
    while second < seconds:
        yield second
        second += gap * max(0.2, 1 + jitter * rng.standard_normal())


def groups(rng: np.random.Generator, seconds: float, most: int, gap: float, pause: float) -> Iterator[float]:
    """Yield the times of events in groups of 2 to `most`, `gap` apart, with pauses between groups."""
    second = rng.uniform(0.02, 0.15)
    while second < seconds:
        for _ in range(int(rng.integers(2, most + 1))):
            yield second
            second += gap * rng.uniform(0.85, 1.15)
        second += pause * rng.uniform(0.7, 1.3)


def scatter(rng: np.random.Generator, length: int, sample_rate: int, hz: float, loudest: float) -> Array:
    """Return random impulses, `hz` a second, with a median of 0.4 and a maximum of `loudest`."""
    child = np.random.default_rng(int(rng.integers(2**32)))
    wave = np.zeros(length)
    count = int(child.poisson(hz * length / sample_rate))
    where = (child.random(count) * length).astype(np.int64)
    size = child.pareto(2.0, count).clip(0, loudest)
    np.add.at(wave, where, size * child.choice([-1.0, 1.0], count))
    return wave


def convolve(wave: Array, kernel: Array) -> Array:
    """Return the convolution, cut to the length of the wave."""
    size = len(wave) + len(kernel) - 1
    product = np.fft.rfft(wave, size) * np.fft.rfft(kernel, size)
    return np.fft.irfft(product, size)[: len(wave)]


def room(rng: np.random.Generator, wave: Array, sample_rate: int, decay: float, level: float) -> Array:
    """Add reverberation with the given decay in seconds and amplitude."""
    spectrum = [(100, -3), (500, 0), (2000, -3), (6000, -12), (16000, -24)]
    tail = noise(rng, math.ceil(5 * decay * sample_rate), sample_rate, spectrum)
    tail *= strike(len(tail), sample_rate, 0.01, decay)
    return wave + level * convolve(wave, tail / np.sqrt(np.sum(tail**2)))


def pulses(phase: Array, sharpness: float, strengths: Array) -> Array:
    """Return a periodic envelope that jumps to a strength and decays once a turn of `phase`."""
    turn = phase.astype(np.int64)
    rise = np.minimum(1.0, (phase - turn) / 0.08)
    return np.asarray(rise * np.exp(-sharpness * (phase - turn)) * strengths[turn % len(strengths)])
