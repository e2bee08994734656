"""Protocols: rows of small and of published lists, and the mixtures rendered from them."""

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import yaml

from separation.data.fixed_mixtures import VALIDATION, Mixing, read_rows, render
from separation.data.manifest import MANIFEST, add_recording_ids, read_recording_ids
from separation.errors import DataError
from separation.evaluate.protocols import clipsep, uss
from separation.evaluate.protocols.base import (
    COLUMNS,
    ListFile,
    ProtocolError,
    all_protocols,
    find_protocol,
    fingerprint,
    make_row,
)

ESC50 = "idx,caption,src_wav,noise_wav\n0,dog,1-a-0.wav,5-b-29.wav\n1,sea waves,2-c-11.wav,1-a-0.wav\n"


def write_wave(path, wave, rate=32000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype="FLOAT" if path.suffix == ".wav" else None)


def noise(seconds=1.0, rate=32000, level=0.1, seed=0):
    return (level * np.random.default_rng(seed).standard_normal(int(seconds * rate))).astype(np.float32)


def energy(wave):
    return float(np.square(wave, dtype=np.float64).sum())


def rows_of_list(name, tmp_path, text):
    """Rows of a protocol from a list with this content, without a check of hashes."""
    protocol = find_protocol(name)
    path = tmp_path / protocol.lists[0].names[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.replace("\n", "\r\n").encode())
    lists = tuple(replace(each, sha256=None) for each in protocol.lists)
    return replace(protocol, lists=lists, sha256=None).rows(tmp_path)


# Hashes


def test_the_hash_sees_rows_mixing_and_order_and_nothing_else():
    row = make_row(0, "dog", "a.wav", ["b.wav"], snr_db="3")
    changed = {fingerprint([row | {column: "other"}], VALIDATION) for column in COLUMNS}
    assert len(changed - {fingerprint([row], VALIDATION)}) == len(COLUMNS)
    rows = [make_row(0, "dog", "a.wav", ["b.wav"]), make_row(1, "cat", "b.wav", ["a.wav"])]
    usual = fingerprint(rows, VALIDATION)
    assert fingerprint(rows, Mixing()) == usual
    assert fingerprint(rows, Mixing(sample_rate=16000)) != usual
    assert fingerprint(rows[::-1], VALIDATION) != usual
    assert fingerprint([row | {"target_energy_db": "3"} for row in rows], VALIDATION) == usual


def test_the_validation_list_is_the_published_one(data_root):
    listed = find_protocol("validation").rows(data_root)
    assert listed == read_rows(data_root / "validation_mixtures.csv")
    assert Counter(row["kind"] for row in listed) == {"pair": 300, "three": 60, "absent": 100}
    pairs = [row for row in listed if row["kind"] == "pair"]
    rows = add_recording_ids(pairs, read_recording_ids(data_root / MANIFEST))
    assert [len({row[column] for row in rows}) for column in ("id", "target", "recording")] == [300, 244, 195]


@pytest.mark.parametrize("name", [name for name in all_protocols() if name.split("/")[0] in ("audiosep", "clipsep")])
def test_published_lists_give_the_recorded_rows(name, data_root):
    protocol = find_protocol(name)
    rows = protocol.rows(data_root, data_root / "text")  # checks the lists' hashes and the rows'
    assert len(rows) == protocol.count
    assert len({row["id"] for row in rows}) == len(rows)
    # Published as they are: a few clips stand against themselves.
    itself = sum(row["target"] in (row["interference1"], row["interference2"], row["mixture"]) for row in rows)
    assert itself == {"audiosep/audiocaps": 3, "audiosep/clotho": 9}.get(name, 0)


def test_uss_audioset_is_the_same_everywhere(tmp_path):
    rows = find_protocol("uss/audioset").rows(tmp_path)  # checks the hash
    assert len(rows) == 52700
    assert rows[100]["target"] == "class_id=1/class_id=1,index=000,source.wav"
    assert rows[100]["query"] == "Male speech, man speaking"


# What is missing


def test_lists_and_folders_that_are_missing(tmp_path, monkeypatch):
    protocol = find_protocol("audiosep/esc50")
    monkeypatch.delenv("SEPARATION_ESC50_ROOT", raising=False)
    monkeypatch.delenv("SEPARATION_LISTS", raising=False)
    with pytest.raises(ProtocolError, match="name their folder with --root or SEPARATION_ESC50_ROOT"):
        protocol.rows(None)
    with pytest.raises(ProtocolError, match="nowhere is not a folder"):
        protocol.rows(tmp_path / "nowhere")
    with pytest.raises(ProtocolError, match=r"built from the list esc50_eval\.csv or .*--lists or SEPARATION_LISTS"):
        protocol.rows(tmp_path)
    (tmp_path / "esc50_eval.csv").write_text(ESC50)
    with pytest.raises(ProtocolError, match=r"esc50_eval\.csv is not the published list: its sha256 is [0-9a-f]{64}"):
        protocol.rows(tmp_path)
    with pytest.raises(ProtocolError, match="the rows have the hash 4e3624bd"):
        replace(find_protocol("validation"), sha256="0" * 64).rows(tmp_path)


