"""Small media files, written with PyAV so that no test needs a program."""

from fractions import Fraction

import av
import numpy as np


def tone(hertz, seconds, sample_rate, channels=1):
    """A sine (channels, time), float32."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return np.tile(0.3 * np.sin(2 * np.pi * hertz * time), (channels, 1)).astype(np.float32)


def save_media(path, sounds=(), sample_rate=44100, codec=None, seconds_of_pictures=0.0, picture=None, **options):
    """Write a container with one audio stream for each of `sounds` (channels, time), and pictures.

    Args:
        path: its suffix chooses the container.
        sounds: waveforms.
        sample_rate: of all of them.
        codec: of all of them; None: the container's default.
        seconds_of_pictures: length of the video stream, 10 pictures per second; 0 for none.
        picture: gives the grey level of the picture at a time in seconds.
        options: of the container.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={name: str(value) for name, value in options.items()}) as container:
        codec = codec or container.default_audio_codec
        layouts = {1: "mono", 2: "stereo", 3: "3.0"}
        streams = [container.add_stream(codec, rate=sample_rate, layout=layouts[len(sound)]) for sound in sounds]
        video = container.add_stream("mpeg4", rate=10, width=64, height=48) if seconds_of_pictures else None
        for number in range(round(10 * seconds_of_pictures)):
            level = picture(number / 10) if picture else 0
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        for stream, sound in zip(streams, sounds, strict=True):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=stream.layout.name)
            frame.sample_rate, frame.time_base, frame.pts = sample_rate, Fraction(1, sample_rate), 0
            container.mux(stream.encode(frame))
        for stream in [*streams, *([video] if video else [])]:
            container.mux(stream.encode(None))
    return path
