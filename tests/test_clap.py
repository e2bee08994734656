import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
import torch

from separation import ModelError
from separation.encoders.base import EncoderError, UnsupportedQueryError
from separation.encoders.clap import (
    COMPUTED,
    INDICES,
    RENAMES,
    SPECIAL,
    VOCABULARY,
    ClapEncoder,
    build_tower,
    load_tokenizer,
    transformers_names,
)

TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
AUDIO = {"patch_embeds_hidden_size": 8, "hidden_size": 64, "depths": [1, 2, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
SMALL = {"text_config": {**TEXT, "projection_dim": 16}, "audio_config": {**AUDIO, "projection_dim": 16}}

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


def write_vocabulary(folder: Path, size: int = VOCABULARY, hello: int = 31414, **changes: int) -> str:
    """Write tokens and merges that encode the checked sentence as RoBERTa does; the rest are letters and fillers."""
    from tokenizers.pre_tokenizers import ByteLevel

    merges = [("H", "e"), ("He", "l"), ("Hel", "l"), ("Hell", "o")]
    merges += [("Ġ", "w"), ("Ġw", "o"), ("Ġwo", "r"), ("Ġwor", "l"), ("Ġworl", "d")]
    tokens = {**SPECIAL, "Hello": hello, "Ġworld": 232, **changes}
    tokens |= {letter: 300 + i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokens |= {a + b: 1000 + i for i, (a, b) in enumerate(merges) if a + b not in tokens}
    used = set(tokens.values())
    tokens |= {f"filler{number}": number for number in range(size) if number not in used}
    (folder / "vocab.json").write_text(json.dumps(tokens))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(f"{a} {b}" for a, b in merges))
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_vocabulary(tmp_path_factory.mktemp("roberta"))


@pytest.fixture(scope="module")
def encoder(folder):
    torch.manual_seed(0)
    return ClapEncoder(vocabulary=folder, **SMALL)


@needs_transformers
def test_tokens_and_mask(encoder, folder, tmp_path):
    tokens, mask = encoder.tokenize(["Hello world", "a"])
    assert tokens.tolist() == [[0, 31414, 232, 2], [0, tokens[1, 1], 2, 1]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert encoder.tokenize(["Hello world"], 77)[0].shape == (1, 77)
    cut, _ = encoder.tokenize(["a" * 600])
    assert (cut.shape, cut[0, 0], cut[0, -1]) == ((1, 512), 0, 2)
    load_tokenizer(folder).backend_tokenizer.save(str(tmp_path / "tokenizer.json"))  # the newer form of the files
    assert load_tokenizer(str(tmp_path))("Hello world, a dog") == load_tokenizer(folder)("Hello world, a dog")


@needs_transformers
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 50300}, "has 50300 tokens, RoBERTa's has 50265"),
        ({"hello": 31415}, r"'Hello world' becomes \[0, 31415, 232, 2\], in RoBERTa \[0, 31414, 232, 2\]"),
        ({"<s>": 2, "</s>": 0}, "token <s> has number 2, in RoBERTa 0"),
    ],
)
def test_another_vocabulary_is_refused(tmp_path, changes, message):
    with pytest.raises(EncoderError, match=message):
        load_tokenizer(write_vocabulary(tmp_path, **changes))


@needs_transformers
def test_an_empty_tokenizer_is_refused(tmp_path):
    """Offline, transformers can return a tokenizer with the five special tokens only."""
    from tokenizers import Tokenizer, models

    empty = Tokenizer(models.BPE())
    empty.add_special_tokens(list(SPECIAL))
    empty.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(EncoderError, match="the tokenizer has 5 tokens, RoBERTa's has 50265"):
        load_tokenizer(str(tmp_path))


@needs_transformers
def test_a_missing_or_damaged_vocabulary(encoder, folder, tmp_path, monkeypatch):
    with pytest.raises(EncoderError, match="RoBERTa's vocabulary is missing; get it with: hf download"):
        load_tokenizer(str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match="vocabulary is missing"):
        load_tokenizer.__wrapped__()
    snapshot = tmp_path / "models--roberta-base" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    write_vocabulary(snapshot)
    assert len(load_tokenizer.__wrapped__()) == VOCABULARY
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError, match="contains no readable tokenizer"):
        load_tokenizer.__wrapped__(str(tmp_path))


def test_without_transformers_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        EncoderError, match=r'CLAP needs the package transformers; install it with: pip install "separation\[clap\]"'
    ):
        ClapEncoder()


@needs_transformers
def test_texts_become_unit_vectors(encoder):
    vectors = encoder.encode_text(["dog barking", "Hello world", "a much longer sentence about rain"])
    assert (vectors.shape, encoder.embedding_dim, encoder.unit_length) == ((3, 16), 16, True)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert (vectors[0] - vectors[1]).abs().max() > 1e-4
    assert encoder.encode_text([]).shape == (0, 16)
    assert torch.allclose(encoder.encode_text(["dog barking"]), vectors[:1], atol=1e-6)  # padding does not matter
    states, padded = encoder.encode_tokens(*encoder.tokenize(["dog barking"], 77))
    assert states.shape == (1, 77, 32)
    assert torch.allclose(padded, vectors[:1], atol=1e-6)


