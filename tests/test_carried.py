"""What a file carries beside its sound arrives in the outputs: tags, covers, chunks, loudspeakers, bit rates."""

import base64
import re
import resource
import struct
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from gains import run
from media import tone
from tiny import tiny_separator

from separation.audio import Reader, Writer
from separation.audio.layouts import SPEAKERS
from separation.audio.remux import plan_film

RATE = 48000
TAGS = {
    "title": "Song", "artist": "Some Böd", "album": "Album", "date": "2001", "genre": "Rock", "comment": "by the sea",
    "track": "3/9", "composer": "Somebody", "mood": "calm",
}  # fmt: skip
FORMATS = ["wav", "aiff", "flac", "ogg", "opus", "mp3"]
TITLES = ("title", "TITLE", "INAM")


def draw_cover(size=16):
    """A JPEG picture of noise."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = size, size, "yuvj420p", Fraction(1, 10)
    pixels = np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8)
    picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuvj420p")
    picture.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])


def save(path, codec, tags=TAGS, cover=b"", seconds=0.5, bit_rate=0, channels=2):
    """Write a tone with FFmpeg."""
    with av.open(str(path), "w", format={".m4a": "mp4"}.get(path.suffix)) as file:
        file.metadata.update(tags)
        sound = file.add_stream(codec, rate=RATE, layout="mono" if channels == 1 else "stereo", bit_rate=bit_rate)
        if cover:
            picture = file.add_mux_stream("mjpeg", width=16, height=16)
            picture.disposition = 1024
            packet = av.Packet(cover)
            packet.pts, packet.dts, packet.time_base, packet.stream = 0, 0, Fraction(1, 1000), picture
            file.mux(packet)
        wave = np.ascontiguousarray(tone(440, seconds, RATE, channels).T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(wave, "flt", "mono" if channels == 1 else "stereo")
        frame.sample_rate, frame.pts = RATE, 0
        file.mux([*sound.encode(frame), *sound.encode(None)])
    return path


def inspect(path):
    """Tags in lower case and covers, as FFmpeg reads them."""
    with av.open(str(path), metadata_errors="replace") as file:
        sound = file.streams.audio[0].metadata if file.format.name == "ogg" else {}
        tags = {name.lower(): text for name, text in {**sound, **file.metadata}.items()}
        return tags, [bytes(next(file.demux(stream))) for stream in file.streams.video]


def chunk(name, body, order="little"):
    return name + len(body).to_bytes(4, order) + body + bytes(len(body) % 2)


def chunks_of(path):
    """Names and contents of the chunks of a wav, RF64 or AIFF file; the size in its header is checked."""
    data = Path(path).read_bytes()
    order = "big" if data[:4] == b"FORM" else "little"
    stated = data[20:28] if data[:4] == b"RF64" else data[4:8]
    assert int.from_bytes(stated, order) == len(data) - 8
    found, at = [], 12
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], order)
        size = int.from_bytes(data[28:36], "little") if size == 2**32 - 1 else size
        found.append((data[at : at + 4], data[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    assert at == len(data)
    return found


def save_wav(path, chunks=(), behind=(), frames=4000, form=None, head=b"RIFF"):
    """A wav file of 16-bit noise at 8 kHz with chunks before and behind the sound."""
    form = form or struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
    sound = np.random.default_rng(1).integers(-9000, 9000, frames * struct.unpack("<H", form[2:4])[0], np.int16)
    body = b"".join(chunk(*each) for each in [(b"fmt ", form), *chunks, (b"data", sound.tobytes()), *behind])
    if head == b"RF64":
        sizes = struct.pack("<QQQI", len(body) + 40, sound.nbytes, frames, 0)
        body = chunk(b"ds64", sizes) + body.replace(b"data" + struct.pack("<I", sound.nbytes), b"data" + b"\xff" * 4)
    path.write_bytes(head + (b"\xff" * 4 if head == b"RF64" else struct.pack("<I", len(body) + 4)) + b"WAVE" + body)
    return path


def id3(*frames, version=3, flags=0):
    size = lambda count: bytes(count >> shift & 127 for shift in (21, 14, 7, 0))  # noqa: E731
    body = b"".join(
        name + (size(len(each)) if version == 4 else struct.pack(">I", len(each))) + b"\0\0" + each
        for name, each in frames
    )
    body = body.replace(b"\xff", b"\xff\0") if flags & 128 else body
    return b"ID3" + bytes([version, 0, flags]) + size(len(body)) + body


BEXT = b"Take 3".ljust(256, b"\0") + b"Recorder".ljust(64, b"\0") + b"2020-01-0211:12:13"
BEXT += struct.pack("<QH", 123_456_789, 1) + bytes(254) + b"A=PCM,F=48000,W=24\r\n"
CUE = struct.pack("<III4sIII", 1, 7, 800, b"data", 0, 0, 800)
LABELS = b"adtl" + chunk(b"labl", struct.pack("<I", 7) + b"knock\0")
OTHERS = [(b"iXML", b"<BWFXML/>"), (b"axml", b"<adm/>"), (b"chna", bytes(44)), (b"smpl", bytes(36)), (b"Xtra", b"odd")]
OLD = [(b"fact", struct.pack("<I", 3999)), (b"PEAK", bytes(16)), (b"levl", bytes(120)), (b"JUNK", bytes(10))]


@pytest.mark.parametrize("source", ["flac", "mp3", "m4a", "opus"])
@pytest.mark.parametrize("target", FORMATS)
def test_tags_and_covers_arrive_in_every_format(folder, source, target):
    codec, cover = {"flac": "flac", "mp3": "libmp3lame", "m4a": "aac", "opus": "libopus"}[source], draw_cover()
    path = save(Path(f"song.{source}"), codec, cover=b"" if source == "opus" else cover)
    before = inspect(path)[0]
    assert run("--query", "half", path, "--format", target) == 0
    tags, covers = inspect(f"song.half.{target}")
    expected = {name: text for name, text in TAGS.items() if name in before} | {"title": "Song (half)"}
    assert len(expected) >= 8 and {name: tags.get(name) for name in expected} == expected
    assert covers == ([] if source == "opus" else [cover])
    assert "lavf" not in " ".join(tags.values()).lower()
    assert Reader(f"song.half.{target}").channels == 2
    assert abs(next(Reader(f"song.half.{target}").blocks()).shape[1] - RATE // 2) < 2000


@pytest.mark.parametrize(
    ("source", "codec"), [("ogg", "VORBIS"), ("caf", "PCM_16"), ("aiff", "PCM_16"), ("wav", "PCM_16")]
)
def test_titles_of_formats_without_covers(folder, source, codec):
    with soundfile.SoundFile(f"song.{source}", "w", RATE, 1, codec, format=source.upper()) as file:
        file.title, file.artist, file.comment = "Song", "Somebody", "by the sea"
        file.write(tone(440, 0.5, RATE).T)
    assert run("--query", "half", f"song.{source}", "--residual") == 0
    for name, title in (("half", "Song (half)"), ("not_half", "Song (without half)")):
        with soundfile.SoundFile(f"song.{name}.{source}") as file:
            assert (file.title, file.artist, file.comment) == (title, "Somebody", "by the sea")


def test_the_title_says_what_was_done_and_none_is_invented(folder):
    path = save(Path("song.flac"), "flac")
    assert run("--remove", "half", "--remove", "quarter", path) == 0
    assert run("--gain", "half=-6", "--gain", "quarter=+3", path) == 0
    assert run("--all", path) == 0
    titles = {"without": "without half, quarter", "remix": "half -6 dB, quarter +3 dB", "rain": "rain", "rest": "rest"}
    for name, title in titles.items():
        assert inspect(f"song.{name}.flac")[0]["title"] == f"Song ({title})"
    save(Path("plain.flac"), "flac", {"artist": "Somebody"})
    assert run("--query", "half", "plain.flac") == 0
    tags = inspect("plain.half.flac")[0]
    assert tags["artist"] == "Somebody" and "title" not in tags


def test_python_carries_what_the_command_does(folder):
    path, separator = save(Path("song.flac"), "flac", cover=draw_cover()), tiny_separator()
    separator.separate_file(path, remove=["half", "quarter"], output="clean.mp3")
    assert inspect("clean.mp3")[0]["title"] == "Song (without half, quarter)"
    separator.separate_file(path, "half", output="out", residual=True, format="ogg", bitrate=96)
    assert inspect("out/song.not_half.ogg")[0]["title"] == "Song (without half)"
    assert inspect("out/song.half.ogg")[1] == [draw_cover()]
    assert Reader("out/song.half.ogg").bit_rate == pytest.approx(96_000, rel=0.01)
    with pytest.raises(ValueError, match="is not a rate from 6 to 4096"):
        separator.separate_file(path, "half", output="no", bitrate="loud")


def test_standard_output_carries_too(folder, capfdbinary):
    path = save_wav(Path("take.wav"), [(b"bext", BEXT)])
    assert run("--query", "half", path, "-o", "-") == 0
    Path("out.wav").write_bytes(capfdbinary.readouterr().out)
    assert (b"bext", BEXT) in chunks_of("out.wav")


@pytest.mark.parametrize("head", [b"RIFF", b"RF64"])
def test_chunks_of_wav_files_stay_as_they_are(folder, head):
    info = b"INFO" + chunk(b"IART", b"Caf\xe9\0") + chunk(b"INAM", b"Take 3\0") + chunk(b"IXYZ", b"odd")
    front = [(b"bext", BEXT), *OLD, (b"LIST", info)]
    behind = [(b"cue ", CUE), (b"LIST", LABELS), *OTHERS, (b"bext", b"Take 4" + BEXT[6:])]
    path = save_wav(Path("take.wav"), front, behind, head=head)
    assert run("--query", "half", path, "--from", "0.1", "--to", "0.2") == 0
    found = chunks_of("take.half.wav")
    kept = [(b"bext", BEXT), *behind]
    assert [each for each in found if each in kept] == kept
    assert (b"LIST", info.replace(chunk(b"INAM", b"Take 3\0"), chunk(b"INAM", b"Take 3 (half)\0"))) in found
    assert (
        not [name for name, _ in found if name in (b"levl", b"JUNK")] and soundfile.info("take.half.wav").frames == 4000
    )
    assert inspect("take.half.wav")[0]["time_reference"] == "123456789"
    assert not [body for name, body in found if (name, body) in OLD]
    assert run("--query", "half", path, "--format", "flac") == 0  # as comments
    tags = inspect("take.half.flac")[0]
    assert (tags["title"], tags["artist"], tags["time_reference"]) == ("Take 3 (half)", "Café", "123456789")


def test_chunks_of_aiff_files_stay(folder):
    with soundfile.SoundFile("take.aiff", "w", RATE, 1, "PCM_16", format="AIFF") as file:
        file.write(tone(440, 0.5, RATE).T)
    data = Path("take.aiff").read_bytes()
    mark = struct.pack(">HHI", 1, 1, 800) + b"\4here\0"
    data += (
        chunk(b"MARK", mark, "big") + chunk(b"NAME", b"Take", "big") + chunk(b"ID3 ", id3((b"TPE1", b"\0Me")), "big")
    )
    Path("take.aiff").write_bytes(data[:4] + struct.pack(">I", len(data) - 8) + data[8:])
    assert run("--query", "half", "take.aiff") == 0
    assert {(b"MARK", mark), (b"NAME", b"Take (half)")} <= set(chunks_of("take.half.aiff"))
    assert inspect("take.half.aiff")[0]["artist"] == "Me"


@pytest.mark.parametrize(("version", "flags"), [(3, 0), (4, 0), (3, 128)])
def test_frames_of_mp3_stay_as_they_are(folder, version, flags):
    save(Path("bare.mp3"), "libmp3lame", {})
    cover = draw_cover()
    frames = [
        (b"TIT2", b"\0Song"), (b"POPM", b"me\0\xc8"), (b"PRIV", b"owner\0\xff\xe0\xff\0data"),
        (b"USLT", b"\0eng\0la la"), (b"APIC", b"\0image/jpeg\0\3\0" + cover),
        (b"TXXX", b"\0REPLAYGAIN_TRACK_GAIN\x00-3 dB"), (b"COMM", b"\0eng\0hello"),
        (b"COMM", b"\0engiTunSMPB\0 00000000 00000210"),
        (b"TSSE", b"\0LAME"),
    ]  # fmt: skip
    data = Path("bare.mp3").read_bytes()
    Path("song.mp3").write_bytes(id3(*frames, version=version, flags=flags) + data[data.index(b"\xff\xfb") :])
    assert run("--query", "half", "song.mp3") == 0
    out = Path("song.half.mp3").read_bytes()
    assert out[:4] == b"ID3" + bytes([version])
    for name, body in frames:
        old = body.startswith((b"\0REPLAY", b"\0engiTun", b"\0LAME")) or name == b"TIT2"
        assert (name in out and body in out) != old, name
    tags, covers = inspect("song.half.mp3")
    assert (tags["title"], tags["comment"], covers) == ("Song (half)", "hello", [cover])


def test_blocks_and_comments_of_flac_stay(folder):
    save(Path("bare.flac"), "flac", {})
    data = Path("bare.flac").read_bytes()
    block = lambda kind, body: bytes([kind]) + len(body).to_bytes(3, "big") + body  # noqa: E731
    texts = [b"TITLE=Song", b"artist=A", b"ARTIST=B", b"Odd Key=1=2", b"replaygain_track_gain=-3 dB", b"ENCODER=x"]
    comments = b"".join(struct.pack("<I", len(text)) + text for text in [b"vendor", *texts])
    comments = comments[:10] + struct.pack("<I", len(texts)) + comments[10:]
    cues = bytes(395) + b"\1" + struct.pack(">QB", RATE // 2, 255) + bytes(27)  # only the end
    added = block(4, comments) + block(2, b"abcdwhatever") + block(5, cues)
    first = data.index(b"\xff\xf8", 42)
    Path("song.flac").write_bytes(data[:4] + b"\0" + data[5:42] + added + block(0x81, bytes(9)) + data[first:])
    assert run("--query", "half", "song.flac") == 0
    out = Path("song.half.flac").read_bytes()
    assert block(2, b"abcdwhatever") in out and block(5, cues)[1:] in out
    for text in texts[1:4]:
        assert struct.pack("<I", len(text)) + text in out
    assert b"TITLE=Song (half)" in out and b"replaygain" not in out and b"ENCODER=x" not in out
    assert run("--query", "half", "song.flac", "--format", "mp3") == 0
    assert inspect("song.half.mp3")[0]["artist"] == "A; B"


LAYOUTS = {
    3: [0x7, 0x103],
    4: [0x33, 0x107, 0x603],
    5: [0x37, 0x607],
    6: [0x3F, 0x60F],
    7: [0x70F],
    8: [0x63F, 0xFF, 0],
}


@pytest.mark.parametrize(
    ("channels", "mask"), [(n, mask) for n, masks in LAYOUTS.items() for mask in masks] + [(2, 0x600)]
)
def test_loudspeakers_arrive(folder, capsys, channels, mask):
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    form = struct.pack("<HHIIHHHHI", 0xFFFE, channels, RATE, 2 * RATE * channels, 2 * channels, 16, 22, 16, mask) + guid
    path = save_wav(Path("room.wav"), form=form)
    assert run("--query", "half", path) == 0
    found = dict(chunks_of("room.half.wav"))[b"fmt "]
    assert (found[:2], found[20:24]) == (b"\xfe\xff", struct.pack("<I", mask))
    assert run("--query", "half", path, "--format", "flac") == 0
    assert run("--query", "half", "room.half.flac", "--format", "wav", "-o", "back") == 0
    found = dict(chunks_of("back/room.half.half.wav"))[b"fmt "]
    usual = {8: 0x63F}.get(channels, mask)
    assert found[20:24] == struct.pack("<I", mask or usual)
    if mask:
        with av.open("room.half.flac") as file:
            names = [each.name for each in file.streams.audio[0].layout.channels]
        side = {0x37: 0x607, 0x3F: 0x60F}.get(mask, mask)  # FFmpeg's idea of the usual ones
        assert names == [name for bit, name in enumerate(SPEAKERS) if side >> bit & 1]
    capsys.readouterr()
    for name in ("ogg", "opus") if channels > 2 else ():
        assert run("--query", "half", path, "--format", name, "--overwrite") == 0
        told = "not carried to the outputs: the loudspeakers" in capsys.readouterr().err
        assert told == (mask in (0x103, 0x107, 0x603, 0xFF))


@pytest.mark.parametrize(
    ("name", "kilobits"),
    [("mp3", 96), ("mp3", 320), ("ogg", 96), ("ogg", 300), ("opus", 64), ("opus", 200)],
)
def test_the_bit_rate_is_that_of_the_option_or_of_the_input(folder, name, kilobits):
    with Writer("noise.wav", RATE, 2) as writer:
        writer.write(0.1 * torch.randn(2, 2 * RATE))
    assert run("--query", "all", "noise.wav", "--format", name, "--bitrate", kilobits) == 0
    assert run("--query", "half", f"noise.all.{name}") == 0
    for path in (f"noise.all.{name}", f"noise.all.half.{name}"):
        reader = Reader(path)
        assert reader.bit_rate == pytest.approx(1000 * kilobits, rel=0.06)
        assert sum(block.shape[1] for block in reader.blocks()) == 2 * RATE


def test_a_low_bit_rate_of_mp3_shifts_nothing(folder):
    save_wav(Path("noise.wav"), form=struct.pack("<HHIIHH", 1, 2, RATE, 4 * RATE, 4, 16), frames=RATE)
    assert run("--query", "all", "noise.wav", "--format", "mp3", "--bitrate", 32) == 0
    wave, old = next(Reader("noise.all.mp3").blocks())[0], next(Reader("noise.wav").blocks())[0]
    assert len(wave) == len(old) == RATE and 24_000 < Reader("noise.all.mp3").bit_rate < 50_000
    spectra = torch.fft.rfft(torch.stack([wave, old]), 2 * RATE)
    assert int(torch.fft.irfft(spectra[0] * spectra[1].conj()).argmax()) == 0


def test_the_bit_rate_of_m4a_is_that_of_the_input(folder):
    for kilobits in (64, 192):
        path = save(Path(f"a{kilobits}.m4a"), "aac", {}, seconds=2, bit_rate=1000 * kilobits)
        assert run("--query", "half", path) == 0
        with av.open(f"a{kilobits}.half.m4a") as file, av.open(str(path)) as old:
            rates = [each.streams.audio[0].codec_context.bit_rate for each in (file, old)]
        assert plan_film(Reader(path), "").bit_rate == rates[1] and rates[0] == pytest.approx(rates[1], rel=0.15)


def test_bit_rates_that_do_not_fit_are_one_sentence(folder, capsys):
    save_wav(Path("a.wav"))
    save(Path("a.mp3"), "libmp3lame", {})
    save(Path("a.m4a"), "alac", {})
    for arguments, status, words in (
        (
            ["a.wav", "--bitrate", "128"],
            1,
            "a.wav cannot be written with this bit rate: wav has no bit rate; mp3, ogg and",
        ),
        (
            ["a.wav", "--bitrate", "128", "--format", "flac"],
            2,
            "--bitrate is for mp3, ogg, opus, m4a and films; flac has",
        ),
        (["a.mp3", "--bitrate", "400"], 1, "mp3 with 48000 Hz and 2 channels takes 32 to 320 kbit/s, not 400."),
        (["a.mp3", "--bitrate", "12", "--format", "ogg"], 1, "ogg with 48000 Hz and 2 channels takes 64 to 500 kbit/s"),
        (["a.m4a", "--bitrate", "128"], 1, "a.m4a cannot be written with --bitrate: alac has no bit rate."),
        (["a.mp3", "--bitrate", "fast"], 2, "“fast” is not a rate from 6 to 4096"),
    ):
        assert run("--query", "half", *arguments) == status
        assert words in (err := capsys.readouterr().err) and len(err.strip().splitlines()) == 1
    assert sorted(path.name for path in Path().iterdir()) == ["a.m4a", "a.mp3", "a.wav"]


BROKEN = {
    "sizes beyond the list": [(b"LIST", b"INFOINAM\xff\xff\xff\x7fabc")],
    "an id3 chunk of noise": [(b"id3 ", b"ID3\3\0\0\x7f\x7f\x7f\x7fTIT2\xff\xff\xff\xff\0\0")],
    "an empty id3 chunk": [(b"id3 ", b""), (b"ID3 ", b"ID")],
    "control characters": [(b"LIST", b"INFO" + chunk(b"INAM", b"\x1b[31m\x07\xff\0x\0"))],
    "very many tags": [(b"id3 ", id3(*((b"TXXX", b"\0%d\0x" % number) for number in range(30000))))],
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("target", ["wav", "flac", "mp3"])
def test_broken_tags_never_end_a_separation(folder, capsys, name, target):
    path = save_wav(Path("a.wav"), BROKEN[name])
    assert run("--query", "half", path, "--format", target) == 0
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) <= 1 and "\x1b" not in err
    assert sum(block.shape[1] for block in Reader(f"a.half.{target}").blocks()) == 4000


@pytest.mark.parametrize("sizes", [[30_000], [3_000] * 10], ids=["one list", "ten lists"])
def test_long_lists_of_texts_before_the_sound_cost_no_time(folder, sizes):
    names = (b"%04X" % number for number in range(30_000))
    lists = [(b"LIST", b"INFO" + b"".join(chunk(next(names), b"x\0") for _ in range(size))) for size in sizes]
    path = save_wav(Path("a.wav"), lists)
    began = time.process_time()
    with Reader(path) as reader:
        assert (reader.container, sum(block.shape[1] for block in reader.blocks())) == ("WAV", 4000)
        assert [body for name, body in reader.carried.native if name == b"LIST"] == [body for _, body in lists]
    assert time.process_time() - began < 5


def test_a_list_of_a_gigabyte_is_named_and_takes_no_memory(folder, capsys):
    path, large = save_wav(Path("a.wav")), 1 << 30
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        file.write(b"LIST" + struct.pack("<I", large) + b"INFOINAM" + struct.pack("<I", large - 12))
        file.truncate(end + 8 + large)  # sparse
        file.seek(4)
        file.write(struct.pack("<I", end + large))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert run("--query", "half", path) == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    words = "separate: warning: a.wav: not carried to the outputs: the chunk “LIST” (1073.7 MB).\n"
    assert capsys.readouterr().err == words


@pytest.mark.parametrize("target", FORMATS)
def test_a_cover_of_ten_megabytes(folder, target):
    cover = draw_cover() + np.random.default_rng(0).bytes(10_000_000)
    path = save(Path("song.mp3"), "libmp3lame", cover=cover)
    assert run("--query", "half", path, "--format", target) == 0
    assert inspect(f"song.half.{target}")[1] == [cover]
    assert sum(block.shape[1] for block in Reader(f"song.half.{target}").blocks()) == RATE // 2


@pytest.mark.parametrize("suffix", ["mp3", "flac", "ogg", "opus", "m4a", "wav", "aiff"])
def test_any_damage_of_tags_costs_at_most_one_sentence(folder, capsys, suffix):
    source = save(Path("song.flac"), "flac", cover=draw_cover())
    if suffix == "m4a":
        whole = save(Path("song.m4a"), "aac", cover=draw_cover())
    else:
        assert suffix == "flac" or run("--query", "all", source, "--format", suffix) == 0
        whole = source if suffix == "flac" else Path(f"song.all.{suffix}")
    data, random = whole.read_bytes(), np.random.default_rng(3)
    places = [found.start() for found in re.finditer(rb"(?i)Rock|by the sea|Somebody|image/jpeg|TIT2|IART", data)]
    places = [place for place in places if place > 30]
    assert len(places) > 1
    for number in range(6):
        damaged = bytearray(data)
        at = places[number % len(places)]
        for place in random.integers(at - 12, at, 2):
            damaged[place] = random.integers(256)
        path = Path(f"{number}.{suffix}")
        path.write_bytes(damaged)
        capsys.readouterr()
        status = run("--query", "half", path, "-o", "out")
        err = capsys.readouterr().err
        assert "Traceback" not in err and err.count("not carried") <= 1 and len(err.strip().splitlines()) <= 2, err
        assert status == 0 or "carried" not in err
        if suffix in ("mp3", "wav", "aiff"):
            assert status == 0


def test_joined_pages_of_ogg_are_counted_anew(folder):
    """Long comments move the numbers of all pages."""
    picture = base64.b64encode(bytes(4) + np.random.default_rng(0).bytes(200_000)).decode()
    with soundfile.SoundFile("a.ogg", "w", RATE, 1, "VORBIS", format="OGG") as file:
        file.title, file.comment = "Song", picture
        for _ in range(20):
            file.write(tone(440, 0.3, RATE).T)
    assert run("--query", "half", "a.ogg") == 0
    with soundfile.SoundFile("a.half.ogg") as file:
        assert (file.title, file.comment, file.frames) == ("Song (half)", picture, 20 * round(0.3 * RATE))
    reader = Reader("a.half.ogg")
    assert sum(block.shape[1] for block in reader.blocks()) == file.frames and reader.warning is None
