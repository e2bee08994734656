"""From a training checkpoint to plain safetensors: `python -m separation.export CHECKPOINT PREFIX FILE`.

Takes the tensors whose names begin with PREFIX (for example `encoder.`, or `average.` for the averaged separator).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor


def tensors(checkpoint: Path, prefix: str) -> dict[str, Tensor]:
    """The checkpoint's tensors under `prefix`, which is cut off. Nothing but plain data is unpickled.

    Raises:
        KeyError: there are none.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    part = {k.removeprefix(prefix): v.contiguous() for k, v in state.items() if k.startswith(prefix)}
    if not part:
        raise KeyError(f"{checkpoint} holds no tensors under {prefix!r}.")
    return part


def main() -> None:
    """Command line."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("prefix", help="for example encoder. or average.")
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    save_file(tensors(arguments.checkpoint, arguments.prefix), arguments.file)


if __name__ == "__main__":
    main()
