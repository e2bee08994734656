"""The released systems by name: what they take, what they scored, where they live.

Addresses and figures are those that the systems' authors published. Where a home's checksum was seen it is written
down and a download must have it; of the others a file's own is recorded when it is first fetched. docs/released.md says
where each was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from separation.cache import cache_folder
from separation.checkpoints.download import NoConnectionError, RemoteFile, fetch
from separation.description import Card, ModelError


@dataclass(frozen=True)
class Released(Card):
    """Card of a released system.

    Attributes:
        home: page to get its checkpoint from.
        file: the checkpoint, where its address is known.
        filename: what the checkpoint is called.
    """

    home: str = ""
    file: RemoteFile | None = None
    filename: str = ""

    @property
    def verified(self) -> bool:
        """Whether a checksum is published that its checkpoint is held to."""
        return self.file is not None and self.file.sha256 is not None

    @property
    def on_disk(self) -> bool:
        """Whether its checkpoint lies in the cache."""
        return self.place.is_file()

    @property
    def place(self) -> Path:
        """Where its checkpoint lies in the cache, or is to be put where no address is known."""
        own_name = self.name + "".join(Path(self.filename).suffixes[-2 if ".pth." in self.filename else -1 :])
        return cache_folder() / (self.file.filename if self.file else own_name)


AUDIOSEP = RemoteFile(
    "https://huggingface.co/spaces/Audio-AGI/AudioSep/resolve/main/checkpoint/audiosep_base_4M_steps.ckpt",
    "audiosep_base_4M_steps.ckpt",
    size=1264844076,
    # As Hugging Face shows it for this file at the Space's commit 0a03745; the file itself was not at hand.
    sha256="f8cda01bfd0ebd141eef45d41db7a3ada23a56568465840d3cff04b8010ce82c",
)
USS = RemoteFile(
    "https://huggingface.co/RSNuts/Universal_Source_Separation/resolve/main/uss_material/"
    "ss_model%3Dresunet30%2Cquerynet%3Dat_soft%2Cdata%3Dfull%2Cdevices%3D8%2Cstep%3D1000000.ckpt",
    "ss_model=resunet30,querynet=at_soft,data=full,devices=8,step=1000000.ckpt",
    size=1121024828,
)
DCASE2024 = RemoteFile(
    "https://zenodo.org/records/10887460/files/audiosep_16k,baseline,step%3D200000.ckpt",
    "audiosep_16k,baseline,step=200000.ckpt",
)
NIT_ONLY = "not available: only the NIT weights are announced"
CODE_ONLY = "code {}, weights not stated"


def _card(name: str, description: str, queries: str, rate: int, licence: str, scores: str, size: str, home: str,
          file: RemoteFile | None = None, filename: str = "") -> Released:  # fmt: skip
    forms, filename = tuple(queries.split()), file.filename if file else filename
    licence = CODE_ONLY.format(licence)
    return Released(name, description, forms, rate, size, licence, scores, Path(name), home, file, filename)


CLIPSEP_HOME = "https://github.com/sony/CLIPSep"
USS_HOME = "https://huggingface.co/RSNuts/Universal_Source_Separation"
USS_SCORES = "SDRi dB: AudioSet 5.57, FSDKaggle2018 10.57, MUSDB18 8.12, Slakh2100 7.28; VB-DEMAND SSNR 9.00"

RELEASED = {
    card.name: card
    for card in (
        _card(
            "audiosep", "AudioSep (Liu et al., 2023): ResUNet30 queried by CLAP", "text audio embedding", 32000, "MIT",
            "SDRi dB: AudioCaps 8.22, VGGSound 9.14, AudioSet 7.74, MUSIC 10.51, ESC-50 10.04, Clotho 6.85",
            "1.26 GB", "https://huggingface.co/spaces/Audio-AGI/AudioSep", AUDIOSEP,
        ),
        _card(
            "dcase2024", "Baseline of DCASE 2024 task 9: AudioSep at 16 kHz", "text audio embedding", 16000, "MIT",
            "validation dB: SDR 5.71, SDRi 5.67, SI-SDR 3.86", "1.2 GB", "https://zenodo.org/records/10887460",
            DCASE2024,
        ),
        _card(
            "uss", "USS (Kong et al., 2023): ResUNet30 queried by 527 class probabilities", "label audio embedding",
            32000, "Apache-2.0", USS_SCORES, "1.12 GB", USS_HOME, USS,
        ),
        _card(
            "uss-embedding", "USS (Kong et al., 2023): ResUNet30 queried by a 2048-number tagger embedding",
            "audio embedding", 32000, "Apache-2.0", "not published for this one", "unknown", USS_HOME,
            filename="ss_model=resunet30,querynet=emb,data=balanced,devices=1,steps=1000000.ckpt",
        ),
        _card(
            "clipsep", "CLIPSep (Dong et al., 2023): U-Net queried by CLIP", "text image embedding", 16000, "MIT",
            NIT_ONLY, "121 MB", CLIPSEP_HOME, filename="best_model.pt",
        ),
        _card(
            "clipsep-nit", "CLIPSep-NIT (Dong et al., 2023): trained with noise heads on VGGSound",
            "text image embedding", 16000, "MIT", "MUSIC+, as a later paper measured: SDR 11.03, SI-SDRi 7.53 dB",
            "121 MB", CLIPSEP_HOME, filename="best_model.pt",
        ),
        _card(
            "labelsep", "LabelSep (Dong et al., 2023): CLIPSep's U-Net queried by a table of labels", "label embedding",
            16000, "MIT", NIT_ONLY, "122 MB", CLIPSEP_HOME, filename="best_model.pt",
        ),
        _card(
            "bimodal", "Bi-modal weak supervision (Mahmud et al., 2024): U-Net with CLAP cross-attention",
            "text embedding", 16000, "MIT", "SDR 7.9 dB on mixtures of two, trained on mixtures only", "1.2 GB",
            "https://github.com/microsoft/BiModalAudioSeparation", filename="model_best.pth.tar",
        ),
    )
}  # fmt: skip


EXAMPLES = {"text": "--query rain", "label": "--query-class 3", "audio": "--query-audio rain.wav"}
"""Options that ask for something, by the query's form."""


def find_released(name: str, offline: bool | None = None) -> Path:
    """The checkpoint of a released system, fetched from its home if need be.

    Raises:
        ModelError: it cannot be had; the sentence says what is missing, where to get it and which command uses it.
    """
    card = RELEASED[name]
    if card.file is None and card.on_disk:
        return card.place
    if card.file is None:
        raise ModelError(advice(card, "no address is known to fetch them from"))
    try:
        return fetch(card.file, offline=offline)
    except NoConnectionError as error:
        raise ModelError(advice(card, str(error))) from None


def advice(card: Released, reason: str) -> str:
    """What is missing, where to get it and which command uses it, in one sentence."""
    where, size = card.file.url if card.file else card.home, "" if card.size == "unknown" else f" ({card.size})"
    keep = "" if card.file else f" (or keep it as {card.place} and use this name)"
    return (
        f'The weights of the model "{card.name}" are not on this computer, and {reason}: '
        f"get {card.filename}{size} from {where} and then use "
        f'separate --model "{card.filename}" {EXAMPLES[card.queries[0]]} mix.wav{keep}'
    )
