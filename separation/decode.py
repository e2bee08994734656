"""Decoders: libsndfile for what it knows, an ffmpeg process for the rest.

A decoder opens nothing for longer than `chunks` runs, can be run any number of times, and yields
float32 arrays of shape (time, channels). What it found odd on the way stands in `warning`
afterwards.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from separation.formats import FFMPEG_SUFFIXES, READABLE, AudioError
from separation.pending import reason

if TYPE_CHECKING:
    import numpy as np

CHUNK = 16_384
UNKNOWN_FRAMES = 2**62

PROMISE = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


class Decoder(Protocol):
    """What `Reader` needs of a decoder."""

    sample_rate: int
    channels: int
    frames: int | None
    container: str | None
    subtype: str | None
    warning: str | None

    def chunks(self) -> Iterator[np.ndarray]:
        """All samples from the start, in arrays (time, channels) of at most CHUNK frames."""


def open_decoder(path: Path) -> Decoder:
    """The decoder that reads `path`.

    Raises:
        AudioError: for a file that is missing, empty, unreadable or not audio, or needs ffmpeg
            where there is none.
    """
    head = _head(path)
    try:
        return SoundFileDecoder(path, head)
    except _NotForSoundFile as error:
        if _zero_channels(head):
            raise AudioError(f"{path} has zero channels, so there is no audio in it.") from None
        ffmpeg = shutil.which("ffmpeg")
        if ffmpeg is None:
            raise AudioError(_without_ffmpeg(path, str(error))) from None
        return FfmpegDecoder(path, ffmpeg)


def _head(path: Path) -> bytes:
    """The file's first bytes, read only to find plain reasons why it cannot be used."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        raise AudioError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise AudioError(f"{path} is a folder, not an audio file.") from None
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {reason(error)}.") from None
    if not head:
        raise AudioError(f"{path} is empty: it has 0 bytes.")
    return head


def _zero_channels(head: bytes) -> bool:
    found = head.find(b"fmt ")
    return head[:4] in (b"RIFF", b"RF64") and found > 0 and head[found + 10 : found + 12] == b"\0\0"


def _without_ffmpeg(path: Path, detail: str) -> str:
    suffix = path.suffix.lower().lstrip(".")
    if suffix in READABLE:
        return f"{path} is damaged or not audio: it cannot be read as {path.suffix} ({detail})."
    if suffix in FFMPEG_SUFFIXES:
        return f"{path} cannot be read: {path.suffix} needs ffmpeg, and there is none on the PATH."
    return f"{path} is no audio that can be read without ffmpeg, and there is none on the PATH."


class _NotForSoundFile(Exception):
    """libsndfile does not read this file; the text is its reason."""


@functools.cache
def _sequential_file() -> Any:
    """A SoundFile that is read from start to end without seeking.

    soundfile seeks after every read to where it already is, and the mp3 and opus decoders start
    anew there: some 1,600 samples after each seam come out wrong.
    """
    import soundfile

    class SequentialFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
        def seekable(self) -> bool:
            return False

    return SequentialFile


