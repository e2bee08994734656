"""Feature-wise modulation."""

import pytest
import torch

from separation.models.band_unet import FiLM


def test_scale_and_shift_come_from_the_condition():
    film = FiLM(2, 3)
    with torch.no_grad():
        film.project.weight.copy_(torch.tensor([[1.0, 0], [2, 0], [3, 0], [0, 1], [0, 2], [0, 3]]))
        film.project.bias.copy_(torch.tensor([0.0, 0, 0, 0.5, 0.5, 0.5]))
    x = torch.randn(2, 3, 4, 5)
    condition = torch.tensor([[1.0, 10.0], [-1.0, 0.0]])
    result = film(x, condition)
    for row, (a, b) in enumerate([(1.0, 10.0), (-1.0, 0.0)]):
        for channel in range(3):
            k = channel + 1
            assert torch.allclose(result[row, channel], x[row, channel] * (1 + k * a) + k * b + 0.5, atol=1e-5)


def test_a_condition_that_says_nothing_changes_nothing():
    film = FiLM(4, 3)
    with torch.no_grad():
        film.project.bias.zero_()
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(film(x, torch.zeros(2, 4)), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_keep_their_precision(dtype):
    assert FiLM(4, 3)(torch.randn(1, 3, 2, 2, dtype=dtype), torch.randn(1, 4)).dtype == dtype
