"""Batch norm statistics of averaged weights: means over the last batches of all devices; no audio in checkpoints."""

from types import SimpleNamespace

import pytest
import torch
from tiny import DIM, TinyEncoder, noise, small_rate_model
from torch import nn

pytest.importorskip("lightning", reason="needs the extra [train]")

from separation.training.objectives.base import STATISTICS_BATCHES, Objective


def batch(number):
    generator = torch.Generator().manual_seed(number)
    mixture = (0.3, 1.0, 2.0)[number % 3] * noise(0.5, seed=number)[None, :, :4000]
    return mixture, torch.randn(1, 2, DIM, generator=generator)


def updated(*updates):
    """An objective after updates with some batches each."""
    module = Objective(small_rate_model(), TinyEncoder())
    for numbers in updates:
        for number in numbers:
            module.keep_batch(*batch(number))
        module.update_statistics()
    return module


def statistics(module):
    return {name: buffer.clone() for name, buffer in module.average.named_buffers() if "running" in name}


def assert_mean(found, parts, weights):
    for name, value in statistics(found).items():
        wanted = sum(weight * statistics(part)[name] for part, weight in zip(parts, weights, strict=True))
        assert torch.allclose(value, wanted, rtol=1e-4, atol=1e-5), name


def test_statistics_are_means_over_the_batches():
    whole = updated(range(3))
    assert_mean(whole, [updated([number]) for number in range(3)], [1 / 3] * 3)
    norms = [module for module in whole.average.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.momentum == 0.1 and int(norm.num_batches_tracked) == 3 for norm in norms)
    assert not any(module.training for module in whole.average.modules())
    for before, after in zip(small_rate_model().parameters(), whole.average.parameters(), strict=True):
        assert torch.equal(before, after)


def test_a_norm_has_the_statistics_of_its_inputs():
    whole, seen = updated(range(3)), []
    model = small_rate_model()
    model.stem[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for number in range(3):
            model.separate(*batch(number))
    norm = whole.average.stem[1]
    assert torch.allclose(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0), atol=0.02)
    assert torch.allclose(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0), rtol=0.02)


def test_earlier_batches_count_until_twelve_newer_ones_are_there():
    assert_mean(updated([0], [1, 2]), [updated(range(3))], [1])
    assert_mean(updated([0], range(12)), [updated(range(12))], [1])
    full, newer = updated(range(12)), updated([12])
    share = 1 / STATISTICS_BATCHES
    assert_mean(updated(range(12), [12]), [full, newer], [1 - share, share])
    assert_mean(updated(range(12), []), [full], [1])


def test_a_checkpoint_holds_statistics_and_no_audio():
    module, checkpoint = updated(), {}
    module.keep_batch(*batch(0))
    module.on_save_checkpoint(checkpoint)
    assert checkpoint == {} and not module.batches
    assert_mean(module, [updated([0])], [1])


def test_the_average_has_plain_norms_with_the_same_tensors_where_the_training_synchronises_them():
    plain = updated(range(2))
    module = nn.SyncBatchNorm.convert_sync_batchnorm(Objective(small_rate_model(), TinyEncoder()))
    tensors = {name: tensor.data_ptr() for name, tensor in module.average.state_dict().items()}
    module.on_fit_start()
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in module.average.modules())
    assert any(isinstance(part, nn.SyncBatchNorm) for part in module.model.modules())
    assert {name: tensor.data_ptr() for name, tensor in module.average.state_dict().items()} == tensors
    for number in range(2):
        module.keep_batch(*batch(number))
    module.update_statistics()
    assert_mean(module, [plain], [1])


@pytest.mark.parametrize(("own", "other"), [(3, 1), (0, 2), (0, 0)])
def test_devices_share_their_statistics_in_proportion_to_their_batches(own, other):
    before, mine, theirs = updated(), updated(range(own)), updated(range(3, 3 + other))
    counts = iter([torch.tensor(float(other)), *statistics(theirs).values()])
    module = updated()
    module.trainer = SimpleNamespace(
        world_size=2,
        strategy=SimpleNamespace(all_gather=lambda tensor, group, sync_grads: torch.stack([tensor, next(counts)])),
    )
    for number in range(own):
        module.keep_batch(*batch(number))
    module.update_statistics()
    total = own + other
    assert_mean(module, [mine, theirs] if total else [before], [own / total, other / total] if total else [1])
