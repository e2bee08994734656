"""The joint audio-text space: its filters, its levels and its shapes."""

import numpy as np
import pytest
import torch
from tiny import noise, vectors

from separation.encoders.base import select_sounding
from separation.encoders.joint import TEMPLATES, JointEncoder
from separation.encoders.sentence import SentenceEncoder
from separation.models.spectra import mel_filters
from separation.own_sounds import OwnNames
from separation.query import Query, encode_queries
from separation.vocabulary.sounds import wordings

EDGES = np.linspace(2595 * np.log10(1 + 50 / 700), 2595 * np.log10(1 + 16000 / 700), 66)


def chord(sample_rate, factor=1.0):
    """A second of four tones with a swell, (1, time)."""
    time = np.arange(sample_rate) / sample_rate
    wave = sum(np.sin(2 * np.pi * hertz * factor * time) for hertz in (300, 800, 2100, 3300))
    return torch.tensor(wave * np.sin(np.pi * time) ** 2, dtype=torch.float32)[None]


@pytest.fixture(scope="module")
def calibrated():
    """Random weights, and batch norm statistics with which recordings differ."""
    torch.manual_seed(0)
    encoder = JointEncoder(channels=(4, 4, 4, 4), hidden=16, embedding_dim=24)
    examples = torch.cat([torch.cat([noise(0.5, seed=i), chord(16000, 1 + i)]) for i in range(4)])
    pooled = []
    hook = encoder.project[0].register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0].mean(0)))
    with torch.no_grad():
        for _ in range(20):
            encoder.train().encode_audio(examples, 32000)
        encoder.eval().encode_audio(examples, 32000)
        encoder.project[0].bias.copy_(-encoder.project[0].weight @ pooled[-1])
        for linear in (encoder.project[3], encoder.text[3]):
            linear.bias.zero_()
    hook.remove()
    return encoder


@pytest.fixture
def encoder(calibrated, monkeypatch):
    monkeypatch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))
    return calibrated


