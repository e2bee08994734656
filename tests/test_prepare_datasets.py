"""Every preparer on a tiny folder of the published layout."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from layouts import LAYOUTS, film, sound, text
from media import save_media, tone

from separation.data.manifest import COLUMNS, Clip, read_entries
from separation.datasets import audioset, musdb18
from separation.datasets.prepare import find_preparer, measure_clip, prepare, summary
from separation.errors import DataError
from separation.evaluate.protocols.base import find_protocol

MANIFESTS = json.loads((Path(__file__).parent / "frozen" / "manifests.json").read_text(encoding="utf-8"))


def prepare_again(name, root, **how):
    """The (split, clip) pairs of a dataset's manifest, and what was said."""
    said = []
    prepare(find_preparer(name), root, root / "manifest.csv", report=said.append, **how)
    return list(read_entries(root / "manifest.csv")), said


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_manifest_and_report(tmp_path, name):
    """Of a tiny folder; the length of a video depends on its encoder."""
    LAYOUTS[name](tmp_path)
    _, said = prepare_again(name, tmp_path)
    with (tmp_path / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row | ({"seconds": ""} if row["path"].endswith(".mp4") else {}) for row in csv.DictReader(file)]
    assert rows == list(csv.DictReader(MANIFESTS[name]["manifest"], COLUMNS))
    assert [line.replace(str(tmp_path), "ROOT") for line in said] == MANIFESTS[name]["said"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "m4a"])
def test_uncut_recordings_are_refused_in_any_container(tmp_path, suffix):
    LAYOUTS["audioset-balanced"](tmp_path)
    sound(tmp_path / "audio" / "balanced" / "Y--PJHxphWEs.flac", 60.0)
    with pytest.raises(DataError, match=r": 60\.0 s long, the list means 10\.0 s of it"):
        prepare_again("audioset-balanced", tmp_path)
    (tmp_path / "audio" / "balanced" / "Y--PJHxphWEs.flac").unlink()
    path = tmp_path / "video" / f"--PJHxphWEs.{suffix}"
    film(path, 60.0)
    with pytest.raises(DataError, match=rf"{suffix}: 60\.[01] s long, the list means 10\.0 s of it: cut it first"):
        prepare_again("audioset-balanced", tmp_path)
    film(path, 9.0)
    entries, _ = prepare_again("audioset-balanced", tmp_path)
    assert [clip.path for _, clip in entries] == [f"video/--PJHxphWEs.{suffix}"]
    assert entries[0][1].seconds == pytest.approx(9.0, abs=0.3)  # an encoder adds some
    path.write_bytes(b"no video")
    with pytest.raises(DataError, match=rf"{suffix}: the file holds no audio that can be read \(ffmpeg: "):
        prepare_again("audioset-balanced", tmp_path)
    save_media(path.with_suffix(".mkv"), seconds_of_pictures=1.0).replace(path)
    with pytest.raises(
        DataError, match=rf"--PJHxphWEs\.{suffix}: the file holds no audio: there is no audio stream in it\."
    ):
        prepare_again("audioset-balanced", tmp_path)


@pytest.mark.parametrize(("suffix", "sound", "seconds"), [("mkv", 9.9, 9.9), ("mp4", 10.1, 10.0), ("aac", 4.0, 10.0)])
def test_the_length_of_a_clip_is_that_of_its_sound(tmp_path, suffix, sound, seconds):
    """The picture may be longer, headers are not exact, and of a bare stream nobody knows."""
    path = tmp_path / f"a.{suffix}"
    save_media(path, [tone(440, sound, 44100)], 44100, "aac", seconds_of_pictures=10.7 if suffix != "aac" else 0.0)
    clip = Clip(path.name, "tone", "", "a", "made", 10.0)
    assert measure_clip(clip, path).seconds == pytest.approx(seconds, abs=0.06)


