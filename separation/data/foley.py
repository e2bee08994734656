"""Procedural everyday sounds: seeded, a few lines each, nothing recorded.

`synthesise("dog bark", seconds=4.0, sample_rate=32000, seed=1)` returns one sound; `SOUNDS` maps
every label to its function. A seed fixes the parameters (pitch, tempo, brightness, spacing), at
any sample rate and length; another seed gives another dog, clock or engine.

Inside, sounds are float64 arrays (time,); hz, seconds and decibels are what the names say. A
spectrum is a list of (hz, decibels) points, interpolated over the logarithm of frequency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Spectrum = Sequence[tuple[float, float]]
Renderer = Callable[[np.random.Generator, int, int], Array]
Sound = Callable[[np.random.Generator, float, int], NDArray[np.float32]]

PEAK = 0.9
# Shorter requests are rendered this long and cut, so that every sound has its first event.
SHORTEST = 0.5

SOUNDS: dict[str, Sound] = {}


def synthesise(label: str, seconds: float = 4.0, sample_rate: int = 32000, seed: int = 0) -> NDArray[np.float32]:
    """Render one sound, (time,) float32, peak at most 1, round(seconds * sample_rate) samples.

    The same arguments give the same samples. Raises ValueError for a label that is not in
    `SOUNDS`, for a negative or infinite duration and for a sample rate that is not positive.
    """
    if label not in SOUNDS:
        raise ValueError(f"no sound is called {label!r}; there are: {', '.join(SOUNDS)}")
    return SOUNDS[label](np.random.default_rng(seed), seconds, sample_rate)


def _sound(label: str) -> Callable[[Renderer], Sound]:
    """Register a renderer under a label, with its length and its peak taken care of."""

    def register(render: Renderer) -> Sound:
        def sound(rng: np.random.Generator, seconds: float, sample_rate: int) -> NDArray[np.float32]:
            if not (math.isfinite(seconds) and seconds >= 0):
                raise ValueError(f"a sound cannot last {seconds} seconds")
            if sample_rate <= 0:
                raise ValueError(f"a sample rate must be positive, not {sample_rate}")
            length = round(seconds * sample_rate)
            wave = render(rng, max(length, math.ceil(SHORTEST * sample_rate)), sample_rate)
            cut: Array = wave[:length] * (PEAK / np.abs(wave).max())
            return cut.astype(np.float32)

        sound.__doc__ = render.__doc__
        sound.__name__ = sound.__qualname__ = render.__name__
        SOUNDS[label] = sound
        return sound

    return register


# --- Building blocks -------------------------------------------------------------------------


def _logarithmic(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two bounds, every octave as likely as the next."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _gain(spectrum: Spectrum, hz: Array) -> Array:
    """The spectrum's linear amplitude at each frequency."""
    points, decibels = zip(*spectrum, strict=True)
    level = np.interp(np.log(np.maximum(hz, 1.0)), np.log(points), decibels)
    return np.asarray(10 ** (level / 20))


def _vary(rng: np.random.Generator, spectrum: Spectrum, spread: float = 3.0) -> list[tuple[float, float]]:
    """The spectrum of another specimen: moved in frequency, tilted, each point a little off."""
    shift, tilt = _logarithmic(rng, 0.8, 1.25), rng.uniform(-1.0, 1.0)
    return [
        (hz * shift, decibels + tilt * np.log2(hz / 500) + rng.uniform(-spread, spread)) for hz, decibels in spectrum
    ]


def _filter(wave: Array, sample_rate: int, spectrum: Spectrum) -> Array:
    """Shape a wave by a spectrum; what lies under 30 Hz goes."""
    hz: Array = np.fft.rfftfreq(len(wave), 1 / sample_rate).astype(np.float64)
    response = _gain(spectrum, hz) * hz**2 / (hz**2 + 30.0**2)
    return np.fft.irfft(np.fft.rfft(wave) * response, len(wave))


def _noise(rng: np.random.Generator, length: int, sample_rate: int, spectrum: Spectrum) -> Array:
    """Gaussian noise with a spectrum, root mean square 1."""
    # One draw from rng whatever the length: later parameters are the same at every sample rate.
    white = np.random.default_rng(int(rng.integers(2**32))).standard_normal(length)
    wave = _filter(white, sample_rate, spectrum)
    return wave / max(float(np.sqrt(np.mean(wave**2))), 1e-12)


