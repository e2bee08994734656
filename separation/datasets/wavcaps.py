"""WavCaps: 403,000 captioned clips from four sources, captions rewritten by a language model.

Layout: huggingface.co/datasets/cvssp/WavCaps. `json_files/<source>/*.json` (`{"data": [{"id", "caption", "duration",
...}]}`; SoundBible's on GitHub is the bare list) and audio as flac in a folder `<source>` or `<source>_flac` anywhere
below. `json_files/blacklist` names clips that are in the test sets of AudioCaps, Clotho, ESC-50, UrbanSound8K
and VGGSound: they are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separation.data.lists import read_json
from separation.data.manifest import Clip, Entry
from separation.datasets.base import FileIndex, clean_text, preparer
from separation.errors import DataError

SOURCES = {
    "AudioSet_SL": ("as_final.json", "youtube"),
    "BBC_Sound_Effects": ("bbc_final.json", "bbc"),
    "FreeSound": ("fsd_final.json", "freesound"),
    "SoundBible": ("sb_final.json", "soundbible"),
}
BLACKLISTED = {"AudioSet_SL": "AudioSet", "FreeSound": "FreeSound"}


@preparer(
    name="wavcaps",
    title="WavCaps",
    home="https://huggingface.co/datasets/cvssp/WavCaps",
    get="Download json_files/ and the archives of Zip_files/ that you want, and unpack those into the same folder.",
    licence="academic use only; each source has its own terms",
    splits="none published: all train, less what its blacklists name",
    needs=("json_files/*/*_final.json",),
    complete=False,
)
def clips(root: Path) -> Iterator[Entry]:
    """Yield the clips of the sources that exist, without the blacklisted ones."""
    banned = set()
    for path in sorted((root / "json_files" / "blacklist").glob("*.json")):
        content = read_json(path)
        for source, key in BLACKLISTED.items():
            names = content.get(key, []) if isinstance(content, dict) else None
            if not isinstance(names, list):
                raise DataError(f"{path}: not an object with a list of names for each source.")
            banned |= {(source, str(each).removesuffix(".wav")) for each in names}
    for source, (name, site) in SOURCES.items():
        path = root / "json_files" / source / name
        if not path.exists():
            continue
        content = read_json(path)  # SoundBible's list may be bare
        rows = content.get("data") if isinstance(content, dict) else content
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and {"id", "caption", "duration"} <= set(row) for row in rows
        ):
            raise DataError(f"{path}: not a list of clips with id, caption and duration.")
        files = FileIndex(root, source)
        for row in rows:
            stem = str(row["id"]).removesuffix(".wav")
            if (source, stem) in banned:
                continue
            file = files.find(stem) if stem in files.audio else f"{source}/{stem}.flac"
            original = stem[1:] if source == "AudioSet_SL" else stem  # AudioSet's are named Y<video>.wav
            recording = f"{site}:{original}"
            yield "train", Clip(file, "", clean_text(str(row["caption"])), recording, "wavcaps", 0.0)
