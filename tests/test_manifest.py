"""Reading and writing of manifests."""

import csv
import json
import os

import pytest
from tiny import COLUMNS, write_manifest

from separation.data import manifest as module
from separation.data.manifest import Clip, DataError, hold_out, leaks, read_entries, read_manifest, without_leaks

ROW = {
    "path": "audio/a/dog/1.ogg",
    "split": "train",
    "label": "dog",
    "caption": 'A dog, "Rex", barks: wúff.',
    "recording_id": "freesound:1",
    "source": "a",
    "seconds": "4.25",
}
FULL = Clip(
    path="a/1.flac",
    label="dog bark",
    caption="A dog barks.",
    recording="youtube:-0RWZT-miFs",
    source="a",
    seconds=2.5,
    licence="CC BY 4.0 (by “Zoë”)",
    start=420.125,
    frame="frames/1/*.jpg",
    labels=("dog bark", "animal, domestic"),
    captions=("A dog barks.", 'Wúff, "wuff";\nsaid Rex'),
)


def clip(path, recording, **more):
    return Clip(path, "dog", "", recording, "a", 1.0, **more)


def test_a_row_becomes_a_clip(tmp_path):
    path = write_manifest(tmp_path / "m.csv", [ROW])
    assert read_manifest(path, "train") == [
        Clip("audio/a/dog/1.ogg", "dog", 'A dog, "Rex", barks: wúff.', "freesound:1", "a", 4.25, "")
    ]


def test_licence_and_unknown_columns_may_be_there(tmp_path):
    columns = [*COLUMNS, "licence", "colour"]
    path = write_manifest(tmp_path / "m.csv", [ROW | {"licence": "CC0 1.0", "colour": "red"}], columns)
    assert read_manifest(path, "train")[0].licence == "CC0 1.0"


def test_rows_of_the_split_come_in_file_order(tmp_path):
    splits = ["validation", "train", "train", "validation", "train"]
    path = write_manifest(tmp_path / "m.csv", [ROW | {"path": f"{i}.ogg", "split": s} for i, s in enumerate(splits)])
    assert [clip.path for clip in read_manifest(path, "train")] == ["1.ogg", "2.ogg", "4.ogg"]
    assert [clip.path for clip in read_manifest(path, "validation")] == ["0.ogg", "3.ogg"]
    assert [split for split, _ in read_entries(path)] == splits


def test_labels_and_captions_may_be_several(tmp_path):
    row = ROW | {"labels": "dog bark; animal ;", "caption": "A dog barks.|Wuff."}
    path = write_manifest(tmp_path / "m.csv", [row], [*COLUMNS, "labels"])
    read = read_manifest(path, "train")[0]
    assert (read.label, read.labels) == ("dog bark", ("dog bark", "animal"))
    assert (read.caption, read.captions) == ("A dog barks.", ("A dog barks.", "Wuff."))


def test_one_label_is_all_labels():
    assert clip("a", "r").labels == ("dog",)
    assert clip("a", "r").captions == ()
    assert Clip("a", "", "", "r", "s", 1.0, labels=("dog", "cat")).label == "dog"
    with pytest.raises(DataError, match="the label “cat” is not the first of its labels"):
        Clip("a", "cat", "", "r", "s", 1.0, labels=("dog", "cat"))


