"""Every preparer on a tiny folder of the published layout."""

import shutil

import numpy as np
import pytest
import soundfile
from layouts import LAYOUTS, film, sound, text
from media import save_media, tone

from separation.data.manifest import Clip, DataError, read_entries
from separation.datasets import audioset, musdb18
from separation.datasets.prepare import find_preparer, measure_clip, prepare, summary
from separation.evaluate.protocols.base import find_protocol


def prepared(name, root, leak=False, **how):
    """The (split, clip) pairs of a dataset's manifest, and what was said."""
    LAYOUTS[name](root, leak)
    return again(name, root, **how)


def again(name, root, **how):
    said = []
    prepare(find_preparer(name), root, root / "manifest.csv", report=said.append, **how)
    return list(read_entries(root / "manifest.csv")), said


def of(entries, split):
    return [clip for name, clip in entries if name == split]


def test_esc50(tmp_path):
    entries, said = prepared("esc50", tmp_path)
    licence = "CC BY-NC 3.0 (see LICENSE of the dataset)"
    assert entries[0] == (
        "train",
        Clip("audio/1-100032-A-0.wav", "dog", "", "freesound:100032", "esc50", 5.0, licence),
    )
    assert [(split, clip.label) for split, clip in entries] == [
        ("train", "dog"),
        ("train", "chirping birds"),
        ("validation", "pouring water"),
        ("test", "drinking sipping"),
    ]
    assert said[-1] == "the whole release has 2000 clips, here are 4."
    assert said[1].split() == ["train", "2", "2", "0.00", "2"]


def test_fsd50k(tmp_path):
    entries, _ = prepared("fsd50k", tmp_path)
    assert [split for split, _ in entries] == ["train", "validation", "train", "test"]
    first = entries[0][1]
    assert (first.path, first.recording) == ("FSD50K.dev_audio/64760.wav", "freesound:64760")
    assert first.labels == ("electric guitar", "guitar", "music")
    assert (first.licence, first.seconds) == ("http://creativecommons.org/licenses/sampling+/1.0/", 0.1)
    assert entries[2][1].label == "keyboard (musical)"
    assert entries[3][1].path == "FSD50K.eval_audio/37199.wav"


def test_fsdkaggle2018(tmp_path):
    entries, said = prepared("fsdkaggle2018", tmp_path)
    assert [(split, clip.label, clip.recording, clip.licence) for split, clip in entries] == [
        ("train", "hi-hat", "freesound:28739", "Attribution"),
        ("train", "saxophone", "freesound:358827", "Attribution"),
        ("test", "oboe", "freesound:355125", "Creative Commons 0"),
    ]
    assert said[0].startswith("there is no validation split; --validation 0.05 makes one")


def test_fsdkaggle2018_without_its_extra_columns(tmp_path):
    LAYOUTS["fsdkaggle2018"](tmp_path)
    text(tmp_path / "FSDKaggle2018.meta" / "train_post_competition.csv", "fname,label", "00044347.wav,Hi-hat")
    entries, _ = again("fsdkaggle2018", tmp_path)
    assert entries[0][1].recording == "fsdkaggle2018:00044347.wav"


def test_audioset(tmp_path):
    entries, said = prepared("audioset-full", tmp_path)
    assert [(split, clip.path, clip.recording) for split, clip in entries] == [
        ("train", "audio/balanced/Y--PJHxphWEs.flac", "youtube:--PJHxphWEs"),
        ("train", "audio/---1_cCGK4M.wav", "youtube:---1_cCGK4M"),
        ("test", "audio/eval/-0RWZT-miFs_000420.wav", "youtube:-0RWZT-miFs"),
    ]
    assert entries[0][1].labels == ("keys jangling", "car")
    assert said[0] == f"left out: {tmp_path}/--4gqARaEJE_000000.wav: no such file."


def test_a_whole_video_is_no_segment(tmp_path):
    LAYOUTS["audioset-balanced"](tmp_path)
    sound(tmp_path / "audio" / "balanced" / "Y--PJHxphWEs.flac", 60.0)
    with pytest.raises(DataError, match=r": 60\.0 s long, the list means 10\.0 s of it"):
        again("audioset-balanced", tmp_path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "m4a"])
