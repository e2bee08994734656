"""FSDKaggle2018: 11,073 Freesound clips with one of 41 labels; DCASE 2018, task 2.

Layout: zenodo.org/records/2552860. `FSDKaggle2018.meta/train_post_competition.csv` and
`test_post_competition_scoring_clips.csv`, the audio in `FSDKaggle2018.audio_train` and `FSDKaggle2018.audio_test`.
The columns `freesound_id` and `license` of the lists are used if they exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separation.data.manifest import Clip, Entry
from separation.datasets.base import Preparer, label_words, read_table

COLUMNS = ("fname", "label")
LISTS = {
    "train": ("train_post_competition.csv", "FSDKaggle2018.audio_train"),
    "test": ("test_post_competition_scoring_clips.csv", "FSDKaggle2018.audio_test"),
}


def clips(root: Path) -> Iterator[Entry]:
    """Yield the rows of both lists."""
    for split, (name, folder) in LISTS.items():
        for _, row in read_table(root / "FSDKaggle2018.meta" / name, COLUMNS):
            known = row.get("freesound_id")
            recording = f"freesound:{known}" if known else f"fsdkaggle2018:{row['fname']}"
            path, licence = f"{folder}/{row['fname']}", row.get("license") or ""
            yield split, Clip(path, label_words(row["label"]), "", recording, "fsdkaggle2018", 0.0, licence)


PREPARER = Preparer(
    name="fsdkaggle2018",
    title="FSDKaggle2018",
    home="https://zenodo.org/records/2552860",
    get="Download FSDKaggle2018.meta.zip, .audio_train.zip and .audio_test.zip and unpack them into one folder.",
    licence="CC BY 4.0 as a collection; each clip CC0 or CC BY",
    splits="its own train and test (the clips that were scored); no validation",
    needs=(
        "FSDKaggle2018.meta/train_post_competition.csv",
        "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv",
        "FSDKaggle2018.audio_train",
        "FSDKaggle2018.audio_test",
    ),
    clips=clips,
    counts={"train": 9473, "test": 1600},
)
