"""Reading and writing of manifests, and splits that share no recording."""

import csv
import json
import os
from unittest.mock import Mock

import pytest
from tiny import COLUMNS, read, write_manifest

from separation.data import manifest as module
from separation.data.manifest import Clip, hold_out, leaks, read_entries, read_manifest, resolve_leaks
from separation.errors import DataError

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


def test_rows_become_clips_in_file_order(tmp_path):
    splits = ["validation", "train", "train", "validation"]
    rows = [ROW | {"path": f"{i}.ogg", "split": split, "colour": "red"} for i, split in enumerate(splits)]
    rows[1] |= {"licence": "CC0 1.0"}
    path = write_manifest(tmp_path / "m.csv", rows, [*COLUMNS, "licence", "colour"])  # unknown columns are ignored
    first, second = read_manifest(path, "train")
    assert first == Clip("1.ogg", "dog", 'A dog, "Rex", barks: wúff.', "freesound:1", "a", 4.25, "CC0 1.0")
    assert second.path == "2.ogg"
    assert [split for split, _ in read_entries(path)] == splits


def test_several_labels_and_captions(tmp_path):
    row = ROW | {"labels": "dog bark; animal ;", "caption": "A dog barks.|Wuff."}
    found = read_manifest(write_manifest(tmp_path / "m.csv", [row], [*COLUMNS, "labels"]), "train")[0]
    assert (found.label, found.labels) == ("dog bark", ("dog bark", "animal"))
    assert (found.caption, found.captions) == ("A dog barks.", ("A dog barks.", "Wuff."))
    assert (clip("a", "r").labels, clip("a", "r").captions) == (("dog",), ())
    assert Clip("a", "", "", "r", "s", 1.0, labels=("dog", "cat")).label == "dog"
    with pytest.raises(DataError, match="the label “cat” is not the first of its labels"):
        Clip("a", "cat", "", "r", "s", 1.0, labels=("dog", "cat"))


def test_optional_columns_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("path,split,recording_id,caption\n1.wav,train,,Rain.\n", encoding="utf-8-sig")
    assert read_manifest(path, "train") == [Clip("1.wav", "", "Rain.", "1.wav", "", 0.0)]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_written_manifests_are_read_back(tmp_path, name):
    entries = [("train", FULL), ("validation", clip("b.wav", "r", start=1 / 3)), ("test", clip("c.wav", "s"))]
    module.write_manifest(tmp_path / "new" / name, entries)
    first, second, third = read_entries(tmp_path / "new" / name)
    assert (first, third) == (entries[0], entries[2])
    assert second[1].start == pytest.approx(1 / 3, abs=1e-6)
    assert os.listdir(tmp_path / "new") == [name]
    text = (tmp_path / "new" / name).read_text(encoding="utf-8")
    if name == "m.csv":
        assert text.splitlines()[0] == "path,split,recording_id,labels,caption,frame,start,seconds,licence,source"
        assert ",frames/1/*.jpg,420.125,2.5," in text
    else:
        row = json.loads(text.splitlines()[0])
        assert (row["labels"], row["start"], row["seconds"]) == (["dog bark", "animal, domestic"], 420.125, 2.5)


# --- Errors --------------------------------------------------------------------------------------

HEADER = "path,split,recording_id,labels,start,seconds\n"
JSON = '{"path": "a.wav", "split": "train", "recording_id": "r", "labels": "dog;cat", "seconds": 1.5}\n'


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("m.csv", "", r": the manifest lacks the column path\."),
        ("m.csv", "split,recording_id,label\n", r": the manifest lacks the column path\."),
        ("m.csv", "path,recording_id,label\n", r": the manifest lacks the column split\."),
        ("m.csv", "path,split,label\n", r": the manifest lacks the column recording_id\."),
        ("m.csv", "path,split,recording_id,seconds\n", r": the manifest lacks the column labels\."),
        ("m.csv", HEADER, r": the manifest has no rows with split train\."),
        ("m.csv", f"{HEADER}a,train,r,dog,,long\n", r", row 2: the seconds “long” is not a number\."),
        ("m.csv", f"{HEADER}a,train,r,dog,,nan\n", r", row 2: the seconds “nan” is not a valid time\."),
        ("m.csv", f"{HEADER}b,train,r,,,\na,train,r,dog,-1,\n", r", row 3: the start “-1” is not a valid time\."),
        ("m.csv", f"{HEADER},train,r,dog,,\n", r", row 2: the path is empty\."),
        ("m.csv", f"{HEADER}a,,r,dog,,\n", r", row 2: the split is empty\."),
        ("m.csv", f"{HEADER}a,train\n", r", row 2: the number of cells differs from the header\."),
        ("m.jsonl", JSON + "{\n", r", row 2: invalid JSON"),
        ("m.jsonl", '{"path": "a", "split": "train"}\n', r", row 1: missing key recording_id\."),
        ("m.jsonl", '\n{"path": "a", "split": "train", "recording_id": "r"}\n', r", row 2: missing key labels\."),
        ("m.jsonl", "[]\n", r", row 1: missing key path\."),
    ],
)
def test_an_invalid_manifest_is_named_with_row_and_reason(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}{reason}"):
        read_manifest(tmp_path / name, "train")


