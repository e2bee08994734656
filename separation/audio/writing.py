"""Writing audio files: each appears under its name only when it is complete.

A `PendingFile` is written under a hidden temporary name in the same folder and renamed at the end; `commit` renames
several of them together, all or none. An interrupt or a full disk leaves nothing behind, and an existing file stays as
it was until its replacement is complete.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from separation.audio.formats import SAMPLE_BYTES, Format, choose_compression, find_format, find_subtype, refusal
from separation.audio.layouts import MASKS, PLAIN_MASKS, VORBIS_ORDER
from separation.audio.waveform import as_rate, as_waveform
from separation.errors import AudioError, reason
from separation.process import remove, temporary_path, uninterrupted

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from separation.audio.carried import Carried

RF64_BYTES = 4_000_000_000  # the sizes in a RIFF header end at 4 GB; longer files become RF64
CHUNK = 16_384  # frames per call of libsndfile: libvorbis overflows the stack on long ones
CAF_TAGS = {name: name for name in ("title", "artist", "album", "date", "genre", "comment", "copyright")}
CAF_TAGS["track"] = "tracknumber"


class PendingFile:
    """A file under a temporary name in the folder of its destination.

    Args:
        path: the destination.
        overwrite: whether an existing file may be replaced.

    Attributes:
        temporary: where to write; the file exists and is empty. It follows the user's umask, unlike that of mkstemp.

    Raises:
        AudioError: if the destination exists and may not be replaced, or its folder is not writable.
    """

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        self.path = Path(path)
        self.overwrite = overwrite
        self.check_free()
        self.temporary = temporary_path(self.path)
        with self.explained(), open(self.temporary, "xb"):
            pass

    def check_free(self) -> None:
        """Raise AudioError if the destination is a folder, or a file that may not be replaced."""
        if self.path.is_dir():
            raise AudioError(f"{self.path} cannot be written: it is a folder.")
        if not self.overwrite and os.path.lexists(self.path):
            raise AudioError(f"{self.path} exists already; --overwrite (overwrite=True) replaces it.")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn an OSError into an AudioError that names the destination."""
        try:
            yield
        except FileNotFoundError:
            raise AudioError(f"{self.path} cannot be written: its folder does not exist.") from None
        except OSError as error:
            raise AudioError(f"{self.path} cannot be written: {reason(error)}.") from error

    def finish(self) -> None:
        """Make sure that all bytes are on the disk, still under the temporary name."""
        with self.explained(), open(self.temporary, "rb+") as file:
            os.fsync(file.fileno())

    def discard(self) -> None:
        """Remove the temporary file; does nothing after `commit`."""
        remove(self.temporary)

    def back_up(self) -> Path | None:
        """Give an existing file at the destination a second, hidden name, and return that; None if there is no file."""
        if not os.path.lexists(self.path):
            return None
        previous = temporary_path(self.path).with_suffix(".old")  # never removed by another process
        try:
            os.link(self.path, previous, follow_symlinks=False)
        except (OSError, NotImplementedError):  # not every file system has hard links
            os.replace(self.path, previous)
        return previous


def commit(files: Sequence[PendingFile]) -> None:
    """Move finished files to their destinations; signals wait. If one fails, undo the others and raise AudioError."""
    backups: list[tuple[PendingFile, Path | None]] = []
    with uninterrupted():
        try:
            for pending in files:
                with pending.explained():
                    pending.check_free()
                    backups.append((pending, pending.back_up()))
                    os.replace(pending.temporary, pending.path)
        except BaseException:
            for pending, previous in reversed(backups):
                with suppress(OSError):
                    if previous is not None:
                        os.replace(previous, pending.path)  # does nothing if both are still the same file
                        previous.unlink(missing_ok=True)
                    elif not pending.temporary.exists():
                        pending.path.unlink()
            raise
        for _, previous in backups:
            if previous is not None:
                with suppress(OSError):
                    previous.unlink()