def _wander(rng: np.random.Generator, length: int, sample_rate: int, hz: float) -> Array:
    """A smooth random control between 0 and 1 that changes about hz times a second."""
    knots = rng.random(math.ceil(length / sample_rate * hz) + 2)
    place = np.arange(length) * (hz / sample_rate)
    first = place.astype(np.int64)
    blend = 0.5 - 0.5 * np.cos(np.pi * (place - first))
    return np.asarray(knots[first] * (1 - blend) + knots[first + 1] * blend)


def _harmonics(hz: Array, sample_rate: int, spectrum: Spectrum, most: int = 30) -> Array:
    """A tone that follows a frequency contour (time,), its harmonics weighted by a spectrum."""
    phase = 2 * np.pi * np.cumsum(hz) / sample_rate
    wave = np.zeros(len(hz))
    for order in range(1, min(most, int(0.47 * sample_rate / hz.min())) + 1):
        audible = order * hz < 0.47 * sample_rate
        # A quadratic phase spreads the harmonics' crests, as a throat or a horn does.
        wave += audible * _gain(spectrum, order * hz) * np.sin(order * phase + 0.7 * order**2)
    return wave


def _strike(length: int, sample_rate: int, attack: float, decay: float) -> Array:
    """An envelope that rises in `attack` seconds and falls by a factor e in `decay` seconds."""
    time = np.arange(length) / sample_rate
    return np.asarray(np.minimum(1.0, (time + 1e-5) / attack) * np.exp(-time / decay))


def _hold(length: int, sample_rate: int, attack: float, release: float) -> Array:
    """An envelope that rises, stays at 1, and falls to 0 at the end."""
    time = np.arange(length) / sample_rate
    edges = np.minimum(time / attack, (length / sample_rate - time) / release)
    return np.asarray(np.sin(0.5 * np.pi * np.clip(edges, 0, 1)))


def _burst(rng: np.random.Generator, sample_rate: int, decay: float, spectrum: Spectrum) -> Array:
    """A struck, noisy sound that dies away in `decay` seconds a factor e, peak about 1."""
    length = math.ceil(7 * decay * sample_rate) + 32
    wave = _noise(rng, length, sample_rate, spectrum)
    return wave * _strike(length, sample_rate, 0.0005, decay) / 3


def _ring(rng: np.random.Generator, sample_rate: int, partials: Sequence[tuple[float, float, float]]) -> Array:
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


def _place(wave: Array, event: Array, second: float, sample_rate: int, level: float = 1.0) -> None:
    """Add an event to a wave at a time; what goes beyond the end is cut."""
    start = round(second * sample_rate)
    end = min(start + len(event), len(wave))
    if start < end:
        wave[start:end] += level * event[: end - start]


def _beats(rng: np.random.Generator, seconds: float, gap: float, jitter: float = 0.03) -> Iterator[float]:
    """Times of nearly regular events, the first one soon."""
    second = rng.uniform(0.02, 0.15)
    while second < seconds:
        yield second
        second += gap * max(0.2, 1 + jitter * rng.standard_normal())


def _groups(rng: np.random.Generator, seconds: float, most: int, gap: float, pause: float) -> Iterator[float]:
    """Times of events in groups of 2 to `most`, `gap` apart, with pauses between the groups."""
    second = rng.uniform(0.02, 0.15)
    while second < seconds:
        for _ in range(int(rng.integers(2, most + 1))):
            yield second
            second += gap * rng.uniform(0.85, 1.15)
        second += pause * rng.uniform(0.7, 1.3)


def _scatter(rng: np.random.Generator, length: int, sample_rate: int, hz: float, loudest: float) -> Array:
    """Random impulses, hz of them a second, a few of them up to `loudest`, the median 0.4."""
    child = np.random.default_rng(int(rng.integers(2**32)))
    wave = np.zeros(length)
    count = int(child.poisson(hz * length / sample_rate))
    where = (child.random(count) * length).astype(np.int64)
    size = child.pareto(2.0, count).clip(0, loudest)
    np.add.at(wave, where, size * child.choice([-1.0, 1.0], count))
    return wave


def _convolve(wave: Array, kernel: Array) -> Array:
    """The convolution, cut to the wave's length."""
    size = len(wave) + len(kernel) - 1
    product = np.fft.rfft(wave, size) * np.fft.rfft(kernel, size)
    return np.fft.irfft(product, size)[: len(wave)]


