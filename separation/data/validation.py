"""Fixed mixtures to score on: those of a list, or drawn once from a split of the manifest, in the same form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from separation.audio import Reader
from separation.data import fixed_mixtures as mixtures
from separation.data.corpus import READ_ERRORS, BrokenError, read_part, read_samples, report_broken
from separation.data.fixed_mixtures import CLIPS, SECONDS, LeftOut, Rendered, Row
from separation.data.manifest import MANIFEST, Clip, add_recording_ids, read_manifest, read_recording_ids, recording_ids
from separation.errors import DataError

SNR_DB = (-5, 0, 5)
MAX_ATTEMPTS = 100  # draws of a row until its clips can be mixed


class Rows(Dataset[Rendered | LeftOut]):
    """Rows of a list, rendered when they are needed; paths start at `root`, each rank of `world` has its share.

    A mixture whose recordings are missing or broken is a `LeftOut` with the reason.
    """

    def __init__(self, rows: list[Row], root: Path, rank: int = 0, world: int = 1) -> None:
        self.rows, self.root = rows[rank::world], root

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Rendered | LeftOut:
        row = self.rows[index]
        return mixtures.try_render(row, mixtures.locate_files(row, self.root))


@dataclass
class FixedMixtures:
    """The mixtures that a training is validated and tested on: those of a list, or drawn from the manifest.

    Args are those of `CorpusData`, there called `validation...`; `notice` receives a line for whatever is left out,
    and `accepts` says whether a query can be asked for (None: any).
    """

    manifest: Path | None
    root: Path
    listed: Path | None
    listed_root: Path | None
    every: int
    count: int
    absent: float
    seed: int
    notice: Callable[[str], None]
    accepts: Callable[[str], bool] | None = None

    @property
    def folder(self) -> Path:
        """Where the paths of the mixtures start."""
        return self.listed_root or (self.listed.parent if self.listed else self.root)

    def validation_rows(self, required: bool) -> list[Row]:
        """Rows to validate on. If there are none, that is reported, or raises DataError if they are `required`."""
        if self.listed:
            return self.read_list()[:: self.every]
        rows, why_none = self.draw("validation")
        if not rows and required:
            raise DataError(why_none)
        if not rows and self.count > 0:
            self.notice(f"Nothing is validated, so there will be no best.ckpt: {why_none}")
        return rows

    def test_rows(self) -> list[Row]:
        """Rows to test on: the list, or drawn from split test, or else from validation; raise DataError if none."""
        if self.listed:
            return self.read_list()
        rows, why_none = self.draw("test")
        if not rows:
            rows, _ = self.draw("validation")
            if not rows:
                raise DataError(f"Nothing to test on: give data.validation, or rows of split test. {why_none}")
            self.notice(f"Tested on split validation: {why_none}")
        return rows

    def read_list(self) -> list[Row]:
        """Read all rows of the list, with recordings and examples; raise DataError if there is no usable one."""
        assert self.listed is not None
        if not self.listed.is_file():
            raise DataError(f"{self.listed}: there is no such list of validation mixtures.")
        rows = mixtures.read_rows(self.listed)
        if not any(isinstance(mixtures.locate_files(row, self.folder), Path) for row in rows):
            raise DataError(f"{self.listed}: none of its {len(rows)} rows has its recordings in {self.folder}.")
        # Recording ids are in the manifest beside the files, or in that of the training if it starts there.
        beside = self.folder / MANIFEST
        own = self.manifest is not None and self.root.resolve() == self.folder.resolve() and not beside.is_file()
        known = read_recording_ids(self.manifest if own and self.manifest else beside)
        return self.select(add_examples(add_recording_ids(rows, known)), str(self.listed))

    def draw(self, split: str) -> tuple[list[Row], str]:
        """Draw rows from a split of the manifest, the same ones each time; or say why there are none."""
        if self.count == 0:
            return [], "data.validation_count is 0."
        if self.manifest is None:
            return [], "there is no manifest, and no data.validation."
        where = f"{self.manifest}, split {split}"
        try:
            clips = read_manifest(self.manifest, split)
            try:
                rows = draw_usable_rows(clips, self.folder, self.count, self.seed, self.absent, self.notice)
            except DataError as error:
                raise type(error)(f"{where}: {error}") from None
            return self.select(add_recording_ids(rows, recording_ids(clips)), where), ""
        except BrokenError:
            raise
        except DataError as error:
            return [], str(error)

    def select(self, rows: list[Row], where: str) -> list[Row]:
        """The rows whose queries are accepted; raises DataError if there are none."""
        if self.accepts is None:
            return rows
        accepted = [row for row in rows if self.accepts(row["query"])]
        if not accepted:
            raise DataError(f"{where}: none of the {len(rows)} mixtures asks for one of the classes.")
        if left_out := len(rows) - len(accepted):
            self.notice(f"{where}: {left_out} of {len(rows)} mixtures are left out: their query is not a class.")
        return accepted


def add_examples(rows: list[Row]) -> list[Row]:
    """Add an example to each row of a list that names none: the target of another row with the same query."""
    targets: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["kind"] != "absent":
            targets[row["query"]].append(row)
    completed = []
    for row in rows:
        own = {row[name] for name in CLIPS if row.get(name)}
        other = next((each for each in targets[row["query"]] if each["target"] not in own), None)
        if other is not None and not row.get("example"):
            places = {f"example_{what}": other.get(f"target_{what}") or "" for what in ("start", "seconds")}
            row = row | {"example": other["target"]} | places
        completed.append(row)
    return completed


# Drawing


def group_clips(clips: Sequence[Clip]) -> tuple[dict[str, list[Clip]], str]:
    """Group clips by label or, without labels, by recording with captions as labels; says what the groups are."""
    captioned = not any(clip.label for clip in clips)
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if captioned and clip.caption:
            groups[clip.recording].append(replace(clip, label=clip.caption, labels=clip.captions))
        elif clip.label:
            groups[clip.label].append(clip)
    return dict(groups), "captioned recordings" if captioned else "labels"


def measure(path: Path) -> float:
    """Length of a file, s; 0 if it cannot be read. Containers are decoded: the lengths in their headers are rounded."""
    with suppress(*READ_ERRORS):
        reader = Reader(path)
        if reader.container and reader.frames is not None:
            return reader.frames / reader.sample_rate
        samples, rate = read_samples(path)
        return len(samples) / rate
    return 0.0


def draw_rows(
    clips: Sequence[Clip], count: int, seed: int = 0, absent: float = 0.2, root: Path | None = None
) -> list[Row]:
    """Draw rows of mixtures of two clips that share no label or, without labels, are of different recordings.

    A row depends on (seed, its number), the clips and their lengths, which are measured below `root` where the manifest
    does not state them. In a share of the rows, `absent`, the query occurs in neither clip; they are spread evenly.

    Returns:
        Rows as in `fixed_mixtures.py`: none if there are too few labels (captioned recordings), fewer than `count`
        if no clips were found that can be mixed.
    """
    (groups, _), rows = group_clips(clips), []
    if len(groups) < (3 if absent > 0 else 2):
        return []
    length_of = cache(lambda path: measure((root or Path()) / path))
    for number in range(count):
        rng, is_absent = np.random.default_rng((seed, number)), int((number + 1) * absent) > int(number * absent)
        row = {"id": f"{'absent' if is_absent else 'pair'}{number:04d}", "kind": "absent" if is_absent else "pair"}
        for _ in range(MAX_ATTEMPTS):
            if columns := _draw_clips(groups, is_absent, rng, length_of):
                rows.append(row | columns)
                break
    return rows


def _draw_clips(
    groups: dict[str, list[Clip]], is_absent: bool, rng: np.random.Generator, length_of: Callable[[str], float]
) -> Row | None:
    """Draw the columns of a row; None if its clips share a sound, or one of them contains what should be absent."""
    names = sorted(groups)
    chosen = rng.choice(names, 3, replace=False) if len(names) > 2 else rng.permutation(names)
    row = {"snr_db": str(rng.choice(SNR_DB))}
    clips: list[Clip] = []
    for name, group in zip(CLIPS, chosen[:2], strict=False):
        clip = groups[group][rng.integers(len(groups[group]))]
        row |= draw_place(name, clip, rng, length_of) | {f"{name}_label": clip.label}
        clips.append(clip)
    target, sounds = clips[0], [set(clip.labels) for clip in clips]
    if sounds[0] & sounds[1]:
        return None
    if is_absent:
        candidates = groups[chosen[2]]
    else:  # another recording of the target, in which the interference does not sound
        same = (clip for clip in groups[chosen[0]] if clip.recording != target.recording)
        candidates = [clip for clip in same if not sounds[1] & set(clip.labels)]
    example = candidates[rng.integers(len(candidates))] if candidates else None
    query = example.label if is_absent and example else target.label
    if is_absent and query in sounds[0] | sounds[1]:
        return None
    if example:
        row |= draw_place("example", example, rng, length_of)
    return row | {"query": query, "phrase": query if is_absent else target.caption, "interference2": ""}


def draw_place(name: str, clip: Clip, rng: np.random.Generator, length_of: Callable[[str], float]) -> Row:
    """The columns of a clip: the start of a random part of a long clip, the offset of a short one in silence."""
    seconds = clip.seconds or max(0.0, length_of(clip.path) - clip.start)
    room = seconds - SECONDS
    return {
        name: clip.path,
        f"{name}_start": f"{clip.start + rng.uniform(0, max(0.0, room)):.3f}",
        f"{name}_offset": f"{rng.uniform(0, max(0.0, -room)):.3f}",
        f"{name}_seconds": f"{min(seconds, SECONDS):.3f}",
    }


def draw_usable_rows(
    clips: Sequence[Clip],
    root: Path,
    count: int,
    seed: int = 0,
    absent: float = 0.2,
    notice: Callable[[str], None] = print,
) -> list[Row]:
    """`draw_rows` without rows that cannot be scored; their number and broken recordings are reported to `notice`.

    Raises DataError if no row is left, and BrokenError if more than 1 % of the recordings are broken. A split of fewer
    than 100 clips may have one.
    """
    rows = draw_rows(clips, count, seed, absent, root)
    if not rows:
        (groups, kind), least = group_clips(clips), 3 if absent > 0 else 2
        if len(groups) < least:
            raise DataError(f"mixtures are drawn from {least} {kind} or more, and there are {len(groups)}.")
        raise DataError("every two clips have a sound in common.")
    if len(rows) < count:
        notice(f"{count - len(rows)} of {count} validation mixtures are left out: no clips can be mixed.")
    usable = [row for row in rows if is_usable(row, root)]
    if len(usable) < len(rows):
        broken = _broken_recordings([row for row in rows if row not in usable], clips, root)
        recordings = len({path for row in rows for path in mixtures.row_files(row)})
        notice(f"{len(rows) - len(usable)} of {len(rows)} validation mixtures are left out: silent or not readable.")
        report_broken(broken, recordings, notice, "recordings", least=min(len(clips), 100))
    if not usable:
        raise DataError(f"all {len(rows)} mixtures that were drawn are silent or not readable.")
    return usable


def is_usable(row: Row, root: Path) -> bool:
    """Whether a drawn row can be scored: its files are readable, and target and interference are not silent."""
    try:
        rendered = mixtures.render(row, root)
    except (*READ_ERRORS, ValueError):
        return False
    mixed = np.isfinite(rendered.mixture).all() and not np.array_equal(rendered.mixture, rendered.target)
    return mixed and (row["kind"] == "absent" or bool(rendered.target.any()))


def _broken_recordings(rows: Sequence[Row], clips: Sequence[Clip], root: Path) -> list[str]:
    """Describe the broken recordings among those of `rows`. Clips are read as a whole: a silent part does not count."""
    starts: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name in CLIPS[:2]:
            starts[row[name]].append(float(row[f"{name}_start"]))
    broken: dict[str, str] = {}
    for clip in clips:
        if clip.path in broken or not any(contains(clip, start) for start in starts.get(clip.path, ())):
            continue
        try:
            read_part(root / clip.path, clip.start, clip.seconds)
        except DataError as error:
            broken[clip.path] = str(error)
    return list(broken.values())


def contains(clip: Clip, start: float) -> bool:
    """Whether `start`, s, lies in this part of the file; rows give times to a thousandth of a second."""
    return start - clip.start > -1e-3 and (not clip.seconds or start - clip.start < clip.seconds)
