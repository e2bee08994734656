"""Direction of imports between the parts of the package."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from separation.storage.moved import MOVED, resolve, resolve_text

PACKAGE = Path(__file__).resolve().parents[1] / "separation"

# The files and folders of separation/: each imports those of earlier lines only, anywhere in it, for its types too.
LAYERS = """
    errors commands compat devices presence models
    process
    audio storage
    vocabulary own_sounds
    encoders
    query released data
    inference pretrained datasets
    listing sharing export onnx mcp_server
    conditions fitting lister plot convert
    outputs
    files
    separator
    console evaluate calibrate mcp_tools
    cli collection ray_processes training
    batch
"""
LEVEL = {name: level for level, line in enumerate(LAYERS.split("\n")) for name in line.split()}
TRAINING = {"data", "datasets", "training", "evaluate", "calibrate", "fitting"}  # separation imports none of it
FREE = TRAINING | {"collection"}  # `separate-batch` reads manifests


def module_name(file: Path) -> str:
    """For example separation.models.film."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports(file: Path) -> Iterator[str]:
    """The package's modules that a file imports anywhere, for its types too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively: write the full name"
            # `from separation.data import foley` names a module, `from separation.audio import read` does not.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in names]
        yield from (name for name in names if name.startswith("separation."))


# The package itself is left out: it names what it offers and loads it at first use.
IMPORTS = {name: set(imports(file)) for name, file in MODULES.items() if name != "separation"}


def part(module: str) -> str:
    """The file or folder directly under separation/ that a module belongs to."""
    return module.split(".")[1]


def test_imports_follow_the_layers() -> None:
    assert {part(name) for name in IMPORTS} == LEVEL.keys()
    against = {
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if other not in MODULES
        or (part(other) != part(name) and LEVEL[part(other)] >= LEVEL[part(name)])
        or (part(other) in TRAINING and part(name) not in FREE)
    }
    assert against == set()


def test_no_import_cycle() -> None:
    assert len(list(TopologicalSorter(IMPORTS).static_order())) == len(IMPORTS)


FROZEN = json.loads((Path(__file__).parent / "frozen" / "pretrained.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("old", sorted({*MOVED, *FROZEN["class_paths"]}))  # those that recipes and models have named
def test_earlier_class_paths_lead_to_a_class(old: str) -> None:
    module, _, name = resolve(old).rpartition(".")
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert resolve(resolve(old)) == resolve(old)
    assert resolve_text(f"[{{class_path: {old}}}, x]") == f"[{{class_path: {resolve(old)}}}, x]"


def test_other_paths_stay() -> None:
    assert resolve("torch.nn.Linear") == "torch.nn.Linear"
    assert resolve_text("a: separation\nb: my.separation.x") == "a: separation\nb: my.separation.x"
