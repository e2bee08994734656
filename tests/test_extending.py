"""The example of docs/extending.md: an own model is trained, refused without trust, and used with it."""

import re
import sys
from pathlib import Path

import pytest
import soundfile
import torch

pytest.importorskip("lightning", reason="needs the extra [train]")

from parts import run

from separation import ModelError, Separator, cli

ROOT = Path(__file__).parents[1]
DEBUG = ROOT / "conf" / "override" / "debug.yaml"


def test_an_own_model_is_trained_and_used(tmp_path, monkeypatch, capsys, few_sounds):
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    code, recipe = (re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1] for language in ("python", "yaml"))
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text(code)
    (tmp_path / "mine.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_package", raising=False)
    run("fit", "--config", "mine.yaml", "--config", DEBUG)
    capsys.readouterr()

    with pytest.raises(
        ModelError, match=r'not one of this package\. If you trust .* use trust=\["my_package"\] or --trust'
    ):
        Separator.from_pretrained("runs/debug", trust=None)
    with pytest.raises(ModelError, match="is not one of this package"):
        Separator.from_pretrained("runs/debug", trust=["my"])  # another package
    separator = Separator.from_pretrained("runs/debug", trust=["my_package"], device="cpu")
    assert type(separator.model).__module__ == "my_package"
    mixture = torch.randn(1, 30000) / 10
    result = separator(mixture, torch.ones(384), 16000)
    assert torch.allclose(result.target + result.residual, mixture, atol=1e-6) and result.target.abs().max() > 0
    soundfile.write("mix.wav", mixture[0].numpy(), 16000)
    command = ["--model", "runs/debug", "--device", "cpu", "--query", "dog", "mix.wav"]
    assert cli.main(command) == 2 and "--trust my_package" in capsys.readouterr().err
    assert cli.main([*command, "--trust", "my_package"]) == 0
    assert Path("mix.dog.wav").is_file()
    sys.modules.pop("my_package", None)
