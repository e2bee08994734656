"""Films whose sound is replaced: pictures and all else stay, sound and picture stay in step."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from gains import GainSeparator, run
from media import save_media, tone
from tiny import tiny_separator

from separation.audio import Reader
from separation.audio.remux import plan_film

RATE = 48000
QUARTER_TURN = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)


def files():
    return sorted(path.name for path in Path().iterdir())


def clicks(seconds, *times, rate=RATE, channels=1):
    """Silence (channels, time) with a millisecond of sound at some times."""
    sound = np.zeros((channels, round(seconds * rate)), np.float32)
    for time in times:
        sound[:, round(time * rate) : round((time + 0.001) * rate)] = 0.8
    return sound


def save_film(
    path, parts, codec="aac", rate=RATE, pictures=30, video="mpeg4", tracks=(), tags=(), extras=False, timecode=None
):
    """Write a film of 10 pictures per second, where `parts` are (time, sound) of its first track; with a B-frame codec
    if `video` has one. `tracks` are the languages of all tracks; the last one is marked default. `extras`: subtitles
    and chapters.
    """
    with av.open(str(path), "w") as film:
        film.metadata.update(dict(tags))
        stream = film.add_stream(video, rate=10, width=64, height=48) if pictures else None
        if stream and video in ("mpeg4", "mpeg2video"):
            stream.codec_context.options = {"bf": "2"} if path.suffix != ".avi" else {}
        if timecode:
            stream.metadata["timecode"] = timecode
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(parts[0][1])]
        sounds = [film.add_stream(codec, rate=rate, layout=layout, bit_rate=96000) for _ in tracks or [""]]
        for number, (sound, language) in enumerate(zip(sounds, tracks, strict=False)):
            sound.metadata["language"] = language
            sound.disposition = int(number == len(tracks) - 1)
        if extras:
            with av.open(subtitles(path), format="srt") as text:
                copy = (
                    film.add_stream_from_template(text.streams[0])
                    if path.suffix == ".mkv"
                    else film.add_mux_stream("mov_text")
                )
                copy.metadata["language"] = "fra"
                lines = [packet for packet in text.demux() if packet.size]
            film.set_chapters([
                {"id": 1, "start": 0, "end": 1000, "time_base": Fraction(1, 1000), "metadata": {"title": "Begin"}},
                {"id": 2, "start": 1000, "end": 3000, "time_base": Fraction(1, 1000), "metadata": {"title": "End"}},
            ])  # fmt: skip
        for number in range(pictures):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * number, np.uint8), format="rgb24")
            frame.pts = number
            film.mux(stream.encode(frame))
        if stream:
            film.mux(stream.encode(None))
        for number, sound in enumerate(sounds):
            for time, wave in parts:
                frame = av.AudioFrame.from_ndarray(wave / (number + 1), format="fltp", layout=layout)
                frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(time * rate)
                film.mux(sound.encode(frame))
            film.mux(sound.encode(None))
        if extras:
            for packet in lines:
                text = bytes(packet)
                made = av.Packet(text if path.suffix == ".mkv" else struct.pack(">H", len(text)) + text)
                made.pts = made.dts = packet.pts
                made.duration, made.time_base, made.stream = packet.duration, packet.time_base, copy
                film.mux(made)
    return path


def subtitles(path):
    file = path.with_suffix(".srt")
    file.write_text("1\n00:00:00,500 --> 00:00:01,000\nHello\n\n2\n00:00:02,000 --> 00:00:02,500\nagain\n")
    return str(file)


def packets(path, kind="video", number=0):
    """(time, bytes) of the packets of a stream."""
    with av.open(str(path)) as film:
        stream = film.streams.get({kind: number})[0]
        return [(packet.pts and float(packet.pts * packet.time_base), bytes(packet))
                for packet in film.demux(stream) if packet.size]  # fmt: skip


def heard(path, track=0):
    """Times of clicks in seconds, on the film's clock."""
    times = []
    with av.open(str(path)) as film:
        for frame in film.decode(film.streams.audio[track]):
            resampled = av.AudioResampler("fltp").resample(frame)[0].to_ndarray()
            for sample in np.flatnonzero(np.abs(resampled).max(axis=0) > 0.2):
                time = frame.time + sample / frame.sample_rate
                if not times or time > times[-1] + 0.1:
                    times.append(time)
    return times


