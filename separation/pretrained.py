"""Trained models: found by name or path, described, loaded and saved.

A model is a model directory (`config.yaml` with class paths and arguments, `model.safetensors`, `README.md`), a
checkpoint or run folder of a training, or a checkpoint of a published system. All of them are plain data: nothing is
unpickled, and only classes of this package are built, and of packages that the user trusts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.errors import ModelError as ModelError
from separation.errors import expand_home
from separation.released.systems import LISTED, SYSTEMS, System
from separation.storage.checkpoints import DESCRIPTION, average_weights, find_checkpoint, find_description
from separation.storage.configs import BUILT as BUILT
from separation.storage.configs import Settings, build, check_keys, fits, make_settings, read_yaml
from separation.storage.download import NoConnectionError, fetch, find_file, replace_when_complete, sha256_of
from separation.storage.hub import find_repository, is_repository

if TYPE_CHECKING:
    from torch import Tensor

    from separation.encoders.base import QueryEncoder
    from separation.models.base import ConditionedModel
    from separation.storage.tensors import StoredModel

WEIGHTS = Path(__file__).with_name("weights")
EXAMPLES = {"text": "--query rain", "label": "--query-class 3", "audio": "--query-audio rain.wav"}
SECTIONS = ("card", "base", "model", "encoder", "presence", "listing")  # of a config
CARD_TYPES: dict[str, Any] = {
    "queries": list[str],
    "sample_rate": int,
    "description": str,
    "licence": str,
    "scores": str,
}


@dataclass(frozen=True)
class Card:
    """What `separate --list-models` shows of a model.

    Attributes:
        name, description, licence, scores, size: texts.
        queries: forms of query.
        sample_rate: Hz.
        on_disk: whether its weights are on this computer.
        verified: whether a checksum is published for its weights; those of this package are its own.
    """

    name: str
    description: str
    queries: tuple[str, ...]
    sample_rate: int
    size: str
    licence: str
    scores: str
    on_disk: bool = True
    verified: bool = True


# Names and cards


def list_models() -> list[Card]:
    """Return the cards of all models known by name: those of this package, then published systems."""
    own = [read_card(file.parent) for file in sorted(WEIGHTS.glob("*/config.yaml"))]
    return [*own, *map(released_card, LISTED.values())]


def released_card(system: System) -> Card:
    """Return the card of a published system."""
    on_disk = (find_file(system.file) is not None) if system.file else system.own_file.is_file()
    return Card(
        system.name, system.description or system.name, system.queries, system.sample_rate, system.size, system.licence,
        system.scores, on_disk, verified=system.file is not None and system.file.sha256 is not None,
    )  # fmt: skip


def read_card(path: Path) -> Card:
    """Return the card of a model directory or of a checkpoint file."""
    weights = path / "model.safetensors" if path.is_dir() else path
    size = f"{weights.stat().st_size / 1e6:.0f} MB" if weights.is_file() else "unknown"
    if path.is_dir() or not path.exists():
        card = read_config(path).get("card") or {}
    else:
        stored = read_stored(path)
        if stored.system:
            return replace(released_card(SYSTEMS[stored.system]), name=path.stem, size=size, on_disk=True)
        model, encoder = build_parts(stored, path)
        queries = (*sorted(encoder.modalities, reverse=True), "embedding")
        card = {"description": "training checkpoint", "queries": queries, "sample_rate": model.sample_rate}
    return Card(
        name=path.name if path.is_dir() else path.stem,
        description=card.get("description") or "",
        queries=tuple(card.get("queries") or ()),
        sample_rate=card.get("sample_rate") or 0,
        size=size,
        licence=card.get("licence") or "unknown",
        scores=card.get("scores") or "unknown",
        on_disk=weights.is_file(),
    )


def check_name(name: str) -> None:
    """Raise ModelError if there is no model of this name or path; nothing is downloaded or read."""
    if (
        (WEIGHTS / name / "config.yaml").is_file()
        or name in LISTED
        or expand_home(name).exists()
        or is_repository(name)
    ):
        return
    known = ", ".join(card.name for card in list_models())
    raise ModelError(
        f'Unknown model "{name}". Use a name ({known}), a model directory, a checkpoint file or a repository of the '
        "Hugging Face Hub (owner/name)."
    )


def find_model(name: str, offline: bool | None = None) -> Path:
    """Return the directory or checkpoint file of a model; the checkpoint of a published system is downloaded once.

    Args:
        name: as in `list_models`, or a path. Of a training's run folder, the best checkpoint is used.
        offline: forbid the network; by default the environment decides (SEPARATION_OFFLINE, HF_HUB_OFFLINE).

    Raises:
        ModelError: there is no such model, or it cannot be downloaded.
    """
    check_name(name)
    if (WEIGHTS / name / "config.yaml").is_file():
        return WEIGHTS / name
    if name in LISTED:
        return find_released(LISTED[name], offline)
    path = expand_home(name)
    if not path.exists():
        return find_repository(name, offline)
    if path.is_dir() and not (path / "model.safetensors").exists():
        return find_checkpoint(path) or path
    return path


def find_released(system: System, offline: bool | None) -> Path:
    """Return the checkpoint of a published system, downloaded if necessary; raise ModelError if that is impossible."""
    if system.file is None and system.own_file.is_file():
        return system.own_file
    reason, address, alternative = "no address is known to download them from", system.home, ""
    if system.file is None:
        alternative = f" (or keep it as {system.own_file} and use this name)"
    else:
        try:
            checkpoint = fetch(system.file, offline)
            if system.config is not None:
                with suppress(NoConnectionError):  # without it the usual rate is taken
                    fetch(system.config, offline)
            return checkpoint
        except NoConnectionError as error:
            reason, address = str(error).removeprefix(f"{system.file.url} "), system.file.url
    size = "" if system.size == "unknown" else f" ({system.size})"
    raise ModelError(
        f'The weights of the model "{system.name}" are not on this computer, and {reason}: '
        f"get {system.checkpoint_name}{size} from {address} and then use "
        f'separate --model "{system.checkpoint_name}" {EXAMPLES[system.queries[0]]} mix.wav{alternative}'
    )


# Loading and saving


def read_config(directory: Path) -> dict[str, Any]:
    """Return the content of a model directory's `config.yaml`; raise ModelError if it describes no model."""
    file = directory / "config.yaml"
    if not file.exists():
        raise ModelError(f"{directory} is not a model directory: config.yaml is missing.")
    config = read_yaml(file)
    if not isinstance(config, dict) or not {"model", "encoder"} <= set(config):
        raise ModelError(f"{file} does not describe a model and an encoder.")
    check_keys(config, SECTIONS, str(file))
    card = config.get("card") or {}
    if not isinstance(card, dict):
        raise ModelError(f"{file}: the card is not a mapping.")
    for name, kind in CARD_TYPES.items():
        if not fits(card.get(name), kind | None):
            raise ModelError(f"{file}: {name} of the card is not valid: {str(card[name])[:60]}.")
    return config


