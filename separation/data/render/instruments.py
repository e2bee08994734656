"""Instruments, drums and ensembles, played by FluidSynth from a General MIDI sound font."""

from __future__ import annotations

import csv
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from separation.data.foley.parts import Array
from separation.data.render import RATE, Recording, Step, add_room, check_plan, cut_tens, make_rng, run_program, tables
from separation.errors import DataError

PROGRAM = "fluidsynth"
SECONDS, GAP = 6.0, 3.0  # of a phrase, and between phrases, where notes fade
TICKS = 960  # of MIDI per second
DRUMS = 9  # channel
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 3, 5, 7, 10), (0, 2, 4, 7, 9))
PROGRESSIONS = ((0, 4, 5, 3), (0, 3, 4, 0), (5, 3, 0, 4), (0, 5, 3, 4), (1, 4, 0, 0), (0, 0, 3, 4))  # degrees
DYNAMICS = ((30, "very quietly"), (52, "quietly"), (78, ""), (100, "loudly"), (115, "very loudly"))
PATTERNS = {36: 0.35, 38: 0.25, 42: 0.75, 46: 0.1, 49: 0.05, 45: 0.08}  # keys of a kit, and how often they are hit
BACKGROUND_PEAK = 0.2


class Instrument(NamedTuple):
    """A program of the sound font: label, name in captions, range of keys, whether it plays chords, split."""

    program: int
    label: str
    name: str
    low: int
    high: int
    chords: bool
    split: str


class Note(NamedTuple):
    """A note: start and end in seconds, key and velocity of MIDI, channel."""

    start: float
    end: float
    key: int
    velocity: int
    channel: int = 0


def instruments() -> list[Instrument]:
    """The instruments of `instruments.csv`."""
    text = files(__package__).joinpath("instruments.csv").read_text(encoding="utf-8")
    return [
        Instrument(int(row["program"]), row["label"], row["name"], int(row["low"]), int(row["high"]),
                   row["chords"] == "yes", row["split"])
        for row in csv.DictReader(text.splitlines())
    ]  # fmt: skip


def plan(soundfont: Path, count: int = 8, seed: int = 0) -> list[Step]:
    """Return what renders `count` phrases of every instrument and drum, and 15 times as many pieces of music.

    Raises DataError if FluidSynth is not installed, the sound font is not one, or `count` is not positive.
    """
    check_plan(count, [PROGRAM])
    try:
        with soundfont.open("rb") as file:
            head = file.read(12)
    except OSError:
        head = b""
    if head[:4] != b"RIFF" or head[8:] != b"sfbk":
        raise DataError(
            f"{soundfont} is not a sound font (.sf2); on Debian and Ubuntu: apt-get install fluid-soundfont-gm."
        )
    steps: list[Step] = [partial(render_phrases, soundfont, each, count, seed) for each in instruments()]
    steps += [partial(render_drums, soundfont, number, count, seed) for number in range(len(tables()["drums"]))]
    return steps + [partial(render_music, soundfont, pieces, seed) for pieces in cut_tens(15 * count)]


