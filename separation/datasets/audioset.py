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

from separation.data.lists import read_cells
from separation.data.manifest import Entry
from separation.datasets.base import FileIndex, preparer, youtube_stems
from separation.errors import DataError
from separation.vocabulary.ontology import classes

HEADER = ["YTID", "start_seconds", "end_seconds", "positive_labels"]
BALANCED, UNBALANCED = "balanced_train_segments.csv", "unbalanced_train_segments.csv"
EVAL = "eval_segments.csv"


def read_segments(path: Path) -> Iterator[tuple[str, float, float, list[str]]]:
    """Yield the rows of a list as (video, start, end, class ids); raise DataError if it is not such a list."""
    named = False
    for number, row in read_cells(path, skipinitialspace=True):
        if [cell.lstrip("# ") for cell in row] == HEADER:
            named = True
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


def clips(root: Path, lists: tuple[str, ...]) -> Iterator[Entry]:
    """Yield the clips of one or several lists."""
    files = FileIndex(root)
    names = {each.mid: each.name.lower() for each in classes()}
    for name in lists:
        for video, start, end, mids in read_segments(root / name):
            labels = tuple(names.get(mid, mid) for mid in mids)
            clip = files.make_clip(video, "audioset", end - start, youtube_stems(video, start), labels=labels)
            yield "test" if name == EVAL else "train", clip


for part, what, lists, counts in (
    ("balanced", "balanced train", (BALANCED,), {"train": 22160}),
    ("eval", "evaluation", (EVAL,), {"test": 20371}),
    ("unbalanced", "unbalanced train", (UNBALANCED,), {}),
    ("full", "everything", (BALANCED, UNBALANCED, EVAL), {}),
):
    preparer(
        name=f"audioset-{part}",
        title=f"AudioSet, {what}",
        home="https://research.google.com/audioset/download.html",
        get=f"Download {', '.join(lists)} into a folder; fetch the 10 s of each video yourself, named by its id.",
        licence="lists CC BY 4.0; the videos belong to their makers",
        splits="balanced and unbalanced train lists train, eval list test; no validation",
        needs=lists,
        complete=False,
        counts=counts,
    )(partial(clips, lists=lists))
