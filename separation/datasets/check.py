"""Reads every clip of a manifest and tells what is broken, before a training finds out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from separation.data.corpus import READ_ERRORS, describe_error, read_part
from separation.data.manifest import Entry, leaks, read_entries


@dataclass
class Checked:
    """How many clips were read, what is wrong with the others, and which recordings are in two splits."""

    read: int = 0
    broken: list[str] = field(default_factory=list)
    leaking: dict[str, set[str]] = field(default_factory=dict)


def check(manifest: Path, root: Path | None = None) -> Checked:
    """Decodes every clip of a manifest.

    Raises:
        DataError: the manifest itself cannot be read.
    """
    root = root or manifest.parent
    entries = list(read_entries(manifest))
    checked = Checked(leaking=leaks(entries))
    for problem in problems(entries, root):
        if problem is None:
            checked.read += 1
        else:
            checked.broken.append(problem)
    return checked


def problems(entries: list[Entry], root: Path) -> Iterator[str | None]:
    """What is wrong with each clip, None where nothing is."""
    for _, clip in entries:
        try:
            read_part(root / clip.path, clip.start, clip.seconds)
        except READ_ERRORS as error:
            yield describe_error(root / clip.path, error)
        else:
            yield None
