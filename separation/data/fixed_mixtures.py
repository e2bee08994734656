"""Fixed mixtures: each row names clips, positions and levels; `Mixing` says how rows become audio.

Columns of a row, all of them texts:

| column | meaning |
|---|---|
| `id`, `kind` | `pair`, `three`, `four`, `five`, or `absent`: the query sounds in none of the clips |
| `query`, `phrase`, `label` | label or caption to ask by; other words for it; the class (default: `query`) |
| `snr_db` | level of the target above each interference; empty: as recorded |
| `target`, `interference1` to `interference4` | paths |
| `*_start`, `*_offset` | s: where a longer clip is cut; where a shorter one is put |
| `*_seconds` | s: the clip is only that part of its file, from `*_start` on |
| `*_gain` | factor of the clip |
| `mixture` | path of a mixed file; then nothing is mixed |
| `example`, `example_start`, `example_seconds` | another recording of the sound, for models that are asked by sound |
| `recording` | original that the target was cut from, which intervals resample (default: the target's path) |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from separation.data.corpus import READ_ERRORS, read_samples
from separation.data.lists import read_table
from separation.errors import DataError

SAMPLE_RATE, SECONDS = 32000, 5
PEAK = 0.9
REQUIRED = ("id", "kind", "query", "target", "snr_db")
KINDS = ("pair", "three", "four", "five", "absent")  # number of sources
CLIPS = ("target", "interference1", "interference2")
ALL_CLIPS = (*CLIPS, "interference3", "interference4")
NUMBERS = (
    "snr_db",
    *(f"{name}_{what}" for name in (*ALL_CLIPS, "example") for what in ("start", "offset", "seconds", "gain")),
)
Row = dict[str, str]


@dataclass(frozen=True)
class Mixing:
    """How rows become audio.

    Args:
        sample_rate: Hz; clips of other rates are resampled.
        seconds: length of every mixture; None: that of the target.
        repeat: repeat shorter clips instead of padding them with silence.
        centre: cut longer clips around their middle, and pad shorter ones at both ends; rows' starts do not count.
        peak: mixture and target are scaled together if the peak of the mixture is above this; None: never.
        peak_to: the peak after that scaling.
        gains: bounds of the factor that sets an interference to its SNR.
        scale: final factor of target and mixture.
    """

    sample_rate: int = SAMPLE_RATE
    seconds: float | None = SECONDS
    repeat: bool = False
    peak: float | None = PEAK
    peak_to: float = PEAK
    gains: tuple[float, float] = (0.0, float("inf"))
    scale: float = 1.0
    centre: bool = False


VALIDATION = Mixing()


@dataclass  # not frozen: Lightning moves batches to the device field by field
class Rendered:
    """One mixture and its target (time,); the target of an `absent` row is silence. Paths start at `folder`."""

    row: Row
    mixture: np.ndarray
    target: np.ndarray
    sample_rate: int = SAMPLE_RATE
    folder: Path = Path()


@dataclass  # not frozen: as above
class LeftOut:
    """A row without a mixture: `why` is the path of the missing recording, or says what is wrong with one."""

    why: str
    missing: bool = False


# Lists


def read_rows(path: Path, kind: str | None = None) -> list[Row]:
    """Read a list of mixtures, all rows or those of one kind (pair, three, absent).

    Raises:
        DataError: the file cannot be read or is not a list of mixtures, or a row is not valid. The message names file,
            row (the header is row 1) and reason.
    """
    rows = []
    for number, row in read_table(path, REQUIRED, what="the list of mixtures"):
        if why := row_error(row):
            raise DataError(f"{path}, row {number}: {why}.")
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: the list of mixtures has no rows.")
    return [row for row in rows if kind is None or row["kind"] == kind]


def row_error(row: Row) -> str:
    """Return why a row is not valid, as part of a sentence; empty if it is valid."""
    if row["kind"] not in KINDS:
        return f"the kind “{row['kind']}” is none of {', '.join(KINDS)}"
    if not row["target"]:
        return "the target is empty"
    for column in NUMBERS:
        if not (cell := row.get(column)):
            continue
        try:
            value = float(cell)
        except ValueError:
            return f"{column} “{cell}” is not a number"
        if not math.isfinite(value):
            return f"{column} “{cell}” is not finite"
        if value < 0 and column != "snr_db":
            return f"{column} “{cell}” is negative"
    return ""


def row_files(row: Row) -> list[str]:
    """Return the paths of all recordings of a row."""
    return [row[name] for name in (*ALL_CLIPS, "mixture") if row.get(name)]


def locate_files(row: Row, root: Path, folders: Sequence[str] = ("",)) -> Path | str:
    """Return the folder below `root` that contains all recordings of a row, or the path of a missing one."""
    names = row_files(row)
    for folder in folders:
        if all((root / folder / name).is_file() for name in names):
            return root / folder
    return next((name for name in names if not any((root / each / name).is_file() for each in folders)), names[0])


# Audio


def read_clip(path: Path, sample_rate: int, start: float = 0.0, seconds: float = 0.0) -> np.ndarray:
    """Read a recording, or `seconds` of it, as mono at `sample_rate`: (time,)."""
    import soxr

    samples, rate = read_samples(path, start, seconds)
    mono: np.ndarray = samples.mean(axis=1)
    return mono if rate == sample_rate else soxr.resample(mono, rate, sample_rate)


def row_seconds(row: Row, name: str, what: str) -> float:
    """Return the start, offset or seconds of a clip; 0 if the row does not say."""
    return float(row.get(f"{name}_{what}") or 0)


def read_row_clip(
    row: Row, name: str, root: Path, mixing: Mixing = VALIDATION, length: int | None = None
) -> np.ndarray:
    """Read a clip of a row as (length,) samples: cut at its start, or padded with silence from its offset.

    `name` is target, or interference1 to interference4. If `length` is None, `mixing` gives it; if it has none either,
    the clip keeps its own.
    """
    start, offset, seconds = (row_seconds(row, name, what) for what in ("start", "offset", "seconds"))
    if seconds:
        clip, start = read_clip(root / row[name], mixing.sample_rate, start, seconds), 0.0
    else:
        clip = read_clip(root / row[name], mixing.sample_rate)
    if length is None:
        length = len(clip) if mixing.seconds is None else round(mixing.seconds * mixing.sample_rate)
    if mixing.repeat and 0 < len(clip) < length:
        clip = np.tile(clip, -(-length // len(clip)))
    first = int(offset * mixing.sample_rate)
    if mixing.centre:
        before = length // 2 - len(clip) // 2
        clip, first = clip[max(0, -before) :], max(0, before)
    elif len(clip) > length:
        clip, first = clip[int(start * mixing.sample_rate) :], 0
    clip = clip[: max(0, length - first)]
    wave = np.zeros(length, dtype=np.float32)
    wave[first : first + len(clip)] = clip
    return wave * np.float32(row[f"{name}_gain"]) if row.get(f"{name}_gain") else wave


def render(row: Row, root: Path, mixing: Mixing = VALIDATION) -> Rendered:
    """Mix the clips of a row, or read its mixed file; paths start at `root`."""
    if row.get("mixture"):
        start = 0.0 if mixing.seconds is None else row_seconds(row, "target", "start")
        target, mixture = (
            read_clip(root / row[name], mixing.sample_rate, start, mixing.seconds or 0.0)
            for name in ("target", "mixture")
        )
        length = min(len(target), len(mixture))
        return Rendered(row, mixture[:length], target[:length], mixing.sample_rate, root)
    target = read_row_clip(row, "target", root, mixing)
    mixture = target.copy()
    for name in ALL_CLIPS[1:]:
        if row.get(name):
            wave, gain = read_row_clip(row, name, root, mixing, len(target)), 1.0
            energy = float((wave**2).sum())
            if row["snr_db"] and energy:  # to the SNR of the row
                wanted = float((target**2).sum()) / 10 ** (float(row["snr_db"]) / 10)
                gain = float(np.clip(np.sqrt(wanted / energy), *mixing.gains))
            mixture += wave.astype(np.float64) * gain
    if row["kind"] == "absent":
        target = np.zeros_like(mixture)
    scale, peak = mixing.scale, float(np.abs(mixture).max(initial=0))
    if mixing.peak is not None and peak > mixing.peak:
        scale *= mixing.peak_to / peak
    return Rendered(row, mixture * scale, target * scale, mixing.sample_rate, root)


def try_render(row: Row, place: Path | str, mixing: Mixing = VALIDATION) -> Rendered | LeftOut:
    """Render a row, or return why it cannot be rendered.

    Args:
        row: of a list.
        place: folder where its paths start, or the path of a missing recording.
        mixing: how it becomes audio.
    """
    if isinstance(place, str):
        return LeftOut(place, missing=True)
    try:
        return render(row, place, mixing)
    except READ_ERRORS as error:
        return LeftOut(f"{row['id']}: {error}")


def read_example(rendered: Rendered) -> np.ndarray | LeftOut:
    """Read a recording (time,) of the sound that is asked for: the row's example, else the target itself.

    An absent query without an example cannot be asked by sound.
    """
    row = rendered.row
    if not row.get("example"):
        without = LeftOut(f"{row['id']}: no example recording of “{row['query']}”")
        return without if row["kind"] == "absent" else rendered.target
    start, seconds = row_seconds(row, "example", "start"), row_seconds(row, "example", "seconds") or SECONDS
    try:
        found = read_clip(rendered.folder / row["example"], rendered.sample_rate, start, seconds)
    except READ_ERRORS as error:
        return LeftOut(f"{row['id']}: {error}")
    return found if len(found) else LeftOut(f"{row['id']}: the example is empty")
