"""The released separators at full size: tensors, deviation from the published outputs, speed and memory, as a table.

    SEPARATION_PARITY=FOLDER python benchmarks/released.py                      # every system
    SEPARATION_PARITY=FOLDER python benchmarks/released.py --seconds 60 audiosep

Weights are those of the parity fixtures (random, of the published sizes), in a checkpoint file with the published
names, loaded as anybody's file is. Each system is measured in a process of its own, on stereo noise at its own rate;
peak memory is that process's, everything included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests" / "parity")]

SYSTEMS = {
    "audiosep": ("uss", "audiosep", "audiosep_resunet30_A"),
    "dcase2024": ("uss", "audiosep_dcase2024_16k", ""),
    "uss": ("uss", "uss_at_soft_527", "uss_resunet30_at527_A"),
    "uss-embedding": ("uss", "uss_embedding_2048", "uss_resunet30_emb2048_A"),
    "clipsep": ("clipsep", "clipsep", "clipsep_A"),
    "clipsep-nit": ("clipsep", "clipsep_nit", "clipsep_nit_A"),
    "labelsep": ("clipsep", "labelsep_309", ""),
    "bimodal": ("clipsep", "bimodal", "bimodal_A"),
}
COLUMNS = ("model", "tensors", "parameters", "largest deviation", "CPU seconds per second of stereo", "peak memory")


def write_checkpoint(name: str, file: Path) -> int:
    """A checkpoint of a system with its fixture's weights and released prefixes; returns its number of tensors."""
    import torch
    from fixtures import clipsep_state, meta, resunet_state

    part, states, case = SYSTEMS[name]
    if part == "uss":
        seed = meta("uss", case)["seed"] if case else 1
        state = {f"ss_model.{key}": value for key, value in resunet_state(states, seed).items()}
    else:
        state = clipsep_state(states)
    torch.save({"state_dict": state}, file)
    return len(state)


def deviation(name: str, separator: Any) -> float | None:
    """The largest absolute difference to the published waveforms; None where there is no fixture."""
    import numpy as np
    import torch
    from fixtures import arrays, largest

    from separation.models.bimodal_unet import pack

    part, _, case = SYSTEMS[name]
    if not case:
        return None
    expected = arrays(part, case)
    if part == "uss":
        return largest(separator.model(expected["mixture"], expected["condition"]), expected["output"])
    if name != "bimodal":
        return largest(separator.model(expected["waveform"][None, None], expected["query"])[0, 0], expected["wav_soft"])
    random = np.random.default_rng(int(expected["hidden_seed"]))
    hidden = torch.from_numpy(random.standard_normal((1, 2, 77, 768)).astype(np.float32))[0]
    conditions = pack(expected["text_embed"], hidden)[None]
    waves, _ = separator.model.separate(expected["mix"][None, None], conditions)
    return largest(waves[0, :, 0], expected["pred_wavs"])


def peak_bytes() -> int:
    """The most memory this process has held."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(name: str, file: Path, seconds: float) -> dict[str, Any]:
    """One system, in this process."""
    import torch

    from separation import Separator

    separator = Separator.from_pretrained(file, device="cpu")
    rate = separator.sample_rate
    generator = torch.Generator().manual_seed(0)
    mixture = torch.randn(2, round(seconds * rate), generator=generator) / 10
    condition = torch.rand(separator.model.condition_dim, generator=generator)
    begin = time.process_time()  # all threads' work, whatever else the machine does meanwhile
    separator(mixture, condition, rate)
    taken, peak = time.process_time() - begin, peak_bytes()
    return {
        "model": name,
        "loaded": len(separator.model.state_dict()),
        "parameters": sum(p.numel() for p in separator.model.parameters()),
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "time_factor": taken / seconds,
        "peak_bytes": peak,
        "deviation": deviation(name, separator),
    }


def row(result: dict[str, Any]) -> tuple[str, ...]:
    """A result as the table shows it."""
    far = "no fixture" if result["deviation"] is None else f"{result['deviation']:.1e}"
    return (
        result["model"],
        f"{result['loaded']} of {result['tensors']}",
        f"{result['parameters'] / 1e6:.1f} M",
        far,
        f"{result['time_factor']:.2f}",
        f"{result['peak_bytes'] / 1e9:.2f} GB",
    )


def run(name: str, seconds: float) -> dict[str, Any]:
    """Measures one system in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.ckpt"
        command = [sys.executable, __file__, "--seconds", str(seconds), name]
        write = subprocess.run([*command, "--write", str(file)], check=True, capture_output=True, text=True)
        done = subprocess.run([*command, "--measure", str(file)], check=True, capture_output=True, text=True)
    return {**json.loads(done.stdout), "tensors": int(write.stdout)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measures the released separators at full size.")
    parser.add_argument("names", nargs="*", default=list(SYSTEMS), metavar="NAME", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="of stereo audio")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not os.environ.get("SEPARATION_PARITY"):
        parser.error("SEPARATION_PARITY names the folder with the fixtures and their weights' rule")
    if options.write:
        print(write_checkpoint(options.names[0], options.write))
        return
    if options.measure:
        print(json.dumps(measure(options.names[0], options.measure, options.seconds)))
        return
    results = []
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for name in options.names:
        results.append(run(name, options.seconds))
        print(f"| {' | '.join(row(results[-1]))} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
