"""Weak supervision from labels: the tagger, its data, the anchors' way into a training step, small runs."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import small_rate_model, write_corpus
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks" / "studies"))
import uss_anchors

pytest.importorskip("lightning", reason="needs the extra [train]")

from lightning.pytorch.callbacks import ModelCheckpoint
from parts import BANDS, RATE, fit

from separation.data.corpus import Corpus
from separation.data.fixed_mixtures import Rendered, render
from separation.data.manifest import Clip, read_manifest
from separation.data.tagged import AUDIOSET, TaggedBatch, TaggedData, class_of
from separation.data.validation import draw_rows
from separation.encoders.base import EncoderError, UnsupportedQueryError
from separation.encoders.table import RandomEncoder
from separation.encoders.taggers import Frames, FrameTagger, linear_softmax
from separation.errors import DataError
from separation.models.band_unet import BandUNet
from separation.separator import Separator
from separation.training.objectives.base import Objective
from separation.training.objectives.tagging import Tagging
from separation.training.objectives.weakly_supervised import WeaklySupervised
from separation.training.optimiser import AdamW

HOP = 160
LABELS = ["tone 0", "tone 1", "tone 2", "tone 3"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), labels=4, recordings=2, seconds=1.5)


def tagger(**arguments):
    torch.manual_seed(2)
    sizes = {"channels": (4, 8, 8), "hidden": 16, "sample_rate": RATE}
    return FrameTagger(LABELS, **(sizes | arguments)).eval()


def model():
    torch.manual_seed(3)
    sizes = {"channels": (4, 4, 4, 4), "stream_dim": 8, "condition_dim": 4}
    return BandUNet(sample_rate=RATE, **BANDS, **sizes)


def data(manifest, **arguments):
    options = {"batch_size": 4, "seconds": 1.5, "batches": 2, "sample_rate": RATE} | arguments
    module = TaggedData(manifest, **options)
    module.setup("fit")
    return module


class KnownPlaces(nn.Module):
    """A detector that is sure of its class at a frame of each clip that a test has chosen."""

    sample_rate, hop = RATE, HOP

    def __init__(self, places):
        super().__init__()
        self.places = places

    def forward(self, waveform):
        frames = torch.arange(waveform.shape[-1] // HOP + 1)
        hills = torch.stack([torch.exp(-0.5 * ((frames - place) / 6.0) ** 2) for place in self.places])
        return Frames(hills[..., None].expand(-1, -1, 4), hills.amax(1, keepdim=True).expand(-1, 4))


def noise_batch(size=4, seconds=1.5):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.arange(size) % 4
    waves = torch.randn(size, round(seconds * RATE), generator=generator)
    return TaggedBatch(waves * torch.logspace(-1, 0, size)[:, None], nn.functional.one_hot(drawn, 4).float(), drawn)


def silent_log(module):
    """A module whose logged values go into a dictionary."""
    logged = {}
    module.log = lambda name, value, **options: logged.update({name: float(torch.as_tensor(value).detach())})
    return logged


# --- The tagger ----------------------------------------------------------------------------------


def test_sure_steps_count_most():
    steps = torch.tensor([[[1.0, 0.2], [0.0, 0.2], [0.5, 0.2]]])
    assert linear_softmax(steps)[0].tolist() == pytest.approx([1.25 / 1.5, 0.2])
    assert torch.isfinite(linear_softmax(torch.zeros(1, 3, 2))).all()


def test_frames_repeat_steps_and_tags_are_the_clip_s():
    network, wave = tagger(), torch.randn(2, 2 * RATE)
    frames, tags = network(wave), network.tag(wave)
    assert frames.framewise.shape == (2, 2 * RATE // HOP + 1, 4)
    assert torch.equal(frames.clipwise, tags.probabilities) and tags.embedding.shape == (2, 16)
    logits, _ = network.steps(wave)
    for frame in (0, 7, 8, 50, 99):
        assert torch.allclose(frames.framewise[:, frame], torch.sigmoid(logits[:, frame // 8]), atol=1e-6)
    quiet = network(0.01 * wave)
    assert torch.allclose(quiet.framewise, frames.framewise, atol=1e-3)  # relative to the clip's own level


def test_a_label_is_the_mean_condition_of_its_class():
    encoder = tagger()
    assert encoder.encode_label(["tone 1", 3]).tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]
    conditions = torch.rand(3, 4)
    encoder.observe(torch.tensor([1, 2, 1]), conditions)
    assert torch.allclose(encoder.encode_label(["tone 1"])[0], (conditions[0] + conditions[2]) / 2)
    assert torch.allclose(encoder.encode_label(["Tone 2"])[0], conditions[1])
    restored = tagger()
    restored.load_state_dict(encoder.state_dict())
    assert torch.equal(restored.encode_label(["tone 1"]), encoder.encode_label(["tone 1"]))
    with pytest.raises(EncoderError, match="none of the 4 labels"):
        encoder.encode_label(["violin"])


def test_an_embedding_s_class_has_to_be_seen_first():
    encoder = tagger(condition="embedding")
    assert encoder.embedding_dim == 16
    with pytest.raises(UnsupportedQueryError, match="no segment of it"):
        encoder.encode_label(["tone 0"])
    encoder.observe(torch.tensor([0]), torch.ones(1, 16))
    assert encoder.encode_label(["tone 0"]).tolist() == [[1.0] * 16]


def test_mixed_clips_have_both_labels():
    batch = noise_batch()
    waves, tags = Tagging(tagger(), mixup=1.0).mix_clips(batch)
    assert torch.allclose(waves[1], batch.waveforms[1] + batch.waveforms[0])
    assert tags[1].tolist() == [1, 1, 0, 0]
    waves, tags = Tagging(tagger(), mixup=0.0).mix_clips(batch)
    assert torch.equal(waves, batch.waveforms) and torch.equal(tags, batch.tags)


def test_the_tagger_s_loss_is_the_cross_entropy_of_the_clips():
    module, batch = Tagging(tagger(), mixup=0.0), noise_batch()
    silent_log(module)
    p = module.encoder(batch.waveforms).clipwise.double()
    wanted = -(batch.tags * p.log() + (1 - batch.tags) * (1 - p).log()).sum() / 4
    assert module.training_step(batch, 0).item() == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize(
    "sure, wanted", [((0.9, 0.1, 0.2, 0.3), 0.0), ((0.1, 0.4, 0.2, 0.9), 1.0), ((0, 1, 0, 0), 1.0)]
)
def test_validation_tells_whether_a_class_is_among_the_two_surest(sure, wanted):
    module = Tagging(tagger())
    logged = silent_log(module)
    module.encoder.probabilities = lambda wave, rate: torch.tensor([sure], dtype=torch.float32)
    row = {"kind": "pair", "query": "tone 1"}
    module.validation_step(Rendered(row, np.zeros(100), np.zeros(100)), 0)
    assert logged == {"val/top2": wanted}
    module.log = lambda *arguments, **options: pytest.fail("logged")
    module.validation_step(Rendered(row | {"kind": "absent"}, np.zeros(100), np.zeros(100)), 0)


def test_the_loss_is_divided_by_the_items_of_all_ranks(monkeypatch):
    """So that the mean of the ranks' losses is that of all items, however they are spread."""
    module, batch = WeaklySupervised(model(), tagger(), KnownPlaces([30] * 4), seconds=0.4).train(), noise_batch()
    silent_log(module)
    module.model.eval()
    alone = module.training_step(batch, 0)
    monkeypatch.setattr(module, "mean_count", lambda count: (count + 2) / 2)  # the other rank has two items
    assert module.training_step(batch, 0).item() == pytest.approx(alone.item() * 4 / 3, rel=1e-6)


