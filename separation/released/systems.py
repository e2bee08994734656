"""One record per published system: how its checkpoint is recognised, built, queried, described and downloaded.

Addresses and scores are those that the authors published; docs/released.md says where each was seen. A checksum is
given where its publisher shows one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.storage.download import RemoteFile
from separation.storage.folders import cache_folder

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]


# Networks by class path, with a pattern that matches a tensor which only this network has. Wrappers put any prefix
# before the names, which is group 1.
RESUNET = "separation.models.resunet.ResUNet30"
CLIPSEP_UNET = "separation.models.clipsep_unet.CLIPSepUNet"
BIMODAL_UNET = "separation.models.bimodal_unet.BiModalUNet"
SIGNS = {
    RESUNET: re.compile(
        r"^(.*?)(?:base\.(?:bn0|pre_conv|after_conv|conv_block7a|(?:en|de)coder_block\d)\.|film\.\w+->)"
    ),
    BIMODAL_UNET: re.compile(r"^(.*?)(?:net_sound|net_synthesizer)\."),
    CLIPSEP_UNET: re.compile(r"^(.*?)(?:sound_net|synth_net|frame_net)\."),
}

# Published weights of encoders, for checkpoints that do not hold them: file name, name for messages, home.
LAION = "https://huggingface.co/lukewys/laion_clap"
CLAP = ("music_speech_audioset_epoch_15_esc_89.98.pt", "the encoder CLAP", LAION)
MUSIC_CLAP = ("music_audioset_epoch_15_esc_90.14.pt", "the encoder CLAP", LAION)
CLIP_HOME = "https://huggingface.co/timm/vit_base_patch32_clip_224.openai"
CLIP = ("open_clip_model.safetensors", "the encoder CLIP", CLIP_HOME)
CNN14 = ("Cnn14_mAP=0.431.pth", "the tagger PANNs Cnn14", "https://zenodo.org/records/3987831")

Match = Callable[[Tensors], "dict[str, Any] | None"]


@dataclass(frozen=True)
class System:
    """A published system.

    Attributes:
        name: as in `separate --list-models`.
        network: class path, with a pattern in `SIGNS`.
        match: returns the network's arguments if the tensors of such a network are those of this system, else None.
        encoders: kind of encoder (see `released.encoder`) by form of query, in the order in which they are listed.
        encoder_file: weights of the encoder, used if the checkpoint does not hold them.
        condition_dim: size of a condition, unless the network's arguments give it.
        unit_length: whether conditions have unit length.
        refusals: why a form of query is not possible, in one sentence.
        description, sample_rate, licence, scores, size: card; a system without description is not listed.
        home: page of its checkpoint.
        file: its checkpoint, if the address is known.
        filename: published name of its checkpoint, if there is no `file`.
        config: its published configuration, which gives the sample rate, if it lies beside the checkpoint.
        by_name: its tensors are those of another system: a file is taken for this one if it has the published name.
    """

    name: str
    network: str
    match: Match
    encoders: Mapping[str, str]
    encoder_file: tuple[str, str, str] | None = None
    condition_dim: int = 512
    unit_length: bool = False
    refusals: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    sample_rate: int = 16000
    licence: str = "not stated"
    scores: str = "unknown"
    size: str = "unknown"
    home: str = ""
    file: RemoteFile | None = None
    filename: str = ""
    config: RemoteFile | None = None
    by_name: bool = False

    @property
    def queries(self) -> tuple[str, ...]:
        """Forms of query, as shown to users."""
        return (*self.encoders, "embedding")

    @property
    def checkpoint_name(self) -> str:
        """Published name of its checkpoint."""
        return self.file.filename if self.file else self.filename

    @property
    def own_file(self) -> Path:
        """Where users put the checkpoint if no address is known: the system's name with the published suffix."""
        suffixes = Path(self.filename).suffixes[-2 if ".pth." in self.filename else -1 :]
        return cache_folder() / (self.name + "".join(suffixes))


def resunet_size(tensors: Tensors) -> tuple[int, int]:
    """Return (condition_dim, frequency bins) of a ResUNet30 from the shapes of its tensors; 0 if nothing tells."""
    dims = Counter(v.shape[1] for k, v in tensors.items() if k.startswith("film.") and v.ndim == 2)
    bins = Counter(len(v) for k, v in tensors.items() if k.startswith("base.bn0.") and v.ndim == 1)
    dim, count = ([*sizes.most_common(1), (0, 0)][0][0] for sizes in (dims, bins))
    return dim, count


