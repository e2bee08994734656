"""From a training checkpoint to what inference loads: plain safetensors.

python -m separation.export encoder runs/sound/last.ckpt runs/sound/encoder.safetensors
python -m separation.export model runs/default/last.ckpt my_model --config runs/default/log/version_0/config.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LICENCE = "CC BY 4.0"


def tensors(checkpoint: Path, prefix: str, none: bool = False) -> dict[str, Tensor]:
    """The checkpoint's tensors under `prefix`, which is cut off. Nothing but plain data is unpickled.

    Raises:
        KeyError: there are none, and `none` does not allow that.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    part = {k.removeprefix(prefix): v.contiguous() for k, v in state.items() if k.startswith(prefix)}
    if not part and not none:
        raise KeyError(f"{checkpoint} holds no tensors under {prefix!r}.")
    return part


def export_encoder(checkpoint: Path, file: Path) -> None:
    """The encoder of a contrastive training as one safetensors file."""
    from safetensors.torch import save

    file.write_bytes(save(tensors(checkpoint, "encoder.")))


def export_model(checkpoint: Path, directory: Path, config: Path, card: dict[str, Any]) -> None:
    """The averaged separator and the encoder of a supervised training as a model directory.

    Args:
        checkpoint: of the training.
        directory: to write.
        config: the YAML that Lightning wrote beside the training's log.
        card: description, queries, sample_rate, licence and scores, shown by `separate --list-models`.

    Raises:
        ModelError: the config does not describe a separator.
    """
    import yaml

    from separation.hub import ModelError, build, save_model
    from separation.run_folder import parts

    described = parts(yaml.safe_load(config.read_text(encoding="utf-8")))
    if described is None:
        raise ModelError(f"{config} does not describe a separator and an encoder.")
    model, encoder = build(described["model"]), build(described["encoder"])
    model.load_state_dict(tensors(checkpoint, "average."))
    encoder.load_state_dict(tensors(checkpoint, "encoder.", none=True))  # some have a file of their own
    save_model(directory, {"card": {"sample_rate": model.sample_rate, **card}, **described}, model, encoder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="From a training checkpoint to plain safetensors.")
    commands = parser.add_subparsers(dest="command", required=True)
    encoder = commands.add_parser("encoder", help="the joint space's encoder as one file")
    encoder.add_argument("checkpoint", type=Path)
    encoder.add_argument("file", type=Path)
    model = commands.add_parser("model", help="a separator with its encoder as a model directory")
    model.add_argument("checkpoint", type=Path)
    model.add_argument("directory", type=Path)
    model.add_argument("--config", type=Path, required=True, help="config.yaml in the training's log folder")
    model.add_argument("--description", default="text-queried separator")
    model.add_argument("--scores", default="not measured")
    arguments = parser.parse_args()
    if arguments.command == "encoder":
        export_encoder(arguments.checkpoint, arguments.file)
        return
    card = {
        "description": arguments.description,
        "queries": ["text", "audio", "embedding"],
        "licence": LICENCE,
        "scores": arguments.scores,
    }
    export_model(arguments.checkpoint, arguments.directory, arguments.config, card)


if __name__ == "__main__":
    main()
