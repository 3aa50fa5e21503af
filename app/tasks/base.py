"""What a task is: what a model can be asked, how its answer is written, and what others do with that answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from typing_extensions import TypedDict

from app.inference.results import MAX_RESULTS, Answer, Box, Options, rounded, to_dict

if TYPE_CHECKING:
    import numpy as np

    from app.models.manifests import ServeSpec
    from app.runtimes.model import TaskModel
    from app.tasks.params import TaskParams

# So many rows of an answer stand in one line of a shadow's record.
NOTED_ROWS = 5
# No side, coordinate or score is larger; what is cannot be reckoned with.
MOST = 2**31


class Keywords:
    """What the schema of a value in an answer says besides its type: ``Annotated[int, Keywords(minimum=1)]``.

    Answers are described, never checked, so the engine needs no pydantic for them.
    """

    def __init__(self, **words: Any) -> None:
        self._words = words

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {**handler(core_schema), **self._words}


Side = Annotated[int, Keywords(minimum=1, description="Pixels of the upright image.")]


class Placing(Protocol):
    """Where the input of a model lies in the upright image of so many pixels; ``images.Picture`` is one.

    ``left`` and ``top``: where it begins; the scales are pixels of the input for one of the image.
    """

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def left(self) -> float: ...

    @property
    def top(self) -> float: ...

    @property
    def scale_x(self) -> float: ...

    @property
    def scale_y(self) -> float: ...

    def to_original(self, box: Box) -> Box:
        """A box in pixels of the input, as pixels of the upright image."""


@dataclass(frozen=True)
class Difference:
    """How far two answers to one image are apart.

    ``is_same``: the same best label, or the same boxes by label and place. ``largest``: of any score that both gave.
    Detectors: ``matched`` boxes, and how many each side found alone.
    """

    is_same: bool
    largest: float
    matched: int = 0
    only_answered: int = 0
    only_shadow: int = 0


class ModelIdentity(TypedDict):
    """Which model answered; ``digest`` changes with weights, labels and scaling."""

    name: str
    version: str
    digest: str


IDENTITY: ModelIdentity = {"name": "site-safety-classifier", "version": "1", "digest": "sha256:d33788fdca4f"}


# How the page shows an answer: boxes over the picture, labels beside it, a mask over it with its legend, numbers, or
# the rows as they are.
Drawing = Literal["boxes", "labels", "mask", "vector", "table"]


@dataclass(frozen=True)
class Control:
    """How the page offers an option of a task that is a number; others are offered by name, type, range and default.

    ``title``: English words. ``is_folded``: among the limits that are opened. ``range``: where it is not the API's.
    ``is_of_labels``: at most as many as the model has labels.
    """

    name: str
    title: str
    step: float = 1
    is_slider: bool = False
    is_folded: bool = False
    is_of_labels: bool = False
    range: tuple[int, int] | None = None


class Task(ABC):
    """One thing that models can be asked. An instance holds no state and is shared by all threads."""

    # As manifests, addresses and settings write it: /v1/<name>.
    name: ClassVar[str]
    # The key under which the rows of an answer stand in JSON.
    rows: ClassVar[str]
    # The options as the engine gets them.
    options: ClassVar[type[Any]]
    # The option that takes a label of the model (empty: none does), and the one that says how many rows are wanted.
    label_option: ClassVar[str]
    count_option: ClassVar[str]
    # POST /v1/<name> in the API's description: a summary, what it does, and an example of its answer.
    summary: ClassVar[str]
    sentence: ClassVar[str]
    example: ClassVar[dict[str, Any]]
    # Types that describe one image of that answer, a TypedDict, and one of its rows.
    image: ClassVar[type[Any]]
    row: ClassVar[type[Any]]
    # What such an image holds beside its rows, by key.
    beside: ClassVar[Mapping[str, Any]] = {}
    # The method Image.<name> of JSON-RPC: what it does, the option that may follow the image without a name, and the
    # options of its example.
    rpc_sentence: ClassVar[str]
    rpc_option: ClassVar[str]
    rpc_example: ClassVar[Mapping[str, Any]] = {}
    # Output tensors of the Open Inference Protocol, besides the sizes of the images.
    tensors: ClassVar[Sequence[dict[str, Any]]]

    # Whether ensembles make one answer of several models' answers.
    is_merged: ClassVar[bool] = True
    # On pages, in English: what a person wants, and what a build's ``agreement`` counts; how an answer is drawn, and
    # what may be set.
    purpose: ClassVar[str]
    agreement: ClassVar[str]
    drawing: ClassVar[Drawing] = "table"
    controls: ClassVar[Sequence[Control]] = ()

    @property
    def has_boxes(self) -> bool:
        """Whether each row is an object with a place: people count them, and models prove that they find the place."""
        return self.drawing == "boxes"

    @property
    def can_explain(self) -> bool:
        """Whether a caller may ask where the model looked."""
        return "explain" in self.params.model_fields

    @property
    @abstractmethod
    def params(self) -> type[TaskParams]:
        """The options as a caller sends them, from ``app/tasks/<name>_params.py``. Never asked in the engine."""

    @property
    @abstractmethod
    def model_class(self) -> type[TaskModel]:
        """The engine's half: what loads, computes and compares models of this task. Never asked in the web tier."""

    @abstractmethod
    def default_options(self, serve: ServeSpec) -> Options:
        """The options where the caller gave none, from what the manifest says about serving."""

    @abstractmethod
    def row_from_json(self, row: dict[str, Any]) -> Any:
        """One row of an answer from what ``results.to_dict`` made of it. Raises KeyError, TypeError."""

    @abstractmethod
    def to_tensors(self, answers: Sequence[Answer]) -> dict[str, np.ndarray]:
        """The values of ``tensors`` for the answers to one or many images."""

    def member_params(self, params: Any) -> dict[str, Any]:
        """What each member of an ensemble is asked, so that nothing is cut off before the answers are merged."""
        raise NotImplementedError(f"{self.name} is not merged")

    def merged(self, answers: Sequence[Answer], params: Any, method: str, iou_threshold: float) -> Sequence[Any]:
        """One answer made of several members' answers to one image.

        ``method`` (fusion or suppression) and ``iou_threshold`` are for tasks that have boxes.
        """
        raise NotImplementedError(f"{self.name} is not merged")

    @abstractmethod
    def check(self, row: Any) -> None:
        """Whether a row that was read from elsewhere holds what it says. Raises TypeError."""

    @abstractmethod
    def difference(self, answered: Answer, other: Answer) -> Difference:
        """How far another version's answer to one image is from the one that was given."""

    @abstractmethod
    def seen(self, answer: Answer) -> tuple[Sequence[str], float]:
        """What an answer says for the statistics of drift: labels, and the score of the best; none and 0 for none."""

    def placed(self, answer: Answer, where: Placing) -> Answer:
        """The engine's answer, which is about the model's input, as one about the upright image."""
        return answer

    def result(self, answer: Answer) -> dict[str, Any]:
        """An answer as callers get it, beside the size of the image: no more digits than are worth sending."""
        return {self.rows: [rounded(row) for row in answer]}

    def answer_of(self, result: Mapping[str, Any]) -> Answer:
        """The answer in what ``result`` made. Raises KeyError, TypeError."""
        return self.answer_from_json(result[self.rows][:MAX_RESULTS])

    def answer_from_json(self, rows: Sequence[dict[str, Any]]) -> Answer:
        """An answer from what ``results.to_dict`` made of its rows. Raises KeyError, TypeError."""
        read = self.row_from_json
        return [read(row) for row in rows]

    def scored(self, result: Mapping[str, Any]) -> Sequence[Any]:
        """The rows of a result as objects with ``label``, ``score`` and, where they have one, ``box``.

        None where its rows are something else.
        """
        rows: Sequence[Any] = result[self.rows]
        return rows if all(isinstance(row, dict) and {"label", "score"} <= row.keys() for row in rows) else ()

    def overlay(self, answer: Answer) -> str:
        """A picture to lay over the image, as a ``data:`` address; empty where the answer holds none."""
        return ""

    def to_wire(self, answer: Answer) -> tuple[list[dict[str, Any]], Mapping[str, np.ndarray | bytes]]:
        """The engine's answer as rows of JSON, and named tensors or bytes that follow them."""
        return [to_dict(row) for row in answer], {}

    def from_wire(self, rows: Sequence[dict[str, Any]], arrays: Mapping[str, Any]) -> Answer:
        """The answer in what ``to_wire`` made. Raises KeyError, TypeError, ValueError."""
        return self.answer_from_json(rows)

    def lean(self, answer: Answer) -> Answer:
        """An answer without what only people look at: a shadow's answer is compared with the rest."""
        return answer

    def noted(self, answer: Answer) -> list[dict[str, Any]]:
        """An answer in short, for the record of what a shadow would have answered."""
        return [_shortened(to_dict(row)) for row in answer[:NOTED_ROWS]]


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    # Places of boxes as they are.
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()}


def check_text(value: Any) -> None:
    """Raises TypeError for what is no text."""
    if not isinstance(value, str):
        raise TypeError(value)


def check_number(value: Any) -> None:
    """Raises TypeError for what is no number, is not finite, or that nobody could reckon with."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Not true of a NaN either; and no integer is too long for this comparison.
    if not is_number or not -MOST <= value <= MOST:
        raise TypeError(value)
