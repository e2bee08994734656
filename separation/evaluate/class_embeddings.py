"""Mean conditions of classes over example recordings, with which USS's own evaluations query a class."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from separation.data.corpus import READ_ERRORS, read_samples
from separation.data.manifest import Clip, read_manifest
from separation.data.mixing import repeat_to
from separation.encoders.base import EXAMPLE_SUFFIXES
from separation.errors import DataError, ModelError
from separation.separator import Separator
from separation.storage.tensors import write_tensors
from separation.vocabulary.ontology import classes

USS_FOLDER = re.compile(r"(?:label|class_id)=(.*)")  # as USS's scripts write them
WRITTEN_SOURCE = "source.wav"  # how the targets in them end


def list_class_examples(source: Path, root: Path | None = None) -> dict[str, list[Clip]]:
    """List the example recordings of each class, with absolute paths; raise DataError if there are none.

    Args:
        source: a manifest, of which the train rows count, by their main label; or a folder with one folder per class.
            Folders `label=NAME` and `class_id=NUMBER` with files `*source.wav` are those of USS's scripts.
        root: where the manifest's paths start; None: its folder.
    """
    found: dict[str, list[Clip]] = defaultdict(list)
    if source.is_dir():
        for folder in sorted(path for path in source.iterdir() if path.is_dir()):
            files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXAMPLE_SUFFIXES)
            files = [path for path in files if path.name.endswith(WRITTEN_SOURCE)] or files
            name = match[1] if (match := USS_FOLDER.fullmatch(folder.name)) else folder.name
            if folder.name.startswith("class_id=") and name.isdecimal() and int(name) < len(classes()):
                name = classes()[int(name)].name
            found[name] += [Clip(str(path), name, "", str(path), "", 0.0) for path in files]
    else:
        for clip in read_manifest(source, "train"):
            if clip.label:
                found[clip.label].append(Clip(
                    str((root or source.parent) / clip.path), clip.label, "", clip.recording, "", clip.seconds,
                    start=clip.start,
                ))  # fmt: skip
    found = {name: clips for name, clips in found.items() if clips}
    if not found:
        raise DataError(f"{source}: no example recordings of classes.")
    return found


def write_class_embeddings(
    separator: Separator, examples: dict[str, list[Clip]], file: Path, seconds: float = 0.0
) -> tuple[dict[str, int], list[str]]:
    """Write the mean condition (dim,) of each class as safetensors, by class name.

    A recording counts by its first `seconds`, repeated where it is shorter, silence included; 0: as an example query
    does, by the mean over its segments without silent frames.

    Returns:
        Number of recordings of each class in the file, and the reasons why others are left out.

    Raises:
        ModelError: the model is not queried by recordings, or no recording can be used.
    """
    if "audio" not in separator.encoder.modalities:
        raise ModelError(f"{separator.name} is not queried by recordings, so it has no conditions of classes.")
    vectors: dict[str, list[Tensor]] = defaultdict(list)
    encoder, reasons = separator.encoder, []
    with torch.inference_mode():
        for name, clip in ((name, clip) for name, clips in examples.items() for clip in clips):
            try:
                samples, rate = read_samples(Path(clip.path), clip.start, clip.seconds)
                wave, length = torch.from_numpy(samples).mean(1), round(seconds * rate)
                if seconds and len(wave):
                    vector = encoder.encode_audio(repeat_to(wave, length)[None, :length], rate)
                else:
                    vector = encoder.encode_examples([(wave, rate)])
                vectors[name].append(vector[0].detach().float().cpu())
            except (*READ_ERRORS, ModelError, ValueError) as error:
                reasons.append(f"{clip.path}: {error}")
        means = {name: encoder.mean(torch.stack(found))[0].clone() for name, found in vectors.items()}
    if not means:
        raise ModelError(f"No recording of the classes can be used. {reasons[0]}")
    write_tensors(file, means)
    return {name: len(found) for name, found in vectors.items()}, reasons
