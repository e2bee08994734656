"""MUSIC: YouTube videos of solos and duets of eleven instruments.

Layout: github.com/roudimit/MUSIC_dataset. `MUSIC_solo_videos.json` and `MUSIC_duet_videos.json` are
`{"videos": {"acoustic_guitar": [ids], "acoustic_guitar violin": [ids]}}`. Files are named by the id of the
video, anywhere below the folder. No split is published; if the folder contains CLIPSep's list `MUSIC_solo_test.csv`
(audio, frames, number of frames, instrument), its videos are the test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separation.data.lists import read_cells, read_json
from separation.data.manifest import Entry
from separation.datasets.base import FileIndex, label_words, preparer
from separation.errors import DataError

LISTS = ("MUSIC_solo_videos.json", "MUSIC_duet_videos.json")
TEST = "MUSIC_solo_test.csv"


@preparer(
    name="music",
    title="MUSIC",
    home="https://github.com/roudimit/MUSIC_dataset",
    get="Download MUSIC_solo_videos.json (and MUSIC_duet_videos.json); fetch the videos yourself, named by their id.",
    licence="the videos belong to their makers",
    splits=f"none published: all train, but for the videos of a {TEST} in the folder",
    needs=("MUSIC_solo_videos.json",),
    complete=False,
)
def clips(root: Path) -> Iterator[Entry]:
    """Yield the videos of the lists that exist."""
    files, held_out = FileIndex(root), set()
    if (root / TEST).exists():
        held_out = {Path(row[0]).stem for _, row in read_cells(root / TEST)}
    for name in LISTS:
        if not (root / name).exists():
            continue
        content = read_json(root / name)
        if not isinstance(content, dict) or not isinstance(content.get("videos"), dict):
            raise DataError(f"{root / name}: no “videos” by instrument.")
        for instruments, videos in content["videos"].items():
            if not isinstance(videos, list) or not all(isinstance(video, str) for video in videos):
                raise DataError(f"{root / name}: the videos of {instruments} are not a list of ids.")
            labels = tuple(label_words(label) for label in instruments.split())
            for video in videos:
                split = "test" if video in held_out else "train"
                yield split, files.make_clip(video, "music", 0.0, [video], labels=labels)
