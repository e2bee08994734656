"""Base classes of the objectives: seeds, devices, optimiser; averaged weights and scores of separators."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, nn

from separation import pretrained
from separation.data.fixed_mixtures import LeftOut, Rendered, read_example
from separation.data.pictures import VectorStore
from separation.encoders.base import QueryEncoder
from separation.encoders.joint import JointEncoder
from separation.encoders.table import LabelEncoder, NamedEmbeddings, RandomEncoder
from separation.evaluate.metrics import DEFAULT_METRICS
from separation.evaluate.scoring import EvaluationError, Outcome, Plan, Score, merge_outcomes, score_mixture
from separation.evaluate.tables import compare_systems, describe_skipped, format_tables, summarize
from separation.models.base import ConditionedModel
from separation.separator import Separator
from separation.storage.checkpoints import average_weights
from separation.storage.tensors import load_strictly, read_tensors, select
from separation.training.optimiser import AdamW

STATISTICS_BATCHES, STATISTICS_QUERIES = 12, 4  # that the batch norm statistics of the averaged weights go over
RANDOM = "random"
FULL = Plan(metrics=DEFAULT_METRICS, oracle=True)  # while training, only the SDRi is measured
BatchNorm = nn.modules.batchnorm._BatchNorm


class TrainingModule(lightning.LightningModule):
    """Base of all objectives: seeded steps, the optimiser, what is shared between devices.

    Everything random in a step is drawn after the generator was seeded with (seed, batch, device). A resumed run
    therefore draws what an uninterrupted run would have drawn.
    """

    def __init__(self, optimiser: AdamW) -> None:
        super().__init__()
        self.optimiser = optimiser

    def trainable(self) -> nn.Module:
        """The module whose parameters are optimised."""
        return self

    def configure_optimizers(self) -> Any:
        return self.optimiser.configure(self.trainable(), int(self.trainer.estimated_stepping_batches))

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))  # set by Lightning's seed_everything
        torch.manual_seed((seed * 1_000_003 + self.trainer.fit_loop.total_batch_idx) * 4099 + self.global_rank)

    @property
    def world_size(self) -> int:
        """Number of devices that train together; one outside a trainer."""
        return self.trainer.world_size if self._trainer is not None else 1

    def gather(self, own: Tensor) -> Tensor:
        """Tensors of all devices (devices, *shape), that of device 0 first. Gradients flow back to each device."""
        if self.world_size == 1:
            return own[None]
        gathered: Any = self.all_gather(own, sync_grads=True)
        return gathered

    def gather_objects(self, own: list[Any]) -> list[Any]:
        """Lists of all devices, joined in the order of the devices."""
        if self.world_size == 1:
            return own
        parts: list[list[Any]] = [[]] * self.world_size
        torch.distributed.all_gather_object(parts, own)
        return [item for part in parts for item in part]

    def mean_count(self, count: Tensor) -> Tensor:
        """Mean of a count over the devices.

        DDP averages the gradients of the devices. A sum that is divided by this mean, not by the device's own count,
        has the gradient of the mean over the items of all devices, however they are distributed.
        """
        return self.gather(count.detach().float()).mean(0)


class Objective(TrainingModule):
    """Base of the objectives that train a separator. A subclass defines `training_step`, which calls `keep_batch`.

    Args:
        model: the separator to train.
        encoder: computes the conditions; frozen.
        encoder_weights: safetensors file with the encoder's weights, or "random": encoders whose weights would have to
            be downloaded are replaced by fixed random vectors, so that a recipe can be tried without any file.
        start_from: checkpoint of an earlier training (its averaged weights are used) or model directory, from which
            separator and encoder are loaded before a new training.
        optimiser: learning rate, weight decay and warm-up.
        ema: decay of the averaged weights, which are the ones that are validated and exported; 0 copies the last ones.
        compile: backend that compiles the layers of the separator, for example `inductor`; None does not compile.

    Raises:
        ModelError: a tensor of the loaded files is missing, superfluous or of another shape.
    """

    reference_queries = False  # held-out mixtures are queried by their clean targets

    def __init__(
        self,
        model: ConditionedModel,
        encoder: QueryEncoder,
        encoder_weights: str | None = None,
        start_from: str | None = None,
        optimiser: AdamW | None = None,
        ema: float = 0.998,
        compile: str | None = None,
    ) -> None:
        super().__init__(optimiser or AdamW())
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if encoder_weights == RANDOM and (encoder.needs_files or isinstance(encoder, LabelEncoder)):
            # A LabelEncoder knows the labels of one dataset only.
            encoder = RandomEncoder(encoder.embedding_dim, encoder.modalities)
        self.encoder = encoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        start_encoder(self.encoder, encoder_weights)
        if start_from is not None:
            source, own = Path(start_from), Path(start_from).is_dir()
            state = read_tensors(source / "model.safetensors" if own else source)
            pretrained.load_parts(self.model, self.encoder, state if own else average_weights(state), source)
        self.average = deepcopy(self.model).eval().requires_grad_(False)
        self.ema, self.backend = ema, compile
        self.batches: deque[tuple[Tensor, Tensor]] = deque(maxlen=STATISTICS_BATCHES)
        self.outcome, self.plan = Outcome(), Plan()
        self.example_conditions = NamedEmbeddings(encoder.embedding_dim, encoder.unit_length)
        self.reported: list[str] = []

    def train(self, mode: bool = True) -> Objective:
        """Set the training mode of the separator; encoder and averaged weights stay in inference mode."""
        super().train(mode)
        self.encoder.eval()
        self.average.eval()
        return self

    def trainable(self) -> nn.Module:
        return self.model

    def progress(self) -> float:
        """Share of the training that is done, 0 to 1."""
        return min(1.0, self.global_step / max(1, int(self.trainer.estimated_stepping_batches)))

    def skip_invalid(self, loss: Tensor | None) -> Tensor | None:
        """The loss, or None if it is not finite: Lightning then skips the step, so that one bad batch ends no run.

        None stands for a batch that has nothing to train on. On several devices none may skip a step: a loss of zero is
        returned instead. All weights take part in every loss there, because each device waits for the gradients of all
        weights from the others.
        """
        if loss is not None and not torch.isfinite(loss):
            loss = None
        if self.world_size == 1:
            return loss
        zero = 0.0 * torch.stack([p.sum() for p in self.trainable().parameters() if p.requires_grad]).sum()
        return zero if loss is None else zero + loss

    # Averaged weights. Lightning's WeightAveraging is not used: it also copies the frozen encoder, swaps the weights
    # in the checkpoint, and averages after the checkpoint of a step has been written, so resumed runs would deviate.

    def on_fit_start(self) -> None:
        # The averaged network must not wait for other devices, which may have no batch for it.
        self.average = TorchSyncBatchNorm().revert(self.average).eval()
        if self.backend is not None:
            compile_layers(self.model, self.backend)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Update the weights, then the averaged weights."""
        super().optimizer_step(*arguments, **named)
        step = self.global_step + 1
        decay = min(self.ema, (step + 1) / (step + 20))
        with torch.no_grad():
            for averaged, current in zip(self.average.parameters(), self.model.parameters(), strict=True):
                averaged.lerp_(current, 1 - decay)

    def keep_batch(self, mixture: Tensor, conditions: Tensor) -> None:
        """Keep a batch for `update_statistics`: mixture (batch, channels, time), conditions (batch, queries, dim)."""
        # Half precision and a few queries are enough for means and variances, and save memory.
        some = conditions.detach()[:, :: -(-conditions.shape[1] // STATISTICS_QUERIES)]
        self.batches.append((mixture.detach().half(), some.half()))

    @torch.no_grad()
    def update_statistics(self) -> None:
        """Measure the batch norm statistics of the averaged weights over the last batches of all devices.

        Averaged weights need statistics of their own: with those of the trained weights they are worse than these
        (docs/experiments.md). The statistics are means over the last 12 batches. Of those, the batches since the last
        update are measured, the others enter with the former statistics, so that a checkpoint need not hold any audio.
        torch's update_bn would discard the former statistics. All devices have to call this together.
        """
        norms = [module for module in self.average.modules() if isinstance(module, BatchNorm)]
        count = len(self.batches)
        counts = self.gather(torch.tensor(float(count), device=self.device))
        if not norms or not counts.sum():
            return
        momentum = [norm.momentum for norm in norms]
        for norm in norms:
            norm.num_batches_tracked.clamp_(max=STATISTICS_BATCHES - count)  # type: ignore[union-attr]
            norm.momentum = None  # the cumulative mean
            norm.train()
        for mixture, conditions in self.batches:
            self.average.separate(mixture.float().to(self.device), conditions.float().to(self.device))
        self.batches.clear()
        for norm, value in zip(norms, momentum, strict=True):
            norm.momentum = value
            norm.eval()
            for buffer in (norm.running_mean, norm.running_var):
                if self.world_size > 1 and buffer is not None:
                    buffer.copy_(torch.tensordot(counts / counts.sum(), self.gather(buffer), 1))

    def on_train_epoch_end(self) -> None:
        self.update_statistics()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.update_statistics()  # in place: the state dict in the checkpoint refers to the same tensors

    # Scores

    def separator(self) -> Separator:
        """The averaged weights as a separator."""
        encoder = self.example_conditions if self.queried_by_audio() else self.encoder
        return Separator(self.average, encoder, type(self).__name__, self.device)

    def queried_by_audio(self) -> bool:
        """Whether held-out mixtures are queried by recordings: for want of texts and labels, or as the options say."""
        by_audio = "audio" in self.encoder.modalities and not {"text", "label"} & self.encoder.modalities
        return by_audio or self.reference_queries

    def score(self, rendered: Rendered) -> Score:
        """Score of one mixture."""
        return score_mixture(self.separator(), rendered, self.plan)

    def add_score(self, item: Rendered | LeftOut) -> None:
        """Score a mixture, or count it if it has no score.

        Scores are computed in single precision, whatever the precision of the training, so that they agree with those
        of `python -m separation.evaluate`.
        """
        with torch.autocast(self.device.type, enabled=False):
            if isinstance(item, Rendered) and self.queried_by_audio():
                by_target = self.reference_queries and item.row["kind"] != "absent"
                found = item.target if by_target else read_example(item)
                if isinstance(found, LeftOut):
                    item = found
                else:
                    waveform = torch.from_numpy(found).float()[None].to(self.device)
                    with torch.no_grad():
                        condition = self.encoder.encode_audio(waveform, item.sample_rate)
                    self.example_conditions.store(item.row["query"], condition[0].float())
            self.outcome.add(item, self.score)

    def on_validation_start(self) -> None:
        fitting = self.trainer.state.fn == "fit"
        self.outcome, self.plan = Outcome(), Plan() if fitting else FULL
        if fitting:
            self.update_statistics()

    def validation_step(self, item: Rendered | LeftOut, index: int) -> None:
        """Measure the SDRi of a target in dB, or, of an absent query, the level of the output under the mixture."""
        self.add_score(item)

    def on_validation_epoch_end(self) -> None:
        """Log the means over the mixtures of all devices; `validate` also prints the tables."""
        outcome = self.joined_outcome()
        present = [score.value for score in outcome.scores if score.kind != "absent"]
        absent = [score.value for score in outcome.scores if score.kind == "absent"]
        for name, values in (("val/sdri", present), ("val/absent_db", absent)):
            if values:
                self.log(name, sum(values) / len(values), prog_bar=True, sync_dist=True)
        if self.trainer.state.fn == "validate":
            self.report(outcome)
        elif (lines := describe_skipped(outcome)) and lines != self.reported and not self.trainer.sanity_checking:
            self.print("\n".join(lines))
            self.reported = lines

    def on_test_start(self) -> None:
        self.outcome, self.plan = Outcome(), FULL

    def test_step(self, item: Rendered | LeftOut, index: int) -> None:
        """Score a mixture; the tables are printed at the end."""
        self.add_score(item)

    def on_test_epoch_end(self) -> None:
        outcome = self.joined_outcome()
        self.report(outcome)
        for line in summarize(outcome.scores):
            self.log(f"test/{line['rows']}", line["mean"], rank_zero_only=True)

    def joined_outcome(self) -> Outcome:
        """Scores and omitted rows of all devices; raise EvaluationError if no mixture could be scored."""
        outcome = merge_outcomes(self.gather_objects([self.outcome]))
        if not outcome.scores and not self.trainer.sanity_checking:
            reasons = " ".join(describe_skipped(outcome))
            raise EvaluationError(f"None of the {outcome.rows} mixtures can be scored. {reasons}")
        return outcome

    def report(self, outcome: Outcome) -> None:
        """Print the scores of the model, of the unprocessed mixture and of an oracle mask, and the omitted rows."""
        self.print("\n".join([f"{outcome.rows} rows: {len(outcome.scores)} scored.", *describe_skipped(outcome)]))
        self.print(format_tables(outcome.scores, compare_systems(outcome.scores, self.plan.metrics)))


class EmbeddingCache:
    """Vectors of a frozen encoder, computed once for every query; the last `size` that were used are kept.

    Attributes:
        store: keeps the vectors of pictures beyond this training.
    """

    def __init__(self, size: int = 100_000) -> None:
        self.size = size
        self.vectors: OrderedDict[Hashable, Tensor] = OrderedDict()
        self.store: VectorStore | None = None

    def __call__(self, queries: Sequence[Any], encode: Callable[[list[Any]], Tensor]) -> Tensor:
        """Encode texts, labels, or files of pictures to (queries, dim) on the CPU. Pixels are encoded each time."""
        keys = [cache_key(query) for query in queries]
        if new := {key: query for key, query in zip(keys, queries, strict=True) if key not in self.vectors}:
            with torch.no_grad():
                vectors = encode(list(new.values())).detach().float().cpu()
            self.vectors.update(zip(new, vectors, strict=True))
            if self.store is not None:
                self.store.add(list(new.values()), vectors.numpy())
        found = torch.stack([self.vectors[key] for key in keys])
        for key in keys:
            if type(key) is object:
                self.vectors.pop(key, None)
            else:
                self.vectors.move_to_end(key)
        while len(self.vectors) > self.size:
            self.vectors.popitem(last=False)
        return found


def cache_key(query: Any) -> Hashable:
    """A text, label, path or file itself; an object that equals no other for anything else."""
    if isinstance(query, bytes):
        return hashlib.blake2b(query, digest_size=16).digest()
    return query if isinstance(query, str | int | Path) else object()


def start_encoder(encoder: nn.Module, file: str | None) -> None:
    """Load the weights that `separation.export encoder` wrote; without a file a tagger is that of the default model.

    Raises:
        ModelError: a tensor is missing, superfluous or of another shape.
    """
    if isinstance(encoder, JointEncoder) and encoder.tagger is not None:
        default = pretrained.WEIGHTS / "default" / "model.safetensors"
        load_strictly(encoder.tagger, select(read_tensors(default), "encoder.tagger."), default)
    if file not in (None, RANDOM):
        pretrained.load_encoder(encoder, read_tensors(Path(str(file))), Path(str(file)))


def compile_layers(module: nn.Module, backend: str | Callable[..., Any]) -> None:
    """Compile the layers of a network in place; names and values of its tensors stay the same.

    Layers are compiled one by one, because objectives call parts of a network, and because spectra are complex, which
    compilers do not support well.
    """
    for part in module.children():
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            compile_layers(part, backend)
        else:
            part.compile(backend=backend)
