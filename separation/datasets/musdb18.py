"""MUSDB18 and MUSDB18-HQ: 150 songs with their stems drums, bass, other and vocals.

Layout: sigsep.github.io/datasets/musdb.html. HQ: `train/<song>/<stem>.wav` and `test/...`. The other has one
`train/<song>.stem.mp4` a song, its audio streams in the order mixture, drums, bass, other, vocals; they are
extracted once, into folders like those of HQ (the protocol `uss/musdb18` reads the mixture there). The 14 validation
songs are those of the `musdb` package (github.com/sigsep/sigsep-mus-db, musdb/configs/mus.yaml).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from separation.audio import AudioError, Reader, Writer
from separation.data.manifest import Clip, Entry
from separation.datasets.base import clean_text, preparer
from separation.errors import DataError

STEMS = ("drums", "bass", "other", "vocals")
STREAMS = ("mixture", *STEMS)  # of a container, in this order
VALIDATION = (
    "Actions - One Minute Smile", "Clara Berry And Wooldog - Waltz For My Victims", "Johnny Lokke - Promises & Lies",
    "Patrick Talbot - A Reason To Leave", "Triviul - Angelsaint", "Alexander Ross - Goodbye Bolero",
    "Fergessen - Nos Palpitants", "Leaf - Summerghost", "Skelpolu - Human Mistakes", "Young Griffo - Pennies",
    "ANiMAL - Rockshow", "James May - On The Line", "Meaxic - Take A Step", "Traffic Experiment - Sirens",
)  # fmt: skip
CONTAINER = ".stem.mp4"


def clips(root: Path) -> Iterator[Entry]:
    """Yield the four stems of every song."""
    for part in ("train", "test"):
        for folder in sorted(path for path in (root / part).iterdir() if path.is_dir() and path.name[0] != "."):
            split = "validation" if part == "train" and folder.name in VALIDATION else part
            recording = f"musdb18:{clean_text(folder.name)}"
            for stem in STEMS:
                yield split, Clip(f"{part}/{folder.name}/{stem}.wav", stem, "", recording, "musdb18", 0.0)


def extract_stems(root: Path) -> None:
    """Write the mixture and stems of every container into the folder beside it; raise DataError if one is unreadable.

    A folder appears when it is complete; one of an earlier version, which has no mixture, is completed.
    """
    folders = {path: path.with_name(path.name.removesuffix(CONTAINER)) for path in sorted(root.glob(f"*/*{CONTAINER}"))}
    waiting = [path for path, folder in folders.items() if not (folder / "mixture.wav").is_file()]
    for number, path in enumerate(waiting, 1):
        print(f"extracting the stems of {path.name} ({number} of {len(waiting)})")
        partial = path.with_name(f".{folders[path].name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            for stream, name in enumerate(STREAMS):
                reader = Reader(path, stream=stream)
                with Writer(partial / f"{name}.wav", reader.sample_rate, reader.channels, subtype="PCM_16") as writer:
                    for block in reader.blocks():
                        writer.write(block)
        except AudioError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise DataError(f"{path}: cannot extract its stems: {error}") from None
        if folders[path].is_dir():
            (partial / "mixture.wav").replace(folders[path] / "mixture.wav")
            shutil.rmtree(partial)
        else:
            partial.rename(folders[path])


COMMON: dict[str, Any] = {
    "home": "https://sigsep.github.io/datasets/musdb.html",
    "licence": "non-commercial, academic; mostly CC BY-NC-SA (see the page)",
    "splits": "its own train and test; validation as in the musdb package",
    "counts": {"train": 344, "validation": 56, "test": 200},
}
preparer(
    name="musdb18-hq",
    title="MUSDB18-HQ",
    get="Ask for it at zenodo.org/records/3338373 and unpack musdb18hq.zip.",
    needs=("train/*/vocals.wav", "test/*/vocals.wav"),
    **COMMON,
)(clips)
preparer(
    name="musdb18",
    title="MUSDB18",
    get="Ask for it at zenodo.org/records/1117372 and unpack musdb18.zip; the extracted stems need another 32 GB.",
    needs=("train/*", "test/*"),
    before=extract_stems,
    **COMMON,
)(clips)
