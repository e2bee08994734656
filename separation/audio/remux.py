"""Replacing one audio track of a film or other container, through PyAV; everything else is copied packet by packet.

A trial on the first packets shows before a separation whether the container can be written; a `Film` is its result.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.audio.containers import SAME_BITS, ffmpeg_reason, open_container
from separation.audio.formats import Format
from separation.audio.joining import LAYOUTS
from separation.audio.layouts import name_speakers
from separation.audio.tags import OLD_TAGS
from separation.audio.writing import Writer
from separation.errors import AudioError

if TYPE_CHECKING:
    import numpy as np

    from separation.audio.reading import Reader

MUXERS = {
    "mp4": "mp4", "m4v": "mp4", "mov": "mov", "qt": "mov", "m4a": "mp4", "m4b": "mp4", "3gp": "3gp",
    "mkv": "matroska", "mka": "matroska", "webm": "webm", "avi": "avi", "ts": "mpegts", "mts": "mpegts", "mpg": "mpeg",
    "mpeg": "mpeg", "flv": "flv", "wmv": "asf", "asf": "asf",
}  # fmt: skip
"""FFmpeg's name of each container that can be written, by suffix."""
SOUND_ONLY = ("m4a", "m4b", "mka")
"""Suffixes of containers that targets are written to as well."""
MOV = ("mp4", "mov", "3gp")
ENCODERS = {"mp3": "libmp3lame", "opus": "libopus", "wmav1": "wmav2"} | {
    name: name for name in ("aac", "ac3", "eac3", "alac", "flac", "mp2", "wmav2", "wavpack", "tta")
}
OTHERWISE = {
    "webm": ["libopus"], "matroska": ["flac", "aac"], "avi": ["libmp3lame", "pcm_s16le"], "flv": ["aac"],
    "asf": ["wmav2"], "mpeg": ["mp2"], "mpegts": ["aac"],
}  # fmt: skip
"""Encoders by container if there is none for the input's codec or it refuses the sound; aac in other containers."""
LOSSLESS = ("flac", "alac", "wavpack", "tta")
PRIMED = (*MOV, "matroska", "webm")
"""Containers that store the number of samples that an encoder adds at the start."""
MP2_RATES = [1000 * rate for rate in (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)]
BITS = 1.7  # least bits per sample by default for another codec: the input has been compressed already
TRIAL_PACKETS, TRIAL_BYTES, CHUNK = 200, 1 << 23, 16_384
JUMP_BACK = 1.0  # seconds
OLD_TRACK_TAGS = ("DURATION", "BPS", "NUMBER_OF_", "_STATISTICS", "ENCODER")  # of Matroska, about the old samples
ITUNES = """
    title artist album_artist composer album date comment genre copyright grouping lyrics description synopsis
    show episode_id network keywords media_type hd_video gapless_playback compilation track disc season_number
    episode_sort creation_time timecode location
"""
"""Tags of MP4; others are written as QuickTime keys."""


@dataclass(frozen=True)
class Film:
    """Parameters for writing a container with another sound.

    Attributes:
        path: the input.
        track: which of its audio streams is replaced, from 0.
        suffix: of the output, without its dot.
        codec: encoder of the sound.
        layout: FFmpeg's name of the channels that the encoder gets.
        rate: sample rate that the encoder gets, in Hz.
        bit_rate: of the sound in bits per second; 0 for lossless codecs.
        left_out: indices of data streams that cannot be copied.
        lost: how many of them; FFmpeg writes the timecode of pictures in MP4 and QuickTime anew.
    """

    path: Path
    track: int
    suffix: str
    codec: str
    layout: str
    rate: int
    bit_rate: int
    left_out: frozenset[int] = frozenset()
    lost: int = 0

    @property
    def form(self) -> tuple[Format, str]:
        """Format and sample type, as of other outputs."""
        return Format(self.suffix, "AV", ("SOUND",)), "SOUND"

    @property
    def muxer(self) -> str:
        """FFmpeg's name of the container."""
        return MUXERS[self.suffix]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    import av

    try:
        yield
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(f"{path} cannot be written: {ffmpeg_reason(error)}.") from None


