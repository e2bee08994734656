"""Measures how long several users at once wait on the page, compared with one alone.

    python benchmarks/page_load.py                       starts demos/app.py itself
    python benchmarks/page_load.py --url http://127.0.0.1:7860 --json page_load.json

Each user uploads a 10-second recording, for which sounds are suggested, asks for two sounds and downloads all files.
The exit status is 1 if a user was not served, or waited more than five times as long as one alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import soundfile
from common import make_parser, run_benchmark, run_page, write_json
from gradio_client import Client, handle_file

RATE, SECONDS, QUERIES, USERS = 44100, 10, ["dog barking", "rain"], 4
MAX_RATIO = 5.0


def visit(url: str, folder: Path, number: int) -> float:
    """Return the seconds from the upload to the last file."""
    path = folder / f"{number}.wav"
    noise = 0.1 * np.random.default_rng(number).standard_normal((RATE * SECONDS, 2))
    soundfile.write(path, noise.astype(np.float32), RATE)
    client = Client(url, verbose=False, download_files=str(folder))
    began = time.perf_counter()
    listening = client.submit(handle_file(str(path)), api_name="/listen")  # as the page does after an upload
    result = client.predict(handle_file(str(path)), QUERIES, api_name="/separate")
    assert soundfile.info(result["sounds"][1]["residual"]).frames == RATE * SECONDS
    seconds = time.perf_counter() - began
    assert listening.result()["seconds"] == SECONDS
    return seconds


def measure(url: str) -> tuple[float, list[float]]:
    """Return the seconds of one user alone, and of each of several at once; infinity for one who was not served."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(USERS) as pool:
        visit(url, Path(folder), 0)  # loads the model
        alone = min(visit(url, Path(folder), 0) for _ in range(3))
        visits = [pool.submit(visit, url, Path(folder), number) for number in range(USERS)]
        for failed in filter(None, [each.exception() for each in visits]):
            print(f"not served: {failed!r}", file=sys.stderr)
        return alone, sorted(float("inf") if each.exception() else each.result() for each in visits)


def main() -> int:
    """Print the table; return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--url", help="address of a running page")
    options = parser.parse_args()
    with nullcontext((options.url, None)) if options.url else run_page() as (url, _):
        alone, waits = measure(url)
    slowest = waits[-1] / alone
    print(f"one alone               {alone:6.2f} s")
    for number, wait in enumerate(waits, 1):
        print(f"one of {USERS}, served {number}.     {wait:6.2f} s   {wait / alone:4.1f} times")
    print(f"slowest: {slowest:.2f} times one alone; at most {MAX_RATIO:g}: {'yes' if slowest <= MAX_RATIO else 'NO'}")
    write_json(options.json, {"alone": alone, "waits": waits, "slowest": slowest, "most": MAX_RATIO})
    return int(slowest > MAX_RATIO)


if __name__ == "__main__":
    run_benchmark(main)
