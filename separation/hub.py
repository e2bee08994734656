"""The registry of models: a name, a directory or a released checkpoint to a card, a network and its query encoder.

A model directory holds `config.yaml` (class paths and arguments), `model.safetensors` and a `README.md`. It is plain
data: only classes of this package are built, and nothing is unpickled.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.description import Card as Card
from separation.description import ModelError as ModelError
from separation.description import build as build
from separation.presence import PresenceRule
from separation.run_folder import Trained, checkpoint_in, read_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from separation.encoders.base import QueryEncoder
    from separation.listing import ListingRule
    from separation.models.base import ConditionedModel

WEIGHTS = Path(__file__).with_name("weights")


def read_config(directory: Path) -> dict[str, Any]:
    """A model directory's `config.yaml`.

    Raises:
        ModelError: it is missing or says nothing usable.
    """
    import yaml

    file = directory / "config.yaml"
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{directory} is no model directory: config.yaml is missing.") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{file} cannot be read: {type(error).__name__}.") from None
    if not isinstance(config, dict) or not {"model", "encoder"} <= set(config):
        raise ModelError(f"{file} does not describe a model and an encoder.")
    return config


def list_models() -> list[Card]:
    """Cards of all models known by name: those that come with the package, then released ones."""
    from separation.checkpoints.registry import RELEASED

    own = [read_card(file.parent) for file in sorted(WEIGHTS.glob("*/config.yaml"))]
    return [*own, *RELEASED.values()]


def read_card(directory: Path) -> Card:
    """The card of a model directory, or of a released or a training's checkpoint file.

    Raises:
        ModelError: it is neither.
    """
    if directory.is_file():
        return checkpoint_card(directory)
    card = read_config(directory).get("card") or {}
    weights = directory / "model.safetensors"
    size = f"{weights.stat().st_size / 1e6:.0f} MB" if weights.is_file() else "unknown"
    return Card(
        name=directory.name,
        description=card.get("description", ""),
        queries=tuple(card.get("queries", ())),
        sample_rate=int(card.get("sample_rate", 0)),
        size=size,
        licence=card.get("licence", "unknown"),
        scores=card.get("scores", "unknown"),
        directory=directory,
    )


def checkpoint_card(file: Path) -> Card:
    """The card of a checkpoint: what its family takes where it is a released one, what its encoder takes otherwise.

    Raises:
        ModelError: it is no checkpoint of a separator.
    """
    from separation.checkpoints.families import recognise
    from separation.checkpoints.registry import RELEASED
    from separation.tensors import read_tensors

    size, trained = f"{file.stat().st_size / 1e6:.0f} MB", read_checkpoint(file)
    if trained is not None:
        forms, rate = build(trained.description["encoder"]).modalities, build(trained.description["model"]).sample_rate
        queries = (*sorted(forms, reverse=True), "embedding")
        return Card(file.stem, "a training's checkpoint", queries, rate, size, "unknown", "unknown", file.parent)
    family = recognise(read_tensors(file), file).name
    like = RELEASED.get(family, RELEASED["clipsep"])  # those not listed are variants of CLIPSep
    return Card(
        file.stem, like.description, like.queries, like.sample_rate, size, like.licence, like.scores, file.parent
    )


def find_model(name: str, offline: bool | None = None) -> Path:
    """The directory or checkpoint file of a model given by name or by path; a released one is fetched at first.

    Of a training's run folder, its best checkpoint.

    Args:
        name: as in `list_models`, or a path.
        offline: forbid the network; by default the environment decides (SEPARATION_OFFLINE, HF_HUB_OFFLINE).

    Raises:
        ModelError: it is neither, or it cannot be fetched.
    """
    from separation.checkpoints.registry import RELEASED, find_released

    check_name(name)
    if (WEIGHTS / name / "config.yaml").is_file():
        return WEIGHTS / name
    if name in RELEASED:
        return find_released(name, offline)
    path = Path(name).expanduser()
    is_run = path.is_dir() and not (path / "model.safetensors").exists()
    return (checkpoint_in(path) if is_run else None) or path


def check_name(name: str) -> None:
    """Looks whether there is a model of this name or path, without fetching or reading it.

    Raises:
        ModelError: there is none.
    """
    from separation.checkpoints.registry import RELEASED

    if (WEIGHTS / name / "config.yaml").is_file() or name in RELEASED or Path(name).expanduser().exists():
        return
    own = ", ".join(card.name for card in list_models() if card.name not in RELEASED)
    raise ModelError(
        f'There is no model "{name}": it is neither one of this package ({own}) nor a released one '
        f"({', '.join(RELEASED)}) nor a model directory or checkpoint file."
    )


def load_model(directory: Path) -> tuple[ConditionedModel, QueryEncoder]:
    """Network and encoder of a model directory or released checkpoint, with their weights, in inference mode.

    Raises:
        ModelError: a file is missing or damaged, or a tensor is missing, left over or misshapen.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if directory.is_file():
        from separation.checkpoints.load import load_checkpoint

        trained = read_checkpoint(directory)
        return load_checkpoint(directory) if trained is None else load_trained(trained, directory)
    config = read_config(directory)
    model, encoder = build(config["model"]), build(config["encoder"])
    file = directory / "model.safetensors"
    try:
        state = load_file(file)
    except FileNotFoundError:
        raise ModelError(f"{file} is missing.") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is damaged: {error}.") from None
    strange = sorted(name for name in state if not name.startswith(("model.", "encoder.")))
    if strange:
        raise ModelError(f"{file} does not fit its config: it holds an unexpected tensor, {strange[0]}.")
    load_part(model, state, "model.", file)
    load_part(encoder, state, "encoder.", file)
    return model.eval().requires_grad_(False), encoder.eval().requires_grad_(False)


