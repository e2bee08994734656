"""The corpus in memory: decoding, grouping, cache, and what happens to files that cannot be read."""

import csv
import os

import numpy as np
import pytest
import soundfile
import torch
from media import save_media, tone
from tiny import write_corpus, write_manifest

from separation.data import corpus as module
from separation.data.corpus import FULL_SCALE, ROUNDING, Corpus, decode, foley_clips, read_part
from separation.data.foley import SOUNDS, synthesise
from separation.data.manifest import DataError, read_manifest


@pytest.fixture
def two_sounds(monkeypatch):
    monkeypatch.setattr(
        "separation.data.foley.SOUNDS", {label: SOUNDS[label] for label in ("dog bark", "church bells")}
    )


def rows_of(manifest):
    with manifest.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def expected(file, sample_rate):
    """Mono, at `sample_rate`, peak one."""
    import soxr

    samples, rate = soundfile.read(file, always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, sample_rate)
    return mono / np.abs(mono).max()


def test_clips_are_decoded_to_mono_full_scale_at_one_rate(tmp_path):
    manifest = write_corpus(tmp_path, labels=2, recordings=1)
    rng = np.random.default_rng(0)
    stereo = rng.uniform(-0.1, 0.1, (4410, 2))
    soundfile.write(tmp_path / "stereo.flac", stereo, 44100)
    rows = rows_of(manifest)
    hiss = rows[0] | {"path": "stereo.flac", "label": "hiss", "recording_id": "x", "seconds": 0.1}
    write_manifest(manifest, [*rows, hiss])
    corpus = Corpus(manifest, sample_rate=16000)
    assert len(corpus) == 3
    for number, clip in enumerate(corpus.clips):
        wave = corpus.waveform(number)
        wanted = expected(tmp_path / clip.path, 16000)
        assert wave.dtype == torch.float32
        assert wave.shape == wanted.shape
        assert np.abs(wave.numpy() - wanted).max() <= 1 / FULL_SCALE
        assert wave.abs().max() == 1.0
    assert corpus.samples.dtype == torch.int16
    assert corpus.samples.numel() == sum(corpus.lengths) == 16000 * 2 + 1600


def test_a_recording_s_own_level_is_kept_beside_it(tmp_path, two_sounds):
    manifest = write_corpus(tmp_path, labels=2, recordings=1)
    soundfile.write(tmp_path / rows_of(manifest)[1]["path"], np.ones(8000) / 64, 8000)
    for _ in range(2):  # decoded, from the cache
        corpus = Corpus(manifest, sample_rate=8000, cache=tmp_path / "cache", foley=1)
        assert corpus.peaks[:2] == pytest.approx([0.3, 1 / 64], rel=1e-3)
        made = synthesise("dog bark", 5.0, 8000, 1000)
        [number] = [number for number, clip in enumerate(corpus.clips) if clip.label == "dog bark"]
        assert corpus.peaks[number] == pytest.approx(np.abs(made).max())
    quiet = corpus.waveform(1) * corpus.peaks[1]
    assert np.abs(quiet.numpy() - 1 / 64).max() < 1e-6


def test_clips_are_grouped_by_label_and_recording(tmp_path):
    manifest = write_corpus(tmp_path, labels=3, recordings=2)
    rows = rows_of(manifest)
    write_manifest(manifest, [*rows, rows[0] | {"path": rows[1]["path"]}])  # two clips of one recording
    corpus = Corpus(manifest, sample_rate=8000)
    assert corpus.labels == ["tone 0", "tone 1", "tone 2"]
    assert {label: dict(recordings) for label, recordings in corpus.tree.items()} == {
        "tone 0": {"made:0:0": [0, 6], "made:0:1": [1]},
        "tone 1": {"made:1:0": [2], "made:1:1": [3]},
        "tone 2": {"made:2:0": [4], "made:2:1": [5]},
    }


def test_only_the_split_is_read(tmp_path):
    manifest = write_corpus(tmp_path, labels=2, recordings=1)
    rows = rows_of(manifest)
    rows[1]["split"] = "validation"
    write_manifest(manifest, rows)
    (tmp_path / rows[1]["path"]).unlink()  # would be reported if it were looked at
    assert [clip.path for clip in Corpus(manifest, sample_rate=8000).clips] == [rows[0]["path"]]


def test_the_recordings_may_lie_elsewhere(tmp_path):
    manifest = write_corpus(tmp_path / "data", labels=1, recordings=1)
    elsewhere = tmp_path / "list.csv"
    elsewhere.write_text(manifest.read_text())
    assert len(Corpus(elsewhere, root=tmp_path / "data", sample_rate=8000)) == 1


