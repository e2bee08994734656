"""MUSIC: YouTube videos of people who play one of eleven instruments, alone or in pairs.

Layout: github.com/roudimit/MUSIC_dataset. `MUSIC_solo_videos.json` and `MUSIC_duet_videos.json` are
`{"videos": {"acoustic_guitar": [ids], "acoustic_guitar violin": [ids]}}`. Files are called by the video's id and lie
anywhere below the folder. No split is published; where a list `MUSIC_solo_test.csv` lies in the folder (CLIPSep's:
audio, frames, number of frames, instrument), its videos are the test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separation.data.manifest import Clip, DataError, Entry
from separation.datasets.base import Preparer, cells, parsed, words
from separation.datasets.lookup import Lookup

LISTS = ("MUSIC_solo_videos.json", "MUSIC_duet_videos.json")
TEST = "MUSIC_solo_test.csv"


def clips(root: Path) -> Iterator[Entry]:
    """The videos of the lists that are there."""
    files, held_out = Lookup(root), test_videos(root)
    for name in LISTS:
        if not (root / name).exists():
            continue
        content = parsed(root / name)
        if not isinstance(content, dict) or not isinstance(content.get("videos"), dict):
            raise DataError(f"{root / name}: it has no “videos” by instrument.")
        for instruments, videos in content["videos"].items():
            labels = tuple(words(label) for label in instruments.split())
            for video in videos:
                split, path = "test" if video in held_out else "train", files.find(video)
                film, recording = files.film(video), f"youtube:{video}"
                yield split, Clip(path, "", "", recording, "music", 0.0, frame=film, labels=labels)


def test_videos(root: Path) -> set[str]:
    """Ids of the published test list, where it lies in the folder."""
    if not (root / TEST).exists():
        return set()
    return {Path(row[0]).stem for _, row in cells(root / TEST) if row}


PREPARER = Preparer(
    name="music",
    title="MUSIC",
    home="https://github.com/roudimit/MUSIC_dataset",
    get="Download MUSIC_solo_videos.json (and MUSIC_duet_videos.json); fetch the videos yourself, named by their id.",
    licence="the videos belong to their makers",
    splits=f"none published: all train, but for the videos of a {TEST} in the folder",
    needs=("MUSIC_solo_videos.json",),
    clips=clips,
    complete=False,
)
