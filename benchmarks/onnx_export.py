"""Size, speed and loss of the ONNX exports of a model, against the package in single precision.

    python benchmarks/onnx_export.py --data FOLDER

Rows of two sources are separated by `demos/onnx_separate.py` and by the package. Speed is the network's on 10 s of mono
in one thread, median of five.
"""

from __future__ import annotations

import sys
import tempfile
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import soundfile
import torch
from common import ROOT, list_rows, make_parser, run_benchmark, write_json
from performance import time_runs

from separation import Separator
from separation.data.fixed_mixtures import render
from separation.evaluate.metrics import sdr
from separation.evaluate.tables import markdown
from separation.onnx.export import PRECISIONS, export

sys.path.insert(0, str(ROOT / "demos"))
import onnx_separate

onnxruntime = onnx_separate.onnxruntime
ROWS, SECONDS, TIMES = 40, 10, 5


@cache
def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Load an ONNX file once, for one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = make_parser(__doc__, mixtures=True, every=7)
    options = parser.parse_args(argv)
    rows, root = list_rows(options, "pair")
    torch.set_num_threads(1)
    separator = Separator.from_pretrained(options.model, device="cpu", precision="float32")
    rendered = [(row["query"], render(row, root)) for row in rows[:ROWS]]
    targets, presences = [], []
    for query, each in rendered:
        result = separator(each.mixture, query, sample_rate=each.sample_rate)
        targets.append(result.target[0].numpy())
        presences.append(result.presence)
    gains = [sdr(e.target, t) - sdr(e.target, e.mixture) for t, (_, e) in zip(targets, rendered, strict=True)]
    wave = 0.1 * torch.randn(1, SECONDS * separator.sample_rate)
    condition = separator.conditions([rendered[0][0]])
    with torch.inference_mode():
        pace = time_runs(lambda: separator.model.separate(wave[None], condition[None]), TIMES, SECONDS)["median"]
    weights = sum(each.numel() * 4 for each in separator.model.parameters()) / 1e6
    table = [("torch float32", f"{weights:.1f}", "", f"{pace:.3f}", "", "", f"{np.mean(gains):.2f}")]
    # Each row would load the files again.
    onnx_separate.onnxruntime = SimpleNamespace(InferenceSession=lambda path, providers: open_session(path))
    with tempfile.TemporaryDirectory() as place:
        mix, *outputs = (Path(place) / f"{name}.wav" for name in ("mix", "target", "residual"))
        for precision in PRECISIONS:
            folder, found, differences, presence = Path(place) / precision, [], [], 0.0
            export(options.model, folder, precision=precision)
            for (query, each), target, expected in zip(rendered, targets, presences, strict=True):
                soundfile.write(mix, each.mixture, each.sample_rate, "FLOAT")
                presence = max(presence, abs(onnx_separate.separate(folder, mix, query, *outputs) - expected))
                estimate = soundfile.read(outputs[0], dtype="float32")[0]
                found.append(sdr(each.target, estimate) - sdr(each.target, each.mixture))
                differences.append(np.abs(estimate - target).max() / np.abs(target).max())
            given = {"mixture": wave.numpy(), "condition": condition.numpy()}
            session = open_session(folder / "separator.onnx")
            pace = time_runs(partial(session.run, None, given), TIMES, SECONDS)["median"]
            sizes = [f"{(folder / name).stat().st_size / 1e6:.1f}" for name in ("separator.onnx", "text.onnx")]
            loss = np.mean(found) - np.mean(gains)
            figures = f"{max(differences):.1e}", f"{presence:.1e}", f"{np.mean(found):.2f} ({loss:+.3f})"
            table.append((f"ONNX {precision}", *sizes, f"{pace:.3f}", *figures))
            open_session.cache_clear()
    head = [f"model {options.model}", "network, MB", "text side, MB", "s per s", "largest difference, of full scale"]
    head += ["largest difference of presence", f"SDRi, dB, {len(rendered)} rows"]
    print(markdown(head, table))
    write_json(options.json, [dict(zip(head, row, strict=True)) for row in table])


if __name__ == "__main__":
    run_benchmark(main)
