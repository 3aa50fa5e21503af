"""The engine's half of a model with code: its process, asked as every other model is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from app.engine.calls import Item
from app.errors import CaskError, InputRefusedError, ModelLoadError
from app.model_code import environments, folder
from app.model_code.worker import ModelWorker, Spec
from app.models.manifests import Manifest

OFF_HINT = "Set MODEL_CODE=on where its code may run, or take it out of MODELS."


class CodeModel:
    """One version, loaded in a process of its own. See ``app.engine.worker.Model``."""

    # A thread that asks this model waits for another process, so it must be none that other models need.
    is_apart = True
    computed_by = "code"
    device = "cpu"
    processor = ""

    def __init__(self, running: ModelWorker, manifest: Manifest) -> None:
        self.running = running
        self.manifest = manifest
        # How many batches it takes at once.
        self.calls = running.spec.calls
        self.best_batch_size = manifest.serve.max_batch_size
        # What reads pictures is imported for them only.
        self._has_examples = (manifest.directory / "examples").is_dir()

    @property
    def trouble(self) -> str:
        """Why its process does not start again; empty while it runs, or is about to."""
        return self.running.trouble

    def warm_up(self) -> None:
        """Ask its examples: only they say what it takes. What differs, the golden check tells."""
        if self._has_examples:
            from app.model_code import examples

            for path in examples.paths(self.manifest.directory):
                examples.answer(examples.read(path, self.manifest.signature), self.running.ask, self.best_batch_size)

    def golden_check(self) -> None:
        """Compare the answers to its examples with the stored ones. Raises GoldenCheckError."""
        if self._has_examples and self.manifest.code is not None:
            from app.model_code import examples

            spec, signature = self.manifest.code, self.manifest.signature
            examples.check(self.manifest.directory, signature, self.running.ask, self.best_batch_size, spec.tolerance)

    def prove(self, say: Callable[[str], None]) -> None:
        """Nothing is known."""

    def predict(self, items: Sequence[Item], options: Sequence[Any]) -> list[Any]:
        """The JSON of each answer as bytes, or why this item has none. All have the same options."""
        rows = self.running.ask(options[0], [(item.values, item.data) for item in items])
        return [outcome(row) for row in rows]

    def close(self) -> None:
        """End the process."""
        self.running.close()


def load(manifest: Manifest, is_allowed: bool, threads: int, most_calls: int = 1) -> CodeModel:
    """Start the process of one version. ``is_allowed``: as MODEL_CODE says. ``most_calls``: so many batches the engine
    computes at once. Raises ModelLoadError.
    """
    spec = manifest.code
    if spec is None or not is_allowed:
        raise ModelLoadError(f"{manifest.key} is a model with code, and MODEL_CODE is off.", hint=OFF_HINT)
    environments.check(manifest.directory)
    seal = folder.Seal(manifest.directory, manifest.sha256)
    running = ModelWorker(
        Spec(
            manifest.key,
            manifest.directory,
            spec.timeout_seconds,
            spec.load_seconds,
            spec.memory_mb,
            threads,
            min(manifest.signature["threads"] or most_calls, most_calls),
            seal.check,
        )
    )
    running.start()
    # Values go to it in the order of its parameters.
    is_same_order = list(running.signature["inputs"]) == list(manifest.signature["inputs"])
    if running.signature != manifest.signature or not is_same_order:
        running.close()
        raise ModelLoadError(
            f"{manifest.key} promises something else here than when it was added.",
            hint="Its types depend on the machine; write them down, and add it again.",
        )
    return CodeModel(running, manifest)


def outcome(row: dict[str, Any]) -> bytes | CaskError:
    """What the process says of one item: the JSON of its answer, or why there is none."""
    if "refused" in row:
        return InputRefusedError("%(why)s", hint="The model says so; change the input.", why=row["refused"])
    if "failed" in row:
        return CaskError(
            "The model failed: %(reason)s.",
            hint="Tell the operator of this service the request id.",
            reason=row["failed"],
        )
    data: bytes = row["answer"]
    return data
