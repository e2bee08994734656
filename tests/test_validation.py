"""Validation mixtures drawn from a split: reproducible, of two unrelated clips, some with an absent query."""

import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from media import save_media
from tiny import write_corpus, write_manifest

from separation.audio import read
from separation.data.corpus import BrokenError
from separation.data.fixed_mixtures import (
    CLIPS,
    SAMPLE_RATE,
    VALIDATION,
    LeftOut,
    Rendered,
    read_clip,
    read_example,
    render,
)
from separation.data.manifest import Clip, read_manifest
from separation.data.validation import Rows, add_examples, contains, draw_rows, draw_usable_rows, is_usable, measure
from separation.errors import DataError
from separation.evaluate.protocols.base import COLUMNS, fingerprint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, labels=5, recordings=3, seconds=7.0, split="validation")
    return folder


@pytest.fixture(scope="module")
def clips(folder):
    return read_manifest(folder / "manifest.csv", "validation")


def test_rows_are_a_function_of_seed_and_number(clips):
    rows = draw_rows(clips, 20, seed=3)
    assert rows == draw_rows(clips, 20, seed=3)
    assert rows[:7] == draw_rows(clips, 7, seed=3)
    assert all(a != b for a, b in zip(rows, draw_rows(clips, 20, seed=4), strict=True))
    assert len({tuple(sorted(row.items())) for row in rows}) == 20


def test_a_share_of_the_queries_is_absent_from_both_sources(clips):
    rows = draw_rows(clips, 50, absent=0.2)
    absent = [row for row in rows if row["kind"] == "absent"]
    assert [rows.index(row) for row in absent] == list(range(4, 50, 5))
    for row in rows:
        labels = {row["target_label"], row["interference1_label"]}
        assert len(labels) == 2
        assert (row["query"] in labels) == (row["kind"] == "pair")
        assert row["kind"] == "absent" or row["query"] == row["target_label"]
    assert all(row["kind"] == "pair" for row in draw_rows(clips, 10, absent=0.0))
    assert {row["snr_db"] for row in rows} == {"-5", "0", "5"}


@pytest.mark.parametrize(("labels", "absent", "rows"), [(2, 0.2, 0), (2, 0.0, 4), (1, 0.0, 0)])
def test_too_few_labels_give_no_mixtures(clips, labels, absent, rows):
    few = [clip for clip in clips if int(clip.label.removeprefix("tone ")) < labels]
    assert len(draw_rows(few, 4, absent=absent)) == rows


def test_a_row_renders_to_its_clips_at_its_level(clips, folder):
    row = next(row for row in draw_rows(clips, 20) if row["kind"] == "pair" and row["snr_db"] == "5")
    rendered = render(row, folder)
    energy = [float(np.square(wave, dtype=np.float64).sum()) for wave in (rendered.target, rendered.mixture)]
    assert rendered.mixture.shape == (5 * SAMPLE_RATE,)
    assert 10 * np.log10(energy[0] / (energy[1] - energy[0])) == pytest.approx(5, abs=0.1)  # tones of other frequency
    label = int(row["target_label"].removeprefix("tone "))
    hertz = np.abs(np.fft.rfft(rendered.target)).argmax() / 5
    assert hertz == pytest.approx(300 * 1.6**label * 1.02, rel=0.03)


def test_unusable_mixtures_are_reported_and_too_many_broken_recordings_stop(tmp_path, capsys):
    manifest = write_corpus(tmp_path, labels=3, recordings=1, seconds=1.0, split="validation")
    clips = read_manifest(manifest, "validation")
    soundfile.write(tmp_path / clips[0].path, np.zeros(8000), 8000)
    (tmp_path / clips[1].path).write_bytes(b"no sound")
    rows = draw_rows(clips, 12)
    good = [row for row in rows if is_usable(row, tmp_path)]
    silent, broken = clips[0].path, clips[1].path
    for row in rows:
        # Behind a silent target everything is silent; a silent interference spoils a pair only.
        spoilt = row["target"] == silent or (row["interference1"] == silent and row["kind"] == "pair")
        assert (row in good) == (not spoilt and broken not in (row["target"], row["interference1"]))
    assert 0 < len(good) < 12
    said = [
        f"{12 - len(good)} of 12 validation mixtures are left out: silent or not readable.",
        f"left out: {tmp_path / silent}: the clip is silent or not finite.",
        f"left out: {tmp_path / broken}: the file is damaged or not audio: "
        "it cannot be read as .wav (Format not recognised).",
    ]
    stop = f"2 of 3 recordings cannot be read; the first: {said[1].removeprefix('left out: ')}"
    with pytest.raises(BrokenError, match=f"^{re.escape(stop)}$"):
        draw_usable_rows(clips, tmp_path, 12)
    assert capsys.readouterr().out.splitlines() == said