@needs_transformers
def test_recordings_become_unit_vectors(encoder):
    waveform = 0.1 * torch.randn(2, 48000, generator=torch.Generator().manual_seed(0))
    vectors = encoder.encode_audio(waveform, 48000)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-6)
    # Short recordings are repeated as often as they fit and padded with zeros; of long ones the middle counts.
    assert torch.equal(vectors, encoder.encode_audio(waveform.repeat(1, 10), 48000))
    long = torch.nn.functional.pad(waveform.repeat(1, 10), (1000, 1001))
    assert torch.equal(vectors, encoder.encode_audio(long, 48000))
    padded = torch.nn.functional.pad(waveform.repeat(1, 9), (0, 48000))
    assert torch.equal(encoder.encode_audio(waveform.repeat(1, 3), 48000), encoder.encode_audio(padded, 48000))
    with pytest.raises(ValueError, match="at least one sample"):
        encoder.encode_audio(torch.zeros(1, 0), 48000)


@needs_transformers
def test_one_tower_alone(folder):
    encoder = ClapEncoder(audio=False, vocabulary=folder, **SMALL)
    assert encoder.modalities == {"text"}
    with pytest.raises(UnsupportedQueryError, match="ClapEncoder takes no audio; it takes text"):
        encoder.encode_audio(torch.zeros(1, 48000), 48000)
    with pytest.raises(UnsupportedQueryError, match="takes no text"):
        ClapEncoder(text=False, **SMALL).encode_text(["rain"])
    with pytest.raises(ValueError, match="a text tower, an audio tower"):
        ClapEncoder(text=False, audio=False)


def hugging_face(encoder: ClapEncoder) -> dict[str, torch.Tensor]:
    return {**encoder.text.state_dict(), **encoder.audio.state_dict()}


def laion(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Hugging Face names to LAION's, with the other tensors of such a file."""
    found = {
        "audio_branch.head.weight": torch.ones(2),
        "logit_scale_a": torch.ones(()),
        "text_transform.w": torch.ones(1),
        "audio_branch.layers.0.blocks.1.attn_mask": torch.ones(2),
        "text_branch.embeddings.position_ids": torch.ones(3),
    }
    for name, tensor in tensors.items():
        if name.startswith("audio") and ("attention.self.key" in name or "attention.self.value" in name):
            continue
        if name.startswith("audio") and "attention.self.query" in name:
            tensor = torch.cat([tensors[name.replace("query", part)] for part in ("query", "key", "value")])
            name = name.replace(".attention.self.query.", ".attn.qkv.")
        for theirs, ours in RENAMES[1:] if name.startswith("audio") else RENAMES[:3]:
            name = name.replace(ours, theirs)
        found[name] = tensor
    return found


@pytest.fixture(scope="module")
def weights(encoder):
    """Other weights than those of a fresh network, so that every tensor counts."""
    generator = torch.Generator().manual_seed(5)
    return {
        name: tensor + 0.1 * torch.rand(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
        for name, tensor in hugging_face(encoder).items()
    }


@needs_transformers
@pytest.mark.parametrize("prefix", [None, "", "module.", "query_encoder.model.", "module.net_clap.model.model."])
def test_laions_names_load_with_any_prefix(weights, folder, prefix, tmp_path):
    other = {"ss_model.pre_conv.weight": torch.ones(1)} if prefix else {}
    published = weights if prefix is None else {prefix + k: v for k, v in laion(weights).items()}  # or Hugging Face's
    torch.save({"state_dict": {**published, **other}}, tmp_path / "clap.pt")
    loaded = hugging_face(ClapEncoder.from_file(tmp_path / "clap.pt", vocabulary=folder, **SMALL))
    assert loaded.keys() == weights.keys()
    for name, tensor in loaded.items():
        assert name.endswith("num_batches_tracked") or torch.equal(tensor, weights[name]), name
        assert not name.endswith(INDICES)


@needs_transformers
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_branch.pooler.dense.bias": None}, r"x\.pt does not fit .*1 missing: text_model\.pooler\.dense\.bias"),
        ({"audio_branch.fusion.weight": torch.ones(1)}, r"1 unexpected: audio_model\.audio_encoder\.fusion\.weight"),
        ({"text_projection.0.bias": torch.ones(7)}, r"text_projection\.linear1\.bias \(\(7,\) instead of \(16,\)\)"),
        ({"other.weight": torch.ones(1)}, r"x\.pt: tensor other\.weight does not belong to CLAP"),
    ],
)
def test_a_wrong_tensor_is_named(weights, folder, changes, message):
    tensors = {name: tensor for name, tensor in {**laion(weights), **changes}.items() if tensor is not None}
    with pytest.raises(ModelError, match=message):
        ClapEncoder.from_tensors(tensors, "x.pt", vocabulary=folder, **SMALL)
    with pytest.raises(EncoderError, match="contains no CLAP"):
        ClapEncoder.from_tensors({"a": torch.ones(1)}, vocabulary=folder, **SMALL)


@needs_transformers
def test_every_published_tensor_has_a_place_at_full_size():
    """Names and shapes only. Set SEPARATION_PARITY to the folder with the list of LAION's tensors."""
    if not os.environ.get("SEPARATION_PARITY"):
        pytest.skip("SEPARATION_PARITY is not set: no list of tensors to compare with")
    file = Path(os.environ["SEPARATION_PARITY"]) / "uss/state_dicts/clap_htsat_base_roberta.json"
    listed = json.loads(file.read_text())["tensors"]
    with torch.device("meta"):
        published = {f"query_encoder.model.{k}": torch.empty(v["shape"]) for k, v in listed.items()}
        wanted = {**build_tower("text").state_dict(), **build_tower("audio").state_dict()}
    names = transformers_names(published, "list")
    assert {k: v.shape for k, v in names.items()} == {k: v.shape for k, v in wanted.items() if not k.endswith(COMPUTED)}
    assert sum(name.startswith("text_") for name in names) == 203