def find_base(directory: Path, base: Any) -> Path:
    """Return the directory that a `base` in the config of another one names; raise ModelError for other weights."""
    if not isinstance(base, dict) or not all(isinstance(base.get(key), str) for key in ("model", "sha256")):
        raise ModelError(f"{directory / 'config.yaml'}: base must give model and sha256.")
    try:
        found = find_model(base["model"])
        if not (found / "model.safetensors").is_file() or read_config(found).get("base"):
            raise ModelError(f"{found} is not the directory of a base model.")
    except ModelError as error:
        raise ModelError(f"{directory}: its base cannot be loaded: {error}") from None
    if (here := sha256_of(found / "model.safetensors")) != base["sha256"]:
        raise ModelError(
            f"{directory} was trained on other weights of {base['model']} (SHA-256 {base['sha256'][:12]}, here "
            f"{here[:12]}), so it cannot be used with these; train it again."
        )
    return found


def taught_sounds(name: str) -> list[str]:
    """Return the sounds that a model directory was taught besides those of its base, see `separation.own_sounds`."""
    path = expand_home(name)
    base = read_config(path).get("base") if (path / "config.yaml").is_file() else None
    sounds = base.get("sounds") if isinstance(base, dict) else None
    return [*map(str, sounds)] if isinstance(sounds, list) else []


def load_settings(path: Path, section: str, kind: type[Settings]) -> Settings:
    """Return a section of a model directory's config as a dataclass of numbers and lists; else its defaults.

    Raises ModelError if a value is not valid or has an unknown name.
    """
    given = None if path.is_file() else read_config(path).get(section)
    return make_settings(given, kind, f"{path / 'config.yaml'}: {section}")


def read_stored(path: Path) -> StoredModel:
    """Read a model directory, a training checkpoint or a checkpoint of a published system; else raise ModelError."""
    from separation.released.recognise import recognise
    from separation.storage.tensors import StoredModel, read_pickle, read_tensors, tensors_of

    if path.is_dir():
        config, file = read_config(path), path / "model.safetensors"
        tensors = read_tensors(file)
        strange = sorted(name for name in tensors if not name.startswith(("model.", "encoder.")))
        if strange:
            raise ModelError(f"{file} holds an unexpected tensor, {strange[0]}.")
        return StoredModel({"model": config["model"], "encoder": config["encoder"]}, tensors)
    if path.suffix == ".safetensors" or not path.is_file():
        state = read_tensors(path)
    else:
        content = read_pickle(path)
        state = tensors_of(content, path)
        if {"average", "model"} <= {name.split(".")[0] for name in state}:
            return StoredModel(content.get(DESCRIPTION) or find_description(path), average_weights(state))
    return recognise(state, path)


