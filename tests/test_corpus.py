"""The corpus: decoding, grouping, packed corpora, and files that cannot be read."""

import errno
import json
import pickle

import numpy as np
import pytest
import soundfile
import soxr
import torch
from media import save_media, tone
from tiny import read, vectors, write_corpus, write_manifest

from separation.data.corpus import FULL_SCALE, ROUNDING, Corpus, decode, foley_clips, read_part
from separation.data.foley import SOUNDS, synthesise
from separation.data.manifest import read_manifest
from separation.data.packing import pack
from separation.data.texts import Texts
from separation.datasets.command import main
from separation.errors import DataError

PART_COLUMNS = ["path", "split", "label", "recording_id", "start", "seconds"]


@pytest.fixture
def two_sounds(monkeypatch):
    monkeypatch.setattr("separation.data.foley.SOUNDS", {each: SOUNDS[each] for each in ("dog bark", "church bells")})


def expected(file, sample_rate):
    """Mono, at `sample_rate`, peak one."""
    samples, rate = soundfile.read(file, always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, sample_rate)
    return mono / np.abs(mono).max()


def deviation(corpus, number, wanted):
    return np.abs(corpus.waveform(number).numpy() - wanted).max() * FULL_SCALE


def test_clips_are_decoded_to_mono_full_scale_at_one_rate(tmp_path):
    manifest = write_corpus(tmp_path, labels=2, recordings=1)
    soundfile.write(tmp_path / "stereo.flac", np.random.default_rng(0).uniform(-0.1, 0.1, (4410, 2)), 44100)
    rows = read(manifest)
    hiss = rows[0] | {"path": "stereo.flac", "label": "hiss", "recording_id": "x", "seconds": 0.1}
    corpus = Corpus(write_manifest(manifest, [*rows, hiss]), sample_rate=16000)
    assert len(corpus) == 3
    for number, clip in enumerate(corpus.clips):
        wave = corpus.waveform(number)
        assert wave.dtype == torch.float32 and wave.abs().max() == 1.0
        assert deviation(corpus, number, expected(tmp_path / clip.path, 16000)) <= 1
    assert corpus.samples.dtype == torch.int16
    assert corpus.samples.numel() == sum(corpus.lengths) == 16000 * 2 + 1600


def test_the_recorded_level_is_kept(tmp_path, two_sounds):
    manifest = write_corpus(tmp_path, labels=2, recordings=1)
    soundfile.write(tmp_path / read(manifest)[1]["path"], np.ones(8000) / 64, 8000)
    corpus = Corpus(manifest, sample_rate=8000, foley=1)
    assert corpus.peaks[:2] == pytest.approx([0.3, 1 / 64], rel=1e-3)
    [number] = [number for number, clip in enumerate(corpus.clips) if clip.label == "dog bark"]
    assert corpus.peaks[number] == pytest.approx(np.abs(synthesise("dog bark", 5.0, 8000, 1000)).max())
    assert np.abs((corpus.waveform(1) * corpus.peaks[1]).numpy() - 1 / 64).max() < 1e-6


def test_clips_are_grouped_by_label_and_recording(tmp_path):
    manifest = write_corpus(tmp_path, labels=3, recordings=2)
    rows = read(manifest)
    write_manifest(manifest, [*rows, rows[0] | {"path": rows[1]["path"]}])  # two clips of one recording
    corpus = Corpus(manifest, sample_rate=8000)
    assert corpus.labels == ["tone 0", "tone 1", "tone 2"]
    assert {label: dict(recordings) for label, recordings in corpus.tree.items()} == {
        "tone 0": {"made:0:0": [0, 6], "made:0:1": [1]},
        "tone 1": {"made:1:0": [2], "made:1:1": [3]},
        "tone 2": {"made:2:0": [4], "made:2:1": [5]},
    }