def load_trained(trained: Trained, file: Path) -> tuple[ConditionedModel, QueryEncoder]:
    """Network and encoder of a training's checkpoint, in inference mode."""
    model, encoder = build(trained.description["model"]), build(trained.description["encoder"])
    load_part(model, trained.tensors, "model.", file)
    load_part(encoder, trained.tensors, "encoder.", file)
    return model.eval().requires_grad_(False), encoder.eval().requires_grad_(False)


def load_rule(directory: Path) -> PresenceRule:
    """How a model tells presence; detection alone where its config says nothing, or where it has none."""
    if directory.is_file():
        return PresenceRule()
    given = read_config(directory).get("presence") or {}
    try:
        return PresenceRule(**{name: float(value) for name, value in given.items()})
    except (TypeError, ValueError, AttributeError):
        raise ModelError(f"{directory / 'config.yaml'}: presence must give bias, logit and ratio.") from None


def load_listing(directory: Path) -> ListingRule:
    """What a model listens for and how it tells it; all sounds with wordings where its config says nothing."""
    from separation.listing import ListingRule

    given = {} if directory.is_file() else read_config(directory).get("listing") or {}
    try:
        rule = ListingRule(**given)
        return replace(rule, slope=float(rule.slope), bias=float(rule.bias), sounds=tuple(map(str, rule.sounds)))
    except (TypeError, ValueError):
        raise ModelError(f"{directory / 'config.yaml'}: listing must give slope, bias and sounds.") from None


def load_part(module: Any, state: dict[str, Tensor], prefix: str, file: Path) -> None:
    """Loads the tensors whose names begin with `prefix`, as float32, strictly."""
    part = {k.removeprefix(prefix): v.float() if v.is_floating_point() else v for k, v in state.items()
            if k.startswith(prefix)}  # fmt: skip
    try:
        module.load_state_dict(part)
    except RuntimeError as error:
        raise ModelError(f"{file} does not fit its config: {str(error).splitlines()[-1].strip()}") from None


def save_model(
    directory: Path, config: dict[str, Any], model: ConditionedModel, encoder: QueryEncoder, readme: str = ""
) -> None:
    """Writes a model directory: matrices and kernels as fp16, vectors (norms' statistics reach beyond fp16) as fp32."""
    import yaml
    from safetensors.torch import save

    directory.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    stored = {name: compact(name, tensor) for name, tensor in tensors.items()}
    (directory / "model.safetensors").write_bytes(save(stored))  # save_file would make it readable for the owner only
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    if readme:
        (directory / "README.md").write_text(readme, encoding="utf-8")


def compact(name: str, tensor: Tensor) -> Tensor:
    """A tensor as it is stored.

    Raises:
        ModelError: a value does not fit into fp16.
    """
    import torch

    if not tensor.is_floating_point() or tensor.ndim < 2:
        return tensor.contiguous()
    half = tensor.to(torch.float16).contiguous()
    if not torch.isfinite(half).all():
        raise ModelError(f"{name} holds values beyond the range of fp16.")
    return half
