"""The objectives' losses against the published code's, through the classes that train.

Set SEPARATION_PARITY to the folder with the fixtures (`clipsep/fixtures/*_loss.npz`, `clipsep/fill_weights.py`).
"""

import sys
from functools import cache
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from fixtures import arrays, clipsep_state, needs_fixtures

pytest.importorskip("lightning", reason="needs the extra [train]")

from separation import Separator
from separation.encoders.table import RandomEncoder
from separation.training.objectives.noise_invariant import NoiseInvariant
from separation.training.objectives.supervised import Supervised

pytestmark = needs_fixtures


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Networks from files as released, each loaded once."""

    @cache
    def load(name):
        file = tmp_path_factory.mktemp("released") / f"{name}.pt"
        torch.save(clipsep_state(name), file)
        return Separator.from_pretrained(file).model

    return load


def test_clipsep(network):
    expected = arrays("clipsep", "clipsep_loss")
    module = Supervised(network("clipsep"), RandomEncoder(512), "binary_mask").eval()
    _, truth, weight = module.mask_targets(expected["sources"])
    assert torch.equal(truth.transpose(0, 1)[:, :, None].to(torch.uint8), expected["gt_masks"])
    assert torch.allclose(weight[:, None], expected["weight"], atol=1e-6)
    loss = module.mean_loss(expected["sources"], expected["query"].transpose(0, 1))
    assert loss.item() == pytest.approx(float(expected["loss"]), rel=1e-5)


@pytest.mark.parametrize(
    "wanted, settings",
    [
        ("loss", {}),
        ("loss_gamma_term_off", {"gamma": 2.0}),
        ("loss_reg2_0.1_gamma_0.5", {"gamma": 0.5}),
        ("loss_no_noise_heads", {"warmup": 1}),
    ],
)
def test_clipsep_nit(network, wanted, settings):
    expected = arrays("clipsep", "clipsep_nit_loss")
    module = NoiseInvariant(network("clipsep_nit"), RandomEncoder(512), **settings).eval()
    module.log = lambda *_, **__: None
    loss = module.mean_loss(expected["sources"], expected["query"].transpose(0, 1))
    assert loss.item() == pytest.approx(float(expected[wanted]), rel=1e-5)
