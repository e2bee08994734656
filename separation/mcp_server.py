"""`separate-mcp FOLDER ...`: the command, and the confinement of its tools (`mcp_tools.py`) to folders."""

from __future__ import annotations

import argparse
import logging
import os
import stat
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from separation.errors import AudioError, ModelError, expand_home, one_sentence, reason
from separation.process import DONE, FAILED, UNPRINTABLE, call, say

USAGE = 2
MAX_BYTES, MAX_NAME = 4 << 30, 500  # of a recording; letters

DESCRIPTION = """\
Serve list_sounds, separate, remove and remix to an assistant over the Model Context Protocol
(standard input and output). Recordings are read and results written only inside the folders.
"""


class Folders:
    """The folders in which recordings are read and results written.

    Args:
        names: of existing folders; links are resolved once, here.

    Raises:
        AudioError: if one is not a folder.
    """

    def __init__(self, names: Sequence[str | Path]) -> None:
        self.roots: list[Path] = []
        for name in names:
            try:
                root = expand_home(name).resolve(strict=True)
            except OSError as error:
                raise AudioError(f"{name}: {reason(error)}.") from None
            if not root.is_dir():
                raise AudioError(f"{name} is not a folder.")
            self.roots.append(root)

    def locate(self, name: str, what: str) -> Path:
        """Return the path that a name means, with links resolved; it need not exist.

        A relative name is looked for in each of the folders; if it is in none, it means the first. Raises AudioError,
        with the kind of thing that is named (`what`), if it is not a plain name or leads outside the folders.
        """
        if not name.strip() or len(name) > MAX_NAME or UNPRINTABLE.search(name):
            raise AudioError(f"The name of the {what} is empty, too long, or holds control characters.")
        if ".." in Path(name).parts:
            raise AudioError(f"{name}: names with .. are refused.")
        places = [root / name for root in self.roots]  # an absolute name replaces the folder
        path = next((place for place in places if os.path.lexists(place)), places[0])
        try:
            path = path.resolve()
        except (OSError, RuntimeError):
            raise AudioError(f"{name} is a loop of links.") from None
        if self.root_of(path) is None:
            raise AudioError(f"{name} is outside the folders that are served.")
        if UNPRINTABLE.search(str(path)):
            raise AudioError(f"{name} leads to a name that holds control characters.")
        return path

    def root_of(self, path: Path) -> Path | None:
        """Return the innermost folder that contains a resolved path, or None."""
        return max(
            (root for root in self.roots if path.is_relative_to(root)), key=lambda root: len(root.parts), default=None
        )

    def recording(self, name: str) -> Path:
        """Return the path of an existing plain file of at most `MAX_BYTES` in the folders; else raise AudioError."""
        path = self.locate(name, "recording")
        try:
            status = path.stat()
        except OSError as error:
            raise AudioError(f"{name}: {reason(error)}.") from None
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{name} is not a plain file.")
        if status.st_size > MAX_BYTES:
            raise AudioError(f"{name} has more than {MAX_BYTES >> 30} GiB.")
        return path

    def output(self, name: str | None, recording: Path) -> Path:
        """Return the folder for results, by default the recording's; raise AudioError if it is outside or a file."""
        path = recording.parent if name is None else self.locate(name, "output folder")
        if self.root_of(path) is None:
            raise AudioError(f"The folder of {recording} is outside those that are served.")
        if os.path.lexists(path) and not path.is_dir():
            raise AudioError(f"{name} is not a folder.")
        return path


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `separate-mcp`."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="separate-mcp", description=DESCRIPTION, formatter_class=formatter)
    add = parser.add_argument
    add("folders", nargs="+", metavar="FOLDER", help="a folder of recordings, with all below it")
    add("--model", default="default", metavar="NAME", help="as of separate; loaded at first use (default: built-in)")
    add("--device", default="auto", choices=("auto", "cpu", "gpu", "cuda", "mps"), help="default: auto")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until standard input ends; return the exit status."""
    options = build_parser().parse_args(argv)
    if sys.stdin is None:
        say("separate-mcp", "standard input is closed.")
        return FAILED
    try:
        folders = Folders(options.folders)
        tools = import_module("separation.mcp_tools")
        from separation.pretrained import check_name

        check_name(options.model)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        say("separate-mcp", f'the package {package} is missing; install it with: pip install "separation[mcp]"')
        return FAILED
    except (AudioError, ModelError) as error:
        say("separate-mcp", one_sentence(error))
        return USAGE
    logging.basicConfig(level=logging.WARNING, format="separate-mcp: %(message)s", stream=sys.stderr)
    tools.build_server(folders, options.model, options.device).run("stdio")
    return DONE


if __name__ == "__main__":
    sys.exit(call("separate-mcp", main))
