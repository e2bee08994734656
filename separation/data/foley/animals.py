"""Procedural animals."""

from __future__ import annotations

import numpy as np

from separation.data.foley import parts
from separation.data.foley.parts import Array
from separation.data.foley.registry import sound


@sound("dog bark")
def dog_bark(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Barks in groups: short, voiced, rising then falling, through two formants, with breath."""
    size = parts.logarithmic(rng, 0.75, 1.35)
    pitch = parts.logarithmic(rng, 230, 480) / size
    throat = [
        (100, -30), (300 / size, -18), (600 / size, -2), (850 / size, 0), (1250 / size, -4),
        (1800 / size, -14), (2600 / size, -20), (3500, -32), (6000, -40), (14000, -56),
    ]  # fmt: skip
    rough, breath = rng.uniform(0.1, 0.5), rng.uniform(0.15, 0.4)
    duration, gap = rng.uniform(0.13, 0.24) * size, rng.uniform(0.32, 0.6)
    wave = np.zeros(length)
    for second in parts.groups(rng, length / sample_rate, 4, max(gap, duration + 0.1), 0.7):
        count = round(duration * rng.uniform(0.85, 1.15) * sample_rate)
        place = np.arange(count) / count
        arch = 0.72 + 0.42 * np.sin(np.pi * place**0.6) - 0.12 * place
        jitter = 1 + 0.06 * (parts.wander(rng, count, sample_rate, 90) - 0.5)
        voice = parts.harmonics(pitch * rng.uniform(0.93, 1.07) * arch * jitter, sample_rate, throat)
        voice *= 1 - rough * parts.wander(rng, count, sample_rate, 70)
        voice /= np.sqrt(np.mean(voice**2))
        voice += breath * parts.noise(rng, count, sample_rate, throat)
        envelope = parts.hold(count, sample_rate, 0.018, 0.7 * duration)
        parts.place(wave, voice * envelope, second, sample_rate, rng.uniform(0.7, 1.0))
    return parts.room(rng, wave, sample_rate, rng.uniform(0.04, 0.12), rng.uniform(0.1, 0.3))


@sound("rooster crow")
def rooster_crow(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Cock-a-doodle-doo: three short notes and a long one that sinks at its end."""
    pitch = parts.logarithmic(rng, 520, 800)
    beak = parts.vary(rng, [
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
            shake = 1 + 0.03 * (parts.wander(rng, count, sample_rate, 40) - 0.5)
            note = parts.harmonics(pitch * contour * shake, sample_rate, beak, 16)
            note *= 1 - 0.5 * parts.wander(rng, count, sample_rate, 60)
            note += 0.05 * np.abs(note).max() * parts.noise(rng, count, sample_rate, beak)
            note *= parts.hold(count, sample_rate, 0.02, 0.3 * duration)
            parts.place(wave, note, second, sample_rate, 0.6 if duration < 0.2 else 1.0)
            second += count / sample_rate + rng.uniform(0.02, 0.06)
        second += rng.uniform(0.9, 2.0)
    return parts.room(rng, wave, sample_rate, rng.uniform(0.1, 0.25), rng.uniform(0.1, 0.3))


@sound("crickets")
def crickets(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """One to three insects: a high tone in quick pulses, the pulses in chirps; quiet night air."""
    time = np.arange(length) / sample_rate
    air = [(60, 0), (300, -14), (1000, -20), (4000, -25), (12000, -45)]
    wave = rng.uniform(0.02, 0.06) * parts.noise(rng, length, sample_rate, air)
    for insect in range(int(rng.integers(1, 4))):
        hz = min(parts.logarithmic(rng, 3200, 5400), 0.42 * sample_rate)
        pulse, chirp = rng.uniform(22, 45), rng.uniform(1.4, 3.2)
        share, start = rng.uniform(0.35, 0.8), rng.uniform(0, 1)
        pulses = np.maximum(0, np.sin(2 * np.pi * pulse * time)) ** 0.7
        turn = (time * chirp + start + 0.15 * parts.wander(rng, length, sample_rate, 0.7)) % 1
        chirps = np.sin(np.pi * np.clip(turn / share, 0, 1)) ** 0.5
        drift = 1 + 0.01 * parts.wander(rng, length, sample_rate, 5)
        tone = np.sin(2 * np.pi * np.cumsum(hz * drift) / sample_rate)
        wave += tone * pulses * chirps * (1.0 if insect == 0 else rng.uniform(0.1, 0.5))
    return parts.room(rng, wave, sample_rate, 0.1, 0.2)
