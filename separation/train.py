"""`separation-train`: the Lightning command line. `separation-train fit --config conf/recipe/default.yaml`."""

from __future__ import annotations

import re
import sys
import warnings
from argparse import ArgumentError
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from separation.compat import make_importable
from separation.data.manifest import DataError
from separation.earlier_runs import set_aside
from separation.errors import ModelError
from separation.evaluate import EvaluationError
from separation.moved import resolve_text
from separation.pretrained import DESCRIPTION, describe_objective

make_importable()  # before Lightning, which a torchvision that does not load takes down with it
import lightning  # noqa: E402
import yaml  # noqa: E402
from jsonargparse import get_loader, set_loader  # noqa: E402
from lightning.fabric.utilities.exceptions import MisconfigurationException  # noqa: E402
from lightning.fabric.utilities.rank_zero import rank_zero_only  # noqa: E402
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback  # noqa: E402
from lightning.pytorch.utilities.model_helpers import is_overridden  # noqa: E402

NO_UNION = "Does not validate against any of the Union subtypes"
LIGHTNINGS = ("best", "last", "hpc", "registry")  # what else than a file a checkpoint can be called
MISFIT, SHOWN = "Error(s) in loading state_dict", 150  # what torch says, and how much of what follows is shown
# Lightning's, on what is meant: a folder that holds the logs already, encoders that are frozen, its own use of torch.
NEEDLESS = (
    "Checkpoint directory .* exists and is not empty",
    r"Found \d+ module\(s\) in eval mode at the start of training",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)
NOISE = re.compile(rf"{NO_UNION}|Subtypes:|Errors:|(- )?Expected a <class 'NoneType'>")


class KeepConfig(SaveConfigCallback):
    """Writes config.yaml into the log folder, and what describes the separator into every checkpoint."""

    @cached_property
    def described(self) -> dict[str, dict[str, Any]] | None:
        """Class paths and arguments of separator and encoder."""
        import yaml

        return describe_objective(yaml.safe_load(self.parser.dump(self.config, skip_none=False)))

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self.described is not None:
            checkpoint[DESCRIPTION] = self.described

    @rank_zero_only
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """A run that does not go on from an earlier one in its folder leaves that one's checkpoints as they are.

        Not before all is ready: a run that cannot begin takes nothing out of its folder.
        """
        aside = set_aside(Path(trainer.default_root_dir), trainer.ckpt_path)
        if aside is not None:
            message = f"The checkpoints of an earlier run now lie in {aside}; --ckpt_path goes on from one of them."
            print(message, file=sys.stderr)


class CLI(LightningCLI):
    """Lightning's command line, whose errors can be caught, and which takes no key for one that begins with it."""

    def init_parser(self, **arguments: Any) -> LightningArgumentParser:
        return super().init_parser(**arguments | {"exit_on_error": False, "allow_abbrev": False})

    def _prepare_subcommand_parser(self, klass: Any, subcommand: str, **arguments: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **arguments)
        parser.set_defaults({"weights_only": True})  # Lightning unpickles checkpoints from the web otherwise
        return parser

    def _parse_ckpt_path(self) -> None:
        check_checkpoint(self.config.get(self.config.get("subcommand") or "", {}).get("ckpt_path"))
        super()._parse_ckpt_path()

    def before_instantiate_classes(self) -> None:
        config = self.config[self.config.subcommand]
        check_backend(config)
        follow(config, roots_of(config))

    def before_validate(self) -> None:
        check_scores(self.model, "validate")

    def before_test(self) -> None:
        check_scores(self.model, "test")

    def instantiate_trainer(self, **arguments: Any) -> lightning.Trainer:
        try:
            return super().instantiate_trainer(**arguments)
        except ValueError as error:  # a name that Lightning does not know
            raise ArgumentError(None, f"trainer: {error}") from error

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            if NO_UNION in str(error):
                raise ArgumentError(None, str(error)) from error
            raise


def check_scores(objective: Any, subcommand: str) -> None:
    """Sees that an objective can do what is asked for.

    Raises:
        ModelError: it gives no scores.
    """
    step = {"validate": "validation_step", "test": "test_step"}[subcommand]
    if not is_overridden(step, objective):
        raise ModelError(f"{type(objective).__name__} has no scores of its own, so there is nothing to {subcommand}.")


