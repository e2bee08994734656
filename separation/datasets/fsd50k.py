"""FSD50K: 51,197 Freesound clips of 0.3 to 30 s with several of 200 AudioSet classes each.

Layout: zenodo.org/records/4060432. `FSD50K.ground_truth/dev.csv` and `eval.csv`, the audio in `FSD50K.dev_audio` and
`FSD50K.eval_audio`, licences in `FSD50K.metadata/*_clips_info_FSD50K.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from separation.data.manifest import Clip, Entry
from separation.datasets.base import Preparer, label_words, read_json, read_table
from separation.errors import DataError

DEV = ("fname", "labels", "mids", "split")
EVAL = ("fname", "labels", "mids")
SPLITS = {"train": "train", "val": "validation"}


def clips(root: Path) -> Iterator[Entry]:
    """Yield the rows of both lists; the first label is the most specific, its ancestors follow.

    Raises:
        DataError: the development list has an unknown split.
    """
    truth = root / "FSD50K.ground_truth"
    known = read_metadata(root, "dev")
    for number, row in read_table(truth / "dev.csv", DEV):
        if row["split"] not in SPLITS:
            raise DataError(f"{truth / 'dev.csv'}, row {number}: the split “{row['split']}” is not train or val.")
        yield SPLITS[row["split"]], make_clip("FSD50K.dev_audio", row, known)
    known = read_metadata(root, "eval")
    for _, row in read_table(truth / "eval.csv", EVAL):
        yield "test", make_clip("FSD50K.eval_audio", row, known)


def make_clip(folder: str, row: dict[str, str], known: dict[str, Any]) -> Clip:
    """Make the clip of a row."""
    labels = tuple(label_words(label) for label in row["labels"].split(","))
    licence = known.get(row["fname"], {}).get("license", "")
    path, recording = f"{folder}/{row['fname']}.wav", f"freesound:{row['fname']}"
    return Clip(path, labels[0], "", recording, "fsd50k", 0.0, licence, labels=labels)


def read_metadata(root: Path, part: str) -> dict[str, Any]:
    """Return the metadata of each clip; empty if they were not unpacked."""
    path = root / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json"
    known: dict[str, Any] = read_json(path) if path.exists() else {}
    return known


PREPARER = Preparer(
    name="fsd50k",
    title="FSD50K",
    home="https://zenodo.org/records/4060432",
    get="Download the archives from Zenodo and unpack them into one folder (about 25 GB of audio).",
    licence="CC BY 4.0 as a collection; each clip CC0, CC BY, CC BY-NC or CC Sampling+",
    splits="its own: dev/train, dev/val and eval",
    needs=(
        "FSD50K.ground_truth/dev.csv",
        "FSD50K.ground_truth/eval.csv",
        "FSD50K.dev_audio",
        "FSD50K.eval_audio",
    ),
    clips=clips,
    counts={"train": 36796, "validation": 4170, "test": 10231},
)
