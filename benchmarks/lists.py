"""What the benchmarks on the validation list share: options, rows, JSON output."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from separation.data.fixed_mixtures import Row, read_rows


def list_parser(description: str, every: int = 1) -> argparse.ArgumentParser:
    """Build a parser with the options --model, --mixtures, --root, --every and --json."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default="default")
    parser.add_argument("--mixtures", type=Path, required=True, help="CSV, one mixture a row")
    parser.add_argument("--root", type=Path, help="folder where its paths start (default: that of the list)")
    parser.add_argument("--every", type=int, default=every, help="every N-th row only")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


def list_rows(options: argparse.Namespace, kind: str | None = None) -> tuple[list[Row], Path]:
    """Return the chosen rows of a list, of one kind or all, and the folder where their paths start."""
    return read_rows(options.mixtures, kind)[:: options.every], options.root or options.mixtures.parent


def write_json(file: Path | None, value: Any) -> None:
    """Write figures to a file, if one is named."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value, indent=1, default=float) + "\n", encoding="utf-8")
