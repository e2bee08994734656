"""Which output files a separation has, and their names; `planning.py` writes them."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from separation.errors import AudioError, reason
from separation.outputs.origins import CURRENT, OTHER, UNKNOWN, Origin, OriginIndex, identity
from separation.process import make_folder, remove_empty

if TYPE_CHECKING:
    from separation.query import Query

NAME_BYTES = 255  # longest file name of the common file systems
SLUG_BYTES = 100
WITHOUT, REMIX, REST = "without", "remix", "rest"
"""Names of a recording without several sounds, of one in which levels were changed, and without all sounds found."""


@dataclass(frozen=True)
class Request:
    """One query and the files to write for it.

    Attributes:
        name: unique name, in file names and records.
        query: the sound to extract or change.
        target: whether the target is written.
        residual: whether the residual is written.
        gain: in dB, for a sound that is changed together with others and has no file of its own.
        rest: name of the residual's file; None: a name from the query.
    """

    name: str
    query: str | Query
    target: bool
    residual: bool
    gain: float | None = None
    rest: str | None = None


def blend_of(requests: Iterable[Request]) -> list[Request]:
    """Return the request for the file that requests with gains share: a remix, or the input without their sounds."""
    gains = [(request.name, request.gain) for request in requests if request.gain is not None]
    if any(gain > -math.inf for _, gain in gains):
        title = ", ".join(f"{name} {gain:+g} dB" for name, gain in gains)
        return [Request(REMIX, title, False, True, rest=REMIX)]
    title = f"without {', '.join(name for name, _ in gains)}"
    return [Request(WITHOUT, title, False, True, rest=WITHOUT)] if gains else []


def slug(query: str) -> str:
    """Convert a query to a part of a file name: lower case, letters and digits of any script, words joined by "_".

    A query without letters and digits becomes "query"; a long one is cut after a word.
    """
    text = unicodedata.normalize("NFC", query).lower()
    # Marks (M) are parts of letters in many scripts.
    words = "".join(char if unicodedata.category(char)[0] in "LMN" else " " for char in text).split()
    while len("_".join(words).encode()) > SLUG_BYTES and len(words) > 1:
        words.pop()
    return cut_name("_".join(words), SLUG_BYTES) or "query"


def cut_name(text: str, limit: int) -> str:
    """Return the longest prefix of `text` that takes at most `limit` bytes in a file name."""
    while len(os.fsencode(text)) > limit:
        text = text[:-1]
    return text


def output_name(stem: str, part: str, suffix: str, number: int = 1) -> str:
    """Return `stem.part.suffix`, or `stem.part.number.suffix` from number 2 on; a long stem is cut."""
    tail = f".{part}{suffix}" if number == 1 else f".{part}.{number}{suffix}"
    return cut_name(stem, NAME_BYTES - len(os.fsencode(tail))) + tail


def recording_stem(name: str, parts: Container[str]) -> str | None:
    """Return "mix" for a name such as mix.dog_barking.wav or mix.dog_barking.2.wav if "dog_barking" is in `parts`."""
    pieces = name.split(".")[:-1]
    if len(pieces) > 2 and pieces[-1].isdecimal():
        pieces.pop()
    return ".".join(pieces[:-1]) if len(pieces) > 1 and pieces[-1] in parts else None


class Namer:
    """Assigns unique output paths that are not inputs and hold no output of another recording.

    Args:
        inputs: files that are never overwritten.
        overwrite: whether other existing files may be.
        notice: called if a name needs a number.
        option: what messages call `overwrite`.
        skip: whether outputs that exist and are up to date are to be left alone.
        first: the smallest number of a name.
    """

    def __init__(
        self,
        inputs: Iterable[Path] = (),
        overwrite: bool = False,
        notice: Callable[[str], None] = lambda _: None,
        option: str = "--overwrite",
        skip: bool = False,
        first: int = 1,
    ) -> None:
        self.inputs, self.overwrite, self.notice = {identity(path) for path in inputs}, overwrite, notice
        self.option, self.skip, self.first, self.origins = option, skip, first, OriginIndex()
        self.assigned: dict[str, int] = {}
        self.created: list[Path] = []

    def claim(self, folder: Path, stem: str, part: str, suffix: str, origin: Origin | None = None) -> Path:
        """Return `folder/stem.part.suffix`, with a number if this run has assigned that path, or it has another origin.

        An output of another recording keeps its name also if it has been removed meanwhile.
        """
        number, why = self.first, ""
        path = first = folder / output_name(stem, part, suffix, number)
        while (used := identity(path) in self.assigned) or self.origins.compare(path, origin) == OTHER:
            why = why or ("is already the name of another output" if used else "was made from another recording")
            number = max(number, self.assigned.get(identity(path), number)) + 1
            path = folder / output_name(stem, part, suffix, number)
        self.assigned[identity(path)] = number
        if identity(first) in self.assigned:
            self.assigned[identity(first)] = number  # where the next search begins
        if why and not (self.skip and path.exists()):
            this = f"that of {origin.path}" if origin else "this one"
            self.notice(f"{first.name} {why}, so {this} is called {path.name}.")
        return path

    def check_destination(self, path: Path, origin: Origin | None = None) -> None:
        """Create the folder of an output; raise AudioError if the output is an input, exists or cannot be written."""
        if identity(path) in self.inputs:
            raise AudioError(f"{path} would be overwritten, but it is one of the inputs.")
        if os.path.exists(path) and not self.overwrite:
            why = self.origins.compare(path, origin)
            known = why if self.skip and why not in (CURRENT, UNKNOWN) else "already exists"
            raise AudioError(f"{path} {known}. Add {self.option} to replace it.")
        try:
            self.created += make_folder(path.parent)
        except OSError as error:
            raise AudioError(f"The folder {path.parent} cannot be created: {reason(error)}.") from None

    def remove_empty_folders(self) -> None:
        """Remove folders that `check_destination` has created, as far as they are empty."""
        remove_empty(self.created)
