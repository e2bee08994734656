import pickle
import warnings
import zipfile

import pytest
import torch
from torch import nn

from separation.encoders.base import EncoderError
from separation.encoders.torchscript import read_archive


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.tensor(7))
        self.layers = nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 2)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, 2.0]).half())
        self.inner, self.other = Inner(), nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return self.inner(x)


@pytest.fixture
def archive(tmp_path):
    torch.manual_seed(0)
    module, file = Outer().eval(), tmp_path / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(file))
    return module, file


def test_all_tensors_come_out_by_name(archive):
    module, file = archive
    expected, found = module.state_dict(), read_archive(file)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


def test_an_ordinary_checkpoint_is_no_archive(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"nothing")
    assert read_archive(tmp_path / "a.pt") is None
    assert read_archive(tmp_path / "b.pt") is None


class Payload:
    """Unpickling it would write a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def write(file, content):
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("m/constants.pkl", b"")
        made.writestr("m/data.pkl", content)


def test_a_call_in_an_archive_is_refused_and_does_not_run(tmp_path):
    file, target = tmp_path / "m.pt", tmp_path / "ran"
    write(file, pickle.dumps(Payload(target)))
    with pytest.raises(EncoderError, match=r"m\.pt asks for more than modules and tensors \(.*open\)"):
        read_archive(file)
    assert not target.exists()


def test_a_damaged_archive(tmp_path):
    write(tmp_path / "m.pt", pickle.dumps([1, 2]))
    with pytest.raises(EncoderError, match=r"m\.pt cannot be read: it is damaged"):
        read_archive(tmp_path / "m.pt")
