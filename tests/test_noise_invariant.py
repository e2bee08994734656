"""Noise invariant training: losses in plain computations, gradients at the start, queries by pictures."""

import itertools

import numpy as np
import pytest
import soundfile
import torch
from queries import DIM, encoder, logged, noises, queried, unet

pytest.importorskip("lightning", reason="needs the extra [train]")

from parts import fit

from separation.data.foley import synthesise
from separation.data.manifest import Clip, write_manifest
from separation.data.pictures import draw_picture
from separation.data.queried import QueriedData
from separation.training.losses import best_order, noise_invariant_bce
from separation.training.objectives.noise_invariant import NoiseInvariant
from separation.training.optimiser import AdamW


def objective(seed=0, **arguments):
    module = NoiseInvariant(unet(seed, noise_heads=2), encoder(), **arguments)
    logged(module)
    return module


# --- Losses ------------------------------------------------------------------------------------


def test_the_better_order_of_two():
    pairs = torch.tensor([[[1.0, 5.0], [6.0, 3.0]], [[1.0, 0.5], [0.25, 3.0]]])
    assert best_order(pairs).tolist() == [2.0, 0.375]
    with pytest.raises(ValueError, match="needs two estimates and two sources"):
        best_order(torch.zeros(1, 3, 3))


@pytest.mark.parametrize("gamma, wanted", [(0.25, 0.75), (1.0, 0.0), (1.5, 0.0), (0.0, 1.0)])
def test_the_noise_masks_are_free_up_to_gamma(gamma, wanted):
    noise = torch.full((2, 2, 3, 4), 0.5, dtype=torch.float64, requires_grad=True)
    excess = objective(gamma=gamma).noise_excess(noise)
    assert excess.item() == pytest.approx(wanted)
    excess.backward()
    # Every point of both masks counts 1 / (batch * rows * frames).
    assert torch.allclose(noise.grad, torch.full_like(noise, 1 / 24 if wanted else 0.0))


# --- The start ---------------------------------------------------------------------------------


def level_start(**arguments):
    """As published: all masks are 0.516."""
    module = objective(**arguments)
    torch.manual_seed(0)
    net = unet(0, noise_heads=2, published_start=True)
    with torch.no_grad():
        net.sound_net.unet_block.model[4].bias.zero_()
        net.synth_net.bias.fill_(np.log(0.516 / 0.484))
    module.model = net
    return module.train()


def terms_of(module, sources):
    """Target and noise masks, whose gradients are kept, and what they are compared with."""
    conditions = module.conditions(queried(sources))
    features, truth, weight = module.mask_targets(sources)
    targets, noise = module.model.masks_with_noise(features, conditions)
    targets.retain_grad(), noise.retain_grad()
    return targets, noise, truth, weight


def test_at_the_start_every_sum_is_clamped_and_only_the_bound_has_a_gradient():
    module, sources = level_start(), noises()
    targets, noise, truth, weight = terms_of(module, sources)
    assert (targets - 0.516).abs().max() < 0.01 and (noise - 0.516).abs().max() < 0.01
    assert ((targets[:, :, None] + noise[:, None]).clamp(max=1) == 1).all()
    noise_invariant_bce(targets, noise, truth, weight).mean().backward()
    assert targets.grad.count_nonzero() == noise.grad.count_nonzero() == 0
    module.zero_grad()
    module.mean_loss(sources, module.conditions(queried(sources))).backward()
    assert module.model.pit_nets[0].bias.grad.abs().max() > 0
    assert module.model.synth_net.bias.grad.abs().max() > 0


def test_a_warm_up_trains_the_target_masks_from_the_first_step():
    module, sources = level_start(warmup=1, noise_weight=0.0), noises()
    conditions = module.conditions(queried(sources))
    loss = module.mean_loss(sources, conditions)
    loss.backward()
    features, truth, weight = module.mask_targets(sources)
    plain = module.compare_masks(module.model.masks(features, conditions), truth, weight).mean()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    assert module.model.synth_net.bias.grad.abs().max() > 0
    # The noise heads take part with nothing, for trainings on several devices.
    assert all(p.grad is not None and p.grad.count_nonzero() == 0 for p in module.model.pit_nets.parameters())


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"noise_weight": 0.0}, "clamped at the start have no gradient"),
        ({"model": unet()}, "2 noise heads, not 0"),
        ({"loss": "ratio_mask"}, "needs queries and the loss"),
    ],
)
def test_settings_that_cannot_learn_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        NoiseInvariant(**({"model": unet(noise_heads=2), "encoder": encoder()} | arguments))


def test_two_clips_are_mixed_and_both_asked_for():
    module, sources = objective(), noises(sources=3)
    with pytest.raises(ValueError, match="mixes 2 clips"):
        module.mean_loss(sources, module.conditions(queried(sources)))


def test_the_noise_heads_are_dropped_at_test():
    module = objective()
    mixture = noises(batch=1).sum(1)
    before = module.separator()(mixture[0], "dog", 16000).target
    with torch.no_grad():
        for parameter in module.average.pit_nets.parameters():
            parameter.normal_(0, 10)
    assert torch.equal(before, module.separator()(mixture[0], "dog", 16000).target)


# --- Pictures, end to end ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Synthesised sounds with drawn pictures, one a second, as a manifest describes videos."""
    folder, entries = tmp_path_factory.mktemp("videos"), []
    for label, seed in itertools.product(["siren", "rain", "dog bark"], range(2)):
        name = f"{label.replace(' ', '_')}_{seed}"
        soundfile.write(folder / f"{name}.wav", synthesise(label, 5.0, 16000, seed), 16000)
        (folder / name).mkdir()
        for second in range(5):
            draw_picture(label, 10 * seed + second).save(folder / name / f"{second + 1:06d}.jpg")
        entries.append(("train", Clip(f"{name}.wav", label, "", name, "made", 5.0, frame=f"{name}/*.jpg")))
    write_manifest(folder / "manifest.csv", entries)
    return folder / "manifest.csv"


def random_clip(width=32):
    """CLIP with hardly any weights, all random; it needs open_clip."""
    pytest.importorskip("open_clip", reason="needs open_clip_torch")
    from separation.encoders.clip import ClipEncoder

    torch.manual_seed(0)
    sizes = {"layers": 1, "width": width, "patch_size": 16, "image_size": 32}
    text = {"layers": 1, "width": width, "heads": 2}
    return ClipEncoder("photo", DIM, {**sizes, "head_width": width // 2}, text)


@pytest.mark.parametrize("make", [encoder, random_clip], ids=["stand-in", "random CLIP"])
def test_training_by_pictures_end_to_end(videos, tmp_path, make):
    """The pictures are drawn and the encoder's weights are random: this shows that the way works, not how well."""
    data = QueriedData(manifest=videos, frames=3, sample_rate=16000, seconds=0.5, batch_size=2, batches=4, margin=1)
    module = NoiseInvariant(unet(noise_heads=2), make(), queries=["image"], optimiser=AdamW(lr=1e-2, warmup=1), ema=0.0)
    before = {name: p.detach().clone() for name, p in module.model.named_parameters()}
    assert fit(module, data, tmp_path).global_step == 4
    assert all(not torch.equal(p, before[name]) for name, p in module.model.named_parameters())
    asked = module.encoder.encode_image([[draw_picture("siren", 0)], [draw_picture("rain", 0)]])
    assert asked.shape == (2, DIM) and not torch.allclose(asked[0], asked[1])
    targets = module.average.separate(noises(batch=1).sum(1, keepdim=True), asked[None]).targets
    assert not torch.allclose(targets[0, 0], targets[0, 1])
