"""What the benchmarks share: options, rows of the validation list, intervals as text, subprocesses, JSON."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from separation.data.fixed_mixtures import Row, read_rows
from separation.errors import AudioError, DataError, ModelError, one_sentence, reason

ROOT = Path(__file__).resolve().parents[1]
LIST = "validation_mixtures.csv"


def make_parser(description: str | None, mixtures: bool = False, every: int = 1) -> argparse.ArgumentParser:
    """Build a parser with --json and, for benchmarks on the validation list, --model, --data and --every."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    if mixtures:
        data = os.environ.get("SEPARATION_DATA")
        where = f"contains manifest.csv, {LIST} and the recordings (default: $SEPARATION_DATA)"
        parser.add_argument("--model", default="default", help="name or directory of a model")
        parser.add_argument("--data", type=Path, default=data and Path(data), metavar="FOLDER", help=where)
        parser.add_argument("--every", type=int, default=every, metavar="N", help="use every N-th row only")
    return parser


def run_benchmark(main: Callable[[], Any]) -> NoReturn:
    """Run a benchmark; data or models that are missing or damaged end the program with one sentence and status 2."""
    try:
        sys.exit(main())
    except (AudioError, DataError, ModelError, OSError) as error:
        bare = isinstance(error, OSError) and error.filename
        text = one_sentence(f"{error.filename}: {reason(error)}." if bare else error)
        print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr)
        sys.exit(2)


def find_data(options: argparse.Namespace) -> Path:
    """Return the folder with the validation list, the manifest and the recordings.

    Raises:
        DataError: none is named.
    """
    if options.data is None:
        raise DataError(f"--data or SEPARATION_DATA must name the folder with {LIST}, manifest.csv and recordings.")
    return Path(options.data)


def list_rows(options: argparse.Namespace, *kinds: str) -> tuple[list[Row], Path]:
    """Return the chosen rows of the validation list, of some kinds or all, and the folder where their paths start.

    Raises:
        DataError: no folder is named, its list cannot be read, or no row is chosen.
    """
    root = find_data(options)
    rows = [row for row in read_rows(root / LIST) if not kinds or row["kind"] in kinds][:: options.every]
    if not rows:
        raise DataError(f"{root / LIST}: there is no mixture of the kind {' or '.join(kinds)}.")
    return rows, root


def interval(value: float, low: float, high: float, digits: int = 2) -> str:
    """Format a figure and its interval, which is left out if it is empty."""
    bounds = f" ({low:.{digits}f} to {high:.{digits}f})" if high > low else ""
    return f"{value:.{digits}f}{bounds}"


def write_json(file: Path | None, value: Any) -> None:
    """Write figures to a file, if one is named."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value, indent=1, default=float) + "\n", encoding="utf-8")


def weights_checksum(model: str | Path) -> str:
    """Return the sha256 of a model's weights, so that figures of other weights can be refused."""
    from separation.pretrained import find_model
    from separation.storage.download import sha256_of

    return sha256_of(find_model(str(model)) / "model.safetensors")


def package_environment() -> dict[str, str]:
    """Return the environment of a process in which this package is first on the path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def run_python(*words: str) -> str:
    """Run this interpreter with this package first on its path; return the standard output.

    Raises:
        RuntimeError: the command failed; with its messages.
    """
    done = subprocess.run([sys.executable, *words], env=package_environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the command ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def run_page(*words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `demos/app.py` with these options; yield the address of the page and the process."""
    command = [sys.executable, str(ROOT / "demos" / "app.py"), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = next((line for line in process.stdout or () if "The page is at" in line), "")
            if not line:
                raise SystemExit("the page did not start")
            yield line.split()[4], process
        finally:
            process.terminate()


def separate_words(inputs: Path, out: Path, queries: list[str], *more: str) -> list[str]:
    """Return the arguments of the interpreter for `separate` on one file."""
    asked = [word for query in queries for word in ("--query", query)]
    return ["-m", "separation.cli", "--quiet", "--overwrite", *more, *asked, "-o", str(out), str(inputs)]
