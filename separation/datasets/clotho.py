"""Clotho 2.1: 5,929 Freesound clips of 15 to 30 s with five captions each.

Layout: zenodo.org/records/4783391. `clotho_captions_*.csv` and `clotho_metadata_*.csv` beside the unpacked folders
`development`, `validation` and `evaluation`. The metadata are ISO-8859-1, the captions UTF-8; file names may begin
with a space. A clip without a Freesound number ("Not found") counts as a recording of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separation.data.lists import read_table
from separation.data.manifest import Clip, Entry
from separation.datasets.base import clean_text, preparer, unique

CAPTIONS = ("file_name", "caption_1", "caption_2", "caption_3", "caption_4", "caption_5")
METADATA = ("file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license")
SPLITS = {"development": "train", "validation": "validation", "evaluation": "test"}


@preparer(
    name="clotho",
    title="Clotho 2.1",
    home="https://zenodo.org/records/4783391",
    get="Download the six csv files and the three clotho_audio_*.7z and unpack them into one folder.",
    licence="captions: Tampere University, non-commercial; each clip its own Creative Commons licence",
    splits="its own: development, validation, evaluation",
    needs=tuple(f"clotho_{what}_{part}.csv" for part in SPLITS for what in ("captions", "metadata")) + tuple(SPLITS),
    counts={"train": 3839, "validation": 1045, "test": 1045},
)
def clips(root: Path) -> Iterator[Entry]:
    """Yield every captioned clip."""
    for part, split in SPLITS.items():
        metadata = read_table(root / f"clotho_metadata_{part}.csv", METADATA, "iso-8859-1")
        known = {row["file_name"].encode("iso-8859-1"): row for _, row in metadata}
        for _, row in read_table(root / f"clotho_captions_{part}.csv", CAPTIONS):
            name = row["file_name"]
            about = known.get(name.encode("iso-8859-1", "ignore")) or known.get(name.encode()) or {}
            sound = about.get("sound_id", "").strip()
            recording = f"freesound:{sound}" if sound.isdigit() else f"clotho:{name}"
            captions = unique(clean_text(row[column]) for column in CAPTIONS[1:])
            licence = about.get("license", "")
            yield split, Clip(f"{part}/{name}", "", "", recording, "clotho", 0.0, licence, captions=captions)
