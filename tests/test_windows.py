"""Networks that depend on their input's length: windows join without loss, and segments equal the whole."""

import pytest
import torch

from separation.models import bimodal_unet, clipsep_unet
from separation.models.base import Windows
from separation.separator import Stream
from separation.stream import OverlapAdd

SIZE, HOP = 256, 125
WINDOWS = Windows(SIZE, HOP)


@pytest.mark.parametrize("frames", [1, 255, 256, 257, 380, 381, 382, 1000])
def test_what_does_not_depend_on_the_window_comes_back_as_it_was(frames):
    features = torch.randn(2, 3, frames)
    windows = []

    def twice(window):
        windows.append(window.shape[-1])
        return 2 * window

    assert torch.allclose(WINDOWS.process(features, twice), 2 * features, atol=1e-6)
    assert windows == [SIZE] * WINDOWS.count(frames)


def test_weights_of_overlapping_windows_add_up_to_one():
    total = torch.zeros(SIZE + 3 * HOP)
    for number in range(4):
        total[number * HOP :][:SIZE] += WINDOWS.weight(number, 4, total)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-6)


def test_a_frame_comes_from_the_middle_of_a_window():
    place = torch.arange(SIZE, dtype=torch.float32)
    found = WINDOWS.process(torch.zeros(1000), lambda _: place)
    assert found[300:700].min() > 40
    assert found[300:700].max() < SIZE - 40


def lively(model):
    """Statistics and weights under which masks span 0 to 1."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(
    ("network", "sample_rate", "seconds"),
    [("CLIPSepUNet", 16000, 43.3), ("CLIPSepUNet", 44100, 41.0), ("BiModalUNet", 16000, 61.7)],
)  # fmt: skip
def test_segments_equal_the_whole(monkeypatch, network, sample_rate, seconds):
    monkeypatch.setattr(clipsep_unet, "widths", lambda layers, finest: [4] * layers)
    monkeypatch.setattr(bimodal_unet, "CHANNELS", 8)
    monkeypatch.setattr(bimodal_unet, "MULTIPLES", (1,) * 7)
    torch.manual_seed(0)
    model = lively(getattr(clipsep_unet if network == "CLIPSepUNet" else bimodal_unet, network)())
    time = torch.arange(round(seconds * sample_rate)) / sample_rate
    mixture = 0.1 * torch.randn(1, len(time)) * (1 + torch.sin(3 * time))
    condition = torch.randn(1, model.condition_dim)
    whole, pieces = (Stream(model, condition, sample_rate, 1.0, segment_seconds=1) for _ in range(2))
    whole.runner = OverlapAdd(whole._separate_segment, 10**9, 0)
    expected = torch.cat([whole.push(mixture), whole.flush()], dim=-1)
    found = torch.cat([*map(pieces.push, mixture.split(7 * sample_rate, dim=-1)), pieces.flush()], dim=-1)
    assert pieces.runner.segment < 0.6 * mixture.shape[-1]
    assert (expected - found).abs().max() < 1e-4
    assert expected.abs().max() > 0.1
    assert (expected - mixture).abs().max() > 0.05