def test_only_the_split_is_read_and_recordings_may_lie_elsewhere(tmp_path):
    manifest = write_corpus(tmp_path / "data", labels=2, recordings=1)
    rows = read(manifest)
    rows[1]["split"] = "validation"
    (tmp_path / "data" / rows[1]["path"]).unlink()  # would be reported if it were read
    elsewhere = write_manifest(tmp_path / "list.csv", rows)
    corpus = Corpus(elsewhere, root=tmp_path / "data", sample_rate=8000)
    assert [clip.path for clip in corpus.clips] == [rows[0]["path"]]


# --- Broken files ------------------------------------------------------------------------------


def break_file(path, how):
    if how == "missing":
        path.unlink()
    elif how in ("text", "empty", "cut short"):
        path.write_bytes({"text": b"no sound", "empty": b"", "cut short": path.read_bytes()[:60]}[how])
    else:
        samples = {"no samples": [], "silent": [0] * 800, "nan": [0.1, np.nan], "inf": [0.1, -np.inf]}[how]
        soundfile.write(path, np.array(samples, dtype=float), 8000, subtype="FLOAT")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """100 tiny clips, of which a test may break some."""
    return write_corpus(tmp_path_factory.mktemp("many"), labels=10, recordings=10, seconds=0.02)


def with_paths(many, name, paths, seconds=""):
    """The manifest of 100 clips, some of them with another path."""
    rows = read(many)
    for number, path in paths.items():
        rows[number] |= {"path": str(path), "seconds": seconds}
    return write_manifest(many.with_name(f"{name}.csv"), rows)


@pytest.mark.parametrize("how", ["text", "missing", "empty", "no samples", "silent", "nan", "inf", "cut short"])
def test_a_broken_file_is_reported_and_left_out(many, tmp_path, capsys, how):
    bad = tmp_path / "bad.wav"
    soundfile.write(bad, np.ones(800) / 2, 8000)
    break_file(bad, how)
    seconds = 0.1 if how == "cut short" else ""
    corpus = Corpus(with_paths(many, how, {37: bad}, seconds), sample_rate=8000)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"left out: {bad}: ") and line.count(str(bad)) == 1
    assert len(corpus) == 99 and str(bad) not in [clip.path for clip in corpus.clips]
    for number in (36, 37, 98):  # the clips behind it are still found where they are
        assert deviation(corpus, number, expected(many.parent / corpus.clips[number].path, 8000)) <= 1


def test_more_than_one_in_a_hundred_stops(many, tmp_path, monkeypatch):
    hiss = {name: lambda rng, length, rate: rng.uniform(-1, 1, length) for name in "ab"}
    monkeypatch.setattr("separation.data.foley.SOUNDS", hiss)
    manifest = with_paths(many, "two", {37: "nowhere.wav", 38: "nowhere.wav"})
    for foley in (0, 60):  # procedural clips do not dilute the limit: 2 of 220 would pass
        with pytest.raises(DataError, match=r"2 of 100 clips cannot be read; the first: .*nowhere\.wav"):
            Corpus(manifest, sample_rate=8000, foley=foley)


# --- Parts of files ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["long.wav", "long.flac", "long.ogg"])
def test_a_clip_may_be_a_part_of_a_file(tmp_path, name):
    manifest = write_corpus(tmp_path, labels=1, recordings=1)
    ramp = np.repeat([0.1, 0.8, 0.2, 0.4], 8000) * np.sin(2 * np.pi * 440 * np.arange(32000) / 8000)
    soundfile.write(tmp_path / name, ramp, 8000)
    row = read(manifest)[0] | {"path": name, "recording_id": "long"}
    parts = {
        (1, 1): slice(8000, 16000),
        (2.5, 0): slice(20000, 32000),
        (0, 3.97): slice(0, 32000),
        ("", ""): slice(None),
    }
    rows = [row | {"start": start, "seconds": seconds} for start, seconds in parts]  # 3.97 is 4 s, rounded
    corpus = Corpus(write_manifest(manifest, rows, PART_COLUMNS), sample_rate=8000)
    whole = soundfile.read(tmp_path / name)[0]
    for number, part in enumerate(parts.values()):
        assert deviation(corpus, number, whole[part] / np.abs(whole[part]).max()) <= 2


