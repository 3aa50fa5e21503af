"""LitServe as its guide on serving images shows it: base64 in JSON, batches of eight, a worker for each core."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Sequence
from typing import Any

import litserve

from bench.peers import network

MAX_BATCH_SIZE = 8
BATCH_TIMEOUT_SECONDS = 0.01


class Classifier(litserve.LitAPI):
    """Names what is in an image."""

    def setup(self, device: str) -> None:
        """Load the model; runs once in each worker."""
        self.prepare, self.name_all = network.load()

    def decode_request(self, request: dict[str, str]) -> Any:
        """From JSON to what the model takes."""
        return self.prepare(base64.b64decode(request["image_data"]))

    def batch(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Leave them in a list; ``name_all`` stacks them."""
        return inputs

    def predict(self, batch: Sequence[Any]) -> list[str]:
        """One label an image."""
        return self.name_all(batch)

    def unbatch(self, output: list[str]) -> list[str]:
        """One answer for each of the batch."""
        return output

    def encode_response(self, output: str) -> dict[str, str]:
        """The answer as JSON."""
        return {"label": output}


if __name__ == "__main__":
    api = Classifier(max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_SECONDS)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=os.cpu_count() or 1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
