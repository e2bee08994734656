"""FSD50K: 51,197 Freesound clips of 0.3 to 30 s with several of 200 AudioSet classes each.

Layout: zenodo.org/records/4060432. `FSD50K.ground_truth/dev.csv` and `eval.csv`, the audio in `FSD50K.dev_audio` and
`FSD50K.eval_audio`, licences in `FSD50K.metadata/*_clips_info_FSD50K.json` if it was unpacked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separation.data.lists import read_json, read_table
from separation.data.manifest import Clip, Entry
from separation.datasets.base import label_words, preparer
from separation.errors import DataError

LISTS = {"dev": ("fname", "labels", "mids", "split"), "eval": ("fname", "labels", "mids")}
SPLITS = {"train": "train", "val": "validation"}


@preparer(
    name="fsd50k",
    title="FSD50K",
    home="https://zenodo.org/records/4060432",
    get="Download the archives from Zenodo and unpack them into one folder (about 25 GB of audio).",
    licence="CC BY 4.0 as a collection; each clip CC0, CC BY, CC BY-NC or CC Sampling+",
    splits="its own: dev/train, dev/val and eval",
    needs=(*(f"FSD50K.ground_truth/{part}.csv" for part in LISTS), *(f"FSD50K.{part}_audio" for part in LISTS)),
    counts={"train": 36796, "validation": 4170, "test": 10231},
)
def clips(root: Path) -> Iterator[Entry]:
    """Yield the rows of both lists; the first label is the most specific, its ancestors follow."""
    for part, columns in LISTS.items():
        path, metadata = (
            root / "FSD50K.ground_truth" / f"{part}.csv",
            root / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json",
        )
        known = read_json(metadata) if metadata.exists() else {}
        if not isinstance(known, dict) or not all(isinstance(about, dict) for about in known.values()):
            raise DataError(f"{metadata}: not an object with the metadata of each clip.")
        for number, row in read_table(path, columns):
            if part == "dev" and row["split"] not in SPLITS:
                raise DataError(f"{path}, row {number}: the split “{row['split']}” is not train or val.")
            name, labels = row["fname"], tuple(label_words(label) for label in row["labels"].split(","))
            licence = known.get(name, {}).get("license") or ""
            audio, recording = f"FSD50K.{part}_audio/{name}.wav", f"freesound:{name}"
            clip = Clip(audio, labels[0], "", recording, "fsd50k", 0.0, licence, labels=labels)
            yield "test" if part == "eval" else SPLITS[row["split"]], clip
