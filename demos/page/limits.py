"""What the page accepts. Limits are shown on the page, and a request beyond them is refused with one sentence."""

from __future__ import annotations

import errno
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from separation.audio import AudioError, Reader

NO_SPACE = "There is not enough free disk space for this at the moment. A shorter recording may fit."


class Refusal(Exception):
    """The page does not do this; the text is one sentence for the user."""


@dataclass(frozen=True)
class Limits:
    """How much one user may ask for."""

    minutes: float = 10.0  # longest recording
    megabytes: int = 200  # largest upload
    sounds: int = 8  # most queries on one recording
    letters: int = 200  # longest query
    channels: int = 8
    rates: tuple[int, int] = (1_000, 384_000)  # lowest and highest sample rate, Hz
    active: int = 4  # recordings that are separated at the same time, in turns
    waiting: int = 16  # recordings that may wait for their turn
    keep_minutes: float = 60.0  # how long unused files are kept
    example_minutes: float = 1.0  # longest example recording
    listed_minutes: float = 3.0  # how much of a recording is searched for known sounds

    @property
    def too_long(self) -> str:
        """Message for a recording that is too long."""
        return f"This recording is too long: this page takes up to {self.minutes:g} minutes. Please cut it first."

    @property
    def too_large(self) -> str:
        """Message for a file that is too large."""
        return f"This file is too large: this page takes up to {self.megabytes} MB."

    def frames(self, sample_rate: int) -> int:
        """Most samples per channel."""
        return int(self.minutes * 60 * sample_rate)

    def open(self, path: Path) -> Reader:
        """Open a recording.

        Raises:
            Refusal: it is not a recording, or its header is outside the limits.
        """
        try:
            reader = Reader(path)
        except AudioError as error:
            raise Refusal(without_path(error, path)) from None
        low, high = self.rates
        if reader.channels > self.channels:
            raise Refusal(f"This recording has {reader.channels} channels; this page takes up to {self.channels}.")
        if not low <= reader.sample_rate <= high:
            raise Refusal(
                f"This recording's sample rate is {reader.sample_rate} Hz; "
                f"this page takes {low / 1000:g} to {high / 1000:g} kHz."
            )
        if reader.frames is not None and reader.frames > self.frames(reader.sample_rate):
            raise Refusal(self.too_long)
        return reader


def without_path(error: object, path: Path) -> str:
    """The message with "This file" instead of the server's path, and without the decoder's own words at its end."""
    return re.sub(r" \((?:ffmpeg: )?.*\)(?=\.$)", "", str(error), flags=re.DOTALL).replace(str(path), "This file")


def require_disk_space(folder: Path, size: int) -> None:
    """Raise OSError if `size` bytes would leave less than a tenth of the free disk space."""
    if size > 0.9 * shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, NO_SPACE)