FILMS = [
    ("mp4", "aac", "mpeg4", RATE),
    ("mov", "pcm_s16le", "mpeg4", 44100),
    ("m4v", "aac", "mpeg4", 44100),
    ("mkv", "aac", "mpeg4", 44100),
    ("mkv", "flac", "mpeg4", 96000),
    ("webm", "libopus", "libvpx", RATE),
    ("avi", "libmp3lame", "mpeg4", 44100),
    ("ts", "aac", "mpeg2video", RATE),
    ("flv", "aac", "flv", 44100),
    ("mpg", "mp2", "mpeg2video", 44100),
    ("wmv", "wmav2", "wmv2", 44100),
]


@pytest.mark.parametrize(("suffix", "codec", "video", "rate"), FILMS)
def test_pictures_are_copied_and_clicks_stay(folder, suffix, codec, video, rate):
    film = save_film(Path(f"film.{suffix}"), [(0, clicks(3, 0.5, 2.5, rate=rate))], codec, rate, video=video)
    before = film.read_bytes()
    assert run("--remove", "quarter", film) == 0
    assert files() == sorted([film.name, f"film.not_quarter.{suffix}"])
    out = Path(f"film.not_quarter.{suffix}")
    assert film.read_bytes() == before
    assert [data for _, data in packets(out)] == [data for _, data in packets(film)]
    shift = packets(out)[0][0] - packets(film)[0][0]
    assert np.abs(np.subtract(heard(out), heard(film)) - shift).max() < 0.01
    counts = [sum(block.shape[1] for block in Reader(path).blocks()) for path in (film, out)]
    assert abs(counts[1] - counts[0]) < 5000


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_late_sound_holes_and_an_early_end_stay_in_step(folder, capsys, suffix):
    parts = [(0.73, clicks(0.5, 0.2)), (1.61, clicks(0.8, 0.3))]
    film = save_film(Path(f"film.{suffix}"), parts, "aac", video="mpeg2video")
    assert run("--remove", "quarter", film) == 0
    out = f"film.not_quarter.{suffix}"
    for path, tolerance in ((film, 0.005), (out, 0.01)):
        assert np.subtract(heard(path), packets(film)[0][0]) == pytest.approx([0.93, 1.91], abs=tolerance)
    assert packets(out) == packets(film)
    assert capsys.readouterr().err == ""  # a hole that is filled is no loss
    assert run("--remove", "quarter", "--sound-only", film) == 0
    assert "only 1." in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_subtitles_chapters_tags_and_rotation_stay(folder, capsys, suffix):
    tags = {"title": "Holiday", "artist": "Somebody", "comment": "by the sea"}
    film = save_film(Path(f"film.{suffix}"), [(0, clicks(3, 1))], tags=tags, extras=True)
    if suffix == "mp4":
        data = bytearray(film.read_bytes())
        at = data.index(b"tkhd") + 44
        data[at : at + 36] = QUARTER_TURN
        film.write_bytes(data)
    assert run("--gain", "quarter=-6", film) == 0
    assert "cannot be kept" not in capsys.readouterr().err
    out = Path(f"film.remix.{suffix}")
    assert packets(out, "subtitles") == packets(film, "subtitles")
    with av.open(str(film)) as old, av.open(str(out)) as new:
        carried = {name.lower(): text for name, text in new.metadata.items()}
        for name, text in tags.items():
            assert carried[name] == text + (" (quarter -6 dB)" if name == "title" else "")
        ends = [
            [(each["start"] * each["time_base"], each["metadata"]["title"]) for each in file.chapters()]
            for file in (old, new)
        ]
        assert ends[0] == ends[1] and len(ends[0]) == 2
        assert new.streams.subtitles[0].language == old.streams.subtitles[0].language == "fra"
        turns = [next(file.decode(video=0)).rotation for file in (old, new)]
        assert turns[0] == turns[1] != (0 if suffix == "mp4" else 1)


