"""Reading of manifests."""

import pytest
from tiny import write_manifest

from separation.data.manifest import COLUMNS, Clip, DataError, read_manifest

ROW = {
    "path": "audio/a/dog/1.ogg",
    "split": "train",
    "label": "dog",
    "caption": 'A dog, "Rex", barks: wúff.',
    "recording_id": "freesound:1",
    "source": "a",
    "seconds": "4.25",
}


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


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(tmp_path, column):
    path = write_manifest(tmp_path / "m.csv", [ROW], [c for c in COLUMNS if c != column])
    with pytest.raises(DataError, match=rf"m\.csv: the manifest lacks the column {column}\."):
        read_manifest(path, "train")


def test_a_split_without_rows_is_named(tmp_path):
    path = write_manifest(tmp_path / "m.csv", [ROW])
    with pytest.raises(DataError, match=r"m\.csv: the manifest has no rows with split test\."):
        read_manifest(path, "test")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "m.csv").write_text("")
    with pytest.raises(DataError, match="lacks the column path"):
        read_manifest(tmp_path / "m.csv", "train")


def test_the_real_manifest_keeps_recordings_on_one_side(data_root):
    splits = {split: read_manifest(data_root / "manifest.csv", split) for split in ("train", "validation")}
    train, validation = ({clip.recording for clip in clips if "?" not in clip.recording} for clips in splits.values())
    assert not train & validation
    assert all(0 < clip.seconds <= 30 for clips in splits.values() for clip in clips)
