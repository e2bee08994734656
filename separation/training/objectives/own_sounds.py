"""Teaches a trained separator new sounds from a few clips each: a small difference to its weights, used for them only.

The condition of each new sound starts as the mean of its name's and its clips' and is learned together with vectors
(biases, norms) and low-rank changes (Hu et al., "LoRA", 2021) of the network's matrices and kernels. Queries for all
other sounds keep the weights of the base, so nothing can be forgotten; procedural sounds and other recordings are what
the new ones are told apart from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from separation.data.fixed_mixtures import Rendered
from separation.data.mixing import Batch
from separation.data.own_sounds import OwnSoundsData
from separation.encoders.own_names import OwnNames
from separation.errors import ModelError
from separation.evaluate.metrics import bootstrap
from separation.evaluate.scoring import Score, score_mixture
from separation.listing import ListingRule
from separation.models.own_sounds import LowRank
from separation.pretrained import load_settings
from separation.separator import Separator
from separation.training.losses import MaskError
from separation.training.objectives.bands import BandSupervised
from separation.training.optimiser import AdamW
from separation.training.own_sounds import load_base, name_vectors, save_difference

QUERIES = 2  # per mixture
ABSENT_LOGIT = -4.0


class OwnSounds(BandSupervised):
    """Trains the difference to a base model that `separation.own_sounds` loads.

    Args:
        base: name of a model, or model directory, that is taught.
        rank: of the changes of matrices and kernels.
        absent_weight: weight of silence for queries whose sound is not in the mixture.
        tagging_weight: weight of presence over time.
        optimiser: learning rate, weight decay and warm-up.
        encoder_weights: for tests of recipes, see `Objective`.

    Raises:
        ModelError: the base cannot be taught.
    """

    def __init__(
        self,
        base: str = "default",
        rank: int = 4,
        absent_weight: float = 0.03,
        tagging_weight: float = 2.0,
        optimiser: AdamW | None = None,
        encoder_weights: str | None = None,
    ) -> None:
        model, encoder, self.source = load_base(base)
        super().__init__(
            model, encoder, optimiser=optimiser, encoder_weights=encoder_weights, ema=0.0,
            absent_weight=absent_weight, absent_from=0, absent_ramp=1, tagging_weight=tagging_weight,
        )  # fmt: skip
        self.base, self.strict_loading = base, False
        for name, module in list(self.model.named_modules()):
            if name.startswith("branch.tagger"):
                continue
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(parameter.ndim <= 1)
            if isinstance(module, nn.Conv2d | nn.Linear):
                parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))
        # Without averaging. Norms keep their statistics: those of a few mixtures would be noise.
        self.average = self.model.eval()
        self.start = {name: value.detach().clone() for name, value in self.model.named_parameters()}

    def setup(self, stage: str) -> None:
        """Start the conditions of the new sounds."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, OwnSoundsData):
            raise ModelError("OwnSounds is trained with the data module separation.data.own_sounds.OwnSoundsData.")
        if data.sample_rate != self.model.sample_rate:
            raise ModelError(f"{self.base} works at {self.model.sample_rate} Hz: set data.sample_rate to this.")
        if stage != "fit":
            raise ModelError(
                "Own sounds are measured when fit ends; python -m separation.evaluate --model does it again."
            )
        if self.encoder.own is not None:
            return
        corpus, texts, vectors = data.corpus, self.encoder.encode_text(data.own), []
        with torch.no_grad():
            for label, text in zip(data.own, texts, strict=True):
                clips = [number for recording in corpus.tree[label].values() for number in recording]
                heard = torch.cat([self.encoder.encode_example(corpus.waveform(number)) for number in clips])
                vectors.append(F.normalize(text + F.normalize(heard.mean(0), dim=-1), dim=-1))
        known = load_settings(self.source, "listing", ListingRule).sounds
        names, rivals = name_vectors(self.encoder, data.own, known)
        self.encoder.own = OwnNames(names, rivals, torch.stack(vectors))
        # Label numbers of the corpus to numbers of own sounds; all others come after these.
        self.numbers = torch.tensor([data.own.index(x) if x in data.own else len(names) for x in corpus.labels])

    def trainable(self) -> nn.Module:
        return nn.ModuleList([self.model, self.encoder.own] if self.encoder.own else [self.model])

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        assert self.encoder.own is not None
        own, vectors = self.numbers.to(self.device)[batch.labels], self.encoder.own.unit_vectors()
        own = torch.where(batch.has_source(), own, len(vectors))
        # Own sounds that are present are asked for first, then absent ones.
        sounds = (own[:, :, None] == torch.arange(len(vectors), device=self.device)).transpose(1, 2)
        order = sounds.any(-1) + torch.rand(sounds.shape[:2], device=self.device)
        asked = order.topk(min(QUERIES, len(vectors)), 1).indices
        asks = sounds.gather(1, asked[..., None].expand(-1, -1, sounds.shape[-1]))
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            spectra = self.model.stft(batch.sources)
            features = self.model.features(spectra.sum(1)[:, None])
            targets = torch.einsum("bqs,bsft->bqft", asks.to(spectra.dtype), spectra)
            error = MaskError(spectra.sum(1), targets, self.model.to_bins)
        with parametrize.cached():
            analysis = self.model.analyse(features, batch.sources.sum(1, keepdim=True))
            logits = self.model.presence(analysis, vectors[None].expand(len(own), -1, -1)).float()
            terms = self.mask_terms(replace(batch, asks=asks), error, self.model.mask(analysis, vectors[asked]))
        rest = torch.full_like(logits[:, :1], ABSENT_LOGIT).detach()
        terms["tagging"] = self.presence_term(torch.cat([logits, rest], 1), replace(batch, labels=own), spectra)
        for name, value in terms.items():
            self.log(f"train/{name}", value, prog_bar=name == "snr", sync_dist=True)
        total = terms["snr"] + self.absent_weight * terms["absent"] + self.tagging_weight * terms["tagging"]
        return self.skip_invalid(total)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained: the rest is in the base."""
        trained = {f"model.{name}" for name, value in self.model.named_parameters() if value.requires_grad}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if k in trained or k.startswith("encoder.own.")}

    def difference(self) -> dict[str, Tensor]:
        """What `save_difference` stores."""
        tensors = {}
        for name, value in self.model.named_parameters():
            place, _, factor = name.partition(".parametrizations.weight.0.")
            if factor:
                tensors[f"model.{place}.weight.{factor}"] = value.half()
            elif value.requires_grad:
                tensors[f"model.{name}"] = value - self.start[name].to(value.device)
        assert self.encoder.own is not None
        own = self.encoder.own
        names = {f"encoder.own.{name}": value.half() for name, value in (("names", own.names), ("rivals", own.rivals))}
        return tensors | names | {"encoder.own.vectors": own.vectors}

    @rank_zero_only
    def on_fit_end(self) -> None:
        """Write the model and measure it."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        folder = Path(self.trainer.default_root_dir)
        save_difference(folder, self.base, self.difference(), data.own)
        size = (folder / "model.safetensors").stat().st_size / 1e6
        print(f"wrote {folder}: {len(data.own)} sounds, {size:.1f} MB in addition to {self.base}")
        before, after = (Separator.from_pretrained(name, self.device) for name in (self.base, folder))
        new, old = data.held_out_mixtures()
        if not new:
            print("There are no clips of split validation, so what was learned is not measured.")
        print(compare(before, after, {"own sounds": new, "procedural sounds": old}))


