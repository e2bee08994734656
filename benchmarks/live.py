"""Measures the model for live sound: latency, speed, separation, and the command at the pace of a clock and over hours.

python benchmarks/live.py                                   latency, parameters, seconds per second hop by hop
python benchmarks/live.py --only scores --data FOLDER       SDRi beside small and default, absent queries
python benchmarks/live.py --only pace --seconds 120         the command between pipes at the pace of a clock
python benchmarks/live.py --only memory --hours 1           memory while an hour of sound is pushed
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import list_rows, make_parser, package_environment, run_benchmark, write_json
from tqdm import tqdm

from separation import Separator
from separation.data.fixed_mixtures import render
from separation.evaluate.scoring import Plan, score_mixture
from separation.evaluate.tables import markdown

PARTS = ("speed", "scores", "pace", "memory")
OTHERS = ("small", "default")
PUSHES = ((32000, 1, 1000), (32000, 1, 2000), (48000, 1, 480), (48000, 2, 480))  # rate, channels, samples of a block
BLOCK_SECONDS, SPARE_SECONDS = 0.01, 0.1
SWELL = 0.2  # Hz


def make_sound(seconds: float, rate: int, channels: int, seed: int = 0) -> torch.Tensor:
    """Noise that swells and tones that come and go (channels, time)."""
    t = np.arange(round(seconds * rate)) / rate
    drawn = np.random.default_rng(seed).standard_normal((channels, len(t)))
    tones = np.sin(2 * np.pi * 440 * t) * (np.sin(2 * np.pi * 0.5 * t) > 0)
    return torch.from_numpy(0.05 * drawn * (1 + np.sin(2 * np.pi * SWELL * t)) + 0.1 * tones).float()


def measure_speed(separator: Separator, seconds: float = 10.0) -> list[dict[str, Any]]:
    """Push blocks one by one in one thread; the best of three passes."""
    torch.set_num_threads(1)
    rows = []
    for rate, channels, block in PUSHES:
        wave, times = make_sound(seconds, rate, channels), []
        stream = separator.stream("dog barking", rate)
        for _ in range(3):
            stream.reset()
            began, clock = time.process_time(), time.perf_counter()
            for piece in wave.split(block, dim=1):
                stream.push(piece)
            times.append((time.process_time() - began, time.perf_counter() - clock))
        processor, wall = (min(each) / seconds for each in zip(*times, strict=True))
        rows.append({"rate": rate, "channels": channels, "block": block, "processor": processor, "wall": wall,
                     "latency": stream.latency})  # fmt: skip
    return rows


def measure_scores(names: list[str], options: Any) -> dict[str, dict[str, float]]:
    """SDRi of the two-source rows by label and by phrase, and the median attenuation of absent queries, in dB."""
    results: dict[str, dict[str, float]] = {}
    for name in names:
        separator, values = Separator.from_pretrained(name, device="cpu"), {}
        for kind, column in (("pair", "query"), ("pair", "phrase"), ("absent", "query")):
            rows, root = list_rows(options, kind)
            scores = [
                score_mixture(separator, render(row, root), Plan(column)).value
                for row in tqdm(rows, f"{name}, {kind}, {column}", disable=None)
            ]
            values[f"{kind} {column}"] = float(np.median(scores) if kind == "absent" else np.mean(scores))
            values[f"{kind} rows"] = len(rows)
        results[name] = values
    return results


def measure_pace(model: str, seconds: float, rate: int = 48000, channels: int = 1) -> dict[str, float]:
    """Run the command between pipes at the pace of a clock, as a sound card would.

    A block is late if it has not come out when a speaker would need it that starts `SPARE_SECONDS` and the latency
    after the first sample went in. The first second, in which the model is loaded, is not sent before that.
    """
    size, kind = round(BLOCK_SECONDS * rate), np.dtype("<f4").itemsize * channels
    data = make_sound(seconds, rate, channels).numpy().T.astype("<f4").tobytes()
    words = ["-m", "separation.cli", "--live", "--raw", "f32le", "--rate", str(rate), "--channels", str(channels),
             "--query", "dog barking", "--model", model, "--threads", "1", "-q"]  # fmt: skip
    pipes: Any = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, *words], **pipes, env=package_environment())
    assert process.stdin and process.stdout
    arrived: list[tuple[float, int]] = []

    def collect() -> None:
        total = 0
        while part := os.read(process.stdout.fileno(), 1 << 16):  # type: ignore[union-attr]
            total += len(part) // kind
            arrived.append((time.perf_counter(), total))

    thread = threading.Thread(target=collect)
    thread.start()
    first = round(rate * 1.0) * kind  # until it comes out, the model is loaded
    os.write(process.stdin.fileno(), data[:first])
    while not arrived:
        time.sleep(0.01)
    time.sleep(1.0)
    began = time.perf_counter() - 1.0
    for start in range(first, len(data), size * kind):
        time.sleep(max(0.0, began + (start + size * kind) / kind / rate - time.perf_counter()))
        process.stdin.write(data[start : start + size * kind])
        process.stdin.flush()
    process.stdin.close()
    thread.join()
    latency = Separator.from_pretrained(model, device="cpu").stream("dog barking", rate).latency
    done = arrived[-1][1]
    times, totals = (np.array(each) for each in zip(*arrived, strict=True))
    needed = np.arange(rate + size, done, size)  # samples that must be out
    out = times[np.searchsorted(totals, needed)] - (began + needed / rate)  # seconds after they went in
    return {"seconds": seconds, "samples_in": len(data) // kind, "samples_out": done, "latency": latency,
            "late": int((out > latency + SPARE_SECONDS).sum()), "blocks": len(needed),
            "median": float(np.median(out)), "most": float(out.max())}  # fmt: skip


def measure_memory(separator: Separator, hours: float, rate: int = 48000) -> list[dict[str, float]]:
    """Resident memory after each twelfth of the time; sound is pushed two seconds at a time."""
    torch.set_num_threads(1)
    stream, rows, wave = separator.stream("dog barking", rate), [], make_sound(10.0, rate, 1)
    pushes = round(hours * 1800)
    for number in tqdm(range(pushes), disable=None):
        stream.push(wave.roll(number * 777, 1)[:, : 2 * rate])
        if (number + 1) % max(1, pushes // 12) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            rows.append(
                {"minutes": (number + 1) / 30, "resident": pages * resource.getpagesize() / 1e6, "peak": peak / 1e3}
            )
    return rows


def main() -> None:
    """Run the command."""
    parser = make_parser(__doc__, mixtures=True)
    parser.set_defaults(model="live")
    parser.add_argument("--only", default="speed", help=f"parts, with commas: {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=120.0, help="of the test at the pace of a clock")
    parser.add_argument("--hours", type=float, default=1.0, help="of sound in the test of memory")
    parser.add_argument("--others", nargs="*", default=list(OTHERS), help="models that are scored beside it")
    options, report = parser.parse_args(), {}
    separator = Separator.from_pretrained(options.model, device="cpu")
    for part in options.only.split(","):
        if part == "speed":
            report[part] = rows = measure_speed(separator)
            size = sum(parameter.numel() for parameter in separator.model.parameters())
            print(f"{options.model}: {size / 1e6:.2f} M parameters, latency {1000 * rows[0]['latency']:.1f} ms\n")
            cells = [(f"{r['rate']} Hz, {r['channels']} ch, {r['block']} samples", f"{r['processor']:.3f}",
                      f"{r['wall']:.3f}", f"{1000 * r['latency']:.1f}") for r in rows]  # fmt: skip
            print(markdown(("pushed", "processor s / s", "wall s / s", "latency, ms"), cells))
        elif part == "scores":
            report[part] = scores = measure_scores([options.model, *options.others], options)
            cells = [(name, f"{v['pair query']:.2f}", f"{v['pair phrase']:.2f}", f"{v['absent query']:.1f}")
                     for name, v in scores.items()]  # fmt: skip
            print(markdown(("model", "two sources, by label, dB", "by phrase", "absent, median attenuation"), cells))
        elif part == "pace":
            report[part] = found = measure_pace(options.model, options.seconds)
            text = "{seconds:.0f} s at real-time pace: {late} of {blocks} blocks late; {median:.3f} s from in to out, "
            text += "{most:.3f} at most; {samples_in} samples in, {samples_out} out"
            print(text.format(**found))
        elif part == "memory":
            report[part] = rows = measure_memory(separator, options.hours)
            cells = [(f"{r['minutes']:.0f}", f"{r['resident']:.0f}", f"{r['peak']:.0f}") for r in rows]
            print(markdown(("minutes of sound", "resident memory, MB", "peak"), cells))
        else:
            parser.error(f"unknown part {part}")
    write_json(options.json, report)


if __name__ == "__main__":
    run_benchmark(main)
