"""What all objectives share: separator, frozen query encoder, averaged weights, scores on held-out mixtures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from separation.data.fixed_mixtures import LeftOut, Rendered, read_example
from separation.encoders.base import QueryEncoder
from separation.encoders.table import LabelEncoder, NamedEmbeddings, RandomEncoder
from separation.evaluate import (
    DEFAULT_METRICS,
    EvaluationError,
    Outcome,
    Plan,
    Score,
    compare_systems,
    describe_skipped,
    format_tables,
    merge_outcomes,
    score_mixture,
    summarize,
)
from separation.models.base import ConditionedModel
from separation.objectives.norms import calibrate, without_synchronising
from separation.objectives.optimisers import AdamW, adamw_cosine
from separation.objectives.ranks import gathered, world
from separation.objectives.seeds import seed_step
from separation.objectives.start import load_encoder, start
from separation.released.encoder import ReleasedEncoder
from separation.separator import Separator

CALIBRATION_BATCHES, CALIBRATION_QUERIES = 12, 4
RANDOM = "random"
FULL = Plan(metrics=DEFAULT_METRICS, oracle=True)  # in a training SDRi alone


class Objective(lightning.LightningModule):
    """Base of the objectives. A subclass gives `training_step`, which calls `remember`.

    Everything random in a step is drawn after the generator was seeded with (seed, batch, rank), so a resumed run
    continues as an uninterrupted one would.

    Args:
        model: the separator that is trained.
        encoder: gives the conditions; frozen.
        encoder_weights: safetensors file with the encoder's weights, or "random": an encoder whose weights would have
            to be fetched is replaced by fixed random vectors, so that a recipe can be tried with no file at all.
        start_from: checkpoint of an earlier training (its averaged weights) or model directory, whose separator and
            encoder this one goes on with, as a fresh start for everything else.
        optimiser: rate, decay and warm-up.
        ema: decay of the averaged weights, which are the ones validated and exported; 0 follows the last ones.
        compile: backend that compiles the separator's parts for the training, `inductor` for example; none by default.
    """

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
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if encoder_weights == RANDOM and isinstance(encoder, ReleasedEncoder | LabelEncoder):
            # The former looks for files at the first query, the latter knows the labels of one dataset only.
            encoder = RandomEncoder(encoder.embedding_dim, encoder.modalities)
        self.encoder = encoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if encoder_weights not in (None, RANDOM):
            load_encoder(self.encoder, Path(str(encoder_weights)))
        if start_from is not None:
            start(self.model, self.encoder, Path(start_from))
        self.average = deepcopy(self.model).eval().requires_grad_(False)
        self.optimiser, self.ema, self.backend = optimiser or AdamW(), ema, compile
        self.recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=CALIBRATION_BATCHES)
        self.calibrated_at = -1
        self.outcome, self.plan = Outcome(), Plan()
        self.shown = NamedEmbeddings(encoder.embedding_dim, encoder.unit_length)
        self.said: list[str] = []

    # Training

    def train(self, mode: bool = True) -> Objective:
        """Encoder and averaged weights stay in inference mode."""
        super().train(mode)
        self.encoder.eval()
        self.average.eval()
        return self

    def progress(self) -> float:
        """Share of the training that is done, 0 to 1."""
        return min(1.0, self.global_step / max(1, int(self.trainer.estimated_stepping_batches)))

    def remember(self, mixture: Tensor, conditions: Tensor) -> None:
        """Keeps a batch for `calibrate`: mixture (batch, channels, time), conditions (batch, queries, dim)."""
        # Half precision and a few queries are plenty for means and variances, and these examples go into every
        # checkpoint: the bi-modal network's conditions have 59,648 numbers each.
        some = conditions.detach()[:, :: -(-conditions.shape[1] // CALIBRATION_QUERIES)]
        self.recent.append((mixture.detach().half(), some.half()))

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        seed_step(self)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Moves the weights, then the averaged ones."""
        super().optimizer_step(*arguments, **named)
        # Here and not at the batch's end, where the checkpoint of this step has already been written.
        step = self.global_step + 1
        decay = min(self.ema, (step + 1) / (step + 20))
        with torch.no_grad():
            for averaged, current in zip(self.average.parameters(), self.model.parameters(), strict=True):
                averaged.lerp_(current, 1 - decay)

    def on_train_epoch_end(self) -> None:
        self.calibrate()

    def calibrate(self) -> None:
        """Gives the averaged weights batch norm statistics of their own; once a step is enough."""
        if self.calibrated_at != self.global_step:
            calibrate(self.average, self.recent)
            self.calibrated_at = self.global_step

    def on_fit_start(self) -> None:
        without_synchronising(self.average)
        if self.backend is not None:
            compile_parts(self.model, self.backend)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The averaged weights are saved as they will be used, with the examples that measure their next statistics."""
        self.calibrate()  # in place, so the state dict that Lightning has already taken holds it
        checkpoint["recent"] = [list(example) for example in self.recent]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.recent.clear()
        self.recent.extend((mixture, conditions) for mixture, conditions in checkpoint.get("recent", []))

    def usable(self, loss: Tensor | None) -> Tensor | None:
        """The loss, or, as one batch that cannot be scored must not cost the run, nothing where it is not finite.

        Lightning leaves out a step that returns nothing. Of several ranks none may: there it moves nothing, and every
        weight has a part in every loss, because each rank waits for the others' gradients of all of them.

        Args:
            loss: a scalar; nothing where the batch had nothing to learn from.
        """
        if loss is not None and not torch.isfinite(loss):
            loss = None
        if world() == 1:
            return loss
        idle = 0.0 * torch.stack([p.sum() for p in self.trained().parameters() if p.requires_grad]).sum()
        return idle if loss is None else idle + loss

    def trained(self) -> nn.Module:
        """What the optimiser moves."""
        return self.model

    def configure_optimizers(self) -> Any:
        return adamw_cosine(self.trained(), self.optimiser, int(self.trainer.estimated_stepping_batches))

    # Scores

    def separator(self) -> Separator:
        """The averaged weights as people will use them."""
        encoder = self.shown if self.asked_by_sound() else self.encoder
        return Separator(self.average, encoder, type(self).__name__, self.device)

    def asked_by_sound(self) -> bool:
        """Whether mixtures are asked by recordings, because the encoder takes neither texts nor labels."""
        return "audio" in self.encoder.modalities and not {"text", "label"} & self.encoder.modalities

    def show(self, rendered: Rendered) -> LeftOut | None:
        """Shows the recording that stands for a mixture's query; why there is none, where there is none."""
        row, found = rendered.row, read_example(rendered)
        if isinstance(found, LeftOut):
            return found
        waveform = torch.from_numpy(found).float()[None].to(self.device)
        with torch.no_grad():
            condition = self.encoder.encode_audio(waveform, rendered.sample_rate)
        self.shown.store(row["query"], condition[0].float())
        return None

    def scored(self, rendered: Rendered) -> Score:
        """The result for one mixture."""
        return score_mixture(self.separator(), rendered, self.plan)

    def take(self, item: Rendered | LeftOut) -> None:
        """Scores a mixture, or counts it where it has no score.

        In single precision whatever the training's: the figures are those that `python -m separation.evaluate` prints.
        """
        with torch.autocast(self.device.type, enabled=False):
            if isinstance(item, Rendered) and self.asked_by_sound():
                item = self.show(item) or item
            self.outcome.add(item, self.scored)

    def on_validation_start(self) -> None:
        fitting = self.trainer.state.fn == "fit"
        self.outcome, self.plan = Outcome(), Plan() if fitting else FULL
        if fitting:
            self.calibrate()

    def validation_step(self, item: Rendered | LeftOut, index: int) -> None:
        """SDRi of a mixture's target, dB, or how far the output lies under the mixture where the query is absent."""
        self.take(item)

    def on_validation_epoch_end(self) -> None:
        """Means over all ranks' mixtures; `validate` prints the tables too."""
        outcome = self.judged()
        present = [score.value for score in outcome.scores if score.kind != "absent"]
        absent = [score.value for score in outcome.scores if score.kind == "absent"]
        for name, values in (("val/sdri", present), ("val/absent_db", absent)):
            if values:
                self.log(name, sum(values) / len(values), prog_bar=True, sync_dist=True)
        if self.trainer.state.fn == "validate":
            self.report(outcome)
        elif (lines := describe_skipped(outcome)) and lines != self.said and not self.trainer.sanity_checking:
            self.print("\n".join(lines))
            self.said = lines  # once is enough

    def on_test_start(self) -> None:
        self.outcome, self.plan = Outcome(), FULL

    def test_step(self, item: Rendered | LeftOut, index: int) -> None:
        """As in validation; the tables are printed at the end."""
        self.take(item)

    def on_test_epoch_end(self) -> None:
        outcome = self.judged()
        self.report(outcome)
        for line in summarize(outcome.scores):
            self.log(f"test/{line['rows']}", line["mean"], rank_zero_only=True)

    def judged(self) -> Outcome:
        """What became of all ranks' mixtures.

        Raises:
            EvaluationError: none could be scored.
        """
        outcome = merge_outcomes(gathered([self.outcome]))
        if not outcome.scores and not self.trainer.sanity_checking:
            why = " ".join(describe_skipped(outcome))
            raise EvaluationError(f"None of the {outcome.rows} mixtures can be scored. {why}")
        return outcome

    def report(self, outcome: Outcome) -> None:
        """Prints the figures of the model, of the mixture as it is and of an oracle mask, and what was left out."""
        self.print("\n".join([f"{outcome.rows} rows: {len(outcome.scores)} scored.", *describe_skipped(outcome)]))
        self.print(format_tables(outcome.scores, compare_systems(outcome.scores, self.plan.metrics)))


def compile_parts(module: nn.Module, backend: str | Callable[..., Any]) -> None:
    """Compiles a network's layers in place; names and values of its tensors stay as they are.

    Layers and not the whole: objectives call parts of a network, and spectra are complex, which compilers avoid.
    """
    for part in module.children():
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            compile_parts(part, backend)
        else:
            part.compile(backend=backend)
