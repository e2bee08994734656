"""AudioSep's and USS's separators against outputs of the published code, through checkpoint files as released.

Set SEPARATION_PARITY to the folder with the fixtures (`uss/fixtures/*_resunet30_*.npz`, `uss/fill_weights.py`).
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from fixtures import PARITY, arrays, fixtures, largest, meta, needs_fixtures, resunet_state

from separation import Separator

pytestmark = needs_fixtures
STATES = {
    "audiosep_resunet30": "audiosep",
    "uss_resunet30_at527": "uss_at_soft_527",
    "uss_resunet30_emb2048": "uss_embedding_2048",
}
NAMES = {"audiosep": "audiosep", "uss_at_soft_527": "uss", "uss_embedding_2048": "uss-embedding"}
CASES = [(stem, case) for stem in STATES for case in fixtures("uss", stem)] or [("", "")]


def checkpoint(file: Path, name: str, seed: int) -> Path:
    """A Lightning checkpoint as released: prefix, training state, and tensors of other parts beside it."""
    state = {f"ss_model.{key}": value for key, value in resunet_state(name, seed).items()}
    assert len(state) == 332
    state["query_encoder.model.text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    torch.save({"state_dict": state, "epoch": 3, "global_step": 7, "loops": {"fit": {}}, "optimizer_states": []}, file)
    return file


@pytest.mark.parametrize(("stem", "case"), CASES)
def test_waveforms(tmp_path, stem, case, record_property):
    expected = arrays("uss", case)
    name = STATES[stem]
    separator = Separator.from_pretrained(checkpoint(tmp_path / "x.ckpt", name, meta("uss", case)["seed"]))
    assert separator.encoder.family == NAMES[name]
    ours = separator.model(expected["mixture"], expected["condition"])
    deviation = largest(ours, expected["output"])
    record_property("deviation", deviation)
    print(case, deviation)
    assert deviation < 1e-5
    assert float(expected["output"].abs().max()) > 0.05  # which is not small beside that
    for site in ("encoder_block1/conv_block1/beta1", "decoder_block6/conv_block2/beta2", "decoder_block6/beta1"):
        linear = separator.model.film[site.replace("/", "->")]
        assert largest(linear(expected["condition"]), expected[f"film/{site}"]) < 1e-5


def test_published_inference_through_the_separator(tmp_path):
    case = "audiosep_resunet30_A"
    expected = arrays("uss", case)
    file = checkpoint(tmp_path / "x.ckpt", "audiosep", meta("uss", case)["seed"])
    separator = Separator.from_pretrained(file, faithful=True)
    both = separator(expected["mixture"][0].expand(2, -1), expected["condition"], 32000)
    assert largest(both.target, expected["output"][0].expand(2, -1)) < 1e-5


def test_fixtures_are_there():
    assert len(CASES) >= 3, f"{PARITY} lacks fixtures"