def test_folders_may_be_named_by_the_environment(tmp_path, monkeypatch):
    protocol = replace(
        find_protocol("audiosep/esc50"), lists=(ListFile(("esc50_eval.csv", "below/esc50_eval.csv")),), sha256=None
    )
    (tmp_path / "lists" / "below").mkdir(parents=True)
    (tmp_path / "lists" / "below" / "esc50_eval.csv").write_text(ESC50)
    monkeypatch.setenv("SEPARATION_ESC50_ROOT", str(tmp_path))
    monkeypatch.setenv("SEPARATION_LISTS", str(tmp_path / "lists"))
    assert [row["query"] for row in protocol.rows(None)] == ["dog", "sea waves"]


def test_recordings_are_found_below_the_root_or_named(tmp_path):
    protocol, row = find_protocol("audiosep/esc50"), make_row(0, "dog", "1-a-0.wav", ["5-b-29.wav"])
    assert protocol.locate(row, tmp_path) == "1-a-0.wav"
    write_wave(tmp_path / "audio" / "1-a-0.wav", noise())
    assert protocol.locate(row, tmp_path) == "5-b-29.wav"
    write_wave(tmp_path / "audio" / "5-b-29.wav", noise())
    assert protocol.locate(row, tmp_path) == tmp_path / "audio"


# AudioSep


def test_audiosep_mixes_recordings_at_0_db(tmp_path):
    rows = rows_of_list("audiosep/esc50", tmp_path, ESC50)
    assert [row["kind"] for row in rows] == ["pair", "pair"]
    assert rows[1] == make_row(1, "sea waves", "2-c-11.wav", ["1-a-0.wav"], snr_db="0")
    write_wave(tmp_path / "2-c-11.wav", noise(1.5))
    write_wave(tmp_path / "1-a-0.wav", noise(1.0, 16000, 0.02, seed=1), 16000)
    rendered = render(rows[1], tmp_path, find_protocol("audiosep/esc50").mixing)
    assert (rendered.sample_rate, len(rendered.mixture)) == (32000, 48000)
    assert energy(rendered.mixture - rendered.target) == pytest.approx(energy(rendered.target), rel=1e-4)
    assert np.array_equal(rendered.target, noise(1.5))
    write_wave(tmp_path / "2-c-11.wav", noise(1.0, level=0.4))  # a peak over one is brought to 0.9
    write_wave(tmp_path / "1-a-0.wav", noise(2.0, seed=1))
    rendered = render(rows[1], tmp_path, find_protocol("audiosep/esc50").mixing)
    assert (np.abs(rendered.mixture).max(), len(rendered.mixture)) == (pytest.approx(0.9, abs=1e-6), 32000)
    assert energy(rendered.mixture - rendered.target) == pytest.approx(energy(rendered.target), rel=1e-4)


CAPTIONS = 'idx,caption,src_wav,noise_wav1,noise_wav1\n7,"Rain, and wind",Santa Motor.wav,"a, b.wav",c.wav\n'
SEGMENT = "evaluation/data/audioset/class_id=3/class_id=3,index=000"


@pytest.mark.parametrize(
    ("name", "text", "row"),
    [
        ("audiosep/audiocaps", "idx,caption,labels,src_wav,noise_wav\n0,A man speaks,Speech,Ya.wav,Yb.wav\n",
         make_row(0, "A man speaks", "Ya.wav", ["Yb.wav"], snr_db="0")),
        ("audiosep/clotho", CAPTIONS,
         make_row(7, "Rain, and wind", "Santa Motor.wav", ["a, b.wav", "c.wav"], kind="three", snr_db="0")),
        ("audiosep/clotho-released", CAPTIONS,
         make_row(7, "Rain, and wind", "segment-7.wav", mixture="mixture-7.wav", kind="pair")),
        ("audiosep/audioset", f'idx,caption,a,b\n3,Speech,"{SEGMENT},source.wav","{SEGMENT},mixture.wav"\n',
         make_row("class_id=3,index=000", "Speech", "class_id=3/class_id=3,index=000,source.wav",
                  mixture="class_id=3/class_id=3,index=000,mixture.wav")),
        ("audiosep/vggsound", "file_id,mix_wav,s0_wav,s0_text,s1_wav,s1_text\na+b,m.wav,s0.wav,sea lion,s1.wav,rain\n",
         make_row("a+b", "sea lion", "s0.wav", mixture="m.wav")),
        ("dcase2024/task9", "source,noise,snr,caption\na,b,-7,A dog barks\n",
         make_row(0, "A dog barks", "a.wav", ["b.wav"], snr_db="-7")),
    ],
)  # fmt: skip
def test_a_row_of_a_list(tmp_path, name, text, row):
    assert rows_of_list(name, tmp_path, text) == [row]


