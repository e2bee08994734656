"""Exceptions that several parts of the package share, and what their sentences are made of."""

from __future__ import annotations

import errno
import os
from pathlib import Path

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EISDIR: "it is a folder",
    errno.EIO: "the disk reported an error",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.ELOOP: "it is a loop of links",
    errno.ENXIO: "it is a socket or device",
}

MAX_SENTENCE = 600  # characters of a message; a damaged file may hold names of any length


class ModelError(RuntimeError):
    """An unknown model name, or model files that are missing, damaged or not usable."""


class NotFiniteError(ModelError):
    """What a model computed for a recording contains NaN or infinity, so none of it is used."""

    def __init__(self, what: str) -> None:
        super().__init__(f"The {what} of the model contains NaN or infinity, so nothing of it is used.")


class AudioError(Exception):
    """Audio that cannot be read or written; the text names the file."""


class DataError(ValueError):
    """A dataset's files are missing or not valid; the text names the file."""


class Cancelled(Exception):
    """A callback has ended the work; nothing is written."""


def one_sentence(error: Exception | str) -> str:
    """Return an error's text in one line of at most 600 characters, with control characters and surrogates escaped."""
    text = " ".join(str(error).split())
    text = text if len(text) <= MAX_SENTENCE else f"{text[:MAX_SENTENCE]} ..."
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Return a path with a "~" at its start replaced by the home folder; unchanged if there is none."""
    return Path(os.path.expanduser(path))


def reason(error: OSError) -> str:
    """Return why a system call failed, worded for the end of a sentence."""
    return REASONS.get(error.errno or 0) or (error.strerror or str(error)).rstrip(".").lower()
