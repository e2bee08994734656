"""`separation-train`: the Lightning command line. `separation-train fit --config conf/recipe/default.yaml`."""

from __future__ import annotations

import lightning
from lightning.pytorch.cli import LightningCLI


def main() -> None:
    """Entry point. Objective and data are given by their class paths in the YAML."""
    LightningCLI(
        lightning.LightningModule,
        lightning.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=0,
    )


if __name__ == "__main__":
    main()