@pytest.mark.parametrize(
    ("start", "seconds", "reason"),
    [
        (0.0, 1.2, r"a\.wav: the clip is cut short, 1\.00 s of 1\.20 s are there\."),
        (0.5, 0.7, r"a\.wav: the clip is cut short, 0\.50 s of 0\.70 s are there\."),
        (2.0, 0.0, r"a\.wav: there is no sound at 2 s\."),
    ],
)
def test_a_missing_part_is_named(tmp_path, start, seconds, reason):
    soundfile.write(tmp_path / "a.wav", np.ones(8000) / 2, 8000)
    with pytest.raises(DataError, match=reason):
        decode(tmp_path / "a.wav", 8000, start, seconds)
    assert len(decode(tmp_path / "a.wav", 8000, 0.0, 1.04)[0]) == 8000


def test_times_are_rounded_to_the_nearest_sample(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.arange(1, 1001) / 1001, 8000, subtype="FLOAT")
    samples, _ = read_part(tmp_path / "a.wav", 0.01232, 0.0117)  # 98.56 and 93.6 samples
    assert len(samples) == 94 and samples[0] == pytest.approx(100 / 1001)


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
    for clip in read_manifest(data_root / "manifest.csv", "validation"):
        assert abs(soundfile.info(data_root / clip.path).duration - clip.seconds) <= ROUNDING / 2


# --- Packed corpora ----------------------------------------------------------------------------


@pytest.fixture
def encoded(monkeypatch):
    """How many texts the sentence encoder was asked for, each time."""
    asked = []
    monkeypatch.setattr(
        "separation.data.texts.SentenceEncoder.encode_text",
        lambda self, texts: asked.append(len(texts)) or vectors(texts, 384),
    )
    return asked


def test_a_packed_corpus_equals_its_manifest(tmp_path, capsys, encoded, two_sounds):
    manifest, out = write_corpus(tmp_path / "data", labels=3, recordings=2), tmp_path / "packed"
    rows = read(manifest)
    rows[4]["split"] = rows[5]["split"] = "validation"
    write_manifest(manifest, rows)
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"tone 0": ["a low note"], "tone 9": ["x"]}))
    options = ["--rate", "8000", "--foley", "1", "--wordings", str(words)]
    assert main(["pack", str(manifest), "-o", str(out), *options]) == 0
    assert capsys.readouterr().out == f"wrote {out}: 0.00 h, 6 clips and 4 labels to train on\n"
    assert json.loads((out / "wordings.json").read_text()) == {"tone 0": ["a low note"]}
    for split, foley in (("train", 1), ("validation", 0)):
        one, other = (
            Corpus(manifest, split, sample_rate=8000, foley=foley),
            Corpus(out, split, sample_rate=8000, foley=9),
        )
        assert one.labels == other.labels and one.tree == other.tree and one.peaks == other.peaks
        assert [clip.captions for clip in one.clips] == [clip.captions for clip in other.clips]
        assert all(torch.equal(one.waveform(n), other.waveform(n)) for n in range(len(one)))
    assert (out / other.clips[0].path).is_file()  # validation mixtures are made of the recordings
    copy = pickle.loads(pickle.dumps(other))
    assert torch.equal(copy.waveform(1), other.waveform(1))
    encoded.clear()
    stored = Texts(Corpus(out, sample_rate=8000), unions=True)
    assert encoded == [] and "a low note" in stored.texts[2]
    assert torch.equal(stored.vectors, vectors([text for texts in stored.texts for text in texts], 384))


