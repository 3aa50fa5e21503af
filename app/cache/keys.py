"""Under which key an answer is kept: everything that shapes it goes in, and nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from app import __version__
from app.inference.results import Options

# Counts up when entries or keys change their shape.
FORMAT = 1
# 192 bits: nobody finds two pictures with one key, and no byte is wasted on padding.
KEY_BYTES = 24


def key(image: bytes | np.ndarray, image_options: Options, model_digest: str, form: str) -> str:
    """The key for one image as it came, encoded or as pixels. ``form``: see ``app.models.runtime_variant``.

    SHA-256, because two pictures with one digest would let a caller forge others' answers; with the
    processor's own instructions it is also the fastest of the safe ones here (docs/decisions/0016-cache.md).
    """
    hashed = _start(model_digest, form).copy()
    if isinstance(image, bytes):
        hashed.update(f"{image_options!r} {len(image)}\n".encode())
        hashed.update(image)
    else:
        hashed.update(f"{image_options!r} {image.shape}\n".encode())
        hashed.update(np.ascontiguousarray(image).data)
    return base64.b64encode(hashed.digest()[:KEY_BYTES]).decode()


def code_key(item: Mapping[str, Any], options: Mapping[str, Any], model_digest: str) -> str:
    """The key for one item of a model with code, as it came: values by name, of which some are bytes."""
    hashed = _start(model_digest, "code").copy()
    values = {name: value for name, value in item.items() if not isinstance(value, bytes)}
    hashed.update(json.dumps([values, options], sort_keys=True).encode() + b"\n")
    for name, value in sorted(item.items()):
        if isinstance(value, bytes):
            hashed.update(f"{name} {len(value)}\n".encode())
            hashed.update(value)
    return base64.b64encode(hashed.digest()[:KEY_BYTES]).decode()


@functools.lru_cache(maxsize=256)
def _start(model_digest: str, form: str) -> hashlib._Hash:
    return hashlib.sha256(json.dumps([FORMAT, __version__, model_digest, form]).encode() + b"\n")
