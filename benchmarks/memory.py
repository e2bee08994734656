"""Peak memory of the `separate` command on long files, disk to disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speed import CHANNELS, QUERIES, SAMPLE_RATE, command, environment, write_recording

MINUTES = (10.0, 60.0)
BYTES_IN, BYTES_OUT = 2, 4  # per sample: 16-bit in, float32 out
# A process's peak counter starts at the size of whoever started it. This one is small and starts nothing else.
LAUNCHER = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)
"""


@dataclass(frozen=True)
class Peak:
    """Largest resident memory of a command and all it started, and its wall time."""

    bytes: int
    seconds: float


def peak_memory(words: list[str]) -> Peak:
    """Runs a command and measures it.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        report = Path(scratch) / "peak"
        launched = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(report), *words]
        began = time.perf_counter()
        done = subprocess.run(launched, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"{words[0]} ended with status {done.returncode}: {done.stderr.strip()}")
        unit = 1 if sys.platform == "darwin" else 1024
        return Peak(int(report.read_text(encoding="utf-8")) * unit, seconds)


def space_needed(minutes: float) -> int:
    """Bytes on disk for a recording of this length and one output."""
    return int(minutes * 60 * SAMPLE_RATE * CHANNELS * (BYTES_IN + BYTES_OUT) * 1.01)


def measure_file(model: str, minutes: float, folder: Path, threads: int | None = None) -> dict[str, Any]:
    """Peak of the command on one generated recording, which is deleted together with its output.

    Raises:
        RuntimeError: the disk is too small, the command failed, or the output is not as long as the input.
    """
    import soundfile

    free = shutil.disk_usage(folder).free
    if free < space_needed(minutes):
        raise RuntimeError(
            f"{minutes:g} minutes need {space_needed(minutes) / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are free"
            " (--scratch names another folder)."
        )
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as scratch:
        recording, out = Path(scratch) / "long.wav", Path(scratch) / "out"
        write_recording(recording, minutes * 60)
        peak = peak_memory(command(recording, out, model, list(QUERIES[:1]), threads))
        frames, written = soundfile.info(recording).frames, [soundfile.info(path).frames for path in out.iterdir()]
        if written != [frames]:
            raise RuntimeError(f"{frames} samples went in, {written} came out.")
    return {"minutes": minutes, "peak_bytes": peak.bytes, "seconds": peak.seconds}


def measure_memory(
    model: str,
    say: Callable[[str], None],
    minutes: tuple[float, ...] = MINUTES,
    folder: Path | None = None,
    threads: int | None = None,
) -> list[dict[str, Any]]:
    """Peaks for recordings of several lengths, stereo, 44.1 kHz, one query."""
    rows = []
    for length in minutes:
        say(f"memory: a recording of {length:g} minutes")
        rows.append(measure_file(model, length, folder or Path(tempfile.gettempdir()), threads))
    return rows


def memory_table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| stereo 44.1 kHz, disk to disk | peak memory | wall time |", "|---|---|---|"]
    lines += [f"| {r['minutes']:g} minutes | {r['peak_bytes'] / 1e6:.0f} MB | {r['seconds']:.0f} s |" for r in rows]
    return "\n".join(lines)
