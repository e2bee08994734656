"""Measure how long four users at once wait on the page, compared with one alone.

    python benchmarks/page_load.py                       starts demos/app.py itself
    python benchmarks/page_load.py --url http://127.0.0.1:7860 --json page_load.json

Each user uploads a 10-second recording, for which sounds are suggested, asks for two sounds and downloads all files.
The exit status is 1 if a user was not served, or waited more than five times as long as one alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
from gradio_client import Client, handle_file

ROOT = Path(__file__).resolve().parents[1]
RATE, SECONDS, QUERIES = 44100, 10, ["dog barking", "rain"]
MAX_RATIO = 5.0


@contextlib.contextmanager
def page(url: str | None, arguments: list[str]) -> Iterator[str]:
    """The address of a page: the one given, or of a new one."""
    if url:
        yield url
        return
    command = [sys.executable, str(ROOT / "demos" / "app.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http" not in line:
            raise SystemExit("the page did not start")
        try:
            yield line.split()[4]
        finally:
            process.terminate()


def visit(url: str, folder: Path, number: int) -> float:
    """Seconds from the upload to the last file."""
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


def visit_together(url: str, folder: Path, people: int) -> list[float]:
    """Seconds that each of several users waits; -1 for one who was not served."""
    with ThreadPoolExecutor(people) as pool:
        visits = [pool.submit(visit, url, folder, number) for number in range(people)]
    for error in filter(None, (each.exception() for each in visits)):
        print(error, file=sys.stderr)
    return [-1.0 if each.exception() else each.result() for each in visits]


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description="Measure how long users wait on the page.")
    parser.add_argument("--url", help="address of a running page")
    parser.add_argument("--model", action="append", default=[], help="passed on to demos/app.py")
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    arguments = [word for model in options.model for word in ("--model", model)]
    with page(options.url, arguments) as url, tempfile.TemporaryDirectory() as folder:
        visit(url, Path(folder), 0)  # loads the model and measures its speed
        alone = min(visit(url, Path(folder), 0) for _ in range(3))
        waits = visit_together(url, Path(folder), options.people)
    slowest = max(waits) / alone
    good = min(waits) > 0 and slowest <= MAX_RATIO
    print(f"one alone               {alone:6.2f} s")
    for number, wait in enumerate(sorted(waits), 1):
        print(f"one of {options.people}, served {number}.     {wait:6.2f} s   {wait / alone:4.1f} times")
    print(f"slowest: {slowest:.2f} times one alone; at most {MAX_RATIO:g}: {'yes' if good else 'NO'}")
    figures = {"alone": alone, "waits": waits, "slowest": slowest, "most": MAX_RATIO, "good": good}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
