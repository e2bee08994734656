"""Every tensor of the published lists belongs to the network that is recognised.

Set SEPARATION_PARITY to the folder with the lists (`uss/state_dicts/*.json`, `clipsep/state_dicts/*.json`).
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from fixtures import needs_fixtures, shapes

from separation.pretrained import build
from separation.released.recognise import recognise
from separation.storage.tensors import select


@needs_fixtures
@pytest.mark.parametrize(
    ("part", "name", "system", "network", "left_out"),
    [
        ("uss", "audiosep", "audiosep", 327, 5),
        ("uss", "audiosep_dcase2024_16k", "dcase2024", 327, 5),
        ("uss", "uss_at_soft_527", "uss", 327, 5),
        ("uss", "uss_embedding_2048", "uss-embedding", 327, 5),
        ("clipsep", "clipsep", "clipsep", 79, 0),
        ("clipsep", "clipsep_nit", "clipsep-nit", 83, 0),
        ("clipsep", "labelsep_309", "labelsep", 80, 0),
        ("clipsep", "bertsep", "bertsep", 79, 0),
        ("clipsep", "pit", "clipsep-pit", 77, 0),
        ("clipsep", "clipsep_early", "clipsep-early", 77, 0),
        ("clipsep", "clipsep_middle", "clipsep-middle", 89, 0),
        ("clipsep", "bimodal", "bimodal", 271, 5),
    ],
)
def test_every_tensor_has_its_place(part, name, system, network, left_out):
    prefix = "ss_model." if part == "uss" else ""
    state = {prefix + key: torch.empty(shape, device="meta") for key, shape in shapes(part, name).items()}
    found = recognise(state, name)
    model = select(found.tensors, "model.")
    encoder = select(found.tensors, "encoder.").keys() - model.keys()  # LabelSep's table belongs to both
    assert (found.system, len(model), len(state) - len(model) - len(encoder)) == (system, network, left_out)
    ours = {k: v.shape for k, v in build(found.description["model"]).state_dict().items()}
    assert ours == {k: v.shape for k, v in model.items()}
