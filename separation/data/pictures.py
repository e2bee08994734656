"""Pictures for image queries: those that a manifest names, drawn ones for procedural sounds; their vectors."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from separation.data.corpus import FOLEY, Corpus, foley_seed, report_broken
from separation.data.manifest import Clip
from separation.errors import DataError, reason

JPEG_END, JPEG_TAIL = b"\xff\xd9", 1024  # the end marker, which some programs follow by a few bytes
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
PATIENCE = 60  # seconds to wait for another process that writes
SHAPES = ("ellipse", "rectangle", "triangle")


class Pictures:
    """Finds the pictures of clips, whose paths start at `root`.

    A manifest's `frame` is one picture, a folder, or `folder/*.jpg` for the pictures of a video, one per second in the
    order of their names.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: dict[str, list[Path]] = {}
        self.store: VectorStore | None = None

    def look_up(self, pictures: Sequence[Any]) -> list[Any]:
        """The pictures, each replaced by its vector (dim,) if the store has it."""
        if self.store is None:
            return list(pictures)
        vectors = map(self.store.find, pictures)
        return [picture if found is None else found for picture, found in zip(pictures, vectors, strict=True)]

    def list_pictures(self, clip: Clip) -> list[Any]:
        """All pictures of a clip in order, as paths or a drawn one; raise DataError if there are none."""
        if clip.source == FOLEY:
            return [draw_picture(clip.label, foley_seed(clip))]
        if not clip.frame:
            raise DataError(f"{clip.path}: the manifest names no frame for it.")
        if clip.frame not in self.found:
            path = self.root / clip.frame
            if any(sign in path.name for sign in "*?["):
                found = sorted(path.parent.glob(path.name))
            elif path.is_dir():
                found = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES)
            else:
                found = [path] if path.is_file() else []
            if not found:
                raise DataError(f"{clip.path}: its pictures {path} are missing.")
            if found[0].suffix.lower() not in SUFFIXES:
                raise DataError(f"{clip.path}: {found[0]} is not a picture; extract the frames of the video first.")
            self.found[clip.frame] = found
        return list(self.found[clip.frame])

    def keep_readable(self, corpus: Corpus, notice: Callable[[str], None]) -> None:
        """Drop the clips of a corpus whose pictures are missing or broken; raise BrokenError as `report_broken`."""

        def find_problem(clip: Clip) -> str:
            try:
                for path in self.list_pictures(clip):
                    check_picture(path)
            except DataError as error:
                return str(error)
            return ""

        keys = [(clip.frame, clip.frame or clip.path) for clip in corpus.clips]  # several clips may share a frame
        keyed = reversed(list(zip(keys, corpus.clips, strict=True)))  # the first clip of a frame is named
        clips = {key: clip for key, clip in keyed if clip.source != FOLEY}
        with ThreadPoolExecutor() as pool:  # mostly waits for the disk
            problems = dict(zip(clips, pool.map(find_problem, clips.values()), strict=True))
        found = [problems.get(key, "") for key in keys]
        report_broken([problem for problem in found if problem], corpus.recording_count(), notice)
        corpus.keep([number for number, problem in enumerate(found) if not problem])


class VectorStore:
    """Vectors of pictures in an SQLite file, found by the content of the picture's file and the encoder's weights.

    Processes of a machine share the file. A row holds plain float32 numbers, so nothing is unpickled.

    Args:
        path: the file; it is made if there is none.
        encoder: identifies the encoder, see `QueryEncoder.fingerprint`.

    Raises:
        DataError: here and in the methods, if the file is damaged or cannot be written.
    """

    def __init__(self, path: Path, encoder: bytes) -> None:
        self.path, self.encoder = path, encoder
        self.reader: tuple[int, Any] = (0, None)  # of the process with this number: workers must not share connections
        self.add([], np.zeros((0, 0)))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"reader": (0, None)}

    def find(self, picture: Any) -> np.ndarray | None:
        """The vector (dim,) of a picture; None if it is not there, or the picture is not a file's path or bytes."""
        if not isinstance(picture, str | Path | bytes):
            return None
        with self.named_errors():
            if self.reader[0] != os.getpid():
                self.reader = os.getpid(), sqlite3.connect(self.path, timeout=PATIENCE)
            row = self.reader[1].execute("SELECT vector FROM vectors WHERE key = ?", [self.key(picture)]).fetchone()
            if row is None:
                return None
            whole = isinstance(row[0], bytes) and len(row[0]) % 4 == 0
            if not whole or not np.isfinite(vector := np.frombuffer(row[0], "<f4")).all():
                raise sqlite3.DatabaseError("a vector is damaged")
        return vector

    def add(self, pictures: Sequence[Any], vectors: np.ndarray) -> None:
        """Keep the vectors (pictures, dim) of those pictures that are paths or bytes."""
        with self.named_errors():
            rows = [
                (self.key(picture), vector.astype("<f4").tobytes())
                for picture, vector in zip(pictures, vectors, strict=True)
                if isinstance(picture, str | Path | bytes)
            ]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as writer, writer:
                writer.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB)")
                writer.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    def key(self, picture: str | Path | bytes) -> bytes:
        """Name of a picture's content and the encoder."""
        try:
            content = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        except OSError as error:
            raise DataError(f"{picture!s}: the picture cannot be read ({reason(error)}).") from None
        return hashlib.blake2b(content, key=self.encoder, digest_size=16).digest()

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Raise DataError with the name of the file."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{self.path}: the vectors of pictures cannot be read or written ({error}).") from None


def check_picture(path: Path) -> None:
    """Raise DataError if a picture is damaged; PNG and JPEG files are not decoded, because there may be very many."""
    from PIL import Image

    try:
        with Image.open(path) as image, path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - JPEG_TAIL))
            # The end marker of a JPEG file does not occur within its data.
            if image.format == "PNG" or (image.format == "JPEG" and JPEG_END in file.read()):
                image.verify()
            else:
                image.load()
    except Exception:  # the readers of a dozen formats raise anything for invalid bytes
        raise DataError(f"{path}: the file is damaged or not a picture.") from None


def read_pictures(paths: Sequence[Path]) -> dict[str, bytes]:
    """The files of pictures by number and suffix, such as `000000.jpg`; raises DataError as `check_picture`."""
    contents = {}
    for number, path in enumerate(paths):
        check_picture(path)
        contents[f"{number:06d}{path.suffix.lower()}"] = path.read_bytes()
    return contents


def draw_picture(label: str, seed: int = 0, side: int = 64) -> Any:
    """Draw a picture (PIL, RGB) that stands for a sound: shape and colours of the label, size and place of the seed."""
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(zlib.crc32(label.encode()))
    ground, ink = (tuple(int(c) for c in rng.integers(0, 256, 3)) for _ in range(2))
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    rng = np.random.default_rng((zlib.crc32(label.encode()), seed))
    size = rng.uniform(0.3, 0.6) * side
    left, top = (float(v) for v in rng.uniform(0, side - size, 2))
    picture = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(picture)
    if shape == "triangle":
        draw.polygon([(left, top + size), (left + size, top + size), (left + size / 2, top)], fill=ink)
    else:
        getattr(draw, shape)([left, top, left + size, top + size], fill=ink)
    return picture
