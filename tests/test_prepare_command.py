"""The command `separation-data` and what all preparers share: splits without leaks, missing files."""

import os

import numpy as np
import pytest
import soundfile
from layouts import CANNOT_LEAK, ESC50, LAYOUTS, film, sound, text
from tiny import write_corpus, write_manifest

from separation.data.manifest import Clip, leaks, read_entries
from separation.data.manifest import write_manifest as write
from separation.datasets.base import FileIndex, Preparer, clean_text, label_words
from separation.datasets.command import main
from separation.datasets.prepare import find_preparer, prepare, preparers


def run(*arguments):
    return main([str(each) for each in arguments])


def test_every_dataset_has_a_layout_here():
    assert set(preparers()) == set(LAYOUTS)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_no_recording_is_in_two_splits(tmp_path, name, capsys):
    LAYOUTS[name](tmp_path / "data", leak=True)
    raw = leaks(find_preparer(name).clips(tmp_path / "data"))
    assert bool(raw) == (name not in CANNOT_LEAK)
    assert run("prepare", name, "--root", tmp_path / "data", "--validation", 0.5) == 0
    entries = list(read_entries(tmp_path / "data" / "manifest.csv"))
    assert leaks(entries) == {}
    said = capsys.readouterr().out
    for recording in raw.keys() & {clip.recording for _, clip in find_preparer(name).clips(tmp_path / "data")}:
        assert {split for split, clip in entries if clip.recording == recording} == {"test"}
        assert f"their recording is in a stricter split too ({recording})" in said


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_error_of_a_missing_dataset_says_how_to_get_it(tmp_path, name, capsys):
    assert run("prepare", name, "--root", tmp_path / "nowhere") == 1
    said = capsys.readouterr().err
    assert "nowhere: no such folder. How to get " in said
    assert find_preparer(name).home in said
    (tmp_path / "empty").mkdir()
    assert run("prepare", name, "--root", tmp_path / "empty") == 1
    assert f"this is not {find_preparer(name).title}, {find_preparer(name).needs[0]}" in capsys.readouterr().err
    assert os.listdir(tmp_path / "empty") == []


def test_one_file_of_a_hundred_may_be_missing(tmp_path, capsys):
    names = [f"{i % 5 + 1}-{i}-A-0.wav" for i in range(200)]
    text(tmp_path / "meta" / "esc50.csv", ESC50, *(f"{name},{name[0]},0,dog,True,{name[2:-8]},A" for name in names))
    for name in names:
        sound(tmp_path / "audio" / name, 0.01)
    (tmp_path / "audio" / names[3]).unlink()
    (tmp_path / "audio" / names[7]).write_text("no sound")
    assert run("prepare", "esc50", "--root", tmp_path) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"left out: {tmp_path}/audio/{names[3]}: no such file."
    assert said[1].startswith(f"left out: {tmp_path}/audio/{names[7]}: the file is damaged or not audio: it cannot")
    assert len(list(read_entries(tmp_path / "manifest.csv"))) == 198
    (tmp_path / "audio" / names[9]).write_bytes(b"")
    assert run("prepare", "esc50", "--root", tmp_path, "-o", tmp_path / "new.csv") == 1
    assert "3 of 200 files of ESC-50 cannot be used; the first: " in capsys.readouterr().err
    assert not (tmp_path / "new.csv").exists()


def test_paths_start_from_the_manifest(tmp_path):
    LAYOUTS["esc50"](tmp_path / "sets" / "esc50")
    root = tmp_path / "sets" / "esc50"
    assert run("prepare", "esc50", "--root", root, "-o", tmp_path / "lists" / "m.jsonl") == 0
    first = next(read_entries(tmp_path / "lists" / "m.jsonl"))[1]
    assert first.path == (root / "audio" / "1-100032-A-0.wav").as_posix()
    assert run("prepare", "esc50", "--root", root, "-o", tmp_path / "sets" / "m.csv") == 0
    assert next(read_entries(tmp_path / "sets" / "m.csv"))[1].path == "esc50/audio/1-100032-A-0.wav"


def test_a_validation_split_is_made_only_where_there_is_none(tmp_path, capsys):
    LAYOUTS["voicebank-demand"](tmp_path / "speech")
    assert run("prepare", "voicebank-demand", "--root", tmp_path / "speech", "--validation", 0.3) == 0
    found = {(split, clip.recording[-4:]) for split, clip in read_entries(tmp_path / "speech" / "manifest.csv")}
    assert {split for split, _ in found} == {"train", "validation", "test"}
    assert len(found) == 3  # no speaker is in two
    LAYOUTS["esc50"](tmp_path / "esc50")
    capsys.readouterr()
    assert run("prepare", "esc50", "--root", tmp_path / "esc50", "--validation", 0.6) == 0
    assert "--validation was not needed" in capsys.readouterr().out


