"""Procedural things that people do."""

from __future__ import annotations

import numpy as np

from separation.data.foley import parts
from separation.data.foley.parts import Array
from separation.data.foley.registry import sound


@sound("footsteps")
def footsteps(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Heel and sole on one kind of ground, left and right a little different."""
    heel = [parts.vary(rng, [(50, 0), (150, 0), (400, -6), (900, -12), (2500, -21), (9000, -38)])
            for _ in range(2)]  # fmt: skip
    sole = parts.vary(rng, [(80, -18), (400, -8), (1500, -2), (4000, -6), (9000, -16), (14000, -28)])
    gap, roll, grit = 1 / rng.uniform(1.6, 2.6), rng.uniform(0.07, 0.12), rng.uniform(0.03, 0.15)
    decay = rng.uniform(0.015, 0.04)
    wave = np.zeros(length)
    for turn, second in enumerate(parts.beats(rng, length / sample_rate, gap, 0.05)):
        level = rng.uniform(0.6, 1.0)
        parts.place(wave, parts.burst(rng, sample_rate, decay, heel[turn % 2]), second, sample_rate, level)
        scuff = parts.noise(rng, round(1.3 * roll * sample_rate), sample_rate, sole)
        scuff *= parts.hold(len(scuff), sample_rate, 0.4 * roll, 0.6 * roll)
        scuff *= parts.wander(rng, len(scuff), sample_rate, 150)
        parts.place(wave, scuff, second + 0.5 * roll, sample_rate, grit * level)
        toe = parts.burst(rng, sample_rate, 0.5 * decay, heel[turn % 2])
        parts.place(wave, toe, second + roll, sample_rate, rng.uniform(0.3, 0.6) * level)
    return parts.room(rng, wave, sample_rate, rng.uniform(0.04, 0.2), rng.uniform(0.1, 0.35))


@sound("door knock")
def door_knock(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Knuckles on wood, in groups: a dull panel with a few damped modes, and a soft click."""
    panel = parts.logarithmic(rng, 80, 170)
    modes = [(panel * ratio, rng.uniform(0.02, 0.06) / ratio**0.4, 1 / ratio**1.2)
             for ratio in (1.0, 1.7, 2.6, 3.9, 5.7, 8.3)]  # fmt: skip
    skin = parts.vary(rng, [(60, -3), (300, -2), (1000, -8), (2500, -20), (9000, -38)])
    wave = np.zeros(length)
    gap, pause = 1 / rng.uniform(3.5, 7.0), rng.uniform(0.5, 1.2)
    for second in parts.groups(rng, length / sample_rate, 6, gap, pause):
        level = rng.uniform(0.6, 1.0)
        parts.place(wave, parts.ring(rng, sample_rate, modes), second, sample_rate, level)
        parts.place(wave, parts.burst(rng, sample_rate, 0.012, skin), second, sample_rate, level)
    return parts.room(rng, wave, sample_rate, rng.uniform(0.04, 0.15), rng.uniform(0.1, 0.3))


@sound("keyboard typing")
def keyboard_typing(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Keys in uneven bursts: a click going down, a weaker one coming up, the desk under both."""
    click = parts.vary(rng, [(150, -14), (600, -8), (1500, -4), (3000, 0), (6000, -3), (14000, -18)])
    desk = parts.vary(rng, [(60, 0), (200, -6), (600, -18), (2000, -40)])
    hz, firmness = rng.uniform(5.0, 9.0), rng.uniform(0.2, 0.6)
    wave = np.zeros(length)
    for second in parts.beats(rng, length / sample_rate, 1 / hz, 0.4):
        level, lag = parts.logarithmic(rng, 0.35, 1.0), rng.uniform(0.06, 0.11)
        for delay, share in ((0.0, 0.3), (rng.uniform(0.008, 0.02), 1.0), (lag, 0.4)):
            key = parts.burst(rng, sample_rate, rng.uniform(0.002, 0.007), parts.vary(rng, click, 2.0))
            parts.place(wave, key, second + delay, sample_rate, share * level)
        thud = parts.burst(rng, sample_rate, 0.012, desk)
        parts.place(wave, thud, second + 0.01, sample_rate, firmness * level)
    return parts.room(rng, wave, sample_rate, 0.05, rng.uniform(0.1, 0.25))
