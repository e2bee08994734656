"""Hive: the clips of its training, validation and test mixtures, from the user's copies of its twelve sources.

Layout: github.com/ShandaAI/Hive, `hive_dataset`. `metadata/{train,val,test}` with JSON, or the Parquet files of
huggingface.co/datasets/AlayaLab/Hive in folders of these names; beside it a folder (or link) for each dataset, by the
name with which the paths in the metadata begin. The classes that are mixed in training are written to `together.json`,
for `--data.together`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separation.data.hive import SPLITS, read_hive, together_in
from separation.data.manifest import Clip, Entry
from separation.datasets.base import clean_text, preparer
from separation.errors import DataError
from separation.storage.download import write_json

TOGETHER = "together.json"


def write_table(root: Path) -> None:
    """Write which classes are mixed in training, see `derived.AllowedPairs`, unless the file exists."""
    if not (root / TOGETHER).exists():
        write_json(root / TOGETHER, together_in(read_hive(root, "train")))


@preparer(
    name="hive",
    title="Hive",
    home="https://huggingface.co/datasets/AlayaLab/Hive",
    get="Download the metadata; put or link your copies of its twelve sources into one folder with it.",
    licence="metadata Apache-2.0; each source has its own terms",
    splits="its own train, validation and test",
    needs=("metadata",),
    complete=False,
    parts=True,
    before=write_table,
)
def clips(root: Path) -> Iterator[Entry]:
    """Yield each part of a file that is mixed, once per split."""
    seen = set()
    for split in SPLITS:
        try:
            for mixture in read_hive(root, split):
                for source in mixture.sources:
                    if (key := (split, source.path, source.chunk)) not in seen:
                        seen.add(key)
                        first, last = source.chunk
                        label, recording = clean_text(source.label), f"hive:{source.path}"
                        yield split, Clip(source.path, label, "", recording, "hive", last - first, start=first)
        except DataError:
            if split == "train" or (root / "metadata" / SPLITS[split][0]).exists():
                raise
