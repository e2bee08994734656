"""Cnn14 against outputs of the published code, through files with the published names.

Set SEPARATION_PARITY to the folder with the fixtures (`uss/fixtures/cnn14_*.npz`, `uss/fill_weights.py`).
"""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from separation.encoders.panns import COMPUTED, PannsEncoder, ReleasedDetector

PARITY = os.environ.get("SEPARATION_PARITY")
pytestmark = pytest.mark.skipif(not PARITY, reason="SEPARATION_PARITY is not set: no fixtures to compare with")
ROOT = Path(PARITY or ".") / "uss"


@pytest.fixture(scope="module")
def tensors():
    """Weights by the fixtures' rule; the three networks share names, shapes and seed."""
    spec = importlib.util.spec_from_file_location("fill_weights", ROOT / "fill_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shapes = json.loads((ROOT / "state_dicts/cnn14_32k.json").read_text())["tensors"]
    seed = json.loads(str(np.load(ROOT / "fixtures/cnn14_32k_A.npz")["meta"]))["seed"]
    filled = {name: module.fill(name, tuple(entry["shape"]), seed) for name, entry in shapes.items()}
    return {name: torch.from_numpy(np.asarray(value)) for name, value in filled.items() if value is not None}


def checkpoint(folder: Path, tensors: dict, name: str, prefix: str = "") -> Path:
    """A file as published, but with zeros for the kernels that must not be read."""
    shapes = json.loads((ROOT / f"state_dicts/{name}.json").read_text())["tensors"]
    kernels = {k: torch.zeros(v["shape"]) for k, v in shapes.items() if COMPUTED.match(k) and k not in tensors}
    state = {prefix + k: v for k, v in {**tensors, **kernels}.items()}
    assert len(state) == 84
    file = folder / f"{name}.pth"
    torch.save({"state_dict": state} if prefix else {"model": state, "iteration": 7}, file)
    return file


def largest(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return float((ours - torch.from_numpy(theirs)).abs().max())


@pytest.mark.parametrize(
    ("fixture", "name", "prefix"), [("32k", "cnn14_32k", ""), ("16k", "cnn14_16k", "query_net.base.")]
)
def test_tagger_and_embedding(tmp_path, tensors, fixture, name, prefix, record_property):
    expected = np.load(ROOT / f"fixtures/cnn14_{fixture}_A.npz")
    encoder = PannsEncoder.from_file(checkpoint(tmp_path, tensors, name, prefix))
    waveform = torch.from_numpy(expected["waveform"])
    tags = encoder.tag(waveform)
    differences = (
        largest(tags.probabilities, expected["clipwise_output"]),
        largest(tags.embedding, expected["embedding"]),
    )
    record_property("differences", differences)
    print(fixture, differences)
    assert differences[0] < 1e-5
    assert differences[1] < 1e-4
    assert torch.equal(encoder.encode_audio(waveform, encoder.sample_rate), tags.probabilities)  # one segment of 2 s
    probe = expected["probe/logmel_extractor/index"], expected["probe/logmel_extractor/value"]
    assert largest(encoder.network.log_mel(waveform).flatten()[probe[0]], probe[1]) < 1e-3


def test_detector(tmp_path, tensors, record_property):
    expected = np.load(ROOT / "fixtures/cnn14_dlmax_A.npz")
    prefix = "anchor_segment_detector.sed_model."
    detector = ReleasedDetector(checkpoint(tmp_path, tensors, "cnn14_decision_level_max", prefix))
    frames = detector(torch.from_numpy(expected["waveform"]))
    differences = (
        largest(frames.framewise, expected["framewise_output"]),
        largest(frames.clipwise, expected["clipwise_output"]),
    )
    record_property("differences", differences)
    print("dlmax", differences)
    assert max(differences) < 1e-5
