"""Reading, writing and resampling with real files."""

import errno
import os
import stat
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile
import torch

from separation import audio, decode, encode, formats, pending
from separation.audio import AudioError, Reader, Writer, read, resample, write


def noise(frames, channels=2, seed=0, level=0.1):
    return torch.from_numpy(
        (level * np.random.default_rng(seed).standard_normal((channels, frames))).astype(np.float32)
    )


def save(path, waveform, sample_rate=44100, **options):
    soundfile.write(path, waveform.T.numpy(), sample_rate, **options)
    return path


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def no_ffmpeg(monkeypatch):
    monkeypatch.setattr(decode.shutil, "which", lambda name: None)


@pytest.fixture
def fake_ffmpeg(monkeypatch, tmp_path):
    """An ffmpeg that takes float32 wav bytes out of a file with another suffix."""
    script = tmp_path / "bin" / "ffmpeg"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\n"
        + textwrap.dedent("""\
        import sys
        path = sys.argv[sys.argv.index("-i") + 1]
        assert path.startswith("file:") and sys.argv[-1] == "pipe:1" and "-nostdin" in sys.argv
        data = open(path[5:], "rb").read()
        if not data.startswith(b"FAKE"):
            sys.stderr.write("[x @ 0] [y] Invalid data found\\nError opening input files\\n")
            sys.exit(1)
        sys.stdout.buffer.write(data[5:])
        if data[4:5] == b"!":
            sys.stderr.write("partial file\\n")
        """)
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    return script


def fake_m4a(path, waveform, sample_rate, mark=b"."):
    """What the fake ffmpeg decodes: a wav stream whose header does not know its length."""
    channels = waveform.shape[0]
    head = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack(
        "<IHHIIHH", 16, 3, channels, sample_rate, sample_rate * channels * 4, channels * 4, 32
    )
    extra = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    samples = waveform.T.numpy().astype("<f4").tobytes()
    path.write_bytes(b"FAKE" + mark + head + extra + b"data\xff\xff\xff\xff" + samples)
    return path


# Reading


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("frames", [1, 2, 4410, 44100, 50001])
def test_blocks_are_the_file_whatever_their_length(tmp_path, channels, frames):
    waveform = noise(frames, channels)
    path = save(tmp_path / "a.wav", waveform, subtype="FLOAT")
    with Reader(path) as reader:
        assert (reader.sample_rate, reader.channels, reader.frames) == (44100, channels, frames)
        for seconds in (0.1, 1.0, 0.37):
            blocks = list(reader.blocks(seconds))
            size = round(seconds * 44100)
            assert [block.shape[1] for block in blocks[:-1]] == [size] * (len(blocks) - 1)
            assert blocks[0].dtype == torch.float32
            assert torch.equal(torch.cat(blocks, dim=1), waveform)
        assert reader.warning is None


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        ("wav", {"subtype": "PCM_16"}, 4e-5),
        ("flac", {"subtype": "PCM_24"}, 2e-7),
        ("ogg", {}, 0.1),
        ("mp3", {}, 0.1),
        ("aiff", {"subtype": "PCM_24"}, 2e-7),
    ],
)
def test_common_formats_are_read_at_their_length(tmp_path, suffix, options, tolerance):
    time = torch.arange(30001) / 32000
    waveform = torch.stack([0.3 * torch.sin(2765.0 * time), 0.2 * torch.cos(2001.0 * time)])
    path = save(tmp_path / f"a.{suffix}", waveform, 32000, **options)
    result, sample_rate = read(path)
    assert sample_rate == 32000
    assert result.shape == waveform.shape
    assert (result - waveform).abs().max() < tolerance


