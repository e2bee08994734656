"""Cost of this package's models beside published separators, in their published inference.

    python benchmarks/peers.py --json peers.json --picture peers.png
    python benchmarks/peers.py --seconds 10 60 --repeats 3 default audiosep

Each system separates noise by one query in one thread, in a process of its own for each length, which also counts its
multiply-adds (without Fourier transforms) in a first run that is not timed. Times are processor seconds, which other
programs on the machine hardly change. Published networks have random weights: cost does not depend on them. A length
that takes more than --limit processor seconds a run or --memory GB is not measured, and longer ones are not tried.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench import describe_machine
from common import make_parser, run_benchmark, write_json
from performance import measure_process
from torch.utils.flop_counter import FlopCounterMode

from separation import Query, Separator, list_models
from separation.evaluate.tables import markdown
from separation.pretrained import WEIGHTS

SECONDS = (10.0, 60.0, 600.0)
PEERS = {  # what it is; quality in dB, and what that is
    "audiosep": ("ResUNet30 of AudioSep", 8.22, "SDRi, AudioCaps, published"),
    "clipsep": ("U-Net of CLIPSep", 11.03, "SDR of CLIPSep-NIT, MUSIC+, in a later paper"),
    "htdemucs": ("Hybrid Transformer Demucs, four stems", 9.00, "SDR, MUSDB-HQ, its README"),
}


def own_models() -> dict[str, tuple[str, float, str]]:
    """Return the models of this package, as in `PEERS`; quality is the SDRi on their cards, NaN without one."""
    models = {}
    for card in list_models():
        if (WEIGHTS / card.name).is_dir():
            found = re.search(r"SDRi ([\d.]+) dB(.*)", card.scores)
            models[card.name] = (card.description, float(found[1]) if found else float("nan"), "SDRi, own mixtures")
    return models


def load(name: str) -> tuple[Any, int, int, Callable[[torch.Tensor], object]]:
    """Return a network, its sample rate, the channels that it processes together, and its inference."""
    if name == "htdemucs":
        from demucs.apply import apply_model
        from demucs.htdemucs import HTDemucs

        # The arguments of the published model that differ from the defaults.
        network = HTDemucs(["drums", "bass", "other", "vocals"], bottom_channels=512, segment=39 / 5).eval()
        return network, 44100, 2, lambda wave: apply_model(network, wave[None], shifts=1, split=True, overlap=0.25)
    if name in PEERS:
        from separation.encoders.base import QueryEncoder
        from separation.models.clipsep_unet import CLIPSepUNet
        from separation.models.resunet import ResUNet30

        published: Any = ResUNet30(512, faithful=True) if name == "audiosep" else CLIPSepUNet(faithful=True)
        separator = Separator(published.eval().requires_grad_(False), QueryEncoder(), name, "cpu")
    else:
        separator = Separator.from_pretrained(name, "cpu")
    rate, dim = separator.sample_rate, separator.model.condition_dim
    query = Query(embedding=torch.nn.functional.normalize(torch.randn(dim), dim=0))
    return separator.model, rate, 1, lambda wave: separator(wave, query, rate)


def measure(name: str, seconds: float, repeats: int, limit: float, memory: float) -> dict[str, Any]:
    """Measure one system on one length in this process, which ends early with the reason as its output."""

    def stop(*_: Any) -> None:
        print(json.dumps({"why": f"more than {limit:g} s"}), flush=True)
        raise SystemExit

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, rate, channels, separate = load(name)
    wave = 0.1 * torch.randn(channels, round(seconds * rate))
    resource.setrlimit(resource.RLIMIT_DATA, (round(memory * 1e9), resource.RLIM_INFINITY))
    signal.signal(signal.SIGPROF, stop)
    runs = []
    try:
        for number in range(repeats + 1):
            signal.setitimer(signal.ITIMER_PROF, limit)
            began = time.process_time()
            if number == 0:
                with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                    separate(wave)
            else:
                separate(wave)
                runs.append((time.process_time() - began) / seconds)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error) and not isinstance(error, MemoryError):
            raise
        return {"why": f"more than {memory:g} GB"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply_adds": counter.get_total_flops() / 2 / seconds,
        "median": statistics.median(runs),
        "runs": runs,
    }


def measure_all(names: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure each system on each length, as rows; rows that were not measured say why."""
    rows = []
    for name in names:
        why = ""
        if name == "htdemucs" and importlib.util.find_spec("demucs") is None:
            why = "the package demucs is not installed"
        for seconds in sorted(options.seconds):
            row: dict[str, Any] = {"model": name, "seconds": seconds}
            if not why:
                repeats = options.repeats if seconds < 300 else options.long_repeats
                words = [str(seconds), str(repeats), str(options.limit), str(options.memory)]
                peak, output = measure_process(__file__, "--alone", name, *words)
                row |= {"peak_bytes": peak} | json.loads(output.splitlines()[-1])
                why = row.get("why", "")
            rows.append(row | ({"why": why} if why else {}))
            print(f"{name}, {seconds:g} s: {why or 'measured'}", file=sys.stderr, flush=True)
    return rows


