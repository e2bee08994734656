import importlib.util
import sys

import pytest
import torch

from separation import ModelError
from separation.encoders.ast import AstEncoder
from separation.encoders.base import EncoderError, UnsupportedQueryError

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_length": 128,
}
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return AstEncoder(config=SMALL)


def noise(seconds: float) -> torch.Tensor:
    return 0.1 * torch.randn(1, round(seconds * 16000), generator=torch.Generator().manual_seed(0))


def test_without_transformers_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EncoderError, match=r'AST needs the package transformers; .* pip install "separation\[ast\]"'):
        AstEncoder()


@needs_transformers
def test_an_example_is_the_mean_of_segments_of_ten_seconds(encoder):
    waveform = noise(20.0)
    vectors = encoder.encode_audio(waveform, 16000)
    halves = [encoder.tag(part).probabilities for part in waveform.split(160000, 1)]
    assert (encoder.embedding_dim, encoder.modalities, encoder.unit_length) == (527, {"audio", "label"}, False)
    assert torch.allclose(vectors, (halves[0] + halves[1]) / 2, atol=1e-6)
    assert vectors.min() > 0
    assert vectors.max() < 1


@needs_transformers
def test_labels_and_embedding(encoder):
    assert encoder.encode_label(["Dog"]).nonzero().tolist() == [[0, 74]]
    other = AstEncoder("embedding", config=SMALL)
    assert other.encode_audio(noise(1.0), 16000).shape == (1, 16)
    with pytest.raises(UnsupportedQueryError, match="no classes"):
        other.encode_label(["Dog"])


@needs_transformers
def test_weights_load_strictly(encoder):
    weights = {k: v + 0.01 for k, v in encoder.network.state_dict().items()}
    loaded = AstEncoder.from_tensors(weights, config=SMALL)
    assert all(torch.equal(v, weights[k]) for k, v in loaded.network.state_dict().items())
    assert not torch.allclose(loaded.encode_audio(noise(1.0), 16000), encoder.encode_audio(noise(1.0), 16000))
    del weights["classifier.dense.bias"]
    with pytest.raises(ModelError, match=r"1 missing: classifier\.dense\.bias"):
        AstEncoder.from_tensors(weights, config=SMALL)


@needs_transformers
def test_it_takes_the_place_of_a_separators_own_query_net(encoder, monkeypatch):
    from separation import Query, Separator
    from separation.models import resunet

    monkeypatch.setattr(resunet, "CHANNELS", (1, 1, 1, 1, 1, 1, 1))
    torch.manual_seed(0)
    separator = Separator(resunet.ResUNet30(527, segment=64000), encoder, "uss with AST", "cpu")
    example = (noise(1.0)[0], 16000)
    found = separator.conditions([Query(audio=example), "Dog", Query(label=[0, 74])])
    assert torch.allclose(found[0], encoder.encode_audio(noise(1.0), 16000)[0], atol=1e-6)
    assert found[1].nonzero().flatten().tolist() == [74]
    assert found[2].nonzero().flatten().tolist() == [0, 74]
    separator.model.faithful = True
    heard = encoder.probabilities(noise(2.0), 16000)[0]
    loudest = int(heard.argmax())
    assert heard[loudest] >= 0.2
    kept = torch.zeros(1, 527)
    kept[0, loudest] = separator.encoder.probabilities(resampled(noise(2.0)), 32000)[0, loudest]
    result = separator(resampled(noise(2.0)), loudest, 32000)
    assert torch.allclose(result.target, separator.model(resampled(noise(2.0))[None], kept)[0], atol=1e-5)


def resampled(waveform):
    from separation.audio import resample

    return resample(waveform, 16000, 32000)
