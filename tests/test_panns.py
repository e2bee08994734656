import importlib.util

import numpy as np
import pytest
import soundfile
import torch

from separation import ModelError
from separation.encoders.base import EncoderError, UnsupportedQueryError, import_optional
from separation.encoders.panns import Cnn14, PannsEncoder, ReleasedDetector
from separation.models.spectra import mel_filters

SMALL = (4, 4, 8, 8, 8, 16)
RATE = 32000


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return PannsEncoder("probabilities", channels=SMALL)


def noise(seconds: float, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(1, round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


@pytest.mark.skipif(importlib.util.find_spec("torchaudio") is None, reason="torchaudio is not installed")
@pytest.mark.parametrize(("n_fft", "rate", "high"), [(1024, 32000, 14000.0), (512, 16000, 8000.0)])
def test_mel_filters_equal_those_of_torchaudio(n_fft, rate, high):
    functional = import_optional("torchaudio.functional", "this test", "train")
    expected = functional.melscale_fbanks(n_fft // 2 + 1, 50.0, high, 64, rate, "slaney", "slaney")
    assert torch.allclose(mel_filters(rate, n_fft, 64, 50.0, high), expected, atol=1e-6)


def test_silent_frames_of_examples_are_removed(encoder):
    loud = torch.cat([noise(1.0)[0], torch.full((RATE // 20,), 0.5)])  # an incomplete last frame is dropped
    quiet = torch.full((RATE // 10,), 0.02)
    example = torch.cat([quiet, loud[: RATE // 2], quiet, quiet, loud[RATE // 2 :]])
    assert torch.equal(encoder.encode_examples((example, RATE)), encoder.encode_audio(noise(1.0), RATE))


def test_files_of_a_folder_have_equal_weight(encoder, tmp_path):
    for name, seconds in (("b", 4.0), ("a", 2.0)):
        soundfile.write(tmp_path / f"{name}.wav", noise(seconds, ord(name))[0].numpy(), RATE, subtype="FLOAT")
    (tmp_path / "notes.txt").write_text("no audio")
    each = [encoder.encode_audio(noise(s, ord(n)), RATE) for n, s in (("a", 2.0), ("b", 4.0))]
    assert torch.allclose(encoder.encode_examples(tmp_path), (each[0] + each[1]) / 2, atol=1e-6)
    with pytest.raises(EncoderError, match="contains no example recordings"):
        encoder.encode_examples([])
    soundfile.write(tmp_path / "mute.wav", np.zeros(RATE, np.float32), RATE)
    with pytest.raises(EncoderError, match=r"mute\.wav is silent"):
        encoder.encode_examples(tmp_path / "mute.wav")


def test_the_embedding_takes_no_labels():
    encoder = PannsEncoder("embedding", channels=SMALL)
    assert (encoder.embedding_dim, encoder.modalities, encoder.unit_length) == (16, {"audio"}, False)
    with pytest.raises(UnsupportedQueryError, match="the 16 numbers of its condition are not classes"):
        encoder.encode_label(["Dog"])
    with pytest.raises(UnsupportedQueryError, match="PannsEncoder takes no text; it takes "):
        encoder.encode_text(["dog"])
    with pytest.raises(ValueError, match="condition must be one of probabilities, embedding"):
        PannsEncoder("text")
    with pytest.raises(ValueError, match="variant must be one of cnn14, cnn14_16k"):
        PannsEncoder(variant="cnn6")


def test_too_short_for_the_network(encoder):
    with pytest.raises(ValueError, match="needs 9920 samples or more, not 9919"):
        encoder.network(noise(1.0)[:, :9919])
    assert encoder.tag(noise(1.0)[:, :100]).probabilities.shape == (1, 527)
    short = encoder.encode_audio(noise(0.7), RATE)  # repeated until its segment is full
    assert torch.allclose(short, encoder.tag(noise(0.7).repeat(1, 3)[:, : 2 * RATE]).probabilities, atol=1e-6)
    with pytest.raises(ValueError, match="at least one sample"):
        encoder.encode_audio(torch.zeros(1, 0), RATE)


def test_without_its_file_the_detector_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SEPARATION_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match=r"get Cnn14_DecisionLevelMax_mAP=0\.385\.pth from https://zenodo\.org"):
        ReleasedDetector()(noise(1.0))


def published(network: Cnn14, bins: int = 513) -> dict:
    kernels = {f"spectrogram_extractor.stft.conv_{p}.weight": torch.zeros(bins, 1, 8) for p in ("real", "imag")}
    return {**network.state_dict(), **kernels, "logmel_extractor.melW": torch.zeros(bins, 64)}


@pytest.mark.parametrize("prefix", ["", "module.", "query_net.base."])
def test_published_names_load_with_any_prefix(encoder, prefix):
    tensors = {prefix + k: v for k, v in published(encoder.network).items()}
    loaded = Cnn14(channels=SMALL).load_published(tensors)
    assert torch.equal(loaded(noise(1.0)).probabilities, encoder.network(noise(1.0)).probabilities)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fc1.bias": None}, r"x\.pth does not fit Cnn14: tensors 1 missing: fc1\.bias\."),
        ({"fc2": torch.zeros(1)}, "1 unexpected: fc2"),
        ({"fc1.bias": torch.zeros(3)}, r"fc1\.bias \(\(3,\) instead of \(16,\)\)"),
        ({"logmel_extractor.melW": torch.zeros(257, 64)}, "is cnn14_16k, not cnn14"),
        ({"conv_block1.conv1.weight": None}, "contains no Cnn14"),
    ],
)
def test_a_wrong_tensor_is_named(encoder, changes, message):
    tensors = {k: v for k, v in {**published(encoder.network), **changes}.items() if v is not None}
    with pytest.raises(ModelError, match=message):
        Cnn14(channels=SMALL).load_published(tensors, "x.pth")
