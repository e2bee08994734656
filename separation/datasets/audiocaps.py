"""AudioCaps: captions for 10 s of AudioSet videos, one for a train clip and five for others.

Layout: github.com/cdjkim/audiocaps, `dataset/train.csv`, `val.csv` and `test.csv`. Audio files lie anywhere below the
folder and are called by the caption's number, or by the video's id with or without its start.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separation.data.manifest import Clip, Entry
from separation.datasets.base import Preparer, first_folder, numbered, plain, seconds_of, unique
from separation.datasets.lookup import Lookup, youtube_stems

COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
SPLITS = {"train.csv": "train", "val.csv": "validation", "test.csv": "test"}


def clips(root: Path) -> Iterator[Entry]:
    """One clip a video, with all of its captions.

    Raises:
        DataError: a start is no time.
    """
    files = Lookup(root)
    folder = root if (root / "train.csv").exists() else first_folder(root, "dataset")
    for name, split in SPLITS.items():
        videos: dict[tuple[str, float], list[dict[str, str]]] = {}
        for number, row in numbered(folder / name, COLUMNS):
            begin = seconds_of(folder / name, number, "start_time", row["start_time"])
            videos.setdefault((row["youtube_id"], begin), []).append(row)
        for (video, start), captioned in videos.items():
            stems = (*youtube_stems(video, start), *(row["audiocap_id"] for row in captioned))
            captions = unique(plain(row["caption"]) for row in captioned)
            path, film = files.find(*stems), files.film(*stems)
            yield split, Clip(path, "", "", f"youtube:{video}", "audiocaps", 10.0, frame=film, captions=captions)


PREPARER = Preparer(
    name="audiocaps",
    title="AudioCaps",
    home="https://github.com/cdjkim/audiocaps",
    get="Download train.csv, val.csv and test.csv from its folder dataset/; fetch the 10 s of each video yourself.",
    licence="captions MIT; the videos belong to their makers",
    splits="its own",
    needs=("**/train.csv", "**/val.csv", "**/test.csv"),
    clips=clips,
    complete=False,
    counts={"train": 49838, "validation": 495, "test": 975},
)
