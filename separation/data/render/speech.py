"""Speech and singing by text-to-speech programs: flite, Festival and eSpeak NG.

One natural woman's voice and three men's are free; the others are synthetic. Speakers are varied by the length of the
vocal tract (pitch and formants together) and by pitch. A child is an adult's voice with both raised: it has a child's
pitch and formants, but an adult's articulation and prosody. A whisper is the spectral envelope of speech with noise
for the voice; a shout is higher, faster and brighter speech. Singing is a word on each note at the note's pitch, with
vibrato: in tune, but without the legato and the vowels of a singer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from separation.data.foley.parts import Array, Spectrum, amplitude
from separation.data.render import RATE, Recording, Step, add_room, check_plan, cut_tens, make_rng, run_program, tables

MAX_SECONDS = 10.0
TELEPHONE: Spectrum = [(200, -50), (300, 0), (3400, 0), (4000, -60)]
EFFORT: Spectrum = [(150, -9), (500, -3), (1500, 6), (4000, 7), (8000, 0)]  # of shouted speech
UNVOICED: Spectrum = [(200, -24), (700, -6), (2000, 0), (8000, 0)]  # of whispered speech
FRAME, HOP, LIFTER = 1024, 256, 60  # samples, samples; cepstral coefficients that are the envelope
SCALE = (0, 2, 4, 5, 7, 9, 11, 12)  # of songs
SPEAKING = {"man": "man speaking", "woman": "woman speaking", "child": "child speaking"}


class Voice(NamedTuple):
    """A voice of a program: whose it is, its usual pitch in Hz, its split."""

    name: str
    program: str
    person: str
    pitch: float
    split: str


class Manner(NamedTuple):
    """How something is said: pitch over the usual one, tempo, and the length of the vocal tract over the voice's."""

    pitch: float = 1.0
    tempo: float = 1.0
    tract: float = 1.0
    monotone: bool = False