def test_json_lines_may_hold_lists_and_empty_lines(tmp_path):
    (tmp_path / "m.jsonl").write_text(JSON + "\n" + JSON.replace('"dog;cat"', '["dog", "cat"]'))
    assert [each.labels for each in read_manifest(tmp_path / "m.jsonl", "train")] == [("dog", "cat")] * 2


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no\.csv: the manifest cannot be read \(no such file or directory\)\."):
        read_manifest(tmp_path / "no.csv", "train")
    (tmp_path / "b.csv").write_bytes(b"path\xff\xfe")
    with pytest.raises(DataError, match=r"b\.csv, line 1: the manifest is not UTF-8 text"):
        read_manifest(tmp_path / "b.csv", "train")


def test_separators_in_a_label_are_not_written(tmp_path):
    with pytest.raises(DataError, match=r"“dog; cat” of a\.wav contains the separator “;”"):
        module.write_manifest(tmp_path / "m.csv", [("train", Clip("a.wav", "dog; cat", "", "r", "s", 1.0))])
    with pytest.raises(DataError, match="there is no clip to write"):
        module.write_manifest(tmp_path / "m.csv", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            OSError(28, "No space left on device"),
            DataError,
            r"m\.csv: the manifest cannot be written \(the disk is full",
        ),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_a_failure_leaves_the_old_manifest(tmp_path, monkeypatch, error, kind, text):
    module.write_manifest(tmp_path / "m.csv", [("train", FULL)])

    monkeypatch.setattr(csv, "DictWriter", Mock(side_effect=error))
    with pytest.raises(kind, match=text):
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
    kept, dropped = resolve_leaks(LEAKY)
    assert [(split, clip.path) for split, clip in dropped] == [("train", "1.wav"), ("train", "3.wav")]
    assert leaks(kept) == {} and len(kept) == 5


def test_a_validation_split_is_held_out_by_recording():
    entries = [("train", clip(f"{i}.wav", f"r{i // 2}")) for i in range(2000)] + [("test", clip("t.wav", "t"))]
    held = hold_out(entries, 0.1)
    validation = {c.path for split, c in held if split == "validation"}
    assert 140 <= len(validation) <= 260  # 200 expected of 1,000 recordings of two clips
    assert leaks(held) == {} and held == hold_out(entries, 0.1)
    assert validation < {c.path for split, c in hold_out(entries, 0.2) if split == "validation"}
    assert [c.path for split, c in held if split == "test"] == ["t.wav"]
    assert hold_out(entries, 0.0) == entries
    unknown = [("train", clip("u.wav", "freesound:?"))]
    assert hold_out(unknown, 1.0) == unknown


# --- The real recordings -----------------------------------------------------------------------


def test_the_real_manifest_is_without_leaks_and_survives_the_format(data_root, tmp_path):
    entries = list(read_entries(data_root / "manifest.csv"))
    assert leaks(entries) == {}
    assert {split for split, _ in entries} == {"train", "validation"}
    assert all(0 < clip.seconds <= 30 and clip.labels == (clip.label,) for _, clip in entries)
    rows = read(data_root / "manifest.csv")
    assert [(c.path, c.label, c.caption) for _, c in entries] == [(r["path"], r["label"], r["caption"]) for r in rows]
    for name in ("m.csv", "m.jsonl"):
        module.write_manifest(tmp_path / name, entries)
        assert list(read_entries(tmp_path / name)) == entries
