"""WavCaps: 403,000 captioned clips from four places, captions rewritten by a language model.

Layout: huggingface.co/datasets/cvssp/WavCaps. `json_files/<source>/*.json` (`{"data": [{"id", "caption", "duration",
...}]}`; SoundBible's on GitHub is the bare list) and audio as flac in a folder `<source>` or `<source>_flac` anywhere
below. `json_files/blacklist` names clips that stand in the test sets of AudioCaps, Clotho, ESC-50, UrbanSound8K and
VGGSound: they are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from separation.data.manifest import Clip, DataError, Entry
from separation.datasets.base import Preparer, parsed, plain
from separation.datasets.lookup import Lookup

LISTS = {
    "AudioSet_SL": "as_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "FreeSound": "fsd_final.json",
    "SoundBible": "sb_final.json",
}
RECORDINGS = {
    "AudioSet_SL": "youtube",
    "BBC_Sound_Effects": "bbc",
    "FreeSound": "freesound",
    "SoundBible": "soundbible",
}
BLACKLISTED = {"AudioSet_SL": "AudioSet", "FreeSound": "FreeSound"}


def clips(root: Path) -> Iterator[Entry]:
    """The clips of the sources that are there."""
    banned = blacklist(root)
    for source, name in LISTS.items():
        path = root / "json_files" / source / name
        if not path.exists():
            continue
        files = Lookup(root, source)
        for row in listed(path):
            stem = str(row["id"]).removesuffix(".wav")
            if (source, stem) not in banned:
                yield "train", clip(source, stem, row, files)


def listed(path: Path) -> list[dict[str, Any]]:
    """A source's clips.

    Raises:
        DataError: the file is not such a list.
    """
    content = parsed(path)
    found = content.get("data") if isinstance(content, dict) else content
    if not isinstance(found, list) or not all({"id", "caption", "duration"} <= set(row) for row in found):
        raise DataError(f"{path}: it is no list of clips with id, caption and duration.")
    return found


def clip(source: str, stem: str, row: dict[str, Any], files: Lookup) -> Clip:
    """One clip of a list."""
    # AudioSet's are called Y<video>.wav.
    original = stem[1:] if source == "AudioSet_SL" else stem
    found = files.find(stem)
    path = found if stem in files.audio else f"{source}/{stem}.flac"
    recording = f"{RECORDINGS[source]}:{original}"
    return Clip(path, "", plain(str(row["caption"])), recording, "wavcaps", 0.0)


def blacklist(root: Path) -> set[tuple[str, str]]:
    """(source, id) of all clips on the published blacklists that are in the folder."""
    banned = set()
    for path in sorted((root / "json_files" / "blacklist").glob("*.json")):
        content = parsed(path)
        for source, key in BLACKLISTED.items():
            banned |= {(source, str(each).removesuffix(".wav")) for each in content.get(key, [])}
    return banned


PREPARER = Preparer(
    name="wavcaps",
    title="WavCaps",
    home="https://huggingface.co/datasets/cvssp/WavCaps",
    get="Download json_files/ and the archives of Zip_files/ that you want, and unpack those into the same folder.",
    licence="academic use only; each source has its own terms",
    splits="none published: all train, less what its blacklists name",
    needs=("json_files/*/*_final.json",),
    clips=clips,
    complete=False,
)
