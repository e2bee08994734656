"""Weak supervision from text: losses in plain computations and against the published code, data, separators, runs."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import DIM, TinyEncoder, small_rate_model, write_corpus
from torch.nn import functional as F

pytest.importorskip("lightning", reason="needs the extra [train]")
sys.path.insert(0, str(Path(__file__).parent / "parity"))

from fixtures import arrays, needs_fixtures
from lightning.pytorch.callbacks import ModelCheckpoint
from parts import RATE, fit, small_encoder

from separation.data.captioned import CaptionedData, CaptionMixer
from separation.data.corpus import Corpus
from separation.data.derived import MixedClips
from separation.data.texts import draw_published_phrases, published_phrases
from separation.encoders.base import EncoderError
from separation.encoders.table import RandomEncoder
from separation.errors import DataError
from separation.models.bimodal_unet import BiModalUNet, CrossAttention
from separation.models.resunet import ResUNet30
from separation.models.spectra import STFT
from separation.released.encoder import StatesEncoder
from separation.training.losses import consistency_loss, reconstruction_loss
from separation.training.objectives.bimodal import Bands, BiModal, Magnitudes, resample, spectral_view

pytestmark = pytest.mark.usefixtures("no_sentence_weights")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), labels=6, recordings=2, seconds=0.8)


def objective(**arguments):
    module = BiModal(small_rate_model().train(), small_encoder(), **arguments).train()
    module.logged = {}
    module.log = lambda name, value, **options: module.logged.update({name: float(torch.as_tensor(value).detach())})
    return module


def data(manifest, **arguments):
    options = {"batch_size": 3, "seconds": 0.5, "batches": 2, "sample_rate": RATE, "sources": 2, "made": 20}
    module = CaptionedData(manifest, **(options | arguments))
    module.setup("fit")
    return module


def batch_of(manifest, **arguments):
    module = data(manifest, **arguments)
    return module.draw_batch([np.random.default_rng(i) for i in range(module.batch_size)], np.random.default_rng(9), 0)


# --- Losses --------------------------------------------------------------------------------------


@needs_fixtures
def test_url_is_the_published_one():
    expected = arrays("clipsep", "bimodal_A")
    clips = STFT(1022, 256, None, "reflect")(expected["sources"]).abs()
    mixture = expected["mag_mix"][None]
    found = reconstruction_loss((expected["mask"] * mixture[0])[None], clips[None], mixture)
    assert float(found) == pytest.approx(float(expected["url_loss"]), rel=1e-5)


def test_parts_that_add_up_to_their_clip_have_no_loss():
    generator = torch.Generator().manual_seed(0)
    parts = torch.rand(2, 2, 3, 4, 5, generator=generator)
    shares = torch.tensor([1.0, 0.5, 0.5]).expand(2, 2, 3)
    clips = (parts * shares[..., None, None]).sum(2)
    assert consistency_loss(parts, shares, clips).item() == pytest.approx(0, abs=1e-6)
    assert consistency_loss(parts, torch.ones(2, 2, 3), clips).item() > 0.1
    off = consistency_loss(parts, shares, clips + 0.25)
    weight = torch.log1p(clips + 0.25).clamp(1e-3, 10)
    assert off.item() == pytest.approx(0.25 * weight.mean((2, 3)).sum(1).mean().item(), rel=1e-5)


# --- Data ----------------------------------------------------------------------------------------


def test_mixed_clips_are_sums_of_recordings_of_different_labels_and_say_so(manifest):
    corpus = Corpus(manifest, "train", sample_rate=RATE)
    clips = MixedClips(corpus, 2, 30, 0.5, seed=3)
    for number in range(30):
        labels = [corpus.clips[each].label for each in clips.numbers[number]]
        assert len(set(labels)) == 2
        assert clips.clips[number].caption == f"The sound mixture of {labels[0]} and {labels[1]}"
        spectrum = torch.fft.rfft(clips.waveform(number)).abs()
        found = sorted(spectrum.topk(12).indices.tolist())
        for each in clips.numbers[number]:
            clip = corpus.clips[each]
            hertz = 300 * 1.6 ** int(clip.label[-1]) * (1 + 0.02 * int(clip.recording[-1]))
            assert min(abs(hertz / 2 - bin_) for bin_ in found) < 2
    assert torch.equal(clips.waveform(4), MixedClips(corpus, 2, 30, 0.5, seed=3).waveform(4))
    assert MixedClips(corpus, 1, 1, 0.5).clips[0].caption.startswith("The sound of tone")


def test_the_clips_of_a_mixture_have_no_phrase_in_common_and_add_up_to_it(manifest):
    batch = batch_of(manifest, batch_size=16)
    assert batch.clips.shape == (16, 2, 4000) and len(batch.captions) == 32 and len(batch.phrases) == 64
    for item in range(16):
        assert len(set(batch.phrases[4 * item : 4 * item + 4])) == 4
        for clip in range(2):
            first, second = batch.phrases[4 * item + 2 * clip :][:2]
            assert batch.captions[2 * item + clip].lower() == f"the sound mixture of {first} and {second}".lower()
    assert (batch.shares == 1).all() and batch.isolated.shape == (0, 2, 4000) and batch.names == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"isolated": 2}, "isolated and data.isolated_manifest must be given together"),
        ({"isolated_manifest": True}, "isolated and data.isolated_manifest must be given together"),
        ({"isolated_manifest": True, "isolated": 13}, "isolated must be between 0 and batch_size \\(12\\), not 13"),
        ({"isolated_manifest": True, "isolated": -1}, "isolated must be between 0 and batch_size \\(12\\), not -1"),
        ({"sources": 2, "as_recorded": True}, "as_recorded must be false"),
    ],
)
def test_settings_that_do_not_go_together_are_an_error(manifest, settings, words):
    if "isolated_manifest" in settings:
        settings = settings | {"isolated_manifest": manifest}
    with pytest.raises(ValueError, match=words):
        CaptionedData(manifest, **settings)


def test_two_ranks_draw_what_one_does_with_the_doubled_batch(manifest):
    isolated = {"isolated_manifest": manifest}
    one = data(manifest, batch_size=4, isolated=2, **isolated)
    halves = [data(manifest, batch_size=2, isolated=1, **isolated) for _ in range(2)]
    for rank, half in enumerate(halves):
        half.ranks = lambda rank=rank: (rank, 2)
    for index in range(2):
        whole, parts = one.batch(1, index), [half.batch(1, index, *half.ranks()) for half in halves]
        for name in ("clips", "isolated"):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts])), name
        assert whole.names == parts[0].names + parts[1].names
    assert torch.equal(data(manifest, batch_size=4).batch(1, 1).clips, whole.clips)  # isolated ones change no other


def test_recorded_clips_are_cut_off_at_full_scale_as_published(manifest):
    module = data(manifest, sources=0, as_recorded=True)
    module.mixer.peaks = [1.0] * len(module.mixer.peaks)
    waves = torch.stack([module.mixer.draw(np.random.default_rng(seed))[0] for seed in range(20)])
    assert 2 * waves.abs().max() == 1


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        ("A dog barks and a man speaks, then music plays", ["A dog barks", "A man speaks", "Music plays"]),
        ("Rain falls while thunder roars nearby a road", ["Rain falls", "Thunder roars", "A road"]),
        ("A man and woman talk over a PA", ["A man and woman talk", "A pa"]),
        ("A bell and is followed by a horn", ["A bell", "A horn"]),
        ("Water runs", ["Water runs"]),
        (" , and ", []),
    ],
)
def test_published_phrases(caption, wanted):
    assert published_phrases(caption) == wanted


def test_published_phrases_fill_slots():
    rng = np.random.default_rng(0)
    drawn = [draw_published_phrases(["a", "b", "c", "d"], 2, rng) for _ in range(40)]
    assert {tuple(sorted(texts)) for texts, _ in drawn} == {(x, y) for x in "abcd" for y in "abcd" if x < y}
    assert all(weights == [1, 1] for _, weights in drawn)
    for _ in range(9):
        texts, weights = draw_published_phrases(["a", "b"], 3, rng)
        assert texts[:2] == ["a", "b"] and texts[2] in "ab"
        assert weights == [1 / texts.count(text) for text in texts]


def test_published_clips_are_middles_between_zeros(manifest):
    module = data(manifest, sources=0, as_recorded=True, published=True, seconds=0.5)
    waves, captions = module.mixer.draw(np.random.default_rng(1))
    known = [clip.caption for clip in module.mixer.source.clips]
    for wave, number in zip(waves, map(known.index, captions), strict=True):
        clip = module.mixer.source.waveform(number) * module.mixer.peaks[number]
        gain = 2 * float(wave.abs().max() / clip[1200:5200].abs().max())
        assert 0.5 <= gain <= 1.5 and torch.allclose(wave, gain * clip[1200:5200] / 2, atol=1e-5)
    long = data(manifest, sources=0, published=True, seconds=1.0)
    [wave, *_], _ = long.mixer.draw(np.random.default_rng(2))
    assert not wave[:800].any() and not wave[-800:].any() and wave[800:-800].abs().max() > 0.1


def test_too_few_captions_are_refused(manifest):
    corpus = Corpus(manifest, "train", sample_rate=RATE)
    corpus.clips = [SimpleNamespace(caption="") for _ in corpus.clips]
    with pytest.raises(DataError, match="0 clips have a caption; 2 are needed"):
        CaptionMixer(corpus, 2, 4000)


# --- Separators and ears ------------------------------------------------------------------------------


def test_bands_give_what_the_separator_gives():
    model = small_rate_model()
    view, mixture = spectral_view(model), torch.randn(2, 4000)
    conditions = F.normalize(torch.randn(2, 3, DIM), dim=-1)
    estimates = view.estimates(mixture, conditions)
    wanted = model.separate(mixture[:, None], conditions).targets
    assert torch.allclose(view.waveforms(estimates, mixture), wanted[:, :, 0], atol=1e-5)
    assert torch.allclose(view.waveforms(view.compared(mixture)[:, None], mixture)[:, 0], mixture, atol=1e-5)
    assert torch.allclose(Bands(model, 0.2).compared(mixture), 2 * view.compared(mixture))
    with pytest.raises(TypeError, match="not ResUNet30"):
        spectral_view(ResUNet30.__new__(ResUNet30))


def test_magnitudes_keep_the_mixture_s_phase():
    fake = SimpleNamespace(stft=STFT(1022, 256, None, "reflect"))
    fake.mask = lambda magnitude, condition: condition[:, :1, None].expand_as(magnitude)
    mixture = torch.randn(2, 9000)
    view, shares = Magnitudes(fake), torch.tensor([[[0.25], [1.0]], [[0.5], [0.0]]])
    estimates = view.estimates(mixture, shares)
    assert estimates.shape == (2, 2, 512, 128)
    assert torch.allclose(view.waveforms(estimates, mixture), shares * mixture[:, None], atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_resampling_keeps_tones_and_gradients(rate):
    time = torch.arange(8000, dtype=torch.float64) / 8000
    wave = torch.sin(2 * torch.pi * 440 * time).requires_grad_()
    found = resample(wave, 8000, rate)
    wanted = torch.sin(2 * torch.pi * 440 * torch.arange(rate, dtype=torch.float64) / rate)
    assert torch.allclose(found, wanted, atol=1e-4)
    found.square().sum().backward()
    assert torch.isfinite(wave.grad).all() and wave.grad.abs().max() > 0


def test_recordings_are_embedded_as_by_the_encoder_with_gradients():
    module, wave = objective(), torch.randn(2, RATE).requires_grad_()
    found = module.embed_audio(wave, RATE)
    assert torch.allclose(found, module.encoder.encode_audio(wave.detach(), RATE), atol=1e-6)
    found[:, 0].sum().backward()
    assert wave.grad.abs().max() > 0
    with pytest.raises(EncoderError, match="TinyEncoder does not put texts and recordings into one space"):
        BiModal(small_rate_model(), TinyEncoder())
    random = BiModal(small_rate_model(), RandomEncoder(DIM))
    assert random.embed_audio(torch.randn(2, 5), RATE).norm(dim=1).tolist() == pytest.approx([1, 1])


def test_a_narrow_network_has_the_released_one_s_shape():
    networks = BiModalUNet(channels=8), BiModalUNet()
    narrow, released = ({name: each.shape for name, each in network.state_dict().items()} for network in networks)
    assert narrow.keys() == released.keys()
    name = "net_sound.unet_block.submodule.submodule.submodule.submodule.submodule.submodule.downconv.weight"
    assert (tuple(narrow[name]), tuple(released[name])) == ((64, 64, 4, 4), (512, 512, 4, 4))


def test_padding_is_not_attended_to():
    torch.manual_seed(0)
    attention, points = CrossAttention(64, 24), torch.randn(2, 5, 64)
    hidden = torch.randn(2, 7, 24)
    hidden[0, 3:] = 0
    found = attention(points, hidden)
    assert torch.allclose(found[:1], attention(points[:1], hidden[:1, :3]), atol=1e-6)
    assert torch.allclose(found[1:], attention(points[1:], hidden[1:]), atol=1e-6)
    assert torch.isfinite(attention(points, torch.zeros(2, 7, 24))).all()


def test_states_of_padding_are_zero():
    states = torch.randn(2, 77, 768)
    clap = torch.nn.Module()
    clap.encode_tokens = lambda tokens, mask: (states, torch.ones(2, 512))
    found = StatesEncoder(clap=clap)
    mask = torch.zeros(2, 77, dtype=torch.long)
    mask[0, :5], mask[1, :9] = 1, 1
    packed = found.encode_tokens(torch.zeros(2, 77, dtype=torch.long), mask)
    assert packed.shape == (2, found.embedding_dim)
    hidden = packed[:, 512:].unflatten(1, (77, 768))
    assert torch.equal(hidden[0, :5], states[0, :5]) and torch.equal(hidden[1, :9], states[1, :9])
    assert not hidden[0, 5:].any() and not hidden[1, 9:].any()


# --- The training step -----------------------------------------------------------------------------


def test_the_total_is_the_weighted_sum_of_its_terms(manifest):
    batch = batch_of(manifest, isolated_manifest=manifest, isolated=2)
    module = objective(mixtures_weight=0.5, isolated_weight=2.0)
    module.model.eval()
    total = module.training_step(batch, 0)
    url, crl, cnt, single = (module.logged[f"train/{name}"] for name in ("url", "crl", "cnt", "isolated"))
    assert min(url, crl, cnt, single) > 0
    assert total.item() == pytest.approx(0.5 * (5 * url + 5 * crl + 0.5 * cnt) + 2 * 5 * single, rel=1e-4)
    total.backward()
    without = [name for name, p in module.model.named_parameters() if p.grad is None and "detect" not in name]
    assert without == []
    assert all(p.grad is None for part in (module.encoder, module.average) for p in part.parameters())


def test_half_precision_changes_little(manifest):
    batch = batch_of(manifest)
    module = objective()
    module.model.eval()
    whole = module.training_step(batch, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = module.training_step(batch, 0)
    assert half.item() == pytest.approx(whole.item(), rel=0.05)
    half.backward()


def test_cnt_compares_the_phrases_of_two_items_as_published(manifest):
    batch = batch_of(manifest, batch_size=5)
    module = objective(compared=2, faithful=True)
    module.gather = module.gather_objects = None  # other devices have no part in it
    estimates, _, _, wave = module.estimate(batch.clips, module.conditions(batch.phrases, 5, 4))
    found = module.contrast_term(estimates, wave, batch)
    whole, wanted = objective(faithful=True), 0.0
    for first, last in ((0, 2), (2, 4), (4, 5)):
        part = SimpleNamespace(shares=batch.shares[first:last], phrases=batch.phrases[4 * first : 4 * last])
        wanted += (last - first) / 5 * whole.contrast_term(estimates[first:last], wave[first:last], part)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert found.item() < whole.contrast_term(estimates, wave, batch).item()  # fewer negatives


def test_mix_and_separate_asks_for_no_phrase(manifest):
    module, asked = objective(consistency=0.0, contrast=0.0), []
    inner = module.view.estimates
    module.view.estimates = lambda mixture, conditions: asked.append(conditions.shape) or inner(mixture, conditions)
    total = module.training_step(batch_of(manifest), 0)
    assert asked == [(3, 2, DIM)] and set(module.logged) == {"train/url"}
    assert total.item() == pytest.approx(5 * module.logged["train/url"], rel=1e-5)


def test_a_batch_that_cannot_be_scored_is_left_out(manifest):
    batch = batch_of(manifest)
    batch.clips[0, 0, 0] = float("nan")
    assert objective().training_step(batch, 0) is None


# --- Runs ------------------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_plain_data(manifest, tmp_path):
    module, source = BiModal(small_rate_model().train(), small_encoder()), data(manifest, batches=3)
    before = {name: p.clone() for name, p in module.encoder.named_parameters()}
    fit(module, source, tmp_path, ModelCheckpoint(dirpath=tmp_path, save_last=True), max_epochs=2)
    stored = torch.load(tmp_path / "last.ckpt", map_location="cpu", weights_only=True)
    assert stored["global_step"] == 6
    assert all(torch.equal(stored["state_dict"][f"encoder.{name}"], value) for name, value in before.items())
    result = module.separator()(torch.randn(RATE), "tone 2", RATE)
    assert torch.isfinite(result.target).all()


def test_the_projection_of_the_query_starts_nearly_at_zero():
    torch.manual_seed(0)
    project = BiModalUNet(channels=8).net_clap["fc"]
    assert float(project.weight.detach().std()) == pytest.approx(1e-4, rel=0.05)
    assert float(project.bias.detach().abs().max()) > 1e-3  # drawn as usual
