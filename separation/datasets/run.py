"""From a folder to a manifest: what is missing is said, what leaks between splits is resolved, then it is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from separation.audio import AudioError, Reader
from separation.audio.formats import FFMPEG_SUFFIXES
from separation.data.manifest import Clip, DataError, Entry, hold_out, without_leaks, write_manifest
from separation.datasets.base import Preparer

BROKEN_LIMIT = 0.01
LONGER = 1.0
"""Seconds by which a file may be longer than its list says; one that is much longer is the uncut video."""
SPLITS = ("train", "validation", "test")


@dataclass
class Found:
    """What a folder holds: the clips that are there, and what is wrong with the others."""

    entries: list[Entry] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def prepare(
    preparer: Preparer,
    root: Path,
    output: Path,
    validation: float = 0.0,
    say: Callable[[str], None] = print,
) -> list[Entry]:
    """Writes the manifest of a dataset that lies in a folder; returns what was written.

    Args:
        preparer: which dataset.
        root: its folder.
        output: the manifest; its paths start from its own folder when that holds the dataset, else they are absolute.
        validation: share of the train recordings that become validation, where the dataset has no such split.
        say: gets everything that a person should know, a line each.

    Raises:
        DataError: the folder is not such a dataset, or more than 1 % of the files that come with it are missing.
    """
    _check_layout(preparer, root)
    preparer.before(root)
    found = look(preparer.clips(root), root)
    _report_broken(preparer, root, found, say)
    resolved = without_leaks(found.entries)
    if resolved.dropped:
        names = ", ".join(resolved.recordings[:3])
        more = f" and {len(resolved.recordings) - 3} more" if len(resolved.recordings) > 3 else ""
        say(f"left out {len(resolved.dropped)} clips: their recording is in a stricter split too ({names}{more}).")
    entries = resolved.kept
    if not any(split == "validation" for split, _ in entries):
        if validation:
            entries = hold_out(entries, validation)
        else:
            say("there is no validation split; --validation 0.05 makes one of that share of the train recordings.")
    elif validation:
        say("the dataset has a validation split of its own; --validation was not needed.")
    write_manifest(output, [(split, moved(clip, root, output.parent)) for split, clip in entries])
    for line in summary(preparer, entries):
        say(line)
    return entries


def _check_layout(preparer: Preparer, root: Path) -> None:
    """Says how to get a dataset that is not there."""
    how = f"{preparer.get} Its home: {preparer.home}"
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder. How to get {preparer.title}: {how}")
    if missing := preparer.missing(root):
        raise DataError(f"{root}: this is not {preparer.title}, {', '.join(missing)} is missing. How to get it: {how}")


def look(entries: Iterable[Entry], root: Path) -> Found:
    """Looks for every clip's file and into its header; a length that is not known yet is taken from there."""

    def one(entry: Entry) -> Entry | str:
        split, clip = entry
        try:
            return split, measured(clip, root / clip.path)
        except DataError as error:
            return str(error)

    found, listed = Found(), list(entries)  # what is wrong with a list is said before any file is opened
    with ThreadPoolExecutor() as pool:  # opening a video takes some milliseconds, and there may be 200,000
        for each in pool.map(one, listed):
            if isinstance(each, str):
                found.broken.append(each)
            else:
                found.entries.append(each)
    return found


def measured(clip: Clip, path: Path) -> Clip:
    """The clip with the length that its file has, where it is the whole file.

    Raises:
        DataError: the file is missing, empty, has no header that can be read, or is much longer than the list says.
    """
    try:
        size = path.stat().st_size
    except OSError:
        raise DataError(f"{path}: there is no such file.") from None
    if not size:
        raise DataError(f"{path}: it is empty, 0 bytes.")
    seconds = container_seconds(path, bool(clip.seconds)) if in_container(path) else header_seconds(path)
    if seconds is None:
        return clip
    if clip.seconds and seconds > clip.seconds + LONGER:
        raise DataError(f"{path}: it is {seconds:.1f} s long, the list means {clip.seconds:.1f} s of it: cut it first.")
    if clip.start or (in_container(path) and seconds > clip.seconds):  # their headers are not exact
        return clip
    return replace(clip, seconds=round(seconds, 6))


