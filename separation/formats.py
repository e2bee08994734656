"""Which audio containers can be written, and what each of them can hold.

The limits are checked before a byte is written because the libraries underneath do not always say
no: libvorbis, for one, ends the whole process with a segmentation fault above 200 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass

from separation.errors import AudioError as AudioError

RF64_BYTES = 4_000_000_000
"""A wav file with more bytes of samples is written as RF64: a RIFF header counts to 4 GB only."""

MPEG_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000})
OPUS_RATES = frozenset({8000, 12000, 16000, 24000, 48000})

SAMPLE_BYTES = {
    "PCM_S8": 1,
    "PCM_U8": 1,
    "PCM_16": 2,
    "PCM_24": 3,
    "PCM_32": 4,
    "FLOAT": 4,
    "DOUBLE": 8,
}
INTEGER_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
UNLIMITED = frozenset({"FLOAT", "DOUBLE"})
"""Sample types that hold values beyond full scale."""

SUBTYPE_NAMES = {
    "8": "PCM_U8",
    "16": "PCM_16",
    "24": "PCM_24",
    "32": "PCM_32",
    "PCM_F32": "FLOAT",
    "FLOAT32": "FLOAT",
}


@dataclass(frozen=True)
class Format:
    """A container that can be written.

    Attributes:
        name: what `--format` takes, also the file name's suffix without its dot.
        container: libsndfile's name.
        subtypes: sample encodings that keep the exact length, the default first.
    """

    name: str
    container: str
    subtypes: tuple[str, ...]

    @property
    def suffix(self) -> str:
        """The file name's ending, with its dot."""
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

READABLE = frozenset({*FORMATS, *ALIASES, "au", "snd", "voc", "sph", "mp2", "bwf", "wavex"}) - {
    "rf64",
    "vorbis",
}
"""Suffixes that libsndfile usually reads."""

FFMPEG_SUFFIXES = frozenset(
    {
        "aac",
        "ac3",
        "amr",
        "ape",
        "dts",
        "eac3",
        "m4a",
        "m4b",
        "mka",
        "mpc",
        "ra",
        "tta",
        "wma",
        "wv",
    }
    | {
        "3gp",
        "asf",
        "avi",
        "flv",
        "m4v",
        "mkv",
        "mov",
        "mp4",
        "mpeg",
        "mpg",
        "mts",
        "mxf",
        "ts",
        "webm",
        "wmv",
    }
)
"""Suffixes of common formats that only ffmpeg reads."""


def find_format(name: str) -> Format:
    """The format of a name or suffix ("wav", ".FLAC").

    Raises:
        AudioError: when there is no such format.
    """
    key = name.lower().lstrip(".")
    entry = FORMATS.get(ALIASES.get(key, key))
    if entry is None:
        raise AudioError(f"There is no output format {name!r}; there are {', '.join(FORMATS)}.")
    return entry


def find_subtype(entry: Format, name: str | None) -> str:
    """The sample encoding of `entry` that is meant by `name` ("PCM_16", "16", "float"); its default
    for None.

    Raises:
        AudioError: when the format has no such encoding.
    """
    if name is None:
        return entry.subtypes[0]
    wanted = name.upper()
    if wanted not in entry.subtypes:
        wanted = SUBTYPE_NAMES.get(wanted, wanted)
    if wanted not in entry.subtypes and wanted == "PCM_U8" and "PCM_S8" in entry.subtypes:
        wanted = "PCM_S8"
    if wanted not in entry.subtypes:
        raise AudioError(f"Format {entry.name} has no sample type {name!r}: only {', '.join(entry.subtypes)}.")
    return wanted


def refusal(entry: Format, subtype: str, sample_rate: int, channels: int) -> str | None:
    """Why a format cannot hold audio of this rate and channel count, as half a sentence; None when
    it can.
    """
    rates, most_rate, most_channels = _limits(entry.container, subtype)
    kind = "opus" if subtype == "OPUS" else entry.name
    if rates is not None and sample_rate not in rates:
        known = ", ".join(str(rate) for rate in sorted(rates))
        return f"{kind} cannot hold a sample rate of {sample_rate} Hz, only {known}"
    if sample_rate > most_rate or (kind == "flac" and sample_rate > 65535 and sample_rate % 10):
        return f"{kind} cannot hold a sample rate of {sample_rate} Hz"
    if channels > most_channels:
        return f"{kind} cannot hold {channels} channels, at most {most_channels}"
    return None


def _limits(container: str, subtype: str) -> tuple[frozenset[int] | None, int, int]:
    """(the only sample rates or None, the highest sample rate, the most channels)."""
    if subtype == "OPUS":
        return OPUS_RATES, 48_000, 255
    if subtype == "VORBIS":
        return None, 200_000, 255
    if container == "MP3":
        return MPEG_RATES, 48_000, 2
    if container == "FLAC":
        return None, 655_350, 8
    return None, 2**31 - 1, 1024


def natural_format(container: str | None, subtype: str | None, suffix: str) -> tuple[Format, str] | None:
    """What an input's own kind is written as, or None when only wav will do.

    wav stays wav in float32, flac becomes 24-bit flac, ogg / opus / mp3 stay what they are.

    Args:
        container: libsndfile's name of what was read, None when ffmpeg read it.
        subtype: libsndfile's name of its sample encoding.
        suffix: of the input's file name.
    """
    if container in ("WAV", "WAVEX", "RF64"):
        return FORMATS["wav"], "FLOAT"
    if container == "OGG" and subtype == "OPUS":
        return FORMATS["ogg" if suffix.lower() in (".ogg", ".oga") else "opus"], "OPUS"
    if container == "OGG":
        return (FORMATS["ogg"], "VORBIS") if subtype == "VORBIS" else (FORMATS["flac"], "PCM_24")
    if container in ("MPEG", "MP3"):
        return (FORMATS["mp3"], "MPEG_LAYER_III") if subtype == "MPEG_LAYER_III" else None
    for entry in FORMATS.values():
        if entry.container == container:
            return entry, entry.subtypes[0]
    return None


def container_of(entry: Format, subtype: str, channels: int, frames: int | None) -> str:
    """libsndfile's container name: RF64 instead of WAV where the file grows over 4 GB."""
    size = (frames or 0) * channels * SAMPLE_BYTES.get(subtype, 0)
    return "RF64" if entry.container == "WAV" and size > RF64_BYTES else entry.container
