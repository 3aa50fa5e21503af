"""What every loaded model can do, whichever runtime computes it. Knows no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from app import tasks
from app.errors import ExplanationUnsupportedError, ModelLoadError
from app.inference.results import Answer, ExplainOptions, Explanation, Options
from app.models.manifests import InputKind, InputSpec, Manifest

if TYPE_CHECKING:
    from torch import nn

    from app.inference.images import Picture
    from app.models.builds import Candidate
    from app.runtimes.architectures import Architecture
    from app.runtimes.build.agreement import Agreement, Detections
    from app.runtimes.importing.network_heads import Head
    from app.runtimes.importing.network_wanted import Wanted
    from app.runtimes.importing.published import Published

Images = np.ndarray  # uint8 [B, H, W, 3], RGB
# What a runtime makes of a network: images to its outputs, as the task's ``network_class`` has them. Safe to call from
# several threads.
Run = Callable[[Images], list[np.ndarray]]
# What a golden file holds, by name.
Arrays = dict[str, np.ndarray]


class Model(ABC):
    """One version of one model, loaded. Safe to use from several threads at once.

    A subclass knows a task; the runtime below it (eager torch now) is a plain callable on arrays of images.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        # A built runtime has answers of its own: int8 differs from fp32 by more than any mistake should be allowed.
        self.golden_path = manifest.golden_path
        # Runtime and precision, for people: it is not part of the model's identity.
        self.computed_by = "torch fp32"
        # Where, and what reports call a GPU there. Images that suit it at once; 0 is as the settings say.
        self.device = "cpu"
        self.processor = ""
        self.best_batch_size = 0

    def predict(self, images: Sequence[np.ndarray], options: Sequence[Options]) -> list[Answer]:
        """One answer an image, in order.

        ``images``: uint8, height × width × 3, RGB, scaled as the manifest's ``input`` says; images of one shape are
        computed together. ``options``: one an image. Boxes are in pixels of the given array. Raises ValueError on an
        array of another type or shape, TypeError on options for another task.
        """
        if options and all(isinstance(option, ExplainOptions) for option in options):
            return [[self.explain(*pair)] for pair in zip(images, options, strict=True)]  # type: ignore[arg-type]
        if len(images) != len(options):
            raise ValueError(f"There are {len(images)} images and {len(options)} options; one each is needed.")
        for image, image_options in zip(images, options, strict=True):
            _check_image(image)
            self._check_options(image_options)
        answers: list[Answer] = [[] for _ in images]
        for members in _same_shape(images):
            batch = np.stack([images[i] for i in members])
            for i, answer in zip(members, self._predict_batch(batch, [options[i] for i in members]), strict=True):
                answers[i] = answer
        return answers

    def explain(self, image: np.ndarray, options: ExplainOptions) -> Explanation:
        """Where the model looked, for one image as ``predict`` takes it. Raises ExplanationUnsupportedError."""
        raise ExplanationUnsupportedError(
            f"{self.manifest.key} finds objects; explanations are for models that name a picture.",
            hint="Ask POST /v1/classify, or leave explain out.",
        )

    def warm_up(self) -> None:
        """Predict once on a grey image, so that the first caller does not pay for it."""
        height, width = warm_up_shape(self.manifest.input)
        self.predict([np.full((height, width, 3), 114, dtype=np.uint8)], [self.manifest.default_options()])

    @abstractmethod
    def golden_check(self) -> None:
        """Compare with the answers stored beside the weights. Raises GoldenCheckError. No golden file: nothing."""

    @abstractmethod
    def prove(self, say: Callable[[str], None]) -> None:
        """Check answers on pictures whose right answer is known. Raises GoldenCheckError, ModelLoadError."""

    def _check_options(self, options: Options) -> None:
        expected = tasks.BY_NAME[self.manifest.task].options
        if not isinstance(options, expected):
            raise TypeError(f"{self.manifest.key} needs {expected.__name__}, got {type(options).__name__}.")

    @abstractmethod
    def _predict_batch(self, images: Images, options: Sequence[Options]) -> Sequence[Answer]:
        """Answers for images of one shape."""


