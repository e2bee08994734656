"""Wall time, peak memory and cost of a model.

The command is timed from its start to its first sample, and to its end, including imports; the separation with
everything loaded and the queries encoded; the network alone on 10 s of mono in one pass and one thread.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from common import ROOT, run_python, separate_words
from torch.utils.flop_counter import FlopCounterMode

from separation import Separator
from separation.audio import read, write
from separation.evaluate.tables import markdown
from separation.inference.overlap_add import OverlapAdd

SAMPLE_RATE, CHANNELS = 44100, 2
COMMAND_SECONDS, ALONE_SECONDS, PASS_SECONDS, COST_SECONDS = 10, 60, 10, 20
HEADER_BYTES = 1000  # more than a wav file has before its samples
MINUTES = (10.0, 60.0)
QUERIES = (
    "dog barking", "rain", "siren", "a car engine", "church bells", "somebody typing", "footsteps on gravel", "wind",
)  # fmt: skip
TITLES = {
    "import": "`import torch` alone in a new process, s",
    "first": "the command, {} s stereo 44.1 kHz, start to first sample at standard output, s",
    "command": "the command, {} s stereo 44.1 kHz, start to end, s",
    "separation": "the separation alone, {} s stereo 44.1 kHz, s per s of audio",
    "float32": "the network alone, {} s mono in one pass, one thread, float32, s per s of audio",
    "bfloat16": "the network alone, {} s mono in one pass, one thread, bfloat16, s per s of audio",
}
# The peak of a process counts from the size of the process that started it. This one is small.
LAUNCHER = """
import resource, subprocess, sys
status = subprocess.call([sys.executable, *sys.argv[2:]])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)
"""


def write_recording(path: Path, seconds: float) -> None:
    """Write stereo noise at 44.1 kHz as 16-bit wav; the same ten seconds are repeated, so that hours fit in memory."""
    block = 0.1 * np.random.default_rng(0).standard_normal((10 * SAMPLE_RATE, CHANNELS))
    frames = round(seconds * SAMPLE_RATE)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, CHANNELS, "PCM_16") as file:
        for start in range(0, frames, len(block)):
            file.write(block[: frames - start])


# Speed


def time_runs(action: Callable[[], object], repeats: int, seconds: float = 1.0) -> dict[str, Any]:
    """Time repeated runs: best, median and all of them, divided by `seconds`."""
    runs = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        runs.append((time.perf_counter() - began) / seconds)
    return {"best": min(runs), "median": statistics.median(runs), "runs": runs}


def read_first_sample(words: list[str]) -> None:
    """Run `separate` with standard output as its output until samples arrive, then end it."""
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        data = process.stdout.read(HEADER_BYTES)
        process.kill()
    if len(data) < HEADER_BYTES:
        raise RuntimeError("the command ended before its first sample")


def measure_speed(separator: Any, model: str, repeats: int = 3) -> list[dict[str, Any]]:
    """Time the command and the separation on stereo at 44.1 kHz, and the network, with one query and with eight."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path, out = Path(folder) / "mix.wav", Path(folder) / "out"
        write_recording(path, ALONE_SECONDS)
        mixture = read(path)[0].numpy()
        write_recording(path, COMMAND_SECONDS)
        first = separate_words(path, Path("-"), list(QUERIES[:1]), "--device", "cpu", "--model", model)
        for what, action in (
            ("import", partial(run_python, "-c", "import torch")), ("first", partial(read_first_sample, first))
        ):  # fmt: skip
            rows.append({"what": what, "queries": 1, "seconds": COMMAND_SECONDS} | time_runs(action, repeats))
        for queries in (list(QUERIES[:1]), list(QUERIES)):
            words = separate_words(path, out, queries, "--device", "cpu", "--model", model)
            separator(mixture[:, : 5 * SAMPLE_RATE], queries, SAMPLE_RATE)  # the first run sets things up
            for what, seconds, per, action in (
                ("command", COMMAND_SECONDS, 1, partial(run_python, *words)),
                ("separation", ALONE_SECONDS, ALONE_SECONDS, partial(separator, mixture, queries, SAMPLE_RATE)),
            ):
                timing = time_runs(action, repeats, per)
                rows.append({"what": what, "queries": len(queries), "seconds": seconds} | timing)
    return rows + measure_network(model, repeats)


@torch.inference_mode()
def measure_network(model: str, repeats: int) -> list[dict[str, Any]]:
    """Time one pass of the network in one thread, in both precisions, with one query and with eight."""
    rows, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    for precision in ("float32", "bfloat16"):
        network = Separator.from_pretrained(model, "cpu", precision=precision).model
        mixture = 0.1 * torch.randn(
            1, 1, PASS_SECONDS * network.sample_rate, generator=torch.Generator().manual_seed(0)
        )
        for count in (1, len(QUERIES)):
            one_pass = partial(network.separate, mixture, torch.randn(1, count, network.condition_dim))
            with network.autocast(mixture.device):
                one_pass()  # the first run sets things up
                timing = time_runs(one_pass, repeats, PASS_SECONDS)
            rows.append({"what": precision, "queries": count, "seconds": PASS_SECONDS} | timing)
    torch.set_num_threads(threads)
    return rows


