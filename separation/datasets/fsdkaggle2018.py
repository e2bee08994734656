"""FSDKaggle2018: 11,073 Freesound clips with one of 41 labels; DCASE 2018, task 2.

Layout: zenodo.org/records/2552860. `FSDKaggle2018.meta/train_post_competition.csv` and
`test_post_competition_scoring_clips.csv`, the audio in `FSDKaggle2018.audio_train` and `FSDKaggle2018.audio_test`.
The columns `freesound_id` and `license` of the lists are used if they exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separation.data.lists import read_table
from separation.data.manifest import Clip, Entry
from separation.datasets.base import label_words, preparer

LISTS = {
    "train": ("FSDKaggle2018.meta/train_post_competition.csv", "FSDKaggle2018.audio_train"),
    "test": ("FSDKaggle2018.meta/test_post_competition_scoring_clips.csv", "FSDKaggle2018.audio_test"),
}


@preparer(
    name="fsdkaggle2018",
    title="FSDKaggle2018",
    home="https://zenodo.org/records/2552860",
    get="Download FSDKaggle2018.meta.zip, .audio_train.zip and .audio_test.zip and unpack them into one folder.",
    licence="CC BY 4.0 as a collection; each clip CC0 or CC BY",
    splits="its own train and test (the clips that were scored); no validation",
    needs=(*(name for name, _ in LISTS.values()), *(folder for _, folder in LISTS.values())),
    counts={"train": 9473, "test": 1600},
)
def clips(root: Path) -> Iterator[Entry]:
    """Yield the rows of both lists."""
    for split, (name, folder) in LISTS.items():
        for _, row in read_table(root / name, ("fname", "label")):
            known = row.get("freesound_id")
            recording = f"freesound:{known}" if known else f"fsdkaggle2018:{row['fname']}"
            path, licence = f"{folder}/{row['fname']}", row.get("license") or ""
            yield split, Clip(path, label_words(row["label"]), "", recording, "fsdkaggle2018", 0.0, licence)
