"""Files that are joined, cut, tagged in the middle or never finished, made from generated sound."""

import re
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
import torch
from media import save_media, tone

from separation.audio import Reader, read, write, writing
from separation.data.corpus import read_samples

RATE = 48000
ID3 = b"ID3\x03\0\0\0\0\x3e\0" + bytes(62 * 128)
ID3_PICTURE = b"ID3\x04\0\0\0\x02\x01\0" + np.random.default_rng(7).bytes(2 * 128 * 128 + 128)
ID3V1 = b"TAG" + b"title".ljust(125, b"\0")
APE = b"".join(
    b"APETAGEX" + struct.pack("<IIII", 2000, 3032, 1, flags) + bytes(8) + body
    for flags, body in ((0xA0000000, bytes(range(256)) * 11 + bytes(184)), (0x80000000, b""))
)


def noise(seconds, rate=8000, channels=2, seed=0):
    """White noise (channels, time)."""
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, round(seconds * rate))).astype(np.float32)


def listen(path):
    """All samples (channels, time) of a file, its rate and the sentence about it."""
    reader = Reader(path)
    return torch.cat(list(reader.blocks()), dim=1).numpy(), reader.sample_rate, reader.warning


def pitches(wave, rate, starts, seconds=0.5):
    """The strongest frequency, Hz, of half a second at each of some times, in the first channel."""
    pieces = [wave[0, round(start * rate) :][: round(seconds * rate)] for start in starts]
    return [round(float(np.abs(np.fft.rfft(piece)).argmax()) / seconds) for piece in pieces]


def mp3(folder, seconds, hertz=440, rate=44100, channels=1, xing=1, wave=None, quality=None):
    """The bytes of an mp3 file; with `quality` of variable rate."""
    path = folder / "part.mp3"
    wave = tone(hertz, seconds, rate, channels) if wave is None else wave
    with av.open(str(path), "w", options={"write_xing": str(xing), "id3v2_version": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=rate, layout={1: "mono", 2: "stereo"}[channels])
        if quality is not None:
            stream.codec_context.global_quality, stream.codec_context.flags = 118 * quality, 2
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout=stream.layout.name)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


# MPEG audio


def test_an_mp3_of_variable_rate_without_a_header_is_read_to_its_end(tmp_path):
    wave = np.concatenate([np.zeros((1, 6 * 44100), np.float32), noise(6, 44100, 1)], axis=1)
    (tmp_path / "a.mp3").write_bytes(mp3(tmp_path, 12, wave=wave, xing=0, quality=2))
    result, rate, warning = listen(tmp_path / "a.mp3")
    assert (result.shape[1] / rate, warning) == (pytest.approx(12, abs=0.1), None)


@pytest.mark.parametrize("between", [b"", ID3, ID3_PICTURE, APE, ID3V1, ID3V1 + ID3, APE + ID3V1, bytes(70_000)])
def test_joined_mp3_files_are_read_without_a_gap_and_without_a_word(tmp_path, between):
    """The encoder's delay and padding are removed from each of them, so that the second begins at its sample."""
    first, second = mp3(tmp_path, 1.5), mp3(tmp_path, 2, 880)
    for name, data in (("a.mp3", first + between + second), ("b", first + between + second + between)):
        (tmp_path / name).write_bytes(data)
        wave, rate, warning = listen(tmp_path / name)
        assert (wave.shape, warning) == ((1, 154350), None)
        assert np.abs(wave[:, 67000:154000] - tone(880, 2, rate)[:, 850:87850]).max() < 0.02