def peers_table(rows: list[dict[str, Any]], base: str) -> str:
    """Format the costs; ratios are to those of the model `base` at the same length."""
    reference = {row["seconds"]: row for row in rows if row["model"] == base and "why" not in row}
    cells = []
    for row in rows:
        if "why" in row:
            cells.append((row["model"], f"{row['seconds']:g}", f"not measured: {row['why']}", *[""] * 4))
            continue
        other = reference.get(row["seconds"])
        ratio = lambda key: f" ({row[key] / other[key]:.2g})" if other else ""  # noqa: B023, E731
        cells.append((
            row["model"],
            f"{row['seconds']:g}",
            f"{row['median']:.3f}{ratio('median')}",
            f"{min(row['runs']):.3f} to {max(row['runs']):.3f}",
            f"{row['peak_bytes'] / 1e6:.0f}{ratio('peak_bytes')}",
            f"{row['parameters'] / 1e6:.1f}{ratio('parameters')}",
            f"{row['multiply_adds'] / 1e9:.2f}{ratio('multiply_adds')}",
        ))  # fmt: skip
    heads = ("processor s per s", "fastest to slowest", "peak memory, MB", "parameters, M", "G multiply-adds per s")
    return markdown(("model", "s of audio", *heads), cells)


def draw(rows: list[dict[str, Any]], systems: dict[str, tuple[str, float, str]], file: Path) -> None:
    """Draw quality against cost at the shortest length that was measured; the test sets differ, as the labels say."""
    from matplotlib.figure import Figure

    axes = (figure := Figure((8, 5), layout="constrained")).add_subplot(
        xscale="log", xlabel="G multiply-adds per second of audio", ylabel="quality, dB, each on its own test set"
    )
    for name, (_, quality, source) in systems.items():
        row = next((row for row in rows if row["model"] == name and "why" not in row), None)
        if row and quality == quality:
            axes.plot(row["multiply_adds"] / 1e9, quality, "o")
            axes.annotate(
                f"{name}\n{source}", (row["multiply_adds"] / 1e9, quality), (5, 5), textcoords="offset points", size=8
            )
    axes.margins(0.45, 0.2)
    figure.savefig(file)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    systems = {**own_models(), **PEERS}
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("names", nargs="*", default=list(systems), metavar="NAME", help=f"of {', '.join(systems)}")
    add("--seconds", type=float, nargs="+", default=list(SECONDS), help="lengths (default: 10 60 600)")
    add("--repeats", type=int, default=5, help="timed runs of each length (default 5)")
    add("--long-repeats", type=int, default=1, help="the same from 5 minutes on (default 1)")
    add("--limit", type=float, default=900, help="processor seconds of one run (default 900)")
    add("--memory", type=float, default=8, help="GB of one process (default 8)")
    add("--picture", type=Path, metavar="FILE", help="draw quality against cost")
    add("--alone", nargs=5, metavar="ARG", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.alone:
        name, seconds, repeats, limit, memory = options.alone
        print(json.dumps(measure(name, float(seconds), int(repeats), float(limit), float(memory))))
        return 0
    if unknown := [name for name in options.names if name not in systems]:
        parser.error(f"unknown model {unknown[0]}; there are {', '.join(systems)}")
    machine = describe_machine()
    rows = measure_all(options.names, options)
    print(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in machine.items()))
    print(f"\nIn brackets, ratios to {options.names[0]}.\n\n{peers_table(rows, options.names[0])}")
    skipped = {row["model"]: row["why"] for row in rows if "why" in row}
    for name, why in skipped.items():
        print(f"\nSkipped, in part or whole ({len(skipped)}): {name}: {why}.")
    if options.picture:
        draw(rows, systems, options.picture)
    write_json(options.json, {"machine": machine, "rows": rows})
    return 0


if __name__ == "__main__":
    run_benchmark(main)
