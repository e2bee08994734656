"""Packed corpora: a manifest's clips decoded once into a folder that every training can be given as its manifest.

The folder holds `manifest.csv`; `samples.raw`, 16-bit samples of one clip after another; `index.json` with rate, and
start, length and peak of every clip; `wordings.json`; and the sentence vectors of all texts for the labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

from tqdm import tqdm

from separation.data.corpus import FOLEY, INDEX, SAMPLES, Corpus, decode_clips, foley_clips, report_broken
from separation.data.manifest import MANIFEST, Entry, read_entries, refuse_leaks, relocate, write_manifest
from separation.data.texts import WORDINGS, Texts, read_wordings
from separation.errors import DataError, reason
from separation.process import replace_folder
from separation.storage.download import write_json


def pack(
    manifest: Path,
    out: Path,
    root: Path | None = None,
    sample_rate: int = 32000,
    wordings: Path | Sequence[Path] = (),
    foley: int = 0,
    overwrite: bool = False,
    notice: Callable[[str], None] = print,
) -> Corpus:
    """Decode all splits of a manifest into the folder of a packed corpus; return its split train.

    Args:
        manifest: list of the clips.
        out: folder to write, which appears when it is complete.
        root: folder that the manifest's paths start from; by default the manifest's folder.
        sample_rate: Hz.
        wordings: JSON files with a list of wordings for each label, see `read_wordings`; by default the package's own.
        foley: number of procedural clips of each sound that are added to split train.
        overwrite: replace an existing packed corpus.
        notice: receives a line for each clip that is left out.

    Raises DataError if a file is not valid or cannot be written, a recording is in two splits, more than 1 % of the
    recordings cannot be read, or there are none to train on.
    """
    if sample_rate < 1 or foley < 0:
        raise DataError(f"The rate must be positive and foley not negative, not {sample_rate} Hz and {foley}.")
    entries, root = list(read_entries(manifest)), root or manifest.parent
    described = read_wordings(*([wordings] if isinstance(wordings, Path) else wordings))
    refuse_leaks(manifest, entries)
    if "train" not in {split for split, _ in entries}:
        raise DataError(f"{manifest}: the manifest has no rows with split train.")
    entries += [("train", clip) for clip in foley_clips(foley)]
    with folder_when_complete(out, overwrite, is_packed, "packed corpus") as partial:
        kept = write_samples(entries, root, partial, sample_rate, notice)
        located = ((split, clip if clip.source == FOLEY else relocate(clip, root, out)) for split, clip in kept)
        write_manifest(partial / MANIFEST, located)
        used = {label: described[label] for label in sorted({clip.label for _, clip in kept} & described.keys())}
        write_json(partial / WORDINGS, used)
        corpus = Corpus(partial, sample_rate=sample_rate)
        if corpus.labels != [""]:
            Texts(corpus, unions=True, store=True)
    return Corpus(out, sample_rate=sample_rate)


def is_packed(names: set[str]) -> bool:
    """Whether the files of a folder are those of a packed corpus."""
    files = {SAMPLES, INDEX, MANIFEST, WORDINGS}
    return INDEX in names and all(name in files or name.startswith("texts_") for name in names)


@contextmanager
def folder_when_complete(out: Path, overwrite: bool, ours: Callable[[set[str]], bool], what: str) -> Iterator[Path]:
    """Yield a temporary folder and rename it to `out` afterwards; after an error `out` is as it was.

    An empty folder may exist, or with `overwrite` one of the same kind (`what`), of whose names `ours` is true.
    Otherwise, or if the folder cannot be written, DataError is raised.
    """
    present = {path.name for path in out.iterdir()} if out.is_dir() else {""} if out.exists() else set()
    if present and not (overwrite and ours(present)):
        more = "Add --overwrite to replace it." if ours(present) else f"It holds other files than a {what}."
        raise DataError(f"{out} already exists. {more}")
    try:
        with replace_folder(out) as partial:
            yield partial
    except OSError as error:
        raise DataError(f"{out}: the {what} cannot be written ({reason(error)}).") from None


def write_samples(
    entries: Sequence[Entry], root: Path, folder: Path, sample_rate: int, notice: Callable[[str], None]
) -> list[Entry]:
    """Write samples and index of all clips that can be read; return these clips. Raises BrokenError as `pack`."""
    kept: list[Entry] = []
    broken: list[str] = []
    lengths, peaks = [], []
    clips = [clip for _, clip in entries]
    sounds = tqdm(decode_clips(clips, root, sample_rate, broken), "clips", len(clips), leave=False, disable=None)
    with (folder / SAMPLES).open("wb") as file:
        for number, samples, peak in sounds:
            file.write(samples.astype("<i2").tobytes())
            kept.append(entries[number])
            lengths.append(len(samples))
            peaks.append(peak)
    report_broken(broken, sum(clip.source != FOLEY for clip in clips), notice)
    *starts, written = accumulate(lengths, initial=0)
    index: dict[str, Any] = {"sample_rate": sample_rate, "clips": len(kept), "samples": written}
    index |= {"starts": starts, "lengths": lengths, "peaks": peaks}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return kept
