"""The engine's half of ``embed``: networks from files, whose vectors are compared by their cosine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.errors import ModelLoadError
from app.inference.results import Answer, Options
from app.models.manifests import InputSpec, Manifest
from app.runtimes.build.agreement import Agreement
from app.runtimes.model import Arrays, Images, Run, TaskModel, run_of_file
from app.tasks.embed import Embedding, EmbedOptions, cosine, round_to_digits

if TYPE_CHECKING:
    from torch import nn

    from app.inference.images import Picture
    from app.models.builds import Candidate
    from app.runtimes.architectures import Architecture
    from app.runtimes.importing.network_heads import Head
    from app.runtimes.importing.network_wanted import Wanted
    from app.runtimes.importing.published import Published

FILES_ONLY = "Export the network without its last layer, and add it with FILE=… TASK=…"


class Embedder(TaskModel):
    """A model that gives a picture a vector."""

    has_labels = False
    is_one_row = True

    def __init__(self, manifest: Manifest, run: Run) -> None:
        """``run`` has one output, vectors, float32 [B, length]."""
        super().__init__(manifest)
        self._run = run

    @classmethod
    def load(cls, manifest: Manifest, device: str = "cpu", runtime: str = "torch", precision: str = "fp32") -> Embedder:
        raise ModelLoadError(f"{manifest.key} is no whole network, and vectors come from such only.", hint=FILES_ONLY)

    @classmethod
    def load_file(cls, manifest: Manifest, candidate: Candidate, path: Path, workers: int) -> Embedder:
        return cls(manifest, run_of_file(candidate, path, workers))

    @classmethod
    def file_head(cls, network: Any, wanted: Wanted, side: int) -> Head:
        from app.runtimes.importing import network_heads

        return network_heads.vector(network, wanted)

    @classmethod
    def network_class(cls) -> type[nn.Module]:
        raise NotImplementedError(FILES_ONLY)

    @classmethod
    def architectures(cls, task: str) -> Iterator[Architecture]:
        return iter(())

    @classmethod
    def usual_input(cls, architecture: Architecture, known: Published | None) -> InputSpec:
        return InputSpec("crop", size=cls.file_side, resize_size=cls.file_side)

    def stored_answers(self, pictures: Sequence[np.ndarray]) -> Arrays:
        return {"vectors": np.concatenate([self._run(picture[None])[0] for picture in pictures])}

    def stored_fault(self, stored: Arrays, now: Arrays, tolerance: float, iou_at_least: float) -> str:
        """Every vector has a cosine with the stored one that is within the tolerance of 1."""
        first, second = stored["vectors"], now["vectors"]
        if first.shape != second.shape:
            return f"vectors {list(second.shape)} instead of {list(first.shape)}."
        worst = min((cosine(*pair) for pair in zip(first.tolist(), second.tolist(), strict=True)), default=1.0)
        return "" if worst >= 1 - tolerance else f"a vector has the cosine {worst:.4f} with the stored one."

    @classmethod
    def truth(cls, row: dict[str, Any], label: Callable[[Any], str]) -> str:
        """Of a vector nobody can say what is right."""
        raise ValueError("vectors have no right answers; leave index.json out")

    def fault(self, picture: Picture, answer: Answer, truth: Any) -> str:
        return ""

    def outcome(self, pictures: Sequence[np.ndarray]) -> list[Any]:
        return [self._run(picture[None])[0][0].tolist() for picture in pictures]

    @classmethod
    def compared(cls, reference: list[Any], other: list[Any], manifest: Manifest, truth: Any) -> Agreement:
        """``agreement`` is the mean cosine; ``largest_difference`` what the worst one lacks."""
        found = [cosine(*pair) for pair in zip(reference, other, strict=True)]
        return Agreement(float(np.mean(found)), 1 - min(found))

    def _predict_batch(self, images: Images, options: Sequence[Options]) -> Sequence[Answer]:
        return [[self._wanted(row, each)] for row, each in zip(self._run(images)[0], options, strict=True)]

    def _wanted(self, row: np.ndarray, options: Options) -> Embedding:
        assert isinstance(options, EmbedOptions)
        if options.dimensions and options.dimensions < len(row):
            row = row[: options.dimensions]
            if self.manifest.architecture_options.get("normalised"):
                row = row / max(float(np.linalg.norm(row)), 1e-12)
        return Embedding([round_to_digits(value) for value in row.tolist()])
