"""Weights: read, checked, put into a network. Nothing is unpickled at serving."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from app import tasks
from app.errors import ModelLoadError
from app.models.manifests import Manifest
from app.storage import files

Tensors = dict[str, torch.Tensor]


def load_into(network: nn.Module, manifest: Manifest) -> None:
    """Load the manifest's weights into the network, after comparing their SHA-256.

    fp16 and bf16 weights become the network's fp32. Raises ModelLoadError when the file is missing, was altered, or
    does not fit the architecture.
    """
    raw = _read_checked(manifest)
    try:
        tensors = safetensors.torch.load(raw)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelLoadError(
            f"{manifest.weights_path} is not a safetensors file: {error}.", hint="Add it again with `make model-add`."
        ) from None
    ignored = tasks.BY_NAME[manifest.task].model_class.other_heads
    fit(network, tensors, f"{manifest.weights_path}", len(manifest.labels), ignored)


def _read_checked(manifest: Manifest) -> bytes:
    path = manifest.weights_path
    try:
        raw = files.read(path, files.most_weights())
    except FileNotFoundError:
        raise ModelLoadError(
            f"The weights {path} do not exist.", hint="Restore the file from a backup, or add the model again."
        ) from None
    except OSError as error:
        raise ModelLoadError(
            f"The weights {path} cannot be read: {files.reason(error)}.",
            hint="The service's user must be able to read it, and it must be a regular file.",
        ) from None
    found = hashlib.sha256(raw).hexdigest()
    if found != manifest.sha256:
        raise ModelLoadError(
            f"{path} ({len(raw)} bytes) has SHA-256 {found}; the manifest expects {manifest.sha256}.",
            hint="The file was altered or cut off. Restore it from a backup, or add it as a new version.",
        )
    return raw


def fit(network: nn.Module, tensors: Mapping[str, torch.Tensor], source: str, labels: int, ignored: str = "") -> None:
    """Copy the tensors into the network. ``ignored``: names that may be there besides, as a pattern.

    Raises ModelLoadError naming the first that is missing or does not fit.
    """
    expected = network.state_dict()
    # Counters of BatchNorm that no prediction reads; older checkpoints and frozen norms lack them.
    needed = [name for name in expected if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in tensors]
    extra = [
        name
        for name in tensors
        if name not in expected and not name.endswith("num_batches_tracked")
        # Versions that were added before these heads were left out have their weights.
        if not (ignored and re.match(ignored, name))
    ]
    wrong = [name for name in needed if name in tensors and tensors[name].shape != expected[name].shape]
    for names, what in ((missing, "is missing"), (extra, "is not part of the architecture")):
        if names:
            raise ModelLoadError(
                f"{source} does not fit: {names[0]} {what} (and {len(names) - 1} more).",
                hint="Is the architecture, with its options, the one that these weights were trained with?",
            )
    if wrong:
        name = wrong[0]
        raise ModelLoadError(
            f"{source} does not fit: {name} is {list(tensors[name].shape)}, {list(expected[name].shape)} is expected.",
            hint=f"The manifest has {labels} labels (with the background, where one is counted). Is that their number?",
        )
    network.load_state_dict({name: tensors[name] for name in tensors if name in expected}, strict=False)


def write(path: Path, tensors: Mapping[str, torch.Tensor], *, half: bool = False) -> str:
    """Write tensors as safetensors, floating ones as fp16 when ``half``; returns the file's SHA-256 in hexadecimal."""
    stored = {
        name: (value.half() if half and value.is_floating_point() else value).detach().clone().contiguous()
        for name, value in tensors.items()
    }
    raw = safetensors.torch.save(stored)
    path.write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()
