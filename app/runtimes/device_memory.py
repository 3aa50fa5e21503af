"""A model on a device whose memory may not suffice: it goes on in smaller batches. Knows no torch."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from app.errors import CaskError, GpuOutOfMemoryError, ModelLoadError
from app.inference.results import Answer, ExplainOptions, Explanation, Options
from app.models.manifests import LETTERBOX_GREY
from app.runtimes.model import Images, Model, warm_up_shape

log = logging.getLogger("cask.engine")

RETRY_AFTER_SECONDS = 5.0


class BoundedModel(Model):
    """A model that halves a batch for which memory does not suffice, and remembers the size that did.

    ``out_of_memory``: what the model raises then. ``empty_cache``: frees what can be freed.
    """

    def __init__(
        self, model: Model, out_of_memory: tuple[type[Exception], ...], empty_cache: Callable[[], None]
    ) -> None:
        super().__init__(model.manifest)
        self.golden_path, self.computed_by = model.golden_path, model.computed_by
        self.device, self.processor, self.best_batch_size = model.device, model.processor, model.best_batch_size
        # Most images at once that are tried; None while nothing is known.
        self.max_batch_size: int | None = None
        self._model = model
        self._out_of_memory = out_of_memory
        self._empty_cache = empty_cache
        self._lock = threading.Lock()

    # An image without room has an error for an answer; the base class knows none.
    def predict(  # type: ignore[override]
        self, images: Sequence[np.ndarray], options: Sequence[Options]
    ) -> list[Answer | CaskError]:
        """As ``Model.predict``; an image for which memory does not suffice even alone gets GpuOutOfMemoryError."""
        if len(images) != len(options):
            raise ValueError(f"There are {len(images)} images and {len(options)} options; one each is needed.")
        answers: list[Answer | CaskError] = []
        while len(answers) < len(images):
            # Anew for each part: another thread may have learned meanwhile.
            part = slice(len(answers), len(answers) + (self.max_batch_size or len(images)))
            answers += self._predict_part(images[part], options[part])
        return answers

    def warm_up(self) -> None:
        """Besides, predict the best batch once: it may not fit. Raises ModelLoadError when one image does not."""
        with self._or_refused():
            self._model.warm_up()
        grey = np.full((*warm_up_shape(self.manifest.input), 3), LETTERBOX_GREY, dtype=np.uint8)
        count = max(1, self.best_batch_size)
        self.predict([grey] * count, [self.manifest.default_options()] * count)

    def golden_check(self) -> None:
        """As ``Model.golden_check``; raises ModelLoadError when memory does not suffice for it."""
        with self._or_refused():
            self._model.golden_check()

    def prove(self, say: Callable[[str], None]) -> None:
        """As ``Model.prove``; raises ModelLoadError when memory does not suffice for it."""
        with self._or_refused():
            self._model.prove(say)

    def explain(self, image: np.ndarray, options: ExplainOptions) -> Explanation:
        """As ``Model.explain``; computed on the processor."""
        return self._model.explain(image, options)

    def _predict_batch(self, images: Images, options: Sequence[Options]) -> Sequence[Answer]:
        raise NotImplementedError("predict asks the model itself")

    def _predict_part(self, images: Sequence[np.ndarray], options: Sequence[Options]) -> list[Answer | CaskError]:
        # Not within `except`: the error holds the frames it came through, and so the memory that they had taken.
        with contextlib.suppress(*self._out_of_memory):
            return list(self._model.predict(images, options))
        self._empty_cache()
        if len(images) == 1:
            return [self._error(images[0])]
        half = (len(images) + 1) // 2
        self._remember(half, len(images))
        return self.predict(images[:half], options[:half]) + self.predict(images[half:], options[half:])

    def _remember(self, size: int, failed: int) -> None:
        with self._lock:
            if self.max_batch_size is not None and self.max_batch_size <= size:
                return
            self.max_batch_size = size
        log.warning(
            "model %s: %s has no memory for %d images at once; at most %d from now on",
            self.manifest.key,
            self.device,
            failed,
            size,
        )

    def _error(self, image: np.ndarray) -> GpuOutOfMemoryError:
        height, width = image.shape[:2]
        error = GpuOutOfMemoryError(
            "%(device)s has no memory left for one image of %(width)s×%(height)s pixels.",
            hint="Send it again later; if it stays so, tell the operator of this service.",
            retry_after_seconds=RETRY_AFTER_SECONDS,
            device=self.device,
            width=width,
            height=height,
        )
        log.warning("model %s: %s", self.manifest.key, error.message)
        return error

    def _or_refused(self) -> contextlib.AbstractContextManager[None]:
        return refused(self.manifest.key, self.device, self._out_of_memory)


@contextlib.contextmanager
def refused(model_key: str, device: str, out_of_memory: tuple[type[Exception], ...]) -> Iterator[None]:
    """Refuse to load a model without room for it. Raises ModelLoadError."""
    try:
        yield
    except out_of_memory as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelLoadError(
            f"{model_key} does not fit into the memory of {device}: {words}",
            hint="Serve fewer models (MODELS), end what else uses the GPU, or choose another one with DEVICE.",
        ) from None
