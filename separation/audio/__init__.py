"""Audio in and out, whole or block by block: files of any length in constant memory.

    with Reader("mix.flac") as reader:
        for block in reader.blocks(seconds=10.0):   # (channels, time) float32, full scale 1.0
            ...

    with Writer("target.wav", reader.sample_rate, reader.channels) as writer:
        writer.write(block)                         # the file appears when it is complete

libsndfile reads and writes wav, flac, ogg, opus, aiff and a few more, and writes mp3. PyAV decodes mp3, all containers
that libsndfile does not support (m4a, mp4, mkv, webm, ...), and damaged files on which libsndfile fails. Samples never
wrap around and are clipped only on request (`clip`): wav files are float32 by default, and in formats that end at full
scale the whole file is scaled down by one factor (`Writer.gain`).

Importing this package loads nothing else. Each public name is loaded from its module when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in the package above
if TYPE_CHECKING:
    from typing import Any

    from separation.audio.reading import Reader, read
    from separation.audio.waveform import as_rate, as_waveform, high_pass, resample
    from separation.audio.writing import Writer, write
    from separation.errors import AudioError

__all__ = ["AudioError", "Reader", "Writer", "as_rate", "as_waveform", "high_pass", "read", "resample", "write"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    modules = {"AudioError": "errors", "Reader": "audio.reading", "read": "audio.reading"}
    modules |= {"Writer": "audio.writing", "write": "audio.writing"}
    return getattr(import_module(f"separation.{modules.get(name, 'audio.waveform')}"), name)
