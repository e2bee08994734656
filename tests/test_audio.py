"""Reading, writing and resampling with real files.

`python tests/test_audio.py > tests/frozen/audio.json` records what must not change.
"""

import base64
import errno
import json
import os
import stat
import struct
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from media import save_media, tone

from separation.audio import (
    AudioError,
    Reader,
    Writer,
    as_rate,
    as_waveform,
    high_pass,
    read,
    reading,
    resample,
    write,
    writing,
)
from separation.audio.formats import natural_format
from separation.audio.writing import PendingFile, commit

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
ROOT = Path(__file__).resolve().parents[1]
FROZEN = ROOT / "tests" / "frozen" / "audio.json"


def noise(frames, channels=2, seed=0, level=0.1):
    return torch.from_numpy(level * np.random.default_rng(seed).standard_normal((channels, frames)).astype(np.float32))


def save(path, waveform, sample_rate=44100, **options):
    soundfile.write(path, waveform.T.numpy(), sample_rate, **options)
    return path


def blocks(path, seconds=10.0):
    """All samples of a file, and the warning about it."""
    reader = Reader(path)
    return torch.cat(list(reader.blocks(seconds)), dim=1), reader.warning


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def refuse_to(number):
    """A function in place of `open` that fails with an error of the system."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


# What must not change


def observe(folder):
    """What is written, read back and resampled: kinds, shapes, and projections of the samples."""

    def figures(waveform):
        values = waveform.double().numpy()
        probe = np.cos(np.arange(values.shape[1]) ** 1.1)
        return [*values.shape, *(float(v) for v in values @ probe), *(float(v) for v in np.square(values).sum(1))]

    wave, seen = 3 * noise(20011) + torch.from_numpy(tone(700, 20011 / 48000, 48000, 2)), {}
    for name, subtype in [
        *(("wav", kind) for kind in (None, "PCM_16", "24", "PCM_U8", "DOUBLE")),
        *(("flac", kind) for kind in (None, "16")),
        *((name, None) for name in ("ogg", "opus", "mp3", "aiff", "caf", "w64")),
    ]:
        path = Path(folder) / f"{name}-{subtype}.{name}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(path, wave, 48000, subtype=subtype)
        reader = Reader(path)
        kind = [reader.sample_rate, reader.channels, reader.frames, reader.container, reader.subtype]
        seen[path.name] = kind + figures(read(path)[0])
    for target in (8000, 44100, 96000):
        seen[f"resampled to {target}"] = figures(resample(wave, 48000, target))
    return seen


def test_nothing_changed(tmp_path):
    frozen = json.loads(FROZEN.read_text())
    seen = observe(tmp_path)
    assert seen.keys() == frozen.keys()
    for name, values in frozen.items():
        for new, old in zip(seen[name], values, strict=True):
            assert new == (pytest.approx(old, rel=1e-4, abs=2e-3) if isinstance(old, float) else old), name


# Reading


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("frames", [1, 2, 4410, 50001])
def test_blocks_are_the_file_at_any_length(tmp_path, channels, frames):
    waveform = noise(frames, channels)
    path = save(tmp_path / "a.wav", waveform, subtype="FLOAT")
    with Reader(path) as reader:
        assert (reader.sample_rate, reader.channels, reader.frames) == (44100, channels, frames)
        for seconds in (0.1, 1.0, 0.37):
            pieces = list(reader.blocks(seconds))
            assert {piece.shape[1] for piece in pieces[:-1]} <= {round(seconds * 44100)}
            assert pieces[0].dtype == torch.float32
            assert torch.equal(torch.cat(pieces, dim=1), waveform)
        assert reader.warning is None


@pytest.mark.parametrize("name", ["a.m4a", "a.mkv", "a.webm", "-i http:odd;$(x).mp4", "a.avi", "a.aac", "a.ts"])
def test_containers_are_read_without_a_program(tmp_path, monkeypatch, name):
    monkeypatch.setenv("PATH", str(tmp_path))
    video = 0.0 if name in ("a.m4a", "a.aac", "a.webm") else 3.0
    path = save_media(tmp_path / name, [tone(440, 2.0, 48000, 2)], 48000, seconds_of_pictures=video)
    reader = Reader(path)
    assert (reader.sample_rate, reader.channels, reader.container) == (48000, 2, None)
    assert reader.frames is None or reader.frames == pytest.approx(96000, abs=6000)
    for _ in range(2):
        wave, warning = blocks(path, 0.5)
        assert warning is None
        assert wave.shape[1] == pytest.approx(96000, abs=6000)
        spectrum = np.abs(np.fft.rfft(wave[1, 24000:72000]))
        assert spectrum.argmax() == 440
    next(reader.blocks(0.5))  # a reader that stops early


@pytest.mark.parametrize(("codec", "tolerance"), [("pcm_f32le", 0.0), ("pcm_s24le", 2e-7), ("pcm_s16le", 2e-5)])
def test_samples_in_containers_are_exact(tmp_path, codec, tolerance):
    wave = noise(70001, 3)
    path = save_media(tmp_path / "a.mkv", [wave.numpy()], 22050, codec)
    result, rate = read(path)
    assert (rate, result.shape) == (22050, wave.shape)
    assert (result - wave).abs().max() <= tolerance


def test_each_stream_of_a_container_can_be_read(tmp_path):
    waves = [tone(hertz, 0.5, 8000) for hertz in (200, 400, 800)]
    path = save_media(tmp_path / "a.mkv", waves, 8000, "pcm_f32le")
    for number, wave in enumerate(waves):
        assert np.array_equal(next(Reader(path, stream=number).blocks()).numpy(), wave)
    with pytest.raises(AudioError, match=r"a\.mkv has 3 audio streams; stream 4 does not exist\."):
        Reader(path, stream=3)


def test_mp3_files_are_read_to_their_end(tmp_path):
    """libsndfile takes the length from a header: without one it guesses, of several files it reads the first."""
    bare = save_media(tmp_path / "a.mp3", [tone(440, 2.0, 44100)], write_xing=0, id3v2_version=0)
    assert Reader(bare).frames is None
    assert blocks(bare)[0].shape[1] == pytest.approx(88200, abs=3000)
    cover = b"ID3\x03\0\0\0\0\x3e\0" + bytes(62 * 128)
    junk = b"TAG" + b"title".ljust(125, b"\0")
    (tmp_path / "b.mp3").write_bytes(2 * (cover + bare.read_bytes() + junk))
    (tmp_path / "c").write_bytes((tmp_path / "b.mp3").read_bytes())
    for name in ("b.mp3", "c"):
        wave, warning = blocks(tmp_path / name)
        assert warning is None
        assert wave.shape[1] == pytest.approx(2 * 88200, abs=6000)
        assert (Reader(tmp_path / name).container, Reader(tmp_path / name).subtype) == ("MP3", "MPEG_LAYER_III")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_ogg_files_are_read_to_their_end(tmp_path, subtype):
    parts = [save(tmp_path / f"{n}.ogg", noise(48000, seed=n), 48000, subtype=subtype).read_bytes() for n in (1, 2)]
    (tmp_path / "a.ogg").write_bytes(b"".join(parts))
    wave, warning = blocks(tmp_path / "a.ogg")
    assert warning is None
    assert wave.shape == (2, pytest.approx(96000, abs=1000))
    assert (Reader(tmp_path / "a.ogg").container, Reader(tmp_path / "a.ogg").subtype) == ("OGG", subtype)
    second = blocks(tmp_path / "2.ogg")[0]
    assert (wave[:, -20000:-5000] - second[:, -20000:-5000]).abs().max() < 0.1


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{path}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="0" mimeType="audio/mp4"><BaseURL>{path}</BaseURL></Representation></AdaptationSet></Period>'
    "</MPD>",
}


@posix
@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", ["mp4", "mp3", "m3u8", "wav"])
def test_playlists_open_nothing(tmp_path, kind, suffix):
    canary = save_media(tmp_path / "canary.ts", [tone(440, 1.0, 44100)])
    os.utime(canary, ns=(0, 0))  # an access time older than the change, so that relatime records an access
    before = canary.stat().st_atime_ns
    path = tmp_path / f"list.{suffix}"
    path.write_text(PLAYLISTS[kind].format(path=canary))
    with pytest.raises(AudioError, match=r"list\.\w+ (holds no audio|is damaged or not audio)"):
        Reader(path)
    assert canary.stat().st_atime_ns == before


def test_files_that_are_not_audio_are_one_sentence(tmp_path, monkeypatch, capfd):
    text = "hello\n" * 100
    expected = {
        "gone.wav": r"gone\.wav does not exist\.$",
        "folder": r"folder is a folder, not an audio file\.$",
        "empty.wav": r"empty\.wav is empty: it has 0 bytes\.$",
        "text.wav": r"text\.wav is damaged or not audio: it cannot be read as \.wav \(.*\)\.$",
        "text.mp3": r"text\.mp3 holds no audio that can be read \(ffmpeg: .*\)\.$",
        "text.m4a": r"text\.m4a holds no audio that can be read \(ffmpeg: .*\)\.$",
        "a.raw": r"a\.raw holds no audio that can be read",
        "a": r"a holds no audio that can be read",
        "film.mkv": r"film\.mkv holds no audio: there is no audio stream in it\.$",
        "PCM_16.wav": r"PCM_16\.wav has zero channels, so there is no audio in it\.$",
        "FLOAT.wav": r"FLOAT\.wav has zero channels, so there is no audio in it\.$",
    }
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.wav").touch()
    for name in ("text.wav", "text.mp3", "text.m4a", "a.raw", "a"):
        (tmp_path / name).write_text(text)
    save_media(tmp_path / "film.mkv", seconds_of_pictures=1.0)
    for subtype in ("PCM_16", "FLOAT"):
        data = bytearray(save(tmp_path / "a.wav", noise(100), subtype=subtype).read_bytes())
        data[22:24] = b"\0\0"
        (tmp_path / f"{subtype}.wav").write_bytes(data)
    capfd.readouterr()
    for name, words in expected.items():
        with pytest.raises(AudioError, match=words):
            Reader(tmp_path / name)
    with pytest.raises(AudioError, match=r"zero\.wav holds no audio: its length is zero\.$"):
        blocks(save(tmp_path / "zero.wav", torch.zeros(2, 0)))
    assert capfd.readouterr() == ("", "")  # the libraries print nothing
    monkeypatch.setattr(reading, "open", refuse_to(errno.EACCES), raising=False)
    with pytest.raises(AudioError, match=r"zero\.wav cannot be read: permission denied\.$"):
        Reader(tmp_path / "zero.wav")


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
@pytest.mark.parametrize("suffix", ["wav", "mkv"])
def test_the_first_bad_sample_is_named(tmp_path, value, word, suffix):
    waveform = noise(50000)
    waveform[1, 22050] = value
    waveform[0, 30000] = value
    path = save_media(tmp_path / f"a.{suffix}", [waveform.numpy()], 44100, "pcm_f32le")
    for seconds in (0.1, 10.0):
        with pytest.raises(AudioError, match=rf"{word}.* at 0\.500000 s, channel 2"):
            blocks(path, seconds)


@pytest.mark.parametrize("suffix", ["wav", "16.wav", "flac", "ogg", "mp3", "aiff", "w64", "m4a", "mkv", "webm"])
def test_a_truncated_file_gives_its_beginning_and_a_warning(tmp_path, suffix):
    waveform = noise(96000)
    path = tmp_path / f"a.{suffix}"
    if suffix in ("m4a", "mkv", "webm"):
        save_media(path, [waveform.numpy()], 48000, movflags="+faststart" if suffix == "m4a" else "")
    else:
        save(path, waveform, subtype={"wav": "FLOAT", "16.wav": "PCM_16"}.get(suffix))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    reader = Reader(path)
    for _ in range(2):
        got = torch.cat(list(reader.blocks()), dim=1)
        assert 36000 < got.shape[1] < 72000
        assert f"a.{suffix} is cut short or damaged" in str(reader.warning)
    if suffix in ("wav", "16.wav", "w64"):
        assert (got - waveform[:, : got.shape[1]]).abs().max() < 4e-5
    with pytest.warns(UserWarning, match="cut short"):
        read(path)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF - 36])
def test_a_wav_that_was_written_into_a_pipe_is_not_called_truncated(tmp_path, size):
    path = save(tmp_path / "a.wav", noise(1000), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data")
    data[at + 4 : at + 8] = struct.pack("<I", size)
    path.write_bytes(data)
    wave, warning = blocks(path)
    assert (tuple(wave.shape), warning) == ((2, 1000), None)


@posix
def test_names_in_any_encoding_are_read(tmp_path):
    for suffix in ("wav", "mkv"):
        path = save_media(tmp_path / f"a.{suffix}", [tone(440, 0.1, 8000)], 8000, "pcm_f32le")
        odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff." + suffix.encode()))
        assert read(path.rename(odd))[0].shape == (1, 800)


# Writing


@pytest.mark.parametrize("frames", [0, 1, 16384, 50000])
def test_float_wav_comes_back_bit_for_bit(tmp_path, frames):
    waveform = noise(frames, 2, level=3.0)
    write(tmp_path / "a.wav", waveform, 44100)
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.format, info.subtype, info.frames) == ("WAV", "FLOAT", frames)
    back = soundfile.read(tmp_path / "a.wav", dtype="float32", always_2d=True)[0]
    assert np.array_equal(back.T, waveform.numpy())
    assert leftovers(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("kind", [torch.tensor, np.float64, np.float32, np.int16, ">f4"])
@pytest.mark.parametrize("channels", [None, 1, 2])
def test_arrays_and_tensors_of_any_type_are_written(tmp_path, kind, channels):
    samples = np.array([[0.0, 0.25, -0.5, 0.125]] * (channels or 1), np.float32)[() if channels else 0]
    given = kind(samples) if kind is torch.tensor else (samples * (1 << 15 if kind is np.int16 else 1)).astype(kind)
    write(tmp_path / "a.wav", given, 8000)
    assert np.array_equal(read(tmp_path / "a.wav")[0], np.atleast_2d(samples))


@pytest.mark.parametrize(
    ("name", "subtype", "bits"),
    [
        ("a.wav", "PCM_16", 16), ("a.wav", "PCM_24", 24), ("a.wav", "PCM_U8", 8),
        ("a.flac", "PCM_16", 16), ("a.flac", None, 24), ("a.aiff", "PCM_24", 24),
    ],
)  # fmt: skip
def test_integers_are_rounded_to_nearest_and_come_back_exactly(tmp_path, name, subtype, bits):
    full = 2 ** (bits - 1)
    steps = torch.randint(-full, full, (2, 30000), generator=torch.Generator().manual_seed(1))
    exact = steps.double() / full
    write(tmp_path / name, (exact + 0.4 / full).float(), 44100, subtype=subtype)
    back = soundfile.read(tmp_path / name, dtype="float64")[0].T
    # float32 itself has 24 bits, so that a step near full scale may move by half of one there.
    assert np.abs(back - exact.numpy()).max() <= (1.01 / full if bits == 24 else 0.0)


def test_over_full_scale_is_turned_down_not_clipped(tmp_path):
    waveform = noise(1000, 2)
    waveform[0, 500] = -2.5
    with pytest.warns(UserWarning, match=r"turned down by a factor of 0\.400") as caught:
        write(tmp_path / "a.flac", waveform, 44100)
    assert caught[0].filename == __file__
    with Writer(tmp_path / "b.flac", 44100, 2) as writer:
        writer.write(waveform)
        assert (writer.limited, writer.peak) == (True, 2.5)
        writer.gain = 0.25
    for name, gain in (("a.flac", 0.4), ("b.flac", 0.25)):
        back = soundfile.read(tmp_path / name, dtype="float32")[0].T
        assert np.abs(back - gain * waveform.numpy()).max() < 1e-6


LOSSY = [("a.ogg", 44100), ("a.opus", 48000), ("a.opus", 16000), ("a.mp3", 22050), ("a.mp3", 44100)]


@pytest.mark.parametrize(("name", "rate"), LOSSY)
def test_lossy_formats_keep_length_and_sound_without_seams(tmp_path, name, rate):
    """soundfile alone restarts the Opus decoder at every block."""
    waveform = torch.from_numpy(tone(440, 3 + 17 / rate, rate, 2))
    write(tmp_path / name, waveform, rate)
    back, got = read(tmp_path / name)
    assert (got, back.shape) == (rate, waveform.shape)
    assert (back - waveform)[:, rate // 10 : -rate // 10].abs().max() < 0.02


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_a_file_appears_at_the_end_or_not_at_all(tmp_path, name):
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path / name, 44100, 2) as writer:
        writer.write(noise(100000))
        raise KeyboardInterrupt
    assert leftovers(tmp_path) == []
    with Writer(tmp_path / name, 44100, 2) as writer:
        writer.write(noise(1000))
        assert not (tmp_path / name).exists()
    assert leftovers(tmp_path) == [name]
    assert soundfile.info(tmp_path / name).frames == 1000


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path):
    path = tmp_path / "a.wav"
    path.write_text("mine")
    with pytest.raises(AudioError, match=r"a\.wav exists already; --overwrite"):
        write(path, noise(10), 44100)
    assert path.read_text() == "mine"
    write(path, noise(10), 44100, overwrite=True)
    assert soundfile.info(path).frames == 10
    path.unlink()
    with pytest.raises(AudioError, match="exists already"), Writer(path, 8000, 1) as writer:
        writer.write(noise(10, 1))
        path.write_text("mine")  # it appears meanwhile
    assert path.read_text() == "mine"
    assert leftovers(tmp_path) == ["a.wav"]
    with pytest.raises(AudioError, match=r"cannot be written: it is a folder\."):
        write(tmp_path, noise(10), 44100, "wav", overwrite=True)


@posix
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_files_get_the_permissions_of_the_umask(tmp_path, name):
    before = os.umask(0o002)
    try:
        write(tmp_path / name, noise(10), 44100)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o664


@posix
@pytest.mark.parametrize("room", [0, 100, 5_000, 50_000])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.opus"])
def test_a_failed_write_is_reported_with_the_reason_and_leaves_nothing(tmp_path, monkeypatch, capfd, name, room):
    import resource

    def spool(dir):  # it is larger than the file; the limit is for the file alone
        return tempfile.SpooledTemporaryFile(1 << 30)

    monkeypatch.setattr(writing.tempfile, "TemporaryFile", spool)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    words = rf"{name} cannot be written: the file would be larger than is allowed here\.$"
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(AudioError, match=words), Writer(tmp_path / name, 48000, 2) as writer:
            for _ in range(20):
                writer.write(noise(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert leftovers(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_an_incomplete_file_is_not_committed(tmp_path, monkeypatch):
    """Some encoders ignore a failed write, and nobody knows why it failed once there is room again."""
    monkeypatch.setattr(soundfile.SoundFile, "write", lambda self, data: None)
    with pytest.raises(AudioError, match=r"a\.flac cannot be written: it is not complete\.$"):
        write(tmp_path / "a.flac", noise(1000), 44100)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.ENOENT, "its folder does not exist")]
)
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch, number, words):
    monkeypatch.setattr(writing, "open", refuse_to(number), raising=False)
    with pytest.raises(AudioError, match=rf"a\.wav cannot be written: {words}\.$"):
        Writer(tmp_path / "a.wav", 44100, 2)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "words"),
    [
        ("a.opus", 44100, 2, "opus cannot hold a sample rate of 44100 Hz, only 8000, 12000, 16000"),
        ("a.mp3", 96000, 2, "mp3 cannot hold a sample rate of 96000 Hz"),
        ("a.mp3", 44100, 3, "mp3 cannot hold 3 channels, at most 2"),
        ("a.flac", 44100, 9, "flac cannot hold 9 channels"),
        ("a.flac", 100001, 1, "flac cannot hold a sample rate of 100001 Hz"),
        ("a.ogg", 384000, 2, "ogg cannot hold a sample rate of 384000 Hz"),
        ("a.ogg", 44100, 300, "ogg cannot hold 300 channels"),
    ],
)
def test_unsupported_rates_and_channels_are_reported_before_writing(tmp_path, name, rate, channels, words):
    with pytest.raises(AudioError, match=rf"{name} cannot be written: {words}"):
        Writer(tmp_path / name, rate, channels)
    assert leftovers(tmp_path) == []


LARGEST = [("ogg", 200000, 2), ("ogg", 1000, 1), ("flac", 655350, 2), ("flac", 44101, 8), ("mp3", 8000, 1)]


@pytest.mark.parametrize(
    ("container", "rate", "channels"), [*LARGEST, ("wav", 768_000, 1), ("wav", 44100, 1024), ("opus", 12000, 3)]
)
def test_supported_rates_and_channels_can_be_written(tmp_path, container, rate, channels):
    write(tmp_path / "a", noise(1000, channels), rate, format=container)
    assert read(tmp_path / "a")[0].shape == (channels, 1000)
    write(tmp_path / "empty", noise(0, channels), rate, format=container)
    assert leftovers(tmp_path) == ["a", "empty"]


def test_over_four_gigabytes_is_rf64(tmp_path, monkeypatch):
    assert writing.RF64_BYTES < 2**32 - 4096  # room for a header
    monkeypatch.setattr(writing, "RF64_BYTES", 39_992)
    write(tmp_path / "b.wav", noise(4999), 44100)
    assert (tmp_path / "b.wav").read_bytes()[:4] == b"RIFF"
    waveform = noise(5000)
    write(tmp_path / "a.wav", waveform, 44100)
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
    assert torch.equal(read(tmp_path / "a.wav")[0], waveform)


@pytest.mark.parametrize("failing", ["b.txt", "c"])
def test_several_files_are_committed_together(tmp_path, monkeypatch, failing):
    (tmp_path / "b.txt").write_text("old")
    files = [PendingFile(tmp_path / name, overwrite=True) for name in ("a.txt", "b.txt", "c")]
    for file in files:
        file.temporary.write_text("new")
        file.finish()
    replace = os.replace

    def fails_once(source, destination):
        if destination.name == failing and source in [file.temporary for file in files]:
            raise OSError(errno.EIO, "Input/output error")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", fails_once)
    with pytest.raises(AudioError, match=f"{failing} cannot be written: the disk reported an error"):
        commit(files)
    for file in files:
        file.discard()
    assert leftovers(tmp_path) == ["b.txt"]
    assert (tmp_path / "b.txt").read_text() == "old"


@posix
def test_signals_wait_for_a_commit(tmp_path, monkeypatch):
    import signal

    replace = os.replace

    def interrupted(*paths):
        os.kill(os.getpid(), signal.SIGINT)
        replace(*paths)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs start with it ignored
    try:
        monkeypatch.setattr(writing.os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "a.wav", noise(10), 8000)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert leftovers(tmp_path) == ["a.wav"]
    assert read(tmp_path / "a.wav")[0].shape == (2, 10)


@pytest.mark.parametrize(
    ("container", "subtype", "suffix", "expected"),
    [
        ("WAVEX", "PCM_16", ".wav", ("wav", "FLOAT")),
        ("FLAC", "PCM_16", ".flac", ("flac", "PCM_24")),
        ("OGG", "OPUS", ".opus", ("opus", "OPUS")),
        ("OGG", "OPUS", ".ogg", ("ogg", "OPUS")),
        ("OGG", "VORBIS", ".ogg", ("ogg", "VORBIS")),
        ("MP3", "MPEG_LAYER_III", ".mp3", ("mp3", "MPEG_LAYER_III")),
        ("MP3", "MPEG_LAYER_II", ".mp2", None),
        ("AIFF", "PCM_16", ".aif", ("aiff", "FLOAT")),
        (None, None, ".m4a", None),
    ],
)
def test_formats_of_inputs_are_kept(container, subtype, suffix, expected):
    found = natural_format(container, subtype, suffix)
    assert (found and (found[0].name, found[1])) == expected


SPEEX = base64.b64decode(
    "T2dnUwACAAAAAAAAAAAAAAAAAAAAAMB6sjEBUFNwZWV4ICAgMS4yLjEAAAAAAAAAAAAAAAAAAAABAAAAUAAAAEAfAAAAAAAABAAAAAEAAACY"
    "OgAAoAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAT2dnUwAAAAAAAAAAAAAAAAAAAQAAANnNLHsBJwYAAABmZm1wZWcBAAAAFQAAAGVuY29kZXI9"
    "TGF2YyBsaWJzcGVleE9nZ1MABBgBAAAAAAAAAAAAAAIAAACKTSBtAiYmKFSYItIAAH///////4F93M+ktd5pALdubSRZd5WE25czDDH26cco"
    "VJgi0HDg7j7z1b3PynBTzY3t6QvlOCzdvB1EWxKcByAtNze/Jw=="
)  # 40 ms at 8 kHz; PyAV has no encoder


def test_speex_in_ogg_becomes_wav_and_flac_in_ogg_becomes_flac(tmp_path):
    (tmp_path / "speex.ogg").write_bytes(SPEEX)
    save_media(tmp_path / "flac.ogg", [tone(440, 0.1, 8000)], 8000, "flac")
    speex, flac = Reader(tmp_path / "speex.ogg"), Reader(tmp_path / "flac.ogg")
    assert (speex.container, speex.subtype, flac.container, flac.subtype) == (None, None, "OGG", "FLAC")
    assert sum(block.shape[1] for block in speex.blocks()) >= 320


# Waveforms and resampling


@pytest.mark.parametrize("kind", [">i2", "<i2", ">f4", "longdouble"])
def test_any_byte_order_and_width_is_a_waveform(kind):
    values = np.array([0, 1, -2, 3]).astype(kind)
    scale = 32768 if np.dtype(kind).kind == "i" else 1
    assert torch.equal(as_waveform(values)[0] * scale, torch.tensor([0.0, 1.0, -2.0, 3.0]))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(4, dtype=complex), "floats or integers"),
        (np.zeros(4, dtype=bool), "floats or integers"),
        (np.array(["a"]), "floats or integers"),
        (torch.zeros(4, dtype=torch.bool), "floats or integers"),
        (torch.zeros(44100, 2), "transpose"),
        ("mix.wav", "an array of samples, not str"),
    ],
)
def test_invalid_waveforms_are_refused(values, words):
    with pytest.raises(ValueError, match=f"The mixture .*{words}"):
        as_waveform(values)


def test_a_rate_is_a_positive_whole_number(tmp_path):
    assert as_rate(44100.0) == 44100
    assert isinstance(as_rate(np.float64(8000)), int)
    for rate in (None, 0, -8000, 44100.5, float("nan"), float("inf"), "fast", 10**9, 1, 999, 768_001, 2_000_000, True):
        with pytest.raises(ValueError, match=r"sample.rate"):
            as_rate(rate)
        with pytest.raises(ValueError, match=r"sample.rate"):
            write(tmp_path / "a.wav", noise(9), rate)
    write(tmp_path / "a.wav", noise(9), 44100.0)
    assert read(tmp_path / "a.wav")[1] == 44100


@pytest.mark.parametrize("time", [0, 1, 2, 999, 44100])
@pytest.mark.parametrize("rates", [(44100, 32000), (32000, 44100), (48000, 16000), (8000, 192000)])
def test_resampled_length_is_the_ceiling(time, rates):
    source, target = rates
    result = resample(noise(time, 2), source, target)
    assert result.shape == (2, -(-time * target // source))
    assert result.dtype == torch.float32


def test_resampling_keeps_a_tone_where_it_is():
    result = resample(torch.from_numpy(tone(1000, 1.0, 44100)), 44100, 32000)
    assert (result - torch.from_numpy(tone(1000, 1.0, 32000)))[:, 2000:-2000].abs().max() < 1e-4
    assert resample(result, 8000, 8000) is result
    with pytest.raises(ValueError, match="positive"):
        resample(result, 0, 8000)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(observe(folder), indent=1))


@pytest.mark.parametrize("sample_rate", [8000, 44100])
@pytest.mark.parametrize("hertz, decibels", [(15, -105), (20, -105), (25, -6.02), (30, 0), (1000, 0)])
def test_the_high_pass_filter_has_its_stated_response(sample_rate, hertz, decibels):
    wave = torch.from_numpy(tone(hertz, 3.0, sample_rate))
    kept = high_pass(wave, sample_rate, 25.0)[:, sample_rate:-sample_rate]
    gain = 10 * torch.log10(kept.square().mean() / wave.square().mean())
    assert gain < decibels if decibels < -70 else gain == pytest.approx(decibels, abs=0.3)


@pytest.mark.parametrize("frames", [0, 1, 2, 1000, 100_000])
def test_the_high_pass_filter_removes_an_offset_at_any_length(frames):
    kept = high_pass(torch.full((2, frames), 3.0), 8000, 25.0)
    assert kept.shape == (2, frames)
    assert torch.allclose(kept, torch.zeros(()), atol=1e-5)
