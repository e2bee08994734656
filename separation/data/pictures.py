"""Pictures of clips, for image queries: those that a manifest names, and drawn ones for procedural sounds."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from separation.data.corpus import FOLEY, Corpus, foley_seed, report_broken
from separation.data.manifest import Clip, DataError

JPEG_END, JPEG_TAIL = b"\xff\xd9", 1024  # the end marker, which some programs follow by a few bytes
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
SHAPES = ("ellipse", "rectangle", "triangle")


class Pictures:
    """Finds the pictures of clips.

    A manifest's `frame` is one picture, a folder, or `folder/*.jpg` for the pictures of a video, one per second in the
    order of their names.

    Args:
        root: folder that the manifest's paths start from.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: dict[str, list[Path]] = {}

    def list_pictures(self, clip: Clip) -> list[Any]:
        """All pictures of a clip, in order: paths, or a drawn picture for a procedural clip.

        Raises:
            DataError: if the manifest names none, or they are missing.
        """
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
        """Drop the clips of a corpus whose pictures are missing or broken, and report them.

        Raises:
            BrokenError: if they are more than 1 % of the recordings.
        """

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


def check_picture(path: Path) -> None:
    """Check that a picture can be read. PNG and JPEG files are not decoded, because there may be very many.

    Raises:
        DataError: if it is damaged, truncated or not a picture.
    """
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
