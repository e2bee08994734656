"""Audio and pictures in containers that libsndfile does not read (m4a, mp4, mkv, webm, ...), through PyAV.

A container can name other files or addresses, which FFmpeg would open. Only demuxers that read a single file are
allowed, and only the protocol "file"; playlists, scripts and network addresses are refused whatever the file's suffix.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.audio.joining import Piece, Span, open_view, skip, unify, warn_of_loss
from separation.audio.layouts import describe_layout
from separation.audio.sizes import compare_size, find_sound, replace_bytes
from separation.audio.tags import ATTACHED
from separation.errors import AudioError

if TYPE_CHECKING:
    import numpy as np

DEMUXERS = (
    "mov,matroska,avi,asf,flv,mpeg,mpegts,mxf,rm,nut,ogg,wav,w64,aiff,caf,au,voc,flac,mp3,aac,ac3,eac3,dts,dtshd,"
    "truehd,mlp,amr,amrnb,amrwb,ape,mpc,mpc8,tta,tak,wv,xwma,shn,dsf,iff,gsm,loas"
)
NO_LENGTH = frozenset({"aac", "ac3", "eac3", "dts", "amr", "amrnb", "amrwb", "loas", "mp3"})
"""Demuxers whose files have no header: FFmpeg guesses the length from the first bytes."""
TIMED_IN_AVI = ("pcm", "mp", "ac3", "aac")  # how codecs begin whose times FFmpeg can tell in AVI files
BOX = re.compile(rb"\0\0..ch(?:an|nl)(?=[\0\1]\0\0)", re.DOTALL)
CHUNK = re.compile(rb"chan(?=\0{6})|CHAN(?=\0\0)")
"""Descriptions of channels: in MP4 with a small size in front, in CAF and AIFF with one behind."""
MAX_BOXES, MAX_INDEX = 100, 1 << 26  # boxes, and bytes of one, that are looked at
SHORTFALL = 0.25  # seconds that may be missing at the end: encoders round lengths to whole frames
SAME_BITS = 0.5  # least bits per sample by default for the codec of the input: silence lowers a mean
MAX_PACKETS = 20_000  # that the bit rate is measured on
STEP = 0.008  # seconds by which time stamps may differ from the count of samples: containers round them
JPEG_SCALE = 3  # as ffmpeg's -q:v


@contextmanager
def open_container(path: Path, spans: Sequence[Span] = (), errors: str = "ignore") -> Iterator[Any]:
    """Open a media file, or spans of it, with PyAV; `errors` is for tags that are not UTF-8.

    Raises:
        AudioError: if that fails or the format is not one of the allowed ones.
    """
    options = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
    spans = spans or _hide_layouts(path)
    with ExitStack() as stack:
        source = stack.enter_context(open_view(path, spans)) if spans else f"file:{path}"
        yield stack.enter_context(_open(path, source, options, errors))


def _hide_layouts(path: Path) -> list[Span]:
    """Return spans of a file in which boxes that describe the order of channels are hidden; [] if there are none.

    PyAV would end the process on some of them. They are in the index of QuickTime and MP4 files and at the start of CAF
    and AIFF files. Decoders of compressed audio know the order without them. Long lists of texts in wav files are
    hidden as well.
    """
    with suppress(OSError), open(path, "rb") as file:
        head, start, box, end = file.read(8), 0, BOX, os.fstat(file.fileno()).st_size
        if head[:4] in (b"RIFF", b"RF64"):
            sound = find_sound(file, end)
            return replace_bytes(end, [(at, b"JUNK") for at in sound.lists]) if sound else []
        if head[:4] in (b"caff", b"FORM"):
            box, size = CHUNK, 4096
        elif head[4:8] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return []
        else:
            for _ in range(MAX_BOXES):
                file.seek(start)
                head = file.read(16)
                size = int.from_bytes(head[:4], "big")
                size = int.from_bytes(head[8:16], "big") if size == 1 else size or end
                if head[4:8] == b"moov" or size < 8 or start + size >= end:
                    break
                start += size
        file.seek(start)
        found = box.finditer(file.read(min(size, MAX_INDEX)))
        return replace_bytes(end, [(start + each.end() - 4, b"free") for each in found])
    return []


def _open(path: Path, source: Any, options: dict[str, str], errors: str) -> Any:
    import av

    try:
        return av.open(source, options=options, metadata_errors=errors)
    except av.error.ArgumentError:  # not in the list of formats
        raise AudioError(f"{path} holds no audio that can be read (ffmpeg: its format is not supported).") from None
    except (av.error.FFmpegError, UnicodeError) as error:
        raise AudioError(f"{path} holds no audio that can be read (ffmpeg: {ffmpeg_reason(error)}).") from None


def ffmpeg_reason(error: Exception) -> str:
    """Return what FFmpeg or PyAV says about an error, without a full stop."""
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _audio_stream(container: Any, path: Path, index: int | str | None) -> Any:
    """The audio stream of a number from 0, or of a language; None: the one marked as default, or the first."""
    streams = container.streams.audio
    if not streams:
        raise AudioError(f"{path} holds no audio: there is no audio stream in it.")
    if index is None:
        index = next((number for number, each in enumerate(streams) if each.disposition & 1), 0)
    elif isinstance(index, str):
        languages = [each.language or "unknown" for each in streams]
        if index not in languages:
            raise AudioError(f"{path} has no audio track in {index!r}; its tracks are in {', '.join(languages)}.")
        index = languages.index(index)
    if index >= len(streams):
        raise AudioError(f"{path} has {len(streams)} audio streams; stream {index + 1} does not exist.")
    stream = streams[index]
    if stream.codec_context is None or not stream.rate:
        raise AudioError(f"{path} holds no audio that can be read (ffmpeg: there is no decoder for it).")
    if not stream.channels:
        raise AudioError(f"{path} has zero channels, so there is no audio in it.")
    return stream


class ContainerDecoder:
    """Decodes one audio stream of a file with PyAV; see `Reader` for the attributes.

    Args:
        path: the file.
        stream: which of its audio streams, from 0, or its language; None: the one marked as default.
        spans: parts of the file to read instead of all of it.
        damaged: whether some of it is known to be missing.

    Attributes:
        track: which audio stream it is, from 0.
        tracks: languages of all audio streams, "" if not known.
        pictures: whether there is a video stream.
        timeline: samples from which on time does not go on as before, and their times in seconds, once it was read.
        holes_count: whether holes in the sound are a loss to warn of.

    Raises:
        AudioError: if the file cannot be opened or has no such stream.
    """

    def __init__(
        self, path: Path, stream: int | str | None = None, spans: Sequence[Span] = (), damaged: bool = False
    ) -> None:
        self.path, self._spans = path, spans
        self.timeline: list[tuple[int, float]] = []
        self.holes_count = True
        self._note, cut = (None, False) if spans else compare_size(path)
        self._cut = damaged or cut
        self.warning: str | None = None
        self._damage: str | None = None
        self._first, self._last = math.inf, 0.0  # where the first frame begins and the last one ends, s
        self.container: str | None = None
        self.subtype: str | None = None
        self._end: float | None
        with open_container(path, spans) as container:
            audio = _audio_stream(container, path, stream)
            self.track = container.streams.audio.index(audio)
            self.tracks = [each.language or "" for each in container.streams.audio]
            self.pictures = any(not each.disposition & ATTACHED for each in container.streams.video)
            self.sample_rate: int = audio.rate
            self.channels: int = audio.channels
            self.channel_mask, self._order = describe_layout([channel.name for channel in audio.layout.channels])
            start, self._end = float((audio.start_time or 0) * audio.time_base), None
            clock = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", audio.metadata.get("DURATION", ""))  # Matroska
            codec = audio.codec_context.name
            self._timed = container.format.name != "avi" or codec.startswith(TIMED_IN_AVI)
            if container.format.name not in NO_LENGTH and self._timed:
                if audio.duration:
                    self._end = start + float(audio.duration * audio.time_base)
                elif clock:
                    self._end = int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])
                elif container.duration and len(container.streams) == 1:
                    self._end = start + container.duration / 1_000_000
            self.frames = None if self._end is None else round((self._end - start) * audio.rate)
            if container.format.name == "ogg" and codec in ("vorbis", "opus", "flac"):  # Speex has no output format
                self.container, self.subtype = "OGG", codec.upper()

    def chunks(self, start: int = 0) -> Iterator[np.ndarray]:
        """Yield all samples from sample `start` on, in arrays (time, channels) of any length."""
        self.warning, self._damage = None, None
        self._first, self._last, self.timeline = math.inf, 0.0, []
        notes: list[str] = []
        frames = yield from skip(unify(self.path, self._pieces(), self.sample_rate, self.channels, notes), start)
        detail = f" (ffmpeg: {self._damage})" if self._damage else ""
        short = self._end is not None and max(self._last, frames / self.sample_rate) < self._end - SHORTFALL
        if not frames and (detail or short or self._cut):
            raise AudioError(f"{self.path} is damaged and cannot be decoded{detail}.")
        stated = round(self._end * self.sample_rate) if short and self._end is not None else None
        # Packets are missing in the middle.
        gap = self._timed and self.holes_count and self._last - self._first - frames / self.sample_rate > SHORTFALL
        damaged = self._cut or bool(detail) or gap
        sentences = [*notes, self._note or ""]
        self.warning = warn_of_loss(self.path, frames, self.sample_rate, stated, damaged, sentences, detail)

    def _pieces(self) -> Iterator[Piece]:
        """Yield unconverted samples with their rate, channels in the order of wav files."""
        import av

        with open_container(self.path, self._spans) as container:
            stream = _audio_stream(container, self.path, self.track)
            if (stream.rate, stream.channels) != (self.sample_rate, self.channels):
                raise AudioError(f"{self.path} changed while it was being read.")
            kind, resampler, position = None, av.AudioResampler("flt"), 0.0
            for frame in self._decode(container, stream):
                if kind != (kind := (frame.format.name, frame.layout.name, frame.sample_rate)):
                    resampler = av.AudioResampler("flt", frame.layout, frame.sample_rate)
                    count = frame.layout.nb_channels
                    names = [channel.name for channel in frame.layout.channels]
                    order = describe_layout(names)[1] if count != self.channels else self._order
                if frame.time is not None:
                    self._first = min(self._first, frame.time)
                    self._last = frame.time + frame.samples / frame.sample_rate
                    at, begin = self.timeline[-1] if self.timeline else (0, math.inf)
                    if self._timed and abs(begin + (position - at) / self.sample_rate - frame.time) > STEP:
                        self.timeline.append((round(position), frame.time))
                position += frame.samples * self.sample_rate / frame.sample_rate
                try:
                    parts = resampler.resample(frame)
                except av.error.FFmpegError as error:
                    raise AudioError(f"{self.path} cannot be decoded (ffmpeg: {ffmpeg_reason(error)}).") from None
                for part in parts:
                    samples = part.to_ndarray().reshape(-1, count)
                    yield frame.sample_rate, samples if order is None else samples[:, order]

    def _decode(self, container: Any, stream: Any) -> Iterator[Any]:
        """Yield decoded frames and skip packets that cannot be decoded."""
        import av

        began = False
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError as error:
                    # Before the first frame it is a tag, or the rest of a frame; flac ends with an empty packet in FLV.
                    if began and packet.size:
                        self._damage = self._damage or ffmpeg_reason(error)
                    continue
                began |= bool(frames)
                self._cut |= packet.is_corrupt  # it is cut, or others are missing
                yield from frames
        except av.error.FFmpegError as error:
            self._damage = self._damage or ffmpeg_reason(error)


def measure_bit_rate(path: Path) -> int | None:
    """Return the bits per second of the first audio stream: as its header states, else measured on packets."""
    import av

    with suppress(AudioError, ValueError, av.error.FFmpegError), open_container(path) as container:
        stream = container.streams.audio[0]
        nominal: int = stream.codec_context.bit_rate or 0
        if stream.codec_context.name.endswith("vorbis") and nominal > 0:
            return nominal
        packets = islice(container.demux(stream), MAX_PACKETS)
        sizes, ticks = zip(
            *[(each.size, each.duration) for each in packets if each.size and each.duration], strict=True
        )
        least = SAME_BITS * stream.rate * stream.channels if max(sizes) - min(sizes) > 1 else 0
        return round(max(8 * sum(sizes) / float(sum(ticks) * stream.time_base), least))
    return None


def pictures(path: Path, start: float = 0.0, seconds: float = 0.0, height: int = 256) -> Iterator[bytes]:
    """Yield one JPEG picture for each second of a part of a video.

    Args:
        path: the video.
        start: where the part begins, in seconds.
        seconds: its length; 0 means to the end.
        height: of the pictures, in pixels; the width keeps the aspect ratio.

    Raises:
        AudioError: if the file cannot be opened or decoded, or has no video stream.
    """
    import av

    with open_container(path) as container:
        if not container.streams.video:
            raise AudioError(f"{path} holds no pictures: there is no video stream in it.")
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        nodes = [graph.add_buffer(template=stream), graph.add("fps", "1"), graph.add("scale", f"-2:{height}")]
        graph.link_nodes(*nodes, graph.add("format", "yuvj420p"), graph.add("buffersink")).configure()
        if start:
            container.seek(round(start * av.time_base))
        origin = round(start / stream.time_base)
        last = origin + round(seconds / stream.time_base)
        try:
            for frame in container.decode(stream):
                if frame.pts is None or frame.pts < origin:
                    continue
                if seconds and frame.pts >= last:
                    break
                frame.pts -= origin
                graph.push(frame)
                yield from _pull_jpegs(graph)
            graph.push(None)
            yield from _pull_jpegs(graph)
        except av.error.FFmpegError as error:
            raise AudioError(f"{path} cannot be decoded (ffmpeg: {ffmpeg_reason(error)}).") from None


def _pull_jpegs(graph: Any) -> Iterator[bytes]:
    import av

    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        encoder: Any = av.CodecContext.create("mjpeg", "w")
        encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj420p"
        encoder.time_base = frame.time_base
        encoder.options = {"qmin": str(JPEG_SCALE), "qmax": str(JPEG_SCALE)}
        yield b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
