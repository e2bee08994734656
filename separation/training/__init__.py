"""Training: objectives, losses, callbacks and the command `separation-train`."""

import gc
import sys
from importlib import import_module

from separation.compat import import_torchmetrics, make_importable

make_importable()  # before Lightning is imported; it fails beside a torchvision that cannot be loaded


def main() -> None:
    """Run `separation-train`; if a package of the extra `train` is missing, end with one sentence."""
    gc.disable()  # imports leave no garbage, and the search takes a tenth of their time
    try:
        import_torchmetrics()
        cli = import_module("separation.training.cli")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0].removesuffix("_utilities")  # a part of Lightning
        sys.exit(f'separation-train needs the package {package}; install it with: pip install "separation[train]"')
    gc.enable()
    cli.main()
