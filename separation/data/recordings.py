"""Which recording each file was cut from: its clips are not independent, so intervals resample recordings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from separation.data.fixed_mixtures import Row
from separation.data.manifest import Clip, DataError, read_entries

MANIFEST = "manifest.csv"


def recordings_of(manifest: Path) -> dict[str, str]:
    """Path to recording id, of all splits; without those whose recording is unknown.

    Returns:
        Nothing where there is no such manifest, or it cannot be read: every file then counts as a recording.
    """
    try:
        return known_of(clip for _, clip in read_entries(manifest))
    except DataError:
        return {}


def known_of(clips: Iterable[Clip]) -> dict[str, str]:
    """Path to recording id of the clips whose recording is known; not of files that hold parts of several."""
    found: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        found[str(PurePosixPath(clip.path))].add(clip.recording)
    return {path: next(iter(ids)) for path, ids in found.items() if len(ids) == 1 and "?" not in next(iter(ids))}


def with_recordings(rows: Iterable[Row], known: Mapping[str, str], folders: Iterable[str] = ("",)) -> list[Row]:
    """The rows, each with the `recording` of its target where that is known.

    Args:
        rows: of a list.
        known: as `recordings_of` gives it.
        folders: in which the rows' paths may lie, from where the known paths start.
    """
    places = tuple(folders)

    def one(row: Row) -> Row:
        paths = (str(PurePosixPath(folder, row["target"])) for folder in places)
        found = next((known[path] for path in paths if path in known), "")
        return row | {"recording": found} if found and not row.get("recording") else row

    return [one(row) for row in rows]