def compare(before: Separator, after: Separator, groups: dict[str, Sequence[Rendered]]) -> str:
    """Table of the mean SDRi of two models on groups of mixtures and, of the first group, on each of its sounds.

    Intervals are of 95 %, by recording.
    """
    lines = [f"{'SDRi in dB':<28}{'n':>4}{'before':>8}{'after':>8}  difference (95 % interval)"]
    for title, mixtures in groups.items():
        pairs = [(score_mixture(before, each), score_mixture(after, each)) for each in mixtures]
        sounds = sorted({first.query for first, _ in pairs}) if title == next(iter(groups)) else []
        for name in [title, *sounds]:
            chosen = [pair for pair in pairs if name in (title, pair[0].query)]
            if chosen:
                lines.append(compare_scores(name if name == title else f"  {name}", chosen))
    return "\n".join(lines)


def compare_scores(name: str, pairs: Sequence[tuple[Score, Score]]) -> str:
    """A line of `compare`."""
    first, second = (np.array([score.value for score in column]) for column in zip(*pairs, strict=True))
    low, high = bootstrap(second - first, [score.recording for score, _ in pairs])
    means = f"{first.mean():>8.2f}{second.mean():>8.2f}"
    return f"{name:<28}{len(pairs):>4}{means}  {(second - first).mean():+.2f} ({low:+.2f} to {high:+.2f})"
