"""Procedural weather, water and fire."""

from __future__ import annotations

import math

import numpy as np

from separation.data.foley import parts
from separation.data.foley.parts import Array
from separation.data.foley.registry import sound


@sound("rain")
def rain(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """A broad hiss of far drops and a dense patter of near ones."""
    far = parts.vary(rng, [(60, -2), (300, -4), (900, -3), (2500, -8), (5000, -12), (12000, -24)])
    near = parts.vary(rng, [(100, -24), (500, -12), (1500, -2), (4000, 0), (9000, -9), (16000, -20)])
    wave = parts.noise(rng, length, sample_rate, far)
    wave *= 0.85 + 0.3 * parts.wander(rng, length, sample_rate, 0.5)
    patter = np.zeros(length)
    for decay in (0.002, 0.004, 0.008):
        drops = parts.scatter(rng, length, sample_rate, parts.logarithmic(rng, 30, 250), 3.0)
        patter += parts.convolve(drops, parts.burst(rng, sample_rate, decay, near))
    wave += rng.uniform(0.25, 0.8) * patter / np.sqrt(np.mean(patter**2))
    return wave


@sound("sea waves")
def sea_waves(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Swells of noise that break quickly and run out slowly, brighter while they break."""
    body = parts.vary(rng, [(60, -2), (300, 0), (600, -1), (1300, -6), (3000, -15), (12000, -30)])
    foam = parts.vary(rng, [(100, -20), (500, -5), (1500, -2), (4000, -4), (12000, -14)])
    period, floor = rng.uniform(2.2, 6.0), rng.uniform(0.08, 0.3)
    place = np.arange(length) / (sample_rate * period) + rng.uniform(0.6, 1.0)
    place += 0.35 * parts.wander(rng, length, sample_rate, 1 / period)
    turn = place % 1
    swell = np.sin(np.pi * np.where(turn < 0.35, turn / 0.7, 0.5 + (turn - 0.35) / 1.3)) ** 2
    swell *= 0.6 + 0.4 * parts.wander(rng, length, sample_rate, 1 / period)
    wave = parts.noise(rng, length, sample_rate, body) * (floor + swell)
    wave += rng.uniform(0.15, 0.4) * parts.noise(rng, length, sample_rate, foam) * swell**2
    return wave


@sound("wind")
def wind(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Gusts: low noise in bands that rise and fall by themselves, and a soft howl."""
    wave = np.zeros(length)
    gust = 0.3 + parts.wander(rng, length, sample_rate, rng.uniform(0.4, 1.0))
    tilt = rng.uniform(2.0, 5.0)
    for octave, hz in enumerate((80, 160, 320, 640, 1280, 2560)):
        band = [(hz / 4, -40), (hz / 1.5, 0), (hz * 1.5, 0), (hz * 4, -30), (hz * 16, -80)]
        bed = parts.noise(rng, length, sample_rate, band) * 10 ** (-tilt * octave / 20)
        wave += bed * (gust * (0.4 + parts.wander(rng, length, sample_rate, 1.5))) ** (1 + octave / 4)
    howl = parts.logarithmic(rng, 250, 700) * (0.8 + 0.4 * parts.wander(rng, length, sample_rate, 0.8))
    breath = parts.noise(rng, length, sample_rate, [(30, 0), (60, -20), (200, -70)])
    breath *= np.sin(2 * np.pi * np.cumsum(howl) / sample_rate) * gust**2
    return wave + rng.uniform(0.1, 0.45) * breath


@sound("water drops")
def water_drops(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Drops into a basin: a click, then a bubble's short rising tone, with an echo."""
    pitch, gap = parts.logarithmic(rng, 500, 1500), parts.logarithmic(rng, 0.22, 0.7)
    click = parts.vary(rng, [(200, -10), (700, -4), (3000, 0), (8000, -8), (14000, -20)])
    splash = rng.uniform(0.5, 1.5)
    wave = np.zeros(length)
    for second in parts.beats(rng, length / sample_rate, gap, rng.uniform(0.03, 0.3)):
        level = rng.uniform(0.5, 1.0)
        parts.place(wave, parts.burst(rng, sample_rate, 0.006, click), second, sample_rate, splash * level)
        for lag in (rng.uniform(0.005, 0.02), rng.uniform(0.05, 0.12)):
            decay = rng.uniform(0.015, 0.05)
            time = np.arange(math.ceil(7 * decay * sample_rate)) / sample_rate
            hz = pitch * parts.logarithmic(rng, 0.6, 1.7) * (1 + rng.uniform(0.5, 4.0) * time)
            bubble = np.sin(2 * np.pi * np.cumsum(np.minimum(hz, 0.4 * sample_rate)) / sample_rate)
            bubble *= parts.strike(len(time), sample_rate, 0.002, decay)
            parts.place(wave, bubble, second + lag, sample_rate, level)
            level *= rng.uniform(0.0, 0.5)
    return parts.room(rng, wave, sample_rate, rng.uniform(0.05, 0.3), rng.uniform(0.1, 0.4))


@sound("crackling fire")
def crackling_fire(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """A low roar, a faint hiss, and crackles of all strengths in clusters."""
    roar = [(40, 0), (100, -4), (300, -16), (1000, -28), (4000, -32), (14000, -40)]
    flame = 0.6 + 0.8 * parts.wander(rng, length, sample_rate, 3.0)
    wave = rng.uniform(0.5, 1.3) * parts.noise(rng, length, sample_rate, parts.vary(rng, roar)) * flame
    snap = [(100, -24), (600, -10), (2000, 0), (6000, 0), (14000, -6)]
    for decay, hz in ((0.0008, 25.0), (0.002, 12.0), (0.005, 4.0)):
        cracks = parts.scatter(rng, length, sample_rate, hz * parts.logarithmic(rng, 0.5, 2.0), 12.0)
        cracks *= 0.15 + 1.7 * parts.wander(rng, length, sample_rate, 4.0) ** 2
        wave += 5 * parts.convolve(cracks, parts.burst(rng, sample_rate, decay, parts.vary(rng, snap)))
    return wave