def test_what_may_be_absent(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("path,split,recording_id,caption\n1.wav,train,,Rain.\n")
    assert read_manifest(path, "train") == [Clip("1.wav", "", "Rain.", "1.wav", "", 0.0)]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_what_is_written_is_read(tmp_path, name):
    entries = [("train", FULL), ("validation", clip("b.wav", "r", start=1 / 3)), ("test", clip("c.wav", "s"))]
    module.write_manifest(tmp_path / "new" / name, entries)
    read = list(read_entries(tmp_path / "new" / name))
    assert read[0] == entries[0]
    assert read[2] == entries[2]
    assert read[1][1].start == pytest.approx(1 / 3, abs=1e-6)
    assert os.listdir(tmp_path / "new") == [name]


def test_the_columns_are_those_of_the_format(tmp_path):
    module.write_manifest(tmp_path / "m.csv", [("train", FULL)])
    header = "path,split,recording_id,labels,caption,frame,start,seconds,licence,source"
    assert (tmp_path / "m.csv").read_text(encoding="utf-8").splitlines()[0] == header
    module.write_manifest(tmp_path / "m.jsonl", [("train", FULL)])
    row = json.loads((tmp_path / "m.jsonl").read_text(encoding="utf-8"))
    assert row["labels"] == ["dog bark", "animal, domestic"]
    assert (row["start"], row["seconds"]) == (420.125, 2.5)
    assert ",frames/1/*.jpg,420.125,2.5," in (tmp_path / "m.csv").read_text(encoding="utf-8")


def test_a_spreadsheet_s_byte_order_mark_is_no_part_of_the_header(tmp_path):
    (tmp_path / "m.csv").write_text("path,split,recording_id,labels\na.wav,train,r,dog\n", encoding="utf-8-sig")
    assert read_manifest(tmp_path / "m.csv", "train")[0].path == "a.wav"


# --- What is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["path", "split", "recording_id"])
def test_a_missing_column_is_named(tmp_path, column):
    path = write_manifest(tmp_path / "m.csv", [ROW], [c for c in COLUMNS if c != column])
    with pytest.raises(DataError, match=rf"m\.csv: the manifest lacks the column {column}\."):
        read_manifest(path, "train")


def test_a_manifest_must_say_what_sounds(tmp_path):
    path = write_manifest(tmp_path / "m.csv", [ROW], ["path", "split", "recording_id", "seconds"])
    with pytest.raises(DataError, match=r"m\.csv: the manifest lacks the column labels\."):
        read_manifest(path, "train")


def test_a_split_without_rows_is_named(tmp_path):
    path = write_manifest(tmp_path / "m.csv", [ROW])
    with pytest.raises(DataError, match=r"m\.csv: the manifest has no rows with split test\."):
        read_manifest(path, "test")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "m.csv").write_text("")
    with pytest.raises(DataError, match="lacks the column path"):
        read_manifest(tmp_path / "m.csv", "train")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seconds": "long"}, r"m\.csv, row 3: the seconds “long” is not a number\."),
        ({"seconds": "nan"}, r"m\.csv, row 3: the seconds “nan” is not a valid time\."),
        ({"start": "-1"}, r"m\.csv, row 3: the start “-1” is not a valid time\."),
        ({"path": ""}, r"m\.csv, row 3: the path is empty\."),
        ({"split": ""}, r"m\.csv, row 3: the split is empty\."),
    ],
)
def test_an_impossible_cell_is_named_with_its_row(tmp_path, change, reason):
    path = write_manifest(tmp_path / "m.csv", [ROW, ROW | change], [*COLUMNS, "start"])
    with pytest.raises(DataError, match=reason):
        read_manifest(path, "train")


def test_a_row_of_another_length_is_named(tmp_path):
    (tmp_path / "m.csv").write_text("path,split,recording_id,labels\na.wav,train,r,dog\nb.wav,train\n")
    with pytest.raises(DataError, match=r"row 3: the number of cells differs from the header"):
        read_manifest(tmp_path / "m.csv", "train")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "row 2: invalid JSON"),
        ('{"path": "a", "split": "train"}', "row 2: missing key recording_id"),
        ('{"path": "a", "split": "train", "recording_id": "r"}', r"row 2: missing key labels\."),
        ("[]", "row 2: missing key path"),
    ],
)
def test_json_lines_are_checked_too(tmp_path, line, reason):
    good = '{"path": "a.wav", "split": "train", "recording_id": "r", "labels": "dog;cat", "seconds": 1.5}'
    (tmp_path / "m.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(DataError, match=reason):
        read_manifest(tmp_path / "m.jsonl", "train")
    (tmp_path / "m.jsonl").write_text(f"{good}\n\n")
    assert read_manifest(tmp_path / "m.jsonl", "train")[0].labels == ("dog", "cat")


def test_a_missing_or_binary_file_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"no\.csv: the manifest cannot be read \(no such file or directory\)\."):
        read_manifest(tmp_path / "no.csv", "train")
    (tmp_path / "b.csv").write_bytes(b"path\xff\xfe")
    with pytest.raises(DataError, match=r"b\.csv: the manifest is not UTF-8 text"):
        read_manifest(tmp_path / "b.csv", "train")


