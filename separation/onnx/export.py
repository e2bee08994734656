"""`separation-convert onnx MODEL FOLDER`: a model as ONNX files, which run without this package and without torch.

The folder holds `separator.onnx` (the network), `text.onnx` and `tokenizer.json` (texts to conditions, for models of
this package), `model.json` (every number that their user needs) and the model's licence files. docs/export.md
describes them; `demos/onnx_separate.py` uses them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]
from torch.nn import functional as F

from separation.encoders.base import import_optional
from separation.encoders.joint import TEMPLATES, JointEncoder
from separation.encoders.sentence import candidate_folders, find_folder, load_bert
from separation.errors import ModelError, expand_home, reason
from separation.inference import levels
from separation.inference.stream import RESAMPLER_SAMPLES
from separation.models.base import ConditionedModel
from separation.onnx.graphs import GRAPHS, TextGraph
from separation.presence import PresenceRule
from separation.pretrained import find_model, load_model, load_settings, read_card
from separation.process import replace_folder
from separation.storage.download import write_json
from separation.storage.tensors import own_defaults

OPSET = 17
FORMAT = 1  # of `model.json`
DESCRIPTION = "model.json"
PRECISIONS = ("float32", "float16")

Axes = dict[str, list[Any]]


def trace(graph: nn.Module, inputs: dict[str, Tensor], outputs: list[str], axes: Axes) -> bytes:
    """Return a network as ONNX. `axes` has the sizes of inputs and outputs; those that are names are dynamic."""
    dynamic = {key: {n: x for n, x in enumerate(sizes) if isinstance(x, str)} for key, sizes in axes.items()}
    buffer: Any = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        legacy = "You are using the legacy TorchScript-based ONNX export|The feature will be removed"
        warnings.filterwarnings("ignore", legacy, DeprecationWarning)
        warnings.filterwarnings("ignore", category=TracerWarning)
        warnings.filterwarnings("ignore", "Constant folding - Only steps=1 can be constant folded", UserWarning)
        names: dict[str, Any] = {"input_names": list(inputs), "output_names": outputs, "dynamic_axes": dynamic}
        # torch.export would fix sizes that depend on others; the older exporter keeps them.
        torch.onnx.export(graph.eval(), tuple(inputs.values()), buffer, **names, opset_version=OPSET, dynamo=False)
    return buffer.getvalue()


def store_in_half_precision(content: bytes) -> bytes:
    """Store the matrices and kernels of an ONNX model as fp16; they are used in single precision as before."""
    onnx = import_optional("onnx", "The ONNX export", "onnx")
    model = onnx.load_from_string(content)
    casts = []
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.ndim > 1 and not tensor.name.startswith("transforms."):
            if np.abs(value).max(initial=0) > np.finfo(np.float16).max:
                raise ModelError(f"{tensor.name} holds values beyond the range of fp16.")
            name = tensor.name
            tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float16), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def export_separator(model: ConditionedModel, inside: bool) -> tuple[bytes, dict[str, Any]]:
    """Return a network as ONNX and what its user needs to know of it; the network is changed."""
    kind = GRAPHS.get(type(model))
    if kind is None:
        raise ModelError(f"The network {type(model).__name__} has no ONNX export.")
    graph = kind(model, inside).eval()
    mixture = torch.randn(2, 3 * model.sample_rate + 17)
    given = {"mixture": mixture}
    axes: Axes = {"mixture": ["channels", "time"], "target": ["queries", "channels", "time"]}
    if not inside:
        given = graph.transform(mixture)
        bins = given["spectrum"].shape[2]
        axes = {name: ["channels", 2, x.shape[2], f"{name}_frames"] for name, x in given.items()}
        axes["target"] = ["queries", "channels", 2, bins, "spectrum_frames"]
    axes |= {"condition": ["queries", model.condition_dim], "presence": ["queries", "presence_frames"]}
    axes |= {"high_gain": ["queries", "spectrum_frames"]}
    given["condition"] = F.normalize(torch.randn(3, model.condition_dim), dim=-1)
    axes = {name: axes[name] for name in [*given, *graph.outputs]}
    content = trace(graph, given, graph.outputs, axes)
    margin = levels.HIGH_PASS_PERIODS / model.high_pass if model.high_pass else 0.0
    names = {"n_fft": "n_fft", "window": "window_length", "hop": "hop", "ends": "pad_mode", "multiple": "multiple"}
    return content, {
        "network": type(model).__name__, "sample_rate": model.sample_rate,
        "inputs": {name: axes[name] for name in given}, "outputs": {name: axes[name] for name in graph.outputs},
        "stft": "inside" if inside else "outside", "padding": graph.padding,
        "transforms": {
            key: {name: getattr(stft, own) for name, own in names.items()} for key, stft in graph.transforms.items()
        },
        "segments": {
            "seconds": model.segment_seconds, "grid_seconds": model.grid_seconds,
            "margin_seconds": model.context / model.sample_rate + margin, "resampler_samples": RESAMPLER_SAMPLES,
            "presence_stride": model.stride, "gain_stride": model.gain_stride,
        },
        "level": {
            "of_input": model.input_level, "frame": levels.LEVEL_FRAME, "gate": levels.LEVEL_GATE,
            "silence": levels.SILENCE,
        },
        "high_pass": {
            "hertz": model.high_pass, "periods": levels.HIGH_PASS_PERIODS, "faint_rumble": levels.FAINT_RUMBLE,
            "excessive_rumble": levels.EXCESSIVE_RUMBLE, "steady_rumble": levels.STEADY_RUMBLE,
            "rumble_frames": levels.RUMBLE_FRAMES,
        },
    }  # fmt: skip


@own_defaults()
def export(name: str, folder: Path, inside: bool = True, precision: str = "float32", overwrite: bool = False) -> None:
    """Write a model as a folder of ONNX files, which appears when it is complete.

    `inside` says whether the STFT is part of the network, `precision` is one of `PRECISIONS`, and `overwrite` allows to
    replace an earlier export. Raises ModelError if the model is unknown or its network has no export, or the folder
    exists or cannot be written.
    """
    check_free(folder, overwrite)
    import_optional("onnx", "The ONNX export", "onnx")
    path = find_model(name)
    model, encoder = load_model(path)
    card, rule = read_card(path), load_settings(path, "presence", PresenceRule)
    content, facts = export_separator(deepcopy(model), inside)
    about: dict[str, Any] = {"format": FORMAT, "name": name, "description": card.description, "licence": card.licence}
    about |= {"opset": OPSET, "precision": precision, **facts}
    background = list(rule.background) or [0.0] * model.condition_dim
    presence = {"bias": rule.bias, "logit": rule.logit, "background": background}
    about["presence"] = presence if model.estimates_presence and not rule.ratio else None
    about["text"] = None
    try:
        with replace_folder(folder) as part:
            half = precision == "float16"
            (part / "separator.onnx").write_bytes(store_in_half_precision(content) if half else content)
            if isinstance(encoder, JointEncoder):
                tokenizer = load_bert()[1]
                tokens = torch.from_numpy(np.array([[each.ids for each in tokenizer.encode_batch(["a", "b c"])]] * 3))
                axes: Axes = {key: ["queries", "templates", "length"] for key in ("tokens", "mask")}
                inputs = {"tokens": tokens, "mask": torch.ones_like(tokens)}
                axes["condition"] = ["queries", model.condition_dim]
                content = trace(TextGraph(encoder), inputs, ["condition"], axes)
                (part / "text.onnx").write_bytes(store_in_half_precision(content) if half else content)
                (part / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
                about["text"] = {"templates": list(TEMPLATES), "inputs": axes, "tokenizer": "tokenizer.json"}
                readme = find_folder(candidate_folders()) / "README.md"
                shutil.copyfile(readme, part / "README-SENTENCE-ENCODER.md")
            for each in path.glob("*") if path.is_dir() else ():
                if each.name.startswith(("LICENSE", "ATTRIBUTION", "README")):
                    shutil.copyfile(each, part / each.name)
            about["files"] = sorted([*os.listdir(part), DESCRIPTION])
            write_json(part / DESCRIPTION, about)
    except OSError as error:
        raise ModelError(f"{folder} cannot be written: {reason(error)}.") from None


def check_free(folder: Path, overwrite: bool) -> None:
    """Raise ModelError if a folder cannot be made, or exists, unless it holds only an export that may be replaced."""
    if not os.path.lexists(folder):
        above = next(each for each in folder.absolute().parents if each.exists())
        if not above.is_dir():
            raise ModelError(f"{folder} cannot be written: {above} is not a folder.")
        return
    if not overwrite:
        raise ModelError(f"{folder} exists; name another folder, or replace it with --overwrite.")
    try:
        files = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["files"]
        others = set(os.listdir(folder)) - set(files)
    except (OSError, ValueError, TypeError, KeyError):
        others = {DESCRIPTION}
    if others:
        raise ModelError(f"{folder} is not replaced: it is not an export, or holds other files ({min(others)}).")


def main(argv: Sequence[str]) -> None:
    """Run `separation-convert onnx`."""
    about = "Write a model as ONNX files, which run without torch."
    parser = argparse.ArgumentParser("separation-convert onnx", description=about)
    add = parser.add_argument
    add("model", metavar="MODEL", help="name, directory or checkpoint of a model")
    add("folder", type=Path, metavar="FOLDER", help="folder to write")
    add("--stft", choices=("inside", "outside"), default="inside", help="where the transform is computed")
    add("--precision", choices=PRECISIONS, default="float32", help="see docs/export.md")
    add("--overwrite", action="store_true", help="replace an earlier export")
    options = parser.parse_args(argv)
    folder = expand_home(options.folder)
    export(options.model, folder, options.stft == "inside", options.precision, options.overwrite)
    print(f"{folder}: {options.model} as ONNX; use it with: python demos/onnx_separate.py {folder} ...")