# --- Broken files ------------------------------------------------------------------------------


def break_file(path, how):
    if how == "text":
        path.write_text("no sound")
    elif how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "no samples":
        soundfile.write(path, np.zeros(0), 8000)
    elif how == "silent":
        soundfile.write(path, np.zeros(800), 8000)
    elif how == "cut short":
        path.write_bytes(path.read_bytes()[:60])
    else:
        soundfile.write(path, np.array([0.1, {"nan": np.nan, "inf": -np.inf}[how], 0.2]), 8000, subtype="FLOAT")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """100 tiny clips, of which a test may break some."""
    folder = tmp_path_factory.mktemp("many")
    return write_corpus(folder, labels=10, recordings=10, seconds=0.02)


@pytest.mark.parametrize("how", ["text", "missing", "empty", "no samples", "silent", "nan", "inf", "cut short"])
def test_a_broken_file_is_reported_and_left_out(many, tmp_path, capsys, how):
    rows = rows_of(many)
    bad = tmp_path / "bad.wav"
    soundfile.write(bad, np.ones(800) / 2, 8000)
    break_file(bad, how)
    rows[37]["path"], rows[37]["seconds"] = str(bad), {"cut short": 0.1}.get(how, "")
    manifest = write_manifest(many.with_name(f"{how}.csv"), rows)
    corpus = Corpus(manifest, sample_rate=8000)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1
    assert printed[0].startswith(f"left out: {bad}: ")
    assert printed[0].count(str(bad)) == 1
    assert len(corpus) == 99
    assert str(bad) not in [clip.path for clip in corpus.clips]
    # The clips behind it are still found where they are.
    for number in (36, 37, 98):
        wanted = expected(many.parent / corpus.clips[number].path, 8000)
        assert np.abs(corpus.waveform(number).numpy() - wanted).max() <= 1 / FULL_SCALE


