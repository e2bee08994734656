"""The manifest: one row a clip, the one format that every dataset is described in.

A manifest is a CSV file, or JSON lines when its name ends in `.jsonl`, with these columns or keys:

| column | meaning |
|---|---|
| `path` | the audio file, from the manifest's folder (or from a root that is named) |
| `split` | train, validation, test, or whatever a study needs |
| `recording_id` | the original that the clip was cut from, such as freesound:1234; with a ? it is unknown |
| `labels` | what sounds, the main one first, separated by `;`; a column `label` holds one label |
| `caption` | a sentence; several are separated by `|` |
| `frame` | a picture or video of the sound; one picture a second is written `folder/*.jpg` |
| `start`, `seconds` | which part of the file; empty or 0: from the start, to the end |
| `licence`, `source` | whose it is, which dataset it came from |

`path`, `split` and `recording_id` must be there. Columns of other names are left alone. No recording may stand in two
of the splits: `write_manifest` and every training refuse that (`splits.py` resolves it).
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from separation.errors import DataError as DataError
from separation.errors import reason

COLUMNS = (
    "path",
    "split",
    "recording_id",
    "labels",
    "caption",
    "frame",
    "start",
    "seconds",
    "licence",
    "source",
)
REQUIRED = COLUMNS[:3]
TEXTS = ("labels", "label", "caption")
"""One of these has to be there: a manifest without any says nothing of what sounds."""
JSON_LINES = ".jsonl"
csv.field_size_limit(2**24)  # a caption is never longer; the default of 128 kB is not much for five of them


@dataclass(frozen=True)
class Clip:
    """One recording or a part of one. `recording` is the original it was cut from: splits never divide one.

    Attributes:
        path: audio file, from the manifest's root.
        label: the main label, empty where there is none.
        caption: a sentence that says what is heard, the first of `captions`.
        recording: the original's id; with a ? in it the original is unknown.
        source: the dataset.
        seconds: how much of the file belongs to the clip; 0 = until its end.
        start: where in the file the clip begins, s.
        labels: all labels, the main one first.
        captions: all captions.
        frame: a picture, a video, or `folder/*.jpg` for one picture a second.
    """

    path: str
    label: str
    caption: str
    recording: str
    source: str
    seconds: float
    licence: str = ""
    start: float = 0.0
    frame: str = ""
    labels: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _complete(self, "label", "labels")
        _complete(self, "caption", "captions")


def _complete(clip: Clip, one: str, many: str) -> None:
    """Makes the first of several and the several agree; either may be given alone."""
    first, values = getattr(clip, one), getattr(clip, many)
    if not values:
        object.__setattr__(clip, many, (first,) if first else ())
    elif not first:
        object.__setattr__(clip, one, values[0])
    elif first != values[0]:
        raise DataError(f"{clip.path}: its {one} “{first}” is not the first of its {many}.")


Entry = tuple[str, Clip]
"""A clip and the split that it is in."""


def read_manifest(path: Path, split: str) -> list[Clip]:
    """The rows of one split, in file order.

    Raises:
        DataError: as `read_entries`, or the split has no rows.
    """
    clips = [clip for name, clip in read_entries(path) if name == split]
    if not clips:
        raise DataError(f"{path}: the manifest has no rows with split {split}.")
    return clips


def read_entries(path: Path) -> Iterator[Entry]:
    """All rows as (split, clip), in file order.

    Raises:
        DataError: the file cannot be read, a column is missing, or a row holds something impossible. The message
            names file, row (the header is row 1) and reason.
    """
    read = _read_json_lines if path.suffix == JSON_LINES else _read_csv
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in read(path, file):
                yield _entry(path, number, row)
    except OSError as error:
        raise DataError(f"{path}: the manifest cannot be read ({reason(error)}).") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: the manifest is not UTF-8 text.") from None


def _read_csv(path: Path, file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file)
    names = reader.fieldnames or []
    if missing := _missing(names):
        raise DataError(f"{path}: the manifest lacks the column {missing}.")
    try:
        for number, row in enumerate(reader, 2):
            if None in row or None in row.values():
                raise DataError(f"{path}, row {number}: it has not as many cells as the header.")
            yield number, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from None


def _read_json_lines(path: Path, file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, row {number}: it is no JSON ({error.msg}).") from None
        if missing := _missing(row if isinstance(row, dict) else ()):
            raise DataError(f"{path}, row {number}: it lacks the key {missing}.")
        yield number, row


def _missing(names: Collection[str]) -> str:
    """The first column or key that has to be there and is not; empty where none is missing."""
    if lacking := [name for name in REQUIRED if name not in names]:
        return lacking[0]
    return "" if any(name in names for name in TEXTS) else TEXTS[0]


def _entry(path: Path, number: int, row: dict[str, Any]) -> Entry:
    """One row as (split, clip)."""
    where = f"{path}, row {number}"
    for column in ("path", "split"):
        if not row[column]:
            raise DataError(f"{where}: its {column} is empty.")
    labels = _several(row.get("labels") or row.get("label"), ";")
    captions = _several(row.get("caption"), "|")
    clip = Clip(
        path=str(row["path"]),
        label=labels[0] if labels else "",
        caption=captions[0] if captions else "",
        recording=str(row["recording_id"] or row["path"]),
        source=str(row.get("source") or ""),
        seconds=_time(where, "seconds", row.get("seconds")),
        licence=str(row.get("licence") or ""),
        start=_time(where, "start", row.get("start")),
        frame=str(row.get("frame") or ""),
        labels=labels,
        captions=captions,
    )
    return str(row["split"]), clip


def _several(cell: Any, separator: str) -> tuple[str, ...]:
    """The parts of a cell; JSON may hold a list instead. Empty ones are dropped."""
    parts = cell if isinstance(cell, list) else str(cell or "").split(separator)
    return tuple(part for part in (str(part).strip() for part in parts) if part)


def _time(where: str, column: str, cell: Any) -> float:
    """Seconds, 0 for an empty cell."""
    try:
        value = float(cell or 0)
    except (TypeError, ValueError):
        raise DataError(f"{where}: its {column} “{cell}” is no number.") from None
    if not (math.isfinite(value) and value >= 0):
        raise DataError(f"{where}: its {column} “{cell}” is no time.")
    return value


def leaks(entries: Iterable[Entry]) -> dict[str, set[str]]:
    """The recordings (and files) that stand in more than one split, with those splits; unknown ones are passed over."""
    seen: dict[str, set[str]] = {}
    for split, clip in entries:
        for name in {clip.recording, clip.path}:
            if "?" not in name:
                seen.setdefault(name, set()).add(split)
    return {name: splits for name, splits in seen.items() if len(splits) > 1}


def refuse_leaks(path: Path, entries: Iterable[Entry]) -> None:
    """Sees that no recording and no file stands in two splits; `path` is the manifest that the message names.

    Raises:
        DataError: one does; the first is named, the others are counted.
    """
    if leaking := leaks(entries):
        name, splits = min(leaking.items())
        others = f", and {len(leaking) - 1} more are" if len(leaking) > 1 else ""
        raise DataError(f"{path}: the recording {name} is in {' and '.join(sorted(splits))}{others}.")


def located(entries: Iterable[Entry], root: Path) -> Iterator[Entry]:
    """The same with whole paths, so that files of several manifests can be compared; `root` is where theirs start."""
    for split, clip in entries:
        path = os.path.abspath(root / clip.path)
        recording = path if clip.recording == clip.path else clip.recording  # a file stands for an unnamed original
        yield split, replace(clip, path=path, recording=recording)


def write_manifest(path: Path, entries: Iterable[Entry]) -> None:
    """Writes (split, clip) pairs as CSV, or JSON lines when the name ends in `.jsonl`; all of it or nothing.

    Raises:
        DataError: a recording stands in two splits, a label holds a `;` or a caption a `|`, there is nothing to
            write, or the file cannot be written.
    """
    entries = list(entries)
    if not entries:
        raise DataError(f"{path}: there is no clip to write.")
    refuse_leaks(path, entries)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", newline="", encoding="utf-8") as file:
            _write(file, path.suffix == JSON_LINES, [_row(path, split, clip) for split, clip in entries])
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path}: the manifest cannot be written ({reason(error)}).") from None
    finally:
        partial.unlink(missing_ok=True)


def _write(file: Any, as_json: bool, rows: list[dict[str, Any]]) -> None:
    if as_json:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    for row in rows:
        row |= {"labels": ";".join(row["labels"]), "caption": "|".join(row["caption"])}
        writer.writerow(row | {column: f"{row[column]:.6f}".rstrip("0").rstrip(".") for column in ("start", "seconds")})


def _row(path: Path, split: str, clip: Clip) -> dict[str, Any]:
    """A clip as a row, its labels and captions still lists."""
    for values, separator in ((clip.labels, ";"), (clip.captions, "|")):
        for value in values:
            if separator in value:
                raise DataError(f"{path}: “{value}” of {clip.path} holds a “{separator}”, which separates.")
    return {
        "path": clip.path,
        "split": split,
        "recording_id": clip.recording,
        "labels": list(clip.labels),
        "caption": list(clip.captions),
        "frame": clip.frame,
        "start": round(clip.start, 6),
        "seconds": round(clip.seconds, 6),
        "licence": clip.licence,
        "source": clip.source,
    }
