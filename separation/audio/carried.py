"""What a file carries beside its sound: tags, covers, and chunks of wav and aiff files.

`read_carried` collects it, and `attaching.attach` adds it to an encoded output. Between files of one family (wav; aiff;
mp3; flac, ogg and opus) it is copied byte by byte; between others, tags with FFmpeg's names and pictures are converted.
What describes the old samples is not carried. Nothing here makes a separation fail.
"""

from __future__ import annotations

import base64
import os
import re
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from separation.audio.ogg import find_pages, read_packets
from separation.audio.sizes import find_end, find_sound
from separation.audio.tags import (
    AIFF,
    ATTACHED,
    INFO,
    OLD_TAGS,
    VORBIS,
    Order,
    comment_start,
    flac_blocks,
    join_chunk,
    measure_tag,
    skip_tags,
    split_comments,
)

MAX_BYTES, MAX_CHUNKS, MAX_TAGS = 1 << 25, 1000, 10_000
FAMILIES = {
    "WAV": "wav", "WAVEX": "wav", "RF64": "wav", "AIFF": "aiff", "MP3": "mp3", "FLAC": "vorbis", "OGG": "vorbis",
}  # fmt: skip
SOUND = (b"data", b"SSND")
OLD_CHUNKS = frozenset(
    b"fmt ,fact,PEAK,levl,FLLR,JUNK,junk,PAD ,slnt,wavl,ovwf,LGWV,minf,elm1,regn,COMM,FVER,CHAN".split(b",")
)
"""Chunks that describe the samples or their encoding, overviews of them, and padding."""
MIME = {"mjpeg": b"image/jpeg", "png": b"image/png", "gif": b"image/gif", "bmp": b"image/bmp", "webp": b"image/webp"}
MASK = "waveformatextensible_channel_mask"