def plan(count: int = 30, seed: int = 0) -> list[Step]:
    """Return what renders about `count` recordings of every voice in every way of speaking, and conversations.

    Raises DataError if a program is not installed, or `count` is not positive.
    """
    voices = [Voice(**each) for each in tables()["voices"]]
    check_plan(count, [voice.program for voice in voices])
    jobs: list[tuple[Callable[..., Recording], Any, int]] = []
    for voice in voices:
        jobs += [(say, voice, count), (say_as_child, voice, -(-count // 2))]
        jobs += [(render, voice, -(-count // 4)) for render in (whisper, shout)]
        jobs += [(sing, voice, -(-count // 2))] * (voice.program == "flite")
    for split, number in (("train", 2 * count), ("validation", count)):
        jobs.append((converse, [voice for voice in voices if voice.split == split], number))
    return [partial(repeat, render, who, numbers, seed) for render, who, number in jobs for numbers in cut_tens(number)]


def repeat(
    render: Callable[..., Recording], who: Voice | list[Voice], numbers: range, seed: int, folder: Path
) -> Iterable[Recording]:
    """Render some recordings of one kind; each has random numbers of its own."""
    name = who.name if isinstance(who, Voice) else who[0].split
    for number in numbers:
        yield render(make_rng(seed, f"{render.__name__} {name} {number}"), who, f"{name}_{number}", folder)


def speak(voice: Voice, text: str, manner: Manner, folder: Path) -> Array:
    """Let a program speak a text; return samples (time,) at 32 kHz.

    A shorter vocal tract is speech that is played faster after it was spoken lower and more slowly.
    """
    import soxr

    output, pitch = folder / "speech.wav", voice.pitch * manner.pitch * manner.tract
    slow = 1 / (manner.tempo * manner.tract)
    output.unlink(missing_ok=True)
    if voice.program == "flite":
        settings = [f"duration_stretch={slow:.3f}", f"int_f0_target_mean={pitch:.1f}"]
        settings += ["int_f0_target_stddev=1"] * manner.monotone
        options = [word for each in settings for word in ("--setf", each)]
        words = ["flite", "-voice", voice.name, *options, "-t", text, "-o", str(output)]
    elif voice.program == "text2wave":
        (folder / "text.txt").write_text(text, encoding="utf-8")
        f0 = f"(set! int_lr_params '((target_f0_mean {pitch:.1f}) (target_f0_std 14)"
        f0 += " (model_f0_mean 170) (model_f0_std 34)))"
        commands = [f"(voice_{voice.name})", f"(Parameter.set 'Duration_Stretch {slow:.3f})", f0]
        words = ["text2wave", *(word for each in commands for word in ("-eval", each))]
        words += ["-o", str(output), str(folder / "text.txt")]
    else:
        height = int(np.clip(50 + 74 * np.log2(manner.pitch * manner.tract), 0, 99))  # 74 steps are an octave
        words = ["espeak-ng", "-v", voice.name, "-p", str(height), "-s", f"{160 / slow:.0f}", "-w", str(output), text]
    wave = run_program(*words, output=output)
    return wave if manner.tract == 1 else soxr.resample(wave, RATE, RATE * manner.tract)


def draw_text(rng: np.random.Generator, most: int = 3) -> str:
    """Draw one sentence or several."""
    parts = tables()["sentences"]
    return " ".join(
        f"{rng.choice(parts['subjects'])} {rng.choice(parts['verbs'])} {rng.choice(parts['objects'])}"
        f"{rng.choice(parts['ends'])}".capitalize()
        for _ in range(int(rng.integers(1, most + 1)))
    )


def draw_manner(rng: np.random.Generator) -> Manner:
    """Draw the manner of one of many adult speakers."""
    return Manner(2 ** rng.uniform(-0.2, 0.25), 2 ** rng.uniform(-0.3, 0.3), 2 ** rng.uniform(-0.14, 0.14))


def equalise(wave: Array, spectrum: Spectrum) -> Array:
    """Filter a wave by a spectrum."""
    hz = np.fft.rfftfreq(len(wave), 1 / RATE).astype(np.float64)
    return np.fft.irfft(np.fft.rfft(wave) * amplitude(spectrum, hz), len(wave))


def finish(
    rng: np.random.Generator, wave: Array, name: str, labels: tuple[str, ...], caption: str, *voices: Voice
) -> Recording:
    """Put a recording on the telephone or into a room, or leave it; complete its caption, which has a place for it."""
    if rng.random() < 0.15:
        wave = equalise(wave, TELEPHONE)
        wave, place = np.tanh(wave * rng.uniform(1, 6) / np.abs(wave).max(initial=1e-9)), " over the telephone"
    else:
        wave, room = add_room(rng, wave)
        place = f" in {room}" if room else ""
    name = f"{labels[0].split()[0]}_{name}"
    wave, programs = wave[: round(MAX_SECONDS * RATE)], tuple(sorted({voice.program for voice in voices}))
    return Recording(wave, name, labels, caption.format(place), voices[0].split, programs)


def say(rng: np.random.Generator, voice: Voice, name: str, folder: Path) -> Recording:
    """Render a man or a woman who speaks."""
    wave = speak(voice, draw_text(rng), draw_manner(rng), folder)
    return finish(rng, wave, name, (SPEAKING[voice.person], "speech"), f"A {voice.person} speaks{{}}.", voice)


def say_as_child(rng: np.random.Generator, voice: Voice, name: str, folder: Path) -> Recording:
    """Render an adult's voice with the pitch and the vocal tract of a child."""
    tract = rng.uniform(0.69, 0.83) if voice.person == "man" else rng.uniform(0.77, 0.89)
    manner = Manner(rng.uniform(250, 340) / voice.pitch, rng.uniform(0.8, 1.1), tract)
    wave = speak(voice, draw_text(rng, 2), manner, folder)
    return finish(rng, wave, name, (SPEAKING["child"], "speech"), "A child speaks{}.", voice)


def whisper(rng: np.random.Generator, voice: Voice, name: str, folder: Path) -> Recording:
    """Render speech whose voice is replaced by noise: the spectral envelope stays, the pitch goes."""
    wave = speak(voice, draw_text(rng, 2), draw_manner(rng), folder)
    window, size = np.hanning(FRAME + 1)[:-1], len(wave) + 2 * FRAME
    breath, padded, whispered = rng.standard_normal(size), np.pad(wave, FRAME), np.zeros(size)
    for start in range(0, size - FRAME, HOP):
        cepstrum = np.fft.irfft(np.log(np.abs(np.fft.rfft(padded[start : start + FRAME] * window)) + 1e-6))
        cepstrum[LIFTER : FRAME - LIFTER + 1] = 0
        envelope = np.exp(np.fft.rfft(cepstrum).real)
        excited = np.fft.irfft(np.fft.rfft(breath[start : start + FRAME] * window) * envelope)
        whispered[start : start + FRAME] += excited * window
    wave = equalise(whispered[FRAME:-FRAME], UNVOICED)
    return finish(rng, wave, name, ("whisper",), "Someone whispers{}.", voice)


def shout(rng: np.random.Generator, voice: Voice, name: str, folder: Path) -> Recording:
    """Render speech with the pitch, the spectrum and the compression of a shout."""
    manner = Manner(rng.uniform(1.6, 2.2), rng.uniform(0.8, 1.0), 2 ** rng.uniform(-0.2, 0))
    text = draw_text(rng, 1).rstrip(".") + "!"
    wave = equalise(speak(voice, text, manner, folder), EFFORT)
    wave = np.tanh(wave * rng.uniform(3, 8) / np.abs(wave).max(initial=1e-9))
    return finish(rng, wave, name, ("shouting",), f"A {voice.person} shouts{{}}.", voice)


def sing(rng: np.random.Generator, voice: Voice, name: str, folder: Path) -> Recording:
    """Render a melody with a word on each note."""
    line, wave = str(rng.choice(tables()["songs"])).split(), np.zeros(0)
    home, step = rng.uniform(0.0, 5.0), int(rng.integers(len(SCALE)))
    for word in line:
        step = int(np.clip(step + rng.integers(-2, 3), 0, len(SCALE) - 1))
        manner = Manner(2 ** ((home + SCALE[step]) / 12), 1 / rng.choice([1.3, 1.8, 2.6]), monotone=True)
        note = speak(voice, word, manner, folder)
        sounding = np.flatnonzero(np.abs(note) > 0.02 * np.abs(note).max(initial=1e-9))
        if len(sounding):
            note = note[sounding[0] : sounding[-1] + 1]
            time = np.arange(len(note)) / RATE
            depth = 0.03 / (2 * np.pi * rng.uniform(4.8, 6.2))  # half a semitone either way
            sway = depth * np.minimum(1, time / 0.3) * np.sin(0.03 / depth * time)
            fade = np.minimum(1, np.minimum(time, time[::-1]) / 0.008)  # no clicks between the notes
            wave = np.append(wave, fade * np.interp(time + sway, time, note))
    return finish(rng, wave, name, ("singing voice",), f"A {voice.person} sings{{}}.", voice)


def converse(rng: np.random.Generator, voices: list[Voice], name: str, folder: Path) -> Recording:
    """Render two to four speakers who take turns, sometimes before the other has finished."""
    speakers = [(voices[i], draw_manner(rng)) for i in rng.permutation(len(voices))[: int(rng.integers(2, 5))]]
    wave, end = np.zeros(round((MAX_SECONDS + 8) * RATE)), 0
    while end < (MAX_SECONDS - 2) * RATE:
        for voice, manner in speakers:
            turn = speak(voice, draw_text(rng, 1), manner, folder) * rng.uniform(0.5, 1.0)
            start = max(0, end + round(rng.uniform(-0.3, 0.5) * RATE))
            turn = turn[: max(0, len(wave) - start)]
            wave[start : start + len(turn)] += turn
            end = start + len(turn)
    caption = f"{('Two', 'Three', 'Four')[len(speakers) - 2]} people talk with each other{{}}."
    return finish(rng, wave[:end], name, ("conversation", "speech"), caption, *(voice for voice, _ in speakers))