# Bi-modal


def test_bimodal_asks_for_both_clips_of_a_pair(tmp_path):
    lists = {
        "music/annotations/test_sep_2.csv": "/flute/a.wav,/acoustic_guitar/b.wav\n",
        "music/annotations/test.csv": "/acoustic_guitar/b.wav,frames,41\n/flute/a.wav,frames,30\n",
    }
    for path, text in lists.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    protocol = find_protocol("bimodal/music")
    first, second = protocol.rows(tmp_path)
    assert (first["query"], second["query"]) == ("The sound of flute", "The sound of acoustic guitar")
    assert (first["target"], first["interference1"]) == (second["interference1"], second["target"])
    flute, guitar = noise(30, 16000), noise(41, 16000, seed=1)
    write_wave(tmp_path / "audio" / "flute" / "a.wav", flute, 16000)
    write_wave(tmp_path / "audio" / "acoustic_guitar" / "b.wav", guitar, 16000)
    rendered = render(second, protocol.locate(second, tmp_path), protocol.mixing)
    starts = [int(middle * 16000) - 65535 for middle in (20.5, 15.5)]
    parts = [wave[start:][:131070] / 2 for wave, start in zip((guitar, flute), starts, strict=True)]
    assert np.allclose(rendered.target, parts[0]) and np.allclose(rendered.mixture, sum(parts), atol=1e-7)
    (tmp_path / "music/annotations/test_sep_2.csv").write_text("/flute/a.wav,/flute/z.wav\n")
    with pytest.raises(DataError, match=r"test_sep_2\.csv, row 1: /flute/z\.wav is not in .*test\.csv\."):
        protocol.rows(tmp_path)


