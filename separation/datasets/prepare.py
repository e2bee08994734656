"""From the folder of a dataset to its manifest: checks of files and lengths, splits without leaks, a summary."""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path, PurePath

from separation.audio import AudioError, Reader
from separation.audio.formats import FFMPEG_SUFFIXES
from separation.data.manifest import Clip, Entry, hold_out, relocate, resolve_leaks, write_manifest
from separation.datasets.base import PREPARERS, Preparer
from separation.errors import DataError

BROKEN_LIMIT = 0.01
LONGER = 1.0  # s by which a file may exceed the length in its list; a much longer one is the uncut video
SPLITS = ("train", "validation", "test")


@cache
def preparers() -> dict[str, Preparer]:
    """Return the preparers by name, sorted: those of every file of this folder."""
    package = import_module(__name__.rpartition(".")[0])
    for each in pkgutil.iter_modules(package.__path__):
        import_module(f"{package.__name__}.{each.name}")
    return dict(sorted(PREPARERS.items()))


def find_preparer(name: str) -> Preparer:
    """Return a preparer by name; for an unknown one, DataError suggests the closest."""
    known = preparers()
    if name not in known:
        close = get_close_matches(name.lower(), known, 1, 0.5)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise DataError(f"Unknown dataset {name}.{hint} Choose from {', '.join(known)}.")
    return known[name]


def prepare(
    preparer: Preparer,
    root: Path,
    output: Path,
    validation: float = 0.0,
    report: Callable[[str], None] = print,
) -> list[Entry]:
    """Write the manifest of a dataset; return its (split, clip) pairs.

    Args:
        preparer: of the dataset.
        root: its folder.
        output: the manifest. Its paths are relative if its folder contains the dataset, else absolute.
        validation: share of the train recordings that become the validation split if the dataset has none.
        report: receives what the user should know, line by line.

    Raises DataError if the folder does not contain the dataset, or lacks more than 1 % of the files that come with it.
    """
    how = f"{preparer.get} Home page: {preparer.home}"
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. How to get {preparer.title}: {how}")
    if missing := [pattern for pattern in preparer.needs if not any(root.glob(pattern))]:
        raise DataError(f"{root}: this is not {preparer.title}, {', '.join(missing)} is missing. How to get it: {how}")
    preparer.before(root)

    def check(entry: Entry) -> Entry | str:
        path = PurePath(entry[1].path)
        if path.is_absolute() or ".." in path.parts:
            return f"{path}: the list names a file outside {root}."
        try:
            return entry[0], measure_clip(entry[1], root / entry[1].path, preparer.parts)
        except DataError as error:
            return str(error)

    try:
        listed = list(preparer.clips(root))  # errors of a list are raised before any file is opened
    except (AttributeError, IndexError, KeyError, TypeError, OverflowError) as error:
        why = f"{type(error).__name__}: {error}"
        raise DataError(f"{root}: its lists are not in the format of {preparer.title} ({why}).") from None
    with ThreadPoolExecutor() as pool:  # opening a video takes milliseconds, and there may be 200,000
        checked = list(pool.map(check, listed))
    report_unusable(preparer, root, len(checked), [each for each in checked if isinstance(each, str)], report)
    entries, dropped = resolve_leaks(each for each in checked if not isinstance(each, str))
    if dropped:
        recordings = sorted({clip.recording for _, clip in dropped})
        more = f" and {len(recordings) - 3} more" if len(recordings) > 3 else ""
        names = ", ".join(recordings[:3]) + more
        report(f"left out {len(dropped)} clips: their recording is in a stricter split too ({names}).")
    if not any(split == "validation" for split, _ in entries):
        if validation:
            entries = hold_out(entries, validation)
        else:
            report("there is no validation split; --validation 0.05 makes one of that share of the train recordings.")
    elif validation:
        report("the dataset has its own validation split; --validation was not needed.")
    write_manifest(output, [(split, relocate(clip, root, output.parent)) for split, clip in entries])
    for line in summary(preparer, entries):
        report(line)
    return entries


def measure_clip(clip: Clip, path: Path, part: bool = False) -> Clip:
    """Return the clip with the length of its file if it is the whole file; raise DataError if that is not usable.

    With `part`, the file may be longer or end within the clip.
    """
    try:
        size = path.stat().st_size
    except (OSError, ValueError):  # of a name that no file can have
        raise DataError(f"{path}: no such file.") from None
    if not size:
        raise DataError(f"{path}: the file is empty, 0 bytes.")
    container = path.suffix.lower().lstrip(".") in FFMPEG_SUFFIXES
    if container and not clip.seconds:  # their lengths are not exact: the decoder will tell
        return clip
    try:
        reader = Reader(path)
        seconds = None if reader.frames is None else reader.frames / reader.sample_rate
    except AudioError as error:
        raise DataError(str(error).replace(str(path), f"{path}: the file", 1)) from None
    if seconds is None:
        return clip
    if not seconds:
        raise DataError(f"{path}: the file holds no samples.")
    if part and seconds <= clip.start:
        raise DataError(f"{path}: {seconds:.1f} s long, the list means a part from {clip.start:.1f} s on.")
    if part:
        return replace(clip, seconds=round(min(clip.seconds, seconds - clip.start), 6))
    if clip.seconds and seconds > clip.seconds + LONGER:
        raise DataError(f"{path}: {seconds:.1f} s long, the list means {clip.seconds:.1f} s of it: cut it first.")
    if clip.start or (container and seconds > clip.seconds):
        return clip
    return replace(clip, seconds=round(seconds, 6))


def report_unusable(
    preparer: Preparer, root: Path, total: int, broken: list[str], report: Callable[[str], None]
) -> None:
    """Report files that cannot be used; raise DataError if they are too many."""
    if not total:
        raise DataError(f"{root}: the lists of {preparer.title} contain no clip.")
    if len(broken) == total or (preparer.complete and len(broken) > BROKEN_LIMIT * total):
        raise DataError(f"{len(broken)} of {total} files of {preparer.title} cannot be used; the first: {broken[0]}")
    for line in broken if preparer.complete else broken[:3]:
        report(f"left out: {line}")
    if not preparer.complete and len(broken) > 3:
        report(f"left out: {len(broken)} of {total} in all. {preparer.get}")


def summary(preparer: Preparer, entries: list[Entry]) -> list[str]:
    """Return a table of clips, recordings, hours and labels by split, and how many clips the whole release has."""
    lines = [f"{'split':<12}{'clips':>9}{'recordings':>12}{'hours':>9}{'labels':>8}"]
    counts = Counter(split for split, _ in entries)
    for split in sorted(counts, key=lambda name: SPLITS.index(name) if name in SPLITS else len(SPLITS)):
        clips = [clip for name, clip in entries if name == split]
        recordings, labels = len({clip.recording for clip in clips}), len({each for c in clips for each in c.labels})
        hours = sum(clip.seconds for clip in clips) / 3600
        lines.append(f"{split:<12}{len(clips):>9}{recordings:>12}{hours:>9.2f}{labels:>8}")
    # Splits of unknown size are not compared with the release. What --validation holds out belongs to the train split.
    known = set(preparer.counts) | ({"validation"} if "train" in preparer.counts else set())
    whole, here = sum(preparer.counts.values()), sum(count for split, count in counts.items() if split in known)
    which = "" if known >= set(counts) else f"{' and '.join(preparer.counts)} "
    return lines + ([f"the whole release has {whole} {which}clips, here are {here}."] if whole not in (0, here) else [])