def test_more_than_one_in_a_hundred_stops(many, tmp_path):
    rows = rows_of(many)
    rows[37]["path"] = rows[38]["path"] = "nowhere.wav"
    manifest = write_manifest(many.with_name("two.csv"), rows)
    with pytest.raises(DataError, match=r"2 of 100 clips cannot be read; the first: .*nowhere\.wav"):
        Corpus(manifest, sample_rate=8000, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_procedural_clips_do_not_dilute_the_limit(many, two_sounds):
    rows = rows_of(many)
    rows[37]["path"] = rows[38]["path"] = "nowhere.wav"
    manifest = write_manifest(many.with_name("diluted.csv"), rows)
    with pytest.raises(DataError, match=r"2 of 100 clips cannot be read; the first: .*nowhere\.wav"):
        Corpus(manifest, sample_rate=8000, foley=60)  # 2 of 220 would pass


def test_decode_names_a_silent_file(tmp_path):
    break_file(tmp_path / "a.wav", "silent")
    with pytest.raises(DataError, match=r"a\.wav: the clip is silent or not finite\."):
        decode(tmp_path / "a.wav", 8000)


# --- Parts of files ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["long.wav", "long.flac", "long.ogg"])
def test_a_clip_may_be_a_part_of_a_file(tmp_path, name):
    manifest = write_corpus(tmp_path, labels=1, recordings=1)
    ramp = np.repeat([0.1, 0.8, 0.2, 0.4], 8000) * np.sin(2 * np.pi * 440 * np.arange(32000) / 8000)
    soundfile.write(tmp_path / name, ramp, 8000)
    row = rows_of(manifest)[0] | {"path": name, "recording_id": "long"}
    rows = [row | {"start": start, "seconds": seconds} for start, seconds in ((1, 1), (2.5, 0), (0, 3.97), ("", ""))]
    write_manifest(manifest, rows, ["path", "split", "label", "recording_id", "start", "seconds"])
    corpus = Corpus(manifest, sample_rate=8000)
    assert corpus.lengths == [8000, 12000, 32000, 32000]  # 3.97 is 4 s, rounded
    whole = soundfile.read(tmp_path / name)[0]
    for number, part in enumerate((slice(8000, 16000), slice(20000, 32000), slice(0, 32000), slice(0, 32000))):
        wanted = whole[part] / np.abs(whole[part]).max()
        assert np.abs(corpus.waveform(number).numpy() - wanted).max() <= 2 / FULL_SCALE


@pytest.mark.parametrize(
    ("start", "seconds", "reason"),
    [
        (0.0, 1.2, r"a\.wav: the clip is cut short, 1\.00 s of 1\.20 s are there\."),
        (0.5, 0.7, r"a\.wav: the clip is cut short, 0\.50 s of 0\.70 s are there\."),
        (2.0, 0.0, r"a\.wav: there is no sound at 2 s\."),
    ],
)
def test_a_part_that_is_not_there_is_named(tmp_path, start, seconds, reason):
    soundfile.write(tmp_path / "a.wav", np.ones(8000) / 2, 8000)
    with pytest.raises(DataError, match=reason):
        decode(tmp_path / "a.wav", 8000, start, seconds)
    assert len(decode(tmp_path / "a.wav", 8000, 0.0, 1.04)[0]) == 8000


def test_a_clip_may_be_a_part_of_a_video_s_sound(tmp_path):
    sound = tone(440, 3.0, 8000) * np.where(np.arange(24000) < 8000, 0.1, 0.8).astype(np.float32)
    save_media(tmp_path / "a.mkv", [sound], 8000, "pcm_f32le")
    soft, rate = read_part(tmp_path / "a.mkv", 0.0, 1.0)
    loud, _ = read_part(tmp_path / "a.mkv", 1.0, 0.0)
    assert (rate, len(soft), len(loud)) == (8000, 8000, 16000)
    assert np.abs(loud[2000:]).max() == pytest.approx(8 * np.abs(soft[:6000]).max(), rel=0.02)
    with pytest.raises(DataError, match=r"a\.mkv: the clip is cut short, 2\.00 s of 4\.00 s are there"):
        read_part(tmp_path / "a.mkv", 1.0, 4.0)


def test_the_real_recordings_are_as_long_as_their_manifest_says(data_root):
    clips = read_manifest(data_root / "manifest.csv", "validation")
    for clip in clips:
        assert abs(soundfile.info(data_root / clip.path).duration - clip.seconds) <= ROUNDING / 2


# --- Cache -------------------------------------------------------------------------------------


def test_the_cache_spares_the_decoding(tmp_path, monkeypatch):
    manifest = write_corpus(tmp_path, labels=2)
    first = Corpus(manifest, sample_rate=8000, cache=tmp_path / "cache")
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".npz"]

    def never(*arguments):
        raise AssertionError("decoded again")

    monkeypatch.setattr(module, "decode", never)
    second = Corpus(manifest, sample_rate=8000, cache=tmp_path / "cache")
    assert torch.equal(first.samples, second.samples)
    assert (first.starts, first.lengths, first.clips) == (second.starts, second.lengths, second.clips)


def test_another_question_is_not_answered_from_the_cache(tmp_path, two_sounds):
    cache = tmp_path / "cache"
    manifest = write_corpus(tmp_path, labels=2)
    assert Corpus(manifest, sample_rate=8000, cache=cache).lengths[0] == 8000
    assert Corpus(manifest, sample_rate=16000, cache=cache).lengths[0] == 16000
    assert len(Corpus(manifest, sample_rate=8000, cache=cache, foley=1)) == 4 + 2
    write_manifest(manifest, rows_of(manifest)[:-1])
    assert len(Corpus(manifest, sample_rate=8000, cache=cache)) == 3
    assert len(list(cache.iterdir())) == 4


def test_the_cache_of_other_recordings_is_not_taken(tmp_path):
    manifest = write_corpus(tmp_path / "a", labels=1, recordings=1, seconds=1.0)
    write_corpus(tmp_path / "b", labels=1, recordings=1, seconds=0.5)
    write_manifest(manifest, [row | {"seconds": ""} for row in rows_of(manifest)])  # whole files
    lengths = [
        Corpus(manifest, root=tmp_path / name, sample_rate=8000, cache=tmp_path / "cache").lengths
        for name in ("a", "b")
    ]
    assert lengths == [[8000], [4000]]


def test_the_cache_of_another_folder_with_the_same_manifest_is_not_taken(tmp_path):
    lengths = []
    for name, seconds in (("a", 1.0), ("b", 0.5)):
        manifest = write_corpus(tmp_path / name, labels=1, recordings=1, seconds=seconds)
        write_manifest(manifest, [row | {"seconds": ""} for row in rows_of(manifest)])
        lengths.append(Corpus(manifest, sample_rate=8000, cache=tmp_path / "cache").lengths)
    assert (tmp_path / "a/manifest.csv").read_bytes() == (tmp_path / "b/manifest.csv").read_bytes()
    assert lengths == [[8000], [4000]]