@pytest.mark.parametrize(
    ("rate", "channels", "xing", "first"),
    [(48000, 1, 1, True), (44100, 2, 1, True), (8000, 1, 1, True), (24000, 2, 0, True), (22050, 2, 1, False)],
)
def test_joined_mp3_files_of_other_kinds_are_converted_and_that_is_said(tmp_path, rate, channels, xing, first):
    parts = [mp3(tmp_path, 2), mp3(tmp_path, 2, 880, rate, channels, xing)]
    parts, expected = (parts, [440, 880]) if first else (parts[::-1], [880, 440])
    (tmp_path / "a.mp3").write_bytes(parts[0] + parts[1])
    wave, got, warning = listen(tmp_path / "a.mp3")
    assert (got, len(wave)) == ((44100, 1) if first else (rate, channels))
    assert wave.shape[1] / got == pytest.approx(4.0, abs=0.15)
    assert pitches(wave, got, [0.7, 2.7]) == expected
    level = [np.sqrt(np.mean(wave[:, round(s * got) :][:, : got // 2] ** 2)) for s in (0.7, 2.7)]
    assert level == pytest.approx([0.2015, 0.2015], abs=0.003)
    assert f"recordings of different kinds, all converted to that of the first: {got} Hz" in warning


def test_layers_may_be_joined(tmp_path):
    samples = np.ascontiguousarray((32767 * tone(660, 2, 44100)).astype(np.int16))
    with av.open(str(tmp_path / "a.mp2"), "w") as container:
        stream = container.add_stream("mp2", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 44100
        container.mux([*stream.encode(frame), *stream.encode(None)])
    (tmp_path / "b.mp3").write_bytes((tmp_path / "a.mp2").read_bytes() + mp3(tmp_path, 2))
    wave, rate, warning = listen(tmp_path / "b.mp3")
    assert (wave.shape[1] / rate, warning) == (pytest.approx(4, abs=0.05), None)
    assert pitches(wave, rate, [0.5, 2.5]) == [660, 440]
    assert Reader(tmp_path / "b.mp3").subtype == "MPEG_LAYER_II"


@pytest.mark.parametrize("stated", [0, 20, 1000, 2**32 - 1])
def test_a_header_that_lies_about_the_number_of_frames_is_not_believed(tmp_path, stated):
    data = bytearray(mp3(tmp_path, 2))
    at = max(data.find(b"Info"), data.find(b"Xing"))
    data[at + 8 : at + 12] = struct.pack(">I", stated)
    (tmp_path / "a.mp3").write_bytes(data)
    wave, rate, warning = listen(tmp_path / "a.mp3")
    assert (wave.shape[1] / rate, warning) == (pytest.approx(2, abs=0.03), None)
    frames = Reader(tmp_path / "a.mp3").frames
    assert frames is None or frames < 60 * rate


@pytest.mark.parametrize("damage", ["garbage", "hole", "end", "cut frame"])
def test_damage_in_an_mp3_costs_no_more_than_what_is_damaged_and_is_said(tmp_path, damage):
    data = mp3(tmp_path, 4, xing=int(damage == "end"))
    garbage = np.random.default_rng(1).bytes(3000)
    changed = {
        "garbage": data[:30000] + garbage + data[30000:],
        "hole": data[:20000] + data[20500:],
        "end": data[: len(data) * 6 // 10],
        "cut frame": data[:-100],
    }
    (tmp_path / "a.mp3").write_bytes(changed[damage])
    wave, rate, warning = listen(tmp_path / "a.mp3")
    assert wave.shape[1] / rate == pytest.approx({"end": 2.4}.get(damage, 4.0), abs=0.11)
    assert f"only {wave.shape[1] / rate:.3f} s" in warning


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("rate", [44100, 8000])
def test_training_reads_any_part_of_an_mp3(tmp_path, joined, rate):
    """Parts are found exactly in files that state their length; joined ones are read from the start."""
    parts = [mp3(tmp_path, 3, rate=rate, wave=noise(3, rate, 1, seed)) for seed in (1, 2)]
    (tmp_path / "a.mp3").write_bytes(b"".join(parts[: 1 + joined]))
    whole, got = read(tmp_path / "a.mp3")
    starts = (0.0, 0.01, 0.5, 2.6) + ((2.95, 4.5) if joined else ())
    for start in starts:
        part, got = read_samples(tmp_path / "a.mp3", start, 0.3)
        first = round(start * rate)
        assert (got, part.shape) == (rate, (round(0.3 * rate), 1))
        assert np.abs(part[:, 0] - whole[0, first : first + len(part)].numpy()).max() < 1e-4
    assert len(read_samples(tmp_path / "a.mp3")[0]) == (1 + joined) * 3 * rate


# Ogg


def ogg(folder, kind, seconds, hertz, rate=RATE, channels=1):
    """The bytes of an Ogg file with Vorbis, Opus or flac."""
    path, wave = folder / "part.ogg", tone(hertz, seconds, rate, channels)
    if kind == "FLAC":
        return save_media(path, [wave], rate, "flac").read_bytes()
    soundfile.write(path, wave.T, rate, format="OGG", subtype=kind)
    return path.read_bytes()


def pages(data):
    """The pages of an Ogg file: start and end."""
    at, found = 0, []
    while at < len(data):
        segments = data[at + 26]
        end = at + 27 + segments + sum(data[at + 27 : at + 27 + segments])
        found.append((at, end))
        at = end
    return found


def without_mark(data):
    """An Ogg file whose last page is not marked as such; the checksum, bit by bit, is right."""
    start, end = pages(data)[-1]
    page = bytearray(data[start:end])
    page[5] &= ~4
    page[22:26] = bytes(4)
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum >> 31 else 0)) & 0xFFFFFFFF
    page[22:26] = struct.pack("<I", checksum)
    return data[:start] + bytes(page)


@pytest.mark.parametrize(
    ("kinds", "rates", "channels"),
    [
        (["VORBIS", "VORBIS"], [RATE, RATE], [1, 1]),
        (["OPUS", "OPUS"], [RATE, RATE], [1, 1]),
        (["OPUS", "OPUS"], [RATE, RATE], [1, 2]),
        (["OPUS", "OPUS"], [RATE, 16000], [2, 1]),
        (["VORBIS", "OPUS"], [RATE, RATE], [1, 1]),
        (["OPUS", "VORBIS"], [RATE, 44100], [2, 2]),
        (["VORBIS", "VORBIS", "VORBIS"], [44100, RATE, 22050], [2, 1, 2]),
        (["FLAC", "FLAC"], [RATE, RATE], [1, 1]),
        (["FLAC", "VORBIS"], [RATE, 44100], [1, 2]),
        (["VORBIS", "FLAC"], [RATE, RATE], [2, 1]),
        (["OPUS", "OPUS"], [RATE, RATE], [2, 6]),
    ],
)
@pytest.mark.parametrize("between", [b"", b"no page" * 100])
def test_all_recordings_in_an_ogg_file_are_read(tmp_path, kinds, rates, channels, between):
    hertz = [440, 880, 660][: len(kinds)]
    parts = [ogg(tmp_path, *each) for each in zip(kinds, [1.5] * 3, hertz, rates, channels, strict=False)]
    (tmp_path / "a.ogg").write_bytes(between.join(parts))
    wave, rate, warning = listen(tmp_path / "a.ogg")
    assert (rate, wave.shape) == (rates[0], (channels[0], round(1.5 * len(kinds) * rate)))
    assert pitches(wave, rate, [0.5, 2.0, 3.5][: len(kinds)]) == hertz
    same = len({*zip(rates, channels, strict=True)}) == 1
    converted = f"recordings of different kinds, all converted to that of the first: {rate} Hz, {channels[0]} channel"
    assert warning is None if same else converted in warning


def test_joined_ogg_files_with_streams_beside_each_other(tmp_path):
    path = tmp_path / "part.ogg"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream(codec, rate=RATE, layout="mono") for codec in ("flac", "libopus")]
        for stream, hertz in zip(streams, (440, 880), strict=True):
            frame = av.AudioFrame.from_ndarray(tone(hertz, 1.5, RATE), format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
            for part in av.AudioResampler(stream.codec_context.format.name, "mono", RATE).resample(frame):
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
    (tmp_path / "a.ogg").write_bytes(2 * path.read_bytes())
    wave, rate, warning = listen(tmp_path / "a.ogg")
    assert (rate, wave.shape, warning) == (RATE, (1, 3 * RATE), None)
    assert pitches(wave, rate, [0.5, 2.0]) == [440, 440]


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS", "FLAC"])
def test_a_missing_mark_at_the_end_of_an_ogg_file_is_no_loss(tmp_path, kind):
    data = ogg(tmp_path, kind, 3, 440)
    (tmp_path / "whole.ogg").write_bytes(data)
    for name, changed in (("a.ogg", without_mark(data)), ("b.ogg", data + bytes(999))):
        (tmp_path / name).write_bytes(changed)
        wave, rate, warning = listen(tmp_path / name)
        assert (wave.shape, warning) == ((1, 3 * rate), None)
        assert np.array_equal(wave, listen(tmp_path / "whole.ogg")[0])


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS", "FLAC"])
@pytest.mark.parametrize("where", ["last page", "last byte", "middle"])
def test_what_is_in_a_cut_page_is_used_and_the_loss_is_said(tmp_path, kind, where):
    data = ogg(tmp_path, kind, 5, 440)
    start, end = pages(data)[-1]
    cut = {"last page": start + (end - start) * 2 // 3, "last byte": end - 1, "middle": len(data) // 2}[where]
    (tmp_path / "a.ogg").write_bytes(data[:cut])
    wave, rate, warning = listen(tmp_path / "a.ogg")
    whole, _ = read_samples(tmp_path / "a.ogg")
    (tmp_path / "b.ogg").write_bytes(data[:start] if where != "middle" else data[: pages(data)[-2][0]])
    least = listen(tmp_path / "b.ogg")[0].shape[1] if where != "middle" else rate
    assert least < wave.shape[1] == len(whole) < 5 * rate
    assert f"only {wave.shape[1] / rate:.3f} s" in warning


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS", "FLAC"])
@pytest.mark.parametrize("damage", ["flipped", "dropped"])
def test_a_page_that_is_lost_is_said(tmp_path, kind, damage):
    data = ogg(tmp_path, kind, 12, 440)
    start, end = pages(data)[len(pages(data)) // 2]
    middle = bytearray(data[start:end])
    middle[len(middle) // 2] ^= 0x55
    (tmp_path / "a.ogg").write_bytes(data[:start] + (bytes(middle) if damage == "flipped" else b"") + data[end:])
    wave, rate, warning = listen(tmp_path / "a.ogg")
    assert 4 * rate < wave.shape[1] < 12 * rate
    assert "is cut short or damaged" in warning


# Sizes that nobody finished

LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf60.16.100\0"
BEXT64 = b"bext\xf3\xac\xd3\x11\x8c\xd1\0\xc0O\x8e\xdb\x8a" + struct.pack("<Q", 24 + 800) + noise(0.05).tobytes()[:800]
# How the size is stored, what the size includes, and where to find it
SIZES = {
    "WAV": ("<I", 0, rb"data"),
    "WAVEX": ("<I", 0, rb"data"),
    "RF64": ("<Q", 0, rb"ds64.{8}(?=.{4})"),
    "W64": ("<Q", 24, rb"data.{12}"),
    "AIFF": (">I", 8, rb"SSND"),
    "CAF": (">Q", 4, rb"(?<=.{40})data"),
    "AU": (">I", 0, rb"\.snd.{4}"),
}


def unfinished(folder, container, size, behind=b"", cut=None, subtype="PCM_16"):
    """A second of noise whose header says that the sound has `size` bytes (None: what it has), and the noise."""
    path, wave = folder / "a", noise(1.0)
    soundfile.write(path, wave.T, 8000, format=container, subtype=subtype)
    form, own, pattern = SIZES[container]
    data = bytearray(path.read_bytes())
    at = re.search(pattern, data, re.DOTALL).end() + (4 if container == "RF64" else 0)
    if size is not None:
        data[at : at + struct.calcsize(form)] = struct.pack(form, (size + own) % 2 ** (8 * struct.calcsize(form)))
    path.write_bytes((bytes(data) + behind)[:cut])
    return path, wave


CASES = [
    *((container, size) for container in SIZES for size in ("0", "all", "half")),
    *(("WAV", size) for size in (2**31 - 44, 0xFFFFFFFE, 0xFFFFF000, 31_999)),
    *(("AIFF", size) for size in (-8, 2**31)),
    *(("CAF", size) for size in (-5, 2**63 - 10)),
]


@pytest.mark.parametrize(("container", "size"), CASES)
def test_sound_of_unfinished_size_reaches_to_the_end_of_the_file(tmp_path, container, size):
    largest = 2 ** (8 * struct.calcsize(SIZES[container][0])) - 1
    number = {"0": 0, "all": largest - SIZES[container][1], "half": largest // 2 - SIZES[container][1]}.get(size, size)
    path, wave = unfinished(tmp_path, container, number)
    result, rate, warning = listen(path)
    assert (rate, result.shape, warning) == (8000, (2, 8000), None)
    assert np.abs(result - wave).max() < 4e-5
    assert Reader(path).frames == 8000


@pytest.mark.parametrize("size", [None, 0, 0xFFFFFFFF])
def test_chunks_behind_unfinished_sound_are_not_sound(tmp_path, size):
    path, wave = unfinished(tmp_path, "WAV", size, LIST)
    result, _, warning = listen(path)
    assert (result.shape, warning) == ((2, 8000), None)
    assert np.abs(result - wave).max() < 4e-5


def test_chunks_behind_the_sound_of_w64_are_not_sound(tmp_path):
    path, wave = unfinished(tmp_path, "W64", None, BEXT64)
    result, _, warning = listen(path)
    assert (result.shape, warning) == ((2, 8000), None)
    assert np.abs(result - wave).max() < 4e-5


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24", "IMA_ADPCM"])
def test_sound_of_unfinished_size_of_any_sample_type(tmp_path, subtype):
    whole = listen(unfinished(tmp_path, "WAV", None, subtype=subtype)[0])[0]
    for size in (0, 0xFFFFFFFF):
        result, _, warning = listen(unfinished(tmp_path, "WAV", size, subtype=subtype)[0])
        assert warning is None
        assert np.array_equal(result, whole)


@pytest.mark.parametrize("container", SIZES)
def test_a_truncated_file_says_how_much_was_read(tmp_path, container):
    path, wave = unfinished(tmp_path, container, None, cut=20_001)
    result, _, warning = listen(path)
    assert 3900 < result.shape[1] < 5000
    assert np.abs(result - wave[:, : result.shape[1]]).max() < 4e-5
    assert f"is cut short or damaged: only {result.shape[1] / 8000:.3f} s can be read and are used." in warning


def test_a_truncated_sphere_file_says_so_too(tmp_path):
    soundfile.write(tmp_path / "a", noise(1.0).T, 8000, format="NIST", subtype="PCM_16")
    assert listen(tmp_path / "a")[2] is None
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:20_001])
    result, _, warning = listen(tmp_path / "a")
    assert f"only {result.shape[1] / 8000:.3f} s" in warning


@pytest.mark.parametrize("container", SIZES)
def test_bytes_that_the_header_does_not_count_are_named(tmp_path, container):
    path, wave = unfinished(tmp_path, container, 16_000)
    result, _, warning = listen(path)
    assert np.abs(result - wave[:, :4000]).max() < 4e-5
    assert warning == f"{path} has 16000 bytes after the sound that its header describes; they are not read."


@pytest.mark.parametrize("start", [0, 36])
def test_sound_behind_that_of_a_wav_file_is_named(tmp_path, start):
    path, wave = unfinished(tmp_path, "WAV", None)
    path.write_bytes(path.read_bytes() + path.read_bytes()[start:])  # a second file, or a second chunk of samples
    result, _, warning = listen(path)
    assert np.abs(result - wave).max() < 4e-5
    assert f"has {32044 - start} bytes after the sound that its header describes" in warning


@pytest.mark.parametrize("damage", ["cut", "flipped", "hole"])
def test_a_damaged_flac_gives_all_frames_that_are_whole(tmp_path, damage):
    soundfile.write(tmp_path / "a.flac", noise(6, 8000).T, 8000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0x55
    whole = {"cut": data[: len(data) // 2], "hole": data[:30_000] + data[32_000:]}.get(damage, data)
    (tmp_path / "a.flac").write_bytes(whole)
    result, rate, warning = listen(tmp_path / "a.flac")
    least = {"cut": 2.4, "flipped": 5.4, "hole": 4.9}[damage]
    assert least < result.shape[1] / rate <= 6
    assert np.abs(result[:, :8000] - noise(6, 8000)[:, :8000]).max() < 1e-4
    assert "is cut short or damaged" in warning


# Channels

LAYOUTS = {3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
MASKS = {3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}


def one_tone_each(channels, seconds=0.6):
    """A tone of its own in each channel; that of the subwoofer is low, as encoders remove the rest."""
    hertz = [60 if n == 3 and channels > 5 else 400 + 200 * n for n in range(channels)]
    return torch.from_numpy(np.concatenate([tone(each, seconds, RATE) for each in hertz])), hertz


def strongest(wave):
    """The strongest frequency, Hz, of each channel."""
    middle = wave[:, RATE // 10 : RATE // 2] * np.hanning(RATE // 2 - RATE // 10)
    return [round(each.argmax() * 2.5) for each in np.abs(np.fft.rfft(middle))]


def save_layout(path, wave, layout, codec):
    """Write a container with FFmpeg, whose channels are those of a layout."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout=layout)
        frame = av.AudioFrame.from_ndarray(wave.T.contiguous().numpy().reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
        resampler = av.AudioResampler(stream.codec_context.format.name, layout, RATE)
        for part in resampler.resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def stored_mask(path):
    """The channel mask in the header of a wav file."""
    head = path.read_bytes()[:300]
    at = head.index(b"fmt ")
    assert head[at + 8 : at + 10] == b"\xfe\xff"
    return struct.unpack("<I", head[at + 28 : at + 32])[0]


@pytest.mark.parametrize("channels", LAYOUTS)
@pytest.mark.parametrize("source", ["ogg", "opus", "wav", "flac", "aiff", "caf", "w64", "m4a", "mkv", "webm"])
def test_each_channel_stays_in_its_place(tmp_path, source, channels):
    wave, hertz = one_tone_each(channels)
    path = tmp_path / f"a.{source}"
    if source in ("m4a", "mkv", "webm"):
        if source == "webm" and channels in (5, 7):
            pytest.skip("FFmpeg's Opus encoder itself swaps channels")
        codec = {"m4a": "aac", "mkv": "flac", "webm": "libopus"}[source]
        save_layout(path, wave, LAYOUTS[channels], codec)
    else:
        write(path, wave, RATE)
    found, rate = read(path)
    assert (rate, strongest(found.numpy())) == (RATE, hertz)
    with av.open(str(path)) as container:  # another decoder agrees
        stream = container.streams.audio[0]
        if stream.layout.name in (LAYOUTS[channels], f"{LAYOUTS[channels]}(side)"):
            packed = av.AudioResampler("flt", stream.layout, RATE)
            parts = [part for frame in container.decode(stream) for part in packed.resample(frame)]
            samples = np.concatenate([part.to_ndarray().reshape(-1, channels) for part in parts])
            assert strongest(samples.T) == hertz
    targets = ("wav", "flac", "ogg", "opus") if source in ("ogg", "opus", "wav", "flac") else ("wav", "ogg")
    for target in targets:
        write(tmp_path / f"b.{target}", found.clip(-0.9, 0.9), RATE, channel_mask=Reader(path).channel_mask)
        assert strongest(read(tmp_path / f"b.{target}")[0].numpy()) == hertz
    mask = stored_mask(tmp_path / "b.wav")
    assert mask == (Reader(path).channel_mask or MASKS[channels])
    assert Reader(tmp_path / "b.flac" if "flac" in targets else tmp_path / "b.wav").channel_mask.bit_count() == channels


@pytest.mark.parametrize(("mask", "layout"), [(0x60F, "5.1(side)"), (0x3F, "5.1"), (0x107, "4.0"), (0x33, "quad")])
def test_the_mask_of_a_wav_file_is_kept(tmp_path, mask, layout, monkeypatch):
    wave = one_tone_each(mask.bit_count())[0]
    save_layout(tmp_path / "a.wav", wave, layout, "pcm_f32le")
    reader = Reader(tmp_path / "a.wav")
    assert reader.channel_mask == mask
    for size in (writing.RF64_BYTES, 1000):
        monkeypatch.setattr(writing, "RF64_BYTES", size)
        write(tmp_path / "b.wav", wave, RATE, channel_mask=reader.channel_mask, overwrite=True)
        assert (stored_mask(tmp_path / "b.wav"), Reader(tmp_path / "b.wav").channel_mask) == (mask, mask)
        assert torch.equal(read(tmp_path / "b.wav")[0], wave)


def test_channels_in_another_order_are_put_in_that_of_wav_files(tmp_path):
    """The layout of a CAF file says left, right, rear left, rear right, centre, subwoofer (MPEG 5.1 B)."""
    wave, hertz = one_tone_each(6)
    order = [0, 1, 4, 5, 2, 3]
    soundfile.write(tmp_path / "a.caf", wave[order].T.numpy(), RATE, subtype="PCM_16")
    data = (tmp_path / "a.caf").read_bytes()
    at = data.index(b"free" if b"free" in data[:100] else b"data")
    chan = b"chan" + struct.pack(">qIII", 12, 122 << 16 | 6, 0, 0)
    (tmp_path / "a.caf").write_bytes(data[:at] + chan + data[at:])
    found, _ = read(tmp_path / "a.caf")
    assert strongest(found.numpy()) == hertz


def test_a_quicktime_file_may_have_its_channels_in_any_order(tmp_path):
    """FFmpeg's own description of such an order would end the process: PyAV frees it twice."""
    wave, hertz = one_tone_each(6)
    path = save_layout(tmp_path / "a.mov", wave, "5.1", "pcm_s16le")
    data = bytearray(path.read_bytes())
    at = data.index(b"chan")
    data[at + 8 : at + 12] = struct.pack(">I", 124 << 16 | 6)  # MPEG 5.1 D
    path.write_bytes(data)
    assert strongest(read(path)[0].numpy()) == hertz  # as stored


@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_packets_that_are_missing_in_the_middle_are_said(tmp_path, suffix):
    """Each of them is whole, and only their times tell."""
    save_media(tmp_path / f"a.{suffix}", [tone(440, 4.0, RATE)], RATE, "mp2")
    with av.open(str(tmp_path / f"a.{suffix}")) as source, av.open(str(tmp_path / f"b.{suffix}"), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for number, packet in enumerate(source.demux(audio=0)):
            if packet.pts is not None and not 60 <= number < 120:
                packet.stream = stream
                target.mux(packet)
    wave, rate, warning = listen(tmp_path / f"b.{suffix}")
    assert wave.shape[1] < 3 * rate
    assert f"only {wave.shape[1] / rate:.3f} s" in warning
    assert listen(tmp_path / f"a.{suffix}")[2] is None


# Other containers

CONTAINERS = {
    "avi": "libmp3lame", "flv": "libmp3lame", "wma": "libmp3lame", "mpg": "mp2", "ts": "mp2", "mka": "flac",
    "webm": "libopus",
}  # fmt: skip


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_a_container_that_is_cut_says_how_much_was_read(tmp_path, suffix):
    sound = [noise(3, 48000 if suffix != "flv" else 44100)]
    path = save_media(tmp_path / f"a.{suffix}", sound, len(sound[0][0]) // 3, CONTAINERS[suffix])
    assert listen(path)[2] is None
    data = path.read_bytes()
    path.write_bytes(data[: round(0.6 * len(data)) // 188 * 188 + 100])
    got, rate, sentence = listen(path)
    seconds = got.shape[1] / rate
    assert 1 < seconds < 2.2
    assert f"is cut short or damaged: only {seconds:.3f} s" in sentence


@pytest.mark.parametrize("suffix", ["m4a", "mov", "3gp", "flv"])
def test_a_recording_behind_another_that_is_not_read_is_named(tmp_path, suffix):
    codec = "libmp3lame" if suffix == "flv" else "aac"
    data = save_media(tmp_path / f"a.{suffix}", [noise(1, 44100)], 44100, codec).read_bytes()
    path = tmp_path / f"two.{suffix}"
    path.write_bytes(data + data)
    got, rate, sentence = listen(path)
    assert got.shape[1] < 1.2 * rate
    assert sentence == f"{path} has {len(data)} bytes after the recording that its header describes; they are not read."


def test_what_a_whole_avi_or_wav_file_says_about_times_is_not_believed(tmp_path):
    for name, codec in (("a.avi", "adpcm_ima_wav"), ("a.avi", "eac3"), ("a.wav", "libmp3lame")):
        path = save_media(tmp_path / name, [noise(2, RATE)], RATE, codec)
        got, rate, sentence = listen(path)
        assert got.shape[1] / rate == pytest.approx(2, abs=0.1)
        assert sentence is None


@pytest.mark.parametrize("container", ["VOC", "SVX", "AVR", "MAT4", "MAT5", "MPC2K", "WVE"])
def test_a_truncated_file_of_a_rare_format_says_so(tmp_path, container):
    path, rate = tmp_path / f"a.{container.lower()}", 8000
    soundfile.write(
        path, noise(2, rate, 1)[0], rate, format=container, subtype="ALAW" if container == "WVE" else "PCM_16"
    )
    assert listen(path)[2] is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "only 0.9" in listen(path)[2]
