"""The manifest: one CSV row a clip, the one format that every dataset is described in."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path


class DataError(ValueError):
    """A dataset's files do not say what they should; the message names the file."""


@dataclass(frozen=True)
class Clip:
    """One labelled recording. `recording` is the original it was cut from: splits never divide one."""

    path: str
    label: str
    caption: str
    recording: str
    source: str
    seconds: float
    licence: str = ""


COLUMNS = ("path", "split", "label", "caption", "recording_id", "source", "seconds")


def read_manifest(path: Path, split: str) -> list[Clip]:
    """The rows of one split, in file order.

    Raises:
        DataError: a column is missing or the split has no rows.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
        if missing:
            raise DataError(f"{path}: the manifest lacks the column {missing[0]}.")
        rows = [row for row in reader if row["split"] == split]
    if not rows:
        raise DataError(f"{path}: the manifest has no rows with split {split}.")
    return [
        Clip(
            path=row["path"],
            label=row["label"],
            caption=row["caption"],
            recording=row["recording_id"],
            source=row["source"],
            seconds=float(row["seconds"]),
            licence=row.get("licence", ""),
        )
        for row in rows
    ]
