"""Fixed mixtures to score on: those of a list, or drawn once from a split of the manifest, in the same form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from separation.data.corpus import BROKEN_LIMIT, BrokenError
from separation.data.cut import BROKEN, complaint, decoded, needs_ffmpeg, read_clip
from separation.data.fixed_mixtures import (
    CLIPS,
    SECONDS,
    LeftOut,
    Rendered,
    Row,
    locate_files,
    render,
    row_files,
    try_render,
)
from separation.data.manifest import Clip, DataError
from separation.errors import AudioError

SNR_DB = (-5, 0, 5)
TRIES = 100  # draws of a row until its clips fit together


class Rows(Dataset[Rendered | LeftOut]):
    """The mixtures of a fixed list, rendered as they are asked for; of several ranks each has its share.

    In the place of a mixture whose recordings are missing or broken it is said which.

    Args:
        rows: of the list, see `protocol.py`.
        root: folder that their paths start from.
        rank, world: this process's number, and how many there are.
    """

    def __init__(self, rows: list[Row], root: Path, rank: int = 0, world: int = 1) -> None:
        self.rows, self.root = rows[rank::world], root

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Rendered | LeftOut:
        row = self.rows[index]
        return try_render(row, locate_files(row, self.root))


@dataclass(frozen=True)
class Pool:
    """What mixtures are drawn from.

    Args:
        clips: by what they are drawn for: their main label, or, without labels, their recording.
        captioned: clips have no labels and are asked for by caption.
        root: folder that their paths start from; lengths that the manifest does not tell are measured there.
        lengths: those that have been measured, by path, s.
    """

    clips: dict[str, list[Clip]]
    captioned: bool
    root: Path
    lengths: dict[str, float] = field(default_factory=dict)

    def names(self, clip: Clip) -> set[str]:
        """All that is known to sound in a clip."""
        return set(clip.captions if self.captioned else clip.labels)

    def pick(self, group: str, rng: np.random.Generator) -> Clip:
        """A clip of a label, or of a recording."""
        return self.clips[group][rng.integers(len(self.clips[group]))]

    def asked(self, clip: Clip) -> str:
        """What asks for a clip."""
        return clip.caption if self.captioned else clip.label

    def another(self, group: str, clip: Clip, avoided: set[str], rng: np.random.Generator) -> Clip | None:
        """A clip of the same label from another recording, in which nothing sounds that is to be avoided."""
        others = [
            each for each in self.clips[group] if each.recording != clip.recording and not self.names(each) & avoided
        ]
        return others[rng.integers(len(others))] if others else None

    def seconds(self, clip: Clip) -> float:
        """A clip's length, s; 0 where its file cannot be read."""
        if clip.seconds:
            return clip.seconds
        if clip.path not in self.lengths:
            self.lengths[clip.path] = measured(self.root / clip.path)
        return max(0.0, self.lengths[clip.path] - clip.start)


def measured(path: Path) -> float:
    """A file's length, s; 0 where it cannot be read: such a row is found out when it is rendered.

    What only ffmpeg reads is decoded for it: the lengths that such files name are rounded, or those of their pictures.
    """
    import soundfile

    try:
        if needs_ffmpeg(path):
            samples, rate = decoded(path)
            return len(samples) / rate
        return float(soundfile.info(path).duration)
    except (OSError, RuntimeError, AudioError):
        return 0.0


def pool_of(clips: Sequence[Clip], root: Path) -> Pool:
    """The clips with labels, by their main label; those with captions, by recording, where no clip has a label."""
    captioned = not any(clip.label for clip in clips)
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.caption if captioned else clip.label:
            groups[clip.recording if captioned else clip.label].append(clip)
    return Pool(dict(groups), captioned, root)


