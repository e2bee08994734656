"""Hive: Li et al., "A Semantically Consistent Dataset for Data-Efficient Query-Based Universal Sound Separation", 2026.

Its metadata says how 2 to 5 sources from twelve public datasets are mixed. It is published as JSON, lists of mixtures
in `train`, `val` and `test`, and as Parquet with the same fields. The paths in it begin with the name of a dataset,
such as `VGGSound/...`: the user's copies, or links to them, lie under these names in one folder, and the metadata in
`metadata` in the same folder or beside them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from separation.data.lists import read_json
from separation.errors import DataError

SPLITS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
KEYS = (
    "path", "label", "crop_start_second", "crop_end_second", "chunk_start_second", "chunk_end_second", "applied_weight",
)  # fmt: skip
MOST_SOURCES = 5


@dataclass(frozen=True)
class HiveSource:
    """A source of a mixture.

    Attributes:
        path: below the folder of the datasets.
        label: its class.
        chunk: start and end of the part of the file that the source was cut from, s.
        start, seconds: of the source in the file, s; silence follows if it is shorter than the mixture.
        gain: final factor: `rms_gain`, `snr_db` and the normalisation of the mixture.
    """

    path: str
    label: str
    chunk: tuple[float, float]
    start: float
    seconds: float
    gain: float


@dataclass(frozen=True)
class HiveMixture:
    """A mixture of Hive: its name, rate in Hz, length in s, and sources."""

    name: str
    sample_rate: int
    seconds: float
    sources: tuple[HiveSource, ...]


def read_hive(root: Path, split: str) -> Iterator[HiveMixture]:
    """Read the mixtures of split train, validation or test from Hive's metadata, JSON where it is there, else Parquet.

    They are in `metadata/<split>` or `<split>` of `root`, the folder of the datasets. Raises DataError if there are
    none, a file is not Hive's, or Parquet cannot be read without pyarrow.
    """
    for suffix in (".json", ".parquet"):
        folders = [root / place / name for place in ("metadata", "") for name in SPLITS[split]]
        if files := next((found for each in folders if (found := sorted(each.rglob(f"*{suffix}")))), []):
            break
    else:
        raise DataError(f"{root}: no metadata of Hive's split {split} (metadata/{SPLITS[split][0]}/**/*.json).")
    for path in files:
        for number, entry in enumerate(read_json(path) if suffix == ".json" else read_parquet(path)):
            try:
                yield parse_mixture(entry)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                why = f"{type(error).__name__} {error}"
                raise DataError(f"{path}: mixture {number} is not as in Hive's metadata ({why}).") from None


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Read the rows of a Parquet file; raise DataError without pyarrow or for another file."""
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise DataError(
            f"{path}: Parquet needs the package pyarrow: pip install pyarrow, or get Hive's metadata as JSON."
        ) from None
    try:
        for batch in parquet.ParquetFile(path).iter_batches(1000):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise DataError(f"{path}: not Parquet ({str(error).splitlines()[0]}).") from None


def parse_mixture(entry: dict[str, Any]) -> HiveMixture:
    """Convert an entry; Parquet has its fields side by side, and may have lists of fields instead of sources."""
    about = entry | (entry.get("dataset_info") or {}) | (entry.get("mixing_params") or {})
    given, norm = about["sources"], float(about["global_normalization_factor"])
    if isinstance(given, dict):
        given = [dict(zip(KEYS, values, strict=True)) for values in zip(*(given[key] for key in KEYS), strict=True)]
    sources = []
    for each in given:
        path, label, crop_start, crop_end, first, last, weight = (each[key] for key in KEYS)
        seconds = min(float(crop_end), float(last) - float(first)) - float(crop_start)
        inside = not PurePosixPath(str(path)).is_absolute() and ".." not in PurePosixPath(str(path)).parts
        if not 1 <= len(given) <= MOST_SOURCES or not seconds > 0 or not path or not label or not inside:
            raise ValueError(f"source {path}")
        start = float(first) + float(crop_start)
        sources.append(
            HiveSource(str(path), str(label), (float(first), float(last)), start, seconds, float(weight) * norm)
        )
    name = f"{len(sources)}mix-{about['mix_id']}"
    return HiveMixture(name, int(about["sample_rate"]), float(about["target_duration"]), tuple(sources))


# Which classes may sound together


def together_in(mixtures: Iterable[HiveMixture]) -> dict[str, list[str]]:
    """Return for each class the classes that it is mixed with in some mixture, sorted."""
    found: dict[str, set[str]] = {}
    for mixture in mixtures:
        labels = {source.label for source in mixture.sources}
        for label in labels:
            found.setdefault(label, set()).update(labels - {label})
    return {label: sorted(others) for label, others in sorted(found.items())}