@pytest.fixture
def hundred(tmp_path):
    """A folder, the 100 clips in it, and the 40 rows that are drawn from them."""
    manifest = write_corpus(tmp_path, labels=10, recordings=10, seconds=0.1, split="validation")
    clips = read_manifest(manifest, "validation")
    return tmp_path, clips, draw_rows(clips, 40)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (None, "the file is damaged or not audio: it cannot be read as .wav (Format not recognised)."),
        (np.full(800, np.nan), "the clip is silent or not finite."),
    ],
)
def test_a_broken_recording_of_many_is_named_once_and_its_mixtures_are_left_out(hundred, samples, reason):
    folder, clips, rows = hundred

    def mixtures_of(path):
        return [row for row in rows if path in (row["target"], row["interference1"])]

    broken, said = max((clip.path for clip in clips), key=lambda path: len(mixtures_of(path))), []
    lost = mixtures_of(broken)
    assert len(lost) > 1
    if samples is None:
        (folder / broken).write_bytes(b"no sound")
    else:
        soundfile.write(folder / broken, samples, 8000, subtype="FLOAT")
    assert draw_usable_rows(clips, folder, 40, notice=said.append) == [row for row in rows if row not in lost]
    left_out = f"{len(lost)} of 40 validation mixtures are left out: silent or not readable."
    assert said == [left_out, f"left out: {folder / broken}: {reason}"]


def test_two_broken_recordings_of_a_hundred_stop(hundred):
    folder, clips, rows = hundred
    for row in rows[:2]:
        (folder / row["target"]).unlink()
    drawn = len({row[name] for row in rows for name in ("target", "interference1")})
    with pytest.raises(
        BrokenError, match=rf"^2 of {drawn} recordings cannot be read; the first: .*\.wav: the file does"
    ):
        draw_usable_rows(clips, folder, 40)


def test_a_recording_with_a_pause_is_not_broken(tmp_path):
    clips = []
    for number, name in enumerate("abc"):
        wave = np.zeros(8000 * 40)
        wave[:800] = 0.3
        soundfile.write(tmp_path / f"{name}.wav", wave, 8000)
        clips.append(Clip(f"{name}.wav", name, "", f"r{number}", "s", 40.0))
    said = []
    with pytest.raises(DataError, match=r"^all 6 mixtures that were drawn are silent or not readable\.$"):
        draw_usable_rows(clips, tmp_path, 6, notice=said.append)
    assert said == ["6 of 6 validation mixtures are left out: silent or not readable."]


@pytest.mark.parametrize(
    "start, wanted", [(2.0, True), (6.999, True), (1.9995, True), (1.99, False), (7.0, False), (8.0, False)]
)
def test_a_clip_contains_the_starts_in_its_part_of_the_file(start, wanted):
    assert contains(Clip("a.wav", "a", "", "r", "s", 5.0, start=2.0), start) is wanted
    assert contains(Clip("a.wav", "a", "", "r", "s", 0.0, start=2.0), start) is (start > 1.999)


# --- Containers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compressed(tmp_path_factory, folder, clips):
    """A folder of the same recordings as m4a, and their clips, without a length."""
    there, made = tmp_path_factory.mktemp("compressed"), []
    for number, clip in enumerate(clips):
        wave, rate = read(folder / clip.path)
        save_media(there / f"{number}.m4a", [wave.numpy()], rate)
        made.append(replace(clip, path=f"{number}.m4a", seconds=0.0))
    return there, made


