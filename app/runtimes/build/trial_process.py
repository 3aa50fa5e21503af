"""Candidates of one model on trial, in a process of their own: ``python -m …trial_process FOLDER DEVICE``.

What it is told comes as lines of JSON on stdin, what it says goes to stdout, a line each. It ends when stdin closes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.errors import CaskError
from app.host.machine import CPU
from app.models import manifests
from app.models.builds import Candidate
from app.models.manifests import Manifest
from app.runtimes import devices, registry
from app.runtimes.build import conversion, samples

GOLDEN_PICTURES = 4


class Bench:
    """One model's samples and the candidates that are loaded."""

    def __init__(self, manifest: Manifest, device: str) -> None:
        self.manifest = manifest
        self.device = device
        self.samples = samples.read(manifest)
        # Of the task's class, or TensorModel.
        self.models: dict[str, Any] = {}

    def make(self, candidate: Candidate, folder: str) -> str:
        """Make the candidate's file; its name."""
        return conversion.make(candidate, self.manifest, self.samples, Path(folder)).name

    def load(self, candidate: Candidate, path: str) -> None:
        """Load a candidate."""
        if candidate.runtime != "openvino":
            registry.set_up_torch(1)
        self.models[candidate.name] = registry.load_candidate(self.manifest, candidate, Path(path), 1, self.device)

    def outcome(self, candidate: Candidate) -> list[Any]:
        """What a candidate says of each compared picture: probabilities, or detections of every score that counts."""
        return self.models[candidate.name].outcome(self.samples.comparison)

    def prove(self, candidate: Candidate) -> list[str]:
        """Check the candidate on pictures whose right answer is known; what was found, in lines."""
        said: list[str] = []
        self.models[candidate.name].prove(said.append)
        return said

    def golden(self, candidate: Candidate, path: str) -> None:
        """Write the candidate's own stored answers."""
        Path(path).write_bytes(self.models[candidate.name].golden_file(self.samples.comparison[:GOLDEN_PICTURES]))

    def rate(self, candidate: Candidate, size: int, seconds: float) -> float:
        """Images for a second of one core, or of the clock on a GPU, in batches of this size; 0 where they do not fit.

        Time on the processor is counted where it computes: what else the machine does must not decide.
        """
        try:
            return self._rate(candidate, size, seconds, time.process_time if self.device == CPU else time.perf_counter)
        except devices.out_of_memory(self.device):
            return 0.0

    def _rate(self, candidate: Candidate, size: int, seconds: float, clock: Callable[[], float]) -> float:
        model = self.models[candidate.name]
        batch = self._batch(size)
        options = [self.manifest.default_options()] * len(batch)
        model.predict(batch, options)
        count, began = 0, clock()
        while (passed := clock() - began) < seconds or not count:
            model.predict(batch, options)
            count += len(batch)
        return count / passed

    def _batch(self, size: int) -> list[Any]:
        pictures = self.samples.comparison
        batch = [pictures[i % len(pictures)] for i in range(size)]
        return [picture for picture in batch if picture.shape == batch[0].shape]


def main() -> int:
    """Do what stdin says until it closes."""
    # What libraries print must not stand between our lines.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    bench = Bench(manifests.read(Path(sys.argv[1])), sys.argv[2])
    for line in sys.stdin:
        task = json.loads(line)
        do: Callable[..., Any] = getattr(bench, task["do"])
        try:
            said = {"answer": do(Candidate(**task["candidate"]), **task["with"])}
        except Exception as error:  # noqa: BLE001 - any failure of a candidate is a row of the report
            said = {"error": error.message if isinstance(error, CaskError) else f"{type(error).__name__}: {error}"}
        print(json.dumps(said), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
