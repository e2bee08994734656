"""Files that name other files, claim sizes that nobody has, or are no files: refused without harm."""

import array
import contextlib
import fcntl
import os
import re
import resource
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media import save_media, tone

from separation.audio import AudioError, Reader

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demos"))
from page.limits import Limits  # the page opens recordings with this

ROOT = Path(__file__).resolve().parents[1]
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
    '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="0" bandwidth="1"><BaseURL>{path}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>"
)
PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n",
    "hls map": '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-MAP:URI="{path}"\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n',
    "hls key": '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-KEY:METHOD=AES-128,URI="{path}"\n#EXTINF:1,\n{path}\n',
    "m3u": "{path}\n",
    "concat": "ffconcat version 1.0\nfile '{path}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={path}\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "dash": DASH,
    "smil": '<smil><body><audio src="{path}"/></body></smil>',
    "smooth": '<SmoothStreamingMedia MajorVersion="2"><StreamIndex Type="audio" Url="{path}"/></SmoothStreamingMedia>',
    "imf": '<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2013"><Id>{path}</Id></CompositionPlaylist>',
    "asx": '<asx version="3.0"><entry><ref href="{path}"/></entry></asx>',
    "cue": 'FILE "{path}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "avisynth": 'WavSource("{path}")\n',
    "vapoursynth": "import vapoursynth\nopen('{path}')\n",
    "lavfi": "amovie={path}",
    "pls": "[playlist]\nFile1={path}\nNumberOfEntries=1\n",
    "image sequence": "%d{path}",
}


@pytest.fixture
def canary(tmp_path):
    """A pipe full of sound that this process holds open, and a function that counts the bytes that are left in it."""
    path, sound = tmp_path / "canary.wav", tmp_path / "sound.wav"
    soundfile.write(sound, tone(1000, 0.5, 44100).T, 44100, subtype="PCM_16")
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    size = os.write(pipe, sound.read_bytes())
    left = array.array("i", [0])

    def unread():
        fcntl.ioctl(pipe, termios.FIONREAD, left)
        return left[0] == size

    yield path, unread
    os.close(pipe)


def open_in(place, path):
    """Read a whole file as the command does, or open it as the page does."""
    reader = Limits().open(path) if place == "page" else Reader(path)
    for _ in reader.blocks():
        pass