def test_the_published_audioset_lists(data_root):
    lists = data_root / "text" / "audioset_segments"
    balanced = list(audioset.read_segments(lists / "balanced_train_segments.csv"))
    evaluation = list(audioset.read_segments(lists / "eval_segments.csv"))
    assert (len(balanced), len(evaluation)) == (22160, 20371)
    assert balanced[0] == ("--PJHxphWEs", 30.0, 40.0, ["/m/09x0r", "/t/dd00088"])
    assert not {row[0] for row in balanced} & {row[0] for row in evaluation}


def test_the_published_audiocaps_lists(data_root, tmp_path):
    shutil.copytree(data_root / "text" / "audiocaps", tmp_path / "dataset")
    entries = list(find_preparer("audiocaps").clips(tmp_path))
    assert Counter(split for split, _ in entries) == find_preparer("audiocaps").counts
    assert Counter(len(clip.captions) for split, clip in entries if split == "train") == {1: 49838}
    assert max(len(clip.captions) for split, clip in entries if split == "test") == 5
    assert len({clip.recording for _, clip in entries}) == len(entries)


def test_voicebank_sentences_are_pairs(tmp_path):
    LAYOUTS["voicebank-demand"](tmp_path)
    (tmp_path / "noisy_testset_wav" / "p232_001.wav").unlink()
    (tmp_path / "clean_testset_wav" / "p232_002.wav").touch()
    with pytest.raises(DataError, match=r"2 of 5 files of VoiceBank-DEMAND cannot be used; the first: .*noisy"):
        prepare_again("voicebank-demand", tmp_path)


def test_musdb18_stems_and_mixture_are_extracted(tmp_path):
    container, names = tmp_path / "test" / "A - song.stem.mp4", ("mixture", "drums", "bass", "other", "vocals")
    sound(tmp_path / "train" / "B - song" / "vocals.wav")
    container.parent.mkdir()
    save_media(container, [tone(1000 * hertz, 0.5, 44100) for hertz in range(1, 6)])
    musdb18.extract_stems(tmp_path)
    for hertz, name in enumerate(names, 1):
        wave, rate = soundfile.read(tmp_path / "test" / "A - song" / f"{name}.wav")
        loudest = np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave)
        assert loudest == pytest.approx(1000 * hertz, abs=5), name
    assert [row["mixture"] for row in find_protocol("uss/musdb18").rows(tmp_path)] == 4 * ["test/A - song/mixture.wav"]
    (tmp_path / "test" / "A - song" / "mixture.wav").unlink()  # as earlier versions left it
    musdb18.extract_stems(tmp_path)
    files = {path.relative_to(tmp_path / "test").as_posix() for path in (tmp_path / "test").rglob("*")}
    assert files == {"A - song", container.name, *(f"A - song/{name}.wav" for name in names)}
    (tmp_path / "test" / "C.stem.mp4").write_text("no stems")
    with pytest.raises(DataError, match=r"C\.stem\.mp4: cannot extract its stems: "):
        musdb18.extract_stems(tmp_path)
    assert not (tmp_path / "test" / "C").exists()


# --- Lists that are not as published ---------------------------------------------------------


SEGMENTS, CAPTIONS = "YTID,start_seconds,end_seconds,positive_labels", "audiocap_id,youtube_id,start_time,caption"