def speed_table(rows: list[dict[str, Any]]) -> str:
    """Format the timings."""
    single = {row["what"]: row["best"] for row in rows if row["queries"] == 1}
    cells = [
        (TITLES[what].format(row["seconds"]), row["queries"], *(f"{row[key]:.3g}" for key in ("best", "median")), times)
        for what in TITLES
        for row in rows
        if row["what"] == what and (times := f"{row['best'] / single[what]:.2f}")
    ]
    return markdown(("wall time", "queries", "best", "median", "relative to one query"), cells)


# Many short files

BATCH_FILES, BATCH_SECONDS, BATCH_FORMATS, BATCH_JOBS = 100, 3, ("wav", "mp3"), (1, 2)


def measure_batch(model: str) -> list[dict[str, Any]]:
    """Time the command on many short stereo files, with and without `--jobs`, by the clock and by the processor."""
    rows = []
    for suffix in BATCH_FORMATS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            inputs = Path(folder) / "in"
            inputs.mkdir()
            noise = 0.1 * torch.randn(CHANNELS, BATCH_SECONDS * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
            for number in range(BATCH_FILES):
                write(inputs / f"{number}.{suffix}", noise, SAMPLE_RATE)
            for jobs in BATCH_JOBS:
                out, before = Path(folder) / f"out{jobs}", resource.getrusage(resource.RUSAGE_CHILDREN)
                how = ("--device", "cpu", "--model", model, "--recursive", "--jobs", str(jobs))
                timing = time_runs(partial(run_python, *separate_words(inputs, out, list(QUERIES[:1]), *how)), 1)
                after, written = resource.getrusage(resource.RUSAGE_CHILDREN), len([*out.glob(f"[!.]*.{suffix}")])
                if written != BATCH_FILES:
                    raise RuntimeError(f"{written} of {BATCH_FILES} files were written")
                processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                rows.append({"format": suffix, "jobs": jobs, "seconds": timing["best"], "processor": processor})
    return rows


def batch_table(rows: list[dict[str, Any]]) -> str:
    """Format the times of many short files."""
    cells = [(row["format"], row["jobs"], f"{row['seconds']:.1f}", f"{row['processor']:.1f}") for row in rows]
    title = f"{BATCH_FILES} stereo files of {BATCH_SECONDS} s, one query"
    return markdown((title, "--jobs", "wall time, s", "processor time, s"), cells)


# Memory


def measure_process(*words: str) -> tuple[int, str]:
    """Run this interpreter; return the largest resident memory of it and all it starts, in bytes, and its output.

    Raises:
        RuntimeError: it failed; with its messages.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        report = Path(folder) / "peak"
        output = run_python("-I", "-S", "-c", LAUNCHER, str(report), *words)
        return int(report.read_text(encoding="utf-8")) * (1 if sys.platform == "darwin" else 1024), output


def measure_memory(model: str, minutes: Iterable[float] = MINUTES) -> list[dict[str, Any]]:
    """Measure the command on generated stereo recordings at 44.1 kHz, disk to disk, with one query.

    Recording and output are deleted afterwards.

    Raises:
        RuntimeError: the command failed, or the output is not as long as the input.
        OSError: the disk is too small.
    """
    rows = []
    for length in minutes:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            recording, out = Path(folder) / "long.wav", Path(folder) / "out"
            write_recording(recording, length * 60)
            words = separate_words(recording, out, list(QUERIES[:1]), "--device", "cpu", "--model", model)
            began = time.perf_counter()
            peak, _ = measure_process(*words)
            rows.append({"minutes": length, "peak_bytes": peak, "seconds": time.perf_counter() - began})
            frames, written = (
                soundfile.info(recording).frames,
                [soundfile.info(path).frames for path in out.glob("[!.]*")],
            )
            if written != [frames]:
                raise RuntimeError(f"the input has {frames} samples, the output {written}")
    return rows


def memory_table(rows: list[dict[str, Any]]) -> str:
    """Format the peaks."""
    cells = [(f"{r['minutes']:g} minutes", f"{r['peak_bytes'] / 1e6:.0f} MB", f"{r['seconds']:.0f} s") for r in rows]
    return markdown(("stereo 44.1 kHz, disk to disk", "peak memory", "wall time"), cells)


# Cost


def multiply_adds(separator: Any, queries: int) -> float:
    """Count the network's multiply-adds per second of audio in one segment, without Fourier transforms."""
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
        "overlap": runner.segment / (runner.segment - runner.overlap) if isinstance(runner, OverlapAdd) else 1.0,
        "separator_parameters": sum(p.numel() for p in separator.model.parameters()),
        "encoder_parameters": sum(p.numel() for p in separator.encoder.parameters()),
        "weights_bytes": (directory / "model.safetensors").stat().st_size,
    }


def cost_table(cost: dict[str, Any]) -> str:
    """Format the cost."""
    rows = [
        (f"multiply-adds per s of audio, {n} {'query' if n == '1' else 'queries'}", f"{count / 1e9:.3f} G")
        for n, count in cost["multiply_adds"].items()
    ]
    rows += [
        ("the same in a long recording (segments overlap)", f"x {cost['overlap']:.2f}"),
        ("parameters of the separator", f"{cost['separator_parameters'] / 1e6:.2f} M"),
        ("parameters of the query encoder, without the sentence encoder", f"{cost['encoder_parameters'] / 1e6:.2f} M"),
        ("weights", f"{cost['weights_bytes'] / 1e6:.1f} MB"),
    ]
    return markdown(("cost", ""), rows)
