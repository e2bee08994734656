"""The default network: what it may depend on, how far it sees, what it costs."""

import numpy as np
import pytest
import torch
from tiny import DIM, noise, small_rate_model, tiny_model, vectors
from torch.utils.flop_counter import FlopCounterMode

from separation.models.band_unet import BandUNet, ConvNorm, FiLM

RATE = 32000


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def default():
    torch.manual_seed(0)
    return BandUNet().eval()


def conditions(*texts):
    return vectors(texts)[None]


@torch.inference_mode()
def separate(model, mixture, *texts):
    """Mixture (channels, time) -> targets (queries, channels, time), logits (queries, frames)."""
    targets, logits, *_ = model.separate(mixture[None], conditions(*texts))
    return targets[0], logits[0]


def giga_macs(model, seconds, queries):
    """Multiply-adds of convolutions and matrix products, in 10^9."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.separate(torch.randn(1, 1, seconds * model.sample_rate), torch.randn(1, queries, model.condition_dim))
    return counter.get_total_flops() / 2e9


def test_default_is_within_its_budget_of_parameters_and_operations(default):
    assert sum(p.numel() for p in default.parameters()) <= 8e6
    cost = giga_macs(default, 4, 1)
    assert 0.05 <= cost / 4 <= 1.0
    assert giga_macs(default, 4, 8) <= 4 * cost
    assert giga_macs(default, 8, 1) == pytest.approx(2 * cost, rel=0.05)


def test_queries_and_mixtures_of_a_batch_do_not_touch_each_other(model):
    mixtures = torch.stack([noise(1.0, seed=1), noise(1.0, seed=2)])
    asked = torch.stack([vectors(["dog", "rain"]), vectors(["bell", "dog"])])
    with torch.inference_mode():
        targets, logits, *_ = model.separate(mixtures, asked)
    for row, texts in enumerate((["dog", "rain"], ["bell", "dog"])):
        for column, text in enumerate(texts):
            target, logit = separate(model, mixtures[row], text)
            assert torch.allclose(targets[row, column], target[0], atol=1e-6)
            assert torch.allclose(logits[row, column], logit[0], atol=1e-5)


def test_polarity_and_order_of_channels_only_carry_over(model):
    mixture = noise(1.0, channels=2)
    plain, logits = separate(model, mixture, "dog")
    for signs in ([-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]):
        sign = torch.tensor(signs)[:, None]
        turned, turned_logits = separate(model, sign * mixture, "dog")
        assert torch.allclose(turned, sign * plain, atol=1e-6)
        assert torch.allclose(turned_logits, logits, atol=1e-5)
    swapped, _ = separate(model, mixture.flip(0), "dog")
    assert torch.allclose(swapped, plain.flip(1), atol=1e-6)


def test_one_mask_serves_all_channels(model):
    loud, quiet = noise(1.0), noise(1.0, seed=1)
    targets, _ = separate(model, torch.cat([loud, quiet, loud + quiet]), "dog")
    assert torch.allclose(targets[0, 0] + targets[0, 1], targets[0, 2], atol=1e-6)


def test_features_are_what_their_names_say(model):
    """A tone: all its power in its band, its phase advances evenly over time."""
    bin_number = 30
    time = torch.arange(RATE) / RATE
    tone = torch.cos(2 * torch.pi * bin_number * RATE / 1600 * time)[None, None]
    with torch.inference_mode():
        found = model.features(model.stft(tone))[0, :, :, 10:-10]
    loudness, along_time = found[0], found[1:3]
    assert (loudness.argmax(0) == bin_number).all()
    peak = (1600 / 4) ** 2  # a Hann window sums to n_fft / 2, and half of a cosine is there
    assert torch.allclose(loudness[bin_number], torch.tensor(np.log10(peak) / 2, dtype=torch.float32), atol=1e-3)
    assert torch.allclose(along_time[0, bin_number], torch.ones(()), atol=1e-2)  # no turn but the expected one
    assert along_time[1, bin_number].abs().max() < 1e-2
    click = torch.zeros(1, 1, RATE)
    click[..., 8000] = 1.0
    with torch.inference_mode():
        along_bins = model.features(model.stft(click))[0, 3:, 60, 16]
    assert along_bins.norm() == pytest.approx(1.0, abs=0.02)  # 16 * 500 = 8000: neighbouring bins differ by half a turn
    assert along_bins[0] < -0.98


def test_powers_below_the_floor_are_ignored(model):
    with torch.inference_mode():
        nothing, trace = (model.features(model.stft(x)) for x in (torch.zeros(1, 1, RATE), 1e-6 * noise(1.0)[None]))
    assert torch.isfinite(nothing).all()
    assert (trace - nothing).abs().max() < 1e-2


def positive(model):
    """All weights positive and even: no rectifier closes, so the gradient finds everything that can have influence."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ConvNorm | torch.nn.Conv2d):
                for parameter in module.parameters(recurse=False):
                    parameter.fill_(1 / parameter[0].numel())
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_parameters()
        for linear in (m for m in model.modules() if isinstance(m, torch.nn.Linear)):
            linear.weight.fill_(0.01)
            linear.bias.fill_(0.0)
        model.head.bias.zero_()
        model.position.fill_(10.0)
    return model.eval()


