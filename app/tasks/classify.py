"""Name what is in an image: labels, best first, each with a probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NotRequired

from typing_extensions import TypedDict

from app.inference.results import MAX_RESULTS, TOP_K, Answer, Box, ClassifyOptions, Prediction
from app.tasks.base import IDENTITY, Control, Difference, Keywords, Side, Task, check_number, check_text
from app.texts import gettext_noop

if TYPE_CHECKING:
    import numpy as np

    from app.models.manifests import ServeSpec
    from app.runtimes.model import TaskModel
    from app.tasks.classify_params import ClassifyParams


class ExplainedLabel(TypedDict):
    """Where the model looked for one label."""

    label: str
    score: Annotated[float, Keywords(minimum=0, maximum=1)]
    method: Annotated[
        Literal["cam", "grad_cam"], Keywords(description="How it was found: by a class activation map, or by Grad-CAM.")
    ]
    map: Annotated[
        list[list[Annotated[float, Keywords(minimum=0, maximum=1)]]],
        Keywords(description="Each place's share in the score, the largest being 1; rows from top to bottom."),
    ]
    region: Annotated[Box, Keywords(description="What the map covers, in pixels of the upright image.")]
    overlay: Annotated[
        str, Keywords(description="A PNG with transparency to lay over the image, as a `data:` address.")
    ]


class ClassifiedImage(TypedDict):
    """What is in one image, best label first."""

    width: Side
    height: Side
    predictions: list[Prediction]
    explanation: NotRequired[Annotated[ExplainedLabel, Keywords(description="With `explain=true`.")]]


class Classify(Task):
    """See the module."""

    name = "classify"
    rows = "predictions"
    options = ClassifyOptions
    label_option = "explain_label"
    count_option = "top_k"
    summary = "Name what is in images"
    sentence = "Name what is in one or many images, best label first."
    example: ClassVar = {
        "model": IDENTITY,
        "results": [{"width": 480, "height": 400, "predictions": [{"label": "cone", "score": 0.95915}]}],
        "request_id": "awCUYJm_o1U9NTrRRxcP7wAAAB4",
    }
    image = ClassifiedImage
    row = Prediction
    purpose = gettext_noop("Name the picture")
    agreement = gettext_noop("Same label")
    drawing = "labels"
    controls = (Control("top_k", gettext_noop("Labels shown"), is_slider=True, is_of_labels=True, range=(1, 20)),)
    rpc_sentence = gettext_noop("Names what is in images.")
    rpc_option = "top_k"
    rpc_example: ClassVar = {"top_k": 1}
    tensors = (
        {"name": "labels", "datatype": "BYTES", "shape": [-1, -1]},
        {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
    )

    @property
    def params(self) -> type[ClassifyParams]:
        from app.tasks.classify_params import ClassifyParams

        return ClassifyParams

    @property
    def model_class(self) -> type[TaskModel]:
        from app.runtimes.classifier import Classifier

        return Classifier

    def default_options(self, serve: ServeSpec) -> ClassifyOptions:
        return ClassifyOptions(top_k=serve.top_k)

    def row_from_json(self, row: dict[str, Any]) -> Prediction:
        return Prediction(row["label"], row["score"])

    def check(self, row: Prediction) -> None:
        check_text(row.label)
        check_number(row.score)

    def difference(self, answered: Answer, other: Answer) -> Difference:
        first, second = ({row.label: row.score for row in rows} for rows in (answered, other))
        # A label that one side does not name lies below the last one it names; only what both name can be compared.
        differences = [abs(first[label] - second[label]) for label in first.keys() & second.keys()]
        best = [rows[0].label if rows else "" for rows in (answered, other)]
        return Difference(best[0] == best[1], max(differences, default=0.0))

    def seen(self, answer: Answer) -> tuple[Sequence[str], float]:
        return ([answer[0].label], answer[0].score) if answer else ((), 0.0)

    def to_tensors(self, answers: Sequence[Answer]) -> dict[str, np.ndarray]:
        """``labels`` and ``scores``, image × rank."""
        from app.tasks import arrays

        return arrays.labels_and_scores(answers)

    def member_params(self, params: ClassifyParams) -> dict[str, Any]:
        # The mean needs every label's score; what the caller wants of them is cut off afterwards.
        return {**params.model_dump(exclude_none=True), "top_k": MAX_RESULTS}

    def merged(
        self, answers: Sequence[Any], params: ClassifyParams, method: str, iou_threshold: float
    ) -> Sequence[Any]:
        from app.ensembles import fusion

        top_k = TOP_K if params.top_k is None else params.top_k
        return fusion.average_labels(answers)[:top_k]
