"""From a released checkpoint to a network and its query encoder."""

from __future__ import annotations

from pathlib import Path

from separation.checkpoints.families import Recognised, recognise
from separation.description import build
from separation.encoders.base import QueryEncoder
from separation.encoders.released import ReleasedEncoder
from separation.models.base import ConditionedModel
from separation.tensors import load_strictly, read_tensors


def load_checkpoint(file: str | Path) -> tuple[ConditionedModel, QueryEncoder]:
    """Network and encoder of a released checkpoint, in inference mode; its family is known by its tensors.

    Raises:
        ModelError: it cannot be read safely, is of no known family, or does not fit; one plain sentence.
    """
    found = recognise(read_tensors(file), file)
    return network(found, file), encoder(found)


def network(found: Recognised, source: str | Path) -> ConditionedModel:
    """The network of a recognised checkpoint."""
    model: ConditionedModel = build(found.model)
    load_strictly(model, found.tensors, source)
    return model.eval().requires_grad_(False)


def encoder(found: Recognised) -> ReleasedEncoder:
    """The encoder of a recognised checkpoint, which is built when it is needed."""
    init = found.model["init_args"]
    made = ReleasedEncoder(found.name, condition_dim(found.name, init))
    table = {k: v for k, v in found.tensors.items() if k.startswith("label_net.")}
    made.load_state_dict({**found.beside, **table})
    return made.eval()


def condition_dim(name: str, arguments: dict[str, int]) -> int:
    """Numbers of a family's conditions."""
    from separation.models.bimodal_unet import BiModalUNet

    special = {"bimodal": BiModalUNet.condition_dim, "clipsep-pit": 2}
    return special.get(name) or arguments.get("condition_dim", 512)
