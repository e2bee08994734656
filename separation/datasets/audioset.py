"""AudioSet: lists of 10 s of YouTube videos with several of 527 classes each; everybody fetches the audio on their own.

Layout: research.google.com/audioset/download.html. Three lists, each with three header lines that begin with `#`; the
third names the columns. Lists of mirrors with an ordinary header are read too. Audio files are anywhere below the
folder, named by the id of the video, optionally with a Y in front or the start appended.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from separation.data.manifest import Clip, Entry
from separation.datasets.base import FileIndex, Preparer, read_cells, youtube_stems
from separation.errors import DataError
from separation.ontology import classes

HEADER = ["YTID", "start_seconds", "end_seconds", "positive_labels"]
LISTS = {
    "balanced": ("balanced_train_segments.csv", "train"),
    "eval": ("eval_segments.csv", "test"),
    "unbalanced": ("unbalanced_train_segments.csv", "train"),
}
COUNTS = {"balanced": {"train": 22160}, "eval": {"test": 20371}, "unbalanced": {}}


def read_segments(path: Path) -> Iterator[tuple[str, float, float, list[str]]]:
    """Yield the rows of a list as (video, start, end, class ids).

    Raises:
        DataError: the columns are not named, or a row is not a video with start, end and class ids.
    """
    named = False
    for number, row in read_cells(path, skipinitialspace=True):
        if not row or [cell.lstrip("# ") for cell in row] == HEADER:
            named |= bool(row)
            continue
        if row[0].startswith("#"):
            continue
        if not named:
            raise DataError(f"{path}: no line before row {number} names the columns {', '.join(HEADER)}.")
        try:
            start, end, mids = float(row[1]), float(row[2]), row[3].split(",")
        except (IndexError, ValueError):
            raise DataError(f"{path}, row {number}: not a segment.") from None
        if not 0 <= start <= end < math.inf:
            raise DataError(f"{path}, row {number}: {start:g} to {end:g} s is not a segment.")
        yield row[0], start, end, mids


def clips(root: Path, parts: tuple[str, ...]) -> Iterator[Entry]:
    """Yield the clips of one or several lists."""
    files = FileIndex(root)
    names = {each.mid: each.name.lower() for each in classes()}
    for part in parts:
        name, split = LISTS[part]
        for video, start, end, mids in read_segments(root / name):
            labels = tuple(names.get(mid, mid) for mid in mids)
            stems, recording = youtube_stems(video, start), f"youtube:{video}"
            path, frame = files.find(*stems), files.find_video(*stems)
            yield split, Clip(path, "", "", recording, "audioset", end - start, frame=frame, labels=labels)


def make_preparer(name: str, what: str, *parts: str) -> Preparer:
    """Make the preparer of one or several lists."""
    counts: dict[str, int] = {}
    for part in parts:
        counts |= COUNTS[part]
    lists = tuple(LISTS[part][0] for part in parts)
    return Preparer(
        name=f"audioset-{name}",
        title=f"AudioSet, {what}",
        home="https://research.google.com/audioset/download.html",
        get=f"Download {', '.join(lists)} into a folder; fetch the 10 s of each video yourself, named by its id.",
        licence="lists CC BY 4.0; the videos belong to their makers",
        splits="balanced and unbalanced train lists train, eval list test; no validation",
        needs=lists,
        clips=partial(clips, parts=parts),
        complete=False,
        counts=counts if "unbalanced" not in parts else {},
    )


PREPARERS = (
    make_preparer("balanced", "balanced train", "balanced"),
    make_preparer("eval", "evaluation", "eval"),
    make_preparer("unbalanced", "unbalanced train", "unbalanced"),
    make_preparer("full", "everything", "balanced", "unbalanced", "eval"),
)
