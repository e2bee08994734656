"""Damage files and check that the command and the page never keep quiet about it.

    make fuzz                                  five minutes
    python benchmarks/fuzz.py --seconds 60 --seed 7
    python benchmarks/fuzz.py --case 7:1234    repeat one case and keep its files

Sounds of every container are generated, then cut, joined, renamed and overwritten; so are configurations and weights
of a small model. Every case runs in a process of its own, with a limit on time and memory. The rule: the command ends
with status 0, 1 or 2; what it prints are sentences, without a traceback; nothing half-written is left and nothing
appears outside the output folder; outputs are finite, and target and residual are equally long; and where sound of the
file is missing, a warning says so. A case that breaks it is printed with its number, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from common import ROOT, run_page
from safetensors.numpy import load, save, save_file

from separation import Separator
from separation.cli import main as separate
from separation.outputs.origins import INDEX
from separation.process import printable

sys.path.append(str(ROOT / "tests"))

SECONDS = 2.0
TIME_LIMIT = 30.0  # seconds for one case
MEMORY_LIMIT = 2 << 30  # bytes beyond the program itself
CASES_PER_UPLOAD = 12  # every n-th case goes to the page
SOUNDFILE = {  # suffix -> libsndfile's container and sample types
    "wav": ("WAV", "PCM_16", "FLOAT", "PCM_24"), "flac": ("FLAC", "PCM_16", "PCM_24"), "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III"), "aiff": ("AIFF", "PCM_16", "FLOAT"),
    "caf": ("CAF", "PCM_16", "FLOAT"), "w64": ("W64", "PCM_16", "FLOAT"), "au": ("AU", "PCM_16", "FLOAT"),
}  # fmt: skip
PYAV = {  # suffix -> codecs
    "m4a": ("aac", "alac"), "mp4": ("aac", "mp3"), "mov": ("pcm_s16le", "aac"), "mkv": ("libopus", "flac", "pcm_s16le"),
    "webm": ("libopus",), "avi": ("mp3", "pcm_s16le"), "aac": ("aac",), "ts": ("mp2", "aac"),
    "wma": ("wmav2",), "ac3": ("ac3",), "flv": ("mp3",), "wv": ("wavpack",),
}  # fmt: skip
LENGTH_KNOWN = {"wav", "flac", "mp3", "aiff", "caf", "w64", "au", "m4a", "mp4", "mov", "mkv", "webm", "wma"}
JOINABLE = {"mp3", "ogg", "opus", "aac", "ac3", "ts", "mp4", "m4a", "flv"}
TAGS = (
    b"",
    b"ID3\4\0\0\0\0\7\x68" + bytes(1000),
    b"APETAGEX" + bytes([208, 7, 0, 0, 32]) + bytes(19),
    b"TAG" + bytes(125),
)
STEMS = ("sound", "sound", "\x1b[31mred", "new\nline", "-q", "~nobody", "\udce9", "*", "\u202egnp", " ", "a" * 240)
PLAYLISTS = (
    "#EXTM3U\n#EXTINF:2,\n{0}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {0}\n", "[playlist]\nFile1={0}\n",
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>{0}</BaseURL></Period></MPD>',
)  # fmt: skip
REQUESTS = (["--remove", "rain"], ["--gain", "rain=-6"], ["--query", "rain", "--query", "dog barking"])
VALUES: tuple[Any, ...] = (  # for keys of a configuration
    -1, 0, 1, 2**31, 2**40, 10**18, 0.5, -0.0, float("nan"), float("inf"), True, None, "", "x" * 100_000, [], {},
    [[[[]]]], {"a": 1}, [1] * 1000, "os.system", "torch.hub.load", "/etc/passwd", "hf://someone/something",
)  # fmt: skip
UNEXPECTED = re.compile(r"Traceback|went wrong|could not be separated: \w*(Error|Exception|Interrupt)\b")


@dataclass
class Case:
    """One damaged input.

    Attributes:
        number: "seed:number".
        kind: container or "model".
        damage: what was done.
        refused: whether it must be refused.
        seconds: how much sound the file must yield unless a warning says otherwise; None: unknown.
        files: contents by name; the one to separate comes first.
        faults: how it broke the rule.
    """

    number: str
    kind: str
    damage: str = "none"
    refused: bool = False
    seconds: float | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    model: Path | None = None
    outcome: str = ""
    faults: list[str] = field(default_factory=list)


# Inputs


def make_sound(rng: np.random.Generator, suffix: str) -> bytes:
    """Encode two seconds of noise and a tone in a container."""
    rate = int(rng.choice([16000, 44100, 48000]))
    rate = 48000 if suffix in ("opus", "webm", "mkv", "ac3") else 44100 if suffix in ("flv", "wma") else rate
    channels = int(rng.integers(1, 3))
    time_ = np.arange(round(SECONDS * rate)) / rate
    wave = 0.1 * rng.standard_normal((len(time_), channels)) + 0.2 * np.sin(2 * np.pi * 440 * time_)[:, None]
    buffer = io.BytesIO()
    if suffix in SOUNDFILE:
        container, *subtypes = SOUNDFILE[suffix]
        soundfile.write(buffer, wave, rate, format=container, subtype=str(rng.choice(subtypes)))
        return buffer.getvalue()
    import av

    muxer = {"m4a": "ipod", "mkv": "matroska", "aac": "adts", "ts": "mpegts", "wma": "asf"}.get(suffix, suffix)
    with av.open(buffer, "w", format=muxer) as container:
        stream: Any = container.add_stream(
            str(rng.choice(PYAV[suffix])), rate=rate, layout="stereo" if channels == 2 else "mono"
        )
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T, np.float32), "fltp", stream.layout.name)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        fitted = av.AudioResampler(stream.format.name, stream.layout, rate).resample(frame)
        for part in [*fitted, None]:
            container.mux(stream.encode(part))
    return buffer.getvalue()


def damage_bytes(rng: np.random.Generator, data: bytes) -> tuple[str, bytes]:
    """Damage a file; return what was done and the result."""
    size = len(data)
    start = int(rng.integers(0, size))
    end = min(size, start + int(rng.integers(1, max(2, size // 4))))
    garbage = rng.bytes(int(rng.integers(1, 5000)))
    changed = bytearray(data)
    kind = str(rng.choice(["truncate", "flip", "header", "zero", "cut", "insert", "repeat", "append", "stub"]))
    if kind in ("flip", "header"):
        for place in rng.integers(0, size if kind == "flip" else min(size, 200), int(rng.integers(1, 20))):
            changed[place] = int(rng.integers(0, 256))
    elif kind == "zero":
        changed[start:end] = bytes(end - start)
    results = {
        "truncate": data[:start], "flip": changed, "header": changed, "zero": changed, "cut": data[:start] + data[end:],
        "insert": data[:start] + garbage + data[start:], "repeat": data[:end] + data[start:], "append": data + garbage,
        "stub": data[: int(rng.integers(0, 64))],
    }  # fmt: skip
    return kind, bytes(results[kind])


def make_audio_case(rng: np.random.Generator, number: str) -> Case:
    """Generate a file and damage it, join it with another, or give it another suffix."""
    suffix = str(rng.choice([*SOUNDFILE, *PYAV]))
    stem, draw = str(rng.choice(STEMS)), rng.random()
    case, data, name = Case(number, suffix), make_sound(rng, suffix), f"{stem}.{suffix}"
    if draw < 0.08:
        case.seconds = SECONDS
    elif draw < 0.16 and suffix in JOINABLE:
        case.damage, case.seconds = "join", 2 * SECONDS
        data += TAGS[int(rng.integers(len(TAGS)))] if suffix == "mp3" else b""
        data += make_sound(rng, suffix)
    elif draw < 0.24:
        other = str(rng.choice([*SOUNDFILE, *PYAV, "txt"]))
        case.damage, name, case.seconds = "rename", f"{stem}.{other}", SECONDS
    elif draw < 0.28:
        case.damage, case.refused, case.files["canary.wav"] = "playlist", True, make_sound(rng, "wav")
        data = PLAYLISTS[int(rng.integers(len(PLAYLISTS)))].format("canary.wav").encode()
    else:
        case.damage, data = damage_bytes(rng, data)
        if suffix in LENGTH_KNOWN and case.damage in ("truncate", "cut", "append", "zero"):
            case.seconds = SECONDS
    case.files = {name: data} | case.files
    return case


def make_model_case(rng: np.random.Generator, number: str, model: Path) -> Case:
    """Damage the configuration or the weights of a model directory."""
    case = Case(number, "model", files={"sound.wav": make_sound(rng, "wav")})
    for path in model.iterdir():
        case.files[f"model/{path.name}"] = path.read_bytes()
    draw = rng.random()
    if draw < 0.3:
        name = str(rng.choice(["config.yaml", "model.safetensors"]))
        case.damage, case.files[f"model/{name}"] = damage_bytes(rng, case.files[f"model/{name}"])
        case.damage += f" {name}"
    elif draw < 0.4:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
        case.files["model/config.yaml"] += "\n".join(lines).encode()
        case.damage = "aliases"
    elif draw < 0.55:
        tensors = load(case.files["model/model.safetensors"])
        key = str(rng.choice(sorted(tensors)))
        change: dict[str, Callable[[Any], Any]] = {
            "NaN": lambda array: np.full_like(array, np.nan), "infinite": lambda array: np.full_like(array, np.inf),
            "huge": lambda array: np.full_like(array, 3e38), "longer": lambda array: np.repeat(array, 2, axis=-1),
            "half": lambda array: array.astype(np.float16),
        }  # fmt: skip
        case.damage = str(rng.choice(list(change)))
        if tensors[key].dtype == np.float32 and tensors[key].ndim:
            tensors[key] = change[case.damage](tensors[key])
        case.files["model/model.safetensors"] = save(tensors)
        case.damage = f"{case.damage} {key}"
    else:
        config = yaml.safe_load(case.files["model/config.yaml"])
        node, path = config, []
        while isinstance(node, dict) and node:
            key = str(rng.choice(sorted(node)))
            path.append(key)
            if not isinstance(node[key], dict) or rng.random() < 0.15:
                break
            node = node[key]
        action = str(rng.choice(["replace", "replace", "replace", "delete", "add"]))
        value = VALUES[int(rng.integers(len(VALUES)))]
        if action == "delete":
            del node[path[-1]]
        else:
            node[path[-1] if action == "replace" else "unheard_of"] = value
        case.damage = f"{action} {'.'.join(path)} {str(value)[:30]!r}"
        case.files["model/config.yaml"] = yaml.safe_dump(config).encode()
    return case


# The rule


def run_command(case: Case, folder: Path, model: Path) -> None:
    """Run `separate` on a case in a process of its own and check the rule."""
    for name, data in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    before = snapshot(folder)
    name = next(iter(case.files))
    query = model / "query.npy"
    model = folder / "model" if case.kind == "model" else model
    number = int(case.number.partition(":")[2])
    request = REQUESTS[number // 5 % 3] if number % 5 == 0 else ["--query-embedding", str(query), "--residual"]
    words = ["--model", str(model), *request, "--format", "wav", "-o", "out", "--", name]
    began = time.monotonic()
    status, text = run_forked(words, folder)
    seconds = time.monotonic() - began
    found = sorted((folder / "out").glob("*")) if (folder / "out").is_dir() else []
    written = [path for path in found if path.name != INDEX]
    lines = [line for line in text.split("\n") if line]
    warned = any("warning" in line or "note" in line for line in lines)
    case.outcome = {0: "warned" if warned else "whole"}.get(status, "refused")

    def check(holds: bool, fault: str) -> None:
        if not holds:
            case.faults.append(fault)

    check(status in (0, 1, 2), f"status {status} after {seconds:.1f} s")
    check(not UNEXPECTED.search(text), f"unexpected error: {text[-300:]!r}")
    check(all(line.startswith("separate: ") for line in lines), f"not a sentence of the command: {text[:300]!r}")
    check(printable(text.replace("\n", "")) == text.replace("\n", ""), "control characters are printed")
    check(not case.refused or status == 1, "a playlist was not refused")
    check(all(len(line) < 1000 for line in lines), "a sentence of more than 1,000 characters")
    after = {path: state for path, state in snapshot(folder).items() if path.parts[0] != "out"}
    check(after == before, f"changed outside the output folder: {sorted(map(str, after.items() ^ before.items()))[:4]}")
    check(not any(path.name.startswith(".") for path in written), "a part file is left")
    if status:
        check(len(lines) == 1 and not written, f"{len(written)} outputs and more after an error: {text[:300]!r}")
        check(
            status != 1 or printable(name) in text or "model" in text, f"the sentence does not name the file: {text!r}"
        )
        return
    check(len(written) == 2 - (number % 15 in (0, 5)), f"{len(written)} outputs")
    sounds = [soundfile.read(io.BytesIO(path.read_bytes()), always_2d=True) for path in written]
    check(all(np.isfinite(wave).all() for wave, _ in sounds), "an output is not finite")
    check(len({wave.shape for wave, _ in sounds}) == 1, "outputs of different lengths")
    duration = len(sounds[0][0]) / sounds[0][1] if sounds else 0.0
    if case.seconds is not None and not warned:
        check(duration > case.seconds - 0.2, f"{duration:.3f} s of {case.seconds:g} s without a warning")


def snapshot(folder: Path) -> dict[Path, int]:
    """Contents of a folder as hashes, by relative path."""
    return {path.relative_to(folder): hash(path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def run_forked(words: list[str], folder: Path) -> tuple[int, str]:
    """Run `separate` in a fork of this process; return its status (negative: signal, 124: time) and its messages."""
    with tempfile.TemporaryFile() as messages:
        child = os.fork()
        if child == 0:
            status = 125
            try:
                os.chdir(folder)
                os.dup2(messages.fileno(), 2)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY_LIMIT, own + MEMORY_LIMIT))
                status = separate(words)
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 126
            except BaseException:
                import traceback

                os.write(2, traceback.format_exc().encode())
            finally:
                sys.stderr.flush()
                os._exit(status)
        ends = time.monotonic() + TIME_LIMIT
        while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > ends:
                os.kill(child, 9)
                os.waitpid(child, 0)
                return 124, ""
            time.sleep(0.005)
        messages.seek(0)
        return os.waitstatus_to_exitcode(done[1]), messages.read().decode("utf-8", "replace")


class Page:
    """The page in a process of its own, asked through its HTTP API, until the stack is closed."""

    def __init__(self, model: Path, stack: ExitStack) -> None:
        from gradio_client import Client

        url, self.process = stack.enter_context(run_page("--model", str(model)))
        self.model, folder = model.name, stack.enter_context(tempfile.TemporaryDirectory())
        self.client = Client(url, verbose=False, download_files=folder)

    def run(self, case: Case, folder: Path) -> None:
        """Separate a case by the page and check the rule."""
        from gradio_client import exceptions, handle_file

        name, data = next((name.encode(errors="replace").decode(), data) for name, data in case.files.items())
        (folder / name).write_bytes(data)
        try:
            words = (handle_file(str(folder / name)), ["dog barking"], self.model)
            result = self.client.predict(*words, api_name="/separate")
            case.outcome = "warned" if result.get("warning") else "whole"
        except Exception as error:
            case.outcome = "refused"
            if not isinstance(error, exceptions.AppError) or UNEXPECTED.search(str(error)) or not str(error).strip():
                case.faults.append(f"page: {type(error).__name__}: {error}")
        if self.process.poll() is not None:
            raise SystemExit(f"the page ended with status {self.process.returncode} at case {case.number}")


# Running


def make_model(folder: Path) -> Path:
    """Write a small model of random weights, with conditions of all sounds and of a query; return the folder."""
    from tiny import DIM, write_model

    write_model(folder, name=folder.name)
    names = [sound.name for sound in Separator.from_pretrained(folder).listed_sounds]
    vectors = np.random.default_rng(0).standard_normal((len(names) + 1, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    save_file(dict(zip(names, vectors, strict=False)), folder / "sounds.safetensors")
    np.save(folder / "query.npy", vectors[-1])
    return folder


def make_case(number: str, model: Path) -> Case:
    """Make a case from its number, always the same one."""
    rng = np.random.default_rng([int(part) for part in number.split(":")])
    return make_model_case(rng, number, model) if rng.random() < 0.3 else make_audio_case(rng, number)


def main() -> int:
    """Run cases until the time is up; return 1 if one broke the rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="when to stop (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="which cases (default: %(default)s)")
    parser.add_argument("--case", metavar="SEED:N", help="repeat one case, and keep its files")
    parser.add_argument("--no-page", action="store_true", help="the command only")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # a fork of a process with threads could wait for ever
    work = Path(tempfile.mkdtemp(prefix="fuzz-"))
    model = make_model(work / "small_test")
    for suffix in ("wav", "m4a"):  # whatever a fork needs is imported once
        (work / f"warm.{suffix}").write_bytes(make_sound(np.random.default_rng(0), suffix))
        query = ["--query-embedding", str(model / "query.npy")]
        places = [str(work / f"out_{suffix}"), str(work / f"warm.{suffix}")]
        separate(["--quiet", "--model", str(model), *query, "-o", *places])
    if options.case:
        case = make_case(options.case, model)
        run_command(case, work, model)
        print(f"{case.number} {case.kind} {case.damage}: {case.outcome} {case.faults}\nfiles in {work}")
        return bool(case.faults)
    counts: dict[str, Counter[str]] = {}
    faults = number = 0
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, work)
        page = None if options.no_page else Page(model, stack)
        ends = time.monotonic() + options.seconds
        while time.monotonic() < ends:
            case = make_case(f"{options.seed}:{number}", model)
            with tempfile.TemporaryDirectory(dir=work) as folder:
                if page and case.kind != "model" and number % CASES_PER_UPLOAD == 0:
                    page.run(case, Path(folder))
                    case.kind = "page"
                else:
                    run_command(case, Path(folder), model)
            counts.setdefault(case.kind, Counter()).update(["cases", case.outcome, *["faults"] * bool(case.faults)])
            for fault in case.faults:
                print(f"{case.number} {case.kind} {case.damage}: {fault}", flush=True)
            faults += bool(case.faults)
            number += 1
    columns = ("cases", "whole", "warned", "refused", "faults")
    print(f"\n| {'kind':<6} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    counts["all"] = sum(counts.values(), Counter())
    for kind, count in sorted(counts.items()):
        print(f"| {kind:<6} | {' | '.join(f'{count[name]:>{len(name)}}' for name in columns)} |")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
