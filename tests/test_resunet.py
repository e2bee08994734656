"""ResUNet30 with a few channels: its tiles, segments, channels and gate."""

import pytest
import torch

from separation.encoders.base import QueryEncoder
from separation.models import resunet
from separation.models.resunet import ResUNet30, class_conditions
from separation.separator import Separator


class Table(QueryEncoder):
    """Stands in for an encoder that is not needed."""

    embedding_dim = 4
    unit_length = False


@pytest.fixture
def tiny(monkeypatch):
    """Builds a network with few channels and random statistics."""
    monkeypatch.setattr(resunet, "CHANNELS", (2, 2, 2, 3, 3, 4, 4))

    def build(**options):
        torch.manual_seed(5)
        model = ResUNet30(**{"condition_dim": 4, "sample_rate": 16000, "n_fft": 512, "hop": 160, **options})
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
            elif name.endswith("weight") and name.startswith("film"):
                tensor.mul_(3)
        return model.eval().requires_grad_(False)

    return build


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 10


def test_mixed_precision_separates_nearly_the_same(tiny):
    model, mixture, conditions = tiny(), noise(1, 2, 5000), noise(1, 2, 4, seed=1)
    whole, _ = model.separate(mixture, conditions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, _ = model.separate(mixture, conditions)
    assert half.dtype == torch.float32
    assert 0 < (half - whole).norm() < 0.05 * whole.norm()


def test_shapes_and_condition(tiny):
    model = tiny()
    mixture, conditions = noise(2, 3, 5000), noise(2, 2, 4, seed=1)
    targets, presence = model.separate(mixture, conditions)
    assert targets.shape == (2, 2, 3, 5000)
    assert presence.shape == (2, 2, 1)
    assert torch.allclose(model(mixture, conditions[:, 1]), targets[:, 1], atol=1e-6)
    assert (targets[:, 0] - targets[:, 1]).abs().max() > 1e-5


@pytest.mark.parametrize("length", [1, 2, 256, 257, 320, 321, 479])
def test_any_length(tiny, length):
    target = tiny()(noise(1, 1, length), noise(1, 4))
    assert target.shape == (1, 1, length)
    assert torch.isfinite(target).all()


def test_tiles_change_nothing(tiny, monkeypatch):
    model, mixture, condition = tiny(), noise(1, 1, 160 * 300), noise(1, 4)
    whole = model(mixture, condition)
    monkeypatch.setattr(resunet, "TILE", 32)
    assert (model(mixture, condition) - whole).abs().max() < 1e-6


def test_one_mask_for_all_channels(tiny):
    model, condition = tiny(), noise(1, 4)
    left, right = noise(1, 1, 4000), noise(1, 1, 4000, seed=2)
    both = model(torch.cat([left, right], 1), condition)
    assert torch.allclose(model(torch.cat([right, left], 1), condition), both.flip(1), atol=1e-6)
    assert torch.allclose(model(torch.cat([-left, right], 1), condition)[:, 0], -both[:, 0], atol=1e-6)
    silent = model(torch.cat([left, 0 * left], 1), condition)
    assert torch.allclose(silent[:, :1], model(left, condition), atol=1e-6)
    assert silent[:, 1].abs().max() == 0


def test_faithful_takes_channels_one_by_one(tiny):
    model, condition = tiny(faithful=True), noise(1, 4)
    mixture = noise(1, 2, 4000)
    both = model(mixture, condition)
    alone = torch.cat([model(mixture[:, :1], condition), model(mixture[:, 1:], condition)], 1)
    assert torch.allclose(both, alone, atol=1e-6)
    model.faithful = False
    assert (both - model(mixture, condition)).abs().max() > 1e-4


def test_hard_segments(tiny):
    whole, cut = tiny(), tiny(faithful=True, segment=2000)
    mixture, condition = noise(1, 1, 5000), noise(1, 4)
    pieces = torch.nn.functional.pad(mixture, (0, 1000)).split(2000, -1)
    expected = torch.cat([whole(piece, condition) for piece in pieces], -1)[..., :5000]
    assert torch.allclose(cut(mixture, condition), expected, atol=1e-6)


def test_segments_of_a_separator_equal_the_whole(tiny):
    model = tiny()
    separator = Separator(model, Table(), device="cpu")
    mixture, condition = noise(2, 16000 * 44 + 77), noise(4)
    level = separator.level([mixture])
    result = separator(mixture, condition, 16000)
    scaled = mixture * (model.input_level / level)
    whole = model(scaled[None], condition[None])[0] * (level / model.input_level)
    assert (result.target - whole).abs().max() < 1e-5
    assert whole.abs().max() > 1e-3
    assert torch.equal(result.target + result.residual, result.target + (mixture - result.target))
    assert result.presence != result.presence  # NaN: the model does not say


def test_gain_changes_nothing_but_the_gain(tiny):
    separator = Separator(tiny(), Table(), device="cpu")
    mixture, condition = noise(1, 16000), noise(4)
    quiet, loud = (separator(mixture * gain, condition, 16000).target / gain for gain in (0.01, 10.0))
    assert (quiet - loud).abs().max() < 1e-5


def test_class_conditions():
    heard = torch.tensor([[[0.1, 0.3, 0.5], [0.1, 0.19, 0.9], [0.2, 0.0, 0.9]]])
    expected = torch.tensor([[[0.1, 0.3, 0.0], [0.0, 0.0, 0.0], [0.2, 0.0, 0.0]]])
    assert torch.equal(class_conditions(heard, [0, 1]), expected)


class Tagger(QueryEncoder):
    """Hears class 1 in loud segments, and class 3 always."""

    embedding_dim = 4
    modalities = frozenset({"label"})
    unit_length = False

    def encode_label(self, labels):
        return torch.nn.functional.one_hot(torch.tensor(labels), 4).float()

    def part(self, form):
        assert form == "audio"
        return self

    def tag(self, waveform):
        loud = waveform.abs().amax(-1, keepdim=True).clamp(max=1) * torch.tensor([0, 0.5, 0, 0])
        probabilities = loud + torch.tensor([0, 0, 0, 0.9])
        return type("Tags", (), {"probabilities": probabilities})


def test_published_gate_on_classes(tiny):
    model = tiny(faithful=True, segment=2000)
    mixture = noise(1, 6000)
    mixture[:, 2000:4000] *= 0.1 / float(mixture[:, 2000:4000].abs().max())
    mixture[:, :2000] *= 0.8 / float(mixture[:, :2000].abs().max())
    mixture[:, 4000:] *= 0.8 / float(mixture[:, 4000:].abs().max())
    one, three = Separator(model, Tagger(), device="cpu")(mixture, [1, 3], 16000)
    assert one.target[:, 2000:4000].abs().max() == 0  # heard at 0.05, which is under 0.2
    condition = torch.tensor([[0, 0.4, 0, 0]])  # what is heard in the mixture, other classes zero
    expected = model(mixture[None, :, :2000], condition)[0]
    assert torch.allclose(one.target[:, :2000], expected, atol=1e-5)
    assert three.target[:, 2000:4000].abs().max() > 0
