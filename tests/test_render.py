"""`separation-data render`: what is rendered, with stand-ins for the programs, and with the programs where they are."""

import csv
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from separation.data.manifest import leaks, read_entries
from separation.data.render import RATE, collect_wordings, instruments, speech, tables
from separation.data.texts import read_wordings
from separation.datasets.command import main
from separation.evaluate.protocols.validation import LIST
from separation.vocabulary.sounds import known_sounds, wordings

OUTPUT_OPTIONS = {"fluidsynth": "-F", "flite": "-o", "text2wave": "-o", "espeak-ng": "-w"}
SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
LABELS = [*(each.label for each in instruments.instruments()), *(each["label"] for each in tables()["drums"])]
LABELS = {*LABELS, *speech.SPEAKING.values(), "music", "background music", "conversation", "singing voice", "shouting"}


def write_programs(tmp_path):
    """Write stand-ins that copy a second of a tone to where the real programs write; `sf2` passes as a sound font."""
    folder, tone = tmp_path / "bin", tmp_path / "tone.wav"
    soundfile.write(tone, 0.5 * np.sin(2 * np.pi * 200 * np.arange(22050) / 22050), 22050)
    folder.mkdir()
    for name, option in OUTPUT_OPTIONS.items():
        (folder / name).write_text(
            f'#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" = {option} ] && ln -sf {tone} "$2"; shift; done; exit 0\n'
        )
        (folder / name).chmod(0o755)
    (tmp_path / "sf2").write_bytes(b"RIFF\0\0\0\0sfbk")
    return folder


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Put the stand-ins first on the path; return their folder."""
    monkeypatch.setenv("PATH", f"{write_programs(tmp_path)}:/usr/bin:/bin")
    return tmp_path / "bin"


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Return a folder of rendered speech."""
    folder = tmp_path_factory.mktemp("spoken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{write_programs(folder)}:/usr/bin:/bin")
        assert render_speech(folder) == 0
    return folder / "out"


def render_speech(tmp_path, *options):
    return main(["render", "speech", "-o", str(tmp_path / "out"), "--count", "1", *options])


def test_instruments_have_labels_captions_authors_and_programs_of_their_own_in_each_split(programs, tmp_path, capsys):
    words = ["render", "instruments", "--soundfont", str(tmp_path / "sf2"), "--count", "1"]
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    assert "labels" in capsys.readouterr().out
    entries = list(read_entries(tmp_path / "out" / "manifest.csv"))
    assert not leaks(entries)
    labels = defaultdict(set)
    for split, clip in entries:
        labels[split].add(clip.label)
        assert "MIT" in clip.licence and "(by Frank Wen" in clip.licence
        assert clip.caption.endswith(".") and (tmp_path / "out" / clip.path).is_file()
    assert labels["train"] >= {"violin", "trumpet", "sitar", "drum kit", "hi-hat", "music"}
    assert labels["validation"] >= {"piano", "guitar", "saxophone", "trumpet"}
    assert any("muted trumpet" in clip.caption for _, clip in entries)
    piece = next(clip for _, clip in entries if clip.label == "music")
    assert len(piece.labels) >= 3 and set(piece.labels[1:]) <= LABELS  # what plays in it
    assert len({each.program for each in instruments.instruments()}) == len(instruments.instruments()) >= 90
    twice = [next(iter(instruments.render_drums(tmp_path / "sf2", 0, 1, seed, tmp_path))).wave for seed in (0, 0)]
    assert np.array_equal(*twice)


