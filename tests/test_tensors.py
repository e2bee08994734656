"""Reading checkpoints: tensors come out, nothing in the file runs."""

import collections
import os
import pickle
import resource
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from separation.errors import ModelError
from separation.storage.tensors import read_tensors, write_tensors


class Payload:
    """Unpickling this makes a folder: code that runs in a file that is merely opened."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def zipped(content, file):
    torch.save(content, file)


def legacy(content, file):
    torch.save(content, file, _use_new_zipfile_serialization=False)


def plain(content, file):
    file.write_bytes(pickle.dumps(content, protocol=2))


def newer(content, file):  # of this protocol PyTorch warns, which would be an error here
    file.write_bytes(pickle.dumps(content))


@pytest.fixture
def refusal(tmp_path):
    """The one sentence with which a file is refused; no payload has run."""

    def refuse(file):
        with pytest.raises(ModelError) as caught:
            read_tensors(file)
        sentence = str(caught.value)
        assert str(file) in sentence and "\n" not in sentence and len(sentence) < 300 + len(str(file))
        assert not (tmp_path / "ran").exists()
        return sentence

    return refuse


@pytest.mark.parametrize("write", [zipped, legacy, plain, newer])
@pytest.mark.parametrize("place", ["weights", "beside"])
def test_code_in_a_file_does_not_run(tmp_path, refusal, write, place):
    payload, file = Payload(tmp_path / "ran"), tmp_path / "model.ckpt"
    weights = {"a.weight": torch.ones(2) if write in (zipped, legacy) else [1.0]}
    content = {"state_dict": weights}
    (weights if place == "weights" else content)["callbacks"] = payload
    write(content, file)
    expected = "not made of tensors and plain values" if write is newer else "holds code (posix.mkdir)"
    assert expected in refusal(file).replace("nt.mkdir", "posix.mkdir")
    pickle.loads(pickle.dumps(payload))  # the payload does work where it is unpickled
    assert (tmp_path / "ran").exists()


def test_objects_inside_numpy_scalars_do_not_run(tmp_path, refusal):
    class Scalar:
        def __reduce__(self):
            return np._core.multiarray.scalar, (np.dtype("O"), Payload(tmp_path / "ran"))

    plain({"epoch": Scalar()}, tmp_path / "model.pt")
    assert "not made of tensors and plain values" in refusal(tmp_path / "model.pt")


@pytest.mark.parametrize("write", [zipped, legacy])
def test_numbers_of_numpy_are_read(tmp_path, write):
    training = {"epoch": np.int64(15), "best": np.float64(89.98), "order": np.arange(3)}
    write(training | {"state_dict": {"module.a": torch.arange(3.0)}}, tmp_path / "clap.pt")
    assert torch.equal(read_tensors(tmp_path / "clap.pt")["module.a"], torch.arange(3.0))


def test_old_names_of_numpy_are_read(tmp_path):
    torch.save({"epoch": np.float32(1.5), "model": {"a": torch.ones(1)}}, tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert list(read_tensors(tmp_path / "old.pt")) == ["a"]


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", None])
def test_where_the_tensors_lie(tmp_path, key):
    tensors = collections.OrderedDict(a=torch.ones(2), b=torch.zeros(1, dtype=torch.int64))
    torch.save({key: tensors, "epoch": 3} if key else tensors, tmp_path / "x.pth")
    found = read_tensors(tmp_path / "x.pth")
    assert list(found) == ["a", "b"] and torch.equal(found["a"], torch.ones(2))
    save_file(tensors, tmp_path / "x.safetensors")
    assert torch.equal(read_tensors(tmp_path / "x.safetensors")["a"], torch.ones(2))


@pytest.mark.parametrize("name", ["x.ckpt", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 half a zip", bytes(range(256)) * 9])
def test_damaged_files(tmp_path, refusal, name, content):
    (tmp_path / name).write_bytes(content)
    assert "is damaged" in refusal(tmp_path / name)


def test_cut_missing_and_empty_files(tmp_path, refusal):
    file = tmp_path / "x.ckpt"
    torch.save({"a": torch.ones(5000)}, file)
    file.write_bytes(file.read_bytes()[:9000])
    assert "is damaged" in refusal(file)
    assert "is missing" in refusal(tmp_path / "none.ckpt")
    for content in ({"state_dict": {}, "epoch": 1}, [torch.ones(1)]):
        torch.save(content, file)
        assert "holds no named tensors" in refusal(file)


def test_an_archive_that_unfolds_to_gigabytes_is_not_opened(tmp_path, refusal):
    torch.save({"a": torch.ones(2)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(tmp_path / "bad.pt", "w", 8) as bad:
        for name in good.namelist():
            bad.writestr(
                name, good.read(name) + bytes(100_000_000 if name.endswith("data.pkl") else 0), compresslevel=1
            )
    assert (tmp_path / "bad.pt").stat().st_size < 1_000_000
    assert "was not opened: its contents are 94 MiB larger" in refusal(tmp_path / "bad.pt")


@pytest.mark.parametrize(
    "tensor", [torch.ones(1).expand(2**40), torch.ones(3).to_sparse(), torch.empty(2**40, device="meta")]
)
def test_tensors_larger_than_their_file_are_refused(tmp_path, refusal, tensor):
    torch.save({"a": torch.ones(2), "b": tensor}, tmp_path / "x.pt")
    assert "the tensor b is not stored as plain numbers" in refusal(tmp_path / "x.pt")


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    file = tmp_path / "model.safetensors"
    write_tensors(file, {"a": torch.ones(3)})
    before, (soft, hard) = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as if the disk were full
    try:
        with pytest.raises(ModelError, match=r"model\.safetensors cannot be written: the file would be larger"):
            write_tensors(file, {"a": torch.ones(3000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]