def plan_films(
    label: str, reader: Reader, targets: Sequence[bool], bit_rate: int | None, notice: Callable[[str], None]
) -> list[Film | None]:
    """Return for each output a film that keeps the input's container, or None for a file of sound only.

    Residuals stay films. Targets keep the container if it holds only sound.

    Raises:
        AudioError: if the container cannot be written.
    """
    suffix = reader.path.suffix.lower().lstrip(".")
    container = reader.container is None and suffix in MUXERS
    whole = container and not reader.pictures and suffix in SOUND_ONLY
    kept = [whole or not target for target in targets]
    if not any(kept) or not (container or reader.pictures):
        return [None] * len(kept)
    film = plan_film(reader, label, bit_rate)
    if film.lost:
        notice(f"{label}: data beside pictures and sound cannot be kept (tracks: {film.lost}).")
    if all(kept):
        reader.accept_holes()
    return [film if keep else None for keep in kept]


def is_lossless(codec: str) -> bool:
    """Return whether a codec is lossless, so that it has no bit rate."""
    return codec in LOSSLESS or codec.startswith("pcm_")


def plan_film(reader: Reader, label: str, bit_rate: int | None = None) -> Film:
    """Find parameters for writing a container with another sound, by a trial on its first packets.

    Raises:
        AudioError: if it cannot be written.
    """
    import av

    suffix = reader.path.suffix.lower().lstrip(".")
    if suffix not in MUXERS:
        raise AudioError(
            f"{label} can be read, but files of this kind cannot be written: --sound-only writes its sound."
        )
    with open_container(reader.path) as source:
        stream = source.streams.audio[reader.track]
        name, given = stream.codec_context.codec.canonical_name, stream.codec_context.bit_rate or 0
        own = [name] if name.startswith("pcm_") else [ENCODERS[name]] if name in ENCODERS else []
        tags = stream.metadata
        given = given or int(tags["BPS"]) if tags.get("BPS", "").isdecimal() else given
        chapters = MUXERS[suffix] in MOV and bool(source.chapters())  # a track of texts, which FFmpeg writes anew
        other = [each for each in source.streams if each.type in ("data", "unknown")]
        data = {each.index: each.metadata.get("timecode") for each in other}
        codes = {each.metadata.get("timecode") for each in source.streams.video if MUXERS[suffix] in MOV} - {None}
    given = 0 if is_lossless(name) else given
    own += [codec for codec in OTHERWISE.get(MUXERS[suffix], ["aac"]) if codec not in own]
    if reader.channels in (5, 7):  # FFmpeg's Opus encoder swaps them
        own = [codec for codec in own if codec != "libopus"]
    mask, why = reader.channel_mask, "no encoder takes its sound"
    names = name_speakers(mask)
    layouts = [names] if names and reader.channels > 2 else []
    layouts += [LAYOUTS.get(reader.channels, f"{reader.channels}C"), *["5.1(side)"] * (reader.channels == 6)]
    for codec in own:
        rates = av.Codec(codec, "w").audio_rates or [reader.sample_rate]
        rate = min((each for each in rates if each >= reader.sample_rate), default=max(rates))
        least = SAME_BITS if given and codec == ENCODERS.get(name) else BITS
        bits = bit_rate or max(given, round(least * reader.sample_rate * reader.channels))
        if codec == "mp2":
            bits = min((each for each in MP2_RATES if each >= bits), default=MP2_RATES[-1])
        for layout in layouts:
            for left_out in [{}, data][: 1 + bool(data)]:
                film = Film(
                    reader.path, reader.track, suffix, codec, layout, rate, 0 if is_lossless(codec) else bits,
                    frozenset(left_out), max(0, sum(code not in codes for code in left_out.values()) - chapters),
                )  # fmt: skip
                try:
                    _try(film, reader)
                except (av.error.FFmpegError, ValueError, OverflowError) as error:
                    why = ffmpeg_reason(error)
                else:
                    if bit_rate and not film.bit_rate:
                        raise AudioError(f"{label} cannot be written with --bitrate: {codec} has no bit rate.")
                    return film
    raise AudioError(f"{label} cannot be written with another sound ({why}): --sound-only writes its sound.")


