"""The supervised objective: its losses against plain computations, what its queries are, what it refuses."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from queries import DIM, TIME, encoder, logged, noises, queried, unet
from tiny import small_rate_model, vectors
from torch.nn import functional as F

pytest.importorskip("lightning", reason="needs the extra [train]")

import lightning
from parts import fit

from separation.data.fixed_mixtures import Rendered
from separation.data.queried import QueriedData
from separation.encoders.base import EncoderError, UnsupportedQueryError
from separation.encoders.table import OneHotEncoder, RandomEncoder, TableEncoder
from separation.errors import DataError
from separation.evaluate.metrics import sdri
from separation.training.objectives.base import EmbeddingCache
from separation.training.objectives.supervised import Supervised
from separation.training.optimiser import AdamW

MASKED = {"loss": "binary_mask", "queries": ["text"]}


def fitted(module, data):
    """Begins a training, and no more."""
    module.trainer = SimpleNamespace(datamodule=data)
    module.on_fit_start()


def test_data_without_pictures_is_refused_before_the_first_step():
    module = Supervised(unet(), RandomEncoder(DIM, ["text", "image"]), queries=["text", "image"])
    fitted(module, QueriedData(frames=3))
    said = r"^model\.queries asks by image, and the data has no pictures; set data\.frames\.$"
    with pytest.raises(DataError, match=said):
        fitted(module, QueriedData())


def test_labels_that_the_table_lacks_are_refused_before_the_first_step():
    module = Supervised(unet(), TableEncoder(["rain", "dog, bark"], DIM), queries=["label"], learn_encoder=True)
    data = QueriedData()
    data.labels = ["Dog Bark", "rain"]
    fitted(module, data)
    data.labels.append("rainy")
    with pytest.raises(EncoderError, match=r"^'rainy' is none of the 2 labels of this model; close to it: rain\.$"):
        fitted(module, data)


def step(module, batch):
    terms = logged(module)
    return module.train().training_step(batch, 0), terms


# --- Losses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["l1", "si_sdr", "snr"])
def test_waveforms_are_compared_with_what_the_model_gives(loss):
    module, batch = Supervised(unet().eval(), encoder(), loss), queried(noises())
    conditions = module.conditions(batch)
    estimates = module.model.separate(batch.sources.sum(1, keepdim=True), conditions)[0][:, :, 0].detach().double()
    targets = batch.sources.double()
    wanted = []
    for target, estimate in zip(targets.flatten(0, 1).numpy(), estimates.flatten(0, 1).numpy(), strict=True):
        scaled = target * np.dot(target, estimate) / np.dot(target, target) if loss == "si_sdr" else target
        ratio = np.sum((estimate - scaled) ** 2) / np.sum(scaled**2)
        wanted.append(np.abs(target - estimate).mean() if loss == "l1" else 10 * np.log10(ratio + 1e-3))
    assert module.mean_loss(batch.sources, conditions).item() == pytest.approx(np.mean(wanted), rel=1e-4)


@pytest.mark.parametrize("loss", ["si_sdr", "snr"])
def test_a_silent_target_is_left_out_where_the_loss_is_in_decibels(loss):
    module, sources = Supervised(unet().eval(), encoder(), loss), noises()
    sources[0, 1] = 0
    conditions = module.conditions(queried(sources))
    parts = [module.mean_loss(sources[i : i + 1], conditions[i : i + 1]).item() for i in range(2)]
    assert module.mean_loss(sources, conditions).item() == pytest.approx((parts[0] + 2 * parts[1]) / 3, rel=1e-4)


@pytest.mark.parametrize("kind", ["binary_mask", "ratio_mask"])
def test_masks_are_compared_as_in_the_specification(kind):
    """Written out over all points, in double precision."""
    model, sources = unet().eval(), noises()
    module = Supervised(model, encoder(), kind)
    conditions = module.conditions(queried(sources))
    spectra = model.stft(sources)
    rows = [model.rows(spectra[:, n].abs()[:, None])[:, 0].double().numpy() for n in range(2)]
    mixture = model.rows(spectra.sum(1).abs()[:, None])[:, 0].double().numpy()
    masks = model.masks(model.features(spectra.sum(1).abs()), conditions).detach().double().numpy()
    weight = np.clip(np.log(1 + mixture), 1e-3, 10)
    values = []
    for n in range(2):
        truth = rows[n] > 0.5 * mixture if kind == "binary_mask" else rows[n] / (rows[0] + rows[1])
        entropy = -(truth * np.log(masks[:, n]) + (1 - truth) * np.log(1 - masks[:, n]))
        values.append((weight * entropy).mean())
    assert module.mean_loss(sources, conditions).item() == pytest.approx(np.mean(values), rel=1e-4)


def test_masks_of_a_length_that_is_no_whole_grid_are_cut_back():
    module, sources = Supervised(unet().eval(), encoder(), **MASKED), noises(time=TIME + 700)
    features, truth, weight = module.mask_targets(sources)
    [masks] = module.predict_masks(module.model.masks, features, module.conditions(queried(sources)))
    assert features.shape[-1] == truth.shape[-1] == weight.shape[-1] == masks.shape[-1] == 1 + (TIME + 700) // 256
    assert math.isfinite(step(module, queried(sources))[0].item())


def test_only_what_is_asked_for_counts():
    module, sources = Supervised(unet().eval(), encoder(), **MASKED), noises(sources=3)
    conditions = module.conditions(queried(sources, asked=1))
    assert conditions.shape == (2, 1, DIM)
    features, truth, weight = module.mask_targets(sources)
    masks = module.model.masks(features, conditions)
    wanted = (weight * F.binary_cross_entropy(masks[:, 0], truth[:, 0], reduction="none")).mean()
    assert torch.allclose(module.mean_loss(sources, conditions), wanted)


def test_outputs_without_order_cost_the_same_in_either():
    model = unet(fusion="none").eval()
    module, sources = Supervised(model, OneHotEncoder(["1", "2"]), "binary_mask", ["none"]), noises()
    conditions = module.conditions(queried(sources))
    assert torch.equal(conditions[1], torch.eye(2))
    loss, swapped = (module.mean_loss(s, conditions).item() for s in (sources, sources.flip(1)))
    assert loss == pytest.approx(swapped, rel=1e-5)
    features, truth, weight = module.mask_targets(sources)
    masks = model.masks(features, conditions)
    both = [
        sum(
            (weight * F.binary_cross_entropy(masks[:, i], truth[:, j], reduction="none")).mean((1, 2)) for i, j in order
        )
        for order in (((0, 0), (1, 1)), ((0, 1), (1, 0)))
    ]
    assert loss == pytest.approx(torch.minimum(*both).mean().item() / 2, rel=1e-5)


# --- Queries -----------------------------------------------------------------------------------


def test_forms_take_turns():
    module = Supervised(unet(), encoder(), "binary_mask", ["image", "text"])
    batch = queried(noises(), pictures=[[["a.jpg"], ["b.jpg"]], [["c.jpg", "d.jpg"], ["a.jpg"]]])
    seen = []
    for number in range(3):
        type(module).global_step = property(lambda self, number=number: number)
        try:
            seen.append(module.conditions(batch))
        finally:
            del type(module).global_step
    pictures = RandomEncoder(DIM).encode_image([["a.jpg"], ["b.jpg"], ["c.jpg", "d.jpg"], ["a.jpg"]])
    assert torch.equal(seen[0].flatten(0, 1), pictures) and torch.equal(seen[2], seen[0])
    assert torch.equal(seen[1][0], RandomEncoder(DIM).encode_text(["name 0", "name 1"]))


def test_missing_pictures_are_an_error():
    module = Supervised(unet(), encoder(), "binary_mask", ["image"])
    with pytest.raises(ValueError, match="need pictures"):
        module.conditions(queried(noises()))


@pytest.mark.parametrize("share, low, high", [(0.0, 0, 0), (0.3, 90, 150), (1.0, 400, 400)])
def test_a_share_of_the_queries_is_the_targets_own_sound(share, low, high):
    torch.manual_seed(0)
    module = Supervised(unet(), encoder(), audio_share=share)
    batch = queried(noises(batch=200, time=64))
    by_text = RandomEncoder(DIM).encode_text(["name 0", "name 1"])
    by_sound = RandomEncoder(DIM).encode_audio(batch.sources.flatten(0, 1), 16000).unflatten(0, (200, 2))
    conditions = module.conditions(batch)
    sound = (conditions == by_sound).all(-1)
    text = (conditions == by_text).all(-1)
    assert (sound ^ text).all()
    assert low <= int(sound.sum()) <= high


def test_a_frozen_encoder_encodes_each_text_once():
    asked = []

    class Counting(RandomEncoder):
        def encode_text(self, texts):
            asked.extend(texts)
            return super().encode_text(texts)

    module = Supervised(unet(), Counting(DIM))
    for _ in range(3):
        module.conditions(queried(noises()))
    assert sorted(asked) == ["name 0", "name 1"]


def test_the_cache_is_bounded_and_excludes_pixels():
    cache, rng = EmbeddingCache(size=2), np.random.default_rng(0)
    encode = RandomEncoder(4).encode_text
    vectors_of = {text: cache([text], encode)[0] for text in "abca"}
    assert list(cache.vectors) == ["c", "a"]
    assert torch.equal(vectors_of["a"], encode(["a"])[0])
    pixels = [rng.integers(0, 255, (2, 2, 3), dtype=np.uint8) for _ in range(2)]
    found = cache(pixels, RandomEncoder(4).encode_image)
    assert torch.equal(found, RandomEncoder(4).encode_image(pixels))
    assert list(cache.vectors) == ["c", "a"]


def test_a_table_of_labels_learns_along():
    table = TableEncoder(["label 0", "label 1", "label 2"], DIM)
    module = Supervised(unet(), table, "binary_mask", ["label"], learn_encoder=True)
    assert sum(p.numel() for p in module.trainable().parameters()) == (
        sum(p.numel() for p in module.model.parameters()) + 3 * DIM
    )
    step(module, queried(noises()))[0].backward()
    used = table.label_net.weight.grad.abs().amax(1) > 0
    assert used.tolist() == [True, True, False]


def test_an_encoder_that_does_not_learn_has_no_gradient():
    table = TableEncoder(["label 0", "label 1"], DIM)
    module = Supervised(unet(), table, "binary_mask", ["label"])
    step(module, queried(noises()))[0].backward()
    assert table.label_net.weight.grad is None and not table.label_net.weight.requires_grad
    assert all(p.grad is not None for p in module.model.parameters())


# --- What is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"queries": []}, "one form or more"),
        ({"queries": ["none", "text"], "loss": "binary_mask"}, "stands alone"),
        ({"queries": ["none"], "loss": "l1"}, "a loss of masks"),
        ({"encoder": RandomEncoder(5)}, "conditions of 5 numbers"),
        ({"encoder": RandomEncoder(DIM, ["text"]), "queries": ["label"]}, "takes no label queries"),
        ({"encoder": RandomEncoder(DIM, ["text"]), "audio_share": 0.5}, "takes no audio queries"),
        ({"model": small_rate_model(), "loss": "binary_mask"}, "BandUNet has no masks"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        Supervised(**({"model": unet(), "encoder": encoder()} | arguments))


def test_a_batch_that_cannot_be_scored_is_left_out():
    sources = noises()
    sources[0, 0, 0] = float("nan")
    assert step(Supervised(unet(), encoder()), queried(sources))[0] is None


# --- Rates, scores, runs -----------------------------------------------------------------------


@pytest.mark.parametrize("at, wanted", [(0, 0.1), (5, 0.55), (10, 1.0), (60, 0.6), (110, 0.2), (500, 0.2)])
def test_a_rate_follows_straight_lines(at, wanted):
    assert AdamW(points=[(0, 0.1), (10, 1.0), (110, 0.2)]).factor(at, 500) == pytest.approx(wanted)


def rendered(row):
    parts = noises(batch=1)[0]
    return Rendered({"id": "0", "kind": "pair", "target": "x.wav"} | row, parts.sum(0).numpy(), parts[0].numpy(), 16000)


def test_the_better_of_two_outputs_without_order_is_scored():
    model = unet(fusion="none")
    with torch.no_grad():
        model.synth_net.bias.copy_(torch.tensor([-3.0, 0.0]))  # hardly anything, half of all
    module = Supervised(model, OneHotEncoder(["1", "2"]), "binary_mask", ["none"])
    mixture = rendered({"query": "rain"})
    found = module.score(mixture)
    values = []
    for number in (1, 2):
        estimate = module.separator()(torch.from_numpy(mixture.mixture), str(number), 16000).target[0].numpy()
        values.append(sdri(mixture.target, estimate, mixture.mixture))
    assert abs(values[0] - values[1]) > 0.1
    assert (found.value, found.query) == (pytest.approx(max(values), abs=1e-5), "rain")


class Fixed(lightning.LightningDataModule):
    """The same batch again and again, one mixture to score on."""

    def train_dataloader(self):
        return torch.utils.data.DataLoader([queried(noises(batch=4))] * 15, batch_size=None)

    def val_dataloader(self):
        return torch.utils.data.DataLoader([rendered({"query": "name 0"})], batch_size=None)


@pytest.mark.parametrize("arguments", [MASKED, {"loss": "snr"}], ids=["masks", "waveforms"])
def test_a_run_learns_to_separate_by_query(arguments, tmp_path):
    module = Supervised(unet(), encoder(), **arguments, optimiser=AdamW(lr=0.03, warmup=2, last=1.0), ema=0.0)
    trainer = fit(module, Fixed(), tmp_path)
    assert float(trainer.callback_metrics["val/sdri"]) > 1.5


# --- Data --------------------------------------------------------------------------------------


def test_procedural_sounds_are_enough_to_train_on():
    data = QueriedData(sample_rate=4000, seconds=0.5, batch_size=3, foley=1, balance=0.0)
    data.setup()
    batch = data.complete(data.batch(0, 0))
    assert batch.sources.shape == (3, 2, 2000) and batch.asked == 2
    assert batch.texts == batch.labels
    assert all(first != second for first, second in batch.labels)
    again = data.complete(data.batch(0, 0))
    assert torch.equal(batch.sources, again.sources) and batch.texts == again.texts


def test_without_manifest_and_procedural_sounds_there_is_nothing_to_train_on():
    with pytest.raises(ValueError, match="nothing to train on"):
        QueriedData().setup()


def test_a_random_encoder_distinguishes_all_queries():
    found = RandomEncoder(64).encode_text([f"query {i}" for i in range(50)])
    assert torch.allclose(found.norm(dim=1), torch.ones(50), atol=1e-5)
    assert (found @ found.T - torch.eye(50)).abs().max() < 0.6
    assert torch.equal(RandomEncoder(64).encode_text(["query 7"])[0], found[7])
    assert vectors(["query 7"], 64).shape == (1, 64)
    with pytest.raises(UnsupportedQueryError, match="takes no image"):
        RandomEncoder(4, ["text"]).encode_image(["a.jpg"])
