"""Audio formats: which files can be read, which can be written, and what each format can hold.

Limits are checked before anything is written because the encoders do not always report an error: libvorbis, for
example, ends the process with a segmentation fault above 200 kHz.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any

from separation.errors import AudioError

SAMPLE_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
SUBTYPE_NAMES = {
    "8": "PCM_U8", "16": "PCM_16", "24": "PCM_24", "32": "PCM_32", "PCM_F32": "FLOAT", "FLOAT32": "FLOAT",
}  # fmt: skip
# By container or subtype: the only sample rates or None, the highest one, and the number of channels.
LIMITS: dict[str, tuple[set[int] | None, int, int]] = {
    "OPUS": ({8000, 12000, 16000, 24000, 48000}, 48_000, 255),
    "VORBIS": (None, 200_000, 255),
    "MP3": ({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000}, 48_000, 2),
    "FLAC": (None, 655_350, 8),
}
COMPRESSION = {"VORBIS": 0.2, "MPEG_LAYER_III": 0.1, "OPUS": None}
"""Sample types that have a bit rate, and the level that is high quality: the input may have been compressed already."""
CLIPS = ("rescale", "clamp", "none")
"""Treatment of samples beyond full scale: scale the whole file down, clip them, or keep them if the format can."""
SHORTEST = 200  # bytes of a frame of mp3 with room for the header that states the delay of the encoder


@dataclass(frozen=True)
class Format:
    """An output format: suffix and value of `--format`, libsndfile's container, sample types (the default first)."""

    name: str
    container: str
    subtypes: tuple[str, ...]

    @property
    def suffix(self) -> str:
        """The file suffix, with its dot."""
        return f".{self.name}"


FORMATS = {
    entry.name: entry
    for entry in (
        Format("wav", "WAV", ("FLOAT", "PCM_16", "PCM_24", "PCM_32", "PCM_U8", "DOUBLE")),
        Format("flac", "FLAC", ("PCM_24", "PCM_16", "PCM_S8")),
        Format("ogg", "OGG", ("VORBIS", "OPUS")),
        Format("opus", "OGG", ("OPUS",)),
        Format("mp3", "MP3", ("MPEG_LAYER_III",)),
        Format("aiff", "AIFF", ("FLOAT", "PCM_16", "PCM_24", "PCM_32", "PCM_S8", "DOUBLE")),
        Format("caf", "CAF", ("FLOAT", "PCM_16", "PCM_24", "PCM_32", "PCM_S8", "DOUBLE")),
        Format("w64", "W64", ("FLOAT", "PCM_16", "PCM_24", "PCM_32", "PCM_U8", "DOUBLE")),
    )
}
ALIASES = {"wave": "wav", "rf64": "wav", "aif": "aiff", "oga": "ogg", "vorbis": "ogg"}

READABLE = frozenset(
    {*FORMATS, "aif", "aifc", "au", "bwf", "mp1", "mp2", "mpa", "oga", "rf64", "snd", "sph", "voc", "wave", "wavex"}
)
"""Suffixes of audio files without a container of other streams."""
FFMPEG_SUFFIXES = frozenset(
    {"aac", "ac3", "amr", "ape", "dts", "eac3", "m4a", "m4b", "mka", "mpc", "ra", "spx", "tta", "wma", "wv"}
    | {"3gp", "asf", "avi", "flv", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "mxf", "ogv", "ts", "webm", "wmv"}
)
"""Suffixes of formats that only FFmpeg's libraries read (through PyAV)."""


def find_format(name: str) -> Format:
    """Return the format of a name or suffix ("wav", ".FLAC"); raise AudioError if there is none."""
    key = name.lower().lstrip(".")
    entry = FORMATS.get(ALIASES.get(key, key))
    if entry is None:
        raise AudioError(f"Unknown output format {name!r}. Use one of {', '.join(FORMATS)}.")
    return entry


def find_subtype(entry: Format, name: str | None) -> str:
    """Return the sample type of `entry` with a name such as "PCM_16", "16" or "float32", by default its first one."""
    if name is None:
        return entry.subtypes[0]
    wanted = name.upper() if name.upper() in entry.subtypes else SUBTYPE_NAMES.get(name.upper(), name.upper())
    if wanted == "PCM_U8" and "PCM_S8" in entry.subtypes:
        wanted = "PCM_S8"
    if wanted not in entry.subtypes:
        raise AudioError(f"Format {entry.name} has no sample type {name!r}. Use one of {', '.join(entry.subtypes)}.")
    return wanted


