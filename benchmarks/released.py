"""Measures the published separators at full size: tensors, deviation from the published outputs, speed and memory.

    SEPARATION_PARITY=FOLDER python benchmarks/released.py                      # every system
    SEPARATION_PARITY=FOLDER python benchmarks/released.py --seconds 60 audiosep

Weights are those of the parity fixtures (random, of the published sizes), in a checkpoint file with the published
names. Each system is measured in a process of its own, on stereo noise at its own rate; peak memory is that of the
whole process.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, make_parser, run_benchmark, write_json

from separation import Separator
from separation.evaluate.tables import markdown
from separation.models.bimodal_unet import pack

sys.path.append(str(ROOT / "tests" / "parity"))

SYSTEMS = {  # group of fixtures, states, case with published outputs
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
    """Write a checkpoint with the weights of a system's fixture and published names; return its number of tensors."""
    from fixtures import clipsep_state, meta, resunet_state

    group, states, case = SYSTEMS[name]
    if group == "uss":
        seed = meta("uss", case)["seed"] if case else 1
        state = {f"ss_model.{key}": value for key, value in resunet_state(states, seed).items()}
    else:
        state = clipsep_state(states)
    torch.save({"state_dict": state}, file)
    return len(state)


def deviation(name: str, separator: Any) -> float | None:
    """Return the largest absolute difference to the published waveforms; None where there is no fixture."""
    from fixtures import arrays, largest

    group, _, case = SYSTEMS[name]
    if not case:
        return None
    expected = arrays(group, case)
    if group == "uss":
        return largest(separator.model(expected["mixture"], expected["condition"]), expected["output"])
    if name != "bimodal":
        return largest(separator.model(expected["waveform"][None, None], expected["query"])[0, 0], expected["wav_soft"])
    rng = np.random.default_rng(int(expected["hidden_seed"]))
    hidden = torch.from_numpy(rng.standard_normal((1, 2, 77, 768)).astype(np.float32))[0]
    conditions = pack(expected["text_embed"], hidden)[None]
    waves = separator.model.separate(expected["mix"][None, None], conditions).targets
    return largest(waves[0, :, 0], expected["pred_wavs"])


def measure(name: str, file: Path, seconds: float) -> dict[str, Any]:
    """Measure one system in this process."""
    separator = Separator.from_pretrained(file, device="cpu")
    rate = separator.sample_rate
    generator = torch.Generator().manual_seed(0)
    mixture = torch.randn(2, round(seconds * rate), generator=generator) / 10
    condition = torch.rand(separator.model.condition_dim, generator=generator)
    began = time.process_time()  # of all threads, whatever else the machine does meanwhile
    separator(mixture, condition, rate)
    return {
        "model": name,
        "loaded": len(separator.model.state_dict()),
        "parameters": sum(p.numel() for p in separator.model.parameters()),
        "time_factor": (time.process_time() - began) / seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "deviation": deviation(name, separator),
    }


def run_alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("names", nargs="*", default=list(SYSTEMS), metavar="NAME", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="of stereo audio")
    options = parser.parse_args()
    if not os.environ.get("SEPARATION_PARITY"):
        parser.error("SEPARATION_PARITY must name the folder with the parity fixtures")
    results, cells = [], []
    for name in options.names:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.ckpt"
            tensors = run_alone(write_checkpoint, name, file)
            result = run_alone(measure, name, file, options.seconds) | {"tensors": tensors}
        results.append(result)
        difference = "no fixture" if result["deviation"] is None else f"{result['deviation']:.1e}"
        loaded, parameters = f"{result['loaded']} of {tensors}", f"{result['parameters'] / 1e6:.1f} M"
        peak = f"{result['peak_bytes'] / 1e9:.2f} GB"
        cells.append((name, loaded, parameters, difference, f"{result['time_factor']:.2f}", peak))
    print(markdown(COLUMNS, cells))
    write_json(options.json, results)


if __name__ == "__main__":
    run_benchmark(main)
