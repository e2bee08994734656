"""The command `separation-train`, Lightning's command line for the objectives and data modules of this package.

separation-train fit --config conf/recipe/default.yaml --data.manifest FOLDER/manifest.csv
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from argparse import ArgumentError
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

import lightning
import yaml
from jsonargparse import get_loader, set_loader
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.model_helpers import is_overridden

from separation.errors import DataError, ModelError
from separation.evaluate.scoring import EvaluationError
from separation.process import give_back_signals
from separation.storage.checkpoints import DESCRIPTION, describe_objective
from separation.storage.moved import resolve_text
from separation.training.callbacks import move_earlier_checkpoints

BASE = Path(__file__).parent / "base.yaml"
BASE_FOLDER = "runs"  # save_dir of the loggers in base.yaml
SUBCOMMANDS = ("fit", "validate", "test")
ABOUT = (
    "Train a separator, an encoder or a tagger, or score one: separation-train fit --config conf/recipe/finetune.yaml "
    "--data.manifest my_sounds/manifest.csv. Settings of the recipe can be changed by options of the same name; a run "
    "that was stopped continues with --ckpt_path last. docs/training.md explains the recipes."
)
CHECKPOINT_WORDS = ("best", "last", "hpc", "registry")  # values of --ckpt_path other than files
NO_UNION = "Does not validate against any of the Union subtypes"
MISFIT, MISFIT_LENGTH = "Error(s) in loading state_dict", 150  # torch's words, and how much of the rest is printed
# Warnings about what is intended: a folder that already holds logs, frozen encoders, Lightning's own use of torch.
IGNORED_WARNINGS = (
    "Checkpoint directory .* exists and is not empty",
    r"Found \d+ module\(s\) in eval mode at the start of training",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)
# Largest sizes of the networks under --small_network; None and larger ones are replaced.
SMALL: dict[str, dict[str, Any]] = {
    "AdaptedAST": {"config": {"num_hidden_layers": 2}},
    "BandUNet": {"channels": 16, "stream_dim": 32},
    "BiModalUNet": {"channels": 8},
    "CLIPSepUNet": {"width": 8},
    "LiveUNet": {"channels": 16, "ranks": 8, "stream_dim": 32, "stream_rank": 8},
}
PARSER_NOISE = re.compile(rf"{NO_UNION}|Subtypes:|Errors:|(- )?Expected a <class 'NoneType'>")


class SaveConfig(SaveConfigCallback):
    """Writes config.yaml into the log folder and the description of the separator into every checkpoint."""

    @cached_property
    def description(self) -> dict[str, dict[str, Any]] | None:
        """Class paths and arguments of separator and encoder; None for objectives without a separator."""
        return describe_objective(yaml.safe_load(self.parser.dump(self.config, skip_none=False)))

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self.description is not None:
            checkpoint[DESCRIPTION] = self.description

    @rank_zero_only
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Move the checkpoints of an earlier run away, once it is certain that this run can begin."""
        earlier = move_earlier_checkpoints(Path(trainer.default_root_dir), trainer.ckpt_path)
        if earlier is not None:
            message = f"The checkpoints of an earlier run now lie in {earlier}; --ckpt_path goes on from one of them."
            print(message, file=sys.stderr)


