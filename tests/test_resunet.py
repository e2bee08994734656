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


def train_once(model, mixture, condition):
    """Gradients and batch norm statistics after one training step."""
    model.train().requires_grad_(True)
    model(mixture, condition).square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return gradients, {name: b.clone() for name, b in model.named_buffers() if "running" in name}


@pytest.mark.parametrize("average", [False, True], ids=["trained", "statistics of averaged weights"])
def test_in_training_batch_norm_sees_the_whole_excerpt(tiny, monkeypatch, average):
    mixture, condition = noise(2, 1, 160 * 100), noise(2, 4)
    results = []
    for tile in (10**6, 32):  # one tile, and four
        monkeypatch.setattr(resunet, "TILE", tile)
        model = tiny()
        if average:  # as objectives measure them: a network in inference mode with batch norms that are not
            for part in model.modules():
                if isinstance(part, torch.nn.BatchNorm2d):
                    part.train()
            model(mixture, condition)
            results.append(({}, {name: b for name, b in model.named_buffers() if "running" in name}))
        else:
            results.append(train_once(model, mixture, condition))
    (gradients, statistics), (tiled_gradients, tiled_statistics) = results
    for whole, tiled in ((gradients, tiled_gradients), (statistics, tiled_statistics)):
        assert set(whole) == set(tiled)
        for name, value in whole.items():
            assert torch.equal(value, tiled[name]), name


def test_starts_from_xavier():
    torch.manual_seed(0)
    model = ResUNet30(condition_dim=8, n_fft=512, hop=160)
    linear, conv = model.film["conv_block7a->conv_block1->beta1"], model.base.decoder_block1.conv1
    for layer, inputs, outputs in ((linear, 8, 384), (model.base.conv_block7a.conv_block1.conv1, 384 * 9, 384 * 9)):
        bound = (6 / (inputs + outputs)) ** 0.5
        assert bound * 0.97 < float(layer.weight.detach().abs().max()) <= bound
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (384 * 2 + 384 * 2)) ** 0.5, rel=0.02)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            assert (part.weight == 1).all() and (part.bias == 0).all()
        elif getattr(part, "bias", None) is not None:
            assert (part.bias == 0).all()
