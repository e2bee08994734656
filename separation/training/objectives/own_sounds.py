"""Teaches a trained separator new sounds from a few clips each: a small difference to its weights, used for them only.

The condition of each new sound starts as the mean of its name's and its clips' and is learned together with vectors
(biases, norms) and low-rank changes (Hu et al., "LoRA", 2021) of the network's matrices and kernels. Queries for all
other sounds keep the weights of the base, so nothing can be forgotten; procedural sounds and other recordings are what
the new ones are told apart from.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from separation import pretrained
from separation.data.mixing import Batch
from separation.data.own_sounds import OwnSoundsData
from separation.encoders.joint import TEMPLATES, JointEncoder
from separation.errors import ModelError
from separation.evaluate.tables import compare
from separation.listing import ListingRule
from separation.models.band_unet import BandUNet
from separation.own_sounds import LowRank, OwnNames
from separation.separator import Separator
from separation.storage.download import sha256_of
from separation.training.objectives.bands import BandSupervised
from separation.training.optimiser import AdamW

QUERIES = 2  # per mixture
ABSENT_LOGIT = -4.0
RIVALS = 5  # known sounds with similar names, for each new sound
SOUNDS = "sounds.safetensors"  # conditions of the known sounds, which stay those of the base


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
        self.source = path = pretrained.find_model(base)
        if path.is_dir() and pretrained.read_config(path).get("base"):
            raise ModelError(f"{path} was itself taught sounds; start from its base, and give the clips of all sounds.")
        model, encoder = pretrained.load_model(path)
        if not path.is_dir() or not isinstance(model, BandUNet) or not isinstance(encoder, JointEncoder):
            raise ModelError(f"{base} cannot be taught sounds: use default, small, or a model directory of their kind.")
        super().__init__(
            model, encoder, optimiser=optimiser, encoder_weights=encoder_weights, ema=0.0,
            absent_weight=absent_weight, absent_from=-1, absent_ramp=1, tagging_weight=tagging_weight,
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
                clips = [number for recording in corpus.recordings[label] for number in recording]
                heard = torch.cat([self.encoder.encode_example(corpus.waveform(number)) for number in clips])
                vectors.append(F.normalize(text + F.normalize(heard.mean(0), dim=-1), dim=-1))
        known = pretrained.load_settings(self.source, "listing", ListingRule).sounds
        others, names = [name for name in known if name not in data.own], self.encode_names(data.own)
        cosines = self.encoder.sentence.encode_text(others) @ names[:, 0].T  # (others, names)
        nearest = cosines.topk(min(RIVALS, len(others)), 0).indices.flatten().unique()
        rivals = self.encode_names([others[number] for number in nearest.tolist()])
        self.encoder.own = OwnNames(names, rivals, torch.stack(vectors))
        # Label numbers of the corpus to numbers of own sounds; all others come after these.
        self.numbers = torch.tensor([data.own.index(x) if x in data.own else len(names) for x in corpus.labels])

    def encode_names(self, names: Sequence[str]) -> Tensor:
        """Sentence vectors of names (names, forms, dim), as they are stored."""
        vectors = self.encoder.sentence.encode_text([form.format(name) for name in names for form in TEMPLATES])
        return vectors.unflatten(0, (-1, len(TEMPLATES))).half().float()

    def trainable(self) -> nn.Module:
        return nn.ModuleList([self.model, self.encoder.own] if self.encoder.own else [self.model])

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        """Ask for `QUERIES` own sounds, those in the mixture first."""
        vectors = self.encoder.own.unit_vectors()
        own = torch.where(batch.has_source(), self.numbers.to(self.device)[batch.labels], len(vectors))
        sounds = (own[:, :, None] == torch.arange(len(vectors), device=self.device)).transpose(1, 2)
        order = sounds.any(-1) + torch.rand(sounds.shape[:2], device=self.device)
        asked = order.topk(min(QUERIES, len(vectors)), 1).indices
        asks = sounds.gather(1, asked[..., None].expand(-1, -1, sounds.shape[-1]))
        with parametrize.cached():
            return super().training_step(
                replace(batch, labels=own, asks=asks, sentences=vectors[asked], bank=vectors), index
            )

    def conditions(self, batch: Batch) -> Tensor:
        return batch.sentences

    def label_conditions(self, batch: Batch) -> Tensor:
        return batch.bank

    def keep_batch(self, mixture: Tensor, conditions: Tensor) -> None:
        """Norms keep their statistics."""

    def presence_term(self, logits: Tensor, batch: Batch, spectra: Tensor) -> Tensor:
        """The label of all other sounds has a constant logit."""
        rest = torch.full_like(logits[:, :1], ABSENT_LOGIT).detach()
        return super().presence_term(torch.cat([logits, rest], 1), batch, spectra)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained: the rest is in the base."""
        trained = {f"model.{name}" for name, value in self.model.named_parameters() if value.requires_grad}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if k in trained or k.startswith("encoder.own.")}

    @rank_zero_only
    def on_fit_end(self) -> None:
        """Write the model and measure it."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        folder = Path(self.trainer.default_root_dir)
        self.save(folder, data.own)
        size = (folder / "model.safetensors").stat().st_size / 1e6
        print(f"wrote {folder}: {len(data.own)} sounds, {size:.1f} MB in addition to {self.base}")
        before, after = (Separator.from_pretrained(name, self.device) for name in (self.base, folder))
        new, old = data.held_out_mixtures()
        if not new:
            print("There are no clips of split validation, so what was learned is not measured.")
        print(compare(before, after, {"own sounds": new, "procedural sounds": old}))

    def save(self, directory: Path, sounds: Sequence[str]) -> None:
        """Write a model directory as `separation.own_sounds` describes it, for the names of the new sounds."""
        own = self.encoder.own
        tensors = {"encoder.own.names": own.names.half(), "encoder.own.rivals": own.rivals.half()}
        tensors["encoder.own.vectors"] = own.vectors
        for name, value in self.model.named_parameters():
            place, _, factor = name.partition(".parametrizations.weight.0.")
            if factor:
                tensors[f"model.{place}.weight.{factor}"] = value.half()
            elif value.requires_grad:
                tensors[f"model.{name}"] = value - self.start[name].to(value.device)
        config = pretrained.read_config(self.source)
        listing = asdict(pretrained.load_settings(self.source, "listing", ListingRule))
        listing["sounds"] = list(dict.fromkeys([*listing["sounds"], *sounds]))
        card = {key: value for key, value in (config.get("card") or {}).items() if key in ("queries", "sample_rate")}
        card |= {"description": f"{self.base} with own sounds: {', '.join(sounds)}", "scores": "not measured"}
        name = self.base if self.source.parent == pretrained.WEIGHTS else str(self.source.resolve())
        base = {"model": name, "sha256": sha256_of(self.source / "model.safetensors"), "sounds": [*sounds]}
        pretrained.write_model(directory, config | {"card": card, "base": base, "listing": listing}, tensors)
        if (self.source / SOUNDS).is_file():
            shutil.copyfile(self.source / SOUNDS, directory / SOUNDS)