@pytest.mark.parametrize(("suffix", "rate"), [("mp3", 32000), ("mp3", 44100), ("opus", 48000), ("ogg", 44100)])
def test_there_are_no_seams_between_reads(tmp_path, suffix, rate):
    """soundfile's own read in pieces restarts the mp3 and opus decoders at each piece."""
    time = torch.arange(3 * rate).double() / rate
    tone = (0.3 * torch.sin(2 * torch.pi * 440 * time)).float()[None]
    path = save(
        tmp_path / f"a.{suffix}",
        tone,
        rate,
        **({"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}),
    )
    result, _ = read(path)
    assert (result - tone)[:, rate // 10 : -rate // 10].abs().max() < 0.02


def test_opus_is_read(tmp_path):
    path = save(tmp_path / "a.opus", noise(48000), 48000, format="OGG", subtype="OPUS")
    result, sample_rate = read(path)
    assert (tuple(result.shape), sample_rate) == ((2, 48000), 48000)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AudioError, match=r"gone\.wav does not exist\.$"):
        Reader(tmp_path / "gone.wav")


def test_a_folder_is_no_audio_file(tmp_path):
    with pytest.raises(AudioError, match="is a folder"):
        Reader(tmp_path)


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "a.wav").touch()
    with pytest.raises(AudioError, match=r"a\.wav is empty: it has 0 bytes"):
        Reader(tmp_path / "a.wav")


def test_zero_frames_are_refused(tmp_path):
    path = save(tmp_path / "a.wav", torch.zeros(2, 0))
    with Reader(path) as reader, pytest.raises(AudioError, match=r"a\.wav holds no audio: its le"):
        list(reader.blocks())


def test_text_named_wav_is_refused(tmp_path, no_ffmpeg):
    (tmp_path / "a.wav").write_text("hello\n" * 100)
    with pytest.raises(AudioError, match=r"a\.wav is damaged or not audio"):
        Reader(tmp_path / "a.wav")


def test_text_named_wav_is_refused_by_ffmpeg_as_well(tmp_path, fake_ffmpeg):
    (tmp_path / "a.wav").write_text("hello\n" * 100)
    with pytest.raises(AudioError, match=r"a\.wav holds no audio .*Invalid data found"):
        Reader(tmp_path / "a.wav")


def test_text_named_mp3_makes_no_noise_of_its_own(tmp_path, no_ffmpeg, capfd):
    (tmp_path / "a.mp3").write_text("hello\n" * 100)
    with pytest.raises(AudioError, match=r"a\.mp3 is damaged or not audio"):
        Reader(tmp_path / "a.mp3")
    assert capfd.readouterr().err == ""
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


@pytest.mark.parametrize("name", ["a.raw", "a.txt", "a"])
def test_unknown_files_are_refused(tmp_path, no_ffmpeg, name):
    (tmp_path / name).write_text("hello\n" * 100)
    with pytest.raises(AudioError, match="is no audio that can be read without ffmpeg"):
        Reader(tmp_path / name)


def test_what_only_ffmpeg_reads_says_that_it_needs_it(tmp_path, no_ffmpeg):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x18ftypM4A \0\0" * 9)
    with pytest.raises(AudioError, match=r"a\.m4a cannot be read: \.m4a needs ffmpeg"):
        Reader(tmp_path / "a.m4a")


def test_unreadable_path_is_named(tmp_path, monkeypatch):
    path = save(tmp_path / "a.wav", noise(10))

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(decode, "open", refuse, raising=False)
    with pytest.raises(AudioError, match=r"a\.wav cannot be read: permission denied\.$"):
        Reader(path)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_zero_channels_are_named(tmp_path, subtype):
    path = save(tmp_path / "a.wav", noise(100), subtype=subtype)
    data = bytearray(path.read_bytes())
    data[22:24] = b"\0\0"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"a\.wav has zero channels"):
        Reader(path)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_the_first_bad_sample_is_named(tmp_path, value, word):
    waveform = noise(50000)
    waveform[1, 22050] = value
    waveform[0, 30000] = value
    path = save(tmp_path / "a.wav", waveform, subtype="FLOAT")
    for seconds in (0.1, 10.0):
        with Reader(path) as reader, pytest.raises(AudioError) as caught:
            list(reader.blocks(seconds))
        assert f"{word} " in str(caught.value) or word in str(caught.value)
        assert "at 0.500000 s, channel 2" in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("wav", {"subtype": "FLOAT"}),
        ("wav", {"subtype": "PCM_16"}),
        ("flac", {}),
        ("ogg", {}),
        ("mp3", {}),
        ("aiff", {}),
        ("w64", {}),
    ],
)
def test_a_truncated_file_gives_what_is_there_and_a_warning(tmp_path, suffix, options):
    waveform = noise(80000)
    path = save(tmp_path / f"a.{suffix}", waveform, **options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with Reader(path) as reader:
        for _ in range(2):
            got = torch.cat(list(reader.blocks()), dim=1)
            assert 30000 < got.shape[1] < 60000
            assert reader.warning is not None
            assert f"a.{suffix} is cut short or damaged: only the first" in reader.warning
    if suffix in ("wav", "w64"):
        assert (got - waveform[:, : got.shape[1]]).abs().max() < 4e-5
    with pytest.warns(UserWarning, match="cut short"):
        read(path)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF - 36])
