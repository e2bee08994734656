"""Procedural machines and signals."""

from __future__ import annotations

import numpy as np

from separation.data.foley import parts
from separation.data.foley.parts import Array
from separation.data.foley.registry import sound


@sound("siren")
def siren(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """A wail (slow), a yelp (quick) or two notes in turn; rich in harmonics, in a street."""
    turn = np.arange(length) / sample_rate
    kind = rng.choice(["wail", "wail", "yelp", "two notes"])
    low = parts.logarithmic(rng, 450, 650)
    if kind == "two notes":
        turn = (turn / rng.uniform(0.9, 1.4) + rng.uniform(0, 1)) % 1
        glide = np.clip(np.minimum(turn, 0.5 - turn) / 0.02 + 0.5, 0, 1)
        hz = low * (1 + (rng.uniform(1.25, 1.4) - 1) * glide)
    else:
        period = rng.uniform(2.5, 5.0) if kind == "wail" else rng.uniform(0.3, 0.5)
        turn, rise = (turn / period + rng.uniform(0, 1)) % 1, rng.uniform(0.3, 0.5)
        climb = np.where(turn < rise, turn / rise, (1 - turn) / (1 - rise))
        hz = low * rng.uniform(2.0, 2.8) ** np.sin(0.5 * np.pi * climb)
    horn = parts.vary(rng, [(300, -12), (700, -2), (1000, 0), (1400, -6), (2000, -14), (3000, -20),
                       (5000, -32), (8000, -44), (14000, -60)])  # fmt: skip
    wave = parts.harmonics(hz, sample_rate, horn, 14)
    wave *= 0.75 + 0.25 * parts.wander(rng, length, sample_rate, 1.0)
    street = parts.noise(rng, length, sample_rate, [(80, 0), (400, -12), (2000, -24), (9000, -45)])
    wave = parts.room(rng, wave, sample_rate, rng.uniform(0.05, 0.3), rng.uniform(0.1, 0.35))
    return wave + rng.uniform(0.005, 0.02) * street


@sound("car horn")
def car_horn(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Two horns a third apart, brassy, in honks of unequal length."""
    low, interval = parts.logarithmic(rng, 320, 480), rng.uniform(1.18, 1.28)
    brass = parts.vary(rng, [(250, -8), (450, -2), (900, -5), (1800, -10), (2600, -6), (3400, -14),
                        (5000, -22), (8000, -30), (14000, -42)])  # fmt: skip
    wave, second = np.zeros(length), rng.uniform(0.02, 0.15)
    while second < length / sample_rate:
        duration = rng.choice([rng.uniform(0.18, 0.4), rng.uniform(0.6, 1.4)])
        count = round(duration * sample_rate)
        sag = 1 - 0.02 * np.exp(-np.arange(count) / (0.02 * sample_rate))
        honk = parts.harmonics(low * sag, sample_rate, brass, 24)
        honk += parts.harmonics(low * interval * sag, sample_rate, brass, 24)
        parts.place(wave, honk * parts.hold(count, sample_rate, 0.012, 0.03), second, sample_rate)
        second += duration + rng.choice([rng.uniform(0.12, 0.3), rng.uniform(0.4, 1.0)])
    return parts.room(rng, wave, sample_rate, rng.uniform(0.1, 0.35), rng.uniform(0.15, 0.4))


@sound("engine")
def engine(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Firing strokes of four uneven cylinders: a low buzz, and noise that beats with it."""
    hz = parts.logarithmic(rng, 22, 75) * (1 + 0.06 * (parts.wander(rng, length, sample_rate, 0.8) - 0.5))
    phase = np.cumsum(hz) / sample_rate
    block = parts.vary(rng, [(40, -2), (85, 0), (180, -6), (300, -11), (900, -16), (2500, -22),
                        (8000, -32), (14000, -48)])  # fmt: skip
    pipe = parts.vary(rng, [(40, -2), (85, 0), (300, -12), (1000, -32), (2000, -60)])
    strokes = parts.pulses(phase, rng.uniform(2.0, 5.0), rng.uniform(0.6, 1.0, 4))
    wave = parts.noise(rng, length, sample_rate, block) * (0.3 + strokes)
    buzz = parts.harmonics(hz, sample_rate, pipe, 24) + 0.3 * parts.harmonics(hz / 2, sample_rate, pipe, 36)
    wave += rng.uniform(0.8, 1.6) * buzz / np.sqrt(np.mean(buzz**2))
    return wave


@sound("helicopter")
def helicopter(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Blades that chop noise and thump 10 to 22 times a second, under a turbine's whine."""
    hz = rng.uniform(10, 22) * (1 + 0.02 * (parts.wander(rng, length, sample_rate, 0.5) - 0.5))
    phase = np.cumsum(hz) / sample_rate
    wash = parts.vary(rng, [(50, 0), (100, 0), (300, -3), (550, -8), (900, -12), (1800, -19),
                       (3300, -27), (6000, -35), (12000, -50)], 2.0)  # fmt: skip
    chop = parts.pulses(phase, rng.uniform(3, 6), rng.uniform(0.85, 1.0, 3))
    wave = parts.noise(rng, length, sample_rate, wash) * (rng.uniform(0.2, 0.4) + 1.5 * chop)
    thump = parts.harmonics(hz, sample_rate, [(20, -12), (60, 0), (120, -3), (400, -24)], 20)
    wave += rng.uniform(0.15, 0.45) * thump / np.sqrt(np.mean(thump**2))
    whine = np.full(length, min(parts.logarithmic(rng, 2500, 7000), 0.4 * sample_rate))
    wave += rng.uniform(0.002, 0.015) * parts.harmonics(whine, sample_rate, [(100, 0)], 1)
    return wave * (0.75 + 0.25 * parts.wander(rng, length, sample_rate, 0.4))


@sound("alarm clock")
def alarm_clock(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """An electronic one that beeps in groups, or a mechanical one whose hammer strikes a bell."""
    wave = np.zeros(length)
    hz = min(parts.logarithmic(rng, 1500, 2600), 0.4 * sample_rate)
    if rng.random() < 0.7:
        buzzer = parts.vary(rng, [(1000, -4), (2200, 0), (4500, -12), (7000, -16), (14000, -36)], 5.0)
        beep, gap, most = rng.uniform(0.05, 0.09), rng.uniform(1.6, 2.2), int(rng.integers(1, 5))
        tone = parts.harmonics(np.full(round(beep * sample_rate), hz), sample_rate, buzzer, 7)
        tone *= parts.hold(len(tone), sample_rate, 0.003, 0.005)
        for second in parts.beats(rng, length / sample_rate, beep * gap * most + 0.35, 0.0):
            for turn in range(most):
                parts.place(wave, tone, second + turn * beep * gap, sample_rate)
    else:
        modes = [(hz * ratio, rng.uniform(0.05, 0.3), rng.uniform(0.2, 1.0))
                 for ratio in (1.0, 1.013, 1.63, 2.21, 2.96, 3.4)]  # fmt: skip
        bell = parts.ring(rng, sample_rate, modes)
        for second in parts.beats(rng, length / sample_rate, 1 / rng.uniform(13, 22), 0.05):
            parts.place(wave, bell, second, sample_rate, rng.uniform(0.6, 1.0))
    return parts.room(rng, wave, sample_rate, 0.08, 0.15)


@sound("clock ticking")
def clock_ticking(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Tick and tock in turn: two or three tiny clicks each, and the case's knock."""
    gap = 1 / parts.logarithmic(rng, 1.0, 4.0)
    metal = [(80, -2), (300, -3), (900, -3), (1500, 0), (4000, -2), (8000, -6), (14000, -10)]
    strokes = []
    for _ in range(2):
        stroke = np.zeros(round(0.25 * sample_rate))
        spectrum, mode = parts.vary(rng, metal, 5.0), parts.logarithmic(rng, 1200, 5000)
        lag = 0.0
        for level in (rng.uniform(0.2, 0.6), 1.0, rng.uniform(0.1, 0.4)):
            click = parts.burst(rng, sample_rate, rng.uniform(0.003, 0.01), spectrum)
            parts.place(stroke, click, lag, sample_rate, level)
            hum = [(mode, rng.uniform(0.004, 0.015), 0.25), (0.1 * mode, 0.008, 0.1)]
            parts.place(stroke, parts.ring(rng, sample_rate, hum), lag, sample_rate, level)
            lag += rng.uniform(0.006, 0.02)
        strokes.append(stroke)
    wave = np.zeros(length)
    for turn, second in enumerate(parts.beats(rng, length / sample_rate, gap, 0.004)):
        parts.place(wave, strokes[turn % 2], second, sample_rate, rng.uniform(0.85, 1.0))
    return parts.room(rng, wave, sample_rate, rng.uniform(0.02, 0.05), rng.uniform(0.05, 0.2))


@sound("church bells")
def church_bells(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """One to three bells: hum, prime, minor third, fifth, nominal, each a slowly beating pair."""
    low, gap = parts.logarithmic(rng, 260, 600), rng.uniform(0.8, 1.8)
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
        bell = parts.ring(rng, sample_rate, modes)
        clank = parts.burst(rng, sample_rate, 0.02, [(200, -10), (1500, 0), (4000, -8), (12000, -25)])
        parts.place(bell, clank, 0.0, sample_rate, 0.8)
        bells.append(bell)
    wave = np.zeros(length)
    for turn, second in enumerate(parts.beats(rng, length / sample_rate, gap, 0.03)):
        parts.place(wave, bells[turn % len(bells)], second, sample_rate, rng.uniform(0.7, 1.0))
    return parts.room(rng, wave, sample_rate, rng.uniform(0.2, 0.5), rng.uniform(0.1, 0.3))