def test_speech_covers_all_ways_of_speaking_and_holds_speakers_out(spoken):
    entries = list(read_entries(spoken / "manifest.csv"))
    assert not leaks(entries)
    wanted = {*speech.SPEAKING.values(), "conversation", "singing voice", "shouting", "whisper"}
    for split in ("train", "validation"):
        assert {clip.label for name, clip in entries if name == split} == wanted
    for _, clip in entries:
        assert ("speech" in clip.labels) == (clip.label in {*speech.SPEAKING.values(), "conversation"})
        wave, rate = soundfile.read(spoken / clip.path)
        assert rate == RATE and 0.85 < np.abs(wave).max() <= 0.91 and wave.ndim == 1
    people = {"kal16": "kal", "kal_diphone": "kal", "cmu_us_slt_arctic_hts": "slt"}
    splits = defaultdict(set)
    for voice in tables()["voices"]:
        splits[people.get(voice["name"], voice["name"])].add(voice["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_missing_programs_and_what_is_no_sound_font_are_one_sentence(programs, tmp_path, capsys):
    (programs / "espeak-ng").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(programs))
        assert render_speech(tmp_path) == 1
    assert "espeak-ng is not installed; it speaks" in (said := capsys.readouterr().err)
    assert "apt-get install espeak-ng" in said and said.count("\n") == 1
    words = ["render", "instruments", "-o", str(tmp_path / "out")]
    assert main([*words, "--soundfont", str(tmp_path / "tone.wav")]) == 1
    assert "tone.wav is not a sound font" in capsys.readouterr().err
    assert main(words) == 1
    assert "needs --soundfont" in capsys.readouterr().err
    assert render_speech(tmp_path, "--count", "-1") == 1
    assert "must be positive" in capsys.readouterr().err
    soundfile.write(tmp_path / "tone.wav", np.zeros(22050), 22050)
    assert main([*words, "--soundfont", str(tmp_path / "sf2"), "--count", "1"]) == 1
    assert "out is not written: the programs have rendered silence only." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_sentence(programs, tmp_path, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        assert render_speech(tmp_path) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    why = "the folder of renderings cannot be written (the file would be larger than is allowed here)"
    assert capsys.readouterr().err == f"separation-data: {tmp_path / 'out'}: {why}.\n"
    assert not list(tmp_path.glob("*out*"))


def test_a_program_that_fails_leaves_nothing_and_an_older_folder_as_it_is(spoken, programs, tmp_path, capsys):
    shutil.copytree(spoken, tmp_path / "out")
    before = (tmp_path / "out" / "manifest.csv").read_bytes()
    assert render_speech(tmp_path) == 1
    assert "Add --overwrite to replace it." in capsys.readouterr().err
    (programs / "flite").write_text("#!/bin/sh\necho no such voice >&2; exit 3\n")
    assert render_speech(tmp_path, "--overwrite") == 1
    assert "flite has not rendered a recording (status 3): no such voice" in capsys.readouterr().err
    assert main(["render", "speech", "-o", str(tmp_path / "new" / "out")]) == 1
    assert (tmp_path / "out" / "manifest.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "out", "sf2", "tone.wav"]
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert render_speech(tmp_path, "--overwrite") == 1
    assert "holds other files" in capsys.readouterr().err


def test_an_interrupt_leaves_nothing(programs, tmp_path):
    (programs / "flite").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 20\n")
    command = [sys.executable, "-m", "separation.datasets.command", "render", "speech", "-o", str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for _ in range(600):
        if (tmp_path / "started").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) in (130, -signal.SIGINT)
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "sf2", "started", "tone.wav"]


def test_a_text_means_one_label_and_no_wording_is_a_validation_phrase(tmp_path):
    rendered = collect_wordings(LABELS)
    (tmp_path / "rendered.json").write_text(json.dumps(rendered))
    (tmp_path / "own.json").write_text(json.dumps({label: list(texts) for label, texts in wordings().items()}))
    merged = read_wordings(tmp_path / "own.json", tmp_path / "rendered.json")
    labels = defaultdict(set)
    for label, texts in merged.items():
        for text in (label, *texts):
            labels[text.lower()].add(label)
    before = {"cafeteria", "toast", "groan"}
    assert {text for text, found in labels.items() if len(found) > 1} <= before
    assert "woman speaking" in wordings()["speech"] and "woman speaking" not in merged["speech"]
    names = set(known_sounds())
    for label in LABELS:
        assert rendered[label]
        assert not names & {text.lower() for text in tables()["wordings"].get(label, ())} - {label}
    with LIST.open(newline="", encoding="utf-8") as file:
        phrases = {row["phrase"].lower() for row in csv.DictReader(file)}
    assert len(phrases) > 70 and not phrases & {text.lower() for texts in rendered.values() for text in texts}


def pitch(wave):
    """Median fundamental frequency of the voiced frames, Hz; their share of the loud frames."""
    found = []
    frames = np.lib.stride_tricks.sliding_window_view(wave, 2048)[::1024]
    loud = frames[np.sqrt((frames**2).mean(1)) > 0.3 * np.sqrt((wave**2).mean())]
    for frame in loud - loud.mean(1, keepdims=True):
        likeness = np.fft.irfft(np.abs(np.fft.rfft(frame, 4096)) ** 2)[: RATE // 60]
        lag = RATE // 500 + int(likeness[RATE // 500 :].argmax())
        if likeness[lag] > 0.5 * likeness[0]:
            found.append(RATE / lag)
    return float(np.median(found or [0.0])), len(found) / len(loud)


@pytest.mark.skipif(not (shutil.which("fluidsynth") and SOUNDFONT.is_file()), reason="needs FluidSynth and FluidR3")
def test_fluidsynth_plays_the_notes(tmp_path):
    notes = [instruments.Note(0.1, 1.0, 69, 90), instruments.Note(1.1, 2.0, 57, 40)]
    wave = instruments.play(SOUNDFONT, notes, [(0.0, 0, 73)], tmp_path)
    loud, soft = wave[RATE // 4 : RATE * 3 // 4], wave[RATE * 5 // 4 : RATE * 7 // 4]
    for part, hz in ((loud, 440), (soft, 220)):
        assert abs(pitch(part)[0] - hz) < 0.01 * hz
    assert (loud**2).mean() > 10 * (soft**2).mean()
    assert np.array_equal(wave, instruments.play(SOUNDFONT, notes, [(0.0, 0, 73)], tmp_path))


@pytest.mark.skipif(not shutil.which("flite"), reason="needs flite")
def test_flite_speaks_as_child_whispers_and_sings(tmp_path):
    voice = speech.Voice("slt", "flite", "woman", 190, "train")
    text = "we all know that the river runs down to the sea"
    for manner in (speech.Manner(), speech.Manner(pitch=1.3, tract=0.8), speech.Manner(pitch=0.9, tract=1.15)):
        wave = speech.speak(voice, text, manner, tmp_path)
        assert abs(pitch(wave)[0] - 190 * manner.pitch) < 0.1 * 190 * manner.pitch
        assert 2.2 < len(wave) / RATE < 3.6  # the tract does not change the tempo
    whispered = speech.whisper(np.random.default_rng(0), voice, "a", tmp_path).wave
    assert pitch(whispered)[1] < 0.25 < pitch(wave)[1]
    child = speech.say_as_child(np.random.default_rng(0), voice, "a", tmp_path)
    assert 225 < pitch(child.wave)[0] < 375 and child.caption.startswith("A child speaks")
    sung = speech.sing(np.random.default_rng(4), voice, "a", tmp_path)
    assert sung.labels == ("singing voice",) and len(sung.wave) > 2 * RATE