def test_a_wav_that_was_written_into_a_pipe_is_not_called_truncated(tmp_path, size):
    waveform = noise(1000)
    path = save(tmp_path / "a.wav", waveform, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data")
    data[at + 4 : at + 8] = struct.pack("<I", size)
    path.write_bytes(data)
    with Reader(path) as reader:
        assert torch.cat(list(reader.blocks()), dim=1).shape == (2, 1000)
        assert reader.warning is None


def test_ffmpeg_reads_the_rest(tmp_path, fake_ffmpeg):
    waveform = noise(70001, 3)
    path = fake_m4a(tmp_path / "-i odd name;$(x).m4a", waveform, 22050)
    with Reader(path) as reader:
        assert (reader.sample_rate, reader.channels, reader.frames) == (22050, 3, None)
        assert reader.container is None
        for _ in range(2):
            assert torch.equal(torch.cat(list(reader.blocks(0.5)), dim=1), waveform)
        next(reader.blocks(0.5))  # a reader that stops early leaves no process behind
        assert reader.warning is None


def test_what_ffmpeg_complains_about_is_a_warning(tmp_path, fake_ffmpeg):
    path = fake_m4a(tmp_path / "a.m4a", noise(22050), 22050, mark=b"!")
    with Reader(path) as reader:
        assert torch.cat(list(reader.blocks()), dim=1).shape == (2, 22050)
        assert "ffmpeg: partial file" in str(reader.warning)
        assert "the 1.000 s that can be read are used" in str(reader.warning)


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


@pytest.mark.parametrize(
    ("name", "subtype", "bits"),
    [
        ("a.wav", "PCM_16", 16),
        ("a.wav", "PCM_24", 24),
        ("a.flac", "PCM_16", 16),
        ("a.flac", None, 24),
        ("a.wav", "PCM_U8", 8),
        ("a.aiff", "PCM_24", 24),
    ],
)
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
    with pytest.warns(UserWarning, match=r"turned down by a factor of 0\.400"):
        write(tmp_path / "a.flac", waveform, 44100)
    back = soundfile.read(tmp_path / "a.flac", dtype="float32")[0].T
    assert np.abs(back - 0.4 * waveform.numpy()).max() < 1e-6


def test_a_gain_that_is_given_is_used(tmp_path):
    waveform = noise(1000)
    with Writer(tmp_path / "a.flac", 44100, 2) as writer:
        writer.write(waveform)
        assert writer.limited
        assert writer.peak == pytest.approx(float(waveform.abs().max()))
        writer.gain = 0.25
    back = soundfile.read(tmp_path / "a.flac", dtype="float32")[0].T
    assert np.abs(back - 0.25 * waveform.numpy()).max() < 1e-6


@pytest.mark.parametrize(("name", "rate"), [("a.ogg", 44100), ("a.opus", 48000), ("a.opus", 16000), ("a.mp3", 22050)])
def test_lossy_formats_keep_length_and_sound(tmp_path, name, rate):
    time = torch.arange(2 * rate + 17) / rate
    waveform = torch.stack([0.4 * torch.sin(2765.0 * time)] * 2)
    write(tmp_path / name, waveform, rate)
    back, got = read(tmp_path / name)
    assert (got, tuple(back.shape)) == (rate, tuple(waveform.shape))
    middle = slice(rate // 2, 3 * rate // 2)
    assert (back - waveform)[:, middle].abs().max() < 0.05


def test_an_error_inside_leaves_nothing(tmp_path):
    for name in ("a.wav", "a.flac", "a.ogg"):
        with pytest.raises(KeyboardInterrupt), Writer(tmp_path / name, 44100, 2) as writer:
            writer.write(noise(100000))
            raise KeyboardInterrupt
    assert leftovers(tmp_path) == []


def test_nothing_is_visible_before_the_end(tmp_path):
    with Writer(tmp_path / "a.wav", 44100, 2) as writer:
        writer.write(noise(1000))
        assert not (tmp_path / "a.wav").exists()
    assert soundfile.info(tmp_path / "a.wav").frames == 1000


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path):
    (tmp_path / "a.wav").write_text("mine")
    with pytest.raises(AudioError, match=r"a\.wav exists already; --overwrite"):
        write(tmp_path / "a.wav", noise(10), 44100)
    assert (tmp_path / "a.wav").read_text() == "mine"
    write(tmp_path / "a.wav", noise(10), 44100, overwrite=True)
    assert soundfile.info(tmp_path / "a.wav").frames == 10
    assert leftovers(tmp_path) == ["a.wav"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    with (
        pytest.raises(AudioError, match="exists already"),
        Writer(tmp_path / "a.wav", 8000, 1) as w,
    ):
        w.write(noise(10, 1))
        (tmp_path / "a.wav").write_text("mine")
    assert (tmp_path / "a.wav").read_text() == "mine"
    assert leftovers(tmp_path) == ["a.wav"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_files_get_the_permissions_that_the_user_asked_for(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "a.wav", noise(10), 44100)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.wav").stat().st_mode) == 0o640


class FullDisk:
    """A file on a disk with room for `room` bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@pytest.mark.parametrize("room", [0, 50_000, 300_000])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_a_full_disk_is_called_so_and_leaves_nothing(tmp_path, monkeypatch, name, room):
    create = pending.create
    room = room if name == "a.wav" else room // 10
    monkeypatch.setattr(pending, "create", lambda path: FullDisk(create(path), room))
    with (
        pytest.raises(AudioError, match=rf"{name} cannot be written: the disk is full\.$"),
        Writer(tmp_path / name, 44100, 2) as writer,
    ):
        writer.write(noise(100_000))
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="resource limits of POSIX")
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_real_limit_of_the_system_is_reported(tmp_path, name):
    program = f"""
        import resource, signal, torch
        from separation.audio import AudioError, write
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write({str(tmp_path / name)!r}, torch.rand(2, 100_000), 44100)
        except AudioError as error:
            print(error)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ROOT},
    )  # fmt: skip
    assert done.stdout.strip().endswith("the file would be larger than is allowed here.")
    assert done.stderr == ""
    assert leftovers(tmp_path) == []


ROOT = os.path.dirname(os.path.dirname(os.path.abspath(audio.__file__)))


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EROFS, "the file system is read-only"), (errno.EACCES, "permission denied")],
)
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch, number, words):
    def refuse(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pending, "create", refuse)
    with pytest.raises(AudioError, match=rf"a\.wav cannot be written: {words}"):
        Writer(tmp_path / "a.wav", 44100, 2)


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(AudioError, match=r"a\.wav cannot be written: its folder does not exist"):
        write(tmp_path / "none" / "a.wav", noise(10), 44100)


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
def test_what_a_format_cannot_hold_is_said_before(tmp_path, name, rate, channels, words):
    with pytest.raises(AudioError, match=rf"{name} cannot be written: {words}"):
        Writer(tmp_path / name, rate, channels)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("container", "rate", "channels"),
    [
        ("ogg", 200000, 2),
        ("ogg", 7, 1),
        ("flac", 655350, 2),
        ("flac", 44101, 8),
        ("mp3", 8000, 1),
        ("wav", 1, 1),
        ("wav", 44100, 1024),
        ("opus", 12000, 3),
    ],
)
def test_the_limits_are_not_too_tight(tmp_path, container, rate, channels):
    write(tmp_path / "a", noise(1000, channels), rate, format=container)
    assert read(tmp_path / "a")[0].shape == (channels, 1000)