def test_bimodal_vggsound_and_audiocaps(tmp_path):
    (tmp_path / "test_sep_2.csv").write_text("a.wav,b.wav\n")
    (tmp_path / "test.csv").write_text('a.wav,"bird chirping, tweeting"\nb.wav,rope skipping\n')
    first, _ = find_protocol("bimodal/vggsound").rows(tmp_path)
    assert first["query"] == "The sound of bird chirping, tweeting"
    assert float(first["target_start"]) == pytest.approx(4.5 - 65535 / 16000, abs=1e-4)
    (tmp_path / "test_sep2_ids.csv").write_text("7,9\n")
    captions = {"7": {"file_id": "x_0", "caption": "Rain falls"}, "9": {"file_id": "y_0", "caption": "A dog barks"}}
    (tmp_path / "parsed_all_caps.json").write_text(json.dumps(captions))
    protocol = find_protocol("bimodal/audiocaps")
    first, second = protocol.rows(tmp_path)
    assert (second["query"], second["target"], second["interference1"]) == ("A dog barks", "y_0.wav", "x_0.wav")
    long, short = noise(10, 16000), noise(5, 16000, seed=1)[:-1]
    write_wave(tmp_path / "audio" / "x_0.wav", long, 16000)
    write_wave(tmp_path / "audio" / "y_0.wav", short, 16000)
    rendered = render(first, tmp_path / "audio", protocol.mixing)
    assert np.allclose(rendered.target, long[80000 - 65535 :][:131070] / 2)
    other = np.zeros(131070, np.float32)  # zeros on both sides
    other[65535 - 79999 // 2 :][:79999] = short / 2
    assert np.allclose(rendered.mixture - rendered.target, other, atol=1e-7)


# CLIPSep


def test_clipsep_draws_as_python_does_and_cuts_the_middle(tmp_path):
    targets = [f"data/a{n}.wav,frames,12,acoustic_guitar" for n in range(4)]
    others = [f"data/b{n}.wav,frames,11,rain" for n in range(9)]
    for file, lines in zip((clipsep.MUSIC, clipsep.CLEAN_NO_MUSIC), (targets, others), strict=True):
        (tmp_path / file.names[0]).write_text("\n".join(lines) + "\n")
    protocol = find_protocol("clipsep/music+")
    rows = protocol.build(tmp_path, *(tmp_path / file.names[0] for file in protocol.lists))
    for number, row in enumerate(rows):
        random.seed(number)
        assert row["interference1"] == f"data/b{random.randint(0, 8)}.wav"
        assert row["query"] == "acoustic guitar"
    target, other = noise(12, 16000), noise(11, 16000, level=0.03, seed=1)
    write_wave(tmp_path / rows[0]["target"], target, 16000)
    write_wave(tmp_path / rows[0]["interference1"], other, 16000)
    rendered = render(rows[0], tmp_path, protocol.mixing)
    first, second = int(5.5 * 16000) - 32767, int(4.5 * 16000) - 32767
    assert np.allclose(rendered.target, target[first:][:65535] / 2)
    assert np.allclose(rendered.mixture - rendered.target, other[second:][:65535] / 2, atol=1e-7)


# DCASE


def test_dcase_mixes_at_its_snr(tmp_path):
    row, protocol = make_row(0, "dog", "a.wav", ["b.wav"], snr_db="-7"), find_protocol("dcase2024/task9")
    for name, seed in (("a", 0), ("b", 1)):
        write_wave(tmp_path / "lass_validation" / f"{name}.wav", noise(1, 16000, seed=seed), 16000)
    rendered = render(row, protocol.locate(row, tmp_path), protocol.mixing)
    ratio = energy(rendered.target) / energy(rendered.mixture - rendered.target)
    assert (10 * np.log10(ratio), rendered.sample_rate) == (pytest.approx(-7, abs=1e-3), 16000)


# USS


def test_uss_mixes_neighbours_with_different_labels_in_shuffled_order():
    labels = ["dog", "dog", "cat", "bird_song"] * 5 + ["dog"]
    names = [f"{n}.wav" for n in range(len(labels))]
    rows = uss.mix_neighbours(names, labels, len(labels))
    assert Counter(row["query"] for row in rows) == {"dog": 100, "cat": 100, "bird song": 100}
    label_of = dict(zip(names, labels, strict=True))
    assert all(label_of[row["target"]] != label_of[row["interference1"]] for row in rows)
    order = np.random.RandomState(1234).permutation(len(labels))
    wanted = [names[i] for i in order if labels[i] != labels[(i + 1) % len(labels)]]
    assert [row["target"] for row in rows[: len(wanted)]] == wanted
    assert all(int(row["interference1"][:-4]) == (int(row["target"][:-4]) + 1) % len(labels) for row in rows)


def test_uss_skips_classes_without_a_different_neighbour():
    labels = ["dog", "dog", "dog", "cat", "bird", "bird"]  # the last bird's neighbour is the first dog
    rows = uss.mix_neighbours([f"{n}.wav" for n in range(6)], labels, 5)  # and is no target here
    assert {row["query"] for row in rows} == {"dog", "cat"}
    with pytest.raises(ProtocolError, match="same label"):
        uss.mix_neighbours(["a.wav", "b.wav"], ["dog", "dog"], 2)


def test_uss_fsd_lists(tmp_path):
    clips = ["a.wav,Bark,Private,1,x", "b.wav,Acoustic_guitar,Private,2,x", "c.wav,Oboe,Public,3,x"]
    text = "\n".join(["fname,label,usage,freesound_id,license", *clips, ""])
    rows = rows_of_list("uss/fsdkaggle2018", tmp_path, text)
    assert {row["target"] for row in rows} == {"a.wav", "b.wav"}  # the last is never a target
    assert {row["query"] for row in rows} == {"Bark", "Acoustic guitar"}
    rows = rows_of_list("uss/fsd50k", tmp_path, 'fname,labels,mids\n1,"Bark,Dog",/m/x\n22,"Rain",/m/y\n')
    assert {(row["target"], row["query"]) for row in rows} == {("1.wav", "Bark"), ("22.wav", "Rain")}


def test_uss_repeats_short_clips_and_limits_gains(tmp_path):
    protocol = find_protocol("uss/fsd50k")
    row = make_row(0, "dog", "short.wav", ["faint.wav"], snr_db="0")
    write_wave(tmp_path / "short.wav", noise(0.75))
    write_wave(tmp_path / "faint.wav", noise(3, level=1e-4, seed=1))
    rendered = render(row, tmp_path, protocol.mixing)
    assert np.allclose(rendered.target, np.tile(noise(0.75), 3)[:64000])
    assert np.allclose(rendered.mixture - rendered.target, 50 * noise(3, level=1e-4, seed=1)[:64000], atol=1e-7)


def test_uss_slakh_takes_loud_parts_of_stems(tmp_path):
    rate = 8000
    for track in ("Track01", "Track02"):
        folder = tmp_path / "test" / track
        stems = {f"S0{n}": {"plugin_name": name} for n, name in enumerate(("grand_piano.nkm", "rare", "gone"))}
        folder.mkdir(parents=True)
        (folder / "metadata.yaml").write_text(yaml.safe_dump({"stems": stems}))
        loud = np.concatenate([noise(2, rate, 0.001), noise(14, rate, 0.1), noise(1, rate, 0.1)])
        write_wave(folder / "stems" / "S00.flac", loud, rate)
        write_wave(folder / "stems" / "S01.flac", noise(4, rate), rate)
        write_wave(folder / "mix.flac", loud + noise(17, rate, 0.05, seed=2), rate)
    protocol = find_protocol("uss/slakh2100")
    rows = protocol.rows(tmp_path)
    # Seven loud whole parts in each track; four of `rare` are no more than ten.
    assert [(row["query"], row["label"]) for row in rows] == [("grand piano", "grand_piano.nkm")] * 14
    assert [row["target_start"] for row in rows[:7]] == [f"{2.0 * n}" for n in range(1, 8)]
    rendered = render(rows[1], protocol.locate(rows[1], tmp_path), protocol.mixing)
    assert rendered.target.shape == rendered.mixture.shape == (64000,)
    stem, _ = soundfile.read(tmp_path / "test/Track01/stems/S00.flac")
    assert np.corrcoef(rendered.target[::4], stem[4 * rate : 6 * rate])[0, 1] > 0.95  # the resampler's band ends sooner
    with pytest.raises(ProtocolError, match="holds no test/Track"):
        protocol.rows(tmp_path / "test")


def test_uss_musdb18_and_voicebank(tmp_path):
    for song in ("A - one", "B - two"):
        for name in ("mixture", *uss.STEMS):
            write_wave(tmp_path / "test" / song / f"{name}.wav", noise(0.1))
    rows = find_protocol("uss/musdb18").rows(tmp_path)
    assert len(rows) == 8
    assert rows[-1]["mixture"] == "test/B - two/mixture.wav"
    assert (rows[-1]["query"], rows[-1]["label"]) == ("other instruments", "other")
    for name in ("clean", "noisy"):
        write_wave(tmp_path / f"{name}_testset_wav" / "p232_001.wav", noise(1, 48000), 48000)
    [row] = find_protocol("uss/voicebank-demand").rows(tmp_path)
    assert (row["target"], row["mixture"]) == ("clean_testset_wav/p232_001.wav", "noisy_testset_wav/p232_001.wav")
    assert (row["query"], row["label"]) == ("speech", "speech")
    rendered = render(row, tmp_path, find_protocol("uss/voicebank-demand").mixing)
    assert (rendered.sample_rate, rendered.mixture.shape) == (32000, (32000,))  # separated at the model's rate
    with pytest.raises(ProtocolError, match="holds none of its recordings"):
        find_protocol("uss/musdb18").rows(tmp_path / "clean_testset_wav")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dcase2024/task9", "source,noise,snr,caption\na,b,-7\n", ", row 2: 3 cells instead of 4."),
        ("dcase2024/task9", "source,noise,snr\n", ", row 1: 3 cells instead of 4."),
        ("dcase2024/task9", "", ": the list is empty."),
        ("uss/fsdkaggle2018", "fname,class\na.wav,Bark\n", ": no column label in the header fname,class."),
        ("uss/fsdkaggle2018", "fname,label\na.wav\n", ", row 2: fewer cells than the header."),
        ("uss/fsd50k", "fname,label\n1,Bark\n", ": no column labels in the header fname,label."),
        ("uss/fsd50k", b"fname,labels\n0,w\xe1rm\n", ", line 2: not UTF-8 text."),
        ("audiosep/esc50", "idx,caption,src_wav,noise_wav\n0,dog,a.wav\n", ", row 2: 3 cells instead of 4."),
    ],
)
def test_invalid_lists_are_refused(tmp_path, name, text, message):
    with pytest.raises(DataError) as error:
        rows_of_list(name, tmp_path, text)
    assert str(error.value) == f"{tmp_path / find_protocol(name).lists[0].names[0]}{message}"
    with pytest.raises(ProtocolError, match="dcase2024/task9, row 0: snr_db “loud” is not a number"):
        rows_of_list("dcase2024/task9", tmp_path, "source,noise,snr,caption\na,b,loud,A dog barks\n")
