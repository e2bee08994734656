"""The joint audio-text space: its filters, its levels and its shapes."""

import numpy as np
import pytest
import torch
from tiny import noise, vectors

from separation.encoders.sentence import SentenceEncoder
from separation.encoders.sound import FRAMES, LogMel, SoundEncoder, mel_matrix


def chord(sample_rate, factor=1.0):
    """A second of four tones that come and go, (1, time)."""
    time = np.arange(sample_rate) / sample_rate
    wave = sum(np.sin(2 * np.pi * hertz * factor * time) for hertz in (300, 800, 2100, 3300))
    return torch.tensor(wave * np.sin(np.pi * time) ** 2, dtype=torch.float32)[None]


@pytest.fixture(scope="module")
def calibrated():
    """Random weights, and statistics under which recordings are told apart."""
    torch.manual_seed(0)
    encoder = SoundEncoder(channels=(4, 4, 4, 4), hidden=16, embedding_dim=24)
    examples = torch.cat([torch.cat([noise(0.5, seed=i), chord(16000, 1 + i)]) for i in range(4)])
    pooled = []
    encoder.project[0].register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0].mean(0)))
    with torch.no_grad():
        for _ in range(20):
            encoder.train().encode_audio(examples, 32000)
        encoder.eval().encode_audio(examples, 32000)
        encoder.project[0].bias.copy_(-encoder.project[0].weight @ pooled[-1])
        for linear in (encoder.project[3], encoder.text[3]):
            linear.bias.zero_()
    encoder.project[0]._forward_pre_hooks.clear()
    return encoder


@pytest.fixture
def encoder(calibrated, monkeypatch):
    monkeypatch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))
    return calibrated


@pytest.mark.parametrize("bins, mels, sample_rate", [(513, 64, 32000), (257, 40, 16000), (513, 64, 8000)])
def test_mel_filters_are_triangles_of_unit_sum_between_even_mels(bins, mels, sample_rate):
    filters = mel_matrix(bins, mels, sample_rate).double().numpy()
    assert np.allclose(filters.sum(1), 1, atol=1e-5)
    assert (filters >= 0).all()
    edges = np.linspace(2595 * np.log10(1 + 50 / 700), 2595 * np.log10(1 + sample_rate / 2 / 700), mels + 2)
    mel = 2595 * np.log10(1 + np.linspace(0, sample_rate / 2, bins) / 700)
    for i in range(mels):
        triangle = np.interp(mel, edges[i : i + 3], [0, 1, 0], left=0, right=0)
        assert np.allclose(filters[i], triangle / triangle.sum(), atol=1e-4)


def test_log_mel_is_the_mean_power_under_each_filter():
    log_mel = LogMel(32000)
    wave = noise(0.5)
    found = log_mel(wave)[0, 0].double().numpy()
    padded = np.pad(wave[0].double().numpy(), 512)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = [padded[k : k + 1024] * window for k in range(0, len(padded) - 1023, 640)]
    power = np.abs(np.fft.rfft(frames)).T ** 2
    mel = mel_matrix(513, 64, 32000).double().numpy() @ power
    assert found.shape == mel.shape == (64, 26)
    assert np.allclose(found, np.log10(mel / mel.mean() + 1e-6) / 2 + 1, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-3, 0.1, 100.0, -1.0])
def test_the_level_of_an_example_does_not_matter(encoder, factor):
    wave = noise(1.0)
    assert torch.allclose(encoder.log_mel(factor * wave), encoder.log_mel(wave), atol=1e-4)
    plain, scaled = encoder.encode_audio(wave, 32000), encoder.encode_audio(factor * wave, 32000)
    assert torch.allclose(plain, scaled, atol=1e-4)


@pytest.mark.parametrize("hertz", [200, 1000, 5000, 12000])
def test_a_tone_shows_in_its_filter(hertz):
    time = torch.arange(32000, dtype=torch.float64) / 32000
    tone = torch.sin(2 * torch.pi * hertz * time).float()[None]
    loudest = int(LogMel(32000)(tone)[0, 0, :, 10].argmax())
    edges = np.linspace(2595 * np.log10(1 + 50 / 700), 2595 * np.log10(1 + 16000 / 700), 66)
    assert loudest == np.abs(edges[1:-1] - 2595 * np.log10(1 + hertz / 700)).argmin()


def test_the_spaces_vectors_have_unit_length(encoder):
    audio = encoder.encode_audio(noise(1.0, channels=3), 32000)
    text = encoder.encode_text(["dog", "rain"])
    assert audio.shape == (3, 24)
    assert text.shape == (2, 24)
    assert encoder.embedding_dim == 24
    for rows in (audio, text):
        assert torch.allclose(rows.norm(dim=1), torch.ones(len(rows)), atol=1e-5)


def test_examples_of_a_batch_do_not_touch_each_other(encoder):
    waves = noise(1.0, channels=3) * torch.tensor([[1.0], [0.1], [5.0]])
    together = encoder.encode_audio(waves, 32000)
    for wave, vector in zip(waves, together, strict=True):
        assert torch.allclose(encoder.encode_audio(wave[None], 32000)[0], vector, atol=1e-5)


def test_an_example_at_another_rate_means_the_same(encoder):
    wanted = encoder.encode_audio(chord(32000), 32000)
    for sample_rate in (8000, 44100, 48000):
        assert (encoder.encode_audio(chord(sample_rate), sample_rate) - wanted).norm() < 0.02
    assert (encoder.encode_audio(chord(44100), 32000) - wanted).norm() > 0.02


@pytest.mark.parametrize("length", [1, 100, 1023, 1024, 5000])
def test_short_examples_will_do(encoder, length):
    vector = encoder.encode_audio(noise(length / 32000), 32000)
    assert vector.shape == (1, 24)
    assert torch.isfinite(vector).all()


def test_silence_gives_a_finite_vector(encoder):
    assert torch.isfinite(encoder.encode_audio(torch.zeros(1, 32000), 32000)).all()


def test_a_text_is_the_mean_of_its_frames(encoder):
    framed = [encoder.embed_sentences(vectors([f.format(t) for t in ("dog", "rain")], 384)) for f in FRAMES]
    wanted = sum(framed) / torch.linalg.vector_norm(sum(framed), dim=-1, keepdim=True)
    assert torch.allclose(encoder.encode_text(["dog", "rain"]), wanted, atol=1e-6)
    # Unit variance where it enters: the first layer sees sqrt(384) times the unit vector.
    seen = []
    hook = encoder.text[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    encoder.embed_sentences(vectors(["dog", "rain"], 384))
    hook.remove()
    assert seen[0].square().mean().item() == pytest.approx(1.0, abs=1e-4)


def test_text_and_audio_are_distinguished_from_one_another(encoder):
    assert encoder.modalities == {"text", "audio"}
    a, b = encoder.encode_text(["dog", "rain"])
    assert (a - b).norm() > 1e-3
    hiss, tones = encoder.encode_audio(torch.cat([noise(1.0), chord(32000)]), 32000)
    assert (hiss - tones).norm() > 0.1


def test_only_what_is_learnt_is_stored(encoder):
    names = set(encoder.state_dict())
    assert names
    assert all(name.startswith(("text.", "audio.", "project.")) for name in names)


def test_the_default_size():
    parameters = sum(p.numel() for p in SoundEncoder().parameters())
    assert 0.5e6 < parameters < 3e6