def midi_file(notes: Iterable[Note], programs: Iterable[tuple[float, int, int]]) -> bytes:
    """Write notes, and changes of program as (second, channel, program), as a standard MIDI file."""
    events = [(round(second * TICKS), 0, bytes((0xC0 | channel, number))) for second, channel, number in programs]
    for note in notes:
        events.append((round(note.start * TICKS), 2, bytes((0x90 | note.channel, note.key, note.velocity))))
        events.append((round(note.end * TICKS), 1, bytes((0x80 | note.channel, note.key, 0))))
    track, last = b"", 0
    for time, _, message in sorted(events):
        delta, last = time - last, time
        digits = [delta & 0x7F]
        while delta := delta >> 7:
            digits.insert(0, delta & 0x7F | 0x80)
        track += bytes(digits) + message
    track += b"\x00\xff\x2f\x00"
    return struct.pack(">4sIHHH4sI", b"MThd", 6, 0, 1, TICKS // 2, b"MTrk", len(track)) + track


def play(soundfont: Path, notes: Iterable[Note], programs: Iterable[tuple[float, int, int]], folder: Path) -> Array:
    """Play notes without effects; return samples (time,)."""
    score, output = folder / "notes.mid", folder / "notes.wav"
    score.write_bytes(midi_file(notes, programs))
    words = f"-niq -o synth.dynamic-sample-loading=1 -R 0 -C 0 -r {RATE} -T wav -O float -F".split()
    return run_program(PROGRAM, *words, str(output), str(soundfont), str(score), output=output)


def cut_parts(wave: Array, count: int) -> list[Array]:
    """Cut what was played in slots of SECONDS + GAP."""
    return [wave[round(k * (SECONDS + GAP) * RATE) :][: round((SECONDS + GAP - 0.1) * RATE)] for k in range(count)]


def draw_phrase(rng: np.random.Generator, each: Instrument, start: float) -> tuple[list[Note], str]:
    """Draw a phrase of notes, or of chords where the instrument plays them; return it and how it is played."""
    notes: list[Note] = []
    loud, how = DYNAMICS[rng.integers(len(DYNAMICS))]
    swell, beat, legato = rng.uniform(-25, 25), rng.choice([0.15, 0.25, 0.33, 0.5, 0.8]), rng.uniform(0.4, 1.0)
    span = min(each.high - each.low, 19)
    bottom = each.low + int(rng.integers(each.high - each.low - span + 1))
    chords = 0.7 * (each.chords and rng.random() < 0.6)
    scale = SCALES[rng.integers(len(SCALES))]
    keys = [key for key in range(bottom, bottom + span + 1) if (key - bottom) % 12 in scale]
    step, time = int(rng.integers(len(keys))), start
    while time < start + SECONDS - 0.2:
        length = beat * rng.choice([0.5, 1, 1, 1, 2, 4])
        step = int(np.clip(step + rng.integers(-3, 4), 0, len(keys) - 1))
        velocity = loud + swell * (time - start) / SECONDS + rng.uniform(-10, 10)
        end = min(time + max(0.08, length * legato), start + SECONDS)
        if rng.random() > 0.1:
            together = keys[step : step + 5 : 2] if rng.random() < chords else [keys[step]]
            notes += [Note(time, end, key, int(np.clip(velocity, 15, 127))) for key in together]
        time += length
    where = "" if each.high - each.low < 30 else ("low notes", "", "high notes")[min(2, 3 * (bottom - each.low) // 24)]
    return notes, " ".join(filter(None, ("chords" if chords else where, how)))


def render_phrases(soundfont: Path, each: Instrument, count: int, seed: int, folder: Path) -> Iterable[Recording]:
    """Render phrases of an instrument."""
    rng = make_rng(seed, f"instrument {each.program}")
    phrases = [draw_phrase(rng, each, number * (SECONDS + GAP)) for number in range(count)]
    wave = play(soundfont, [note for notes, _ in phrases for note in notes], [(0.0, 0, each.program)], folder)
    article = "An" if each.name[0].lower() in "aeio" else "A"
    for number, (part, (_, how)) in enumerate(zip(cut_parts(wave, count), phrases, strict=True)):
        caption = f"{article} {each.name} plays{how and ' ' + how}."
        name, wave = f"{each.program}_{number}", add_room(rng, part)[0]
        yield Recording(wave, name, (each.label,), caption, each.split, (PROGRAM,))


def draw_beat(rng: np.random.Generator, keys: Sequence[int], start: float, seconds: float, loud: float) -> list[Note]:
    """Draw a rhythm of drum keys, or of a whole kit if there are none."""
    beat, notes = rng.choice([0.12, 0.2, 0.25, 0.33, 0.5]), []
    bars = [{key: rng.random(8) < share for key, share in PATTERNS.items()} for _ in range(2)]
    hits = rng.random(8) < 0.7
    hits[0] = True
    for number, time in enumerate(np.arange(start, start + seconds - 0.1, beat)):
        if keys:
            struck = [int(rng.choice(keys))] if hits[number % 8] else []
        else:
            struck = [key for key, pattern in bars[number // 8 % 2].items() if pattern[number % 8]]
        for key in struck:
            velocity = int(np.clip(loud * (1.0 if number % 4 else 1.15) + rng.uniform(-12, 12), 20, 127))
            notes.append(Note(float(time), float(time) + 0.1, key, velocity, DRUMS))
    return notes


def render_drums(soundfont: Path, which: int, count: int, seed: int, folder: Path) -> Iterable[Recording]:
    """Render rhythms of a drum of `tables.yaml`, each with one of the kits."""
    drum, kits = tables()["drums"][which], tables()["kits"]
    rng = make_rng(seed, f"drum {drum['name']}")
    order = [list(kits)[number % len(kits)] for number in range(count)]
    starts = [number * (SECONDS + GAP) for number in range(count)]
    notes = [note for at in starts for note in draw_beat(rng, drum["keys"], at, SECONDS, rng.uniform(50, 110))]
    wave = play(soundfont, notes, [(at, DRUMS, kit) for at, kit in zip(starts, order, strict=True)], folder)
    for number, (part, kit) in enumerate(zip(cut_parts(wave, count), order, strict=True)):
        name, caption = f"{drum['name'].replace(' ', '_')}_{number}", f"Someone plays a {drum['name']}."
        yield Recording(add_room(rng, part)[0], name, (drum["label"],), caption, kits[kit], (PROGRAM,))


def draw_piece(
    rng: np.random.Generator, players: Sequence[Instrument], start: float, soft: bool, drums: bool
) -> list[Note]:
    """Draw a piece in one key and rhythm: the first player has the bass, the second the chords, the others melodies."""
    scale, home = SCALES[rng.integers(2)], int(rng.integers(12))
    chords = PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
    bar = float(rng.uniform(1.6, 2.6) if soft else rng.uniform(1.0, 2.0))
    loud = rng.uniform(35, 55) if soft else rng.uniform(65, 100)
    notes: list[Note] = []

    def add(channel: int, time: float, length: float, degree: int, near: int) -> None:
        each = players[channel]
        pitch = home + scale[degree % len(scale)] + 12 * (degree // len(scale))
        key = pitch + 12 * round((np.clip(near, each.low + 6, each.high - 6) - pitch) / 12)
        key = key + 12 * (key < each.low) - 12 * (key > each.high)
        velocity = int(np.clip(loud + rng.uniform(-10, 10), 15, 127))
        notes.append(Note(time, min(time + length, start + SECONDS), key, velocity, channel))

    for number, time in enumerate(np.arange(start, start + SECONDS - 0.3, bar)):
        root = chords[number % len(chords)]
        for beat in range(1 if soft else 4):
            add(0, time + beat * bar / 4, bar * (0.9 if soft else 0.2), root, 36)
        for beat in range(0, 4, 4 if soft else 2):
            for degree in (root, root + 2, root + 4):
                add(1, time + beat * bar / 4, bar * (0.95 if soft else 0.45), degree, 60)
        for channel in range(2, len(players)):
            split = int(rng.choice([1, 2] if soft else [2, 4, 8]))
            for at in time + np.arange(split) * bar / split:
                if rng.random() < 0.8:
                    add(channel, at, bar / split * 0.9, root + int(rng.choice([0, 1, 2, 4, 6])), 66)
    notes = [note for note in notes if note.start < start + SECONDS - 0.1]
    return notes + (draw_beat(rng, (), start, SECONDS, loud) if drums else [])


def render_music(soundfont: Path, pieces: range, seed: int, folder: Path) -> Iterable[Recording]:
    """Render pieces of music, every third one soft and quiet: background music. Every fifth is a validation piece."""
    notes: list[Note] = []
    changes, facts, kits = [], [], tables()["kits"]
    for slot, number in enumerate(pieces):
        rng, start = make_rng(seed, f"music {number}"), slot * (SECONDS + GAP)
        split, soft = "validation" if number % 5 == 4 else "train", number % 3 == 2
        usable = [each for each in instruments() if each.split == split and each.program < 112]
        pitched = [each for each in usable if each.chords and each.low <= 48 and each.high >= 72]
        bass = [each for each in usable if each.low <= 36]
        players = [bass[rng.integers(len(bass))], pitched[rng.integers(len(pitched))]]
        players += [usable[rng.integers(len(usable))] for _ in range(int(rng.integers(1, 4)))]
        drums = not soft and rng.random() < 0.7
        notes += draw_piece(rng, players, start, soft, drums)
        kit = int(rng.choice([each for each, where in kits.items() if where == split]))
        changes += [(start, channel, each.program) for channel, each in enumerate(players)] + [(start, DRUMS, kit)]
        sounding = tuple(dict.fromkeys([*(each.label for each in players), *(["drum kit"] if drums else [])]))
        facts.append((rng, split, soft, sounding))
    wave = play(soundfont, notes, changes, folder)
    for number, part, (rng, split, soft, sounding) in zip(pieces, cut_parts(wave, len(pieces)), facts, strict=True):
        part, place = add_room(rng, part)
        caption = "Soft music plays in the background." if soft else f"A band plays{place and ' in ' + place}."
        labels = ("background music", "music", *sounding) if soft else ("music", *sounding)
        recording = Recording(part, f"music_{number}", labels, caption, split, (PROGRAM,))
        yield replace(recording, peak=BACKGROUND_PEAK) if soft else recording
