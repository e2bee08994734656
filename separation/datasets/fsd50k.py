"""FSD50K: 51,197 Freesound clips of 0.3 to 30 s with several of 200 AudioSet classes each.

Layout: zenodo.org/records/4060432. `FSD50K.ground_truth/dev.csv` and `eval.csv`, the audio in `FSD50K.dev_audio` and
`FSD50K.eval_audio`, licences in `FSD50K.metadata/*_clips_info_FSD50K.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from separation.data.manifest import Clip, DataError, Entry
from separation.datasets.base import Preparer, numbered, parsed, rows, words

DEV = ("fname", "labels", "mids", "split")
EVAL = ("fname", "labels", "mids")
SPLITS = {"train": "train", "val": "validation"}


def clips(root: Path) -> Iterator[Entry]:
    """The rows of both lists; the first label is the narrowest, its ancestors follow.

    Raises:
        DataError: a split is another than those two of the development set.
    """
    truth = root / "FSD50K.ground_truth"
    known = licences(root, "dev")
    for number, row in numbered(truth / "dev.csv", DEV):
        if row["split"] not in SPLITS:
            raise DataError(f"{truth / 'dev.csv'}, row {number}: its split “{row['split']}” is not train or val.")
        yield SPLITS[row["split"]], clip("FSD50K.dev_audio", row, known)
    known = licences(root, "eval")
    for row in rows(truth / "eval.csv", EVAL):
        yield "test", clip("FSD50K.eval_audio", row, known)


def clip(folder: str, row: dict[str, str], known: dict[str, Any]) -> Clip:
    """One row of a list."""
    labels = tuple(words(label) for label in row["labels"].split(","))
    licence = known.get(row["fname"], {}).get("license", "")
    path, recording = f"{folder}/{row['fname']}.wav", f"freesound:{row['fname']}"
    return Clip(path, labels[0], "", recording, "fsd50k", 0.0, licence, labels=labels)


def licences(root: Path, part: str) -> dict[str, Any]:
    """What the metadata says of each clip, where the metadata were unpacked too."""
    path = root / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json"
    known: dict[str, Any] = parsed(path) if path.exists() else {}
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