@pytest.mark.parametrize("suffix", ["mp4", "wav", "mp3", "ogg"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_file_that_names_another_is_refused_and_the_other_stays_unread(tmp_path, canary, kind, suffix):
    other, unread = canary
    for name in (str(other), f"file:{other}", f"subfile,,start,0,end,0,,:{other}", other.name):
        path = tmp_path / f"list.{suffix}"
        path.write_text(PLAYLISTS[kind].format(path=name))
        for place in ("command", "page"):
            with pytest.raises(Exception, match=r"list\.|This file") as caught:
                open_in(place, path)
            assert isinstance(caught.value, AudioError) or type(caught.value).__name__ == "Refusal"
        assert unread()


def replace_box(data, path, contents):
    """Replace the contents of a box in a QuickTime file, and correct the sizes around it."""
    if not path:
        return contents
    at, result = 0, b""
    while at < len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        body = data[at + 8 : at + size]
        if data[at + 4 : at + 8] == path[0]:
            body = replace_box(body, path[1:], contents)
        result += struct.pack(">I", 8 + len(body)) + data[at + 4 : at + 8] + body
        at += size
    return result


def test_a_quicktime_file_whose_sound_is_in_another_file_is_refused(tmp_path, canary):
    other, unread = canary
    posix, mac = os.fsencode(other), b"Vol:" + os.fsencode(other)[1:].replace(b"/", b":")
    entry = bytes(10) + b"\x03" + b"Vol".ljust(27, b"\0") + bytes(12) + bytes([10]) + b"canary.wav".ljust(63, b"\0")
    entry += bytes(16) + struct.pack(">HH", 1, 1) + bytes(16)
    for kind, name in ((2, mac), (18, posix)):
        entry += struct.pack(">HH", kind, len(name)) + name + bytes(len(name) % 2)
    entry += struct.pack(">HH", 0xFFFF, 0)
    reference = struct.pack(">II", 0, 1) + struct.pack(">I", 12 + len(entry)) + b"alis" + bytes(4) + entry
    data = save_media(tmp_path / "a.mov", [tone(440, 1.0, 44100)], 44100, "pcm_s16le").read_bytes()
    boxes = [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"]
    (tmp_path / "a.mov").write_bytes(replace_box(data, boxes, reference))
    for place in ("command", "page"):
        with pytest.raises(AudioError, match=r"holds no audio|cannot be decoded"):
            open_in(place, tmp_path / "a.mov")
    assert unread()


# Claims


def with_number(data, at, value, form):
    """Bytes with another number at a place."""
    return bytes(data[:at]) + struct.pack(form, value) + bytes(data[at + struct.calcsize(form) :])


def hostile(name, folder):
    """A file of a second with a claim in its header."""
    kind, claim = name.split(".")[1], name.split(".")[0]
    path = folder / f"a.{kind}"
    if kind in ("mkv", "mp4"):
        save_media(path, [tone(440, 1.0, 44100)], 44100, {"mkv": "pcm_s16le", "mp4": "aac"}[kind])
    else:
        subtype = "VORBIS" if kind == "ogg" else "PCM_16"
        soundfile.write(path, np.zeros((8000, 2)), 8000, format=kind, subtype=subtype)
    data = path.read_bytes()
    changes = {
        "channels.wav": (22, 65535, "<H"),
        "rate.wav": (24, 10**9, "<I"),
        "slow.wav": (24, 999, "<I"),
        "fast.wav": (24, 2_000_000, "<I"),
        "slow.aiff": (data.find(b"COMM") + 16, 0x3FFF, ">H"),
        "chunk.wav": (16, 2**32 - 50, "<I"),
        "channels.au": (20, 2**31, ">I"),
        "rate.au": (16, 10**9, ">I"),
        "channels.caf": (44, 2**31, ">I"),
        "rate.caf": (20, 1e300, ">d"),
        "chunk.caf": (data.find(b"free") + 4, 2**62, ">q"),
        "channels.aiff": (data.find(b"COMM") + 8, 65535, ">H"),
        "rate.aiff": (data.find(b"COMM") + 16, 0x7FFE, ">H"),
        "chunk.aiff": (data.find(b"COMM") + 4, 2**31 - 16, ">I"),
        "chunk.w64": (data.find(b"fmt ") + 16, 2**62, "<Q"),
        "channels.mkv": (data.find(b"\x9f\x81") + 2, 255, "<B"),
        "rate.mkv": (data.find(b"\xb5\x88") + 2, 1e9, ">d"),
        "table.mp4": (data.find(b"stts") + 8, 2**30, ">I"),
        "sizes.mp4": (data.find(b"stsz") + 12, 2**29, ">I"),
    }
    path.write_bytes(with_number(data, *changes[f"{claim}.{kind}"]))
    return path


CLAIMS = ["channels.wav", "rate.wav", "chunk.wav", "channels.au", "rate.au", "channels.caf", "rate.caf", "chunk.caf"]
CLAIMS += [
    "channels.aiff",
    "rate.aiff",
    "chunk.aiff",
    "chunk.w64",
    "channels.mkv",
    "rate.mkv",
    "slow.wav",
    "fast.wav",
    "slow.aiff",
    "table.mp4",
    "sizes.mp4",
]


@pytest.mark.parametrize("name", CLAIMS)
def test_a_header_that_claims_too_much_is_refused_with_a_sentence(tmp_path, name):
    path = hostile(name, tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AudioError, match=rf"^{re.escape(str(path))} [^\n]*\.$"):
        for _ in Reader(path).blocks():
            pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_tag_that_claims_to_be_longer_than_the_file_hides_nothing(tmp_path):
    save_media(tmp_path / "a.mp3", [tone(440, 1.0, 44100)])
    data = (tmp_path / "a.mp3").read_bytes()
    for tag in (
        b"ID3\x03\0\0\x7f\x7f\x7f\x7f",
        b"APETAGEX" + struct.pack("<IIII", 2000, 2**32 - 1, 1, 0xA0000000) + bytes(8),
    ):
        (tmp_path / "b.mp3").write_bytes(data + tag + data)
        assert sum(block.shape[1] for block in Reader(tmp_path / "b.mp3").blocks()) >= 2 * 44100


@pytest.mark.parametrize(
    "start", [b"", b"\xff\xfb", b"RIFF\0\0\0\0WAVX", b"OggS", b"\0\0\0\x20ftyp", b"\x1aE\xdf\xa3", b"ID3"]
)
@pytest.mark.parametrize("suffix", ["mp3", "wav", "ogg"])
def test_libraries_print_nothing_about_what_they_cannot_read(tmp_path, capfd, start, suffix):
    save_media(tmp_path / "b.mp3", [tone(440, 1.0, 44100)])
    data = (tmp_path / "b.mp3").read_bytes()[3000:]
    (tmp_path / f"a.{suffix}").write_bytes(start + bytes(200) + data[:3000] + bytes(3) + data[3100:])
    with contextlib.suppress(AudioError):
        for _ in Reader(tmp_path / f"a.{suffix}").blocks():
            pass
    assert capfd.readouterr() == ("", "")


# What is no file


def test_pipes_sockets_devices_and_links_to_nothing_are_sentences(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    (tmp_path / "broken.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    for name, words in {
        "pipe.wav": "is a pipe, socket or device",
        "zero.wav": "is a pipe, socket or device",
        "broken.wav": r"is a link to a file that does not exist\.$",
        "loop.wav": r"cannot be read: it is a loop of links\.$",
        "nul\0.wav": r"cannot be read: the name is not valid\.$",
        "": "is a folder, not an audio file",
    }.items():
        with pytest.raises(AudioError, match=words):
            Reader(tmp_path / name)


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd")
def test_the_output_of_a_command_is_an_input(tmp_path):
    """A pipe that is named, as bash names <(command), is read once and kept."""
    soundfile.write(tmp_path / "a.wav", tone(440, 0.5, 8000).T, 8000)
    code = "import sys; from separation.cli import main; sys.exit(main(sys.argv[1:]))"
    script = f'"{sys.executable}" -c "{code}" --list --json <(cat "{tmp_path}/a.wav") "{tmp_path}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert '"duration": 0.5' in done.stdout, done.stderr
    assert "is a folder. Add -r" in done.stderr