@pytest.mark.parametrize("n_fft, mels, sample_rate", [(1024, 64, 32000), (512, 40, 16000), (1024, 64, 8000)])
def test_mel_filters_are_triangles_of_unit_sum_between_even_mels(n_fft, mels, sample_rate):
    filters = mel_filters(sample_rate, n_fft, mels, 50, sample_rate / 2, "htk").double().numpy().T
    edges = np.linspace(2595 * np.log10(1 + 50 / 700), 2595 * np.log10(1 + sample_rate / 2 / 700), mels + 2)
    mel = 2595 * np.log10(1 + np.linspace(0, sample_rate / 2, n_fft // 2 + 1) / 700)
    for i in range(mels):
        triangle = np.interp(mel, edges[i : i + 3], [0, 1, 0], left=0, right=0)
        assert np.allclose(filters[i], triangle / triangle.sum(), atol=1e-4)


def test_log_mel_is_the_mean_power_under_each_filter(encoder):
    wave = noise(0.5)
    found = encoder.spectrogram(wave)[0, 0].double().numpy()
    padded = np.pad(wave[0].double().numpy(), 512)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = [padded[k : k + 1024] * window for k in range(0, len(padded) - 1023, 640)]
    power = np.abs(np.fft.rfft(frames)).T ** 2
    mel = mel_filters(32000, 1024, 64, 50, 16000, "htk").double().numpy().T @ power
    assert found.shape == mel.shape == (64, 26)
    assert np.allclose(found, np.log10(mel / mel.mean() + 1e-6) / 2 + 1, atol=1e-4)


@pytest.mark.parametrize("hertz", [200, 1000, 5000, 12000])
def test_a_tone_has_its_maximum_in_its_filter(encoder, hertz):
    tone = torch.sin(2 * torch.pi * hertz * torch.arange(32000, dtype=torch.float64) / 32000).float()[None]
    loudest = int(encoder.spectrogram(tone)[0, 0, :, 10].argmax())
    assert loudest == np.abs(EDGES[1:-1] - 2595 * np.log10(1 + hertz / 700)).argmin()


@pytest.mark.parametrize("factor", [1e-3, 0.1, 100.0, -1.0])
def test_the_level_of_an_example_does_not_matter(encoder, factor):
    wave = noise(1.0)
    vector, scaled = encoder.encode_audio(wave, 32000), encoder.encode_audio(factor * wave, 32000)
    assert torch.allclose(vector, scaled, atol=1e-4)


def test_vectors_have_unit_length(encoder):
    audio, text = encoder.encode_audio(noise(1.0, channels=3), 32000), encoder.encode_text(["dog", "rain"])
    assert (audio.shape, text.shape, encoder.embedding_dim) == ((3, 24), (2, 24), 24)
    assert encoder.modalities == {"text", "audio"}
    assert torch.allclose(torch.cat([audio, text]).norm(dim=1), torch.ones(5), atol=1e-5)
    assert (text[0] - text[1]).norm() > 1e-3
    hiss, tones = encoder.encode_audio(torch.cat([noise(1.0), chord(32000)]), 32000)
    assert (hiss - tones).norm() > 0.1


def test_examples_of_a_batch_are_independent(encoder):
    waves = noise(1.0, channels=3) * torch.tensor([[1.0], [0.1], [5.0]])
    for wave, vector in zip(waves, encoder.encode_audio(waves, 32000), strict=True):
        assert torch.allclose(encoder.encode_audio(wave[None], 32000)[0], vector, atol=1e-5)


def test_an_example_is_resampled(encoder):
    expected = encoder.encode_audio(chord(32000), 32000)
    for sample_rate in (8000, 44100, 48000):
        assert (encoder.encode_audio(chord(sample_rate), sample_rate) - expected).norm() < 0.02
    assert (encoder.encode_audio(chord(44100), 32000) - expected).norm() > 0.02


@pytest.mark.parametrize("wave", [torch.zeros(1, 32000), *(noise(n / 32000) for n in (1, 100, 1023, 1024, 5000))])
def test_short_and_silent_examples_give_finite_vectors(encoder, wave):
    assert torch.isfinite(encoder.encode_audio(wave, 32000)).all()


def test_a_long_example_is_the_mean_of_its_segments(encoder):
    wave = torch.cat([noise(6.0), 0.2 * noise(6.0, seed=1)], 1)
    halves = encoder.encode_audio(wave.reshape(2, -1), 32000).mean(0, keepdim=True)
    expected = halves / halves.norm()
    assert torch.allclose(encoder.encode_examples((wave, 32000)), expected, atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_only_the_part_of_an_example_that_sounds_counts(rate):
    loud, faint = noise(1.5, rate)[0], 10 ** (-30 / 20) * noise(2.0, rate, seed=1)[0]
    quiet = 10 ** (-60 / 20) * noise(1.0, rate, seed=2)[0]
    around = torch.cat([torch.zeros(2 * rate), quiet, loud, quiet, torch.zeros(2 * rate + 7)])
    assert torch.equal(select_sounding(around, rate), loud)
    assert torch.equal(select_sounding(torch.cat([loud, faint, loud]), rate), torch.cat([loud, loud]))
    long = torch.cat([loud.repeat(50), 10 * loud.repeat(40)])  # the loudest minute
    assert torch.equal(select_sounding(long, rate), 10 * loud.repeat(40))
    assert torch.equal(select_sounding(torch.zeros(9), rate), torch.zeros(9))


def test_silence_around_an_example_changes_nothing_and_labels_draw_it(encoder):
    torch.manual_seed(0)
    for tested in (encoder, JointEncoder(hidden=16, embedding_dim=24, tagger=True).eval()):
        wave = noise(1.0, 32000)
        expected = tested.encode_examples((wave, 32000))
        padded = torch.nn.functional.pad(wave, (2 * 32000, 2 * 32000))
        assert torch.allclose(tested.encode_examples((padded, 32000)), expected, atol=1e-5)
    plain, labels = tested.encode_audio(wave, 32000), tested.embed_labels(list(wordings()))
    nearest = (plain @ labels.T).amax()
    assert (expected @ labels.T).amax() > nearest and (expected @ plain.T) > 0.5


@pytest.mark.parametrize("shares, taken", [((0.8,), "whole"), ((0.1, 0.9), "rest"), ((0.1, 0.01), "whole")])
def test_the_loudest_sound_of_an_example_is_encoded(encoder, monkeypatch, shares, taken):
    tested = JointEncoder(hidden=16, embedding_dim=24, tagger=True).eval()
    monkeypatch.setattr(tested, "encode_audio", lambda wave, rate: vectors([f"{float(wave.norm()):.2f}"], 24))
    wave, tones = noise(1.0, 32000), chord(32000)
    wave, tones = (each / each.norm() for each in (wave, tones))
    example, given = wave + 0.3 * tones, iter(shares)
    expected = {"whole": tested.encode_example(example[0]), "rest": tested.encode_example(wave[0])}
    assert (expected["whole"] - expected["rest"]).norm() > 1e-3

    def extract(waveform, condition):
        assert condition.shape == (1, 24)
        if len(shares) == 2 and torch.equal(condition, expected["whole"]):
            next(given)
            return 0.3 * tones[0]
        return next(given) ** 0.5 * waveform

    assert torch.allclose(tested.encode_example(example[0], extract), expected[taken], atol=1e-5)
    assert next(given, None) is None  # each candidate is extracted once


def test_a_text_is_the_mean_over_templates(encoder):
    inputs = []
    hook = encoder.text[0].register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    embedded = sum(
        encoder.embed_sentences(vectors([t.format(text) for text in ("dog", "rain")], 384)) for t in TEMPLATES
    )
    hook.remove()
    assert torch.allclose(
        encoder.encode_text(["dog", "rain"]), embedded / embedded.norm(dim=-1, keepdim=True), atol=1e-6
    )
    assert inputs[0].square().mean().item() == pytest.approx(1.0, abs=1e-4)  # unit variance
    with pytest.raises(TypeError, match="a list of texts"):
        encoder.encode_text("dog")


def test_a_query_is_moved_towards_the_labels_that_it_resembles(encoder, monkeypatch):
    texts = {"dog bark": ["a dog", "barking"], "rain": ["drizzle"]}
    plain = encoder.encode_text(["rain", "a puppy"])
    assert torch.equal(encoder.encode_query(["rain", "a puppy"]), plain)  # no labels are stored
    for name in ("labels", "classes"):
        monkeypatch.setattr(encoder, name, getattr(encoder, name))
    encoder.describe_labels(texts, [])
    dog = encoder.encode_text(["dog bark", "a dog", "barking"]).mean(0)
    assert torch.allclose(encoder.labels[0], dog / dog.norm(), atol=1e-6) and encoder.labels.shape == (2, 24)
    odds = torch.exp(10 * plain @ encoder.labels.T)
    mean = odds / odds.sum(1, keepdim=True) @ encoder.labels
    moved = plain + 2 * mean / mean.norm(dim=1, keepdim=True)
    assert torch.allclose(encoder.encode_query(["rain", "a puppy"]), moved / moved.norm(dim=1, keepdim=True), atol=1e-6)
    asked = encode_queries([Query("rain"), Query("rain", as_one=True)], encoder, 24)
    assert torch.equal(asked, torch.stack([encoder.encode_query(["rain"])[0], plain[0]]))
    encoder.describe_labels(texts, ["music"])
    assert torch.equal(encoder.encode_query(["music"]), encoder.encode_text(["music"]))  # nearest to a class
    assert torch.equal(encoder.encode_query(["rain"])[0], asked[0])
    own = OwnNames(vectors(["a puppy"] * len(TEMPLATES), 384)[None], vectors(["cat"], 384)[None], dog[None])
    monkeypatch.setattr(encoder, "own", own)
    assert torch.equal(encoder.encode_query(["a puppy"]), encoder.encode_text(["a puppy"]))  # a user's own sound


def test_the_state_dict_holds_trained_weights_only(encoder):
    assert {name.split(".")[0] for name in encoder.state_dict()} == {"text", "audio", "project"}
    assert 0.5e6 < sum(p.numel() for p in JointEncoder().parameters()) < 3e6
