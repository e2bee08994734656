"""Estimates, listings and network outputs that must not change; running this file records them anew."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import DIM, vectors

from separation import Query, Separator
from separation.models.band_unet import BandUNet
from separation.models.bimodal_unet import BiModalUNet
from separation.models.clipsep_unet import CLIPSepUNet
from separation.models.resunet import ResUNet30

FILE = Path(__file__).parent / "frozen" / "separator.npz"
DEMOS = Path(__file__).parents[1] / "demos"
NETWORKS = {
    "band_unet": (BandUNet, {"channels": [8] * 4, "stream_dim": 16, "condition_dim": DIM}, 32000),
    "resunet": (ResUNet30, {"condition_dim": DIM}, 16000),
    "resunet_faithful": (ResUNet30, {"condition_dim": DIM, "faithful": True, "segment": 8000}, 16000),
    "clipsep": (CLIPSepUNet, {"condition_dim": DIM, "width": 4}, 90000),
    "clipsep_faithful": (CLIPSepUNet, {"condition_dim": DIM, "width": 4, "faithful": True}, 20000),
    "clipsep_early": (CLIPSepUNet, {"condition_dim": DIM, "width": 4, "fusion": "early"}, 20000),
    "clipsep_middle": (CLIPSepUNet, {"condition_dim": DIM, "width": 4, "fusion": "middle"}, 20000),
    "clipsep_none": (CLIPSepUNet, {"width": 4, "fusion": "none"}, 20000),
    "clipsep_noise": (CLIPSepUNet, {"condition_dim": DIM, "width": 4, "noise_heads": 2}, 20000),
    "bimodal": (BiModalUNet, {"channels": 8}, 140000),
    "bimodal_faithful": (BiModalUNet, {"channels": 8, "faithful": True}, 140000),
}


def digest(values: torch.Tensor, every: int) -> np.ndarray:
    """Every so many-th value, and eight random projections of all of them with unit-length vectors."""
    flat = values.detach().double().flatten().numpy()
    rng = np.random.default_rng(0)
    projections = [rng.standard_normal(len(flat)) @ flat / len(flat) ** 0.5 for _ in range(8)]
    return np.concatenate([projections, flat[::every]]).astype(np.float32)


def separate_demo() -> dict[str, np.ndarray]:
    """Targets and presence of the default model for the demonstration mixture, alone, together and with a negative."""
    separator = Separator.from_pretrained("small", device="cpu", precision="float32")
    samples, rate = soundfile.read(DEMOS / "mix.wav", dtype="float32", always_2d=True)
    texts = [stem["query"] for stem in json.loads((DEMOS / "mix.json").read_text(encoding="utf-8"))["stems"]]
    asked = {text: separator(samples.T, text, rate) for text in [*texts, "church bells"]}
    asked |= {f"{n} of two": result for n, result in enumerate(separator(samples.T, texts[:2], rate))}
    asked["negative"] = separator(samples.T, Query(texts[0], negative=texts[1]), rate)
    found = {name: np.append(digest(result.target, 2000), result.presence) for name, result in asked.items()}
    sounds = separator.list_sounds(samples.T, rate)
    found["hear"] = np.array([sound.probability for sound in sounds])
    found["hear_times"] = np.array([edge for sound in sounds for time in sound.times for edge in time])
    found["hear_labels"] = np.array([sound.label for sound in sounds])
    return {name: values if values.dtype.kind == "U" else values.astype(np.float32) for name, values in found.items()}


def separate_noise(name: str) -> np.ndarray:
    """What a network of few channels and seeded weights makes of seeded noise."""
    network, arguments, length = NETWORKS[name]
    torch.manual_seed(0)
    model = network(**arguments).eval()
    generator = torch.Generator().manual_seed(1)
    for tensor_name, tensor in model.state_dict().items():
        if network in (ResUNet30, BiModalUNet) and (tensor.ndim > 1 or tensor_name.endswith("bias")):
            # Whatever weights these start from.
            tensor.normal_(0, tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1, generator=generator)
        elif tensor_name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor_name.endswith(("running_mean", "position")):
            tensor.normal_(0, 0.1, generator=generator)
    time = torch.arange(length) / model.sample_rate
    mixture = 0.1 * torch.randn(1, 2, length, generator=generator) * (1 + torch.sin(9 * time))
    conditions = vectors(["dog", "rain"], model.condition_dim)[None]
    with torch.inference_mode():
        outputs = [*model.separate(mixture, conditions)[:2]]
        if name == "clipsep_noise":
            outputs.append(model.separate_noise(mixture, conditions))
    return np.concatenate([digest(output, 400) for output in outputs])


@pytest.fixture(scope="module")
def frozen():
    with np.load(FILE) as values:
        return dict(values)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compute_the_same(frozen, name):
    assert np.abs(separate_noise(name) - frozen[name]).max() < 1e-5


def test_the_default_model_separates_the_same(frozen):
    for name, values in separate_demo().items():
        if values.dtype.kind == "U":
            assert values.tolist() == frozen[name].tolist()
        else:
            assert np.abs(values - frozen[name]).max() < (2e-4 if name == "hear" else 1e-5), name


if __name__ == "__main__":
    torch.set_num_threads(1)
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **separate_demo(), **{name: separate_noise(name) for name in NETWORKS})