@pytest.mark.parametrize("offset", [0, 500, 1999, 3500])
def test_the_receptive_field_lies_within_the_context(offset):
    model = positive(tiny_model(channels=(2, 2, 2, 2), stream_dim=2))
    middle = 4 * RATE + offset
    mixture = (10 * noise(8.0))[None].requires_grad_()
    targets = model.separate(mixture, torch.full((1, 1, DIM), 0.25)).targets
    targets[0, 0, 0, middle].backward()
    reach = mixture.grad[0, 0].nonzero()[:, 0] - middle
    assert -model.context <= reach.min() < -1.5 * RATE  # 1.9 s or so: the gradient went all the way
    assert 1.5 * RATE < reach.max() <= model.context


@pytest.mark.parametrize("strides", [1, 9])
def test_a_piece_that_starts_on_the_grid_gives_what_the_whole_gives(model, strides):
    mixture = noise(7.0, channels=2)
    start = strides * model.stride
    whole, _ = separate(model, mixture, "dog")
    piece, _ = separate(model, mixture[:, start:], "dog")
    inside = slice(model.context, None)
    assert torch.allclose(piece[..., inside], whole[..., start:][..., inside], atol=1e-6)


def test_masks_keep_within_one_and_may_turn_the_phase(model):
    with torch.inference_mode():
        mixture = noise(2.0)[None]
        analysis = model.analyse(model.features(model.stft(mixture)), mixture)
        mask = model.mask(analysis, conditions("dog", "rain"))
    assert mask.shape == (1, 2, 2, 128, 136)
    magnitude = mask.square().sum(2).sqrt()
    assert magnitude.max() <= 1 + 1e-5
    assert magnitude.min() < 0.2 < 0.8 < magnitude.max()
    assert mask[:, :, 1].abs().max() > 0.1


def test_a_fresh_network_passes_half_of_the_mixture():
    torch.manual_seed(0)
    fresh = small_rate_model()
    with torch.no_grad():
        fresh.head.weight.zero_()
        fresh.head.bias.zero_()
    mixture = noise(1.0, 8000)
    with torch.inference_mode():
        target = fresh(mixture[None], conditions("dog")[:, 0])[0]
    assert torch.allclose(target, mixture / 2, atol=1e-5)


def test_only_what_is_learnt_is_stored(model):
    names = set(model.state_dict())
    assert not names & {"to_bins", "to_bands", "advance", "stft.window"}
    learnt = {name for name, _ in model.named_parameters()}
    statistics = {n for n in names if n.rsplit(".", 1)[-1] in ("running_mean", "running_var", "num_batches_tracked")}
    assert names == learnt | statistics


def test_sample_rate_and_grid_fit_whole_seconds(default):
    assert default.sample_rate % default.stride == 0
    assert default.context >= default.stft.n_fft


def test_scale_and_shift_come_from_the_condition():
    film = FiLM(2, 3)
    x = torch.randn(2, 3, 4, 5)
    with torch.no_grad():
        film.project.bias.zero_()
        assert torch.equal(film(x, torch.zeros(2, 2)), x)
        film.project.weight.copy_(torch.tensor([[1.0, 0], [2, 0], [3, 0], [0, 1], [0, 2], [0, 3]]))
        film.project.bias.copy_(torch.tensor([0.0, 0, 0, 0.5, 0.5, 0.5]))
    condition = torch.tensor([[1.0, 10.0], [-1.0, 0.0]])
    result = film(x, condition)
    for row, (a, b) in enumerate([(1.0, 10.0), (-1.0, 0.0)]):
        for channel in range(3):
            k = channel + 1
            assert torch.allclose(result[row, channel], x[row, channel] * (1 + k * a) + k * b + 0.5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_keep_their_precision(dtype):
    assert FiLM(4, 3)(torch.randn(1, 3, 2, 2, dtype=dtype), torch.randn(1, 4)).dtype == dtype


def test_the_tagger_and_the_frame_stream_infer_in_single_precision():
    model, mixture = tiny_model(tagger=True), noise(1.0, channels=2)[None]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        analysis = model.analyse(model.features(model.stft(mixture)), mixture)
        assert analysis.skips[0].dtype == torch.bfloat16
        assert analysis.frames.dtype == analysis.late.dtype == analysis.tags.dtype == torch.float32
        analysis = model.train().analyse(model.features(model.stft(mixture)), mixture)
        assert analysis.frames.dtype == torch.bfloat16