def test_a_whole_video_is_no_segment_in_any_container(tmp_path, suffix):
    LAYOUTS["audioset-balanced"](tmp_path)
    (tmp_path / "audio" / "balanced" / "Y--PJHxphWEs.flac").unlink()
    path = tmp_path / "video" / f"--PJHxphWEs.{suffix}"
    film(path, 60.0)
    with pytest.raises(DataError, match=rf"{suffix}: 60\.[01] s long, the list means 10\.0 s of it: cut it first"):
        again("audioset-balanced", tmp_path)
    film(path, 9.0)
    entries, _ = again("audioset-balanced", tmp_path)
    assert [clip.path for _, clip in entries] == [f"video/--PJHxphWEs.{suffix}"]
    assert entries[0][1].seconds == pytest.approx(9.0, abs=0.3)  # an encoder adds some
    path.write_bytes(b"no video")
    with pytest.raises(DataError, match=rf"{suffix}: holds no audio that can be read \(ffmpeg: "):
        again("audioset-balanced", tmp_path)
    save_media(path.with_suffix(".mkv"), seconds_of_pictures=1.0).replace(path)
    with pytest.raises(DataError, match=rf"--PJHxphWEs\.{suffix}: holds no audio: there is no audio stream in it\."):
        again("audioset-balanced", tmp_path)


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


def test_audiocaps(tmp_path):
    entries, said = prepared("audiocaps", tmp_path)
    assert [(split, clip.path, clip.recording) for split, clip in entries] == [
        ("train", "train/91139.wav", "youtube:r1nicOVtvkQ"),
        ("validation", "val/vfY_TJq7n_U_130.wav", "youtube:vfY_TJq7n_U"),
        ("test", "test/Y7fmOlUlwoNg.wav", "youtube:7fmOlUlwoNg"),
    ]
    assert entries[1][1].captions == (
        "Rustling occurs, ducks quack and water splashes",
        "Ducks quack and a man speaks",
    )
    assert "GOD8Bt5LfDE" in said[0]


def test_the_published_audiocaps_lists(data_root, tmp_path):
    shutil.copytree(data_root / "text" / "audiocaps", tmp_path / "dataset")
    entries = list(find_preparer("audiocaps").clips(tmp_path))
    assert {split: len(of(entries, split)) for split in ("train", "validation", "test")} == find_preparer(
        "audiocaps"
    ).counts
    assert {len(clip.captions) for clip in of(entries, "train")} == {1}
    assert max(len(clip.captions) for clip in of(entries, "test")) == 5
    assert len({clip.recording for _, clip in entries}) == len(entries)


def test_clotho(tmp_path):
    entries, _ = prepared("clotho", tmp_path)
    assert [(split, clip.path, clip.recording) for split, clip in entries] == [
        ("train", "development/ Ambience Birds.wav", "freesound:327673"),
        ("train", "development/Glass wárm.wav", "clotho:Glass wárm.wav"),
        ("validation", "validation/Rain.wav", "freesound:1"),
        ("test", "evaluation/Santa Motor.wav", "freesound:116638"),
    ]
    assert entries[0][1].captions == ("Birds.", "Birds, many.", "A bird, two birds.", "Many birds , few.")
    assert entries[1][1].licence == "http://creativecommons.org/licenses/by-nc/3.0/"


def test_wavcaps(tmp_path):
    entries, said = prepared("wavcaps", tmp_path)
    assert [(split, clip.path, clip.recording) for split, clip in entries] == [
        ("train", "waveforms/AudioSet_SL_flac/Yb0RFKhbpFJA.flac", "youtube:b0RFKhbpFJA"),
        ("train", "waveforms/FreeSound_flac/2218.flac", "freesound:2218"),
        ("train", "SoundBible/2218.flac", "soundbible:2218"),
    ]
    assert entries[0][1].caption == "Wind and a man speaking , are heard."
    assert [clip.seconds for _, clip in entries] == [0.1, 0.1, 0.2]
    assert said[0] == f"left out: {tmp_path}/SoundBible/2219.flac: no such file."


def test_wavcaps_lists_may_be_bare(tmp_path):
    LAYOUTS["wavcaps"](tmp_path)
    path = tmp_path / "json_files" / "SoundBible" / "sb_final.json"
    text(path, '[{"id": "2218", "caption": "A bell.", "duration": 1.0}]')
    assert again("wavcaps", tmp_path)[0][-1][1].caption == "A bell."


def test_vggsound(tmp_path):
    entries, said = prepared("vggsound", tmp_path)
    assert [(split, clip.path, clip.label, clip.frame) for split, clip in entries] == [
        ("test", "audio/---g-f_I2yQ_000001.wav", "people marching", ""),
        ("train", "video/2XQzahrQ_tE_000010.mp4", "bird chirping, tweeting", "video/2XQzahrQ_tE_000010.mp4"),
        ("train", "audio/2XQzahrQ_tE_000200.flac", "playing accordion", "video/2XQzahrQ_tE_000200.mp4"),
    ]
    assert {clip.recording for _, clip in entries[1:]} == {"youtube:2XQzahrQ_tE"}
    assert said[0] == f"left out: {tmp_path}/--0PQM4-hqg_000030.wav: no such file."


