"""`separation-train`: the Lightning command line. `separation-train fit --config conf/recipe/default.yaml`."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentError
from functools import cached_property
from pathlib import Path
from typing import Any

from separation.compat import make_importable
from separation.data.manifest import DataError
from separation.description import ModelError
from separation.earlier_runs import set_aside
from separation.evaluate import EvaluationError
from separation.run_folder import CONFIG, parts

make_importable()  # before Lightning, which a torchvision that does not load takes down with it
import lightning  # noqa: E402
from lightning.fabric.utilities.rank_zero import rank_zero_only  # noqa: E402
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback  # noqa: E402

NO_UNION = "Does not validate against any of the Union subtypes"
NOISE = re.compile(rf"{NO_UNION}|Subtypes:|Errors:|(- )?Expected a <class 'NoneType'>")


class KeepConfig(SaveConfigCallback):
    """Writes config.yaml into the log folder, and what describes the separator into every checkpoint."""

    @cached_property
    def described(self) -> dict[str, dict[str, Any]] | None:
        """Class paths and arguments of separator and encoder."""
        import yaml

        return parts(yaml.safe_load(self.parser.dump(self.config, skip_none=False)))

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self.described is not None:
            checkpoint[CONFIG] = self.described


class CLI(LightningCLI):
    """Lightning's command line, whose errors can be caught, and which takes no key for one that begins with it."""

    def init_parser(self, **arguments: Any) -> LightningArgumentParser:
        return super().init_parser(**arguments | {"exit_on_error": False, "allow_abbrev": False})

    def _prepare_subcommand_parser(self, klass: Any, subcommand: str, **arguments: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **arguments)
        parser.set_defaults({"weights_only": True})  # Lightning unpickles checkpoints from the web otherwise
        return parser

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            if NO_UNION in str(error):
                raise ArgumentError(None, str(error)) from error
            raise

    @rank_zero_only
    def before_fit(self) -> None:
        """A run that does not go on from an earlier one in its folder leaves that one's checkpoints as they are."""
        aside = set_aside(Path(self.trainer.default_root_dir), self.config[self.subcommand].get("ckpt_path"))
        if aside is not None:
            message = f"The checkpoints of an earlier run now lie in {aside}; --ckpt_path goes on from one of them."
            print(message, file=sys.stderr)


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


def main() -> None:
    """Entry point. Objective and data are given by their class paths in the YAML."""
    try:
        CLI(
            lightning.LightningModule,
            lightning.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=KeepConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
        )
    except (ArgumentError, DataError, EvaluationError, ModelError) as error:
        print(f"separation-train: {sentence(str(error))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
