"""Measures the mixtures per second that the data module draws, with and without worker processes.

    python benchmarks/loading.py --manifest FOLDER/manifest.csv --json loading.json

If a training step takes longer than drawing its batch, workers draw beside it and it never waits.
"""

from __future__ import annotations

import time
from pathlib import Path

from common import make_parser, run_benchmark, write_json

from separation.data.datamodule import MixtureData
from separation.evaluate.tables import markdown


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="or the folder of a packed corpus")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=3.109375, help="length of a mixture")
    options = parser.parse_args(argv)
    sizes = {"batch_size": options.batch_size, "seconds": options.seconds, "workers": max(options.workers)}
    data = MixtureData(options.manifest, **sizes)
    data.setup()
    length, rows, cells = data.length / data.sample_rate, [], []
    for workers in options.workers:
        data.workers, data.batches = workers, options.batches + 1
        loader = iter(data.train_dataloader())
        next(loader)  # not counted, because the workers start
        began = time.perf_counter()
        count = sum(len(batch.labels) for batch in loader)
        seconds = time.perf_counter() - began
        rate = count / seconds
        rows.append({"workers": workers, "mixtures": count, "seconds": seconds, "mixtures_per_second": rate})
        cells.append((workers, f"{rate:.1f}", f"{rate / data.batch_size:.2f}", f"{rate * length:.0f}"))
    print(
        f"batches of {data.batch_size} mixtures of {length:.2f} s at {data.sample_rate} Hz, two or three sources each\n"
    )
    print(markdown(("workers", "mixtures/s", "batches/s", "x real time"), cells))
    write_json(options.json, rows)


if __name__ == "__main__":
    run_benchmark(main)