def test_tracks(folder, capsys):
    film = save_film(Path("film.mkv"), [(0, clicks(3, 1))], tracks=("eng", "deu"), codec="flac")
    assert run("--remove", "quarter", film) == 0
    assert "film.mkv: used audio track 2 of 2 (eng, deu); --track chooses another." in capsys.readouterr().err
    assert packets("film.not_quarter.mkv", "audio") == packets(film, "audio")
    assert packets("film.not_quarter.mkv", "audio", 1) != packets(film, "audio", 1)
    for track in ("1", "eng"):
        assert run("--remove", "quarter", film, "--track", track, "--overwrite") == 0
        assert packets("film.not_quarter.mkv", "audio", 1) == packets(film, "audio", 1)
        with av.open("film.not_quarter.mkv") as out:
            assert [each.language for each in out.streams.audio] == ["eng", "deu"]
            assert [bool(each.disposition & 1) for each in out.streams.audio] == [False, True]
            peak = max(np.abs(frame.to_ndarray()).max() for frame in out.decode(out.streams.audio[0]))
            assert peak / 2**31 == pytest.approx(0.6, abs=0.001)
    capsys.readouterr()
    for track, words in (
        ("3", "film.mkv has 2 audio streams; stream 3 does not exist."),
        ("fra", "no audio track in 'fra'"),
    ):
        assert run("--remove", "quarter", film, "--track", track) == 1
        assert words in capsys.readouterr().err


def test_a_query_writes_sound_only_and_so_does_the_option(folder):
    film = save_film(Path("film.mp4"), [(0, clicks(1, 0.5))], pictures=10)
    assert run("--query", "half", "--residual", film) == 0
    assert run("--remove", "quarter", "--sound-only", film) == 0
    assert run("--remove", "three", "--format", "flac", film) == 0
    assert files() == ["film.half.wav", "film.mp4", "film.not_half.wav", "film.not_quarter.wav", "film.not_three.flac"]


def test_m4a_stays_m4a(folder):
    path = save_media(Path("talk.m4a"), [tone(440, 1, RATE, 2)], RATE)
    assert run("--query", "half", path, "--bitrate", "96k") == 0
    assert run("--remove", "quarter", path) == 0
    assert files() == ["talk.half.m4a", "talk.m4a", "talk.not_quarter.m4a"]
    for name, share in (("half", 0.5), ("not_quarter", 0.75)):
        with av.open(f"talk.{name}.m4a") as file:
            wave = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)[:, :RATE]
            rate = file.streams.audio[0].codec_context.bit_rate
        assert np.abs(wave).max() == pytest.approx(0.3 * share, rel=0.1)
        assert rate < 110_000 if name == "half" else rate > 110_000


def test_what_cannot_be_written_is_said_before_the_separation(folder, capsys, monkeypatch):
    film = save_film(Path("film.mkv"), [(0, clicks(1, 0.5))], pictures=10).rename("film.rm")
    monkeypatch.setattr(GainSeparator, "separate_file", lambda *_, **__: pytest.fail("too late"))
    assert run("--remove", "quarter", film) == 1
    assert "film.rm can be read, but files of this kind cannot be written: --sound-only" in capsys.readouterr().err
    save_film(Path("film.avi"), [(0, clicks(1, 0.5))], "pcm_s16le", pictures=10).rename("film.webm")
    assert run("--remove", "quarter", "film.webm") == 1
    assert "film.webm cannot be written with another sound" in (err := capsys.readouterr().err)
    assert "--sound-only writes its sound." in err
    assert files() == ["film.rm", "film.webm"]


def test_surround_sound_keeps_its_layout(folder):
    wave = clicks(1, 0.5, channels=6) * np.array([1, 0.9, 0.8, 0, 0.6, 0.5], np.float32)[:, None]
    for suffix, codec in (("mp4", "aac"), ("mkv", "flac"), ("mkv", "ac3")):
        film = save_film(Path(f"{codec}.{suffix}"), [(0, wave)], codec, pictures=10)
        assert run("--remove", "quarter", film) == 0
        old, new = Reader(film), Reader(f"{codec}.not_quarter.{suffix}")
        assert (new.channels, new.channel_mask.bit_count()) == (6, 6)
        levels = [next(each.blocks()).square().sum(1) for each in (old, new)]
        assert levels[1][[0, 1, 2, 4, 5]] / levels[0][[0, 1, 2, 4, 5]] == pytest.approx([0.5625] * 5, rel=0.15)