def refusal(entry: Format, subtype: str, sample_rate: int, channels: int, bit_rate: int | None = None) -> str | None:
    """Say in half a sentence why a format cannot hold this sample rate, channel count or bit rate; None if it can."""
    rates, max_rate, max_channels = LIMITS.get(subtype) or LIMITS.get(entry.container) or (None, 2**31 - 1, 1024)
    kind = "opus" if subtype == "OPUS" else entry.name
    if rates is not None and sample_rate not in rates:
        return f"{kind} cannot hold a sample rate of {sample_rate} Hz, only {', '.join(map(str, sorted(rates)))}"
    # FLAC stores rates above 65,535 Hz in tens of hertz.
    if sample_rate > max_rate or (kind == "flac" and sample_rate > 65535 and sample_rate % 10):
        return f"{kind} cannot hold a sample rate of {sample_rate} Hz"
    if channels > max_channels:
        return f"{kind} cannot hold {channels} channels, at most {max_channels}"
    if bit_rate is None:
        return None
    if subtype not in COMPRESSION:
        return f"{kind} has no bit rate; mp3, ogg and opus have one"
    low, high = (round(rate / 1000) for rate in bit_rate_range(subtype, sample_rate, channels))
    if not low <= bit_rate / 1000 <= high:
        sound = f"{sample_rate} Hz and {channels} channel{'s' * (channels > 1)}"
        return f"{kind} with {sound} takes {low} to {high} kbit/s, not {bit_rate / 1000:g}"
    return None


def parse_bit_rate(text: str) -> int:
    """Convert "128" or "128k", in kilobits per second, to bits per second."""
    digits = text.lower().removesuffix("k")
    if not digits.isdecimal() or not 6 <= int(digits) <= 4096:
        raise ValueError(f"“{text}” is not a rate from 6 to 4096 kilobits per second")
    return 1000 * int(digits)


def bit_rate_range(subtype: str, sample_rate: int, channels: int) -> tuple[int, int]:
    """Return the lowest and highest bit rate of a sample type in bits per second."""
    if subtype == "OPUS":
        return 6000 * channels, 256_000 * channels
    if subtype == "VORBIS":
        return nominal_bit_rate(1.0, sample_rate, channels), nominal_bit_rate(0.0, sample_rate, channels)
    return (32_000, 320_000) if sample_rate >= 32_000 else (8000, 160_000 if sample_rate >= 16_000 else 64_000)


@functools.cache
def nominal_bit_rate(level: float, sample_rate: int, channels: int) -> int:
    """Return the bit rate in the header of Vorbis with one of libsndfile's compression levels."""
    import soundfile

    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", sample_rate, channels, "VORBIS", format="OGG", compression_level=level):
        pass
    return int.from_bytes(file.getvalue().partition(b"\1vorbis")[2][13:17], "little")


def choose_compression(subtype: str, sample_rate: int, channels: int, bit_rate: int | None) -> dict[str, Any]:
    """Return soundfile's arguments for a bit rate; None: high quality. It is limited to what the encoder can do."""
    if bit_rate is None or subtype not in COMPRESSION:
        return {"compression_level": COMPRESSION.get(subtype)}
    low, high = bit_rate_range(subtype, sample_rate, channels)
    if subtype == "VORBIS":
        best, worst = 0.0, 1.0
        for _ in range(10):
            level = (best + worst) / 2
            best, worst = (level, worst) if nominal_bit_rate(level, sample_rate, channels) > bit_rate else (best, level)
        return {"compression_level": worst}
    level = max(0.0, min(1 - (bit_rate - low) / (high - low), 0.9999))  # libsndfile's scale; 1 is refused
    if subtype == "OPUS":
        return {"compression_level": level}
    frame = bit_rate * (144 if sample_rate >= 32_000 else 72) / sample_rate
    return {"compression_level": level, "bitrate_mode": "CONSTANT" if frame >= SHORTEST else "AVERAGE"}


def natural_format(container: str | None, subtype: str | None, suffix: str) -> tuple[Format, str] | None:
    """Return output format and sample type for an input, whose `container` and `subtype` are as `Reader` reports them.

    wav stays wav in float32, flac becomes 24-bit flac; ogg, opus and mp3 stay what they are; None if only wav will do.
    """
    if container in ("WAV", "WAVEX", "RF64"):
        return FORMATS["wav"], "FLOAT"
    if container == "OGG" and subtype == "OPUS":
        return FORMATS["ogg" if suffix.lower() in (".ogg", ".oga") else "opus"], "OPUS"
    if container == "OGG" and subtype != "VORBIS":
        return FORMATS["flac"], "PCM_24"
    if container == "MP3" and subtype != "MPEG_LAYER_III":
        return None
    return next(((entry, entry.subtypes[0]) for entry in FORMATS.values() if entry.container == container), None)
