"""Fixed mixtures: each row says which clips, from where, how loud; `Mixing` says how a list turns rows into audio.

The columns of a row, all texts: `id`; `kind` (`pair`, `three`, `absent`: the query sounds in none of the clips);
`query` (label or caption to ask by), `phrase` (other words for it), `label` (the class it counts for; `query` where it
is not given); `snr_db` of the target against each interference (empty: as loud as they are); `target`, `interference1`,
`interference2`: paths, each with `_start` (where a longer clip is cut) and `_offset` (where a shorter one is put), in
seconds, and perhaps with `_seconds` (a clip is that part of its file, from `_start` on, and no more); `mixture`: the
path of a ready mixture, then nothing is mixed; `example`, with `_start` and `_seconds`: another recording of what is
asked for, for models that are asked by sound; `recording`: the original that the target was cut from, which intervals
resample (the target's path where it is not given).
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from separation.data.corpus import read_samples
from separation.data.manifest import DataError
from separation.errors import AudioError, reason

SAMPLE_RATE, SECONDS = 32000, 5
PEAK = 0.9
NEEDED = ("id", "kind", "query", "target", "snr_db")
KINDS = ("pair", "three", "absent")
CLIPS = ("target", "interference1", "interference2")
NUMBERS = ("snr_db", *(f"{name}_{what}" for name in (*CLIPS, "example") for what in ("start", "offset", "seconds")))
Row = dict[str, str]


@dataclass(frozen=True)
class Mixing:
    """How rows become audio.

    Args:
        sample_rate: Hz; clips of another rate are resampled.
        seconds: length of every mixture; None: that of the target.
        repeat: shorter clips are repeated instead of put into silence.
        peak: mixture and target are scaled together where the mixture's peak is over this; None: never.
        peak_to: what that peak becomes.
        gains: least and most that an interference is scaled by to reach its SNR.
        scale: of the target and the interference, at last.
    """

    sample_rate: int = SAMPLE_RATE
    seconds: float | None = SECONDS
    repeat: bool = False
    peak: float | None = PEAK
    peak_to: float = PEAK
    gains: tuple[float, float] = (0.0, float("inf"))
    scale: float = 1.0


VALIDATION = Mixing()


@dataclass  # not frozen: Lightning moves what it is given to the device field by field
class Rendered:
    """One mixture and its target, mono (time,); the target is silence in an `absent` row."""

    row: Row
    mixture: np.ndarray
    target: np.ndarray
    sample_rate: int = SAMPLE_RATE
    folder: Path = Path()  # where the row's paths start


@dataclass  # not frozen: as above
class LeftOut:
    """A row without a mixture; `why` names the recording that is missing, or says what is the matter with one."""

    why: str
    missing: bool = False


def read_rows(path: Path, kind: str | None = None) -> list[Row]:
    """The list's rows, all or of one kind (pair, three, absent).

    Raises:
        DataError: the file cannot be read, is no list of mixtures, or a row holds something impossible. The message
            names file, row (the header is row 1) and reason.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except OSError as error:
        raise DataError(f"{path}: the list of mixtures cannot be read ({reason(error)}).") from None
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{path}: the list of mixtures is no CSV text.") from None
    if missing := [column for column in NEEDED if column not in (reader.fieldnames or [])]:
        raise DataError(f"{path}: it is no list of mixtures, for it lacks the column {missing[0]}.")
    if not rows:
        raise DataError(f"{path}: the list of mixtures has no rows.")
    for number, row in enumerate(rows, 2):
        if why := row_error(row):
            raise DataError(f"{path}, row {number}: {why}.")
    return [row for row in rows if kind is None or row["kind"] == kind]


def row_error(row: Row) -> str:
    """Why a row cannot be a mixture, as half a sentence; empty where it can."""
    if None in row or None in row.values():  # so DictReader marks cells that are too many or too few
        return "it has not as many cells as the header"
    if row["kind"] not in KINDS:
        return f"its kind “{row['kind']}” is none of {', '.join(KINDS)}"
    if not row["target"]:
        return "its target is empty"
    return next((why for column in NUMBERS if (why := number_error(row, column))), "")


def number_error(row: Row, column: str) -> str:
    """Why a cell is not the number that it should be; empty where it is one, or empty itself."""
    if not (cell := row.get(column)):
        return ""
    try:
        value = float(cell)
    except ValueError:
        return f"its {column} “{cell}” is no number"
    if not math.isfinite(value):
        return f"its {column} “{cell}” is not finite"
    return f"its {column} “{cell}” is less than 0" if value < 0 and column != "snr_db" else ""


def row_files(row: Row) -> list[str]:
    """The paths of all that a row reads."""
    return [row[name] for name in (*CLIPS, "mixture") if row.get(name)]


def read_clip(path: Path, sample_rate: int, start: float = 0.0, seconds: float = 0.0) -> np.ndarray:
    """A part of a recording (time,), the mean of its channels at `sample_rate`; by default the whole of it."""
    import soxr

    samples, rate = read_samples(path, start, seconds)
    clip = samples.mean(axis=1)
    return clip if rate == sample_rate else soxr.resample(clip, rate, sample_rate)


