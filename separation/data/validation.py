"""Fixed mixtures to score on: those of a list, or drawn once from a split of the manifest, in the same form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from separation.data.manifest import Clip
from separation.data.protocol import SECONDS, Rendered, render

SNR_DB = (-5, 0, 5)


class Rows(Dataset[Rendered]):
    """The mixtures of a fixed list, rendered as they are asked for; of several ranks each has its share.

    Args:
        rows: of the list, see `protocol.py`.
        root: folder that their paths start from.
        rank, world: this process's number, and how many there are.
    """

    def __init__(self, rows: list[dict[str, str]], root: Path, rank: int = 0, world: int = 1) -> None:
        self.rows, self.root = rows[rank::world], root

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Rendered:
        return render(self.rows[index], self.root)


def draw_rows(clips: list[Clip], count: int, seed: int = 0, absent: float = 0.2) -> list[dict[str, str]]:
    """Rows of mixtures of two sources.

    Args:
        clips: of one split.
        count: how many mixtures.
        seed: of the draw; a row is a function of (seed, its number) and the clips.
        absent: share of rows whose query sounds in neither source; they are spread evenly.

    Returns:
        Rows as in a list of `protocol.py`; none where the clips have too few labels.
    """
    labels = sorted({clip.label for clip in clips})
    if len(labels) < (3 if absent > 0 else 2):
        return []
    by_label = {label: [clip for clip in clips if clip.label == label] for label in labels}
    return [draw_row(by_label, number, np.random.default_rng((seed, number)), absent) for number in range(count)]


def draw_row(by_label: dict[str, list[Clip]], number: int, rng: np.random.Generator, absent: float) -> dict[str, str]:
    """One row: which clips, from where, how loud, what is asked for."""
    target, interference, other = rng.choice(sorted(by_label), 3, replace=False) if len(by_label) > 2 else (
        *rng.permutation(sorted(by_label)), "")  # fmt: skip
    is_absent = int((number + 1) * absent) > int(number * absent)
    kind, query = ("absent", other) if is_absent else ("pair", target)
    row = {"id": f"{kind}{number:04d}", "kind": kind, "query": str(query), "snr_db": str(rng.choice(SNR_DB))}
    for name, label in (("target", target), ("interference1", interference)):
        clip = by_label[label][rng.integers(len(by_label[label]))]
        room = clip.seconds - SECONDS
        row |= {
            name: clip.path,
            f"{name}_label": str(label),
            f"{name}_start": f"{rng.uniform(0, max(0.0, room)):.3f}",
            f"{name}_offset": f"{rng.uniform(0, max(0.0, -room)):.3f}",
        }
        if name == "target":
            row["phrase"] = clip.caption if kind == "pair" else str(query)
    return row | {"interference2": ""}


def usable(row: dict[str, str], root: Path) -> bool:
    """Whether a drawn row can be scored: its files can be read, and no cut that matters has hit a pause."""
    try:
        rendered = render(row, root)
    except (OSError, RuntimeError, ValueError):
        return False
    mixed = not np.array_equal(rendered.mixture, rendered.target)
    return mixed and (row["kind"] == "absent" or bool(rendered.target.any()))


def drawn_rows(clips: list[Clip], root: Path, count: int, seed: int = 0, absent: float = 0.2) -> list[dict[str, str]]:
    """`draw_rows` without those that cannot be scored, whose number is said."""
    rows = draw_rows(clips, count, seed, absent)
    good = [row for row in rows if usable(row, root)]
    if len(good) < len(rows):
        print(f"{len(rows) - len(good)} of {len(rows)} validation mixtures are left out: silent or not readable.")
    return good
