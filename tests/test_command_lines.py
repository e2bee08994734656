"""Exit status, files, JSON record and messages of some fifty command lines, compared with tests/frozen/command.json.

`python tests/test_command_lines.py` writes the table anew after an intended change; its list of command lines stays.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import soundfile
from gains import GainSeparator

from separation import Separator, cli

TABLE = Path(__file__).with_name("frozen") / "command.json"


def make_inputs():
    """The recordings that the command lines name, in the current folder."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 2)).astype(np.float32)
    for name in ("mix.wav", "in/a.wav", "in/sub/b.wav", "bark.wav", "other/mix.wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, samples, 8000, subtype="FLOAT")
    soundfile.write("loud.flac", 1.9 * samples, 8000)
    soundfile.write("old.au", samples, 8000, format="AU", subtype="PCM_16")
    soundfile.write("wide.wav", np.tile(samples, (1, 5)), 8000)
    Path("empty.wav").touch()
    Path("text.wav").write_text("text " * 99)
    for name in ("done.wav", "done.half.wav"):
        Path(name).write_bytes(Path("mix.wav").read_bytes())
    Path("folder").mkdir()


def observe(command):
    """What a command line does in a folder with `make_inputs`."""
    words, piped, source = command.partition(" < ")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.callback(os.chdir, os.getcwd())
        os.chdir(folder)
        make_inputs()
        before = {path for path in Path().rglob("*") if path.is_file()}
        stack.enter_context(mock.patch.object(Separator, "from_pretrained", lambda *_, **__: GainSeparator()))
        stack.enter_context(mock.patch.object(cli.sys, "stdout", stream()))
        stack.enter_context(mock.patch.object(cli.sys, "stderr", stream()))
        stdin = io.BytesIO(Path(source).read_bytes() if piped else b"")
        stack.enter_context(mock.patch.object(cli.sys, "stdin", SimpleNamespace(buffer=stdin)))
        try:
            status = cli.main(shlex.split(words)[1:])
        except SystemExit as stop:
            status = stop.code or 0
        out, err = cli.sys.stdout.buffer.getvalue(), cli.sys.stderr.buffer.getvalue().decode()
        added = {path for path in Path().rglob("[!.]*") if path.is_file()} - before
    return {
        "command": command,
        "status": status,
        "files": sorted(path.as_posix() for path in added),
        "out": printed(out),
        "err": re.sub(r"(files? in )[\d:]+", r"\1TIME", err).replace(folder, "FOLDER").splitlines(),
    }


def stream():
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def printed(out):
    """Standard output: a line each, JSON records without the seconds that they took; the kind of binary data."""
    if out[:4] in (b"RIFF", b"fLaC"):
        return out[:4].decode()
    lines = out.decode().splitlines()
    if not any(line.startswith("{") for line in lines):
        return lines if len(lines) < 8 else [" ".join(lines[0].split())]
    records = [json.loads(line) for line in lines]
    if "licence" in records[0]:
        return [list(records[0])]
    assert all(record.pop("seconds") >= 0 for record in records)
    return records


@pytest.mark.parametrize("row", json.loads(TABLE.read_text(encoding="utf-8")), ids=lambda row: row["command"])
def test_command_lines(row):
    assert observe(row["command"]) == row


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    rows = [observe(row["command"]) for row in json.loads(TABLE.read_text(encoding="utf-8"))]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    TABLE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    sys.exit()