def in_container(path: Path) -> bool:
    """Whether a file is a container that libsndfile does not read."""
    return path.suffix.lower().lstrip(".") in FFMPEG_SUFFIXES


def header_seconds(path: Path) -> float:
    """The length of a file that libsndfile reads.

    Raises:
        DataError: it is damaged, no audio, or holds no samples.
    """
    import soundfile

    try:
        seconds = float(soundfile.info(path).duration)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path}: it is damaged or no audio ({error.error_string.rstrip('.')}).") from None
    if not seconds:
        raise DataError(f"{path}: it holds no samples.")
    return seconds


def container_seconds(path: Path, wanted: bool = True) -> float | None:
    """Return the length of the sound in a video according to its header; None if unknown or not `wanted`.

    Raises:
        DataError: if the file cannot be opened or has no sound.
    """
    if not wanted:
        return None
    try:
        reader = Reader(path)
    except AudioError as error:
        raise DataError(str(error).replace(str(path), f"{path}:", 1)) from None
    return None if reader.frames is None else reader.frames / reader.sample_rate


def _report_broken(preparer: Preparer, root: Path, found: Found, say: Callable[[str], None]) -> None:
    total, broken = len(found.entries) + len(found.broken), len(found.broken)
    if not total:
        raise DataError(f"{root}: the lists of {preparer.title} name no clip.")
    if not found.entries or (preparer.complete and broken > BROKEN_LIMIT * total):
        raise DataError(f"{broken} of {total} files of {preparer.title} cannot be used; the first: {found.broken[0]}")
    for line in found.broken if preparer.complete else found.broken[:3]:
        say(f"left out: {line}")
    if not preparer.complete and broken > 3:
        say(f"left out: {broken} of {total} in all. {preparer.get}")


def moved(clip: Clip, root: Path, folder: Path) -> Clip:
    """The clip with paths from `folder` where that holds `root`, else absolute."""

    def place(path: str) -> str:
        if not path:
            return path
        absolute = Path(os.path.abspath(root / path))
        base = Path(os.path.abspath(folder))
        return (absolute.relative_to(base) if absolute.is_relative_to(base) else absolute).as_posix()

    return replace(clip, path=place(clip.path), frame=place(clip.frame))


def summary(preparer: Preparer, entries: list[Entry]) -> list[str]:
    """A table: clips, recordings, hours and labels of each split, and how many a whole release has."""
    lines = [f"{'split':<12}{'clips':>9}{'recordings':>12}{'hours':>9}{'labels':>8}"]
    counts = Counter(split for split, _ in entries)
    for split in sorted(counts, key=lambda name: SPLITS.index(name) if name in SPLITS else len(SPLITS)):
        clips = [clip for name, clip in entries if name == split]
        recordings, labels = len({clip.recording for clip in clips}), len({each for c in clips for each in c.labels})
        hours = sum(clip.seconds for clip in clips) / 3600
        lines.append(f"{split:<12}{len(clips):>9}{recordings:>12}{hours:>9.2f}{labels:>8}")
    return lines + against_release(preparer, counts)


def against_release(preparer: Preparer, counts: Counter[str]) -> list[str]:
    """A sentence where a folder holds more or less than the whole release, as far as its numbers are known.

    Args:
        preparer: which dataset; splits whose number it does not know are not compared.
        counts: clips of each split that are here.
    """
    # What --validation holds out is of the train split.
    known = set(preparer.counts) | ({"validation"} if "train" in preparer.counts else set())
    whole, here = sum(preparer.counts.values()), sum(count for split, count in counts.items() if split in known)
    which = "" if known >= set(counts) else f"{' and '.join(preparer.counts)} "
    return [f"the whole release has {whole} {which}clips, here are {here}."] if whole and whole != here else []
