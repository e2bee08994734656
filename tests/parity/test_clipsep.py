"""CLIPSep, its relatives and the bi-modal network against outputs of the published code, through files as released.

Set SEPARATION_PARITY to the folder with the fixtures (`clipsep/fixtures/*.npz`, `clipsep/fill_weights.py`).
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from fixtures import arrays, clipsep_state, fixtures, largest, needs_fixtures

from separation import Separator
from separation.models.bimodal_unet import pack
from separation.models.clipsep_unet import repeat_to_period
from separation.models.spectra import resample_rows

pytestmark = needs_fixtures
MASK, WAVE = 1e-4, 1e-5


def load(folder: Path, name: str, **options) -> Separator:
    """A separator from a file as released."""
    file = folder / f"{name}.pt"
    torch.save(clipsep_state(name), file)
    return Separator.from_pretrained(file, **options)


def binary_tolerance(soft: torch.Tensor, magnitude: torch.Tensor) -> float:
    """What the bins within the margin of the threshold can change in a sample, if they all flip."""
    near = (soft - 0.5).abs() < MASK
    return WAVE + float(magnitude[near].sum()) / 256


@pytest.mark.parametrize("case", [*fixtures("clipsep", "clipsep"), *fixtures("clipsep", "clipsep_nit")] or [""])
def test_masks_and_waveforms(tmp_path, case):
    expected = arrays("clipsep", case)
    noisy = "noise_wav_soft" in expected
    separator = load(tmp_path, "clipsep_nit" if noisy else "clipsep")
    model, mixture, query = separator.model, expected["waveform"][None, None], expected["query"]
    assert largest(model(mixture, query)[0, 0], expected["wav_soft"]) < WAVE
    magnitude = model.stft(repeat_to_period(mixture))[:, 0].abs()
    features = model.features(magnitude)
    mask = model.masks(features, query[:, None])
    assert largest(mask[0, 0], expected["mask_logfreq"]) < MASK
    assert largest(resample_rows(mask, model.among_rows)[0, 0], expected["mask_linear"]) < MASK
    if noisy:
        noise = model.masks_with_noise(features, query[:, None])[1]
        assert largest(noise[0], expected["noise_mask_logfreq"]) < MASK
        assert largest((mask[0] + noise[0]).clamp(max=1), expected["target_plus_noise_clamped"]) < MASK
        assert largest(model.separate_noise(mixture, query[:, None])[0, :, 0], expected["noise_wav_soft"]) < WAVE


@pytest.mark.parametrize("case", fixtures("clipsep", "clipsep") or [""])
def test_published_inference_is_binary(tmp_path, case):
    expected = arrays("clipsep", case)
    separator = load(tmp_path, "clipsep", faithful=True)
    result = separator(expected["waveform"], expected["query"][0], 16000)
    tolerance = binary_tolerance(expected["mask_linear"], expected["mag_mix"])
    deviation = largest(result.target[0], expected["wav_binary"])
    print(case, deviation, tolerance)
    assert deviation < tolerance
    assert largest(expected["wav_soft"], expected["wav_binary"]) > 5 * tolerance


@pytest.mark.parametrize("case", fixtures("clipsep", "bimodal") or [""])
def test_bimodal(tmp_path, case):
    expected = arrays("clipsep", case)
    file = tmp_path / "model_best.pth.tar"
    torch.save({"epoch": 3, "state_dict": clipsep_state("bimodal"), "best_sdr": 1.5, "history": {"err": [0.1]}}, file)
    separator = Separator.from_pretrained(file)
    random = np.random.default_rng(int(expected["hidden_seed"]))
    hidden = torch.from_numpy(random.standard_normal((1, 2, 77, 768)).astype(np.float32))[0]
    conditions, mixture = pack(expected["text_embed"], hidden), expected["mix"][None, None]
    seen, mask = [], separator.model.mask
    separator.model.mask = lambda *inputs: seen.append(mask(*inputs)) or seen[-1]
    waves = separator.model.separate(mixture, conditions[None]).targets
    masks = torch.cat(seen)  # a pass of this network takes seconds
    assert largest(masks, expected["mask"]) < MASK
    assert largest(waves[0, :, 0], expected["pred_wavs"]) < WAVE
    clips = separator.model.stft(expected["sources"]).abs()
    weight = torch.log1p(expected["mag_mix"]).clamp(1e-3, 10)
    loss = (weight * (masks * expected["mag_mix"] - clips).abs()).mean((1, 2)).sum()
    assert float(loss) == pytest.approx(float(expected["url_loss"]), rel=1e-4)
