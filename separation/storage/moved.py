# ruff: noqa: E501
"""Earlier class paths and where these classes are now.

Model directories, checkpoints and training configurations name classes by their path. Every path goes through
`resolve`, so that what was written with an earlier version still works.
"""

from __future__ import annotations

import re

MOVED: dict[str, str] = {
    # earlier path: present path, one class or function a row
    "separation.encoders.released.ReleasedEncoder": "separation.released.encoder.ReleasedEncoder",
    "separation.encoders.states.StatesEncoder": "separation.released.encoder.StatesEncoder",
    "separation.encoders.sound.SoundEncoder": "separation.encoders.joint.JointEncoder",
    "separation.encoders.frame_tagger.FrameTagger": "separation.encoders.taggers.FrameTagger",
    "separation.encoders.detector.ReleasedDetector": "separation.encoders.panns.ReleasedDetector",
    "separation.encoders.stand_in.StandIn": "separation.encoders.table.RandomEncoder",
    "separation.encoders.shown.Shown": "separation.encoders.table.NamedEmbeddings",
    "separation.callbacks.checkpoints.Best": "separation.training.callbacks.Best",
    "separation.callbacks.checkpoints.Last": "separation.training.callbacks.Last",
    "separation.callbacks.examples.Examples": "separation.training.callbacks.Examples",
    "separation.callbacks.speed.Speed": "separation.training.callbacks.Speed",
    "separation.data.pictured.FrameData": "separation.data.queried.QueriedData",
    "separation.data.shards.ShardedClips": "separation.data.streaming.ShardedClips",
    "separation.data.streamed.StreamedData": "separation.data.queried.QueriedData",
    "separation.data.streamed_tagged.StreamedTaggedData": "separation.data.tagged.TaggedData",
    "separation.objectives.bands.BandSupervised": "separation.training.objectives.bands.BandSupervised",
    "separation.objectives.bimodal.BiModal": "separation.training.objectives.bimodal.BiModal",
    "separation.objectives.contrastive.Contrastive": "separation.training.objectives.contrastive.Contrastive",
    "separation.objectives.noise_invariant.NoiseInvariant": "separation.training.objectives.noise_invariant.NoiseInvariant",
    "separation.objectives.optimisers.AdamW": "separation.training.optimiser.AdamW",
    "separation.objectives.supervised.Supervised": "separation.training.objectives.supervised.Supervised",
    "separation.objectives.tagging.Tagging": "separation.training.objectives.tagging.Tagging",
    "separation.objectives.weakly_supervised.WeaklySupervised": "separation.training.objectives.weakly_supervised.WeaklySupervised",
}


def resolve(path: str) -> str:
    """Return the present path of a class; a path that has not moved is returned as it is."""
    return MOVED.get(path, path)


def resolve_text(text: str) -> str:
    """Replace every moved class path in a text, such as a YAML file or a command-line argument."""
    return re.sub(r"(?<![\w.])separation(?:\.\w+)+", lambda match: resolve(match[0]), text)
