"""What procedural sounds are made of: noise, harmonics, envelopes, bursts, rings, rooms, and rhythms to place them in.

Sounds are float64 arrays (time,); hz, seconds and decibels are what the names say. A spectrum is a list of
(hz, decibels) points, interpolated over the logarithm of frequency.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Spectrum = Sequence[tuple[float, float]]


def logarithmic(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two bounds, every octave as likely as the next."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def gain(spectrum: Spectrum, hz: Array) -> Array:
    """The spectrum's linear amplitude at each frequency."""
    points, decibels = zip(*spectrum, strict=True)
    level = np.interp(np.log(np.maximum(hz, 1.0)), np.log(points), decibels)
    return np.asarray(10 ** (level / 20))


def vary(rng: np.random.Generator, spectrum: Spectrum, spread: float = 3.0) -> list[tuple[float, float]]:
    """The spectrum of another specimen: moved in frequency, tilted, each point a little off."""
    shift, tilt = logarithmic(rng, 0.8, 1.25), rng.uniform(-1.0, 1.0)
    return [
        (hz * shift, decibels + tilt * np.log2(hz / 500) + rng.uniform(-spread, spread)) for hz, decibels in spectrum
    ]


def filtered(wave: Array, sample_rate: int, spectrum: Spectrum) -> Array:
    """Shape a wave by a spectrum; what lies under 30 Hz goes."""
    hz: Array = np.fft.rfftfreq(len(wave), 1 / sample_rate).astype(np.float64)
    response = gain(spectrum, hz) * hz**2 / (hz**2 + 30.0**2)
    return np.fft.irfft(np.fft.rfft(wave) * response, len(wave))


def noise(rng: np.random.Generator, length: int, sample_rate: int, spectrum: Spectrum) -> Array:
    """Gaussian noise with a spectrum, root mean square 1."""
    # One draw from rng whatever the length: later parameters are the same at every sample rate.
    white = np.random.default_rng(int(rng.integers(2**32))).standard_normal(length)
    wave = filtered(white, sample_rate, spectrum)
    return wave / max(float(np.sqrt(np.mean(wave**2))), 1e-12)


def wander(rng: np.random.Generator, length: int, sample_rate: int, hz: float) -> Array:
    """A smooth random control between 0 and 1 that changes about hz times a second."""
    knots = rng.random(math.ceil(length / sample_rate * hz) + 2)
    place = np.arange(length) * (hz / sample_rate)
    first = place.astype(np.int64)
    blend = 0.5 - 0.5 * np.cos(np.pi * (place - first))
    return np.asarray(knots[first] * (1 - blend) + knots[first + 1] * blend)


def harmonics(hz: Array, sample_rate: int, spectrum: Spectrum, most: int = 30) -> Array:
    """A tone that follows a frequency contour (time,), its harmonics weighted by a spectrum."""
    phase = 2 * np.pi * np.cumsum(hz) / sample_rate
    wave = np.zeros(len(hz))
    for order in range(1, min(most, int(0.47 * sample_rate / hz.min())) + 1):
        audible = order * hz < 0.47 * sample_rate
        # A quadratic phase spreads the harmonics' crests, as a throat or a horn does.
        wave += audible * gain(spectrum, order * hz) * np.sin(order * phase + 0.7 * order**2)
    return wave


def strike(length: int, sample_rate: int, attack: float, decay: float) -> Array:
    """An envelope that rises in `attack` seconds and falls by a factor e in `decay` seconds."""
    time = np.arange(length) / sample_rate
    return np.asarray(np.minimum(1.0, (time + 1e-5) / attack) * np.exp(-time / decay))


def hold(length: int, sample_rate: int, attack: float, release: float) -> Array:
    """An envelope that rises, stays at 1, and falls to 0 at the end."""
    time = np.arange(length) / sample_rate
    edges = np.minimum(time / attack, (length / sample_rate - time) / release)
    return np.asarray(np.sin(0.5 * np.pi * np.clip(edges, 0, 1)))


def burst(rng: np.random.Generator, sample_rate: int, decay: float, spectrum: Spectrum) -> Array:
    """A struck, noisy sound that dies away in `decay` seconds a factor e, peak about 1."""
    length = math.ceil(7 * decay * sample_rate) + 32
    wave = noise(rng, length, sample_rate, spectrum)
    return wave * strike(length, sample_rate, 0.0005, decay) / 3


def ring(rng: np.random.Generator, sample_rate: int, partials: Sequence[tuple[float, float, float]]) -> Array:
    """Damped sines, partials as (hz, seconds of decay, amplitude)."""
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


def place(wave: Array, event: Array, second: float, sample_rate: int, level: float = 1.0) -> None:
    """Add an event to a wave at a time; what goes beyond the end is cut."""
    start = round(second * sample_rate)
    end = min(start + len(event), len(wave))
    if start < end:
        wave[start:end] += level * event[: end - start]


def beats(rng: np.random.Generator, seconds: float, gap: float, jitter: float = 0.03) -> Iterator[float]:
    """Times of nearly regular events, the first one soon."""
    second = rng.uniform(0.02, 0.15)
    while second < seconds:
        yield second
        second += gap * max(0.2, 1 + jitter * rng.standard_normal())


def groups(rng: np.random.Generator, seconds: float, most: int, gap: float, pause: float) -> Iterator[float]:
    """Times of events in groups of 2 to `most`, `gap` apart, with pauses between the groups."""
    second = rng.uniform(0.02, 0.15)
    while second < seconds:
        for _ in range(int(rng.integers(2, most + 1))):
            yield second
            second += gap * rng.uniform(0.85, 1.15)
        second += pause * rng.uniform(0.7, 1.3)


def scatter(rng: np.random.Generator, length: int, sample_rate: int, hz: float, loudest: float) -> Array:
    """Random impulses, hz of them a second, a few of them up to `loudest`, the median 0.4."""
    child = np.random.default_rng(int(rng.integers(2**32)))
    wave = np.zeros(length)
    count = int(child.poisson(hz * length / sample_rate))
    where = (child.random(count) * length).astype(np.int64)
    size = child.pareto(2.0, count).clip(0, loudest)
    np.add.at(wave, where, size * child.choice([-1.0, 1.0], count))
    return wave


def convolve(wave: Array, kernel: Array) -> Array:
    """The convolution, cut to the wave's length."""
    size = len(wave) + len(kernel) - 1
    product = np.fft.rfft(wave, size) * np.fft.rfft(kernel, size)
    return np.fft.irfft(product, size)[: len(wave)]


def room(rng: np.random.Generator, wave: Array, sample_rate: int, decay: float, level: float) -> Array:
    """The wave with a decaying echo, `level` being the echo's share of amplitude."""
    spectrum = [(100, -3), (500, 0), (2000, -3), (6000, -12), (16000, -24)]
    tail = noise(rng, math.ceil(5 * decay * sample_rate), sample_rate, spectrum)
    tail *= strike(len(tail), sample_rate, 0.01, decay)
    return wave + level * convolve(wave, tail / np.sqrt(np.sum(tail**2)))


def pulses(phase: Array, sharpness: float, strengths: Array) -> Array:
    """A periodic envelope: once a turn of `phase` it jumps to a strength and dies away."""
    turn = phase.astype(np.int64)
    rise = np.minimum(1.0, (phase - turn) / 0.08)
    return np.asarray(rise * np.exp(-sharpness * (phase - turn)) * strengths[turn % len(strengths)])
