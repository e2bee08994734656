"""AudioCaps: captions for 10 s of AudioSet videos, one for each train clip and five for the others.

Layout: github.com/cdjkim/audiocaps, `dataset/train.csv`, `val.csv` and `test.csv`. Audio files are anywhere below the
folder, named by the number of the caption, or by the id of the video with or without its start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from separation.data.lists import read_table
from separation.data.manifest import Entry
from separation.datasets.base import FileIndex, clean_text, preparer, unique, youtube_stems
from separation.errors import DataError

COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
SPLITS = {"train.csv": "train", "val.csv": "validation", "test.csv": "test"}


@preparer(
    name="audiocaps",
    title="AudioCaps",
    home="https://github.com/cdjkim/audiocaps",
    get="Download train.csv, val.csv and test.csv from its folder dataset/; fetch the 10 s of each video yourself.",
    licence="captions MIT; the videos belong to their makers",
    splits="its own",
    needs=("**/train.csv", "**/val.csv", "**/test.csv"),
    complete=False,
    counts={"train": 49838, "validation": 495, "test": 975},
)
def clips(root: Path) -> Iterator[Entry]:
    """Yield one clip a video, with all of its captions."""
    files = FileIndex(root)
    folder = root if (root / "train.csv").exists() else root / "dataset"
    for name, split in SPLITS.items():
        videos: dict[tuple[str, float], list[dict[str, str]]] = {}
        for number, row in read_table(folder / name, COLUMNS):
            try:
                start = float(row["start_time"])
            except ValueError:
                start = math.nan
            if not 0 <= start < math.inf:
                raise DataError(f"{folder / name}, row {number}: start_time “{row['start_time']}” is not a time.")
            videos.setdefault((row["youtube_id"], start), []).append(row)
        for (video, start), captioned in videos.items():
            stems = (*youtube_stems(video, start), *(row["audiocap_id"] for row in captioned))
            captions = unique(clean_text(row["caption"]) for row in captioned)
            yield split, files.make_clip(video, "audiocaps", 10.0, stems, captions=captions)
