"""Objectives of the default separator and of its joint space: terms in plain computations, small runs."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import read, small_rate_model, vectors

pytest.importorskip("lightning", reason="needs the extra [train]")

from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from parts import ENCODER, NETWORK, RATE, RECIPE, arguments, fit, run, small_encoder, write_data

from separation.data.corpus import Corpus
from separation.data.datamodule import ClipData, MixtureData
from separation.data.mixing import Batch
from separation.encoders.joint import JointEncoder
from separation.errors import ModelError
from separation.models.band_unet import BandUNet
from separation.pretrained import WEIGHTS
from separation.separator import Separator
from separation.training.losses import MaskError
from separation.training.objectives import bands
from separation.training.objectives.bands import BandSupervised, hard_negatives
from separation.training.objectives.base import STATISTICS_BATCHES, start_encoder
from separation.training.objectives.contrastive import Contrastive
from separation.training.optimiser import AdamW
from separation.training.teacher import Teacher, add_noise

pytestmark = pytest.mark.usefixtures("no_sentence_weights")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("corpus"), validation=False)


def tiny_supervised(**arguments):
    """Everything drawn comes from the data's own generator: no noise, no chance of sound as the query."""
    still = {"text_noise": 0.0, "audio_share": 0.0, "audio_share_end": 0.0}
    optimiser = AdamW(lr=arguments.pop("lr", 2e-3), warmup=2)
    return BandSupervised(small_rate_model().train(), small_encoder(), optimiser=optimiser, **(still | arguments))


def mixtures(manifest, **arguments):
    options = {"batch_size": 3, "seconds": 0.5, "batches": 3, "sample_rate": RATE} | arguments
    return MixtureData(manifest, **options)


def batch_of(manifest, **arguments):
    data = mixtures(manifest, **arguments)
    data.setup()
    return data.complete(data.batch(0, 0))