def test_a_packed_corpus_lacks_broken_recordings(many, tmp_path, capsys, encoded):
    out, missing = tmp_path / "packed", many.parent / "nowhere.wav"
    corpus = pack(with_paths(many, "packed", {5: "nowhere.wav"}), out, sample_rate=8000)
    assert capsys.readouterr().out == f"left out: {missing}: the file does not exist.\n"
    assert len(corpus) == len(Corpus(out, sample_rate=8000)) == 99
    assert deviation(corpus, 98, expected(many.parent / read(many)[99]["path"], 8000)) <= 1
    with pytest.raises(DataError, match="2 of 100 clips cannot be read"):
        pack(with_paths(many, "two", {5: "nowhere.wav", 6: "nowhere.wav"}), tmp_path / "other", sample_rate=8000)
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def test_an_existing_corpus_is_replaced_only_if_asked_for(tmp_path, capsys, encoded, monkeypatch):
    manifest, out = write_corpus(tmp_path / "data", labels=2), tmp_path / "packed"
    first = pack(manifest, out, sample_rate=8000)
    write_manifest(manifest, read(manifest)[:-1])
    command = ["pack", str(manifest), "-o", str(out), "--rate", "8000"]
    assert main(command) == 1
    assert capsys.readouterr().err == f"separation-data: {out} already exists. Add --overwrite to replace it.\n"

    def full(*arguments):
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr("separation.data.packing.report_broken", full)
        assert main([*command, "--overwrite"]) == 1
    why = "the packed corpus cannot be written (the disk is full)"
    assert capsys.readouterr().err == f"separation-data: {out}: {why}.\n"
    assert len(Corpus(out, sample_rate=8000)) == len(first) == 4
    assert main([*command, "--overwrite"]) == 0 and len(Corpus(out, sample_rate=8000)) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "packed"]
    with pytest.raises(DataError, match=r"data already exists\. It holds other files than a packed corpus\."):
        pack(manifest, tmp_path / "data", overwrite=True)


def test_a_corpus_that_does_not_fit_is_an_error(tmp_path, encoded):
    out = tmp_path / "packed"
    pack(write_corpus(tmp_path, labels=2), out, sample_rate=8000)
    with pytest.raises(DataError, match="packed at 8000 Hz, and 16000 Hz are needed"):
        Corpus(out, sample_rate=16000)
    with pytest.raises(DataError, match="no clips of split test"):
        Corpus(out, "test", sample_rate=8000)
    with (out / "samples.raw").open("ab") as file:
        file.write(b"0")
    with pytest.raises(DataError, match="damaged"):
        Corpus(out, sample_rate=8000)
    (out / "index.json").unlink()
    with pytest.raises(DataError, match="not a corpus that separation-data pack has written"):
        Corpus(out, sample_rate=8000)


@pytest.mark.parametrize("text", ["[]", '{"a": "b"}', '{"a": [1]}', "{"])
def test_invalid_wordings_are_named(tmp_path, text):
    (tmp_path / "words.json").write_text(text)
    problem = "invalid JSON" if text == "{" else "not a JSON object with a list of texts for each label"
    with pytest.raises(DataError, match=rf"words\.json: {problem}"):
        pack(write_corpus(tmp_path, labels=2), tmp_path / "packed", wordings=tmp_path / "words.json")


# --- Procedural clips --------------------------------------------------------------------------


def test_procedural_clips_have_their_own_seeds(tmp_path, two_sounds):
    corpus = Corpus(write_corpus(tmp_path, labels=1, recordings=1), sample_rate=8000, foley=2)
    assert corpus.labels == ["church bells", "dog bark", "tone 0"] and len(corpus) == 1 + 2 * 2
    numbers = [number for number, clip in enumerate(corpus.clips) if clip.label == "dog bark"]
    assert len(numbers) == len(corpus.tree["dog bark"]) == 2
    for number, seed in zip(numbers, (1000, 1001), strict=True):
        wave = synthesise("dog bark", 5.0, 8000, seed)
        assert deviation(corpus, number, wave / np.abs(wave).max()) <= 1
    assert foley_clips(0) == []
