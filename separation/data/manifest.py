"""Manifests: one row per clip, the one format in which every dataset is described.

A manifest is a CSV file, or JSON lines if its name ends in `.jsonl`, with these columns or keys:

| column | meaning |
|---|---|
| `path` | the audio file, relative to the manifest's folder (or to a given root), or absolute |
| `split` | train, validation, test, or any other name |
| `recording_id` | the original recording of the clip, such as freesound:1234; unknown if it contains a ? |
| `labels` | what sounds, the main label first, separated by `;`; a column `label` holds a single label |
| `caption` | a sentence; several are separated by a vertical bar |
| `frame` | a picture or video of the sound; `folder/*.jpg` names one picture per second |
| `start`, `seconds` | the part of the file; empty or 0: from its start, to its end |
| `licence`, `source` | the licence of the clip, the name of its dataset |

`path`, `split`, `recording_id` and one of `labels`, `label`, `caption` are required; other columns are ignored. No
recording may occur in two splits: `write_manifest` and every training refuse that, `resolve_leaks` repairs it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from separation.data.lists import open_list, parse_json, read_csv
from separation.errors import DataError, reason
from separation.storage.download import replace_when_complete

COLUMNS = ("path", "split", "recording_id", "labels", "caption", "frame", "start", "seconds", "licence", "source")
REQUIRED = COLUMNS[:3]
TEXTS = ("labels", "label", "caption")  # one of these is required
KNOWN = {*COLUMNS, "label"}
NO_TEXT = re.compile("[\0\ud800-\udfff]")
JSON_LINES = ".jsonl"
MANIFEST = "manifest.csv"  # the usual name
STRICTNESS = {"test": 0, "validation": 1, "train": 2}  # of splits; any other split comes last
csv.field_size_limit(2**24)  # the default of 128 kB is too small for some captions


@dataclass(frozen=True)
class Clip:
    """A recording or a part of one.

    Attributes:
        path: audio file, relative to the manifest's root.
        label: main label, empty if there is none.
        caption: first of `captions`.
        recording: id of the original recording, which lies in one split only; unknown if it contains a ?.
        source: name of the dataset.
        seconds: length of the part of the file; 0 = to its end.
        start: start of the part of the file, s.
        labels: all labels, the main one first.
        captions: all captions.
        frame: a picture, a video, or `folder/*.jpg` for one picture per second.
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
        for one, many in (("label", "labels"), ("caption", "captions")):  # either may be given alone
            first, values = getattr(self, one), getattr(self, many)
            if not values:
                object.__setattr__(self, many, (first,) if first else ())
            elif not first:
                object.__setattr__(self, one, values[0])
            elif first != values[0]:
                raise DataError(f"{self.path}: the {one} “{first}” is not the first of its {many}.")


Entry = tuple[str, Clip]
"""A split and a clip in it."""


# Reading


def read_manifest(path: Path, split: str) -> list[Clip]:
    """Read the clips of one split, in file order; raise DataError as `read_entries`, or if it has none."""
    clips = [clip for name, clip in read_entries(path) if name == split]
    if not clips:
        raise DataError(f"{path}: the manifest has no rows with split {split}.")
    return clips


def read_entries(path: Path) -> Iterator[Entry]:
    """Read all rows of a manifest, or of that of a packed corpus, as (split, clip) in file order.

    Raises:
        DataError: if the file cannot be read, a column is missing or a row is invalid. The message names the file, the
            row (the header is row 1) and the reason.
    """
    path = path / MANIFEST if path.is_dir() else path
    read_rows = _read_json_lines if path.suffix == JSON_LINES else _read_csv
    with open_list(path, "utf-8-sig", "the manifest") as file:
        for number, row in read_rows(path, file):
            yield _parse_row(f"{path}, row {number}", row)


