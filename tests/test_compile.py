"""Compiled parts of a network compute what the network computes, under the same names."""

import pytest
import torch
from tiny import DIM, small_rate_model, vectors

pytest.importorskip("lightning", reason="needs the extra [train]")

from separation.training.objectives.base import compile_layers


def test_compiled_parts_compute_the_same():
    plain, compiled = small_rate_model(), small_rate_model()
    used = []

    def backend(graph, inputs):
        used.append(len(list(graph.graph.nodes)))
        return graph.forward

    compile_layers(compiled, backend)
    mixture, conditions = torch.randn(1, 1, 4000), vectors(["a", "b"]).view(1, 2, DIM)
    with torch.no_grad():
        mine, theirs = compiled.separate(mixture, conditions), plain.separate(mixture, conditions)
    assert torch.allclose(mine.targets, theirs.targets, atol=1e-6)
    assert torch.allclose(mine.logits, theirs.logits, atol=1e-6)
    assert len(used) >= 5 and sum(used) > 100  # the layers went through it; those of one shape share what was compiled
    assert compiled.state_dict().keys() == plain.state_dict().keys()
