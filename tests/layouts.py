"""Tiny folders in the layouts that the datasets are published in: the header lines are the real ones.

`LAYOUTS[name](root, leak)` builds one; with `leak` it holds one recording in two of its splits.
"""

import json

import numpy as np
import soundfile
from media import save_media, tone

ESC50 = "filename,fold,target,category,esc10,src_file,take"
FSD50K_DEV, FSD50K_EVAL = "fname,labels,mids,split", "fname,labels,mids"
AUDIOSET = (
    "# Segments csv created Sun Mar  5 10:54:25 2017\n"
    "# num_ytids=20371, num_segs=20371, num_unique_labels=527, num_positive_labels=51804\n"
    "# YTID, start_seconds, end_seconds, positive_labels"
)
AUDIOSET_MIRRORED = "YTID,start_seconds,end_seconds,positive_labels"
AUDIOCAPS = "audiocap_id,youtube_id,start_time,caption"
CLOTHO_CAPTIONS = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
CLOTHO_METADATA = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license"
MUSIC_TEST = "data/MUSIC/solo/audio/{0}/{1}.wav,data/MUSIC/solo/preprocessed/{0}/{1},212,{0}"


def sound(path, seconds=0.1, sample_rate=8000):
    """A tone, in the format of the file's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * sample_rate)) / sample_rate)
    soundfile.write(path, wave, sample_rate)


def film(path, seconds=0.1):
    """A tone in a container that libsndfile does not read."""
    save_media(path, [tone(440, seconds, 8000)], 8000, "aac")


def text(path, *lines, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)


def esc50(root, leak=False):
    rows = [
        "1-100032-A-0.wav,1,0,dog,True,100032,A",
        "1-100038-A-14.wav,1,14,chirping_birds,False,100038,A",
        "4-182839-A-17.wav,4,17,pouring_water,False,182839,A",
        "5-207836-D-29.wav,5,29,drinking_sipping,False,207836,D",
    ]
    rows += ["5-100032-B-0.wav,5,0,dog,True,100032,B"] if leak else []
    text(root / "meta" / "esc50.csv", ESC50, *rows)
    for row in rows:
        sound(root / "audio" / row.split(",")[0], 5.0)


def fsd50k(root, leak=False):
    guitar = '"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h,/m/04rlf"'
    dev = [f"64760,{guitar},train", f"345111,{guitar},val", '16399,"Keyboard_(musical),Music","/m/05148p4",train']
    evaluation = [f"37199,{guitar}"] + ([f"64760,{guitar}"] if leak else [])
    text(root / "FSD50K.ground_truth" / "dev.csv", FSD50K_DEV, *dev)
    text(root / "FSD50K.ground_truth" / "eval.csv", FSD50K_EVAL, *evaluation)
    about = {"64760": {"title": "guitarras_63.wav", "license": "http://creativecommons.org/licenses/sampling+/1.0/"}}
    text(root / "FSD50K.metadata" / "dev_clips_info_FSD50K.json", json.dumps(about))
    for part, rows in (("dev", dev), ("eval", evaluation)):
        for row in rows:
            sound(root / f"FSD50K.{part}_audio" / f"{row.split(',')[0]}.wav")


def fsdkaggle2018(root, leak=False):
    train = ["00044347.wav,Hi-hat,0,28739,Attribution", "001ca53d.wav,Saxophone,1,358827,Attribution"]
    test = [f"00326aa9.wav,Oboe,Private,{'28739' if leak else '355125'},Creative Commons 0"]
    meta = root / "FSDKaggle2018.meta"
    text(meta / "train_post_competition.csv", "fname,label,manually_verified,freesound_id,license", *train)
    text(meta / "test_post_competition_scoring_clips.csv", "fname,label,usage,freesound_id,license", *test)
    for part, rows in (("train", train), ("test", test)):
        for row in rows:
            sound(root / f"FSDKaggle2018.audio_{part}" / row.split(",")[0])


def audioset(*parts):
    lists = {
        "balanced": ("balanced_train_segments.csv", AUDIOSET_MIRRORED, ["--PJHxphWEs,30.000,40.000,"]),
        "unbalanced": ("unbalanced_train_segments.csv", AUDIOSET, ["---1_cCGK4M, 0.000, 10.000, "]),
        "eval": ("eval_segments.csv", AUDIOSET, ["-0RWZT-miFs, 420.000, 430.000, ", "--4gqARaEJE, 0.000, 10.000, "]),
    }

    def build(root, leak=False):
        for part in parts:
            name, header, rows = lists[part]
            rows = rows + (["-0RWZT-miFs, 400.000, 410.000, "] if leak and part == "unbalanced" else [])
            text(root / name, header, *(f'{row}"/m/03v3yw,/m/0k4j"' for row in rows))
        for name in (
            "balanced/Y--PJHxphWEs.flac",
            "---1_cCGK4M.wav",
            "eval/-0RWZT-miFs_000420.wav",
            "-0RWZT-miFs_400.wav",
        ):
            sound(root / "audio" / name)

    return build


def audiocaps(root, leak=False):
    train = ["91139,r1nicOVtvkQ,130,A woman talks nearby as water pours"]
    train += ["58146,7fmOlUlwoNg,300,Multiple clanging and clanking sounds"] if leak else []
    text(root / "dataset" / "train.csv", AUDIOCAPS, *train)
    validation = '97151,vfY_TJq7n_U,130,"Rustling occurs, ducks quack and water splashes"'
    text(root / "dataset" / "val.csv", AUDIOCAPS, validation, "97155,vfY_TJq7n_U,130,Ducks quack and a man speaks")
    test = "103549,7fmOlUlwoNg,20,Constant rattling noise and sharp vibrations"
    text(root / "dataset" / "test.csv", AUDIOCAPS, test, "103541,GOD8Bt5LfDE,100,Humming and vibrating")
    for name in ("train/91139", "train/58146", "val/vfY_TJq7n_U_130", "test/Y7fmOlUlwoNg"):
        sound(root / f"{name}.wav")


def clotho(root, leak=False):
    link, licence = "https://freesound.org/people/x/sounds/", "http://creativecommons.org/licenses/by-nc/3.0/"
    names = {
        "development": [(" Ambience Birds.wav", "327673"), ("Glass wárm.wav", "Not found")],
        "validation": [("Rain.wav", "1")],
        "evaluation": [("Santa Motor.wav", "327673" if leak else "116638")],
    }
    for part, sounds in names.items():
        captions = [f'{name},Birds.,"Birds, many.",Birds.,A bird; two birds.,Many birds | few.' for name, _ in sounds]
        text(root / f"clotho_captions_{part}.csv", CLOTHO_CAPTIONS, *captions)
        rows = [f'{name},birds;night,{number},{link}{number},"[1, 2]",x,{licence}' for name, number in sounds]
        text(root / f"clotho_metadata_{part}.csv", CLOTHO_METADATA, *rows, encoding="iso-8859-1")
        for name, _ in sounds:
            sound(root / part / name)


def wavcaps(root, leak=False):
    lists = root / "json_files"
    bell = {"title": "Service Bell Help", "href": "2218.html", "caption": "A bell is ringing.", "duration": 1.57}
    bells = [bell | {"id": "2218"}, bell | {"id": "2219"}]
    text(lists / "SoundBible" / "sb_final.json", json.dumps({"num_captions_per_audio": 1, "data": bells}))
    wind = {"id": "Yb0RFKhbpFJA.wav", "caption": "Wind and a man speaking | are heard.", "duration": 10.0}
    banned = wind | {"id": "Y7fmOlUlwoNg.wav"}
    text(lists / "AudioSet_SL" / "as_final.json", json.dumps({"data": [wind, banned]}))
    sounds = [wind | {"id": "2218", "tags": ["ringtone"]}, wind | {"id": "180913"}]
    text(lists / "FreeSound" / "fsd_final.json", json.dumps({"data": sounds}))
    blacklist = {"AudioSet": ["Y7fmOlUlwoNg.wav"], "FreeSound": ["180913"]}
    text(lists / "blacklist" / "blacklist_exclude_all_ac.json", json.dumps(blacklist))
    sound(root / "SoundBible" / "2218.flac", 0.2)
    for name in (
        "FreeSound_flac/2218",
        "FreeSound_flac/180913",
        "AudioSet_SL_flac/Yb0RFKhbpFJA",
        "AudioSet_SL_flac/Y7fmOlUlwoNg",
    ):
        sound(root / "waveforms" / f"{name}.flac")


def vggsound(root, leak=False):
    rows = ["---g-f_I2yQ,1,people marching,test", "--0PQM4-hqg,30,waterfall burbling,train"]
    rows += ['2XQzahrQ_tE,10,"bird chirping, tweeting",train', "2XQzahrQ_tE,200,playing accordion,train"]
    rows += ["---g-f_I2yQ,50,people clapping,train"] if leak else []
    text(root / "vggsound.csv", *rows)
    for name in ("---g-f_I2yQ_000001.wav", "---g-f_I2yQ_000050.wav", "2XQzahrQ_tE_000200.flac"):
        sound(root / "audio" / name)
    for start in ("000010", "000200"):
        film(root / "video" / f"2XQzahrQ_tE_{start}.mp4")


def music(root, leak=False):
    solo = {"acoustic_guitar": ["ZeQPNWdFs_4", "IPsA3sz934M"], "violin": ["w81p5ty4OZc"]}
    duet = {"acoustic_guitar violin": ["ZeQPNWdFs_4" if leak else "mP6C1DHHcqE"]}
    text(root / "MUSIC_solo_videos.json", json.dumps({"version": 1.0, "videos": solo}))
    text(root / "MUSIC_duet_videos.json", json.dumps({"version": 1.0, "videos": duet}))
    text(root / "MUSIC_solo_test.csv", MUSIC_TEST.format("acoustic_guitar", "ZeQPNWdFs_4"))
    for name in ("guitar/ZeQPNWdFs_4", "guitar/IPsA3sz934M", "violin/w81p5ty4OZc", "duet/mP6C1DHHcqE"):
        sound(root / "audio" / f"{name}.wav", 0.3)


def musdb18hq(root, leak=False):
    songs = ["train/A Classic Education - NightOwl", "train/Leaf - Summerghost", "test/AM Contra - Heart Peripheral"]
    for song in songs + (["test/Leaf - Summerghost"] if leak else []):
        for stem in ("mixture", "drums", "bass", "other", "vocals"):
            sound(root / song / f"{stem}.wav")


def slakh2100(root, leak=False):
    rendered = {"audio_rendered": True, "is_drum": False, "plugin_name": "elektrik_guitar.nkm", "program_num": 30}
    stems = {
        "S00": rendered | {"inst_class": "Guitar", "midi_program_name": "Distortion Guitar"},
        "S01": rendered | {"inst_class": "Strings (continued)", "midi_program_name": "Choir Aahs"},
        "S02": rendered | {"inst_class": "Bass", "midi_program_name": "Fretless Bass", "audio_rendered": False},
    }
    for number, split in enumerate(("train", "validation", "test", "omitted"), 1):
        track = root / split / f"Track{number:05d}"
        uuid = "1a81ae092884234f3264e2f45927f00a" if leak or number == 1 else f"{number:032x}"
        # YAML holds JSON.
        text(track / "metadata.yaml", json.dumps({"UUID": uuid, "audio_dir": "stems", "stems": stems}))
        sound(track / "stems" / "S00.flac")
        sound(track / "stems" / "S01.flac")


def voicebank(root, leak=False):
    for part, names in (("trainset_28spk", ("p226_001", "p226_002", "p287_001")), ("testset", ("p232_001",))):
        for name in (*names, *(("p226_003",) if leak and part == "testset" else ())):
            sound(root / f"clean_{part}_wav" / f"{name}.wav")
            sound(root / f"noisy_{part}_wav" / f"{name}.wav")


def hive_mixture(name, *sources, seconds=4.0, split="train", norm=0.5, rate=44100):
    """Metadata of a mixture of (path, label, chunk start, crop start, weight)."""
    return {
        "mix_id": name,
        "dataset_info": {"split": split, "sample_rate": rate, "target_duration": seconds},
        "sources": [
            {
                "source_id": f"s{number}", "path": path, "label": label,
                "crop_start_second": crop, "crop_end_second": crop + seconds,
                "chunk_start_second": chunk, "chunk_end_second": chunk + 10.0,
                "rms_gain": weight, "snr_db": 0.0, "applied_weight": weight,
            }
            for number, (path, label, chunk, crop, weight) in enumerate(sources, 1)
        ],
        "mixing_params": {"global_normalization_factor": norm, "final_max_amplitude": 0.95},
    }  # fmt: skip


def hive(root, leak=False):
    a, b, c = ("VGGSound/a.wav", "Ocean", 0.0, 1.5, 2.0), ("ESC50/b.wav", "Dog", 0.0, 0.5, 1.0), ("AVE/c.wav", "Dog")
    mixtures = {"train": [hive_mixture("m1", a, b), hive_mixture("m2", b, (*c, 20.0, 3.0, 1.0))]}
    mixtures["test"] = [hive_mixture("m1", ("AVE/d.wav", "Ocean", 0.0, 0.0, 1.0), b if leak else (*c, 0.0, 0.0, 1.0))]
    if not leak:
        mixtures["test"][0]["sources"].pop()
    for split, found in mixtures.items():
        text(root / "metadata" / split / "2mix" / f"{split}_2mix_metadata_tar0001.json", json.dumps(found))
    for path, seconds in (("VGGSound/a.wav", 10.0), ("ESC50/b.wav", 5.0), ("AVE/c.wav", 31.0), ("AVE/d.wav", 10.0)):
        sound(root / path, seconds)


LAYOUTS = {
    "audiocaps": audiocaps,
    "audioset-balanced": audioset("balanced"),
    "audioset-eval": audioset("eval"),
    "audioset-full": audioset("balanced", "unbalanced", "eval"),
    "audioset-unbalanced": audioset("unbalanced"),
    "clotho": clotho,
    "esc50": esc50,
    "fsd50k": fsd50k,
    "fsdkaggle2018": fsdkaggle2018,
    "musdb18": musdb18hq,  # as it is once its stems are taken out
    "musdb18-hq": musdb18hq,
    "hive": hive,
    "music": music,
    "slakh2100": slakh2100,
    "vggsound": vggsound,
    "voicebank-demand": voicebank,
    "wavcaps": wavcaps,
}
CANNOT_LEAK = {"audioset-balanced", "audioset-eval", "audioset-unbalanced", "music", "wavcaps"}
"""Those of one split only, and MUSIC, whose test list moves a video wherever it stands."""
