"""What the addresses that predict have in common, for the OpenAPI document: forms of bodies, failures, examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from typing_extensions import TypedDict

from app import errors
from app.errors import CaskError
from app.tasks.base import ModelIdentity, Task
from app.web.api.bodies import IMAGE_PART, IMAGES_KEY, MediaTypeError
from app.web.openapi.operations import BINARY, EXAMPLE_IMAGE, JSON, Answer, Body, a_list, an_object, an_open_object

IMAGE_ERRORS: tuple[type[CaskError], ...] = (
    errors.ImageEmptyError,
    errors.ImageMissingError,
    errors.ImageTooComplexError,
    errors.ImageTooLargeError,
    errors.ImageUndecodableError,
    errors.ImageUnsupportedError,
    errors.TooManyImagesError,
)
ENGINE_ERRORS: tuple[type[CaskError], ...] = (
    errors.DeadlineExceededError,
    errors.EngineAwayError,
    errors.EngineBusyError,
    errors.GpuOutOfMemoryError,
    errors.ModelNotReadyError,
)
PREDICTION_ERRORS: tuple[type[CaskError], ...] = (
    errors.RequestError,
    MediaTypeError,
    errors.ModelNotFoundError,
    errors.OptionError,
    *IMAGE_ERRORS,
    *ENGINE_ERRORS,
)

# What the answers of a prediction carry, and what its requests may.
PREDICTED = ("Server-Timing", "X-Cache", "Age")
FRESHNESS = "Cache-Control"

BASE64_IMAGE = {
    "type": "string",
    "format": "base64-image",
    "contentEncoding": "base64",
    "description": "An image in base64, also as a `data:` address.",
}


def answer(task: Task) -> Answer:
    """What POST /v1/<name> of a task answers."""
    words = "Answers in the order of the images."
    fields = {"model": ModelIdentity, "results": list[task.image], "request_id": str}  # type: ignore[name-defined]
    schema = typed_dict(f"{task.name.capitalize()}Answer", words, fields)
    return Answer(description=words, schema=schema, example=task.example, headers=PREDICTED)


def typed_dict(name: str, sentence: str, fields: Mapping[str, Any], *, total: bool = True) -> Any:
    """A TypedDict whose fields are made from the tasks."""
    make: Any = TypedDict
    found = make(name, dict(fields), total=total)
    found.__doc__ = sentence
    return found


def bodies(params: type[BaseModel]) -> tuple[Body, ...]:
    """The three ways to send images, with the options beside them."""
    requested = options(params)
    form = an_object({IMAGE_PART: a_list(BINARY), **_plain(requested)}, IMAGE_PART)
    document = an_object({IMAGES_KEY: a_list(BASE64_IMAGE), **requested}, IMAGES_KEY)
    return (
        Body(media_type=JSON, schema=document, examples={"one image": {IMAGES_KEY: [EXAMPLE_IMAGE]}}),
        Body(media_type="multipart/form-data", schema=form),
        Body(media_type="image/*", schema=BINARY),
        Body(media_type="application/octet-stream", schema=BINARY),
    )


def options(params: type[BaseModel]) -> dict[str, Any]:
    """JSON Schemas of the options of a task, by name; null counts as left out."""
    found: dict[str, Any] = params.model_json_schema()["properties"]
    return {name: {key: value for key, value in schema.items() if key != "title"} for name, schema in found.items()}


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Form fields have no null."""
    plain = {
        name: next((each for each in row.get("anyOf", ()) if "type" in each and each["type"] != "null"), row)
        for name, row in options.items()
    }
    return {name: {**row, "description": options[name]["description"]} for name, row in plain.items()}


def _tensor(name: str, datatype: str, items: dict[str, Any], sides: tuple[int, int]) -> dict[str, Any]:
    side = {"type": "integer", "minimum": 1, "maximum": 2**31}
    shape = {"type": "array", "items": side, "minItems": sides[0], "maxItems": sides[1]}
    head = {"name": {"const": name}, "datatype": {"const": datatype}}
    return an_open_object({**head, "shape": shape, "data": a_list(items)}, "name", "datatype", "shape", "data")


_PIXEL = {"type": "integer", "minimum": 0, "maximum": 255}
_INPUTS = {"anyOf": [_tensor("image", "BYTES", BASE64_IMAGE, (1, 8)), _tensor("pixels", "UINT8", _PIXEL, (3, 4))]}


def _parameters(known: str, **properties: dict[str, Any]) -> dict[str, Any]:
    described = {"type": ["object", "null"], "description": f"Known: {known}. Others are ignored."}
    return {**described, "properties": properties} if properties else described


_OUTPUT = an_open_object(
    {"name": {"enum": ["labels", "scores", "sizes"]}, "parameters": _parameters("`binary_data`, true or false")}, "name"
)
# The form in JSON of a request for inference. Binary tensors (Triton's extension) cannot be told in JSON Schema.
INFER = an_open_object(
    {
        "id": {"type": ["string", "null"]},
        "parameters": _parameters(
            "`binary_data_output`, true or false; `timeout`; the task's options",
            timeout={"type": ["integer", "null"], "minimum": 0, "description": "Microseconds; 0 for none."},
        ),
        "inputs": {"type": "array", "items": _INPUTS, "minItems": 1, "maxItems": 1},
        "outputs": {"type": ["array", "null"], "items": _OUTPUT},
    },
    "inputs",
)