def test_unknown_formats_and_sample_types_are_refused(tmp_path):
    with pytest.raises(AudioError, match=r"no output format 'xyz'; there are wav, flac"):
        write(tmp_path / "a", noise(10), 44100, format="xyz")
    with pytest.raises(AudioError, match="flac has no sample type 'FLOAT'"):
        write(tmp_path / "a.flac", noise(10), 44100, subtype="FLOAT")
    assert leftovers(tmp_path) == []


def test_over_four_gigabytes_is_rf64(tmp_path, monkeypatch):
    wav = formats.FORMATS["wav"]
    assert formats.container_of(wav, "FLOAT", 2, 500_000_001) == "RF64"
    assert formats.container_of(wav, "FLOAT", 2, 500_000_000) == "WAV"
    monkeypatch.setattr(formats, "RF64_BYTES", 1000)
    waveform = noise(5000)
    write(tmp_path / "a.wav", waveform, 44100)
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
    assert torch.equal(read(tmp_path / "a.wav")[0], waveform)


def test_several_files_get_their_names_together(tmp_path, monkeypatch):
    (tmp_path / "b.txt").write_text("old")
    files = [pending.PendingFile(tmp_path / name, overwrite=True) for name in ("a.txt", "b.txt", "c")]
    for file in files:
        file.file.write(b"new")
        file.finish()
    files[2].temporary.unlink()
    with pytest.raises(AudioError, match="c cannot be written"):
        pending.commit(files)
    for file in files:
        file.discard()
    assert leftovers(tmp_path) == ["b.txt"]
    assert (tmp_path / "b.txt").read_text() == "old"


