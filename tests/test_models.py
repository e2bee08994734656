"""What networks share: shapes, channels, precision, segments; filtering by negatives; windows of fixed length."""

import math

import pytest
import torch
from tiny import TinyEncoder, noise, tiny_model, vectors

from separation import Query, Separator
from separation.inference.stream import Stream
from separation.models import bimodal_unet, resunet
from separation.models.base import ConditionedModel, Estimate, NegativeFilter, SharedTargets, Windows
from separation.models.bimodal_unet import BiModalUNet
from separation.models.clipsep_unet import CLIPSepUNet
from separation.models.resunet import ResUNet30

RATE = 8000

# --- Negatives ---------------------------------------------------------------------------------


class BandPass(ConditionedModel):
    """Passes the frequencies between both numbers of a condition (low, high), Hz."""

    sample_rate, condition_dim = RATE, 2

    def separate(self, mixture, conditions):
        spectrum = torch.fft.rfft(mixture)
        hertz = torch.fft.rfftfreq(mixture.shape[-1], 1 / RATE)
        masks = [(hertz >= low) & (hertz < high) for low, high in conditions[0]]
        targets = torch.stack([torch.fft.irfft(spectrum * mask, mixture.shape[-1]) for mask in masks], dim=1)
        return Estimate(targets, mixture.new_ones(*conditions.shape[:2], 1))


def tone(hertz, seconds=2.0):
    return torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


LOW, HIGH = tone(500), tone(1500)


def separate(mixture, wanted, negatives, excluded=((True,),)):
    model = NegativeFilter(BandPass(), torch.tensor(negatives), torch.tensor(excluded))
    return model.separate(mixture[None], torch.tensor(wanted)[None])[0][0]


def energy(signal):
    return float(signal.square().sum())


def test_energy_of_target_and_negative_is_halved_and_the_rest_stays():
    [target] = separate((LOW + HIGH)[None], [[0.0, 2000.0]], [[1000.0, 4000.0]])
    # Target and negative have equal power at the shared tone: the gain is 1/2 there.
    assert torch.allclose(target[0, 1000:-1000], (LOW + HIGH / 2)[1000:-1000], atol=0.02)


def test_targets_that_claim_the_same_energy_share_it_and_others_stay():
    mixture = (LOW + HIGH)[None]
    model = SharedTargets(BandPass(), torch.device("cpu"))
    conditions = torch.tensor([[[0.0, 2000.0], [1000.0, 4000.0], [3000.0, 4000.0]]])
    both, high, nothing = model.separate(mixture[None], conditions)[0][0]
    assert torch.allclose(both[0, 1000:-1000], (LOW + HIGH / 2)[1000:-1000], atol=0.02)
    assert torch.allclose(high[0, 1000:-1000], (HIGH / 2)[1000:-1000], atol=0.02)
    assert energy(nothing) < 1e-3 * energy(mixture)
    [alone] = model.separate(mixture[None], conditions[:, :1])[0][0]
    assert torch.allclose(alone, mixture, atol=5e-3)


def test_a_negative_that_does_not_occur_changes_nothing():
    [target] = separate((LOW + HIGH)[None], [[0.0, 1000.0]], [[3000.0, 4000.0]])
    assert torch.allclose(target, LOW[None], atol=5e-3)


def test_each_query_has_its_own_negatives_and_the_stereo_image_stays():
    mixture = torch.stack([LOW + HIGH, 0.5 * (LOW + HIGH)])
    negatives, excluded = [[1000.0, 4000.0], [0.0, 1000.0]], [[True, False], [False, False]]
    first, second = separate(mixture, [[0.0, 4000.0]] * 2, negatives, excluded)
    assert energy(first) < 0.7 * energy(mixture)
    assert energy(second) == pytest.approx(energy(mixture), rel=1e-3)
    assert torch.allclose(first[1], first[0] / 2, atol=1e-5)


@pytest.mark.parametrize("length", [1, 10, 79, 81, 12345])
def test_negatives_at_any_length(length):
    [target] = separate(0.1 * torch.randn(2, length), [[0.0, 5000.0]], [[0.0, 5000.0]])
    assert target.shape == (2, length)
    assert torch.isfinite(target).all()


def test_negatives_through_the_separator():
    separator = Separator(tiny_model(), TinyEncoder(), "tiny", "cpu")
    mixture = noise(1.0, channels=2)
    queries = ["dog", Query("dog", negative="rain"), Query("dog", negative=["rain", "dog"])]
    plain, without, list_of = separator(mixture, queries, 32000)
    assert torch.allclose(plain.target, separator(mixture, "dog", 32000).target, atol=1e-6)
    assert energy(without.target) < 0.98 * energy(plain.target)
    assert energy(list_of.target) <= 0.26 * energy(plain.target)  # half the amplitude or less
    assert torch.allclose(without.target + without.residual, mixture, atol=1e-6)
    assert without.presence <= plain.presence


# --- Windows -----------------------------------------------------------------------------------

WINDOWS = Windows(256, 125)


@pytest.mark.parametrize("frames", [1, 255, 256, 257, 380, 381, 382, 1000])
def test_windows_add_up_to_the_signal(frames):
    features = torch.randn(2, 3, frames)
    sizes = []
    found = WINDOWS.process(features, lambda window: sizes.append(window.shape[-1]) or 2 * window)
    assert torch.allclose(found, 2 * features, atol=1e-6)
    assert sizes == [256] * WINDOWS.count(frames)


