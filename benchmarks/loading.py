"""Mixtures a second that the data module draws, with and without worker processes: does loading keep up with the model?

    python benchmarks/loading.py --manifest FOLDER/manifest.csv --workers 0 1 2 --json loading.json

A training step that takes longer than drawing its batch is never kept waiting; with workers, drawing happens beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from separation.data.datamodule import MixtureData


def measure(data: MixtureData, workers: int, batches: int) -> dict[str, Any]:
    """Mixtures a second over `batches` batches; the first one, for which the workers start, is not counted."""
    data.workers, data.batches = workers, batches + 1
    loader = iter(data.train_dataloader())
    next(loader)
    began = time.perf_counter()
    drawn = sum(len(batch.sources) for batch in loader)
    seconds = time.perf_counter() - began
    return {"workers": workers, "mixtures": drawn, "seconds": seconds, "mixtures_per_second": drawn / seconds}


def table(rows: list[dict[str, Any]], data: MixtureData) -> str:
    """The figures, and how many times faster than real time that is."""
    heard = data.length / data.sample_rate
    lines = [
        f"batches of {data.batch_size} mixtures of {heard:.2f} s at {data.sample_rate} Hz, two or three sources each",
        f"{'workers':>8}{'mixtures/s':>12}{'batches/s':>11}{'x real time':>13}",
    ]
    for row in rows:
        rate = row["mixtures_per_second"]
        lines.append(f"{row['workers']:>8}{rate:>12.1f}{rate / data.batch_size:>11.2f}{rate * heard:>13.0f}")
    return "\n".join(lines)


def main() -> None:
    """Prints the table, writes the JSON."""
    options = parsed()
    data = MixtureData(options.manifest, options.root, options.cache, options.batch_size, options.seconds)
    data.setup()
    rows = [measure(data, workers, options.batches) for workers in options.workers]
    print(table(rows, data))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def parsed() -> argparse.Namespace:
    """The options."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--root", type=Path, help="folder that its paths start from; its own by default")
    parser.add_argument("--cache", type=Path, help="folder for decoded samples, so that the next run starts at once")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=3.109375, help="length of a mixture")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
