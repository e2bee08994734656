"""The tagger, its branch in the separator, and the default model against outputs of the code that trained it."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import DIM, small_rate_model, tiny_model, vectors
from torch.nn import functional as F

from separation.audio import resample
from separation.models.band_unet import BandUNet
from separation.models.tagger import LogMelPatches

RATE = 32000
REFERENCE = np.load(Path(__file__).parent / "frozen" / "listening.npz")


@pytest.fixture(scope="module")
def separator(default):
    return default


@pytest.fixture(scope="module")
def mixture():
    """Five seconds of the demonstration mixture, (1, 2, time), at the level of the reference."""
    samples, rate = soundfile.read(Path(__file__).parents[1] / "demos" / "mix.wav", dtype="float32")
    wave = resample(torch.from_numpy(samples.T.copy()), rate, RATE)[:, RATE : 6 * RATE + 777]
    return (wave / wave.sum(0).square().mean().sqrt())[None]


def unit_vectors(seed, dim):
    return F.normalize(torch.from_numpy(np.random.default_rng(seed).standard_normal((2, dim))).float(), dim=-1)


@torch.inference_mode()
def test_the_default_model_computes_what_its_training_code_computed(separator, mixture):
    estimate = separator.model.separate(mixture, unit_vectors(0, 256)[None])
    assert np.abs(estimate.targets[0, :, :, ::500].numpy() - REFERENCE["targets"]).max() < 1e-5  # of 2.5
    assert np.abs(estimate.logits[0].numpy() - REFERENCE["logits"]).max() < 1e-4  # of 10.6
    assert np.abs(estimate.tags[0, :, ::8].numpy() - REFERENCE["tags"]).max() < 1e-4  # of 29


@torch.inference_mode()
def test_the_default_encoder_computes_what_its_training_code_computed(separator, mixture):
    example = separator.encoder.embed_audio(mixture[0, :1, : 3 * RATE + 5])
    sentences = separator.encoder.embed_sentences(unit_vectors(1, 384))
    assert np.abs(example[0].numpy() - REFERENCE["example"]).max() < 1e-5
    assert np.abs(sentences.numpy() - REFERENCE["sentences"]).max() < 1e-6


def test_a_tone_lies_in_its_mel_band():
    patches = LogMelPatches(RATE)(
        2**0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(2 * RATE) / RATE)[None, None], 5
    )
    assert patches.shape == (1, 5, 96, 64)
    mel = 1127 * np.log1p(np.array([125, 1000, 7500]) / 700)
    assert patches[0, 2, 48].argmax() == round((mel[1] - mel[0]) / (mel[2] - mel[0]) * 65) - 1
    assert patches[0, 0, :40].unique().tolist() == pytest.approx([np.log(1e-3)])  # before the recording


def test_patches_of_a_part_that_starts_on_the_grid_equal_those_of_the_whole():
    patches, noise = LogMelPatches(RATE), torch.randn(1, 2, 4 * RATE)
    whole, part = patches(noise, 9), patches(noise[..., RATE // 2 :], 8)
    assert torch.allclose(part[:, 2:], whole[:, 3:], atol=1e-4)
    flipped = patches(noise.flip(1) * torch.tensor([[1.0], [-1.0]]), 9)
    assert torch.allclose(flipped, whole, atol=1e-5)


def test_the_tagger_recognises_sounds_of_the_demonstration(separator, mixture):
    with torch.inference_mode():
        tags = separator.model.separate(mixture, unit_vectors(0, 256)[None]).tags.sigmoid()[0].amax(0)
    assert tags[69] > 0.5 or tags[70] > 0.5  # Dog, Bark


def test_an_untrained_branch_changes_nothing():
    plain, branched = tiny_model(), tiny_model(tagger=True)
    branched.load_state_dict(plain.state_dict(), strict=False)
    noise, conditions = torch.randn(1, 1, 2 * RATE), vectors(["dog"])[None]
    with torch.inference_mode():
        expected, found = plain.separate(noise, conditions), branched.separate(noise, conditions)
    assert torch.allclose(found.targets, expected.targets, atol=1e-6)
    assert expected.tags is None
    assert found.tags.shape == (1, 6, 521)


def test_folded_norms_give_the_same_estimates():
    model, noise, conditions = small_rate_model(), torch.randn(1, 1, 8000), vectors(["dog", "rain"])[None]
    with torch.inference_mode():
        expected = model.separate(noise, conditions)
        model.fold_norms()
        found = model.separate(noise, conditions)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert torch.allclose(found.targets, expected.targets, atol=1e-5)
    assert torch.allclose(found.logits, expected.logits, atol=1e-4)


def test_a_tagger_needs_eight_coarse_frames_a_second():
    with pytest.raises(ValueError, match="hop of 500 samples, not 250"):
        BandUNet(hop=250, tagger=True, condition_dim=DIM)
