"""torchvision and torchaudio next to a CPU build of torch, and which packages are imported late."""

import subprocess
import sys
import textwrap

import pytest
import torch

from separation.compat import audio_extension, make_importable


def python(code: str, *args: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_packages_whose_libraries_do_not_load_become_importable(tmp_path):
    for file, content in {
        "torchvision/_C.so": "no library",
        "torchvision/__init__.py": "import torch\n@torch.library.register_fake('torchvision::nms')\ndef f(*a): ...\n",
        "torchaudio/lib/_torchaudio.abi3.so": "no library",
        "torchaudio/_extension/__init__.py": "raise OSError('Could not load this library')\n",
        "torchaudio/__init__.py": "from . import _extension\nfrom torchaudio._extension import fail_if_no_align\n",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
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


def test_training_without_its_packages_is_one_sentence_and_torchmetrics_needs_none_of_its_own():
    code = """if True:
        import sys, separation.training
        from separation.compat import OF_METRICS
        sys.modules["lightning"] = None
        try:
            separation.training.main()
        finally:
            from torchmetrics.functional.classification import multilabel_average_precision
            print({*OF_METRICS} & {*sys.modules})
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    needs = 'separation-train needs the package lightning; install it with: pip install "separation[train]"\n'
    assert (done.returncode, done.stderr, done.stdout) == (1, needs, "set()\n")


def test_nothing_is_done_next_to_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert make_importable.__wrapped__() == ()


def test_functions_that_need_the_library_raise():
    def forced_align(): ...

    with pytest.raises(RuntimeError, match="forced_align needs torchaudio's library"):
        audio_extension().fail_if_no_align(forced_align)()
