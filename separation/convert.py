"""`separation-convert FILE DIRECTORY`: a published checkpoint as a model directory.

separation-convert ~/Downloads/audiosep_base_4M_steps.ckpt audiosep
separate --model audiosep/ --query "dog barking" mix.wav

`separation-convert onnx MODEL FOLDER` is `separation.onnx.export`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from separation.errors import ModelError, expand_home
from separation.pretrained import build_parts, read_stored, save_model
from separation.process import as_command
from separation.released.systems import SYSTEMS

README = """# {name}

{description}

Converted from `{source}` by separation-convert, in single precision; {count} tensors of the separator, {beside} of its
query encoder. Licence: {licence}. Published scores: {scores}.
"""


def convert(file: Path, directory: Path) -> str:
    """Write a published checkpoint as a model directory that does not exist yet; return the name of its system."""
    if (directory / "model.safetensors").exists():
        raise ModelError(f"{directory} already holds a model; name another directory.")
    stored = read_stored(file)
    if not stored.system:
        raise ModelError(f"{file} is not a published checkpoint; python -m separation.export converts others.")
    model, encoder = build_parts(stored, file)
    system = SYSTEMS[stored.system]
    card = {
        "description": system.description or system.name,
        "queries": [*sorted(encoder.modalities), "embedding"],
        "sample_rate": model.sample_rate,
        "licence": system.licence,
        "scores": system.scores,
    }
    count = sum(name.startswith("model.") for name in stored.tensors)
    numbers = {"count": count, "beside": len(stored.tensors) - count}
    readme = README.format(name=system.name, source=file.name, **card, **numbers)
    save_model(directory, {"card": card, **stored.description}, model, encoder, readme, half=False)
    return system.name


@as_command("separation-convert")
def main(argv: Sequence[str] | None = None) -> None:
    """Run `separation-convert`."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["onnx"]:
        from separation.onnx import export as onnx_export

        onnx_export.main(words[1:])
        return
    parser = argparse.ArgumentParser(
        prog="separation-convert",
        description="Convert a published checkpoint to a model directory of safetensors.",
        epilog="separation-convert onnx MODEL FOLDER writes a model as ONNX files (separation-convert onnx --help).",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a .ckpt, .pt, .pth or .safetensors file")
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="directory to write, created if necessary")
    options = parser.parse_args(words)
    name = convert(expand_home(options.file), expand_home(options.directory))
    print(f"{options.directory}: {name}; use it with: separate --model {options.directory} ...")


if __name__ == "__main__":
    sys.exit(main())
