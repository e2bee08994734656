import importlib.util
import sys

import numpy as np
import pytest
import torch

from separation import ModelError
from separation.encoders.base import EncoderError, UnsupportedQueryError
from separation.encoders.clip import ClipEncoder, check_tokenizer, open_picture

SMALL = {
    "embedding_dim": 16,
    "vision": {"layers": 2, "width": 64, "head_width": 32, "image_size": 64},
    "text": {"width": 32, "heads": 2, "layers": 2},
}
needs_open_clip = pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="open_clip is not installed")


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return ClipEncoder("verbatim", **SMALL)


def picture(height: int = 90, width: int = 130, seed: int = 0) -> np.ndarray:
    """A smooth colourful picture."""
    rows, columns = np.mgrid[:height, :width] / 20
    waves = [np.sin(rows + seed), np.cos(columns - seed), np.sin(rows * columns / 5)]
    return ((np.stack(waves, -1) + 1) * 127).astype(np.uint8)


def test_without_open_clip_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(
        EncoderError, match=r'CLIP needs the package open_clip; install it with: pip install "separation\[clip\]"'
    ):
        ClipEncoder()
    with pytest.raises(ValueError, match="prompts must be one of verbatim, photo, ensemble"):
        ClipEncoder("poem")


def test_any_form_of_picture_gives_the_same_pixels(tmp_path):
    from PIL import Image

    pixels = picture()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels, tensor, tensor.float() / 255)
    for form in forms:
        assert np.array_equal(np.asarray(open_picture(form)), pixels)


def test_an_unreadable_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(EncoderError, match=r"a\.png cannot be read as a picture"):
        open_picture(tmp_path / "a.png")
    with pytest.raises(EncoderError, match=r"shape \(height, width, 3\), not \(4, 4\)"):
        open_picture(np.zeros((4, 4)))


@needs_open_clip
@pytest.mark.parametrize(("shape", "top", "left"), [((90, 64), 13, 0), ((64, 100), 0, 18), ((64, 64), 0, 0)])
def test_the_middle_of_a_picture_is_normalised(encoder, shape, top, left):
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = picture(*shape)
    middle = torch.from_numpy(pixels)[top : top + 64, left : left + 64]
    expected = ((middle / 255 - mean) / deviation).permute(2, 0, 1)
    assert torch.allclose(encoder.prepare(open_picture(pixels)), expected, atol=1e-5)
    resized = encoder.prepare(open_picture(np.full((100, 50, 3), 128, np.uint8)))  # the short side from 50 to 64
    assert torch.allclose(resized, ((128 / 255 - mean) / deviation)[:, None, None].expand(3, 64, 64), atol=1e-5)


@needs_open_clip
def test_texts_keep_their_length(encoder):
    vectors = encoder.encode_text(["dog", "rain"])
    assert (vectors.shape, encoder.unit_length, encoder.modalities) == ((2, 16), False, {"text", "image"})
    assert (vectors.norm(dim=1) - 1).abs().min() > 0.05
    assert (vectors[0] - vectors[1]).abs().max() > 1e-4
    assert encoder.encode_text([]).shape == (0, 16)


@needs_open_clip
def test_several_pictures_are_one_query(encoder):
    pictures = [picture(seed=s) for s in range(3)]
    each = encoder.encode_image(pictures)
    assert each.shape == (3, 16)
    assert torch.allclose(encoder.encode_image([pictures])[0], each.mean(0), atol=1e-6)
    with pytest.raises(EncoderError, match="one picture or more"):
        encoder.encode_image([[]])
    with pytest.raises(UnsupportedQueryError, match="takes no audio; it takes text, image"):
        encoder.encode_audio(torch.zeros(1, 9), 9)


@needs_open_clip
def test_a_wrong_tokenizer_is_refused(encoder):
    class Other:
        vocab_size = 49408

        def __call__(self, texts):
            return torch.zeros(1, 77, dtype=torch.long)

    check_tokenizer(encoder.tokenizer)
    with pytest.raises(EncoderError, match="CLIP's makes"):
        check_tokenizer(Other())
    Other.vocab_size = 5
    with pytest.raises(EncoderError, match="has 5 tokens"):
        check_tokenizer(Other())


@needs_open_clip
def test_weights_load_by_file_and_strictly(encoder, tmp_path):
    from safetensors.torch import save_file

    weights = {k: v + 0.01 for k, v in encoder.network.state_dict().items()}
    numbers = {
        "input_resolution": torch.tensor(64),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    save_file({**weights, **numbers}, tmp_path / "clip.safetensors")
    loaded = ClipEncoder.from_file(tmp_path / "clip.safetensors", **SMALL)
    assert all(torch.equal(v, weights[k]) for k, v in loaded.network.state_dict().items())
    del weights["visual.proj"]
    with pytest.raises(ModelError, match=r"the checkpoint does not fit CLIP: tensors 1 missing: visual\.proj"):
        ClipEncoder.from_tensors(weights, **SMALL)


@needs_open_clip
@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_the_hugging_face_form_gives_the_same_vectors(encoder):
    from transformers import CLIPConfig, CLIPModel

    sizes = {"num_attention_heads": 2, "num_hidden_layers": 2}
    text = sizes | {"hidden_size": 32, "intermediate_size": 128, "eos_token_id": 49407}
    vision = sizes | {"hidden_size": 64, "intermediate_size": 256, "image_size": 64}
    torch.manual_seed(1)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        loaded = ClipEncoder.from_tensors(model.state_dict(), prompts="verbatim", **SMALL)
        tokens, pixels = loaded.tokenizer(["a dog", "heavy rain"]), loaded.prepare(open_picture(picture()))[None]
        texts = model.text_projection(model.text_model(input_ids=tokens).pooler_output)
        images = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    assert torch.allclose(loaded.encode_text(["a dog", "heavy rain"]), texts, atol=1e-5)
    assert torch.allclose(loaded.encode_image([picture()]), images, atol=1e-5)


@needs_open_clip
def test_a_picture_asks_a_separator(encoder, tmp_path, monkeypatch):
    from PIL import Image

    from separation import Query, Separator
    from separation.models import clipsep_unet

    monkeypatch.setattr(clipsep_unet, "widths", lambda layers, finest: [2] * layers)
    file = tmp_path / "dog.png"
    Image.fromarray(picture()).save(file)
    separator = Separator(clipsep_unet.CLIPSepUNet(16), encoder, "small", "cpu")
    expected = encoder.encode_image([picture()])[0]
    asked = [Query(image=file), Query(image=picture()), Query("dog", image=str(file), weights={"image": 3})]
    found = separator.conditions(asked)
    assert torch.allclose(found[:2], expected.expand(2, -1), atol=1e-6)
    assert torch.allclose(found[2], (encoder.encode_text(["dog"])[0] + 3 * expected) / 4, atol=1e-6)
    mixture = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0)) / 10
    by_file, by_vector = separator(mixture, [Query(image=file), expected], 16000)
    assert torch.equal(by_file.target, by_vector.target)