@dataclass
class Carried:
    """What a file carries.

    Attributes:
        path: the file.
        family: of the file, one of those in FAMILIES; "": another one.
        native: what is copied as it is: chunks of wav and aiff and the ID3 tag of mp3 with their names, Vorbis comments
            with their keys in lower case, and the blocks APPLICATION and CUESHEET of flac with the byte of their kind.
        tags: texts by FFmpeg's names in lower case.
        pictures: contents of PICTURE blocks as in flac.
        channel_mask: as stated by a wav file, or a flac file with unusual loudspeakers; None: not stated.
        left_out: what is too large or damaged, or does not fit into an output.
    """

    path: Path
    family: str = ""
    native: list[tuple[bytes, bytes]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    pictures: list[bytes] = field(default_factory=list)
    channel_mask: int | None = None
    left_out: list[str] = field(default_factory=list)
    room: int = MAX_BYTES

    def titled(self, addition: str) -> dict[str, str]:
        """Return the tags; the title, if there is one, with an addition in brackets."""
        title = self.tags.get("title")
        return self.tags | ({"title": f"{title} ({addition})"} if title and addition else {})

    @property
    def warning(self) -> str | None:
        """A sentence about what is left out, or None."""
        found = list(dict.fromkeys(self.left_out))
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return f"{self.path}: not carried to the outputs: {', '.join(found[:3])}{more}." if found else None

    def take(self, file: BinaryIO, length: int, what: str) -> bytes:
        """Read bytes if they are there and not too many; else note `what` and return b""."""
        if length > os.fstat(file.fileno()).st_size - file.tell():
            self.left_out.append(f"{what} (damaged)")
        elif length > self.room:
            self.left_out.append(f"{what} ({length / 1e6:.1f} MB)")
        else:
            self.room -= length
            return file.read(length)
        return b""


def read_carried(path: Path, container: str | None, opening: Callable[..., Any]) -> Carried:
    """Read what a file carries; `container` as `Reader.container`, `opening` is `containers.open_container`."""
    carried = Carried(path, FAMILIES.get(container or "", ""))
    try:
        with open(path, "rb") as file:
            if carried.family in ("wav", "aiff"):
                _read_chunks(carried, file, opening)
            elif carried.family == "vorbis":
                _read_comments(carried, file)
            elif carried.family == "mp3" and (length := measure_tag(file.read(32), 0)):
                file.seek(0)
                if tag := carried.take(file, length, "the ID3 tag"):
                    carried.native = [(b"id3 ", tag)]
                    _read_tags(carried, opening, carried.native)
            elif container != "W64" and not _has_many_items(file):  # FFmpeg takes any number
                _read_tags(carried, opening)
    except Exception:  # any damage; the sound may still be whole
        carried.left_out.append("tags that cannot be read")
    carried.tags = {name: text for name, text in carried.tags.items() if text and not re.fullmatch(OLD_TAGS, name)}
    return carried


def _read_chunks(carried: Carried, file: BinaryIO, opening: Callable[..., Any]) -> None:
    head = file.read(12)
    if head[:4] == b"RIFX":  # its chunks have another byte order
        return
    order: Order = "big" if carried.family == "aiff" else "little"
    size, at, large = os.fstat(file.fileno()).st_size, 12, 0
    for _ in range(MAX_CHUNKS):
        file.seek(at)
        name, length = file.read(4), int.from_bytes(file.read(4), order)
        if not re.fullmatch(rb"[ -~]{4}", name):
            break
        if name == b"ds64":
            large = int.from_bytes(file.read(16)[8:], "little")
        elif name == b"fmt " and (form := file.read(min(length, 40)))[:2] == b"\xfe\xff":
            carried.channel_mask = int.from_bytes(form[20:24], "little")
        elif name in SOUND:
            length = large if large and length in (0, 2**32 - 1) else length
            if not 0 < length <= size - at - 8 and (sound := find_sound(file, size)):  # unfinished
                at = find_end(file, sound, size)
                continue
        elif name not in OLD_CHUNKS and (body := carried.take(file, length, f"the chunk “{name.decode()}”")):
            carried.native.append((name, body))
        at += 8 + length + length % 2
    names = {AIFF[tag]: INFO[tag] for tag in AIFF} if order == "big" else {}
    texts = [join_chunk(names[name], body) for name, body in carried.native if name in names]
    known = [(name.lower() if name == b"ID3 " else name, body) for name, body in carried.native]
    known = [chunk for chunk in known if chunk[0] in (b"LIST", b"bext", b"id3 ")]
    _read_tags(carried, opening, known + [(b"LIST", b"INFO" + b"".join(texts))] * bool(texts))


def _read_comments(carried: Carried, file: BinaryIO) -> None:
    comments = b""
    file.seek(skip_tags(file, 0))
    if file.read(4) == b"fLaC":
        for kind, length in flac_blocks(file):
            body = carried.take(file, length, "a block of flac") if kind in (2, 4, 5, 6) else b""
            comments = comments or (body if kind == 4 else b"")
            carried.pictures += [body] if kind == 6 and body else []
            carried.native += [(bytes([kind]), body)] if kind in (2, 5) and body else []
    else:
        packet = read_packets(find_pages(file), 2, carried.room)[0][1]
        comments = packet[comment_start(packet) :]
    for entry in split_comments(comments)[1]:
        key, _, value = entry.partition(b"=")
        name = key.decode("ascii", "replace").lower()
        with suppress(ValueError):
            carried.pictures += [base64.b64decode(value)] if name == "metadata_block_picture" else []
            carried.channel_mask = int(value, 16) if name == MASK else carried.channel_mask
        if not re.fullmatch(OLD_TAGS, name):
            carried.native.append((name.encode(), entry))
            name = next((tag for tag, other in VORBIS.items() if other == name), name)
            text = value.decode("utf-8", "replace")
            carried.tags[name] = f"{carried.tags[name]}; {text}" if name in carried.tags else text
    if "description" in carried.tags and "comment" not in carried.tags:
        carried.tags["comment"] = carried.tags.pop("description")


def _has_many_items(file: BinaryIO) -> bool:
    """Return whether the APE tag at the end of a file has more than MAX_CHUNKS items."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 160))
    _, found, foot = file.read().partition(b"APETAGEX")
    return bool(found) and int.from_bytes(foot[8:12], "little") > MAX_CHUNKS


def _read_tags(
    carried: Carried, opening: Callable[..., Any], chunks: Sequence[tuple[bytes, bytes]] | None = None
) -> None:
    """Let FFmpeg read tags and pictures: of chunks, presented as a wav file without sound, or of the file."""
    # The time that FFmpeg takes grows with the square of the number of tags.
    few: list[tuple[bytes, bytes]] = []
    room = MAX_TAGS
    for name, body in chunks or ():
        count = len(re.findall(b"T[A-Z0-9]{2}", body)) if name == b"id3 " else len(body) // 8
        if count < room:
            few.append((name, body))
            room -= count
    if chunks is not None and len(few) < len(chunks):
        carried.left_out.append("very many tags")
    if chunks is not None and not few:
        return
    wav = [(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)), *few, (b"data", b"")]
    body = b"WAVE" + b"".join(join_chunk(*chunk) for chunk in wav)
    spans = [] if chunks is None else [b"RIFF" + struct.pack("<I", len(body)) + body]
    with opening(carried.path, spans, "surrogateescape") as source:
        sound = source.streams.audio[0].metadata if source.format.name == "ogg" else {}
        for name, text in {**sound, **source.metadata}.items():
            if re.search("[\ud800-\udfff]", text):  # not UTF-8
                text = text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
            carried.tags.setdefault("lyrics" if name.startswith("lyrics-") else name.lower(), text)
        for stream in source.streams.video:
            mime = MIME.get(stream.codec_context.name) if stream.disposition & ATTACHED else None
            packet = next((packet for packet in source.demux(stream) if packet.size), None) if mime else None
            if mime and packet:
                kind = {"Cover (front)": 3, "Cover (back)": 4}.get(stream.metadata.get("comment", "Cover (front)"), 0)
                head = struct.pack(f">II{len(mime)}s20xI", kind, len(mime), mime, packet.size)
                carried.pictures.append(head + bytes(packet))
