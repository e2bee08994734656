"""What all objectives share: separator, frozen query encoder, averaged weights, scores on held-out mixtures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from copy import deepcopy
from math import isfinite
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from separation.data.protocol import Rendered
from separation.encoders.base import QueryEncoder
from separation.encoders.stand_in import without_files
from separation.evaluate import Score, score, summary, table
from separation.models.base import ConditionedModel
from separation.objectives.norms import calibrate, without_synchronising
from separation.objectives.optimisers import AdamW, adamw_cosine
from separation.objectives.ranks import gathered, world
from separation.objectives.seeds import seed_step
from separation.objectives.start import load_encoder, start
from separation.separator import Separator

CALIBRATION_BATCHES, CALIBRATION_QUERIES = 12, 4
RANDOM = "random"


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
        encoder = without_files(encoder) if encoder_weights == RANDOM else encoder
        self.encoder = encoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if encoder_weights not in (None, RANDOM):
            load_encoder(self.encoder, Path(str(encoder_weights)))
        if start_from is not None:
            start(self.model, self.encoder, Path(start_from))
        self.average = deepcopy(self.model).eval().requires_grad_(False)
        self.optimiser, self.ema, self.backend = optimiser or AdamW(), ema, compile
        self.recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=CALIBRATION_BATCHES)
        self.calibrated_at = -1
        self.scores: list[Score] = []

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
        return Separator(self.average, self.encoder, type(self).__name__, self.device)

    def scored(self, rendered: Rendered) -> Score:
        """The result for one mixture."""
        return score(self.separator(), rendered)

    def on_validation_start(self) -> None:
        self.scores = []
        if self.trainer.state.fn == "fit":
            self.calibrate()

    def validation_step(self, rendered: Rendered, index: int) -> None:
        """SDRi of a mixture's target, dB, or how far the output lies under the mixture where the query is absent.

        In single precision whatever the training's: the figures are those that `python -m separation.evaluate` prints.
        """
        with torch.autocast(self.device.type, enabled=False):
            self.scores.append(self.scored(rendered))

    def on_validation_epoch_end(self) -> None:
        """Means over all ranks' mixtures; `validate` prints the table too."""
        scores = [score for score in gathered(self.scores) if isfinite(score.value)]  # a silent target has no SDRi
        present = [score.value for score in scores if score.kind != "absent"]
        absent = [score.value for score in scores if score.kind == "absent"]
        for name, values in (("val/sdri", present), ("val/absent_db", absent)):
            if values:
                self.log(name, sum(values) / len(values), prog_bar=True, sync_dist=True)
        if self.trainer.state.fn == "validate":
            self.print(table(summary(scores)))

    def on_test_start(self) -> None:
        self.scores = []

    def test_step(self, rendered: Rendered, index: int) -> None:
        """As in validation; the table is printed at the end."""
        with torch.autocast(self.device.type, enabled=False):
            self.scores.append(self.scored(rendered))

    def on_test_epoch_end(self) -> None:
        lines = summary(gathered(self.scores))
        self.print(table(lines))
        for line in lines:
            self.log(f"test/{line['rows']}", line["mean"], rank_zero_only=True)


def compile_parts(module: nn.Module, backend: str | Callable[..., Any]) -> None:
    """Compiles a network's layers in place; names and values of its tensors stay as they are.

    Layers and not the whole: objectives call parts of a network, and spectra are complex, which compilers avoid.
    """
    for part in module.children():
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            compile_parts(part, backend)
        else:
            part.compile(backend=backend)
