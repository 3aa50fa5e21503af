"""torchvision's published weights: where they lie, what their labels are, how they want their images."""

from __future__ import annotations

import hashlib
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from app import tasks
from app.errors import ModelLoadError
from app.models.manifests import InputSpec
from app.runtimes import weights
from app.runtimes.architectures import FROZEN_BATCH_NORM_EPS, Architecture
from app.runtimes.importing import weight_files
from app.runtimes.operators import torchvision

TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 20
# No more often than this, and ten times at most where the size is known.
_TOLD_BYTES = 8 * _CHUNK_BYTES

# What torchvision's builders change besides loading, where published weights are asked for: BatchNorm is frozen in
# the detectors on resnet50, with an epsilon of 0 in the first generation; two classifiers expect another scaling.
_OPTIONS_WITH_WEIGHTS: dict[str, dict[str, Any]] = {
    "fasterrcnn_resnet50_fpn": {FROZEN_BATCH_NORM_EPS: 0.0},
    "maskrcnn_resnet50_fpn": {FROZEN_BATCH_NORM_EPS: 0.0},
    "keypointrcnn_resnet50_fpn": {FROZEN_BATCH_NORM_EPS: 0.0},
    "retinanet_resnet50_fpn": {FROZEN_BATCH_NORM_EPS: 0.0},
    "fcos_resnet50_fpn": {FROZEN_BATCH_NORM_EPS: 1e-5},
    "googlenet": {"transform_input": True},
    "inception_v3": {"transform_input": True},
}

OpenUrl = Callable[[str], IO[bytes]]


@dataclass(frozen=True)
class Published:
    """What torchvision says of an architecture's newest published weights."""

    url: str
    labels: tuple[str, ...]
    input: InputSpec | None
    options: dict[str, Any] = field(default_factory=dict)
    # Of a classifier: from a PIL image to what its network takes, as torchvision does it.
    transform: Callable[[Any], Any] | None = None

    @property
    def file_name(self) -> str:
        return Path(urlsplit(self.url).path).name


def describe(architecture: Architecture) -> Published | None:
    """The newest published weights of an architecture; None where there are none. Asks no network."""
    if architecture.is_own:
        return None
    kinds = torchvision.models.get_model_weights(architecture.name)
    newest = getattr(kinds, "DEFAULT", None)
    if newest is None:
        return None
    half = tasks.BY_NAME[architecture.task].model_class
    spec = half.published_input(newest.transforms())
    options = dict(_OPTIONS_WITH_WEIGHTS.get(architecture.name, {}))
    transform = newest.transforms() if half.is_compared_with_torchvision else None
    return Published(newest.url, tuple(newest.meta["categories"]), spec, options, transform)


def open_url(url: str) -> IO[bytes]:
    """Open a download; an operator's proxy is taken from the usual variables by the library itself."""
    if urlsplit(url).scheme != "https":
        raise ModelLoadError(f"{url} is not an https address.", hint="Download it yourself and give the file.")
    return urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS)


def download(published: Published, progress: Callable[[str], None], open_url: OpenUrl = open_url) -> weights.Tensors:
    """Download and read published weights. Raises ModelLoadError where the network does not allow it.

    The file's name holds the first digits of its SHA-256 (torchvision's convention); they are compared.
    """
    name = published.file_name
    with tempfile.TemporaryDirectory(prefix="cask-weights-") as folder:
        target = Path(folder) / name
        try:
            digest = _copy(published.url, target, progress, open_url)
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise ModelLoadError(
                f"The published weights could not be downloaded from {urlsplit(published.url).netloc}: {reason}.",
                hint=f"This machine needs the network for WEIGHTS=DEFAULT. Download {published.url} on one that has "
                f"it, copy it here, and give WEIGHTS={name}; or try the service with WEIGHTS=random.",
            ) from None
        expected = target.stem.rpartition("-")[2]
        if not digest.startswith(expected):
            raise ModelLoadError(
                f"The download {name} has SHA-256 {digest}, which should begin with {expected}.",
                hint="It was cut off or altered on its way; try again.",
            )
        return weight_files.read(target)


def _copy(url: str, target: Path, progress: Callable[[str], None], open_url: OpenUrl) -> str:
    hasher, received, told = hashlib.sha256(), 0, 0
    with open_url(url) as source, target.open("wb") as file:
        # Not every server says how much it will send.
        size = int(getattr(source, "headers", {}).get("Content-Length") or 0)
        whole = f" of {size / 1e6:.0f}" if size else ""
        while chunk := source.read(_CHUNK_BYTES):
            file.write(chunk)
            hasher.update(chunk)
            received += len(chunk)
            if received - told >= max(size / 10, _TOLD_BYTES) or received == size:
                told = received
                progress(f"downloaded {received / 1e6:.0f}{whole} MB")
    return hasher.hexdigest()
