"""Output names: mix.wav + "dog barking" -> mix.dog_barking.wav, and its residual
mix.not_dog_barking.wav.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

NAME_BYTES = 255
"""Longest file name that the common file systems take, in bytes."""

SLUG_BYTES = 100
NUMBER_BYTES = 12


def slug(query: str) -> str:
    """The query as a part of a file name: lower case, words joined by "_", letters and digits of
    any script kept.

    A query without a single letter or digit becomes "query"; a long one is cut at a word.
    """
    text = unicodedata.normalize("NFC", query).lower()
    words = "".join(char if _belongs(char) else " " for char in text).split()
    return _cut_words(words, SLUG_BYTES) or "query"


def _belongs(char: str) -> bool:
    # Marks (M*) are parts of letters in many scripts, and nothing in L, M, N is a separator or
    # control character.
    return unicodedata.category(char)[0] in "LMN"


def _cut_words(words: list[str], limit: int) -> str:
    joined = ""
    for word in words:
        longer = f"{joined}_{word}" if joined else word
        if len(longer.encode()) > limit:
            break
        joined = longer
    return joined or _cut("".join(words[:1]), limit)


def _cut(text: str, limit: int) -> str:
    """The longest beginning of `text` that takes at most `limit` bytes as a file name."""
    while len(os.fsencode(text)) > limit:
        text = text[:-1]
    return text


def output_name(stem: str, part: str, suffix: str, number: int = 1) -> str:
    """`stem.part.suffix`, with a number from the second on; a stem that is too long is cut."""
    tail = f".{part}{suffix}" if number == 1 else f".{part}.{number}{suffix}"
    return _cut(stem, NAME_BYTES - len(os.fsencode(tail))) + tail


class Namer:
    """Hands out output paths, no two alike and none that is an input.

    Args:
        inputs: files that must never be written to.
        notice: is told, in one sentence, when a number had to be appended.
    """

    def __init__(self, inputs: Iterable[Path], notice: Callable[[str], None] = lambda _: None) -> None:
        self._inputs = {_identity(path) for path in inputs}
        self._taken: set[str] = set()
        self._notice = notice

    def claim(self, folder: Path, stem: str, part: str, suffix: str) -> Path:
        """A path that this run has not used yet, `folder/stem.part.suffix` or with a number."""
        number = 1
        while self._is_taken(path := folder / output_name(stem, part, suffix, number)):
            number += 1
        self._taken.add(_identity(path))
        if number > 1:
            first = output_name(stem, part, suffix)
            self._notice(f"{first} is already the name of another output, so this one is called {path.name}.")
        return path

    def is_input(self, path: Path) -> bool:
        """Whether writing `path` would destroy one of the inputs."""
        return _identity(path) in self._inputs

    def _is_taken(self, path: Path) -> bool:
        return _identity(path) in self._taken


def _identity(path: Path) -> str:
    """Alike for two paths that are one file on some file system: links resolved, case and accents
    alike.
    """
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()


def looks_like_output(path: Path, parts: set[str]) -> bool:
    """Whether a file in a folder is an earlier result of these queries: mix.dog_barking.wav beside
    some mix.*.
    """
    pieces = path.name.split(".")[:-1]
    if len(pieces) > 2 and pieces[-1].isdecimal():
        pieces.pop()
    if len(pieces) < 2 or pieces[-1] not in parts:
        return False
    stem = ".".join(pieces[:-1])
    return any(other.stem == stem and other != path for other in path.parent.iterdir())
