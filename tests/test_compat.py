import subprocess
import sys
import textwrap

import pytest
import torch

from separation.compat import audio_extension, make_importable


def python(code: str, *args: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *args], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_packages_whose_libraries_do_not_load_become_importable(tmp_path):
    vision, audio = tmp_path / "torchvision", tmp_path / "torchaudio"
    (audio / "lib").mkdir(parents=True)
    (audio / "_extension").mkdir()
    vision.mkdir()
    (vision / "_C.so").write_bytes(b"no library")
    (vision / "__init__.py").write_text(
        "import torch\n@torch.library.register_fake('torchvision::nms')\ndef f(*a): ...\n"
    )
    (audio / "lib" / "_torchaudio.abi3.so").write_bytes(b"no library")
    (audio / "_extension" / "__init__.py").write_text("raise OSError('Could not load this library')\n")
    (audio / "__init__.py").write_text("from . import _extension\nfrom torchaudio._extension import fail_if_no_align\n")
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import torch
        torch.version.cuda = None
        from separation.compat import make_importable
        print(*make_importable())
        import torchaudio, torchvision
        print(torchaudio.__file__.startswith(sys.argv[1]), torchvision.__file__.startswith(sys.argv[1]))
    """
    assert python(code, str(tmp_path)) == "torchvision torchaudio\nTrue True"


def test_nothing_is_done_beside_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert make_importable.__wrapped__() == ()


def test_what_needs_the_library_says_so():
    with pytest.raises(RuntimeError, match="forced_align needs torchaudio's own library"):

        @audio_extension().fail_if_no_align
        def forced_align(): ...

        forced_align()


def test_encoder_modules_import_no_optional_package():
    code = """
        import sys
        import separation.encoders.clap, separation.encoders.clip
        import separation.encoders.panns, separation.encoders.table
        optional = {"transformers", "open_clip", "torchvision", "torchaudio", "laion_clap", "tokenizers", "PIL"}
        print(sorted(optional & set(sys.modules)))
    """
    assert python(code) == "[]"


def test_the_ontology_needs_no_torch():
    assert (
        python("import sys, separation.ontology as o; o.class_index('Dog'); print('torch' in sys.modules)") == "False"
    )
