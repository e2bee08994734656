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


def test_tiles_change_nothing(tiny, monkeypatch):
    model, mixture, condition = tiny(), noise(1, 1, 160 * 300), noise(1, 4)
    whole = model(mixture, condition)
    monkeypatch.setattr(resunet, "TILE", 32)
    assert (model(mixture, condition) - whole).abs().max() < 1e-6


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