def _room(rng: np.random.Generator, wave: Array, sample_rate: int, decay: float, level: float) -> Array:
    """The wave with a decaying echo, `level` being the echo's share of amplitude."""
    spectrum = [(100, -3), (500, 0), (2000, -3), (6000, -12), (16000, -24)]
    tail = _noise(rng, math.ceil(5 * decay * sample_rate), sample_rate, spectrum)
    tail *= _strike(len(tail), sample_rate, 0.01, decay)
    return wave + level * _convolve(wave, tail / np.sqrt(np.sum(tail**2)))


def _pulses(phase: Array, sharpness: float, strengths: Array) -> Array:
    """A periodic envelope: once a turn of `phase` it jumps to a strength and dies away."""
    turn = phase.astype(np.int64)
    rise = np.minimum(1.0, (phase - turn) / 0.08)
    return np.asarray(rise * np.exp(-sharpness * (phase - turn)) * strengths[turn % len(strengths)])


# --- Animals ---------------------------------------------------------------------------------


@_sound("dog bark")
def dog_bark(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Barks in groups: short, voiced, rising then falling, through two formants, with breath."""
    size = _logarithmic(rng, 0.75, 1.35)
    pitch = _logarithmic(rng, 230, 480) / size
    throat = [
        (100, -30), (300 / size, -18), (600 / size, -2), (850 / size, 0), (1250 / size, -4),
        (1800 / size, -14), (2600 / size, -20), (3500, -32), (6000, -40), (14000, -56),
    ]  # fmt: skip
    rough, breath = rng.uniform(0.1, 0.5), rng.uniform(0.15, 0.4)
    duration, gap = rng.uniform(0.13, 0.24) * size, rng.uniform(0.32, 0.6)
    wave = np.zeros(length)
    for second in _groups(rng, length / sample_rate, 4, max(gap, duration + 0.1), 0.7):
        count = round(duration * rng.uniform(0.85, 1.15) * sample_rate)
        place = np.arange(count) / count
        arch = 0.72 + 0.42 * np.sin(np.pi * place**0.6) - 0.12 * place
        jitter = 1 + 0.06 * (_wander(rng, count, sample_rate, 90) - 0.5)
        voice = _harmonics(pitch * rng.uniform(0.93, 1.07) * arch * jitter, sample_rate, throat)
        voice *= 1 - rough * _wander(rng, count, sample_rate, 70)
        voice /= np.sqrt(np.mean(voice**2))
        voice += breath * _noise(rng, count, sample_rate, throat)
        envelope = _hold(count, sample_rate, 0.018, 0.7 * duration)
        _place(wave, voice * envelope, second, sample_rate, rng.uniform(0.7, 1.0))
    return _room(rng, wave, sample_rate, rng.uniform(0.04, 0.12), rng.uniform(0.1, 0.3))


@_sound("rooster crow")
def rooster_crow(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Cock-a-doodle-doo: three short notes and a long one that sinks at its end."""
    pitch = _logarithmic(rng, 520, 800)
    beak = _vary(rng, [
        (300, -34), (550, -16), (900, -8), (1300, -8), (1900, 0), (2600, -16), (3400, -20),
        (4500, -26), (6000, -34), (12000, -48),
    ], 2.0)  # fmt: skip
    wave = np.zeros(length)
    second = rng.uniform(0.02, 0.15)
    while second < length / sample_rate:
        for duration, start, middle, end in (
            (0.16, 0.75, 0.95, 0.9), (0.14, 0.9, 1.0, 0.95),
            (0.24, 1.0, 1.2, 1.1), (rng.uniform(0.7, 1.2), 1.1, 1.25, 0.75),
        ):  # fmt: skip
            count = round(duration * rng.uniform(0.9, 1.1) * sample_rate)
            place = np.linspace(0, 1, count)
            contour = np.interp(place, [0, 0.12, 0.6, 1], [start, middle, middle * 0.96, end])
            shake = 1 + 0.03 * (_wander(rng, count, sample_rate, 40) - 0.5)
            note = _harmonics(pitch * contour * shake, sample_rate, beak, 16)
            note *= 1 - 0.5 * _wander(rng, count, sample_rate, 60)
            note += 0.05 * np.abs(note).max() * _noise(rng, count, sample_rate, beak)
            note *= _hold(count, sample_rate, 0.02, 0.3 * duration)
            _place(wave, note, second, sample_rate, 0.6 if duration < 0.2 else 1.0)
            second += count / sample_rate + rng.uniform(0.02, 0.06)
        second += rng.uniform(0.9, 2.0)
    return _room(rng, wave, sample_rate, rng.uniform(0.1, 0.25), rng.uniform(0.1, 0.3))


@_sound("crickets")
def crickets(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """One to three insects: a high tone in quick pulses, the pulses in chirps; quiet night air."""
    time = np.arange(length) / sample_rate
    air = [(60, 0), (300, -14), (1000, -20), (4000, -25), (12000, -45)]
    wave = rng.uniform(0.02, 0.06) * _noise(rng, length, sample_rate, air)
    for insect in range(int(rng.integers(1, 4))):
        hz = min(_logarithmic(rng, 3200, 5400), 0.42 * sample_rate)
        pulse, chirp = rng.uniform(22, 45), rng.uniform(1.4, 3.2)
        share, start = rng.uniform(0.35, 0.8), rng.uniform(0, 1)
        pulses = np.maximum(0, np.sin(2 * np.pi * pulse * time)) ** 0.7
        turn = (time * chirp + start + 0.15 * _wander(rng, length, sample_rate, 0.7)) % 1
        chirps = np.sin(np.pi * np.clip(turn / share, 0, 1)) ** 0.5
        drift = 1 + 0.01 * _wander(rng, length, sample_rate, 5)
        tone = np.sin(2 * np.pi * np.cumsum(hz * drift) / sample_rate)
        wave += tone * pulses * chirps * (1.0 if insect == 0 else rng.uniform(0.1, 0.5))
    return _room(rng, wave, sample_rate, 0.1, 0.2)


# --- Weather, water, fire --------------------------------------------------------------------


@_sound("rain")
def rain(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """A broad hiss of far drops and a dense patter of near ones."""
    far = _vary(rng, [(60, -2), (300, -4), (900, -3), (2500, -8), (5000, -12), (12000, -24)])
    near = _vary(rng, [(100, -24), (500, -12), (1500, -2), (4000, 0), (9000, -9), (16000, -20)])
    wave = _noise(rng, length, sample_rate, far)
    wave *= 0.85 + 0.3 * _wander(rng, length, sample_rate, 0.5)
    patter = np.zeros(length)
    for decay in (0.002, 0.004, 0.008):
        drops = _scatter(rng, length, sample_rate, _logarithmic(rng, 30, 250), 3.0)
        patter += _convolve(drops, _burst(rng, sample_rate, decay, near))
    wave += rng.uniform(0.25, 0.8) * patter / np.sqrt(np.mean(patter**2))
    return wave


@_sound("sea waves")
def sea_waves(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Swells of noise that break quickly and run out slowly, brighter while they break."""
    body = _vary(rng, [(60, -2), (300, 0), (600, -1), (1300, -6), (3000, -15), (12000, -30)])
    foam = _vary(rng, [(100, -20), (500, -5), (1500, -2), (4000, -4), (12000, -14)])
    period, floor = rng.uniform(2.2, 6.0), rng.uniform(0.08, 0.3)
    place = np.arange(length) / (sample_rate * period) + rng.uniform(0.6, 1.0)
    place += 0.35 * _wander(rng, length, sample_rate, 1 / period)
    turn = place % 1
    swell = np.sin(np.pi * np.where(turn < 0.35, turn / 0.7, 0.5 + (turn - 0.35) / 1.3)) ** 2
    swell *= 0.6 + 0.4 * _wander(rng, length, sample_rate, 1 / period)
    wave = _noise(rng, length, sample_rate, body) * (floor + swell)
    wave += rng.uniform(0.15, 0.4) * _noise(rng, length, sample_rate, foam) * swell**2
    return wave


@_sound("wind")
def wind(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Gusts: low noise in bands that rise and fall by themselves, and a soft howl."""
    wave = np.zeros(length)
    gust = 0.3 + _wander(rng, length, sample_rate, rng.uniform(0.4, 1.0))
    tilt = rng.uniform(2.0, 5.0)
    for octave, hz in enumerate((80, 160, 320, 640, 1280, 2560)):
        band = [(hz / 4, -40), (hz / 1.5, 0), (hz * 1.5, 0), (hz * 4, -30), (hz * 16, -80)]
        bed = _noise(rng, length, sample_rate, band) * 10 ** (-tilt * octave / 20)
        wave += bed * (gust * (0.4 + _wander(rng, length, sample_rate, 1.5))) ** (1 + octave / 4)
    howl = _logarithmic(rng, 250, 700) * (0.8 + 0.4 * _wander(rng, length, sample_rate, 0.8))
    breath = _noise(rng, length, sample_rate, [(30, 0), (60, -20), (200, -70)])
    breath *= np.sin(2 * np.pi * np.cumsum(howl) / sample_rate) * gust**2
    return wave + rng.uniform(0.1, 0.45) * breath


@_sound("water drops")
def water_drops(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Drops into a basin: a click, then a bubble's short rising tone, with an echo."""
    pitch, gap = _logarithmic(rng, 500, 1500), _logarithmic(rng, 0.22, 0.7)
    click = _vary(rng, [(200, -10), (700, -4), (3000, 0), (8000, -8), (14000, -20)])
    splash = rng.uniform(0.5, 1.5)
    wave = np.zeros(length)
    for second in _beats(rng, length / sample_rate, gap, rng.uniform(0.03, 0.3)):
        level = rng.uniform(0.5, 1.0)
        _place(wave, _burst(rng, sample_rate, 0.006, click), second, sample_rate, splash * level)
        for lag in (rng.uniform(0.005, 0.02), rng.uniform(0.05, 0.12)):
            decay = rng.uniform(0.015, 0.05)
            time = np.arange(math.ceil(7 * decay * sample_rate)) / sample_rate
            hz = pitch * _logarithmic(rng, 0.6, 1.7) * (1 + rng.uniform(0.5, 4.0) * time)
            bubble = np.sin(2 * np.pi * np.cumsum(np.minimum(hz, 0.4 * sample_rate)) / sample_rate)
            bubble *= _strike(len(time), sample_rate, 0.002, decay)
            _place(wave, bubble, second + lag, sample_rate, level)
            level *= rng.uniform(0.0, 0.5)
    return _room(rng, wave, sample_rate, rng.uniform(0.05, 0.3), rng.uniform(0.1, 0.4))


@_sound("crackling fire")
def crackling_fire(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """A low roar, a faint hiss, and crackles of all strengths in clusters."""
    roar = [(40, 0), (100, -4), (300, -16), (1000, -28), (4000, -32), (14000, -40)]
    flame = 0.6 + 0.8 * _wander(rng, length, sample_rate, 3.0)
    wave = rng.uniform(0.5, 1.3) * _noise(rng, length, sample_rate, _vary(rng, roar)) * flame
    snap = [(100, -24), (600, -10), (2000, 0), (6000, 0), (14000, -6)]
    for decay, hz in ((0.0008, 25.0), (0.002, 12.0), (0.005, 4.0)):
        cracks = _scatter(rng, length, sample_rate, hz * _logarithmic(rng, 0.5, 2.0), 12.0)
        cracks *= 0.15 + 1.7 * _wander(rng, length, sample_rate, 4.0) ** 2
        wave += 5 * _convolve(cracks, _burst(rng, sample_rate, decay, _vary(rng, snap)))
    return wave


# --- Machines and signals --------------------------------------------------------------------


@_sound("siren")
def siren(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """A wail (slow), a yelp (quick) or two notes in turn; rich in harmonics, in a street."""
    turn = np.arange(length) / sample_rate
    kind = rng.choice(["wail", "wail", "yelp", "two notes"])
    low = _logarithmic(rng, 450, 650)
    if kind == "two notes":
        turn = (turn / rng.uniform(0.9, 1.4) + rng.uniform(0, 1)) % 1
        glide = np.clip(np.minimum(turn, 0.5 - turn) / 0.02 + 0.5, 0, 1)
        hz = low * (1 + (rng.uniform(1.25, 1.4) - 1) * glide)
    else:
        period = rng.uniform(2.5, 5.0) if kind == "wail" else rng.uniform(0.3, 0.5)
        turn, rise = (turn / period + rng.uniform(0, 1)) % 1, rng.uniform(0.3, 0.5)
        climb = np.where(turn < rise, turn / rise, (1 - turn) / (1 - rise))
        hz = low * rng.uniform(2.0, 2.8) ** np.sin(0.5 * np.pi * climb)
    horn = _vary(rng, [(300, -12), (700, -2), (1000, 0), (1400, -6), (2000, -14), (3000, -20),
                       (5000, -32), (8000, -44), (14000, -60)])  # fmt: skip
    wave = _harmonics(hz, sample_rate, horn, 14)
    wave *= 0.75 + 0.25 * _wander(rng, length, sample_rate, 1.0)
    street = _noise(rng, length, sample_rate, [(80, 0), (400, -12), (2000, -24), (9000, -45)])
    wave = _room(rng, wave, sample_rate, rng.uniform(0.05, 0.3), rng.uniform(0.1, 0.35))
    return wave + rng.uniform(0.005, 0.02) * street


@_sound("car horn")
def car_horn(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Two horns a third apart, brassy, in honks of unequal length."""
    low, interval = _logarithmic(rng, 320, 480), rng.uniform(1.18, 1.28)
    brass = _vary(rng, [(250, -8), (450, -2), (900, -5), (1800, -10), (2600, -6), (3400, -14),
                        (5000, -22), (8000, -30), (14000, -42)])  # fmt: skip
    wave, second = np.zeros(length), rng.uniform(0.02, 0.15)
    while second < length / sample_rate:
        duration = rng.choice([rng.uniform(0.18, 0.4), rng.uniform(0.6, 1.4)])
        count = round(duration * sample_rate)
        sag = 1 - 0.02 * np.exp(-np.arange(count) / (0.02 * sample_rate))
        honk = _harmonics(low * sag, sample_rate, brass, 24)
        honk += _harmonics(low * interval * sag, sample_rate, brass, 24)
        _place(wave, honk * _hold(count, sample_rate, 0.012, 0.03), second, sample_rate)
        second += duration + rng.choice([rng.uniform(0.12, 0.3), rng.uniform(0.4, 1.0)])
    return _room(rng, wave, sample_rate, rng.uniform(0.1, 0.35), rng.uniform(0.15, 0.4))


@_sound("engine")
def engine(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Firing strokes of four uneven cylinders: a low buzz, and noise that beats with it."""
    hz = _logarithmic(rng, 22, 75) * (1 + 0.06 * (_wander(rng, length, sample_rate, 0.8) - 0.5))
    phase = np.cumsum(hz) / sample_rate
    block = _vary(rng, [(40, -2), (85, 0), (180, -6), (300, -11), (900, -16), (2500, -22),
                        (8000, -32), (14000, -48)])  # fmt: skip
    pipe = _vary(rng, [(40, -2), (85, 0), (300, -12), (1000, -32), (2000, -60)])
    strokes = _pulses(phase, rng.uniform(2.0, 5.0), rng.uniform(0.6, 1.0, 4))
    wave = _noise(rng, length, sample_rate, block) * (0.3 + strokes)
    buzz = _harmonics(hz, sample_rate, pipe, 24) + 0.3 * _harmonics(hz / 2, sample_rate, pipe, 36)
    wave += rng.uniform(0.8, 1.6) * buzz / np.sqrt(np.mean(buzz**2))
    return wave


@_sound("helicopter")
def helicopter(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Blades that chop noise and thump 10 to 22 times a second, under a turbine's whine."""
    hz = rng.uniform(10, 22) * (1 + 0.02 * (_wander(rng, length, sample_rate, 0.5) - 0.5))
    phase = np.cumsum(hz) / sample_rate
    wash = _vary(rng, [(50, 0), (100, 0), (300, -3), (550, -8), (900, -12), (1800, -19),
                       (3300, -27), (6000, -35), (12000, -50)], 2.0)  # fmt: skip
    chop = _pulses(phase, rng.uniform(3, 6), rng.uniform(0.85, 1.0, 3))
    wave = _noise(rng, length, sample_rate, wash) * (rng.uniform(0.2, 0.4) + 1.5 * chop)
    thump = _harmonics(hz, sample_rate, [(20, -12), (60, 0), (120, -3), (400, -24)], 20)
    wave += rng.uniform(0.15, 0.45) * thump / np.sqrt(np.mean(thump**2))
    whine = np.full(length, min(_logarithmic(rng, 2500, 7000), 0.4 * sample_rate))
    wave += rng.uniform(0.002, 0.015) * _harmonics(whine, sample_rate, [(100, 0)], 1)
    return wave * (0.75 + 0.25 * _wander(rng, length, sample_rate, 0.4))


@_sound("alarm clock")
def alarm_clock(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """An electronic one that beeps in groups, or a mechanical one whose hammer strikes a bell."""
    wave = np.zeros(length)
    hz = min(_logarithmic(rng, 1500, 2600), 0.4 * sample_rate)
    if rng.random() < 0.7:
        buzzer = _vary(rng, [(1000, -4), (2200, 0), (4500, -12), (7000, -16), (14000, -36)], 5.0)
        beep, gap, most = rng.uniform(0.05, 0.09), rng.uniform(1.6, 2.2), int(rng.integers(1, 5))
        tone = _harmonics(np.full(round(beep * sample_rate), hz), sample_rate, buzzer, 7)
        tone *= _hold(len(tone), sample_rate, 0.003, 0.005)
        for second in _beats(rng, length / sample_rate, beep * gap * most + 0.35, 0.0):
            for turn in range(most):
                _place(wave, tone, second + turn * beep * gap, sample_rate)
    else:
        modes = [(hz * ratio, rng.uniform(0.05, 0.3), rng.uniform(0.2, 1.0))
                 for ratio in (1.0, 1.013, 1.63, 2.21, 2.96, 3.4)]  # fmt: skip
        bell = _ring(rng, sample_rate, modes)
        for second in _beats(rng, length / sample_rate, 1 / rng.uniform(13, 22), 0.05):
            _place(wave, bell, second, sample_rate, rng.uniform(0.6, 1.0))
    return _room(rng, wave, sample_rate, 0.08, 0.15)


@_sound("clock ticking")
def clock_ticking(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Tick and tock in turn: two or three tiny clicks each, and the case's knock."""
    gap = 1 / _logarithmic(rng, 1.0, 4.0)
    metal = [(80, -2), (300, -3), (900, -3), (1500, 0), (4000, -2), (8000, -6), (14000, -10)]
    strokes = []
    for _ in range(2):
        stroke = np.zeros(round(0.25 * sample_rate))
        spectrum, mode = _vary(rng, metal, 5.0), _logarithmic(rng, 1200, 5000)
        lag = 0.0
        for level in (rng.uniform(0.2, 0.6), 1.0, rng.uniform(0.1, 0.4)):
            click = _burst(rng, sample_rate, rng.uniform(0.003, 0.01), spectrum)
            _place(stroke, click, lag, sample_rate, level)
            hum = [(mode, rng.uniform(0.004, 0.015), 0.25), (0.1 * mode, 0.008, 0.1)]
            _place(stroke, _ring(rng, sample_rate, hum), lag, sample_rate, level)
            lag += rng.uniform(0.006, 0.02)
        strokes.append(stroke)
    wave = np.zeros(length)
    for turn, second in enumerate(_beats(rng, length / sample_rate, gap, 0.004)):
        _place(wave, strokes[turn % 2], second, sample_rate, rng.uniform(0.85, 1.0))
    return _room(rng, wave, sample_rate, rng.uniform(0.02, 0.05), rng.uniform(0.05, 0.2))


@_sound("church bells")
def church_bells(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """One to three bells: hum, prime, minor third, fifth, nominal, each a slowly beating pair."""
    low, gap = _logarithmic(rng, 260, 600), rng.uniform(0.8, 1.8)
    bells = []
    for interval in (1.0, 1.189, 1.335)[: int(rng.integers(1, 4))]:
        modes = []
        for ratio, decay, level in (
            (0.5, 3.5, 0.4), (1.0, 2.0, 0.8), (1.19, 1.8, 0.9), (1.5, 0.9, 0.4), (2.0, 1.5, 1.0),
            (2.51, 0.8, 0.6), (2.66, 0.8, 0.5), (3.01, 0.9, 0.8), (4.17, 0.6, 0.7),
            (5.43, 0.45, 0.5), (6.8, 0.35, 0.35), (8.2, 0.25, 0.25), (9.7, 0.2, 0.15),
        ):  # fmt: skip
            hz, loud = low * interval * ratio * rng.uniform(0.99, 1.01), level * rng.uniform(0.6, 1)
            modes += [(hz, decay, loud), (hz * rng.uniform(1.001, 1.003), decay, 0.5 * loud)]
        bell = _ring(rng, sample_rate, modes)
        clank = _burst(rng, sample_rate, 0.02, [(200, -10), (1500, 0), (4000, -8), (12000, -25)])
        _place(bell, clank, 0.0, sample_rate, 0.8)
        bells.append(bell)
    wave = np.zeros(length)
    for turn, second in enumerate(_beats(rng, length / sample_rate, gap, 0.03)):
        _place(wave, bells[turn % len(bells)], second, sample_rate, rng.uniform(0.7, 1.0))
    return _room(rng, wave, sample_rate, rng.uniform(0.2, 0.5), rng.uniform(0.1, 0.3))


# --- Things that people do -------------------------------------------------------------------


@_sound("footsteps")
def footsteps(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Heel and sole on one kind of ground, left and right a little different."""
    heel = [_vary(rng, [(50, 0), (150, 0), (400, -6), (900, -12), (2500, -21), (9000, -38)])
            for _ in range(2)]  # fmt: skip
    sole = _vary(rng, [(80, -18), (400, -8), (1500, -2), (4000, -6), (9000, -16), (14000, -28)])
    gap, roll, grit = 1 / rng.uniform(1.6, 2.6), rng.uniform(0.07, 0.12), rng.uniform(0.03, 0.15)
    decay = rng.uniform(0.015, 0.04)
    wave = np.zeros(length)
    for turn, second in enumerate(_beats(rng, length / sample_rate, gap, 0.05)):
        level = rng.uniform(0.6, 1.0)
        _place(wave, _burst(rng, sample_rate, decay, heel[turn % 2]), second, sample_rate, level)
        scuff = _noise(rng, round(1.3 * roll * sample_rate), sample_rate, sole)
        scuff *= _hold(len(scuff), sample_rate, 0.4 * roll, 0.6 * roll)
        scuff *= _wander(rng, len(scuff), sample_rate, 150)
        _place(wave, scuff, second + 0.5 * roll, sample_rate, grit * level)
        toe = _burst(rng, sample_rate, 0.5 * decay, heel[turn % 2])
        _place(wave, toe, second + roll, sample_rate, rng.uniform(0.3, 0.6) * level)
    return _room(rng, wave, sample_rate, rng.uniform(0.04, 0.2), rng.uniform(0.1, 0.35))


@_sound("door knock")
def door_knock(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Knuckles on wood, in groups: a dull panel with a few damped modes, and a soft click."""
    panel = _logarithmic(rng, 80, 170)
    modes = [(panel * ratio, rng.uniform(0.02, 0.06) / ratio**0.4, 1 / ratio**1.2)
             for ratio in (1.0, 1.7, 2.6, 3.9, 5.7, 8.3)]  # fmt: skip
    skin = _vary(rng, [(60, -3), (300, -2), (1000, -8), (2500, -20), (9000, -38)])
    wave = np.zeros(length)
    gap, pause = 1 / rng.uniform(3.5, 7.0), rng.uniform(0.5, 1.2)
    for second in _groups(rng, length / sample_rate, 6, gap, pause):
        level = rng.uniform(0.6, 1.0)
        _place(wave, _ring(rng, sample_rate, modes), second, sample_rate, level)
        _place(wave, _burst(rng, sample_rate, 0.012, skin), second, sample_rate, level)
    return _room(rng, wave, sample_rate, rng.uniform(0.04, 0.15), rng.uniform(0.1, 0.3))


@_sound("keyboard typing")
def keyboard_typing(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Keys in uneven bursts: a click going down, a weaker one coming up, the desk under both."""
    click = _vary(rng, [(150, -14), (600, -8), (1500, -4), (3000, 0), (6000, -3), (14000, -18)])
    desk = _vary(rng, [(60, 0), (200, -6), (600, -18), (2000, -40)])
    hz, firmness = rng.uniform(5.0, 9.0), rng.uniform(0.2, 0.6)
    wave = np.zeros(length)
    for second in _beats(rng, length / sample_rate, 1 / hz, 0.4):
        level, lag = _logarithmic(rng, 0.35, 1.0), rng.uniform(0.06, 0.11)
        for delay, share in ((0.0, 0.3), (rng.uniform(0.008, 0.02), 1.0), (lag, 0.4)):
            key = _burst(rng, sample_rate, rng.uniform(0.002, 0.007), _vary(rng, click, 2.0))
            _place(wave, key, second + delay, sample_rate, share * level)
        thud = _burst(rng, sample_rate, 0.012, desk)
        _place(wave, thud, second + 0.01, sample_rate, firmness * level)
    return _room(rng, wave, sample_rate, 0.05, rng.uniform(0.1, 0.25))
