"""What `separate-batch` delivers with one and with two workers, beside `separate`, on recordings made here.

    python benchmarks/batch.py --files 48 --seconds 10

For each run it prints the files per second from the third part of the outputs on, when all workers have loaded the
model, to the last but two, until which all have something to do; the time from start to end; and the processor seconds
of all its processes, per file and before the first one. On a busy machine only the processor seconds mean much, so the
load average is printed as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile
from common import ROOT, make_parser, package_environment, run_benchmark, write_json

QUERY = ["--query", "dog barking", "--threads", "1", "--quiet"]
BATCH = "import sys; from separation.commands import separate_batch; sys.exit(separate_batch())"


def processor_seconds(processes: list[psutil.Process], spent: dict[int, float]) -> float:
    """Note the processor seconds of processes by their id; return the sum, of processes that have ended too."""
    for process in processes:
        try:
            times = process.cpu_times()
            spent[process.pid] = times.user + times.system
        except psutil.Error:
            continue
    return sum(spent.values())


def measure(words: list[str], out: Path) -> dict[str, float]:
    """Run a command of this package; return rates and processor seconds, see the module."""
    began, spent, times = time.time(), {}, []
    environment = package_environment() | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, *words], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    watched, known = psutil.Process(process.pid), {}
    before = 0.0  # processor seconds until the first output
    while process.poll() is None:
        try:
            known |= {each.pid: each for each in [watched, *watched.children(recursive=True)]}
        except psutil.Error:
            continue
        now = processor_seconds(list(known.values()), spent)
        before = now if not before and any(out.rglob("*.dog_barking.wav")) else before
        time.sleep(0.5)  # looking takes time of the processors, too
    if process.returncode:
        raise SystemExit(f"the command ended with status {process.returncode}")
    times = sorted(file.stat().st_mtime for file in out.rglob("*.dog_barking.wav"))
    total, first, last = sum(spent.values()), len(times) // 3, len(times) - 3
    return {
        "files_per_second": (last - first) / (times[last] - times[first]),
        "seconds": time.time() - began,
        "processor_seconds_before": before,
        "processor_seconds_per_file": (total - before) / (len(times) - 1),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--files", type=int, default=48, help="recordings (default: 48)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each (default: 10)")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="default: 1 2")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        (folder / "in").mkdir()
        for number in range(options.files):
            noise = 0.1 * rng.standard_normal((round(options.seconds * 32000), 2))
            soundfile.write(folder / "in" / f"{number}.wav", noise, 32000)
        runs = {"separate": ["-m", "separation.cli", *QUERY, "-r", str(folder / "in"), "-o", str(folder / "plain")]}
        for workers in options.workers:
            words = ["-c", BATCH, *QUERY, str(folder / "in"), str(folder / str(workers)), "--workers", str(workers)]
            runs[f"{workers} worker{'s' * (workers > 1)}"] = words
        print(f"{options.files} files of {options.seconds:g} s, stereo, 32 kHz; {os.cpu_count()} processors")
        print("| | files/s | s in all | processor s before the first | processor s per file | load |")
        print("|---|---|---|---|---|---|")
        for title, words in runs.items():
            out = folder / ("plain" if title == "separate" else title.split()[0])
            row = results[title] = measure(words, out)
            rate, seconds, before, each, load = row.values()
            print(f"| {title} | {rate:.3f} | {seconds:.1f} | {before:.1f} | {each:.3f} | {load:.1f} |", flush=True)
    rates = [results[title]["files_per_second"] for title in runs if title != "separate"]
    if len(rates) > 1:
        print(f"{rates[-1] / rates[0]:.2f} times as many files per second with {options.workers[-1]} workers")
    write_json(options.json, results)


if __name__ == "__main__":
    run_benchmark(main)
