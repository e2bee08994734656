"""Writes the weights that `conf/recipe/live.yaml` starts from: `small` made causal, the default's tagger and texts.

    python benchmarks/studies/live_start.py runs/live_start --data FOLDER

1. Every convolution over time loses its future tap, which is added to the present one: steady sounds pass unchanged.
2. Conditions come from the default's encoder. A linear map to those of `small`, fitted on all wordings, is multiplied
   into the layers that take the condition.
3. Statistics of the norms are measured again, on mixtures of two train recordings.
4. Convolutions are split into two factors: projections of their outputs on the principal components.

It prints the SDRi on every tenth two-source row of the validation list after each stage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from study import run_benchmark
from torch import Tensor, nn
from torch.nn import functional as F

from separation.data.corpus import decode
from separation.data.fixed_mixtures import read_rows, render
from separation.data.manifest import read_manifest
from separation.evaluate.metrics import sdri
from separation.models.live_unet import CausalConv, LiveUNet
from separation.pretrained import find_model, load_model, read_config, save_model
from separation.vocabulary.sounds import wordings

SIZES: dict[str, Any] = {"ranks": [32, 48, 64, 64], "stream_rank": 64}
LENGTH, BATCHES, BATCH = 99000, 8, 6
NAMES = {"stem": "stem", "levels.0.0.first": "first.first", "levels.0.0.second": "first.second", "bottom": "bottom"}
NAMES |= {f"levels.{n}.0": f"levels.{n - 1}.down" for n in (1, 2, 3)}
NAMES |= {f"levels.{n}.2.{part}": f"levels.{n - 1}.residual.{part}" for n in (1, 2, 3) for part in ("first", "second")}
NAMES |= {f"decoders.{n}.conv": f"decoders.{n}.conv" for n in range(3)}
STREAM = {"gather": "norm", "near": "near_norm", "far": "far_norm"}  # convolutions of the frame stream and their norms


def fold_future(weight: Tensor, taps: int) -> Tensor:
    """Kernels (outputs, inputs, bands, 3) around a frame to kernels of the frames up to it (..., taps)."""
    if weight.shape[-1] == 1:
        return weight
    result = weight.new_zeros(*weight.shape[:3], taps)
    result[..., -2:] = torch.stack([weight[..., 0], weight[..., 1] + weight[..., 2]], dim=-1)
    return result


def make_causal(base: nn.Module, live: LiveUNet) -> None:
    """Copy the weights of a `BandUNet` into a network of full rank."""
    source, target = base.state_dict(), live.state_dict()
    pairs = [(f"{old}.0", f"{old}.1", new) for old, new in NAMES.items()]
    pairs += [(f"stream.{old}", f"stream.{norm}", old) for old, norm in STREAM.items()]
    for conv, norm, new in pairs:
        taps = target[f"{new}.conv.weight"].shape[-1]
        target[f"{new}.conv.weight"] = fold_future(source[f"{conv}.weight"], taps)
        target |= {f"{new}.norm.{name}": source[f"{norm}.{name}"] for name in
                   ("weight", "bias", "running_mean", "running_var")}  # fmt: skip
    same = [
        name for name in source if name in target and "norm" not in name and source[name].shape == target[name].shape
    ]
    live.load_state_dict(target | {name: source[name] for name in same})


@torch.no_grad()
def change_space(live: LiveUNet, old: Any, new: Any) -> None:
    """Let the network take conditions of another encoder, by a linear map fitted on all wordings of the labels."""
    texts = [text for label, forms in wordings().items() for text in (label, *forms)]
    sentences = new.sentence.encode_text(texts)
    before, after = old.embed_sentences(sentences).double(), new.embed_sentences(sentences).double()
    inputs = torch.cat([after, torch.ones(len(after), 1)], dim=1)
    ridge = 0.003 * len(inputs) / inputs.shape[1] * torch.eye(inputs.shape[1], dtype=torch.float64)
    fitted = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ before).float()
    for layer in (live.query[0], live.detect):
        layer.bias += layer.weight @ live.unit_variance(fitted[-1])
        layer.weight.copy_(layer.weight @ fitted[:-1].T)


def draw_mixtures(data: Path, encoder: Any, rng: np.random.Generator) -> list[tuple[Tensor, Tensor]]:
    """Batches of mixtures (batch, 1, time) of two train recordings and conditions of both (batch, 2, dim)."""
    clips, batches = read_manifest(data / "manifest.csv", "train"), []
    for _ in range(BATCHES):
        mixtures, queries = torch.zeros(BATCH, 1, LENGTH), []
        for mixture in mixtures:
            chosen = [clips[number] for number in rng.choice(len(clips), 2, replace=False)]
            for clip in chosen:
                wave = torch.from_numpy(decode(data / clip.path, 32000)[0][:LENGTH]).float()
                start = int(rng.integers(LENGTH - len(wave) + 1))
                mixture[0, start : start + len(wave)] += (
                    wave / wave.std().clamp_min(1e-6) * 10 ** rng.uniform(-0.25, 0.25)
                )
            queries.append(encoder.encode_text([clip.label for clip in chosen]))
        batches.append((mixtures, torch.stack(queries)))
    return batches


@torch.no_grad()
def measure_norms(live: LiveUNet, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Measure the statistics of all norms again."""
    norms = [module for module in live.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for mixtures, conditions in batches:
        live.separate(mixtures, conditions)
    live.eval()


@torch.no_grad()
def split_convolutions(full: LiveUNet, low: LiveUNet, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Copy a network into one with ranks: the outputs of a convolution, as normed, on their principal components."""
    moments: dict[str, Tensor] = {}
    convolutions = {name: module for name, module in full.named_modules() if isinstance(module, CausalConv)}
    for name, module in convolutions.items():

        def keep(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
            flat = F.pad(output.movedim(1, -1).flatten(0, -2).double(), (0, 1), value=1.0)
            moments[name] = moments.get(name, 0.0) + flat.T @ flat

        module.conv.register_forward_hook(keep)
    for mixtures, conditions in batches:
        full.separate(mixtures, conditions)
    source, target = full.state_dict(), low.state_dict()
    target |= {name: value for name, value in source.items() if name in target and target[name].shape == value.shape}
    for name, module in convolutions.items():
        if f"{name}.expand.weight" not in target:
            continue
        count, mean = moments[name][-1, -1], moments[name][-1, :-1] / moments[name][-1, -1]
        scale = (module.norm.weight / (module.norm.running_var + module.norm.eps).sqrt()).double()
        covariance = scale[:, None] * (moments[name][:-1, :-1] / count - torch.outer(mean, mean)) * scale
        main = torch.linalg.eigh(covariance)[1][:, -target[f"{name}.expand.weight"].shape[1] :]
        kernels = torch.einsum("or,oibt->ribt", main * scale[:, None], module.conv.weight.double())
        target[f"{name}.conv.weight"] = kernels.float()
        target[f"{name}.expand.weight"] = (main / scale[:, None]).float()[:, :, None, None]
    low.load_state_dict(target)


@torch.no_grad()
def print_score(stage: str, live: LiveUNet, encoder: Any, data: Path) -> None:
    """Print the mean SDRi of every tenth two-source row."""
    values = []
    for row in read_rows(data / "validation_mixtures.csv", "pair")[::10]:
        rendered = render(row, data)
        mixture = torch.from_numpy(rendered.mixture).float()
        estimate = live.separate(mixture[None, None], encoder.encode_text([row["query"]])[None]).targets[0, 0, 0]
        values.append(sdri(rendered.target, estimate.numpy(), rendered.mixture))
    size = sum(parameter.numel() for parameter in live.parameters()) / 1e6
    print(f"{stage:20} {np.mean(values):.2f} dB, {size:.2f} M parameters", flush=True)


def main() -> None:
    """Run the command."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args()
    (small, small_encoder), (default, encoder) = (load_model(find_model(name)) for name in ("small", "default"))
    full, low = LiveUNet().eval(), LiveUNet(**SIZES).eval()
    make_causal(small, full)
    change_space(full, small_encoder, encoder)
    full.tags.tagger.load_state_dict(default.branch.tagger.state_dict(), strict=False)
    print_score("causal", full, encoder, options.data)
    batches = draw_mixtures(options.data, encoder, np.random.default_rng(0))
    measure_norms(full, batches)
    print_score("norms measured", full, encoder, options.data)
    split_convolutions(full, low, batches)
    print_score("two factors", low, encoder, options.data)
    described = {
        "model": {"class_path": "separation.models.live_unet.LiveUNet", "init_args": SIZES},
        "encoder": read_config(find_model("default"))["encoder"],
    }
    save_model(options.output, {"card": {"sample_rate": 32000}, **described}, low, encoder)


if __name__ == "__main__":
    run_benchmark(main)