def test_a_frame_comes_from_the_middle_of_a_window():
    found = WINDOWS.process(torch.zeros(1000), lambda _: torch.arange(256, dtype=torch.float32))
    assert found[300:700].min() > 40 and found[300:700].max() < 256 - 40


# --- Every network -----------------------------------------------------------------------------

NETWORKS = {
    "band_unet": tiny_model,
    "resunet": lambda: ResUNet30(4, 16000, 512, 160),
    "clipsep": lambda: CLIPSepUNet(width=1),
    "bimodal": lambda: BiModalUNet(channels=8),
    "negatives": lambda: NegativeFilter(tiny_model(), vectors(["rain"]), torch.tensor([[True]])),
    "shared": lambda: SharedTargets(tiny_model(), torch.device("cpu")),
}
every_network = pytest.mark.parametrize("network", [name for name in NETWORKS if name not in ("negatives", "shared")])


def build(network, monkeypatch):
    """A network of few channels whose masks span 0 to 1."""
    torch.manual_seed(0)
    monkeypatch.setattr(bimodal_unet, "MULTIPLES", (1,) * 7)
    monkeypatch.setattr(resunet, "CHANNELS", (2, 2, 2, 3, 3, 4, 4))
    model = NETWORKS[network]()
    for name, module in model.named_modules() if network not in ("band_unet", "negatives", "shared") else ():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        elif name.startswith("film."):
            module.weight.data.mul_(3)
        elif name == "net_clap.fc":  # starts so small that all queries are nearly equal
            module.weight.data.mul_(1000)
    return model.eval().requires_grad_(False)


def draw_conditions(model, *shape):
    return torch.nn.functional.normalize(torch.randn(*shape, model.condition_dim), dim=-1)


@every_network
def test_any_length_batch_and_number_of_channels(monkeypatch, network):
    model = build(network, monkeypatch)
    conditions = draw_conditions(model, 2, 3)
    for length in (1, 2, 256, 257, 479, 3999, 4001):
        channels = length % 4 + 1
        mixture = 0.1 * torch.randn(2, channels, length)
        targets, logits, *_ = model.separate(mixture, conditions)
        assert targets.shape == (2, 3, channels, length)
        assert logits.shape == (2, 3, model.stft.frames(length) // 8 if network == "band_unet" else 1)
        assert torch.isfinite(targets).all() and torch.isfinite(logits).all()
    assert torch.allclose(model(mixture, conditions[:, 1]), targets[:, 1], atol=1e-6)
    assert (targets[:, 0] - targets[:, 1]).abs().max() > 1e-6


@every_network
def test_mixed_precision_separates_nearly_the_same(monkeypatch, network):
    model = build(network, monkeypatch)
    mixture, conditions = 0.1 * torch.randn(1, 1, 8000), draw_conditions(model, 1, 1)
    whole = model.separate(mixture, conditions).targets
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.separate(mixture, conditions).targets
    assert half.dtype == torch.float32
    assert 0 < (half - whole).norm() < 0.05 * whole.norm()


@every_network
def test_one_mask_for_all_channels(monkeypatch, network):
    model = build(network, monkeypatch)
    condition, (left, right) = draw_conditions(model, 1), 0.1 * torch.randn(2, 1, 1, 4000)
    both = model(torch.cat([left, right], 1), condition)
    assert torch.allclose(model(torch.cat([right, left], 1), condition), both.flip(1), atol=1e-6)
    assert torch.allclose(model(torch.cat([-left, right], 1), condition)[:, 0], -both[:, 0], atol=1e-6)
    silent = model(torch.cat([left, 0 * left], 1), condition)
    assert torch.allclose(silent[:, :1], model(left, condition), atol=1e-6)
    assert silent[:, 1].abs().max() == 0


@pytest.mark.parametrize(
    ("network", "sample_rate", "seconds"),
    [
        ("clipsep", 16000, 25.3),
        ("clipsep", 44100, 25.0),
        ("bimodal", 16000, 47.7),
        ("negatives", 8000, 31.3),
        ("resunet", 16000, 25.1),
    ],
)
def test_segments_equal_the_whole(monkeypatch, network, sample_rate, seconds):
    model = build(network, monkeypatch)
    time = torch.arange(round(seconds * sample_rate)) / sample_rate
    mixture = 0.1 * torch.randn(1, len(time)) * (1 + torch.sin(3 * time))
    condition = draw_conditions(model, 1)
    condition = condition if network == "negatives" else condition * model.condition_dim**0.5
    whole, pieces = (Stream(model, condition, sample_rate, 1.0, segment_seconds=n) for n in (1000, 1))
    expected = torch.cat([whole.push(mixture), whole.flush()], dim=-1)
    found = torch.cat([*map(pieces.push, mixture.split(7 * sample_rate, dim=-1)), pieces.flush()], dim=-1)
    assert pieces.runner.segment < 0.75 * mixture.shape[-1]
    assert math.isnan(pieces.presence[0]) != model.estimates_presence
    assert (expected - found).abs().max() < 1e-4
    assert expected.abs().max() > 1e-3
    assert (expected - mixture).abs().max() > 0.05