class TaskModel(Model):
    """The engine's half of a task: how its models are loaded, and what their built forms are compared by."""

    # Whether a GPU may play it back as a recording: nothing in it is made anew for each batch.
    can_be_recorded: ClassVar[bool] = False
    # Names of weights that may lie in a file besides, of heads that answer something else; as a pattern.
    other_heads: ClassVar[str] = ""
    # Whether its labels are compared with those that torchvision's own scaling gives, where the weights are published.
    is_compared_with_torchvision: ClassVar[bool] = False
    # Of somebody's whole network, where neither the file nor its owner says it: the side of its input in pixels, how
    # pictures are scaled to it, and whether they are normalised as for ImageNet.
    file_side: ClassVar[int] = 224
    file_input_kind: ClassVar[InputKind] = "crop"
    is_file_of_imagenet: ClassVar[bool] = True
    # Whether its networks answer one row of numbers a picture: scores of labels, or a vector.
    is_one_row: ClassVar[bool] = False
    # Whether its outputs are of labels, which somebody must name.
    has_labels: ClassVar[bool] = True

    def golden_check(self) -> None:
        from app.runtimes.checks import golden_answers

        golden_answers.check(self)

    def golden_file(self, pictures: Sequence[np.ndarray]) -> bytes:
        """The file of stored answers of this form to these inputs."""
        from app.runtimes.checks import golden_answers

        return golden_answers.make(self, pictures)

    def prove(self, say: Callable[[str], None]) -> None:
        from app.runtimes.checks import proof

        proof.prove(self, say)

    @classmethod
    @abstractmethod
    def architectures(cls, task: str) -> Iterator[Architecture]:
        """Every builder of a network for this ``task``: torchvision's, and ours. Imports torch."""

    @classmethod
    @abstractmethod
    def usual_input(cls, architecture: Architecture, known: Published | None) -> InputSpec:
        """How pictures are scaled where nobody says otherwise. ``known``: what is published of the architecture."""

    @classmethod
    def published_input(cls, transform: Any) -> InputSpec | None:
        """The scaling that published weights want, from torchvision's transform; None where the network carries it."""
        return None

    @classmethod
    def prepare(cls, network: nn.Module, spec: InputSpec) -> None:
        """Change what was built into what is served, before weights are loaded; nothing by default."""

    @classmethod
    def file_head(cls, network: Any, wanted: Wanted, side: int) -> Head:
        """What becomes of the outputs of somebody's whole network, of OpenVINO, for pictures of so many pixels a side.

        Raises ModelLoadError where no output fits.
        """
        raise ModelLoadError(
            f"TASK={wanted.task} is not for files with a whole network.", hint="Add it with ARCH=… WEIGHTS=…"
        )

    @classmethod
    @abstractmethod
    def load(cls, manifest: Manifest, device: str = "cpu", runtime: str = "torch", precision: str = "fp32") -> Self:
        """Build the network, check and load its weights; ``runtime`` is one of torch's forms. Raises ModelLoadError."""

    @classmethod
    @abstractmethod
    def load_file(cls, manifest: Manifest, candidate: Candidate, path: Path, workers: int) -> Self:
        """What a build wrote for another runtime than torch. ``workers``: how many threads predict at once."""

    @classmethod
    @abstractmethod
    def network_class(cls) -> type[nn.Module]:
        """What wraps a network so that it takes uint8 images and answers what a runtime does. Imports torch."""

    @classmethod
    def is_dense(cls, architecture: str) -> bool:
        """Whether it lists nothing inside, which would depend on the picture; other runtimes take no other."""
        return True

    @abstractmethod
    def stored_answers(self, pictures: Sequence[np.ndarray]) -> Arrays:
        """What a golden file keeps of the answers to these inputs."""

    @abstractmethod
    def stored_fault(self, stored: Arrays, now: Arrays, tolerance: float, iou_at_least: float) -> str:
        """The first difference that matters between two of ``stored_answers``, in words; empty where there is none.

        ``tolerance``: of scores. Raises KeyError for what an older file does not have.
        """

    @classmethod
    @abstractmethod
    def truth(cls, row: dict[str, Any], label: Callable[[Any], str]) -> Any:
        """What is truly in a picture, from its row of samples/index.json; ``label`` checks a label.

        Raises KeyError, TypeError, ValueError for what is none.
        """

    @abstractmethod
    def fault(self, picture: Picture, answer: Answer, truth: Any) -> str:
        """What is wrong with the answer to a sample picture, in words; empty where it is right."""

    @abstractmethod
    def outcome(self, pictures: Sequence[np.ndarray]) -> list[Any]:
        """What it says of each picture, as JSON types, to be compared with what another form says."""

    @classmethod
    @abstractmethod
    def compared(
        cls, reference: list[Any], other: list[Any], manifest: Manifest, truth: Detections | None
    ) -> Agreement:
        """How far the ``outcome`` of another form is from the reference's."""


def run_of_file(candidate: Candidate, path: Path, workers: int) -> Run:
    """What a build wrote for another runtime than torch. ``workers``: how many threads predict at once.

    Raises ModelLoadError.
    """
    if candidate.runtime == "aotinductor":
        from app.runtimes import aotinductor_runtime

        return aotinductor_runtime.load(path, workers)
    from app.runtimes import openvino_runtime

    return openvino_runtime.load(path, candidate.precision, workers)


def warm_up_shape(spec: InputSpec) -> tuple[int, int]:
    """Height and width of a usual input."""
    if spec.kind == "fit":
        return spec.min_size, min(spec.max_size, spec.min_size * 4 // 3)
    return spec.size, spec.size


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"An image must be a uint8 array of height × width × 3, got {found}.")
    if 0 in image.shape:
        raise ValueError(f"An image must have pixels, got {list(image.shape)}.")


def _same_shape(images: Sequence[np.ndarray]) -> list[list[int]]:
    """Indices of the images, those of one shape together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(image.shape, []).append(i)
    return list(groups.values())