def test_recordings_in_containers_are_mixed(compressed, folder, clips):
    there, made = compressed
    assert measure(there / "0.m4a") == pytest.approx(7.0, abs=0.2)
    said = []
    assert len(draw_usable_rows(made, there, 6, notice=said.append)) == 6 and said == []
    wav_of = {clip.path: wav.path for clip, wav in zip(made, clips, strict=True)}
    for row in draw_rows([replace(clip, seconds=7.0) for clip in made], 4, root=there):
        found = render(row, there)
        wanted = render(row | {name: wav_of[row[name]] for name in ("target", "interference1", "example")}, folder)
        assert found.mixture.shape == wanted.mixture.shape
        assert np.corrcoef(found.mixture, wanted.mixture)[0, 1] > 0.98
        assert isinstance(read_example(found), np.ndarray)


def test_a_part_of_a_container_is_exact_to_the_sample(compressed):
    file = compressed[0] / "0.m4a"
    whole = read_clip(file, 8000)
    assert np.array_equal(read_clip(file, 8000, 1.5, 2.0), whole[12000:28000])
    assert len(read_clip(file, 8000, 6.5, 2.0)) == len(whole) - 52000


def test_a_broken_container_is_named(compressed, tmp_path):
    row = draw_rows(compressed[1], 1, root=compressed[0])[0]
    for name in ("target", "interference1"):
        (tmp_path / row[name]).write_bytes(b"no sound")
    assert measure(tmp_path / row["target"]) == 0.0
    (tmp_path / row["example"]).write_bytes(b"no sound")
    nothing = np.zeros(1, dtype=np.float32)
    for found in (Rows([row], tmp_path)[0], read_example(Rendered(row, nothing, nothing, folder=tmp_path))):
        assert isinstance(found, LeftOut) and str(tmp_path) in found.why and ".m4a" in found.why


def test_ranks_share_the_rows(clips, folder):
    rows = draw_rows(clips, 5)
    shares = [Rows(rows, folder, rank, 2) for rank in range(2)]
    assert [len(share) for share in shares] == [3, 2]
    assert [share[1].row["id"] for share in shares] == [rows[2]["id"], rows[3]["id"]]


# --- Clips that are parts of longer files --------------------------------------------------------

