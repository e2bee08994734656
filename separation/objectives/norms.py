"""Batch norms of averaged weights: their statistics are measured anew, over the examples of all devices."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from separation.models.base import ConditionedModel
from separation.objectives.ranks import world

BatchNorm = nn.modules.batchnorm._BatchNorm  # of any number of dimensions, synchronised or not


@torch.no_grad()
def calibrate(model: ConditionedModel, examples: Collection[tuple[Tensor, Tensor]]) -> None:
    """Measures the batch norms' means and variances anew: averaged weights need statistics of their own.

    Without it the averaged model is worse than the last one (docs/experiments.md). All ranks have to call it together;
    afterwards all have the statistics of all ranks' examples.

    Args:
        model: changed in place; one without batch norms stays as it is.
        examples: mixtures (batch, channels, time) with their conditions (batch, queries, dim).
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    if not norms:
        return
    if examples:
        measure(model, norms, examples)
    pool(norms, len(examples))


def measure(model: ConditionedModel, norms: list[BatchNorm], examples: Collection[tuple[Tensor, Tensor]]) -> None:
    """Statistics of this rank's examples: plain means over them."""
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the examples
        norm.train()
    device = next(model.parameters()).device
    for mixture, conditions in examples:
        model.separate(mixture.float().to(device), conditions.float().to(device))
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
        norm.eval()


def pool(norms: list[BatchNorm], count: int) -> None:
    """Means of all ranks' statistics, of which this rank's are from `count` examples."""
    if world() == 1:
        return
    statistics = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
    total = torch.tensor(float(count), device=statistics[0].device)
    torch.distributed.all_reduce(total)
    if total == 0:
        return
    for buffer in statistics:
        buffer.mul_(count / float(total))
        torch.distributed.all_reduce(buffer)


def without_synchronising(module: nn.Module) -> nn.Module:
    """The module with plain batch norms, which hold the same tensors, instead of synchronised ones.

    Lightning makes all batch norms of a training synchronised ones where it is asked to. Those of averaged weights
    must not wait for other ranks, which may have no example.
    """
    if isinstance(module, nn.SyncBatchNorm):
        plain = nn.BatchNorm2d(module.num_features, module.eps, module.momentum, module.affine)
        plain._parameters, plain._buffers = module._parameters, module._buffers
        return plain.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, without_synchronising(child))
    return module