def test_separators_in_a_label_are_not_written(tmp_path):
    with pytest.raises(DataError, match=r"“dog; cat” of a\.wav contains the separator “;”"):
        module.write_manifest(tmp_path / "m.csv", [("train", Clip("a.wav", "dog; cat", "", "r", "s", 1.0))])
    with pytest.raises(DataError, match="there is no clip to write"):
        module.write_manifest(tmp_path / "m.csv", [])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_manifest(tmp_path, monkeypatch):
    module.write_manifest(tmp_path / "m.csv", [("train", FULL)])

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv, "DictWriter", full)
    with pytest.raises(DataError, match=r"m\.csv: the manifest cannot be written \(the disk is full\)"):
        module.write_manifest(tmp_path / "m.csv", [("train", clip("b", "c"))])
    assert read_manifest(tmp_path / "m.csv", "train") == [FULL]
    assert os.listdir(tmp_path) == ["m.csv"]


# --- Splits ------------------------------------------------------------------------------------

LEAKY = [
    ("train", clip("1.wav", "a")),
    ("validation", clip("2.wav", "a")),
    ("test", clip("3.wav", "b")),
    ("train", clip("3.wav", "c")),  # another id, the same file
    ("train", clip("4.wav", "d")),
    ("train", clip("5.wav", "freesound:?")),
    ("test", clip("6.wav", "freesound:?")),
]


def test_a_recording_in_two_splits_is_not_written(tmp_path):
    assert leaks(LEAKY) == {"a": {"train", "validation"}, "3.wav": {"test", "train"}}
    with pytest.raises(DataError, match=r"m\.csv: the recording 3\.wav is in test and train, and 1 more are\."):
        module.write_manifest(tmp_path / "m.csv", LEAKY)
    with pytest.raises(DataError, match=r"m\.csv: the recording a is in train and validation\."):
        module.write_manifest(tmp_path / "m.csv", LEAKY[:2])
    assert list(tmp_path.iterdir()) == []


def test_the_stricter_split_keeps_a_leaking_recording():
    resolved = without_leaks(LEAKY)
    assert [(split, clip.path) for split, clip in resolved.dropped] == [("train", "1.wav"), ("train", "3.wav")]
    assert resolved.recordings == ["a", "c"]
    assert leaks(resolved.kept) == {}
    assert len(resolved.kept) == 5


def test_a_validation_split_is_held_out_by_recording():
    entries = [("train", clip(f"{i}.wav", f"r{i // 2}")) for i in range(2000)] + [("test", clip("t.wav", "t"))]
    held = hold_out(entries, 0.1)
    validation = [c for split, c in held if split == "validation"]
    assert 140 <= len(validation) <= 260  # 200 expected of 1,000 recordings of two clips
    assert leaks(held) == {}
    assert held == hold_out(entries, 0.1)
    more = {c.path for split, c in hold_out(entries, 0.2) if split == "validation"}
    assert {c.path for c in validation} < more
    assert [c.path for split, c in held if split == "test"] == ["t.wav"]
    assert hold_out(entries, 0.0) == entries
    unknown = [("train", clip("u.wav", "freesound:?"))]
    assert hold_out(unknown, 1.0) == unknown


# --- The recordings at hand --------------------------------------------------------------------


def test_the_real_manifest_keeps_recordings_on_one_side(data_root):
    entries = list(read_entries(data_root / "manifest.csv"))
    assert leaks(entries) == {}
    assert {split for split, _ in entries} == {"train", "validation"}
    assert all(0 < clip.seconds <= 30 for _, clip in entries)
    assert all(clip.labels == (clip.label,) for _, clip in entries)


def test_the_real_manifest_survives_the_format(data_root, tmp_path):
    entries = list(read_entries(data_root / "manifest.csv"))
    with (data_root / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(c.path, c.label, c.caption) for _, c in entries] == [(r["path"], r["label"], r["caption"]) for r in rows]
    for name in ("m.csv", "m.jsonl"):
        module.write_manifest(tmp_path / name, entries)
        assert list(read_entries(tmp_path / name)) == entries