@pytest.mark.parametrize(
    ("name", "file", "lines", "message"),
    [
        ("audioset-eval", "eval_segments.csv", ["a,0.0,1.0,/m/0k4j"],
         f": no line before row 1 names the columns {SEGMENTS.replace(',', ', ')}."),
        ("audioset-eval", "eval_segments.csv", [SEGMENTS, "a,0.0,b,/m/0k4j"], ", row 2: not a segment."),
        ("audioset-eval", "eval_segments.csv", [SEGMENTS, "a,40.0,30.0,/m/x"], ", row 2: 40 to 30 s is not a segment."),
        *(("audiocaps", "dataset/train.csv", [CAPTIONS, "1,abc,30,Rain", f"2,abd,{start},Rain"],
           f", row 3: start_time “{start}” is not a time.") for start in ("xx", "-1", "nan")),
        ("fsd50k", "FSD50K.ground_truth/dev.csv", ["fname,labels,mids,split", "64760,Guitar,/m/x,validation"],
         ", row 2: the split “validation” is not train or val."),
        ("vggsound", "vggsound.csv", ["id,start,label,split"],
         ", row 1: not “YouTube id, start, label, train or test”."),
        ("wavcaps", "json_files/SoundBible/sb_final.json", ['[{"id": "2218"}]'],
         ": not a list of clips with id, caption and duration."),
        ("slakh2100", "train/Track00001/metadata.yaml", ["stems: {}"], ": no UUID or no stems."),
    ],
)  # fmt: skip
def test_invalid_lists_are_refused(tmp_path, name, file, lines, message):
    LAYOUTS[name](tmp_path)
    text(tmp_path / file, *lines)
    with pytest.raises(DataError) as error:
        prepare_again(name, tmp_path)
    assert str(error.value) == f"{tmp_path / file}{message}"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("esc50", "meta/esc50.csv"),
        ("vggsound", "vggsound.csv"),
        ("music", "MUSIC_solo_videos.json"),
    ],
)
def test_a_list_in_another_encoding_or_with_an_endless_cell_is_named(tmp_path, name, file):
    LAYOUTS[name](tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes("wárm".encode("latin-1") + content)
    with pytest.raises(DataError) as error:
        prepare_again(name, tmp_path)
    assert str(error.value) == f"{tmp_path / file}, line 1: not UTF-8 text."
    if file.endswith(".csv"):
        (tmp_path / file).write_bytes(content + b'"' + 2**25 * b"x")
        with pytest.raises(DataError, match=rf"{file}, line \d: field larger than field limit \(16777216\)\."):
            prepare_again(name, tmp_path)


def test_lists_that_vary(tmp_path):
    LAYOUTS["fsdkaggle2018"](tmp_path / "kaggle")  # without the columns of Freesound
    text(tmp_path / "kaggle/FSDKaggle2018.meta/train_post_competition.csv", "fname,label", "00044347.wav,Hi-hat")
    assert prepare_again("fsdkaggle2018", tmp_path / "kaggle")[0][0][1].recording == "fsdkaggle2018:00044347.wav"
    LAYOUTS["wavcaps"](tmp_path / "caps")  # SoundBible's is a bare list on GitHub
    bell = '[{"id": "2218", "caption": "A bell.", "duration": 1.0}]'
    text(tmp_path / "caps/json_files/SoundBible/sb_final.json", bell)
    assert prepare_again("wavcaps", tmp_path / "caps")[0][-1][1].caption == "A bell."
    LAYOUTS["music"](tmp_path / "music")
    (tmp_path / "music" / "MUSIC_solo_test.csv").unlink()
    assert {split for split, _ in prepare_again("music", tmp_path / "music")[0]} == {"train"}


# --- What the whole release has --------------------------------------------------------------


CLIP = Clip("a.wav", "dog", "", "r", "s", 1.0)


@pytest.mark.parametrize(
    ("name", "here", "said"),
    [
        ("vggsound", {"train": 183730, "test": 15446}, []),
        ("vggsound", {"train": 9, "test": 3}, ["the whole release has 15446 test clips, here are 3."]),
        ("audioset-balanced", {"train": 22000, "validation": 160}, []),
        ("audioset-balanced", {"train": 21}, ["the whole release has 22160 clips, here are 21."]),
        ("music", {"train": 3}, []),
    ],
)
def test_only_splits_of_known_size_are_compared(name, here, said):
    entries = [(split, CLIP) for split, count in here.items() for _ in range(count)]
    assert summary(find_preparer(name), entries)[1 + len(here) :] == said
