"""Reading checkpoints: tensors come out, nothing in the file runs."""

import collections
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from separation.hub import ModelError
from separation.tensors import read_tensors

MARKER = "the payload ran"


class Payload:
    """Unpickling this makes a folder: code that runs in a file that is merely opened."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def refused(file) -> str:
    with pytest.raises(ModelError) as caught:
        read_tensors(file)
    sentence = str(caught.value)
    assert str(file) in sentence
    assert "\n" not in sentence
    assert len(sentence) < 300 + len(str(file))
    return sentence


def zipped(content, file):
    torch.save(content, file)


def legacy(content, file):
    torch.save(content, file, _use_new_zipfile_serialization=False)


def plain(content, file):
    file.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [zipped, legacy, plain])
@pytest.mark.parametrize("place", ["weights", "beside"])
def test_code_in_a_file_does_not_run(tmp_path, write, place):
    marker, file = tmp_path / MARKER, tmp_path / "model.ckpt"
    weights = {"a.weight": torch.ones(2) if write is not plain else [1.0]}
    content = {"state_dict": weights}
    (weights if place == "weights" else content)["callbacks"] = Payload(marker)
    write(content, file)
    sentence = refused(file)
    assert not marker.exists()
    assert "holds code (posix.mkdir)" in sentence or "holds code (nt.mkdir)" in sentence
    pickle.loads(pickle.dumps(Payload(marker)))  # the payload does work where it is unpickled
    assert marker.exists()


def test_a_newer_pickle_is_refused_in_one_sentence_too(tmp_path):
    marker, file = tmp_path / MARKER, tmp_path / "model.pt"
    file.write_bytes(pickle.dumps({"x": Payload(marker)}))  # PyTorch warns of the protocol; here that would be an error
    assert "not made of tensors and plain values alone" in refused(file)
    assert not marker.exists()


def test_objects_inside_numpy_scalars_do_not_run(tmp_path):
    marker, file = tmp_path / MARKER, tmp_path / "model.pt"

    class Scalar:
        def __reduce__(self):
            return np._core.multiarray.scalar, (np.dtype("O"), Payload(marker))

    plain({"epoch": Scalar()}, file)
    assert "not made of tensors and plain values" in refused(file)
    assert not marker.exists()


def test_a_class_of_somebody_else_is_named(tmp_path):
    file = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"a": torch.ones(1)}, "recent": collections.deque()}, file)
    assert "collections.deque" in refused(file)


@pytest.mark.parametrize("write", [zipped, legacy])
def test_numbers_of_numpy_are_read(tmp_path, write):
    file = tmp_path / "clap.pt"
    training = {"epoch": np.int64(15), "best": np.float64(89.98), "order": np.arange(3)}
    content = training | {"state_dict": {"module.a": torch.arange(3.0)}}
    write(content, file)
    assert torch.equal(read_tensors(file)["module.a"], torch.arange(3.0))


def test_old_names_of_numpy_are_read(tmp_path):
    file = tmp_path / "old.pt"
    torch.save({"epoch": np.float32(1.5), "model": {"a": torch.ones(1)}}, file)
    renamed = tmp_path / "renamed.pt"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(renamed, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert list(read_tensors(renamed)) == ["a"]


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", None])
def test_where_the_tensors_lie(tmp_path, key):
    file, tensors = tmp_path / "x.pth", collections.OrderedDict(a=torch.ones(2), b=torch.zeros(1, dtype=torch.int64))
    torch.save({key: tensors, "epoch": 3} if key else tensors, file)
    found = read_tensors(file)
    assert list(found) == ["a", "b"]
    assert torch.equal(found["a"], torch.ones(2))


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    assert torch.equal(read_tensors(tmp_path / "x.safetensors")["a"], torch.ones(2))


@pytest.mark.parametrize("name", ["x.ckpt", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 half a zip", bytes(range(256)) * 9])
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert "is damaged" in refused(tmp_path / name)


def test_cut_file(tmp_path):
    file = tmp_path / "x.ckpt"
    torch.save({"a": torch.ones(5000)}, file)
    file.write_bytes(file.read_bytes()[:9000])
    assert "is damaged" in refused(file)


def test_missing_and_empty(tmp_path):
    assert "is not there" in refused(tmp_path / "none.ckpt")
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "empty.ckpt")
    assert "holds no tensors" in refused(tmp_path / "empty.ckpt")
    torch.save([torch.ones(1)], tmp_path / "list.ckpt")
    assert "holds no tensors" in refused(tmp_path / "list.ckpt")
