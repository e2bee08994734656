"""The procedural sounds: animals, weather and water, machines and signals, and what people do."""

from __future__ import annotations

import math

import numpy as np

from separation.data.foley import parts
from separation.data.foley.parts import Array


@parts.sound("dog bark")
def dog_bark(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Barks in groups: short, voiced, rising then falling, through two formants, with breath."""
    size = parts.log_uniform(rng, 0.75, 1.35)
    pitch = parts.log_uniform(rng, 230, 480) / size
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
        parts.add_event(wave, voice * envelope, second, sample_rate, rng.uniform(0.7, 1.0))
    return parts.room(rng, wave, sample_rate, rng.uniform(0.04, 0.12), rng.uniform(0.1, 0.3))


@parts.sound("rooster crow")
def rooster_crow(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Cock-a-doodle-doo: three short notes and a long one that sinks at its end."""
    pitch = parts.log_uniform(rng, 520, 800)
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
            parts.add_event(wave, note, second, sample_rate, 0.6 if duration < 0.2 else 1.0)
            second += count / sample_rate + rng.uniform(0.02, 0.06)
        second += rng.uniform(0.9, 2.0)
    return parts.room(rng, wave, sample_rate, rng.uniform(0.1, 0.25), rng.uniform(0.1, 0.3))


@parts.sound("crickets")
def crickets(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """One to three insects: a high tone in quick pulses, the pulses in chirps; quiet night air."""
    time = np.arange(length) / sample_rate
    air = [(60, 0), (300, -14), (1000, -20), (4000, -25), (12000, -45)]
    wave = rng.uniform(0.02, 0.06) * parts.noise(rng, length, sample_rate, air)
    for insect in range(int(rng.integers(1, 4))):
        hz = min(parts.log_uniform(rng, 3200, 5400), 0.42 * sample_rate)
        pulse, chirp = rng.uniform(22, 45), rng.uniform(1.4, 3.2)
        share, start = rng.uniform(0.35, 0.8), rng.uniform(0, 1)
        pulses = np.maximum(0, np.sin(2 * np.pi * pulse * time)) ** 0.7
        turn = (time * chirp + start + 0.15 * parts.wander(rng, length, sample_rate, 0.7)) % 1
        chirps = np.sin(np.pi * np.clip(turn / share, 0, 1)) ** 0.5
        drift = 1 + 0.01 * parts.wander(rng, length, sample_rate, 5)
        tone = np.sin(2 * np.pi * np.cumsum(hz * drift) / sample_rate)
        wave += tone * pulses * chirps * (1.0 if insect == 0 else rng.uniform(0.1, 0.5))
    return parts.room(rng, wave, sample_rate, 0.1, 0.2)


@parts.sound("rain")
def rain(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """A broad hiss of far drops and a dense patter of near ones."""
    far = parts.vary(rng, [(60, -2), (300, -4), (900, -3), (2500, -8), (5000, -12), (12000, -24)])
    near = parts.vary(rng, [(100, -24), (500, -12), (1500, -2), (4000, 0), (9000, -9), (16000, -20)])
    wave = parts.noise(rng, length, sample_rate, far)
    wave *= 0.85 + 0.3 * parts.wander(rng, length, sample_rate, 0.5)
    patter = np.zeros(length)
    for decay in (0.002, 0.004, 0.008):
        drops = parts.scatter(rng, length, sample_rate, parts.log_uniform(rng, 30, 250), 3.0)
        patter += parts.convolve(drops, parts.burst(rng, sample_rate, decay, near))
    wave += rng.uniform(0.25, 0.8) * patter / np.sqrt(np.mean(patter**2))
    return wave


@parts.sound("sea waves")
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


@parts.sound("wind")
def wind(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Gusts: low noise in bands that rise and fall by themselves, and a soft howl."""
    wave = np.zeros(length)
    gust = 0.3 + parts.wander(rng, length, sample_rate, rng.uniform(0.4, 1.0))
    tilt = rng.uniform(2.0, 5.0)
    for octave, hz in enumerate((80, 160, 320, 640, 1280, 2560)):
        band = [(hz / 4, -40), (hz / 1.5, 0), (hz * 1.5, 0), (hz * 4, -30), (hz * 16, -80)]
        bed = parts.noise(rng, length, sample_rate, band) * 10 ** (-tilt * octave / 20)
        wave += bed * (gust * (0.4 + parts.wander(rng, length, sample_rate, 1.5))) ** (1 + octave / 4)
    howl = parts.log_uniform(rng, 250, 700) * (0.8 + 0.4 * parts.wander(rng, length, sample_rate, 0.8))
    breath = parts.noise(rng, length, sample_rate, [(30, 0), (60, -20), (200, -70)])
    breath *= np.sin(2 * np.pi * np.cumsum(howl) / sample_rate) * gust**2
    return wave + rng.uniform(0.1, 0.45) * breath


@parts.sound("water drops")
def water_drops(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Drops into a basin: a click, then a bubble's short rising tone, with an echo."""
    pitch, gap = parts.log_uniform(rng, 500, 1500), parts.log_uniform(rng, 0.22, 0.7)
    click = parts.vary(rng, [(200, -10), (700, -4), (3000, 0), (8000, -8), (14000, -20)])
    splash = rng.uniform(0.5, 1.5)
    wave = np.zeros(length)
    for second in parts.beats(rng, length / sample_rate, gap, rng.uniform(0.03, 0.3)):
        level = rng.uniform(0.5, 1.0)
        parts.add_event(wave, parts.burst(rng, sample_rate, 0.006, click), second, sample_rate, splash * level)
        for lag in (rng.uniform(0.005, 0.02), rng.uniform(0.05, 0.12)):
            decay = rng.uniform(0.015, 0.05)
            time = np.arange(math.ceil(7 * decay * sample_rate)) / sample_rate
            hz = pitch * parts.log_uniform(rng, 0.6, 1.7) * (1 + rng.uniform(0.5, 4.0) * time)
            bubble = np.sin(2 * np.pi * np.cumsum(np.minimum(hz, 0.4 * sample_rate)) / sample_rate)
            bubble *= parts.strike(len(time), sample_rate, 0.002, decay)
            parts.add_event(wave, bubble, second + lag, sample_rate, level)
            level *= rng.uniform(0.0, 0.5)
    return parts.room(rng, wave, sample_rate, rng.uniform(0.05, 0.3), rng.uniform(0.1, 0.4))


@parts.sound("crackling fire")
def crackling_fire(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """A low roar, a faint hiss, and crackles of all strengths in clusters."""
    roar = [(40, 0), (100, -4), (300, -16), (1000, -28), (4000, -32), (14000, -40)]
    flame = 0.6 + 0.8 * parts.wander(rng, length, sample_rate, 3.0)
    wave = rng.uniform(0.5, 1.3) * parts.noise(rng, length, sample_rate, parts.vary(rng, roar)) * flame
    snap = [(100, -24), (600, -10), (2000, 0), (6000, 0), (14000, -6)]
    for decay, hz in ((0.0008, 25.0), (0.002, 12.0), (0.005, 4.0)):
        cracks = parts.scatter(rng, length, sample_rate, hz * parts.log_uniform(rng, 0.5, 2.0), 12.0)
        cracks *= 0.15 + 1.7 * parts.wander(rng, length, sample_rate, 4.0) ** 2
        wave += 5 * parts.convolve(cracks, parts.burst(rng, sample_rate, decay, parts.vary(rng, snap)))
    return wave


@parts.sound("siren")
def siren(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """A wail (slow), a yelp (quick) or two notes in turn; rich in harmonics, in a street."""
    turn = np.arange(length) / sample_rate
    kind = rng.choice(["wail", "wail", "yelp", "two notes"])
    low = parts.log_uniform(rng, 450, 650)
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


@parts.sound("car horn")
def car_horn(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Two horns a third apart, brassy, in honks of unequal length."""
    low, interval = parts.log_uniform(rng, 320, 480), rng.uniform(1.18, 1.28)
    brass = parts.vary(rng, [(250, -8), (450, -2), (900, -5), (1800, -10), (2600, -6), (3400, -14),
                        (5000, -22), (8000, -30), (14000, -42)])  # fmt: skip
    wave, second = np.zeros(length), rng.uniform(0.02, 0.15)
    while second < length / sample_rate:
        duration = rng.choice([rng.uniform(0.18, 0.4), rng.uniform(0.6, 1.4)])
        count = round(duration * sample_rate)
        sag = 1 - 0.02 * np.exp(-np.arange(count) / (0.02 * sample_rate))
        honk = parts.harmonics(low * sag, sample_rate, brass, 24)
        honk += parts.harmonics(low * interval * sag, sample_rate, brass, 24)
        parts.add_event(wave, honk * parts.hold(count, sample_rate, 0.012, 0.03), second, sample_rate)
        second += duration + rng.choice([rng.uniform(0.12, 0.3), rng.uniform(0.4, 1.0)])
    return parts.room(rng, wave, sample_rate, rng.uniform(0.1, 0.35), rng.uniform(0.15, 0.4))


@parts.sound("engine")
def engine(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Firing strokes of four uneven cylinders: a low buzz, and noise that beats with it."""
    hz = parts.log_uniform(rng, 22, 75) * (1 + 0.06 * (parts.wander(rng, length, sample_rate, 0.8) - 0.5))
    phase = np.cumsum(hz) / sample_rate
    block = parts.vary(rng, [(40, -2), (85, 0), (180, -6), (300, -11), (900, -16), (2500, -22),
                        (8000, -32), (14000, -48)])  # fmt: skip
    pipe = parts.vary(rng, [(40, -2), (85, 0), (300, -12), (1000, -32), (2000, -60)])
    strokes = parts.pulses(phase, rng.uniform(2.0, 5.0), rng.uniform(0.6, 1.0, 4))
    wave = parts.noise(rng, length, sample_rate, block) * (0.3 + strokes)
    buzz = parts.harmonics(hz, sample_rate, pipe, 24) + 0.3 * parts.harmonics(hz / 2, sample_rate, pipe, 36)
    wave += rng.uniform(0.8, 1.6) * buzz / np.sqrt(np.mean(buzz**2))
    return wave


@parts.sound("helicopter")
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
    whine = np.full(length, min(parts.log_uniform(rng, 2500, 7000), 0.4 * sample_rate))
    wave += rng.uniform(0.002, 0.015) * parts.harmonics(whine, sample_rate, [(100, 0)], 1)
    return wave * (0.75 + 0.25 * parts.wander(rng, length, sample_rate, 0.4))


@parts.sound("alarm clock")
def alarm_clock(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """An electronic one that beeps in groups, or a mechanical one whose hammer strikes a bell."""
    wave = np.zeros(length)
    hz = min(parts.log_uniform(rng, 1500, 2600), 0.4 * sample_rate)
    if rng.random() < 0.7:
        buzzer = parts.vary(rng, [(1000, -4), (2200, 0), (4500, -12), (7000, -16), (14000, -36)], 5.0)
        beep, gap, most = rng.uniform(0.05, 0.09), rng.uniform(1.6, 2.2), int(rng.integers(1, 5))
        tone = parts.harmonics(np.full(round(beep * sample_rate), hz), sample_rate, buzzer, 7)
        tone *= parts.hold(len(tone), sample_rate, 0.003, 0.005)
        for second in parts.beats(rng, length / sample_rate, beep * gap * most + 0.35, 0.0):
            for turn in range(most):
                parts.add_event(wave, tone, second + turn * beep * gap, sample_rate)
    else:
        modes = [(hz * ratio, rng.uniform(0.05, 0.3), rng.uniform(0.2, 1.0))
                 for ratio in (1.0, 1.013, 1.63, 2.21, 2.96, 3.4)]  # fmt: skip
        bell = parts.ring(rng, sample_rate, modes)
        for second in parts.beats(rng, length / sample_rate, 1 / rng.uniform(13, 22), 0.05):
            parts.add_event(wave, bell, second, sample_rate, rng.uniform(0.6, 1.0))
    return parts.room(rng, wave, sample_rate, 0.08, 0.15)


@parts.sound("clock ticking")
def clock_ticking(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Tick and tock in turn: two or three tiny clicks each, and the case's knock."""
    gap = 1 / parts.log_uniform(rng, 1.0, 4.0)
    metal = [(80, -2), (300, -3), (900, -3), (1500, 0), (4000, -2), (8000, -6), (14000, -10)]
    strokes = []
    for _ in range(2):
        stroke = np.zeros(round(0.25 * sample_rate))
        spectrum, mode = parts.vary(rng, metal, 5.0), parts.log_uniform(rng, 1200, 5000)
        lag = 0.0
        for level in (rng.uniform(0.2, 0.6), 1.0, rng.uniform(0.1, 0.4)):
            click = parts.burst(rng, sample_rate, rng.uniform(0.003, 0.01), spectrum)
            parts.add_event(stroke, click, lag, sample_rate, level)
            hum = [(mode, rng.uniform(0.004, 0.015), 0.25), (0.1 * mode, 0.008, 0.1)]
            parts.add_event(stroke, parts.ring(rng, sample_rate, hum), lag, sample_rate, level)
            lag += rng.uniform(0.006, 0.02)
        strokes.append(stroke)
    wave = np.zeros(length)
    for turn, second in enumerate(parts.beats(rng, length / sample_rate, gap, 0.004)):
        parts.add_event(wave, strokes[turn % 2], second, sample_rate, rng.uniform(0.85, 1.0))
    return parts.room(rng, wave, sample_rate, rng.uniform(0.02, 0.05), rng.uniform(0.05, 0.2))


@parts.sound("church bells")
def church_bells(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """One to three bells: hum, prime, minor third, fifth, nominal, each a slowly beating pair."""
    low, gap = parts.log_uniform(rng, 260, 600), rng.uniform(0.8, 1.8)
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
        parts.add_event(bell, clank, 0.0, sample_rate, 0.8)
        bells.append(bell)
    wave = np.zeros(length)
    for turn, second in enumerate(parts.beats(rng, length / sample_rate, gap, 0.03)):
        parts.add_event(wave, bells[turn % len(bells)], second, sample_rate, rng.uniform(0.7, 1.0))
    return parts.room(rng, wave, sample_rate, rng.uniform(0.2, 0.5), rng.uniform(0.1, 0.3))


@parts.sound("footsteps")
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
        parts.add_event(wave, parts.burst(rng, sample_rate, decay, heel[turn % 2]), second, sample_rate, level)
        scuff = parts.noise(rng, round(1.3 * roll * sample_rate), sample_rate, sole)
        scuff *= parts.hold(len(scuff), sample_rate, 0.4 * roll, 0.6 * roll)
        scuff *= parts.wander(rng, len(scuff), sample_rate, 150)
        parts.add_event(wave, scuff, second + 0.5 * roll, sample_rate, grit * level)
        toe = parts.burst(rng, sample_rate, 0.5 * decay, heel[turn % 2])
        parts.add_event(wave, toe, second + roll, sample_rate, rng.uniform(0.3, 0.6) * level)
    return parts.room(rng, wave, sample_rate, rng.uniform(0.04, 0.2), rng.uniform(0.1, 0.35))


@parts.sound("door knock")
def door_knock(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Knuckles on wood, in groups: a dull panel with a few damped modes, and a soft click."""
    panel = parts.log_uniform(rng, 80, 170)
    modes = [(panel * ratio, rng.uniform(0.02, 0.06) / ratio**0.4, 1 / ratio**1.2)
             for ratio in (1.0, 1.7, 2.6, 3.9, 5.7, 8.3)]  # fmt: skip
    skin = parts.vary(rng, [(60, -3), (300, -2), (1000, -8), (2500, -20), (9000, -38)])
    wave = np.zeros(length)
    gap, pause = 1 / rng.uniform(3.5, 7.0), rng.uniform(0.5, 1.2)
    for second in parts.groups(rng, length / sample_rate, 6, gap, pause):
        level = rng.uniform(0.6, 1.0)
        parts.add_event(wave, parts.ring(rng, sample_rate, modes), second, sample_rate, level)
        parts.add_event(wave, parts.burst(rng, sample_rate, 0.012, skin), second, sample_rate, level)
    return parts.room(rng, wave, sample_rate, rng.uniform(0.04, 0.15), rng.uniform(0.1, 0.3))


@parts.sound("keyboard typing")
def keyboard_typing(rng: np.random.Generator, length: int, sample_rate: int) -> Array:
    """Keys in uneven bursts: a click going down, a weaker one coming up, the desk under both."""
    click = parts.vary(rng, [(150, -14), (600, -8), (1500, -4), (3000, 0), (6000, -3), (14000, -18)])
    desk = parts.vary(rng, [(60, 0), (200, -6), (600, -18), (2000, -40)])
    hz, firmness = rng.uniform(5.0, 9.0), rng.uniform(0.2, 0.6)
    wave = np.zeros(length)
    for second in parts.beats(rng, length / sample_rate, 1 / hz, 0.4):
        level, lag = parts.log_uniform(rng, 0.35, 1.0), rng.uniform(0.06, 0.11)
        for delay, share in ((0.0, 0.3), (rng.uniform(0.008, 0.02), 1.0), (lag, 0.4)):
            key = parts.burst(rng, sample_rate, rng.uniform(0.002, 0.007), parts.vary(rng, click, 2.0))
            parts.add_event(wave, key, second + delay, sample_rate, share * level)
        thud = parts.burst(rng, sample_rate, 0.012, desk)
        parts.add_event(wave, thud, second + 0.01, sample_rate, firmness * level)
    return parts.room(rng, wave, sample_rate, 0.05, rng.uniform(0.1, 0.25))
