"""Statistics of averaged weights' batch norms: of this rank's examples, of all ranks', without waiting."""

import pytest
import torch
from tiny import DIM, noise, small_rate_model
from torch import nn

pytest.importorskip("lightning", reason="needs the extra [train]")

from separation.objectives import norms
from separation.objectives.norms import calibrate, without_synchronising


def examples(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixtures = [scale * noise(0.5)[None, :, :4000] for scale in (0.3, 1.0, 2.0)[:count]]
    return [(mixture.half(), torch.randn(1, 2, DIM, generator=generator).half()) for mixture in mixtures]


def statistics(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}


def test_statistics_are_means_over_the_examples():
    model = small_rate_model()
    calibrate(model, examples(3))
    whole = statistics(model)
    alone = []
    for example in examples(3):
        calibrate(model, [example])
        alone.append(statistics(model))
    # The first norm sees the mixtures; what later ones see does not depend on statistics, for all measure their own.
    for name, value in whole.items():
        assert torch.allclose(value, sum(one[name] for one in alone) / 3, rtol=1e-4, atol=1e-5), name
    assert not any(module.training for module in model.modules())


def test_synchronised_norms_become_plain_ones_with_the_same_tensors():
    plain, model = small_rate_model(), small_rate_model()
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    synchronised = [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm)]
    tensors = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    without_synchronising(model)
    assert synchronised and not any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == tensors
    calibrate(model, examples(2))
    calibrate(plain, examples(2))
    for name, value in statistics(plain).items():
        assert torch.equal(statistics(model)[name], value)
    assert not model.training


@pytest.mark.parametrize(("own", "other"), [(3, 1), (0, 2), (0, 0)])
def test_ranks_pool_their_statistics_in_proportion_to_their_examples(monkeypatch, own, other):
    model, elsewhere = small_rate_model(), small_rate_model()
    before = statistics(model)
    calibrate(elsewhere, examples(other))
    theirs = [other / max(1, own + other) * value for value in statistics(elsewhere).values()]
    sums = iter([torch.tensor(float(other)), *theirs])
    monkeypatch.setattr(norms, "world", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.add_(next(sums)))
    calibrate(model, examples(own))
    found = statistics(model)
    monkeypatch.undo()
    calibrate(elsewhere, examples(own))
    mine = statistics(elsewhere)
    for (name, value), theirs_part in zip(found.items(), theirs, strict=True):
        expected = own / max(1, own + other) * mine[name] + theirs_part if own + other else before[name]
        assert torch.allclose(value, expected, rtol=1e-4, atol=1e-6), name