class Writer:
    """Writes an audio file block by block; it appears when the `with` block ends without an error.

    Args:
        path: the destination.
        sample_rate: in Hz.
        channels: number of channels.
        format: "wav", "flac", "ogg", "opus", "mp3", "aiff", "caf" or "w64"; None: by the path's suffix.
        subtype: libsndfile's name of the sample type; None: the format's default (wav: FLOAT, flac: PCM_24).
        overwrite: whether an existing file may be replaced.
        frames: number of samples per channel if known; above 4 GB a wav file becomes RF64.
        channel_mask: the loudspeakers of the channels, as `Reader.channel_mask`; 0: the usual ones. Only wav and flac
            files hold unusual ones.
        clip: one of `formats.CLIPS`. None: scale down in formats that end at full scale, keep samples in others.
        bit_rate: of mp3, Vorbis and Opus in bits per second; None: one of high quality.
        carried: `Reader.carried` of the input, which is added to the file.
        title: added in brackets to the title in it.

    Attributes:
        peak: largest absolute sample so far.
        gain: factor on all samples of a format that ends at full scale, to be set before `finish`. None: 1, or just
            enough to stay within full scale (with a warning).
        limited: whether the format ends at full scale.
        spooled: whether samples are kept as float32 beside the destination until `finish`, when the factor is known.

    Raises:
        AudioError: if the format cannot hold the audio or the file cannot be written.
        ValueError: if the rate is not valid, see `as_rate`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        channels: int,
        format: str | Format | None = None,
        subtype: str | None = None,
        overwrite: bool = False,
        frames: int | None = None,
        channel_mask: int = 0,
        clip: str | None = None,
        bit_rate: int | None = None,
        carried: Carried | None = None,
        title: str = "",
    ) -> None:
        self.path, self.clip = Path(path), clip
        self.bit_rate, self.carried, self.title = bit_rate, carried, title
        self.sample_rate, self.channels = as_rate(sample_rate), channels
        self.format = format if isinstance(format, Format) else find_format(format or self.path.suffix or "wav")
        self.subtype = find_subtype(self.format, subtype)
        if why := refusal(self.format, self.subtype, self.sample_rate, channels, bit_rate):
            raise AudioError(f"{self.path} cannot be written: {why}.")
        known = channel_mask.bit_count() == channels
        self.channel_mask = channel_mask if known else MASKS.get(channels, 0)
        if carried and carried.channel_mask is not None and self.format.container == "WAV":
            self.channel_mask = carried.channel_mask  # even if it does not fit the channels
        order = VORBIS_ORDER.get(channels) if self.format.container == "OGG" else None
        self._order: list[int] | None = order and sorted(range(channels), key=order.__getitem__)
        self._unusual = self.channel_mask not in (0, MASKS.get(channels, 0), *PLAIN_MASKS)
        self.limited = self.subtype not in ("FLOAT", "DOUBLE")
        self.spooled = clip == "rescale" or (clip is None and self.limited)
        self.peak = 0.0
        self.frames = 0
        self.gain: float | None = None
        self._spool: BinaryIO | None = None
        self._encoder: Any = None
        self.pending = PendingFile(self.path, overwrite)
        try:
            if self.spooled:
                with self.pending.explained():
                    self._spool = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115
            else:
                self._start_encoder(frames)
        except BaseException:
            self.discard()
            raise

    def write(self, block: Tensor) -> None:
        """Append samples (channels, time); raise AudioError if the disk is full or fails."""
        import numpy as np

        samples = np.ascontiguousarray(block.detach().to("cpu").numpy().T, dtype=np.float32)
        if not len(samples):
            return
        self.peak = max(float(samples.max()), -float(samples.min()), self.peak)  # the first NaN stays
        if not np.isfinite(self.peak):
            raise AudioError(f"{self.path} cannot be written: the samples contain NaN or infinity.")
        self.frames += len(samples)
        if self._spool is None:
            self._encode(samples)
        else:
            with self.pending.explained():
                self._spool.write(samples.data)

    def finish(self) -> None:
        """Encode what is left and make sure that all of it is on the disk, still under the temporary name."""
        import numpy as np

        if self._spool is not None:
            gain = self.gain
            if gain is None:
                gain = 1.0 / max(1.0, self.peak)
                if gain < 1.0:
                    text = f"{self.path} was turned down by a factor of {gain:.3f} to stay within full scale."
                    warnings.warn(text, stacklevel=4)
            self._start_encoder(self.frames)
            with self.pending.explained():
                self._spool.seek(0)
                while data := self._spool.read(CHUNK * 4 * self.channels):
                    self._encode(np.frombuffer(data, np.float32).reshape(-1, self.channels) * np.float32(gain))
        self._close()
        self.pending.finish()

    def _close(self) -> None:
        """Complete the file and add what it carries; check that it is whole, because some encoders ignore errors."""
        import soundfile

        self._encoder.close()
        container = self.format.container
        with self.pending.explained():
            if container == "WAV" and (self.channels > 2 or self._unusual):  # write the channel mask into the header
                with open(self.pending.temporary, "rb+") as file:
                    at = file.read(256).find(b"fmt ")
                    file.seek(at + 28)
                    file.write(self.channel_mask.to_bytes(4, "little"))
            if self.carried or self._unusual:
                from separation.audio.attaching import attach

                attach(self.pending.temporary, container, self.carried, self.title, self._unusual * self.channel_mask)
        written = 0
        with suppress(soundfile.LibsndfileError):
            written = soundfile.info(os.fsencode(self.pending.temporary)).frames if self.frames else 0
        if written < self.frames:
            self._explain_failure("it is not complete")

    def _start_encoder(self, frames: int | None) -> None:
        import soundfile

        container = self.format.container
        size = (frames or 0) * self.channels * SAMPLE_BYTES.get(self.subtype, 0)
        if container == "WAV" and size > RF64_BYTES:
            container = "RF64"
        elif container == "WAV" and (self.channels > 2 or self._unusual):
            container = "WAVEX"
        try:
            self._encoder = soundfile.SoundFile(
                os.fsencode(self.pending.temporary), "w", self.sample_rate, self.channels, subtype=self.subtype,
                format=container, **choose_compression(self.subtype, self.sample_rate, self.channels, self.bit_rate),
            )  # fmt: skip
            tags = self.carried.titled(self.title) if self.carried and container == "CAF" else {}
            for tag in tags.keys() & CAF_TAGS.keys():
                setattr(self._encoder, CAF_TAGS[tag], tags[tag])
        except soundfile.LibsndfileError as error:
            self._explain_failure(f"{container} {self.subtype}: {error.error_string}")

    def _encode(self, samples: np.ndarray) -> None:
        """Write float32 samples (time, channels)."""
        import numpy as np
        import soundfile

        if self.clip == "clamp" or (self.clip == "none" and self.limited):
            samples = np.clip(samples, -1.0, 1.0)
        for start in range(0, len(samples), CHUNK):
            chunk = samples[start : start + CHUNK]
            chunk = chunk if self._order is None else chunk[:, self._order]
            if self.subtype.startswith("PCM_"):
                # libsndfile multiplies by 2 ** (bits - 1) - 1 on writing but divides by 2 ** (bits - 1) on reading.
                # With one power of two for both, samples that were integers stay the same.
                bits = 8 * SAMPLE_BYTES[self.subtype]
                full = float(2 ** (bits - 1))
                steps = np.clip(np.rint(chunk.astype(np.float64) * full), -full, full - 1.0)
                chunk = (steps.astype(np.int64) << (32 - bits)).astype(np.int32)
            try:
                self._encoder.write(chunk)
            except (soundfile.LibsndfileError, AssertionError) as error:  # soundfile asserts that a write was whole
                self._explain_failure(str(error))

    def _explain_failure(self, otherwise: str) -> None:
        """Raise what the system says about one more write: libsndfile does not keep the reason."""
        with self.pending.explained():
            with open(self.pending.temporary, "ab") as file:
                file.write(bytes(1 << 20))
                file.flush()
                os.fsync(file.fileno())
            raise OSError(0, otherwise)

    def discard(self) -> None:
        """Remove everything that is not committed."""
        for file in (self._spool, self._encoder):
            if file is not None:
                with suppress(Exception):
                    file.close()
        self.pending.discard()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
                commit([self.pending])
        finally:
            self.discard()


def write(
    path: str | os.PathLike[str],
    waveform: Tensor | np.ndarray,
    sample_rate: int,
    format: str | None = None,
    subtype: str | None = None,
    overwrite: bool = False,
    channel_mask: int = 0,
) -> None:
    """Write a waveform (channels, time) or (time,), see `as_waveform`; other arguments and errors as `Writer`."""
    wave = as_waveform(waveform, "waveform", finite=False)  # the writer's error names the file
    with Writer(path, sample_rate, len(wave), format, subtype, overwrite, wave.shape[1], channel_mask) as writer:
        writer.write(wave)