class CLI(LightningCLI):
    """Lightning's command line on top of base.yaml. Parsing errors are raised; abbreviated keys are not accepted."""

    def __init__(self, **arguments: Any) -> None:
        base = {"default_config_files": [str(BASE)]}
        super().__init__(
            lightning.LightningModule,
            lightning.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            parser_kwargs=base
            if arguments.get("run") is False
            else {name: base for name in self.subcommands() if name in SUBCOMMANDS},
            **arguments,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Give all, or the one that is asked for: the parser of each takes a second to build."""
        known = LightningCLI.subcommands()
        return {name: known[name] for name in sys.argv[1:2] if name in known} or known

    def init_parser(self, **arguments: Any) -> LightningArgumentParser:
        own = {"exit_on_error": False, "allow_abbrev": False}
        parser = super().init_parser(**{"description": ABOUT} | arguments | own)
        for name in ("dump", "save"):  # a configuration is checked when it is parsed, and written three times
            setattr(parser, name, partial(getattr(parser, name), skip_validation=True))
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        about = "Give the separator few channels, so that a recipe can be tried in seconds."
        parser.add_argument("--small_network", type=bool, default=False, help=about)

    def _prepare_subcommand_parser(self, klass: Any, subcommand: str, **arguments: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **arguments)
        parser.set_defaults({"weights_only": True})  # by default Lightning unpickles checkpoints from URLs
        return parser

    def _parse_ckpt_path(self) -> None:
        check_checkpoint(self.config.get(self.config.get("subcommand") or "", {}).get("ckpt_path"))
        super()._parse_ckpt_path()

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand] if self.subcommand else self.config
        check_backend(config)
        move_logs(config)
        if config.get("small_network"):
            parts = section(section(config.get("model")).get("init_args"))
            limit_sizes(parts.get("model"))
            limit_sizes(parts.get("encoder"))

    def before_fit(self) -> None:
        trainer, batches = self.trainer, getattr(self.datamodule, "batches", 0)
        steps = min([n for n in (trainer.max_steps, (trainer.max_epochs or 0) * batches) if n > 0], default=0)
        if trainer.is_global_zero:
            length = f"up to {steps:,} steps" if steps else "no limit of steps"
            place = f"{type(trainer.accelerator).__name__.removesuffix('Accelerator')} x {trainer.num_devices}"
            name, folder = type(self.model).__name__, trainer.default_root_dir
            print(f"separation-train: {name}, {length} on {place}; its files are in {folder}.", file=sys.stderr)

    def before_validate(self) -> None:
        self.check_scores("validation_step")

    def before_test(self) -> None:
        self.check_scores("test_step")

    def check_scores(self, step: str) -> None:
        """Raise ModelError if the objective has no scores of its own."""
        if not is_overridden(step, self.model):
            name = type(self.model).__name__
            raise ModelError(f"{name} has no scores of its own, so there is nothing to {self.subcommand}.")

    def instantiate_trainer(self, **arguments: Any) -> lightning.Trainer:
        try:
            return super().instantiate_trainer(**arguments)
        except ValueError as error:  # an unknown strategy, for example
            raise ArgumentError(None, f"trainer: {error}") from error

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            if NO_UNION in str(error):
                raise ArgumentError(None, str(error)) from error
            raise


def read_labels(config: Any) -> Any:
    """Replace every `labels: FILE.txt` in a configuration by the lines of the file."""
    if isinstance(config, list):
        return [read_labels(value) for value in config]
    if not isinstance(config, dict):
        return config
    return {
        key: Path(value).read_text(encoding="utf-8").splitlines()  # jsonargparse reads a file from within its folder
        if key == "labels" and str(value).endswith(".txt")
        else read_labels(value)
        for key, value in config.items()
    }


load_yaml = get_loader("yaml")
# Classes may have earlier paths, and `labels` may be a text file with a label per line.
set_loader("yaml", lambda text: read_labels(load_yaml(resolve_text(text))), exceptions=(yaml.YAMLError,))


def check_checkpoint(path: Any) -> None:
    """Raise ModelError if `--ckpt_path` is not a checkpoint's file; Lightning's words and URLs are not checked."""
    import torch

    if path == "best":  # the best of this process, which has none yet
        raise ModelError("--ckpt_path=best: name the file of an earlier run, such as best.ckpt in its folder.")
    if not path or path in CHECKPOINT_WORDS or "://" in str(path):
        return
    file = Path(str(path))
    if not file.is_file():
        raise ModelError(f"{file}: there is no such checkpoint.")
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        complete = {"state_dict", "global_step"} <= stored.keys()
    except Exception:  # readers of archives and pickles raise many kinds
        complete = False
    if not complete:
        raise ModelError(f"{file}: not a training checkpoint, or damaged.")


def check_backend(config: Any) -> None:
    """Raise ModelError if there is no such backend of `--model.compile`; torch would ask for it in the first step."""
    name = section(config.get("model")).get("init_args", {}).get("compile")
    if name is None:
        return
    from torch import _dynamo

    if name not in _dynamo.list_backends(exclude_tags=()):  # including those for debugging
        known = ", ".join(_dynamo.list_backends())
        raise ModelError(f"model.compile: there is no backend {name}; these are: {known}.")


def move_logs(config: Any) -> None:
    """Let loggers write to `trainer.default_root_dir`, unless a configuration gave them a folder of their own.

    A logger has no folder of its own if it writes to that of base.yaml, or to the `default_root_dir` of the same YAML
    file, which a later option may have changed.
    """
    root, loggers = config.trainer.get("default_root_dir"), config.trainer.get("logger")
    if not root:
        return
    paths = [str(path) for path in config.get("config") or [] if path is not None]  # None: --config with a text
    files = [yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {} for path in paths]
    folders = {BASE_FOLDER} | {str((file.get("trainer") or {}).get("default_root_dir")) for file in files}
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        arguments = section(logger).get("init_args", {})
        if str(arguments.get("save_dir")) in folders:
            arguments["save_dir"] = str(root)


def limit_sizes(network: Any) -> None:
    """Reduce the sizes in the configuration of a network to those of `SMALL`, if it is one of them."""
    for name, limit in SMALL.get(str(section(network).get("class_path")).rpartition(".")[2], {}).items():
        size = network.init_args.get(name)
        if isinstance(limit, dict):
            network.init_args[name] = {**(size or {}), **limit}
        elif isinstance(size, list | tuple):
            network.init_args[name] = [min(each, limit) for each in size]
        else:
            network.init_args[name] = limit if size is None else min(size, limit)


def section(config: Any) -> Any:
    """A section of a configuration; an empty one if it is missing."""
    return config if hasattr(config, "get") else {}


def sentence(message: str) -> str:
    """Shorten a parser's message to one sentence, without the types and values that it lists.

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
        elif line and not PARSER_NOISE.match(line):
            rest.append(line)
    place = f"{'.'.join(keys)}: " if keys else ""
    return f"{place}{' '.join(rest)}".rstrip(".") + "."


def main() -> None:
    """Run the command. Objective and data module are given by their class paths in the YAML."""
    give_back_signals()  # Lightning handles them
    for name in ("pytorch", "fabric"):  # which devices there are, and advice
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    sys.argv[1:] = map(resolve_text, sys.argv[1:])
    try:
        CLI()
    except (ArgumentError, DataError, EvaluationError, ModelError, MisconfigurationException) as error:
        message = str(error)
        # torch puts a traceback before the text of an error in a worker process
        if caught := re.match(r"Caught (\w+) in DataLoader worker", message):
            message = re.split(rf"^[\w.]*\b{caught[1]}: ", message, flags=re.MULTILINE)[-1].strip()
        stop(message)
    except RuntimeError as error:
        if not str(error).startswith(MISFIT):
            raise
        stop(f"The checkpoint is one of another model: {str(error).splitlines()[1].strip()[:MISFIT_LENGTH]}")


def stop(message: str) -> NoReturn:
    """End the program with one sentence."""
    print(f"separation-train: {sentence(message)}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