def test_a_file_that_was_replaced_is_decoded_again(tmp_path):
    manifest = write_corpus(tmp_path, labels=2, recordings=1)
    first = Corpus(manifest, sample_rate=8000, cache=tmp_path / "cache")
    tone = tmp_path / first.clips[0].path
    before = tone.stat()
    soundfile.write(tone, 0.3 * np.sin(np.arange(8000)), 8000)  # of the same size
    os.utime(tone, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second = Corpus(manifest, sample_rate=8000, cache=tmp_path / "cache")
    assert tone.stat().st_size == before.st_size
    assert np.abs(second.waveform(0).numpy() - expected(tone, 8000)).max() <= 1 / FULL_SCALE
    assert torch.equal(first.waveform(1), second.waveform(1))


def test_a_file_that_was_repaired_comes_back(many, tmp_path, capsys):
    rows = rows_of(many)
    late = tmp_path / "late.wav"
    rows[5] |= {"path": str(late), "seconds": ""}
    manifest = write_manifest(many.with_name("repaired.csv"), rows)
    assert len(Corpus(manifest, sample_rate=8000, cache=tmp_path / "cache")) == 99
    assert capsys.readouterr().out == f"left out: {late}: there is no such file.\n"
    soundfile.write(late, np.ones(800) / 2, 8000)
    assert len(Corpus(manifest, sample_rate=8000, cache=tmp_path / "cache")) == 100
    assert capsys.readouterr().out == ""


def test_broken_clips_are_named_again_when_the_cache_is_read(many, tmp_path, capsys):
    rows = rows_of(many)
    rows[5]["path"] = "nowhere.wav"
    manifest = write_manifest(many.with_name("named.csv"), rows)
    printed = []
    for _ in range(2):
        Corpus(manifest, sample_rate=8000, cache=tmp_path)
        printed.append(capsys.readouterr().out)
    assert printed == [f"left out: {many.parent / 'nowhere.wav'}: there is no such file.\n"] * 2
    assert len(list(tmp_path.iterdir())) == 1


def test_the_limit_holds_for_what_comes_from_the_cache(many, tmp_path, monkeypatch):
    rows = rows_of(many)
    rows[5]["path"] = "nowhere.wav"
    manifest = write_manifest(many.with_name("strict.csv"), rows)
    assert len(Corpus(manifest, sample_rate=8000, cache=tmp_path)) == 99
    monkeypatch.setattr(module, "BROKEN_LIMIT", 0.001)
    with pytest.raises(DataError, match=r"1 of 100 clips cannot be read; the first: .*nowhere\.wav"):
        Corpus(manifest, sample_rate=8000, cache=tmp_path)


def test_broken_clips_stay_left_out_when_the_cache_is_read(many, tmp_path):
    rows = rows_of(many)
    rows[5]["path"] = "nowhere.wav"
    manifest = write_manifest(many.with_name("cached.csv"), rows)
    corpora = [Corpus(manifest, sample_rate=8000, cache=tmp_path) for _ in range(2)]
    assert [len(corpus) for corpus in corpora] == [99, 99]
    assert torch.equal(corpora[0].waveform(70), corpora[1].waveform(70))


def test_a_kill_while_the_cache_is_written_does_no_harm(tmp_path, monkeypatch):
    manifest = write_corpus(tmp_path, labels=1)

    def killed(file, **arrays):
        with open(file, "wb") as stream:
            stream.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", killed)
        with pytest.raises(KeyboardInterrupt):
            Corpus(manifest, sample_rate=8000, cache=tmp_path / "cache")
    assert len(Corpus(manifest, sample_rate=8000, cache=tmp_path / "cache")) == 2


# --- Procedural clips --------------------------------------------------------------------------


def test_procedural_clips_join_with_seeds_of_their_own(tmp_path, two_sounds):
    manifest = write_corpus(tmp_path, labels=1, recordings=1)
    corpus = Corpus(manifest, sample_rate=8000, foley=2)
    assert len(corpus) == 1 + 2 * 2
    assert corpus.labels == ["church bells", "dog bark", "tone 0"]
    made = [number for number, clip in enumerate(corpus.clips) if clip.label == "dog bark"]
    assert len(made) == 2
    assert len(corpus.tree["dog bark"]) == 2
    for number, seed in zip(made, (1000, 1001), strict=True):
        wave = synthesise("dog bark", 5.0, 8000, seed)
        assert np.abs(corpus.waveform(number).numpy() - wave / np.abs(wave).max()).max() <= 1 / FULL_SCALE
    assert foley_clips(0) == []
