"""The encoder: float32 samples in, any of libsndfile's containers out, errors as they happened."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO

from separation.decode import CHUNK
from separation.formats import INTEGER_BITS
from separation.pending import GuardedFile

if TYPE_CHECKING:
    import numpy as np

Shield = Callable[[], AbstractContextManager[None]]
"""Makes a context in which no signal handler raises."""

COMPRESSION = {"VORBIS": 0.2, "MPEG_LAYER_III": 0.1}
"""Lossy encoders are set to high quality: what they lose is lost a second time here."""


class Encoder:
    """A libsndfile encoder on top of an open file; OSErrors of that file come out as they are."""

    def __init__(
        self,
        file: BinaryIO,
        sample_rate: int,
        channels: int,
        container: str,
        subtype: str,
        shield: Shield,
    ) -> None:
        import soundfile

        self._shield = shield

        self._guard = GuardedFile(file)
        self._bits = INTEGER_BITS.get(subtype)
        self._error: type[Exception] = soundfile.LibsndfileError
        try:
            self._sound = soundfile.SoundFile(
                self._guard, "w", sample_rate, channels, subtype=subtype, format=container,
                compression_level=COMPRESSION.get(subtype),
            )  # fmt: skip
        except soundfile.LibsndfileError as error:
            self._guard.check()
            raise OSError(0, f"{container} {subtype}: {error.error_string}") from None

    def write(self, samples: np.ndarray) -> None:
        """Appends float32 samples (time, channels)."""
        for start in range(0, len(samples), CHUNK):
            chunk = samples[start : start + CHUNK]
            data = chunk if self._bits is None else _to_integers(chunk, self._bits)
            try:
                with self._shield():
                    self._sound.write(data)
            except (self._error, AssertionError) as error:
                # soundfile asserts that a write was whole, and it is not on a full disk.
                self._guard.check()
                raise OSError(0, str(error)) from None
            self._guard.check()

    def close(self) -> None:
        """Writes the end of the file."""
        with self._shield():
            self._sound.close()
        self._guard.check()

    def abandon(self) -> None:
        """Closes without caring for the content."""
        self._guard.error = self._guard.error or OSError(0, "abandoned")
        self._sound.close()


def _to_integers(samples: np.ndarray, bits: int) -> np.ndarray:
    """Samples as int32 with `bits` significant upper bits, rounded to nearest.

    libsndfile would multiply by 2 ** (bits - 1) - 1 but divide by 2 ** (bits - 1) on reading; with
    one power of two for both, what came from integers goes back to the same ones: target + residual
    stays the input.
    """
    import numpy as np

    full = float(2 ** (bits - 1))
    steps = np.clip(np.rint(samples.astype(np.float64) * full), -full, full - 1.0)
    return (steps.astype(np.int64) << (32 - bits)).astype(np.int32)