def check_checkpoint(path: Any) -> None:
    """Sees that a checkpoint is one before anything is built.

    Args:
        path: what `--ckpt_path` was given; words that Lightning knows (`last`) and web addresses are let through.

    Raises:
        ModelError: there is no such file, or it is no checkpoint.
    """
    import torch

    if path == "best":  # Lightning's word for the best of this very process, which has none yet
        raise ModelError("--ckpt_path=best: name the file of an earlier run, such as best.ckpt in its folder.")
    if not path or path in LIGHTNINGS or "://" in str(path):
        return
    file = Path(str(path))
    if not file.is_file():
        raise ModelError(f"{file}: there is no such checkpoint.")
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        whole = {"state_dict", "global_step"} <= stored.keys()
    except Exception:  # whatever a reader of pickles and archives may raise at a file of another kind
        whole = False
    if not whole:
        raise ModelError(f"{file}: it is no checkpoint of a training, or is damaged.")


def check_backend(config: Any) -> None:
    """Sees that the backend of `--model.compile` exists: torch itself asks for it in the middle of the first step.

    Raises:
        ModelError: there is none of this name.
    """
    name = plain(config.get("model")).get("init_args", {}).get("compile")
    if name is None:
        return
    from torch import _dynamo

    if name not in _dynamo.list_backends(exclude_tags=()):  # with those for debugging
        known = ", ".join(_dynamo.list_backends())
        raise ModelError(f"model.compile: there is no backend {name}; these are: {known}.")


def roots_of(config: Any) -> set[str]:
    """The folders that the given YAML files have as `trainer.default_root_dir`."""
    import yaml

    files = [yaml.safe_load(Path(str(file)).read_text(encoding="utf-8")) or {} for file in config.get("config") or []]
    return {str(root) for file in files if (root := (file.get("trainer") or {}).get("default_root_dir"))}


def follow(config: Any, roots: set[str]) -> None:
    """Logs go where checkpoints go: loggers that still write to a recipe's folder follow `default_root_dir`.

    Args:
        config: of the subcommand; changed in place.
        roots: the recipes' folders.
    """
    root, loggers = config.trainer.get("default_root_dir"), config.trainer.get("logger")
    if not root:
        return
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        arguments = plain(logger).get("init_args", {})
        if str(arguments.get("save_dir")) in roots:
            arguments["save_dir"] = str(root)


def plain(part: Any) -> Any:
    """A part of a configuration; an empty one where there is none."""
    return part if hasattr(part, "get") else {}


def sentence(message: str) -> str:
    """What a parser has to say, without the types and values that it lists around it.

    `model.model: separation.models.band_unet.BandUNet: Option 'chanels' is not accepted.`
    """
    keys, rest = [], []
    for line in message.splitlines():
        line = line.strip().removeprefix("- ")
        if line.startswith("Given value"):
            break
        if key := re.match(r'(?:error: )?Parser key "([\w.]+)":', line):
            keys.append(key[1])
            line = line[key.end() :].strip()
        if owner := re.match(r"Problem with given class_path '([\w.]+)':", line):
            rest = [f"{owner[1]}:"]
        elif line and not NOISE.match(line):
            rest.append(line)
    place = f"{'.'.join(keys)}: " if keys else ""
    return f"{place}{' '.join(rest)}".rstrip(".") + "."


READ_YAML = get_loader("yaml")


def load_yaml(text: str) -> Any:
    """Read a part of a configuration, with present paths for classes that have moved."""
    return READ_YAML(resolve_text(text))


def main() -> None:
    """Entry point. Objective and data are given by their class paths in the YAML."""
    for message in NEEDLESS:
        warnings.filterwarnings("ignore", message)
    set_loader("yaml", load_yaml, (yaml.YAMLError,))
    try:
        CLI(
            lightning.LightningModule,
            lightning.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=KeepConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            args=[resolve_text(argument) for argument in sys.argv[1:]],
        )
    except (ArgumentError, DataError, EvaluationError, ModelError, MisconfigurationException) as error:
        stop(own_text(str(error)))
    except RuntimeError as error:
        if not str(error).startswith(MISFIT):
            raise
        stop(f"The checkpoint is one of another model: {str(error).splitlines()[1].strip()[:SHOWN]}")


def own_text(message: str) -> str:
    """An error's text; of one from a process that draws batches, without the traceback that torch puts before it."""
    caught = re.match(r"Caught (\w+) in DataLoader worker", message)
    return re.split(rf"^[\w.]*\b{caught[1]}: ", message, flags=re.MULTILINE)[-1].strip() if caught else message


def stop(message: str) -> NoReturn:
    """Ends the program with a sentence."""
    print(f"separation-train: {sentence(message)}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