# --- Data ----------------------------------------------------------------------------------------


def test_two_ranks_see_what_one_sees_with_twice_the_batch(manifest):
    one, two = data(manifest, batch_size=4), data(manifest, batch_size=2)
    for index in range(2):
        whole = one.batch(1, index)
        parts = [two.batch(1, index, rank, 2) for rank in range(2)]
        assert torch.equal(whole.waveforms, torch.cat([part.waveforms for part in parts]))
        assert torch.equal(whole.drawn_class, torch.cat([part.drawn_class for part in parts]))
    assert not torch.equal(one.batch(0, 0).drawn_class, one.batch(0, 1).drawn_class)


def test_a_batch_s_clips_have_the_class_they_were_drawn_for(manifest):
    module = data(manifest, batch_size=8, seconds=2.0)
    batch = module.batch(0, 0)
    assert sorted(batch.drawn_class.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(batch.tags.argmax(1), batch.drawn_class) and (batch.tags.sum(1) == 1).all()
    spectrum = torch.fft.rfft(batch.waveforms[:, : round(1.4 * RATE)]).abs().argmax(1) / 1.4
    wanted = 300 * 1.6**batch.drawn_class
    assert ((spectrum / wanted - 1).abs() < 0.03).all()
    assert (batch.waveforms[:, round(1.6 * RATE) :] == 0).all()  # shorter clips end in silence


@pytest.mark.parametrize(("as_recorded", "peak"), [(True, 0.3), (False, 1.0)])
def test_clips_have_their_own_level_or_a_peak_of_one(manifest, as_recorded, peak):
    batch = data(manifest, batch_size=8, as_recorded=as_recorded).batch(0, 0)
    assert batch.waveforms.abs().amax(1).tolist() == pytest.approx([peak] * 8, rel=0.01)


def test_several_labels_and_those_that_are_no_classes(manifest):
    module = data(manifest, labels=["tone 3", "tone 1"])
    source = module.source
    clips = [Clip("a", "tone 1", "", "a", "", 1.0, labels=("tone 1", "tone 3")), Clip("b", "tone 0", "", "b", "", 1.0)]
    source.clips = clips + source.clips[2:]
    module.set_corpus(source)
    assert module.numbers[:2] == [[0, 1], []]
    assert 1 not in {clip for place in range(40) for clip in [module.sampler[place][1]]}
    with pytest.raises(DataError, match="No clip has one of the classes"):
        data(manifest, labels=["violin"])


def test_audioset_classes_go_by_their_names():
    assert (class_of("Dog", AUDIOSET), class_of("Speech", AUDIOSET)) == (74, 0)
    assert class_of("tone 1", AUDIOSET) is None
    assert class_of("b", ["a", "b"]) == 1


# --- The training step -----------------------------------------------------------------------------


def test_the_anchor_is_where_the_detector_is_surest_and_the_condition_is_the_clean_anchor_s():
    places, batch = [20, 40, 55, 30], noise_batch()
    module = WeaklySupervised(model(), tagger(), KnownPlaces(places), seconds=0.4)
    module.encoder.segment_seconds = 0.4  # not repeated until it is 2 s
    mixtures, targets, conditions, fits = module.mixtures(batch)
    assert fits.all()
    for row, place in enumerate(places):
        start = (place - 10) * HOP
        assert torch.equal(targets[row], batch.waveforms[row, start : start + round(0.4 * RATE)])
    for row in range(4):
        other = targets[(row + 1) % 4]
        gain = math.sqrt(targets[row].square().mean() / other.square().mean())
        assert torch.allclose(mixtures[row], targets[row] + gain * other, atol=1e-5)
    assert torch.allclose(conditions, module.encoder.tag(targets).probabilities, atol=1e-6)


def test_the_loss_is_the_mean_deviation_of_the_estimate_from_the_anchor():
    module, batch = WeaklySupervised(model(), tagger(), KnownPlaces([30] * 4), seconds=0.4).train(), noise_batch()
    logged = silent_log(module)
    module.model.eval()
    loss = module.training_step(batch, 0)
    mixtures, targets, conditions, _ = module.mixtures(batch)
    estimates = module.model(mixtures[:, None], conditions)[:, 0]
    assert loss.item() == pytest.approx((estimates - targets).abs().mean().item(), rel=1e-5)
    assert logged["train/without_partner"] == 0
    loss.backward()
    assert all(p.grad is None for part in (module.encoder, module.average) for p in part.parameters())
    assert sum(float(p.grad.abs().sum()) for p in module.model.parameters() if p.grad is not None) > 0
    assert module.encoder.seen.tolist() == [1, 1, 1, 1]
    assert torch.allclose(module.encoder.means, conditions)


def test_mixtures_come_at_the_level_the_separator_is_used_at():
    module = WeaklySupervised(model(), tagger(), KnownPlaces([30] * 4), seconds=0.4, own_level=True)
    mixtures, targets, _, _ = module.mixtures(noise_batch())
    assert torch.allclose(mixtures.square().mean(1), torch.full((4,), module.model.input_level**2), rtol=1e-4)
    plain = WeaklySupervised(model(), tagger(), KnownPlaces([30] * 4), seconds=0.4).mixtures(noise_batch())
    assert torch.allclose(
        targets / mixtures.abs().amax(1, keepdim=True), plain[1] / plain[0].abs().amax(1, keepdim=True)
    )


def test_a_batch_of_one_class_is_skipped():
    module, batch = WeaklySupervised(model(), tagger(), seconds=0.4), noise_batch()
    silent_log(module)
    batch.drawn_class[:], batch.tags[:] = 1, torch.tensor([0.0, 1, 0, 0])
    assert module.training_step(batch, 0) is None


def test_short_clips_are_their_own_anchors_and_silent_ones_are_left_out():
    module, batch = WeaklySupervised(model(), tagger(), KnownPlaces([9] * 4), seconds=2.0), noise_batch(seconds=0.5)
    batch.waveforms[2] = 0
    _, targets, _, fits = module.mixtures(batch)
    assert fits.tolist() == [True, True, False, True]
    assert torch.equal(targets, batch.waveforms[[0, 1, 3], : 2 * (4000 // (2 * HOP)) * HOP])


@pytest.mark.parametrize("options", [{"anchors": "random"}, {"encoder_weights": "random"}])
def test_random_anchors_ask_no_detector(options):
    class Deaf(KnownPlaces):
        def forward(self, waveform):
            raise AssertionError("asked")

    module = WeaklySupervised(model(), tagger(), Deaf([]), seconds=0.4, **options)
    batch = noise_batch()
    first, second = module.segments(batch), module.segments(batch)
    assert first.shape == second.shape == (4, 3200) and not torch.equal(first, second)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="mined, random is expected, not 'best'"):
        WeaklySupervised(model(), tagger(), anchors="best")
    with pytest.raises(ValueError, match="8000 Hz and the detector at 16000 Hz"):
        WeaklySupervised(small_rate_model(), tagger(sample_rate=16000))


# --- Runs ----------------------------------------------------------------------------------------


def test_a_tagger_learns_where_a_tone_sounds_from_clip_labels(manifest, tmp_path, monkeypatch):
    """Trained on clips of 3 s of which 1 s is the labelled tone; where it lies was never said."""
    torch.manual_seed(0)
    corpus = Corpus(manifest, "train", sample_rate=RATE)
    monkeypatch.setattr(uss_anchors, "CLIP_SECONDS", 3.0)
    monkeypatch.setattr(uss_anchors, "SOUND_SECONDS", 1.0)
    padded = uss_anchors.Padded(corpus, LABELS[:2], LABELS[2:], seed=1)
    padded.numbers, padded.clips = padded.numbers * 12, padded.clips * 12
    source = TaggedData(manifest, batch_size=8, seconds=3.0, batches=50, sample_rate=RATE, labels=LABELS[:2])
    source.fixed.count = 0
    source.load = lambda: source.set_corpus(padded)
    encoder = FrameTagger(LABELS[:2], sample_rate=RATE, channels=(4, 8, 8), hidden=16, dropout=0.0)
    fit(Tagging(encoder, AdamW(1e-2, 0.0, 5), mixup=0.0), source, tmp_path)
    encoder.eval()
    inside, outside = [], []
    for number in range(0, 48, 3):
        framewise = encoder(padded.waveform(number)[None]).framewise[0, :, LABELS.index(padded.clips[number].label)]
        first = padded.start(number) // HOP
        sounds = torch.zeros(len(framewise), dtype=torch.bool)
        sounds[first + 8 : first + 42] = True
        inside.append(framewise[sounds].mean().item())
        outside.append(framewise[: max(first - 8, 0)].mean().item() if first > 16 else 0.0)
    assert np.mean(inside) > np.mean(outside) + 0.3


def test_a_weakly_supervised_run_leaves_plain_data_with_the_classes_means(manifest, tmp_path):
    module = WeaklySupervised(model(), tagger(), seconds=0.4, loss="snr", own_level=True)
    checkpoint = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    fit(module, data(manifest, batches=3, labels=LABELS), tmp_path, checkpoint, max_epochs=2)
    stored = torch.load(tmp_path / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    assert stored["encoder.seen"].sum() == 24
    separator = module.separator()
    result = separator(torch.randn(RATE), "tone 2", RATE)
    assert torch.isfinite(result.target).all()
    assert torch.allclose(separator.conditions(["tone 2"])[0], stored["encoder.means"][2])


class Ears(RandomEncoder):
    """As the published embedding of USS: takes recordings alone."""

    sample_rate = RATE

    def __init__(self):
        super().__init__(4, {"audio"})
        self.heard = []

    def encode_audio(self, waveform, sample_rate):
        self.heard.append((waveform.cpu(), sample_rate))
        return super().encode_audio(waveform, sample_rate)


def test_an_encoder_that_takes_recordings_alone_is_validated_by_another_recording_of_the_class(tmp_path):
    manifest = write_corpus(tmp_path, labels=4, recordings=2, seconds=1.5, split="validation")
    source = TaggedData(manifest, sample_rate=RATE, labels=LABELS, validation_count=10)
    source.setup("validate")
    encoder = Ears()
    module = asked(encoder)
    module.on_validation_start()
    [loader] = source.val_dataloader()
    for index, item in enumerate(loader):
        module.validation_step(item, index)
        wave, rate = encoder.heard[-1]
        hertz = np.abs(np.fft.rfft(wave[0].numpy())).argmax() * rate / wave.shape[-1]
        label, recording = item.row["query"].removeprefix("tone "), item.row["example"].split("/")[-1][0]
        assert hertz == pytest.approx(300 * 1.6 ** int(label) * (1 + 0.02 * int(recording)), rel=0.01)
        assert item.row["example"] not in (item.row["target"], item.row["interference1"])
        condition = encoder.encode_audio(wave, rate)
        estimate = Separator(module.average, encoder)(torch.from_numpy(item.mixture), condition[0], item.sample_rate)
        again = module.separator()(torch.from_numpy(item.mixture), item.row["query"], item.sample_rate)
        assert torch.equal(again.target, estimate.target)  # what Examples draws
    assert len(module.outcome.scores) == 10
    assert {score.kind for score in module.outcome.scores} == {"pair", "absent"}


def test_the_published_validation_asks_by_the_clean_reference(tmp_path):
    manifest = write_corpus(tmp_path, labels=4, recordings=2, seconds=1.5, split="validation")
    source = TaggedData(manifest, sample_rate=RATE, labels=LABELS, validation_count=4)
    source.setup("validate")
    encoder = Ears()
    encoder.modalities = frozenset({"audio", "label"})  # as the probabilities of USS
    module = WeaklySupervised(model(), encoder, detector=tagger(), reference_queries=True)
    module._trainer = SimpleNamespace(state=SimpleNamespace(fn="validate"))
    module.on_validation_start()
    [loader] = source.val_dataloader()
    items = [item for item in loader if item.row["kind"] == "pair"]
    for index, item in enumerate(items):
        module.validation_step(item, index)
        [wave], rate = encoder.heard[index]
        assert (rate, wave.tolist()) == (item.sample_rate, torch.from_numpy(item.target).float().tolist())
    assert len(module.outcome.scores) == len(items) == len(encoder.heard) > 0


def asked(encoder):
    """An objective on an encoder, in a validation of a training."""
    module = Objective(model(), encoder)
    module._trainer = SimpleNamespace(state=SimpleNamespace(fn="validate"))
    return module


def test_rows_without_an_example_are_counted(tmp_path):
    manifest = write_corpus(tmp_path, labels=4, recordings=1, seconds=1.5, split="validation")
    rows = draw_rows(read_manifest(manifest, "validation"), 5)
    module = asked(Ears())
    module.on_validation_start()
    for row in rows:
        module.validation_step(render({k: v for k, v in row.items() if k[:7] != "example"}, tmp_path), 0)
    assert [score.kind for score in module.outcome.scores] == ["pair"] * 4  # each by its own target
    assert module.outcome.broken == [f"absent0004: no example recording of “{rows[4]['query']}”"]
    assert torch.isfinite(module.separator()(torch.randn(RATE), "never shown", RATE).target).all()  # in Examples


def test_rows_that_ask_for_no_class_are_left_out_of_every_stage(tmp_path, capsys):
    manifest = write_corpus(tmp_path, labels=4, recordings=2, seconds=1.5, split="test")
    source = TaggedData(manifest, sample_rate=RATE, labels=LABELS[:3], validation_count=20)
    source.setup("test")
    [loader] = source.test_dataloader()
    asks = [item.row["query"] for item in loader]
    assert set(asks) == set(LABELS[:3])
    assert f"{20 - len(asks)} of 20 mixtures are left out: their query is not a class." in capsys.readouterr().out
    data = TaggedData(manifest, sample_rate=RATE, labels=["bell"], validation_count=20)
    rows, reason = data.fixed.draw("test")
    assert rows == [] and reason.endswith("none of the 20 mixtures asks for one of the classes.")