def test_music(tmp_path):
    entries, _ = prepared("music", tmp_path)
    assert [(split, clip.path, clip.labels) for split, clip in entries] == [
        ("test", "audio/guitar/ZeQPNWdFs_4.wav", ("acoustic guitar",)),
        ("train", "audio/guitar/IPsA3sz934M.wav", ("acoustic guitar",)),
        ("train", "audio/violin/w81p5ty4OZc.wav", ("violin",)),
        ("train", "audio/duet/mP6C1DHHcqE.wav", ("acoustic guitar", "violin")),
    ]
    (tmp_path / "MUSIC_solo_test.csv").unlink()
    assert {split for split, _ in again("music", tmp_path)[0]} == {"train"}


def test_musdb18_hq(tmp_path):
    entries, _ = prepared("musdb18-hq", tmp_path)
    assert [clip.path for clip in of(entries, "validation")] == [
        f"train/Leaf - Summerghost/{stem}.wav" for stem in ("drums", "bass", "other", "vocals")
    ]
    assert [clip.label for clip in of(entries, "test")] == ["drums", "bass", "other", "vocals"]
    assert {clip.recording for clip in of(entries, "train")} == {"musdb18:A Classic Education - NightOwl"}


def test_musdb18_s_streams_are_taken_out_with_their_mixture(tmp_path):
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


def test_slakh2100(tmp_path):
    entries, _ = prepared("slakh2100", tmp_path)
    assert [(split, clip.path, clip.labels) for split, clip in entries[:2]] == [
        ("train", "train/Track00001/stems/S00.flac", ("distortion guitar", "guitar")),
        ("train", "train/Track00001/stems/S01.flac", ("choir aahs", "strings")),
    ]
    assert entries[0][1].recording == "lakh:1a81ae092884234f3264e2f45927f00a"
    assert [split for split, _ in entries] == ["train", "train", "validation", "validation", "test", "test"]


def test_voicebank_demand(tmp_path):
    entries, _ = prepared("voicebank-demand", tmp_path)
    assert [(split, clip.path, clip.recording) for split, clip in entries] == [
        ("train", "clean_trainset_28spk_wav/p226_001.wav", "voicebank:p226"),
        ("train", "clean_trainset_28spk_wav/p226_002.wav", "voicebank:p226"),
        ("train", "clean_trainset_28spk_wav/p287_001.wav", "voicebank:p287"),
        ("test", "clean_testset_wav/p232_001.wav", "voicebank:p232"),
    ]
    (tmp_path / "noisy_testset_wav" / "p232_001.wav").unlink()
    (tmp_path / "clean_testset_wav" / "p232_002.wav").touch()
    with pytest.raises(DataError, match=r"2 of 5 files of VoiceBank-DEMAND cannot be used; the first: .*noisy"):
        again("voicebank-demand", tmp_path)


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
        again(name, tmp_path)
    assert str(error.value) == f"{tmp_path / file}{message}"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("esc50", "meta/esc50.csv"),
        ("audiocaps", "dataset/val.csv"),
        ("vggsound", "vggsound.csv"),
        ("audioset-eval", "eval_segments.csv"),
        ("music", "MUSIC_solo_test.csv"),
        ("music", "MUSIC_solo_videos.json"),
    ],
)
def test_a_list_in_another_encoding_is_named(tmp_path, name, file):
    LAYOUTS[name](tmp_path)
    (tmp_path / file).write_bytes("wárm".encode("latin-1") + (tmp_path / file).read_bytes())
    with pytest.raises(DataError) as error:
        again(name, tmp_path)
    assert str(error.value) == f"{tmp_path / file}: not UTF-8 text."


@pytest.mark.parametrize("name", ["esc50", "vggsound"])
def test_a_cell_that_does_not_end_is_named(tmp_path, name):
    LAYOUTS[name](tmp_path)
    path = tmp_path / {"esc50": "meta/esc50.csv", "vggsound": "vggsound.csv"}[name]
    path.write_text(path.read_text(encoding="utf-8") + '"' + 2**25 * "x", encoding="utf-8")
    with pytest.raises(DataError, match=rf"{path.name}, line \d: field larger than field limit \(16777216\)\."):
        again(name, tmp_path)


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