class Watch(Callback):
    """Keeps each step's loss and its terms."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        terms = {name.removeprefix("train/"): float(v) for name, v in trainer.callback_metrics.items()}
        self.steps.append(terms | {"loss": float(outputs["loss"])})


# --- The separator's terms ---------------------------------------------------------------------


def step(module, batch, global_step=0):
    """A training step outside a trainer: the loss and its terms."""
    terms = {}
    module.log = lambda name, value, **options: terms.update({name.removeprefix("train/"): value})
    module.progress = lambda: 0.0
    type(module).global_step = property(lambda self: global_step)
    try:
        return module.train().training_step(batch, 0), terms
    finally:
        del type(module).global_step


def test_the_loss_is_that_of_the_masked_spectra(manifest):
    module, batch = tiny_supervised(), batch_of(manifest)
    model = module.model
    spectra = model.stft(batch.sources)
    mixture = spectra.sum(1)
    with torch.no_grad():
        mask = model.eval().mask(
            model.analyse(model.features(mixture[:, None]), batch.sources.sum(1, keepdim=True)),
            module.conditions_of(batch),
        )
    losses = module.mask_terms(batch, MaskError(mixture, spectra, model.to_bins), mask)
    bins = model.to_bins @ mask
    output = torch.complex(bins[:, :, 0], bins[:, :, 1]) * mixture[:, None]
    snr, improvement, silence = [], [], []
    for row in range(len(batch.used)):
        for slot in range(3):
            if slot < batch.used[row]:
                energy = spectra[row, slot].abs().square().sum()
                error = (spectra[row, slot] - output[row, slot]).abs().square().sum()
                before = (spectra[row, slot] - mixture[row]).abs().square().sum()
                snr.append(float(10 * torch.log10(error / energy + 1e-3)))
                improvement.append(float(10 * torch.log10(before / energy)) - snr[-1])
            else:
                ratio = output[row, slot].abs().square().sum() / mixture[row].abs().square().sum()
                silence.append(float(10 * torch.log10(ratio + 3e-3)))
    assert silence
    assert losses["snr"].item() == pytest.approx(np.mean(snr), abs=1e-3)
    assert losses["sdri"].item() == pytest.approx(np.mean(improvement), abs=1e-3)
    assert losses["absent"].item() == pytest.approx(np.mean(silence), abs=1e-3)


@pytest.fixture(autouse=True)
def conditions_of(monkeypatch):
    """`conditions` without a trainer to ask for the progress."""

    def conditions(self, batch, progress=0.0):
        self.progress = lambda: progress
        return self.conditions(batch)

    monkeypatch.setattr(BandSupervised, "conditions_of", conditions, raising=False)


@pytest.mark.parametrize("at, ramp", [(0, 0.0), (10, 0.0), (12, 0.5), (14, 1.0), (99, 1.0)])
def test_the_absent_term_enters_at_its_step_and_grows(manifest, at, ramp):
    module = tiny_supervised(absent_from=10, absent_ramp=4, absent_weight=0.3, tagging_weight=2.0)
    loss, terms = step(module, batch_of(manifest), at)
    assert abs(terms["absent"].item()) > 0.1
    rest = loss - terms["snr"] - 2.0 * terms["tagging"]
    assert rest.item() == pytest.approx(0.3 * ramp * terms["absent"].item(), abs=1e-4)


def test_the_gradient_reaches_every_parameter(manifest):
    module = tiny_supervised(absent_from=0, absent_ramp=1)
    loss, _ = step(module, batch_of(manifest), 5)
    loss.backward()
    without = [name for name, p in module.model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in module.model.parameters())
    others = [name for name, p in module.named_parameters() if p.grad is not None and not name.startswith("model.")]
    assert others == []


def test_absent_queries_are_hard_negatives(manifest, monkeypatch):
    module, batch = tiny_supervised(absent_near=1.0), batch_of(manifest)
    bank, present = module.encoder.embed_sentences(batch.bank), batch.has_source()
    conditions = module.encoder.embed_sentences(batch.sentences)
    logits = torch.zeros(len(batch.labels), len(bank), 5)
    wanted = []
    for row, labels in enumerate(batch.labels):
        unlike = (bank[labels[present[row]]] @ bank.T).amax(0) < bands.SAME_SOUND_COSINE
        wanted.append(int(unlike.nonzero()[0]))
        logits[row, wanted[-1], 3] = 1e3  # highest in one frame
        logits[row, labels[0], :] = 2e3  # this one sounds
    monkeypatch.setattr(hard_negatives, "__defaults__", (1,))
    nearer = module.with_hard_negatives(batch, conditions, bank, logits)
    for row, label in enumerate(wanted):
        for slot in range(present.shape[1]):
            assert torch.equal(nearer[row, slot], conditions[row, slot] if present[row, slot] else bank[label])
    assert (~present).any()


def test_a_share_of_the_absent_queries_is_replaced(manifest):
    module, batch = tiny_supervised(absent_near=0.3), batch_of(manifest, batch_size=100)
    bank, sounds = module.encoder.embed_sentences(batch.bank), batch.has_source()
    conditions = module.encoder.embed_sentences(batch.sentences)
    torch.manual_seed(0)
    nearer = module.with_hard_negatives(batch, conditions, bank, torch.randn(100, len(bank), 5))
    changed = (nearer != conditions).any(-1)
    assert not changed[sounds].any()
    assert 0.1 < changed[~sounds].float().mean() < 0.4
    assert tiny_supervised().with_hard_negatives(batch, conditions, bank, torch.zeros(1)) is conditions


def test_synonymous_labels_are_not_absent_queries():
    bank = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), dim=-1)
    labels, present = torch.tensor([[0, 2], [0, 2]]), torch.tensor([[True, False], [True, True]])
    drawn = torch.cat([hard_negatives(torch.zeros(2, 4, 3), bank, labels, present, nearest=3) for _ in range(25)], 1)
    assert set(drawn[0].tolist()) == {2, 3} and set(drawn[1].tolist()) == {-1}


def test_a_source_that_was_cut_in_a_pause_is_neither_asked_for_nor_absent(manifest):
    module, batch = tiny_supervised(), batch_of(manifest, batch_size=4)
    batch.sources[0, 1] = 0.0
    assert batch.used[0] >= 2
    spectra = module.model.stft(batch.sources)
    mask = torch.randn(4, 3, 2, 32, spectra.shape[-1])
    terms = module.mask_terms(batch, MaskError(spectra.sum(1), spectra, module.model.to_bins), mask)
    wanted = []  # every other query on its own
    for row in range(4):
        for slot in range(int(batch.used[row])):
            if (row, slot) == (0, 1):
                continue
            alone = spectra[row : row + 1, slot : slot + 1]
            error = MaskError(spectra[row : row + 1].sum(1), alone, module.model.to_bins)
            one = Batch(batch.sources[row : row + 1, slot : slot + 1], None, None, None, torch.tensor([1]))
            wanted.append(module.mask_terms(one, error, mask[row : row + 1, slot : slot + 1])["snr"].item())
    assert len(wanted) == int(batch.used.sum()) - 1
    assert terms["snr"].item() == pytest.approx(np.mean(wanted), abs=1e-3)
    loss, terms = step(module, batch, 99)
    loss.backward()
    assert all(math.isfinite(value.item()) for value in (loss, *terms.values()))


def test_a_batch_that_cannot_be_scored_is_left_out(manifest):
    batch = batch_of(manifest)
    batch.sources[0, 0, 0] = float("nan")
    assert step(tiny_supervised(), batch)[0] is None


def test_slots_that_hold_a_source():
    batch = Batch(torch.zeros(3, 3, 5), None, None, None, torch.tensor([2, 3, 1]))
    assert batch.has_source().tolist() == [[True, True, False], [True, True, True], [True, False, False]]


def test_conditions_are_the_texts_or_the_sources_own_sound(manifest):
    batch = batch_of(manifest)
    by_text = tiny_supervised().conditions_of(batch)
    encoder = small_encoder()
    assert torch.allclose(by_text, encoder.embed_sentences(batch.sentences), atol=1e-5)
    by_sound = tiny_supervised(audio_share=1.0, audio_share_end=1.0).conditions_of(batch)
    for row in range(len(batch.used)):
        for slot in range(3):
            if slot < batch.used[row]:
                wanted = encoder.encode_audio(batch.sources[row, slot][None], RATE)[0]
                assert torch.allclose(by_sound[row, slot], wanted, atol=1e-4)
            else:
                assert torch.equal(by_sound[row, slot], by_text[row, slot])


@pytest.mark.parametrize("progress, wanted", [(0.0, 0.8), (0.5, 0.5), (1.0, 0.2)])
def test_the_share_of_sounds_as_queries_falls_with_the_training(manifest, progress, wanted):
    module = tiny_supervised(audio_share=0.8, audio_share_end=0.2)
    batch = batch_of(manifest, batch_size=8)
    by_text = tiny_supervised().conditions_of(batch)
    changed = [
        ((module.conditions_of(batch, progress) - by_text).norm(dim=-1) > 1e-3)[batch.has_source()] for _ in range(30)
    ]
    assert torch.cat(changed).float().mean().item() == pytest.approx(wanted, abs=0.08)


def test_noise_turns_sentences_by_its_share_of_their_length():
    sentences = vectors([str(i) for i in range(200)], 384)
    noisy = add_noise(sentences, 0.5)
    assert torch.allclose(noisy.norm(dim=1), torch.ones(200), atol=1e-5)
    cosine = (noisy * sentences).sum(1).mean().item()
    assert cosine == pytest.approx(1 / math.sqrt(1 + 0.25), abs=0.01)


def test_tagging_is_a_weighted_cross_entropy():
    """Two mixtures, three classes, two blocks of eight frames."""
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.standard_normal((2, 3, 2)), dtype=torch.float32)
    spectra = torch.zeros(2, 2, 1, 16, dtype=torch.complex64)
    level = torch.tensor([[[0.0, -20.0], [0.0, -40.0]], [[-50.0, 0.0], [0.0, 0.0]]])  # (batch, slots, blocks), dB
    spectra += (10 ** (level / 20)).repeat_interleave(8, dim=2)[:, :, None]
    labels = torch.tensor([[2, 0], [1, 2]])
    batch = Batch(torch.zeros(2, 2, 4), labels, None, None, torch.tensor([2, 1]))
    # Active, unsure (left out) or inactive, by label and block; the second mixture's second slot does not sound.
    active = np.zeros((2, 3, 2))
    unsure = np.zeros((2, 3, 2))
    active[0, 2] = 1
    active[0, 0, 0], unsure[0, 0, 1] = 1, 1
    active[1, 1, 1] = 1
    p = 1 / (1 + np.exp(-logits.numpy().astype(np.float64)))
    hits = -(active * np.log(p)).sum() / 4
    misses = -((1 - active) * (1 - unsure) * np.log(1 - p)).sum() / 4
    assert tiny_supervised().presence_term(logits, batch, spectra).item() == pytest.approx(
        0.1 * (hits + 0.3 * misses), rel=1e-4
    )


def test_tagging_of_silence_is_finite():
    batch = Batch(torch.zeros(1, 1, 4), torch.tensor([[0]]), None, None, torch.tensor([1]))
    spectra = torch.zeros(1, 1, 1, 16, dtype=torch.complex64)
    assert math.isfinite(tiny_supervised().presence_term(torch.zeros(1, 3, 2), batch, spectra))


def test_the_encoder_stays_as_it_is_loaded(tmp_path):
    encoder, other = small_encoder(), small_encoder(7)
    save_file(other.state_dict(), tmp_path / "encoder.safetensors")
    module = BandSupervised(small_rate_model(), encoder, encoder_weights=str(tmp_path / "encoder.safetensors")).train()
    assert torch.equal(module.encoder.text[0].weight, other.text[0].weight)
    assert module.model.training
    assert not module.encoder.training and not module.average.training
    assert not any(p.requires_grad for part in (module.encoder, module.average) for p in part.parameters())


# --- Other pieces ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step, factor", [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (60, 0.505), (110, 0.01), (200, 0.01)]
)
def test_the_rate_rises_and_falls_along_a_cosine(step, factor):
    found = AdamW(lr=0.5, weight_decay=0.1, warmup=10).configure(torch.nn.Linear(3, 2), steps=110)
    assert found["lr_scheduler"]["interval"] == "step"
    assert found["lr_scheduler"]["scheduler"].lr_lambdas[0](step) == pytest.approx(factor, abs=1e-3)
    assert found["optimizer"].param_groups[0]["initial_lr"] == 0.5


def test_vectors_are_not_decayed_and_frozen_parameters_not_trained():
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 4))
    module[2].requires_grad_(False)
    groups = AdamW(1e-3, 0.1, 10).configure(module, 100)["optimizer"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert [[p.shape for p in group["params"]] for group in groups] == [[(3, 2, 3, 3)], [(3,), (3,), (3,)]]


def test_masked_log_mels_lose_one_band_and_one_stretch():
    module = Contrastive(small_encoder(), mask=0.25)
    log_mel = torch.ones(2, 1, 64, 40)
    blanked_rows, blanked_columns = [], []
    for _ in range(100):
        masked = module.spec_augment(log_mel)
        assert torch.equal(masked[0], masked[1])
        rows, columns = (masked[0, 0].amax(axis) == 0 for axis in (1, 0))
        blanked_rows.append(int(rows.sum()))
        blanked_columns.append(int(columns.sum()))
        inside = masked[0, 0][~rows][:, ~columns]
        assert (inside == 1).all()
        assert rows.int().diff().abs().sum() <= 2 and columns.int().diff().abs().sum() <= 2
    assert max(blanked_rows) == 15 and max(blanked_columns) == 9
    assert log_mel.min() == 1  # the batch's own is left as it was


# --- A network with a tagger -------------------------------------------------------------------


def tagged_encoder():
    torch.manual_seed(1)
    encoder = JointEncoder(**ENCODER, tagger=True).eval()
    start_encoder(encoder, None)
    return encoder


def tagged_supervised(**arguments):
    torch.manual_seed(0)
    network = BandUNet(**NETWORK, tagger=True).train()
    terms = {"teacher_weight": 0.1, "keep_weight": 1.0, "vocabulary": 0.3}
    return BandSupervised(network, tagged_encoder(), **(terms | {"optimiser": AdamW(lr=1e-2, warmup=0.02)} | arguments))


@pytest.fixture
def teacher(manifest):
    """Of four clips; the posteriors are made up."""
    encoder, corpus = tagged_encoder(), Corpus(manifest, sample_rate=RATE)
    made, without_rivals = Teacher(encoder, corpus, rivals=True), Teacher(encoder, corpus)
    fits = made.nameable & (made.posteriors.amax(0) > 0.5)
    assert torch.equal(without_rivals.names, made.names * fits[:, None, None]) and 0 < fits.sum() < 100
    assert made.posteriors.shape == (8, 521) and 0 <= made.posteriors.min() < 0.01 < made.posteriors.max() < 1
    assert made.names.shape == (521, 3, 384) and 400 < made.nameable.sum() < 521
    made.posteriors = torch.full((4, 521), 0.01)
    for clip, label, likely in ((0, 0, 0.9), (0, 7, 0.4), (1, 7, 0.95), (2, 0, 0.6), (3, 7, 0.97)):
        made.posteriors[clip, label] = likely
    made.taught = made.posteriors.amax(0) > 0.3
    return made


def asking(clips, used, asks=None):
    """A batch that holds what the teacher needs."""
    clips = torch.tensor(clips)
    sources, sentences = torch.randn(*clips.shape, 4000), torch.zeros(*clips.shape, 384)
    return Batch(sources, clips, sentences, None, torch.tensor(used), clips, asks)


def test_names_of_classes_replace_queries_for_one_source_that_no_other_source_fits(teacher):
    asks = torch.tensor([[[0, 1, 1], [1, 0, 0], [0, 0, 0]]]).bool()
    for batch, wanted in (
        (asking([[0, 1, -1]], [2]), [[0], [], []]),  # class 7 is likely in both
        (asking([[0, 2, 3]], [3]), [[], [], []]),  # so is class 0 here, and class 7 in the first and the third
        (asking([[2, 3, 1]], [2]), [[0], [7], []]),
        (asking([[2, 3, 1]], [3], asks), [[], [0], []]),  # a caption of two sources stays
    ):
        for share in (0.0, 1.0):
            sentences = teacher.rename(batch, share)[0]
            for vector, classes in zip(sentences, wanted, strict=True):
                names = [name for each in classes * bool(share) for name in teacher.names[each]]
                assert any(torch.equal(vector, name) for name in names) if names else not vector.any()


def test_the_teacher_s_terms_are_cross_entropies_with_its_posteriors(teacher):
    batch, logits = asking([[0, 1, -1], [2, 3, -1]], [2, 1]), torch.randn(2, 521, 4)
    spectra = torch.ones(2, 3, 5, 32, dtype=torch.complex64)
    spectra[0, 0, :, 16:] = 1e-3  # the first source pauses in two of four frames
    wanted = []
    for row, frame in ((row, frame) for row in range(2) for frame in range(4)):
        clips = ([1] if frame > 1 else [0, 1]) if row == 0 else [2]
        target = teacher.posteriors[clips].amax(0)[[0, 7]]
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits[row, [0, 7], frame], target)
        wanted.append(2 * entropy.item())
    assert teacher.frame_loss(logits, batch, spectra).item() == pytest.approx(np.mean(wanted), rel=1e-5)
    batch, encoder = asking([[0], [1], [2]], [1, 1, 1]), tagged_encoder()
    teacher.names = teacher.names[:, :1]
    audio = torch.nn.functional.normalize(torch.randn(3, encoder.embedding_dim), dim=-1)
    log_share = torch.log_softmax(9 * audio @ encoder.embed_sentences(teacher.names[:, 0]).T, 1)
    shares = [{0: 0.9 / 1.3, 7: 0.4 / 1.3}, {7: 1.0}, {0: 1.0}]
    wanted = [-sum(share * log_share[row, n] for n, share in each.items()) for row, each in enumerate(shares)]
    found = teacher.name_loss(encoder, 9 * audio, batch, 0.0)
    assert found.item() == pytest.approx(sum(wanted).item() / 3, rel=1e-4)


def test_the_network_s_tagger_learns_slowly_and_is_held(manifest):
    module, batch = tagged_supervised(), batch_of(manifest)
    groups = module.optimiser.configure(module.trainable(), 100)["optimizer"].param_groups
    assert [group["initial_lr"] for group in groups] == pytest.approx([1e-2, 1e-2, 5e-4])
    assert [len(group["params"]) for group in groups][2] == 54 and [g["weight_decay"] for g in groups][2] == 0
    wave = batch.sources.sum(1, keepdim=True)

    def analysis():
        model = module.model.eval()
        return model.analyse(model.features(model.stft(wave)), wave)

    at_start = module.tagger_term(analysis(), wave).item()
    with torch.no_grad():
        for weight in module.model.branch.tagger.parameters():
            weight.mul_(1.02)
    after = analysis()
    late = module.encoder.tagger(module.model.branch.patches(wave, after.late.shape[1]))[1]
    classes = torch.sigmoid(module.encoder.tagger.classify(late))
    entropy = (torch.special.entr(classes) + torch.special.entr(1 - classes)).mean()
    assert at_start == pytest.approx(10 * entropy.item(), rel=1e-3)  # nothing but what the classes leave open
    assert module.tagger_term(after, wave).item() > at_start + 0.01


def test_a_tagger_is_needed_for_its_terms(manifest):
    for option in ("teacher_weight", "keep_weight", "vocabulary"):
        with pytest.raises(ModelError, match=rf"model\.{option} needs an encoder with a tagger"):
            tiny_supervised(**{option: 0.1})


def test_unions_are_separated_as_one_target(manifest):
    batch = batch_of(manifest, union=1.0)
    module, log = tiny_supervised(), {}
    terms_of = module.mask_terms
    module.mask_terms = lambda batch, error, mask: log.update(error=error) or terms_of(batch, error, mask)
    step(module, batch)
    spectra = module.model.stft(batch.sources)
    energy = torch.stack([(spectra[:, 0] + spectra[:, 1]), spectra[:, 2], 0 * spectra[:, 0]], 1).abs().square()
    assert torch.allclose(log["error"].energy, energy.sum((2, 3)), rtol=1e-4, atol=1e-3)


# --- Runs --------------------------------------------------------------------------------------


def test_a_supervised_run_learns_and_leaves_a_checkpoint_of_plain_data(manifest, tmp_path):
    watch, checkpoint = Watch(), ModelCheckpoint(dirpath=tmp_path, save_last=True)
    module = tiny_supervised(absent_from=2, absent_ramp=2, lr=1e-2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    data = mixtures(manifest, batches=6)
    fit(module, data, tmp_path, watch, checkpoint, max_epochs=2)
    assert len(watch.steps) == 12
    assert all(math.isfinite(value) for terms in watch.steps for value in terms.values())
    for number, terms in enumerate(watch.steps):
        weight = 0.15 * min(1.0, max(0.0, (number - 2) / 2))
        rest = terms["loss"] - terms["snr"] - 5.0 * terms["tagging"]
        assert rest == pytest.approx(weight * terms["absent"], abs=1e-3)
    assert np.mean([t["loss"] for t in watch.steps[-3:]]) < np.mean([t["loss"] for t in watch.steps[:3]])

    stored = torch.load(tmp_path / "last.ckpt", map_location="cpu", weights_only=True)
    assert (stored["epoch"], stored["global_step"]) == (1, 12)
    state = module.state_dict()
    assert state.keys() == stored["state_dict"].keys()
    assert all(torch.equal(stored["state_dict"][name], state[name]) for name in state)
    for name, tensor in state.items():
        if name.startswith("encoder."):
            assert torch.equal(tensor, before[name])
        elif name.startswith("model.") and tensor.is_floating_point():
            assert not torch.equal(tensor, before[name]), name


def test_the_average_follows_the_network_and_has_statistics_of_its_own(manifest, tmp_path):
    module = tiny_supervised(ema=0.5)
    wanted = {name: p.detach().clone() for name, p in module.average.named_parameters()}

    class Follow(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            decay = min(0.5, (trainer.global_step + 1) / (trainer.global_step + 20))
            for name, p in module.model.named_parameters():
                wanted[name] = decay * wanted[name] + (1 - decay) * p.detach()

    fit(module, mixtures(manifest), tmp_path, Follow(), max_epochs=2)
    for name, p in module.average.named_parameters():
        assert torch.allclose(p, wanted[name], atol=1e-6), name
    mine, other = module.average.stem[1], module.model.stem[1]
    assert not torch.allclose(mine.running_mean, other.running_mean, rtol=1e-3)
    assert int(mine.num_batches_tracked) == min(6, STATISTICS_BATCHES)


def test_a_contrastive_run_learns_the_pairs(manifest, tmp_path):
    watch, checkpoint = Watch(), ModelCheckpoint(dirpath=tmp_path, save_last=True)
    torch.manual_seed(0)
    module = Contrastive(small_encoder().train(), AdamW(lr=1e-2, warmup=2))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    data = ClipData(manifest, batch_size=8, seconds=0.4, batches=10, sample_rate=RATE)
    fit(module, data, tmp_path, watch, checkpoint, max_epochs=2)
    losses = [terms["loss"] for terms in watch.steps]
    assert len(losses) == 20 and all(math.isfinite(value) for value in losses)
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.3
    assert all(not torch.equal(p, before[name]) for name, p in module.named_parameters())
    stored = torch.load(tmp_path / "last.ckpt", map_location="cpu", weights_only=True)
    assert set(stored["state_dict"]) == set(module.state_dict())


def test_a_network_can_be_fitted_to_one_batch(manifest):
    """The gradient has the right sign: more than 2 dB over the start within a few steps."""
    module, batch = tiny_supervised(), batch_of(manifest, batch_size=2)
    optimiser = torch.optim.Adam(module.model.parameters(), lr=1e-2)
    found = []
    for _ in range(25):
        loss, terms = step(module, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(terms["sdri"].item())
    assert found[-1] > found[0] + 2


# --- The command line --------------------------------------------------------------------------


TAGGED = {"model.encoder.tagger": "true"}
TAGGED_NETWORK = {"model.model.tagger": "true", "model.model.carry_high": "true"}


def test_both_stages_of_the_default_run_one_after_the_other(manifest, tmp_path, capsys):
    from separation.export import export_encoder, export_model

    data, sound, separator = manifest.parent, tmp_path / "sound", tmp_path / "separator"
    options = {"trainer.max_epochs": 1, "data.batches": 2} | TAGGED
    joint = {"data.batch_size": 8, "network": None, "model.encoder_weights": None, "data.validation_count": None}
    run(*arguments("fit", data, sound, RECIPE.with_name("sound.yaml"), **options, **joint))
    export_encoder(sound / "last.ckpt", tmp_path / "encoder.safetensors")
    options["model.encoder_weights"] = tmp_path / "encoder.safetensors"
    run(*arguments("fit", data, separator, RECIPE.with_name("default.yaml"), **options | TAGGED_NETWORK))
    export_model(separator / "last.ckpt", tmp_path / "mine", separator / "log" / "version_0" / "config.yaml", {})
    model = Separator.from_pretrained(tmp_path / "mine").model
    assert model.sample_rate == RATE and model.branch is not None
    trained = torch.load(separator / "last.ckpt", weights_only=True)["state_dict"]
    first = torch.load(sound / "last.ckpt", weights_only=True)["state_dict"]
    stored = load_file(tmp_path / "mine" / "model.safetensors")
    assert torch.allclose(stored["model.head.weight"].float(), trained["average.head.weight"], rtol=2e-3, atol=1e-6)
    assert torch.allclose(stored["encoder.text.0.weight"].float(), first["encoder.text.0.weight"], rtol=2e-3, atol=1e-6)
    embedded = load_file(WEIGHTS / "default" / "model.safetensors")["encoder.tagger.classify.weight"].float()
    for name in ("encoder", "average.branch"):  # both taggers start from the embedded one, and its classes stay
        assert torch.equal(trained[f"{name}.tagger.classify.weight"], embedded)
    assert not torch.equal(trained["model.branch.tagger.stem.weight"], trained["encoder.tagger.stem.weight"])
    assert {"train/teacher", "train/kept"} <= set(read(separator / "log" / "version_0" / "metrics.csv")[0])
