"""Cnn14 against outputs of the published code, through files with the published names.

Set SEPARATION_PARITY to the folder with the fixtures (`uss/fixtures/cnn14_*.npz`, `uss/fill_weights.py`).
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from fixtures import arrays, largest, meta, needs_fixtures, rules, shapes

from separation.encoders.panns import COMPUTED, PannsEncoder, ReleasedDetector

pytestmark = needs_fixtures


@pytest.fixture(scope="module")
def tensors():
    """Weights by the fixtures' rule; the three networks share names, shapes and seed."""
    fill, seed = rules("uss").fill, meta("uss", "cnn14_32k_A")["seed"]
    filled = {name: fill(name, shape, seed) for name, shape in shapes("uss", "cnn14_32k").items()}
    return {name: torch.from_numpy(np.asarray(value)) for name, value in filled.items() if value is not None}


def checkpoint(folder: Path, tensors: dict, name: str, prefix: str = "") -> Path:
    """A file as published, but with zeros for the kernels that must not be read."""
    listed = shapes("uss", name).items()
    kernels = {k: torch.zeros(shape) for k, shape in listed if COMPUTED.match(k) and k not in tensors}
    state = {prefix + k: v for k, v in {**tensors, **kernels}.items()}
    assert len(state) == 84
    file = folder / f"{name}.pth"
    torch.save({"state_dict": state} if prefix else {"model": state, "iteration": 7}, file)
    return file


@pytest.mark.parametrize(
    ("fixture", "name", "prefix"), [("32k", "cnn14_32k", ""), ("16k", "cnn14_16k", "query_net.base.")]
)
def test_tagger_and_embedding(tmp_path, tensors, fixture, name, prefix):
    expected = arrays("uss", f"cnn14_{fixture}_A")
    encoder = PannsEncoder.from_file(checkpoint(tmp_path, tensors, name, prefix))
    tags = encoder.tag(expected["waveform"])
    assert largest(tags.probabilities, expected["clipwise_output"]) < 1e-5
    assert largest(tags.embedding, expected["embedding"]) < 1e-4
    one_segment = encoder.encode_audio(expected["waveform"], encoder.sample_rate)  # of 2 s
    assert torch.equal(one_segment, tags.probabilities)
    log_mel = encoder.network.log_mel(expected["waveform"]).flatten()
    probed = log_mel[expected["probe/logmel_extractor/index"]]
    assert largest(probed, expected["probe/logmel_extractor/value"]) < 1e-3


def test_detector(tmp_path, tensors):
    expected = arrays("uss", "cnn14_dlmax_A")
    prefix = "anchor_segment_detector.sed_model."
    detector = ReleasedDetector(checkpoint(tmp_path, tensors, "cnn14_decision_level_max", prefix))
    frames = detector(expected["waveform"])
    assert largest(frames.framewise, expected["framewise_output"]) < 1e-5
    assert largest(frames.clipwise, expected["clipwise_output"]) < 1e-5
