"""What the page takes, stated before and refused politely."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from separation.audio import Reader

LISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"<smil", b"[playlist]", b"v=0", b"RTSPtext", b"file ")
"""How files begin that name other files: ffmpeg would open those."""


class Refusal(Exception):
    """The page does not do this; the text is one sentence for the person in front of it."""


@dataclass(frozen=True)
class Limits:
    """How much one person may ask for.

    Attributes:
        minutes: longest recording.
        megabytes: largest upload.
        sounds: most queries on one recording.
        letters: longest query.
        channels: most channels.
        rates: lowest and highest sample rate, Hz.
        active: recordings that are worked on at once, in turns.
        waiting: recordings that may wait for their turn.
        keep_minutes: how long files are kept when nobody uses them.
        example_minutes: longest example recording.
        hear_minutes: how much of a recording is listened to for suggestions.
    """

    minutes: float = 10.0
    megabytes: int = 200
    sounds: int = 8
    letters: int = 200
    channels: int = 8
    rates: tuple[int, int] = (1_000, 384_000)
    active: int = 4
    waiting: int = 16
    keep_minutes: float = 60.0
    example_minutes: float = 1.0
    hear_minutes: float = 3.0

    @property
    def too_long(self) -> str:
        """The refusal of a recording that is too long."""
        return f"This recording is too long: this page takes up to {self.minutes:g} minutes. Please cut it first."

    @property
    def too_large(self) -> str:
        """The refusal of a file that is too large."""
        return f"This file is too large: this page takes up to {self.megabytes} MB."

    def check(self, reader: Reader) -> None:
        """Looks at a recording's header.

        Raises:
            Refusal: it is outside the limits.
        """
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

    def frames(self, sample_rate: int) -> int:
        """Most samples a channel."""
        return int(self.minutes * 60 * sample_rate)


def queries_of(asked: str | list[str], limits: Limits) -> list[str]:
    """The queries in what a person typed: parted at commas and line ends, each once.

    Raises:
        Refusal: there is none, or there are too many, or one is too long.
    """
    queries = split(asked, limits)
    if not queries:
        raise Refusal("Say what to take out, for example: dog barking.")
    return queries


def split(asked: str | list[str], limits: Limits) -> list[str]:
    """As `queries_of`, but there may be none."""
    texts = [asked] if isinstance(asked, str) else asked
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refusal("Queries are texts: one, or a list of them.")
    words = [" ".join(part.split()) for text in texts for part in re.split(r"[,;\n\r]", text)]
    found = {word.casefold(): word for word in reversed(words) if word}
    queries = list(reversed(found.values()))
    if len(queries) > limits.sounds:
        raise Refusal(f"These are {len(queries)} sounds; this page takes up to {limits.sounds} at once.")
    if any(len(query) > limits.letters for query in queries):
        raise Refusal(f"A description is longer than {limits.letters} letters; a few words are enough.")
    return queries


def refuse_lists(path: Path) -> None:
    """Raises Refusal for a file that only names other files."""
    with open(path, "rb") as file:
        head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.lower().startswith(tuple(start.lower() for start in LISTS)):
        raise Refusal("This is a list of files, not a recording.")


def refuse_full_disk(folder: Path, wanted: int) -> None:
    """Raises Refusal when `wanted` bytes would not leave a tenth of what is free."""
    if wanted > 0.9 * shutil.disk_usage(folder).free:
        raise Refusal("There is not enough free disk space for this just now. A shorter recording may fit.")
