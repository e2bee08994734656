"""CLIPSep's U-Net with a few channels, in all its variants, and the log-frequency axis."""

import math

import pytest
import torch

from separation.models import bimodal_unet, clipsep_unet
from separation.models.bimodal_unet import BiModalUNet, pack
from separation.models.clipsep_unet import CLIPSepUNet, repeat_to_period
from separation.models.spectra import log_frequency, resample_rows

VARIANTS = [{}, {"noise_heads": 2}, {"labels": 7}, {"condition_dim": 256}, {"fusion": "early"}, {"fusion": "middle"},
            {"fusion": "none"}]  # fmt: skip


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(clipsep_unet, "widths", lambda layers, finest: [4] * layers)
    monkeypatch.setattr(bimodal_unet, "CHANNELS", 8)
    monkeypatch.setattr(bimodal_unet, "MULTIPLES", (1,) * 7)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 10


def build(kind=CLIPSepUNet, **options):
    torch.manual_seed(5)
    return kind(**options).eval().requires_grad_(False)


@pytest.mark.parametrize("options", VARIANTS)
def test_every_variant_separates(options):
    model = build(**options)
    mixture, conditions = noise(1, 2, 3000), noise(1, 2, model.condition_dim, seed=1) * 10
    targets, presence, *_ = model.separate(mixture, conditions)
    assert targets.shape == (1, 2, 2, 3000)
    assert presence.shape == (1, 2, 1)
    assert (targets[:, 0] - targets[:, 1]).abs().max() > 1e-8
    assert torch.allclose(model(mixture, conditions[:, 1]), targets[:, 1], atol=1e-6)


def test_without_a_query_the_condition_picks_an_output():
    model = build(fusion="none")
    first, second = torch.eye(2)[None].unbind(1)
    mixture = noise(1, 1, 3000)
    both = model(mixture, first) + model(mixture, second)
    assert torch.allclose(model(mixture, first + second), both, atol=1e-6)


def test_noise_heads_see_the_mean_of_all_queries():
    model = build(noise_heads=2)
    mixture, conditions = noise(1, 1, 3000), noise(1, 2, 512, seed=1)
    noises = model.separate_noise(mixture, conditions)
    assert noises.shape == (1, 2, 1, 3000)
    mean = conditions.mean(1, keepdim=True)  # the projection is linear
    assert torch.allclose(model.separate_noise(mixture, mean), noises, atol=1e-6)


def test_faithful_is_binary_and_clipped():
    model = build(faithful=True)
    model.synth_net.bias.fill_(50.0)
    mixture = 3 * noise(1, 2, 3000) / noise(1, 2, 3000).abs().max()
    assert torch.allclose(model(mixture, noise(1, 512)), mixture.clamp(-1, 1), atol=1e-5)
    model.synth_net.bias.fill_(-50.0)
    assert model(mixture, noise(1, 512)).abs().max() == 0


@pytest.mark.parametrize(("length", "wanted"), [(1, 65535), (65534, 65535), (65535, 131070), (65536, 131070)])
def test_mixtures_are_repeated_to_whole_periods(length, wanted):
    mixture = torch.arange(length).float()[None, None]
    tiled = repeat_to_period(mixture)
    assert tiled.shape == (1, 1, wanted)
    assert torch.equal(tiled[0, 0], (torch.arange(wanted) % length).float())


def test_log_frequency_axis_and_its_inverse():
    among_bins, among_rows = log_frequency(256, 513)
    assert among_bins[0] == -1
    assert among_bins[-1] == pytest.approx(1)
    assert float(among_bins[128]) == pytest.approx(2 * (21 ** (128 / 255) - 1) / 20 - 1, abs=1e-6)
    ramp = torch.linspace(0, 1, 513)[None, None, :, None].expand(1, 1, 513, 3)
    there = resample_rows(ramp, among_bins)
    assert torch.allclose(there[0, 0, :, 1], (among_bins + 1) / 2, atol=1e-6)
    assert (resample_rows(there, among_rows) - ramp).abs().max() < 1e-3


def test_wrong_variants_are_refused():
    for options in ({"fusion": "sideways"}, {"layers": 4}):
        with pytest.raises(ValueError, match="fusion must be one of"):
            CLIPSepUNet(**options)


def condition(seed=1):
    return pack(noise(2, 512, seed=seed), noise(2, 77, 768, seed=seed + 1))


def test_bimodal_uses_both_parts_of_the_text():
    model = build(BiModalUNet)
    mixture, one = noise(1, 1, 3000), condition()[:1]
    target = model(mixture, one)
    assert target.shape == mixture.shape
    other = condition(7)[:1]
    for part in (slice(0, 512), slice(512, None)):
        changed = one.clone()
        changed[:, part] = 30 * other[:, part]
        assert (model(mixture, changed) - target).abs().max() > 1e-7


def test_bimodal_faithful_segments(monkeypatch):
    model = build(BiModalUNet)
    monkeypatch.setattr(bimodal_unet, "SEGMENT", 65535)
    mixture, conditions = noise(1, 2, 70000), condition()[None]
    model.faithful = True
    targets = model.separate(mixture, conditions).targets
    assert targets.shape == (1, 2, 2, 70000)
    model.faithful = False
    alone = model(mixture[:, 1:, :65535], conditions[:, 1])
    assert torch.allclose(targets[:, 1, 1:, :65535], alone, atol=1e-6)
    last = model(torch.nn.functional.pad(mixture[:, :1, 65535:], (0, 65535 - 4465)), conditions[:, 0])
    assert torch.allclose(targets[:, 0, :1, 65535:], last[..., :4465], atol=1e-6)
    assert math.isfinite(float(targets.sum()))
