"""`separation-convert FILE DIRECTORY`: a released checkpoint as a plain model directory of safetensors.

separation-convert ~/Downloads/audiosep_base_4M_steps.ckpt audiosep
separate --model audiosep/ --query "dog barking" mix.wav
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from separation.description import ModelError

README = """# {name}

{description}

Converted from `{source}` by separation-convert, in single precision; {count} tensors of the separator, {beside} of its
query encoder. Licence: {licence}. Published scores: {scores}.
"""


def convert(file: Path, directory: Path) -> str:
    """Writes a checkpoint as a model directory; returns the family's name.

    Raises:
        ModelError: the checkpoint is not usable, or the directory holds a model already.
    """
    import yaml
    from safetensors.torch import save_file

    from separation.checkpoints.families import recognise
    from separation.checkpoints.load import encoder, network
    from separation.tensors import read_tensors

    if (directory / "model.safetensors").exists():
        raise ModelError(f"{directory} holds a model already; name another directory.")
    found = recognise(read_tensors(file), file)
    model, queries = network(found, file), encoder(found)
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"encoder.{k}": v for k, v in queries.state_dict().items()}
    own = {"class_path": "separation.encoders.released.ReleasedEncoder"}
    own["init_args"] = {"family": found.name, "embedding_dim": queries.embedding_dim}  # type: ignore[assignment]
    card = describe(found.name, queries, model.sample_rate)
    config = {"card": card, "model": found.model, "encoder": own}
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / "model.safetensors.part"
    try:
        save_file({k: v.clone().contiguous() for k, v in tensors.items()}, part)
        part.chmod(0o644)  # save_file lets only the owner read
        part.replace(directory / "model.safetensors")
    finally:
        part.unlink(missing_ok=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    numbers = {"count": len(found.tensors), "beside": len(found.beside)}
    text = README.format(name=found.name, source=file.name, **card, **numbers)
    (directory / "README.md").write_text(text, encoding="utf-8")
    return found.name


def describe(name: str, queries: Any, sample_rate: int) -> dict[str, Any]:
    """The card of a converted model."""
    from separation.checkpoints.registry import RELEASED

    forms = [*sorted(queries.modalities), "embedding"]
    card = {"description": name, "queries": forms, "sample_rate": sample_rate}
    card |= {"licence": "not stated", "scores": "unknown"}
    if name in RELEASED:
        known = RELEASED[name]
        card |= {"description": known.description, "licence": known.licence, "scores": known.scores}
    return card


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `separation-convert`; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="separation-convert", description="Turns a released checkpoint into a directory of safetensors."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a .ckpt, .pt, .pth or .safetensors file")
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="to write; made if needed")
    options = parser.parse_args(argv)
    try:
        name = convert(options.file.expanduser(), options.directory.expanduser())
    except ModelError as error:
        print(f"separation-convert: {error}", file=sys.stderr)
        return 1
    print(f"{options.directory}: {name}; use it with: separate --model {options.directory} ...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
