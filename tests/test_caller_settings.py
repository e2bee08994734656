"""What a caller has set in PyTorch, and how the samples lie in memory, changes no result; threads and forks work."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tiny import noise, vectors, write_model

from separation import Query, Separator
from separation.encoders.sentence import SentenceEncoder

pytestmark = pytest.mark.usefixtures("no_sentence_weights")


@contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float16": lambda: default_dtype(torch.float16),
    "meta": lambda: torch.device("meta"),
    "inference mode": lambda: torch.inference_mode(),
    "gradients": lambda: torch.set_grad_enabled(True),
    "deterministic": deterministic,
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def separator(directory):
    return Separator.from_pretrained(directory, device="cpu", precision="float32")


@pytest.fixture(scope="module")
def expected(separator):
    """A recording and everything computed from it, with no setting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))
        mixture = noise(2.0, 44100, 2)
        return mixture, compute(separator, mixture)


def compute(separator, mixture):
    """Everything that a separator computes from a recording: tensors, and sounds."""
    results = separator(mixture, ["dog", Query("rain", negative="dog")], 44100)
    example = separator(mixture, Query(audio=(mixture[:1], 44100)), 44100)
    sounds = separator.list_sounds(mixture, 44100)
    single = {"dtype": torch.float32, "device": "cpu"}
    found = [e for r in (*results, example) for e in (r.target, r.residual, torch.tensor(r.presence, **single))]
    return [*found, separator.conditions(["a", "b"]).clone()], sounds


def same(first, second):
    assert first[1] == second[1]
    for one, other in zip(first[0], second[0], strict=True):
        assert one.dtype == other.dtype and one.device.type == other.device.type == "cpu"
        assert torch.equal(one, other)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_callers_settings_change_nothing(directory, expected, setting):
    mixture, wanted = expected
    with SETTINGS[setting]():
        loaded = Separator.from_pretrained(directory, device="cpu", precision="float32")
        found = compute(loaded, mixture)
    same(found, wanted)
    assert not any(parameter.is_inference() for parameter in loaded.model.parameters())


def test_threads_share_a_separator(separator):
    mixtures = [noise(1.5 + 0.1 * number, 44100, seed=number) for number in range(6)]
    alone = [separator(mixture, "dog", 44100) for mixture in mixtures]
    with default_dtype(torch.float64), ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda mixture: separator(mixture, "dog", 44100), mixtures * 2))
    for one, other in zip(alone * 2, together, strict=True):
        torch.testing.assert_close(one.target, other.target, rtol=0, atol=1e-6)
        assert one.presence == pytest.approx(other.presence, abs=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_separates(separator):
    threads, mixture = torch.get_num_threads(), noise(1.5, 44100)
    torch.set_num_threads(2)
    try:
        expected = separator(mixture, "dog", 44100).target
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # it waited for threads that it does not have
            found = separator(mixture, "dog", 44100).target
            os._exit(0 if torch.allclose(found, expected, atol=1e-5) else 3)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(threads)


LAYOUTS = {
    "strided": lambda wave: np.repeat(wave, 2, axis=1)[:, ::2],
    "reversed": lambda wave: wave[:, ::-1].copy()[:, ::-1],
    "transposed": lambda wave: wave.T.copy().T,
    "big endian": lambda wave: wave.astype(">f4"),
    "double": lambda wave: wave.astype(np.float64),
    "read-only": lambda wave: np.frombuffer(wave.tobytes(), np.float32).reshape(wave.shape),
    "gradients": lambda wave: torch.from_numpy(wave).requires_grad_(True),
    "tensor, transposed": lambda wave: torch.from_numpy(wave.T.copy()).T,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_samples_changes_nothing(separator, layout):
    wave = noise(1.0, 32000, 2).numpy()
    expected, given = separator(wave, "dog", 32000), LAYOUTS[layout](wave)
    assert torch.equal(separator(given, "dog", 32000).target, expected.target)


def test_memory_that_pytorch_does_not_get_is_a_memory_error(separator, monkeypatch):
    monkeypatch.setattr(separator.model, "separate", lambda *_: torch.empty(1 << 50))
    with pytest.raises(MemoryError, match=r"There is not enough memory\."):
        separator(noise(0.5), "dog", 32000)
