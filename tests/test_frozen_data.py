"""Training batches that must not change: projections of the first batches of every data module.

`FREEZE=1 pytest tests/test_frozen_data.py` writes `tests/frozen/data.json` anew from the code as it is.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import vectors, write_manifest

pytest.importorskip("lightning", reason="needs the extra [train]")

from separation.data.captioned import CaptionedData
from separation.data.datamodule import ClipData, MixtureData
from separation.data.gains import EnergyGains
from separation.data.manifest import read_manifest
from separation.data.pictures import draw_picture
from separation.data.queried import QueriedData
from separation.data.streaming import write_shards
from separation.data.tagged import TaggedData
from separation.data.validation import draw_rows

RATE, LABELS = 8000, ("rain", "dog bark", "bell", "engine")
FROZEN = Path(__file__).parent / "frozen" / "data.json"
COMMON = {"sample_rate": RATE, "seconds": 0.5, "batch_size": 3, "batches": 2, "seed": 5, "validation_count": 0}


def write_recordings(folder):
    """Noises and tones with pauses, of several lengths, rates and channels, some of them parts of a longer file."""
    rng, rows = np.random.default_rng(0), []
    for number in range(12):
        rate = (8000, 16000, 11025)[number % 3]
        seconds = (0.3, 0.9, 2.5, 1.4)[number % 4]
        time = np.arange(round(seconds * rate)) / rate
        wave = 0.2 * np.sin(2 * np.pi * 200 * 1.3**number * time) + 0.05 * rng.standard_normal(len(time))
        wave *= (np.sin(2 * np.pi * 0.7 * time + number) > 0.3) * (0.2 + 0.1 * number)
        wave[:200] += 0.1
        soundfile.write(folder / f"{number}.wav", wave if number % 2 else np.stack([wave, 0.5 * wave], 1), rate)
        label = LABELS[number % 4]
        draw_picture(label, number, 16).save(folder / f"{number}.png")
        part = {"start": 0.2345678, "seconds": 1.7654321} if seconds == 2.5 else {"start": "", "seconds": ""}
        row = {"path": f"{number}.wav", "split": "train", "recording_id": f"r{number // 2 if number > 7 else number}"}
        caption = f"A {label} and sound {number}, then wind | Sound {number} goes on"
        rows.append(row | part | {"labels": f"{label};{label} {number}", "caption": caption, "frame": f"{number}.png"})
    rows += [
        row | {"split": "validation", "path": f"v{row['path']}", "recording_id": f"v{n}"} for n, row in enumerate(rows)
    ]
    columns = ["path", "split", "recording_id", "labels", "caption", "frame", "start", "seconds"]
    return write_manifest(folder / "manifest.csv", rows, columns)


def modules(manifest, shards):
    """Every kind of data module, with the settings that change how it draws."""
    common = COMMON | {"manifest": manifest}
    queried = {"distinct": False, "short": "pad", "text": "caption", "gains": EnergyGains(), "asked": 1}
    streamed = COMMON | {"shards": str(shards), "buffer": 3}
    return {
        "mixture": MixtureData(**common, balance=0.75),
        "clip": ClipData(**common),
        "queried": QueriedData(**common, text="any"),
        "queried energy": QueriedData(**common | queried, balance=1.0),
        "queried polluted": QueriedData(**common, sources=3, short="place", polluted=0.5),
        "pictures": QueriedData(**common, frames=3, margin=3),
        "captioned": CaptionedData(**common, slots=3, as_recorded=True),
        "captioned made": CaptionedData(**common, sources=2, made=20, isolated_manifest=manifest, isolated=2),
        "tagged": TaggedData(**common, labels=list(LABELS[::-1]), as_recorded=True),
        "tagged own": TaggedData(**common),
        "streamed": QueriedData(**streamed, held=4),
        "streamed tagged": TaggedData(**streamed, labels=list(LABELS), held=4),
    }


def projected(value):
    """A value as a few numbers (tensors) or its texts."""
    if isinstance(value, torch.Tensor):
        flat = value.double().flatten()
        weights = torch.cos(torch.arange(len(flat), dtype=torch.float64) ** 1.1)
        return [*value.shape, float(flat.abs().sum()), float(flat @ weights)]
    if isinstance(value, list | tuple):
        return [projected(each) for each in value]
    if isinstance(value, Path):
        return value.name
    return {k: projected(v) for k, v in vars(value).items()} if hasattr(value, "__dict__") else value


def record(folder, patch):
    """What all data modules draw from recordings that are written into `folder`."""
    patch.setattr("separation.data.texts.SentenceEncoder.encode_text", lambda self, texts: vectors(texts, 384))
    manifest = write_recordings(folder)
    write_shards(manifest, folder / "shards", shards=1, sample_rate=RATE)
    found = {}
    for name, module in modules(manifest, folder / "shards").items():
        module.setup("fit")
        module.position = lambda: (1, 0)
        found[name] = [projected(batch) for batch in list(module.train_dataloader())[:2]]
    found["rows"] = draw_rows(read_manifest(manifest, "validation"), 4, seed=3, absent=0.5, root=folder)
    return json.loads(json.dumps(found))


def differing(found, wanted, where=""):
    """Where two records differ by more than 1e-5."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        names = sorted(wanted.keys() | found.keys())
        return [line for name in names for line in differing(found.get(name), wanted.get(name), f"{where}/{name}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = enumerate(zip(found, wanted, strict=True))
        return [line for number, (one, other) in pairs for line in differing(one, other, f"{where}/{number}")]
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        return [] if abs(found - wanted) <= 1e-5 * max(1.0, abs(wanted)) else [f"{where}: {found}, not {wanted}"]
    return [] if found == wanted else [f"{where}: {found}, not {wanted}"]


def test_every_data_module_draws_the_batches_that_it_always_has(tmp_path, monkeypatch):
    pytest.importorskip("webdataset", reason="needs the extra shards")
    found = record(tmp_path, monkeypatch)
    if os.environ.get("FREEZE"):
        FROZEN.write_text(json.dumps(found, ensure_ascii=False, indent=None) + "\n", encoding="utf-8")
    assert differing(found, json.loads(FROZEN.read_text(encoding="utf-8"))) == []
