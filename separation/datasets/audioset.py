"""AudioSet: lists of 10 s of YouTube videos with several of 527 classes each; the audio is fetched by everybody alone.

Layout: research.google.com/audioset/download.html. Three lists, each with three header lines that begin with `#`; the
third names the columns. Mirrors that have a plain header line instead are read too. Audio files lie anywhere below the
folder and are called by the video's id, with or without a Y in front or the start behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from separation.data.manifest import Clip, DataError, Entry
from separation.datasets.base import Preparer, cells
from separation.datasets.lookup import Lookup, youtube_stems
from separation.ontology import classes

HEADER = ["YTID", "start_seconds", "end_seconds", "positive_labels"]
LISTS = {
    "balanced": ("balanced_train_segments.csv", "train"),
    "eval": ("eval_segments.csv", "test"),
    "unbalanced": ("unbalanced_train_segments.csv", "train"),
}
COUNTS = {"balanced": {"train": 22160}, "eval": {"test": 20371}, "unbalanced": {}}


def segments(path: Path) -> Iterator[tuple[str, float, float, list[str]]]:
    """A list's rows as (video, start, end, class ids).

    Raises:
        DataError: the columns are not named, or a row is not like that.
    """
    named = False
    for number, row in cells(path, skipinitialspace=True):
        if not row or [cell.lstrip("# ") for cell in row] == HEADER:
            named |= bool(row)
        elif not row[0].startswith("#"):
            if not named:
                raise DataError(f"{path}: no line before row {number} names the columns {', '.join(HEADER)}.")
            yield segment(path, number, row)


def segment(path: Path, number: int, row: list[str]) -> tuple[str, float, float, list[str]]:
    """One row of a list.

    Raises:
        DataError: it is no video with a start, an end that is not before it, and class ids.
    """
    try:
        start, end, mids = float(row[1]), float(row[2]), row[3].split(",")
    except (IndexError, ValueError):
        raise DataError(f"{path}, row {number}: it is no segment.") from None
    if not 0 <= start <= end < math.inf:
        raise DataError(f"{path}, row {number}: {start:g} to {end:g} s is no segment.")
    return row[0], start, end, mids


def reader(*parts: str) -> Callable[[Path], Iterator[Entry]]:
    """The `clips` of one or several of the lists."""

    def clips(root: Path) -> Iterator[Entry]:
        files = Lookup(root)
        names = {each.mid: each.name.lower() for each in classes()}
        for part in parts:
            name, split = LISTS[part]
            for video, start, end, mids in segments(root / name):
                labels = tuple(names.get(mid, mid) for mid in mids)
                stems = youtube_stems(video, start)
                path, recording, length = files.find(*stems), f"youtube:{video}", end - start
                film = files.film(*stems)
                yield split, Clip(path, "", "", recording, "audioset", length, frame=film, labels=labels)

    return clips


def preparer(name: str, parts: tuple[str, ...], what: str) -> Preparer:
    """The preparer of one or several of the lists."""
    counts: dict[str, int] = {}
    for part in parts:
        counts |= COUNTS[part]
    lists = tuple(LISTS[part][0] for part in parts)
    return Preparer(
        name=name,
        title=f"AudioSet, {what}",
        home="https://research.google.com/audioset/download.html",
        get=f"Download {', '.join(lists)} into a folder; fetch the 10 s of each video yourself, named by its id.",
        licence="lists CC BY 4.0; the videos belong to their makers",
        splits="balanced and unbalanced train lists train, eval list test; no validation",
        needs=lists,
        clips=reader(*parts),
        complete=False,
        counts=counts if "unbalanced" not in parts else {},
    )


PREPARERS = (
    preparer("audioset-balanced", ("balanced",), "balanced train"),
    preparer("audioset-eval", ("eval",), "evaluation"),
    preparer("audioset-unbalanced", ("unbalanced",), "unbalanced train"),
    preparer("audioset-full", ("balanced", "unbalanced", "eval"), "everything"),
)
