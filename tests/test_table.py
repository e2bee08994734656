import pytest
import torch

from separation.encoders.base import EncoderError, QueryEncoder, UnsupportedQueryError
from separation.encoders.table import NamedEmbeddings, OneHotEncoder, TableEncoder

LABELS = ["dog barking", "rain", "playing violin"]


def test_a_label_gives_its_row():
    table = torch.arange(12.0).reshape(3, 4)
    encoder = TableEncoder.from_tensors({"module.label_net.weight": table}, LABELS)
    assert (encoder.embedding_dim, encoder.modalities, encoder.unit_length) == (4, {"label"}, False)
    assert encoder.encode_label(["Playing  Violin", 0]).tolist() == [table[2].tolist(), table[0].tolist()]
    assert encoder.state_dict().keys() == {"label_net.weight"}


def test_labels_are_found_whatever_their_commas_case_and_blanks():
    encoder = OneHotEncoder(["bird chirping tweeting", "bee, wasp, etc. buzzing", "police car (siren)"])
    spellings = ["Bird chirping,tweeting", "bird chirping, tweeting", "bee wasp etc. buzzing", "police  car (siren)"]
    assert [encoder.index(label) for label in spellings] == [0, 0, 1, 2]
    with pytest.raises(ValueError, match="each once"):
        OneHotEncoder(["fly, housefly buzzing", "fly housefly buzzing"])
    with pytest.raises(EncoderError, match=r"close to it: bee, wasp, etc\. buzzing"):
        encoder.index("bee, wasps, etc. buzzing")
    with pytest.raises(EncoderError, match="3 is none of the 3 labels"):
        OneHotEncoder(LABELS).encode_label([3])


def test_a_table_and_its_labels_must_agree():
    with pytest.raises(EncoderError, match="has 2 rows, but 3 labels"):
        TableEncoder.from_tensors({"label_net.weight": torch.zeros(2, 4)}, LABELS)
    with pytest.raises(EncoderError, match=r"label_net\.weight is missing"):
        TableEncoder.from_tensors({}, LABELS)
    with pytest.raises(ValueError, match="each once"):
        OneHotEncoder(["rain", "Rain"])


@pytest.mark.parametrize(
    ("form", "call"),
    [
        ("text", lambda e: e.encode_text(["a"])),
        ("audio", lambda e: e.encode_audio(torch.zeros(1, 8), 8)),
        ("label", lambda e: e.encode_label(["a"])),
        ("image", lambda e: e.encode_image(["a.png"])),
    ],
)
def test_every_other_form_is_one_sentence(form, call):
    with pytest.raises(UnsupportedQueryError, match=f"QueryEncoder takes no {form}; it takes embedding"):
        call(QueryEncoder())


def test_named_embeddings_are_looked_up():
    encoder = NamedEmbeddings(3, True)
    encoder.store("dog  barking", torch.ones(3))
    assert encoder.encode_text(["dog barking", "rain"]).tolist() == [[1, 1, 1], [0, 0, 0]]
