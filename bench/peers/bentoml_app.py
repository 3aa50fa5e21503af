"""BentoML as its page on adaptive batching shows it: a batchable API on a list of images, a worker for each core."""

from __future__ import annotations

import io

import bentoml
from PIL import Image

from bench.peers import network

MAX_BATCH_SIZE = 8
MAX_LATENCY_MS = 10_000


@bentoml.service(workers="cpu_count", traffic={"timeout": 30})
class Classifier:
    """Names what is in an image."""

    def __init__(self) -> None:
        self.prepare, self.name_all = network.load()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE, max_latency_ms=MAX_LATENCY_MS)
    def predict(self, images: list[Image.Image]) -> list[str]:
        """One label an image."""
        return self.name_all([self.prepare(_bytes(image)) for image in images])


def _bytes(image: Image.Image) -> bytes:
    """BentoML hands an opened file on, not decoded yet; its bytes are what the request brought."""
    file: io.IOBase = vars(image)["fp"]
    file.seek(0)
    data: bytes = file.read()
    return data