def place_clip(
    path: Path,
    start: float,
    offset: float,
    mixing: Mixing = VALIDATION,
    length: int | None = None,
    seconds: float = 0.0,
) -> np.ndarray:
    """A clip (time,) in `length` samples: cut from `start` when longer, put at `offset` into silence when shorter.

    The mixing's seconds are the length where none is given, and where it has none, the clip's own length is. With
    `seconds` the clip is that much of the file from `start` on; otherwise it is the whole file.
    """
    if seconds:
        clip, start = read_clip(path, mixing.sample_rate, start, seconds), 0.0
    else:
        clip = read_clip(path, mixing.sample_rate)
    if length is None:
        length = len(clip) if mixing.seconds is None else round(mixing.seconds * mixing.sample_rate)
    if mixing.repeat and len(clip) < length and len(clip):
        clip = np.tile(clip, -(-length // len(clip)))
    room = np.zeros(length, dtype=np.float32)
    if len(clip) > length:
        part = clip[int(start * mixing.sample_rate) :][:length]
        room[: len(part)] = part
        return room
    first = int(offset * mixing.sample_rate)
    part = clip[: max(0, length - first)]
    room[first : first + len(part)] = part
    return room


def energy(wave: np.ndarray) -> float:
    """Sum of squares."""
    return float((wave**2).sum())


def gain(target: np.ndarray, interference: np.ndarray, snr_db: str, mixing: Mixing) -> float:
    """What brings an interference to the row's SNR; 1 without an SNR, 0 for silence."""
    if not snr_db:
        return 1.0
    loudness = energy(interference)
    if loudness == 0:
        return 0.0
    wanted = energy(target) / 10 ** (float(snr_db) / 10)
    return float(np.clip(np.sqrt(wanted / loudness), *mixing.gains))


def place_of(row: Row, name: str, what: str) -> float:
    """A clip's start, offset or length, in seconds; 0 where the row says nothing."""
    return float(row.get(f"{name}_{what}") or 0)


def render(row: Row, root: Path, mixing: Mixing = VALIDATION) -> Rendered:
    """A row as audio, its paths below `root`. See `Mixing`."""
    if row.get("mixture"):
        return ready(row, root, mixing)
    waves: list[np.ndarray] = []
    for name in CLIPS:
        if row.get(name):
            places = place_of(row, name, "start"), place_of(row, name, "offset")
            length, seconds = len(waves[0]) if waves else None, place_of(row, name, "seconds")
            waves.append(place_clip(root / row[name], *places, mixing, length, seconds))
    mixture = waves[0].copy()
    for wave in waves[1:]:
        mixture += wave.astype(np.float64) * gain(waves[0], wave, row["snr_db"], mixing)
    target = waves[0] if row["kind"] != "absent" else np.zeros_like(mixture)
    scale = mixing.scale
    highest = float(np.abs(mixture).max(initial=0))
    if mixing.peak is not None and highest > mixing.peak:
        scale *= mixing.peak_to / highest
    return Rendered(row, mixture * scale, target * scale, mixing.sample_rate, root)


def locate_files(row: Row, root: Path) -> Path | str:
    """The root, where all of a row's recordings are below it, or the first path that is missing."""
    return next((name for name in row_files(row) if not (root / name).is_file()), root)


def try_render(row: Row, place: Path | str, mixing: Mixing = VALIDATION) -> Rendered | LeftOut:
    """A row as audio, or why there is none.

    Args:
        row: of a list.
        place: the folder that its paths start from, or the path of a recording that is missing.
        mixing: how it becomes audio.
    """
    import soundfile

    if isinstance(place, str):
        return LeftOut(place, missing=True)
    try:
        return render(row, place, mixing)
    except (soundfile.SoundFileError, OSError, AudioError) as error:
        return LeftOut(f"{row['id']}: {error}")


def read_example(rendered: Rendered) -> np.ndarray | LeftOut:
    """A recording (time,) of what is asked for: the row's example, else the target as it is in the mixture.

    An absent query without an example cannot be asked by sound.
    """
    import soundfile

    row = rendered.row
    if not row.get("example"):
        return (
            LeftOut(f"{row['id']}: no recording shows “{row['query']}”") if row["kind"] == "absent" else rendered.target
        )
    path, rate = rendered.folder / row["example"], rendered.sample_rate
    try:
        found = read_clip(path, rate, place_of(row, "example", "start"), place_of(row, "example", "seconds") or SECONDS)
    except (soundfile.SoundFileError, OSError, AudioError) as error:
        return LeftOut(f"{row['id']}: {error}")
    return found if len(found) else LeftOut(f"{row['id']}: its example is empty")


def ready(row: Row, root: Path, mixing: Mixing) -> Rendered:
    """A row whose mixture is a recording of its own: that and its target, of one length."""
    if mixing.seconds is None:
        target, mixture = (read_clip(root / row[name], mixing.sample_rate) for name in ("target", "mixture"))
    else:
        start = place_of(row, "target", "start")
        target, mixture = (
            read_clip(root / row[name], mixing.sample_rate, start, mixing.seconds) for name in ("target", "mixture")
        )
    length = min(len(target), len(mixture))
    return Rendered(row, mixture[:length], target[:length], mixing.sample_rate, root)