def test_a_new_dataset_is_one_description(tmp_path):
    def clips(root):
        yield "train", Clip("a.wav", "hum", "", "mine:1", "mine", 0.0)

    sound(tmp_path / "a.wav", 0.5)
    mine = Preparer("mine", "Mine", "my home", "Record it.", "CC0", "one", ("*.wav",), clips)
    written = prepare(mine, tmp_path, tmp_path / "m.csv", report=lambda line: None)
    assert [clip.seconds for _, clip in written] == [0.5]


# --- The other commands ------------------------------------------------------------------------


def test_list_and_show(capsys):
    assert run("list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [*sorted(LAYOUTS), "folder"]
    assert run("show", "musdb18-hq") == 0
    assert "zenodo.org/records/3338373" in capsys.readouterr().out
    assert run("show", "esc5O") == 1
    assert "Unknown dataset esc5O. Did you mean esc50?" in capsys.readouterr().err


def test_join_keeps_the_stricter_split(tmp_path, capsys):
    for name, split in (("a", "train"), ("b", "test")):
        clips = [(split, Clip(f"{i}.wav", "dog", "", f"freesound:{i}", name, 1.0)) for i in (1, ord(name))]
        write(tmp_path / name / "m.csv", clips)
    assert run("join", tmp_path / "a" / "m.csv", tmp_path / "b" / "m.csv", "-o", tmp_path / "both.csv") == 0
    assert "left out 1 clips" in capsys.readouterr().out
    joined = [(split, clip.path) for split, clip in read_entries(tmp_path / "both.csv")]
    assert joined == [("train", "a/97.wav"), ("test", "b/1.wav"), ("test", "b/98.wav")]


def test_check_reads_everything(tmp_path, capsys):
    manifest = write_corpus(tmp_path, labels=2, recordings=2)
    assert run("check", manifest) == 0
    assert capsys.readouterr().out == "4 clips are sound, 0 broken, 0 recordings in two splits\n"
    soundfile.write(tmp_path / "audio" / "made" / "tone 1" / "0.wav", np.zeros(8000), 8000)
    clips = list(read_entries(manifest))
    columns = ["path", "split", "label", "recording_id", "seconds"]
    twice = [
        {"path": c.path, "split": s, "label": c.label, "recording_id": "r" if n in (0, 3) else n, "seconds": 1}
        for n, (s, c) in enumerate((("test", clips[0][1]), *clips[1:]))
    ]
    write_manifest(manifest, twice, columns)
    assert run("check", manifest) == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"{tmp_path}/audio/made/tone 1/0.wav: the clip is silent or not finite.",
        "r: this recording is in test and train.",
        "3 clips are sound, 1 broken, 1 recordings in two splits",
    ]


def test_error_of_frames_that_cannot_be_written(tmp_path, capsys):
    film(tmp_path / "a.mp4")
    text(tmp_path / "m.csv", "path,split,recording_id,labels", "a.mp4,train,r,dog")
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "frames"
    assert run("frames", tmp_path / "m.csv", "--out", out) == 1
    assert capsys.readouterr().err == f"separation-data: {out}: a part of the path is not a folder.\n"