def test_formats_of_inputs_stay():
    assert formats.natural_format("WAVEX", "PCM_16", ".wav")[1] == "FLOAT"
    assert formats.natural_format("FLAC", "PCM_16", ".flac")[1] == "PCM_24"
    assert formats.natural_format("OGG", "OPUS", ".opus")[0].name == "opus"
    assert formats.natural_format("OGG", "OPUS", ".ogg")[0].name == "ogg"
    assert formats.natural_format("OGG", "VORBIS", ".ogg")[1] == "VORBIS"
    assert formats.natural_format("MP3", "MPEG_LAYER_III", ".mp3")[0].name == "mp3"
    assert formats.natural_format("MP3", "MPEG_LAYER_II", ".mp2") is None
    assert formats.natural_format("AIFF", "PCM_16", ".aif")[0].suffix == ".aiff"
    assert formats.natural_format(None, None, ".m4a") is None


# Resampling


@pytest.mark.parametrize("time", [0, 1, 2, 999, 44100])
@pytest.mark.parametrize("rates", [(44100, 32000), (32000, 44100), (48000, 16000), (8000, 192000)])
def test_resampled_length_is_the_ceiling(time, rates):
    source, target = rates
    result = resample(noise(time, 2), source, target)
    assert result.shape == (2, -(-time * target // source))
    assert result.dtype == torch.float32


def test_resampling_keeps_a_tone_where_it_is():
    before, after = (torch.arange(rate).double() / rate for rate in (44100, 32000))
    result = resample(torch.sin(2 * torch.pi * 1000 * before).float()[None], 44100, 32000)[0]
    wanted = torch.sin(2 * torch.pi * 1000 * after)
    assert (result - wanted)[2000:-2000].abs().max() < 1e-4


def test_resampling_to_the_same_rate_changes_nothing():
    waveform = noise(100)
    assert torch.equal(resample(waveform, 8000, 8000), waveform)


def test_rates_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        resample(noise(10), 0, 8000)


def test_importing_costs_nothing():
    program = (
        "import sys, separation.audio, separation.cli, separation.plot; "
        "print([m for m in ('torch', 'numpy', 'soundfile', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ROOT},
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_the_encoder_names_what_libsndfile_says(tmp_path):
    file = pending.create(tmp_path / "a")
    with file, pytest.raises(OSError, match="FLAC"):
        encode.Encoder(file, 100001, 9, "FLAC", "PCM_24", audio.nullcontext)