def _read_csv(path: Path, file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = ((number, cells) for number, cells in read_csv(path, file) if cells)
    _, header = next(rows, (1, []))
    _check_columns(header, f"{path}: the manifest lacks the column")
    if twice := [name for name, count in Counter(header).items() if count > 1 and name in (*COLUMNS, *TEXTS)]:
        raise DataError(f"{path}: the column {twice[0]} occurs twice in the header.")
    for number, (_, cells) in enumerate(rows, 2):
        if len(cells) != len(header):
            raise DataError(f"{path}, row {number}: the number of cells differs from the header.")
        yield number, dict(zip(header, cells, strict=True))


def _read_json_lines(path: Path, file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        row = parse_json(line.strip(), f"{path}, row {number}")
        _check_columns(row if isinstance(row, dict) else (), f"{path}, row {number}: missing key")
        yield number, row


def _check_columns(names: Iterable[str], complaint: str) -> None:
    """Raise `complaint` with the first required column that is not among `names`."""
    present = set(names)
    missing = [name for name in REQUIRED if name not in present] or ([] if present & set(TEXTS) else [TEXTS[0]])
    if missing:
        raise DataError(f"{complaint} {missing[0]}.")


def _parse_row(where: str, row: dict[str, Any]) -> Entry:
    for column in ("path", "split"):
        if not row[column]:
            raise DataError(f"{where}: the {column} is empty.")
    for column in KNOWN & set(row):  # JSON may hold anything
        values = row[column]
        for value in values if isinstance(values, list) and column in TEXTS else (values,):
            # NUL and surrogates cannot be parts of a path.
            if not isinstance(value, str | int | float | None) or NO_TEXT.search(str(value)):
                raise DataError(f"{where}: the {column} is not a text.")
    times: dict[str, float] = {}
    for column in ("seconds", "start"):
        cell = row.get(column)
        try:
            times[column] = float(cell or 0)
        except (TypeError, ValueError):
            raise DataError(f"{where}: the {column} “{cell}” is not a number.") from None
        if not (math.isfinite(times[column]) and times[column] >= 0):
            raise DataError(f"{where}: the {column} “{cell}” is not a valid time.")
    texts: dict[str, tuple[str, ...]] = {}
    for name, cell, separator in (
        ("labels", row.get("labels") or row.get("label"), ";"),
        ("captions", row.get("caption"), "|"),
    ):
        parts = cell if isinstance(cell, list) else str(cell or "").split(separator)  # JSON may hold a list
        texts[name] = tuple(part for each in parts if (part := str(each).strip()))
    clip = Clip(
        path=str(row["path"]),
        label="",
        caption="",
        recording=str(row["recording_id"] or row["path"]),
        source=str(row.get("source") or ""),
        seconds=times["seconds"],
        licence=str(row.get("licence") or ""),
        start=times["start"],
        frame=str(row.get("frame") or ""),
        labels=texts["labels"],
        captions=texts["captions"],
    )
    return str(row["split"]), clip


# Writing


def write_manifest(path: Path, entries: Iterable[Entry]) -> None:
    """Write (split, clip) pairs as CSV, or as JSON lines if the name ends in `.jsonl`. The file appears when complete.

    Raises:
        DataError: if a recording occurs in two splits, a label contains `;` or a caption `|`, there are no entries, or
            the file cannot be written.
    """
    entries = list(entries)
    if not entries:
        raise DataError(f"{path}: there is no clip to write.")
    refuse_leaks(path, entries)
    rows: list[dict[str, Any]] = []
    for split, clip in entries:
        for values, separator in ((clip.labels, ";"), (clip.captions, "|")):
            if invalid := [value for value in values if separator in value]:
                raise DataError(f"{path}: “{invalid[0]}” of {clip.path} contains the separator “{separator}”.")
        row: dict[str, Any] = {"path": clip.path, "split": split, "recording_id": clip.recording}
        row |= {"labels": list(clip.labels), "caption": list(clip.captions), "frame": clip.frame}
        row |= {"start": round(clip.start, 6), "seconds": round(clip.seconds, 6)}
        rows.append(row | {"licence": clip.licence, "source": clip.source})
    try:
        with replace_when_complete(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            if path.suffix == JSON_LINES:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            else:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                for row in rows:
                    row |= {"labels": ";".join(row["labels"]), "caption": "|".join(row["caption"])}
                    row |= {name: f"{row[name]:.6f}".rstrip("0").rstrip(".") for name in ("start", "seconds")}
                    writer.writerow(row)
    except OSError as error:
        raise DataError(f"{path}: the manifest cannot be written ({reason(error)}).") from None


# Splits that share no recording


def leaks(entries: Iterable[Entry]) -> dict[str, set[str]]:
    """Recordings (and files) that occur in more than one split, with these splits; unknown ones are skipped."""
    seen: dict[str, set[str]] = {}
    for split, clip in entries:
        for name in {clip.recording, clip.path}:
            if "?" not in name:
                seen.setdefault(name, set()).add(split)
    return {name: splits for name, splits in seen.items() if len(splits) > 1}


def refuse_leaks(path: Path, entries: Iterable[Entry]) -> None:
    """Raise DataError if a recording or a file occurs in two splits; `path` is the manifest that the message names."""
    if found := leaks(entries):
        name, splits = min(found.items())
        others = f", and {len(found) - 1} more are" if len(found) > 1 else ""
        raise DataError(f"{path}: the recording {name} is in {' and '.join(sorted(splits))}{others}.")


def absolute_entries(entries: Iterable[Entry], root: Path) -> Iterator[Entry]:
    """Entries with absolute paths, so that files of several manifests can be compared; `root` is where paths start."""
    for split, clip in entries:
        path = os.path.abspath(root / clip.path)
        recording = path if clip.recording == clip.path else clip.recording  # the file stands for an unnamed recording
        yield split, replace(clip, path=path, recording=recording)


def relocate(clip: Clip, root: Path, folder: Path) -> Clip:
    """The clip with paths relative to `folder` if that contains `root`, else absolute."""

    def place(path: str) -> str:
        if not path:
            return path
        absolute, base = Path(os.path.abspath(root / path)), Path(os.path.abspath(folder))
        return (absolute.relative_to(base) if absolute.is_relative_to(base) else absolute).as_posix()

    return replace(clip, path=place(clip.path), frame=place(clip.frame))


def resolve_leaks(entries: Iterable[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Keep each recording (and each file) in one split only: test before validation before train.

    Clips are dropped rather than moved, so that a published test split stays as it is.

    Returns:
        the entries that are kept, and those that are dropped.
    """
    entries = list(entries)
    ranks = {split: STRICTNESS.get(split, len(STRICTNESS)) for split, _ in entries}
    strictest = {name: min(ranks[split] for split in splits) for name, splits in leaks(entries).items()}
    kept: list[Entry] = []
    dropped: list[Entry] = []
    for split, clip in entries:
        leaking = any(ranks[split] > strictest.get(name, ranks[split]) for name in (clip.recording, clip.path))
        (dropped if leaking else kept).append((split, clip))
    return kept, dropped


def hold_out(entries: Iterable[Entry], share: float) -> list[Entry]:
    """Make about `share` of the train recordings (0 to 1) the validation split.

    The choice depends on the recording's id alone, so it is the same in every manifest that contains the recording.
    """
    divided = []
    for split, clip in entries:
        number = int.from_bytes(hashlib.sha256(clip.recording.encode()).digest()[:4], "big")
        held_out = split == "train" and "?" not in clip.recording and number / 2**32 < share
        divided.append(("validation" if held_out else split, clip))
    return divided


# Which recording a file was cut from: clips of one recording are not independent, so intervals resample recordings


def recording_ids(clips: Iterable[Clip]) -> dict[str, str]:
    """Map paths to recording ids. Unknown recordings and files that hold parts of several recordings are left out."""
    found: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        found[str(PurePosixPath(clip.path))].add(clip.recording)
    return {path: next(iter(ids)) for path, ids in found.items() if len(ids) == 1 and "?" not in next(iter(ids))}


def read_recording_ids(manifest: Path) -> dict[str, str]:
    """`recording_ids` of all splits; empty if the manifest cannot be read: every file then counts as a recording."""
    try:
        return recording_ids(clip for _, clip in read_entries(manifest))
    except DataError:
        return {}


def add_recording_ids(
    rows: Iterable[dict[str, str]], ids: Mapping[str, str], folders: Iterable[str] = ("",)
) -> list[dict[str, str]]:
    """Add the `recording` of the target to the rows of a list of mixtures where it is known.

    Args:
        rows: of the list.
        ids: path to recording id.
        folders: that the rows' paths may lie in, relative to where the paths of `ids` start.
    """
    folders, completed = tuple(folders), []
    for row in rows:
        paths = (str(PurePosixPath(folder, row["target"])) for folder in folders)
        recording = row.get("recording") or next((ids[path] for path in paths if path in ids), "")
        completed.append(row | {"recording": recording} if recording else row)
    return completed
