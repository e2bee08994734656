"""Models on the Hugging Face Hub: `owner/name`, or `owner/name@revision` for a branch, tag or commit.

A repository holds a model directory, see `pretrained`. The first use records the commit and the checksum of the
weights; later uses load the same files, without the network. A later commit is used only if it is named.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from separation.errors import ModelError, one_sentence, reason
from separation.storage.download import (
    NoConnectionError,
    RemoteFile,
    is_offline,
    verify,
    write_json,
)
from separation.storage.folders import cache_folder, hub_cache

NAME = re.compile(r"(?P<repository>\w[\w.-]*/[\w.-]+?)(@(?P<revision>[\w./-]+))?")
NEEDED = {"config.yaml", "model.safetensors"}
USED = re.compile(r"config\.yaml|(model|sounds)\.safetensors|README\.md|(ATTRIBUTION|LICEN[SC]E)[\w.-]*")


def is_repository(name: str) -> bool:
    """Return whether a name can be that of a repository; a path below a folder that exists is not."""
    return NAME.fullmatch(name) is not None and not Path(name.split("/")[0]).exists()


def find_repository(name: str, offline: bool | None = None) -> Path:
    """Return the folder with the files of a repository, downloaded if they are not on this computer and not `offline`.

    Raises ModelError if there is no such repository, it holds no model, it cannot be downloaded, or its weights are not
    those that were recorded.
    """
    matched = NAME.fullmatch(name)
    assert matched, name
    repository, endpoint = matched["repository"], os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    record_file = cache_folder() / "hub" / f"{quote(name, safe='')}.json"
    try:
        record = dict(json.loads(record_file.read_text(encoding="utf-8")))
        if not (
            re.fullmatch(r"\w+", record["revision"]) and {"sha256"} <= set(record) and set(record["files"]) >= NEEDED
        ):
            raise ValueError("not a record of a repository")
        folder = hub_cache() / f"models--{repository.replace('/', '--')}" / "snapshots" / record["revision"]
        missing = [file for file in record["files"] if not (folder / file).is_file()]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        record, folder, missing = {}, Path(), sorted(NEEDED)
    if missing:
        if is_offline(offline):
            raise NoConnectionError(
                f'The model "{name}" is not on this computer, and the network must not be used (offline): '
                f"{' and '.join(missing)} of {endpoint}/{repository} are missing."
            )
        try:
            from huggingface_hub import snapshot_download

            record = record or describe_repository(repository, matched["revision"], endpoint)
            place: dict[str, Any] = {"revision": record["revision"], "cache_dir": hub_cache(), "endpoint": endpoint}
            folder = Path(snapshot_download(repository, **place, allow_patterns=record["files"]))
        except ModelError:
            raise
        except Exception as error:  # of the hub's client and of the libraries below it
            why = one_sentence(error)[:200].rstrip(". ") or type(error).__name__
            raise NoConnectionError(
                f'There is no folder "{name}", and no model of this name could be downloaded from {endpoint}: {why}.'
            ) from None
    weights = f"hub/{repository.replace('/', '--')}/{record['revision']}/model.safetensors"
    verify(folder / "model.safetensors", RemoteFile(f"{endpoint}/{repository}", weights, sha256=record["sha256"]))
    if missing:
        try:
            write_json(record_file, record)
        except OSError as error:
            raise ModelError(f"{record_file} cannot be written: {reason(error)}.") from None
    return folder


def describe_repository(repository: str, revision: str | None, endpoint: str) -> dict[str, Any]:
    """Ask for the commit of a revision, the names of its files that are used, and the checksum of its weights."""
    from huggingface_hub import HfApi

    info = HfApi(endpoint=endpoint).model_info(repository, revision=revision, files_metadata=True, timeout=30)
    found = {each.rfilename: each for each in info.siblings or () if USED.fullmatch(each.rfilename)}
    if missing := sorted(NEEDED - set(found)):
        raise ModelError(f"{endpoint}/{repository} holds no model of this package: {' and '.join(missing)} missing.")
    large_file = found["model.safetensors"].lfs
    return {"revision": info.sha, "files": sorted(found), "sha256": large_file.sha256 if large_file else None}


def upload(folder: Path, repository: str, private: bool, token: str | None) -> str:
    """Upload the files of a model directory as one commit and return its address.

    Raises ModelError if that fails; a repository that did not exist before may then exist, without a commit.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload a model")
    except Exception as error:  # of the hub's client and of the libraries below it
        why = one_sentence(str(error.__cause__ or error))[:300].rstrip(". ")
        raise ModelError(f"{repository} could not be uploaded: {why}.") from None
    return str(commit.commit_url)