@contextlib.contextmanager
def _mpg123_silenced(enabled: bool) -> Iterator[None]:
    """Keeps the mp3 decoder, which writes to the process's standard error, from doing so."""
    try:
        kept = os.dup(2) if enabled else None
    except OSError:
        kept = None
    if kept is None:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class SoundFileDecoder:
    """Reads through libsndfile."""

    def __init__(self, path: Path, head: bytes) -> None:
        import soundfile

        self.path = path
        self.warning: str | None = None
        self._mpeg = head[:3] == b"ID3" or head[:1] == b"\xff" or path.suffix.lower() == ".mp3"
        try:
            with self._open() as file:
                self.sample_rate: int = file.samplerate
                self.channels: int = file.channels
                self.frames: int | None = file.frames if file.frames < UNKNOWN_FRAMES else None
                self.container: str | None = file.format
                self.subtype: str | None = file.subtype
                self._cut_short = self._is_cut_short(file.extra_info)
        except (soundfile.LibsndfileError, TypeError) as error:
            # A TypeError means headerless data (.raw): nothing says what rate it has.
            raise _NotForSoundFile(str(getattr(error, "error_string", "it has no header")).rstrip(".")) from None

    def _open(self) -> Any:
        path = str(self.path) if sys.platform == "win32" else os.fsencode(self.path)
        with _mpg123_silenced(self._mpeg):
            return _sequential_file()(path)

    def _is_cut_short(self, log: str) -> bool:
        """Whether libsndfile's log of the header shows that audio is missing at the end."""
        for promised, present in PROMISE.findall(log):
            # A program that writes into a pipe cannot know the size: it puts the largest number.
            placeholder = int(promised) % 2**31 > 2**31 - 2**16
            if int(promised) > int(present) and not placeholder:
                return True
        return "lacks an end-of-stream" in log

    def chunks(self) -> Iterator[np.ndarray]:
        """All samples from the start, in arrays (time, channels)."""
        import soundfile

        got = 0
        damaged = False
        with self._open() as file:
            while True:
                try:
                    with _mpg123_silenced(self._mpeg):
                        chunk = file.read(CHUNK, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    if got == 0:
                        detail = str(error.error_string).rstrip(".")
                        raise AudioError(f"{self.path} is damaged and cannot be decoded ({detail}).") from None
                    damaged = True
                    break
                if not len(chunk):
                    break
                got += len(chunk)
                yield chunk
        if damaged or self._cut_short or (self.frames is not None and got < self.frames):
            self.warning = self._warning(got)

    def _warning(self, got: int) -> str:
        there = f"{got / self.sample_rate:.3f} s"
        if self.frames is not None and got < self.frames:
            there += f" of {self.frames / self.sample_rate:.3f} s"
        return f"{self.path} is cut short or damaged: only the first {there} can be read and are used."


class FfmpegDecoder:
    """Reads through an ffmpeg process that writes float32 samples into a pipe."""

    container: str | None = None
    subtype: str | None = None
    frames: int | None = None

    def __init__(self, path: Path, ffmpeg: str) -> None:
        self.path = path
        self.warning: str | None = None
        self._ffmpeg = ffmpeg
        with tempfile.TemporaryFile() as log:
            process = self._start(log)
            try:
                assert process.stdout is not None
                header = _read_wav_header(process.stdout)
            finally:
                _end(process)
            if header is None:
                raise AudioError(f"{path} holds no audio that can be read (ffmpeg: {self._complaint(log)}).")
        self.sample_rate, self.channels = header
        if not self.channels:
            raise AudioError(f"{path} has zero channels, so there is no audio in it.")

    def _complaint(self, log: IO[bytes]) -> str:
        return _first_line(log).removeprefix(f"file:{self.path}: ")

    def _start(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """ffmpeg, writing a wav stream; "file:" keeps a name such as "http:x" or "-i" from meaning
        anything else.
        """
        command = [
            self._ffmpeg,
            "-nostdin",
            "-hide_banner",
            "-v",
            "error",
            "-protocol_whitelist",
            "file",
        ]
        command += [
            "-i",
            f"file:{self.path}",
            "-map",
            "0:a:0",
            "-c:a",
            "pcm_f32le",
            "-bitexact",
            "-f",
            "wav",
            "pipe:1",
        ]
        try:
            # A session of its own: Ctrl-C must reach us, who end it, and not make the file look cut
            # short.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            raise AudioError(f"{self.path} needs ffmpeg, which cannot be started: {reason(error)}.") from None

    def chunks(self) -> Iterator[np.ndarray]:
        """All samples from the start, in arrays (time, channels)."""
        import numpy as np

        width = 4 * self.channels
        got = 0
        with tempfile.TemporaryFile() as log:
            process = self._start(log)
            try:
                assert process.stdout is not None
                if _read_wav_header(process.stdout) != (self.sample_rate, self.channels):
                    raise AudioError(f"{self.path} changed while it was being read.")
                while data := process.stdout.read(CHUNK * width):
                    frames = len(data) // width
                    got += frames
                    samples = np.frombuffer(data, "<f4", frames * self.channels).astype(np.float32)
                    yield samples.reshape(frames, self.channels)
                status = process.wait()
            finally:
                _end(process)
            complaint = _first_line(log)
        if status and not got:
            raise AudioError(f"{self.path} cannot be decoded (ffmpeg: {complaint}).")
        if status or complaint != NO_COMPLAINT:
            there = f"the {got / self.sample_rate:.3f} s that can be read are used"
            self.warning = f"{self.path} is cut short or damaged (ffmpeg: {complaint}); {there}."


NO_COMPLAINT = "it gave no reason"


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    if process.stdout is not None:
        process.stdout.close()
    process.wait()


def _first_line(log: IO[bytes]) -> str:
    """What ffmpeg complained about first, fit for one line; the rest are consequences."""
    log.seek(0)
    lines = log.read(4000).decode(errors="replace").splitlines()
    texts = (" ".join(re.sub(r"^(\[[^\]]*\] ?)+", "", line).split()) for line in lines)
    return next((text.rstrip(".")[:200] for text in texts if text), NO_COMPLAINT)


def _read_wav_header(stream: IO[bytes]) -> tuple[int, int] | None:
    """(sample_rate, channels) of a wav stream, left at its first sample; None when it is none."""
    if stream.read(12)[8:] != b"WAVE":
        return None
    found = None
    while len(head := stream.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"data":
            return found
        body = stream.read(size + size % 2)
        if name == b"fmt " and len(body) >= 16:
            _, channels, sample_rate = struct.unpack("<HHI", body[:8])
            found = (sample_rate, channels)
    return None