def test_files_are_found_by_stem(tmp_path):
    for name in ("a/one.flac", "b/one.mp4", "b/two.webm", "c/three.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = FileIndex(tmp_path)
    assert files.find("one") == "a/one.flac"  # audio goes before video
    assert files.find_video("zero", "one") == "b/one.mp4"
    assert files.find("zero", "two") == "b/two.webm"
    assert files.find("three", "four") == "three.wav"
    assert files.find_video("three") == ""
    assert FileIndex(tmp_path, "b").find("one") == "b/one.mp4"


def test_labels_become_words():
    assert label_words("Accelerating_and_revving_and_vroom") == "accelerating and revving and vroom"
    assert clean_text(" a;  b|c\n") == "a, b,c"


# --- Damaged and hostile lists -----------------------------------------------------------------

HEADER = "path,split,recording_id,labels"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.csv", f"{HEADER}\na\0.wav,train,r,dog\n", "line 2: it contains NUL bytes"),
        ("m.csv", f'{HEADER}\na.wav,"train,r,dog\nb.wav,train,r,dog\n', "line 3: unexpected end of data"),
        ("m.csv", f"{HEADER}\na.wav,train,r\n", "row 2: the number of cells differs"),
        ("m.csv", f"{HEADER}\na.wav,train,r,dog,more\n", "row 2: the number of cells differs"),
        ("m.csv", f"path,{HEADER}\na.wav,b.wav,train,r,dog\n", "the column path occurs twice"),
        ("m.csv", f"{HEADER}\n\na.wav,train,r,f\xe4n\n", "line 3: the manifest is not UTF-8 text"),
        ("m.csv", HEADER.replace(",", ";"), "lacks the column path"),
        ("m.csv", "x," * 1_000_000, "line 1: 1000001 cells, more than 1000"),
        ("m.csv", "", "lacks the column path"),
        ("m.jsonl", "[" * 100_000, "row 1: invalid JSON"),
        ("m.jsonl", '{"seconds": ' + "1" * 5000 + "}", "row 1: invalid JSON"),
        (
            "m.jsonl",
            '{"path": ["a"], "split": "train", "recording_id": "r", "labels": "x"}',
            "row 1: the path is not a",
        ),
        (
            "m.jsonl",
            '{"path": "a", "split": "train", "recording_id": "r", "labels": [{}]}',
            "row 1: the labels is not a",
        ),
        (
            "m.jsonl",
            '{"path": "a\\ud800", "split": "train", "recording_id": "r", "labels": "x"}',
            "row 1: the path is not",
        ),
        (
            "m.jsonl",
            '{"path": "a\\u0000", "split": "train", "recording_id": "r", "labels": "x"}',
            "row 1: the path is not",
        ),
    ],
)
@pytest.mark.parametrize("command", ["check", "join", "pack", "shard", "frames"])
def test_a_damaged_manifest_is_one_sentence(tmp_path, capsys, command, name, content, reason):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    out = {"join": "-o", "pack": "-o", "shard": "--out", "frames": "--out"}
    options = [out[command], tmp_path / "out"] if command in out else []
    assert run(command, tmp_path / name, *options) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"separation-data: {tmp_path / name}") and reason in said
    assert said.count("\n") == 1 and len(said) < 800
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("split", ["../../x", "/x", "a/b", ".x", "x\0", "", "x y"])
def test_shards_stay_in_their_folder(tmp_path, capsys, split):
    manifest = write_corpus(tmp_path / "deep" / "data", labels=1, recordings=1, split=split or "train")
    before = sorted(tmp_path.rglob("*"))
    assert run("shard", manifest, "--out", tmp_path / "deep" / "out", "--split", split, "--shards", 1) == 1
    said = capsys.readouterr().err
    assert "cannot be a part of file names" in said and said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "file", "content", "reason"),
    [
        ("fsd50k", "FSD50K.metadata/dev_clips_info_FSD50K.json", '{"1": [1]}', "not an object with the metadata"),
        ("fsd50k", "FSD50K.metadata/dev_clips_info_FSD50K.json", "[" * 100_000, "invalid JSON"),
        ("wavcaps", "json_files/FreeSound/fsd_final.json", "[1, 2]", "not a list of clips with id, caption"),
        ("wavcaps", "json_files/FreeSound/fsd_final.json", '{"data": {"id": 1}}', "not a list of clips"),
        ("wavcaps", "json_files/blacklist/blacklist.json", "[1]", "not an object with a list of names"),
        ("music", "MUSIC_solo_videos.json", '{"videos": {"guitar": 7}}', "not a list of ids"),
        ("slakh2100", "train/Track00001/metadata.yaml", "UUID: a\nstems: {S00: 7}", "no UUID or no stems"),
        ("slakh2100", "train/Track00001/metadata.yaml", "a: " + "[" * 1000, "cannot be read"),
        ("esc50", "meta/esc50.csv", ESC50 + "\n../../x.wav,1,0,dog,True,1,A", "the list names a file outside"),
    ],
)
def test_lists_of_another_form_are_one_sentence(tmp_path, capsys, name, file, content, reason):
    LAYOUTS[name](tmp_path / "set")
    (tmp_path / "set" / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "set" / file).write_text(content)
    assert run("prepare", name, "--root", tmp_path / "set", "-o", tmp_path / "m.csv") == 1
    said = capsys.readouterr().err
    assert said.startswith("separation-data: ") and reason in said and said.count("\n") == 1
    assert not (tmp_path / "m.csv").exists()


@pytest.mark.parametrize("content", ["[" * 100_000, "[1]", '{"dog": 7}', "\xff"])
def test_wordings_of_another_form_are_one_sentence(tmp_path, capsys, content):
    (tmp_path / "w.json").write_bytes(content.encode("latin-1"))
    manifest = write_corpus(tmp_path, labels=1, recordings=1)
    assert run("pack", manifest, "-o", tmp_path / "out", "--wordings", tmp_path / "w.json") == 1
    said = capsys.readouterr().err
    where = f"{tmp_path / 'w.json'}{', line 1' if content == chr(255) else ''}"
    assert said.startswith(f"separation-data: {where}: ") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()