def match_resunet(condition_dim: int, sample_rate: int, **more: int) -> Match:
    """Match a ResUNet30 of one size."""
    sizes = {"n_fft": 2048 * sample_rate // 32000, "hop": sample_rate // 100}
    arguments = {"condition_dim": condition_dim, "sample_rate": sample_rate, **sizes, **more}
    return lambda tensors: arguments if resunet_size(tensors) == (condition_dim, sizes["n_fft"] // 2 + 1) else None


def has(*names: str, **arguments: Any) -> Match:
    """Match checkpoints with a tensor whose name begins with one of these."""
    return lambda tensors: arguments if any(name.startswith(names) for name in tensors) else None


def with_noise_heads(tensors: Tensors) -> dict[str, Any] | None:
    """Match CLIPSep-NIT and count its heads."""
    heads = {name.split(".")[1] for name in tensors if name.startswith("pit_nets.")}
    return {"noise_heads": len(heads)} if heads else None


MIT, APACHE = (f"code {licence}, weights not stated" for licence in ("MIT", "Apache-2.0"))
NIT_ONLY = "not available: only the NIT weights are announced"
HIVE_HOME = "https://huggingface.co/AlayaLab/AudioSep-hive"
USS_HOME = "https://huggingface.co/RSNuts/Universal_Source_Separation"
NO_CLASSES = (
    "This model takes no class ids: its condition is the tagger's embedding, whose 2048 numbers stand for no classes, "
    'so masking them by class would mean nothing; use the 527-class model ("uss"), example audio or an embedding.'
)
NO_SENTENCES = "BERTSep's sentence vectors were published outside its checkpoint; give embeddings of 256 numbers."


def clipsep(name: str, match: Match, **record: Any) -> System:
    """Return the record of a relative of CLIPSep, which takes texts and images unless the record says otherwise."""
    common = {"encoders": {"text": "clip", "image": "clip"}, "encoder_file": CLIP, "filename": "best_model.pt"}
    return System(name, CLIPSEP_UNET, match, home="https://github.com/sony/CLIPSep", **{**common, **record})


def audiosep(name: str, sample_rate: int, **record: Any) -> System:
    """Return the record of a ResUNet30 that CLAP queries."""
    return System(
        name, RESUNET, match_resunet(512, sample_rate), encoders={"text": "clap", "audio": "clap"}, encoder_file=CLAP,
        unit_length=True, sample_rate=sample_rate, **record,
    )  # fmt: skip


# If a checkpoint matches several records of its layout, the last one counts: variants stand after what they vary.
SYSTEMS = {
    system.name: system
    for system in (
        audiosep(
            "audiosep",
            32000,
            description="AudioSep (Liu et al., 2023): ResUNet30 queried by CLAP",
            licence=MIT,
            scores="SDRi dB: AudioCaps 8.22, VGGSound 9.14, AudioSet 7.74, MUSIC 10.51, ESC-50 10.04, Clotho 6.85",
            size="1.26 GB",
            home="https://huggingface.co/spaces/Audio-AGI/AudioSep",
            file=RemoteFile(
                "https://huggingface.co/spaces/Audio-AGI/AudioSep/resolve/main/checkpoint/audiosep_base_4M_steps.ckpt",
                "audiosep_base_4M_steps.ckpt",
                size=1264844076,
                # As Hugging Face shows it for this file at the Space's commit 0a03745.
                sha256="f8cda01bfd0ebd141eef45d41db7a3ada23a56568465840d3cff04b8010ce82c",
            ),
        ),
        audiosep(
            "audiosep-hive",
            32000,
            description="AudioSep trained on Hive (Li et al., 2026): ResUNet30 queried by CLAP",
            licence="Apache-2.0",
            scores="Hive dB, not verified here: SDR 5.67, SI-SDR 5.02",
            size="1.26 GB",
            home=HIVE_HOME,
            file=RemoteFile(
                f"{HIVE_HOME}/resolve/main/audiosep_hive.ckpt",
                "audiosep_hive.ckpt",
                size=1264846755,
                # As two repositories quote it for revision 113d2e4.
                sha256="a13fff5fa4ece1a8bc13e42e1c7b8d90e21603075302ca89e4339c9471973300",
            ),
            config=RemoteFile(f"{HIVE_HOME}/resolve/main/config.yaml", "audiosep_hive.yaml"),
            by_name=True,
        ),
        audiosep(
            "dcase2024",
            16000,
            description="Baseline of DCASE 2024 task 9: AudioSep at 16 kHz",
            licence=MIT,
            scores="validation dB: SDR 5.71, SDRi 5.67, SI-SDR 3.86",
            size="1.2 GB",
            home="https://zenodo.org/records/10887460",
            file=RemoteFile(
                "https://zenodo.org/records/10887460/files/audiosep_16k,baseline,step%3D200000.ckpt",
                "audiosep_16k,baseline,step=200000.ckpt",
            ),
        ),
        System(
            "uss",
            RESUNET,
            match_resunet(527, 32000, segment=64000),
            encoders={"label": "classes", "audio": "tagger probabilities"},
            encoder_file=CNN14,
            description="USS (Kong et al., 2023): ResUNet30 queried by 527 class probabilities",
            sample_rate=32000,
            licence=APACHE,
            scores="SDRi dB: AudioSet 5.57, FSDKaggle2018 10.57, MUSDB18 8.12, Slakh2100 7.28; VB-DEMAND SSNR 9.00",
            size="1.12 GB",
            home=USS_HOME,
            file=RemoteFile(
                f"{USS_HOME}/resolve/main/uss_material/"
                "ss_model%3Dresunet30%2Cquerynet%3Dat_soft%2Cdata%3Dfull%2Cdevices%3D8%2Cstep%3D1000000.ckpt",
                "ss_model=resunet30,querynet=at_soft,data=full,devices=8,step=1000000.ckpt",
                size=1121024828,
            ),
        ),
        System(
            "uss-embedding",
            RESUNET,
            match_resunet(2048, 32000, segment=64000),
            encoders={"audio": "tagger embedding"},
            encoder_file=CNN14,
            refusals={"label": NO_CLASSES},
            description="USS (Kong et al., 2023): ResUNet30 queried by a 2048-number tagger embedding",
            sample_rate=32000,
            licence=APACHE,
            scores="not published for this one",
            home=USS_HOME,
            filename="ss_model=resunet30,querynet=emb,data=balanced,devices=1,steps=1000000.ckpt",
        ),
        clipsep(
            "clipsep",
            lambda tensors: {},
            description="CLIPSep (Dong et al., 2023): U-Net queried by CLIP",
            licence=MIT,
            scores=NIT_ONLY,
            size="121 MB",
        ),
        clipsep(
            "bertsep",
            lambda t: (
                {"condition_dim": 256} if "frame_net.weight" in t and t["frame_net.weight"].shape[-1] == 256 else None
            ),
            encoders={},
            refusals=dict.fromkeys(("text", "audio", "label", "image"), NO_SENTENCES),
        ),
        clipsep(
            "clipsep-nit",
            with_noise_heads,
            description="CLIPSep-NIT (Dong et al., 2023): trained with noise heads on VGGSound",
            licence=MIT,
            scores="MUSIC+, as a later paper measured: SDR 11.03, SI-SDRi 7.53 dB",
            size="121 MB",
        ),
        clipsep(
            "labelsep",
            lambda t: {"labels": len(t["label_net.weight"])} if "label_net.weight" in t else None,
            encoders={"label": "table"},
            description="LabelSep (Dong et al., 2023): CLIPSep's U-Net queried by a table of labels",
            licence=MIT,
            scores=NIT_ONLY,
            size="122 MB",
        ),
        clipsep("clipsep-middle", has("sound_net.unet_block.downconv.", fusion="middle")),
        clipsep("clipsep-early", has("frame_net.fc.weight", fusion="early")),
        clipsep(
            "clipsep-pit", has("synth_net.weight", fusion="none"), encoders={"label": "output number"}, condition_dim=2
        ),
        System(
            "bimodal",
            BIMODAL_UNET,
            lambda tensors: {},
            encoders={"text": "clap states"},
            encoder_file=MUSIC_CLAP,
            condition_dim=512 + 77 * 768,
            description="Bi-modal weak supervision (Mahmud et al., 2024): U-Net with CLAP cross-attention",
            licence=MIT,
            scores="SDR 7.9 dB on mixtures of two, trained on mixtures only",
            size="1.2 GB",
            home="https://github.com/microsoft/BiModalAudioSeparation",
            filename="model_best.pth.tar",
        ),
    )
}

LISTED = {name: system for name, system in SYSTEMS.items() if system.description}
"""The systems that are known by name; checkpoints of the others are recognised when they are given as files."""
