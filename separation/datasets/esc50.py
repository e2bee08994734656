"""ESC-50: 2,000 clips of 5 s in 50 classes, five folds.

Layout: github.com/karolpiczak/ESC-50, `meta/esc50.csv` and `audio/`. Folds share no original. The published use is
five-fold cross-validation; here one round of it: folds 1 to 3 train, 4 validation, 5 test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separation.data.lists import read_table
from separation.data.manifest import Clip, Entry
from separation.datasets.base import label_words, preparer

COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
SPLITS = {"4": "validation", "5": "test"}
LICENCE = "CC BY-NC 3.0 (see LICENSE of the dataset)"


@preparer(
    name="esc50",
    title="ESC-50",
    home="https://github.com/karolpiczak/ESC-50",
    get="Download the repository as a zip file (600 MB) and unpack it; --root is the folder with meta/ and audio/.",
    licence="CC BY-NC 3.0; the ESC-10 subset CC BY 3.0",
    splits="its folds: 1-3 train, 4 validation, 5 test",
    needs=("meta/esc50.csv", "audio"),
    counts={"train": 1200, "validation": 400, "test": 400},
)
def clips(root: Path) -> Iterator[Entry]:
    """Yield every row of `meta/esc50.csv`."""
    for _, row in read_table(root / "meta" / "esc50.csv", COLUMNS):
        path, recording = f"audio/{row['filename']}", f"freesound:{row['src_file']}"
        clip = Clip(path, label_words(row["category"]), "", recording, "esc50", 5.0, LICENCE)
        yield SPLITS.get(row["fold"], "train"), clip
