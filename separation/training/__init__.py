"""Training: objectives, losses, callbacks and the command `separation-train`."""

import sys
from importlib import import_module

from separation.compat import make_importable

make_importable()  # before Lightning is imported; it fails beside a torchvision that cannot be loaded


def main() -> None:
    """Run `separation-train`; if a package of the extra `train` is missing, end with one sentence."""
    try:
        cli = import_module("separation.training.cli")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        sys.exit(f'separation-train needs the package {package}; install it with: pip install "separation[train]"')
    cli.main()