def draw_rows(
    clips: Sequence[Clip], count: int, seed: int = 0, absent: float = 0.2, root: Path | None = None
) -> list[Row]:
    """Rows of mixtures of two sources that share no label, or, without labels, are of different recordings.

    Args:
        clips: of one split.
        count: how many mixtures.
        seed: of the draw; a row is a function of (seed, its number), the clips and their lengths.
        absent: share of rows whose query sounds in neither source; they are spread evenly.
        root: folder that the clips' paths start from; lengths that the manifest does not tell are measured there.

    Returns:
        Rows as in a list of `protocol.py`; none where the clips have too few labels (captioned recordings), and fewer
        than `count` where no clips could be found that go together.
    """
    pool = pool_of(clips, root or Path())
    if len(pool.clips) < (3 if absent > 0 else 2):
        return []
    rows = (draw_row(pool, number, np.random.default_rng((seed, number)), absent) for number in range(count))
    return [row for row in rows if row is not None]


def draw_row(pool: Pool, number: int, rng: np.random.Generator, absent: float) -> Row | None:
    """One row: which clips, from where, how loud, what is asked for; None where no clips go together."""
    is_absent = int((number + 1) * absent) > int(number * absent)
    return next((row for _ in range(TRIES) if (row := try_row(pool, number, rng, is_absent))), None)


def try_row(pool: Pool, number: int, rng: np.random.Generator, is_absent: bool) -> Row | None:
    """As `draw_row`, in one try: None where the clips share a sound, or one of them has what should be absent."""
    target, interference, other = rng.choice(sorted(pool.clips), 3, replace=False) if len(pool.clips) > 2 else (
        *rng.permutation(sorted(pool.clips)), "")  # fmt: skip
    kind = "absent" if is_absent else "pair"
    row = {"id": f"{kind}{number:04d}", "kind": kind, "snr_db": str(rng.choice(SNR_DB))}
    clips: list[Clip] = []
    for name, group in (("target", target), ("interference1", interference)):
        clips.append(pool.pick(str(group), rng))
        row |= placed_at_random(name, clips[-1], pool.seconds(clips[-1]), rng)
        row[f"{name}_label"] = pool.asked(clips[-1])
    first, second = (pool.names(clip) for clip in clips)
    if first & second:
        return None
    example = pool.pick(str(other), rng) if is_absent else pool.another(str(target), clips[0], second, rng)
    query = pool.asked(example) if is_absent and example else row["target_label"]
    if is_absent and query in first | second:
        return None
    if example:
        row |= placed_at_random("example", example, pool.seconds(example), rng)
    return row | {"query": query, "phrase": query if is_absent else clips[0].caption, "interference2": ""}


def placed_at_random(name: str, clip: Clip, seconds: float, rng: np.random.Generator) -> Row:
    """A clip's columns in a row: of a longer one some part is taken, a shorter one is put somewhere.

    Args:
        name: of the columns.
        clip: perhaps a part of a longer file.
        seconds: its length.
        rng: draws the places.
    """
    room = seconds - SECONDS
    return {
        name: clip.path,
        f"{name}_start": f"{clip.start + rng.uniform(0, max(0.0, room)):.3f}",
        f"{name}_offset": f"{rng.uniform(0, max(0.0, -room)):.3f}",
        f"{name}_seconds": f"{min(seconds, SECONDS):.3f}",
    }


def usable(row: Row, root: Path) -> bool:
    """Whether a drawn row can be scored: its files can be read, and no cut that matters has hit a pause."""
    try:
        rendered = render(row, root)
    except (OSError, RuntimeError, ValueError, AudioError):
        return False
    mixed = np.isfinite(rendered.mixture).all() and not np.array_equal(rendered.mixture, rendered.target)
    return mixed and (row["kind"] == "absent" or bool(rendered.target.any()))


def files_of(rows: Sequence[Row]) -> set[str]:
    """The paths of all recordings that rows are mixed of."""
    return {path for row in rows for path in row_files(row)}


