"""MUSDB18 and MUSDB18-HQ: 150 songs with their stems drums, bass, other and vocals.

Layout: sigsep.github.io/datasets/musdb.html. HQ: `train/<song>/<stem>.wav` and `test/...`. The other has one
`train/<song>.stem.mp4` a song, its audio streams in the order mixture, drums, bass, other, vocals; they are taken out
once, into the folders that HQ has (the protocol `uss/musdb18` reads the mixture there). The 14 validation
songs are those of the `musdb` package (github.com/sigsep/sigsep-mus-db, musdb/configs/mus.yaml).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from separation.audio import AudioError, Reader, Writer
from separation.data.manifest import Clip, DataError, Entry
from separation.datasets.base import Preparer, plain

STEMS = ("drums", "bass", "other", "vocals")
STREAMS = ("mixture", *STEMS)  # of a container, in this order
VALIDATION = frozenset(
    {
        "Actions - One Minute Smile",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Johnny Lokke - Promises & Lies",
        "Patrick Talbot - A Reason To Leave",
        "Triviul - Angelsaint",
        "Alexander Ross - Goodbye Bolero",
        "Fergessen - Nos Palpitants",
        "Leaf - Summerghost",
        "Skelpolu - Human Mistakes",
        "Young Griffo - Pennies",
        "ANiMAL - Rockshow",
        "James May - On The Line",
        "Meaxic - Take A Step",
        "Traffic Experiment - Sirens",
    }
)
CONTAINER = ".stem.mp4"


def clips(root: Path) -> Iterator[Entry]:
    """The four stems of every song."""
    for part in ("train", "test"):
        for folder in sorted(path for path in (root / part).iterdir() if path.is_dir() and path.name[0] != "."):
            split = "validation" if part == "train" and folder.name in VALIDATION else part
            recording = f"musdb18:{plain(folder.name)}"
            for stem in STEMS:
                yield split, Clip(f"{part}/{folder.name}/{stem}.wav", stem, "", recording, "musdb18", 0.0)


def take_stems_out(root: Path) -> None:
    """Writes the mixture and stems of every container that has no such folder beside it yet.

    A folder appears only when it is complete; one of an earlier version, which has no mixture, is completed.

    Raises:
        DataError: a container cannot be read.
    """
    containers = sorted(root.glob(f"*/*{CONTAINER}"))
    waiting = [path for path in containers if not (folder_of(path) / "mixture.wav").is_file()]
    for number, path in enumerate(waiting, 1):
        print(f"taking the stems out of {path.name} ({number} of {len(waiting)})")
        take_out(path)


def folder_of(container: Path) -> Path:
    """Where a container's streams are written."""
    return container.with_name(container.name.removesuffix(CONTAINER))


def take_out(path: Path) -> None:
    """Writes one container's mixture and stems into the folder beside it."""
    folder = folder_of(path)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for number, name in enumerate(STREAMS):
            reader = Reader(path, stream=number)
            with Writer(partial / f"{name}.wav", reader.sample_rate, reader.channels, subtype="PCM_16") as writer:
                for block in reader.blocks():
                    writer.write(block)
    except AudioError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DataError(f"{path}: its stems cannot be extracted: {error}") from None
    if folder.is_dir():
        (partial / "mixture.wav").replace(folder / "mixture.wav")
        shutil.rmtree(partial)
    else:
        partial.rename(folder)


LICENCE = "non-commercial, academic; mostly CC BY-NC-SA (see the page)"
PREPARERS = (
    Preparer(
        name="musdb18",
        title="MUSDB18",
        home="https://sigsep.github.io/datasets/musdb.html",
        get="Ask for it at zenodo.org/records/1117372 and unpack musdb18.zip; what is taken out needs another 32 GB.",
        licence=LICENCE,
        splits="its own train and test; validation as in the musdb package",
        needs=("train/*", "test/*"),
        clips=clips,
        counts={"train": 344, "validation": 56, "test": 200},
        before=take_stems_out,
    ),
    Preparer(
        name="musdb18-hq",
        title="MUSDB18-HQ",
        home="https://sigsep.github.io/datasets/musdb.html",
        get="Ask for it at zenodo.org/records/3338373 and unpack musdb18hq.zip.",
        licence=LICENCE,
        splits="its own train and test; validation as in the musdb package",
        needs=("train/*/vocals.wav", "test/*/vocals.wav"),
        clips=clips,
        counts={"train": 344, "validation": 56, "test": 200},
    ),
)
