"""Speed and cost of a model: wall time, operations, parameters.

The command is timed from start to end, including imports; the separation alone with everything loaded and the queries
encoded.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import separation
from separation.data.foley import SOUNDS, synthesise
from separation.evaluate.tables import markdown

SAMPLE_RATE, CHANNELS = 44100, 2
COMMAND_SECONDS, ALONE_SECONDS = 10, 60
BLOCK_SECONDS, TURNS = 10, 12
REPEATS = 3
QUERIES = (
    "dog barking", "rain", "siren", "a car engine", "church bells", "somebody typing", "footsteps on gravel", "wind",
)  # fmt: skip
COST_SECONDS = 20


@dataclass(frozen=True)
class Timing:
    """Wall time of repeated runs, in seconds."""

    best: float
    median: float
    runs: list[float]


def timed(action: Callable[[], object], repeats: int = REPEATS) -> Timing:
    """Time repeated runs."""
    runs = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        runs.append(time.perf_counter() - began)
    return Timing(min(runs), statistics.median(runs), runs)


@cache
def sound(number: int) -> NDArray[np.float32]:
    """Return one of the procedural sounds, (time,)."""
    return 0.5 * synthesise(list(SOUNDS)[number], BLOCK_SECONDS, SAMPLE_RATE, seed=1)


def blocks(seconds: float) -> Iterator[NDArray[np.float32]]:
    """Yield a stereo recording of procedural sounds at 44.1 kHz in blocks (channels, n); the sounds change every 10 s.

    Every sound is synthesised once, so that hours cost no more than minutes.
    """
    left = round(seconds * SAMPLE_RATE)
    number = 0
    while left > 0:
        first, second = sound(number % TURNS), sound((5 * number + 1) % TURNS)
        block = np.stack([0.7 * first + 0.3 * second, 0.3 * first + 0.7 * second])[:, :left]
        left -= block.shape[1]
        number += 1
        yield block


def write_recording(path: Path, seconds: float) -> None:
    """Write such a recording as 16-bit wav, block by block."""
    import soundfile

    with soundfile.SoundFile(path, "w", SAMPLE_RATE, CHANNELS, "PCM_16") as file:
        for block in blocks(seconds):
            file.write(block.T)


def command(recording: Path, folder: Path, model: str, queries: list[str], threads: int | None = None) -> list[str]:
    """Return a `separate` command line with this interpreter and outputs in `folder`."""
    words = [sys.executable, "-m", "separation.cli", "--quiet", "--overwrite", "--device", "cpu", "--model", model]
    words += ["--threads", str(threads)] if threads else []
    return [*words, *(word for query in queries for word in ("--query", query)), "-o", str(folder), str(recording)]


def environment() -> dict[str, str]:
    """Return the environment of this process with this package first on the Python path."""
    home = str(Path(separation.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([home, inherited] if inherited else [home])}


def run(words: list[str]) -> None:
    """Run a command.

    Raises:
        RuntimeError: the command failed; with its messages.
    """
    done = subprocess.run(words, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"separate ended with status {done.returncode}: {done.stderr.strip()}")


def time_command(model: str, queries: list[str], threads: int | None = None, repeats: int = REPEATS) -> Timing:
    """Time the command from start to end for ten seconds of stereo at 44.1 kHz."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        write_recording(folder / "mix.wav", COMMAND_SECONDS)
        words = command(folder / "mix.wav", folder / "out", model, queries, threads)
        return timed(lambda: run(words), repeats)


def time_separation(
    separator: Any, queries: list[str], seconds: float = ALONE_SECONDS, repeats: int = REPEATS
) -> Timing:
    """Time the separation of a stereo recording of 44.1 kHz in memory, per second of audio."""
    mixture = np.concatenate(list(blocks(seconds)), axis=1)
    separator(mixture[:, : 5 * SAMPLE_RATE], queries, SAMPLE_RATE)  # the first run sets things up
    timing = timed(lambda: separator(mixture, queries, SAMPLE_RATE), repeats)
    return Timing(timing.best / seconds, timing.median / seconds, [run / seconds for run in timing.runs])


def measure_speed(
    separator: Any, model: str, say: Callable[[str], None], threads: int | None = None, repeats: int = REPEATS
) -> list[dict[str, Any]]:
    """Time the command and the separation alone, with one query and with eight."""
    rows = []
    for queries in (list(QUERIES[:1]), list(QUERIES)):
        count = len(queries)
        say(f"speed: the command, queries: {count}, runs: {repeats}")
        timing = time_command(model, queries, threads, repeats)
        rows.append({"what": "command", "queries": count, "seconds": COMMAND_SECONDS, **asdict(timing)})
        say(f"speed: the separation alone, queries: {count}, runs: {repeats}")
        timing = time_separation(separator, queries, ALONE_SECONDS, repeats)
        rows.append({"what": "separation", "queries": count, "seconds": ALONE_SECONDS, **asdict(timing)})
    return rows


def speed_table(rows: list[dict[str, Any]]) -> str:
    """Format the timings."""
    names = {
        "command": "the command, {} s stereo 44.1 kHz, start to end, s",
        "separation": "the separation alone, {} s stereo 44.1 kHz, s per s of audio",
    }
    cells = [
        (names[row["what"]].format(row["seconds"]), row["queries"], f"{row['best']:.3g}", f"{row['median']:.3g}")
        for row in sorted(rows, key=lambda row: str(row["what"]))
    ]
    return markdown(("wall time", "queries", "best", "median"), cells)


def multiply_adds(separator: Any, queries: int) -> float:
    """Count the network's multiply-adds per second of audio in one segment, without Fourier transforms."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = separator.model
    mixture = torch.zeros(1, 1, COST_SECONDS * model.sample_rate, device=separator.device)
    conditions = torch.zeros(1, queries, model.condition_dim, device=separator.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.separate(mixture, conditions)
    return float(counter.get_total_flops()) / 2 / COST_SECONDS


def measure_cost(separator: Any, directory: Path) -> dict[str, Any]:
    """Return operations, parameters and bytes of a model.

    `overlap` is the factor on the operations of a long recording, whose segments overlap.
    """
    runner = separator.stream(["sound"], separator.sample_rate, 1, 1.0).runner
    return {
        "multiply_adds": {str(n): multiply_adds(separator, n) for n in (1, len(QUERIES))},
        "overlap": runner.segment / (runner.segment - runner.overlap),
        "separator_parameters": sum(p.numel() for p in separator.model.parameters()),
        "encoder_parameters": sum(p.numel() for p in separator.encoder.parameters()),
        "weights_bytes": (directory / "model.safetensors").stat().st_size,
    }


def cost_table(cost: dict[str, Any]) -> str:
    """Format the cost."""
    rows = []
    for queries, count in cost["multiply_adds"].items():
        noun = "query" if queries == "1" else "queries"
        rows.append((f"multiply-adds per s of audio, {queries} {noun}", f"{count / 1e9:.3f} G"))
    encoder = f"{cost['encoder_parameters'] / 1e6:.2f} M"
    rows += [
        ("the same in a long recording (segments overlap)", f"x {cost['overlap']:.2f}"),
        ("parameters of the separator", f"{cost['separator_parameters'] / 1e6:.2f} M"),
        ("parameters of the query encoder, without the sentence encoder", encoder),
        ("weights", f"{cost['weights_bytes'] / 1e6:.1f} MB"),
    ]
    return markdown(("cost", ""), rows)
