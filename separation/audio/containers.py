"""Audio and pictures in containers that libsndfile does not read (m4a, mp4, mkv, webm, ...), through PyAV.

A container can name other files or addresses, which FFmpeg would open. Only demuxers that read a single file are
allowed, and only the protocol "file"; playlists, scripts and network addresses are refused whatever the file's suffix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.errors import AudioError

if TYPE_CHECKING:
    import numpy as np

DEMUXERS = (
    "mov,matroska,avi,asf,flv,mpeg,mpegts,mxf,rm,nut,ogg,wav,w64,aiff,caf,au,voc,flac,mp3,aac,ac3,eac3,dts,dtshd,"
    "truehd,mlp,amr,amrnb,amrwb,ape,mpc,mpc8,tta,tak,wv,xwma,shn,dsf,iff,gsm,loas"
)
NO_LENGTH = frozenset({"aac", "ac3", "eac3", "dts", "amr", "amrnb", "amrwb", "loas", "mp3"})
"""Demuxers whose files have no header: FFmpeg guesses the length from the first bytes."""
SHORTFALL = 0.25  # seconds that may be missing at the end: encoders round lengths to whole frames
JPEG_SCALE = 3  # as ffmpeg's -q:v


def open_container(path: Path) -> Any:
    """Open a media file with PyAV.

    Raises:
        AudioError: if it cannot be opened or is not one of the allowed formats.
    """
    import av

    options = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
    try:
        return av.open(f"file:{path}", options=options, metadata_errors="ignore")
    except av.error.ArgumentError:  # not in the list of formats
        raise AudioError(f"{path} holds no audio that can be read (ffmpeg: its format is not supported).") from None
    except (av.error.FFmpegError, UnicodeError) as error:
        raise AudioError(f"{path} holds no audio that can be read (ffmpeg: {_strerror(error)}).") from None


def _strerror(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _audio_stream(container: Any, path: Path, index: int) -> Any:
    streams = container.streams.audio
    if not streams:
        raise AudioError(f"{path} holds no audio: there is no audio stream in it.")
    if index >= len(streams):
        raise AudioError(f"{path} has {len(streams)} audio streams; stream {index + 1} does not exist.")
    stream = streams[index]
    if stream.codec_context is None:
        raise AudioError(f"{path} holds no audio that can be read (ffmpeg: there is no decoder for it).")
    if not stream.channels:
        raise AudioError(f"{path} has zero channels, so there is no audio in it.")
    if not stream.rate:
        raise AudioError(f"{path} holds no audio that can be read (ffmpeg: the sample rate is unknown).")
    return stream


def _span(container: Any, stream: Any, exact: bool = False) -> tuple[float, float] | None:
    """Return when a stream starts and ends according to its header, in seconds; None if that does not say."""
    if container.format.name in NO_LENGTH and not exact:
        return None
    start = float((stream.start_time or 0) * stream.time_base)
    if stream.duration:
        return start, start + float(stream.duration * stream.time_base)
    # Matroska: 00:00:10.021000000
    clock = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return (start, int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])) if clock else None


def audio_seconds(path: Path) -> float | None:
    """Return the length of a container's first audio stream from its header, without decoding.

    The length of the whole container does not serve: its pictures may last longer.

    Raises:
        AudioError: if the file cannot be opened or has no audio.
    """
    with open_container(path) as container:
        span = _span(container, _audio_stream(container, path, 0))
        return None if span is None else span[1] - span[0]


class ContainerDecoder:
    """Decodes one audio stream of a file with PyAV; see `Reader` for the attributes.

    Args:
        path: the file.
        stream: which of its audio streams, from 0.
        exact: whether the header of an mp3 file states its length.

    Raises:
        AudioError: if the file cannot be opened or has no such stream.
    """

    def __init__(self, path: Path, stream: int = 0, exact: bool = False) -> None:
        self.path, self._index = path, stream
        self.warning: str | None = None
        self.container: str | None = None
        self.subtype: str | None = None
        with open_container(path) as container:
            audio = _audio_stream(container, path, stream)
            self.sample_rate: int = audio.rate
            self.channels: int = audio.channels
            span = _span(container, audio, exact)
            self._end = None if span is None else span[1]
            self.frames = None if span is None else round((span[1] - span[0]) * audio.rate)
            codec = audio.codec_context.name
            if container.format.name == "mp3":
                self.container, self.subtype = "MP3", "MPEG_LAYER_II" if codec.startswith("mp2") else "MPEG_LAYER_III"
            elif container.format.name == "ogg":
                self.container, self.subtype = "OGG", codec.upper()

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield all samples from the start, in arrays (time, channels) of any length."""
        import av

        self.warning = damage = None
        frames, end = 0, 0.0
        with open_container(self.path) as container:
            stream = _audio_stream(container, self.path, self._index)
            if (stream.rate, stream.channels) != (self.sample_rate, self.channels):
                raise AudioError(f"{self.path} changed while it was being read.")
            convert = _Converter(stream)
            try:
                for packet in container.demux(stream):
                    try:
                        decoded = packet.decode()
                    except av.error.FFmpegError as error:  # not audio (a tag, junk at either end), or damaged
                        damage = damage or (_strerror(error) if frames else None)
                        continue
                    for frame in decoded:
                        end = frame.time + frame.samples / frame.sample_rate if frame.time is not None else end
                        for samples in convert(frame):
                            frames += len(samples)
                            yield samples
            except av.error.FFmpegError as error:
                damage = damage or _strerror(error)
            for samples in convert(None):
                frames += len(samples)
                yield samples
        if not frames and damage:
            raise AudioError(f"{self.path} is damaged and cannot be decoded (ffmpeg: {damage}).")
        seconds = frames / self.sample_rate
        if damage or (self._end is not None and max(end, seconds) < self._end - SHORTFALL):
            reason = f" (ffmpeg: {damage})" if damage else ""
            of = f" of {self._end:.3f} s" if self._end is not None and seconds < self._end - SHORTFALL else ""
            there = f"only {seconds:.3f} s{of} can be read and are used."
            self.warning = f"{self.path} is cut short or damaged{reason}: {there}"


class _Converter:
    """Converts decoded frames to float32 (time, channels) at the rate and channel layout of their stream.

    A stream may change both on its way, for example where two recordings were joined.
    """

    def __init__(self, stream: Any) -> None:
        self.layout, self.rate, self.channels = stream.layout, stream.rate, stream.channels
        self.kind: tuple[Any, ...] | None = None
        self.resampler: Any = None

    def __call__(self, frame: Any) -> list[np.ndarray]:
        """Convert one frame; None returns what is still held back."""
        import av

        converted: list[Any] = []
        kind = None if frame is None else (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self.kind:
            converted += [] if self.resampler is None else self.resampler.resample(None)
            self.kind, self.resampler = kind, av.AudioResampler("flt", self.layout, self.rate)
        if frame is not None:
            converted += self.resampler.resample(frame)
        return [part.to_ndarray().reshape(-1, self.channels) for part in converted]


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
            raise AudioError(f"{path} cannot be decoded (ffmpeg: {_strerror(error)}).") from None


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
