"""Files that appear only when they are complete.

A `PendingFile` is written under a hidden temporary name in the folder where it will stand and
renamed at the end. `commit` renames several of them together: all or none. An interrupt or a full
disk therefore leaves nothing behind, and a file that was there before stays as it was until its
successor is whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from separation.formats import AudioError

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
}


def reason(error: OSError) -> str:
    """What went wrong, in words for the end of a sentence."""
    known = REASONS.get(error.errno or 0)
    return known or (error.strerror or str(error)).rstrip(".").lower()


def create(path: Path) -> BinaryIO:
    """A new file, open for reading and writing; never one that exists. Follows the user's umask,
    unlike mkstemp.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "w+b")


class PendingFile:
    """A file on its way to `path`.

    Args:
        path: where it will stand.
        overwrite: whether a file that stands there may be replaced.

    Raises:
        AudioError: when `path` exists and may not be replaced, or its folder cannot be written to.
    """

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        self.path = Path(path)
        self.overwrite = overwrite
        self.check_free()
        self.temporary = self._sibling()
        with self.explained():
            self.file = create(self.temporary)

    def check_free(self) -> None:
        """Raises AudioError when something that may not be replaced stands at `path`."""
        if self.path.is_dir():
            raise AudioError(f"{self.path} cannot be written: it is a folder.")
        if not self.overwrite and os.path.lexists(self.path):
            raise AudioError(f"{self.path} exists already; --overwrite (overwrite=True) replaces it.")

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turns an OSError inside into an AudioError that names the file."""
        try:
            yield
        except FileNotFoundError:
            raise AudioError(f"{self.path} cannot be written: its folder does not exist.") from None
        except OSError as error:
            raise AudioError(f"{self.path} cannot be written: {reason(error)}.") from error

    def finish(self) -> None:
        """Makes sure that all bytes are on the disk, still under the temporary name."""
        with self.explained(), self.file:
            self.file.flush()
            os.fsync(self.file.fileno())

    def discard(self) -> None:
        """Removes the temporary file; does nothing after a commit."""
        with contextlib.suppress(OSError):
            self.file.close()
        with contextlib.suppress(OSError):
            self.temporary.unlink()

    def _sibling(self) -> Path:
        return self.path.with_name(f".separate-{secrets.token_hex(6)}.part")

    def _rename(self) -> Path | None:
        """Moves the finished file into its place; returns where the one that stood there went, if
        there was one.
        """
        self.check_free()
        previous = None
        if os.path.lexists(self.path):
            previous = self._sibling()
            self._keep(previous)
        try:
            os.replace(self.temporary, self.path)
        except BaseException:
            if previous is not None:
                os.replace(previous, self.path)
            raise
        return previous

    def _keep(self, previous: Path) -> None:
        """Gives the file that stands at `path` a second name, so that it is never without one; or moves it there."""
        try:
            os.link(self.path, previous, follow_symlinks=False)
        except (OSError, NotImplementedError):  # not every file system has hard links
            os.replace(self.path, previous)

    def _undo(self, previous: Path | None) -> None:
        with contextlib.suppress(OSError):
            if previous is None:
                self.path.unlink()
            else:
                os.replace(previous, self.path)

    def __enter__(self) -> PendingFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.finish()
                commit([self])
        finally:
            self.discard()


def commit(files: Sequence[PendingFile]) -> None:
    """Renames finished files into their places; when one fails the others are taken back.

    Raises:
        AudioError: naming the file that could not be put into its place.
    """
    done: list[tuple[PendingFile, Path | None]] = []
    try:
        for pending in files:
            with pending.explained():
                done.append((pending, pending._rename()))
    except BaseException:
        for pending, previous in reversed(done):
            pending._undo(previous)
        raise
    for _, previous in done:
        if previous is not None:
            with contextlib.suppress(OSError):
                previous.unlink()


class GuardedFile:
    """A binary file for libsndfile's callbacks: it keeps the error that a C library would swallow.

    An exception cannot cross libsndfile, so the first one is stored in `error` and raised again by
    `check`.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        """Bytes written; 0 after an error."""
        if self.error is not None:
            return 0
        try:
            return self.file.write(data)
        except BaseException as error:  # raised again by check()
            self.error = error
            return 0

    def read(self, size: int = -1) -> bytes:
        """As a file's; no encoder asks for it, but libsndfile wants it to be there."""
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's, but for a disk that fills while the buffer is written out."""
        try:
            return self.file.seek(offset, whence)
        except BaseException as error:  # raised again by check()
            self.error = self.error or error
            return -1

    def tell(self) -> int:
        """As a file's."""
        return self.file.tell()

    def check(self) -> None:
        """Raises what went wrong inside a callback."""
        if self.error is not None:
            raise self.error
