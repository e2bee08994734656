"""Adds what a file carries to an encoded output, see `carried`."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from separation.audio.carried import FAMILIES, MASK, Carried
from separation.audio.layouts import SIDE_MASKS, name_speakers
from separation.audio.ogg import replace_packet
from separation.audio.tags import (
    AIFF,
    INFO,
    VORBIS,
    Order,
    add_to_title,
    comment_start,
    flac_blocks,
    join_chunk,
    join_comments,
    join_frame,
    join_id3,
    picture_frame,
    retitle_id3,
    retitle_info,
    split_comments,
)
from separation.process import remove, temporary_path

MAX_BLOCK = 1 << 24  # bytes of a block of flac


def attach(path: Path, container: str, carried: Carried | None, addition: str, mask: int = 0) -> None:
    """Add what a file carries to an encoded file.

    Args:
        path: the encoded file.
        container: its container, by libsndfile's name.
        carried: of the input; None: nothing.
        addition: to the title, in brackets, if there is one.
        mask: unusual loudspeakers, which a flac file states and Vorbis and Opus cannot; 0: usual ones.
    """
    carried = carried or Carried(path)
    try:
        _attach(path, container, carried, addition, mask)
    except OSError:
        raise
    except Exception:  # any damage; nothing has been written yet
        carried.left_out.append("tags that cannot be converted")


def _attach(path: Path, container: str, carried: Carried, addition: str, mask: int) -> None:
    family, tags = FAMILIES.get(container), carried.titled(addition)
    native = carried.native if family == carried.family else []
    if not (mask or native or tags or carried.pictures) or family is None:
        return
    if container == "OGG" and mask and mask not in SIDE_MASKS:
        carried.left_out.append(f"the loudspeakers {name_speakers(mask)} (in ogg and opus)")
    frames = [join_frame(tag, text) for tag, text in tags.items()] + [picture_frame(each) for each in carried.pictures]
    made = join_id3(frames) if frames else b""
    if family == "mp3":
        made = (native and retitle_id3(native[0][1], tags.get("title"))) or made
        rewrite(path, lambda file: [made, *copy_rest(file, 0)])
    elif family == "vorbis":
        entries = [add_to_title(entry, addition) if key == b"title" and addition else entry for key, entry in native]
        entries = [entry for entry, (key, _) in zip(entries, native, strict=True) if key >= b" "]
        if not native:
            keys = {tag: re.sub("[^ -<>-}]", "_", VORBIS.get(tag, tag)).upper() for tag in tags}
            entries = [f"{keys[tag]}={text}".encode("utf-8", "replace") for tag, text in tags.items()]
        entries += [f"{MASK.upper()}=0x{mask:04X}".encode()] if mask and container == "FLAC" else []
        blocks = [(key[0], body) for key, body in native if key < b" "]
        edit = _edit_flac if container == "FLAC" else _edit_ogg
        rewrite(path, lambda file: edit(file, carried, entries, blocks))
    elif family == carried.family:
        append_chunks(path, [(name, _retitle(name, body, tags, addition)) for name, body in native])
    else:
        names = INFO if family == "wav" else AIFF
        texts = [(names[tag], text.encode("utf-8", "replace") + b"\0") for tag, text in tags.items() if tag in names]
        if family == "wav" and texts:
            texts = [(b"LIST", b"INFO" + b"".join(join_chunk(*chunk) for chunk in texts))]
        needed = made and (carried.pictures or not tags.keys() <= names.keys())
        append_chunks(path, texts + [(b"id3 " if family == "wav" else b"ID3 ", made)] * bool(needed))


def _retitle(name: bytes, body: bytes, tags: dict[str, str], addition: str) -> bytes:
    """Return the contents of a chunk with an addition to the title."""
    if name in (b"id3 ", b"ID3 "):
        return retitle_id3(body, tags.get("title")) or body
    if not addition:
        return body
    if name == b"NAME":
        return add_to_title(body.rstrip(b"\0"), addition)
    return retitle_info(body, addition) if name == b"LIST" and body[:4] == b"INFO" else body


def append_chunks(path: Path, chunks: Sequence[tuple[bytes, bytes]]) -> None:
    """Append chunks to a wav, RF64 or AIFF file."""
    with open(path, "rb+") as file:
        form = file.read(4)
        order: Order = "big" if form == b"FORM" else "little"
        end = file.seek(0, os.SEEK_END)
        file.write(bytes(end % 2) + b"".join(join_chunk(name, body, order) for name, body in chunks))
        size = file.tell() - 8
        file.seek(20 if form == b"RF64" else 4)
        file.write(size.to_bytes(8 if form == b"RF64" else 4, order))


def _edit_flac(
    file: BinaryIO, carried: Carried, entries: list[bytes], blocks: list[tuple[int, bytes]]
) -> Iterator[bytes]:
    """Yield an encoded flac file with other comments and further blocks."""
    file.seek(4)
    kept = {kind: file.read(length) for kind, length in flac_blocks(file)}
    start = file.tell()
    comments = join_comments(split_comments(kept.get(4, b""))[0], entries)
    blocks = [(0, kept[0]), (4, comments), *blocks, *((6, picture) for picture in carried.pictures)]
    large = [f"{len(body) / 1e6:.1f} MB of tags or a picture" for _, body in blocks if len(body) >= MAX_BLOCK]
    carried.left_out += large
    blocks = [(kind, body) for kind, body in blocks if len(body) < MAX_BLOCK]
    yield b"fLaC"
    for number, (kind, body) in enumerate(blocks, 1):
        yield bytes([kind | 128 * (number == len(blocks))]) + len(body).to_bytes(3, "big") + body
    yield from copy_rest(file, start)


def _edit_ogg(file: BinaryIO, carried: Carried, entries: list[bytes], _: object) -> Iterator[bytes]:
    """Yield an encoded Ogg file with other comments."""
    pictures = [b"METADATA_BLOCK_PICTURE=" + base64.b64encode(picture) for picture in carried.pictures]

    def edit(packet: bytes) -> bytes:
        start = comment_start(packet)
        vendor = split_comments(packet[start:])[0]
        return packet[:start] + join_comments(vendor, entries + pictures) + b"\1" * (start == 7)  # Vorbis ends so

    return replace_packet(file, edit)


def copy_rest(file: BinaryIO, start: int) -> Iterator[bytes]:
    """Yield the bytes of a file from a position on."""
    file.seek(start)
    return iter(lambda: file.read(1 << 20), b"")


def rewrite(path: Path, parts: Callable[[BinaryIO], Iterable[bytes]]) -> None:
    """Replace a file by bytes that are made from it."""
    new = temporary_path(path)
    try:
        with open(path, "rb") as old, open(new, "xb") as file:
            file.writelines(parts(old))
        os.replace(new, path)
    finally:
        remove(new)