def load_model(path: Path, trust: Sequence[str] = ()) -> tuple[ConditionedModel, QueryEncoder]:
    """Load the network and encoder of a model directory or checkpoint, in inference mode.

    `trust` names packages whose classes may be built besides this package's.

    Raises:
        ModelError: a file is missing or damaged, or a tensor is missing, left over or of another shape.
    """
    from separation.storage.tensors import own_defaults

    base = read_config(path).get("base") if path.is_dir() else None
    with own_defaults():
        source = path if base is None else find_base(path, base)
        weights = source / "model.safetensors" if source.is_dir() else source
        model, encoder = build_parts(read_stored(source), weights, trust if base is None else ())
        if base is not None:
            from separation.own_sounds import apply_difference

            model = apply_difference(path, model, encoder)
    return model.eval().requires_grad_(False), encoder.eval().requires_grad_(False)


def build_parts(stored: StoredModel, source: Path, trust: Sequence[str] = ()) -> tuple[ConditionedModel, QueryEncoder]:
    """Build the network and encoder of a stored model and load their tensors; memory is allocated once these fit.

    Raises ModelError if the description is not valid, or as `load_model`.
    """
    from separation.encoders.base import QueryEncoder
    from separation.models.base import ConditionedModel
    from separation.storage.tensors import Outline, has_outlines

    check_keys(stored.description, ("model", "encoder"), f"The description in {source}")
    with nullcontext() if trust else Outline():  # the constructors of others may compute with their weights
        model, encoder = (build(stored.description.get(part), trust) for part in ("model", "encoder"))
    dims = getattr(model, "condition_dim", None), getattr(encoder, "embedding_dim", None)
    if not isinstance(model, ConditionedModel) or not isinstance(encoder, QueryEncoder) or None in dims:
        names = f"{type(model).__name__} and {type(encoder).__name__}"
        raise ModelError(f"{source}: {names} are not a network and an encoder.")
    if dims[0] != dims[1]:
        raise ModelError(f"{source}: the conditions of the network have {dims[0]} numbers, the encoder's {dims[1]}.")
    load_parts(model, encoder, stored.tensors, source)
    if has_outlines(model) or has_outlines(encoder):  # of tensors that are in no file
        model, encoder = (build(stored.description[part], trust) for part in ("model", "encoder"))
        load_parts(model, encoder, stored.tensors, source)
    return model, encoder


def load_parts(model: Any, encoder: Any, tensors: dict[str, Tensor], source: Path) -> None:
    """Load tensors named `model.*` and `encoder.*` into a network and an encoder, strictly."""
    from separation.storage.tensors import load_strictly, select

    load_strictly(model, select(tensors, "model."), source)
    load_encoder(encoder, select(tensors, "encoder."), source)


def load_encoder(encoder: Any, tensors: dict[str, Tensor], source: Path) -> None:
    """Load the tensors of an encoder strictly; a published system's are checked when the first query comes.

    Conditions of labels may be missing: queries are not moved then, see `JointEncoder.encode_query`.
    """
    from torch import nn

    from separation.storage.tensors import load_strictly

    if type(encoder).load_state_dict is nn.Module.load_state_dict:
        optional = {"labels", "classes"} - tensors.keys()
        load_strictly(encoder, tensors, source, ignore=lambda name: name in optional)
    else:  # ReleasedEncoder, which keeps the tensors for the encoders that it builds
        encoder.load_state_dict(tensors)


def save_model(
    directory: Path,
    config: dict[str, Any],
    model: ConditionedModel,
    encoder: QueryEncoder,
    readme: str = "",
    half: bool = True,
) -> None:
    """Write a model directory with `config.yaml` (card, model, encoder, presence, listing), weights and a `README.md`.

    With `half`, matrices and kernels are stored in half precision. Vectors stay in single precision, because batch
    statistics exceed the range of fp16. Raises ModelError if another value does.
    """
    import torch

    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    for name, value in tensors.items():
        if half and value.is_floating_point() and value.ndim > 1:
            tensors[name] = value.to(torch.float16)
            if not torch.isfinite(tensors[name]).all():
                raise ModelError(f"{name} holds values beyond the range of fp16.")
    write_model(directory, config, tensors, readme)


def write_model(directory: Path, config: dict[str, Any], tensors: dict[str, Tensor], readme: str = "") -> None:
    """Write the files of a model directory, each at once; conditions by earlier weights are deleted."""
    import yaml

    from separation.storage.tensors import write_tensors

    directory.mkdir(parents=True, exist_ok=True)
    write_tensors(directory / "model.safetensors", tensors)
    (directory / "sounds.safetensors").unlink(missing_ok=True)
    texts = {"config.yaml": yaml.safe_dump(config, sort_keys=False)} | ({"README.md": readme} if readme else {})
    for name, text in texts.items():
        with replace_when_complete(directory / name) as part:
            part.write_text(text, encoding="utf-8")