def test_the_encoder_follows_the_input(folder):
    for name, codec, expected in (
        ("a.mkv", "flac", "flac"),
        ("b.mkv", "libopus", "libopus"),
        ("c.mkv", "vorbis", "flac"),
    ):
        if codec != "vorbis":
            path = save_media(Path(name), [tone(440, 0.5, RATE, 2)], RATE, codec, 0.5)
            assert plan_film(Reader(path), name).codec == expected


def save_cover(path, muxer="mp4"):
    """Write a second of sound with a tag and a picture of the cover, which the test gets back."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 16, 16, "yuvj420p", Fraction(1, 10)
    picture = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 90, np.uint8), format="rgb24").reformat(format="yuvj420p")
    picture.pts = 0
    data = b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])
    with av.open(str(path), "w", format=muxer) as file:
        file.metadata.update(title="Song", artist="Somebody", track="3/9")
        sound = file.add_stream("aac", rate=44100, layout="stereo")
        if muxer == "matroska":
            file.add_attachment("cover.jpg", "image/jpeg", data)
            file.add_attachment("letters.ttf", "font/ttf", b"letters" * 9)
        else:
            cover = file.add_mux_stream("mjpeg", width=16, height=16)
            cover.disposition = 1024
            packet = av.Packet(data)
            packet.pts, packet.dts, packet.time_base, packet.stream = 0, 0, Fraction(1, 1000), cover
            file.mux(packet)
        frame = av.AudioFrame.from_ndarray(tone(440, 1, 44100, 2), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 44100, 0
        file.mux([*sound.encode(frame), *sound.encode(None)])
    return data


@pytest.mark.parametrize(("name", "muxer"), [("song.m4a", "mp4"), ("song.mka", "matroska")])
def test_covers_and_tags_of_music_stay(folder, name, muxer):
    data = save_cover(Path(name), muxer)
    assert run("--query", "half", name) == 0
    with av.open(str(Path(name).with_suffix(".half" + Path(name).suffix))) as file:
        tags = {key.lower(): text for key, text in file.metadata.items()}
        assert (tags["title"], tags["artist"], tags["track"]) == ("Song (half)", "Somebody", "3/9")
        [cover] = file.streams.video
        assert cover.disposition & 1024
        assert muxer == "mp4" or [each.metadata["filename"] for each in file.streams.attachments] == ["letters.ttf"]
        assert muxer == "matroska" or tags["major_brand"] == "M4A "
        assert bytes(next(file.demux(cover))) == data


@pytest.mark.parametrize("suffix", ["mov", "mp4"])
def test_timecodes_are_kept(folder, capsys, suffix):
    film = save_film(Path(f"film.{suffix}"), [(0, clicks(1, 0.5))], pictures=10, timecode="01:00:00:03")
    assert run("--remove", "quarter", film) == 0
    assert capsys.readouterr().err == ""
    out = f"film.not_quarter.{suffix}"
    assert packets(out) == packets(film)
    assert packets(out, "data") == packets(film, "data") != []
    with av.open(out) as file:
        assert file.streams.video[0].metadata["timecode"] == file.streams.data[0].metadata["timecode"] == "01:00:00:3"


def test_python_writes_films_too(folder):
    film = save_film(Path("film.mp4"), [(0, clicks(1, 0.5))], pictures=10)
    separator = tiny_separator()
    assert separator.separate_file(film, remove=["quarter"], output="out").outputs == [Path("out/film.without.mp4")]
    separator.separate_file(film, remove=["quarter"], output="clean.mp4")
    assert packets("clean.mp4") == packets("out/film.without.mp4") == packets(film)
    assert separator.separate_file(film, "half", output="out").outputs == [Path("out/film.half.wav")]
    with pytest.raises(ValueError, match=r"half\.mp4 would hold sound only"):
        separator.separate_file(film, "half", output="half.mp4")
    assert not Path("half.mp4").exists()
