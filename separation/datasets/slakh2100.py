"""Slakh2100: songs rendered from MIDI files, each with its stems.

Layout: github.com/ethman/slakh-utils, www.slakh.com. `train/Track00001/metadata.yaml` and `stems/S00.flac`, likewise
in `validation` and `test`; `omitted` of the redux is not used. Several tracks come from one MIDI file, in the first
release even across splits: the UUID of that file is the recording. A stem that was not rendered has no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separation.data.manifest import Clip, Entry
from separation.datasets.base import label_words, preparer, unique
from separation.errors import DataError
from separation.storage.configs import read_yaml

SPLITS = ("train", "validation", "test")


@preparer(
    name="slakh2100",
    title="Slakh2100",
    home="http://www.slakh.com",
    get="Download slakh2100_flac_redux.tar.gz from zenodo.org/records/4599666 (105 GB) and unpack it.",
    licence="CC BY 4.0",
    splits="its own",
    needs=tuple(f"{split}/Track*/metadata.yaml" for split in SPLITS),
)
def clips(root: Path) -> Iterator[Entry]:
    """Yield the rendered stems of every track; the main label is the MIDI program, the second its family."""
    for path in (path for split in SPLITS for path in sorted((root / split).glob("Track*/metadata.yaml"))):
        about = read_yaml(path, DataError)
        stems = about.get("stems") if isinstance(about, dict) and about.get("UUID") else None
        if not isinstance(stems, dict) or not all(isinstance(each, dict) for each in stems.values()):
            raise DataError(f"{path}: no UUID or no stems.")
        split, track, recording = path.parts[-3], path.parts[-2], f"lakh:{about['UUID']}"
        for stem, details in sorted(stems.items(), key=str):
            if details.get("audio_rendered"):
                family = str(details.get("inst_class", "")).removesuffix("(continued)").strip()
                labels = unique((label_words(str(details.get("midi_program_name", ""))), label_words(family)))
                audio = f"{split}/{track}/{about.get('audio_dir', 'stems')}/{stem}.flac"
                yield split, Clip(audio, "", "", recording, "slakh2100", 0.0, "CC BY 4.0", labels=labels)