HERTZ = (300, 700, 1500, 3000, 5000)
PARTS = 8.0, 3.0, 6.5, 2.0, 7.0  # s of a file, one tone after another


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder with one long file of five tones, and their clips; the last is open: to the end, by the manifest."""
    folder = tmp_path_factory.mktemp("parts")
    tones = [np.sin(2 * np.pi * f * np.arange(round(s * 16000)) / 16000) for f, s in zip(HERTZ, PARTS, strict=True)]
    soundfile.write(folder / "long.wav", 0.3 * np.concatenate(tones), 16000)
    starts = np.cumsum([0, *PARTS])
    clips = [
        Clip("long.wav", f"{hertz}", "", f"r{n}", "s", PARTS[n] if n < 4 else 0.0, start=float(starts[n]))
        for n, hertz in enumerate(HERTZ)
    ]
    return folder, clips


def test_a_clip_is_only_its_part_of_a_longer_file(parts):
    folder, clips = parts
    targets = set()
    for row in draw_usable_rows(clips, folder, 40, absent=0.0):
        target, number = render(row, folder).target, HERTZ.index(int(row["query"]))
        first, *_, last = np.flatnonzero(np.abs(target) > 1e-3) / SAMPLE_RATE  # s
        assert last - first == pytest.approx(min(5.0, PARTS[number]), abs=0.02)
        assert first == pytest.approx(float(row["target_offset"]), abs=0.02)
        spectrum = np.abs(np.fft.rfft(target)) ** 2
        near = np.abs(np.fft.rfftfreq(5 * SAMPLE_RATE, 1 / SAMPLE_RATE) - HERTZ[number]) < 50
        assert spectrum[near].sum() > 0.99 * spectrum.sum()  # nothing of what lies before and behind
        targets.add(number)
    assert targets == set(range(5))


def test_a_length_missing_in_the_manifest_is_measured(folder, clips):
    known = draw_rows(clips, 20)
    opened = [Clip(c.path, c.label, c.caption, c.recording, c.source, 0.0) for c in clips]
    assert draw_rows(opened, 20, root=folder) == known
    for row in known:
        assert render(row, folder).mixture.any()
        assert float(row["target_seconds"]) == 5.0 and float(row["target_offset"]) == 0.0


def test_the_hash_of_rows_tells_how_much_of_a_file_a_clip_is(clips):
    rows = draw_rows(clips, 3)
    plain = [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in rows]
    assert fingerprint(rows, VALIDATION) != fingerprint(plain, VALIDATION)
    changed = [row | {"target_seconds": "1.0"} for row in rows]
    assert fingerprint(changed, VALIDATION) != fingerprint(rows, VALIDATION)


# --- Queries -------------------------------------------------------------------------------------

SEVERAL = [("bark", "dog", "animal"), ("dog", "animal"), ("cat", "animal"), ("bark", "dog"), ("dog",), ("rain",)]
SEVERAL += [("rain", "wind"), ("bell",)]


def test_clips_of_a_row_share_no_label_and_have_no_absent_one():
    clips = [Clip(f"{n}.wav", "", "", f"r{n}", "s", 6.0, labels=labels) for n, labels in enumerate(SEVERAL)]
    labels = {clip.path: set(clip.labels) for clip in clips}
    rows = draw_rows(clips, 200, absent=0.5)
    assert len(rows) == 200
    for row in rows:
        target, interference = labels[row["target"]], labels[row["interference1"]]
        assert not target & interference
        assert (row["query"] in target | interference) == (row["kind"] == "pair")
    assert {row["query"] for row in rows if row["kind"] == "absent"} == {"bark", "dog", "cat", "rain", "bell"}


def test_clips_that_always_share_a_label_give_no_mixture_and_an_error(tmp_path, capsys):
    clips = [Clip(f"{n}.wav", "", "", f"r{n}", "s", 6.0, labels=(name, "music")) for n, name in enumerate("abc")]
    assert draw_rows(clips, 5) == []
    with pytest.raises(DataError, match=r"^every two clips have a sound in common\.$"):
        draw_usable_rows(clips, tmp_path, 5)
    with pytest.raises(DataError, match=r"^mixtures are drawn from 3 labels or more, and there are 2\.$"):
        draw_usable_rows([clips[0], clips[1]], tmp_path, 5)


def test_captions_are_the_queries_of_clips_without_labels(folder, clips):
    several = [Clip(c.path, "", "", c.recording, c.source, c.seconds, captions=(c.caption, "A tone.")) for c in clips]
    assert draw_rows(several, 3) == []  # all share a caption
    captioned = [Clip(c.path, "", c.caption, c.recording, c.source, c.seconds) for c in clips]
    by_path = {clip.path: clip for clip in captioned}
    rows = draw_usable_rows(captioned, folder, 50)
    assert [row["kind"] for row in rows] == ["pair"] * 4 + ["absent"] + (["pair"] * 4 + ["absent"]) * 9
    for row in rows:
        target, interference = by_path[row["target"]], by_path[row["interference1"]]
        assert target.recording != interference.recording
        if row["kind"] == "pair":
            assert row["query"] == row["phrase"] == target.caption
        else:
            assert row["query"] not in (target.caption, interference.caption)
            assert row["query"] in {clip.caption for clip in captioned}
    mixed = [*clips, Clip("other.wav", "", "Something else.", "r", "s", 5.0)]
    assert draw_rows(mixed, 20) == draw_rows(clips, 20)  # what has no label is not asked for among what has


# --- Examples ------------------------------------------------------------------------------------


def test_the_example_of_a_row_is_another_recording_of_its_query(clips, folder):
    recording = {clip.path: clip.recording for clip in clips}
    label = {clip.path: clip.label for clip in clips}
    for row in draw_rows(clips, 20):
        assert label[row["example"]] == row["query"]
        assert recording[row["example"]] not in (recording[row["target"]], recording[row["interference1"]])
        shown = read_example(render(row, folder))
        assert len(shown) == 5 * SAMPLE_RATE
        hertz = np.abs(np.fft.rfft(shown)).argmax() / 5
        assert hertz == pytest.approx(300 * 1.6 ** int(row["query"].removeprefix("tone ")) * 1.02, rel=0.03)


def test_without_an_example_the_target_is_used_and_absent_queries_have_none(folder, clips):
    rows = [{k: v for k, v in row.items() if not k.startswith("example")} for row in draw_rows(clips, 20)]
    for row in rows:
        rendered = render(row, folder)
        shown = read_example(rendered)
        if row["kind"] == "pair":
            assert shown is rendered.target
        else:
            assert shown == LeftOut(f"{row['id']}: no example recording of “{row['query']}”")
    gone = read_example(render(rows[0] | {"example": "gone.wav"}, folder))
    assert isinstance(gone, LeftOut) and gone.why.startswith(f"{rows[0]['id']}: ") and "gone.wav" in gone.why


def test_examples_of_a_list_are_the_targets_of_other_rows():
    row = {"kind": "pair", "interference1": "x.wav", "target_start": "1"}
    rows = [
        row | {"query": "dog", "target": "a.wav"},
        row | {"query": "dog", "target": "b.wav", "target_seconds": "2"},
        row | {"query": "cat", "target": "c.wav"},
        row | {"query": "dog", "target": "d.wav", "kind": "absent"},
        row | {"query": "rain", "target": "d.wav", "kind": "absent"},
        row | {"query": "dog", "target": "e.wav", "example": "own.wav"},
    ]
    found = add_examples(rows)
    assert [each.get("example") for each in found] == ["b.wav", "a.wav", None, "a.wav", None, "own.wav"]
    assert (found[0]["example_start"], found[0]["example_seconds"]) == ("1", "2")


def test_a_row_that_cannot_be_read_is_left_out_with_the_reason(clips, folder, tmp_path):
    (tmp_path / "noise.wav").write_bytes(b"no sound")
    row = draw_rows(clips, 1)[0]
    missing = Rows([row | {"target": "gone.wav"}], tmp_path)[0]
    assert missing == LeftOut("gone.wav", missing=True)
    for name in {row["target"], row["interference1"]}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    broken = Rows([row | {"target": "noise.wav"}], tmp_path)[0]
    assert isinstance(broken, LeftOut) and not broken.missing
    assert broken.why.startswith("pair0000: ") and "noise.wav" in broken.why


def test_scores_in_training_know_the_recordings(tmp_path):
    pytest.importorskip("lightning", reason="needs the extra [train]")
    from separation.data.datamodule import MixtureData

    columns = (*COLUMNS, *(f"{name}_seconds" for name in CLIPS))  # none is called `recording`
    manifest = write_corpus(tmp_path, labels=3, recordings=2, split="validation")
    data = MixtureData(manifest, sample_rate=8000, validation_count=5, validation_absent=0.2)
    recordings = {clip.path: clip.recording for clip in read_manifest(manifest, "validation")}
    drawn, _ = data.fixed.draw("validation")
    assert [row["recording"] for row in drawn] == [recordings[row["target"]] for row in drawn]
    rows = [{column: row.get(column, "") for column in columns} for row in drawn]
    write_manifest(tmp_path / "list.csv", rows, columns)
    listed = MixtureData(manifest, sample_rate=8000, validation=tmp_path / "list.csv").fixed.read_list()
    assert [row["recording"] for row in listed] == [row["recording"] for row in drawn]
    elsewhere = tmp_path.parent / f"{tmp_path.name}.csv"
    manifest.rename(elsewhere)
    folders = {"root": tmp_path, "validation_root": tmp_path}
    listed = MixtureData(elsewhere, validation=tmp_path / "list.csv", **folders).fixed.read_list()
    assert [row["recording"] for row in listed] == [row["recording"] for row in drawn]
