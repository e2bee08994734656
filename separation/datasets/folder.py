"""A user's own clips: a folder with one subfolder for each sound, or a flat one with a list of files and labels."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePath

from separation.audio.formats import FFMPEG_SUFFIXES, READABLE
from separation.data.lists import read_table
from separation.data.manifest import Clip, Entry, relocate, write_manifest
from separation.datasets.base import clean_text, label_words, unique
from separation.errors import DataError

LIST = "labels.csv"  # in a flat folder
EVERY = 5  # one recording of so many of a label is held out
SPLITS = ("train", "validation", "test")
HOW = "one subfolder of clips for each sound, or a list labels.csv with the columns file and label"
SUFFIXES = {*READABLE, *FFMPEG_SUFFIXES}
# The same recording: "street part 2", "street_part02", "street-chunk3", "street_10.0-15.0", "street (2)".
PART = re.compile(r"[\s._-]*(?:(?:part|chunk|segment|slice|cut)[\s._-]*\d+|\d+\.\d+-\d+\.\d+|\(\d+\))$", re.I)


def recording_of(path: str) -> str:
    """Name of the recording that a file is a part of: its path, without what numbers the parts."""
    stem = path.rpartition(".")[0]
    return PART.sub("", stem) or stem


def check_label(text: str, where: str) -> str:
    """Return a label as it is asked for; raise DataError if it cannot be one."""
    label = label_words(text)
    if not re.search(r"[^\W_]", label) or re.search("[;|]", text):
        raise DataError(f"{where}: “{text}” cannot be the name of a sound: it needs a letter or digit, and no ; or |.")
    return label


def list_folders(root: Path) -> Iterator[Entry]:
    """Yield the clips of subfolders, whose names are the labels; hidden ones are left out."""
    for folder in sorted(path for path in root.glob("[!.]*") if path.is_dir()):
        label = check_label(folder.name, str(folder))
        for path in sorted(folder.rglob("[!.]*")):
            place = path.relative_to(root)
            hidden = any(part.startswith(".") for part in place.parts)
            if path.suffix.lower().lstrip(".") in SUFFIXES and not hidden and path.is_file():
                yield "", Clip(place.as_posix(), label, label, recording_of(place.as_posix()), "own", 0.0)


def list_rows(root: Path, table: Path) -> Iterator[Entry]:
    """Yield the clips of a list. Raises DataError, which names the row, if a file is not in the folder."""
    for number, row in read_table(table, ("file", "label")):
        where, file, split = f"{table}, row {number}", row["file"].strip(), (row.get("split") or "").strip()
        if not file or not row["label"].strip():
            raise DataError(f"{where}: the {'label' if file else 'file'} is empty.")
        label = check_label(row["label"], where)
        if PurePath(file).is_absolute() or not (root / file).resolve().is_relative_to(root.resolve()):
            raise DataError(f"{where}: {file} is not in the folder {root}.")
        if not (root / file).is_file():
            raise DataError(f"{where}: {root / file}: there is no such file.")
        if split and split not in SPLITS:
            raise DataError(f"{where}: the split is {split}, not one of {', '.join(SPLITS)}.")
        path = PurePath(os.path.normpath(file)).as_posix()
        yield split, Clip(path, label, clean_text(row.get("caption") or "") or label, recording_of(path), "own", 0.0)


def assign_splits(entries: list[Entry]) -> list[Entry]:
    """Hold out every fifth recording of each label for validation, at least one of two; given splits stay.

    All clips of a recording, whatever their labels, have the split of the first one.
    """
    splits = {clip.recording: split for split, clip in reversed(entries) if split}
    labels: dict[str, list[str]] = defaultdict(list)
    for _, clip in entries:
        labels[clip.label].append(clip.recording)
    for _, found in sorted(labels.items()):
        recordings = unique(found)
        held_out = {*recordings[EVERY - 1 :: EVERY]} or {*recordings[1:][-1:]}
        given = any(splits.get(name, "train") != "train" for name in recordings)
        for name in recordings:
            splits.setdefault(name, "validation" if name in held_out and not given else "train")
    return [(splits[clip.recording], clip) for _, clip in entries]


def prepare_folder(root: Path, output: Path, table: Path | None = None, report: Callable[[str], None] = print) -> None:
    """Write the manifest `output` of a folder of own clips; `report` receives what the user should know, line by line.

    `table` lists the files of a flat folder; by default it is `labels.csv` in the folder, if that is there. Raises
    DataError if there is no clip, or the list is not valid.
    """
    from separation.data.corpus import read_part  # imports torch

    if not root.is_dir():
        raise DataError(f"{root}: no such folder.")
    if table is None and (root / LIST).is_file():
        table = root / LIST
    listed = [*(list_folders(root) if table is None else list_rows(root, table))]
    if not listed:
        where = f"{table}: the list has no rows" if table else f"{root}: no clips in subfolders"
        raise DataError(f"{where}; a folder of own sounds has {HOW}.")
    if output.resolve() in {path.resolve() for path in (*(root / clip.path for _, clip in listed), table or root)}:
        raise DataError(f"{output} is one of the files that the manifest is made from: name another file with -o.")
    sound: dict[str, Entry] = {}
    broken: list[str] = []
    for split, clip in listed:
        if clip.path in sound:  # listed again, with another label
            earlier, first = sound[clip.path]
            if split and earlier and split != earlier:
                raise DataError(f"{table}: {clip.path} is listed with the splits {earlier} and {split}.")
            labels, captions = unique(first.labels + clip.labels), unique(first.captions + clip.captions)
            sound[clip.path] = (earlier or split, replace(first, labels=labels, captions=captions))
            continue
        try:
            samples, rate = read_part(root / clip.path)
            sound[clip.path] = (split, replace(clip, seconds=round(len(samples) / rate, 6)))
        except DataError as error:
            broken.append(str(error))
            report(f"left out: {broken[-1]}")
    if not sound:
        raise DataError(f"{root}: none of its {len(listed)} clips can be read; the first: {broken[0]}")
    entries = assign_splits([*sound.values()])
    write_manifest(output, [(split, relocate(clip, root, output.parent)) for split, clip in entries])
    report(f"{'sound':<28}{'clips':>7}{'held out':>10}{'seconds':>9}")
    for label in sorted({clip.label for _, clip in entries}):
        own = [(split, clip) for split, clip in entries if clip.label == label]
        held_out = sum(split != "train" for split, _ in own)
        report(f"{label:<28}{len(own):>7}{held_out:>10}{sum(clip.seconds for _, clip in own):>9.1f}")
        if held_out == len(own):
            report(f"{label}: no clip is left to train on, because its recordings are those of another sound.")
    report(f"{len(entries)} clips, {len(broken)} left out because they cannot be read")