def broken_files(rows: Sequence[Row], clips: Sequence[Clip], root: Path) -> list[str]:
    """What is wrong with the recordings of rows that cannot be scored: a line for each file that is broken.

    A clip is judged as it is in a training, as a whole: a pause that a row has hit does no harm to it.
    """
    starts: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name in CLIPS[:2]:
            starts[row[name]].append(float(row[f"{name}_start"]))
    found: dict[str, str] = {}
    for clip in clips:
        if clip.path in found or not any(holds(clip, start) for start in starts.get(clip.path, ())):
            continue
        try:
            read_clip(root, clip)
        except BROKEN as error:
            found[clip.path] = complaint(root / clip.path, error)
    return list(found.values())


def holds(clip: Clip, start: float) -> bool:
    """Whether what a row takes of a file from `start` on, s, is of this clip; rows give thousandths."""
    return start - clip.start > -1e-3 and (not clip.seconds or start - clip.start < clip.seconds)


def refuse_broken(broken: Sequence[str], drawn: int, there: int) -> None:
    """Sees that hardly any of the recordings that were drawn from a split are broken.

    Args:
        broken: a line for each of those.
        drawn: how many recordings were drawn.
        there: how many clips the split has. Where a training would go on with one broken clip of so many, one does not
            stop here either, however few were drawn.

    Raises:
        BrokenError: there are more than 1 %.
    """
    if len(broken) > BROKEN_LIMIT * max(drawn, min(there, round(1 / BROKEN_LIMIT))):
        raise BrokenError(f"{len(broken)} of {drawn} recordings cannot be read; the first: {broken[0]}")


def drawn_rows(
    clips: Sequence[Clip],
    root: Path,
    count: int,
    seed: int = 0,
    absent: float = 0.2,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """`draw_rows` without those that cannot be scored, whose number is said; recordings that are broken are named.

    Args:
        clips: of one split.
        root: folder that their paths start from.
        count: how many mixtures.
        seed: of the draw.
        absent: see `draw_rows`.
        say: gets the lines; of several processes only one should print them.

    Raises:
        BrokenError: as `refuse_broken`.
        DataError: none is left; the message says why.
    """
    rows = draw_rows(clips, count, seed, absent, root)
    if not rows:
        raise DataError(why_none(pool_of(clips, root), absent))
    if len(rows) < count:
        say(f"{count - len(rows)} of {count} validation mixtures are left out: no clips go together.")
    good = [row for row in rows if usable(row, root)]
    if len(good) < len(rows):
        broken = broken_files([row for row in rows if row not in good], clips, root)
        for line in broken:
            say(f"left out: {line}")
        say(f"{len(rows) - len(good)} of {len(rows)} validation mixtures are left out: silent or not readable.")
        refuse_broken(broken, len(files_of(rows)), len(clips))
    if not good:
        raise DataError(f"all {len(rows)} mixtures that were drawn are silent or not readable.")
    return good


def why_none(pool: Pool, absent: float) -> str:
    """Why no row could be drawn."""
    what, least, there = "captioned recordings" if pool.captioned else "labels", 3 if absent > 0 else 2, len(pool.clips)
    if there >= least:
        return "every two clips have a sound in common."
    return f"mixtures are drawn from {least} {what} or more, and there are {there}."


def with_examples(rows: list[Row]) -> list[Row]:
    """The rows of a list, each with an example: the target of another row that asks for the same, where there is one.

    A row that names one keeps it.
    """
    targets: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["kind"] != "absent":
            targets[row["query"]].append(row)
    return [row if row.get("example") else row | shown_by(row, targets[row["query"]]) for row in rows]


def shown_by(row: Row, others: list[Row]) -> Row:
    """The columns of a row's example: the target of another row, of another recording than the row's own."""
    own = {row[name] for name in CLIPS if row.get(name)}
    other = next((each for each in others if each["target"] not in own), None)
    if other is None:
        return {}
    return {
        "example": other["target"],
        **{f"example_{x}": other.get(f"target_{x}") or "" for x in ("start", "seconds")},
    }