def _try(film: Film, reader: Reader) -> None:
    import numpy as np

    with ExitStack() as stack:
        sink = io.BytesIO()
        remuxer = Remuxer(film, sink, reader.sample_rate, reader.channels, 0.0, stack)
        remuxer.encode(np.zeros((CHUNK, reader.channels), np.float32))
        for _ in range(TRIAL_PACKETS):
            if not remuxer.copy_packet() or sink.tell() > TRIAL_BYTES:
                break
        remuxer.finish_sound()
        remuxer.output.close()


class Remuxer:
    """Copies a film's packets and encodes its new sound, in order of time.

    Args:
        film: the parameters.
        sink: a path or an open file.
        sample_rate: of the sound, Hz.
        channels: of the sound.
        start: time of its first sample, in seconds.
        stack: closes the opened files.
        title: added to the title in brackets.
    """

    def __init__(
        self, film: Film, sink: Path | io.BytesIO, sample_rate: int, channels: int, start: float, stack: ExitStack,
        title: str = "",
    ) -> None:  # fmt: skip
        import av

        self.film, self.sample_rate, self.channels = film, sample_rate, channels
        self.first = self.at = round(start * sample_rate)  # position of the next sample, on the film's clock
        self.source = stack.enter_context(open_container(film.path))
        tags = {key: text for key, text in self.source.metadata.items() if not re.fullmatch(OLD_TAGS, key)}
        options = {"movflags": "use_metadata_tags"} if film.muxer in MOV and set(tags) - set(ITUNES.split()) else {}
        options |= {"brand": "M4A "} if film.suffix in SOUND_ONLY and film.muxer in MOV else {}
        target: Any = f"file:{sink}" if isinstance(sink, Path) else sink
        self.output = stack.enter_context(av.open(target, "w", format=film.muxer, container_options=options))
        if title and "title" in tags:
            tags["title"] += f" ({title})"
        self.output.metadata.update(tags)
        self.streams: dict[int, Any] = {}
        replaced = self.source.streams.audio[film.track]
        for stream in self.source.streams:
            if stream.index not in film.left_out and (copy := self._add_stream(stream, stream is replaced)):
                self.streams[stream.index] = copy
        self.sound = self.streams.pop(replaced.index)
        if chapters := self.source.chapters():
            self.output.set_chapters(chapters)
        self.output.start_encoding()
        copied = [each for each in self.source.streams if each.index in self.streams]
        self.packets = self.source.demux(copied) if copied else iter(())
        self.waiting: Any = None

    def _add_stream(self, stream: Any, replaced: bool) -> Any:
        """Add a copy of a stream, or a stream for the new sound; return None if it is no stream in the output."""
        film, tags = self.film, dict(stream.metadata)
        if replaced:
            copy: Any = self.output.add_stream(film.codec, rate=film.rate, layout=film.layout, bit_rate=film.bit_rate)
            formats = [each.name for each in copy.codec_context.codec.audio_formats or ()]
            if film.codec in LOSSLESS:
                copy.codec_context.format = next(name for name in ("s32", "s32p", *formats) if name in formats)
            tags = {key: value for key, value in tags.items() if not key.startswith(OLD_TRACK_TAGS)}
        elif film.muxer == "matroska" and stream.disposition & 1024:  # a cover, which FFmpeg would write as a video
            picture = next(packet for packet in self.source.demux(stream) if packet.size)
            self.source.seek(0)
            name = tags.get("filename", "cover.jpg")
            self.output.add_attachment(name, tags.get("mimetype", "image/jpeg"), bytes(picture))
            return None
        else:
            copy = self.output.add_stream_from_template(stream, opaque=True)
            if film.muxer in MOV and stream.codec_context:  # hvc1 or hev1, which is not the same to every player
                copy.codec_context.codec_tag = stream.codec_context.codec_tag
        copy.disposition = stream.disposition
        copy.metadata.update(tags)
        return None if stream.type == "attachment" else copy

    def encode(self, samples: np.ndarray) -> None:
        """Append samples (time, channels) to the sound."""
        import av
        import numpy as np

        layout = self.film.layout if self.channels > 2 else LAYOUTS[self.channels]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), "flt", layout)
        frame.sample_rate, frame.pts = self.sample_rate, self.at
        frame.time_base = Fraction(1, self.sample_rate)
        self._write(self.sound.encode(frame))
        self.at += len(samples)

    def _write(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            middle = (packet.pts + (packet.duration or 0) / 2) * packet.time_base
            if self.film.muxer in PRIMED or middle >= Fraction(self.first, self.sample_rate):
                self.output.mux(packet)

    def copy_packet(self, until: float | None = None) -> bool:
        """Copy the next packet if it is before a time in seconds; return whether there was one."""
        while self.waiting is None:
            packet = next(self.packets, None)
            if packet is None:
                return False
            if packet.size:
                self.waiting = packet
        packet = self.waiting
        time = packet.dts if packet.dts is not None else packet.pts
        if until is not None and time is not None and float(time * packet.time_base) > until:
            return False
        self.waiting, packet.stream = None, self.streams[packet.stream_index]
        self.output.mux(packet)
        return True

    def finish_sound(self) -> None:
        """Encode the remaining sound."""
        self._write(self.sound.encode(None))


class FilmWriter(Writer):
    """Writes a film block by block; arguments as `Writer`.

    Args:
        path: the destination.
        film: what is written.
        reader: of the replaced sound; it has been read once and therefore knows the time of each sample.
        overwrite: whether an existing file may be replaced.
        clip: one of `formats.CLIPS`.
        title: added to the film's title in brackets.
    """

    def __init__(
        self, path: Path, film: Film, reader: Reader, overwrite: bool = False, clip: str | None = None, title: str = ""
    ) -> None:
        self.film, self._stack = film, ExitStack()
        self._timeline = list(reader.timeline) or [(0, 0.0)]
        for (first, begin), (second, end) in pairwise(self._timeline):
            if end < begin + (second - first) / reader.sample_rate - JUMP_BACK:
                raise AudioError(f"{reader.path} has time stamps that jump back: --sound-only writes its sound.")
        self._at = self._skip = 0
        form = reader.sample_rate, reader.channels, film.form[0]
        super().__init__(path, *form, overwrite=overwrite, clip=clip, title=title)

    def _start_encoder(self, frames: int | None) -> None:
        with _explained(self.path):
            self._encoder = Remuxer(
                self.film, self.pending.temporary, self.sample_rate, self.channels, self._timeline[0][1], self._stack,
                self.title,
            )  # fmt: skip
        self._breaks = self._timeline[1:]

    def _encode(self, samples: np.ndarray) -> None:
        """Encode samples (time, channels) at their times: gaps are filled with silence, overlaps are dropped."""
        import numpy as np

        if self.clip in ("clamp", "none"):
            samples = np.clip(samples, -1.0, 1.0)
        while len(samples):
            if self._breaks and self._breaks[0][0] <= self._at:
                gap = round(self._breaks.pop(0)[1] * self.sample_rate) - self._encoder.at
                self._skip = max(0, -gap)
                while gap > 0:
                    self._push(np.zeros((min(gap, CHUNK), self.channels), np.float32))
                    gap -= CHUNK
            count = min(len(samples), CHUNK, self._breaks[0][0] - self._at if self._breaks else CHUNK)
            part, samples = samples[:count], samples[count:]
            self._at += count
            self._push(part[self._skip :])
            self._skip = max(0, self._skip - count)

    def _push(self, samples: np.ndarray) -> None:
        with _explained(self.path):
            if len(samples):
                self._encoder.encode(samples)
            while self._encoder.copy_packet(self._encoder.at / self.sample_rate):
                pass

    def _close(self) -> None:
        with _explained(self.path):
            self._encoder.finish_sound()
            while self._encoder.copy_packet():
                pass
            self._encoder.output.close()
        self._stack.close()

    def discard(self) -> None:
        """Remove everything that is not committed."""
        with suppress(Exception):
            self._stack.close()
        super().discard()
