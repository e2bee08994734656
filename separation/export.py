"""From a training checkpoint to safetensors.

python -m separation.export encoder runs/sound/last.ckpt runs/sound/encoder.safetensors
python -m separation.export model runs/default/last.ckpt my_model --config runs/default/log/version_0/config.yaml
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from separation.errors import ModelError
from separation.pretrained import build_parts, save_model
from separation.process import as_command
from separation.storage.checkpoints import average_weights, describe_objective
from separation.storage.configs import read_yaml
from separation.storage.download import replace_when_complete


def export_encoder(checkpoint: Path, file: Path) -> None:
    """Write the encoder of a contrastive or tagging training as one safetensors file."""
    from safetensors.torch import save

    from separation.storage.tensors import read_tensors, select

    encoder = select(read_tensors(checkpoint), "encoder.")
    if not encoder:
        raise ModelError(f"{checkpoint} holds no tensors of an encoder.")
    with replace_when_complete(file) as partial:
        partial.write_bytes(save({name: value.contiguous() for name, value in encoder.items()}))


def export_model(checkpoint: Path, directory: Path, config: Path, card: dict[str, Any]) -> None:
    """Write the averaged separator and the encoder of a training as a model directory.

    `config` is the YAML that Lightning wrote into the log folder; `card` is shown by `separate --list-models`.
    """
    from separation.storage.tensors import StoredModel, read_tensors

    described = describe_objective(read_yaml(config))
    if described is None:
        raise ModelError(f"{config} does not describe a separator and an encoder.")
    model, encoder = build_parts(StoredModel(described, average_weights(read_tensors(checkpoint))), checkpoint)
    save_model(directory, {"card": {"sample_rate": model.sample_rate, **card}, **described}, model, encoder)


@as_command("separation.export")
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m separation.export", description="Convert a training checkpoint.")
    commands = parser.add_subparsers(dest="command", required=True)
    encoder = commands.add_parser("encoder", help="write the encoder as one safetensors file")
    encoder.add_argument("checkpoint", type=Path)
    encoder.add_argument("file", type=Path)
    model = commands.add_parser("model", help="write the separator with its encoder as a model directory")
    model.add_argument("checkpoint", type=Path)
    model.add_argument("directory", type=Path)
    model.add_argument("--config", type=Path, required=True, help="config.yaml in the log folder of the training")
    model.add_argument("--description", default="text-queried separator")
    model.add_argument("--scores", default="not measured")
    model.add_argument("--licence", help="of the weights, for the card; without it the card states none")
    options = parser.parse_args(argv)
    if options.command == "encoder":
        export_encoder(options.checkpoint, options.file)
    else:
        card = {"description": options.description, "queries": ["text", "audio", "embedding"]}
        card |= {"scores": options.scores}
        card |= {"licence": options.licence} if options.licence else {}
        export_model(options.checkpoint, options.directory, options.config, card)


if __name__ == "__main__":
    sys.exit(main())
